"""The result of an evaluation, and its text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from langchain_automix.evaluation.cost_at_quality import CostAtQuality, cost_table
from langchain_automix.evaluation.headline import Headline
from langchain_automix.evaluation.recommendation import Recommendation
from langchain_automix.policy.statistics import Calibration, Interval
from langchain_automix.utils.formatting import format_signed, format_signed_range, pluralize
from langchain_automix.utils.tables import text_table


@dataclass(frozen=True)
class Baseline:
    """The outcome of another rule on the same queries."""

    quality: float
    cost: float
    utility_difference: float
    """Mean utility of the router minus that of this rule."""

    interval: Interval
    """95 % interval of that difference, query by query."""


@dataclass(frozen=True)
class Evaluation:
    """A router replayed on a log. Means are per query; costs are in the log's currency."""

    queries: int
    quality: float
    quality_interval: Interval
    cost: float
    cost_interval: Interval
    cost_weight: float
    """How much quality one unit of cost is assumed to be worth."""

    utility: float
    """Quality - cost_weight * cost."""

    escalation_rate: float
    """Share of the queries on which more than one model was asked."""

    abstention_rate: float
    verification_samples: float
    """Mean number of verdicts drawn, over all queries."""

    ibc_lift: float | None
    """ΔIBC as a share; None if it is undefined."""

    ibc_lift_interval: Interval | None
    ibc_lift_delta_interval: Interval | None
    baselines: dict[str, Baseline]
    frontier_efficiency: float | None
    """The gain over random mixing at the same cost, as a share of the gain that these checks make
    possible (cross-fitted); None if they make none possible."""

    calibration: dict[str, Calibration]
    """Calibration of the raw confidence in the answers of all models except the last, for each
    check, and of the belief in kept answers."""

    words: tuple[str, ...]
    """What the figures show, in one plain sentence each."""

    currency: str | None = None
    headline: Headline | None = None
    """Shares of the quality and the cost of the best single model; cross-fitted if the policy was
    fitted to this very log. None if they are undefined."""

    recommendation: Recommendation | None = None
    """What to do; None for a router without a policy."""

    cost_at_quality: dict[str, tuple[CostAtQuality, ...]] = field(default_factory=dict)
    """The frontier: for each rule, the cost of shares of the best single model's quality. Empty if
    there are too few queries, or nothing to take a share of."""

    def to_dict(self) -> dict[str, Any]:
        """Return all figures, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        unit = f" {self.currency}" if self.currency else ""
        low, high = self.quality_interval
        abstained = f", {self.abstention_rate:.1%} abstained." if self.abstention_rate else "."
        lift = (
            "ΔIBC is undefined here: it needs a router that pays more than the first model alone, "
            "and a last model that is better and dearer."
        )
        if self.ibc_lift is not None and self.ibc_lift_interval is not None:
            start, end = self.ibc_lift_interval
            lift = f"ΔIBC {self.ibc_lift:+.1%} ({start:+.1%} to {end:+.1%})."
        lines = [
            f"{pluralize(self.queries, 'query', 'queries')}: quality {self.quality:.4f} "
            f"({low:.4f} to {high:.4f}), cost {self.cost:g}{unit} a query, utility "
            f"{self.utility:.4f} at cost weight {self.cost_weight:g}.",
            f"{self.escalation_rate:.1%} escalated, {self.verification_samples:.2f} verdicts drawn "
            f"a query{abstained}",
            lift,
        ]
        if self.frontier_efficiency is not None:
            share = f"{self.frontier_efficiency:.0%}"
            lines.append(f"Frontier efficiency {share} of what checks allow.")
        heads = ("against", "quality", "cost", "utility gained", "95 % interval")
        rows = [
            (
                name,
                f"{b.quality:.4f}",
                f"{b.cost:.4g}",
                format_signed(b.utility_difference, digits=4),
                format_signed_range(b.interval, digits=4),
            )
            for name, b in self.baselines.items()
        ]
        lines = [*self._first_lines(), *lines, "", *text_table(heads, rows), ""]
        return "\n".join([*lines, *self._frontier_lines(), *self.words])

    def _first_lines(self) -> Iterator[str]:
        """Yield the recommendation and the headline."""
        if self.recommendation is not None:
            yield from (str(self.recommendation), "")
        if self.headline is not None:
            yield from (self.headline.describe(), "")

    def _frontier_lines(self) -> Iterator[str]:
        """Yield the frontier as a table, and how to read it."""
        if not self.cost_at_quality or self.headline is None:
            return
        yield from (
            f"What shares of {self.headline.against}'s quality cost, in shares of its cost "
            "(cross-fitted, 95 % intervals; got: by the policy):",
            "",
            *text_table(*cost_table(self.cost_at_quality)),
            "",
        )
