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
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.exceptions import ModelInvalidRequestError
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import add_usage
from langchain_core.outputs import ChatGeneration
from langchain_core.runnables import Runnable
from typing_extensions import override

from langchain_automix._flow import Call, Flow
from langchain_automix._models import chat_model_of, rebuilt, sole_identity
from langchain_automix.costs import is_cached
from langchain_automix.types import ModelCall

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from langchain_core.messages.ai import UsageMetadata
    from langchain_core.outputs import LLMResult

ChatRunnable = Runnable[Any, AIMessage]
Sampling = Literal["auto", "n", "parallel"]

_REPLY_LENGTH_FIELDS = ("max_tokens", "num_predict", "max_output_tokens")
# Set for the answering call: they would cut or shape a check's reply, or narrow its sampling.
_ANSWER_ONLY_FIELDS = frozenset(
    {"format", "n", "response_format", "stop", "stop_sequences", "streaming", "top_k", "top_p"}
)
# Bound for the answering call; in a check they would call tools or change the sampling.
_ANSWER_ONLY_KWARGS = frozenset(
    {
        *_REPLY_LENGTH_FIELDS,
        "function_call",
        "functions",
        "max_completion_tokens",
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


def takes_n(model: Runnable[Any, Any]) -> bool:
    """Whether one request to the model can ask for several replies."""
    chat_model = chat_model_of(model)
    if chat_model is None or "n" not in type(chat_model).model_fields:
        return False
    # OpenAI's Responses API has no `n`; only the model itself knows when it is used.
    uses_responses_api = getattr(chat_model, "_use_responses_api", None)
    return not (uses_responses_api is not None and uses_responses_api({}))


def for_sampling(
    model: ChatRunnable, *, temperature: float, max_tokens: int, n: int = 1, nth: int = 0
) -> ChatRunnable:
    """Return a copy of the model for drawing samples, with its retries and fallbacks kept.

    Args:
        model: The chat model, bare or bound, with retries or fallbacks.
        temperature: Sampling temperature.
        max_tokens: Longest reply, in tokens.
        n: Replies that one request asks for.
        nth: Number of this request among several like it: a model with a fixed seed gets
            another seed for each, else all would reply the same.
    """

    def prepared(chat_model: BaseChatModel) -> ChatRunnable:
        return chat_model.model_copy(update=_settings(chat_model, temperature, max_tokens, n, nth))

    def used_as_it_is(other: ChatRunnable) -> ChatRunnable:
        _say_used_as_it_is(type(other).__name__)
        return other

    return rebuilt(model, prepared, kwargs=_for_any_call, other=used_as_it_is)


def _for_any_call(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name not in _ANSWER_ONLY_KWARGS}


@functools.cache
def _say_used_as_it_is(kind: str) -> None:
    warnings.warn(
        f"A check draws its samples from a {kind} as it is: its temperature, cache and tools are "
        "its own, so the samples may all be alike. Give a chat model, bound or with retries or "
        "fallbacks, to have them set.",
        stacklevel=2,
    )


def _settings(
    model: BaseChatModel, temperature: float, max_tokens: int, n: int, nth: int
) -> dict[str, Any]:
    fields = type(model).model_fields
    profile: Mapping[str, Any] = model.profile or {}
    settings: dict[str, Any] = {"cache": False, "disable_streaming": True}
    for name in _ANSWER_ONLY_FIELDS & fields.keys():
        settings[name] = fields[name].get_default(call_default_factory=True)
    if isinstance(extra := getattr(model, "model_kwargs", None), dict):
        settings["model_kwargs"] = {k: v for k, v in extra.items() if k not in _ANSWER_ONLY_KWARGS}
    if "temperature" in fields and profile.get("temperature") is not False:
        settings["temperature"] = temperature
    if not profile.get("reasoning_output"):  # a short limit would cut the thinking, not the reply
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

    @override
    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
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
    status = getattr(error, "status_code", None)
    return isinstance(error, ModelInvalidRequestError) or status in {400, 422}


def draw(
    model: ChatRunnable,
    messages: Sequence[BaseMessage],
    *,
    samples: int,
    sampling: Sampling,
    temperature: float,
    max_tokens: int,
    drawn: int = 0,
) -> Flow[tuple[list[AIMessage], list[ModelCall]]]:
    """Draw samples: with `n` in one request where the model takes it, the rest in parallel.

    `drawn` counts the samples drawn before, so that a fixed seed does not repeat them.
    """

    def request(n: int, nth: int) -> tuple[Call, Bill]:
        bill = Bill()
        runnable = for_sampling(
            model, temperature=temperature, max_tokens=max_tokens, n=n, nth=drawn + nth
        )
        return Call(runnable, list(messages), run_name="verify", callbacks=[bill]), bill

    replies: list[AIMessage] = []
    bills: list[Bill] = []
    in_one = sampling == "n" or (sampling == "auto" and takes_n(model))
    if in_one and samples > 1:
        call, bill = request(samples, 0)
        try:
            first = yield [call]
        except Exception as error:
            if sampling == "n" or not _is_refused(error):
                raise
        else:
            replies += (bill.replies or first)[:samples]
            bills.append(bill)
    # A server that ignores or refuses `n` leaves the rest to be drawn one by one.
    if missing := samples - len(replies):
        requests = [request(1, nth) for nth in range(len(bills), len(bills) + missing)]
        replies += yield [call for call, _ in requests]
        bills += [bill for _, bill in requests]
    return replies, [named(call, model) for bill in bills for call in bill.calls]
