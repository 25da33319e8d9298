"""Summarise a demo run: accuracy and cost of each strategy, and whether mixing paid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from langchain_automix.evaluation.router_replay import RouterOutcome, replay_router
from langchain_automix.local.demo.run import Answered, Row, Spent, routing_log
from langchain_automix.local.models import ModelPair
from langchain_automix.policy.data.log import RoutingLog
from langchain_automix.policy.statistics import auroc
from langchain_automix.routers.baselines import ReleasedPOMDPRouter
from langchain_automix.routers.pomdp import POMDPRouter

# Price ratios of pairs of hosted models that people mix, large to small.
HOSTED_RATIOS = (10.0, 17.0, 60.0)


@dataclass(frozen=True)
class Strategy:
    """Accuracy of one strategy, and its mean cost per question, on the reported questions."""

    name: str
    accuracy: float
    seconds: float
    small_tokens: float
    large_tokens: float


@dataclass(frozen=True)
class MixResult:
    """Whether mixing paid at one price of the large model, on the reported questions."""

    policy: str
    """Name of the policy that was fitted."""

    price_ratio: float | None
    """Price of the large model in prices of the small one; None for measured seconds."""

    accuracy: float
    escalation_rate: float
    cost: float
    """Mean cost of a question, relative to always asking the large model."""

    random_mix: float
    """Accuracy of mixing both models at random, without checks, at the same cost."""

    error: float
    """Standard error of the difference between `accuracy` and `random_mix`."""

    @property
    def verdict(self) -> str:
        """Whether mixing paid, in words."""
        gain = self.accuracy - self.random_mix
        if abs(gain) <= self.error:
            return "too close to tell"
        return "yes" if gain > 0 else "no"


@dataclass(frozen=True)
class Summary:
    """All figures of a run."""

    fitted_on: int
    questions: int
    price_ratio: float | None
    ways: tuple[Strategy, ...]
    escalation_rate: float | None
    """None if nothing was routed."""

    verification_samples: float
    """Mean verdicts drawn per question, over all questions."""

    invalid_verdicts: float
    """Share of the verdicts that were invalid."""

    confidence_auroc: float | None
    """Probability that a correct small answer has a higher confidence than a wrong one."""

    seconds_by_stage: dict[str, float]
    """Total time of each stage, over all questions."""

    mixed: tuple[MixResult, ...]
    """The paper's rule, which checks every answer, at several prices."""

    fitted: tuple[MixResult, ...]
    """What `POMDPRouter.fit` makes of the same log; it may leave out the check."""

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as JSON-ready values."""
        verdicts = {
            name: [{**asdict(result), "verdict": result.verdict} for result in getattr(self, name)]
            for name in ("mixed", "fitted")
        }
        return asdict(self) | verdicts


def summarize(rows: Sequence[Row], pair: ModelPair, price_ratio: float | None) -> Summary | None:
    """Return the figures of a run; those of its fit half if nothing was routed yet."""
    if not rows:
        return None
    fitted = [row for row in rows if row.half == "fit"]
    routed = [row for row in rows if row.half == "report"]
    verdicts = [verdict for row in rows for verdict in row.check.verdicts]
    return Summary(
        fitted_on=len(fitted),
        questions=len(routed) or len(fitted),
        price_ratio=price_ratio,
        ways=_strategies(routed) if routed else _strategies(fitted)[:2],
        escalation_rate=_mean([row.escalated for row in routed]) if routed else None,
        verification_samples=len(verdicts) / len(rows),
        invalid_verdicts=verdicts.count(None) / len(verdicts) if verdicts else 0.0,
        confidence_auroc=auroc(
            [row.check.confidence for row in rows], [row.small.correct for row in rows]
        ),
        seconds_by_stage={
            "small answers": sum(row.small.spent.seconds for row in rows),
            "checks": sum(row.check_spent.seconds for row in rows),
            "large answers": sum(row.large.spent.seconds for row in rows),
        },
        mixed=_at_each_price(ReleasedPOMDPRouter, fitted, routed, pair),
        fitted=_at_each_price(POMDPRouter, fitted, routed, pair),
    )


def _strategies(rows: Sequence[Row]) -> tuple[Strategy, ...]:
    # For each question: the answer kept, and what the small and the large model spent.
    results_by_name: dict[str, list[tuple[Answered, list[Spent], list[Spent]]]] = {
        "always small": [(row.small, [row.small.spent], []) for row in rows],
        "always large": [(row.large, [], [row.large.spent]) for row in rows],
        "AutoMix": [
            (row.final, [row.small.spent, row.check_spent], [row.large.spent] * row.escalated)
            for row in rows
        ],
    }
    return tuple(
        Strategy(
            name,
            accuracy=_mean([answer.correct for answer, _, _ in results]),
            seconds=_mean(
                [sum(part.seconds for part in small + large) for _, small, large in results]
            ),
            small_tokens=_mean([_tokens(small) for _, small, _ in results]),
            large_tokens=_mean([_tokens(large) for _, _, large in results]),
        )
        for name, results in results_by_name.items()
    )


def _tokens(spent: Sequence[Spent]) -> int:
    return sum(part.tokens_in + part.tokens_out for part in spent)


def _at_each_price(
    kind: type[POMDPRouter], fitted: Sequence[Row], routed: Sequence[Row], pair: ModelPair
) -> tuple[MixResult, ...]:
    if not routed:
        return ()
    results = (_at_price(kind, fitted, routed, pair, ratio) for ratio in (None, *HOSTED_RATIOS))
    return tuple(result for result in results if result is not None)


def _at_price(
    kind: type[POMDPRouter],
    fitted: Sequence[Row],
    routed: Sequence[Row],
    pair: ModelPair,
    ratio: float | None,
) -> MixResult | None:
    """Refit on the fit half at other costs, and replay the reported half from its answers.

    None if the large model costs no more than the small one: there is nothing to weigh.
    """
    log, fit_log = routing_log(routed, pair, ratio), routing_log(fitted, pair, ratio)
    if any(_means(half, 1)[1] <= _means(half, 0)[1] for half in (log, fit_log)):
        return None
    router = kind.fit(fit_log)
    outcomes = replay_router(router, log)
    small, large = _means(log, 0), _means(log, 1)
    cost = _mean([outcome.cost for outcome in outcomes])
    share = min(max((cost - small[1]) / (large[1] - small[1]), 0.0), 1.0)
    # Above the large model's cost one would always ask it, unless it is the worse one.
    share = share if large[0] > small[0] else 0.0
    return MixResult(
        policy=router.policy.plans[0].name,
        price_ratio=ratio,
        accuracy=_mean([outcome.quality for outcome in outcomes]),
        escalation_rate=_mean([outcome.model_index for outcome in outcomes]),
        cost=cost / large[1],
        random_mix=small[0] + share * (large[0] - small[0]),
        error=_standard_error(outcomes, log, share),
    )


def _standard_error(outcomes: Sequence[RouterOutcome], log: RoutingLog, share: float) -> float:
    differences = []
    for outcome, query in zip(outcomes, log, strict=True):
        small, large = (answer.quality or 0.0 for answer in query.answers)
        differences.append(outcome.quality - small - share * (large - small))
    mean = _mean(differences)
    variance = sum((d - mean) ** 2 for d in differences) / max(len(differences) - 1, 1)
    return math.sqrt(variance / len(differences))


def _means(log: RoutingLog, index: int) -> tuple[float, float]:
    answers = [query.answers[index] for query in log]
    return _mean([a.quality or 0.0 for a in answers]), _mean([a.cost or 0.0 for a in answers])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
