"""The way of a query written by hand: what the mix is measured against.

Each check is written three times: as a plain function, which makes no run and no record and is the
leanest there can be; as one `RunnableLambda`; and as plain LCEL, step by step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import log
from operator import itemgetter
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
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
from tests.benchmarks.answering import HARD, reply

SURE, UNSURE = 0.95, 0.05
"""How probable the tokens are of a draft that is to be kept, and of one that is not."""

LEAST = 0.5
"""How probable the least probable token must be for a draft to be kept."""


class Instant(BaseChatModel):
    """Answers at once, or after a sleep."""

    name_of_model: str
    model_name: str | None = None
    """What peers ask a model for its name by."""

    temperature: float = 0.0
    sleep: float = 0.0
    logprobs: bool | None = None
    top_logprobs: int | None = None
    text: str | None = None
    """The answer, in place of a short one."""

    fails: bool = False
    """Whether it raises on a hard question."""

    @property
    @override
    def _llm_type(self) -> str:
        return "instant"

    def _result(self, messages: list[BaseMessage]) -> ChatResult:
        asked = "".join(str(message.text) for message in messages)
        if self.fails and HARD in asked:
            raise ValueError("This is too hard.")
        usage = {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12}
        text = reply(asked) if self.text is None else self.text
        message = AIMessage(
            text,
            usage_metadata=usage,
            response_metadata={"model_name": self.name_of_model},
        )
        sure = UNSURE if HARD in asked else SURE
        told = {"logprobs": {"content": _tokens(text, log(sure))}} if self.logprobs else {}
        return ChatResult(generations=[ChatGeneration(message=message, generation_info=told)])

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


def _tokens(text: str, logprob: float) -> list[dict[str, Any]]:
    """Return the words of a text as OpenAI sends its tokens."""
    words = [word if i == 0 else f" {word}" for i, word in enumerate(text.split())]
    return [
        {"token": word, "logprob": logprob, "bytes": list(word.encode()), "top_logprobs": []}
        for word in words
    ]


def is_sure(draft: AIMessage) -> bool:
    """Whether no token of a draft was improbable to the model that wrote it: a free check."""
    tokens = draft.response_metadata["logprobs"]["content"]
    return bool(min(token["logprob"] for token in tokens) >= log(LEAST))


def ask_check(question: str, draft: AIMessage) -> list[BaseMessage]:
    """Return the messages of a self-check."""
    return check_messages(CheckContext(question), str(draft.text))


def read_check(reply: AIMessage) -> bool:
    """Whether a self-check accepts."""
    return bool(parse_verdict(str(reply.text)))


def checker_of(small: BaseChatModel) -> BaseChatModel:
    """Return the model that checks."""
    return small.model_copy(update={"temperature": 1.0, "cache": False, "logprobs": None})


def _recorded(way: dict[str, Any]) -> AIMessage:
    escalated = not way["accepted"]
    message: AIMessage = way["answer"] if escalated else way["draft"]
    record = {
        "model": "large" if escalated else "small",
        "model_index": int(escalated),
        "action": "escalate" if escalated else "answer",
        "escalated": escalated,
        "cost": None,
        "why": f"The check says {way['accepted']}.",
    }
    metadata = {**message.response_metadata, "automix": record}
    return message.model_copy(update={"response_metadata": metadata})


class Plain:
    """A function without a run of its own and without a record, and its twin for asyncio."""

    def __init__(self, small: BaseChatModel, large: BaseChatModel, *, self_check: bool) -> None:
        self.small, self.large = small, large
        self.checker = checker_of(small) if self_check else None

    def ask(self, question: str, config: RunnableConfig | None = None) -> dict[str, Any]:
        """Return what came: the draft, whether it was accepted, the large model's answer."""
        draft = self.small.invoke(question, config)
        if self.checker is None:
            accepted = is_sure(draft)
        else:
            accepted = read_check(self.checker.invoke(ask_check(question, draft), config))
        answer = None if accepted else self.large.invoke(question, config)
        return {"draft": draft, "accepted": accepted, "answer": answer}

    async def aask(self, question: str, config: RunnableConfig | None = None) -> dict[str, Any]:
        """Do the same, asynchronously."""
        draft = await self.small.ainvoke(question, config)
        if self.checker is None:
            accepted = is_sure(draft)
        else:
            accepted = read_check(await self.checker.ainvoke(ask_check(question, draft), config))
        answer = None if accepted else await self.large.ainvoke(question, config)
        return {"draft": draft, "accepted": accepted, "answer": answer}

    def invoke(self, question: str) -> AIMessage:
        """Answer a question."""
        way = self.ask(question)
        answer: AIMessage = way["answer"] or way["draft"]
        return answer

    async def ainvoke(self, question: str) -> AIMessage:
        """Answer a question, asynchronously."""
        way = await self.aask(question)
        answer: AIMessage = way["answer"] or way["draft"]
        return answer


def function(
    small: BaseChatModel, large: BaseChatModel, *, self_check: bool
) -> Runnable[str, AIMessage]:
    """Return the same function as one run, with a record on its answer."""
    plain = Plain(small, large, self_check=self_check)

    def run(question: str, config: RunnableConfig) -> AIMessage:
        return _recorded(plain.ask(question, config))

    async def arun(question: str, config: RunnableConfig) -> AIMessage:
        return _recorded(await plain.aask(question, config))

    return RunnableLambda(run, arun)


def chain(
    small: BaseChatModel, large: BaseChatModel, *, self_check: bool
) -> Runnable[str, AIMessage]:
    """Return the way of a query as users of LCEL write it: assign, assign, branch."""
    if self_check:
        asks = RunnableLambda[dict[str, Any], Any](
            lambda way: ask_check(way["question"], way["draft"])
        )
        check: Any = asks | checker_of(small) | RunnableLambda(read_check)
    else:
        check = RunnableLambda[dict[str, Any], bool](lambda way: is_sure(way["draft"]))
    question = RunnableLambda[dict[str, Any], str](itemgetter("question"))
    keep = RunnableLambda(_recorded)
    return (
        RunnableLambda[str, dict[str, Any]](lambda question: {"question": question})
        | RunnablePassthrough.assign(draft=question | small)
        | RunnablePassthrough.assign(accepted=check)
        | RunnableBranch(
            (itemgetter("accepted"), keep),
            RunnablePassthrough.assign(answer=question | large) | keep,
        )
    )


Builder = Callable[..., Any]
FORMS: dict[str, Builder] = {"plain function": Plain, "one run": function, "LCEL": chain}
