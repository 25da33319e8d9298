"""The way of a query written by hand as plain LCEL: what the mix is measured against.

The same calls with the same messages, each a run of its own, and a record on the answer.
"""

from __future__ import annotations

import asyncio
from operator import itemgetter
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import (
    Runnable,
    RunnableBranch,
    RunnableConfig,
    RunnableLambda,
    RunnablePassthrough,
)
from typing_extensions import override

from langchain_automix.verifiers.inputs import CheckContext
from langchain_automix.verifiers.prompting.messages import check_messages
from langchain_automix.verifiers.prompting.verdicts import parse_verdict
from tests.benchmarks.answering import reply


class Instant(BaseChatModel):
    """Answers at once, or after a sleep."""

    name_of_model: str
    temperature: float = 0.0
    sleep: float = 0.0

    @property
    @override
    def _llm_type(self) -> str:
        return "instant"

    def _result(self, messages: list[BaseMessage]) -> ChatResult:
        asked = "".join(str(message.text) for message in messages)
        usage = {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12}
        message = AIMessage(
            reply(asked),
            usage_metadata=usage,
            response_metadata={"model_name": self.name_of_model},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._result(messages)

    @override
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.sleep:
            await asyncio.sleep(self.sleep)
        return self._result(messages)


def _ask_check(way: dict[str, Any]) -> list[BaseMessage]:
    return check_messages(CheckContext(way["question"]), str(way["draft"].text))


def _read_check(reply: AIMessage) -> bool | None:
    return parse_verdict(str(reply.text))


def _route(way: dict[str, Any]) -> str:
    return "answer" if way["verdict"] else "escalate"


def _recorded(message: AIMessage, way: dict[str, Any]) -> AIMessage:
    escalated = way["decision"] == "escalate"
    record = {
        "model": "large" if escalated else "small",
        "model_index": int(escalated),
        "action": way["decision"],
        "confidence": None if way["verdict"] is None else float(way["verdict"]),
        "verdicts": [way["verdict"]],
        "escalated": escalated,
        "cost": None,
        "why": f"The verdict is {way['verdict']}.",
    }
    metadata = {**message.response_metadata, "automix": record}
    return message.model_copy(update={"response_metadata": metadata})


def chain(small: BaseChatModel, large: BaseChatModel) -> Runnable[str, AIMessage]:
    """Return the way of a query as users of LCEL write it: assign, assign, branch."""
    checker = small.model_copy(update={"temperature": 1.0, "cache": False})
    check = RunnableLambda(_ask_check) | checker | RunnableLambda(_read_check)
    ask = RunnableLambda[dict[str, Any], str](itemgetter("question"))
    keep = RunnableLambda[dict[str, Any], AIMessage](lambda way: _recorded(way["draft"], way))
    larger = RunnablePassthrough.assign(draft=ask | large) | keep
    return (
        RunnableLambda[str, dict[str, Any]](lambda question: {"question": question})
        | RunnablePassthrough.assign(draft=ask | small)
        | RunnablePassthrough.assign(verdict=check)
        | RunnablePassthrough.assign(decision=RunnableLambda(_route))
        | RunnableBranch((lambda way: way["decision"] == "escalate", larger), keep)
    )


def function(small: BaseChatModel, large: BaseChatModel) -> Runnable[str, AIMessage]:
    """Return the same in as few runs as there can be: one function that calls the parts."""
    checker = small.model_copy(update={"temperature": 1.0, "cache": False})
    router = RunnableLambda(_route)

    def check(way: dict[str, Any], config: RunnableConfig) -> bool | None:
        return _read_check(checker.invoke(_ask_check(way), config))

    async def acheck(way: dict[str, Any], config: RunnableConfig) -> bool | None:
        return _read_check(await checker.ainvoke(_ask_check(way), config))

    verifier = RunnableLambda(check, acheck)

    def run(question: str, config: RunnableConfig) -> AIMessage:
        messages = [HumanMessage(question)]
        way: dict[str, Any] = {"question": question, "draft": small.invoke(messages, config)}
        way["verdict"] = verifier.invoke(way, config)
        way["decision"] = router.invoke(way, config)
        kept = large.invoke(messages, config) if way["decision"] == "escalate" else way["draft"]
        return _recorded(kept, way)

    async def arun(question: str, config: RunnableConfig) -> AIMessage:
        messages = [HumanMessage(question)]
        way: dict[str, Any] = {"question": question, "draft": await small.ainvoke(messages, config)}
        way["verdict"] = await verifier.ainvoke(way, config)
        way["decision"] = await router.ainvoke(way, config)
        escalates = way["decision"] == "escalate"
        kept = await large.ainvoke(messages, config) if escalates else way["draft"]
        return _recorded(kept, way)

    return RunnableLambda(run, arun)
