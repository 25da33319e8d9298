"""Each warning names the line of the user's that led to it."""

from __future__ import annotations

import asyncio
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda

import langchain_automix
from langchain_automix import (
    AgreementVerifier,
    AutoMixRunnable,
    ChatAutoMix,
    POMDPRouter,
    SelfVerifier,
    ThresholdRouter,
    calibrate,
)
from langchain_automix.mix import unknown_names
from langchain_automix.mix.unknown_names import refuse_unknown_tools
from langchain_automix.models import attachments, prices, sampling
from langchain_automix.routers import pomdp
from tests.support.builders.calibrating import PRICES, script
from tests.support.builders.mixes import mix
from tests.support.builders.synthetic_logs import world
from tests.support.servers.openai_server import OpenAIServer, answering

ROOT = Path(langchain_automix.__file__).parent
EXAMPLES = [{"question": f"Where was ship {i} built?", "reference": "Turku"} for i in range(6)]


def test_no_other_way_to_warn() -> None:
    """What warns by itself must count frames, and a later change makes the count wrong."""
    found = [
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        if re.search(r"\bwarnings\.warn\(", path.read_text(encoding="utf-8"))
    ]
    assert found == ["utils/user_warnings.py"]


@pytest.fixture(autouse=True)
def said_again() -> None:
    """Warnings that are given once are given again in each test."""
    for once in (
        pomdp._warn_uncalibrated,
        sampling._warn_used_as_is,
        attachments._warn_unreadable,
        unknown_names._warn_once,
    ):
        once.cache_clear()
    prices._WARNED.clear()


def failing(call: Any) -> Any:
    raise ValueError("no price")


def uncalibrated(server: OpenAIServer) -> None:
    mix(server, router=POMDPRouter(), verifier=SelfVerifier(samples=8)).invoke("Where?")


def uncalibrated_in_a_chain(server: OpenAIServer) -> None:
    router, verifier = POMDPRouter(), SelfVerifier(samples=8)
    prompt = ChatPromptTemplate.from_template("{question}")
    (prompt | mix(server, router=router, verifier=verifier)).invoke({"question": "Where?"})


def uncalibrated_in_a_stream(server: OpenAIServer) -> None:
    list(mix(server, router=POMDPRouter(), verifier=SelfVerifier(samples=8)).stream("Where?"))


def uncalibrated_in_a_batch(server: OpenAIServer) -> None:
    mix(server, router=POMDPRouter(), verifier=SelfVerifier(samples=8)).batch(["Where?", "When?"])


def uncalibrated_async(server: OpenAIServer) -> None:
    asked = mix(server, router=POMDPRouter(), verifier=SelfVerifier(samples=8))

    async def ask() -> None:
        await asked.ainvoke("Where?")

    asyncio.run(ask())


def another_check(server: OpenAIServer) -> None:
    router = POMDPRouter.fit(world(60), verifier=SelfVerifier())
    models = [server.model("small"), server.model("large")]
    AutoMixRunnable.from_models(*models, router=router, verifier=AgreementVerifier())


def no_cost(server: OpenAIServer) -> None:
    models = [server.model("small"), server.model("large")]
    AutoMixRunnable(models=models, router=ThresholdRouter(), cost_weight=1.0)


def no_timeout(server: OpenAIServer) -> None:
    models = [server.model("small"), server.model("large")]
    ChatAutoMix(models=models, router=ThresholdRouter(), timeout=3)  # type: ignore[call-arg]


def no_price(server: OpenAIServer) -> None:
    mix(server, prices=failing, verifier=SelfVerifier(samples=2)).invoke("Where?")


def no_sampling(server: OpenAIServer) -> None:
    checker: Any = RunnableLambda(lambda given: AIMessage("Verification Decision: Correct"))
    mix(server, verifier=SelfVerifier(model=checker, samples=2)).invoke("Where?")


def no_images(server: OpenAIServer) -> None:
    blind = server.model("small", profile={"image_inputs": False})
    image = {"type": "image", "base64": "aGVsbG8=", "mime_type": "image/png"}
    asked = [HumanMessage([{"type": "text", "text": "What is this?"}, image])]
    mix(server, verifier=SelfVerifier(model=blind, samples=2)).invoke(asked)


def another_tool(server: OpenAIServer) -> None:
    from langchain.agents import create_agent  # noqa: PLC0415

    models = [server.model("small"), server.model("large")]
    always = ["wholly_other"]
    model = ChatAutoMix(models=models, router=ThresholdRouter(), always_escalate_tools=always)

    def search(text: str) -> str:
        """Search."""
        return text

    asked: Any = {"messages": [("human", "Hello.")]}
    create_agent(model, tools=[search]).invoke(asked)


def counted_in_seconds(server: OpenAIServer) -> None:
    models = [server.model("small"), server.model("large")]
    calibrate(EXAMPLES, models, verifier=SelfVerifier(samples=2))


def stopped_at_max_spend(server: OpenAIServer) -> None:
    models = [server.model("small", max_tokens=8), server.model("large", max_tokens=8)]
    checked = AutoMixRunnable(models=models, verifier=SelfVerifier(samples=2), prices=PRICES)
    many = [{"question": f"Where was ship {i} built?", "reference": "Turku"} for i in range(40)]
    spent = 0.0
    for answer in (a for q in calibrate(many, checked, out="whole.jsonl") for a in q.answers):
        spent += answer.cost or 0.0
    calibrate(many, checked, out="part.jsonl", max_spend=spent / 2, concurrency=1)


def failed_examples(server: OpenAIServer) -> None:
    def sometimes(body: Any) -> Any:
        return 400 if "ship 3" in str(body["messages"]) else script(body)

    server.script = sometimes
    models = [server.model("small"), server.model("large")]
    calibrate(EXAMPLES, models, verifier=SelfVerifier(samples=2), prices=PRICES)


def unknown_grades(server: OpenAIServer) -> None:
    def grade(answer: str, references: Any) -> float | None:
        return 1.0 if answer == "Turku" else None

    models = [server.model("small"), server.model("large")]
    checked = AutoMixRunnable(models=models, verifier=SelfVerifier(samples=2), prices=PRICES)
    calibrate(EXAMPLES, checked, quality=grade)


def unreadable_references(server: OpenAIServer) -> None:
    models = [server.model("small"), server.model("large")]
    checked = AutoMixRunnable(models=models, verifier=SelfVerifier(samples=2), prices=PRICES)
    more = [{"question": "Where was ship 8 built?", "reference": "3"}]
    calibrate([*EXAMPLES, *more], checked, quality="numeric")


DOORS: list[tuple[Callable[[OpenAIServer], None], str]] = [
    (uncalibrated, "prior that is not calibrated"),
    (uncalibrated_in_a_chain, "prior that is not calibrated"),
    (uncalibrated_in_a_stream, "prior that is not calibrated"),
    (uncalibrated_in_a_batch, "prior that is not calibrated"),
    (uncalibrated_async, "prior that is not calibrated"),
    (another_check, "fitted to another check"),
    (no_cost, "knows no cost"),
    (no_timeout, "has no timeout of its own"),
    (no_price, "prices= failed"),
    (no_sampling, "draws its samples from"),
    (no_images, "are not checked"),
    (another_tool, "no such tool"),
    (counted_in_seconds, "counted in seconds"),
    (stopped_at_max_spend, "Stopped at max_spend"),
    (failed_examples, "examples failed"),
    (unknown_grades, "the grader could not tell"),
    (unreadable_references, "cannot read the accepted answers"),
]


@pytest.mark.parametrize(("door", "said"), DOORS, ids=[door.__name__ for door, _ in DOORS])
def test_a_warning_names_the_users_file(
    door: Callable[[OpenAIServer], None],
    said: str,
    server: OpenAIServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    server.script = answering("small says", "large says", verdicts="a")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        door(server)
    ours = [each for each in caught if said in str(each.message)]
    assert ours, [str(each.message) for each in caught]
    assert {each.filename for each in ours} == {__file__}


def test_the_innermost_line_of_the_users_is_named() -> None:
    tools: Any = [{"type": "function", "function": {"name": "search"}}]

    def helper() -> None:
        refuse_unknown_tools(["quite_another"], tools, are_all=False)

    with pytest.warns(UserWarning, match="quite_another") as caught:
        helper()
    assert caught[0].lineno == helper.__code__.co_firstlineno + 1
