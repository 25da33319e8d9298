"""`automix ask`: one query, its decision shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.messages import BaseMessage

from langchain_automix.cli.checks import check_fitted
from langchain_automix.cli.open_models import opened
from langchain_automix.errors import AutoMixError
from langchain_automix.local.demo.run import PROMPT
from langchain_automix.local.models import ModelOptions, input_limit, token_counter
from langchain_automix.mix.runnable import AutoMixRunnable
from langchain_automix.routers.pomdp import POMDPRouter
from langchain_automix.verifiers.prompting.truncation import truncate_context

if TYPE_CHECKING:
    from rich.console import Console


def ask_once(
    question: str, context: Path | None, wanted: ModelOptions, policy: Path | None, console: Console
) -> dict[str, Any]:
    """Answer one question with the mix; return the answer and the record of the decision.

    Raises:
        AutoMixError: The question is empty, a file cannot be read, or a model failed.
    """
    if not question.strip():
        raise AutoMixError("The question is empty: there is nothing to answer.")
    router = POMDPRouter() if policy is None else POMDPRouter.load(policy)
    text = None if context is None else _read(context)
    with opened(wanted, console) as pair:
        models = (pair.small, pair.large)
        mix = AutoMixRunnable(
            models=[model.chat for model in models],
            verifier=check_fitted(router.policy.verifier, models, wanted),
            router=router,
            prompt=None if text is None else PROMPT,
        )
        if text is None:
            given: Any = question
        else:
            room, counter = input_limit(models, wanted), token_counter(models)
            context_that_fits = _shortened(text, question, room, counter, console)
            given = {"question": question, "context": context_that_fits}
        try:
            message = mix.invoke(given)
        except Exception as error:
            raise pair.explain(error) from error
    return {"answer": str(message.text), "automix": message.response_metadata["automix"]}


def _shortened(
    text: str,
    question: str,
    room: int | None,
    counter: Callable[[list[BaseMessage]], int],
    console: Console,
) -> str:
    if room is None:
        return text

    def fits(part: str) -> bool:
        return counter(PROMPT.format_messages(question=question, context=part)) <= room

    short = truncate_context(text, relevant_to=question, fits=fits)
    if short != text:
        console.print(f"The context was shortened to fit {room} tokens.", style="dim")
    return short


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AutoMixError(f"The context {path} cannot be read: {error}.") from error
