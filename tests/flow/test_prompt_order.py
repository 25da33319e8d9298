"""In which order the queries of a batch take a step, for a provider's prompt cache."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.prompt_values import ChatPromptValue

from langchain_automix import SelfVerifier
from langchain_automix.flow.prompt_order import LEAST_SHARED, PromptOrder, prompt_text
from langchain_automix.flow.steps import Call
from tests.support.builders.mixes import RAG_PROMPT, by_question, mix
from tests.support.builders.waiting import Gate
from tests.support.servers.openai_server import OpenAIServer
from tests.support.servers.prompt_cache import PromptCache

from .test_batch import batch_of, both


class _Run:
    """A flow that waits for one call."""

    def __init__(self, name: str, input: Any, run_name: str = "draft") -> None:
        self.name = name
        self.calls: tuple[Call, ...] = (Call(_RUNNABLE, input, run_name=run_name),)


_RUNNABLE: Any = object()
LONG = {name: name * LEAST_SHARED for name in "abc"}


def runs(names: str, **kwargs: Any) -> list[Any]:
    """A run for each letter: those with the same letter share a long prompt."""
    return [_Run(name, f"{LONG[name]} {i}", **kwargs) for i, name in enumerate(names)]


def taken(order: PromptOrder, given: list[Any], slots: int) -> str:
    """In which order runs are taken, where the call that was begun first is over first."""
    queue, found = order.level(given), ""
    at_work: list[Any] = []
    while queue or at_work:
        while queue and len(at_work) < slots:
            run: Any = queue.take()
            at_work.append(run)
            found += run.name
        queue.over(at_work.pop(0))
    return found


class TestOrder:
    def test_the_rest_follows_where_the_first_is_over(self) -> None:
        assert taken(PromptOrder(), runs("abcabcabc"), 1) == "aaabbbccc"

    def test_the_first_of_each_go_ahead(self) -> None:
        assert taken(PromptOrder(), runs("aaabbbccc"), 2) == "abaabcbcc"

    def test_no_slot_stays_empty(self) -> None:
        assert taken(PromptOrder(), runs("aaab"), 3) == "abaa"

    def test_short_prompts_stay_as_they_are(self) -> None:
        given: list[Any] = [_Run(f"{i}", f"question {i % 2}") for i in range(6)]
        assert taken(PromptOrder(), given, 2) == "012345"

    def test_what_shares_little_is_not_alike(self) -> None:
        """A long text after a prompt that all have is what counts."""
        system = "s" * LEAST_SHARED
        given: list[Any] = [_Run(name, system + 3 * LONG[name]) for name in "aabb"]
        assert taken(PromptOrder(), given, 2) == "abab"

    def test_a_check_goes_by_the_prompt_of_its_answer(self) -> None:
        order, given = PromptOrder(), runs("aabb")
        taken(order, given, 2)
        for run in given:
            run.calls = (Call(_RUNNABLE, {"answer": "yes"}),)
        assert taken(order, given, 2) == "abab"

    def test_each_kind_of_call_has_its_own(self) -> None:
        """What one model has read is not in another one's cache."""
        given = [*runs("aa"), *runs("aa", run_name="escalate")]
        for run, name in zip(given, "dDeE", strict=True):
            run.name = name
        assert taken(PromptOrder(), given, 2) == "deDE"

    @given(st.text("abc", max_size=12), st.integers(1, 5))
    def test_each_is_taken_once(self, names: str, slots: int) -> None:
        assert sorted(taken(PromptOrder(), runs(names), slots)) == sorted(names)


class TestText:
    @pytest.mark.parametrize(
        "input",
        [
            "Be brief.Hello",
            [SystemMessage("Be brief."), HumanMessage("Hello")],
            ChatPromptValue(messages=[SystemMessage("Be brief."), HumanMessage("Hello")]),
            [SystemMessage("Be brief."), HumanMessage([{"type": "text", "text": "Hello"}])],
        ],
    )
    def test_in_any_form(self, input: Any) -> None:
        assert prompt_text(input) == "Be brief.Hello"

    @pytest.mark.parametrize("input", [{"question": "Hello"}, 3, None, [("human", "Hello")], []])
    def test_of_nothing_else(self, input: Any) -> None:
        assert prompt_text(input) is None


def context(k: int) -> str:
    return " ".join(f"clause{k}.{word}" for word in range(1_100))


def asked(contexts: str) -> list[dict[str, str]]:
    return [{"context": context(int(k)), "question": f"{i}?"} for i, k in enumerate(contexts)]


def contexts_of(requests: list[Any]) -> str:
    return "".join(str(each["messages"]).partition("clause")[2][0] for each in requests)


@both
class TestOverTheWire:
    async def test_two_contexts_are_read_at_once(self, server: OpenAIServer, how: str) -> None:
        server.script, server.prompt_cache = by_question(), PromptCache()
        server.delay = gate = Gate(number=2)
        given = asked("000111")
        rag = mix(server, prompt=RAG_PROMPT)
        batch = batch_of(how, rag, given, {"max_concurrency": 2})
        answering = asyncio.create_task(batch)
        await gate.reached()
        assert sorted(contexts_of(server.requests)) == ["0", "1"]
        gate.open()
        for answer, each in zip(await answering, given, strict=True):
            assert str(answer.text).endswith(each["question"])

    async def test_one_after_the_other(self, server: OpenAIServer, how: str) -> None:
        server.script, server.prompt_cache = by_question(), PromptCache()
        verifier = SelfVerifier(samples=1)
        rag = mix(server, prompt=RAG_PROMPT, verifier=verifier)
        await batch_of(how, rag, asked("010101"), {"max_concurrency": 1})
        assert contexts_of(server.requests) == "000111" * 2
