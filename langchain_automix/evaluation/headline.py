"""The headline: the goal of a policy, and what it gets compared with the best single model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from langchain_automix.policy.data.arrays import LogArrays
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.replay import Outcomes
from langchain_automix.policy.statistics import Interval, ratio_interval
from langchain_automix.policy.ties import first_best


@dataclass(frozen=True)
class Headline:
    """Quality and cost of a policy as shares of those of the best single model."""

    against: str
    """The single model with the best mean quality on the log; the cheaper one if tied."""

    asked: float | None
    """Share of its quality that the policy was fitted for, according to the log of the fit; None if
    the goal was not a quality."""

    asked_cost: float | None
    """Share of its cost that the policy was fitted for; None if the goal was not a cost."""

    quality: float
    """Share of its quality that the policy reaches."""

    quality_interval: Interval
    """95 %: paired bootstrap over the queries, or the delta method for very many."""

    cost: float
    """Share of its cost that the policy pays, checks included."""

    cost_interval: Interval
    """95 %, in the same way as for the quality."""

    def __str__(self) -> str:
        asked = ""
        if self.asked is not None:
            asked = f"asked {_percent(self.asked)} %, "
        elif self.asked_cost is not None:
            asked = f"asked at most {_percent(self.asked_cost, 0)} % of the cost, "
        quality = f"{_percent(self.quality)} % {_range(self.quality_interval)}"
        cost = f"{_percent(self.cost, 0)} % of the cost {_range(self.cost_interval, 0)}"
        return f"{asked}got {quality} at {cost}"

    def describe(self) -> str:
        """Return the headline as a sentence that says what the shares refer to."""
        text = str(self)
        return (
            f"{text[0].upper()}{text[1:]}; of the quality and the cost of {self.against}, the best "
            "single model, with 95 % intervals."
        )


def build_headline(
    outcomes: Outcomes, data: LogArrays, policy: Policy | None = None, seed: int = 0
) -> Headline | None:
    """Build the headline for the outcomes of queries.

    Args:
        outcomes: The outcome of each query.
        data: The queries, all complete.
        policy: The policy that decided, for its goal. None: the goal is unknown.
        seed: Seed for the resampling.

    Returns:
        The headline; None if the best single model has no quality or no cost to take a share of.
    """
    best = first_best(data.quality.mean(axis=0))
    quality, cost = data.quality[:, best], data.cost[:, best]
    if quality.mean() <= 0 or cost.mean() <= 0:
        return None
    asked, asked_cost = (None, None) if policy is None else _asked(policy)
    return Headline(
        against=data.models[best],
        asked=asked,
        asked_cost=asked_cost,
        quality=float(outcomes.quality.mean() / quality.mean()),
        quality_interval=ratio_interval(outcomes.quality, quality, seed),
        cost=float(outcomes.cost.mean() / cost.mean()),
        cost_interval=ratio_interval(outcomes.cost, cost, seed),
    )


def _asked(policy: Policy) -> tuple[float | None, float | None]:
    """Return the shares of quality and cost that a policy was fitted for, on its own log."""
    qualities, costs = policy.fit.quality, policy.fit.cost
    if not qualities or max(qualities) <= 0:
        return None, None
    best = first_best(qualities)
    goal = policy.goal
    if (least := goal.get("min_quality")) is not None:
        return least / qualities[best], None
    if (loss := goal.get("max_loss")) is not None:
        return 1 - loss / qualities[best], None
    if (most := goal.get("max_cost")) is not None and costs[best] > 0:
        return None, most / costs[best]
    return None, None


def _percent(share: float, digits: int = 1) -> str:
    text = f"{share * 100:.{digits}f}"
    return text.removesuffix(".0")


def _range(interval: Sequence[float], digits: int = 1) -> str:
    return f"[{', '.join(_percent(end, digits) for end in interval)}]"
