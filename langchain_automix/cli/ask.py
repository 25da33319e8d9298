"""`automix ask`: answer one question, and show how it was decided."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langchain_automix.cli.options import AsJson, ModelSelection, expand_options
from langchain_automix.errors import AutoMixError
from langchain_automix.utils.text import printable

if TYPE_CHECKING:
    from rich.console import Console

    from langchain_automix.local.models import ModelOptions, ModelPair

_ANSWER_TOKENS = 512


def register(app: typer.Typer) -> None:
    """Add `ask` to the command line; errors are `AutoMixError`."""
    app.command("ask")(expand_options(ask))


def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    models: ModelSelection,
    context: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Text to answer from.")
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Policy file.", show_default="a prior, not calibrated"),
    ] = None,
    explained: Annotated[
        bool,
        typer.Option("--explain", help="Show the belief, the value of each option, and the bill."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Answer one question, and show how it was decided."""
    from rich.console import Console

    from langchain_automix.mix.explain import explain

    if not question.strip():
        raise AutoMixError("The question is empty: there is nothing to answer.")
    answer, record = _answer(question, context, models, policy)
    if as_json:
        more = {"explanation": explain(record)} if explained else {}
        typer.echo(json.dumps({"answer": answer, "automix": record, **more}, ensure_ascii=False))
        return
    console = Console(markup=False, highlight=False)
    console.print(printable(answer))
    # An explanation is not wrapped: a bar would break in two.
    reason = f"\n{explain(record)}" if explained else f"({record['model']}) {record['why']}"
    console.print(printable(reason), style="dim", soft_wrap=explained)


def _answer(
    question: str, context: Path | None, models: ModelSelection, policy: Path | None
) -> tuple[str, dict[str, Any]]:
    """Answer a question with the mix; return the answer and the record of the decision.

    Raises:
        AutoMixError: A file cannot be read, or a model failed.
    """
    from rich.console import Console

    from langchain_automix.cli.checks import build_fitted_check
    from langchain_automix.cli.open_models import opened_pair
    from langchain_automix.local.demo.run import PROMPT
    from langchain_automix.mix.runnable import AutoMixRunnable
    from langchain_automix.routers.pomdp import POMDPRouter

    router = POMDPRouter() if policy is None else POMDPRouter.load(policy)
    text = None if context is None else _read(context)
    options = replace(models.to_model_options(), answer_tokens=_ANSWER_TOKENS)
    console = Console(stderr=True)
    with opened_pair(options, console) as pair:
        mix = AutoMixRunnable(
            models=[pair.small.chat, pair.large.chat],
            verifier=build_fitted_check(router.policy, (pair.small, pair.large), options),
            router=router,
            prompt=None if text is None else PROMPT,
        )
        query: Any = question
        if text is not None:
            text = _truncate(text, question, pair, options, console)
            query = {"question": question, "context": text}
        try:
            message = mix.invoke(query)
        except Exception as error:
            raise pair.explain(error) from error
    return str(message.text), message.response_metadata["automix"]


def _truncate(
    text: str, question: str, pair: ModelPair, options: ModelOptions, console: Console
) -> str:
    """Return as much of a context as fits both models."""
    from langchain_automix.local.demo.run import PROMPT
    from langchain_automix.local.models import input_limit, token_counter
    from langchain_automix.verifiers.prompting.truncation import truncate_context

    models = (pair.small, pair.large)
    limit, count = input_limit(models, options), token_counter(models)
    if limit is None:
        return text

    def fits(part: str) -> bool:
        return count(PROMPT.format_messages(question=question, context=part)) <= limit

    truncated = truncate_context(text, relevant_to=question, fits=fits)
    if truncated != text:
        console.print(f"The context was shortened to fit {limit} tokens.", style="dim")
    return truncated


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise AutoMixError(f"The context {path} cannot be read: {error}.") from error
