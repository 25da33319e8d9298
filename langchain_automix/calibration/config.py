"""Set-up of a calibration: the models, their prompt, the check, the grader, the unit of cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from langchain_core.messages import BaseMessage, HumanMessage, convert_to_messages
from langchain_core.prompts import BasePromptTemplate, ChatPromptTemplate
from langchain_core.runnables import Runnable

from langchain_automix.calibration.examples.examples import Example
from langchain_automix.calibration.fingerprints import (
    json_hash,
    model_fingerprint,
    model_setting,
    to_json,
)
from langchain_automix.calibration.graders.custom import grader_name
from langchain_automix.errors import AutoMixError
from langchain_automix.mix.runnable import AutoMixRunnable
from langchain_automix.models.identity import lacks_price, secrets_of, sole_identity
from langchain_automix.models.logprobs import asks_for_logprobs
from langchain_automix.models.prices import cost_of, nearest_priced, price_list_hint
from langchain_automix.models.wrappers import (
    map_chat_models,
    without_streaming,
)
from langchain_automix.types import ModelCall
from langchain_automix.utils.check_spec import spec_of
from langchain_automix.utils.default_checks import TOKENS
from langchain_automix.utils.fingerprints import fingerprint_of
from langchain_automix.utils.user_warnings import warn_user
from langchain_automix.verifiers.base import (
    VerifierInput,
    bind_answerer,
    verifier_for,
)
from langchain_automix.verifiers.combined import CombinedVerifier
from langchain_automix.verifiers.default import log_probabilities

Unit = Literal["dollars", "seconds"]
Unlabelled = Literal["agreement", "grade"]
CURRENCIES: dict[Unit, str] = {"dollars": "USD", "seconds": "second"}

ANSWER_FROM_CONTEXT = ChatPromptTemplate.from_messages(
    [
        (
            "system",
            "Answer the question from the context with the shortest phrase that answers it, and "
            "nothing else. If the context does not hold the answer, answer: unanswerable",
        ),
        # The context comes first: questions on one passage then share a long prompt prefix.
        ("human", "Context: {context}\n\nQuestion: {question}"),
    ]
)
"""Prompt for examples with a context if the mix has no prompt; `automix ask` uses it too."""


@dataclass(frozen=True)
class CalibratedCheck:
    """One of the checks that a calibration makes of every answer except the last model's."""

    name: str | None
    """Its name if there are several checks; None if it is the only one."""

    verifier: Runnable[Any, Any]
    checkers: tuple[Runnable[Any, Any], ...]
    """The verifier for the answers of each model."""

    @property
    def samples(self) -> int | None:
        """Number of verdicts that it draws; None if unknown."""
        return getattr(self.verifier, "samples", None)

    @property
    def fingerprint(self) -> str:
        """Hash of its prompt and sampling, as in a policy file."""
        return fingerprint_of(self.verifier)

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that its calls depend on, by name."""
        defaults = {"sampling": "auto", "max_input_tokens": None}
        values = {name: getattr(self.verifier, name, defaults[name]) for name in defaults}
        return {
            "check": self.fingerprint,
            "verdicts": self.samples,
            **model_setting("check", self.verifier),
            **{f"check {n}": value for n, value in values.items() if value != defaults[n]},
        }


@dataclass(frozen=True)
class CalibrationConfig:
    """Everything that the log row of an example depends on."""

    mix: AutoMixRunnable
    """The models with their prompt and check. Its router is not used."""

    grader: Any
    """Grades an answer: a function or a Runnable, as returned by `to_grader`."""

    unit: Unit
    unlabelled: Unlabelled = "agreement"
    """How to grade an example without references: by agreement with the largest model's answer, or
    by the grader alone."""

    compares: bool = False
    """Whether to compare answers to labelled examples with the largest model's answer too, in order
    to learn how well agreement predicts a grade."""

    asked_mix: AutoMixRunnable | None = None
    """The mix as the user gave it, without the added free check; None if none was added."""

    @property
    def free_check(self) -> str | None:
        """Name of the free check that was added; None if none was."""
        return None if self.asked_mix is None else TOKENS

    def without_free_check(self) -> CalibrationConfig:
        """Return the configuration with only the check that the user asked for."""
        if self.asked_mix is None:
            return self
        return replace(self, mix=self.asked_mix, asked_mix=None)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the models, cheap to expensive."""
        return self.mix.model_names

    @cached_property
    def answerers(self) -> tuple[Runnable[Any, Any], ...]:
        """The models without streaming and without a cache (cached answers would cost nothing)."""
        return tuple(map(_without_streaming_or_cache, self._prepared))

    @cached_property
    def plain_answerers(self) -> tuple[Runnable[Any, Any] | None, ...]:
        """The same without the log-probabilities that a check reads; None if none are added."""
        plain = map(_without_streaming_or_cache, self.mix.mix_config.answerers)
        return tuple(
            each if adds else None for each, adds in zip(plain, self._adds_logprobs, strict=True)
        )

    @property
    def _adds_logprobs(self) -> Iterator[bool]:
        """Yield for each model whether the package, not the user, asks for log-probabilities."""
        asked = zip(self.mix.models, self.mix.mix_config.answerers, self._prepared, strict=True)
        return (plain != ready and not asks_for_logprobs(model) for model, plain, ready in asked)

    @cached_property
    def sends_logprobs(self) -> tuple[bool, ...]:
        """For each model, whether log-probabilities are requested, by the user or for a check."""
        own = map(asks_for_logprobs, self.mix.models)
        return tuple(a or b for a, b in zip(own, self._adds_logprobs, strict=True))

    @cached_property
    def _prepared(self) -> tuple[Runnable[Any, Any], ...]:
        answering = self.mix.mix_config.answering
        if self.asked_mix is None:
            return answering
        # The last model's answer is not checked.
        return (*answering[:-1], self.asked_mix.mix_config.answering[-1])

    @cached_property
    def checks(self) -> tuple[CalibratedCheck, ...]:
        """The checks of an answer, each made and kept separately; the first is the main check."""
        verifier = self.mix.verifier
        named: list[tuple[str | None, Runnable[Any, Any]]] = [(None, verifier)]
        if isinstance(verifier, CombinedVerifier):
            named = [*verifier.checks.items()]
        # `_prepared` would let one check request what another check reads from an answer.
        answerers = map(_without_streaming_or_cache, self.mix.mix_config.answerers)
        pairs = list(zip(answerers, self.mix.models, strict=True))

        def checkers(check: Runnable[Any, Any]) -> Iterator[Runnable[Any, Any]]:
            for answerer, model in pairs:
                yield verifier_for(bind_answerer(check, answerer), model)

        return tuple(CalibratedCheck(name, check, tuple(checkers(check))) for name, check in named)

    @cached_property
    def fingerprints(self) -> tuple[str, ...]:
        """For each model, a hash of everything that its answers depend on."""
        return tuple(model_fingerprint(model) for model in self._prepared)

    @cached_property
    def richer_fingerprints(self) -> tuple[str | None, ...]:
        """Fingerprints with log-probabilities, for models that are only asked for answers.

        Answers of such a model that came with log-probabilities can be used too. None for other
        models.
        """
        answerers = self.mix.mix_config.answerers
        richer = (
            model_fingerprint(log_probabilities().for_answering(answerer)) if plain else None
            for answerer, plain in zip(answerers, self._are_plain, strict=True)
        )
        pairs = zip(richer, self.fingerprints, strict=True)
        return tuple(None if rich == own else rich for rich, own in pairs)

    @property
    def _are_plain(self) -> Iterator[bool]:
        pairs = zip(self.mix.mix_config.answerers, self._prepared, strict=True)
        return (answerer == ready for answerer, ready in pairs)

    @cached_property
    def verifier(self) -> str:
        """Fingerprint of the check, as in a policy file."""
        return fingerprint_of(self.mix.verifier)

    @cached_property
    def check_spec(self) -> dict[str, Any]:
        """Specification to rebuild the check, as in a policy file."""
        return spec_of(self.mix.verifier).model_dump(mode="json", exclude_defaults=True)

    @cached_property
    def call_settings(self) -> dict[str, Any]:
        """Settings that calls depend on, by name. If one changes, the calls are made again."""
        prompt = ANSWER_FROM_CONTEXT if self.mix.prompt is None else self.mix.prompt
        settings: dict[str, Any] = {
            **{f"model {n}": f for n, f in zip(self.names, self.fingerprints, strict=True)},
            "prompt": json_hash(to_json(prompt)),
        }
        if isinstance(self.grader, Runnable):
            settings["grader"] = grader_name(self.grader)
            settings |= model_setting("grader", self.grader)
        # The free check makes no calls, so no call depends on it.
        checks = self.without_free_check().checks
        if checks[0].name is None:
            return settings | checks[0].settings
        return settings | {"checks": {check.name: check.settings for check in checks}}

    @cached_property
    def row_fingerprint(self) -> str:
        """Hash of everything that a log row depends on, except its example."""
        prices = self.mix.prices
        counted = prices if isinstance(prices, Mapping) else grader_name(prices)
        grades = [grader_name(self.grader), self.unlabelled, self.compares]
        settings = [self.call_settings, self.names, grades, self.unit, counted]
        if (order := [check.name for check in self.checks]) != [None]:
            settings.append(order)
        return json_hash(settings)

    @cached_property
    def _secrets(self) -> frozenset[str]:
        askers = [*(check.verifier for check in self.checks), self.grader]
        own = (getattr(asker, "model", None) for asker in askers)
        models = [*self.mix.models, *(model for model in own if isinstance(model, Runnable))]
        return frozenset(secret for model in models for secret in secrets_of(model))

    def redact(self, error: Exception) -> str:
        """Return an error as text without the models' API keys, which some providers repeat."""
        text = f"{type(error).__name__}: {error}"
        for secret in self._secrets:
            text = text.replace(secret, "**********")
        return text

    def cost(self, calls: Iterable[ModelCall], seconds: float) -> float | None:
        """Return the cost of calls in the unit of the log; None if unknown."""
        if self.unit == "seconds":
            return seconds
        cost = cost_of(calls, self.mix.prices)
        return None if cost is None else float(cost)

    def build_inputs(
        self, example: Example
    ) -> tuple[Runnable[Any, Any] | None, Any, VerifierInput]:
        """Return the prompt to fill, its values, and the input of the check.

        If the prompt is None, the values are the models' input.
        """
        mix, history = self.mix, convert_to_messages([dict(m) for m in example.messages])
        check: VerifierInput = {"answer": "", "question": example.question}
        if tools := mix.answer_format.tools:
            check["tools"] = tools
        if history:
            check["messages"] = history
        if example.context is not None:
            check["context"] = example.context
        if example.prompt is not None:
            return None, [*history, HumanMessage(example.prompt)], check
        if mix.prompt is not None:
            values: dict[str, Any] = {
                **example.metadata,
                mix.question_key: example.question,
                mix.context_key: example.context or "",
                mix.history_key: history,
            }
            if isinstance(mix.prompt, BasePromptTemplate):
                return None, _fill(mix.prompt, values, example), check
            return mix.prompt, values, check
        if example.context is not None:
            first, last = ANSWER_FROM_CONTEXT.format_messages(
                question=example.question, context=example.context
            )
            return None, [first, *history, last], check
        messages: list[BaseMessage] = [*history, HumanMessage(example.question)]
        check["messages"] = messages
        del check["question"]
        return None, messages, check


def choose_unit(mix: AutoMixRunnable, unit: Unit | None, *, is_limited: bool = False) -> Unit:
    """Return the unit of costs, and warn if none was requested and no price is known.

    Args:
        mix: The models and their prices.
        unit: The requested unit. None: dollars, or seconds if no model has a price.
        is_limited: Whether there is a spend limit, which is assumed to be in dollars.

    Raises:
        AutoMixError: Costs are in dollars and a model has no known price.
    """
    if unit == "seconds":
        return unit
    unpriced, near = [], ""
    for name, model in zip(mix.model_names, mix.models, strict=True):
        if lacks_price(model, mix.prices):
            unpriced.append(name)
            near = near or nearest_priced(*sole_identity(model), mix.prices)
    if unit is None and not is_limited and len(unpriced) == len(mix.models):
        warn_user(
            f"No price is known for {' and '.join(unpriced)}, so costs are counted in seconds, one "
            f"call at a time.{near} Give prices= (dollars per million tokens) to count dollars."
            f"{price_list_hint()}"
        )
        return "seconds"
    if unpriced:
        raise AutoMixError(
            f"The price of {' and '.join(unpriced)} is not known.{near} Give prices (dollars per "
            "million tokens; prices=, --prices), or count seconds instead (unit='seconds', --unit "
            f"seconds).{price_list_hint()}"
        )
    return "dollars"


def _fill(prompt: BasePromptTemplate[Any], values: dict[str, Any], example: Example) -> Any:
    try:
        return prompt.format_prompt(**values)
    except KeyError as error:
        raise AutoMixError(
            f"The prompt needs {error}, which example {example.id} does not have; it has "
            f"{sorted(values)}."
        ) from error


def _without_streaming_or_cache(answerer: Runnable[Any, Any]) -> Runnable[Any, Any]:
    return map_chat_models(without_streaming(answerer), _uncached)


def _uncached(chat_model: Any) -> Runnable[Any, Any]:
    return chat_model.model_copy(update={"cache": False})  # type: ignore[no-any-return]
