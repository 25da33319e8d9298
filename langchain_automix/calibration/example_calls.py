"""The calls of one example. Each is kept in the journal before its result is used."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from langchain_core.messages import message_to_dict
from langchain_core.runnables import Runnable, RunnableConfig
from typing_extensions import override

from langchain_automix.calibration.bill import Bill, bill_of
from langchain_automix.calibration.call_record import CallRecord
from langchain_automix.calibration.config import CalibrationConfig
from langchain_automix.calibration.entries import Entry, from_entry, to_entry
from langchain_automix.calibration.examples.examples import Example
from langchain_automix.calibration.fingerprints import json_hash, model_fingerprint
from langchain_automix.calibration.kept_calls import example_key, to_plain_input
from langchain_automix.calibration.spending import Kind, Stage
from langchain_automix.errors import AutoMixError
from langchain_automix.flow.off_loop import Work
from langchain_automix.flow.steps import Call, NeedsNoSlot, Steps, call, gather
from langchain_automix.models.refusals import SEVERAL_REPLIES
from langchain_automix.models.usage import UsageCollector
from langchain_automix.types import ModelCall

T = TypeVar("T")

_PAUSE_SECONDS = 0.02


@dataclass(frozen=True)
class CallKind:
    """The purpose of a call."""

    stage: Stage
    model: str
    check: str | None = None
    """Name of the check if there are several; None for a single check or another stage."""

    @property
    def key(self) -> Kind:
        """The kind under which costs are kept."""
        return (self.stage, self.model, self.check)

    def __str__(self) -> str:
        check = "" if self.check is None else f" {self.check!r}"
        return f"{self.stage}{check} of {self.model}"


class CallFailed(Exception):  # noqa: N818  (recorded, and not an error of this package)
    """A call that failed in spite of its model's own retries."""

    def __init__(self, kind: CallKind, cause: Exception, reason: str) -> None:
        super().__init__(f"{kind}: {reason}")
        self.cause = cause


@dataclass
class ExampleCalls:
    """Makes the calls of an example, or takes them from the journal if they were made before."""

    example: Example
    setup: CalibrationConfig
    record: CallRecord
    kept: dict[str, Entry]
    """Finished calls of this run and earlier ones, by key."""

    place: Callable[[Entry], str]
    """Says where an entry stands that was read back, for messages."""

    requests: list[ModelCall] = field(default_factory=list)
    """The requests of the calls so far."""

    seconds: float = 0.0
    """Time taken by the calls so far."""

    def since(self, requests: int, seconds: float) -> tuple[list[ModelCall], float]:
        """Return the requests made and the seconds spent since these counts were taken."""
        return self.requests[requests:], self.seconds - seconds

    def cost(self, model: str, calls: list[ModelCall], seconds: float) -> float:
        """Return the cost of requests of a model.

        Raises:
            AutoMixError: The cost is unknown.
        """
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

    def steps(self, kind: CallKind, flow: Steps[T], shape: str) -> Steps[T]:
        """Make the calls of an inner flow, and keep each one when it ends.

        Calls are identified by the `shape` of their maker rather than by its name, so that a check
        may be renamed and others may be added.
        """
        nth, causes = 0, list[Exception]()
        outputs: Any = None
        while True:
            try:
                with SEVERAL_REPLIES.asking_anew():
                    level = flow.send(outputs)
            except StopIteration as end:
                value: T = end.value
                return value
            except Exception as error:
                if kind.stage == "grade" and all(error is not cause for cause in causes):
                    # A grader that fails on one example fails on all of them.
                    raise _cannot_grade(self.example, error) from error
                raise CallFailed(kind, error, self.setup.redact(error)) from error
            outputs = []
            for wanted in level:
                if isinstance(wanted.runnable, Work):  # no request: nothing to keep
                    outputs += yield from gather(wanted)
                    continue
                whole = [shape, model_fingerprint(wanted.runnable), to_plain_input(wanted.input)]
                try:
                    output = yield from self.call(kind, nth, wanted, whole)
                    outputs.append(output)
                except CallFailed as failure:  # the flow may handle the failure
                    causes.append(failure.cause)
                    outputs.append(failure.cause)
                nth += 1

    def has(self, kind: CallKind, nth: int, shape: Any) -> bool:
        """Return whether a call was made before and is kept."""
        return _key(kind, nth, shape) in self.kept

    def call(self, kind: CallKind, nth: int, wanted: Call, shape: Any) -> Steps[Any]:
        """Make a call and keep it, or take it from the journal if it was made before."""
        key = _key(kind, nth, shape)
        collectors = [each for each in wanted.callbacks if isinstance(each, UsageCollector)]
        entry = self.kept.get(key)
        if entry is None:
            output, entry = yield from self._new_call(kind, key, wanted, collectors)
            self.kept[key] = entry  # an answer may be compared with the same text twice
        else:
            output = from_entry(entry, collectors, self.place)
        self.requests += [ModelCall.model_validate(each) for each in entry["calls"]]
        self.seconds += entry["seconds"]
        return output

    def _new_call(
        self,
        kind: CallKind,
        key: str,
        wanted: Call,
        collectors: list[UsageCollector],
    ) -> Steps[tuple[Any, Entry]]:
        example, about = example_key(self.example), {"id": self.example.id}
        about |= {} if kind.check is None else {"check": kind.check}
        reserved = yield from self._begin(kind, example, key)
        started = time.perf_counter()
        usage = UsageCollector(mends=False)
        if not collectors:
            wanted = replace(wanted, callbacks=[*wanted.callbacks, usage])
        try:
            output = yield from call(wanted)
        except Exception as error:
            reason = self.setup.redact(error)
            bill = Bill.of_failed(error, wanted, collectors or [usage])
            seconds = time.perf_counter() - started
            entry = {**about, "error": reason[:2_000], **bill.to_entry(seconds)}
            self._keep(kind, reserved, example, key, entry)
            raise CallFailed(kind, error, reason) from error
        except GeneratorExit:
            self.record.lose(kind.key, reserved)
            raise
        bill = Bill.of(output, wanted, collectors or [usage])
        seconds = time.perf_counter() - started
        entry = {**about, **bill.to_entry(seconds), "output": to_entry(output)}
        replies = [reply for collector in collectors for reply in collector.replies]
        if len(replies) > 1:
            entry["replies"] = [message_to_dict(reply) for reply in replies]
        cost = self._keep(kind, reserved, example, key, entry)
        if cost is None and self.record.max_spend is not None:
            self.cost(kind.model, bill.calls, seconds)  # raises an error that names what is unknown
        return output, entry

    def _begin(self, kind: CallKind, example: str, key: str) -> Steps[float]:
        """Reserve money for a call, and wait until this is possible.

        Raises:
            Stopped: The call must not be made.
        """
        while (reserved := self.record.begin(kind.key, example, key)) is None:
            yield from call(Call(_Waiting(self.record), None, audience="tracers"))
        return reserved

    def _keep(
        self, kind: CallKind, reserved: float, example: str, key: str, entry: Entry
    ) -> float | None:
        """Keep a call that has ended, and return its cost, if known."""
        bill = bill_of(self.setup, entry)
        self.record.keep(kind.key, reserved, example, key, entry, bill)
        return bill[0]


def _key(kind: CallKind, nth: int, shape: Any) -> str:
    return f"{kind.stage} {kind.model} {nth} {json_hash(shape)}"


class _Waiting(NeedsNoSlot, Runnable[Any, None]):
    """Waits until another call has ended, or for a moment."""

    def __init__(self, record: CallRecord) -> None:
        self._record = record

    @override
    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> None:
        self._record.wait(_PAUSE_SECONDS)

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
