"""The checks that the command line makes, by name, for the models that it opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from langchain_automix.errors import AutoMixError
from langchain_automix.local.models import Model, ModelOptions, input_limit, token_counter
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.verifiers.base import Verifier
from langchain_automix.verifiers.combined import CombinedVerifier
from langchain_automix.verifiers.known import (
    KNOWN_CHECKS,
    build_known_check,
    fitted_check,
    known_check,
)


def resolve_checks(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names in the order of `KNOWN_CHECKS`; without any, those of the default checks.

    Raises:
        AutoMixError: There is no check of that name.
    """
    for name in names:
        known_check(name)
    return tuple(
        name
        for name, check in KNOWN_CHECKS.items()
        if (name in names if names else check.by_default)
    )


def large_checks(names: Sequence[str]) -> bool:
    """Whether the large model draws verdicts for one of these checks."""
    return any(KNOWN_CHECKS[name].draws_by_large for name in names)


def build_check(name: str, models: Sequence[Model], options: ModelOptions) -> Verifier:
    """Return the check of this name, for models that were opened with these options."""
    return build_known_check(
        name,
        [model.chat for model in models],
        samples=options.samples,
        prompted=_prompted(models, options)(KNOWN_CHECKS[name].by_large),
    )


def build_fitted_check(policy: Policy, models: Sequence[Model], options: ModelOptions) -> Verifier:
    """Return the check that a policy was fitted to; the few-shot one if it does not say which.

    Raises:
        AutoMixError: The check cannot be rebuilt from the file.
    """
    check = fitted_check(
        policy.check_spec,
        policy.verifier,
        [model.chat for model in models],
        samples=options.samples,
        prompted=_prompted(models, options),
    )
    return build_check("few-shot", models, options) if check is None else check


def build_policy_check(
    path: Path | None,
    policy: Policy,
    name: str | None,
    models: Sequence[Model],
    options: ModelOptions,
) -> Verifier:
    """Return the check of this name; without one, that to which a policy was fitted.

    Args:
        path: The policy file, in messages; None: there is none.
        policy: The policy.
        name: Name of the check; None: the policy's own.
        models: The models that were opened.
        options: Of the models.

    Raises:
        AutoMixError: The policy's own check cannot be rebuilt.
    """
    if name is not None:
        return build_check(name, models, options)
    try:
        return build_fitted_check(policy, models, options)
    except AutoMixError as error:
        raise AutoMixError(
            f"The policy {path}: {error}. Give a check that has a name: --check NAME."
        ) from error


def build_combined_check(
    names: Sequence[str], models: Sequence[Model], options: ModelOptions
) -> CombinedVerifier:
    """Return the checks of these names as one; the first one leads."""
    return CombinedVerifier(checks={name: build_check(name, models, options) for name in names})


def _prompted(
    models: Sequence[Model], options: ModelOptions
) -> Callable[[bool], Mapping[str, Any]]:
    """Return what gives the settings of checks that write a prompt to these models."""
    return partial(_prompt_settings, models, options)


def _prompt_settings(
    models: Sequence[Model], options: ModelOptions, by_large: bool
) -> Mapping[str, Any]:
    # The last model's answer is not checked, as no larger model follows: that model reads a check
    # only if it is the one that checks.
    readers = models if by_large else models[:-1]
    return {
        "max_input_tokens": input_limit(readers, options),
        "token_counter": token_counter(readers),
    }
