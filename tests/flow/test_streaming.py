"""A stream of the mix over real HTTP: what a user sees, and when; never a rejected draft."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, cast

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough
from langgraph.graph import START, MessagesState, StateGraph

from langchain_automix import AutoMixRunnable, SelfVerifier, ThresholdRouter
from tests.support.builders.mixes import (
    DRAFT,
    KEPT,
    PROMPT,
    RAG_PROMPT,
    Witness,
    mix,
    record_of,
    rejecting,
    weather,
)
from tests.support.builders.scripted_replies import call, calls
from tests.support.servers.openai_server import OpenAIServer, answering, is_check

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


async def chunks_of(how: str, runnable: Runnable[Any, Any], given: Any, **kwargs: Any) -> list[Any]:
    if how == "stream":
        return list(runnable.stream(given, **kwargs))
    return [chunk async for chunk in runnable.astream(given, **kwargs)]


both = pytest.mark.parametrize("how", ["stream", "astream"])


@both
class TestChunks:
    async def test_an_accepted_answer_comes_once_it_is_accepted(
        self, server: OpenAIServer, how: str
    ) -> None:
        server.script = answering("small says", "large says")
        checks_at_first = None
        if how == "stream":
            for _ in mix(server).stream("Where?"):
                checks_at_first = checks_at_first or len(server.checks)
        else:
            async for _ in mix(server).astream("Where?"):
                checks_at_first = checks_at_first or len(server.checks)
        assert checks_at_first == 1

    @pytest.mark.parametrize("verdicts", ["a", "r"])
    async def test_the_chunks_add_up_to_the_message(
        self, server: OpenAIServer, how: str, verdicts: str
    ) -> None:
        server.script = answering("small says it", "large says it", verdicts=verdicts)
        models = [server.model(name, stream_usage=True) for name in ("small", "large")]
        asked = AutoMixRunnable.from_models(*models, router=ThresholdRouter())
        chunks = await chunks_of(how, asked, "Where?")
        self.same(add_ai_message_chunks(*chunks), asked.invoke("Where?"))
        assert "automix" in chunks[-1].response_metadata
        assert not any("automix" in chunk.response_metadata for chunk in chunks[:-1])
        positions = [chunk.chunk_position for chunk in chunks]
        assert positions == [None] * (len(chunks) - 1) + ["last"]

    @pytest.mark.parametrize("verdicts", ["a", "r"])
    async def test_tool_calls_add_up_too(
        self, server: OpenAIServer, how: str, verdicts: str
    ) -> None:
        two = calls(call("weather", city="Turku"), call("weather", city="Åbo"))
        server.script = answering(two, two, verdicts=verdicts)  # type: ignore[arg-type]
        models = [server.model(name, stream_usage=True) for name in ("small", "large")]
        asked = AutoMixRunnable.from_models(*models, router=ThresholdRouter())
        asked = asked.bind_tools([weather])
        chunks = await chunks_of(how, asked, "Where?")
        merged = add_ai_message_chunks(*chunks)
        self.same(merged, asked.invoke("Where?"))
        assert [made["args"] for made in merged.tool_calls] == [{"city": "Turku"}, {"city": "Åbo"}]

    def same(self, merged: AIMessageChunk, whole: AIMessage) -> None:
        for name in ("content", "tool_calls", "invalid_tool_calls", "usage_metadata"):
            assert getattr(merged, name) == getattr(whole, name), name
        # A stream and a single response of one model differ in these by themselves.
        own = {"token_usage", "logprobs", "id", "finish_reason", "system_fingerprint", "created"}
        found, given = (
            {k: v for k, v in message.response_metadata.items() if k not in own}
            for message in (merged, whole)
        )
        assert found == given
        assert merged.id

    async def test_no_chunk_of_a_rejected_draft(self, server: OpenAIServer, how: str) -> None:
        server.script = rejecting()
        witness = Witness()
        models = [server.model(name, streaming=True) for name in ("small", "large")]
        asked = AutoMixRunnable.from_models(*models, router=ThresholdRouter())
        chunks = await chunks_of(how, asked, "Where?", config={"callbacks": [witness]})
        assert DRAFT not in repr(chunks)
        assert "".join(witness.tokens) == "".join(chunk.text for chunk in chunks) == KEPT
        assert not witness.open

    async def test_in_a_chain(self, server: OpenAIServer, how: str) -> None:
        server.script = rejecting()
        chain = PROMPT | mix(server) | StrOutputParser()
        parts = await chunks_of(how, chain, {"question": "Where?"})
        assert [part for part in parts if part] == ["It ", "was ", "built ", "in ", "Turku."]

    async def test_a_mix_within_a_mix(self, server: OpenAIServer, how: str) -> None:
        server.script = answering("one", "two", "three", verdicts="r" * 8 + "a" * 8)
        inner = AutoMixRunnable.from_models(
            server.model("large"), server.model("third"), router=ThresholdRouter()
        )
        asked = AutoMixRunnable(models=[server.model("small"), inner], router=ThresholdRouter())
        chunks = await chunks_of(how, asked, "Where?")
        merged = add_ai_message_chunks(*chunks)
        assert merged.content == "two"
        record = record_of(merged)
        assert (record["model_index"], record["confidence"]) == (1, 0.0)


@both
async def test_an_escalated_answer_comes_token_by_token(server: OpenAIServer, how: str) -> None:
    seen = threading.Event()
    server.script = rejecting()

    def until_seen(body: dict[str, Any]) -> float:
        # The second token leaves the server only once the reader has the first.
        assert body["model"] == "small" or seen.wait(5)
        return 0.0

    server.token_delay = until_seen
    asked = mix(server)
    if how == "stream":
        for chunk in asked.stream("Where?"):
            if chunk.text:
                seen.set()
    else:
        async for chunk in asked.astream("Where?"):
            if chunk.text:
                seen.set()
    assert seen.is_set()


class TestEvents:
    """Whatever a user may render is searched for a word that only the draft and its check have."""

    def asked(self, server: OpenAIServer, **fields: Any) -> Runnable[Any, Any]:
        server.script = rejecting()
        models = [server.model(name, streaming=True) for name in ("small", "large")]
        fields = {"router": ThresholdRouter(), **fields}
        return PROMPT | AutoMixRunnable.from_models(*models, **fields) | StrOutputParser()

    @pytest.mark.parametrize("sampling", ["n", "parallel"])
    async def test_events(self, server: OpenAIServer, sampling: Any) -> None:
        chain = self.asked(server, verifier=SelfVerifier(samples=2, sampling=sampling))
        events = [e async for e in chain.astream_events({"question": "Where?"}, version="v2")]
        assert DRAFT not in repr(events)
        told = [e["data"]["chunk"].text for e in events if e["event"] == "on_chat_model_stream"]
        assert "".join(told) == KEPT

    async def test_events_of_an_accepted_answer(self, server: OpenAIServer) -> None:
        chain = self.asked(server)
        server.script = answering("small says", "large says")
        events = [e async for e in chain.astream_events({"question": "Where?"}, version="v2")]
        told = [e["data"]["chunk"].text for e in events if e["event"] == "on_chat_model_stream"]
        assert "".join(told) == "small says"
        assert events[-1]["data"]["output"] == "small says"

    async def test_the_log(self, server: OpenAIServer) -> None:
        chain = self.asked(server)
        patches = [patch async for patch in chain.astream_log({"question": "Where?"})]
        assert DRAFT not in repr(patches)
        assert "Turku." in repr(patches)


def graph_around(asked: Runnable[Any, Any], how: str) -> Any:
    def node(state: MessagesState) -> dict[str, Any]:
        return {"messages": [asked.invoke(state["messages"])]}

    async def anode(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await asked.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("answer", cast("Any", node if how == "stream" else anode))
    graph.add_edge(START, "answer")
    return graph.compile()


@both
class TestLangGraph:
    @pytest.mark.parametrize("mode", ["messages", "values", "updates", "debug"])
    async def test_no_rejected_draft(self, server: OpenAIServer, how: str, mode: str) -> None:
        server.script = rejecting()
        graph = graph_around(mix(server), how)
        given = {"messages": [("human", "Where?")]}
        parts = await chunks_of(how, graph, given, stream_mode=mode)
        assert DRAFT not in repr(parts)
        assert "Turku" in repr(parts)
        if mode == "messages":
            assert "".join(part.text for part, _ in parts) == KEPT

    async def test_an_accepted_answer_is_told_once(self, server: OpenAIServer, how: str) -> None:
        server.script = answering("small says", "large says")
        graph = graph_around(mix(server), how)
        given = {"messages": [("human", "Where?")]}
        parts = await chunks_of(how, graph, given, stream_mode="messages")
        assert "".join(part.text for part, _ in parts) == "small says"


@both
class TestStreamedInput:
    async def test_rag(self, server: OpenAIServer, how: str) -> None:
        server.script = rejecting()
        documents = [Document("The Halcyon was built in Turku.")]
        rag = {
            "context": RunnableLambda(lambda _: documents),
            "question": RunnablePassthrough(),
        } | mix(server, prompt=RAG_PROMPT)
        chunks = await chunks_of(how, rag, "Where?")
        assert add_ai_message_chunks(*chunks).content == KEPT
        asked = server.requests[0]["messages"][0]["content"]
        assert asked == "Read: The Halcyon was built in Turku.\nAnswer: Where?"

    async def test_text_that_comes_in_pieces(self, server: OpenAIServer, how: str) -> None:
        def pieces(_: Iterator[Any]) -> Iterator[str]:
            yield from ("Where ", "was ", "it?")

        async def apieces(_: AsyncIterator[Any]) -> AsyncIterator[str]:
            for piece in pieces(iter(())):
                yield piece

        from langchain_core.runnables import RunnableGenerator  # noqa: PLC0415

        chain = RunnableGenerator(pieces, apieces) | mix(server)
        await chunks_of(how, chain, "")
        assert server.requests[0]["messages"][0]["content"] == "Where was it?"


class TestLeaving:
    async def test_a_reader_that_goes_ends_the_request(self, server: OpenAIServer) -> None:
        server.script = rejecting(kept=" ".join(["word"] * 200))
        server.token_delay = lambda body: 0.0 if body["model"] == "small" else 0.02
        witness = Witness()
        stream: Any = mix(server).astream("Where?", {"callbacks": [witness]})
        async for chunk in stream:
            if chunk.text:
                break
        await stream.aclose()
        await self.until(lambda: server.at_once == 0)
        assert len([body for body in server.requests if not is_check(body)]) == 2
        roots = {run for run, parent in witness.parents.items() if parent is None}
        assert not roots & witness.open.keys()

    def test_a_reader_that_goes_ends_the_request_in_sync(self, server: OpenAIServer) -> None:
        server.script = rejecting(kept=" ".join(["word"] * 200))
        server.token_delay = lambda body: 0.0 if body["model"] == "small" else 0.02
        witness = Witness()
        stream: Any = mix(server).stream("Where?", {"callbacks": [witness]})
        next(chunk for chunk in stream if chunk.text)
        stream.close()
        asyncio.run(self.until(lambda: server.at_once == 0))
        roots = {run for run, parent in witness.parents.items() if parent is None}
        assert not roots & witness.open.keys()

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(3):
            while not is_so():  # noqa: ASYNC110  (the server is in a thread)
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("bound", [False, True])
def test_a_draft_asked_for_as_a_stream_is_not_told(server: OpenAIServer, bound: bool) -> None:
    server.script = rejecting()
    witness, asked = Witness(), mix(server)
    if bound:
        models = [server.model(name).bind(stream=True) for name in ("small", "large")]
        asked = AutoMixRunnable(models=models, router=ThresholdRouter())
    kwargs = {} if bound else {"stream": True}
    assert asked.invoke("Who?", {"callbacks": [witness]}, **kwargs).content == KEPT
    assert DRAFT not in "".join(witness.tokens)


def test_retries_that_nothing_can_call_for_leave_the_stream_as_it_is(server: OpenAIServer) -> None:
    server.script = rejecting()
    chunks = [chunk.text for chunk in mix(server, retries_if_unusable=1).stream("Who?")]
    assert [text for text in chunks if text] == ["It ", "was ", "built ", "in ", "Turku."]
