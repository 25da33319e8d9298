"""AutoMix for LangChain: pay for a larger model only where the evidence says so."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from langchain_automix._version import __version__

if TYPE_CHECKING:
    from langchain_automix.calibration.experiment import (
        aevaluate_on_langsmith,
        evaluate_on_langsmith,
    )
    from langchain_automix.calibration.langsmith import log_from_langsmith
    from langchain_automix.calibration.run import acalibrate, calibrate
    from langchain_automix.chat_model import ChatAutoMix
    from langchain_automix.errors import AutoMixError
    from langchain_automix.evaluation import Evaluation, evaluate
    from langchain_automix.explanation import explain
    from langchain_automix.middleware import AutoMixMiddleware
    from langchain_automix.policy.log import RoutingLog
    from langchain_automix.report.report import Report
    from langchain_automix.routers.pomdp import (
        POMDPRouter,
        UncalibratedWarning,
        VerifierChangedWarning,
    )
    from langchain_automix.routers.threshold import ThresholdRouter
    from langchain_automix.runnable import AutoMixRunnable
    from langchain_automix.totals import AutoMixTotals
    from langchain_automix.types import Decision, RoutingState, Verification, Visit
    from langchain_automix.verifiers.self_verifier import SelfVerifier

# Loaded when first asked for, so that `import langchain_automix` costs next to nothing.
_HOME = {
    "AutoMixError": "errors",
    "AutoMixMiddleware": "middleware",
    "AutoMixRunnable": "runnable",
    "AutoMixTotals": "totals",
    "ChatAutoMix": "chat_model",
    "Decision": "types",
    "Evaluation": "evaluation",
    "POMDPRouter": "routers.pomdp",
    "Report": "report.report",
    "RoutingLog": "policy.log",
    "RoutingState": "types",
    "SelfVerifier": "verifiers.self_verifier",
    "ThresholdRouter": "routers.threshold",
    "UncalibratedWarning": "routers.pomdp",
    "Verification": "types",
    "VerifierChangedWarning": "routers.pomdp",
    "Visit": "types",
    "acalibrate": "calibration.run",
    "aevaluate_on_langsmith": "calibration.experiment",
    "calibrate": "calibration.run",
    "evaluate": "evaluation",
    "evaluate_on_langsmith": "calibration.experiment",
    "explain": "explanation",
    "log_from_langsmith": "calibration.langsmith",
}

__all__ = [
    "AutoMixError",
    "AutoMixMiddleware",
    "AutoMixRunnable",
    "AutoMixTotals",
    "ChatAutoMix",
    "Decision",
    "Evaluation",
    "POMDPRouter",
    "Report",
    "RoutingLog",
    "RoutingState",
    "SelfVerifier",
    "ThresholdRouter",
    "UncalibratedWarning",
    "Verification",
    "VerifierChangedWarning",
    "Visit",
    "__version__",
    "acalibrate",
    "aevaluate_on_langsmith",
    "calibrate",
    "evaluate",
    "evaluate_on_langsmith",
    "explain",
    "log_from_langsmith",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
