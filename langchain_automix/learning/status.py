"""`LearningStatus`: how far a mix has come in learning from its traffic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from langchain_automix.learning.budget import PURSE
from langchain_automix.learning.events import active_alarm, latest
from langchain_automix.models.prices import CURRENCY
from langchain_automix.utils.formatting import (
    format_amount,
    format_percent,
    format_time,
    pluralize,
)

if TYPE_CHECKING:
    from langchain_automix.learning.review_settings import ReviewSettings
    from langchain_automix.learning.store.store import LearningStore


@dataclass(frozen=True, slots=True)
class LearningStatus:
    """How far a mix has come in learning from its traffic: what its store holds by now."""

    store: str
    """Its URL, without a password."""

    epoch: str | None
    """Digest of models, check and prompt; None: there was no query yet."""

    models: tuple[str, ...] = ()
    stage: str = "warm-up"
    """By what queries are decided at present: `observe`, `warm-up` or `policy`."""

    version: int = 0
    """Number of the policy that decides; 0: the largest model."""

    share: float = 0.0
    """Chance that a query has a shadow at present."""

    queries: int = 0
    shadowed: int = 0
    """Queries whose shadow has come to an end."""

    grades: Mapping[str, int] = field(default_factory=dict)
    """Graded answers, by source."""

    cost: float = 0.0
    """US dollars of the queries, as far as known."""

    alone: float = 0.0
    """What the largest model alone would have cost for the same queries."""

    spent: float = 0.0
    """US dollars that shadows have cost, with those under way."""

    max_spend: str | None = None
    dropped: int = 0
    """Records and shadows of this process that found their queue full."""

    refused: int = 0
    """Shadows of this process for which there was no money."""

    waiting: int = 0
    """Records of this process that are still to be written."""

    alarm: str | None = None
    """What has changed in the traffic, as the latest alarm says; None: there was none."""

    next_step: str = ""
    """What comes next, in one sentence; empty where no review was made yet."""

    is_away: bool = False
    """Whether the store cannot be used at present: then nothing else is known."""

    labels: int | None = None
    """Queries of which quality and cost of every model are known; None: they were not counted."""

    unpriced: int = 0
    """Queries whose cost is unknown, or what the largest model alone would have cost."""

    unpriced_shadows: int = 0
    """Shadows whose cost is unknown; each counts as the dearest one so far."""

    since: float | None = None
    """When the version began to decide, in seconds since 1970."""

    alarm_at: float | None = None
    """When that was noticed, in seconds since 1970; None: there was no alarm."""

    alarm_is_over: bool = False
    """Whether the policy has changed, or was proven anew, since that alarm."""

    def to_json(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {**asdict(self), "models": list(self.models), "grades": dict(self.grades)}

    @property
    def saved(self) -> float | None:
        """Share of the largest model's cost that was saved; None: unknown."""
        return 1 - self.cost / self.alone if self.alone else None

    @property
    def spent_share(self) -> float | None:
        """What shadows have cost, as a share of what was saved; None: nothing was."""
        saved = self.alone - self.cost
        return self.spent / saved if saved > 0 else None

    def __str__(self) -> str:
        if self.is_away:
            return f"The learning store {self.store} cannot be used at present."
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        labels = "" if self.labels is None else f", {self.labels:,} of them seen in full"
        yield f"{pluralize(self.queries, 'query', 'queries')}{labels}."
        yield self._decider()
        if self.grades:
            told = (f"{number:,} by {source}" for source, number in self.grades.items())
            yield f"Graded answers: {', '.join(told)}."
        yield self._saving()
        yield from self._shadows()
        if self.alarm is not None:
            when = "" if self.alarm_at is None else f" ({format_time(self.alarm_at)})"
            over = " That is over: the policy was proven since." if self.alarm_is_over else ""
            yield f"Drift{when}: {self.alarm}{over}"
        elif self.queries:
            yield "Drift: none was noticed."
        if self.dropped or self.refused:
            yield f"{self.dropped:,} dropped, {self.refused:,} without money."
        if self.next_step:
            yield f"Next: {self.next_step}"

    def _decider(self) -> str:
        if self.stage == "policy":
            since = "" if self.since is None else f" since {format_time(self.since)}"
            return f"Version {self.version} of the policy decides{since}."
        if self.stage == "observe":
            return "The largest model answers: observe, so nothing that is learned changes that."
        return "The largest model answers: warm-up, so no policy is proven yet."

    def _saving(self) -> str:
        known = self.queries - self.unpriced
        unknown = ""
        if self.unpriced:
            unknown = f" The cost of {pluralize(self.unpriced, 'query', 'queries')} is unknown."
        if self.saved is None:
            return f"Saved so far: unknown.{unknown}"
        saved = self.alone - self.cost
        if saved <= 0:
            text = "nothing against the largest model alone"
            if saved < 0:
                text = f"{format_amount(-saved, CURRENCY)} more was paid than for the largest model"
        else:
            text = (
                f"{format_amount(saved, CURRENCY)}, {format_percent(self.saved)} of the cost of "
                "the largest model alone"
            )
        of = f", on {pluralize(known, 'query', 'queries')}" if self.unpriced else ""
        return f"Saved so far: {text}{of}.{unknown}"

    def _shadows(self) -> Iterator[str]:
        limit = f" of {self.max_spend}" if self.max_spend else ""
        text = f"{pluralize(self.shadowed, 'shadow')} for {format_amount(self.spent, CURRENCY)}"
        share = self.spent_share
        if share is not None and self.spent:
            text += f"{limit}, {format_percent(share)} of what was saved"
        else:
            text += limit
        yield f"{text}; at present {format_percent(self.share)} of the queries have one."
        if self.unpriced_shadows:
            unknown = pluralize(self.unpriced_shadows, "shadow")
            yield f"The cost of {unknown} is unknown, and counts as the dearest one's."


def read_status(
    store: LearningStore, settings: ReviewSettings, epoch: str | None = None
) -> LearningStatus:
    """Return how far a store has come, and what comes next; nothing is fitted or changed.

    Args:
        store: The store.
        settings: What a review goes by.
        epoch: None: that of the newest query.

    Raises:
        AutoMixError: The store holds no query of the epoch.
    """
    from langchain_automix.learning.traffic import look, read_traffic  # noqa: PLC0415  (numpy)

    traffic = read_traffic(store, epoch)
    champion, stage = traffic.champion, traffic.stage
    found = look(traffic, settings)
    return LearningStatus(
        store.name,
        traffic.epoch,
        models=traffic.models,
        stage=stage,
        version=champion.number if champion is not None and stage == "policy" else 0,
        share=settings.warm_up_share if stage == "observe" else found.share,
        labels=int(traffic.observed.complete.sum()),
        since=None if champion is None else champion.since,
        next_step=found.next_step,
        **stored_facts(store, traffic.epoch),
    )


def stored_facts(store: LearningStore, epoch: str | None) -> dict[str, Any]:
    """Return the fields of a status that a store knows by itself, without a look at each query.

    Raises:
        StoreUnavailableError: The store is away.
    """
    totals = store.totals(epoch)
    events = [] if epoch is None else store.events(epoch)
    alarm = latest(events, "alarm")
    return {
        "queries": totals.queries,
        "shadowed": totals.shadowed,
        "grades": totals.grades,
        "cost": totals.cost,
        "alone": totals.alone,
        "spent": store.spent(PURSE),
        "unpriced": totals.unpriced,
        "unpriced_shadows": totals.unpriced_shadows,
        "alarm": None if alarm is None else alarm.text,
        "alarm_at": None if alarm is None else alarm.at,
        "alarm_is_over": alarm is not None and active_alarm(events) is None,
    }
