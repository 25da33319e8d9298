"""Decide whether a calibration has enough examples, by testing its rows at growing intervals."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from langchain_automix.errors import AutoMixError


class EarlyStopping:
    """Collects finished examples, and tests whether more would change the policy.

    The test itself is `langchain_automix.policy.fitting.stopping.check_stopping`.

    Args:
        goal: The goal that the policy will be fitted for, as in `POMDPRouter.fit`.
        seed: Seed for the folds.

    Raises:
        AutoMixError: The goal is invalid.
    """

    def __init__(self, goal: Mapping[str, float] | None, seed: int) -> None:
        from langchain_automix.policy.fitting.goal import Goal  # noqa: PLC0415  (numpy)
        from langchain_automix.policy.fitting.stopping import next_look  # noqa: PLC0415

        self._goal = Goal.of_record(goal or {})
        self._seed = seed
        self._rows: list[dict[str, Any]] = []
        self._next_look = next_look(0)
        self._lock = threading.Lock()

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a finished example."""
        self._rows.append({name: row[name] for name in ("id", "answers", "currency")})

    def enough(self) -> str:
        """Return why no more examples are needed; an empty text if more are needed."""
        from langchain_automix.policy.data.log import RoutingLog  # noqa: PLC0415
        from langchain_automix.policy.fitting.stopping import check_stopping, next_look  # noqa: PLC0415

        with self._lock:  # not held during the test, so that other workers can continue
            rows = list(self._rows)
            if len(rows) < self._next_look:
                return ""
            self._next_look = next_look(len(rows))
        try:
            result = check_stopping(RoutingLog(rows), self._goal, seed=self._seed)
        except AutoMixError:  # the goal is still out of reach, or no row is complete
            return ""
        return result.text if result.stop else ""
