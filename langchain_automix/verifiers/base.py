"""What every verifier has in common: a Runnable from a question and an answer to a verification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NotRequired, Self, TypedDict

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase

from langchain_automix._flowing import FlowRunnable
from langchain_automix.types import Verification


class VerifierInput(TypedDict):
    """An answer to check, and what to check it against."""

    answer: str | BaseMessage
    """The answer: its text, or the message (tool calls in it are shown to the check)."""

    question: NotRequired[str]
    """What was asked."""

    context: NotRequired[str | Sequence[Document | str] | None]
    """What the answer must follow from, most relevant document first."""

    messages: NotRequired[Sequence[BaseMessage]]
    """The conversation that the answer replies to, where there is no question as such; else what
    was said before the question."""

    tools: NotRequired[Sequence[dict[str, Any]]]
    """The tools that the answering model had, in OpenAI's format."""

    attachments: NotRequired[Sequence[dict[str, Any]]]
    """Images, audio, video and files that the answering model got, as content blocks. If not
    given, those in `messages`."""

    samples: NotRequired[int]
    """Number of verdicts to draw, at least 1, instead of the verifier's own number."""

    drawn: NotRequired[int]
    """Number of verdicts on this answer that were drawn before, 0 if not given."""


class Verifier(FlowRunnable[VerifierInput, Verification]):
    """Base of the shipped verifiers.

    `AutoMixRunnable` takes any Runnable from `VerifierInput` to `Verification`; one that
    derives from this class can also be told which model gave the answer.
    """

    def for_model(self, model: Runnable[Any, Any]) -> Self:
        """Return the verifier to use for answers of this model; here, the same one."""
        del model
        return self


def verifier_for(verifier: Runnable[Any, Any], model: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """Return the verifier to use for answers of a model, also where it is bound or retried."""
    if isinstance(verifier, Verifier):
        return verifier.for_model(model)
    if isinstance(verifier, RunnableBindingBase):
        return verifier.model_copy(update={"bound": verifier_for(verifier.bound, model)})
    if isinstance(verifier, RunnableWithFallbacks):
        fallbacks = [verifier_for(fallback, model) for fallback in verifier.fallbacks]
        first = verifier_for(verifier.runnable, model)
        return verifier.model_copy(update={"runnable": first, "fallbacks": fallbacks})
    return verifier
