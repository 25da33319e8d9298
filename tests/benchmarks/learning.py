"""Streams of queries from which a mix learns without a label: what it gains, and what it risks.

Each stream is drawn from a public log. The mix starts with the largest model alone, and knows
nothing but the shipped prior, made without the benchmark that the stream is from. What it shadows
is paid for. The real review decides (`langchain_automix.learning.review`), on what it could see.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from langchain_automix.learning.drift import Alarm, DriftMonitor, Signals
from langchain_automix.learning.events import History
from langchain_automix.learning.observations import Observations
from langchain_automix.learning.records import Event, EventKind, PolicyVersion
from langchain_automix.learning.review import review
from langchain_automix.learning.review_result import Review
from langchain_automix.learning.review_settings import ReviewSettings
from langchain_automix.policy.data.arrays import NOT_DRAWN, Floats, LogArrays
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.decision.score_prior import ScorePrior
from langchain_automix.policy.fitting.baselines import confidences
from langchain_automix.policy.fitting.candidates import CandidateFitter, always
from langchain_automix.policy.fitting.selection import select_candidate
from langchain_automix.policy.replay import Outcomes, replay_plan, replay_policy
from tests.benchmarks.quality import MULTIPLES, only, prior_without, slope, splits

QUERIES = 2_000
PART = 200
EVERY = 20
"""Queries between two reviews."""

TARGET, LEAST = 0.003, -0.01
"""What the second half is to gain over the better single model on average, and at least."""

OTHERS = "always large", "static prior", "all labels"


@dataclass
class Stream:
    """One mix that learns from one stream of queries; all outcomes are known to the judge only."""

    truth: LogArrays
    settings: ReviewSettings
    seed: int = 0
    versions: list[PolicyVersion] = field(default_factory=list)
    reviews: list[tuple[int, Review]] = field(default_factory=list)
    alarms: list[tuple[int, Alarm]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    watches_drift: bool = True
    reviews_every: int = EVERY

    def __post_init__(self) -> None:
        n, m = self.truth.quality.shape
        self.ids = tuple(f"q{i}" for i in range(n))
        self.at = np.arange(1, n + 1, dtype=np.float64)
        self.asked, self.checked = np.zeros((n, m), dtype=bool), np.zeros((n, m), dtype=bool)
        self.share, self.asked_all = np.zeros(n), np.zeros(n, dtype=bool)
        self.own = np.zeros((n, m), dtype=bool)
        self.complete = np.zeros(n, dtype=bool)
        self.quality, self.cost, self.shadows = np.zeros(n), np.zeros(n), np.zeros(n)
        self.confidence: Floats = confidences(self.truth, 0)
        self._chances: Floats = np.asarray(np.random.default_rng([self.seed, 1]).random(n))
        self._outcomes: dict[int, Outcomes] = {}
        self._policies: dict[int, Policy] = {}

    def run(self) -> None:
        """Send all queries through the mix, in blocks between two reviews."""
        share, monitor = self.settings.warm_up_share, DriftMonitor()
        every = self.reviews_every
        for start in range(0, len(self.truth), every):
            block = np.arange(start, min(start + every, len(self.truth)))
            version = next((v for v in self.versions if v.status == "champion"), None)
            self._decide(block, version, share)
            self._watch(monitor, block, version)
            found = review(
                self._observed(int(block[-1]) + 1),
                self.versions,
                self.settings,
                now=float(block[-1]) + 1.5,
                history=History.of(self.events),
            )
            share = found.share
            self._apply(found, int(block[-1]) + 1)

    def _decide(self, block: Any, version: PolicyVersion | None, share: float) -> None:
        number = 0 if version is None else version.number
        if number not in self._outcomes:
            self._outcomes[number] = outcomes(self.truth, self.ids, version)
        found = self._outcomes[number]
        assert found.paths is not None
        self.quality[block], self.cost[block] = found.quality[block], found.cost[block]
        self.asked[block], self.checked[block] = (
            found.paths.asked[block],
            found.paths.checked[block],
        )
        self.own[block] = self.asked[block]
        self.asked_all[block] = self.asked[block].all(axis=1)
        self.share[block] = share
        drawn = block[(self._chances[block] < share) & ~self.asked_all[block]]
        prices = check_prices(self.truth)[drawn]
        new = ~self.asked[drawn]
        unchecked = ~self.checked[drawn, :-1]
        self.shadows[drawn] = (self.truth.cost[drawn] * new).sum(axis=1)
        self.shadows[drawn] += (prices[:, :-1] * unchecked).sum(axis=1)
        self.asked[drawn] = self.checked[drawn] = True
        self.complete[block] = self.asked_all[block]
        self.complete[drawn] = True

    def _watch(self, monitor: DriftMonitor, block: Any, version: PolicyVersion | None) -> None:
        if not self.watches_drift:
            return
        number = 0 if version is None else version.number
        last = self.truth.quality.shape[1] - 1
        for i in block.tolist():
            drawn = self._chances[i] < self.share[i]
            alike = 1 - abs(self.truth.quality[i, 0] - self.truth.quality[i, last])
            signals = Signals(
                version=number,
                at=float(self.at[i]),
                confidence=float(self.confidence[i]) if self.checked[i, 0] else None,
                escalated=None if version is None else bool(self.asked_all[i]),
                agreement=float(alike) if drawn and self.complete[i] else None,
                cost=float(self.cost[i]),
            )
            if (found := monitor.update(signals)) is not None:
                self.alarms.append((i, found))
                self.events.append(Event(float(self.at[i]), "", "alarm", str(found), asdict(found)))

    def _observed(self, n: int) -> Observations:
        """Return what could be seen of the first n queries."""
        truth = self.truth.rows(np.arange(n))
        complete, asked, checked = self.complete[:n], self.asked[:n], self.checked[:n]
        columns = replace(
            truth,
            quality=np.where(complete[:, None], truth.quality, np.nan),
            cost=np.where(asked, truth.cost, np.nan),
            verdicts=np.where(checked[:, :, None], truth.verdicts, NOT_DRAWN).astype(np.int8),
            score=np.where(checked, truth.score, np.nan),
        )
        return Observations(
            columns, self.ids[:n], self.at[:n], self.share[:n], self.asked_all[:n], self.own[:n]
        )

    def _apply(self, found: Review, n: int) -> None:
        changes = {change.number: change.status for change in found.changes}
        if found.back_to is not None:
            changes |= {v.number: "rolled back" for v in self.versions if v.status == "champion"}
            changes |= {found.back_to: "champion"}
        if found.promote is not None:
            changes |= {v.number: "retired" for v in self.versions if v.status == "champion"}
            changes |= {found.promote: "champion"}
        self.versions = [
            replace(
                v,
                status=changes.get(v.number, v.status),
                since=n + 0.5 if v.number == (found.promote or found.back_to) else v.since,
                parent=self._champion() if v.number == found.promote else v.parent,
            )
            for v in self.versions
        ]
        if found.fitted is not None:
            self.versions.append(replace(found.fitted, number=len(self.versions) + 1))
        after = found.promote if found.promote is not None else found.back_to
        if after is not None:
            self.reviews.append((n, found))
            kind: EventKind = "rolled back" if found.promote is None else "promoted"
            self.events.append(Event(n + 0.5, "", kind, found.why, {"version": after}))

    def _champion(self) -> int:
        return next((v.number for v in self.versions if v.status == "champion"), 0)

    def utility(self, cost_weight: float) -> Floats:
        """Return what each query came to, its shadow paid for."""
        worth: Floats = self.quality - cost_weight * (self.cost + self.shadows)
        return worth


def outcomes(truth: LogArrays, ids: Sequence[str], version: PolicyVersion | None) -> Outcomes:
    """Return what a version makes of every query; None: the largest model alone."""
    if version is None:
        return replay_plan(always(truth.models, len(truth.models) - 1), truth)
    return replay_policy(Policy.model_validate_json(version.policy), truth, ids)


def check_prices(truth: LogArrays) -> Floats:
    """Return (n, m): what the whole check of each answer costs."""
    drawn = (truth.verdicts != NOT_DRAWN).sum(axis=2)
    prices: Floats = np.nan_to_num(truth.fixed_cost) + drawn * np.nan_to_num(truth.sample_cost)
    return prices


def drawn(log: LogArrays, seed: int, queries: int = QUERIES) -> LogArrays:
    """Return a stream of queries of a log."""
    rng = np.random.default_rng([seed, 0])
    return log.rows(rng.integers(0, len(log), queries))


def pairs(*, test: bool) -> Iterator[tuple[str, str, LogArrays, ScorePrior]]:
    """Yield each log's name, each pair with its last model, and the prior without that log."""
    for name, train, held_out in splits():
        log = held_out if test else train
        last = len(log.models) - 1
        for small in range(last):
            pair = only(log, [small, last])
            yield name, f"{log.models[small]}->{log.models[last]}", pair, prior_without(name)


def static_prior(log: LogArrays, cost_weight: float, prior: ScorePrior) -> Any:
    """Return the plan before any label, which knows the confidences and costs of the traffic."""
    unlabelled = replace(log, quality=np.full_like(log.quality, np.nan))
    return select_candidate(CandidateFitter(unlabelled, prior=prior).candidates(cost_weight))[
        0
    ].plan


@dataclass
class Gains:
    """Utility over the better single model in hindsight, by part of the stream."""

    parts: dict[str, list[Floats]] = field(default_factory=lambda: defaultdict(list))

    def add(self, method: str, utility: Floats, reference: Floats) -> None:
        """Note one stream."""
        self.parts[method].append((utility - reference).reshape(-1, PART).mean(axis=1))

    def second_half(self, method: str) -> Floats:
        """(streams,): the mean gain of the second half."""
        table = np.array(self.parts[method])
        gains: Floats = table[:, table.shape[1] // 2 :].mean(axis=1)
        return gains


def measure(pair: LogArrays, prior: ScorePrior, seed: int, multiple: float, gains: Gains) -> Stream:
    """Let a mix learn from one stream, and note what it and others make of it."""
    weight = multiple * slope(pair)
    stream = Stream(drawn(pair, seed), ReviewSettings(None, weight, prior=prior, seed=seed), seed)
    stream.run()
    truth = stream.truth
    singles = truth.quality - weight * truth.cost
    best = singles[:, (pair.quality - weight * pair.cost).mean(axis=0).argmax()]
    gains.add("learning", stream.utility(weight), best)
    gains.add("always large", singles[:, -1], best)
    plan = static_prior(truth, weight, prior)
    gains.add("static prior", replay_plan(plan, truth).utility(weight), best)
    plan = select_candidate(CandidateFitter(pair, prior=prior).candidates(weight))[0].plan
    gains.add("all labels", replay_plan(plan, truth).utility(weight), best)
    return stream


def tables(seeds: int, *, test: bool) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Yield the tables: by part of the stream, and by log."""
    of_all = Gains()
    of_log: dict[str, Gains] = defaultdict(Gains)
    promoted: dict[str, list[int]] = defaultdict(list)
    shadows: dict[str, list[float]] = defaultdict(list)
    for name, _, pair, prior in pairs(test=test):
        if slope(pair) <= 0:
            continue
        for multiple in MULTIPLES:
            for seed in range(seeds):
                one = Gains()
                stream = measure(pair, prior, seed, multiple, one)
                for gains in (of_all, of_log[name]):
                    for method, parts in one.parts.items():
                        gains.parts[method] += parts
                first = [n for n, found in stream.reviews if found.promote]
                promoted[name] += first[:1]
                half = len(stream.shadows) // 2
                weight = multiple * slope(pair)
                shadows[name].append(float(weight * stream.shadows[half:].mean()))
    yield _by_part(of_all)
    yield _by_log(of_log, promoted, shadows, of_all)


def _by_part(gains: Gains) -> tuple[list[str], list[list[str]]]:
    heads = ["queries", *gains.parts]
    means = {method: np.mean(parts, axis=0) for method, parts in gains.parts.items()}
    rows = [
        [f"{k * PART + 1}-{(k + 1) * PART}", *(f"{means[m][k]:+.4f}" for m in gains.parts)]
        for k in range(QUERIES // PART)
    ]
    return heads, rows


def _by_log(
    of_log: dict[str, Gains],
    promoted: dict[str, list[int]],
    shadows: dict[str, list[float]],
    of_all: Gains,
) -> tuple[list[str], list[list[str]]]:
    heads = ["second half", "learning", "95 %", *OTHERS, "of it shadows", "promoted", "after"]
    rows = []
    for name, gains in (*of_log.items(), ("all", of_all)):
        found = gains.second_half("learning")
        half = 1.96 * found.std() / np.sqrt(len(found))
        firsts = promoted[name] if name in promoted else [n for p in promoted.values() for n in p]
        paid = shadows[name] if name in shadows else [s for p in shadows.values() for s in p]
        rows.append(
            [
                name,
                f"{found.mean():+.4f}",
                f"[{found.mean() - half:+.4f}, {found.mean() + half:+.4f}]",
                *(f"{gains.second_half(other).mean():+.4f}" for other in OTHERS),
                f"{np.mean(paid):.4f}",
                f"{len(firsts)} of {len(found)}",
                f"{np.median(firsts):.0f}" if firsts else "-",
            ]
        )
    return heads, rows
