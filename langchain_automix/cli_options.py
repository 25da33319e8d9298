"""Options that several verbs of `automix` take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from langchain_automix.demo.models import Wanted

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
Samples = Annotated[int, typer.Option(min=1, help="Verdicts drawn for one answer.")]
Seed = Annotated[int, typer.Option(help="Seed of the models and of the order of questions.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def wanted_models(
    small: str | None,
    large: str | None,
    weights: Path | None,
    port: int,
    seed: int,
    samples: int,
    **more: Any,
) -> Wanted:
    """Return which models the options ask for."""
    from langchain_automix.demo.models import LARGE, SMALL, Wanted  # noqa: PLC0415  (for --help)

    return Wanted(
        small=small or SMALL,
        large=large or LARGE,
        weights=weights,
        port=port,
        seed=seed,
        samples=samples,
        **more,
    )
