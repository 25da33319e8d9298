"""Options that several verbs of `automix` take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from langchain_automix.local.models import ModelOptions


Small = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="The small model: a local name, a .gguf file, or provider:model.",
        show_default="qwen2.5-coder-0.5b, on this machine",
    ),
]
Large = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="The large model, likewise.",
        show_default="qwen2.5-coder-1.5b, on this machine",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="Folder that holds the .gguf files, instead of fetching."),
]
Port = Annotated[
    int,
    typer.Option(
        min=0,
        max=65_535,
        help="Port of the small model's server; the large one takes the next.",
        show_default="free ones",
    ),
]
USUAL_CHECK = "agreement"
"""What `automix calibrate` checks with; the README says why."""

Samples = Annotated[int, typer.Option(min=1, help="Verdicts drawn for one answer.")]
Seed = Annotated[int, typer.Option(help="Seed of the models and of the order of questions.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]

EXAMPLES_PANEL, MONEY_PANEL = "Examples and grades", "Money and time"

Middle = Annotated[
    list[str] | None,
    typer.Option(metavar="MODEL", help="A model between the two; may be given again."),
]
AnswerTokens = Annotated[int, typer.Option(min=1, help="Longest answer of a local model.")]
Quality = Annotated[
    str,
    typer.Option(
        metavar="GRADER",
        help="How answers are graded: exact_match, f1, numeric, multiple_choice, contains, "
        "json_equal, judge:PROVIDER:MODEL, or FILE.py:FUNCTION.",
        rich_help_panel=EXAMPLES_PANEL,
    ),
]
WithoutReferences = Annotated[
    Literal["agreement", "grade"],
    typer.Option(
        help="Where there is no accepted answer: agreement with the largest model's, or a "
        "grade by --quality all the same.",
        rich_help_panel=EXAMPLES_PANEL,
    ),
]
PromptFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="What the models get: a text with {question}, {context}, {history} in it.",
        show_default="the question, after its context",
        rich_help_panel=EXAMPLES_PANEL,
    ),
]
QuestionName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Your name for the question.", rich_help_panel=EXAMPLES_PANEL
    ),
]
ContextName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="For the context.", rich_help_panel=EXAMPLES_PANEL),
]
ReferencesName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="For the accepted answers.", rich_help_panel=EXAMPLES_PANEL),
]
Limit = Annotated[
    int | None,
    typer.Option(min=1, help="Take only the first so many.", rich_help_panel=EXAMPLES_PANEL),
]
MaxSpend = Annotated[
    float | None,
    typer.Option(
        metavar="AMOUNT",
        help="Stop at this, all runs for this log together.",
        rich_help_panel=MONEY_PANEL,
    ),
]
UnitOfCost = Annotated[
    Literal["dollars", "seconds"] | None,
    typer.Option(
        help="What costs are counted in.",
        show_default="dollars, or seconds with a local model",
        rich_help_panel=MONEY_PANEL,
    ),
]
PricesFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help='Dollars for a million tokens, as JSON: {"MODEL": {"input": 1, "output": 4}}.',
        rich_help_panel=MONEY_PANEL,
    ),
]
Concurrency = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Calls at a time.",
        show_default="16, or 1 for seconds",
        rich_help_panel=MONEY_PANEL,
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only the estimate.", rich_help_panel=MONEY_PANEL)
]
Yes = Annotated[
    bool, typer.Option("--yes", help="Do not ask before spending.", rich_help_panel=MONEY_PANEL)
]
RerunChanged = Annotated[
    bool,
    typer.Option(
        "--rerun-changed",
        help="Make calls again that a changed prompt, model or setting shapes.",
        rich_help_panel=MONEY_PANEL,
    ),
]


def wanted_models(
    small: str | None,
    large: str | None,
    weights: Path | None,
    port: int,
    seed: int,
    samples: int,
    **more: Any,
) -> ModelOptions:
    """Return which models the options ask for."""
    from langchain_automix.local.models import LARGE, SMALL, ModelOptions  # noqa: PLC0415  (for --help)

    return ModelOptions(
        small=small or SMALL,
        large=large or LARGE,
        weights=weights,
        port=port,
        seed=seed,
        samples=samples,
        **more,
    )


LogFile = Annotated[Path, typer.Argument(help="Routing log: .jsonl, .jsonl.gz or .parquet.")]
PolicyFile = Annotated[Path, typer.Argument(help="Policy file, as `automix fit` writes it.")]
