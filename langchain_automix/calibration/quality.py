"""Whatever grades an answer, brought into one form: names, callables, Runnables, evaluators."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseLanguageModel
from langchain_core.runnables import Runnable

from langchain_automix import _names
from langchain_automix._flow import Call, Flow
from langchain_automix._flowing import FlowRunnable
from langchain_automix._models import chat_model_of
from langchain_automix.calibration.evaluators import (
    AsyncGrader,
    LangSmithGrader,
    is_langsmith_evaluator,
)
from langchain_automix.calibration.grading import GRADERS, Grade, Grader, GraderInput
from langchain_automix.errors import AutoMixError
from langchain_automix.verifiers.sampling import Bill

_OUR_NAMES = ("answer", "references", "question", "context")
_HOW = (
    f"give one of {', '.join(sorted(GRADERS))}, a function of (answer, references) or of any of "
    f"{', '.join(_OUR_NAMES)} by name, an LLMJudge, an EmbeddingSimilarity, or an evaluator of "
    "LangSmith's"
)


class ByName:
    """A user's function that takes some of a grader's inputs by their names."""

    def __init__(self, function: Callable[..., Any], wanted: tuple[str, ...]) -> None:
        self.function = function
        self.wanted = wanted

    def __call__(self, input: GraderInput) -> Any:
        """Return what the function makes of its inputs."""
        given: Mapping[str, Any] = input
        return self.function(**{name: given[name] for name in self.wanted})


AnyGrader = Grader | ByName | Runnable[GraderInput, Any]
"""What `grader_from` returns: a function of answer and accepted answers, one of any of a grader's
inputs by name, or a Runnable."""


def grader_from(quality: Any) -> AnyGrader:
    """Return a grader, from whatever a user gives for one.

    Args:
        quality: A name (`exact_match`, `f1`, `numeric`, `multiple_choice`, `contains`,
            `json_equal`); a function of the answer and the accepted answers, or of any of
            `answer`, `references`, `question` and `context` by name, plain or `async`; a Runnable
            from `GraderInput` to a `Grade` or a number, such as an `LLMJudge`; a LangSmith
            evaluator, as a `RunEvaluator` or as a function of any of `run`, `example`, `inputs`,
            `outputs`, `reference_outputs` and `attachments`.

    Raises:
        AutoMixError: It is nothing that could grade.
    """
    if isinstance(quality, str):
        if quality not in GRADERS:
            raise AutoMixError(f"There is no grader {quality!r}: {_HOW}.")
        return GRADERS[quality]
    if isinstance(quality, Runnable):
        return _checked(quality)
    if isinstance(quality, Embeddings):
        raise AutoMixError("Embeddings alone grade nothing: give EmbeddingSimilarity(embeddings=).")
    if isinstance(quality, type):
        raise AutoMixError(f"{quality.__name__} is a class; give one of its objects.")
    if is_langsmith_evaluator(quality, given=_parameters(quality)):
        return LangSmithGrader(quality)
    if not callable(quality):
        raise AutoMixError(f"{quality!r} is no grader: {_HOW}.")
    return quality if isinstance(quality, ByName) else _from_function(quality)


def graded(grader: Any, input: GraderInput) -> Grade:
    """Grade an answer with a grader that is not a Runnable.

    Raises:
        AutoMixError: What it returns is neither a `Grade`, nor a number in [0, 1], nor None.
    """
    if isinstance(grader, ByName):
        return as_grade(grader(input), grader)
    return as_grade(grader(input["answer"], input["references"]), grader)


def grade_flow(grader: AnyGrader, input: GraderInput) -> Flow[Grade]:
    """Grade an answer with any grader; each request to a model is a call of the flow.

    Raises:
        AutoMixError: What it returns is neither a `Grade`, nor a number in [0, 1], nor None.
    """
    if isinstance(grader, FlowRunnable):
        own: Flow[Grade] = grader._flow(input)  # noqa: SLF001  (its calls become this flow's)
        return as_grade((yield from own), grader)
    if not isinstance(grader, Runnable):
        return graded(grader, input)
    bill = Bill()
    [found] = yield [Call(grader, input, run_name="grade", callbacks=[bill])]
    grade = as_grade(found, grader)
    return grade.model_copy(update={"calls": (*bill.calls,)}) if bill.calls else grade


def as_grade(found: Any, grader: Any) -> Grade:
    """Return what a grader found as a `Grade`.

    Args:
        found: A `Grade`, its fields as a mapping, a number, a truth value or None.
        grader: Who found it, for the error.

    Raises:
        AutoMixError: It is something else, or no quality in [0, 1].
    """
    if isinstance(found, Grade):
        return found
    fields = found if isinstance(found, Mapping) else {"quality": found}
    quality: Any = fields.get("quality", "")
    if type(quality).__module__ == "numpy" and hasattr(quality, "item"):
        quality = quality.item()
    known = fields.keys() <= Grade.model_fields.keys()
    if not known or not isinstance(quality, bool | int | float | None):
        raise AutoMixError(
            f"The grader {name_of(grader)} returned {found!r}; a grade is a number in [0, 1], or "
            "None if unknown."
        )
    if quality is not None and not 0 <= quality <= 1:  # NaN, too
        raise AutoMixError(
            f"The grader {name_of(grader)} returned {quality!r}; a grade lies in [0, 1]."
        )
    return Grade.model_validate({**fields, "quality": quality})


def name_of(grader: Any) -> str:
    """Return a text that names a grader with its settings, the same in every process.

    Grades that were made under one name are not to be mixed with those of another.
    """
    while isinstance(grader, ByName | LangSmithGrader | AsyncGrader):
        grader = grader.function
    return _names.name_of(grader)


def _checked(runnable: Runnable[Any, Any]) -> Runnable[Any, Any]:
    if isinstance(runnable, BaseLanguageModel) or chat_model_of(runnable) is not None:
        raise AutoMixError("A model alone grades nothing: give LLMJudge(model=...).")
    return runnable


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter] | None:
    """Return the parameters of a function; None where it does not tell them."""
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None


def _from_function(function: Callable[..., Any]) -> AnyGrader:
    """Return a user's function as a grader.

    Raises:
        AutoMixError: It takes neither what a grader gets, by name, nor two things in order.
    """
    parameters = _parameters(function)
    wanted = None if parameters is None else _names_taken(parameters)
    if wanted is None and parameters is not None and not _takes_two(function):
        raise AutoMixError(
            f"The grader {name_of(function)} takes ({', '.join(p.name for p in parameters)}); "
            f"{_HOW}."
        )
    if _is_async(function):
        return AsyncGrader(function, wanted)
    return function if wanted is None else ByName(function, wanted)


def _names_taken(parameters: Sequence[inspect.Parameter]) -> tuple[str, ...] | None:
    """Return which of a grader's inputs a function takes by name; None if that is not all."""
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    wanted = tuple(p.name for p in named if p.name in _OUR_NAMES)
    single = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    required = {p.name for p in parameters if p.default is p.empty and p.kind not in single}
    return wanted if wanted and required <= set(wanted) else None


def _takes_two(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind("", [])
    except TypeError:
        return False
    return True


def _is_async(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  (to look at it, not to ask for it)
    )
