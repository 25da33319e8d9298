"""One example's way: every model answers, every answer but the last is checked, all are graded.

Each request is a call of its own: it is looked up in the journal first, and kept there before
anything is made from it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from langchain_core.messages import AIMessage, message_to_dict
from langchain_core.runnables import Runnable
from pydantic import ConfigDict, InstanceOf
from typing_extensions import override

from langchain_automix.calibration.budget import CalibrationRun, Stage
from langchain_automix.calibration.config import (
    CURRENCIES,
    CalibratedCheck,
    CalibrationConfig,
    json_hash,
    model_fingerprint,
)
from langchain_automix.calibration.examples.examples import Example
from langchain_automix.calibration.graders.custom import grade_flow, grader_name
from langchain_automix.calibration.graders.text import Grade, GraderInput
from langchain_automix.calibration.journal import (
    Entry,
    example_key,
    from_entry,
    to_entry,
    to_plain_input,
)
from langchain_automix.errors import AutoMixError
from langchain_automix.flow.runnable import FlowRunnable
from langchain_automix.flow.steps import Call, Note, Steps
from langchain_automix.models.messages import answer_text, to_messages
from langchain_automix.models.usage import UsageCollector, to_model_call, with_model_name
from langchain_automix.types import ModelCall, Verification
from langchain_automix.verifiers.base import VerifierInput

T = TypeVar("T")


class CallFailed(Exception):  # noqa: N818  (it failed; that is recorded, and no error of ours)
    """A call that its model's own retries could not save."""

    def __init__(self, stage: str, model: str, cause: Exception, said: str) -> None:
        super().__init__(f"{stage} of {model}: {said}")
        self.cause = cause


class ExampleRunnable(FlowRunnable[Example, dict[str, Any]]):
    """Takes one example through all models, checks and grades; returns its row of the log.

    Calls are made one after the other, so that each is kept before the next.
    """

    setup: InstanceOf[CalibrationConfig]
    journal: Any
    """A `Journal`, or what stands for one."""

    course: InstanceOf[CalibrationRun]

    model_config = ConfigDict(arbitrary_types_allowed=True)

    @override
    def get_name(self, suffix: str | None = None, *, name: str | None = None) -> str:
        return name or "calibrate"

    def finished(self, example: Example) -> dict[str, Any] | None:
        """Return the row that an example came to before, under the same settings."""
        found = self.journal.row(example.id, self.digest(example))
        if found is None or "failed" in found["query"]["metadata"]:
            return None
        row: dict[str, Any] = found["query"]
        return row

    def digest(self, example: Example) -> str:
        """Return what stands for an example and all that shapes its row."""
        return json_hash([self.setup.makes, example.model_dump(mode="json")])

    @override
    def _flow(self, input: Example, **kwargs: Any) -> Steps[dict[str, Any]]:
        way = ExampleState(input, self.journal.calls_of(example_key(input)))
        prompt, given, asked = self.setup.asked(input)
        if prompt is not None:
            [given] = yield [Call(prompt, given)]
        parts = [ModelResult(name) for name in self.setup.names]
        for place, part in enumerate(parts):
            try:
                yield from self._answer(way, part, place, given)
            except CallFailed as failure:
                part.failed = str(failure)
                continue
            if place < len(parts) - 1:
                for check in self.setup.checks:
                    flow = _checking(check.checkers[place], asked, given, parts[: place + 1])
                    yield from self._check(way, part, check, flow)
        yield from self._grade(way, parts)
        row = row_of(self.setup, input, parts)
        self.journal.add_row(input.id, self.digest(input), {"query": row})
        return row

    def _answer(self, way: ExampleState, part: ModelResult, place: int, given: Any) -> Steps[None]:
        setup, before = self.setup, (len(way.calls), way.seconds)
        call = Call(setup.answerers[place], given, run_name="draft", tags=[f"automix:{part.model}"])
        shaped = [setup.fingerprints[place], to_plain_input(given)]
        message = yield from self._made(way, "answer", part.model, 0, call, shaped)
        if not isinstance(message, AIMessage):
            raise AutoMixError(
                f"Model {part.model} returned {type(message).__name__}, not an AIMessage: what is "
                "calibrated are chat models."
            )
        part.message = message
        part.cost = self._cost(part.model, *way.since(*before))

    def _check(
        self, way: ExampleState, part: ModelResult, check: CalibratedCheck, flow: Steps[Any]
    ) -> Steps[None]:
        """Make one check of an answer; where it fails, the others are made all the same."""
        if not part.text:
            # As in the mix: nothing is asked about an empty answer, which is unknown.
            if (nothing := unknown_verification(check)) is not None:
                part.checks[check.name] = CheckResult(nothing, no_cost())
            return
        before = (len(way.calls), way.seconds)
        try:
            found = yield from self._through(
                way, "check", part.model, flow, check.fingerprint, check.name
            )
        except CallFailed as failure:
            part.failed = part.failed or str(failure)
            return
        if not isinstance(found, Verification):
            raise AutoMixError(f"The check returned {type(found).__name__}, not a Verification.")
        if found.undrawn is not None:
            # What was drawn counts, but the same run again draws the rest.
            said = f"{_stage_named('check', check.name)} of {part.model}: {found.undrawn}"
            part.failed = part.failed or said
        calls, seconds = way.since(*before)
        # What is no chat model is heard by no bill; the check tells of it.
        calls = max(calls, list(found.calls), key=len)
        known = found.verdicts or found.score is not None
        kept = found if known else unknown_verification(check) or Verification()
        cost = self._check_cost(part.model, kept, calls, seconds)
        part.checks[check.name] = CheckResult(kept, cost)

    def _check_cost(
        self, model: str, check: Verification, calls: list[ModelCall], seconds: float
    ) -> dict[str, float]:
        cost = self._cost(model, calls, seconds) if calls or seconds else 0.0
        if not check.verdicts:
            return {"cost": cost}
        fixed = 0.0
        if len(calls) == 1 and self.setup.unit == "dollars":
            # One request reads the prompt once, whatever the number of its verdicts.
            fixed = self._cost(model, [_without_output(calls[0])], 0.0)
        each = max(cost - fixed, 0.0) / len(check.verdicts)
        return {"fixed_cost": fixed, "sample_cost": each}

    def _cost(self, model: str, calls: list[ModelCall], seconds: float) -> float:
        cost = self.setup.cost(calls, seconds)
        if cost is None:
            told = next((call.model for call in calls if call.usage is None), None)
            reported = {call.model for call in calls if call.model}
            raise AutoMixError(
                f"What {model} costs is not known: "
                + (
                    f"the provider reported no tokens for {told}"
                    if told
                    else f"there is no price of {', '.join(sorted(reported)) or 'a nameless model'}"
                )
                + ". Give prices, or count seconds instead (unit='seconds', --unit seconds); what "
                "was paid for is kept."
            )
        return cost

    def _grade(self, way: ExampleState, parts: Sequence[ModelResult]) -> Steps[None]:
        """Grade all answers: against the references, or against the largest model's answer."""
        example, setup = way.example, self.setup
        largest = parts[-1]
        labelled = bool(example.references) or setup.unlabelled == "grade"
        for part in parts:
            if part.message is None:
                continue
            try:
                if labelled:
                    grade = yield from self._graded(way, part, example.references)
                    part.quality, part.why = grade.quality, grade.why
                # An empty answer is none, and no reference: what agrees with it is unknown.
                if (not labelled or setup.compares) and largest.text:
                    grade = Grade(quality=1.0)
                    if part is not largest and part.text != largest.text:
                        grade = yield from self._graded(way, part, (largest.text,))
                    part.agreement = grade.quality
                    part.why = part.why or grade.why
            except CallFailed as failure:
                part.failed = part.failed or str(failure)

    def _graded(
        self, way: ExampleState, part: ModelResult, references: Sequence[str]
    ) -> Steps[Grade]:
        example, grader = way.example, self.setup.grader
        given = GraderInput(
            answer=part.text,
            references=list(references),
            question=example.question,
            context=example.context,
        )
        flow = grade_flow(grader, given)
        return (yield from self._through(way, "grade", part.model, flow, grader_name(grader)))

    def _through(
        self,
        way: ExampleState,
        stage: Stage,
        model: str,
        flow: Steps[T],
        shape: str,
        check: str | None = None,
    ) -> Steps[T]:
        """Take an inner flow on its way; each of its calls is kept as it ends.

        Calls are known again by the `shape` of what makes them, and not by its name, so that a
        check may be named anew, and others set beside it.
        """
        step, nth, cause = partial(next, flow), 0, None
        while True:
            try:
                level = step()
            except StopIteration as end:
                found: T = end.value
                return found
            except Exception as error:
                if stage == "grade" and error is not cause:
                    # A grader that is wrong somewhere is wrong everywhere.
                    raise _cannot_grade(way.example, error) from error
                raise CallFailed(
                    _stage_named(stage, check), model, error, self.setup.said(error)
                ) from error
            results: list[Any] = []
            try:
                for call in () if isinstance(level, Note) else level:
                    shaped = [shape, model_fingerprint(call.runnable), to_plain_input(call.input)]
                    made = self._made(way, stage, model, nth, call, shaped, check)
                    try:
                        results.append((yield from made))
                    except CallFailed as failure:
                        if not call.hands_back:
                            raise
                        cause = failure.cause
                        results.append(cause)
                    nth += 1
            except CallFailed as failure:
                nth += 1
                cause = failure.cause
                step = partial(flow.throw, cause)  # it may know a way round
            else:
                step = partial(flow.send, results)

    def _made(
        self,
        way: ExampleState,
        stage: Stage,
        model: str,
        nth: int,
        call: Call,
        shaped: Any,
        check: str | None = None,
    ) -> Steps[Any]:
        """Make a call, and keep it; or take it from the journal, if it was made before."""
        key = f"{stage} {model} {nth} {json_hash(shaped)}"
        bills = [handler for handler in call.callbacks if isinstance(handler, UsageCollector)]
        entry = way.kept.get(key)
        if entry is None:
            entry = yield from self._newly(way, stage, model, key, call, bills, check)
            output = entry.pop("kept")
            way.kept[key] = entry  # an answer may be compared twice with the same text
        else:
            output = from_entry(entry, bills)
        way.calls += [ModelCall.model_validate(each) for each in entry["calls"]]
        way.seconds += entry["seconds"]
        return output

    def _newly(
        self,
        way: ExampleState,
        stage: Stage,
        model: str,
        key: str,
        call: Call,
        bills: list[UsageCollector],
        check: str | None,
    ) -> Steps[Entry]:
        self.course.before()
        started = time.perf_counter()
        example, about = example_key(way.example), {"id": way.example.id}
        try:
            [output] = yield [replace(call, hands_back=False)]
        except Exception as error:
            said = self.setup.said(error)
            self.course.failed(stage, said)
            self.journal.add(example, key, {**about, "error": said[:2_000]})
            raise CallFailed(_stage_named(stage, check), model, error, said) from error
        seconds = time.perf_counter() - started
        calls = [each for bill in bills for each in bill.calls]
        if isinstance(output, AIMessage) and not bills:
            calls = [to_model_call([output])]
        if isinstance(output, (Verification, Grade)) and len(output.calls) >= len(calls):
            calls = list(output.calls)
        calls = [with_model_name(each, call.runnable) for each in calls]
        entry: Entry = {
            **about,
            **({} if check is None else {"check": check}),
            "seconds": round(seconds, 6),
            "calls": [each.model_dump(mode="json", exclude_none=True) for each in calls],
            "output": to_entry(output),
        }
        if bills and (replies := [reply for bill in bills for reply in bill.replies])[1:]:
            entry["replies"] = [message_to_dict(reply) for reply in replies]
        self.journal.add(example, key, entry)
        cost = self.setup.cost(calls, seconds)
        if cost is None and self.course.max_spend is not None:
            self._cost(model, calls, seconds)  # says what is not known of it
        self.course.after(cost)
        return {**entry, "kept": output}


def _stage_named(stage: Stage, check: str | None) -> str:
    return stage if check is None else f"{stage} {check!r}"


def _without_output(call: ModelCall) -> ModelCall:
    usage = call.usage
    if usage is None:
        return call
    read = {k: v for k, v in usage.items() if k != "output_token_details"}
    return call.model_copy(
        update={"usage": {**read, "output_tokens": 0, "total_tokens": usage["input_tokens"]}}
    )


def _cannot_grade(example: Example, error: Exception) -> AutoMixError:
    said = str(error) if isinstance(error, AutoMixError) else f"{type(error).__name__}: {error}"
    return AutoMixError(
        f"The answers to example {example.id} cannot be graded: {said} What was paid for is kept; "
        "mend the grader, and run the same again."
    )


def _checking(
    checker: Runnable[Any, Any], asked: VerifierInput, given: Any, parts: Sequence[ModelResult]
) -> Steps[Any]:
    """Check the last of some answers; each request of a check of ours is a call of the flow."""
    *before, part = parts
    request: VerifierInput = {
        **asked,
        "answer": part.message or "",
        "request": to_messages(given),
        "earlier": [each.message for each in before if each.message is not None],
    }
    if isinstance(checker, FlowRunnable):
        return (yield from checker._flow(request))  # noqa: SLF001  (of the same package)
    [found] = yield [Call(checker, request, run_name="check", callbacks=[UsageCollector()])]
    return found


_OWN_METADATA = frozenset({"agreement", "check", "check_replies", "failed", "grades", "labelled"})
"""What stands in a row's metadata only where there is something to say; a user's own field of that
name would be taken for it."""


@dataclass(frozen=True)
class CheckResult:
    """What a check of an answer found, and what it cost."""

    found: Verification
    cost: dict[str, float]

    def logged(self) -> dict[str, Any]:
        """Return it as a routing log holds it."""
        found = self.found
        says = {"verdicts": found.verdicts} if found.verdicts else {"score": found.score}
        return {**says, **self.cost}


@dataclass
class ModelResult:
    """One model's part in an example."""

    model: str
    message: AIMessage | None = None
    cost: float | None = None
    checks: dict[str | None, CheckResult] = field(default_factory=dict)
    """What each check found, by name; one that was not made, or failed, is not here."""

    quality: float | None = None
    agreement: float | None = None
    why: str = ""
    failed: str | None = None

    @property
    def text(self) -> str:
        """Its answer as text; empty where there is none."""
        return "" if self.message is None else answer_text(self.message)


@dataclass
class ExampleState:
    """An example under way: what is known of it, and what was paid on the way."""

    example: Example
    kept: dict[str, Entry]
    """Finished calls by key: those of earlier runs, and this one's as they end."""

    calls: list[ModelCall] = field(default_factory=list)
    seconds: float = 0.0

    def since(self, calls: int, seconds: float) -> tuple[list[ModelCall], float]:
        """Return the calls after the first so many, and the time after this."""
        return self.calls[calls:], self.seconds - seconds


def row_of(
    setup: CalibrationConfig, example: Example, parts: Sequence[ModelResult]
) -> dict[str, Any]:
    """Return the example as a line of a routing log."""
    labels = "references" if example.references else setup.unlabelled
    first = setup.checks[0].name
    answers: list[dict[str, Any]] = []
    for part in parts:
        quality = part.agreement if labels == "agreement" else part.quality
        answer: dict[str, Any] = {"model": part.model, "quality": quality, "cost": part.cost}
        found = {check: each.logged() for check, each in part.checks.items()}
        if first in found:
            answer["verification"] = found.pop(first)
        if found:
            answer["checks"] = found
        answers.append(answer)
    metadata: dict[str, Any] = {
        **{k: v for k, v in example.metadata.items() if k not in _OWN_METADATA},
        "question": example.question,
        "context": example.context,
        "references": list(example.references),
        "answers": [None if part.message is None else part.text for part in parts],
        "replies": [_replies(part, first) for part in parts],
        "labels": labels,
        "verifier": setup.verifier,
        "check": first,
    }
    if further := {c.name: [_replies(p, c.name) for p in parts] for c in setup.checks[1:]}:
        metadata["check_replies"] = further
    if setup.compares:
        metadata["agreement"] = [part.agreement for part in parts]
    if any(part.why for part in parts):
        metadata["grades"] = [part.why for part in parts]
    if failed := {part.model: part.failed for part in parts if part.failed}:
        metadata["failed"] = failed
    return {
        "id": example.id,
        "currency": CURRENCIES[setup.unit],
        "answers": answers,
        "metadata": {k: v for k, v in metadata.items() if v is not None},
    }


def _replies(part: ModelResult, check: str | None) -> list[str]:
    return list(part.checks[check].found.replies) if check in part.checks else []


def unknown_verification(check: CalibratedCheck) -> Verification | None:
    """Return the invalid verdicts that say that a check found nothing; None of one that scores."""
    samples = check.samples
    return None if samples is None else Verification(verdicts=(None,) * samples)


def no_cost() -> dict[str, float]:
    """Return the cost of verdicts that nobody was asked for."""
    return {"fixed_cost": 0.0, "sample_cost": 0.0}
