"""Collect the replies and the cost of the requests made by a call."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.outputs import ChatGeneration
from langchain_core.runnables import Runnable
from typing_extensions import override

from langchain_automix.models.failures import causes_of, may_be_billed
from langchain_automix.models.identity import sole_identity
from langchain_automix.models.prices import is_cached
from langchain_automix.types import ModelCall, UnaccountedCall

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from langchain_core.outputs import LLMResult


_RUNNING: ContextVar[tuple[UUID, ...]] = ContextVar("automix_running", default=())
"""The runs of chat models that contain the current code, innermost last."""

_DEEPEST = 8  # an asynchronous run ends in another context, and so stays in this one


class UsageCollector(BaseCallbackHandler):
    """Collects the results of the requests made by one call: every reply, and each usage once.

    It includes requests that were retried, replaced by a fallback, or made by a nested mix. A mix
    itself reports the cost of its requests, at its own prices. A chat model that calls another one
    is not billed again for what the inner one reported.

    With `mends`, it leaves the usage only on the first of `n` replies, since LangSmith's tracer
    would add it up for each reply. It also sets the model's name on the reply, without which
    LangChain's usage handler counts nothing. It runs before all other handlers.
    """

    run_inline = True
    hears_requests_only = True

    def __init__(self, *, mends: bool = True) -> None:
        """Start with nothing collected.

        Args:
            mends: Whether to correct the replies for later handlers.
        """
        self._mends = mends
        self.clear()

    def clear(self) -> None:
        """Forget everything collected."""
        self.replies: list[AIMessage] = []
        self.failed: list[tuple[str | None, BaseException]] = []
        """Failed requests: the model's name, if known, and the error."""

        self._calls: list[tuple[UUID | None, ModelCall]] = []  # with the run that made each
        self._pending: dict[UUID, tuple[str | None, str | None]] = {}
        self._parents: dict[UUID, UUID | None] = {}
        self._around: dict[UUID, UUID] = {}  # by run, the chat model that it ran inside
        self._mixes: set[UUID] = set()
        self._mix_failed = False

    @property
    def calls(self) -> list[ModelCall]:
        """Requests that were or may have been billed, in the order in which they ended."""
        return [call for run, call in self._calls if not self._is_of_a_mix(run)]

    @calls.setter
    def calls(self, calls: Sequence[ModelCall]) -> None:
        self._calls = [(None, call) for call in calls]

    @property
    def unfinished(self) -> Sequence[ModelCall]:
        """Requests without a reply so far, each of which may be billed."""
        pending = [of for run, of in self._pending.items() if not self._is_of_a_mix(run)]
        return [UnaccountedCall(model=model, provider=provider) for model, provider in pending]

    def requests_for(self, reply: AIMessage) -> list[ModelCall]:
        """Return the requests made by a call that returned a message, its own included."""
        own, heard = to_model_call([reply]), self.calls
        if not heard:  # not a chat model, or one that reports to no handler
            return [own]
        usages = [call.usage for call in heard] + [each.usage_metadata for each in self.replies]
        is_told = "automix" in reply.response_metadata or _is_sum_of(own.usage, usages)
        return heard if is_told else [*heard, own]

    def accounts_for(self, error: BaseException) -> bool:
        """Whether an error raised by a call stems from one of its requests or a nested mix."""
        return self._mix_failed or any(
            mine is cause for _, mine in self.failed for cause in causes_of(error)
        )

    @override
    def on_chain_start(
        self, *args: Any, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        self._parents[run_id] = parent_run_id

    @override
    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        metadata = metadata or {}
        self._parents[run_id] = parent_run_id
        running = _RUNNING.get()
        around = [run for run in running if run in self._pending and run != run_id]
        if around:
            self._around[run_id] = around[-1]
        self._pending[run_id] = (metadata.get("ls_model_name"), metadata.get("ls_provider"))
        if run_id not in running:  # another collector may have added it
            _RUNNING.set((*running, run_id)[-_DEEPEST:])

    @override
    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        model, provider = self._end(run_id)
        told = self.accounts_for(error)  # by an inner model or mix
        self.failed.append((model, error))
        if may_be_billed(error) and not told:
            self._calls.append((run_id, UnaccountedCall(model=model, provider=provider)))

    @override
    def on_llm_end(self, response: LLMResult, *, run_id: UUID | None = None, **kwargs: Any) -> None:
        if run_id is not None:
            self._end(run_id)
        messages = [
            generation.message
            for generation in response.generations[0]
            if isinstance(generation, ChatGeneration)
        ]
        replies = [message for message in messages if isinstance(message, AIMessage)]
        self.replies = replies
        if not replies:
            return
        if "automix" in replies[0].response_metadata and self._mixes_in(run_id):
            return  # the mix has reported its cost
        call = to_model_call(replies, response.llm_output)
        within = [call.usage for run, call in self._calls if self._is_within(run, run_id)]
        if not within or not _is_sum_of(call.usage, within):
            self._calls.append((run_id, call))
        if self._mends:
            _mend(replies, call)

    @override
    def on_custom_event(self, name: str, data: Any, *, run_id: UUID, **kwargs: Any) -> None:
        if name != "automix" or not isinstance(data, Mapping):
            return
        if {"alone", "unfinished"} & data.keys():
            self._mixes.add(run_id)
            self._mix_failed |= "unfinished" in data
            self._calls.append((run_id, _record_call(data)))

    def _end(self, run_id: UUID) -> tuple[str | None, str | None]:
        _RUNNING.set(tuple(run for run in _RUNNING.get() if run != run_id))
        return self._pending.pop(run_id, (None, None))

    def _mixes_in(self, run_id: UUID | None) -> bool:
        return any(run_id == above for mix in self._mixes for above in self._above(mix))

    def _is_of_a_mix(self, run_id: UUID | None) -> bool:
        return any(above in self._mixes for above in self._above(run_id))

    def _above(self, run_id: UUID | None) -> Iterator[UUID]:
        """Yield the ancestors of a run."""
        above = None if run_id is None else self._parents.get(run_id)
        while above is not None:
            yield above
            above = self._parents.get(above)

    def _is_within(self, run_id: UUID | None, outer: UUID | None) -> bool:
        """Whether a chat model ran inside another one."""
        while run_id is not None and (around := self._around.get(run_id)) is not None:
            if around == outer:
                return True
            run_id = around
        return False


def _mend(replies: Sequence[AIMessage], call: ModelCall) -> None:
    first, *others = replies
    first.usage_metadata = call.usage
    for name, value in (("model_name", call.model), ("model_provider", call.provider)):
        if value is not None:
            first.response_metadata.setdefault(name, value)
    for other in others:
        other.usage_metadata = None


def _is_sum_of(usage: UsageMetadata | None, parts: Sequence[UsageMetadata | None]) -> bool:
    """Whether a usage adds nothing to others: it equals one of them, or their sum."""
    if usage is None:
        return True
    known = [_totals(each) for each in parts if each is not None]
    whole = tuple(map(sum, zip(*known, strict=True)))
    return _totals(usage) in (*known, whole)


def _totals(usage: UsageMetadata) -> tuple[int, int]:
    return usage.get("input_tokens", 0), usage.get("output_tokens", 0)


def to_model_call(
    replies: Sequence[AIMessage], llm_output: Mapping[str, Any] | None = None
) -> ModelCall:
    """Return one request, with its usage, given its replies.

    With several replies, each has either the usage of the whole request (OpenAI) or its own. If all
    are equal, it is the former, since samples seldom agree to the token. The reply of a mix has a
    record of what the query cost, drafts and checks included.
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
        if not usages or not all(map(_is_possible, usages))
        else (usages[0] if whole_request else functools.reduce(add_usage, usages)),
    )


def _is_possible(usage: UsageMetadata) -> bool:
    """Return whether no number of tokens is negative: its cost would reduce what others spent."""
    details: Any = (usage.get("input_token_details"), usage.get("output_token_details"))
    numbers = [number for each in details if each for number in each.values() if number]
    # A cached answer of a model that reports no tokens has its cost alone.
    least = min(usage.get("input_tokens", 0), usage.get("output_tokens", 0), *numbers)
    return bool(least >= 0)


def with_model_name(call: ModelCall, model: Runnable[Any, Any]) -> ModelCall:
    """Return a request with the name of its model, if the reply did not report one."""
    if call.model is not None:
        return call
    name, provider = sole_identity(model)
    return call.model_copy(update={"model": name, "provider": call.provider or provider})


def without_output(call: ModelCall) -> ModelCall:
    """Return a call as if it had only read its prompt."""
    if call.usage is None:
        return call
    usage: Any = {k: v for k, v in call.usage.items() if k != "output_token_details"}
    usage |= {"output_tokens": 0, "total_tokens": call.usage["input_tokens"]}
    return call.model_copy(update={"usage": usage})


def _record_call(record: Mapping[str, Any]) -> ModelCall:
    """Return one query of a mix as a request; if unpriced, with only the names of the models."""
    if record["cost"] is None:
        # With a spend limit, prices are known, so a failed query is unpriced because a request was
        # lost.
        kind = UnaccountedCall if "unfinished" in record else ModelCall
        return kind(model=", ".join(record["unpriced"]))
    return ModelCall(model=record.get("model"), usage=record["tokens"], cost=record["cost"])
