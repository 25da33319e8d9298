"""What the events of an epoch come to: what was last, and whether an alarm is over."""

from __future__ import annotations

from collections.abc import Sequence

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


def describe_event(event: Event) -> str:
    """Say what happened, in a sentence."""
    if event.kind == "share" and "share" in event.detail:
        return f"From now on {format_percent(event.detail['share'])} of the queries have a shadow."
    return event.text
