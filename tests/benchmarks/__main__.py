"""Measure, and print one table per log."""

# ruff: noqa: T201

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from langchain_automix.policy.fitting.stopping import TOLERANCE
from langchain_automix.utils.tables import text_table
from tests.benchmarks import (
    attacks,
    caching,
    calibrating,
    defaults,
    goals,
    labels,
    prior,
    quality,
    released,
    report,
    soaking,
    speed,
    stopping,
    structure,
    surface,
    tracing,
)

SIZES = (50, 150, None)
PARTS = (
    "pairs",
    "chain",
    "prior",
    "labels",
    "stopping",
    "speed",
    "surface",
    "tracing",
    "caching",
    "defaults",
    "calibrate",
    "report",
    "attacks",
    "soak",
    "structure",
    "goals",
)
WITHOUT_LOGS = PARTS[-10:]


def main() -> int:
    """Run all; 2 if the logs are not at hand."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="draws of a training size")
    parser.add_argument("--only", choices=PARTS, help="one part of it")
    parser.add_argument("--calls", type=int, default=10_000, help="for memory: calls of the mix")
    parser.add_argument("--examples", type=int, default=5_000, help="for memory: to calibrate on")
    parser.add_argument("--models", nargs="+", default=attacks.MODELS, help="for attacks")
    parser.add_argument("--cases", type=int, help="for attacks: number of cases; default: all")
    parser.add_argument(
        "--ways", nargs="+", choices=attacks.WAYS, default=tuple(attacks.WAYS), help="for attacks"
    )
    parser.add_argument("--results", type=Path, default="attacks.jsonl", help="for attacks: file")
    parser.add_argument("--queries", type=int, default=10_000, help="for the soak: queries")
    parser.add_argument("--loop", help="for structure: module:Class.method; default: looked for")
    wanted = parser.parse_args()
    by_name_only(wanted)
    of_defaults(wanted)
    if wanted.only in (None, "surface"):
        for heads, rows in surface.tables(memory_calls=wanted.calls):
            show(heads, rows)
    if wanted.only in (None, "tracing"):
        show(*tracing.table())
    if wanted.only in (None, "caching"):
        for heads, rows in caching.tables():
            show(heads, rows)
    if wanted.only in (None, "report"):
        show(*report.table())
    if wanted.only in (None, "structure"):
        for heads, rows in structure.tables(wanted.loop):
            show(heads, rows)
    if wanted.only in (None, "calibrate"):
        show(*calibrating.throughput())
        show(*calibrating.memory(wanted.examples))
    return 0 if wanted.only in WITHOUT_LOGS else of_policies(wanted)


def of_defaults(wanted: argparse.Namespace) -> None:
    """Print what a mix made without a check costs."""
    if wanted.only in (None, "defaults"):
        for heads, rows in defaults.tables():
            show(heads, rows)


def by_name_only(wanted: argparse.Namespace) -> None:
    """Print what takes an hour or more, if it is asked for."""
    if wanted.only == "attacks":
        for _, found in attacks.rows(wanted.models, wanted.results, wanted.cases, wanted.ways):
            show(attacks.HEADS, found)
    if wanted.only == "goals":
        print(f"Fits for max_loss={goals.MAX_LOSS:g}, judged on queries that they have not seen.\n")
        for heads, title, rows in goals.tables(list(quality.splits()), wanted.seeds):
            print(title)
            show(heads, rows)
    if wanted.only == "soak":
        soak = soaking.soaked(wanted.queries)
        show(("soak", "figures"), list(soaking.figures(soak)))
        show(soaking.HEADS, list(soaking.held(soak)))


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
    return 0


def of_logs(logs: list[Any], modules: Any, wanted: argparse.Namespace) -> None:
    """Print what is measured on the logs."""
    if wanted.only in (None, "pairs"):
        pairs(logs, modules, wanted.seeds)
    if wanted.only in (None, "chain"):
        chains(logs)
    if wanted.only in (None, "prior"):
        for heads, rows in prior.tables(logs):
            show(heads, rows)
    if wanted.only in (None, "labels"):
        without_labels(wanted.seeds)
    if wanted.only in (None, "stopping"):
        stops(wanted.seeds)


def pairs(logs: list[Any], modules: Any, seeds: int) -> None:
    """Print a table per log: each model paired with the last, all cost weights."""
    print("Utility minus that of the better single model in hindsight, on the test split; mean")
    print("over pairs with the last model, cost weights and draws, with 95 % interval.\n")
    means: dict[tuple[str, int | None], list[float]] = {}
    for name, train, test in logs:
        tallies = {size: _pairs_of(train, test, size, modules, seeds) for size in SIZES}
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
            rows.append((method, *cells))
        drawn = np.mean([np.mean(tally.samples) for tally in tallies[None]])
        print(f"{name} ({drawn:.2f} verdicts a query, all training queries)")
        show(("method", *(f"{size or 'all'} training queries" for size in SIZES)), rows)
    methods = dict.fromkeys(method for method, _ in means)
    rows = [(m, *(f"{np.mean(means[m, size]):+.4f}" for size in SIZES)) for m in methods]
    print("all logs, mean over pairs")
    show(("method", *(f"{size or 'all'} training queries" for size in SIZES)), rows)


def _pairs_of(
    train: Any, test: Any, size: int | None, modules: Any, seeds: int
) -> list[quality.Tally]:
    last = len(train.models) - 1
    tallies = []
    for small in range(last):
        tally = quality.Tally()
        chosen = [quality.only(columns, [small, last]) for columns in (train, test)]
        for seed, part in enumerate(quality.draws(chosen[0], size, seeds)):
            quality.measure_pair(part, chosen[1], tally, modules, seed)
        tallies.append(tally)
        sys.stdout.flush()
    return tallies


def chains(logs: list[Any]) -> None:
    """Print what all models together gain over the best pair that the train split shows."""
    for name, train, test in logs:
        if len(train.models) < 3:
            continue
        rows = [
            (f"{multiple:g}", f"{chain:+.4f}", f"{pair:+.4f}")
            for multiple, chain, pair in quality.measure_chain(train, test)
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


def show(heads: tuple[str, ...], rows: list[Any]) -> None:
    """Print a table and an empty line."""
    print("\n".join(text_table(heads, rows)), end="\n\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
