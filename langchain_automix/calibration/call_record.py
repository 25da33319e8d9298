"""What stands between an example's calls and the run: money set aside, and each call kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from langchain_automix.calibration.budget import CalibrationRun
from langchain_automix.calibration.entries import Entry
from langchain_automix.calibration.spending import Kind


class CallRecord(Protocol):
    """Clears calls before they are made, and keeps them when they have ended."""

    max_spend: float | None
    """Most that the run may cost; None: no limit."""

    def begin(self, kind: Kind, example: str, key: str) -> float | None:
        """Clear a call, and note that it is about to be made; None: it must wait.

        Returns:
            What is set aside for it.

        Raises:
            Stopped: It must not be made.
            AutoMixError: It could not be noted.
        """

    def keep(
        self,
        kind: Kind,
        reserved: float,
        example: str,
        key: str,
        entry: Entry,
        bill: tuple[float | None, int],
    ) -> None:
        """Keep a call that has ended, or failed, before its result is used.

        Args:
            kind: Its kind.
            reserved: What `begin` returned.
            example: The example's key.
            key: Its own.
            entry: What is kept of it.
            bill: What it cost, None if that is unknown, and how many of its requests may have been
                billed unseen.

        Raises:
            AutoMixError: It could not be written.
        """

    def lose(self, kind: Kind, reserved: float) -> None:
        """End a call of whose end nothing is known: it may have been billed."""

    def wait(self, seconds: float) -> None:
        """Wait until a call has ended, but no longer than this."""


@dataclass(frozen=True)
class JournalRecord:
    """Keeps calls in the journal of this process, under the limits of its run."""

    journal: Any
    """A `Journal`, or a stand-in for one."""

    course: CalibrationRun

    @property
    def max_spend(self) -> float | None:
        """Most that the run may cost; None: no limit."""
        return self.course.max_spend

    def begin(self, kind: Kind, example: str, key: str) -> float | None:
        """Clear a call; see `CallRecord.begin`."""
        reserved = self.course.reserve(kind)
        if reserved is not None:
            self.journal.begin_call(example, key, kind[2])
        return reserved

    def keep(
        self,
        kind: Kind,
        reserved: float,
        example: str,
        key: str,
        entry: Entry,
        bill: tuple[float | None, int],
    ) -> None:
        """Keep a call; see `CallRecord.keep`."""
        if "error" in entry:
            self.course.failed(kind[0], entry["error"])
        cost, lost = bill
        try:
            self.journal.add(example, key, entry)
        finally:  # it has been paid for
            self.course.settle(kind, reserved, cost, lost=lost)

    def lose(self, kind: Kind, reserved: float) -> None:
        """End a call of whose end nothing is known; see `CallRecord.lose`."""
        self.course.settle(kind, reserved, None, lost=1)

    def wait(self, seconds: float) -> None:
        """Wait until a call has ended, but no longer than this."""
        self.course.wait(seconds)
