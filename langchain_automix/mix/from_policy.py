"""Build a mix from a policy file: its router, and the check that it was fitted to."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from langchain_core.runnables import Runnable

from langchain_automix.errors import AutoMixError
from langchain_automix.mix.by_name import to_policy_router
from langchain_automix.models.identity import model_names, open_models
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.routers.pomdp import POMDPRouter
from langchain_automix.verifiers.known import build_known_check, completed_check, fitted_check
from langchain_automix.verifiers.self_verifier import SelfVerifier


class FromPolicy(NamedTuple):
    """The parts of a mix that a policy defines."""

    models: list[Runnable[Any, Any]]
    router: POMDPRouter
    verifier: Runnable[Any, Any]

    def fields(self) -> dict[str, Any]:
        """Return the parts as fields of a mix."""
        return self._asdict()


def read_policy(
    policy: str | Path | Policy | POMDPRouter,
    models: Sequence[Runnable[Any, Any] | str],
    *,
    verifier: Runnable[Any, Any] | str | None = None,
    check_models: Sequence[Runnable[Any, Any]] = (),
    other_models: bool = False,
) -> FromPolicy:
    """Read the models, the router and the check of a mix from a fitted policy.

    Args:
        policy: The policy file, or the policy or router read from one.
        models: The models that the policy was fitted to, cheap to expensive, or their names.
        verifier: A check to use instead of the policy's own, or its name.
        check_models: Further models that the check asks, looked up by name.
        other_models: Whether the models may differ from the policy's.

    Raises:
        AutoMixError: The file contains no policy, the models differ, or the check cannot be
            rebuilt.
    """
    router = policy if isinstance(policy, POMDPRouter) else to_policy_router(policy)
    where = f"The policy {policy}" if isinstance(policy, str | Path) else "The policy"
    opened = open_models(models)
    if not other_models:
        validate_models(where, router.policy.models, opened)
    if isinstance(verifier, str):
        verifier = build_known_check(verifier, opened)
    if verifier is None:
        verifier = _fitted_check(where, router.policy, opened, check_models)
    return FromPolicy(opened, router, verifier)


def validate_models(
    where: str, fitted: Sequence[str], models: Sequence[Runnable[Any, Any]]
) -> None:
    """Reject models that differ from those of a policy.

    Args:
        where: The policy, as named in messages.
        fitted: The names of the policy's models.
        models: The given models, cheap to expensive.

    Raises:
        AutoMixError: The names or their order differ.
    """
    given = model_names(models)
    if tuple(fitted) == given:
        return
    swapped = ", in another order" if sorted(fitted) == sorted(given) else ""
    raise AutoMixError(
        f"{where} was fitted to the models {', '.join(fitted)}, but is given "
        f"{', '.join(given) or 'none'}{swapped}. Give the same models, cheap to expensive; or say "
        "other_models=True (--other-models), if they are the same under other names."
    )


def _fitted_check(
    where: str,
    policy: Policy,
    models: Sequence[Runnable[Any, Any]],
    check_models: Sequence[Runnable[Any, Any]] = (),
) -> Runnable[Any, Any]:
    """Return the check that a policy was fitted to, or `SelfVerifier()` if it uses none.

    Raises:
        AutoMixError: The policy uses a check that is unknown or cannot be rebuilt.
    """
    try:
        check = fitted_check(policy.check_spec, policy.verifier, models, check_models=check_models)
    except AutoMixError as error:
        if not policy.reads_checks:
            return SelfVerifier()
        raise AutoMixError(f"{where}: {error}, or pass the check itself in verifier=.") from error
    if check is not None:
        return check
    if not policy.reads_checks:  # the policy never asks for a check
        return SelfVerifier()
    known = (
        "does not say which check it was fitted to"
        if policy.verifier is None
        else "was fitted to a check that it does not describe and that is none of those with a "
        f"name (fingerprint {policy.verifier})"
    )
    raise AutoMixError(f"{where} {known}: pass that check in verifier=.")


def with_free_check(router: Runnable[Any, Any], verifier: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """Return a mix's check; adds the free one if the router's policy reads both."""
    if not isinstance(router, POMDPRouter) or not router.is_calibrated:
        return verifier
    return completed_check(router.policy.check_spec, verifier)


def check_for(
    router: Runnable[Any, Any], models: Sequence[Runnable[Any, Any]]
) -> Runnable[Any, Any]:
    """Return the check for a mix without one: its policy's own, else `SelfVerifier()`."""
    if isinstance(router, POMDPRouter) and router.is_calibrated:
        with contextlib.suppress(AutoMixError):  # the router warns about the different check
            return _fitted_check("The policy", router.policy, models)
    return SelfVerifier()
