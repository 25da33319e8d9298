"""What the events of an epoch come to: what was last, and whether an alarm is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from langchain_automix.learning.records import Event, EventKind
from langchain_automix.utils.formatting import format_percent

_ENDS_AN_ALARM: tuple[EventKind, ...] = ("quiet", "promoted", "rolled back")


def latest(events: Sequence[Event], kind: EventKind) -> Event | None:
    """Return the latest event of a kind; None: there was none."""
    return max((e for e in events if e.kind == kind), key=lambda e: e.at, default=None)


def latest_time(events: Sequence[Event], kind: EventKind) -> float | None:
    """Return when something last happened, in seconds since 1970; None: never."""
    event = latest(events, kind)
    return None if event is None else event.at


def active_alarm(events: Sequence[Event]) -> Event | None:
    """Return the alarm that no step of the policy has answered since; None: there is none."""
    alarm = latest(events, "alarm")
    ends = [latest_time(events, kind) or 0.0 for kind in _ENDS_AN_ALARM]
    return alarm if alarm is not None and alarm.at > max(ends) else None


@dataclass(frozen=True, slots=True)
class History:
    """What has happened in an epoch, as far as a review goes by it."""

    alarm: float | None = None
    """When the traffic was last found to have changed: versions made before are given up."""

    quiet: float | None = None
    """When a champion that was held since an alarm was last proven anew."""

    renewed: float | None = None
    """When a champion was last begun to be watched anew, as evidence was lost."""

    terms: int = 0
    """Terms of champions so far: each begins with a promotion, a way back, an alarm while a version
    decides, or where a champion is begun to be watched anew."""

    evidence_after: float | None = None
    """When the traffic last changed, which an alarm says afterwards: queries up to this time are no
    evidence for a fit."""

    @classmethod
    def of(cls, events: Sequence[Event]) -> Self:
        """Return what the events of an epoch come to."""
        champion = terms = 0
        for event in sorted(events, key=lambda event: event.at):
            if event.kind in ("promoted", "rolled back"):
                champion = event.detail.get("version", 0)
                terms += champion > 0
            elif event.kind in ("alarm", "renewed"):
                terms += champion > 0
        alarm = latest(events, "alarm")
        return cls(
            None if alarm is None else alarm.at,
            latest_time(events, "quiet"),
            latest_time(events, "renewed"),
            terms,
            None if alarm is None else alarm.detail.get("unchanged_to", alarm.at),
        )


def describe_event(event: Event) -> str:
    """Say what happened, in a sentence."""
    if event.kind == "share" and "share" in event.detail:
        return f"From now on {format_percent(event.detail['share'])} of the queries have a shadow."
    return event.text
