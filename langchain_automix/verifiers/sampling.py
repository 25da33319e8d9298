"""Draw several independent replies from a chat model: in one request where it can, else in several.

What can go wrong here was measured (traps of `n`, caches and bindings):
- the process-wide LLM cache would answer k identical requests with one reply;
- a bound `temperature` or `tools` would win over the check's own settings;
- a request with `n=k` reports the usage of the whole request on each of its k replies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration
from langchain_core.runnables import Runnable, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase
from typing_extensions import override

from langchain_automix._flow import Call, Flow
from langchain_automix.types import ModelCall

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from langchain_core.messages.ai import UsageMetadata
    from langchain_core.outputs import LLMResult

ChatRunnable = Runnable[Any, AIMessage]
Sampling = Literal["auto", "n", "parallel"]

_REPLY_LENGTH_FIELDS = ("max_tokens", "num_predict", "max_output_tokens")
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
        "temperature",
        "tool_choice",
        "tools",
    }
)


def chat_model_of(model: Runnable[Any, Any]) -> BaseChatModel | None:
    """Return the chat model under any bindings and retries; None for other runnables."""
    while isinstance(model, RunnableBindingBase):
        model = model.bound
    return model if isinstance(model, BaseChatModel) else None


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

    def prepared(inner: ChatRunnable) -> ChatRunnable:
        return for_sampling(inner, temperature=temperature, max_tokens=max_tokens, n=n, nth=nth)

    if isinstance(model, BaseChatModel):
        return model.model_copy(update=_settings(model, temperature, max_tokens, n, nth))
    if isinstance(model, RunnableBindingBase):
        kwargs = {k: v for k, v in model.kwargs.items() if k not in _ANSWER_ONLY_KWARGS}
        return model.model_copy(update={"bound": prepared(model.bound), "kwargs": kwargs})
    if isinstance(model, RunnableWithFallbacks):
        fallbacks = [prepared(fallback) for fallback in model.fallbacks]
        return model.model_copy(
            update={"runnable": prepared(model.runnable), "fallbacks": fallbacks}
        )
    return model


def _settings(
    model: BaseChatModel, temperature: float, max_tokens: int, n: int, nth: int
) -> dict[str, Any]:
    fields = type(model).model_fields
    profile: Mapping[str, Any] = model.profile or {}
    settings: dict[str, Any] = {"cache": False, "disable_streaming": True}
    if "streaming" in fields:
        settings["streaming"] = False
    if "temperature" in fields and profile.get("temperature") is not False:
        settings["temperature"] = temperature
    if not profile.get("reasoning_output"):  # a short limit would cut the thinking, not the reply
        settings |= dict.fromkeys([f for f in _REPLY_LENGTH_FIELDS if f in fields], max_tokens)
    if "n" in fields:
        settings["n"] = n
    seed = getattr(model, "seed", None)
    if isinstance(seed, int):
        settings["seed"] = seed + nth
    return settings


class Bill(BaseCallbackHandler):
    """Collects what the requests beneath one call returned: every reply, and each bill once."""

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
        if self.replies:
            self.calls.append(model_call(self.replies, response.llm_output))


def model_call(
    replies: Sequence[AIMessage], llm_output: Mapping[str, Any] | None = None
) -> ModelCall:
    """Return the bill of one request from its replies.

    With several replies, each either carries the usage of the whole request (OpenAI) or its
    own; all alike is taken for the former, since k samples seldom agree to the token.
    """
    usages = [reply.usage_metadata for reply in replies if reply.usage_metadata is not None]
    whole_request = len(replies) == 1 or all(usage == usages[0] for usage in usages)
    # With several replies LangChain leaves these off the messages.
    metadata = {**(llm_output or {}), **replies[0].response_metadata}
    return ModelCall(
        model=metadata.get("model_name"),
        provider=metadata.get("model_provider"),
        usage=None if not usages else (usages[0] if whole_request else _sum(usages)),
    )


def _sum(usages: Sequence[UsageMetadata]) -> UsageMetadata:
    keys: tuple[Literal["input_tokens", "output_tokens", "total_tokens"], ...]
    keys = ("input_tokens", "output_tokens", "total_tokens")
    total = {key: sum(usage[key] for usage in usages) for key in keys}
    return cast("UsageMetadata", total)


def draw(
    model: ChatRunnable,
    messages: Sequence[BaseMessage],
    *,
    samples: int,
    sampling: Sampling,
    temperature: float,
    max_tokens: int,
) -> Flow[tuple[list[AIMessage], list[ModelCall]]]:
    """Draw samples: with `n` in one request where the model takes it, the rest in parallel."""

    def request(n: int, nth: int) -> tuple[Call, Bill]:
        bill = Bill()
        runnable = for_sampling(model, temperature=temperature, max_tokens=max_tokens, n=n, nth=nth)
        return Call(runnable, list(messages), run_name="verify", callbacks=[bill]), bill

    replies: list[AIMessage] = []
    bills: list[Bill] = []
    in_one = sampling == "n" or (sampling == "auto" and takes_n(model))
    if in_one and samples > 1:
        call, bill = request(samples, 0)
        first = yield [call]
        # Servers that ignore `n` return one reply: the rest is then drawn below.
        replies += (bill.replies or first)[:samples]
        bills.append(bill)
    if missing := samples - len(replies):
        requests = [request(1, nth) for nth in range(len(bills), len(bills) + missing)]
        replies += yield [call for call, _ in requests]
        bills += [bill for _, bill in requests]
    return replies, [call for bill in bills for call in bill.calls]
