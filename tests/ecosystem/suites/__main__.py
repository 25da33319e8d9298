"""Run other people's suites with a mix in the place of their fake chat models.

    python -m tests.ecosystem.suites [PACKAGE ...]

Fetches the source distributions of langchain, langgraph, langgraph-prebuilt and deepagents from the
package index, by pip, and says so where one holds no tests. `--tests PACKAGE=FOLDER` names tests
that are on this machine instead, such as those of a checked-out repository. Installs the packages,
what their `test` groups ask for, and this one into an environment of its own in a temporary folder,
or in `--folder`, which is kept, so that a second run neither fetches nor installs them again.

Runs each suite bare, with every draft accepted, and with every draft rejected (`suites_plugin.py`);
the last two once more by `AutoMixMiddleware` instead of `ChatAutoMix` where its agents take
middleware. Runs the test files that name a chat model or make an agent, or all with `--whole`.
`--postgres URI` runs the tests of LangGraph's checkpointers on servers, too: PostgreSQL there
(`postgres://postgres@127.0.0.1:5432/`), and Redis at localhost:6379.

What fails with a mix and not without is run again, and then with the mix's record left out of
comparisons; what fails still is looked up in `differences.py`. Prints, when all is done or when it
is interrupted, what passed and failed, and the differences by their kind.

Exits with 0; with 1 where something is unexpected: a difference that nobody looked into yet, a
suite that did not run to its end, a package that cannot be fetched or installed; with 130 when it
was interrupted. Not in CI.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.ecosystem.suites.differences import differences
from tests.ecosystem.suites.environment import (
    PACKAGES,
    CannotFetchError,
    fetch,
    files_that_ask,
    make_environment,
)
from tests.ecosystem.suites.running import Outcome, Suite, read_results, run
from tests.ecosystem.suites.tables import Results, say

INTERRUPTED = 130


def main() -> int:
    """Fetch, run, and print."""
    given = _arguments()
    results = Results()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _folder(given.folder) as place:
            _run_all(given, place, results)
    except KeyboardInterrupt:
        say("\nInterrupted. What there is so far:")
        results.print_tables()
        return INTERRUPTED
    except subprocess.CalledProcessError as error:
        results.unexpected.append(f"pip failed ({error.returncode}): {' '.join(error.cmd)}")
    results.print_tables()
    return 1 if results.unexpected else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("packages", nargs="*", default=PACKAGES)
    parser.add_argument(
        "--tests", action="append", default=[], metavar="PACKAGE=FOLDER", help="tests that are here"
    )
    parser.add_argument("--whole", action="store_true", help="run all test files of each suite")
    parser.add_argument("--folder", type=Path, help="work there, and keep what is fetched")
    parser.add_argument(
        "--postgres", default="", metavar="URI", help="a server; Redis is at localhost:6379"
    )
    return parser.parse_args()


@contextlib.contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    if kept is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    else:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.resolve()


def _run_all(given: argparse.Namespace, place: Path, results: Results) -> None:
    here = dict(each.split("=", 1) for each in given.tests)
    suites: dict[str, Path] = {}
    for package in dict.fromkeys([*given.packages, *here]):
        try:
            found = Path(here[package]).resolve() if package in here else fetch(package, place)
        except CannotFetchError as error:
            results.unexpected.append(f"{package}: {error}")
            continue
        if isinstance(found, str):
            results.without_tests.append(found)
            say(f"{package}: {found}.")
        else:
            suites[package] = found
    if not suites:
        results.unexpected.append("no suite can be run")
        return
    python = make_environment(place / "venv", suites)
    for package, tests in suites.items():
        files, total = files_that_ask(tests)
        few = "" if given.whole else f" ({len(files)} of {total} files: those that ask a model)"
        say(f"\n{package}{few}")
        chosen = () if given.whole else tuple(files)
        _run_one(Suite(package, tests, python, place, chosen, given.postgres), results)


def _run_one(suite: Suite, results: Results) -> None:
    bare = Outcome()
    for way in suite.ways:
        began = time.monotonic()
        try:
            outcome = run(suite, way)
        except KeyboardInterrupt:
            outcome = read_results(suite.results(way), "it was interrupted")
            results.add(suite.name, way, outcome, time.monotonic() - began)
            raise
        results.add(suite.name, way, outcome, time.monotonic() - began)
        if way == "bare":
            bare = outcome
        else:
            results.add_differences(suite.name, way, differences(suite, way, bare, outcome))


if __name__ == "__main__":
    sys.exit(main())
