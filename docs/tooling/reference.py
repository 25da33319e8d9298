"""The two pages of the reference that are made from the code: the Python names and the commands."""

from __future__ import annotations

import re

import typer
from typer.cli import get_docs_for_click

import langchain_automix
from langchain_automix.cli.app import app

GROUPS = {
    "The mix": ("AutoMixRunnable", "ChatAutoMix", "AutoMixMiddleware"),
    "Checks": (
        "SelfVerifier",
        "TokenProbabilityVerifier",
        "LogProbabilityVerifier",
        "AgreementVerifier",
        "EarlierAgreementVerifier",
        "SupportVerifier",
        "DecisionVerifier",
        "SchemaVerifier",
        "PatternVerifier",
        "FunctionVerifier",
        "CombinedVerifier",
        "DefaultVerifier",
        "Wording",
    ),
    "Routers": ("POMDPRouter", "ThresholdRouter"),
    "What travels between them": ("Verification", "Visit", "RoutingState", "Decision"),
    "From examples to a policy": (
        "calibrate",
        "acalibrate",
        "RoutingLog",
        "evaluate",
        "Evaluation",
        "Report",
        "compare_verifiers",
        "Comparison",
    ),
    "Learning in production": ("Learning", "LearningStatus"),
    "Money, failures and totals": ("SpendLimit", "CircuitBreaker", "AutoMixTotals", "explain"),
    "LangSmith": ("log_from_langsmith", "evaluate_on_langsmith", "aevaluate_on_langsmith"),
    "Errors": (
        "AutoMixError",
        "ModelsFailedError",
        "CutShortError",
        "DeadlineError",
        "SpendLimitReachedError",
    ),
    "Warnings": (
        "UncalibratedWarning",
        "VerifierChangedWarning",
        "MixCostWarning",
        "PriceWarning",
        "RepeatedFailureWarning",
        "SpendWarning",
        "LearningWarning",
    ),
}
"""Every public name, under the heading where a reader looks for it. A name that is in no group
stands under "More"."""


def python_page() -> str:
    """Return the page of all public names, for mkdocstrings to fill in."""
    named = {name for names in GROUPS.values() for name in names}
    rest = tuple(sorted(set(langchain_automix.__all__) - named - {"__version__"}))
    parts = [
        "---\ndescription: Every public name, from its docstring.\n---\n",
        "# Python\n\nEvery name that `from langchain_automix import ...` offers, from its "
        "docstring. What is not on this page is private to the package.\n",
    ]
    for heading, names in {**GROUPS, "More": rest}.items():
        if names:
            parts.append(f"## {heading}\n")
            parts += [f"::: langchain_automix.{name}\n" for name in names]
    return "\n".join(parts)


def command_page() -> str:
    """Return the page of all commands, from the program itself."""
    group = typer.main.get_command(app)
    text = get_docs_for_click(obj=group, ctx=typer.Context(group), name="automix")
    # The page has its own title, and each command a heading below it.
    _, _, body = text.partition("\n")
    escaped = re.sub(r"<(?=[a-z])", "&lt;", _outside_code(body))
    head = "---\ndescription: Every command and option, from the program itself.\n---\n\n"
    return f"{head}# Command line\n{escaped}"


def _outside_code(text: str) -> str:
    """Return the text with headings that fit a page: a command, not its line of code."""
    return re.sub(r"^(#+) `(automix[^`]*)`$", r"\1 \2", text, flags=re.MULTILINE)
