"""The script that runs other people's suites, on a small suite of our own."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.ecosystem.suites import __main__ as script
from tests.ecosystem.suites.differences import Difference, differences
from tests.ecosystem.suites.environment import ROOT, fetch, files_that_ask
from tests.ecosystem.suites.running import WAYS, Outcome, Suite, read_results, run
from tests.ecosystem.suites.tables import Results

pytestmark = pytest.mark.wire  # it starts processes

AGENT = """
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage, HumanMessage


def ask():
    model = FakeMessagesListChatModel(responses=[AIMessage("Rain.", id="1")])
    return create_agent(model).invoke({"messages": [HumanMessage("?", id="0")]})["messages"]


def test_text():
    assert [message.text for message in ask()] == ["?", "Rain."]


def test_whole_message():
    assert ask()[-1] == AIMessage("Rain.", id="1", name=None)


def test_fails_without_us():
    assert ask() == []
"""
GRAPH = """
from langchain_core.language_models.fake_chat_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage


class FakeOfTheirs(FakeMessagesListChatModel):
    pass


def test_made_by_the_test():
    model = FakeMessagesListChatModel(responses=[AIMessage("Rain.")])
    assert "automix" not in model.invoke("?").response_metadata


def test_made_by_a_class_of_the_test():
    model = FakeOfTheirs(responses=[AIMessage("Rain.")])
    assert "automix" not in model.invoke("?").response_metadata
"""
DATABASE = """
import os

DEFAULT_POSTGRES_URI = "postgres://elsewhere/"


def test_its_place():
    assert DEFAULT_POSTGRES_URI == "postgres://here/"
    assert os.environ["NO_DOCKER"] == "false"
"""
KILLED = """
import os, signal


def test_passes():
    pass


def test_kills():
    os.kill(os.getpid(), signal.SIGKILL)
"""
HANGS = """
import time


def test_passes():
    pass


def test_hangs():
    time.sleep(60)
"""
INTERRUPTED = """
import sys
from pathlib import Path
from tests.ecosystem.suites import __main__ as script

script.make_environment = lambda place, suites: sys.executable
sys.argv = ["suites", "theirs", "--tests", "theirs={tests}", "--whole", "--folder", "{folder}"]
sys.exit(script.main())
"""
SORTED = """
import os, pathlib
from langchain_core.language_models.fake_chat_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage


def fake():
    return FakeMessagesListChatModel(responses=[AIMessage("Rain.", id="1")])


def test_whole_message():
    assert fake().invoke("?") == AIMessage("Rain.", id="1")


def test_passes_the_next_time():
    seen = pathlib.Path(__file__).with_name("seen")
    if os.environ["AUTOMIX_SUITE"] != "bare" and not seen.exists():
        seen.touch()
        raise AssertionError("not yet")


def test_state_graph_packets():
    fake().i = 1


def test_a_fault_of_ours():
    fake().i = 1
"""


def _suite(folder: Path, text: str, name: str = "theirs") -> Suite:
    tests = folder / "tests"
    tests.mkdir()
    (tests / "test_theirs.py").write_text(text)
    return Suite(name, tests, sys.executable, folder)


def _names(tests: Any) -> set[str]:
    return {test.split("::")[-1] for test in tests}


@pytest.mark.parametrize("way", ["bare", "accepted", "rejected, middleware"])
def test_a_way_of_putting_a_mix_in(tmp_path: Path, way: str) -> None:
    outcome = run(_suite(tmp_path, AGENT), way)
    passed, failed = _names(outcome.passed), _names(outcome.failed)
    assert not outcome.problem
    assert ("test_whole_message" in failed) == (way != "bare")
    assert passed | failed == {"test_text", "test_whole_message", "test_fails_without_us"}
    assert "test_text" in passed
    assert "test_fails_without_us" in failed
    assert outcome.counted.get("mixes", 0) == (0 if way == "bare" else 3)
    assert outcome.counted.get("drafts", 0) == (3 if WAYS[way][0] == "rejected" else 0)


def test_a_record_that_is_ignored_makes_no_message_unequal(tmp_path: Path) -> None:
    outcome = run(_suite(tmp_path, AGENT), "accepted", ignoring=True)
    assert _names(outcome.passed) == {"test_text", "test_whole_message"}


def test_fakes_become_mixes_as_they_are_made(tmp_path: Path) -> None:
    outcome = run(_suite(tmp_path, GRAPH, "langgraph"), "accepted")
    assert _names(outcome.passed) == {"test_made_by_a_class_of_the_test"}
    assert _names(outcome.failed) == {"test_made_by_the_test"}


def test_tests_that_use_a_database_find_it(tmp_path: Path) -> None:
    suite = _suite(tmp_path, DATABASE)
    assert not run(suite, "bare").passed
    outcome = run(dataclasses.replace(suite, postgres="postgres://here/"), "bare")
    assert _names(outcome.passed) == {"test_its_place"}


def test_a_suite_that_cannot_start_says_why(tmp_path: Path) -> None:
    suite = _suite(tmp_path, AGENT)
    (tmp_path / "tests" / "conftest.py").write_text("import no_such_module_here")
    outcome = run(suite, "bare")
    assert not outcome.passed
    assert not outcome.failed
    assert "no_such_module_here" in outcome.problem


def test_a_run_that_was_killed_keeps_what_it_came_to(tmp_path: Path) -> None:
    suite = _suite(tmp_path, KILLED)
    outcome = run(suite, "bare")
    assert _names(outcome.passed) == {"test_passes"}
    assert _names(outcome.failed) == {"test_kills"}
    assert "it did not end" in outcome.failed.values()
    assert outcome.problem.startswith("pytest stopped")
    file = suite.results("bare")
    file.write_text(f'{file.read_text()}{{"test": "cut')  # a line that was being written
    assert read_results(file, "again").passed == outcome.passed


def test_differences_are_sorted_by_what_was_tried_and_by_what_is_known(tmp_path: Path) -> None:
    suite = _suite(tmp_path, SORTED, "langgraph")
    bare, mixed = run(suite, "bare"), run(suite, "accepted")
    assert not bare.failed
    found = {
        each.test.split("::")[-1]: each for each in differences(suite, "accepted", bare, mixed)
    }
    assert {name: each.kind for name, each in found.items()} == {
        "test_whole_message": "record",
        "test_passes_the_next_time": "not each time",
        "test_state_graph_packets": "fakes",
        "test_a_fault_of_ours": "",
    }
    assert "no field" in found["test_a_fault_of_ours"].why


def test_a_test_that_is_not_run_with_a_mix_is_a_difference(tmp_path: Path) -> None:
    suite = Suite("theirs", tmp_path, sys.executable, tmp_path)
    bare, mixed = Outcome(frozenset({"a", "b"})), Outcome(frozenset({"a"}))
    assert differences(suite, "accepted", bare, mixed) == [Difference("b", "", "it was not run")]


@pytest.mark.parametrize(
    ("way", "outcome", "found", "unexpected"),
    [
        ("bare", Outcome(frozenset("a"), {"b": "no"}), [], None),
        ("bare", Outcome(frozenset("a"), problem="it hung"), [], "it hung"),
        ("bare", Outcome(), [], "no test passed"),
        ("accepted", Outcome(frozenset("a")), [], "no mix was put in"),
        ("accepted", Outcome(frozenset("a"), counted={"mixes": 1}), [], None),
        (
            *("accepted", Outcome(frozenset("a"), {"b": "no"}, counted={"mixes": 1})),
            *([Difference("b", "record", "")], None),
        ),
        (
            *("accepted", Outcome(frozenset("a"), {"b": "no"}, counted={"mixes": 1})),
            *([Difference("b", "", "no")], "b: no"),
        ),
    ],
)
def test_what_is_unexpected(
    way: str,
    outcome: Outcome,
    found: list[Difference],
    unexpected: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = Results()
    results.add("theirs", way, outcome, 1.0)
    if way != "bare":
        results.add_differences("theirs", way, found)
    results.print_tables()
    printed = capsys.readouterr().out
    assert len(results.unexpected) == (unexpected is not None)
    assert (unexpected or "Nothing unexpected.") in printed
    figure = f"{len(outcome.passed)} / {len(outcome.failed)}"
    assert f"| theirs | {'' if way == 'bare' else '- | '}{figure}" in printed


def test_an_interrupted_script_prints_what_there_is(tmp_path: Path) -> None:
    """The environment is this one: its folder looks as one that was made before."""
    suite = _suite(tmp_path, HANGS)
    code = INTERRUPTED.format(tests=str(suite.tests), folder=str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        _wait_for(lambda: "test_hangs" in _read(suite.results("bare")))
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == script.INTERRUPTED
    assert "| theirs | 1 / 1, cut short | - |" in printed
    assert "theirs, bare: it was interrupted" in printed


def _read(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def _wait_for(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_source_distribution_without_tests_says_so(tmp_path: Path) -> None:
    root = tmp_path / "theirs-1.0"
    (root / "theirs").mkdir(parents=True)
    with tarfile.open(tmp_path / "theirs-1.0.tar.gz", "w:gz") as archive:
        archive.add(root, root.name)
    assert fetch("theirs", tmp_path) == "theirs-1.0.tar.gz holds no tests"


def test_files_that_have_to_do_with_a_chat_model(tmp_path: Path) -> None:
    (tmp_path / "integration_tests").mkdir()
    for name, text in {
        "test_agent.py": "create_agent(model)",
        "test_sum.py": "assert 1 + 1 == 2",
        "integration_tests/test_agent.py": "create_agent(model)",
    }.items():
        (tmp_path / name).write_text(text)
    assert files_that_ask(tmp_path) == ([tmp_path / "test_agent.py"], 2)
