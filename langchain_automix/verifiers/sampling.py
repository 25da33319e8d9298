"""Draw several independent replies from a chat model, in one request if possible.

Measured traps:
- the process-wide LLM cache would answer k identical requests with one reply;
- a bound `temperature` or `tools` would override the check's own settings;
- a request with `n=k` reports the usage of the whole request on each of its k replies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata

from langchain_automix.flow.steps import Call, Steps, gather
from langchain_automix.models.failures import status_of
from langchain_automix.models.identity import identity
from langchain_automix.models.refusals import SEVERAL_REPLIES
from langchain_automix.models.request_shape import RequestShape
from langchain_automix.models.sampling import (
    ChatRunnable,
    for_sampling,
    takes_n,
)
from langchain_automix.models.usage import UsageCollector, with_model_name
from langchain_automix.types import ModelCall

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

Sampling = Literal["auto", "n", "parallel"]


def _is_refused(error: Exception) -> bool:
    """Whether a provider refused the request itself, such as for its `n`."""
    if isinstance(error, ContextOverflowError):
        return False
    return status_of(error) in {400, 422}


class Samples(NamedTuple):
    """The replies drawn, and what could not be drawn."""

    replies: list[AIMessage]
    calls: list[ModelCall]
    undrawn: str | None = None
    """How many replies could not be drawn, and why; None if all were drawn."""


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
    shape: RequestShape | None = None,
) -> Steps[Samples]:
    """Draw samples: in one request with `n` if the model supports it, the rest in parallel.

    `drawn` is the number of samples drawn before, so that a fixed seed does not repeat them. For
    the other arguments see `for_sampling`.

    Raises:
        Exception: No reply could be drawn; this is the first request's error.
    """
    set_up = partial(
        for_sampling,
        model,
        temperature=temperature,
        max_tokens=max_tokens,
        answers=answers,
        further=further,
        shape=shape,
    )

    def request(n: int, nth: int) -> tuple[Call[AIMessage], UsageCollector]:
        bill, runnable = UsageCollector(), set_up(n=n, nth=drawn + nth)
        return Call(runnable, list(messages), run_name="verify", callbacks=[bill]), bill

    replies: list[AIMessage] = []
    bills: list[UsageCollector] = []
    in_one = sampling == "n" or (sampling == "auto" and takes_n(model))
    errors: list[Exception] = []
    refuses_n = False
    if in_one and samples > 1:
        call, bill = request(samples, 0)
        [first] = yield from gather(call)
        if not isinstance(first, Exception):
            replies += (bill.replies or [first])[:samples]
        elif sampling == "n" or not _is_refused(first):
            raise first
        else:
            refuses_n = True
        bills.append(bill)
    # If the server ignores or refuses `n`, draw the rest one by one.
    if missing := samples - len(replies):
        asked = len(replies) and 1
        requests = [request(1, nth) for nth in range(asked, asked + missing)]
        results = yield from gather(*(call for call, _ in requests))
        errors = [each for each in results if isinstance(each, Exception)]
        replies += [each for each in results if not isinstance(each, Exception)]
        bills += [bill for _, bill in requests]
    if errors and not replies:
        raise errors[0]
    if refuses_n:  # the server refuses `n`, and not the request itself
        SEVERAL_REPLIES.remember(model)
    calls = [with_model_name(call, model) for bill in bills for call in bill.calls]
    return Samples(replies, calls, _undrawn(errors))


def sampled_calls(
    model: ChatRunnable, read: int, written: int, samples: int, sampling: Sampling
) -> tuple[ModelCall, ...]:
    """Return the requests that draw samples, with the tokens they are likely to take.

    Args:
        model: The chat model.
        read: Tokens of the prompt.
        written: Tokens of one reply.
        samples: Replies to draw.
        sampling: How to draw them.
    """
    name, provider = identity(model)
    in_one = sampling == "n" or (sampling == "auto" and takes_n(model))
    each = samples if in_one else 1
    tokens = read + each * written
    usage = UsageMetadata(input_tokens=read, output_tokens=each * written, total_tokens=tokens)
    return (ModelCall(model=name, provider=provider, usage=usage),) * (samples // each)


def _undrawn(errors: Sequence[Exception]) -> str | None:
    if not errors:
        return None
    kinds = ", ".join(dict.fromkeys(type(error).__name__ for error in errors))
    return f"{len(errors)} more could not be drawn: {kinds}"
