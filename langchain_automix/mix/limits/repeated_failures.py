"""`RepeatedFailures`: warn of what fails query after query, and is paid for unseen."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Self

from langchain_automix.errors import CircuitOpenError
from langchain_automix.utils.locks import ProcessLock
from langchain_automix.utils.user_warnings import warn_of_what_is_paid

IN_A_ROW = 3
"""Queries in which something fails for one reason before a warning is given."""

_MAX_REASONS = 1000
_QUOTED = re.compile(r"(['\"`])(?:(?!\1).)*\1", re.DOTALL)
_NUMBER = re.compile(r"\b\d+\b")

Part = Literal["answer", "check", "router"]


class RepeatedFailureWarning(UserWarning):
    """A model, its check or the router fails query after query, and each one is paid elsewhere."""


class Attempt(NamedTuple):
    """What was asked for in a query: an answer of a model, a check of it, or a decision."""

    part: Part
    model: str = ""
    """Name of the model; empty for the router."""


class RepeatedFailures:
    """Counts the queries in a row in which something failed for one reason.

    Shared by copies of a mix and by threads. A reason is the type of an error, or why an answer
    could not be used; never what a model wrote.
    """

    def __init__(self) -> None:
        """Start with nothing that failed."""
        self._in_a_row: dict[Attempt, tuple[str, int]] = {}
        self._told: set[tuple[Attempt, str]] = set()
        self._lock = ProcessLock()

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    def note(self, outcomes: Mapping[Attempt, str | None]) -> list[tuple[Attempt, str]]:
        """Count what came of the attempts of one query.

        Args:
            outcomes: The reason of each attempt that failed; None where it succeeded.

        Returns:
            What has now failed for one reason in several queries in a row, without a warning yet.
        """
        due = []
        with self._lock:
            for attempt, outcome in outcomes.items():
                if outcome is None:
                    self._in_a_row.pop(attempt, None)
                    continue
                reason = _QUOTED.sub("...", outcome)
                before, count = self._in_a_row.get(attempt, (reason, 0))
                # A model that is passed over fails for the reason of before.
                reason = before if reason == CircuitOpenError.__name__ else reason
                count = count + 1 if _kind(before) == _kind(reason) else 1
                self._in_a_row[attempt] = reason, count
                key = (attempt, _kind(reason))
                if count >= IN_A_ROW and key not in self._told and len(self._told) < _MAX_REASONS:
                    self._told.add(key)
                    due.append((attempt, reason))
        return due


def _kind(reason: str) -> str:
    """Return a reason without its numbers: a broken JSON breaks at another column each time."""
    return _NUMBER.sub("#", reason)


def warn_of_failure(attempt: Attempt, reason: str, record: Mapping[str, Any]) -> None:
    """Warn of what fails query after query, and say what that costs.

    Args:
        attempt: What failed.
        reason: Why, as `RepeatedFailures.note` returned it.
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
