"""Summarise a demo run: accuracy and cost of each way, value of each check, the gain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from langchain_automix.local.demo.checks import FEW_SHOT
from langchain_automix.local.demo.learning import (
    Gain,
    Judged,
    fit,
    judge,
    learn,
    tying_rate,
)
from langchain_automix.local.demo.logs import routing_log
from langchain_automix.local.demo.measuring import Answered, Row, Spent
from langchain_automix.local.demo.run import Demo, has_something_to_weigh
from langchain_automix.policy.statistics import (
    Interval,
    auroc,
    auroc_interval,
    mean_interval,
    wilson_interval,
)
from langchain_automix.routers.baselines import ReleasedPOMDPRouter
from langchain_automix.routers.pomdp import POMDPRouter

WHAT_IF_RATIOS = (10.0, 25.0, 60.0)
"""Price ratios, large to small, of pairs of hosted models that people combine."""

PAPERS_RULE = "few-shot, released rule"


@dataclass(frozen=True)
class Way:
    """Accuracy and mean cost per question of one way of answering."""

    name: str
    accuracy: float
    interval: Interval
    """95 % interval of the accuracy."""

    cost: float
    """Share of the cost of always asking the large model."""

    cost_interval: Interval
    seconds: float
    small_tokens: float
    large_tokens: float


@dataclass(frozen=True)
class Share:
    """How many of some answers are right."""

    answers: int
    right: int


@dataclass(frozen=True)
class CheckFigures:
    """What one check tells about the small model's answers, and what a mix with it would gain."""

    name: str
    auroc: float | None
    auroc_interval: Interval | None
    price: float
    """Mean price as a share of the price of the large model's answer."""

    judged: Judged


@dataclass(frozen=True)
class AtPrice:
    """The mix that the fitting questions lead to, at one price of the large model."""

    price_ratio: float | None
    """None for measured seconds."""

    judged: Judged


@dataclass(frozen=True)
class Summary:
    """All figures of a run, on the routed questions, or on the fitting ones if none were routed."""

    fitted_on: int
    questions: int
    price_ratio: float | None
    check: str | None
    """The check that the mix makes; None if nothing was routed."""

    buys_checks: bool
    ways: tuple[Way, ...]
    kept: Share
    """Small answers that the mix kept, and how many of them are right."""

    drafts: Share
    """Small answers that the mix rejected, and how many of them were right."""

    after: Share
    """The large model's answers that replaced them."""

    gain: Gain | None
    """The gain at equal cost, that is, at the rate at which both models tie on these questions."""

    gain_at_fitted_rate: Gain | None
    """The gain at the rate of the fit, at which both models tied on the fitting questions."""

    against_large: Gain | None
    """Accuracy of the mix minus that of the large model, ignoring costs."""

    escalation_rate: float | None
    checks: tuple[CheckFigures, ...]
    """Filled only in a replay, since the mix makes a single check."""

    prices: tuple[AtPrice, ...]
    """Filled only in a replay."""

    time_ratio: float
    """Mean seconds of the large model's answer, as a multiple of the small one's."""

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as JSON-ready values."""
        return asdict(self)


def summarize(demo: Demo) -> Summary | None:
    """Return the figures of a run, or None if there are no rows yet."""
    rows = demo.routed or demo.fitted
    if not rows:
        return None
    routed, learned = demo.routed, demo.learned
    is_complete = bool(routed) and all(set(demo.checks) <= set(row.checks) for row in routed)
    escalated = [row for row in routed if row.escalated and row.record["escalated"]]
    seconds = [float(np.mean([each.spent.seconds for each in side])) for side in _sides(rows)]
    return Summary(
        fitted_on=len(demo.fitted),
        questions=len(rows),
        price_ratio=demo.price_ratio,
        check=learned.check if learned is not None and routed else None,
        buys_checks=learned is not None and learned.buys_checks,
        ways=_ways(rows, demo.price_ratio, is_routed=bool(routed)),
        kept=_share([row.small for row in routed if not row.escalated]),
        drafts=_share([row.small for row in escalated]),
        after=_share([row.large for row in escalated]),
        gain=_gain(demo) if routed else None,
        gain_at_fitted_rate=_gain(demo, at_fitted_rate=True) if routed else None,
        against_large=_against_large(routed, demo.names[1]) if routed else None,
        escalation_rate=float(np.mean([row.escalated for row in routed])) if routed else None,
        checks=_checks(demo) if is_complete else (),
        prices=_prices(demo) if is_complete else (),
        time_ratio=seconds[1] / seconds[0] if seconds[0] else float("nan"),
    )


def _sides(rows: Sequence[Row]) -> tuple[list[Answered], list[Answered]]:
    return [row.small for row in rows], [row.large for row in rows]


def _share(answers: Sequence[Answered]) -> Share:
    return Share(len(answers), sum(answer.correct for answer in answers))


def _ways(rows: Sequence[Row], ratio: float | None, *, is_routed: bool) -> tuple[Way, ...]:
    # For each question: the answer kept, and what the small and the large model spent.
    results: dict[str, list[tuple[Answered, list[Spent], list[Spent]]]] = {
        "always small": [(row.small, [row.small.spent], []) for row in rows],
        "always large": [(row.large, [], [row.large.spent]) for row in rows],
    }
    if is_routed:
        results["AutoMix"] = [(row.final, *row.spent) for row in rows]
    large = float(np.mean([_cost([], [row.large.spent], ratio) for row in rows]))
    ways = []
    for name, each in results.items():
        accuracy = float(np.mean([answer.correct for answer, _, _ in each]))
        costs = np.array([_cost(s, b, ratio) for _, s, b in each]) / (large or 1.0)
        ways.append(
            Way(
                name,
                accuracy=accuracy,
                interval=wilson_interval(accuracy, len(each)),
                cost=float(costs.mean()),
                cost_interval=mean_interval(costs),
                seconds=float(np.mean([sum(p.seconds for p in s + b) for _, s, b in each])),
                small_tokens=float(np.mean([_tokens(s) for _, s, _ in each])),
                large_tokens=float(np.mean([_tokens(b) for _, _, b in each])),
            )
        )
    return tuple(ways)


def _cost(small: Sequence[Spent], large: Sequence[Spent], ratio: float | None) -> float:
    if ratio is None:
        return sum(part.seconds for part in (*small, *large))
    return sum(part.units for part in small) + ratio * sum(part.units for part in large)


def _tokens(spent: Sequence[Spent]) -> int:
    return sum(part.tokens_in + part.tokens_out for part in spent)


def _gain(demo: Demo, *, at_fitted_rate: bool = False) -> Gain:
    """Return what the mix gained by its actual calls."""
    rows, learned = demo.routed, demo.learn()
    quality = np.array([float(row.final.correct) for row in rows])
    cost = np.array([_cost(*row.spent, demo.price_ratio) for row in rows])
    log = routing_log(rows, demo.names, demo.price_ratio)
    rate = learned.router.policy.cost_weight if at_fitted_rate else tying_rate(log)
    return Gain.of(quality, cost, log, rate)


def _against_large(rows: Sequence[Row], large: str) -> Gain:
    difference = np.array([float(row.final.correct) - row.large.correct for row in rows])
    return Gain(float(difference.mean()), mean_interval(difference), large)


def _checks(demo: Demo) -> tuple[CheckFigures, ...]:
    return tuple(
        _check(demo, name, PAPERS_RULE if is_released else name, is_released=is_released)
        for name in demo.checks
        for is_released in ((True, False) if name == FEW_SHOT else (False,))
    )


def _check(demo: Demo, name: str, label: str, *, is_released: bool) -> CheckFigures:
    rows, names, ratio = demo.routed, demo.names, demo.price_ratio
    kind = ReleasedPOMDPRouter if is_released else POMDPRouter
    router = fit(demo.fitted, names, ratio, name, demo.checks[name], kind=kind)
    found = [row.checks[name].found.confidence for row in rows]
    confidence = np.array([np.nan if each is None else each for each in found])
    right = np.array([row.small.correct for row in rows])
    spent = [_cost([row.checks[name].spent], [], ratio) for row in rows]
    large = [_cost([], [row.large.spent], ratio) for row in rows]
    return CheckFigures(
        name=label,
        auroc=auroc(confidence, right),
        auroc_interval=auroc_interval(confidence, right),
        price=float(np.mean(spent) / np.mean(large)),
        judged=judge(router, rows, names, ratio, name),
    )


def _prices(demo: Demo) -> tuple[AtPrice, ...]:
    found = []
    for ratio in (None, *WHAT_IF_RATIOS):
        if not has_something_to_weigh(demo, ratio):
            continue
        learned = (
            demo.learn()
            if ratio == demo.price_ratio
            else learn(demo.fitted, demo.names, ratio, demo.checks)
        )
        judged = judge(learned.router, demo.routed, demo.names, ratio, learned.check)
        found.append(AtPrice(ratio, judged))
    return tuple(found)
