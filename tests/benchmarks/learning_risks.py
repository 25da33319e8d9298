"""What a mix that learns from its traffic risks: false promotions, false alarms, late ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from langchain_automix.learning.review_settings import ReviewSettings
from langchain_automix.policy.data.arrays import LogArrays
from langchain_automix.policy.decision.score_prior import ScorePrior
from langchain_automix.policy.fitting.fitting_data import concatenated
from tests.benchmarks.learning import QUERIES, Stream, drawn, outcomes, pairs
from tests.benchmarks.quality import slope

LOSSES = (0.01, 0.02, 0.05)
QUIET = 10_000
AFTER = 500
"""Queries after a shift that the loss is given for, and then the rest."""

Table = tuple[list[str], list[list[str]]]


class Null(NamedTuple):
    """What became of one stream on which no policy is worth more than a single model."""

    promoted: int
    worse: int
    rolled_back: int


def uninformed(log: LogArrays, seed: int) -> LogArrays:
    """Return a log whose checks say nothing: they are those of other queries."""
    order = np.random.default_rng([seed, 2]).permutation(len(log))
    checks = ("verdicts", "score", "fixed_cost", "sample_cost")
    return replace(log, **{name: getattr(log, name)[order] for name in checks})


def null_stream(
    pair: LogArrays, prior: ScorePrior, seed: int, *, max_loss: float | None, queries: int = QUERIES
) -> Null:
    """Let a mix learn where nothing can be gained.

    By utility at the indifferent cost weight, at which a random mix is worth as much as a single
    model and each check costs something; or for a largest loss, where a worse policy is one that
    truly loses more.
    """
    log = uninformed(pair, seed)
    weight = slope(pair)
    settings = ReviewSettings(max_loss, weight if max_loss is None else None, prior=prior)
    stream = Stream(drawn(log, seed, queries), settings, seed)
    stream.run()
    ids = tuple(f"q{i}" for i in range(len(log)))

    def worth(number: int) -> float:
        version = next((v for v in stream.versions if v.number == number), None)
        found = outcomes(log, ids, version)
        if max_loss is not None:
            return float((found.quality - log.quality[:, -1]).mean()) + max_loss
        return float(found.utility(weight).mean())

    promoted = [found.promote for _, found in stream.reviews if found.promote]
    parents = {v.number: v.parent for v in stream.versions}
    least = {n: 0.0 if max_loss is not None else worth(parents[n]) for n in promoted}
    worse = {n for n in promoted if worth(n) < least[n] - 1e-9}
    back = {v.number for v in stream.versions if v.status == "rolled back"}
    return Null(len(promoted), len(worse), len(worse & back))


def safety(streams: int = 200, *, test: bool) -> Table:
    """Return how often a worse policy is promoted where nothing can be gained."""
    heads = ["goal", "streams", "promoted", "worse", "share", "of them rolled back"]
    rows = []
    logs = [(pair, prior) for _, _, pair, prior in pairs(test=test) if slope(pair) > 0]
    for max_loss in (None, LOSSES[1]):
        found = [
            null_stream(*logs[seed % len(logs)], seed, max_loss=max_loss) for seed in range(streams)
        ]
        worse = sum(each.worse > 0 for each in found)
        rows.append(
            [
                "utility" if max_loss is None else f"max_loss {max_loss:g}",
                str(streams),
                str(sum(each.promoted for each in found)),
                str(worse),
                f"{worse / streams:.1%}",
                str(sum(each.rolled_back for each in found)),
            ]
        )
    return heads, rows


class Shift(NamedTuple):
    """A stream whose second half is another world."""

    name: str
    log: LogArrays
    """The queries of both halves."""

    prior: ScorePrior
    weight: float


def shifts(seed: int) -> Iterator[Shift]:
    """Yield streams that shift half-way."""
    half = QUERIES // 2
    found = {(name, models): (pair, prior) for name, models, pair, prior in pairs(test=False)}
    later = {(name, models): pair for name, models, pair, _ in pairs(test=True)}
    for (name, models), (pair, prior) in found.items():
        if slope(pair) <= 0:
            continue
        weight = slope(pair)
        first = drawn(pair, seed, half)
        if name == "llama_medmcqa":
            second = drawn(later[name, models], seed + 100, half)
            yield Shift("train, then test", concatenated(first, second), prior, weight)
        if name in ("llama_mmlu", "llama_medmcqa") and models == _second_small(found, name):
            weaker = next(p for (n, _), (p, _) in found.items() if n == name)
            second = replace(drawn(weaker, seed + 100, half), models=pair.models)
            yield Shift("weaker small model", concatenated(first, second), prior, weight)
        again = drawn(pair, seed + 100, half)
        dearer = replace(
            again,
            cost=again.cost * 2,
            fixed_cost=again.fixed_cost * 2,
            sample_cost=again.sample_cost * 2,
        )
        yield Shift("prices doubled", concatenated(first, dearer), prior, weight)


def _second_small(found: Iterable[tuple[str, str]], name: str) -> str:
    """Return the pair of a log whose small model is the third, so that there is a weaker one."""
    return [models for log, models in found if log == name][2]


def recovery(seeds: int) -> Table:
    """Return how soon shifts are noticed, and what they cost until and after that.

    Against the policy of the first half that is kept as it is, and against never learning.
    """
    heads = [
        "shift",
        "streams",
        "noticed",
        "after",
        f"first {AFTER}: kept as it is",
        "never learning",
        "the rest: kept as it is",
        "never learning",
    ]
    found: dict[str, list[tuple[int | None, list[float]]]] = {}
    for seed in range(seeds):
        for shift in shifts(seed):
            settings = ReviewSettings(None, shift.weight, prior=shift.prior, seed=seed)
            stream = Stream(shift.log, settings, seed)
            stream.run()
            found.setdefault(shift.name, []).append(_after_shift(stream, shift.weight))
    rows = []
    for name, streams in found.items():
        delays = [delay for delay, _ in streams if delay is not None]
        means = np.mean([gains for _, gains in streams], axis=0)
        rows.append(
            [
                name,
                str(len(streams)),
                str(len(delays)),
                f"{np.median(delays):.0f}" if delays else "-",
                *(f"{gain:+.4f}" for gain in means),
            ]
        )
    return heads, rows


def _after_shift(stream: Stream, weight: float) -> tuple[int | None, list[float]]:
    """Return the delay of the first alarm after the shift, and gains against what was before."""
    half = len(stream.truth) // 2
    delay = next((i - half for i, _ in stream.alarms if i >= half), None)
    learnt = stream.utility(weight)
    promoted = [found.promote for n, found in stream.reviews if found.promote and n <= half]
    kept = next((v for v in stream.versions if promoted and v.number == promoted[-1]), None)
    as_it_is = outcomes(stream.truth, stream.ids, kept).utility(weight)
    never = outcomes(stream.truth, stream.ids, None).utility(weight)
    early, late = slice(half, half + AFTER), slice(half + AFTER, None)
    gains = [
        float((learnt[part] - other[part]).mean())
        for part in (early, late)
        for other in (as_it_is, never)
    ]
    return delay, gains


def quiet(*, test: bool) -> Table:
    """Return how often an alarm is raised although nothing has changed."""
    heads = ["stream", "queries", "alarms", "by signal"]
    rows, total, alarms = [], 0, 0
    for name, models, pair, prior in pairs(test=test):
        if slope(pair) <= 0:
            continue
        settings = ReviewSettings(None, slope(pair), prior=prior)
        stream = Stream(drawn(pair, 7, QUIET), settings, 7, reviews_every=500)
        stream.run()
        total, alarms = total + QUIET, alarms + len(stream.alarms)
        signals = ", ".join(f"{alarm.signal} at {i}" for i, alarm in stream.alarms)
        rows.append([f"{name} {models}", str(QUIET), str(len(stream.alarms)), signals or "-"])
    rows.append(["all", str(total), str(alarms), f"{alarms / total * 10_000:.2f} in 10,000"])
    return heads, rows
