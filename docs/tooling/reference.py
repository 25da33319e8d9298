"""The two pages of the reference that are made from the code: the Python names and the commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer
from typer.cli import get_docs_for_click

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
    "Serving": ("create_app", "ServeSettings", "ApiKey", "PolicyFile", "ServedQuery"),
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
"""Every public name, under the heading where a reader looks for it."""


def python_page() -> str:
    """Return the page of all public names, for mkdocstrings to fill in."""
    parts = [
        "---\ndescription: Every public name, from its docstring.\n---\n",
        "# Python\n\nEvery name that `from langchain_automix import ...` offers, from its "
        "docstring. What is not on this page is private to the package.\n",
    ]
    for heading, names in GROUPS.items():
        parts.append(f"## {heading}\n")
        parts += [f"::: langchain_automix.{name}\n" for name in names]
    return "\n".join(parts)


def command_page() -> str:
    """Return the page of all commands, from the program itself."""
    group: Any = typer.main.get_command(app)
    text = get_docs_for_click(obj=group, ctx=typer.Context(group), name="automix")
    for command in _commands(group):  # typer cuts what a command does after some 45 characters
        does = (command.help or "").partition("\n\n")[0].replace("\n", " ")
        text = re.sub(
            rf"^\* `{command.name}`: .*\.\.\.$",
            f"* `{command.name}`: {does}",
            text,
            flags=re.MULTILINE,
        )
    # The page has its own title, and each command a heading below it.
    _, _, body = text.partition("\n")
    head = "---\ndescription: Every command and option, from the program itself.\n---\n\n"
    return f"{head}# Command line\n{_with_headings(body)}"


def _commands(group: Any) -> Iterator[Any]:
    for command in group.commands.values():
        yield command
        if hasattr(command, "commands"):
            yield from _commands(command)


def _with_headings(text: str) -> str:
    """Return the text with commands as plain headings, as a table of contents shows them best."""
    return re.sub(r"^(#+) `(automix[^`]*)`$", r"\1 \2", text, flags=re.MULTILINE)
