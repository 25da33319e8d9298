"""Track what a mix has cost, compared with what its largest model alone would have cost."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Self

from langchain_automix.models.prices import dollars_of, format_dollars
from langchain_automix.utils.locks import ProcessLock
from langchain_automix.utils.user_warnings import warn_of_what_is_paid

WATCHED_QUERIES = 20
"""Queries after which a mix that costs more than its largest model alone warns."""

_MOST_LOST = 2.0
"""How much more drafts may cost than they save before they pause, in answers of the largest model.
It is small enough to be saved again soon, and large enough that chance alone seldom reaches it."""

_PROBE = 0.5
"""The same limit for the probe after a pause."""

_MOST_SAVED = 5.0
"""Upper limit of the saving that is credited, so that a change for the worse is noticed soon."""

_BLIND = 3
"""Consecutive drafts on which no check found anything, after which drafts pause for a while."""

_FIRST_PAUSE = 32
_SMOOTHING = 0.2


class MixCostWarning(UserWarning):
    """A mix has cost more than its largest model alone would have cost."""


class MixAccount:
    """Adds up what the queries of a mix cost, and what the largest model alone would have cost.

    Copies and threads share it; an unpickled account starts with what it had seen. No method
    raises, so that an account can never cost the user an answer.
    """

    def __init__(self) -> None:
        self.queries = 0
        """Queries of known cost for which more than the largest model alone was asked."""

        self._cost = self._alone = Decimal(0)
        self._has_warned = False
        self._written: dict[int, float] = {}  # mean tokens of the answers of each model
        self._lost = 0.0  # by drafts, in answers of the largest model; negative if saved
        self._blind, self._most_blind = 0, _BLIND
        self._pause, self._left_out = _FIRST_PAUSE, 0
        self._lock = ProcessLock()

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    def usual_answer(self, index: int) -> int | None:
        """Return the mean number of tokens in a model's answers, or None if none is known."""
        with self._lock:
            written = self._written.get(index)
        return None if written is None else round(written)

    def learn_answer(self, index: int, tokens: int) -> None:
        """Record the number of tokens in an answer."""
        with self._lock:
            mean = self._written.get(index, float(tokens))
            self._written[index] = mean + _SMOOTHING * (tokens - mean)

    def leaves_out_draft(self) -> bool:
        """Whether to skip the draft and ask the largest model, as drafts have saved nothing lately.

        After a pause, which doubles each time, a few drafts show whether that has changed.
        """
        with self._lock:
            if not self._left_out:
                return False
            self._left_out -= 1
            return True

    def add(self, record: Mapping[str, Any]) -> None:
        """Add a finished query; warn once the mix has cost more than it saves."""
        with contextlib.suppress(KeyError, IndexError, ValueError, ArithmeticError, TypeError):
            message = self._add(record)
            if message is not None:
                warn_of_what_is_paid(message, MixCostWarning)

    def _add(self, record: Mapping[str, Any]) -> str | None:
        names, cost = [*record["alone"]], record["cost"]
        alone = record["alone"][names[-1]]["cost"]
        if cost is None or alone is None:
            self._add_draft(record, None)
            return None
        paid, largest = dollars_of(cost), dollars_of(alone)
        self._add_draft(record, float(paid / largest) - 1 if largest else None)
        if paid == largest:  # most likely, the largest model alone was asked
            return None
        with self._lock:
            self.queries += 1
            self._cost += paid
            self._alone += largest
            is_loss = self.queries >= WATCHED_QUERIES and self._cost > self._alone
            if not is_loss or self._has_warned:
                return None
            self._has_warned = True
            return self._describe_loss(names)

    def _describe_loss(self, names: Sequence[str]) -> str:
        times = f" ({self._cost / self._alone:.2f} times as much)" if self._alone else ""
        return (
            f"{self.queries} queries of the mix of {', '.join(names)} have cost "
            f"{format_dollars(self._cost)}; its largest model {names[-1]} alone would have cost "
            f"about {format_dollars(self._alone)}{times}. Fit a policy to your own questions "
            "(automix calibrate, automix fit), which mixes only where that pays; or check by "
            "something cheaper, such as verifier=LogProbabilityVerifier(); or ask "
            f"{names[-1]} alone."
        )

    def _add_draft(self, record: Mapping[str, Any], lost: float | None) -> None:
        """Add a query that began with a draft, and pause drafts that save nothing."""
        checks = record["checks"]
        if not checks and not record["escalated"]:
            return
        is_known = any(each["confidence"] is not None for each in checks)
        is_blind = not record["escalated"] and not is_known
        with self._lock:
            self._lost = max(self._lost + (lost or 0.0), -_MOST_SAVED)
            self._blind = self._blind + 1 if is_blind else 0
            if not is_blind and self._lost < 0:
                self._pause, self._most_blind = _FIRST_PAUSE, _BLIND
            if self._lost <= _MOST_LOST and self._blind < self._most_blind:
                return
            self._left_out, self._pause = self._pause, 2 * self._pause
            self._lost = min(self._lost, _MOST_LOST - _PROBE)
            self._blind, self._most_blind = 0, 1
