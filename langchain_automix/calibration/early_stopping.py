"""Whether a calibration has seen enough: looks now and then at the rows so far."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from langchain_automix.errors import AutoMixError


class EarlyStopping:
    """Holds the numbers of finished examples, and tests them at growing intervals.

    The test itself is `langchain_automix.policy.fitting.stopping.check_stopping`.

    Args:
        goal: What the policy is to be fitted for, as `POMDPRouter.fit` takes it.
        seed: For the folds.

    Raises:
        AutoMixError: The goal is none.
    """

    def __init__(self, goal: Mapping[str, float] | None, seed: int) -> None:
        from langchain_automix.policy.fitting.goal import Goal  # noqa: PLC0415  (numpy)
        from langchain_automix.policy.fitting.stopping import next_look  # noqa: PLC0415

        self._goal = Goal(**(goal or {}))
        self._seed = seed
        self._rows: list[dict[str, Any]] = []
        self._next = next_look(0)
        self._looking = threading.Lock()

    def add(self, row: Mapping[str, Any]) -> None:
        """Hear of one finished example."""
        self._rows.append({name: row[name] for name in ("id", "answers", "currency")})

    def enough(self) -> str:
        """Say why no more examples are needed; an empty text while they are."""
        from langchain_automix.policy.data.log import RoutingLog  # noqa: PLC0415
        from langchain_automix.policy.fitting.stopping import check_stopping, next_look  # noqa: PLC0415

        with self._looking:  # briefly: who comes while another looks has nothing to look at
            rows = list(self._rows)
            if len(rows) < self._next:
                return ""
            self._next = next_look(len(rows))
        try:
            found = check_stopping(RoutingLog(rows), self._goal, seed=self._seed)
        except AutoMixError:  # so far: the goal is out of reach, or nothing is complete
            return ""
        return found.text if found.stop else ""
