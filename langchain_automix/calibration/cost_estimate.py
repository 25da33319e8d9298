"""Estimate, before any call, which calls a calibration will make and what they will cost.

The calls are counted in a dry run of some examples through the flow. The configuration alone does
not determine them: the check decides how often it asks and with which prompt, and the calls that an
example still needs depend on the journal.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, get_args

from langchain_core.messages import AIMessage
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.runnables import Runnable

from langchain_automix.calibration.bill import bill_of
from langchain_automix.calibration.budget import CalibrationRun
from langchain_automix.calibration.call_record import JournalRecord
from langchain_automix.calibration.config import CURRENCIES, CalibrationConfig
from langchain_automix.calibration.entries import Entry
from langchain_automix.calibration.example_run import ExampleRunnable
from langchain_automix.calibration.examples.examples import Example
from langchain_automix.calibration.graders.judges import EmbeddingSimilarity
from langchain_automix.calibration.journal import Journal
from langchain_automix.calibration.kept_calls import example_key
from langchain_automix.calibration.spending import Kind, Spending, Stage
from langchain_automix.errors import AutoMixError
from langchain_automix.flow.runnable import FlowRunnable
from langchain_automix.flow.steps import Call
from langchain_automix.models.messages import to_messages
from langchain_automix.models.usage import UsageCollector, to_model_call
from langchain_automix.models.wrappers import chat_model_of
from langchain_automix.types import ModelCall, Verification

_REHEARSED = 50
"""Number of examples in the dry run; the others are assumed to be similar."""

_SHORT, _LONG = 5, 400
"""Tokens of the shortest and the longest likely reply, used unless earlier calls or the model's own
limit are known."""

_LIMITS = ("max_tokens", "max_completion_tokens", "num_predict", "max_output_tokens")
_ENOUGH_CALLS = 10
"""Number of earlier calls of one kind that is enough to estimate later ones."""

_SPREAD = 0.25
"""Allowed relative error of the tokens of a text, which are estimated from its characters, and of
the mean cost of future calls, which is estimated from earlier ones."""


@dataclass(frozen=True)
class StageEstimate:
    """The remaining calls of one kind. Ranges are (low, high)."""

    stage: str
    """`answer`, `check` or `grade`."""

    model: str
    """Name of the model whose answers are made, checked or graded."""

    check: str | None
    """Name of the check if there are several; None for a single check and for other stages."""

    calls: int
    tokens_in: tuple[int, int]
    tokens_out: tuple[int, int]
    cost: tuple[float, float] | None
    """Cost in the estimate's currency; None if unknown."""

    is_free: bool = False
    """Whether it is a check that makes no call, because it reads data that comes with the
    answers."""


@dataclass(frozen=True)
class Estimate:
    """The calls that a calibration will make, and their likely cost."""

    examples: int
    finished: int
    """Number of examples that an earlier run finished."""

    unlabelled: int
    """Number of examples without a reference."""

    stages: tuple[StageEstimate, ...]
    currency: str
    spent: float
    """Cost of the calls of earlier runs; see `Progress.spent`."""

    lost: int = 0
    """Number of requests of earlier runs that may have been billed without being reported."""

    changed: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    """Settings that have changed since the last run, each with its old and new value. The calls
    that depend on them are made again."""

    notes: tuple[str, ...] = ()

    @property
    def calls(self) -> int:
        """Number of calls still to make."""
        return sum(stage.calls for stage in self.stages)

    @property
    def cost(self) -> tuple[float, float] | None:
        """Likely cost of these calls, low and high; None if any part is unknown."""
        costs = [stage.cost for stage in self.stages if stage.calls]
        known = [cost for cost in costs if cost is not None]
        if len(known) < len(costs):
            return None
        return sum(low for low, _ in known), sum(high for _, high in known)

    def to_dict(self) -> dict[str, Any]:
        """Return all figures, ready for JSON."""
        return {**asdict(self), "calls": self.calls, "cost": self.cost}


@dataclass
class CallStats:
    """Number, tokens and cost of calls of one kind, made or expected."""

    calls: float = 0
    tokens_in: float = 0
    tokens_out: float = 0
    cost: float | None = 0.0

    def add(self, entry: Entry, cost: float | None) -> None:
        """Count one finished call."""
        usages = [call.get("usage") or {} for call in entry["calls"]]
        self.calls += 1
        self.tokens_in += sum(usage.get("input_tokens", 0) for usage in usages)
        self.tokens_out += sum(usage.get("output_tokens", 0) for usage in usages)
        self.cost = None if self.cost is None or cost is None else self.cost + cost

    def add_all(self, other: CallStats, scale: float) -> None:
        """Add the calls of another one, `scale` times."""
        self.calls += scale * other.calls
        self.tokens_in += scale * other.tokens_in
        self.tokens_out += scale * other.tokens_out
        known = self.cost is not None and other.cost is not None
        self.cost = (self.cost or 0.0) + scale * (other.cost or 0.0) if known else None


class EarlierCalls:
    """Totals of the calls of earlier runs, by kind, summed as the journal is read."""

    def __init__(self, setup: CalibrationConfig) -> None:
        self.setup = setup
        self.spending = Spending()
        self.by_kind: dict[Kind, CallStats] = defaultdict(CallStats)

    def hear(self, entry: Entry) -> None:
        """Count one finished or failed call of an earlier run."""
        kind = kind_of(entry["call"], entry)
        cost, lost = bill_of(self.setup, entry)
        self.spending.add(kind, cost, lost)
        if "error" not in entry:
            self.by_kind[kind].add(entry, cost)

    def add_lost(self, journal: Journal) -> None:
        """Count the calls of earlier runs that have a beginning but no end in the journal."""
        for (_, key, check), number in journal.lost.items():
            self.spending.add(kind_of(key, {"check": check}), None, number)


def kind_of(key: str, entry: Entry) -> Kind:
    """Return the kind of a call from its key in the journal and its entry."""
    stage, rest = key.split(" ", 1)
    return stage, rest.rsplit(" ", 2)[0], entry.get("check")


def estimate(
    setup: CalibrationConfig,
    examples: Sequence[Example],
    journal: Journal,
    earlier: EarlierCalls,
    *,
    changed: Mapping[str, tuple[Any, Any]],
) -> Estimate:
    """Estimate which calls are still to be made and what they will cost.

    Args:
        setup: The calibration.
        examples: All examples, in the order in which they will be run.
        journal: The calls of earlier runs.
        earlier: Their totals.
        changed: Settings that differ from the run before.
    """
    # An example that an earlier run started needs fewer calls than one that it did not reach.
    dry_runs = {begun: _DryRun(setup, journal) for begun in (True, False)}
    runner = ExampleRunnable(setup=setup, journal=journal, record=None)
    for example in examples:
        if runner.finished(example) is None:
            dry_runs[journal.knows(example_key(example))].rehearse(example)
    free = set(_free_checks(setup)) if any(each.examples for each in dry_runs.values()) else set()
    short, long = (_total(dry_runs.values(), is_long=is_long) for is_long in (False, True))
    return Estimate(
        examples=len(examples),
        finished=len(examples) - sum(dry_run.examples for dry_run in dry_runs.values()),
        unlabelled=sum(not example.references for example in examples),
        stages=tuple(
            _free_stage(kind)
            if kind in free
            else _stage(setup, kind, short[kind], long[kind], earlier.by_kind.get(kind))
            for kind in sorted({*short, *free}, key=lambda kind: _rank(setup, kind))
        ),
        currency=CURRENCIES[setup.unit],
        spent=earlier.spending.total,
        lost=earlier.spending.lost.total(),
        changed=changed,
        notes=(*_torn_line(journal), *_killed(journal), *_uncounted(setup)),
    )


def _total(dry_runs: Iterable[_DryRun], *, is_long: bool) -> dict[Kind, CallStats]:
    total: dict[Kind, CallStats] = defaultdict(CallStats)
    for dry_run in dry_runs:
        for kind, stats in dry_run.made[is_long].items():
            total[kind].add_all(stats, max(1.0, dry_run.examples / _REHEARSED))
    return total


def _torn_line(journal: Journal) -> Iterator[str]:
    if journal.torn:
        yield (
            f"The last line of {journal.path} was cut short, perhaps by a power failure: if it "
            "held a call, that call is made again."
        )


def _killed(journal: Journal) -> Iterator[str]:
    """Say what is unknown about a run that was killed."""
    if lost := sum(journal.lost.values()):
        calls = "1 call was" if lost == 1 else f"{lost} calls were"
        yield (
            f"{calls} under way when an earlier run was killed, and may have been billed: each "
            "counts as the dearest of its kind."
        )
    elif journal.calls and not journal.ended and not journal.tells_beginnings:
        yield (
            "The run before was killed: the calls under way then may have been billed, and are not "
            "counted."
        )


def _uncounted(setup: CalibrationConfig) -> Iterator[str]:
    """Say which calls are missing in the estimate."""
    checks = [
        (f"check {check.name}" if check.name else "check", check.verifier) for check in setup.checks
    ]
    for stage, asker in (*checks, ("grader", setup.grader)):
        if isinstance(asker, Runnable) and not isinstance(asker, FlowRunnable):
            yield (
                f"Model calls of the {stage} ({type(asker).__name__}) are not in the estimate; "
                "they are counted once they are made."
            )
        elif isinstance(asker, EmbeddingSimilarity):
            yield "Embeddings report no tokens: their cost is counted neither here nor later."


def _rank(setup: CalibrationConfig, kind: Kind) -> tuple[int, int, int]:
    stage, model, check = kind
    checks = [each.name for each in setup.checks]
    rank = checks.index(check) if check in checks else 0
    return setup.names.index(model), get_args(Stage).index(stage), rank


def _free_checks(setup: CalibrationConfig) -> Iterator[Kind]:
    """Yield the free checks that were added to the requested one."""
    if setup.free_check is not None:
        models = zip(setup.names[:-1], setup.sends_logprobs, strict=False)
        yield from (("check", name, setup.free_check) for name, sends in models if sends)


def _free_stage(kind: Kind) -> StageEstimate:
    stage, model, check = kind
    return StageEstimate(stage, model, check, 0, (0, 0), (0, 0), (0.0, 0.0), is_free=True)


def _stage(
    setup: CalibrationConfig,
    kind: Kind,
    low: CallStats,
    high: CallStats,
    earlier: CallStats | None,
) -> StageEstimate:
    calls = round(low.calls)
    cost = None
    if earlier is not None and earlier.calls >= _ENOUGH_CALLS and earlier.cost is not None:
        mean = earlier.cost / earlier.calls * calls
        cost = (mean * (1 - _SPREAD), mean * (1 + _SPREAD))
    elif setup.unit == "dollars" and low.cost is not None and high.cost is not None:
        cost = (low.cost, high.cost)
    return StageEstimate(
        stage=kind[0],
        model=kind[1],
        check=kind[2],
        calls=calls,
        tokens_in=(round(low.tokens_in), round(high.tokens_in)),
        tokens_out=(round(low.tokens_out), round(high.tokens_out)),
        cost=cost,
    )


def _no_grade(answer: str, references: Sequence[str]) -> None:
    del answer, references


class _DryRun:
    """Runs examples with made-up replies, and counts the calls.

    Only the first examples are run; they represent the others. This class also replaces the
    journal: it returns the calls of earlier runs, and keeps no new ones.
    """

    def __init__(self, setup: CalibrationConfig, journal: Journal) -> None:
        self.examples = 0
        self.made: dict[bool, dict[Kind, CallStats]] = {
            is_long: defaultdict(CallStats) for is_long in (False, True)
        }
        """Calls by kind, with short replies and with long ones."""

        self._setup = setup
        self._journal = journal
        self._is_long = False
        self._numbers = itertools.count()
        # Do not call the user's own function before the run is approved.
        grader = setup.grader if isinstance(setup.grader, Runnable) else _no_grade
        self._runner = ExampleRunnable(
            setup=replace(setup, grader=grader),
            journal=self,
            record=JournalRecord(self, CalibrationRun(0, "")),
        )

    def rehearse(self, example: Example) -> None:
        """Count an example, and run it if it is one of the first."""
        self.examples += 1
        if self.examples <= _REHEARSED:
            for self._is_long in (False, True):
                self._run(example)

    def _run(self, example: Example) -> None:
        flow = self._runner.steps(example)
        with contextlib.suppress(StopIteration, AutoMixError):
            level = next(flow)
            while True:
                level = flow.send([self._reply(call) for call in level])

    def calls_of(self, example: str) -> dict[str, Entry]:
        return self._journal.calls_of(example)

    def place(self, entry: Entry) -> str:
        return self._journal.place(entry)

    def begin_call(self, example: str, key: str, check: str | None = None) -> None:
        pass

    def add(self, example: str, key: str, entry: Entry) -> None:
        del example
        calls = [ModelCall.model_validate(call) for call in entry["calls"]]
        self.made[self._is_long][kind_of(key, entry)].add(entry, self._setup.cost(calls, 0.0))

    def add_row(self, example: str, digest: str, row: Entry) -> None:
        pass

    def _reply(self, call: Call) -> Any:
        if call.run_name is None:  # a prompt to fill: no model is called
            return call.runnable.invoke(call.input)
        collectors = [each for each in call.callbacks if isinstance(each, UsageCollector)]
        chat_model = chat_model_of(call.runnable)
        if chat_model is None and call.run_name != "draft":
            return Verification(score=0.5) if call.run_name == "check" else 0.5
        number = getattr(chat_model, "n", None) or 1 if call.run_name != "draft" else 1
        message = self._message(call, chat_model, number)
        for collector in collectors:
            collector.replies = [message] * number
            collector.calls = [to_model_call([message])]
        return message

    def _message(self, call: Call, chat_model: Any, number: int) -> AIMessage:
        limit = next(filter(None, (getattr(chat_model, name, None) for name in _LIMITS)), _LONG)
        # Make each reply different, because equal replies would not be compared.
        text = f"Answer {next(self._numbers)}"
        tokens_out = number * min(limit, _LONG if self._is_long else _SHORT)
        counted = count_tokens_approximately(to_messages(call.input))
        tokens_in = round(counted * (1 + _SPREAD if self._is_long else 1 - _SPREAD))
        usage = {
            "input_tokens": tokens_in,
            "output_tokens": tokens_out,
            "total_tokens": tokens_in + tokens_out,
        }
        return AIMessage(text, usage_metadata=usage)
