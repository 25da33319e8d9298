"""Run one example: every model answers, every answer but the last is checked, all are graded.

Each request is a call of its own: it is looked up in the journal first, and written there before
its result is used.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from langchain_core.messages import AIMessage, message_to_dict
from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import ConfigDict, InstanceOf
from typing_extensions import override

from langchain_automix.calibration.bill import Bill, bill_of
from langchain_automix.calibration.budget import CalibrationRun
from langchain_automix.calibration.config import (
    CURRENCIES,
    CalibratedCheck,
    CalibrationConfig,
    json_hash,
    model_fingerprint,
)
from langchain_automix.calibration.entries import Entry, from_entry, to_entry, validate_row
from langchain_automix.calibration.examples.examples import Example
from langchain_automix.calibration.graders.custom import grade_flow, grader_name
from langchain_automix.calibration.graders.text import Grade, GraderInput
from langchain_automix.calibration.journal import example_key, to_plain_input
from langchain_automix.calibration.results import CheckResult, ModelResult, row_of
from langchain_automix.calibration.spending import Kind, Stage
from langchain_automix.errors import AutoMixError
from langchain_automix.flow.off_loop import Work
from langchain_automix.flow.runnable import FlowRunnable
from langchain_automix.flow.steps import Call, NeedsNoSlot, Steps, call, gather
from langchain_automix.models.logprobs import may_refuse_logprobs
from langchain_automix.models.messages import to_messages
from langchain_automix.models.sampling import asking_n_anew
from langchain_automix.models.usage import UsageCollector, without_output
from langchain_automix.types import ModelCall, Verification
from langchain_automix.verifiers.base import VerifierInput

T = TypeVar("T")

_PAUSE_SECONDS = 0.02


@dataclass(frozen=True)
class CallKind:
    """What a call is made for."""

    stage: Stage
    model: str
    check: str | None = None
    """Name of the check among several; None where it is the only one, or no check."""

    @property
    def key(self) -> Kind:
        """The kind as costs are kept by it."""
        return (self.stage, self.model, self.check)

    def __str__(self) -> str:
        check = "" if self.check is None else f" {self.check!r}"
        return f"{self.stage}{check} of {self.model}"


class CallFailed(Exception):  # noqa: N818  (recorded, and not an error of this package)
    """A call that its model's own retries could not save."""

    def __init__(self, kind: CallKind, cause: Exception, reason: str) -> None:
        super().__init__(f"{kind}: {reason}")
        self.cause = cause


class ExampleRunnable(FlowRunnable[Example, dict[str, Any]]):
    """Runs one example through all models, checks and grades; returns its row of the log.

    Calls are made one after the other, so that each is kept before the next.
    """

    setup: InstanceOf[CalibrationConfig]
    journal: Any
    """A `Journal`, or a stand-in for one."""

    course: InstanceOf[CalibrationRun]

    model_config = ConfigDict(arbitrary_types_allowed=True)

    @override
    def get_name(self, suffix: str | None = None, *, name: str | None = None) -> str:
        return name or "calibrate"

    def finished(self, example: Example) -> dict[str, Any] | None:
        """Return the row that an earlier run wrote for an example under the same settings."""
        row = self.row(example)
        return None if row is None or "failed" in row["metadata"] else row

    def row(self, example: Example) -> dict[str, Any] | None:
        """Return the row that an earlier run wrote for an example, complete or not.

        Raises:
            AutoMixError: The journal holds one that no calibration writes.
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
        """Return a hash of an example and of everything that shapes its row."""
        return json_hash([self.setup.row_fingerprint, example.model_dump(mode="json")])

    @override
    def _flow(self, input: Example, **kwargs: Any) -> Steps[dict[str, Any]]:
        example = input
        state = ExampleState(example, self.journal.calls_of(example_key(example)))
        prompt, given, check_input = self.setup.build_inputs(example)
        if prompt is not None:
            given = yield from call(Call(prompt, given))
        results = [ModelResult(name) for name in self.setup.names]
        for index, result in enumerate(results):
            try:
                yield from self._answer(state, result, index, given)
            except CallFailed as failure:
                result.failed = str(failure)
                continue
            if index < len(results) - 1:
                for check in self.setup.checks:
                    flow = _check_flow(
                        check.checkers[index], check_input, given, results[: index + 1]
                    )
                    yield from self._check(state, result, check, flow)
        yield from self._grade(state, results)
        row = row_of(self.setup, example, results)
        self.journal.add_row(example.id, self.digest(example), {"query": row})
        return row

    def _answer(
        self, state: ExampleState, result: ModelResult, index: int, given: Any
    ) -> Steps[None]:
        setup, model = self.setup, result.model
        before = (len(state.calls), state.seconds)
        wanted = Call(setup.answerers[index], given, run_name="draft", tags=[f"automix:{model}"])
        kind, shape = CallKind("answer", model), [setup.fingerprints[index], to_plain_input(given)]
        try:
            message = yield from self._journaled_call(state, kind, 0, wanted, shape)
        except CallFailed as failure:
            plain = setup.plain_answerers[index]
            if plain is None or not may_refuse_logprobs(failure.cause):
                raise
            # As in the mix; and for every example anew, so that a run makes the same calls again.
            wanted = replace(wanted, runnable=plain)
            shape = [model_fingerprint(plain), to_plain_input(given)]
            message = yield from self._journaled_call(state, kind, 0, wanted, shape)
        if not isinstance(message, AIMessage):
            raise AutoMixError(
                f"Model {model} returned {type(message).__name__}, not an AIMessage: only "
                "chat models can be calibrated."
            )
        result.message = message
        result.cost = self._cost(model, *state.since(*before))

    def _check(
        self, state: ExampleState, result: ModelResult, check: CalibratedCheck, flow: Steps[Any]
    ) -> Steps[None]:
        """Make one check of an answer; if it fails, the others are still made."""
        if not result.text:
            # As in the mix, an empty answer is not checked: it is unknown.
            if (unknown := unknown_verification(check)) is not None:
                result.checks[check.name] = CheckResult(
                    unknown, {"fixed_cost": 0.0, "sample_cost": 0.0}
                )
            return
        kind = CallKind("check", result.model, check.name)
        before = (len(state.calls), state.seconds)
        try:
            verification = yield from self._journaled_steps(state, kind, flow, check.fingerprint)
        except CallFailed as failure:
            result.failed = result.failed or str(failure)
            return
        if not isinstance(verification, Verification):
            raise AutoMixError(
                f"The check returned {type(verification).__name__}, not a Verification."
            )
        if verification.undrawn is not None:
            # What was drawn counts, but running the same again draws the rest.
            result.failed = result.failed or f"{kind}: {verification.undrawn}"
        calls, seconds = state.since(*before)
        # A model that is not a chat model reports to no collector, but the check lists its calls.
        calls = max(calls, list(verification.calls), key=len)
        is_known = verification.verdicts or verification.score is not None
        kept = verification if is_known else unknown_verification(check) or Verification()
        cost = self._check_cost(result.model, kept, calls, seconds)
        result.checks[check.name] = CheckResult(kept, cost)

    def _check_cost(
        self, model: str, check: Verification, calls: list[ModelCall], seconds: float
    ) -> dict[str, float]:
        cost = self._cost(model, calls, seconds) if calls or seconds else 0.0
        if not check.verdicts:
            return {"cost": cost}
        fixed = 0.0
        if len(calls) == 1 and self.setup.unit == "dollars":
            # One request reads the prompt once, whatever the number of its verdicts.
            fixed = self._cost(model, [without_output(calls[0])], 0.0)
        return {
            "fixed_cost": fixed,
            "sample_cost": max(cost - fixed, 0.0) / len(check.verdicts),
        }

    def _cost(self, model: str, calls: list[ModelCall], seconds: float) -> float:
        cost = self.setup.cost(calls, seconds)
        if cost is None:
            silent = next((call.model for call in calls if call.usage is None), None)
            unpriced = ", ".join(sorted({call.model for call in calls if call.model}))
            reason = f"there is no price of {unpriced or 'a nameless model'}"
            if silent:
                reason = f"the provider reported no tokens for {silent}"
            raise AutoMixError(
                f"What {model} costs is not known: {reason}. Give prices, or count seconds "
                "instead (unit='seconds', --unit seconds); what was paid for is kept."
            )
        return cost

    def _grade(self, state: ExampleState, results: Sequence[ModelResult]) -> Steps[None]:
        """Grade all answers against the references, or against the largest model's answer."""
        example, setup, largest = state.example, self.setup, results[-1]
        is_labelled = bool(example.references) or setup.unlabelled == "grade"
        for result in results:
            if result.message is None:
                continue
            try:
                if is_labelled:
                    grade = yield from self._grade_one(state, result, example.references)
                    result.quality, result.why = grade.quality, grade.why
                # An empty answer is no reference: agreement with it means nothing.
                if (not is_labelled or setup.compares) and largest.text:
                    grade = Grade(quality=1.0)
                    if result is not largest and result.text != largest.text:
                        grade = yield from self._grade_one(state, result, (largest.text,))
                    result.agreement = grade.quality
                    result.why = result.why or grade.why
            except CallFailed as failure:
                result.failed = result.failed or str(failure)

    def _grade_one(
        self, state: ExampleState, result: ModelResult, references: Sequence[str]
    ) -> Steps[Grade]:
        example, grader = state.example, self.setup.grader
        to_grade = GraderInput(
            answer=result.text,
            references=list(references),
            question=example.question,
            context=example.context,
        )
        flow = grade_flow(grader, to_grade)
        kind = CallKind("grade", result.model)
        return (yield from self._journaled_steps(state, kind, flow, grader_name(grader)))

    def _journaled_steps(
        self, state: ExampleState, kind: CallKind, flow: Steps[T], shape: str
    ) -> Steps[T]:
        """Run an inner flow, and keep each of its calls as it ends.

        Calls are recognised by the `shape` of what makes them, not by its name, so that a check
        may be renamed, and others added beside it.
        """
        nth, causes = 0, list[Exception]()
        outputs: Any = None
        while True:
            try:
                with asking_n_anew():
                    level = flow.send(outputs)
            except StopIteration as end:
                value: T = end.value
                return value
            except Exception as error:
                if kind.stage == "grade" and all(error is not cause for cause in causes):
                    # A grader that fails on one example fails on all.
                    raise _cannot_grade(state.example, error) from error
                raise CallFailed(kind, error, self.setup.redact(error)) from error
            outputs = []
            for wanted in level:
                if isinstance(wanted.runnable, Work):  # no request: there is nothing to keep
                    outputs += yield from gather(wanted)
                    continue
                whole = [shape, model_fingerprint(wanted.runnable), to_plain_input(wanted.input)]
                try:
                    output = yield from self._journaled_call(state, kind, nth, wanted, whole)
                    outputs.append(output)
                except CallFailed as failure:  # the flow may know a way round
                    causes.append(failure.cause)
                    outputs.append(failure.cause)
                nth += 1

    def _journaled_call(
        self, state: ExampleState, kind: CallKind, nth: int, wanted: Call, shape: Any
    ) -> Steps[Any]:
        """Make a call and keep it, or take it from the journal if it was made before."""
        key = f"{kind.stage} {kind.model} {nth} {json_hash(shape)}"
        collectors = [each for each in wanted.callbacks if isinstance(each, UsageCollector)]
        entry = state.kept.get(key)
        if entry is None:
            output, entry = yield from self._new_call(state, kind, key, wanted, collectors)
            state.kept[key] = entry  # an answer may be compared with the same text twice
        else:
            output = from_entry(entry, collectors, self.journal.place)
        state.calls += [ModelCall.model_validate(each) for each in entry["calls"]]
        state.seconds += entry["seconds"]
        return output

    def _new_call(
        self,
        state: ExampleState,
        kind: CallKind,
        key: str,
        wanted: Call,
        collectors: list[UsageCollector],
    ) -> Steps[tuple[Any, Entry]]:
        reserved = yield from self._reserve(kind)
        started = time.perf_counter()
        example, about = example_key(state.example), {"id": state.example.id}
        about |= {} if kind.check is None else {"check": kind.check}
        usage = UsageCollector(mends=False)
        if not collectors:
            wanted = replace(wanted, callbacks=[*wanted.callbacks, usage])
        self.journal.begin_call(example, key, kind.check)
        try:
            output = yield from call(wanted)
        except Exception as error:
            reason = self.setup.redact(error)
            self.course.failed(kind.stage, reason)
            bill = Bill.of_failed(error, wanted, collectors or [usage])
            seconds = time.perf_counter() - started
            entry = {**about, "error": reason[:2_000], **bill.to_entry(seconds)}
            self._keep(kind, reserved, example, key, entry)
            raise CallFailed(kind, error, reason) from error
        except GeneratorExit:
            self.course.settle(kind.key, reserved, None, lost=1)
            raise
        bill = Bill.of(output, wanted, collectors or [usage])
        seconds = time.perf_counter() - started
        entry = {**about, **bill.to_entry(seconds), "output": to_entry(output)}
        replies = [reply for collector in collectors for reply in collector.replies]
        if len(replies) > 1:
            entry["replies"] = [message_to_dict(reply) for reply in replies]
        cost = self._keep(kind, reserved, example, key, entry)
        if cost is None and self.course.max_spend is not None:
            self._cost(kind.model, bill.calls, seconds)  # raises, and says what is unknown
        return output, entry

    def _reserve(self, kind: CallKind) -> Steps[float]:
        """Set money aside for a call, and wait for it where that is needed.

        Raises:
            Stopped: The call must not be made.
        """
        while (reserved := self.course.reserve(kind.key)) is None:
            yield from call(Call(_Waiting(self.course), None, audience="tracers"))
        return reserved

    def _keep(
        self, kind: CallKind, reserved: float, example: str, key: str, entry: Entry
    ) -> float | None:
        """Keep a call that has ended; return what it cost, as far as that is known."""
        cost, lost = bill_of(self.setup, entry)
        try:
            self.journal.add(example, key, entry)
        finally:  # it has been paid for
            self.course.settle(kind.key, reserved, cost, lost=lost)
        return cost


class _Waiting(NeedsNoSlot, Runnable[Any, None]):
    """Waits until another call has ended, or for a moment."""

    def __init__(self, course: CalibrationRun) -> None:
        self._course = course

    @override
    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> None:
        self._course.wait(_PAUSE_SECONDS)

    @override
    async def ainvoke(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> None:
        await asyncio.sleep(_PAUSE_SECONDS)


def _cannot_grade(example: Example, error: Exception) -> AutoMixError:
    reason = str(error) if isinstance(error, AutoMixError) else f"{type(error).__name__}: {error}"
    return AutoMixError(
        f"The answers to example {example.id} cannot be graded: {reason} What was paid for is "
        "kept; fix the grader, and run the same again."
    )


def _check_flow(
    checker: Runnable[Any, Any], check_input: VerifierInput, given: Any, results: list[ModelResult]
) -> Steps[Any]:
    """Check the last of some answers; each request of a shipped check is a call of the flow."""
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


@dataclass
class ExampleState:
    """The state of an example under way: its finished calls, and what they took."""

    example: Example
    kept: dict[str, Entry]
    """Finished calls by key, of earlier runs and of this one."""

    calls: list[ModelCall] = field(default_factory=list)
    seconds: float = 0.0

    def since(self, calls: int, seconds: float) -> tuple[list[ModelCall], float]:
        """Return the calls made, and the seconds spent, since these counts were taken."""
        return self.calls[calls:], self.seconds - seconds


def unknown_verification(check: CalibratedCheck) -> Verification | None:
    """Return invalid verdicts, for a check that found nothing; None if the check gives a score."""
    samples = check.samples
    return None if samples is None else Verification(verdicts=(None,) * samples)
