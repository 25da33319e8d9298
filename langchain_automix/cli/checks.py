"""The checks that the command line makes, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_automix.errors import AutoMixError
from langchain_automix.local.models import Model, ModelOptions, input_limit, token_counter
from langchain_automix.verifiers.agreement import AgreementVerifier
from langchain_automix.verifiers.base import Verifier, fingerprint_of
from langchain_automix.verifiers.combined import CombinedVerifier
from langchain_automix.verifiers.log_probability import LogProbabilityVerifier
from langchain_automix.verifiers.self_verifier import SelfVerifier
from langchain_automix.verifiers.token_probability import TokenProbabilityVerifier


@dataclass(frozen=True)
class KnownCheck:
    """One check that can be asked for by its name."""

    about: str
    """What it does, in a few words."""

    make: Callable[..., Verifier]
    """Makes it, from settings that all checks of its kind share."""

    settings: dict[str, Any]
    """Its own."""

    by_large: bool = False
    """Whether the large model checks; else the model that answered does."""

    by_default: bool = True
    """Whether it is made where no names are given."""


def _sampled(about: str, **more: Any) -> KnownCheck:
    of_ours = {name: more.pop(name) for name in ("by_large", "by_default") if name in more}
    return KnownCheck(about, SelfVerifier, more, **of_ours)


def _word(about: str, *, by_large: bool = False, **settings: Any) -> KnownCheck:
    return KnownCheck(about, TokenProbabilityVerifier, settings, by_large=by_large)


KNOWN_CHECKS: dict[str, KnownCheck] = {
    "few-shot": _sampled("sampled verdicts with reasoning, worked examples first"),
    "few-shot t=0.5": _sampled("the same at a lower temperature", temperature=0.5),
    "zero-shot": _sampled("without worked examples", layout="zero_shot"),
    "conversation": _sampled("after the answering call's messages", layout="conversation"),
    "verdict only": _sampled("sampled verdicts without reasoning", reasoning=False),
    "one token": _word("how probable Yes is, in one token"),
    "one token zero-shot": _word("without worked examples", layout="zero_shot"),
    "one token conversation": _word("after the answering call", layout="conversation"),
    "one token by large": _word("the large model judges, in one token", by_large=True),
    "few-shot by large": _sampled(
        "the large model's sampled verdicts", by_large=True, by_default=False
    ),
    "agreement": KnownCheck("how many answers, asked for again, agree", AgreementVerifier, {}),
    "log-probability": KnownCheck(
        "how probable the answer's own tokens were", LogProbabilityVerifier, {}
    ),
}
"""All that there are, in the order of the table; the first one leads."""


def resolve_checks(wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the checks to make, in the order of the table.

    Args:
        wanted: Names that were asked for. Empty: those that are made by default.

    Raises:
        AutoMixError: There is no such check.
    """
    if unknown := [name for name in wanted if name not in KNOWN_CHECKS]:
        known = ", ".join(KNOWN_CHECKS)
        raise AutoMixError(f"There is no check {unknown[0]!r}; there are: {known}.")
    return tuple(
        name
        for name, check in KNOWN_CHECKS.items()
        if (name in wanted if wanted else check.by_default)
    )


def large_checks(names: Sequence[str]) -> bool:
    """Whether the large model draws verdicts for one of these checks."""
    return any(
        KNOWN_CHECKS[name].by_large and KNOWN_CHECKS[name].make is SelfVerifier for name in names
    )


def check_named(name: str, models: Sequence[Model], wanted: ModelOptions) -> Verifier:
    """Return one check of opened models, the same for all that is done with them.

    Args:
        name: Of `KNOWN_CHECKS`.
        models: Cheap to expensive.
        wanted: How they were opened.
    """
    return _maker(models, wanted)(KNOWN_CHECKS[name])


def check_fitted(
    fingerprint: str | None, models: Sequence[Model], wanted: ModelOptions
) -> Verifier:
    """Return the check that a policy was fitted to; the few-shot one where it is none of these.

    Args:
        fingerprint: Of the policy's verifier.
        models: Cheap to expensive.
        wanted: How they were opened.
    """
    made = map(_maker(models, wanted), KNOWN_CHECKS.values())
    first, *others = made
    return next((each for each in others if fingerprint_of(each) == fingerprint), first)


def combined(
    names: Sequence[str], models: Sequence[Model], wanted: ModelOptions
) -> CombinedVerifier:
    """Return the checks of opened models, the first one leading.

    Args:
        names: Of `KNOWN_CHECKS`.
        models: Cheap to expensive.
        wanted: How they were opened.
    """
    make = _maker(models, wanted)
    return CombinedVerifier(checks={name: make(KNOWN_CHECKS[name]) for name in names})


def _maker(models: Sequence[Model], wanted: ModelOptions) -> Callable[[KnownCheck], Verifier]:
    """Return what makes checks of opened models."""

    def made(check: KnownCheck) -> Verifier:
        # The last answer has no larger model to turn to, so that model reads a check only if it
        # is asked for one.
        readers = models if check.by_large else models[:-1]
        prompted = {
            "max_input_tokens": input_limit(readers, wanted),
            "token_counter": token_counter(readers),
        }
        shared: dict[Callable[..., Verifier], dict[str, Any]] = {
            SelfVerifier: {**prompted, "samples": wanted.samples},
            TokenProbabilityVerifier: prompted,
            AgreementVerifier: {"samples": wanted.samples},
        }
        by = {"model": models[-1].chat} if check.by_large else {}
        return check.make(**shared.get(check.make, {}), **check.settings, **by)

    return made
