"""Run a suite once, and read what came of it, also where it was stopped."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.ecosystem.suites.environment import LEFT_OUT

WAYS = {  # what is done with drafts, and where the mix goes
    "bare": ("bare", "model"),
    "accepted": ("accepted", "model"),
    "rejected": ("rejected", "model"),
    "accepted, middleware": ("accepted", "middleware"),
    "rejected, middleware": ("rejected", "middleware"),
}
# Suites whose graphs ask their fake chat models themselves, mostly without an agent.
MADE_BY_TESTS = ("langgraph",)
# Suites whose agents take no middleware.
WITHOUT_MIDDLEWARE = ("langgraph", "langgraph-prebuilt")
_SECONDS = 3_600
_SECONDS_OF_A_TEST = 120
_ENDED = (0, 1)  # pytest's exit codes where all tests were run


@dataclass(frozen=True)
class Outcome:
    """What a run of a suite came to.

    Attributes:
        passed: The tests that passed.
        failed: The tests that failed, and those that began and did not end, each with its error.
        skipped: The tests that were skipped.
        counted: How often a mix was made, and what it did.
        problem: Why it did not run to its end; empty if it did.
    """

    passed: frozenset[str] = frozenset()
    failed: Mapping[str, str] = field(default_factory=dict)
    skipped: frozenset[str] = frozenset()
    counted: Mapping[str, int] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class Suite:
    """A suite, and how it is run.

    Attributes:
        name: The package whose suite it is.
        tests: The folder of its tests.
        python: The Python of the environment.
        folder: Where the plugin and the results go.
        files: The test files to run; empty: all.
        postgres: The server for tests of its checkpointers, a URI that the name of a database
            can follow; they then use Redis at localhost:6379, too. Empty: neither.
    """

    name: str
    tests: Path
    python: str
    folder: Path
    files: Sequence[Path] = ()
    postgres: str = ""

    @property
    def ways(self) -> list[str]:
        """The ways in which it can be run."""
        takes = self.name not in WITHOUT_MIDDLEWARE
        return [way for way, (_, door) in WAYS.items() if takes or door != "middleware"]

    def results(self, way: str) -> Path:
        """Return the file to which a run writes what it came to."""
        return self.folder / f"{self.name}, {way}.jsonl"


def run(suite: Suite, way: str, *, chosen: Sequence[str] = (), ignoring: bool = False) -> Outcome:
    """Run a suite once.

    Args:
        suite: The suite.
        way: One of `WAYS`.
        chosen: The tests to run, by their ids; empty: all of its files.
        ignoring: Whether messages compare equal without the record of the mix.
    """
    # Not by its place in this repository, whose `tests` would hide theirs.
    plugin = Path(shutil.copy(Path(__file__).with_name("suites_plugin.py"), suite.folder))
    results = suite.results(way)
    results.unlink(missing_ok=True)
    command = [suite.python, "-m", "pytest", "-q", "-p", plugin.stem]
    command += [f"--ignore-glob=*/{name}/*" for name in LEFT_OUT]
    command += ["--continue-on-collection-errors"]
    # Of the sockets to elsewhere; where there are servers, only those to this machine.
    here = ["--allow-hosts=127.0.0.1,::1"] if suite.postgres else ["--disable-socket"]
    command += [*here, "--allow-unix-socket"]
    command += list(chosen) or [str(each) for each in suite.files or [suite.tests]]
    environment = {
        "AUTOMIX_SUITE": WAYS[way][0],
        "AUTOMIX_SUITE_DOOR": WAYS[way][1],
        "AUTOMIX_SUITE_RECORD": "ignored" if ignoring else "",
        "AUTOMIX_SUITE_FAKES": "mixed" if suite.name in MADE_BY_TESTS else "",
        "AUTOMIX_SUITE_POSTGRES": suite.postgres,
        "AUTOMIX_SUITE_RESULTS": str(results),
        "PATH": f"{Path(suite.python).parent}:/usr/bin:/bin",
        "PYTHONPATH": str(plugin.parent),
        "ANTHROPIC_API_KEY": "test",  # deepagents makes its default model; nobody asks it
        "LANGSMITH_TRACING": "false",
        "PYTEST_TIMEOUT": str(_SECONDS_OF_A_TEST),  # a test that hangs fails; the others are run
        "NO_DOCKER": "false" if suite.postgres else "true",  # LangGraph's: whether it has servers
    }
    try:
        done = subprocess.run(
            command,
            cwd=suite.tests.parent,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        problem = f"pytest stopped: {(done.stderr or done.stdout).strip()[-400:]}"
    except subprocess.TimeoutExpired:
        problem = f"it was stopped after {_SECONDS} s"
    return read_results(results, problem)


def read_results(results: Path, problem: str) -> Outcome:
    """Return what a run came to, by the plugin's lines, of which the last may be cut.

    Args:
        results: The file with a line for each test that began, ended or failed.
        problem: What is said where the run did not come to its end.
    """
    outcomes: dict[str, str] = {}
    failed: dict[str, str] = {}
    counted: Mapping[str, int] = {}
    lines = results.read_text().splitlines() if results.exists() else []
    for line in lines:
        try:
            told = json.loads(line)
        except ValueError:
            continue
        if "exit" in told:
            counted = told["counted"]
            problem = "" if told["exit"] in _ENDED else problem
        elif told["outcome"] == "failed":
            failed.setdefault(told["test"], told["why"])
        else:
            outcomes[told["test"]] = told["outcome"]
    for test, outcome in outcomes.items():
        if outcome == "began":
            failed.setdefault(test, "it did not end")
    passed = {test for test, outcome in outcomes.items() if outcome == "passed"}
    skipped = {test for test, outcome in outcomes.items() if outcome == "skipped"}
    return Outcome(frozenset(passed - failed.keys()), failed, frozenset(skipped), counted, problem)
