"""What a report over time says: plain figures and texts, measured before anything is rendered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from langchain_automix.policy.statistics import Interval
from langchain_automix.report.contents import Number

FIRST_MODEL = "agreement of the first model"
"""Name of the series that says how far the first model agrees with the largest, kept or not."""


@dataclass(frozen=True, slots=True)
class Saving:
    """What is saved against the largest model alone, and what that costs in quality."""

    queries: int
    """Queries that the saving is judged on."""

    saved: float
    """Share of the largest model's cost, at most 1; negative where more is paid."""

    interval: Interval
    """95 % interval of that share."""

    lost: float | None
    """Mean quality lost against the largest model; None: unknown yet."""

    lost_at_most: float | None
    """Bound of that loss, with the confidence asked for; None: nothing is shown yet."""

    is_shown: bool
    """Whether the loss, or the gain in utility, is shown to be within the goal."""

    more: int | None
    """About how many more queries of the traffic would show it; None: it is shown, or more queries
    would hardly do so."""

    version: int | None = None
    """The version that was measured; None: policies fitted to the traffic, none of which decided
    it."""


@dataclass(frozen=True, slots=True)
class Graded:
    """The quality of answers by one source."""

    quality: float
    """In [0, 1]; by agreement, weighed by how unlikely each grade was."""

    interval: Interval
    """95 % (Wilson)."""

    answers: int


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time; money in the timeline's currency."""

    start: float
    """Seconds since 1970."""

    end: float
    queries: int
    priced: int
    """Queries whose cost is known, and what the largest model alone would have cost."""

    cost: float | None
    """Mean of these; None: there are none."""

    alone: float | None
    """What the largest model alone would have cost for the same queries."""

    shadows: float
    """What the shadows cost in all, as far as known."""

    escalated: float | None
    """Share of the answered queries that asked more than one model."""

    decided: float
    """Share of the queries that a policy decided."""

    shadowed: float
    """Share of the queries that had a shadow."""

    version: int
    """The version that decided the last of them; 0: the largest model."""

    quality: Mapping[str, Graded] = field(default_factory=dict)
    """Of the answers that were given, by the source of the grade, and `FIRST_MODEL`."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something that happened: a mark on the line of time."""

    at: float
    kind: str
    """`promoted`, `rolled back`, `alarm`, or another kind of event of a learning store."""

    text: str
    version: int | None = None
    """The version that decides since, 0: the largest model; None: it changed no version."""


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A version of the policy, as a table has it."""

    number: int
    at: float
    status: str
    why: str
    labels: int
    since: float | None


@dataclass(frozen=True)
class Timeline:
    """All of a report over time."""

    store: str
    """Its URL, without a password."""

    epoch: str
    models: tuple[str, ...]
    currency: str
    stage: Literal["observe", "warm-up", "policy"]
    version: int
    queries: int
    labels: int
    """Queries of which quality and cost of every model are known."""

    first: float
    last: float
    answer: str
    """The first line: what is or would be saved, and lost at most; or what that needs."""

    detail: str
    """What it rests on, in sentences."""

    saving: Saving | None
    numbers: tuple[Number, ...]
    spans: tuple[Span, ...]
    sources: tuple[str, ...]
    """Sources of grades that any span has."""

    changes: tuple[Change, ...]
    versions: tuple[VersionRow, ...]
    notes: tuple[str, ...] = ()
    next_step: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return asdict(self)
