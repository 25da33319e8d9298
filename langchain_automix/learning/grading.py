"""How far a model's answer agrees with the largest model's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple, cast

from langchain_core.messages import AIMessage
from langchain_core.messages.tool import ToolCall
from langchain_core.runnables import Runnable, RunnableConfig

from langchain_automix.calibration.graders.custom import AnyGrader, run_grader, to_grade, to_grader
from langchain_automix.calibration.graders.text import GraderInput, exact_match
from langchain_automix.mix.shadow import is_answer
from langchain_automix.models.messages import answer_text
from langchain_automix.models.usage import UsageCollector
from langchain_automix.types import ModelCall
from langchain_automix.utils.json_values import json_value, same_json
from langchain_automix.verifiers.base import VerifierInput
from langchain_automix.verifiers.inputs import check_context


class Agreement(NamedTuple):
    """How far answers agree with the largest model's, by model, and what telling that cost."""

    qualities: dict[int, float]
    calls: list[ModelCall]


class AgreementGrader:
    """Grades the answers of a query by the largest model's answer to it.

    Args:
        quality: What grades a text, as `to_grader` takes it; None: whether two texts are the same
            after normalisation, or the same JSON. Tool calls are the same or not, whatever grades.
    """

    def __init__(self, quality: Any = None) -> None:
        self._grader: AnyGrader | None = None if quality is None else to_grader(quality)

    @property
    def is_free(self) -> bool:
        """Whether it certainly makes no request."""
        return self._grader is None

    def grade(
        self,
        answers: Mapping[int, AIMessage],
        largest: int,
        check_input: Mapping[str, Any],
        found: Agreement,
    ) -> None:
        """Grade the answers of one query; the largest model's is 1.

        Args:
            answers: By model.
            largest: Which of them all are compared with; without it, there is nothing to say.
            check_input: What the mix's check was told of the query.
            found: Takes the grades, and the requests, also where a later one fails.

        Raises:
            Exception: What the grader raised.
        """
        reference = answers.get(largest)
        if reference is None:
            return
        found.qualities[largest] = 1.0
        for model, answer in answers.items():
            if model != largest:
                quality = self._compare(answer, reference, check_input, found.calls)
                if quality is not None:
                    found.qualities[model] = quality

    def _compare(
        self,
        answer: AIMessage,
        reference: AIMessage,
        check_input: Mapping[str, Any],
        calls: list[ModelCall],
    ) -> float | None:
        if answer.tool_calls or reference.tool_calls:
            return float(_same_calls(answer.tool_calls, reference.tool_calls))
        text, accepted = answer_text(answer), answer_text(reference)
        if text == accepted:
            return 1.0
        if self._grader is None:
            return _same_text(text, accepted)
        told = check_context(cast("VerifierInput", check_input))
        asked = GraderInput(
            answer=text, references=[accepted], question=told.question, context=told.context
        )
        return self._ask(asked, calls)

    def _ask(self, asked: GraderInput, calls: list[ModelCall]) -> float | None:
        grader = self._grader
        if not isinstance(grader, Runnable):
            return run_grader(grader, asked).quality
        bill = UsageCollector()
        try:
            found = grader.invoke(asked, RunnableConfig(callbacks=[bill], run_name="grade"))
        finally:
            calls.extend([*bill.calls, *bill.unfinished])
        return to_grade(found, grader).quality


def gradable(answers: Mapping[int, Any]) -> dict[int, AIMessage]:
    """Return the messages among the answers of a query that say something, by model."""
    return {model: answer.message for model, answer in answers.items() if is_answer(answer)}


def _same_text(text: str, accepted: str) -> float | None:
    value, other = json_value(text), json_value(accepted)
    if value is not None and other is not None and _is_whole(value, other):
        return float(same_json(value, other))
    return exact_match(text, [accepted])


def _is_whole(*values: tuple[Any]) -> bool:
    """Whether one of some JSON values is more than a word or a number."""
    return any(isinstance(value, dict | list) for (value,) in values)


def _same_calls(calls: Sequence[ToolCall], others: Sequence[ToolCall]) -> bool:
    """Whether two messages call the same tools with the same arguments, in any order."""
    return sorted(map(_as_text, calls)) == sorted(map(_as_text, others))


def _as_text(call: ToolCall) -> str:
    value = json_value(json.dumps(call["args"], default=str))
    return repr((call["name"], _ordered(value)))


def _ordered(value: Any) -> Any:
    """Return a JSON value in which the order of keys, and the notation of numbers, is one."""
    if isinstance(value, dict):
        return sorted((name, repr(_ordered(each))) for name, each in value.items())
    if isinstance(value, list):
        return [_ordered(each) for each in value]
    if isinstance(value, tuple):
        return tuple(_ordered(each) for each in value)
    return value.normalize() if isinstance(value, Decimal) else value
