"""`ChatAutoMix`: what LangChain expects of a chat model beyond its own tests, and the bill."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler, get_usage_metadata_callback
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import ConfigurableField, Runnable
from langchain_core.tools import tool
from langchain_core.tracers.context import collect_runs
from pydantic import BaseModel

from langchain_automix import (
    AutoMixError,
    ChatAutoMix,
    SelfVerifier,
    ThresholdRouter,
)
from tests.support.builders.mixes import ACCEPTS, REJECTS
from tests.support.builders.obedient_replies import obliging
from tests.support.servers.openai_server import OpenAIServer, answering, is_check


class City(BaseModel):
    """A city."""

    name: str


@tool
def look_up(city: str) -> str:
    """Look up a city."""
    return f"{city} is in Finland."


def mix(server: OpenAIServer, **fields: Any) -> ChatAutoMix:
    # LangChain's usage handler reads nothing where one request has several replies.
    usual = {
        "models": [server.model(name, stream_usage=True) for name in ("small", "large")],
        "router": ThresholdRouter(threshold=0.5),
        "verifier": SelfVerifier(samples=2, sampling="parallel"),
    }
    return ChatAutoMix(**{**usual, **fields})


async def call(how: str, model: ChatAutoMix) -> None:
    """Ask by one of the ways there are."""
    found = HOW[how](model)
    if inspect.isawaitable(found):
        await found


async def _astream(model: ChatAutoMix) -> None:
    async for _ in model.astream("Where?"):
        pass


async def _aevents(model: ChatAutoMix) -> None:
    shown = await model.astream_events("Where?", version="v3")
    await shown.output
    if others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)  # LangChain ends the run in a task of its own


HOW: dict[str, Callable[[ChatAutoMix], Any]] = {
    "invoke": lambda model: model.invoke("Where?"),
    "ainvoke": lambda model: model.ainvoke("Where?"),
    "stream": lambda model: list(model.stream("Where?")),
    "astream": _astream,
    "batch": lambda model: model.batch(["Where?", "When?"]),
    "abatch": lambda model: model.abatch(["Where?", "When?"]),
    "structured": lambda model: model.with_structured_output(City).invoke("Where?"),
    "astructured": lambda model: model.with_structured_output(City).ainvoke("Where?"),
    "generate": lambda model: model.generate([[HumanMessage("Where?")]]),
    "agenerate": lambda model: model.agenerate([[HumanMessage("Where?")]]),
    "events": lambda model: model.stream_events("Where?", version="v3").output,
    "aevents": _aevents,
}
WAYS = tuple(HOW)
# Here LangChain opens a run for the mix itself.
OWN_RUN = ("generate", "agenerate", "events", "aevents")


@pytest.mark.parametrize("verdicts", ["a", "r"])
@pytest.mark.parametrize("how", WAYS)
async def test_every_token_is_counted_once_in_one_run(
    server: OpenAIServer, how: str, verdicts: str
) -> None:
    server.script = obliging(verdicts=verdicts)
    with get_usage_metadata_callback() as counted, collect_runs() as runs:
        await call(how, mix(server))
    billed: Counter[tuple[str, str]] = Counter()
    for bill in server.billed:
        billed[bill["model"], "in"] += bill["prompt_tokens"]
        billed[bill["model"], "out"] += bill["completion_tokens"]
    found: Counter[tuple[str, str]] = Counter()
    for name, usage in counted.usage_metadata.items():
        found[name, "in"] += usage["input_tokens"]
        found[name, "out"] += usage["output_tokens"]
    assert found == billed
    assert {name for name, _ in billed} == ({"small"} if verdicts == "a" else {"small", "large"})
    kinds = [run.run_type for run in runs.traced_runs]
    assert kinds == (["llm"] if how in OWN_RUN else ["chain"] * (2 if "batch" in how else 1))


class TestSettings:
    @pytest.mark.parametrize("how", WAYS)
    async def test_reach_the_answers_and_not_the_checks(
        self, server: OpenAIServer, how: str
    ) -> None:
        server.script = obliging(verdicts="r")
        await call(how, mix(server, temperature=0.25, max_tokens=77, stop=["END"]))
        for body in server.requests:
            said = body["temperature"], body.get("max_completion_tokens"), body.get("stop")
            assert said == ((1.0, 160, None) if is_check(body) else (0.25, 77, ["END"]))

    def test_a_stop_of_one_call_wins(self, server: OpenAIServer) -> None:
        mix(server, stop=["END"], verifier=ACCEPTS).invoke("Where?", stop=["HALT"])
        assert server.requests[0]["stop"] == ["HALT"]

    def test_one_without_effect_is_named(self, server: OpenAIServer) -> None:
        with pytest.warns(UserWarning, match="has no max_retries, timeout of its own: set it on"):
            mix(server, timeout=60, max_retries=2)

    @pytest.mark.filterwarnings("error")
    def test_one_that_is_off_is_no_matter(self, server: OpenAIServer) -> None:
        mix(server, timeout=None, cache=None)

    def test_a_change_takes_effect(self, server: OpenAIServer) -> None:
        server.script = answering("small says", "large says")
        model = mix(server, verifier=REJECTS)
        assert model.invoke("Where?").content == "large says"
        assert model.model_copy(update={"verifier": ACCEPTS}).invoke("?").content == "small says"
        assert model.invoke("Where?").content == "large says", "the copy is another"
        model.force_model = "small"
        assert model.invoke("Where?").content == "small says"

    def test_can_be_configurable(self, server: OpenAIServer) -> None:
        server.script = answering("small says", "large says")
        model = mix(server, verifier=REJECTS).configurable_fields(
            force_model=ConfigurableField(id="who")
        )
        assert model.invoke("Where?").content == "large says"
        chosen = model.with_config(configurable={"who": 0})
        assert chosen.invoke("Where?").content == "small says"

    @pytest.mark.parametrize("disabled", [True, False])
    def test_streaming_can_be_disabled(self, server: OpenAIServer, disabled: bool) -> None:
        server.script = answering("small says", "large says")
        chunks = list(mix(server, verifier=REJECTS, disable_streaming=disabled).stream("Where?"))
        assert [chunk.content for chunk in chunks if chunk.content] == (
            ["large says"] if disabled else ["large ", "says"]
        )
        assert chunks[-1].chunk_position == "last"
        assert bool(server.requests[-1].get("stream")) is not disabled


@pytest.mark.parametrize("how", WAYS)
async def test_name_tags_metadata_and_callbacks_are_honoured(
    server: OpenAIServer, how: str
) -> None:
    class Heard(BaseCallbackHandler):
        def __init__(self) -> None:
            self.roots: list[str] = []

        def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
            if kwargs["parent_run_id"] is None:
                self.roots.append(kwargs["name"])

        def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
            if kwargs["parent_run_id"] is None:
                self.roots.append(serialized["name"])

    server.script = obliging()
    heard = Heard()
    own: dict[str, Any] = {"tags": ["mine"], "metadata": {"team": "red"}, "callbacks": [heard]}
    with collect_runs() as runs:
        await call(how, mix(server, name="Mixed", verifier=ACCEPTS, **own))
    for run in runs.traced_runs:
        assert run.name == "Mixed"
        assert "mine" in (run.tags or [])
        assert run.metadata["team"] == "red"
    assert heard.roots == ["Mixed"] * len(runs.traced_runs)


class TestModels:
    def test_by_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "dummy")
        model = ChatAutoMix(models=["openai:gpt-5.4-mini", "openai:gpt-5.5"])
        assert model.model_names == ("gpt-5.4-mini", "gpt-5.5")

    def test_by_name_without_langchain(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "langchain.chat_models", None)
        with pytest.raises(AutoMixError, match="'openai:gpt-5.4-mini'.* pip install langchain"):
            ChatAutoMix(models=["openai:gpt-5.4-mini", "openai:gpt-5.5"])

    def test_the_profile_is_what_all_can_do(self, server: OpenAIServer) -> None:
        able = {"tool_calling": True, "image_inputs": True, "max_input_tokens": 9, "pdf_inputs": 1}
        less = {"tool_calling": True, "image_inputs": False, "max_input_tokens": 5}
        small, large = (server.model("m", profile=profile) for profile in (able, less))
        assert mix(server, models=[small, large]).profile == less
        unknown = server.model("m", profile=None)
        assert not mix(server, models=[small, unknown]).profile

    def test_tokens_are_counted_as_the_first_model_does(self, server: OpenAIServer) -> None:
        model = mix(server)
        counting = server.model("small", custom_get_token_ids=lambda text: list(range(len(text))))
        model.models = [counting, server.model("large")]
        assert model.get_num_tokens("Where?") == 6

    def test_in_another_mix(self, server: OpenAIServer) -> None:
        server.script = answering("small says", "large says")
        inner = mix(server, verifier=REJECTS)
        outer = mix(server, models=[server.model("third"), inner], verifier=REJECTS)
        server.script = answering("small says", "large says", "third says")
        with get_usage_metadata_callback() as counted, collect_runs() as runs:
            message = outer.invoke("Where?")
        assert message.content == "large says"
        assert message.response_metadata["automix"]["model"] == "small+large"
        assert dict.fromkeys(counted.usage_metadata, 1) == {"third": 1, "small": 1, "large": 1}
        assert len(server.billed) == 3
        assert len(runs.traced_runs) == 1
        assert "".join(str(chunk.content) for chunk in outer.stream("Where?")) == "large says"

    def test_the_graph_names_them(self, server: OpenAIServer) -> None:
        drawn = mix(server).get_graph().draw_mermaid()
        assert "small" in drawn
        assert "large" in drawn


@pytest.mark.parametrize("verifier", [ACCEPTS, REJECTS], ids=["kept", "escalated"])
class TestAgent:
    async def test_calls_its_tools(
        self, server: OpenAIServer, verifier: Runnable[Any, Any]
    ) -> None:
        server.script = obliging("{model} is done.")
        agent: Any = create_agent(mix(server, verifier=verifier), tools=[look_up])
        asked = {"messages": [("human", "Where is 'Turku'?")]}
        name = "small" if verifier is ACCEPTS else "large"
        for found in (agent.invoke(asked), await agent.ainvoke(asked)):
            _, called, said, last = found["messages"]
            assert [each["name"] for each in called.tool_calls] == ["look_up"]
            assert said.content == "Turku is in Finland."
            assert last.content == f"{name} is done."
            assert called.response_metadata["automix"]["model"] == name

    async def test_answers_in_a_format(
        self, server: OpenAIServer, verifier: Runnable[Any, Any]
    ) -> None:
        server.script = obliging()
        model = mix(server, verifier=verifier)
        agent: Any = create_agent(model, tools=[look_up], response_format=City)
        asked = {"messages": [("human", "Where is 'Turku'?")]}
        for found in (agent.invoke(asked), await agent.ainvoke(asked)):
            assert found["structured_response"] == City(name="Turku")


def test_a_draft_is_in_no_event(server: OpenAIServer) -> None:
    server.script = answering("small says", "large says")
    shown = mix(server, verifier=REJECTS).stream_events("Where?", version="v3")
    assert "small" not in "".join(shown.text)
    message: AIMessage = shown.output
    assert message.text == "large says"
    assert message.response_metadata["automix"]["escalated"]
