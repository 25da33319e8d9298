"""What fitting without references loses, and what a few labelled examples give back."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from langchain_automix import RoutingLog
from langchain_automix.calibration.graders.text import Grader, exact_match, token_f1
from langchain_automix.calibration.label_correction import correct_labels
from langchain_automix.policy.data.arrays import Floats, LogArrays, to_arrays
from langchain_automix.policy.decision.score_prior import SHIPPED, ScorePrior
from langchain_automix.policy.fitting.candidates import CandidateFitter
from langchain_automix.policy.fitting.selection import select_candidate
from langchain_automix.policy.replay import replay_plan
from tests.benchmarks import quality

MULTIPLES = (0.5, 1.0)
"""Cost weights, as multiples of the slope between the end models on the labelled fit half."""

LABELS = (5, 20, 50, 100)
BOTH_WRONG = {"both wrong: agree": 1.0, "agree at 1/3": 1 / 3, "never agree": 0.0}
"""How often two wrong answers are the same, where the log does not say: a wrong choice of four
at random is the same once in three times."""


@dataclass(frozen=True)
class Half:
    """One half to fit on, with its agreements by column of the table, and one to judge on."""

    fit: LogArrays
    agreements: dict[str, Floats]
    judge: LogArrays
    judged: Any
    """Places of the judged queries in the log, so that they are averaged over halves."""

    prior: ScorePrior = SHIPPED
    """What a score says before any label; estimated without this log's benchmark."""


@dataclass
class Tally:
    """Differences in true utility to the policy that was fitted with all labels."""

    sums: dict[tuple[str, str], Any] = field(default_factory=lambda: defaultdict(dict))

    def add(self, method: str, column: str, judged: Any, difference: Floats) -> None:
        """Note the difference on each judged query."""
        found = self.sums[method, column]
        for place, value in zip(judged.tolist(), difference.tolist(), strict=True):
            found.setdefault(place, []).append(value)

    def mean(self, method: str, column: str) -> float:
        """Return the mean over queries."""
        return float(np.mean([np.mean(each) for each in self.sums[method, column].values()]))

    def cell(self, method: str, column: str) -> str:
        """Return the mean over queries with its 95 % interval; empty if there is none."""
        if (method, column) not in self.sums:
            return ""
        means = np.array([np.mean(each) for each in self.sums[method, column].values()])
        half = 1.96 * means.std() / np.sqrt(len(means))
        return f"{means.mean():+.4f} ± {half:.4f}"


def table(halves: Iterator[Half]) -> tuple[tuple[str, ...], list[tuple[str, ...]], Tally]:
    """Return heads and rows over all halves of one log."""
    tally = Tally()
    for seed, half in enumerate(halves):
        measure(half, seed, tally)
    methods = list(dict.fromkeys(method for method, _ in tally.sums))
    columns = list(dict.fromkeys(column for _, column in tally.sums if column))
    rows = [(m, *(tally.cell(m, c) or tally.cell(m, "") for c in columns)) for m in methods]
    return ("fitted to", *columns), rows, tally


def means(tallies: list[Tally]) -> list[tuple[str, str]]:
    """Return rows of the mean differences over logs."""
    found: dict[str, list[float]] = defaultdict(list)
    for tally in tallies:
        for method in dict.fromkeys(method for method, _ in tally.sums):
            columns = [column for name, column in tally.sums if name == method]
            found[method].append(float(np.mean([tally.mean(method, c) for c in columns])))
    return [(method, f"{np.mean(each):+.4f}") for method, each in found.items()]


def measure(half: Half, seed: int, tally: Tally) -> None:
    """Fit in every way, and note the true utility of each."""
    fit, judge = half.fit, half.judge
    slope = quality.slope(fit)
    weights = [multiple * (slope or 1 / fit.cost[:, -1].mean()) for multiple in MULTIPLES]
    base = worth(fit, judge, weights, half.prior)

    def note(method: str, column: str, log: LogArrays) -> None:
        tally.add(method, column, half.judged, worth(log, judge, weights, half.prior) - base)

    tally.add("best single model", "", half.judged, single(fit, judge, weights) - base)
    for column, agreement in half.agreements.items():
        note("no labels", column, replace(fit, quality=agreement))
    order = np.random.default_rng(100 + seed).permutation(len(fit))
    for number in (n for n in LABELS if n < len(fit)):
        labelled = np.sort(order[:number])
        note(f"{number} labels alone", "", fit.rows(labelled))
        known = np.full_like(fit.quality, np.nan)
        known[labelled] = fit.quality[labelled]
        for column, agreement in half.agreements.items():
            mended = replace(fit, quality=correct_labels(agreement, known))
            note(f"{number} labels, the rest corrected", column, mended)


def worth(log: LogArrays, judge: LogArrays, weights: list[float], prior: ScorePrior) -> Floats:
    """Return the true utility of each judged query, mean over cost weights."""
    learner = CandidateFitter(log, prior=prior)
    plans = [select_candidate(learner.candidates(weight))[0].plan for weight in weights]
    utilities = [
        replay_plan(p, judge).utility(weight) for p, weight in zip(plans, weights, strict=True)
    ]
    found: Floats = np.mean(utilities, axis=0)
    return found


def single(log: LogArrays, judge: LogArrays, weights: list[float]) -> Floats:
    """Return the true utility of each judged query under the best single model of the log."""
    utilities = []
    for weight in weights:
        best = (log.quality - weight * log.cost).mean(axis=0).argmax()
        utilities.append(judge.quality[:, best] - weight * judge.cost[:, best])
    found: Floats = np.mean(utilities, axis=0)
    return found


def with_texts(seeds: int) -> Iterator[tuple[str, Iterator[Half]]]:
    """Yield the log that has the answers' texts, by random halves, for each grader."""
    path = quality.data_folder().parent / "xquad" / "xquad_qwen_log.jsonl.gz"
    if not path.exists():
        return
    with gzip.open(path, "rt") as lines:
        records = [json.loads(line) for line in lines]
    for grade in (exact_match, token_f1):
        yield f"xquad_qwen by {grade.__name__}, random halves", _halves(records, grade, seeds)


def _halves(records: list[Any], grade: Grader, seeds: int) -> Iterator[Half]:
    log = to_arrays(RoutingLog(records))
    texts = [each["metadata"] for each in records]
    pairs = [(each["small_answer"], each["large_answer"]) for each in texts]
    references = [each["references"] for each in texts]
    true = [[grade(a, r) for a in pair] for pair, r in zip(pairs, references, strict=True)]
    agreement = np.array([[grade(small, [large]), 1.0] for small, large in pairs])
    log = replace(log, quality=np.array(true))
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(log))
        fit, judged = np.sort(order[: len(log) // 2]), np.sort(order[len(log) // 2 :])
        agreements = {"difference to all labels": agreement[fit]}
        yield Half(log.rows(fit), agreements, log.rows(judged), judged)


def without_texts(seeds: int) -> Iterator[tuple[str, Iterator[Half]]]:
    """Yield the logs of right and wrong answers: pairs with the last model, then all models."""
    for name, train, test in quality.splits():
        prior = quality.prior_without(name)
        last = len(train.models) - 1
        choices = [[small, last] for small in range(min(last, 3))]
        if last > 1:
            choices.append(list(range(last + 1)))
        for models in choices:
            both = [quality.only(columns, models) for columns in (train, test)]
            names = " -> ".join(both[0].models) if len(models) == 2 else "all models"
            draws = seeds if len(models) == 2 else min(seeds, 3)
            yield f"{name}, {names}", _splits(both[0], both[1], draws, prior)


def _splits(fit: LogArrays, judge: LogArrays, seeds: int, prior: ScorePrior) -> Iterator[Half]:
    for seed in range(seeds):
        agreements = {
            name: _agreement(fit.quality, rate, seed) for name, rate in BOTH_WRONG.items()
        }
        yield Half(fit, agreements, judge, np.arange(len(judge)), prior)


def _agreement(right: Floats, rate: float, seed: int) -> Floats:
    """Return who agrees with the last model, two wrong answers doing so at a rate."""
    both_wrong = (right == 0) & (right[:, -1:] == 0)
    alike = np.random.default_rng(seed).random(right.shape) < rate
    found: Floats = np.where(both_wrong, alike, right == right[:, -1:]) * 1.0
    found[:, -1] = 1.0
    return found
