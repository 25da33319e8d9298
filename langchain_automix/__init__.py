"""AutoMix for LangChain: pay for a larger model only where the evidence says so."""

from __future__ import annotations

import importlib
from typing import Any

from langchain_automix._version import __version__ as __version__

# Public names and their modules. Each is imported when it is first used, so that importing the
# package is fast. `__init__.pyi` lists the same names for type checkers; a test compares them.
_HOME = {
    "AgreementVerifier": "verifiers.agreement",
    "ApiKey": "serve.keys",
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
    "DefaultVerifier": "verifiers.default",
    "EarlierAgreementVerifier": "verifiers.agreement",
    "Evaluation": "evaluation.result",
    "FunctionVerifier": "verifiers.rules",
    "Learning": "learning.learning",
    "LearningStatus": "learning.status",
    "LearningWarning": "learning.store.writer",
    "LogProbabilityVerifier": "verifiers.log_probability",
    "MixCostWarning": "mix.account",
    "ModelsFailedError": "errors",
    "POMDPRouter": "routers.pomdp",
    "PatternVerifier": "verifiers.rules",
    "PolicyFile": "serve.mixes",
    "PriceWarning": "models.prices",
    "RepeatedFailureWarning": "mix.limits.repeated_failures",
    "Report": "report.report",
    "RoutingLog": "policy.data.log",
    "RoutingState": "types",
    "SchemaVerifier": "verifiers.rules",
    "SelfVerifier": "verifiers.self_verifier",
    "ServeSettings": "serve.settings",
    "ServedQuery": "serve.observing",
    "SpendLimit": "mix.limits.spend_limit",
    "SpendLimitReachedError": "errors",
    "SpendWarning": "mix.limits.spend_store",
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
    "create_app": "serve.app",
    "evaluate": "evaluation.evaluate",
    "evaluate_on_langsmith": "calibration.langsmith.experiment",
    "explain": "mix.explain",
    "log_from_langsmith": "calibration.langsmith.log",
}

# Serialisable classes that are not public: `load` looks for saved classes in the package.
_SAVED_HOME = {
    "AlwaysRouter": "routers.baselines",
    "DoubleThresholdRouter": "routers.baselines",
    "EmbeddingSimilarity": "calibration.graders.judges",
    "FittedThresholdRouter": "routers.baselines",
    "LLMJudge": "calibration.graders.judges",
    "OracleRouter": "routers.baselines",
    "RandomMixRouter": "routers.baselines",
    "ReleasedPOMDPRouter": "routers.baselines",
    "StructuredMix": "mix.runnable",
}

__all__ = sorted([*_HOME, "__version__"])  # noqa: PLE0605  (the only list is above)


def __getattr__(name: str) -> Any:
    home = _HOME.get(name) or _SAVED_HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return __all__
