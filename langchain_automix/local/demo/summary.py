"""What a demo run showed: accuracy and cost of each way, and whether mixing paid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from langchain_automix.evaluation.router_replay import RouterOutcome, replay_router
from langchain_automix.local.demo.run import Row, routing_log
from langchain_automix.local.models import ModelPair
from langchain_automix.policy.data.log import RoutingLog
from langchain_automix.policy.statistics import auroc
from langchain_automix.routers.baselines import ReleasedPOMDPRouter
from langchain_automix.routers.pomdp import POMDPRouter

# Price ratios of hosted pairs that people mix, small to large.
HOSTED_RATIOS = (10.0, 17.0, 60.0)


@dataclass(frozen=True)
class Strategy:
    """Accuracy and mean cost of one way to answer, over the reported questions."""

    name: str
    accuracy: float
    seconds: float
    small_tokens: float
    large_tokens: float


@dataclass(frozen=True)
class MixResult:
    """Whether mixing paid at some cost of the models, on the reported questions."""

    policy: str
    """Name of the policy that was fitted."""

    price_ratio: float | None
    """Price of the large model in prices of the small one; None for measured seconds."""

    accuracy: float
    escalation_rate: float
    cost: float
    """Mean cost of a question, in costs of always asking the large model."""

    random_mix: float
    """Accuracy that mixing both models at random, without checks, reaches at that cost."""

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
    """None where nothing was routed."""

    verification_samples: float
    """Mean verdicts drawn per question, over all questions."""

    invalid_verdicts: float
    """Share of the verdicts that were invalid."""

    confidence_auroc: float | None
    """Chance that a right small answer has a higher confidence than a wrong one."""

    seconds_by_stage: dict[str, float]
    """Where the time went, in total over all questions."""

    mixed: tuple[MixResult, ...]
    """The paper's rule, which checks every answer, at several prices."""

    fitted: tuple[MixResult, ...]
    """What `POMDPRouter.fit` makes of the same log; it may leave out the check."""

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as JSON-ready values."""
        figures = asdict(self)
        for kind in ("mixed", "fitted"):
            for mixed, found in zip(figures[kind], getattr(self, kind), strict=True):
                mixed["verdict"] = found.verdict
        return figures


def summarize(rows: Sequence[Row], pair: ModelPair, price_ratio: float | None) -> Summary | None:
    """Return the figures of a run; of its fit half as long as nothing was routed."""
    if not rows:
        return None
    fitted = [row for row in rows if row.half == "fit"]
    routed = [row for row in rows if row.half == "report"]
    verdicts = [verdict for row in rows for verdict in row.check.verdicts]
    return Summary(
        fitted_on=len(fitted),
        questions=len(routed) or len(fitted),
        price_ratio=price_ratio,
        ways=_ways(routed) if routed else _ways(fitted)[:2],
        escalation_rate=_mean([row.record["escalated"] for row in routed]) if routed else None,
        verification_samples=len(verdicts) / len(rows),
        invalid_verdicts=_mean([verdict is None for verdict in verdicts]),
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


def _ways(rows: Sequence[Row]) -> tuple[Strategy, ...]:
    def way(name: str, asked: Sequence[tuple[bool, bool, bool]], right: Sequence[bool]) -> Strategy:
        seconds, tokens = [], ([], [])  # type: ignore[var-annotated]
        for row, (small, check, large) in zip(rows, asked, strict=True):
            parts = [(small, row.small.spent), (check, row.check_spent), (large, row.large.spent)]
            seconds.append(sum(part.seconds for on, part in parts if on))
            used = [part.tokens_in + part.tokens_out if on else 0 for on, part in parts]
            tokens[0].append(used[0] + used[1])
            tokens[1].append(used[2])
        return Strategy(name, _mean(right), _mean(seconds), _mean(tokens[0]), _mean(tokens[1]))

    n = len(rows)
    return (
        way("always small", [(True, False, False)] * n, [row.small.correct for row in rows]),
        way("always large", [(False, False, True)] * n, [row.large.correct for row in rows]),
        way(
            "AutoMix",
            [(True, True, bool(row.record["escalated"])) for row in rows],
            [row.final.correct for row in rows],
        ),
    )


def _at_each_price(
    kind: type[POMDPRouter], fitted: Sequence[Row], routed: Sequence[Row], pair: ModelPair
) -> tuple[MixResult, ...]:
    if not routed:
        return ()
    found = (_mixed(kind, fitted, routed, pair, ratio) for ratio in (None, *HOSTED_RATIOS))
    return tuple(mixed for mixed in found if mixed is not None)


def _mixed(
    kind: type[POMDPRouter],
    fitted: Sequence[Row],
    routed: Sequence[Row],
    pair: ModelPair,
    ratio: float | None,
) -> MixResult | None:
    """Refit on the fit half at other costs, and replay the reported half from its answers.

    None where the large model costs no more than the small one: there is nothing to weigh.
    """
    log, fit_log = routing_log(routed, pair, ratio), routing_log(fitted, pair, ratio)
    if any(_means(half, 1)[1] <= _means(half, 0)[1] for half in (log, fit_log)):
        return None
    router = kind.fit(fit_log)
    outcomes = replay_router(router, log)
    small, large = _means(log, 0), _means(log, 1)
    cost = _mean([outcome.cost for outcome in outcomes])
    share = min(max((cost - small[1]) / (large[1] - small[1]), 0.0), 1.0)
    # Above the large model's cost one would ask it always, unless it is the worse one.
    share = share if large[0] > small[0] else 0.0
    return MixResult(
        policy=router.policy.plans[0].name,
        price_ratio=ratio,
        accuracy=_mean([outcome.quality for outcome in outcomes]),
        escalation_rate=_mean([outcome.model_index for outcome in outcomes]),
        cost=cost / large[1],
        random_mix=small[0] + share * (large[0] - small[0]),
        error=_error(outcomes, log, share),
    )


def _error(outcomes: Sequence[RouterOutcome], log: RoutingLog, share: float) -> float:
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
    return sum(values) / len(values) if values else 0.0
