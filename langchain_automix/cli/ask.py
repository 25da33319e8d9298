"""`automix ask`: answer one question, and show how it was decided."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langchain_automix.cli.options import AsJson, MixOptions, expand_options
from langchain_automix.errors import AutoMixError
from langchain_automix.utils.text import printable

if TYPE_CHECKING:
    from langchain_automix.local.models import Model


def register(app: typer.Typer) -> None:
    """Add `ask` to the command line; errors are `AutoMixError`."""
    app.command("ask")(expand_options(ask))


def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    models: MixOptions,
    context: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Text to answer from.")
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Policy file.", show_default="a prior, not calibrated"),
    ] = None,
    other_models: Annotated[
        bool,
        typer.Option("--other-models", help="Let the models have other names than the policy's."),
    ] = False,
    check: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The check of the answers; an unknown name lists all.",
            show_default="the policy's own",
        ),
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
    asked = _Question(question, context, models, policy, check, other_models=other_models)
    answer, record = asked.answer()
    if as_json:
        more = {"explanation": explain(record)} if explained else {}
        typer.echo(json.dumps({"answer": answer, "automix": record, **more}, ensure_ascii=False))
        return
    console = Console(markup=False, highlight=False)
    console.print(printable(answer))
    # An explanation is not wrapped: a bar would break in two.
    reason = f"\n{explain(record)}" if explained else f"({record['model']}) {record['why']}"
    console.print(printable(reason), style="dim", soft_wrap=explained)


class _Question:
    """One question, and the mix that answers it."""

    def __init__(
        self,
        question: str,
        context: Path | None,
        models: MixOptions,
        policy: Path | None,
        check: str | None,
        *,
        other_models: bool,
    ) -> None:
        """Read all files, before a model is opened.

        Raises:
            AutoMixError: A file cannot be read, or the policy is for other models.
        """
        from rich.console import Console

        from langchain_automix.cli.checks import resolve_checks
        from langchain_automix.cli.inputs import read_prices, read_question_prompt
        from langchain_automix.cli.open_models import refuse_default_models
        from langchain_automix.local.demo.run import PROMPT
        from langchain_automix.routers.pomdp import POMDPRouter

        self.question, self.check = question, check
        resolve_checks([check] if check else [])
        self.path = policy
        self.router = POMDPRouter() if policy is None else POMDPRouter.load(policy)
        self.options = models.to_model_options()
        is_fitted = policy is not None and self.router.is_calibrated
        self.is_bound = is_fitted and not other_models
        if policy is not None and self.is_bound and models.small is models.large is None:
            refuse_default_models(policy, self.router.policy, self.options)
        self.context = None if context is None else _read(context)
        self.prompt: Any = None if self.context is None else PROMPT
        if models.prompt is not None:
            self.prompt = read_question_prompt(models.prompt, has_context=context is not None)
        self.prices = None if models.prices is None else read_prices(models.prices)
        self.console = Console(stderr=True)

    def answer(self) -> tuple[str, dict[str, Any]]:
        """Return the answer of the mix, and the record of how it was decided.

        Raises:
            AutoMixError: A model cannot be opened or failed, or the check cannot be rebuilt.
        """
        from langchain_automix.cli.checks import build_policy_check
        from langchain_automix.cli.open_models import opened_models
        from langchain_automix.local.models import explain_failure
        from langchain_automix.mix.from_policy import validate_models
        from langchain_automix.mix.runnable import AutoMixRunnable

        with opened_models(self.options, self.console) as models:
            chats = [model.chat for model in models]
            if self.is_bound:
                validate_models(f"The policy {self.path}", self.router.policy.models, chats)
            mix = AutoMixRunnable(
                models=chats,
                verifier=build_policy_check(
                    self.path, self.router.policy, self.check, models, self.options
                ),
                router=self.router,
                prompt=self.prompt,
                prices=self.prices,
            )
            try:
                message = mix.invoke(self._input(models))
            except Exception as error:
                raise explain_failure(error, models) from error
        return str(message.text), message.response_metadata["automix"]

    def _input(self, models: Sequence[Model]) -> Any:
        if self.prompt is None:
            return self.question
        text = "" if self.context is None else self._shortened(self.context, models)
        return {"question": self.question, "context": text, "history": []}

    def _shortened(self, text: str, models: Sequence[Model]) -> str:
        """Return as much of the context as fits all models."""
        from langchain_automix.local.models import input_limit, token_counter
        from langchain_automix.verifiers.prompting.truncation import truncate_context

        limit, count = input_limit(models, self.options), token_counter(models)
        if limit is None:
            return text

        def fits(part: str) -> bool:
            values = {"question": self.question, "context": part, "history": []}
            return count(self.prompt.invoke(values).to_messages()) <= limit

        shortened = truncate_context(text, relevant_to=self.question, fits=fits)
        if shortened != text:
            self.console.print(f"The context was shortened to fit {limit} tokens.", style="dim")
        return shortened


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AutoMixError(f"The context {path} cannot be read: {reason}.") from error
