"""Models that the configuration of a run swaps for others: the mix is one of the models asked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from langchain_core.runnables import ConfigurableField

from langchain_automix import AutoMixRunnable, ChatAutoMix
from tests.mix.test_learner import WAYS, aask, ask
from tests.support.builders.learners import FakeLearner
from tests.support.builders.mixes import ACCEPTS, ROUTER, record_of
from tests.support.servers.openai_server import OpenAIServer

TINY: Any = {"configurable": {"small": "other"}}
NANO: Any = {"configurable": {"name": "nano"}}


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        server.script = lambda body: [f"a {body['model']} answer"]
        yield server


def alternatives(server: OpenAIServer) -> Any:
    which = ConfigurableField(id="small")
    return server.model("small").configurable_alternatives(which, other=server.model("tiny"))


def fields(server: OpenAIServer) -> Any:
    return server.model("small").configurable_fields(model_name=ConfigurableField(id="name"))


def mixed(server: OpenAIServer, small: Any, learner: Any = None) -> AutoMixRunnable:
    return AutoMixRunnable.from_models(
        small, server.model("large"), verifier=ACCEPTS, router=ROUTER, learning=learner
    )


def asked(automix: Any, way: str, configs: Sequence[Any]) -> list[Any]:
    """Return the answers to a query under each configuration, asked in one loop."""
    if not way.startswith("a"):
        return [ask(automix, way, config) for config in configs]

    async def all_of_them() -> list[Any]:
        return [await aask(automix, way, config) for config in configs]

    return asyncio.run(all_of_them())


def epochs(learner: FakeLearner) -> list[str]:
    return [ended.config.epoch for _, ended in learner.ended]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("made", "config", "name"), [(alternatives, TINY, "tiny"), (fields, NANO, "nano")]
)
def test_a_record_names_the_model_that_answered(
    server: OpenAIServer, way: str, made: Any, config: Any, name: str
) -> None:
    automix = mixed(server, made(server))
    found = asked(automix, way, (None, config, None))
    names = [record_of(message)["model"] for message in found]
    assert names == ["small", name, "small"] == [body["model"] for body in server.requests]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("made", "config"), [(alternatives, TINY), (fields, NANO)])
def test_another_model_is_another_epoch(
    server: OpenAIServer, way: str, made: Any, config: Any
) -> None:
    learner = FakeLearner(router=ROUTER)
    automix = mixed(server, made(server), learner)
    asked(automix, way, (None, config, None, config))
    first, other, *again = epochs(learner)
    assert again == [first, other]
    assert first == automix.mix_config.epoch != other


def test_each_query_of_a_batch_goes_by_its_own(server: OpenAIServer) -> None:
    automix = mixed(server, alternatives(server))
    found = automix.batch(["a", "b"], [{}, TINY])
    assert [record_of(message)["model"] for message in found] == ["small", "tiny"]


def test_a_chat_model_too(server: OpenAIServer) -> None:
    learner = FakeLearner(router=ROUTER)
    models = [alternatives(server), server.model("large")]
    chat = ChatAutoMix(models=models, verifier=ACCEPTS, router=ROUTER, learning=learner)
    assert record_of(chat.invoke("Where?", TINY))["model"] == "tiny"
    assert record_of(asyncio.run(chat.ainvoke("Where?")))["model"] == "small"
    assert len(set(epochs(learner))) == 2


def test_under_wrappers_and_with_bound_settings(server: OpenAIServer) -> None:
    retried = alternatives(server).with_retry().with_config(configurable={"small": "other"})
    falls_back = alternatives(server).with_fallbacks([server.model("large")])
    assert record_of(mixed(server, retried).invoke("Where?"))["model"] == "tiny"
    assert record_of(mixed(server, falls_back).invoke("Where?", TINY))["model"] == "tiny"


def test_a_choice_that_there_is_not_is_a_failure_of_its_own_query(server: OpenAIServer) -> None:
    automix = mixed(server, alternatives(server))
    wrong: Any = {"configurable": {"small": "unknown"}}
    found = automix.batch(["a", "b"], [wrong, {}])
    assert [record_of(message)["model"] for message in found] == ["large", "small"]
    assert record_of(found[0])["failed"][0]["error"] == "ValueError"
