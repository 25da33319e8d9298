"""What a calibration is going to ask for, and what that is likely to cost, before any call."""

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

from langchain_automix.calibration.budget import CalibrationRun, Stage
from langchain_automix.calibration.config import CURRENCIES, CalibrationConfig
from langchain_automix.calibration.example_run import ExampleRunnable
from langchain_automix.calibration.examples.examples import Example
from langchain_automix.calibration.graders.judges import EmbeddingSimilarity
from langchain_automix.calibration.journal import Entry, Journal, example_key
from langchain_automix.errors import AutoMixError
from langchain_automix.flow.runnable import FlowRunnable
from langchain_automix.flow.steps import Call, Note
from langchain_automix.models.messages import to_messages
from langchain_automix.models.usage import UsageCollector, to_model_call
from langchain_automix.models.wrappers import chat_model_of
from langchain_automix.types import ModelCall, Verification

_LOOKED_AT = 50
"""Examples whose prompts are counted; the others are taken to be like them."""

_SHORT, _LONG = 5, 400
"""Tokens of a reply, from and to, where neither earlier calls nor the model's own limit tell."""

_LIMITS = ("max_tokens", "max_completion_tokens", "num_predict", "max_output_tokens")
_ENOUGH_CALLS = 10
"""Earlier calls of one kind from which the next are estimated."""

_SPREAD = 0.25
"""How far, as a share, an estimate may be off: of the tokens of a text, counted by its characters;
and of the mean cost of calls to come, seen from earlier ones."""


Kind = tuple[str, str, str | None]
"""The stage of a call, the model, and which of several checks."""


@dataclass(frozen=True)
class StageEstimate:
    """The calls of one kind to one model. Ranges are (low, high)."""

    stage: str
    """`answer`, `check` or `grade`."""

    model: str
    """Whose answers."""

    check: str | None
    """Which of several checks; None for the only one, and for other stages."""

    calls: int
    tokens_in: tuple[int, int]
    tokens_out: tuple[int, int]
    cost: tuple[float, float] | None
    """In the estimate's currency; None where it is not known."""


@dataclass(frozen=True)
class Estimate:
    """What a calibration is going to ask for."""

    examples: int
    finished: int
    """Of these: finished by an earlier run."""

    unlabelled: int
    """Of these: without a reference."""

    stages: tuple[StageEstimate, ...]
    currency: str
    spent: float
    """Cost of the calls that earlier runs made."""

    changed: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    """Settings that are not as in the run before, by name: then and now. Calls that they shape are
    made again."""

    notes: tuple[str, ...] = ()

    @property
    def calls(self) -> int:
        """Calls to be made."""
        return sum(stage.calls for stage in self.stages)

    @property
    def cost(self) -> tuple[float, float] | None:
        """Cost of the calls to be made, from and to; None as soon as a part is unknown."""
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
    """What calls of one kind took; of calls to come, what they are expected to take."""

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
        """Count so many times what another tally holds."""
        self.calls += scale * other.calls
        self.tokens_in += scale * other.tokens_in
        self.tokens_out += scale * other.tokens_out
        known = self.cost is not None and other.cost is not None
        self.cost = (self.cost or 0.0) + scale * (other.cost or 0.0) if known else None


class EarlierCalls:
    """What an earlier run's calls took, by their kind; adds up as the journal is read."""

    def __init__(self, setup: CalibrationConfig) -> None:
        self.setup = setup
        self.spent = 0.0
        self.by_kind: dict[Kind, CallStats] = defaultdict(CallStats)

    def hear(self, entry: Entry) -> None:
        """Count one finished call of an earlier run."""
        calls = [ModelCall.model_validate(call) for call in entry["calls"]]
        cost = self.setup.cost(calls, entry["seconds"])
        self.spent += cost or 0.0
        self.by_kind[kind_of(entry["call"], entry)].add(entry, cost)


def kind_of(key: str, entry: Entry) -> Kind:
    """Return the kind of a call, from its key in the journal and what is kept of it."""
    stage, rest = key.split(" ", 1)
    return stage, rest.rsplit(" ", 2)[0], entry.get("check")


def estimate(
    setup: CalibrationConfig,
    examples: Iterable[Example],
    journal: Journal,
    tallies: EarlierCalls,
    **about: Any,
) -> Estimate:
    """Return what is to be asked for; a rehearsal of some examples counts calls and tokens.

    Args:
        setup: What is run.
        examples: All examples, in the order to take them.
        journal: What earlier runs did.
        tallies: What that took.
        **about: Other fields of the `Estimate`.
    """
    # Those that an earlier run began need fewer calls than those that it did not come to.
    parts = {begun: _Part(setup, journal) for begun in (True, False)}
    count = unlabelled = 0
    examination = ExampleRunnable(setup=setup, journal=journal, course=CalibrationRun(0, ""))
    for example in examples:
        count += 1
        unlabelled += not example.references
        if examination.finished(example) is None:
            parts[journal.knows(example_key(example))].take(example)
    short: dict[Kind, CallStats] = defaultdict(CallStats)
    long: dict[Kind, CallStats] = defaultdict(CallStats)
    for part in parts.values():
        for found, rehearsal in ((short, part.short), (long, part.long)):
            for kind, tally in rehearsal.made.items():
                found[kind].add_all(tally, part.scale)
    return Estimate(
        examples=count,
        finished=count - sum(part.examples for part in parts.values()),
        unlabelled=unlabelled,
        stages=tuple(
            _stage(setup, kind, low, long[kind], tallies.by_kind.get(kind))
            for kind, low in sorted(short.items(), key=lambda made: _order(setup, made[0]))
        ),
        currency=CURRENCIES[setup.unit],
        spent=tallies.spent,
        notes=(*_cut_short(journal), *_untold(setup)),
        **about,
    )


def _cut_short(journal: Journal) -> Iterable[str]:
    """Say of a journal that was not written to its end what that costs."""
    if journal.torn:
        yield (
            f"The last line of {journal.path} was cut short, by a power failure perhaps: if it "
            "held a call, that is made again."
        )


def _untold(setup: CalibrationConfig) -> Iterator[str]:
    """Say of whom it cannot be known what they are going to ask for."""
    checks = [
        (f"check {check.name}" if check.name else "check", check.verifier) for check in setup.checks
    ]
    for stage, what in (*checks, ("grader", setup.grader)):
        if isinstance(what, Runnable) and not isinstance(what, FlowRunnable):
            yield (
                f"What the {stage} ({type(what).__name__}) asks of models is not in the estimate; "
                "it is counted once it is asked."
            )
        elif isinstance(what, EmbeddingSimilarity):
            yield "Embeddings report no tokens: what they cost is counted neither here nor later."


class _Part:
    """Some of the examples; the first of them are rehearsed, and stand for the others."""

    def __init__(self, setup: CalibrationConfig, journal: Journal) -> None:
        self.examples = 0
        self.short = _DryRun(setup, journal, is_long=False)
        self.long = _DryRun(setup, journal, is_long=True)

    def take(self, example: Example) -> None:
        """Count an example."""
        self.examples += 1
        if self.examples <= _LOOKED_AT:
            self.short.of(example)
            self.long.of(example)

    @property
    def scale(self) -> float:
        """Examples that each of the rehearsed ones stands for."""
        return max(1.0, self.examples / _LOOKED_AT)


def _order(setup: CalibrationConfig, kind: Kind) -> tuple[int, int, int]:
    stage, model, check = kind
    names = [each.name for each in setup.checks]
    place = names.index(check) if check in names else 0
    return setup.names.index(model), get_args(Stage).index(stage), place


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


def _ungraded(answer: str, references: Sequence[str]) -> None:
    del answer, references


class _DryRun:
    """Takes examples their way with replies that no model gave, and counts what is asked."""

    def __init__(self, setup: CalibrationConfig, journal: Journal, *, is_long: bool) -> None:
        self.made: dict[Kind, CallStats] = defaultdict(CallStats)
        self.is_long = is_long
        self._numbers = itertools.count()
        # A function of the user's own is not called before all is approved.
        grader = setup.grader if isinstance(setup.grader, Runnable) else _ungraded
        self.examination = ExampleRunnable(
            setup=replace(setup, grader=grader), journal=self, course=CalibrationRun(0, "")
        )
        self.journal = journal
        self.setup = setup

    def of(self, example: Example) -> None:
        """Rehearse one example."""
        flow = self.examination._flow(example)  # noqa: SLF001  (of the same package)
        with contextlib.suppress(StopIteration, AutoMixError):
            level = next(flow)
            while True:
                calls = () if isinstance(level, Note) else level
                level = flow.send([self._reply(call) for call in calls])

    # What an examination asks of its journal.

    def calls_of(self, example: str) -> dict[str, Entry]:
        return self.journal.calls_of(example)

    def add(self, example: str, key: str, entry: Entry) -> None:
        del example
        calls = [ModelCall.model_validate(call) for call in entry["calls"]]
        self.made[kind_of(key, entry)].add(entry, self.setup.cost(calls, 0.0))

    def add_row(self, example: str, digest: str, row: Entry) -> None:
        pass

    def _reply(self, call: Call) -> Any:
        if call.run_name is None:  # a prompt to fill: no model is asked
            return call.runnable.invoke(call.input)
        bills = [handler for handler in call.callbacks if isinstance(handler, UsageCollector)]
        chat_model = chat_model_of(call.runnable)
        if chat_model is None and call.run_name != "draft":
            return Verification(score=0.5) if call.run_name == "check" else 0.5
        number = getattr(chat_model, "n", None) or 1 if bills else 1
        message = self._message(call, chat_model, number)
        for bill in bills:
            bill.replies = [message] * number
            bill.calls = [to_model_call([message])]
        return message

    def _message(self, call: Call, chat_model: Any, number: int) -> AIMessage:
        limit = next(filter(None, (getattr(chat_model, name, None) for name in _LIMITS)), _LONG)
        # No two alike, for what is alike need not be compared.
        text = f"Answer {next(self._numbers)}"
        output = number * min(limit, _LONG if self.is_long else _SHORT)
        # Counted by characters; a model's own count may be this far off.
        counted = count_tokens_approximately(to_messages(call.input))
        read = round(counted * (1 + _SPREAD if self.is_long else 1 - _SPREAD))
        usage = {"input_tokens": read, "output_tokens": output, "total_tokens": read + output}
        return AIMessage(text, usage_metadata=usage)
