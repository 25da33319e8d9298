"""What one query may spend."""

from __future__ import annotations

from typing import NamedTuple

from langchain_automix.types import Decision

PRESSURE_SEED = 6  # so that a policy's own chance and this one are not the same


class SpendAllowance(NamedTuple):
    """What a query may spend."""

    cost_weight: float | None = None
    """How much quality a unit of cost is worth to it; None: the policy's own weight."""

    cheapest: str | None = None
    """Why only the cheapest model may be asked, and not checked; None: that is not so."""

    note: str = ""
    """What is to be said of every decision."""

    def annotate(self, decision: Decision) -> Decision:
        """Return a decision that says by what weight it was made."""
        if not self.note:
            return decision
        return decision.model_copy(update={"why": f"{decision.why} {self.note}".strip()})


UNLIMITED = SpendAllowance()
"""Of a query that no limit has spoken of yet."""
