"""`Verifier`, the base of all checks; also handles verifiers in bindings, retries and fallbacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NotRequired, Self, TypedDict

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.runnables import Runnable, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.configurable import DynamicRunnable

from langchain_automix.flow.runnable import FlowRunnable
from langchain_automix.flow.steps import MadeOfSteps
from langchain_automix.models.identity import identity
from langchain_automix.models.pickling import HoldsModels
from langchain_automix.types import ModelCall, Verification
from langchain_automix.utils.check_spec import CheckSpec, spec_of_code
from langchain_automix.utils.fingerprints import fingerprint_of
from langchain_automix.utils.identifiers import is_of_package
from langchain_automix.utils.json_values import json_copy
from langchain_automix.verifiers.score_bound import ScoreBound


class VerifierInput(TypedDict):
    """An answer to check, and what to check it against."""

    answer: str | BaseMessage
    """The text of the answer, or the message, whose tool calls the check then sees, too."""

    question: NotRequired[str]
    """What was asked."""

    context: NotRequired[str | Sequence[Document | str] | None]
    """What the answer must follow from, most relevant document first."""

    messages: NotRequired[Sequence[BaseMessage]]
    """The conversation that the answer replies to; with a `question`, the messages before it."""

    tools: NotRequired[Sequence[dict[str, Any]]]
    """The tools that the answering model had, in OpenAI's format."""

    attachments: NotRequired[Sequence[dict[str, Any]]]
    """Images, audio, video and files given to the answering model, as content blocks. Default:
    those in `messages`."""

    request: NotRequired[Sequence[BaseMessage]]
    """The messages as sent to the answering model. A check continues them, so that a prompt cache
    serves them, or asks them again."""

    earlier: NotRequired[Sequence[BaseMessage]]
    """Earlier answers to the same query by other models of the mix."""

    check: NotRequired[str | None]
    """Which of several combined checks to make; None for the first. Default: all."""

    samples: NotRequired[int]
    """Verdicts to draw, at least 1, instead of the verifier's own number."""

    drawn: NotRequired[int]
    """Number of verdicts already drawn for this answer. Default: 0."""


class Verifier(HoldsModels, FlowRunnable[VerifierInput, Verification], MadeOfSteps):
    """Base of the verifiers in this package.

    `AutoMixRunnable` accepts any Runnable from `VerifierInput` to `Verification`; a subclass also
    learns which model gave the answer.
    """

    @property
    def check_spec(self) -> CheckSpec:
        """The check's settings as a policy file keeps them; what it cannot hold is only named."""
        kind = type(self)
        if not is_of_package(kind):
            return spec_of_code(kind, fingerprint_of(self))
        settings: dict[str, Any] = {}
        models: dict[str, str] = {}
        lacks: list[str] = []
        for name, field in kind.model_fields.items():
            value = self._setting(name)
            if field.exclude or name == "name" or (value is None and field.default is None):
                continue
            if isinstance(value, Runnable):
                if (model := self._name_of(value)) is None:
                    lacks.append(name)
                else:
                    models[name] = model
            elif (plain := json_copy(value)) is None:
                lacks.append(name)
            else:
                (settings[name],) = plain
        return CheckSpec(
            kind=kind.__name__,
            settings=settings,
            models=models,
            lacks=tuple(lacks),
            fingerprint=fingerprint_of(self),
        )

    def _setting(self, name: str) -> Any:
        """Return a field in the form that a file keeps, from which the verifier can be rebuilt."""
        return getattr(self, name)

    def _name_of(self, model: Runnable[Any, Any]) -> str | None:
        """Return the name of a model that the check asks, or None if it has none."""
        return identity(model)[0]

    def for_model(self, model: Runnable[Any, Any]) -> Self:
        """Return the verifier for answers of this model; by default, itself."""
        del model
        return self

    def for_answerer(self, answerer: Runnable[Any, Any]) -> Self:
        """Return the verifier for answers of this model with its tools; by default, itself."""
        del answerer
        return self

    def for_answering(self, model: Runnable[Any, Any]) -> Runnable[Any, Any]:
        """Return the model, set up to return what the check reads, such as log-probabilities."""
        return model

    def expected_calls(
        self, input: VerifierInput, samples: Sequence[int], usage: UsageMetadata
    ) -> Sequence[Sequence[ModelCall]] | None:
        """Return the requests that a check would make, with the tokens they are likely to take.

        Args:
            input: The answer, and what it is checked against.
            samples: Numbers of verdicts to draw.
            usage: Tokens of the request that gave the answer.

        Returns:
            The requests for each number; None if unknown or if the check cannot be made.
        """
        del input, samples, usage
        return None

    def is_free(self, check: str | None = None) -> bool:
        """Whether a check makes no request and takes negligible time; by default, False.

        Args:
            check: Which of several combined checks; None for the first.
        """
        del check
        return False

    def score_bound(self, check: str | None = None) -> ScoreBound | None:
        """Return a bound that follows an answer as it is written, on the score it can still reach.

        Args:
            check: Which of several combined checks; None for the first.

        Returns:
            The bound; None if the end of an answer may still change the score either way.
        """
        del check
        return None

    def own_models(self) -> list[Runnable[Any, Any]]:
        """Return the models that check instead of the answering one; by default, `self.model`."""
        model = getattr(self, "model", None)
        return [model] if isinstance(model, Runnable) else []


def models_of(verifier: Runnable[Any, Any]) -> list[Runnable[Any, Any]]:
    """Return the models of a verifier's own, even if it is wrapped."""
    return [model for inner in _iter_verifiers(verifier) for model in inner.own_models()]


def verifier_for(verifier: Runnable[Any, Any], model: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """Return the verifier for answers of a model, even if it is wrapped."""
    return _map_verifier(verifier, lambda inner: inner.for_model(model))


def bind_answerer(verifier: Runnable[Any, Any], answerer: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """Return the verifier for answers of a model with its tools, even if it is wrapped."""
    return _map_verifier(verifier, lambda inner: inner.for_answerer(answerer))


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


def _iter_verifiers(verifier: Runnable[Any, Any]) -> Iterator[Verifier]:
    if isinstance(verifier, Verifier):
        yield verifier
    elif isinstance(verifier, RunnableBindingBase):
        yield from _iter_verifiers(verifier.bound)
    elif isinstance(verifier, DynamicRunnable):
        yield from _iter_verifiers(verifier.default)
    elif isinstance(verifier, RunnableWithFallbacks):
        for each in (verifier.runnable, *verifier.fallbacks):
            yield from _iter_verifiers(each)


def prepare_answerer(verifier: Runnable[Any, Any], model: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """Return a model set up to return what a verifier reads, even if the verifier is wrapped."""
    for inner in _iter_verifiers(verifier):
        model = inner.for_answering(model)
    return model
