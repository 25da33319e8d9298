"""The rules that a router is compared with, fitted by the same call and kept as plans.

Threshold and double threshold follow AutoMix, section 4.2, and `Threshold` and `DoubleThreshold` in
the released code. `released` is the union of rules that the released code calls POMDP, written from
its definition (reference: package automix-llm 1.0.3), with the same binning for fit and use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

import numpy as np

from langchain_automix.errors import AutoMixError
from langchain_automix.policy.data.arrays import NOT_DRAWN, Floats, Ints, LogArrays, Mask
from langchain_automix.policy.decision.plan import Plan
from langchain_automix.policy.decision.table import DecisionRow, DecisionTable, PlannedAction
from langchain_automix.policy.ties import first_best, tied_best

Family = Literal["automix", "always", "threshold", "double_threshold", "released"]

RELEASED_BINS = 8
"""Number of bins in the released rule; they give 9 confidences, as in the paper's experiments."""

_CUTS = 32
_SIGMA = 2.0  # bins; width of the Gaussian filter over benefits


Escalates = Callable[[Floats], Mask]


@dataclass(frozen=True)
class FittedRule:
    """A fitted rule and its utility on the log."""

    name: str
    plan: Plan
    expected: float

    @property
    def rule(self) -> Plan:
        """The rule, under the same name as in `FittedCandidate`."""
        return self.plan


@dataclass(frozen=True)
class _Rule:
    name: str
    escalates: Escalates
    """Maps confidences, none of them NaN, to whether the last model is asked."""

    cuts: tuple[float, ...]
    """Confidences at which the rule may change; it is constant between two neighbours."""


def fit_rule(columns: LogArrays, cost_weight: float, family: Family) -> FittedRule:
    """Return the rule of a family with the best utility on the log.

    Args:
        columns: The log; complete queries only.
        cost_weight: How much quality one unit of cost is worth.
        family: The family. `always` needs no check; the others read the first model's.

    Raises:
        AutoMixError: Some answers of the first model were not checked, or no confidence is known.
    """
    if family == "always":
        utilities = columns.mean(columns.quality - cost_weight * columns.cost)
        best = first_best(utilities)
        opening = PlannedAction(action="escalate", model=best, samples=0)
        name = f"always:{columns.models[best]}"
        return FittedRule(
            name, Plan(name=name, opening=opening, plays=(best,)), float(utilities[best])
        )
    if not columns.checked(0).all():
        raise AutoMixError(
            f"The rule {family!r} reads the checks of {columns.models[0]}'s answers, of which the "
            "log lacks some."
        )
    confidence = confidences(columns, 0)
    rules = list(_rules(columns, confidence, family))
    if not rules:
        raise AutoMixError("No answer in the log has a known confidence: there is no rule to fit.")
    worth = _utilities(columns, confidence, rules, cost_weight)
    place = first_best(worth)
    plan = rule_plan(columns, rules[place].name, rules[place].escalates, rules[place].cuts)
    return FittedRule(rules[place].name, plan, worth[place])


@dataclass(frozen=True)
class BestSingle:
    """The single model with the best mean utility, or several that are tied."""

    models: tuple[str, ...]
    """Names of the models, the cheapest first."""

    utility: Floats
    """(n,): utility of each query; the mean over tied models."""

    @property
    def name(self) -> str:
        """The names in words."""
        return " or ".join(self.models)


def best_single(columns: LogArrays, cost_weight: float) -> BestSingle:
    """Return the single model with the highest utility on the whole log at a cost weight.

    At the indifferent cost weight, the first and the last model are worth the same. Choosing one of
    them by rounding errors, or on part of the log, would flatter whatever is compared with it.
    """
    utility = columns.quality - cost_weight * columns.cost
    tied = tied_best(columns.mean(utility))
    return BestSingle(
        tuple(columns.models[j] for j in tied.tolist()), utility[:, tied].mean(axis=1)
    )


def confidences(columns: LogArrays, model: int) -> Floats:
    """Return the raw confidence of each query: score or share of accepts; NaN if unknown."""
    if columns.is_score(model):
        return columns.score[:, model]
    accepts, rejects, _ = columns.counts(model).T
    with np.errstate(invalid="ignore"):
        share: Floats = accepts / (accepts + rejects)
    return share


def _utilities(
    columns: LogArrays, confidence: Floats, rules: Sequence[_Rule], cost_weight: float
) -> list[float]:
    """Return the mean utility of each rule on the log.

    No rule changes between two neighbouring cuts, so queries are counted by these intervals. The
    log is thus read only once, whatever the number of rules.
    """
    cuts = np.unique([cut for rule in rules for cut in rule.cuts])
    within = np.concatenate([[cuts[0] - 1.0], cuts])  # one confidence within each interval
    drawn = (columns.verdicts[:, 0] != NOT_DRAWN).sum(axis=1)
    cost = columns.cost[:, 0] + columns.fixed_cost[:, 0] + drawn * columns.sample_cost[:, 0]
    kept = float(columns.mean(columns.quality[:, 0] - cost_weight * cost))
    gain = columns.quality[:, -1] - columns.quality[:, 0] - cost_weight * columns.cost[:, -1]
    gain = gain * (columns.weight / columns.weight.sum())
    is_known = ~np.isnan(confidence)
    place = np.searchsorted(cuts, confidence[is_known], side="right")
    gains = np.bincount(place, gain[is_known], minlength=len(within))
    kept += float(gain[~is_known].sum())  # every rule escalates unknown confidences
    return [kept + float(gains[rule.escalates(within)].sum()) for rule in rules]


def _rules(columns: LogArrays, confidence: Floats, family: Family) -> Iterator[_Rule]:
    known = confidence[~np.isnan(confidence)]
    if not len(known):
        return
    if family == "released":
        yield from _released(columns, confidence)
        return
    values = np.unique(known)
    if len(values) > _CUTS:
        values = np.unique(np.quantile(values, np.linspace(0, 1, _CUTS + 1), method="nearest"))
    cuts = [-1.0, *((a + b) / 2 for a, b in pairwise(values.tolist())), 2.0]
    for i, low in enumerate(cuts if family == "double_threshold" else cuts[:1]):
        yield from (_window(f"{family}", low, high) for high in cuts[i:])


def _window(name: str, low: float, high: float) -> _Rule:
    """Escalate if low <= confidence <= high."""

    def escalates(values: Floats) -> Mask:
        return (low <= values) & (values <= high)

    cuts = (low, float(np.nextafter(high, 2.0)))
    return _Rule(f"{name}:{max(low, 0):.3f}..{min(high, 1):.3f}", escalates, cuts)


def _released(columns: LogArrays, confidence: Floats) -> Iterator[_Rule]:
    """Yield the candidates of the released POMDP: shares of needy, greedy, windows, thresholds."""
    grid = [i / RELEASED_BINS for i in range(RELEASED_BINS + 1)]
    sets = {*_needy_sets(columns, confidence), *_greedy_sets(columns, confidence)}
    for chosen in sorted(sets):
        bins = np.array(chosen, dtype=bool)
        cuts = tuple((i + 0.5) / RELEASED_BINS for i in range(RELEASED_BINS))
        yield _Rule(f"released:{''.join(map(str, chosen))}", partial(_in_chosen, bins), cuts)
    for i, low in enumerate(grid[:-1]):
        yield from (_window("released", low, high) for high in grid[i + 1 : -1])
    yield from (_window("released", -1.0, high) for high in grid)


def _in_chosen(bins: Mask, values: Floats) -> Mask:
    chosen: Mask = bins[_bin(values)]
    return chosen


def _bin(values: Floats) -> Ints:
    """Return the nearest of the released rule's bins, rounding halves up."""
    return np.clip(np.floor(values * RELEASED_BINS + 0.5), 0, RELEASED_BINS).astype(np.int64)


def _needy_sets(columns: LogArrays, confidence: Floats) -> set[tuple[int, ...]]:
    """Return the bins of `POMDPSimple`: argmax of two rewards over the shares of three categories.

    Needy: the small answer is worse. Good: both are equal and not 0. Hopeless: both are at most at
        their 10th percentile. The first category that applies counts; other queries have none.
    """
    small, large = columns.quality[:, 0], columns.quality[:, -1]
    needy = small < large
    good = ~needy & (small == large) & (small != 0)
    hopeless = ~needy & ~good
    hopeless &= (small <= np.percentile(small, 10)) & (large <= np.percentile(large, 10))
    known = ~np.isnan(confidence)
    bins = _bin(confidence[known])
    total = np.maximum(np.bincount(bins, minlength=RELEASED_BINS + 1), 1)
    n, g, h = (
        np.bincount(bins, kind[known], minlength=RELEASED_BINS + 1) / total
        for kind in (needy, good, hopeless)
    )
    reward = np.arange(5000)[:, None]
    keep = -reward * n - (reward + 1) * h
    route = -100 * n - 100 * g - (reward + 100) * h
    # Encode rows as numbers, which sort fast; sorting rows took most of a fit.
    bits = 1 << np.arange(RELEASED_BINS + 1)
    codes = np.unique((route > keep) @ bits)
    return {tuple(row) for row in (codes[:, None] & bits > 0).astype(int).tolist()}


def _greedy_sets(columns: LogArrays, confidence: Floats) -> set[tuple[int, ...]]:
    """Return the bins of `GreedyPOMDP`: added one by one in order of smoothed mean benefit."""
    known = ~np.isnan(confidence)
    bins = _bin(confidence[known])
    benefit = (columns.quality[:, -1] - columns.quality[:, 0])[known]
    total = np.bincount(bins, minlength=RELEASED_BINS + 1)
    means = np.bincount(bins, benefit, minlength=RELEASED_BINS + 1) / np.maximum(total, 1)
    offsets = np.arange(-8, 9)
    kernel = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    padded = np.pad(means, 8, mode="symmetric")
    smoothed = np.convolve(padded, kernel / kernel.sum(), mode="valid")
    chosen, sets = [0] * (RELEASED_BINS + 1), set()
    for place in np.argsort(-smoothed, kind="stable").tolist():
        chosen[place] = 1
        sets.add(tuple(chosen))
    return sets


def rule_plan(columns: LogArrays, name: str, escalates: Escalates, cuts: Sequence[float]) -> Plan:
    """Turn a rule on the confidence of the first model's answer into a plan.

    Args:
        columns: The log whose models and verdicts the plan is for.
        name: Name of the plan.
        escalates: Maps confidences to whether the last model is asked.
        cuts: Confidences at which that may change.
    """
    last = len(columns.models) - 1
    edges: tuple[float, ...] = ()
    findings: list[tuple[tuple[int, ...], float]]
    if columns.is_score(0):
        edges = tuple(sorted({cut for cut in cuts if 0 < cut <= 1}))
        middles = [(a + b) / 2 for a, b in pairwise((0.0, *edges, 1.0))]
        findings = [((i,), middle) for i, middle in enumerate(middles)]
    else:
        most = max(int((columns.verdicts[:, 0] != NOT_DRAWN).sum(axis=1).max()), 1)
        findings = [
            ((accepts, total - accepts, 0), accepts / total)
            for total in range(1, most + 1)
            for accepts in range(total + 1)
        ]
    asked = escalates(np.array([value for _, value in findings])).tolist()
    ask = PlannedAction(action="escalate", model=last, samples=0)
    keep = PlannedAction(action="answer", model=0)
    rows = tuple(
        DecisionRow(seen=seen, step=ask if up else keep)
        for (seen, _), up in zip(findings, asked, strict=True)
    )
    kind: Literal["score", "verdicts"] = "score" if columns.is_score(0) else "verdicts"
    return Plan(
        name=name,
        opening=PlannedAction(action="escalate", model=0, samples=None, then=0),
        plays=(0, last),
        tables=(DecisionTable(model=0, kind=kind, edges=edges, rows=rows),),
    )
