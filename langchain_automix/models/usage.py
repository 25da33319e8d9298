"""Collects what the requests beneath a call returned and cost."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import add_usage
from langchain_core.outputs import ChatGeneration
from langchain_core.runnables import Runnable
from typing_extensions import override

from langchain_automix.models.failures import may_be_billed
from langchain_automix.models.identity import sole_identity
from langchain_automix.models.prices import is_cached
from langchain_automix.types import ModelCall, UnaccountedCall

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from langchain_core.outputs import LLMResult


class UsageCollector(BaseCallbackHandler):
    """Collects what the requests beneath one call returned: every reply, and each usage once.

    It runs before all other handlers, and leaves the usage on the first of `n` replies only:
    LangSmith's tracer would add it up for each of them, and LangChain's usage handler counts
    nothing without a model's name on the reply.
    """

    run_inline = True

    def __init__(self) -> None:
        self.replies: list[AIMessage] = []
        self.calls: list[ModelCall] = []
        """Requests that were billed, or may have been."""

        self.failed: list[tuple[str | None, BaseException]] = []
        """Requests that failed: the model's name, if known, and the error."""

        self._pending: dict[UUID, tuple[str | None, str | None]] = {}

    @override
    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        metadata = metadata or {}
        self._pending[run_id] = (metadata.get("ls_model_name"), metadata.get("ls_provider"))

    @override
    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        model, provider = self._pending.pop(run_id, (None, None))
        self.failed.append((model, error))
        if may_be_billed(error):
            self.calls.append(UnaccountedCall(model=model, provider=provider))

    @property
    def unfinished(self) -> Sequence[ModelCall]:
        """Requests without a reply so far, each of which may be billed."""
        pending = list(self._pending.values())
        return [UnaccountedCall(model=model, provider=provider) for model, provider in pending]

    @override
    def on_llm_end(self, response: LLMResult, *, run_id: UUID | None = None, **kwargs: Any) -> None:
        if run_id is not None:
            self._pending.pop(run_id, None)
        messages = [
            generation.message
            for generation in response.generations[0]
            if isinstance(generation, ChatGeneration)
        ]
        self.replies = [message for message in messages if isinstance(message, AIMessage)]
        if not self.replies:
            return
        if "automix" in self.replies[0].response_metadata:
            return  # a mix, whose own requests were collected one by one
        call = to_model_call(self.replies, response.llm_output)
        self.calls.append(call)
        first, *others = self.replies
        first.usage_metadata = call.usage
        for name, value in (("model_name", call.model), ("model_provider", call.provider)):
            if value is not None:
                first.response_metadata.setdefault(name, value)
        for other in others:
            other.usage_metadata = None


def to_model_call(
    replies: Sequence[AIMessage], llm_output: Mapping[str, Any] | None = None
) -> ModelCall:
    """Return one request, with its usage, from its replies.

    Each of several replies has either the usage of the whole request (OpenAI) or its own; if all
    are equal, it is the former, since samples seldom agree to the token. The reply of a mix has a
    record with what the query cost, drafts and checks included.
    """
    record = replies[0].response_metadata.get("automix")
    if record is not None and not is_cached(ModelCall(usage=replies[0].usage_metadata)):
        return _record_call(record)
    usages = [reply.usage_metadata for reply in replies if reply.usage_metadata is not None]
    whole_request = len(replies) == 1 or all(usage == usages[0] for usage in usages)
    # With several replies, LangChain does not set these on the messages.
    metadata = {**(llm_output or {}), **replies[0].response_metadata}
    return ModelCall(
        model=metadata.get("model_name"),
        provider=metadata.get("model_provider"),
        usage=None
        if not usages
        else (usages[0] if whole_request else functools.reduce(add_usage, usages)),
    )


def with_model_name(call: ModelCall, model: Runnable[Any, Any]) -> ModelCall:
    """Return a request with the name of its model, if the reply reported none."""
    if call.model is not None:
        return call
    name, provider = sole_identity(model)
    return call.model_copy(update={"model": name, "provider": call.provider or provider})


def without_output(call: ModelCall) -> ModelCall:
    """Return a call as if only its prompt had been read."""
    if call.usage is None:
        return call
    usage: Any = {k: v for k, v in call.usage.items() if k != "output_token_details"}
    usage |= {"output_tokens": 0, "total_tokens": call.usage["input_tokens"]}
    return call.model_copy(update={"usage": usage})


def _record_call(record: Mapping[str, Any]) -> ModelCall:
    """Return one query of a mix as a request; if unpriced, only with the models to blame."""
    if record["cost"] is None:
        return ModelCall(model=", ".join(record["unpriced"]))
    return ModelCall(model=record["model"], usage=record["tokens"], cost=record["cost"])
