"""What every verifier has in common: a Runnable from a question and an answer to a verification."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NotRequired, Self, TypedDict

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.configurable import DynamicRunnable

from langchain_automix.flow.runnable import FlowRunnable
from langchain_automix.types import Verification
from langchain_automix.utils.fingerprints import stable_name


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

    request: NotRequired[Sequence[BaseMessage]]
    """The messages that the answering model got, as sent: what a check continues, so that a prompt
    cache serves them, or asks again."""

    earlier: NotRequired[Sequence[BaseMessage]]
    """Answers that other models of the mix gave to the same query before this one."""

    check: NotRequired[str | None]
    """Which of several combined checks to make; None: the first. Not given: all of them."""

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

    def for_answerer(self, answerer: Runnable[Any, Any]) -> Self:
        """Return the verifier told what gives the answers: a model with its tools or its format.

        Here, the same one: most checks read an answer, and do not ask for it again.
        """
        del answerer
        return self

    def for_answering(self, model: Runnable[Any, Any]) -> Runnable[Any, Any]:
        """Return the model set to answer with what the check reads, such as log-probabilities.

        Here, the same model: most checks read the text alone.
        """
        return model

    def own_models(self) -> list[Runnable[Any, Any]]:
        """Return the models that the check asks in the place of the one that answered.

        Here, the `model` of the check, where it has one.
        """
        model = getattr(self, "model", None)
        return [model] if isinstance(model, Runnable) else []


def models_of(verifier: Runnable[Any, Any]) -> list[Runnable[Any, Any]]:
    """Return the models that a verifier has of its own, also where it is bound or retried."""
    found: list[Runnable[Any, Any]] = []

    def noted(inner: Verifier) -> Verifier:
        found.extend(inner.own_models())
        return inner

    _map_verifier(verifier, noted)
    return found


def verifier_for(verifier: Runnable[Any, Any], model: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """Return the verifier to use for answers of a model, also where it is bound or retried."""
    return _map_verifier(verifier, lambda inner: inner.for_model(model))


def bind_answerer(verifier: Runnable[Any, Any], answerer: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """Return the verifier told what gives the answers, also where it is bound or retried."""
    return _map_verifier(verifier, lambda inner: inner.for_answerer(answerer))


def fingerprint_of(verifier: Runnable[Any, Any]) -> str:
    """Return what stands for a verifier in a policy file: its fingerprint, else its name."""
    return str(getattr(verifier, "fingerprint", None) or stable_name(verifier))


def _map_verifier(
    verifier: Runnable[Any, Any], change: Callable[[Verifier], Verifier]
) -> Runnable[Any, Any]:
    if isinstance(verifier, Verifier):
        return change(verifier)
    if isinstance(verifier, RunnableBindingBase):
        return verifier.model_copy(update={"bound": _map_verifier(verifier.bound, change)})
    if isinstance(verifier, DynamicRunnable):
        return verifier.model_copy(update={"default": _map_verifier(verifier.default, change)})
    if isinstance(verifier, RunnableWithFallbacks):
        fallbacks = [_map_verifier(fallback, change) for fallback in verifier.fallbacks]
        first = _map_verifier(verifier.runnable, change)
        return verifier.model_copy(update={"runnable": first, "fallbacks": fallbacks})
    return verifier


def prepare_answerer(verifier: Runnable[Any, Any], model: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """Return a model set to answer with what a verifier reads, also where that is bound."""
    if isinstance(verifier, Verifier):
        return verifier.for_answering(model)
    if isinstance(verifier, RunnableBindingBase):
        return prepare_answerer(verifier.bound, model)
    if isinstance(verifier, DynamicRunnable):
        return prepare_answerer(verifier.default, model)
    if isinstance(verifier, RunnableWithFallbacks):
        for each in (verifier.runnable, *verifier.fallbacks):
            model = prepare_answerer(each, model)
    return model
