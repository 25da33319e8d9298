"""Resolve checks, routers and models that are given as a name, a file or a number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain_core.runnables import Runnable

from langchain_automix.errors import AutoMixError
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.routers.pomdp import POMDPRouter
from langchain_automix.routers.threshold import ThresholdRouter
from langchain_automix.verifiers.known import KNOWN_CHECKS, build_known_check


def to_verifier(given: Any, models: Sequence[Runnable[Any, Any]]) -> Any:
    """Build a check from its name; return a Runnable as it is.

    Raises:
        AutoMixError: The value is neither; the message says what a mix accepts.
    """
    if isinstance(given, str):
        return build_known_check(given, models)
    if isinstance(given, Runnable):
        return given
    hint = ""
    if isinstance(given, type):
        hint = f" Write {given.__name__}(...), with parentheses."
    elif callable(given):
        hint = " Wrap a function in FunctionVerifier(function=...)."
    raise AutoMixError(
        f"verifier={_shown(given)} is no check: give a verifier, such as SelfVerifier(samples=8), "
        f"or one of the names {', '.join(map(repr, KNOWN_CHECKS))}.{hint}"
    )


def to_router(given: Any) -> Any:
    """Build a router from a policy file, a policy or a threshold; return a Runnable as it is.

    Raises:
        AutoMixError: The value is none of these, or the file contains no policy.
    """
    if isinstance(given, Runnable):
        return given
    if isinstance(given, str | Path | Policy):
        try:
            return to_policy_router(given)
        except AutoMixError as error:
            if isinstance(given, Policy) or Path(given).exists():
                raise
            raise AutoMixError(
                f"router={str(given)!r} is no file: give the path of a policy file, as `automix "
                "fit` writes it."
            ) from error
    if isinstance(given, int | float) and not isinstance(given, bool) and 0 <= given <= 1:
        return ThresholdRouter(threshold=given)
    hint = ""
    if isinstance(given, type):
        hint = f" Write {given.__name__}(...), with parentheses."
    raise AutoMixError(
        f"router={_shown(given)} is no router: give a router, such as "
        "POMDPRouter.load('policy.json'); the path of a policy file; or a number in [0, 1], the "
        f"least confidence at which an answer is kept.{hint}"
    )


def to_policy_router(policy: str | Path | Policy) -> POMDPRouter:
    """Return the router for a policy or a policy file.

    Raises:
        AutoMixError: The file cannot be read or contains no policy.
    """
    return POMDPRouter(policy=policy) if isinstance(policy, Policy) else POMDPRouter.load(policy)


def to_index(given: int | str, names: Sequence[str]) -> int:
    """Return the index of a model given by its name or its index.

    Raises:
        AutoMixError: There is no such model.
    """
    if isinstance(given, str) and given in names:
        return names.index(given)
    if not isinstance(given, int) or not 0 <= given < len(names):
        known = ", ".join(f"{i} ({name})" for i, name in enumerate(names))
        raise AutoMixError(f"force_model is {given!r}, but the models of this mix are {known}.")
    return given


def _shown(given: Any) -> str:
    if isinstance(given, type):
        return given.__name__
    text = repr(given)
    return text if len(text) <= 60 else f"a {type(given).__name__}"  # noqa: PLR2004
