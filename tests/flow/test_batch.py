"""Many queries at once over real HTTP: order, the cap, failures, cancelling, and no mixing up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.exceptions import ModelAPIError
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable, RunnableLambda

from langchain_automix import (
    AutoMixError,
    AutoMixRunnable,
    SelfVerifier,
    ThresholdRouter,
    Verification,
)
from tests.support.builders.mixes import PROMPT, Witness, by_question, mix, record_of
from tests.support.builders.waiting import Gate, eventually
from tests.support.servers.openai_server import OpenAIServer, answering, is_check

both = pytest.mark.parametrize("how", ["batch", "abatch"])


async def batch_of(
    how: str, runnable: Runnable[Any, Any], given: list[Any], *args: Any, **kwargs: Any
) -> list[Any]:
    if how == "batch":
        # In a thread, so that the loop of the test stays free.
        return await asyncio.to_thread(runnable.batch, given, *args, **kwargs)
    return await runnable.abatch(given, *args, **kwargs)


def questions(count: int) -> list[str]:
    return [f"question {i}{' hard' * (i % 3 == 0)}" for i in range(count)]


@both
class TestCap:
    @pytest.mark.parametrize("listed", [False, True])
    async def test_the_cap_is_of_all_requests(
        self, server: OpenAIServer, how: str, listed: bool
    ) -> None:
        server.script = by_question()
        server.delay = 0.01
        asked = mix(server, verifier=SelfVerifier(sampling="parallel", samples=8))
        config: Any = {"max_concurrency": 3}
        await batch_of(how, asked, questions(4), [config] * 4 if listed else config)
        assert server.most_at_once == 3
        assert len(server.checks) == 32

    async def test_in_a_chain(self, server: OpenAIServer, how: str) -> None:
        server.script = by_question()
        server.delay = 0.01
        verifier = SelfVerifier(sampling="parallel", samples=8)
        chain = PROMPT | mix(server, verifier=verifier) | StrOutputParser()
        given = [{"question": question} for question in questions(4)]
        outputs = await batch_of(how, chain, given, {"max_concurrency": 3})
        assert server.most_at_once == 3
        large = [0, 3]
        assert outputs == [
            f"{'large' if i in large else 'small'}: {question}"
            for i, question in enumerate(questions(4))
        ]

    @pytest.mark.parametrize("wrap", ["with_retry", "with_fallbacks", "with_config", "bind"])
    async def test_in_a_wrapper(self, server: OpenAIServer, how: str, wrap: str) -> None:
        server.script = by_question()
        server.delay = 0.01
        asked = mix(server, verifier=SelfVerifier(sampling="parallel", samples=4))
        given: dict[str, Any] = {
            "with_retry": {"stop_after_attempt": 2},
            "with_fallbacks": {"fallbacks": [server.model("third")]},
            "with_config": {"tags": ["mine"]},
            "bind": {"stop": ["\n"]},
        }
        wrapped = getattr(asked, wrap)(**given[wrap])
        outputs = await batch_of(how, wrapped, questions(4), {"max_concurrency": 3})
        assert server.most_at_once <= 3
        assert [record_of(output)["escalated"] for output in outputs] == [True, False, False, True]


@both
async def test_level_by_level(server: OpenAIServer, how: str) -> None:
    server.script = by_question()
    await batch_of(how, mix(server), questions(6), {"max_concurrency": 2})
    levels = ["check" if is_check(body) else body["model"] for body in server.requests]
    assert levels == ["small"] * 6 + ["check"] * 6 + ["large"] * 2


@both
class TestFailing:
    async def test_each_in_its_place(self, server: OpenAIServer, how: str) -> None:
        server.script = by_question()
        witness = Witness()
        given = ["one", "bad two", "", "hard four"]
        config: Any = {"callbacks": [witness]}
        outputs = await batch_of(how, mix(server), given, config, return_exceptions=True)
        assert [outputs[0].content, outputs[3].content] == ["small: one", "large: hard four"]
        assert isinstance(outputs[1], ModelAPIError)
        assert isinstance(outputs[2], AutoMixError)
        assert not witness.open
        assert witness.failed.count("AutoMixRunnable") == 2

    async def test_in_a_chain(self, server: OpenAIServer, how: str) -> None:
        server.script = by_question()
        chain = PROMPT | mix(server) | StrOutputParser()
        given = [{"question": text} for text in ("one", "bad two", "three")]
        outputs = await batch_of(how, chain, given, return_exceptions=True)
        assert [outputs[0], outputs[2]] == ["small: one", "small: three"]
        assert isinstance(outputs[1], ModelAPIError)

    async def test_the_first_failure_ends_the_batch(self, server: OpenAIServer, how: str) -> None:
        server.script = by_question()
        server.delay = 0.03
        witness = Witness()
        given = ["bad", *questions(9)]
        with pytest.raises(ModelAPIError):
            await batch_of(how, mix(server), given, {"max_concurrency": 2, "callbacks": [witness]})
        asked = len(server.requests)
        assert asked <= 10 + 4, "the drafts, and what was under way when the second model failed"
        await eventually(lambda: not server.at_once)
        assert len(server.requests) == asked
        roots = {run for run, parent in witness.parents.items() if parent is None}
        assert not roots & witness.open.keys()

    async def test_retries_outside_repeat_only_what_failed(
        self, server: OpenAIServer, how: str
    ) -> None:
        good, failures = by_question(), iter([500, 500])

        def script(body: Any) -> Any:
            once = "flaky" in body["messages"][-1]["content"] and not is_check(body)
            return (next(failures, None) if once else None) or good(body)

        server.script = script
        asked = mix(server).with_retry(stop_after_attempt=3, wait_exponential_jitter=False)
        outputs = await batch_of(how, asked, ["one", "flaky two"])
        assert [output.content for output in outputs] == ["small: one", "small: flaky two"]
        assert len(server.requests) == 6

    async def test_fallbacks_outside(self, server: OpenAIServer, how: str) -> None:
        good = by_question()
        server.script = lambda body: ["rescued"] if body["model"] == "third" else good(body)
        asked = mix(server).with_fallbacks([server.model("third")])
        outputs = await batch_of(how, asked, ["one", "bad two"])
        assert [output.content for output in outputs] == ["small: one", "rescued"]


@both
async def test_as_each_completes(server: OpenAIServer, how: str) -> None:
    server.script = by_question()
    if how == "batch":
        pairs = list(mix(server).batch_as_completed(questions(3)))
    else:
        pairs = [pair async for pair in mix(server).abatch_as_completed(questions(3))]
    found = {i: output.content for i, output in pairs if not isinstance(output, Exception)}
    assert found[1] == "small: question 1"
    assert found[0] == "large: question 0 hard"


STAGES = {"small": "draft", "large": "escalate"}


class TestEnding:
    """Cancelled or out of time, nothing is asked after, and the root run is closed."""

    @pytest.mark.parametrize("during", ["draft", "check", "escalate"])
    @pytest.mark.parametrize(
        ("way", "by"),
        [
            ("ainvoke", "cancel"),
            ("ainvoke", "timeout"),
            ("abatch", "cancel"),
            ("astream", "cancel"),
        ],
    )
    async def test_it_ends(self, server: OpenAIServer, during: str, by: str, way: str) -> None:
        queries = 2 if way == "abatch" else 1

        def stage(body: Any) -> str:
            return "check" if is_check(body) else STAGES[body["model"]]

        server.script = answering("s", "l", verdicts="r")
        server.delay = gate = Gate(lambda body: stage(body) == during, queries)
        witness = Witness()
        config: Any = {"callbacks": [witness]}

        async def ask() -> None:
            if way == "ainvoke":
                await mix(server).ainvoke("Where?", config)
            elif way == "abatch":
                await mix(server).abatch(["Where?"] * queries, config)
            else:
                async for _ in mix(server).astream("Where?", config):
                    pass

        asked = await self.end(by, ask, gate, server)
        await eventually(lambda: not server.at_once)
        assert len(server.requests) == asked
        roots = {run for run, parent in witness.parents.items() if parent is None}
        assert not roots & witness.open.keys()
        assert "AutoMixRunnable" in witness.failed

    async def end(self, by: str, ask: Callable[[], Any], gate: Gate, server: OpenAIServer) -> int:
        """End a query; return how many requests had come until then."""
        task = asyncio.create_task(ask())
        await gate.reached()
        asked = len(server.requests)
        if by == "cancel":
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await task
        gate.open()
        return asked

    @both
    async def test_a_models_own_timeout(self, server: OpenAIServer, how: str) -> None:
        server.delay = lambda body: 0.3 if body["model"] == "large" else 0.0
        server.script = answering("s", "l", verdicts="r")
        models = [server.model("small"), server.model("large", timeout=0.05)]
        asked = AutoMixRunnable.from_models(*models, router=ThresholdRouter())
        with pytest.raises(openai.APITimeoutError):
            await batch_of(how, asked, ["Where?"])


class Echo(BaseChatModel):
    """Answers at once, with its own name and the question."""

    model: str

    @property
    def _llm_type(self) -> str:
        return "echo"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        said = AIMessage(f"{self.model}: {messages[-1].text}")
        return ChatResult(generations=[ChatGeneration(message=said)])

    async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
        await asyncio.sleep(0)
        return self._generate(*args, **kwargs)


class TestOneInstance:
    """Answers and records of different questions, asked at once, are never mixed up."""

    def right(self, question: str, message: AIMessage) -> bool:
        hard = "hard" in question
        record = record_of(message)
        return (
            message.content == f"{'large' if hard else 'small'}: {question}"
            and record["escalated"] is hard
            and record["confidence"] == (0.0 if hard else 1.0)
        )

    def test_two_threads(self, server: OpenAIServer) -> None:
        server.script = by_question()
        asked = mix(server)
        given = questions(20)
        with ThreadPoolExecutor(2) as threads:
            messages = list(threads.map(asked.invoke, given))
        assert all(map(self.right, given, messages))

    async def test_a_thousand_coroutines(self) -> None:
        async def score(checked: Any) -> Verification:
            await asyncio.sleep(0)
            question = checked["messages"][-1].text
            assert checked["answer"].text.endswith(question)
            return Verification(score=float("hard" not in question))

        asked = AutoMixRunnable(
            models=[Echo(model="small"), Echo(model="large")],
            verifier=RunnableLambda(score),
            router=ThresholdRouter(),
        )
        given = questions(1000)
        messages = await asyncio.gather(*map(asked.ainvoke, given))
        assert all(map(self.right, given, messages))


class Interrupt(BaseException):
    pass


@both
@pytest.mark.parametrize("cap", [None, 1])
async def test_an_interrupt_from_a_model_is_not_asked_for_again(how: str, cap: int | None) -> None:
    asked: list[Any] = []
    interrupt = Interrupt if how == "batch" else asyncio.CancelledError

    def fails(given: Any) -> AIMessage:
        asked.append(given)
        raise interrupt if len(asked) < 9 else RuntimeError("asked again and again")

    async def afails(given: Any) -> AIMessage:
        return fails(given)

    models = [RunnableLambda(fails, afunc=afails), Echo(model="large")]
    mixed = AutoMixRunnable(models=models, router=ThresholdRouter())
    witness = Witness()
    config: Any = {"max_concurrency": cap, "callbacks": [witness]}
    with pytest.raises(interrupt):
        await batch_of(how, mixed, ["one", "two"], config)
    assert len(asked) <= 2
    assert not witness.open
