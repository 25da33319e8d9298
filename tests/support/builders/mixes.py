"""What tests of the mix share: a mix of two models on a server, and a witness of its runs."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tools import tool

from langchain_automix import AutoMixRunnable, ThresholdRouter, Verification
from tests.support.builders.scripted_replies import Body
from tests.support.servers.openai_server import OpenAIServer, Script, answering, is_check

RAG_PROMPT = ChatPromptTemplate.from_template("Read: {context}\nAnswer: {question}")
PROMPT = ChatPromptTemplate.from_messages([("system", "Be brief."), ("human", "{question}")])

DRAFT = "Zebra"
"""A word that is only in the small model's draft, and in the verdict that quotes it."""

REJECTED = f"The {DRAFT} is nowhere.\nVerification Decision: Incorrect"
KEPT = "It was built in Turku."

ROUTER = ThresholdRouter(threshold=0.5)
ACCEPTS: Runnable[Any, Any] = RunnableLambda(lambda _: Verification(score=1.0))
REJECTS: Runnable[Any, Any] = RunnableLambda(lambda _: Verification(score=0.0))
"""A router, and checks that it keeps every answer by, or none."""


def mix(server: OpenAIServer, **fields: Any) -> AutoMixRunnable:
    fields = {"router": ThresholdRouter(threshold=0.5), **fields}
    return AutoMixRunnable.from_models(server.model("small"), server.model("large"), **fields)


def record_of(message: AIMessage) -> dict[str, Any]:
    record: dict[str, Any] = message.response_metadata["automix"]
    return record


def rejecting(draft: Any = f"A {DRAFT} built it.", kept: Any = KEPT) -> Script:
    """The small model's draft is rejected, in words that quote it; the large one's is kept."""

    def script(body: Body) -> list[Any]:
        if is_check(body):
            return [REJECTED] * (body.get("n") or 1)
        return [draft if body["model"] == "small" else kept]

    return script


def by_question(*, rejected: str = "hard", failing: str = "bad") -> Script:
    """Each model answers `model: question`; a question's words say how it goes."""
    check = answering(verdicts="a")
    reject = answering(verdicts="r")

    def script(body: Body) -> Any:
        text = body["messages"][-1]["content"]
        if is_check(body):
            return (reject if rejected in text else check)(body)
        if failing in text:
            return 500
        return [f"{body['model']}: {text}"]

    return script


class Witness(BaseCallbackHandler):
    """Knows the runs that are open, what started, what failed, and every token that was told."""

    run_inline = True

    def __init__(self) -> None:
        self.names: dict[UUID, str] = {}
        self.open: dict[UUID, str] = {}
        self.parents: dict[UUID, UUID | None] = {}
        self.failed: list[str] = []
        self.tokens: list[str] = []
        self.tags: list[list[str]] = []
        self.metadata: list[dict[str, Any]] = []

    def _start(self, run_id: UUID, kwargs: dict[str, Any]) -> None:
        self.names[run_id] = self.open[run_id] = str(kwargs.get("name"))
        self.parents[run_id] = kwargs.get("parent_run_id")
        self.tags.append(kwargs.get("tags") or [])
        self.metadata.append(kwargs.get("metadata") or {})

    def _error(self, run_id: UUID) -> None:
        self.failed.append(self.open.pop(run_id))

    def on_chain_start(self, *args: Any, run_id: UUID, **kwargs: Any) -> None:
        self._start(run_id, kwargs)

    def on_chat_model_start(self, *args: Any, run_id: UUID, **kwargs: Any) -> None:
        self._start(run_id, kwargs)

    def on_chain_end(self, *args: Any, run_id: UUID, **kwargs: Any) -> None:
        del self.open[run_id]

    def on_llm_end(self, *args: Any, run_id: UUID, **kwargs: Any) -> None:
        del self.open[run_id]

    def on_chain_error(self, *args: Any, run_id: UUID, **kwargs: Any) -> None:
        self._error(run_id)

    def on_llm_error(self, *args: Any, run_id: UUID, **kwargs: Any) -> None:
        self._error(run_id)

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.tokens.append(str(token))


@tool
def weather(city: str) -> str:
    """Say what the weather is like."""
    return f"Sun in {city}."


@tool
def pay(amount: float) -> str:
    """Pay an amount."""
    return f"Paid {amount}."
