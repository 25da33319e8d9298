"""Run one example: every model answers, all answers but the last are checked, all are graded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable
from pydantic import ConfigDict, InstanceOf
from typing_extensions import override

from langchain_automix.calibration.config import (
    CURRENCIES,
    CalibratedCheck,
    CalibrationConfig,
)
from langchain_automix.calibration.entries import validate_row
from langchain_automix.calibration.example_calls import CallFailed, CallKind, ExampleCalls
from langchain_automix.calibration.examples.examples import Example
from langchain_automix.calibration.fingerprints import json_hash, model_fingerprint
from langchain_automix.calibration.graders.custom import grade_flow, grader_name
from langchain_automix.calibration.graders.text import Grade, GraderInput
from langchain_automix.calibration.kept_calls import example_key, to_plain_input
from langchain_automix.calibration.results import CheckResult, ModelResult, row_of
from langchain_automix.errors import AutoMixError
from langchain_automix.flow.runnable import FlowRunnable
from langchain_automix.flow.steps import Call, Steps, call
from langchain_automix.models.logprobs import (
    may_refuse_logprobs,
)
from langchain_automix.models.messages import to_messages
from langchain_automix.models.refusals import LOGPROBS
from langchain_automix.models.usage import UsageCollector, without_output
from langchain_automix.types import ModelCall, Verification
from langchain_automix.verifiers.base import VerifierInput


class ExampleRunnable(FlowRunnable[Example, dict[str, Any]]):
    """Runs one example through all models, checks and grades, and returns its row of the log.

    Calls are made one after the other, so that each one is kept before the next.
    """

    setup: InstanceOf[CalibrationConfig]
    journal: Any
    """A `Journal`, or a replacement for one."""

    record: Any
    """The `CallRecord` of its calls."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    @override
    def get_name(self, suffix: str | None = None, *, name: str | None = None) -> str:
        return name or "calibrate"

    def finished(self, example: Example) -> dict[str, Any] | None:
        """Return the complete row that an earlier run wrote under the same settings, if any."""
        row = self.row(example)
        return None if row is None or "failed" in row["metadata"] else row

    def row(self, example: Example) -> dict[str, Any] | None:
        """Return the row that an earlier run wrote for an example, complete or not; None if none.

        Raises:
            AutoMixError: The journal holds a row that no calibration writes.
        """
        kept = self.journal.row(example.id, self.digest(example))
        if kept is None:
            return None
        row: dict[str, Any] = kept["query"]
        try:
            validate_row(row, self.setup.names, CURRENCIES[self.setup.unit])
        except (ValueError, RecursionError) as error:
            raise AutoMixError(
                f"{self.journal.place(kept)} holds a row of example {example.id!r} that no "
                "calibration writes: give another --out."
            ) from error
        return row

    def digest(self, example: Example) -> str:
        """Return a hash of an example and of everything that its row depends on."""
        return json_hash([self.setup.row_fingerprint, example.model_dump(mode="json")])

    @override
    def _flow(self, input: Example, **kwargs: Any) -> Steps[dict[str, Any]]:
        example = input
        kept = self.journal.calls_of(example_key(example))
        made = ExampleCalls(example, self.setup, self.record, kept, self.journal.place)
        prompt, given, check_input = self.setup.build_inputs(example)
        if prompt is not None:
            given = yield from call(Call(prompt, given))
        results = [ModelResult(name) for name in self.setup.names]
        for index, result in enumerate(results):
            try:
                yield from self._answer(made, result, index, given)
            except CallFailed as failure:
                result.failed = str(failure)
                continue
            if index < len(results) - 1:
                for check in self.setup.checks:
                    flow = _check_flow(
                        check.checkers[index], check_input, given, results[: index + 1]
                    )
                    yield from self._check(made, result, check, flow)
        yield from self._grade(made, results)
        row = row_of(self.setup, example, results)
        self.journal.add_row(example.id, self.digest(example), {"query": row})
        return row

    def _answer(
        self, made: ExampleCalls, result: ModelResult, index: int, given: Any
    ) -> Steps[None]:
        setup, model = self.setup, result.model
        before = (len(made.requests), made.seconds)
        wanted = Call(setup.answerers[index], given, run_name="draft", tags=[f"automix:{model}"])
        kind, asked = CallKind("answer", model), to_plain_input(given)
        shape = [setup.fingerprints[index], asked]
        richer = [setup.richer_fingerprints[index], asked]
        if not made.has(kind, 0, shape) and made.has(kind, 0, richer):
            shape = richer
        plain = setup.plain_answerers[index]
        is_refused = plain is not None and LOGPROBS.knows(setup.mix.models[index])
        message = None
        if not is_refused or made.has(kind, 0, shape):
            try:
                message = yield from made.call(kind, 0, wanted, shape)
            except CallFailed as failure:
                if plain is None or not may_refuse_logprobs(failure.cause):
                    raise
        if message is None and plain is not None:
            # As in the mix: a refused request is free, and may succeed without log-probabilities.
            wanted = replace(wanted, runnable=plain)
            message = yield from made.call(kind, 0, wanted, [model_fingerprint(plain), asked])
            LOGPROBS.remember(setup.mix.models[index])
        if not isinstance(message, AIMessage):
            raise AutoMixError(
                f"Model {model} returned {type(message).__name__}, not an AIMessage: only "
                "chat models can be calibrated."
            )
        result.message = message
        result.cost = made.cost(model, *made.since(*before))

    def _check(
        self, made: ExampleCalls, result: ModelResult, check: CalibratedCheck, flow: Steps[Any]
    ) -> Steps[None]:
        """Make one check of an answer. If it fails, the other checks are still made."""
        if not result.text:
            # As in the mix, an empty answer is not checked; its verification is unknown.
            if (unknown := unknown_verification(check)) is not None:
                result.checks[check.name] = CheckResult(
                    unknown, {"fixed_cost": 0.0, "sample_cost": 0.0}
                )
            return
        kind = CallKind("check", result.model, check.name)
        before = (len(made.requests), made.seconds)
        try:
            verification = yield from made.steps(kind, flow, check.fingerprint)
        except CallFailed as failure:
            result.failed = result.failed or str(failure)
            return
        if not isinstance(verification, Verification):
            raise AutoMixError(
                f"The check returned {type(verification).__name__}, not a Verification."
            )
        if verification.undrawn is not None:
            # The drawn verdicts count, but running the same again draws the rest.
            result.failed = result.failed or f"{kind}: {verification.undrawn}"
        calls, seconds = made.since(*before)
        # A model that is not a chat model reports to no collector, but the check lists its calls.
        calls = max(calls, list(verification.calls), key=len)
        is_known = verification.verdicts or verification.score is not None
        kept = verification if is_known else unknown_verification(check) or Verification()
        cost = self._check_cost(made, result.model, kept, calls, seconds)
        result.checks[check.name] = CheckResult(kept, cost)

    def _check_cost(
        self,
        made: ExampleCalls,
        model: str,
        check: Verification,
        calls: list[ModelCall],
        seconds: float,
    ) -> dict[str, float]:
        cost = made.cost(model, calls, seconds) if calls or seconds else 0.0
        if not check.verdicts:
            return {"cost": cost}
        fixed = 0.0
        if len(calls) == 1 and self.setup.unit == "dollars":
            # One request reads the prompt once, regardless of the number of verdicts.
            fixed = made.cost(model, [without_output(calls[0])], 0.0)
        return {
            "fixed_cost": fixed,
            "sample_cost": max(cost - fixed, 0.0) / len(check.verdicts),
        }

    def _grade(self, made: ExampleCalls, results: Sequence[ModelResult]) -> Steps[None]:
        """Grade all answers against the references, or against the largest model's answer."""
        example, setup, largest = made.example, self.setup, results[-1]
        is_labelled = bool(example.references) or setup.unlabelled == "grade"
        for result in results:
            if result.message is None:
                continue
            try:
                if is_labelled:
                    grade = yield from self._grade_one(made, result, example.references)
                    result.quality, result.why = grade.quality, grade.why
                # Agreement with an empty answer means nothing.
                if (not is_labelled or setup.compares) and largest.text:
                    grade = Grade(quality=1.0)
                    if result is not largest and result.text != largest.text:
                        grade = yield from self._grade_one(made, result, (largest.text,))
                    result.agreement = grade.quality
                    result.why = result.why or grade.why
            except CallFailed as failure:
                result.failed = result.failed or str(failure)

    def _grade_one(
        self, made: ExampleCalls, result: ModelResult, references: Sequence[str]
    ) -> Steps[Grade]:
        example, grader = made.example, self.setup.grader
        to_grade = GraderInput(
            answer=result.text,
            references=list(references),
            question=example.question,
            context=example.context,
        )
        flow = grade_flow(grader, to_grade)
        kind = CallKind("grade", result.model)
        return (yield from made.steps(kind, flow, grader_name(grader)))


def _check_flow(
    checker: Runnable[Any, Any], check_input: VerifierInput, given: Any, results: list[ModelResult]
) -> Steps[Any]:
    """Check the last of several answers; each request of a shipped check is a call of the flow."""
    *before, result = results
    request: VerifierInput = {
        **check_input,
        "answer": result.message or "",
        "request": to_messages(given),
        "earlier": [each.message for each in before if each.message is not None],
    }
    if isinstance(checker, FlowRunnable):
        return (yield from checker.steps(request))
    wanted = Call(checker, request, run_name="check", callbacks=[UsageCollector()])
    return (yield from call(wanted))


def unknown_verification(check: CalibratedCheck) -> Verification | None:
    """Return invalid verdicts for a check without a result; None if the check gives a score."""
    samples = check.samples
    return None if samples is None else Verification(verdicts=(None,) * samples)
