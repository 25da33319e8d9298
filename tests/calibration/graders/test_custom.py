"""Whatever a user may give for a grader: functions, Runnables, LangSmith's evaluators."""

from __future__ import annotations

import dataclasses
import functools
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.runnables import RunnableLambda
from langsmith import tracing_context
from langsmith.evaluation import EvaluationResult, RunEvaluator, run_evaluator

from langchain_automix import AutoMixError, SelfVerifier
from langchain_automix.calibration.graders.custom import (
    _run_of,
    grade_flow,
    grader_name,
    run_grader,
    to_grade,
    to_grader,
)
from langchain_automix.calibration.graders.text import GRADERS, Grade, GraderInput, token_f1
from langchain_automix.flow.drivers import drive
from langchain_automix.flow.run import FlowRun
from langchain_automix.flow.steps import Flow
from tests.support.servers.langsmith_server import LangSmithServer
from tests.support.servers.openai_server import ACCEPT, OpenAIServer

INPUT: GraderInput = {
    "answer": "in Turku",
    "references": ["Turku", "Abo"],
    "question": "Where?",
    "context": "It was built in Turku.",
}


def in_turku(answer: str, references: Sequence[str]) -> float:
    return float(answer == "in Turku" and references == ["Turku", "Abo"])


def other_order(references: Sequence[str], answer: str) -> float:
    return in_turku(answer, references)


def by_position(said: str, wanted: Sequence[str], strict: bool = True) -> bool:
    return bool(in_turku(said, wanted)) and strict


def with_context(*, question: str, context: str, answer: str) -> float:
    return float(context.endswith("Turku.") and question == "Where?" and answer == "in Turku")


def with_default(answer: str, weight: float = 1.0) -> float:
    return float(answer == "in Turku") * weight


async def awaited(answer: str, references: Sequence[str]) -> float:
    return in_turku(answer, references)


async def awaited_by_name(context: str) -> bool:
    return context.endswith("Turku.")


def of_run_and_example(run: Any, example: Any) -> EvaluationResult:
    found = run.outputs["output"] == "in Turku" and example.outputs["references"][1] == "Abo"
    return EvaluationResult(key="k", score=found, comment="as it should be")


def of_outputs(outputs: dict[str, Any], reference_outputs: dict[str, Any]) -> bool:
    return str(outputs["output"]) == f"in {reference_outputs['output']}"


def of_inputs(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"score": float(inputs == {"question": "Where?", "context": INPUT["context"]})}


async def of_outputs_awaited(outputs: dict[str, Any]) -> dict[str, Any]:
    return {"key": "k", "score": float(outputs["output"] == "in Turku")}


class OwnEvaluator(RunEvaluator):
    def evaluate_run(
        self, run: Any, example: Any = None, evaluator_run_id: Any = None
    ) -> EvaluationResult:
        return of_run_and_example(run, example)


@dataclasses.dataclass(frozen=True)
class Shifted:
    by: float

    def __call__(self, answer: str, references: Sequence[str]) -> float:
        return in_turku(answer, references) - self.by

    def grade(self, answer: str, references: Sequence[str]) -> float:
        return self(answer, references)


def shift(by: float) -> Any:
    def grade(answer: str, references: Sequence[str]) -> float:
        return in_turku(answer, references) - by

    return grade


def grade_of(quality: Any, input: GraderInput = INPUT) -> Grade:
    """Grade as the calibrator does: a flow, driven call by call."""
    grader = to_grader(quality)
    found = cast("Any", RunnableLambda)(
        lambda given, run_manager, config: drive(
            FlowRun(Flow(grade_flow(grader, given)), run_manager, config)
        )
    ).invoke(input)
    assert isinstance(found, Grade)
    return found


evaluator_of: Any = run_evaluator  # its own types know of two arguments only
PLAIN = [in_turku, other_order, by_position, with_context, with_default, Shifted(0), shift(0)]
WAITING = [awaited, awaited_by_name]
LANGSMITH = [
    *(of_run_and_example, of_outputs, of_inputs, of_outputs_awaited),
    *(OwnEvaluator(), evaluator_of(of_outputs), evaluator_of(of_outputs_awaited)),
]


class TestAnyGrader:
    @pytest.mark.parametrize("name", sorted(GRADERS))
    def test_by_name(self, name: str) -> None:
        assert to_grader(name) is GRADERS[name]

    @pytest.mark.parametrize("quality", [*PLAIN, *WAITING, *LANGSMITH])
    def test_one_of_a_users_own(self, quality: Any) -> None:
        assert grade_of(quality).quality == 1
        other = cast("GraderInput", {**INPUT, "answer": "x", "context": "y", "references": ["z"]})
        assert grade_of(quality, other).quality == 0

    @pytest.mark.parametrize("quality", [*WAITING, *LANGSMITH])
    async def test_within_a_loop(self, quality: Any) -> None:
        grader: Any = to_grader(quality)
        assert to_grade(await grader.ainvoke(INPUT), grader).quality == 1
        assert to_grade(grader.invoke(INPUT), grader).quality == 1

    def test_the_reason_of_an_evaluator(self) -> None:
        assert grade_of(of_run_and_example).why == "as it should be"

    def test_an_evaluator_is_not_traced(self) -> None:
        with LangSmithServer() as ls, tracing_context(enabled=True, client=ls.client):
            for evaluator in (of_outputs, of_outputs_awaited, evaluator_of(of_outputs)):
                grader: Any = to_grader(evaluator)
                assert grader._grade(INPUT)["quality"] == 1
            assert not ls.runs
            run, example = _run_of(INPUT)
            evaluator_of(of_outputs).evaluate_run(run, example)
            assert len(ls.runs) == 1, "which LangSmith itself would trace"

    def test_any_runnable(self) -> None:
        assert grade_of(RunnableLambda(lambda given: given["answer"] == "in Turku")).quality == 1
        assert grade_of(RunnableLambda(lambda _: None)).quality is None
        grade = Grade(quality=0.5, why="so")
        assert grade_of(RunnableLambda(lambda _: grade)) == grade

    @pytest.mark.parametrize(
        ("returned", "message"),
        [
            (1.5, r"handing_on.* returned 1.5; a grade lies in \[0, 1\]"),
            (-0.1, "lies in"),
            (float("nan"), "returned nan"),
            ("1", "returned '1'; a grade is a number"),
            ([1], "is a number"),
            ({"score": 1}, r"returned \{'score': 1\}; a grade is"),
            ({}, "is a number"),
            ({"quality": 1, "score": 1}, "is a number"),
        ],
    )
    def test_what_is_no_grade(self, returned: Any, message: str) -> None:
        def handing_on(answer: str, references: Sequence[str]) -> Any:
            return returned

        with pytest.raises(AutoMixError, match=message):
            run_grader(to_grader(handing_on), INPUT)
        with pytest.raises(AutoMixError):
            grade_of(RunnableLambda(lambda _: returned))

    def test_numbers_of_numpy_are_numbers(self) -> None:
        import numpy as np  # noqa: PLC0415

        for one in (np.float32(1), np.bool_(1), np.int64(1)):
            assert to_grade(one, in_turku) == Grade(quality=1.0)

    @pytest.mark.parametrize(
        ("quality", "message"),
        [
            ("exact", "no grader 'exact': give one of contains, exact_match"),
            (5, "5 is not a grader"),
            (lambda a: 1.0, r"takes \(a\); give one of"),
            (lambda a, b, c: 1.0, r"takes \(a, b, c\)"),
            (lambda answer, reference_outputs, x: 1.0, "takes"),
            (OwnEvaluator, "OwnEvaluator is a class"),
            (DeterministicFakeEmbedding(size=3), "EmbeddingSimilarity"),
        ],
    )
    def test_what_is_no_grader(self, quality: Any, message: str) -> None:
        with pytest.raises(AutoMixError, match=message):
            to_grader(quality)

    def test_a_model_is_no_grader(self, server: OpenAIServer) -> None:
        for model in (server.model("small"), server.model("small").with_retry()):
            with pytest.raises(AutoMixError, match="give LLMJudge"):
                to_grader(model)

    def test_a_verifier_is_no_grader(self, server: OpenAIServer) -> None:
        server.script = lambda body: [ACCEPT] * body["n"]
        with pytest.raises(AutoMixError, match="SelfVerifier.* returned Verification"):
            grade_of(SelfVerifier(model=server.model("small")))

    def test_an_evaluator_with_several_scores(self) -> None:
        def several(outputs: Any) -> dict[str, Any]:
            return {"results": [{"key": "a", "score": 1}, {"key": "b", "score": 0}]}

        with pytest.raises(AutoMixError, match=r"returned 2 scores \(\['a', 'b'\]\)"):
            grade_of(several)


NAMES = """
import functools
from tests.calibration.graders import test_custom as t
from langchain_automix.calibration.graders.custom import grader_name, to_grader
own = [*t.PLAIN, *t.WAITING, *t.LANGSMITH, t.Shifted(1), t.Shifted(1).grade, t.shift(1),
       functools.partial(t.with_default, weight=.5), lambda answer, x: 1, lambda answer, x: 2,
       *t.GRADERS]
for each in own: print(grader_name(to_grader(each)))
"""


class TestNames:
    def test_the_same_in_every_process_and_each_its_own(self) -> None:
        first, second = (
            subprocess.run(
                [sys.executable, "-W", "ignore", "-c", NAMES],
                check=True,
                capture_output=True,
                text=True,
                env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": str(seed)},
            ).stdout.splitlines()
            for seed in (1, 2)
        )
        assert first == second
        assert len(first) == len(PLAIN) + len(WAITING) + len(LANGSMITH) + 6 + len(GRADERS)
        twice = {name for name, count in Counter(first).items() if count > 1}
        assert twice == {grader_name(token_f1)}, "which has two names"
        assert not any(" at 0x" in name for name in first)

    def test_a_setting_changes_the_name(self) -> None:
        names = [
            grader_name(shift(0)),
            grader_name(shift(1)),
            grader_name(Shifted(0)),
            grader_name(Shifted(1)),
        ]
        names += [grader_name(functools.partial(with_default, weight=w)) for w in (1, 2)]
        names += [grader_name(Shifted(0).grade), grader_name(Shifted(1).grade)]
        assert len(set(names)) == 8
