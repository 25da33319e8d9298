"""Measure, and print one table per log."""

# ruff: noqa: T201

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from langchain_automix.policy.fitting.stopping import TOLERANCE
from langchain_automix.utils.tables import text_table
from tests.benchmarks import (
    attacks,
    caching,
    calibrating,
    clusters,
    defaults,
    early,
    first_contact,
    frontier,
    goals,
    labels,
    learning,
    learning_drift,
    learning_overhead,
    learning_processes,
    learning_risks,
    overhead,
    prior,
    quality,
    released,
    report,
    serving,
    soaking,
    speed,
    stopping,
    structure,
    surface,
    tracing,
)

SIZES = (20, 50, 150, None)
FEW = (20, 50, 100)
WIDE = 1_000
"""Characters of the longest line of a table here: all of it, as it goes into documents."""

DRAWS = 1_000
TARGETS = {20: -0.003, 50: 0.002, None: 0.0076}
"""What utility over the better single model is to reach, by number of labels."""

LEAST = -0.01
"""Below this no log is to be, at any of these numbers."""

PARTS = (
    "quality",
    "few",
    "pairs",
    "chain",
    "frontier",
    "prior",
    "labels",
    "stopping",
    "learning",
    "learning-risks",
    "learning-drift",
    "speed",
    "overhead",
    "surface",
    "early",
    "tracing",
    "caching",
    "defaults",
    "first-contact",
    "calibrate",
    "report",
    "attacks",
    "soak",
    "structure",
    "goals",
    "ray",
    "learning-overhead",
    "learning-processes",
    "serving",
)
WITHOUT_LOGS = PARTS[-15:]


def main() -> int:
    """Run all; 2 if the logs are not at hand."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="draws of a training size")
    parser.add_argument(
        "--draws", type=int, default=DRAWS, help="for few: draws of labels from all logs"
    )
    parser.add_argument("--only", choices=PARTS, help="one part of it")
    parser.add_argument("--calls", type=int, default=10_000, help="for memory: calls of the mix")
    parser.add_argument("--examples", type=int, default=5_000, help="for memory: to calibrate on")
    parser.add_argument("--models", nargs="+", default=attacks.MODELS, help="for attacks")
    parser.add_argument("--cases", type=int, help="for attacks: number of cases; default: all")
    parser.add_argument(
        "--ways", nargs="+", choices=attacks.WAYS, default=tuple(attacks.WAYS), help="for attacks"
    )
    parser.add_argument("--results", type=Path, default="attacks.jsonl", help="for attacks: file")
    parser.add_argument(
        "--queries",
        type=int,
        help="for the soak, learning-processes, the batches of overhead, and ray: examples",
    )
    parser.add_argument("--rounds", type=int, default=3, help="for ray")
    parser.add_argument("--rows", type=int, default=1_000_000, help="for ray: rows of the log")
    parser.add_argument("--streams", type=int, default=200, help="for learning-risks: streams")
    parser.add_argument(
        "--test", action="store_true", help="for the frontier and learning: on the test splits"
    )
    parser.add_argument("--loop", help="for structure: module:Class.method; default: looked for")
    wanted = parser.parse_args()
    by_name_only(wanted)
    past_one_process(wanted)
    of_defaults(wanted)
    of_the_surface(wanted)
    return 0 if wanted.only in WITHOUT_LOGS else of_policies(wanted)


def of_the_surface(wanted: argparse.Namespace) -> None:
    """Print what calls, traces, caches, reports and calibrations cost."""
    parts: dict[str, Callable[[], Iterable[Any]]] = {
        "overhead": lambda: overhead.tables(batch=(wanted.queries or 1_000, 5)),
        "surface": lambda: surface.tables(memory_calls=wanted.calls),
        "early": early.tables,
        "tracing": lambda: [tracing.table()],
        "learning-overhead": lambda: [learning_overhead.table()],
        "caching": caching.tables,
        "report": lambda: [report.table()],
        "structure": lambda: structure.tables(wanted.loop),
        "calibrate": lambda: [calibrating.throughput(), calibrating.memory(wanted.examples)],
    }
    for part, tables in parts.items():
        if wanted.only in (None, part):
            for heads, rows in tables():
                show(heads, rows)


def of_defaults(wanted: argparse.Namespace) -> None:
    """Print what a mix made without a check costs."""
    if wanted.only in (None, "defaults"):
        for heads, rows in defaults.tables():
            show(heads, rows)
    if wanted.only in (None, "first-contact"):
        show(*first_contact.table())


def by_name_only(wanted: argparse.Namespace) -> None:
    """Print what takes minutes or hours, if it is asked for."""
    if wanted.only == "attacks":
        for _, found in attacks.rows(wanted.models, wanted.results, wanted.cases, wanted.ways):
            show(attacks.HEADS, found)
    if wanted.only == "goals":
        print(f"Fits for max_loss={goals.MAX_LOSS:g}, judged on queries that they have not seen.\n")
        for heads, title, rows in goals.tables(list(quality.splits()), wanted.seeds):
            print(title)
            show(heads, rows)
    if wanted.only == "learning-processes":
        show(*learning_processes.table(wanted.queries or learning_processes.QUERIES))
    if wanted.only == "soak":
        soak = soaking.soaked(wanted.queries or 10_000)
        show(("soak", "figures"), list(soaking.figures(soak)))
        show(soaking.HEADS, list(soaking.held(soak)))


def past_one_process(wanted: argparse.Namespace) -> None:
    """Print what takes servers or workers of their own, if it is asked for."""
    if wanted.only == "ray":
        for heads, found in clusters.tables(wanted.rows, wanted.queries or 20_000, wanted.rounds):
            show(heads, found)
    if wanted.only == "serving":
        for heads, rows in serving.tables(requests=wanted.queries or serving.REQUESTS):
            show(heads, rows)


def of_policies(wanted: argparse.Namespace) -> int:
    """Print what needs a policy or the logs; 2 if they are not at hand."""
    modules = released.load()
    if modules is None:
        print("automix-llm is not at hand (AUTOMIX_LLM=DIR); its rows are left out.\n")
    if wanted.only in (None, "speed"):
        show(("speed", "time"), list(speed.rows(modules)))
    logs = list(quality.splits()) if wanted.only != "speed" else []
    if not logs and wanted.only != "speed":
        print(f"There are no logs in {quality.data_folder()}: set DATA to their folder.")
        return 2
    of_logs(logs, modules, wanted)
    of_streams(wanted)
    return 0


def of_logs(logs: list[Any], modules: Any, wanted: argparse.Namespace) -> None:
    """Print what is measured on the logs."""
    if wanted.only in (None, "quality", "pairs"):
        pairs(logs, modules, wanted.seeds)
    if wanted.only in (None, "quality", "chain"):
        chains(logs)
    if wanted.only in (None, "few"):
        few_labels(logs, wanted.draws)
    if wanted.only in (None, "prior"):
        for heads, rows in prior.tables(logs):
            show(heads, rows)
    if wanted.only in (None, "frontier"):
        frontiers(logs, on_test=wanted.test)
    if wanted.only in (None, "labels"):
        without_labels(wanted.seeds)
    if wanted.only in (None, "stopping"):
        stops(wanted.seeds)


def of_streams(wanted: argparse.Namespace) -> None:
    """Print what is measured on streams of queries."""
    if wanted.only in (None, "learning"):
        streams(wanted.seeds, on_test=wanted.test)
    if wanted.only in (None, "learning-risks"):
        risks(wanted.streams, wanted.seeds, on_test=wanted.test)
    if wanted.only == "learning-drift":
        show(*learning_drift.table())


def streams(seeds: int, *, on_test: bool) -> None:
    """Print what mixes gain that learn from a stream without a label."""
    print("Utility minus that of the better single model in hindsight, for mixes that learn from")
    print(f"{learning.QUERIES:,} queries without any label; mean over pairs with the last model,")
    print(f"cost weights and {seeds} streams; shadows are paid for. Targets for the second half:")
    print(f"{learning.TARGET:+} on average, no log below {learning.LEAST}.\n")
    for heads, rows in learning.tables(seeds, test=on_test):
        show(heads, rows)


def risks(number: int, seeds: int, *, on_test: bool) -> None:
    """Print what mixes risk that learn from a stream."""
    print("Promotions where the check says nothing; targets: at most 5 % worse policies.\n")
    show(*learning_risks.safety(number, test=on_test))
    print("Streams that shift half-way. Utility against two that do not learn.\n")
    show(*learning_risks.recovery(seeds))
    print("Streams that do not; target: at most one alarm in 10,000 queries.\n")
    show(*learning_risks.quiet(test=on_test))


def pairs(logs: list[Any], modules: Any, seeds: int) -> None:
    """Print a table per log: each model paired with the last, all cost weights."""
    print("Utility minus that of the better single model in hindsight, on the test split; mean")
    print("over pairs with the last model, cost weights and draws, with 95 % interval. The prior")
    print("for scores was estimated without the log's own benchmark.\n")
    means: dict[tuple[str, int | None], list[float]] = {}
    of_logs: dict[int | None, dict[str, float]] = {}
    for name, train, test in logs:
        prior = quality.prior_without(name)
        tallies = {size: _pairs_of(train, test, size, modules, seeds, prior) for size in SIZES}
        rows = []
        for method in tallies[None][0].gains:
            cells = []
            for size in SIZES:
                found = [tally.summary(method) for tally in tallies[size]]
                middle = float(np.mean([mean for mean, _ in found]))
                # The pairs share their queries, so their errors are not averaged away.
                half = float(np.mean([half for _, half in found]))
                means.setdefault((method, size), []).extend(mean for mean, _ in found)
                cells.append(f"{middle:+.4f} ± {half:.4f}")
                if method == "ours":
                    of_logs.setdefault(size, {})[name] = middle
            rows.append((method, *cells))
        drawn = np.mean([np.mean(tally.samples) for tally in tallies[None]])
        print(f"{name} ({drawn:.2f} verdicts a query, all training queries)")
        show(("method", *(f"{size or 'all'} labels" for size in SIZES)), rows)
        show(("no labels", "difference"), unlabelled_rows(train, test, prior, means))
    methods = [method for method, size in means if size is None]
    rows = [(m, *(f"{np.mean(means[m, size]):+.4f}" for size in SIZES)) for m in methods]
    print("all logs, mean over pairs")
    show(("method", *(f"{size or 'all'} labels" for size in SIZES)), rows)
    rows = [(m, f"{np.mean(found):+.4f}") for (m, size), found in means.items() if size == 0]
    show(("all logs", "difference"), rows)
    targets(means, of_logs)


def unlabelled_rows(train: Any, test: Any, prior: Any, means: dict[Any, list[float]]) -> list[Any]:
    """Return what is reached without labels on the pairs of a log."""
    tallies = []
    last = len(train.models) - 1
    for small in range(last):
        own, truth = (quality.only(columns, [small, last]) for columns in (train, test))
        tallies.append(quality.Tally())
        quality.measure_without_labels(own, truth, _weights(own), tallies[-1], prior)
    rows = []
    for method in tallies[0].gains:
        found = [tally.summary(method) for tally in tallies]
        means.setdefault((method, 0), []).extend(mean for mean, _ in found)
        middle, half = np.mean(found, axis=0)
        rows.append((method.removeprefix("no labels: "), f"{middle:+.4f} ± {half:.4f}"))
    return rows


def targets(means: dict[Any, list[float]], of_logs: dict[int | None, dict[str, float]]) -> None:
    """Print which targets the mean over pairs reaches, and the worst log."""
    rows = []
    for size, target in TARGETS.items():
        mean = float(np.mean(means["ours", size]))
        worst = min(of_logs[size], key=lambda name: of_logs[size][name])
        least = of_logs[size][worst]
        reached = "yes" if mean >= target and least >= LEAST else "no"
        figures = f"{mean:+.4f}", f"{target:+.4f}", f"{worst} {least:+.4f}", reached
        rows.append((str(size or "all"), *figures))
    show(("labels", "ours", "target", f"worst log (target {LEAST:+g})", "reached"), rows)


def _weights(train: Any) -> list[float]:
    return [multiple * quality.slope(train) for multiple in quality.MULTIPLES]


def frontiers(logs: list[Any], *, on_test: bool) -> None:
    """Print what shares of the best single model's quality cost, a table or two per log."""
    where = "the test split" if on_test else "two fifths of the train split, ten times"
    print("Cost at shares of the best single model's quality, as a share of its cost.\n")
    if on_test:
        print("Fitted to the train split to lose at most 0.01 of quality; on the test split:")
        for name, train, test in logs:
            print(f"  {name}: {frontier.headline(train, test)}")
        print()
    for name, train, test in logs:
        print(f"{name}: cross-fitted on its {'test' if on_test else 'train'} split")
        show(*frontier.cross_fitted(test if on_test else train))
        if len(train.models) > 2:
            print(f"{name}: fitted to the train split, judged on {where}")
            show(frontier.HEADS, list(frontier.against_pairs(train, test if on_test else None)))


def _pairs_of(
    train: Any, test: Any, size: int | None, modules: Any, seeds: int, prior: Any
) -> list[quality.Tally]:
    last = len(train.models) - 1
    tallies = []
    for small in range(last):
        tally = quality.Tally()
        own, truth = (quality.only(columns, [small, last]) for columns in (train, test))
        weights = _weights(own)
        for seed, part in enumerate(quality.draws(own, size, seeds)):
            quality.measure_pair(part, truth, weights, tally, modules, seed, prior)
        tallies.append(tally)
        sys.stdout.flush()
    return tallies


def few_labels(logs: list[Any], draws: int) -> None:
    """Print what a fit to few labels is worth beside the single model that they choose."""
    print("Utility minus that of the single model chosen on the same labels, on the test split:")
    print(f"{draws} draws of labels from the train splits, pairs and cost weights in turn.\n")
    rows = []
    for name, train, test in logs:
        prior = quality.prior_without(name)
        cells = []
        for size in FEW:
            found = quality.against_chosen_single(train, test, size, draws // len(logs), prior)
            worst = np.mean(np.sort(found)[: max(len(found) // 10, 1)])
            cells.append(f"{np.mean(found):+.4f} ({worst:+.4f})")
        rows.append((name, *cells))
    show(("log", *(f"{size} labels: mean (worst tenth)" for size in FEW)), rows)


def chains(logs: list[Any]) -> None:
    """Print what all models together gain over the best pair that the train split shows."""
    for name, train, test in logs:
        if len(train.models) < 3:
            continue
        rows = [
            (f"{multiple:g}", f"{chain:+.4f}", f"{pair:+.4f}")
            for multiple, chain, pair in quality.measure_chain(
                train, test, quality.prior_without(name)
            )
        ]
        middle = [f"{np.mean([float(row[k]) for row in rows]):+.4f}" for k in (1, 2)]
        print(f"{name}, all {len(train.models)} models")
        show(("cost weight / slope", "all models", "best pair"), [*rows, ("mean", *middle)])


def without_labels(seeds: int) -> None:
    """Print what fitting without references loses, per log and over all."""
    print("True utility on held-out queries minus that of the policy fitted with all labels, with")
    print("95 % interval over queries; mean over draws of the labels and two cost weights.\n")
    found = []
    for name, halves in (*labels.with_texts(seeds), *labels.without_texts(seeds)):
        heads, rows, tally = labels.table(halves)
        found.append(tally)
        print(name)
        show(heads, rows)
    print("all of these, mean; of what two wrong answers may do, the mean too")
    show(("fitted to", "difference to all labels"), labels.means(found))


def stops(seeds: int) -> None:
    """Print how many examples the sequential test saves, and what that costs."""
    print(f"Stopping at a tolerance of {TOLERANCE:g} of utility, with an error rate of 5 %;")
    print(f"streams of {stopping.EXAMPLES} examples, where no number is given.\n")
    show(("world", *stopping.HEADS), list(stopping.world_rows(seeds)))
    show(("log", *stopping.HEADS), list(stopping.log_rows(seeds)))


def show(heads: Sequence[str], rows: list[Any]) -> None:
    """Print a table and an empty line."""
    print("\n".join(text_table(heads, rows, width=WIDE)), end="\n\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
