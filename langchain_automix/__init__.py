"""AutoMix for LangChain: pay for a larger model only where the evidence says so."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from langchain_automix._version import __version__

if TYPE_CHECKING:
    from langchain_automix.breaker import CircuitBreaker
    from langchain_automix.calibration.experiment import (
        aevaluate_on_langsmith,
        evaluate_on_langsmith,
    )
    from langchain_automix.calibration.langsmith import log_from_langsmith
    from langchain_automix.calibration.run import acalibrate, calibrate
    from langchain_automix.chat_model import ChatAutoMix
    from langchain_automix.compared import Comparison
    from langchain_automix.comparison import compare_verifiers
    from langchain_automix.costs import PriceWarning
    from langchain_automix.errors import (
        AutoMixError,
        CutShortError,
        DeadlineError,
        ModelsFailedError,
        SpendLimitReachedError,
    )
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
    from langchain_automix.spend import SpendLimit, SpendWarning
    from langchain_automix.totals import AutoMixTotals
    from langchain_automix.types import Decision, RoutingState, Verification, Visit
    from langchain_automix.verifiers.agreement import AgreementVerifier, EarlierAgreementVerifier
    from langchain_automix.verifiers.combined import CombinedVerifier
    from langchain_automix.verifiers.decision import DecisionVerifier
    from langchain_automix.verifiers.log_probability import LogProbabilityVerifier
    from langchain_automix.verifiers.plain import FunctionVerifier, PatternVerifier, SchemaVerifier
    from langchain_automix.verifiers.self_verifier import SelfVerifier
    from langchain_automix.verifiers.support import SupportVerifier
    from langchain_automix.verifiers.token_probability import TokenProbabilityVerifier
    from langchain_automix.verifiers.wording import Wording

# Loaded when first asked for, so that `import langchain_automix` costs next to nothing.
_HOME = {
    "AgreementVerifier": "verifiers.agreement",
    "AutoMixError": "errors",
    "AutoMixMiddleware": "middleware",
    "AutoMixRunnable": "runnable",
    "AutoMixTotals": "totals",
    "ChatAutoMix": "chat_model",
    "CircuitBreaker": "breaker",
    "CombinedVerifier": "verifiers.combined",
    "Comparison": "compared",
    "CutShortError": "errors",
    "DeadlineError": "errors",
    "Decision": "types",
    "DecisionVerifier": "verifiers.decision",
    "EarlierAgreementVerifier": "verifiers.agreement",
    "Evaluation": "evaluation",
    "FunctionVerifier": "verifiers.plain",
    "LogProbabilityVerifier": "verifiers.log_probability",
    "ModelsFailedError": "errors",
    "POMDPRouter": "routers.pomdp",
    "PatternVerifier": "verifiers.plain",
    "PriceWarning": "costs",
    "Report": "report.report",
    "RoutingLog": "policy.log",
    "RoutingState": "types",
    "SchemaVerifier": "verifiers.plain",
    "SelfVerifier": "verifiers.self_verifier",
    "SpendLimit": "spend",
    "SpendLimitReachedError": "errors",
    "SpendWarning": "spend",
    "SupportVerifier": "verifiers.support",
    "ThresholdRouter": "routers.threshold",
    "TokenProbabilityVerifier": "verifiers.token_probability",
    "UncalibratedWarning": "routers.pomdp",
    "Verification": "types",
    "VerifierChangedWarning": "routers.pomdp",
    "Visit": "types",
    "Wording": "verifiers.wording",
    "acalibrate": "calibration.run",
    "aevaluate_on_langsmith": "calibration.experiment",
    "calibrate": "calibration.run",
    "compare_verifiers": "comparison",
    "evaluate": "evaluation",
    "evaluate_on_langsmith": "calibration.experiment",
    "explain": "explanation",
    "log_from_langsmith": "calibration.langsmith",
}

# Serialisable classes that are no public names: `load` looks for what was saved in the package.
_SAVED_HOME = {
    "AlwaysRouter": "routers.baselines",
    "DoubleThresholdRouter": "routers.baselines",
    "EmbeddingSimilarity": "calibration.judges",
    "FittedThresholdRouter": "routers.baselines",
    "LLMJudge": "calibration.judges",
    "OracleRouter": "routers.baselines",
    "RandomMixRouter": "routers.baselines",
    "ReleasedPOMDPRouter": "routers.baselines",
    "StructuredMix": "_structured",
}

__all__ = [
    "AgreementVerifier",
    "AutoMixError",
    "AutoMixMiddleware",
    "AutoMixRunnable",
    "AutoMixTotals",
    "ChatAutoMix",
    "CircuitBreaker",
    "CombinedVerifier",
    "Comparison",
    "CutShortError",
    "DeadlineError",
    "Decision",
    "DecisionVerifier",
    "EarlierAgreementVerifier",
    "Evaluation",
    "FunctionVerifier",
    "LogProbabilityVerifier",
    "ModelsFailedError",
    "POMDPRouter",
    "PatternVerifier",
    "PriceWarning",
    "Report",
    "RoutingLog",
    "RoutingState",
    "SchemaVerifier",
    "SelfVerifier",
    "SpendLimit",
    "SpendLimitReachedError",
    "SpendWarning",
    "SupportVerifier",
    "ThresholdRouter",
    "TokenProbabilityVerifier",
    "UncalibratedWarning",
    "Verification",
    "VerifierChangedWarning",
    "Visit",
    "Wording",
    "__version__",
    "acalibrate",
    "aevaluate_on_langsmith",
    "calibrate",
    "compare_verifiers",
    "evaluate",
    "evaluate_on_langsmith",
    "explain",
    "log_from_langsmith",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name) or _SAVED_HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return list(__all__)
