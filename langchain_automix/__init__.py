"""AutoMix for LangChain: pay for a larger model only where the evidence says so."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from langchain_automix._version import __version__

if TYPE_CHECKING:
    from langchain_automix.errors import AutoMixError
    from langchain_automix.evaluation import Evaluation, evaluate
    from langchain_automix.policy.log import RoutingLog
    from langchain_automix.routers.pomdp import (
        POMDPRouter,
        UncalibratedWarning,
        VerifierChangedWarning,
    )
    from langchain_automix.routers.threshold import ThresholdRouter
    from langchain_automix.runnable import AutoMixRunnable
    from langchain_automix.types import Decision, RoutingState, Verification, Visit
    from langchain_automix.verifiers.self_verifier import SelfVerifier

# Loaded when first asked for, so that `import langchain_automix` costs next to nothing.
_HOME = {
    "AutoMixError": "errors",
    "AutoMixRunnable": "runnable",
    "Decision": "types",
    "Evaluation": "evaluation",
    "POMDPRouter": "routers.pomdp",
    "RoutingLog": "policy.log",
    "RoutingState": "types",
    "SelfVerifier": "verifiers.self_verifier",
    "ThresholdRouter": "routers.threshold",
    "UncalibratedWarning": "routers.pomdp",
    "Verification": "types",
    "VerifierChangedWarning": "routers.pomdp",
    "Visit": "types",
    "evaluate": "evaluation",
}

__all__ = [
    "AutoMixError",
    "AutoMixRunnable",
    "Decision",
    "Evaluation",
    "POMDPRouter",
    "RoutingLog",
    "RoutingState",
    "SelfVerifier",
    "ThresholdRouter",
    "UncalibratedWarning",
    "Verification",
    "VerifierChangedWarning",
    "Visit",
    "__version__",
    "evaluate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
