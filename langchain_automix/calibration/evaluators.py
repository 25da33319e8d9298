"""Graders that are a user's own code and may wait for something: LangSmith's, and `async` ones."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID, uuid4

from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.config import run_in_executor

from langchain_automix.calibration.grading import GraderInput
from langchain_automix.errors import AutoMixError

if TYPE_CHECKING:
    from langsmith.schemas import Example, Run

_THEIR_NAMES = {"run", "example", "inputs", "outputs", "reference_outputs", "attachments"}
T = TypeVar("T")


def is_langsmith_evaluator(evaluator: Any, given: Sequence[inspect.Parameter] | None) -> bool:
    """Whether something is a `RunEvaluator`, or a function that takes what LangSmith gives.

    Args:
        evaluator: What may be one.
        given: The parameters that it takes; None where they are not known.
    """
    if hasattr(evaluator, "evaluate_run"):
        return True
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    required = {p.name for p in given or () if p.default is p.empty and p.kind not in variable}
    return bool(required) and required <= _THEIR_NAMES


class LangSmithGrader(RunnableLambda[GraderInput, dict[str, Any]]):
    """An evaluator of LangSmith's as a grader; it is not traced, and asks LangSmith nothing.

    It sees a run with the inputs `question` and `context` and the output `output`, and an example
    with the same inputs and the outputs `output` (the first accepted answer) and `references`
    (all of them). What it finds is `quality` and `why`, as JSON has them.

    Args:
        evaluator: A `RunEvaluator`, or a function as `langsmith.evaluate` takes it.
    """

    def __init__(self, evaluator: Any) -> None:
        self.function = evaluator
        self._evaluator = _evaluator(evaluator)
        super().__init__(self._grade, self._agrade, name=type(self).__name__)

    def _grade(self, input: GraderInput) -> dict[str, Any]:
        if _waits(self._evaluator):
            return _waited(self._agrade(input))
        from langsmith import tracing_context  # noqa: PLC0415  (only here is it needed)

        run, example = _run_of(input)
        with tracing_context(enabled=False):
            return _found(self._evaluator.evaluate_run(run, example))

    async def _agrade(self, input: GraderInput) -> dict[str, Any]:
        if not _waits(self._evaluator):
            # LangSmith's own thread would not know whose models it asks, and their bills be lost.
            return await run_in_executor(None, self._grade, input)
        from langsmith import tracing_context  # noqa: PLC0415

        run, example = _run_of(input)
        with tracing_context(enabled=False):
            return _found(await self._evaluator.aevaluate_run(run, example))


def _waits(evaluator: Any) -> bool:
    """Whether an evaluator is asynchronous by itself."""
    from langsmith.evaluation import RunEvaluator  # noqa: PLC0415

    if hasattr(evaluator, "is_async"):
        return bool(evaluator.is_async)
    own = getattr(type(evaluator), "aevaluate_run", RunEvaluator.aevaluate_run)
    return own is not RunEvaluator.aevaluate_run


class AsyncGrader(RunnableLambda[GraderInput, Any]):
    """A user's `async` function as a grader.

    Args:
        function: The function.
        wanted: What it takes, by name. None: the answer and the accepted answers, in order.
    """

    def __init__(
        self,
        function: Callable[..., Coroutine[Any, Any, Any]],
        wanted: Sequence[str] | None,
    ) -> None:
        self.function = function
        self._wanted = wanted
        super().__init__(self._grade, self._agrade, name=type(self).__name__)

    def _grade(self, input: GraderInput) -> Any:
        return _waited(self._agrade(input))

    async def _agrade(self, input: GraderInput) -> Any:
        given: Mapping[str, Any] = input
        if self._wanted is None:
            return await self.function(given["answer"], given["references"])
        return await self.function(**{name: given[name] for name in self._wanted})


def _waited(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine comes to; on a thread of its own, for this one may have a loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(copy_context().run, asyncio.run, coroutine).result()


def _evaluator(evaluator: Any) -> Any:
    if hasattr(evaluator, "evaluate_run"):
        return evaluator
    from langsmith.evaluation import run_evaluator  # noqa: PLC0415

    try:
        return run_evaluator(evaluator)
    except ValueError as error:
        raise AutoMixError(f"LangSmith cannot use the evaluator: {error}") from error


def _run_of(input: GraderInput) -> tuple[Run, Example]:
    """Return an answer as a run of LangSmith's, and what it is graded against as an example."""
    from langsmith.schemas import Example, Run  # noqa: PLC0415

    asked = {"question": input["question"], "context": input["context"]}
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
        inputs=asked,
        outputs={"output": input["answer"]},
    )
    example = Example(id=uuid4(), dataset_id=UUID(int=0), inputs=dict(asked), outputs=accepted)
    return run, example


def _found(result: Any) -> dict[str, Any]:
    """Return what an evaluator found as a grade's fields.

    Raises:
        AutoMixError: It found several scores: which is the quality?
    """
    results = result["results"] if isinstance(result, Mapping) else [result]
    if len(results) != 1:
        keys = [getattr(each, "key", None) for each in results]
        raise AutoMixError(
            f"The LangSmith evaluator returned {len(results)} scores ({keys}); a quality is one: "
            "give an evaluator that returns one."
        )
    [only] = results
    return {"quality": only.score, "why": only.comment or ""}
