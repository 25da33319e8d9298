"""The report of a store: what its mix saves or would save, how sure that is, and over time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from langchain_automix.learning.budget import PURSE
from langchain_automix.learning.events import describe_event, latest
from langchain_automix.learning.records import AGREEMENT, Event
from langchain_automix.learning.review import FIRST_FIT
from langchain_automix.learning.review_settings import ReviewSettings
from langchain_automix.learning.saving import has_saved, would_have_saved
from langchain_automix.learning.spans import spans_of
from langchain_automix.learning.traffic import Traffic, look, read_traffic
from langchain_automix.models.prices import CURRENCY
from langchain_automix.report.contents import Number
from langchain_automix.report.timeline.contents import Change, Saving, Timeline, VersionRow
from langchain_automix.report.timeline.report import TimelineReport
from langchain_automix.utils.formatting import (
    format_amount,
    format_percent,
    format_points,
    pluralize,
)

if TYPE_CHECKING:
    from langchain_automix.learning.store.queries import StoreTotals
    from langchain_automix.learning.store.store import LearningStore


def report_of(
    store: LearningStore, settings: ReviewSettings | None = None, epoch: str | None = None
) -> TimelineReport:
    """Measure what a store holds of one epoch; nothing in it is changed.

    Args:
        store: The store.
        settings: The goal, and how sure to be. None: those of `Learning`.
        epoch: None: that of the newest query.

    Raises:
        AutoMixError: The store holds no query of the epoch.
    """
    settings = settings or ReviewSettings()
    traffic = read_traffic(store, epoch)
    totals, spent = store.totals(traffic.epoch), store.spent(PURSE)
    measured = has_saved(traffic, settings) if traffic.stage == "policy" else None
    saving = measured or would_have_saved(traffic, settings)
    spans = spans_of(traffic.stored)
    champion = traffic.champion
    decides = champion is not None and traffic.stage == "policy"
    timeline = Timeline(
        store=store.name,
        epoch=traffic.epoch,
        models=traffic.models,
        currency=CURRENCY,
        stage=traffic.stage,
        version=champion.number if champion is not None and decides else 0,
        queries=len(traffic.stored),
        labels=int(traffic.observed.complete.sum()),
        first=traffic.stored[0].query.at,
        last=traffic.stored[-1].query.at,
        answer=_answer(saving, traffic, settings),
        detail=_detail(saving, traffic, settings),
        saving=saving,
        numbers=_numbers(saving, settings, totals, spent),
        spans=spans,
        sources=tuple(sorted({source for span in spans for source in span.quality})),
        changes=tuple(_change(event) for event in traffic.events),
        versions=tuple(
            VersionRow(v.number, v.at, v.status, v.why, v.labels, v.since) for v in traffic.versions
        ),
        notes=tuple(_notes(traffic, totals)),
        next_step=look(traffic, settings).next_step,
    )
    return TimelineReport(timeline)


def _answer(saving: Saving | None, traffic: Traffic, settings: ReviewSettings) -> str:
    """Return the answer to the question that a team asks first, in one sentence."""
    if saving is None:
        return _too_early(traffic)
    sure = _sure(settings)
    percent = _percents(saving)
    has = saving.version is not None
    subject = f"Version {saving.version}" if has else "You"
    verb = "saves" if has else "would have saved"
    if saving.interval[0] <= 0:
        return (
            f"No saving is shown: {subject.lower() if has else 'a policy'} "
            f"{'saves' if has else 'would have saved'} {percent} of the cost."
        )
    most = saving.lost_at_most
    if most is None:
        return f"{subject} {verb} about {percent}; {_until_shown(saving, settings)}"
    lost = f"{'loses' if has else 'lost'} {_at_most(most)}"
    until = "" if saving.is_shown else f"; {_until_shown(saving, settings).rstrip('.')}"
    return f"{subject} {verb} {percent} and {lost} with {sure}{until}."


def _sure(settings: ReviewSettings) -> str:
    return f"{100 * settings.confidence:g} %"


def _at_most(bound: float) -> str:
    """Return a bound in words, rounded to the safe side."""
    return f"at most {format_points(math.ceil(max(bound, 0.0) * 1000 - 1e-6) / 1000)}"


def _percents(saving: Saving) -> str:
    low, high = saving.interval
    return f"{100 * saving.saved:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"


def _until_shown(saving: Saving, settings: ReviewSettings) -> str:
    """Say what is known of the loss, and what it takes to show that it is small enough."""
    if settings.max_loss is None:
        target = "that this is worth it"
    else:
        target = f"at most {format_points(settings.max_loss)}"
    if saving.more is not None:
        more = pluralize(saving.more, "query", "queries")
        return f"to show {target} takes about {more} more."
    if saving.lost is None:
        return f"{target} is not shown yet, for no query since was seen in full."
    if settings.max_loss is not None and saving.lost > settings.max_loss:
        allowed = format_points(settings.max_loss)
        return f"the loss is about {format_points(saving.lost)}, and {allowed} may be lost."
    return f"more queries like these would hardly show {target}."


def _too_early(traffic: Traffic) -> str:
    since = traffic.recent
    labels = int(since.complete.sum())
    seen = pluralize(labels, "query", "queries")
    if labels < FIRST_FIT:
        rate = labels / max(len(since), 1)
        wait = FIRST_FIT - labels
        more = f"about {pluralize(wait, 'query', 'queries')} more"
        if rate < 1:
            more = f"{wait:,} more such queries"
        verb = "was" if labels == 1 else "were"
        changed = " since the traffic has changed" if latest(traffic.events, "alarm") else ""
        return f"It is too early to tell: {seen} {verb} seen in full{changed}, and it takes {more}."
    return f"No policy can be fitted to the {seen} that were seen in full."


def _detail(saving: Saving | None, traffic: Traffic, settings: ReviewSettings) -> str:
    """Return what the answer rests on."""
    if saving is None:
        return (
            "A query is seen in full when quality and cost of every model are known: its shadow "
            "has asked the others, and their prices are known."
        )
    return " ".join(_basis(saving, traffic, settings))


def _basis(saving: Saving, traffic: Traffic, settings: ReviewSettings) -> Iterator[str]:
    largest = traffic.models[-1]
    number = pluralize(saving.queries, "query", "queries")
    if saving.version is None:
        yield (
            f"Judged on {number} whose models were all asked, each by a policy that was fitted "
            "without it."
        )
    else:
        yield f"Measured on {number} since version {saving.version} decides."
    if saving.lost is not None:
        at_most = ""
        if saving.lost_at_most is not None:
            at_most = f", {_at_most(saving.lost_at_most)} with {_sure(settings)}"
        yield f"The loss is {format_points(saving.lost)}{at_most}."
    yield f"The saving is against {largest} alone, checks included, with its 95 % interval."
    given = sum(g.source != AGREEMENT for each in traffic.stored for g in each.grades)
    corrected = f", corrected by {pluralize(given, 'grade')} of other sources" if given else ""
    yield (
        f"Quality is agreement with {largest}{corrected}; a point is 0.01 of it, on a scale from "
        "0 to 1."
    )


def _numbers(
    saving: Saving | None, settings: ReviewSettings, totals: StoreTotals, spent: float
) -> tuple[Number, ...]:
    sure = _sure(settings)
    would = "Of a policy fitted to this traffic"
    if saving is not None and saving.version is not None:
        would = f"Of version {saving.version}"
    share = loss = "unknown"
    told, most = "Too little was seen in full so far.", "Too little was seen in full so far."
    if saving is not None:
        share = format_percent(saving.saved)
        low, high = (f"{100 * end:.0f}" for end in saving.interval)
        told = f"{would}, against the largest model alone; 95 % interval {low} to {high} %"
        loss = "unknown" if saving.lost is None else format_points(saving.lost)
        most = "No bound is shown yet."
        if saving.lost_at_most is not None:
            most = f"{_at_most(saving.lost_at_most).capitalize()} with {sure}."
    saved = totals.alone - totals.cost
    paid = f"{format_amount(max(saved, 0.0), CURRENCY)} was saved so far"
    paid += f", on {totals.queries - totals.unpriced:,} queries." if totals.unpriced else "."
    return (
        Number("Saving", share, f"{told.rstrip('.')}."),
        Number("Quality lost", loss, most),
        Number("Spent on shadows", format_amount(spent, CURRENCY), paid),
    )


def _change(event: Event) -> Change:
    moved = event.detail.get("version") if event.kind in ("promoted", "rolled back") else None
    return Change(
        event.at, event.kind, describe_event(event), None if moved is None else int(moved)
    )


def _notes(traffic: Traffic, totals: StoreTotals) -> Iterator[str]:
    if totals.unpriced:
        yield (
            f"The cost of {pluralize(totals.unpriced, 'query', 'queries')} is unknown, or what the "
            "largest model alone would have cost; these are left out of every sum."
        )
    if totals.unpriced_shadows:
        yield (
            f"The cost of {pluralize(totals.unpriced_shadows, 'shadow')} is unknown; what is spent "
            "counts each as the dearest one."
        )
    endings: list[str] = [each.query.ending for each in traffic.stored]
    for ending, words in (("failed", "failed"), ("left", "were left before their end")):
        if number := endings.count(ending):
            yield f"{pluralize(number, 'query', 'queries')} {words}, and are no evidence."
