"""Draw several independent replies from a chat model: in one request where it can, else in several.

What can go wrong here was measured (traps of `n`, caches and bindings):
- the process-wide LLM cache would answer k identical requests with one reply;
- a bound `temperature` or `tools` would win over the check's own settings;
- a request with `n=k` reports the usage of the whole request on each of its k replies.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.exceptions import ContextOverflowError, ModelInvalidRequestError
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import add_usage
from langchain_core.outputs import ChatGeneration
from langchain_core.runnables import Runnable
from typing_extensions import override

from langchain_automix._faults import LostCall, may_be_billed
from langchain_automix._flow import Call, Flow
from langchain_automix._models import chat_model_of, rebuilt, sole_identity
from langchain_automix.costs import is_cached
from langchain_automix.types import ModelCall
from langchain_automix.verifiers.shaping import Shape, uses_responses_api

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from langchain_core.messages.ai import UsageMetadata
    from langchain_core.outputs import LLMResult

ChatRunnable = Runnable[Any, AIMessage]
Sampling = Literal["auto", "n", "parallel"]

_REPLY_LENGTH_FIELDS = ("max_tokens", "num_predict", "max_output_tokens")
_REPLY_LENGTHS = frozenset({*_REPLY_LENGTH_FIELDS, "max_completion_tokens"})
# Set for the answering call: they would cut or shape a check's reply, or narrow its sampling.
_ANSWER_ONLY_FIELDS = frozenset(
    {"format", "n", "response_format", "stop", "stop_sequences", "streaming", "top_k", "top_p"}
)
# Bound for the answering call; in a check they would call tools or change the sampling.
_ANSWER_ONLY_KWARGS = frozenset(
    {
        *_REPLY_LENGTHS,
        "function_call",
        "functions",
        "n",
        "parallel_tool_calls",
        "response_format",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "stream_usage",
        "temperature",
        "tool_choice",
        "tools",
    }
)

# How a call samples, whatever it is for: the rest may be kept where an answer is asked for again.
_OF_SAMPLING = frozenset(
    {
        "n",
        "seed",
        "stream",
        "stream_options",
        "stream_usage",
        "streaming",
        "temperature",
        "top_k",
        "top_p",
    }
)


def takes_n(model: Runnable[Any, Any]) -> bool:
    """Whether one request to the model can ask for several replies."""
    chat_model = chat_model_of(model)
    if chat_model is None or "n" not in type(chat_model).model_fields:
        return False
    return not uses_responses_api(chat_model)  # which has no `n`


def for_sampling(
    model: ChatRunnable,
    *,
    temperature: float,
    max_tokens: int | None,
    n: int = 1,
    nth: int = 0,
    answers: bool = False,
    further: Mapping[str, Any] | None = None,
    shape: Shape | None = None,
) -> ChatRunnable:
    """Return a copy of the model for drawing samples, with its retries and fallbacks kept.

    Args:
        model: The chat model, bare or bound, with retries or fallbacks.
        temperature: Sampling temperature.
        max_tokens: Longest reply, in tokens; not set where the model thinks first, for the
            thinking counts, too. None: as the model has it.
        n: Replies that one request asks for.
        nth: Number of this request among several like it: a model with a fixed seed gets
            another seed for each, else all would reply the same.
        answers: Whether answers are sampled, so that all that is set or bound to shape them is
            kept: their format, end and tools, and with `max_tokens=None` their length.
        further: Other fields to set, on models that have them, such as `logprobs`.
        shape: What else each chat model's requests hold; where it knows no way, nothing.
    """

    def prepared(chat_model: BaseChatModel) -> ChatRunnable:
        settings = _settings(chat_model, temperature, max_tokens, n, nth, answers=answers)
        fields = type(chat_model).model_fields
        settings |= {name: value for name, value in (further or {}).items() if name in fields}
        copied = chat_model.model_copy(update=settings)
        return copied if shape is None else shape(copied) or copied

    def used_as_it_is(other: ChatRunnable) -> ChatRunnable:
        _say_used_as_it_is(type(other).__name__)
        return other

    dropped = _left_out(max_tokens, answers=answers)

    def for_any_call(kwargs: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in kwargs.items() if name not in dropped}

    return rebuilt(model, prepared, kwargs=for_any_call, other=used_as_it_is)


def _left_out(max_tokens: int | None, *, answers: bool) -> frozenset[str]:
    """Return the arguments of the answering call that a sample goes without."""
    left_out = _OF_SAMPLING if answers else _ANSWER_ONLY_KWARGS
    return left_out if max_tokens is not None else left_out - _REPLY_LENGTHS


@functools.cache
def _say_used_as_it_is(kind: str) -> None:
    warnings.warn(
        f"A check draws its samples from a {kind} as it is: its temperature, cache and tools are "
        "its own, so the samples may all be alike. Give a chat model, bound or with retries or "
        "fallbacks, to have them set.",
        stacklevel=2,
    )


def _settings(
    model: BaseChatModel,
    temperature: float,
    max_tokens: int | None,
    n: int,
    nth: int,
    *,
    answers: bool,
) -> dict[str, Any]:
    fields = type(model).model_fields
    profile: Mapping[str, Any] = model.profile or {}
    settings: dict[str, Any] = {"cache": False, "disable_streaming": True}
    reset = _ANSWER_ONLY_FIELDS & _OF_SAMPLING if answers else _ANSWER_ONLY_FIELDS
    for name in reset & fields.keys():
        settings[name] = fields[name].get_default(call_default_factory=True)
    if isinstance(extra := getattr(model, "model_kwargs", None), dict):
        dropped = _left_out(max_tokens, answers=answers)
        settings["model_kwargs"] = {k: v for k, v in extra.items() if k not in dropped}
    if "temperature" in fields and profile.get("temperature") is not False:
        settings["temperature"] = temperature
    # A short limit would cut the thinking, not the reply.
    if max_tokens is not None and not profile.get("reasoning_output"):
        settings |= dict.fromkeys([f for f in _REPLY_LENGTH_FIELDS if f in fields], max_tokens)
    if "n" in fields and n > 1:
        settings["n"] = n
    seed = getattr(model, "seed", None)
    if isinstance(seed, int):
        settings["seed"] = seed + nth
    return settings


class Bill(BaseCallbackHandler):
    """Collects what the requests beneath one call returned: every reply, and each bill once.

    It comes before all other handlers, and leaves to them a result whose bill stands on the first
    reply alone: LangSmith's tracer would add up the same bill on each of `n` replies, and
    LangChain's usage handler would find no model's name on any, and so count nothing.
    """

    run_inline = True

    def __init__(self) -> None:
        self.replies: list[AIMessage] = []
        self.calls: list[ModelCall] = []
        """Requests that were billed, or may have been."""

        self.failed: list[tuple[str | None, BaseException]] = []
        """Requests that failed: the model's name, where it has one, and the error."""

        self._asked: dict[UUID, tuple[str | None, str | None]] = {}

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
        said = metadata or {}
        self._asked[run_id] = (said.get("ls_model_name"), said.get("ls_provider"))

    @override
    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        model, provider = self._asked.pop(run_id, (None, None))
        self.failed.append((model, error))
        if may_be_billed(error):
            self.calls.append(LostCall(model=model, provider=provider))

    @property
    def unfinished(self) -> Sequence[ModelCall]:
        """Requests that were made, and of which nothing is known yet: each may be billed."""
        asked = list(self._asked.values())
        return [LostCall(model=model, provider=provider) for model, provider in asked]

    @override
    def on_llm_end(self, response: LLMResult, *, run_id: UUID | None = None, **kwargs: Any) -> None:
        if run_id is not None:
            self._asked.pop(run_id, None)
        messages = [
            generation.message
            for generation in response.generations[0]
            if isinstance(generation, ChatGeneration)
        ]
        self.replies = [message for message in messages if isinstance(message, AIMessage)]
        if not self.replies:
            return
        if "automix" in self.replies[0].response_metadata:
            return  # a mix, whose own requests were heard one by one
        call = model_call(self.replies, response.llm_output)
        self.calls.append(call)
        first, *others = self.replies
        first.usage_metadata = call.usage
        for name, value in (("model_name", call.model), ("model_provider", call.provider)):
            if value is not None:
                first.response_metadata.setdefault(name, value)
        for other in others:
            other.usage_metadata = None


def model_call(
    replies: Sequence[AIMessage], llm_output: Mapping[str, Any] | None = None
) -> ModelCall:
    """Return the bill of one request from its replies.

    With several replies, each either carries the usage of the whole request (OpenAI) or its
    own; all alike is taken for the former, since k samples seldom agree to the token. The reply
    of a mix has a record, which tells what the query came to with its drafts and checks.
    """
    record = replies[0].response_metadata.get("automix")
    if record is not None and not is_cached(ModelCall(usage=replies[0].usage_metadata)):
        return _call_of(record)
    usages = [reply.usage_metadata for reply in replies if reply.usage_metadata is not None]
    whole_request = len(replies) == 1 or all(usage == usages[0] for usage in usages)
    # With several replies LangChain leaves these off the messages.
    metadata = {**(llm_output or {}), **replies[0].response_metadata}
    return ModelCall(
        model=metadata.get("model_name"),
        provider=metadata.get("model_provider"),
        usage=None if not usages else (usages[0] if whole_request else _sum(usages)),
    )


def named(call: ModelCall, model: Runnable[Any, Any]) -> ModelCall:
    """Return a request with the name of the model asked, where the reply reported none."""
    if call.model is not None:
        return call
    name, provider = sole_identity(model)
    return call.model_copy(update={"model": name, "provider": call.provider or provider})


def _call_of(record: Mapping[str, Any]) -> ModelCall:
    """Return one query of a mix as a request; without a cost, only with the names to blame."""
    if record["cost"] is None:
        return ModelCall(model=", ".join(record["unpriced"]))
    return ModelCall(model=record["model"], usage=record["tokens"], cost=record["cost"])


def _sum(usages: Sequence[UsageMetadata]) -> UsageMetadata:
    return functools.reduce(add_usage, usages)


def _is_refused(error: Exception) -> bool:
    """Whether a provider found fault with the request itself, such as with its `n`."""
    if isinstance(error, ContextOverflowError):
        return False
    status = getattr(error, "status_code", None)
    return isinstance(error, ModelInvalidRequestError) or status in {400, 422}


class Drawn(NamedTuple):
    """What was drawn, and what could not be."""

    replies: list[AIMessage]
    calls: list[ModelCall]
    undrawn: str | None = None
    """How many replies could not be drawn, and why; None: all were."""


def draw(
    model: ChatRunnable,
    messages: Sequence[BaseMessage],
    *,
    samples: int,
    sampling: Sampling,
    temperature: float,
    max_tokens: int | None,
    drawn: int = 0,
    answers: bool = False,
    further: Mapping[str, Any] | None = None,
    shape: Shape | None = None,
) -> Flow[Drawn]:
    """Draw samples: with `n` in one request where the model takes it, the rest in parallel.

    `drawn` counts the samples drawn before, so that a fixed seed does not repeat them. For the
    rest see `for_sampling`.

    Raises:
        Exception: No reply could be drawn; the first request's error. Where some could, they count.
    """

    def request(n: int, nth: int) -> tuple[Call, Bill]:
        bill = Bill()
        runnable = for_sampling(
            model,
            temperature=temperature,
            max_tokens=max_tokens,
            n=n,
            nth=drawn + nth,
            answers=answers,
            further=further,
            shape=shape,
        )
        made = Call(runnable, list(messages), run_name="verify", callbacks=[bill], hands_back=True)
        return made, bill

    replies: list[AIMessage] = []
    bills: list[Bill] = []
    in_one = sampling == "n" or (sampling == "auto" and takes_n(model))
    errors: list[Exception] = []
    if in_one and samples > 1:
        call, bill = request(samples, 0)
        [first] = yield [call]
        if not isinstance(first, Exception):
            replies += (bill.replies or [first])[:samples]
        elif sampling == "n" or not _is_refused(first):
            raise first
        bills.append(bill)
    # A server that ignores or refuses `n` leaves the rest to be drawn one by one.
    if missing := samples - len(replies):
        asked = len(replies) and 1
        requests = [request(1, nth) for nth in range(asked, asked + missing)]
        for each in (yield [call for call, _ in requests]):
            (errors if isinstance(each, Exception) else replies).append(each)
        bills += [bill for _, bill in requests]
    if errors and not replies:
        raise errors[0]
    calls = [named(call, model) for bill in bills for call in bill.calls]
    return Drawn(replies, calls, _undrawn(errors))


def _undrawn(errors: Sequence[Exception]) -> str | None:
    if not errors:
        return None
    kinds = ", ".join(dict.fromkeys(type(error).__name__ for error in errors))
    return f"{len(errors)} more could not be drawn: {kinds}"
