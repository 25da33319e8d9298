"""The checks that have a name, and the check that a policy was fitted to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.runnables import Runnable

from langchain_automix.errors import AutoMixError, near_matches
from langchain_automix.utils.check_spec import CheckSpec
from langchain_automix.utils.fingerprints import fingerprint_of
from langchain_automix.verifiers.agreement import AgreementVerifier
from langchain_automix.verifiers.base import Verifier
from langchain_automix.verifiers.combined import CombinedVerifier
from langchain_automix.verifiers.log_probability import LogProbabilityVerifier
from langchain_automix.verifiers.prompting.verifier import PromptedVerifier
from langchain_automix.verifiers.self_verifier import SelfVerifier
from langchain_automix.verifiers.specs import rebuild_check
from langchain_automix.verifiers.token_probability import TokenProbabilityVerifier


@dataclass(frozen=True)
class KnownCheck:
    """A check that can be requested by name."""

    make: Callable[..., Verifier]
    """Builds the check from `settings` and the settings shared by all checks of its kind."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    by_large: bool = False
    """Whether the large model checks, instead of the model that answered."""

    by_default: bool = True
    """Whether `automix compare-verifiers` makes it if no names are given."""

    @property
    def draws_by_large(self) -> bool:
        """Whether the large model draws verdicts for it."""
        return self.by_large and self.make is SelfVerifier


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
"""All known checks, in the order of the comparison table; the first one leads."""


def known_check(name: str) -> KnownCheck:
    """Return the check with a given name.

    Raises:
        AutoMixError: No check has this name.
    """
    if name not in KNOWN_CHECKS:
        raise AutoMixError(
            f"There is no check {name!r}.{near_matches(name, KNOWN_CHECKS)} There are: "
            f"{', '.join(KNOWN_CHECKS)}."
        )
    return KNOWN_CHECKS[name]


def build_known_check(
    name: str,
    models: Sequence[Runnable[Any, Any]],
    *,
    samples: int | None = None,
    prompted: Mapping[str, Any] | None = None,
) -> Verifier:
    """Build a known check for a mix of these models.

    Args:
        name: One of `KNOWN_CHECKS`.
        models: The models, cheap to expensive.
        samples: Verdicts to draw, for a check that draws any. None: its own number.
        prompted: Settings for checks that write a prompt.

    Raises:
        AutoMixError: No check has this name.
    """
    check = known_check(name)
    fields: dict[str, Any] = {}
    kind = check.make
    if isinstance(kind, type) and issubclass(kind, PromptedVerifier):
        fields |= prompted or {}
    if samples is not None and kind in (SelfVerifier, AgreementVerifier):
        fields["samples"] = samples
    if check.by_large:
        fields["model"] = models[-1]
    return kind(**fields, **check.settings)


def known_name(verifier: Runnable[Any, Any]) -> str | None:
    """Return the name of a check if it is a known one without a model of its own, else None."""
    found = _known_by_fingerprint(fingerprint_of(verifier))
    return None if found is None else found[0]


def _known_by_fingerprint(fingerprint: str) -> tuple[str, Verifier] | None:
    """Return the name of a known check without a model of its own, and the check."""
    own = (name for name, known in KNOWN_CHECKS.items() if not known.by_large)
    made = ((name, build_known_check(name, ())) for name in own)
    return next((each for each in made if fingerprint_of(each[1]) == fingerprint), None)


def fitted_check(
    spec: CheckSpec | None,
    fingerprint: str | None,
    models: Sequence[Runnable[Any, Any]],
    *,
    check_models: Sequence[Runnable[Any, Any]] = (),
    samples: int | None = None,
    prompted: Callable[[bool], Mapping[str, Any]] | None = None,
) -> Verifier | None:
    """Return the check that a policy was fitted to, or None if nothing identifies it.

    Args:
        spec: The policy's description of the check. If None, as in files of earlier versions, the
            known checks are compared with the fingerprint.
        fingerprint: The fingerprint in the policy.
        models: The models of the mix, cheap to expensive.
        check_models: Further models that checks may use, looked up by name.
        samples: Verdicts to draw, if the policy does not describe its check.
        prompted: Returns settings for a check that writes a prompt; its argument is whether the
            check has a model of its own.

    Raises:
        AutoMixError: The check is described, but cannot be rebuilt.
    """
    if spec is not None:
        return rebuild_check(spec, models, check_models=check_models, prompted=prompted)
    if fingerprint is None:
        return None
    for name, known in KNOWN_CHECKS.items():
        settings = None if prompted is None else prompted(known.by_large)
        made = build_known_check(name, models, samples=samples, prompted=settings)
        if fingerprint_of(made) == fingerprint:
            return made
    return None


def completed_check(spec: CheckSpec | None, verifier: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """Return a check, with the free one added if a policy was fitted to both.

    Args:
        spec: The policy's description of its check.
        verifier: The check that a mix was given.
    """
    if spec is None or not spec.checks or isinstance(verifier, CombinedVerifier):
        return verifier
    given = [n for n, each in spec.checks.items() if each.fingerprint == fingerprint_of(verifier)]
    others = (each for name, each in spec.checks.items() if name not in given)
    if len(given) != 1 or any(each.kind != LogProbabilityVerifier.__name__ for each in others):
        return verifier
    checks = {
        name: verifier if name in given else rebuild_check(each, ())
        for name, each in spec.checks.items()
    }
    return CombinedVerifier(checks=checks)
