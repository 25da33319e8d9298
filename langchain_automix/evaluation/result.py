"""What an evaluation found, and its text."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from langchain_automix.policy.statistics import Calibration, Interval
from langchain_automix.utils.tables import text_table


@dataclass(frozen=True)
class Baseline:
    """What another rule would have reached on the same queries."""

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
    """Quality that one unit of cost is taken to be worth."""

    utility: float
    """Quality - cost_weight * cost."""

    escalation_rate: float
    """Share of the queries on which more than one model was asked."""

    abstention_rate: float
    verification_samples: float
    """Verdicts drawn, mean over all queries."""

    ibc_lift: float | None
    """ΔIBC, as a share; None where it is undefined."""

    ibc_lift_interval: Interval | None
    ibc_lift_delta_interval: Interval | None
    baselines: dict[str, Baseline]
    frontier_efficiency: float | None
    """Share of the gain over random mixing, at the same cost, that these checks make possible
    (cross-fitted); None where they make none possible."""

    calibration: dict[str, Calibration]
    """Of the raw confidence in the answers of all models but the last, by each check of them, and
    of the belief in kept ones."""

    words: tuple[str, ...]
    """What the figures say, one plain sentence each."""

    currency: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return all figures, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        from langchain_automix.evaluation.result import evaluation_text  # noqa: PLC0415

        return evaluation_text(self)


def evaluation_text(found: Evaluation) -> str:
    """Return an evaluation in words and as a table."""
    unit = f" {found.currency}" if found.currency else ""
    low, high = found.quality_interval
    abstained = f", {found.abstention_rate:.1%} abstained." if found.abstention_rate else "."
    head = (
        f"{found.queries} queries: quality {found.quality:.4f} ({low:.4f} to {high:.4f}), "
        f"cost {found.cost:g}{unit} a query, utility {found.utility:.4f} at cost weight "
        f"{found.cost_weight:g}."
    )
    counts = (
        f"{found.escalation_rate:.1%} escalated, {found.verification_samples:.2f} verdicts drawn "
        f"a query{abstained}"
    )
    lines = [head, counts]
    if found.ibc_lift is not None and found.ibc_lift_interval is not None:
        low, high = found.ibc_lift_interval
        lines.append(f"ΔIBC {found.ibc_lift:+.1%} ({low:+.1%} to {high:+.1%}).")
    else:
        lines.append(
            "ΔIBC is undefined here: it needs a router that pays more than the first model alone, "
            "and a last model that is better and dearer."
        )
    if found.frontier_efficiency is not None:
        lines.append(f"Frontier efficiency {found.frontier_efficiency:.0%} of what checks allow.")
    rows = [
        (
            name,
            f"{b.quality:.4f}",
            f"{b.cost:.4g}",
            f"{b.utility_difference:+.4f}",
            f"{b.interval[0]:+.4f} to {b.interval[1]:+.4f}",
        )
        for name, b in found.baselines.items()
    ]
    heads = ("against", "quality", "cost", "utility gained", "95 % interval")
    lines += ["", *text_table(heads, rows), "", *found.words]
    return "\n".join(lines)
