"""The checks that the command line makes, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
    """A check that can be asked for by its name."""

    make: Callable[..., Verifier]
    """Makes it from the settings below and those that all checks of its kind share."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    by_large: bool = False
    """Whether the large model checks, and not the model that answered."""

    by_default: bool = True
    """Whether it is made when no names are given."""


KNOWN_CHECKS: dict[str, KnownCheck] = {
    "few-shot": KnownCheck(SelfVerifier),
    "few-shot t=0.5": KnownCheck(SelfVerifier, {"temperature": 0.5}),
    "zero-shot": KnownCheck(SelfVerifier, {"layout": "zero_shot"}),
    "conversation": KnownCheck(SelfVerifier, {"layout": "conversation"}),
    "verdict only": KnownCheck(SelfVerifier, {"reasoning": False}),
    "one token": KnownCheck(TokenProbabilityVerifier),
    "one token zero-shot": KnownCheck(TokenProbabilityVerifier, {"layout": "zero_shot"}),
    "one token conversation": KnownCheck(TokenProbabilityVerifier, {"layout": "conversation"}),
    "one token by large": KnownCheck(TokenProbabilityVerifier, by_large=True),
    "few-shot by large": KnownCheck(SelfVerifier, by_large=True, by_default=False),
    "agreement": KnownCheck(AgreementVerifier),
    "log-probability": KnownCheck(LogProbabilityVerifier),
}
"""All of them, in the order of the table; the first one leads."""


def resolve_checks(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names in the order of `KNOWN_CHECKS`; without any, those of the default checks.

    Raises:
        AutoMixError: There is no check of that name.
    """
    if unknown := [name for name in names if name not in KNOWN_CHECKS]:
        known = ", ".join(KNOWN_CHECKS)
        raise AutoMixError(f"There is no check {unknown[0]!r}; there are: {known}.")
    return tuple(
        name
        for name, check in KNOWN_CHECKS.items()
        if (name in names if names else check.by_default)
    )


def large_checks(names: Sequence[str]) -> bool:
    """Whether the large model draws verdicts for one of these checks."""
    checks = [KNOWN_CHECKS[name] for name in names]
    return any(check.by_large and check.make is SelfVerifier for check in checks)


def build_check(name: str, models: Sequence[Model], options: ModelOptions) -> Verifier:
    """Return the check of this name, for models that were opened with these options."""
    check = KNOWN_CHECKS[name]
    # The last model's answer is not checked, as no larger model follows: that model reads a check
    # only if it is the one that checks.
    readers = models if check.by_large else models[:-1]
    prompted = {
        "max_input_tokens": input_limit(readers, options),
        "token_counter": token_counter(readers),
    }
    shared: Mapping[Callable[..., Verifier], Mapping[str, Any]] = {
        SelfVerifier: {**prompted, "samples": options.samples},
        TokenProbabilityVerifier: prompted,
        AgreementVerifier: {"samples": options.samples},
    }
    checker = {"model": models[-1].chat} if check.by_large else {}
    return check.make(**shared.get(check.make, {}), **check.settings, **checker)


def build_fitted_check(
    fingerprint: str | None, models: Sequence[Model], options: ModelOptions
) -> Verifier:
    """Return the check with this fingerprint, or the few-shot one if there is none."""
    first, *others = (build_check(name, models, options) for name in KNOWN_CHECKS)
    return next((check for check in others if fingerprint_of(check) == fingerprint), first)


def build_combined_check(
    names: Sequence[str], models: Sequence[Model], options: ModelOptions
) -> CombinedVerifier:
    """Return the checks of these names as one; the first one leads."""
    return CombinedVerifier(checks={name: build_check(name, models, options) for name in names})
