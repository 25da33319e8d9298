"""AutoMix for LangChain: pay for a larger model only where the evidence says so."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from langchain_automix._version import __version__

if TYPE_CHECKING:
    from langchain_automix.calibration.calibrate import acalibrate, calibrate
    from langchain_automix.calibration.langsmith.experiment import (
        aevaluate_on_langsmith,
        evaluate_on_langsmith,
    )
    from langchain_automix.calibration.langsmith.log import log_from_langsmith
    from langchain_automix.errors import (
        AutoMixError,
        CutShortError,
        DeadlineError,
        ModelsFailedError,
        SpendLimitReachedError,
    )
    from langchain_automix.evaluation.compare_verifiers import compare_verifiers
    from langchain_automix.evaluation.comparison import Comparison
    from langchain_automix.evaluation.evaluate import evaluate
    from langchain_automix.evaluation.result import Evaluation
    from langchain_automix.mix.chat_model import ChatAutoMix
    from langchain_automix.mix.explain import explain
    from langchain_automix.mix.limits.circuit_breaker import CircuitBreaker
    from langchain_automix.mix.limits.spend_limit import SpendLimit, SpendWarning
    from langchain_automix.mix.middleware import AutoMixMiddleware
    from langchain_automix.mix.runnable import AutoMixRunnable
    from langchain_automix.mix.totals import AutoMixTotals
    from langchain_automix.models.prices import PriceWarning
    from langchain_automix.policy.data.log import RoutingLog
    from langchain_automix.report.report import Report
    from langchain_automix.routers.pomdp import (
        POMDPRouter,
        UncalibratedWarning,
        VerifierChangedWarning,
    )
    from langchain_automix.routers.threshold import ThresholdRouter
    from langchain_automix.types import Decision, RoutingState, Verification, Visit
    from langchain_automix.verifiers.agreement import AgreementVerifier, EarlierAgreementVerifier
    from langchain_automix.verifiers.combined import CombinedVerifier
    from langchain_automix.verifiers.decision_model import DecisionVerifier
    from langchain_automix.verifiers.log_probability import LogProbabilityVerifier
    from langchain_automix.verifiers.prompting.wording import Wording
    from langchain_automix.verifiers.rules import FunctionVerifier, PatternVerifier, SchemaVerifier
    from langchain_automix.verifiers.self_verifier import SelfVerifier
    from langchain_automix.verifiers.support import SupportVerifier
    from langchain_automix.verifiers.token_probability import TokenProbabilityVerifier

# Loaded when first asked for, so that `import langchain_automix` costs next to nothing.
_HOME = {
    "AgreementVerifier": "verifiers.agreement",
    "AutoMixError": "errors",
    "AutoMixMiddleware": "mix.middleware",
    "AutoMixRunnable": "mix.runnable",
    "AutoMixTotals": "mix.totals",
    "ChatAutoMix": "mix.chat_model",
    "CircuitBreaker": "mix.limits.circuit_breaker",
    "CombinedVerifier": "verifiers.combined",
    "Comparison": "evaluation.comparison",
    "CutShortError": "errors",
    "DeadlineError": "errors",
    "Decision": "types",
    "DecisionVerifier": "verifiers.decision_model",
    "EarlierAgreementVerifier": "verifiers.agreement",
    "Evaluation": "evaluation.result",
    "FunctionVerifier": "verifiers.rules",
    "LogProbabilityVerifier": "verifiers.log_probability",
    "ModelsFailedError": "errors",
    "POMDPRouter": "routers.pomdp",
    "PatternVerifier": "verifiers.rules",
    "PriceWarning": "models.prices",
    "Report": "report.report",
    "RoutingLog": "policy.data.log",
    "RoutingState": "types",
    "SchemaVerifier": "verifiers.rules",
    "SelfVerifier": "verifiers.self_verifier",
    "SpendLimit": "mix.limits.spend_limit",
    "SpendLimitReachedError": "errors",
    "SpendWarning": "mix.limits.spend_limit",
    "SupportVerifier": "verifiers.support",
    "ThresholdRouter": "routers.threshold",
    "TokenProbabilityVerifier": "verifiers.token_probability",
    "UncalibratedWarning": "routers.pomdp",
    "Verification": "types",
    "VerifierChangedWarning": "routers.pomdp",
    "Visit": "types",
    "Wording": "verifiers.prompting.wording",
    "acalibrate": "calibration.calibrate",
    "aevaluate_on_langsmith": "calibration.langsmith.experiment",
    "calibrate": "calibration.calibrate",
    "compare_verifiers": "evaluation.compare_verifiers",
    "evaluate": "evaluation.evaluate",
    "evaluate_on_langsmith": "calibration.langsmith.experiment",
    "explain": "mix.explain",
    "log_from_langsmith": "calibration.langsmith.log",
}

# Serialisable classes that are no public names: `load` looks for what was saved in the package.
_SAVED_HOME = {
    "AlwaysRouter": "routers.baselines",
    "DoubleThresholdRouter": "routers.baselines",
    "EmbeddingSimilarity": "calibration.graders.judges",
    "FittedThresholdRouter": "routers.baselines",
    "LLMJudge": "calibration.graders.judges",
    "OracleRouter": "routers.baselines",
    "RandomMixRouter": "routers.baselines",
    "ReleasedPOMDPRouter": "routers.baselines",
    "StructuredMix": "mix.structured",
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
