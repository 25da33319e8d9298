"""The script that runs other people's suites, on a small suite of our own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.ecosystem.suites import WAYS, Outcome, files_that_ask, run

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


def _run(folder: Path, how: str, text: str, fakes: str = "") -> tuple[set[str], set[str], Outcome]:
    tests = folder / "tests"
    tests.mkdir()
    (tests / "test_theirs.py").write_text(text)
    outcome = run(sys.executable, tests, how, folder / "report.xml", fakes=fakes)
    passed, failed = ({name.split("::")[-1] for name in names} for names in outcome[:2])
    return passed, failed, outcome


@pytest.mark.parametrize("how", ["bare", "accepted", "rejected, by the middleware"])
def test_a_way_of_putting_a_mix_in(tmp_path: Path, how: str) -> None:
    passed, failed, outcome = _run(tmp_path, how, AGENT)
    assert ("test_whole_message" in failed) == (how != "bare"), outcome.note
    assert passed | failed == {"test_text", "test_whole_message", "test_fails_without_us"}
    assert "test_text" in passed
    assert "test_fails_without_us" in failed
    assert ("'mixes': 3" in outcome.note) == (how != "bare")
    assert ("'drafts': 3" in outcome.note) == (WAYS[how][0] == "rejected")


def test_a_record_that_is_ignored_makes_no_message_unequal(tmp_path: Path) -> None:
    passed, _, outcome = _run(tmp_path, "accepted, record ignored", AGENT)
    assert passed == {"test_text", "test_whole_message"}, outcome.note


def test_fakes_become_mixes_as_they_are_made(tmp_path: Path) -> None:
    passed, failed, outcome = _run(tmp_path, "accepted", GRAPH, fakes="mixed")
    assert passed == {"test_made_by_a_class_of_the_test"}, outcome.note
    assert failed == {"test_made_by_the_test"}


def test_a_suite_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "conftest.py").write_text("import no_such_module_here")
    outcome = run(sys.executable, tmp_path / "tests", "bare", tmp_path / "report.xml")
    assert not outcome.passed | outcome.failed
    assert "no_such_module_here" in outcome.note


def test_files_that_have_to_do_with_a_chat_model(tmp_path: Path) -> None:
    (tmp_path / "integration_tests").mkdir()
    for name, text in {
        "test_agent.py": "create_agent(model)",
        "test_sum.py": "assert 1 + 1 == 2",
        "integration_tests/test_agent.py": "create_agent(model)",
    }.items():
        (tmp_path / name).write_text(text)
    assert files_that_ask(tmp_path) == ([tmp_path / "test_agent.py"], 2)
