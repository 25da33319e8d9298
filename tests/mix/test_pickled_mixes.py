"""A mix sent to another process answers and decides there as here."""

from __future__ import annotations

import multiprocessing
import pickle
from typing import Any

import cloudpickle
import pytest
from langchain_core.prompts import ChatPromptTemplate

from langchain_automix import (
    AutoMixMiddleware,
    AutoMixRunnable,
    ChatAutoMix,
    CircuitBreaker,
    FunctionVerifier,
    SelfVerifier,
    SpendLimit,
    ThresholdRouter,
    Verification,
)
from tests.support.servers.openai_server import OpenAIServer, answering

PROMPT = ChatPromptTemplate.from_template("Read: {context}\nAnswer: {question}")
QUESTION = {"question": "Where was it built?", "context": "It was built in Turku."}
PRICES = {name: {"input": 1.0, "output": 2.0} for name in ("small", "large")}


def mixes(server: OpenAIServer) -> list[Any]:
    models = [server.model("small"), server.model("large")]
    settings: Any = {
        "router": ThresholdRouter(threshold=0.5),
        "verifier": SelfVerifier(samples=4),
        "spend_limit": SpendLimit(1, name="pickled"),
        "circuit_breaker": CircuitBreaker(failures=2),
        "prices": PRICES,
    }
    return [
        AutoMixRunnable(models=models, prompt=PROMPT, **settings),
        AutoMixRunnable(models=[models[0].with_retry(), models[1].bind(stop=["x"])], **settings),
        ChatAutoMix(models=models, **settings),
        AutoMixMiddleware(models=models, **settings)._mix,
    ]


def outcome(mix: Any) -> Any:
    takes_values = getattr(mix, "prompt", None) is not None
    message = mix.invoke(QUESTION if takes_values else QUESTION["question"])
    record = dict(message.response_metadata["automix"])
    return message.text, record["model"], record["verdicts"], record["cost"]


def outcomes(pickled: list[bytes]) -> list[Any]:
    return [outcome(pickle.loads(each)) for each in pickled]


@pytest.mark.parametrize("verdicts", ["a", "r"])
def test_mixes_answer_and_decide_the_same(server: OpenAIServer, verdicts: str) -> None:
    server.script = answering("a", "b", verdicts=verdicts)
    for mix in mixes(server):
        before = outcome(mix)
        assert before[1] == ("small" if verdicts == "a" else "large")
        for pickler in (pickle, cloudpickle):  # what it keeps of a query goes with it, or stays
            assert outcome(pickle.loads(pickler.dumps(mix))) == before


def test_mixes_in_a_spawned_process(server: OpenAIServer) -> None:
    server.script = answering("a", "b", verdicts="r")
    made = mixes(server)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(outcomes, ([pickle.dumps(mix) for mix in made],))
    assert there == [outcome(mix) for mix in made]


def test_a_mix_with_code_in_it_goes_by_cloudpickle(server: OpenAIServer) -> None:
    server.script = answering("a", "b", verdicts="a")
    mix = AutoMixRunnable(
        models=[server.model("small"), server.model("large")],
        verifier=FunctionVerifier(function=lambda answer: Verification(score=1.0)),
        router=ThresholdRouter(threshold=0.5),
        prices=lambda call: 0.5,
    )
    assert outcome(pickle.loads(cloudpickle.dumps(mix))) == outcome(mix)
