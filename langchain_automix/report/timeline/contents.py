"""The contents of a report over time: figures and texts, measured before rendering."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from langchain_automix.policy.statistics import Interval
from langchain_automix.report.contents import Number

FIRST_MODEL = "agreement of the first model"
"""Name of the series that shows how far the first model agrees with the largest, kept or not."""


@dataclass(frozen=True, slots=True)
class Saving:
    """The saving compared with the largest model alone, and its cost in quality."""

    queries: int
    """Number of queries on which the saving is judged."""

    saved: float
    """Share of the largest model's cost, at most 1; negative if more is paid."""

    interval: Interval
    """95 % interval of that share."""

    lost: float | None
    """Mean quality lost compared with the largest model; None if not known yet."""

    lost_at_most: float | None
    """Upper bound of that loss at the requested confidence; None if nothing is shown yet."""

    is_shown: bool
    """Whether the loss, or the gain in utility, is shown to be within the goal."""

    more: int | None
    """Approximate number of further queries that would show it; None if it is shown, or if more
    queries would hardly help."""

    version: int | None = None
    """The version that was measured; None for policies that were fitted to the traffic but never
    decided it."""


@dataclass(frozen=True, slots=True)
class Graded:
    """The quality of answers according to one source of grades."""

    quality: float
    """In [0, 1]; for agreement, each grade is weighted by the inverse of its probability."""

    interval: Interval
    """95 % interval (Wilson)."""

    answers: int


@dataclass(frozen=True, slots=True)
class Span:
    """A period of time; money is in the timeline's currency."""

    start: float
    """Seconds since 1970."""

    end: float
    queries: int
    priced: int
    """Number of queries whose cost is known, as is that of the largest model alone."""

    cost: float | None
    """Mean cost of these queries; None if there are none."""

    alone: float | None
    """What the largest model alone would have cost for the same queries."""

    shadows: float
    """Total cost of the shadows, as far as known."""

    escalated: float | None
    """Share of the answered queries that asked more than one model."""

    decided: float
    """Share of the queries decided by a policy."""

    shadowed: float
    """Share of the queries that had a shadow."""

    version: int
    """The version that decided the last query; 0 stands for the largest model."""

    quality: Mapping[str, Graded] = field(default_factory=dict)
    """Quality of the answers given, by the source of the grade; also has `FIRST_MODEL`."""


@dataclass(frozen=True, slots=True)
class Change:
    """An event, shown as a mark on the timeline."""

    at: float
    kind: str
    """`promoted`, `rolled back`, `alarm`, or another kind of event of a learning store."""

    text: str
    version: int | None = None
    """The version that decides since then, 0 for the largest model; None if it changed no
    version."""


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A version of the policy, as a row of a table."""

    number: int
    at: float
    status: str
    why: str
    labels: int
    since: float | None


@dataclass(frozen=True)
class Timeline:
    """Everything in a report over time."""

    store: str
    """URL of the store, without its password."""

    epoch: str
    models: tuple[str, ...]
    currency: str
    stage: Literal["observe", "warm-up", "policy"]
    version: int
    queries: int
    labels: int
    """Number of queries for which quality and cost of every model are known."""

    first: float
    last: float
    answer: str
    """The first line: the saving so far or expected, and the most that is lost; or what is
    missing."""

    detail: str
    """The basis of the answer, in sentences."""

    saving: Saving | None
    numbers: tuple[Number, ...]
    spans: tuple[Span, ...]
    sources: tuple[str, ...]
    """Sources of grades in any span."""

    changes: tuple[Change, ...]
    versions: tuple[VersionRow, ...]
    notes: tuple[str, ...] = ()
    next_step: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return asdict(self)
