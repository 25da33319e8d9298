"""What happens when a model fails, says nothing, or stops half-way: each row over real HTTP."""

from __future__ import annotations

import asyncio
import logging
import pickle
from typing import Any

import openai
import pytest
from langchain_core.exceptions import ContextOverflowError, ModelAPIError, ModelRateLimitError
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from langchain_automix import AutoMixMiddleware, AutoMixTotals, ChatAutoMix, ThresholdRouter
from langchain_automix.errors import AutoMixError, CutShortError, ModelsFailedError
from tests.support.builders.faults import FAULTS, REJECT, WAYS, Desk, Fault, ask, mixed
from tests.support.builders.mixes import Witness, record_of
from tests.support.builders.scripted_replies import Cut, Error, call
from tests.support.servers.openai_server import OpenAIServer

every_way = pytest.mark.parametrize("way", WAYS)
every_fault = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)

REFUSAL = {"content": None, "refusal": "I would rather not."}
NOTHING = {
    "empty": ("", "the answer is empty"),
    "blank": (" \n", "the answer is empty"),
    "refusal": (REFUSAL, "the model refused to answer"),
    "filter": ({"content": "", "finish_reason": "content_filter"}, "a content filter stopped"),
}
every_nothing = pytest.mark.parametrize("nothing", NOTHING.values(), ids=NOTHING)


class TestASmallModelFails:
    @every_way
    @every_fault
    async def test_the_next_is_asked(self, server: OpenAIServer, fault: Fault, way: str) -> None:
        desk = Desk(server, small=fault, large="By the large.")
        message = await ask(way, mixed(server))
        assert message.content == "By the large."
        assert desk.asked() == ["small", "large"], "no check is bought, and nothing asked twice"
        record = record_of(message)
        assert record["failed"] == [{"model": "small", "stage": "draft", "error": fault.error}]
        assert (record["model"], record["escalated"], record["degraded"]) == ("large", True, None)
        assert record["why"] == f"The answering call failed ({fault.error}): large is asked."
        assert (record["cost"] is None) is fault.billed_unseen
        assert record["unpriced"] == (["small"] if fault.billed_unseen else [])

    async def test_of_three(self, server: OpenAIServer) -> None:
        desk = Desk(server, small=FAULTS["500"], large=FAULTS["429"], third="By the third.")
        message = await ask("ainvoke", mixed(server, "small", "large", "third"))
        assert message.content == "By the third."
        assert desk.asked() == ["small", "large", "third"]
        assert [it["error"] for it in record_of(message)["failed"]] == [
            FAULTS["500"].error,
            FAULTS["429"].error,
        ]

    def test_a_forced_models_error_is_its_own(self, server: OpenAIServer) -> None:
        desk = Desk(server, small=FAULTS["429"], large="l")
        with pytest.raises(openai.RateLimitError):
            mixed(server, force_model="small").invoke("Where?")
        assert desk.asked() == ["small"]

    def test_its_retries_are_its_own(self, server: OpenAIServer) -> None:
        outcomes: Any = iter(
            [Error(429, headers={"Retry-After": "0.2"}), Error(429), ["small says"]]
        )
        Desk(server, small="")
        server.script = lambda body: next(outcomes)
        models = [server.model("small", max_retries=2), server.model("large")]
        asked = mixed(server, verification=False).model_copy(update={"models": models})
        message = asked.invoke("Where?")
        assert (message.content, record_of(message)["failed"]) == ("small says", [])
        assert len(server.requests) == 3

    def test_what_is_told_holds_no_prompt_and_no_key(self, server: OpenAIServer) -> None:
        said = {"error": {"message": "not with sk-secret-key: Where is the Halcyon?"}}
        Desk(server, small=Error(401, said), large="l")
        message = mixed(server).invoke("Where is the Halcyon?")
        told = str(record_of(message))
        assert "sk-secret" not in told
        assert "Halcyon" not in told
        assert "AuthenticationError" in told

    def test_the_totals_count_it(self, server: OpenAIServer) -> None:
        Desk(server, small=FAULTS["500"], large="By the large.")
        totals = AutoMixTotals()
        mixed(server).invoke("Where?", {"callbacks": [totals]})
        assert (totals.queries, totals.escalations, totals.unfinished) == (1, 1, 0)
        assert totals.tokens["total_tokens"] == server.billed[0]["total_tokens"]
        assert totals.cost is not None

    @pytest.mark.parametrize("kind", [ChatAutoMix, AutoMixMiddleware])
    def test_in_every_form(self, server: OpenAIServer, kind: Any) -> None:
        from langchain.agents import create_agent  # noqa: PLC0415  (slow to import)

        Desk(server, small=FAULTS["500"], large="By the large.")
        models = [server.model("small"), server.model("large")]
        made = kind(models=models, router=ThresholdRouter(), on_escalation_error="answer")
        if kind is ChatAutoMix:
            message = made.invoke("Where?")
        else:
            agent: Any = create_agent(server.model("third"), [], middleware=[made])
            message = agent.invoke({"messages": "Where?"})["messages"][-1]
        assert message.content == "By the large."
        assert record_of(message)["failed"][0]["model"] == "small"

    def test_an_interrupt_of_a_graph_is_no_failure(self, server: OpenAIServer) -> None:
        from langgraph.errors import GraphInterrupt  # noqa: PLC0415  (not of the package)

        def interrupted(_: Any) -> AIMessage:
            raise GraphInterrupt

        desk = Desk(server, large="l")
        asked = mixed(server).model_copy(
            update={"models": [RunnableLambda(interrupted), server.model("large")]}
        )
        with pytest.raises(GraphInterrupt):
            asked.invoke("Where?")
        assert not desk.asked()


class TestALargerModelFails:
    """After the small model's answer was rejected."""

    @every_way
    @every_fault
    async def test_its_error_is_raised(self, server: OpenAIServer, fault: Fault, way: str) -> None:
        Desk(server, check=REJECT, small="A small answer.", large=fault)
        totals = AutoMixTotals()
        with pytest.raises(Exception) as raised:  # noqa: PT011  (its type is compared)
            await ask(way, mixed(server), config={"callbacks": [totals]})
        assert type(raised.value).__name__ == fault.named(way)
        assert (totals.queries, totals.unfinished) == (0, 1)
        assert (totals.cost is None) is fault.billed_unseen

    @every_way
    @every_fault
    async def test_the_draft_is_given_where_it_is_asked_for(
        self, server: OpenAIServer, fault: Fault, way: str
    ) -> None:
        if fault is FAULTS["cut"] and "stream" in way:
            pytest.skip("something was shown: TestAStreamBreaks")
        Desk(server, check=REJECT, small="A small answer.", large=fault)
        message = await ask(way, mixed(server, on_escalation_error="answer"))
        record, error = record_of(message), fault.named(way)
        assert (message.content, record["model"]) == ("A small answer.", "small")
        assert record["degraded"].startswith(f"The call of large failed ({error}): the ")
        assert "answer of small is given, which was not kept" in record["degraded"]
        assert record["failed"] == [{"model": "large", "stage": "escalate", "error": error}]
        assert (record["cost"] is None) is fault.billed_unseen

    @pytest.mark.parametrize("mode", ["raise", "answer"])
    async def test_those_after_it_are_asked_first(self, server: OpenAIServer, mode: Any) -> None:
        desk = Desk(server, check=REJECT, small="s", large=FAULTS["500"], third="By the third.")
        asked = mixed(server, "small", "large", "third", on_escalation_error=mode)
        message = await ask("ainvoke", asked)
        assert message.content == "By the third."
        assert record_of(message)["degraded"] is None
        assert [name for name in desk.asked() if name != "check"] == ["small", "large", "third"]

    def test_a_draft_that_cannot_be_used_is_never_given(self, server: OpenAIServer) -> None:
        Desk(server, small="", large=FAULTS["500"])
        with pytest.raises(openai.InternalServerError):
            mixed(server, on_escalation_error="answer").invoke("Where?")

    async def test_no_stream_shows_the_draft_that_is_not_given(self, server: OpenAIServer) -> None:
        Desk(server, check=REJECT, small="A Zebra.", large=FAULTS["500"])
        witness = Witness()
        shown: list[Any] = []
        with pytest.raises(openai.InternalServerError):
            await events(mixed(server), shown, callbacks=[witness])
        assert shown
        assert "Zebra" not in str(shown)
        assert not witness.open


async def events(mix: Any, shown: list[Any], **config: Any) -> None:
    """Collect what a user who listens to a stream of events is shown."""
    async for event in mix.astream_events("Where?", config, version="v2"):
        if event["event"] in {"on_chat_model_stream", "on_chain_stream", "on_chain_start"}:
            shown.append(event)  # noqa: PERF401  (what was shown before an error counts)


class TestAllFail:
    @every_way
    async def test_one_error_holds_every_cause(self, server: OpenAIServer, way: str) -> None:
        Desk(server, small=FAULTS["500"], large=FAULTS["429"])
        with pytest.raises(ModelsFailedError) as raised:
            await ask(way, mixed(server))
        error = raised.value
        assert isinstance(error, AutoMixError)
        assert [type(each).__name__ for each in error.exceptions] == [
            FAULTS["500"].error,
            FAULTS["429"].error,
        ]
        assert "small: OpenAIAPIError: Error code: 500" in str(error)
        assert "large: OpenAIRateLimitError: Error code: 429" in str(error)
        assert "\n" not in str(error)
        assert not isinstance(error, ModelRateLimitError | ModelAPIError)

    @pytest.mark.parametrize(
        ("fault", "kind"),
        [
            ("too long", ContextOverflowError),
            ("429", ModelRateLimitError),
            ("500", ModelAPIError),
        ],
    )
    def test_of_one_kind_it_is_of_that_kind(
        self, server: OpenAIServer, fault: str, kind: type[Exception]
    ) -> None:
        Desk(server, small=FAULTS[fault], large=FAULTS[fault])
        with pytest.raises(kind) as raised:
            mixed(server).invoke("Where?")
        assert isinstance(raised.value, ModelsFailedError)
        assert len(raised.value.exceptions) == 2

    def test_an_agents_summary_sees_that_it_is_too_long(self, server: OpenAIServer) -> None:
        Desk(server, small=FAULTS["too long"], large=FAULTS["too long"])
        caught = mixed(server).with_fallbacks(
            [RunnableLambda(lambda _: AIMessage("shorter"))],
            exceptions_to_handle=(ContextOverflowError,),
        )
        assert caught.invoke("Where?").content == "shorter"

    def test_it_goes_through_groups_and_processes_whole(self) -> None:
        causes = [ModelRateLimitError("a"), ModelRateLimitError("b")]
        error = ModelsFailedError.of({"small": causes[0], "large": causes[1]})
        again = pickle.loads(pickle.dumps(error))
        assert isinstance(again, ModelsFailedError)
        assert isinstance(again, ModelRateLimitError)
        assert str(again) == str(error)
        assert again.is_retryable

        async def fails() -> None:
            raise error

        async def both() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(fails())

        with pytest.raises(ExceptionGroup) as raised:
            asyncio.run(both())
        assert raised.value.exceptions == (error,)


class TestNoAnswer:
    """Empty, refused or filtered: not usable, and no check is bought for it."""

    @every_way
    @every_nothing
    async def test_the_next_is_asked(
        self, server: OpenAIServer, nothing: tuple[Any, str], way: str
    ) -> None:
        desk = Desk(server, small=nothing[0], large="By the large.")
        message = await ask(way, mixed(server))
        assert message.content == "By the large."
        assert desk.asked() == ["small", "large"]
        record = record_of(message)
        assert nothing[1] in record["why"].lower()
        assert (record["degraded"], record["failed"]) == (None, [])

    @every_way
    @every_nothing
    async def test_also_where_nothing_is_checked(
        self, server: OpenAIServer, nothing: tuple[Any, str], way: str
    ) -> None:
        if nothing[0] == REFUSAL and "stream" in way:
            pytest.skip("langchain-openai drops a streamed refusal: to it the answer is empty")
        desk = Desk(server, small=nothing[0], large="By the large.")
        message = await ask(way, mixed(server, verification=False))
        assert message.content.strip() == "By the large."
        assert desk.asked() == ["small", "large"]

    @every_way
    @every_nothing
    async def test_of_all_the_last_is_given_as_it_is(
        self, server: OpenAIServer, nothing: tuple[Any, str], way: str
    ) -> None:
        Desk(server, small=nothing[0], large=nothing[0])
        message = await ask(way, mixed(server))
        bare = await ask(way, server.model("large"))
        assert message.content == bare.content
        assert message.additional_kwargs == bare.additional_kwargs
        record = record_of(message)
        assert record["model"] == "large"
        assert record["degraded"] == "The answer of large cannot be used, and is given as it is."

    @every_nothing
    @pytest.mark.parametrize("mode", ["raise", "answer"])
    async def test_of_the_last_after_an_answer_was_rejected(
        self, server: OpenAIServer, nothing: tuple[Any, str], mode: Any
    ) -> None:
        Desk(server, check=REJECT, small="A Zebra.", large=nothing[0])
        message = await ask("ainvoke", mixed(server, on_escalation_error=mode))
        assert (message.content == "A Zebra.") is (mode == "answer")
        assert record_of(message)["degraded"].startswith("The answer of large cannot be used")

    def test_a_tool_call_is_an_answer(self, server: OpenAIServer) -> None:
        desk = Desk(server, small=call("weather", city="Turku"))
        message = mixed(server).invoke("Where?")
        assert message.tool_calls
        assert desk.asked() == ["small", "check"]

    @pytest.mark.parametrize(
        ("content", "metadata", "is_answer"),
        [
            ([{"type": "refusal", "refusal": "no"}], {}, False),
            ("No.", {"stop_reason": "refusal"}, False),
            ([{"type": "text", "text": "  "}], {}, False),
            ([{"type": "reasoning", "reasoning": "hm"}], {}, False),
            ([{"type": "image", "base64": "aGk=", "mime_type": "image/png"}], {}, True),
            ("Yes.", {"stop_reason": "end_turn"}, True),
        ],
    )
    def test_of_other_providers(
        self, server: OpenAIServer, content: Any, metadata: Any, is_answer: bool
    ) -> None:
        said = AIMessage(content, response_metadata=metadata)
        Desk(server, large="By the large.")
        models: list[Any] = [RunnableLambda(lambda _: said), server.model("large")]
        asked = mixed(server, verification=False).model_copy(update={"models": models})
        assert (record_of(asked.invoke("Where?"))["model"] == "model-0") is is_answer


def streams(server: OpenAIServer, **fields: Any) -> Any:
    """A mix whose first model's answer is kept unchecked, and so is shown as it comes."""
    return mixed(server, verification=False, **fields)


class TestAStreamBreaks:
    @pytest.mark.parametrize("way", ["stream", "astream"])
    @pytest.mark.parametrize("politely", [True, False])
    async def test_after_something_was_shown(
        self, server: OpenAIServer, way: str, politely: bool
    ) -> None:
        Desk(server, small=Cut("Half an answer.", politely=politely), large="l")
        with pytest.raises(Exception) as raised:  # noqa: PT011  (its type is looked at)
            await ask(way, streams(server))
        assert len(server.requests) == 1
        assert isinstance(raised.value, CutShortError) is politely
        if politely:
            assert "small ended before its answer did" in str(raised.value)

    @pytest.mark.parametrize("way", ["stream", "astream"])
    @pytest.mark.parametrize("politely", [True, False])
    async def test_before_anything_was_shown(
        self, server: OpenAIServer, way: str, politely: bool
    ) -> None:
        Desk(server, small=Cut("Half.", after=0, politely=politely), large="By the large.")
        message = await ask(way, streams(server))
        assert message.content == "By the large."
        record = record_of(message)
        assert record["failed"][0]["stage"] == "draft"
        assert record["cost"] is None, "it may have been billed unseen"

    @every_way
    @every_fault
    async def test_the_next_streams_instead(
        self, server: OpenAIServer, fault: Fault, way: str
    ) -> None:
        if fault is FAULTS["cut"] and "stream" in way:
            pytest.skip("something was shown")
        Desk(server, small=fault, large="By the large.")
        message = await ask(way, streams(server))
        assert message.content == "By the large."
        assert record_of(message)["model"] == "large"

    @pytest.mark.parametrize("politely", [True, False])
    async def test_events_that_were_shown(self, server: OpenAIServer, politely: bool) -> None:
        Desk(server, small=Cut("Half an answer.", politely=politely), large="By the large.")
        shown: list[Any] = []
        with pytest.raises(Exception):  # noqa: B017, PT011  (its type is tested above)
            await events(streams(server), shown)
        told = [it["data"]["chunk"] for it in shown if it["event"] == "on_chat_model_stream"]
        assert "".join(chunk.content for chunk in told) == "Half "
        assert len(server.requests) == 1

    async def test_a_draft_that_was_streamed_to_no_one(self, server: OpenAIServer) -> None:
        Desk(server, small=Cut("Half an answer.", politely=True), large="By the large.")
        models = [server.model("small", streaming=True), server.model("large")]
        asked = streams(server).model_copy(update={"models": models})
        message = await ask("ainvoke", asked)
        assert message.content == "By the large."
        assert record_of(message)["failed"][0]["error"] == "CutShortError"

    @pytest.mark.parametrize("way", ["stream", "astream"])
    async def test_a_filter_after_something_was_shown(self, server: OpenAIServer, way: str) -> None:
        Desk(server, small={"content": "So far.", "finish_reason": "content_filter"}, large="l")
        message = await ask(way, streams(server))
        assert message.content == "So far."
        assert "filter" in record_of(message)["degraded"]


def test_a_warning_is_logged_of_each_failure(
    server: OpenAIServer, caplog: pytest.LogCaptureFixture
) -> None:
    Desk(server, small=FAULTS["500"], large="l")
    with caplog.at_level(logging.WARNING, "langchain_automix"):
        mixed(server).invoke("Where?")
    assert "small failed (draft): OpenAIAPIError" in caplog.text
