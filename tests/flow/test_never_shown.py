"""A rejected draft is shown to nobody: however the models are nested, however a user reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any, ClassVar, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.callbacks import BaseCallbackHandler, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableLambda,
    RunnableSerializable,
)
from langgraph.graph import START, MessagesState, StateGraph
from typing_extensions import override

from langchain_automix import (
    AutoMixRunnable,
    ChatAutoMix,
    SelfVerifier,
    ThresholdRouter,
    Verification,
)
from langchain_automix.types import ModelCall

DRAFT, KEPT = "zebra", "turku"
"""A word that is only in what is rejected, and one that is only in what is kept."""

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::langchain_automix.UncalibratedWarning"),
    pytest.mark.filterwarnings("ignore:A check draws its samples:UserWarning"),
    pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning"),
]


class Speaker(BaseChatModel):
    """Says one sentence, a word at a time where it is streamed; a check's reply is a verdict."""

    text: str
    model: str = ""
    streaming: bool = False
    fails: bool = False

    @property
    @override
    def _llm_type(self) -> str:
        return "speaker"

    def _reply(self, messages: list[BaseMessage]) -> str:
        if "Verification Decision" in str(messages):
            return f"It says {self.text}.\nVerification Decision: Incorrect"
        return self.text

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.fails:
            raise ConnectionError("away")
        return ChatResult(generations=[ChatGeneration(message=AIMessage(self._reply(messages)))])

    @override
    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        if self.fails:
            raise ConnectionError("away")
        words = self._reply(messages).split(" ")
        for i, word in enumerate(words):
            text = word if i == len(words) - 1 else f"{word} "
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=text))
            if run_manager is not None:
                run_manager.on_llm_new_token(text, chunk=chunk)
            yield chunk


class Unsure(Speaker):
    """Never says the same twice, so that no new answer of it agrees with another."""

    said: ClassVar[list[str]] = []

    @override
    def _reply(self, messages: list[BaseMessage]) -> str:
        self.said.append(super()._reply(messages))
        return f"{self.said[-1]} {len(self.said)}"


class Wrapper(BaseChatModel):
    """A user's own chat model, which calls another one inside."""

    inner: Any
    streams: bool = False

    @property
    @override
    def _llm_type(self) -> str:
        return "wrapper"

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.streams:
            text = "".join(str(chunk.text) for chunk in self.inner.stream(messages))
        else:
            text = str(self.inner.invoke(messages).text)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(text))])


def accept_all(_: Any) -> Verification:
    return Verification(verdicts=(True,))


def reject_all(_: Any) -> Verification:
    return Verification(verdicts=(False,))


def streamed(model: Runnable[Any, Any]) -> Runnable[Any, Any]:
    def read(messages: Any, **_: Any) -> Any:
        total = None
        for chunk in model.stream(messages):
            total = chunk if total is None else total + chunk
        return AIMessage(str(total.text)) if total is not None else None

    return RunnableLambda(read)


def inner_mix(model: Runnable[Any, Any]) -> Runnable[Any, Any]:
    return AutoMixRunnable(
        models=[model, Speaker(text=f"the {DRAFT} again")],
        verifier=RunnableLambda(accept_all),
        router=ThresholdRouter(threshold=0.5),
    )


def configurable(model: Any) -> Runnable[Any, Any]:
    if not isinstance(model, RunnableSerializable):  # a function has no alternatives
        return cast("Runnable[Any, Any]", model)
    which = ConfigurableField(id="which")
    return model.configurable_alternatives(which, other=Speaker(text="none"))


NESTINGS: dict[str, Callable[[Any], Runnable[Any, Any]]] = {
    "bound": lambda model: model.bind(stop=["x"]),
    "configured": lambda model: model.with_config(tags=["mine"], metadata={"a": 1}),
    "retried": lambda model: model.with_retry(stop_after_attempt=2),
    "with fallbacks": lambda model: model.with_fallbacks([Speaker(text=f"a {DRAFT}")]),
    "as a fallback": lambda model: Speaker(text="no", fails=True).with_fallbacks([model]),
    "configurable": configurable,
    "wrapped": lambda model: Wrapper(inner=model),
    "wrapped, streamed": lambda model: Wrapper(inner=model, streams=True),
    "in a chain": lambda model: RunnableLambda(lambda messages, **_: messages) | model,
    "called": lambda model: RunnableLambda(model.invoke),
    "streamed": streamed,
    "a mix": inner_mix,
}


class Tokens(BaseCallbackHandler):
    """A handler of the user's that shows tokens, as `StreamingStdOutCallbackHandler` does."""

    run_inline = True

    def __init__(self) -> None:
        self.shown: list[str] = []

    @override
    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.shown.append(str(token))


def graph_of(asked: Runnable[Any, Any]) -> Any:
    def ask(state: MessagesState) -> Any:
        return {"messages": [asked.invoke(state["messages"])]}

    return StateGraph(MessagesState).add_node(ask).add_edge(START, "ask").compile()


async def by_callbacks(asked: Runnable[Any, Any]) -> Any:
    tokens = Tokens()
    answer = asked.invoke("Where?", {"callbacks": [tokens]})
    await asked.ainvoke("Where?", {"callbacks": [tokens]})
    asked.batch(["Where?"], {"callbacks": [tokens]})
    async for _ in asked.astream("Where?", {"callbacks": [tokens]}):
        pass
    return [answer, *tokens.shown]


async def collected(stream: Any) -> list[Any]:
    return [each async for each in stream]


async def by_graph(asked: Runnable[Any, Any]) -> Any:
    modes = ["messages", "values", "updates", "custom", "debug"]
    given = {"messages": [("human", "Where?")]}
    graph = graph_of(asked)
    shown = list(graph.stream(given, stream_mode=modes))
    return shown + await collected(graph.astream(given, stream_mode=modes))


async def by_protocol(asked: Runnable[Any, Any]) -> Any:
    given = {"messages": [("human", "Where?")]}
    graph = graph_of(asked)
    shown = ["".join(each.text) for each in graph.stream_events(given, version="v3").messages]
    run = await graph.astream_events(given, version="v3")
    return shown + [await each.text async for each in run.messages]


READINGS: dict[str, Callable[[Runnable[Any, Any]], Any]] = {
    "stream": lambda asked: asyncio.to_thread(lambda: list(asked.stream("Where?"))),
    "astream": lambda asked: collected(asked.astream("Where?")),
    "events v1": lambda asked: collected(asked.astream_events("Where?", version="v1")),
    "events v2": lambda asked: collected(asked.astream_events("Where?", version="v2")),
    "events v3": by_protocol,
    "log": lambda asked: collected(asked.astream_log("Where?")),
    "callbacks": by_callbacks,
    "graph": by_graph,
}


def nested(names: list[str], *, streaming: bool) -> Runnable[Any, Any]:
    model: Runnable[Any, Any] = Unsure(text=f"a {DRAFT} built it", streaming=streaming)
    for name in names:
        model = NESTINGS[name](model)
    return model


def price(request: ModelCall) -> float:
    """So much less for a draft that the mix buys even the dearest check of it."""
    return 1.0 if request.model == "large" else 1e-4


def mix(small: Runnable[Any, Any], kind: str) -> Runnable[Any, Any]:
    fields: dict[str, Any] = {
        "models": [small, Speaker(text=f"it was built in {KEPT}", model="large")],
        "verifier": SelfVerifier(samples=1) if kind == "self-check" else RunnableLambda(reject_all),
        "router": ThresholdRouter(threshold=0.5),
    }
    if kind.startswith("default"):
        fields = {"models": fields["models"], "prices": price}
    if kind.endswith("chat model"):
        return ChatAutoMix(**fields)
    return AutoMixRunnable(**fields)


def read(reading: str, asked: Runnable[Any, Any]) -> str:
    shown = []

    async def main() -> None:  # `asyncio.run` writes out what its task returns
        shown.append(await READINGS[reading](asked))

    asyncio.run(main())
    return " ".join(texts(shown, {}))


def texts(value: Any, seen: dict[int, Any]) -> Iterator[str]:
    """Yield every text in what was shown, an object once: `repr` takes three times as long."""
    if isinstance(value, str):
        yield value
    elif id(value) not in seen:
        seen[id(value)] = value
        parts: Iterable[Any]
        if isinstance(value, Mapping):
            parts = (*value.keys(), *value.values())
        elif isinstance(value, Iterable) and isinstance(value, Sized):
            parts = value
        elif hasattr(value, "__dict__"):
            parts = (vars(value), getattr(value, "__pydantic_extra__", None))
        else:
            parts = (repr(value),)
        for part in parts:
            yield from texts(part, seen)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("nesting", NESTINGS)
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["runnable", "default"])
def test_no_word_of_a_rejected_draft(
    reading: str, nesting: str, streaming: bool, kind: str
) -> None:
    Unsure.said.clear()
    shown = read(reading, mix(nested([nesting], streaming=streaming), kind))
    assert any(DRAFT in said for said in Unsure.said)
    assert DRAFT not in shown
    assert KEPT in shown


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(
    names=st.lists(st.sampled_from(list(NESTINGS)), max_size=3),
    reading=st.sampled_from(list(READINGS)),
    kind=st.sampled_from(["runnable", "chat model", "self-check", "default", "default chat model"]),
    streaming=st.booleans(),
)
def test_in_any_nesting(names: list[str], reading: str, kind: str, streaming: bool) -> None:
    shown = read(reading, mix(nested(names, streaming=streaming), kind))
    assert DRAFT not in shown
    assert KEPT in shown
