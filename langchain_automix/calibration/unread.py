"""End a run early if its only check reads log-probabilities and the answers have none."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from langchain_automix.calibration.config import CalibrationConfig
from langchain_automix.errors import AutoMixError
from langchain_automix.utils.check_spec import spec_of
from langchain_automix.verifiers.log_probability import LogProbabilityVerifier

_ENOUGH = 3
"""Number of examples without log-probabilities after which none can be expected."""

Row = dict[str, Any]


class UnreadAnswers:
    """Counts the examples of a run whose answers gave the check nothing to read.

    Args:
        setup: The calibration; it is watched only if its checks read nothing but log-probabilities.
    """

    def __init__(self, setup: CalibrationConfig) -> None:
        self._setup = setup
        self._is_watched = _reads_nothing_else(setup)
        self._unread = 0
        self._lock = threading.Lock()

    def add_all(self, rows: Iterable[Row]) -> None:
        """Count examples that have ended.

        Raises:
            AutoMixError: None of the first examples had any log-probabilities.
        """
        if not self._is_watched:
            return
        for row in rows:
            with self._lock:
                if _is_read(row):
                    self._is_watched = False
                elif _has_checked_text(row):
                    self._unread += 1
                if self._is_watched and self._unread >= _ENOUGH:
                    raise _unread_error(self._setup)


def validate_read(setup: CalibrationConfig, rows: Iterable[Row]) -> None:
    """Check that the only check could read at least one answer, before the log is written.

    Raises:
        AutoMixError: The check reads log-probabilities, and no answer has any.
    """
    if not _reads_nothing_else(setup):
        return
    checked = False
    for row in rows:
        if _is_read(row):
            return
        checked = checked or _has_checked_text(row)
    if checked:
        raise _unread_error(setup)


def _reads_nothing_else(setup: CalibrationConfig) -> bool:
    kinds = (spec_of(check.verifier).kind for check in setup.checks)
    return all(kind == LogProbabilityVerifier.__name__ for kind in kinds)


def _is_read(row: Row) -> bool:
    return any(
        check is not None and check.get("score") is not None
        for answer in row["answers"]
        for check in (answer.get("verification"), *(answer.get("checks") or {}).values())
    )


def _has_checked_text(row: Row) -> bool:
    answers = zip(row["answers"][:-1], row["metadata"]["answers"], strict=False)
    return any("verification" in answer and text for answer, text in answers)


def _unread_error(setup: CalibrationConfig) -> AutoMixError:
    return AutoMixError(
        f"The answers of {' and '.join(setup.names[:-1])} come without log-probabilities, so the "
        "check of these can read nothing: use another one, such as --check agreement "
        "(verifier=AgreementVerifier()); the answers so far are kept."
    )
