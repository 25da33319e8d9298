"""Options of the command line that several verbs or files take, each declared once.

Nothing heavy is imported here, nor at the top of a verb's file, so that `--help` answers at once.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from langchain_automix.errors import AutoMixError

if TYPE_CHECKING:
    from langchain_automix.local.models import ModelOptions

USUAL_CHECK = "agreement"
"""What `automix calibrate` checks with; docs/guides/choosing-a-check.md says why."""

USUAL_LOSS = 0.01
"""The goal of `automix fit` where none is given: the most quality to lose, `--max-loss`."""


def _validate_cost_weight(value: float | None) -> float | None:
    if value is not None and not 0 <= value < float("inf"):
        raise AutoMixError(f"--cost-weight must be a number of at least 0, not {value!r}.")
    return value


def _validate_max_spend(value: float | None) -> float | None:
    if value is not None and not 0 < value < float("inf"):
        raise AutoMixError(f"--max-spend must be above 0, not {value!r}.")
    return value


def option(default: Any, text: str, *names: str, **more: Any) -> Any:
    """Return a field of a dataclass of options; `text` is its help."""
    return field(default=default, metadata={"option": typer.Option(*names, help=text, **more)})


def cost_weight_option(text: str, **more: Any) -> Any:
    """Return the option `--cost-weight`, with its range; `text` is its help."""
    return typer.Option(help=text, callback=_validate_cost_weight, **more)


CostWeight = Annotated[
    float | None, cost_weight_option("Evaluate at this cost weight instead of the policy's own.")
]
LogFile = Annotated[
    Path,
    typer.Argument(
        help="Routing log: .jsonl, .jsonl.gz or .parquet; a folder of such files, or a pattern."
    ),
]
PolicyFile = Annotated[Path, typer.Argument(help="Policy file, as `automix fit` writes it.")]
RAY_HELP = (
    "Have the workers of this Ray cluster do it: auto, local (one that is started here) or "
    "ray://HOST:PORT."
)
RayAddress = Annotated[str | None, typer.Option("--ray", metavar="ADDRESS", help=RAY_HELP)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]

_example_option = functools.partial(option, rich_help_panel="Examples and grades")
_money_option = functools.partial(option, rich_help_panel="Money and time")
_comparison_option = functools.partial(option, rich_help_panel="Comparison")


@dataclass(frozen=True)
class ModelSelection:
    """Options of every verb that opens models."""

    small: str | None = option(
        None,
        "The small model: a local name, a .gguf file, or provider:model.",
        metavar="MODEL",
        show_default="qwen2.5-coder-0.5b, on this machine",
    )
    large: str | None = option(
        None,
        "The large model, in the same form.",
        metavar="MODEL",
        show_default="qwen2.5-coder-1.5b, on this machine",
    )
    weights: Path | None = option(
        None, "Folder with the .gguf files, which are then not downloaded.", metavar="PATH"
    )
    port: int = option(
        0,
        "Port of the small model's server; the large model's takes the next one.",
        min=0,
        max=65_535,
        show_default="free ones",
    )
    samples: int = option(8, "Verdicts to draw for each answer.", min=1)
    seed: int = option(7, "Seed for the models and for the order of the questions.")

    def to_model_options(self) -> ModelOptions:
        """Return what opens these models."""
        from langchain_automix.local.models import LARGE, SMALL, ModelOptions

        return ModelOptions(
            small=self.small or SMALL,
            large=self.large or LARGE,
            weights=self.weights,
            port=self.port,
            seed=self.seed,
            samples=self.samples,
        )


@dataclass(frozen=True)
class DemoOptions(ModelSelection):
    """Options of the demo."""

    samples: int = option(4, "Verdicts, or answers sampled anew, for one check.", min=1)
    questions: int | None = option(
        None,
        "Number of questions to ask; in a replay, those fitted on among them.",
        min=4,
        show_default="40, or as many as --minutes allows; in a replay, all",
    )
    minutes: float = option(
        9, "Time for the demo, without --questions; a slow machine answers fewer.", min=1
    )
    data: Path | None = option(
        None,
        "JSON lines with question, context and references.",
        metavar="FILE",
        show_default="400 shipped questions",
    )
    price_ratio: str = option(
        "25",
        "Price of the large model relative to the small one's, for the decisions.",
        metavar="RATIO|measured",
    )
    replay: bool = option(
        False, "Show the recorded run: no model, no download, no extra `local`.", "--replay"
    )
    learn_live: bool = option(
        False,
        "Measure what the policy is fitted to now, too, not only what it routes; so it is with "
        "models or questions of your own.",
        "--learn-live",
    )
    log: Path | None = option(None, "Write the routing log here.", metavar="FILE")
    record: Path | None = option(
        None,
        "Record all calls here, for a replay; asks every question everything. Stopped, it goes on "
        "where it was.",
        metavar="FILE",
    )


@dataclass(frozen=True)
class PricedModels(ModelSelection):
    """Options of every verb that opens models to answer the user's own questions."""

    middle: list[str] | None = option(None, "A model between the two; repeatable.", metavar="MODEL")
    answer_tokens: int = option(512, "Longest answer of a local model, in tokens.", min=1)
    prices: Path | None = _money_option(
        None,
        'Dollars per million tokens, as JSON: {"MODEL": {"input": 1, "output": 4}}.',
        metavar="FILE",
    )

    def to_model_options(self) -> ModelOptions:
        """Return what opens these models."""
        return replace(
            super().to_model_options(),
            middle=tuple(self.middle or ()),
            answer_tokens=self.answer_tokens,
        )


@dataclass(frozen=True)
class ServedModels(PricedModels):
    """Options of the models that are served; the port is that of the server."""

    port: int = option(8000, "Port to listen at; 0: any that is free.", min=0, max=65_535)

    def to_model_options(self) -> ModelOptions:
        """Return what opens these models, local ones at free ports."""
        return replace(super().to_model_options(), port=0)


@dataclass(frozen=True)
class ServedMixOptions:
    """Options of a mix that is served, beside its models."""

    other_models: bool = option(
        False, "Let the models have other names than the policy's.", "--other-models"
    )
    check: str | None = option(
        None,
        "The check of the answers; an unknown name lists all.",
        metavar="NAME",
        show_default="the policy's own",
    )
    learning: str | None = option(None, "Learn from the traffic, in this store.", metavar="STORE")
    max_spend: str | None = option(None, "Refuse queries beyond these dollars.", metavar="AMOUNT")


@dataclass(frozen=True)
class ServerOptions:
    """Options of the server itself."""

    host: str = option(
        "127.0.0.1", "Address to listen at; one that other machines reach needs keys."
    )
    name: str = option("automix", "Name of the model to clients.")
    timeout: float = option(600, "Seconds that one query may take.")
    max_concurrent: int = option(1_000, "Queries at a time.", min=1)
    grace: float = option(30, "Seconds that queries get to end when the server stops.")
    cors_origin: list[str] | None = option(None, "A web page whose scripts may ask; repeatable.")
    show_texts: bool = option(False, "Show questions on the live page.", "--show-texts")
    metrics_open: bool = option(False, "Tell /metrics without a key.", "--metrics-open")


@dataclass(frozen=True)
class MixOptions(PricedModels):
    """Options of every verb that asks the user's own questions."""

    prompt: Path | None = _example_option(
        None,
        "The models' prompt: a text with {question} in it, and optionally {context} and {history}.",
        metavar="FILE",
        show_default="the question, after its context",
    )


@dataclass(frozen=True)
class CalibrationOptions(MixOptions):
    """Options of every verb that runs models over examples."""

    quality: str = _example_option(
        "exact_match",
        "How to grade answers: exact_match, f1, numeric, multiple_choice, contains, json_equal, "
        "judge:PROVIDER:MODEL, or FILE.py:FUNCTION.",
        metavar="GRADER",
    )
    without_references: Literal["agreement", "grade"] = _example_option(
        "agreement",
        "How to grade where there is no accepted answer: by agreement with the largest model's "
        "answer, or by --quality alone.",
    )
    question: str | None = _example_option(
        None, "Your name for the field `question`.", metavar="NAME"
    )
    context: str | None = _example_option(
        None, "Your name for the field `context`.", metavar="NAME"
    )
    references: str | None = _example_option(
        None, "Your name for the accepted answers.", metavar="NAME"
    )
    limit: int | None = _example_option(None, "Use only the first so many examples.", min=1)
    max_spend: float | None = _money_option(
        None,
        "Spend limit for all runs of this log together.",
        metavar="AMOUNT",
        callback=_validate_max_spend,
    )
    unit: Literal["dollars", "seconds"] | None = _money_option(
        None, "Unit of costs.", show_default="dollars, or seconds with a local model"
    )
    concurrency: int | None = _money_option(
        None, "Calls at a time.", min=1, show_default="16, or 1 for seconds"
    )
    ray: str | None = _money_option(None, RAY_HELP, metavar="ADDRESS")
    dry_run: bool = _money_option(False, "Print the estimate and stop.", "--dry-run")
    yes: bool = _money_option(False, "Do not ask before spending.", "--yes")
    rerun_changed: bool = _money_option(
        False,
        "Repeat the calls that depend on a changed prompt, model or setting.",
        "--rerun-changed",
    )
    as_json: bool = option(False, "Print JSON objects on stdout, one a line.", "--json")

    @property
    def names(self) -> dict[str, str]:
        """The user's names for the fields of an example."""
        given = {name: getattr(self, name) for name in ("question", "context", "references")}
        return {field: name for field, name in given.items() if name is not None}

    def to_model_options(self) -> ModelOptions:
        """Return what opens these models; hosted ones are retried patiently."""
        from langchain_automix.local.models import RETRIES

        return replace(super().to_model_options(), max_retries=RETRIES)


@dataclass(frozen=True)
class ComparisonOptions:
    """Options of the comparison of checks; all but `check` also apply to a log."""

    check: list[str] | None = _comparison_option(
        None,
        "A check to make; repeatable. An unknown name lists all.",
        metavar="NAME",
        show_default="all but the most expensive ones",
    )
    k: list[int] | None = _comparison_option(
        None,
        "Number of verdicts to compare, of those drawn; repeatable.",
        min=1,
        show_default="1, 2, 4 and 8",
    )
    cost_weight: float | None = _comparison_option(
        None,
        "Quality that one unit of cost is worth.",
        callback=_validate_cost_weight,
        show_default="where mixing the models at random neither gains nor loses",
    )
    markdown: Path | None = _comparison_option(
        None, "Write the table, with more columns, here.", metavar="FILE"
    )


def typed_options(invocation: typer.Context) -> set[str]:
    """Return the names of the options that were typed, not left at their defaults."""
    sources = {name: invocation.get_parameter_source(name) for name in invocation.params}
    return {name for name, source in sources.items() if source and source.name == "COMMANDLINE"}


def expand_options(verb: Callable[..., None]) -> Callable[..., None]:
    """Let a verb take dataclasses of options: each field becomes an option of the verb."""
    hints = get_type_hints(verb, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(verb).parameters.items():
        if name in groups:
            parameters += _parameters(groups[name])
        else:
            parameters.append(
                parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=hints[name])
            )

    @functools.wraps(verb)
    def run(**given: Any) -> None:
        built = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        verb(**given, **built)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _parameters(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=Annotated[hints[field.name], field.metadata["option"]],
        )
        for field in fields(group)
    ]
