"""What one query may spend."""

from __future__ import annotations

from typing import NamedTuple

from langchain_automix.types import Decision


class SpendAllowance(NamedTuple):
    """How much a query may spend."""

    cost_weight: float | None = None
    """How much quality a unit of cost is worth; None uses the policy's own weight."""

    cheapest: str | None = None
    """Why only the cheapest model may be asked, unchecked; None allows every model."""

    note: str = ""
    """A note to append to the reason of every decision."""

    def annotate(self, decision: Decision) -> Decision:
        """Return a decision with the note appended to its reason."""
        if not self.note:
            return decision
        return decision.model_copy(update={"why": f"{decision.why} {self.note}".strip()})


UNLIMITED = SpendAllowance()
