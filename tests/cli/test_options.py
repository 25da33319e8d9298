"""Options that several verbs take: declared once, and checked in one place."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from langchain_automix import AutoMixError
from langchain_automix.cli.app import app
from langchain_automix.cli.options import AsJson, ModelSelection, expand_options


@pytest.mark.parametrize("value", ["-1", "nan", "inf"])
@pytest.mark.parametrize(
    "verb",
    [
        "calibrate examples.jsonl --out log.jsonl --adaptive",
        "compare-verifiers examples.jsonl",
        "evaluate policy.json log.jsonl",
        "fit log.jsonl --out policy.json",
        "report policy.json log.jsonl --out report.html",
    ],
)
def test_a_cost_weight_out_of_range(verb: str, value: str) -> None:
    with pytest.raises(AutoMixError, match="--cost-weight must be a number of at least 0"):
        CliRunner().invoke(app, [*verb.split(), f"--cost-weight={value}"], catch_exceptions=False)


def test_no_help_breaks_a_line_where_its_docstring_does() -> None:
    """After the first paragraph, the help keeps the line breaks of the source."""
    for command in app.registered_commands:
        assert command.callback
        first, *others = (inspect.getdoc(command.callback) or "").split("\n\n")
        assert first
        assert not [paragraph for paragraph in others if "\n" in paragraph], command.name


def test_a_dataclass_of_options_is_taken_apart_and_put_together() -> None:
    calls: list[Any] = []

    def verb(question: str, models: ModelSelection, as_json: AsJson = False) -> None:
        calls.append((question, models, as_json))

    program = typer.Typer()
    program.command()(expand_options(verb))
    for arguments in (["Why?"], ["Why?", "--small", "a", "--seed", "3", "--json"]):
        CliRunner().invoke(program, arguments, catch_exceptions=False)
    assert calls == [
        ("Why?", ModelSelection(), False),
        ("Why?", ModelSelection(small="a", seed=3), True),
    ]
