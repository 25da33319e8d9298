"""Convert all kinds of graders to one form: names, functions, Runnables, evaluators."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID, uuid4

from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseLanguageModel
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.runnables.config import run_in_executor

from langchain_automix.calibration.graders.text import GRADERS, Grade, Grader, GraderInput
from langchain_automix.errors import AutoMixError
from langchain_automix.flow.runnable import FlowRunnable
from langchain_automix.flow.steps import Call, Steps, call
from langchain_automix.models.usage import UsageCollector
from langchain_automix.models.wrappers import chat_model_of
from langchain_automix.utils import fingerprints as _names

if TYPE_CHECKING:
    from langsmith.schemas import Example, Run


T = TypeVar("T")

_INPUTS = ("answer", "references", "question", "context")
_LANGSMITH_INPUTS = {"run", "example", "inputs", "outputs", "reference_outputs", "attachments"}
_ACCEPTED = (
    f"give one of {', '.join(sorted(GRADERS))}, a function of (answer, references) or of any of "
    f"{', '.join(_INPUTS)} by name, an LLMJudge, an EmbeddingSimilarity, or an evaluator of "
    "LangSmith's"
)


class KeywordGrader:
    """A user's function that takes some of a grader's inputs by name."""

    def __init__(self, function: Callable[..., Any], names: tuple[str, ...]) -> None:
        self.function = function
        self.names = names

    def __call__(self, input: GraderInput) -> Any:
        """Call the function with the inputs that it takes."""
        inputs: Mapping[str, Any] = input
        return self.function(**{name: inputs[name] for name in self.names})


AnyGrader = Grader | KeywordGrader | Runnable[GraderInput, Any]
"""What `to_grader` returns: a function of the answer and the accepted answers, a function of some
of a grader's inputs by name, or a Runnable."""


def to_grader(quality: Any) -> AnyGrader:
    """Convert anything that a user may give as a grader to a grader.

    Args:
        quality: A name (`exact_match`, `f1`, `numeric`, `multiple_choice`, `contains`,
            `json_equal`); a function, plain or `async`, of the answer and the accepted answers, or
            of some of `answer`, `references`, `question` and `context` by name; a Runnable from
            `GraderInput` to a `Grade` or a number, such as an `LLMJudge`; or a LangSmith evaluator,
            as a `RunEvaluator` or as a function of some of `run`, `example`, `inputs`, `outputs`,
            `reference_outputs` and `attachments`.

    Raises:
        AutoMixError: `quality` cannot be used as a grader.
    """
    if isinstance(quality, str):
        if quality not in GRADERS:
            raise AutoMixError(f"There is no grader {quality!r}: {_ACCEPTED}.")
        return GRADERS[quality]
    if isinstance(quality, BaseLanguageModel) or (
        isinstance(quality, Runnable) and chat_model_of(quality) is not None
    ):
        raise AutoMixError("A model alone grades nothing: give LLMJudge(model=...).")
    if isinstance(quality, Runnable | KeywordGrader):
        return quality
    if isinstance(quality, Embeddings):
        raise AutoMixError("Embeddings alone grade nothing: give EmbeddingSimilarity(embeddings=).")
    if isinstance(quality, type):
        raise AutoMixError(f"{quality.__name__} is a class; give one of its objects.")
    signature = _signature(quality)
    required = _required(signature)
    if hasattr(quality, "evaluate_run") or (required and required <= _LANGSMITH_INPUTS):
        return LangSmithGrader(quality)
    if not callable(quality):
        raise AutoMixError(f"{quality!r} is not a grader: {_ACCEPTED}.")
    return _from_function(quality, signature)


def run_grader(grader: Any, input: GraderInput) -> Grade:
    """Grade an answer with a grader that is not a Runnable.

    Raises:
        AutoMixError: The result is neither a `Grade`, nor a number in [0, 1], nor None.
    """
    return to_grade(_call_function(grader, input), grader)


def _call_function(function: Callable[..., Any], input: GraderInput) -> Any:
    if isinstance(function, KeywordGrader):
        return function(input)
    return function(input["answer"], input["references"])


def grade_flow(grader: AnyGrader, input: GraderInput) -> Steps[Grade]:
    """Grade an answer with any grader; each request to a model is a call of the flow.

    Raises:
        AutoMixError: The result is neither a `Grade`, nor a number in [0, 1], nor None.
    """
    if isinstance(grader, FlowRunnable):
        return to_grade((yield from grader.steps(input)), grader)
    if not isinstance(grader, Runnable):
        return run_grader(grader, input)
    bill = UsageCollector()
    found = yield from call(Call(grader, input, run_name="grade", callbacks=[bill]))
    grade = to_grade(found, grader)
    return grade.model_copy(update={"calls": (*bill.calls,)}) if bill.calls else grade


def to_grade(value: Any, grader: Any) -> Grade:
    """Convert the result of a grader to a `Grade`.

    Args:
        value: A `Grade`, its fields as a mapping, a number, a boolean or None.
        grader: The grader, for the error message.

    Raises:
        AutoMixError: The value is something else, or a quality outside [0, 1].
    """
    if isinstance(value, Grade):
        return value
    fields = value if isinstance(value, Mapping) else {"quality": value}
    quality: Any = fields.get("quality", "")  # not None, which is a valid grade
    if type(quality).__module__ == "numpy" and hasattr(quality, "item"):
        quality = quality.item()
    known = fields.keys() <= Grade.model_fields.keys()
    if not known or not isinstance(quality, bool | int | float | None):
        raise AutoMixError(
            f"The grader {grader_name(grader)} returned {value!r}; a grade is a number in [0, 1], "
            "or None if unknown."
        )
    if quality is not None and not 0 <= quality <= 1:  # NaN, too
        raise AutoMixError(
            f"The grader {grader_name(grader)} returned {quality!r}; a grade lies in [0, 1]."
        )
    return Grade.model_validate({**fields, "quality": quality})


def grader_name(grader: Any) -> str:
    """Return a name for a grader and its settings that is the same in every process.

    Grades made under different names are not mixed.
    """
    while isinstance(grader, KeywordGrader | LangSmithGrader | AsyncGrader):
        grader = grader.function
    return _names.stable_name(grader)


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    """Return the signature of a function; None if it cannot be inspected."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def _required(signature: inspect.Signature | None) -> set[str]:
    parameters = signature.parameters.values() if signature is not None else ()
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {p.name for p in parameters if p.default is p.empty and p.kind not in variable}


def _from_function(function: Callable[..., Any], signature: inspect.Signature | None) -> AnyGrader:
    """Return a user's function as a grader.

    Raises:
        AutoMixError: The function takes neither a grader's inputs by name nor two positional
            arguments.
    """
    grader: Callable[..., Any] = function
    if signature is not None:
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        parameters = signature.parameters.values()
        names = tuple(p.name for p in parameters if p.name in _INPUTS and p.kind in kinds)
        if names and _required(signature) <= set(names):
            grader = KeywordGrader(function, names)
        else:
            try:
                signature.bind("", [])
            except TypeError as error:
                raise AutoMixError(
                    f"The grader {grader_name(function)} takes "
                    f"({', '.join(signature.parameters)}); {_ACCEPTED}."
                ) from error
    return AsyncGrader(grader) if _is_async(function) else grader


def _is_async(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  (it is inspected, not tested for)
    )


class LangSmithGrader(RunnableLambda[GraderInput, dict[str, Any]]):
    """A LangSmith evaluator as a grader. It is not traced, and sends nothing to LangSmith.

    It receives a run with the inputs `question` and `context` and the output `output`, and an
    example with the same inputs and the outputs `output` (the first accepted answer) and
    `references` (all of them). The result is a mapping with `quality` and `why`.

    Args:
        evaluator: A `RunEvaluator`, or a function that `langsmith.evaluate` accepts.
    """

    def __init__(self, evaluator: Any) -> None:
        self.function = evaluator
        self._evaluator = _to_evaluator(evaluator)
        super().__init__(self._grade, self._agrade, name=type(self).__name__)

    def _grade(self, input: GraderInput) -> dict[str, Any]:
        if _is_async_evaluator(self._evaluator):
            return _run_in_thread(self._agrade(input))
        from langsmith import tracing_context  # noqa: PLC0415  (only here is it needed)

        run, example = _run_of(input)
        with tracing_context(enabled=False):
            return _grade_fields(self._evaluator.evaluate_run(run, example))

    async def _agrade(self, input: GraderInput) -> dict[str, Any]:
        if not _is_async_evaluator(self._evaluator):
            # In a thread of LangSmith, the cost of the evaluator's models would not be counted.
            return await run_in_executor(None, self._grade, input)
        from langsmith import tracing_context  # noqa: PLC0415

        run, example = _run_of(input)
        with tracing_context(enabled=False):
            return _grade_fields(await self._evaluator.aevaluate_run(run, example))


def _is_async_evaluator(evaluator: Any) -> bool:
    """Return whether an evaluator is asynchronous itself."""
    from langsmith.evaluation import RunEvaluator  # noqa: PLC0415

    if hasattr(evaluator, "is_async"):
        return bool(evaluator.is_async)
    own = getattr(type(evaluator), "aevaluate_run", RunEvaluator.aevaluate_run)
    return own is not RunEvaluator.aevaluate_run


class AsyncGrader(RunnableLambda[GraderInput, Any]):
    """A user's `async` function as a grader.

    Args:
        function: The function of the answer and the accepted answers, or a `KeywordGrader` of one.
    """

    def __init__(self, function: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        self.function = function
        super().__init__(self._grade, self._agrade, name=type(self).__name__)

    def _grade(self, input: GraderInput) -> Any:
        return _run_in_thread(self._agrade(input))

    async def _agrade(self, input: GraderInput) -> Any:
        return await _call_function(self.function, input)


def _run_in_thread(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a new thread, because a loop may be running in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(copy_context().run, asyncio.run, coroutine).result()


def _to_evaluator(evaluator: Any) -> Any:
    if hasattr(evaluator, "evaluate_run"):
        return evaluator
    from langsmith.evaluation import run_evaluator  # noqa: PLC0415

    try:
        return run_evaluator(evaluator)
    except ValueError as error:
        raise AutoMixError(f"LangSmith cannot use the evaluator: {error}") from error


def _run_of(input: GraderInput) -> tuple[Run, Example]:
    """Return an answer as a LangSmith run, and the inputs and references as an example."""
    from langsmith.schemas import Example, Run  # noqa: PLC0415

    inputs: dict[str, Any] = {"question": input["question"], "context": input["context"]}
    accepted: dict[str, Any] = {}
    if references := input["references"]:
        accepted = {"output": references[0], "references": list(references)}
    now, id = datetime.now(UTC), uuid4()
    run = Run(
        id=id,
        name="answer",
        run_type="chain",
        start_time=now,
        end_time=now,
        trace_id=id,
        inputs=inputs,
        outputs={"output": input["answer"]},
    )
    example = Example(id=uuid4(), dataset_id=UUID(int=0), inputs=dict(inputs), outputs=accepted)
    return run, example


def _grade_fields(result: Any) -> dict[str, Any]:
    """Return the result of an evaluator as the fields of a grade.

    Raises:
        AutoMixError: The evaluator returned several scores, so that the quality is unclear.
    """
    results = result["results"] if isinstance(result, Mapping) else [result]
    if len(results) != 1:
        keys = [getattr(each, "key", None) for each in results]
        raise AutoMixError(
            f"The LangSmith evaluator returned {len(results)} scores ({keys}); but a quality is a "
            "single score: give an evaluator that returns one."
        )
    [only] = results
    return {"quality": only.score, "why": only.comment or ""}
