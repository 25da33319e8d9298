"""The package as a whole: what importing it costs, and what it offers."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import langchain_automix

EXPECTED = [
    "AgreementVerifier",
    "ApiKey",
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
    "DefaultVerifier",
    "EarlierAgreementVerifier",
    "Evaluation",
    "FunctionVerifier",
    "Learning",
    "LearningStatus",
    "LearningWarning",
    "LogProbabilityVerifier",
    "MixCostWarning",
    "ModelsFailedError",
    "POMDPRouter",
    "PatternVerifier",
    "PolicyFile",
    "PriceWarning",
    "RepeatedFailureWarning",
    "Report",
    "RoutingLog",
    "RoutingState",
    "SchemaVerifier",
    "SelfVerifier",
    "ServeSettings",
    "ServedQuery",
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
    "create_app",
    "evaluate",
    "evaluate_on_langsmith",
    "explain",
    "log_from_langsmith",
]


def test_the_public_names() -> None:
    assert langchain_automix.__all__ == EXPECTED == sorted(EXPECTED)
    assert dir(langchain_automix) == EXPECTED
    for name in EXPECTED:
        assert getattr(langchain_automix, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        getattr(langchain_automix, "Nothing")  # noqa: B009  (a type checker knows better)


def test_type_checkers_are_told_the_same_names() -> None:
    """The stub names each public name once, from the module that it is loaded from."""
    stub = Path(langchain_automix.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    told = {
        alias.asname: f"{node.module}"
        for node in ast.parse(stub).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(map(str, told)) == EXPECTED
    for name in sorted({*EXPECTED} - {"__version__"}):
        assert getattr(importlib.import_module(told[name]), name) is getattr(
            langchain_automix, name
        )


def test_every_public_name_says_what_it_is() -> None:
    for name in sorted({*EXPECTED} - {"__version__"}):
        assert getattr(langchain_automix, name).__doc__


def test_the_version_stands_in_one_place() -> None:
    assert version("langchain-automix") == langchain_automix.__version__


@pytest.mark.parametrize(
    "code",
    [
        "import langchain_automix",
        "import langchain_automix.serve",
        "from langchain_automix import POMDPRouter, RoutingState, Verification; "
        "POMDPRouter().invoke(RoutingState.after(Verification(verdicts=(True, False))))",
    ],
)
def test_importing_loads_neither_numpy_nor_a_provider(code: str) -> None:
    unwanted = (
        "numpy",
        "matplotlib",
        "openai",
        "langchain",
        "langchain_openai",
        "langchain_anthropic",
        "langgraph",
        "redis",
        "typer",
        "fastapi",
        "starlette",
        "uvicorn",
        "prometheus_client",
    )
    check = f"import sys; {code}; print([m for m in {unwanted} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
