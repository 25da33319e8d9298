"""`RepeatedFailures`: warn of a failure that repeats in query after query, at a hidden cost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Self

from langchain_automix.errors import CircuitOpenError
from langchain_automix.utils.locks import ProcessLock
from langchain_automix.utils.user_warnings import warn_of_what_is_paid

IN_A_ROW = 3
"""Number of consecutive queries with the same failure before a warning is given."""

_MAX_REASONS = 1000
_QUOTED = re.compile(r"(['\"`])(?:(?!\1).)*\1", re.DOTALL)
_NUMBER = re.compile(r"\b\d+\b")

Part = Literal["answer", "check", "router"]


class RepeatedFailureWarning(UserWarning):
    """A model, its check or the router fails repeatedly, and each failure costs money elsewhere."""


class Attempt(NamedTuple):
    """A part of a query: a model's answer, a check of it, or a decision."""

    part: Part
    model: str = ""
    """Name of the model; empty for the router."""


class RepeatedFailures:
    """Counts consecutive queries in which something failed for the same reason.

    Copies of a mix and threads share it. A reason is the type of an error, or why an answer could
    not be used. It never contains what a model wrote.
    """

    def __init__(self) -> None:
        """Start with no failures."""
        self._in_a_row: dict[Attempt, tuple[str, int]] = {}
        self._told: set[tuple[Attempt, str]] = set()
        self._lock = ProcessLock()

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    def note(self, outcomes: Mapping[Attempt, str | None]) -> list[tuple[Attempt, str]]:
        """Count the outcomes of one query's attempts.

        Args:
            outcomes: The reason why each attempt failed, or None if it succeeded.

        Returns:
            Attempts that have failed for one reason several times in a row, without a warning so
            far.
        """
        due = []
        with self._lock:
            for attempt, outcome in outcomes.items():
                if outcome is None:
                    self._in_a_row.pop(attempt, None)
                    continue
                reason = _QUOTED.sub("...", outcome)
                before, count = self._in_a_row.get(attempt, (reason, 0))
                # A model skipped by its breaker fails for the same reason as before.
                reason = before if reason == CircuitOpenError.__name__ else reason
                count = count + 1 if _kind(before) == _kind(reason) else 1
                self._in_a_row[attempt] = reason, count
                key = (attempt, _kind(reason))
                if count >= IN_A_ROW and key not in self._told and len(self._told) < _MAX_REASONS:
                    self._told.add(key)
                    due.append((attempt, reason))
        return due


def _kind(reason: str) -> str:
    """Strip the numbers from a reason: invalid JSON breaks at a different column each time."""
    return _NUMBER.sub("#", reason)


def warn_of_failure(attempt: Attempt, reason: str, record: Mapping[str, Any]) -> None:
    """Warn of a failure in query after query, and say what it costs.

    Args:
        attempt: What failed.
        reason: The reason, as returned by `RepeatedFailures.note`.
        record: The record of the latest query.
    """
    warn_of_what_is_paid(
        f"{_failed(attempt, reason)} in {IN_A_ROW} queries in a row. {_costs(attempt, record)} "
        "This goes on until it is mended, and there is no second warning: the record of each query "
        "lists what failed (`failed`, `why`).",
        RepeatedFailureWarning,
    )


def _failed(attempt: Attempt, reason: str) -> str:
    if attempt.part == "answer":
        return f"{attempt.model} has given no answer that can be used ({reason})"
    if attempt.part == "check":
        return f"The check of {attempt.model}'s answers has found nothing ({reason})"
    return f"The router has failed ({reason})"


def _costs(attempt: Attempt, record: Mapping[str, Any]) -> str:
    answered = f"The last one was answered by {record['model']}"
    if record["cost"] is None:
        return f"{answered}, at a cost that is not known."
    alone = record["alone"].get(attempt.model, {}).get("cost")
    cheaper = f", where {attempt.model} alone would have cost about {alone}" if alone else ""
    return f"{answered}, for {record['cost']} in all{cheaper}."
