"""Run other people's suites with a mix in the place of their fake chat models.

    python -m tests.ecosystem.suites [PACKAGE ...]

Fetches the source distributions of langchain, langgraph, langgraph-prebuilt and deepagents from the
package index, by pip, and says so where one holds no tests. `--tests PACKAGE=FOLDER` names tests
that are on this machine instead, such as those of a checked-out repository. Installs the packages,
what their `test` groups ask for, and this one into an environment of its own in a temporary folder.

Runs each suite bare, with every draft accepted, and with every draft rejected
(`suites_plugin.py`); the last two once more with the mix's record left out of comparisons, since
many tests compare whole messages, and once more by `AutoMixMiddleware` instead of `ChatAutoMix`.
Runs the test files that name a chat model or make an agent, or all with `--whole`. Prints what
passed and failed, and which tests fail with a mix alone. Not in CI.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGES = ("langchain", "langgraph", "langgraph-prebuilt", "deepagents")
WAYS = {  # what is done with drafts, where the mix goes, whether its record counts in comparisons
    "bare": ("bare", "model", ""),
    "accepted": ("accepted", "model", ""),
    "rejected": ("rejected", "model", ""),
    "accepted, record ignored": ("accepted", "model", "ignored"),
    "rejected, record ignored": ("rejected", "model", "ignored"),
    "accepted, by the middleware": ("accepted", "middleware", ""),
    "rejected, by the middleware": ("rejected", "middleware", ""),
}
# What their tests import beside the packages themselves.
TEST_TOOLS = (
    *("pytest>=8", "pytest-asyncio", "pytest-mock", "pytest-socket", "pytest-xdist", "syrupy"),
    *("blockbuster", "dirty-equals", "freezegun", "httpx", "langchain-anthropic"),
    *("langchain-openai", "langchain-tests", "langgraph-checkpoint-sqlite", "pytest-timeout"),
    *("langgraph-checkpoint-postgres", "psycopg[binary,pool]"),
)
# Suites whose graphs ask their fake chat models themselves, mostly without an agent.
MADE_BY_TESTS = ("langgraph",)
# What a test file says that has to do with a chat model.
_ASKS = re.compile(r"ChatModel|CallingModel|create_\w*agent")
# Not theirs to pass here: they ask other servers, or measure.
LEFT_OUT = ("integration_tests", "benchmarks", "evals")
_SECONDS = 1_800


class Outcome(NamedTuple):
    """What a run of a suite came to."""

    passed: frozenset[str]
    failed: frozenset[str]
    note: str


def fetch(package: str, folder: Path) -> Path | str:
    """Return the folder of a package's tests in its source distribution, or why there is none."""
    options = ["--quiet", "--no-deps", "--no-binary", package, "--dest", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, package],
        capture_output=True,
        text=True,
        check=False,
    )
    name = package.replace("-", "[-_]")
    found = [each for each in folder.glob("*.tar.gz") if re.match(rf"{name}-\d", each.name)]
    if not found:
        last = done.stderr.strip().splitlines()[-1:] or ["pip gave no reason"]
        return f"the index has no source distribution that can be fetched ({last[0]})"
    with tarfile.open(found[0]) as archive:
        archive.extractall(folder, filter="data")
    root = folder / found[0].name.removesuffix(".tar.gz")
    if not any(root.glob("tests/**/test_*.py")):
        return f"{found[0].name} holds no tests"
    return root / "tests"


def make_environment(place: Path, suites: Mapping[str, Path]) -> str:
    """Return the Python of a new environment with the packages, their tools, and this one."""
    venv.create(place, with_pip=True)
    python = str(place / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, f"{ROOT}[cli]", *suites], check=True)
    theirs = [tool for tests in suites.values() for tool in _test_group(tests)]
    tools = [*TEST_TOOLS, *theirs]
    if subprocess.run([*install, *tools], check=False).returncode:
        for tool in tools:  # one that cannot be installed leaves out what imports it
            subprocess.run([*install, tool], check=False)
    return python


def _test_group(tests: Path) -> list[str]:
    """Return what a suite's own `test` group asks for; nothing where its project is not here."""
    project = next((each / "pyproject.toml" for each in tests.parents if _is_project(each)), None)
    if project is None:
        return []
    groups = tomllib.loads(project.read_text()).get("dependency-groups", {})
    return [each for each in groups.get("test", ()) if isinstance(each, str)]


def _is_project(folder: Path) -> bool:
    return (folder / "pyproject.toml").exists()


def files_that_ask(tests: Path) -> tuple[list[Path], int]:
    """Return the test files that have to do with a chat model, and how many there are in all."""
    found = [
        each
        for each in sorted(tests.rglob("test_*.py"))
        if not set(each.relative_to(tests).parts) & set(LEFT_OUT)
    ]
    return [each for each in found if _ASKS.search(each.read_text())], len(found)


def run(
    python: str, tests: Path, how: str, report: Path, *, files: Sequence[Path] = (), fakes: str = ""
) -> Outcome:
    """Run a suite once.

    Args:
        python: The Python of the environment.
        tests: The folder of the suite's tests.
        how: One of `WAYS`.
        report: Where pytest writes its report.
        files: The test files to run; empty: all.
        fakes: `mixed` where fake chat models become mixes as they are made.

    Returns:
        What the run came to.
    """
    ignored = [f"--ignore-glob=*/{name}/*" for name in LEFT_OUT]
    # Not by its place in this repository, whose `tests` would hide theirs.
    plugin = Path(shutil.copy(Path(__file__).with_name("suites_plugin.py"), report.parent))
    command = [python, "-m", "pytest", "-q", "-p", plugin.stem, *ignored]
    command += ["--continue-on-collection-errors", f"--junitxml={report}"]
    command += ["--disable-socket", "--allow-unix-socket"]
    command += [str(each) for each in files or [tests]]
    environment = {
        "AUTOMIX_SUITE": WAYS[how][0],
        "AUTOMIX_SUITE_DOOR": WAYS[how][1],
        "AUTOMIX_SUITE_RECORD": WAYS[how][2],
        "AUTOMIX_SUITE_FAKES": fakes,
        "PATH": f"{Path(python).parent}:/usr/bin:/bin",
        "PYTHONPATH": str(plugin.parent),
        "ANTHROPIC_API_KEY": "test",  # deepagents makes its default model; nobody asks it
        "LANGSMITH_TRACING": "false",
        "PYTEST_TIMEOUT": "120",  # so that a test that hangs fails, and the others are run
        "NO_DOCKER": "true",  # LangGraph's: no PostgreSQL and no Redis in containers
    }
    try:
        done = subprocess.run(
            command,
            cwd=tests.parent,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome(frozenset(), frozenset(), f"not done after {_SECONDS} s")
    note = next((line for line in done.stdout.splitlines() if line.startswith("automix suite")), "")
    return _read(report, note or f"pytest stopped: {(done.stderr or done.stdout)[-400:]}")


def _read(report: Path, note: str) -> Outcome:
    if not report.exists():
        return Outcome(frozenset(), frozenset(), note)
    passed: set[str] = set()
    failed: set[str] = set()
    for case in ET.parse(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            failed.add(name)
        elif "skipped" not in kinds:
            passed.add(name)
    return Outcome(frozenset(passed - failed), frozenset(failed), note)


def main() -> int:
    """Fetch, run, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("packages", nargs="*", default=PACKAGES)
    parser.add_argument(
        "--tests", action="append", default=[], metavar="PACKAGE=FOLDER", help="tests that are here"
    )
    parser.add_argument("--whole", action="store_true", help="run all test files of each suite")
    given = parser.parse_args()
    here = dict(each.split("=", 1) for each in given.tests)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        suites: dict[str, Path] = {}
        for package in dict.fromkeys([*given.packages, *here]):
            found = Path(here[package]).resolve() if package in here else fetch(package, place)
            if isinstance(found, str):
                print(f"{package}: {found}.")  # noqa: T201
            else:
                suites[package] = found
        if not suites:
            print("No suite can be run.")  # noqa: T201
            return 1
        python = make_environment(place / "venv", suites)
        for package, tests in suites.items():
            files, total = files_that_ask(tests)
            few = "" if given.whole else f" ({len(files)} of {total} files: those that ask a model)"
            print(f"\n{package}{few}", flush=True)  # noqa: T201
            fakes = "mixed" if package in MADE_BY_TESTS else ""
            outcomes: dict[str, Outcome] = {}
            for how in WAYS:
                if fakes and WAYS[how][1] == "middleware":
                    continue  # its tests make no agent that takes middleware
                report = place / f"{package}, {how}.xml"
                chosen = () if given.whole else files
                outcomes[how] = run(python, tests, how, report, files=chosen, fakes=fakes)
            _print(outcomes)
    return 0


def _print(outcomes: dict[str, Outcome]) -> None:
    bare = outcomes["bare"]
    for how, outcome in outcomes.items():
        new = sorted(outcome.failed - bare.failed)
        print(  # noqa: T201
            f"  {how}: {len(outcome.passed)} passed, {len(outcome.failed)} failed, of which "
            f"{len(new)} not without a mix. {outcome.note}"
        )
        for name in new:
            print(f"    {name}")  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
