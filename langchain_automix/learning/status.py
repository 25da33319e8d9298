"""`LearningStatus`: how far a mix has come in learning from its traffic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from langchain_automix.utils.formatting import pluralize


@dataclass(frozen=True, slots=True)
class LearningStatus:
    """How far a mix has come in learning from its traffic: what its store holds by now."""

    store: str
    """Its URL, without a password."""

    epoch: str | None
    """Digest of models, check and prompt; None: there was no query yet."""

    models: tuple[str, ...] = ()
    stage: str = "warm-up"
    """By what queries are decided at present: `observe`, `warm-up` or `policy`."""

    version: int = 0
    """Number of the policy that decides; 0: the largest model."""

    share: float = 0.0
    """Chance that a query has a shadow at present."""

    queries: int = 0
    shadowed: int = 0
    """Queries whose shadow has come to an end."""

    grades: Mapping[str, int] = field(default_factory=dict)
    """Graded answers, by source."""

    cost: float = 0.0
    """US dollars of the queries, as far as known."""

    alone: float = 0.0
    """What the largest model alone would have cost for the same queries."""

    spent: float = 0.0
    """US dollars that shadows have cost, with those under way."""

    max_spend: str | None = None
    dropped: int = 0
    """Records and shadows of this process that found their queue full."""

    refused: int = 0
    """Shadows of this process for which there was no money."""

    waiting: int = 0
    """Records of this process that are still to be written."""

    alarm: str | None = None
    """What has changed in the traffic since the policy was proven; None: nothing."""

    next_step: str = ""
    """What comes next, in one sentence; empty where no review was made yet."""

    is_away: bool = False
    """Whether the store cannot be used at present: then nothing else is known."""

    def to_json(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {**asdict(self), "models": list(self.models), "grades": dict(self.grades)}

    @property
    def saved(self) -> float | None:
        """Share of the largest model's cost that was saved; None: unknown."""
        return 1 - self.cost / self.alone if self.alone else None

    def __str__(self) -> str:
        if self.is_away:
            return f"The learning store {self.store} cannot be used at present."
        by = f"version {self.version}" if self.stage == "policy" else "the largest model"
        lines = [
            f"{pluralize(self.queries, 'query', 'queries')}, decided by {by} ({self.stage})",
            f"{pluralize(self.shadowed, 'shadow')} for ${self.spent:.6g} of "
            f"{self.max_spend or 'no limit'}, {self.share:.0%} of the queries at present",
        ]
        if self.saved is not None:
            lines.append(f"{self.saved:.1%} saved against the largest model alone")
        lines += [text for text in (self.alarm, self.next_step) if text]
        if self.dropped or self.refused:
            lines.append(f"{self.dropped} dropped, {self.refused} without money")
        return "\n".join(lines)
