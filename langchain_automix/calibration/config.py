"""What a calibration runs: the models, their prompt, the check, the grader, the unit of cost."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal
from urllib.parse import urlsplit

from langchain_core.load import dumpd
from langchain_core.messages import BaseMessage, HumanMessage, convert_to_messages
from langchain_core.messages.ai import UsageMetadata
from langchain_core.prompts import BasePromptTemplate, ChatPromptTemplate
from langchain_core.runnables import Runnable

from langchain_automix.calibration.examples.examples import Example
from langchain_automix.calibration.graders.custom import grader_name
from langchain_automix.errors import AutoMixError
from langchain_automix.mix.runnable import AutoMixRunnable
from langchain_automix.models.identity import secrets_of, sole_identity
from langchain_automix.models.prices import cost_of
from langchain_automix.models.sampling import for_sampling
from langchain_automix.models.wrappers import (
    fallbacks_and_config,
    map_chat_models,
    unwrap,
    without_streaming,
)
from langchain_automix.types import ModelCall
from langchain_automix.utils.fingerprints import ADDRESS
from langchain_automix.utils.identifiers import registered_id
from langchain_automix.verifiers.base import (
    VerifierInput,
    bind_answerer,
    fingerprint_of,
    verifier_for,
)
from langchain_automix.verifiers.combined import CombinedVerifier

Unit = Literal["dollars", "seconds"]
CURRENCIES: dict[Unit, str] = {"dollars": "USD", "seconds": "second"}

ANSWER_FROM_CONTEXT = ChatPromptTemplate.from_messages(
    [
        (
            "system",
            "Answer the question from the context with the shortest phrase that answers it, and "
            "nothing else. If the context does not hold the answer, answer: unanswerable",
        ),
        # The context first: the questions on one passage then share the longest prompt prefix.
        ("human", "Context: {context}\n\nQuestion: {question}"),
    ]
)
"""What is asked of an example with a context where the mix has no prompt of its own; the same as
`automix ask --context` asks."""

# Where and how a model is reached does not shape what it answers.
_CONNECTION = frozenset(
    {
        "cache",
        "callbacks",
        "max_retries",
        "name",
        "rate_limiter",
        "request_timeout",
        "timeout",
        "verbose",
    }
)


@dataclass(frozen=True)
class CalibratedCheck:
    """One of the checks that a calibration makes of every answer but the last."""

    name: str | None
    """What it is called among several; None where it is the only one."""

    verifier: Runnable[Any, Any]
    checkers: tuple[Runnable[Any, Any], ...]
    """The check of each model's answers."""

    @property
    def samples(self) -> int | None:
        """Verdicts that it draws, where it tells."""
        return getattr(self.verifier, "samples", None)

    @property
    def fingerprint(self) -> str:
        """What stands for its prompt and how it samples, as a policy file holds it."""
        return fingerprint_of(self.verifier)

    @property
    def shape(self) -> dict[str, Any]:
        """What shapes its calls, by name."""
        usual = {"sampling": "auto", "max_input_tokens": None}
        values = {name: getattr(self.verifier, name, usual[name]) for name in usual}
        return {
            "check": self.fingerprint,
            "verdicts": self.samples,
            **_asked_model("check", self.verifier),
            **{f"check {n}": value for n, value in values.items() if value != usual[n]},
        }


@dataclass(frozen=True)
class CalibrationConfig:
    """All that decides what an example costs and comes to."""

    mix: AutoMixRunnable
    """The models with their prompt and their check; its router is not asked."""

    grader: Any
    """Grades an answer: a function, or a Runnable, as `grader_from` returns."""

    unit: Unit
    unlabelled: Literal["agreement", "grade"] = "agreement"
    """Of an example without references: whether an answer is compared with the largest model's, or
    graded by itself."""

    compares: bool = False
    """Whether labelled examples are compared with the largest model's answer as well, to learn
    from them what agreement is worth."""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the models, cheap to expensive."""
        return self.mix.model_names

    @cached_property
    def answerers(self) -> tuple[Runnable[Any, Any], ...]:
        """The models as they answer: in one piece, and never from a cache, which would be free."""
        return tuple(map(_without_streaming_or_cache, self._given))

    @cached_property
    def _given(self) -> tuple[Runnable[Any, Any], ...]:
        return self.mix.mix_config.answering

    @cached_property
    def checks(self) -> tuple[CalibratedCheck, ...]:
        """The checks of an answer, each of which is made and kept by itself; the first leads."""
        verifier = self.mix.verifier
        named: list[tuple[str | None, Runnable[Any, Any]]] = [(None, verifier)]
        if isinstance(verifier, CombinedVerifier):
            named = [*verifier.checks.items()]
        # What one check reads of an answer is no business of another that asks for it again.
        answerers = map(_without_streaming_or_cache, self.mix.mix_config.answerers)
        pairs = list(zip(answerers, self.mix.models, strict=True))
        return tuple(
            CalibratedCheck(
                name,
                each,
                tuple(
                    verifier_for(bind_answerer(each, answerer), model) for answerer, model in pairs
                ),
            )
            for name, each in named
        )

    @cached_property
    def fingerprints(self) -> tuple[str, ...]:
        """Of each model: a short hash of what shapes its answers."""
        return tuple(model_fingerprint(model) for model in self._given)

    @cached_property
    def verifier(self) -> str:
        """Fingerprint of the check, as a policy file holds it."""
        return fingerprint_of(self.mix.verifier)

    @cached_property
    def asks(self) -> dict[str, Any]:
        """What shapes the calls, by name: a change means that calls are made again."""
        prompt = ANSWER_FROM_CONTEXT if self.mix.prompt is None else self.mix.prompt
        asked: dict[str, Any] = {}
        if isinstance(self.grader, Runnable):
            asked = {"grader": grader_name(self.grader), **_asked_model("grader", self.grader)}
        first = self.checks[0]
        if first.name is None:
            asked |= first.shape
        else:
            asked["checks"] = {check.name: check.shape for check in self.checks}
        return {
            **{f"model {n}": f for n, f in zip(self.names, self.fingerprints, strict=True)},
            "prompt": json_hash(_as_json(prompt)),
            **asked,
        }

    @cached_property
    def makes(self) -> str:
        """Hash of all that shapes a row of the log, once the calls are there."""
        prices = self.mix.prices
        counted = prices if isinstance(prices, Mapping) else grader_name(prices)
        grades = [grader_name(self.grader), self.unlabelled, self.compares]
        made = [self.asks, self.names, grades, self.unit, counted]
        if (order := [check.name for check in self.checks]) != [None]:
            made.append(order)
        return json_hash(made)

    @cached_property
    def _secrets(self) -> frozenset[str]:
        asking = [*(check.verifier for check in self.checks), self.grader]
        own = (getattr(what, "model", None) for what in asking)
        asked = [*self.mix.models, *(model for model in own if isinstance(model, Runnable))]
        return frozenset(secret for model in asked for secret in secrets_of(model))

    def said(self, error: Exception) -> str:
        """Return what an error says, without the models' keys: some providers repeat them."""
        text = f"{type(error).__name__}: {error}"
        for secret in self._secrets:
            text = text.replace(secret, "**********")
        return text

    def cost(self, calls: Iterable[ModelCall], seconds: float) -> float | None:
        """Return what some calls cost in the log's unit; None where that is not known."""
        if self.unit == "seconds":
            return seconds
        cost = cost_of(calls, self.mix.prices)
        return None if cost is None else float(cost)

    def asked(self, example: Example) -> tuple[Runnable[Any, Any] | None, Any, VerifierInput]:
        """Return what is to fill the prompt, with what; and what the check is told.

        Without the first, the second is what the models get.
        """
        mix, said = self.mix, convert_to_messages([dict(m) for m in example.messages])
        check: VerifierInput = {"answer": "", "question": example.question}
        if tools := mix.answer_format.tools:
            check["tools"] = tools
        if said:
            check["messages"] = said
        if example.context is not None:
            check["context"] = example.context
        if example.prompt is not None:
            return None, [*said, HumanMessage(example.prompt)], check
        if mix.prompt is not None:
            filled: dict[str, Any] = {**example.metadata, mix.question_key: example.question}
            filled[mix.context_key] = example.context or ""
            filled[mix.history_key] = said
            if isinstance(mix.prompt, BasePromptTemplate):
                return None, _filled(mix.prompt, filled, example), check
            return mix.prompt, filled, check
        if example.context is not None:
            first, last = ANSWER_FROM_CONTEXT.format_messages(
                question=example.question, context=example.context
            )
            return None, [first, *said, last], check
        messages: list[BaseMessage] = [*said, HumanMessage(example.question)]
        check["messages"] = messages
        del check["question"]
        return None, messages, check


def choose_unit(mix: AutoMixRunnable, wanted: Unit | None, *, is_limited: bool = False) -> Unit:
    """Return what costs are counted in; warns where nothing is said, and no price is known.

    Args:
        mix: The models, with the prices that are given.
        wanted: What the user wants. None: dollars, or seconds where no model has a price.
        is_limited: Whether there is a limit of spending, which is taken to be in dollars.

    Raises:
        AutoMixError: Dollars are wanted, and a model has no known price.
    """
    if wanted == "seconds":
        return wanted
    unpriced = []
    for name, model in zip(mix.model_names, mix.models, strict=True):
        known, provider = sole_identity(model)
        usage = UsageMetadata(input_tokens=1, output_tokens=1, total_tokens=2)
        call = ModelCall(model=known, provider=provider, usage=usage)
        # A mix, and a model with fallbacks, is known only by what it reports.
        is_told = known is None or provider == "automix"
        if not is_told and cost_of([call], mix.prices) is None:
            unpriced.append(name)
    if wanted is None and not is_limited and len(unpriced) == len(mix.models):
        warnings.warn(
            f"No price is known of {' and '.join(unpriced)}: costs are counted in seconds, one "
            "call at a time. Give prices (dollars for a million tokens) to have them in dollars.",
            stacklevel=2,
        )
        return "seconds"
    if unpriced:
        raise AutoMixError(
            f"What {' and '.join(unpriced)} costs is not known: give prices (dollars for a million "
            "tokens), or count seconds instead (unit='seconds', --unit seconds)."
        )
    return "dollars"


def model_fingerprint(model: Runnable[Any, Any]) -> str:
    """Return a short hash of what shapes a model's answers: its settings and what is bound to it.

    How it is reached is left out, and so are keys and the port of a server on this machine.
    """
    chat_model, bound = unwrap(model)
    if chat_model is None:
        return json_hash(grader_name(model))
    if chat_model.is_lc_serializable():
        settings: Any = _without_addresses(dumpd(chat_model).get("kwargs", {}))
    else:
        settings = chat_model._identifying_params  # noqa: SLF001  (what LangChain's cache goes by)
    kept = {k: _without_local_port(v) for k, v in settings.items() if k not in _CONNECTION}
    shape = [type(chat_model).__name__, kept, bound]
    fallbacks, configured = fallbacks_and_config(model)
    if fallbacks or configured:
        shape += [[model_fingerprint(fallback) for fallback in fallbacks], configured]
    return json_hash(shape)


def json_hash(what: Any) -> str:
    """Return 16 hexadecimal digits that stand for a value."""
    text = json.dumps(what, sort_keys=True, default=_as_json)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _asked_model(name: str, what: Any) -> dict[str, str]:
    """Return what stands for a check's or a grader's own model, where it has one."""
    model = getattr(what, "model", None)
    if not isinstance(model, Runnable):
        return {}
    # How it samples is in the name of what asks it.
    return {f"{name} model": model_fingerprint(for_sampling(model, temperature=0.0, max_tokens=1))}


def _filled(prompt: BasePromptTemplate[Any], given: dict[str, Any], example: Example) -> Any:
    try:
        return prompt.format_prompt(**given)
    except KeyError as error:
        raise AutoMixError(
            f"The prompt wants {error}, which example {example.id} does not have; it has "
            f"{sorted(given)}."
        ) from error


def _as_json(value: Any) -> Any:
    found = dumpd(value)
    # Of what cannot be dumped, only the kind is the same in the next process.
    is_unknown = isinstance(found, dict) and found.get("type") == "not_implemented"
    return grader_name(value) if is_unknown else _without_addresses(found)


def _without_addresses(found: Any) -> Any:
    """Leave out of a dump where things are: addresses in memory, modules of this package."""
    if isinstance(found, list):
        return [_without_addresses(each) for each in found]
    if not isinstance(found, dict):
        return found
    kept = {name: _without_addresses(each) for name, each in found.items()}
    if found.get("type") in ("constructor", "not_implemented") and found.get("lc") == 1:
        kept["id"] = registered_id(found["id"])
    if found.get("type") == "not_implemented" and isinstance(found.get("repr"), str):
        kept["repr"] = ADDRESS.sub("", found["repr"])
    return kept


def _without_local_port(value: Any) -> Any:
    """Leave out of a URL on this machine the port, which changes from run to run."""
    if isinstance(value, str) and value.startswith(("http://", "https://")):
        parts = urlsplit(value)
        if parts.hostname in ("127.0.0.1", "localhost", "::1"):
            return f"{parts.scheme}://{parts.hostname}{parts.path}"
    return value


def _without_streaming_or_cache(answerer: Runnable[Any, Any]) -> Runnable[Any, Any]:
    return map_chat_models(without_streaming(answerer), _uncached)


def _uncached(chat_model: Any) -> Runnable[Any, Any]:
    return chat_model.model_copy(update={"cache": False})  # type: ignore[no-any-return]
