"""What reads a text on a query's path takes time in proportion to it, however hostile the text."""

from __future__ import annotations

import gc
import re
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from langchain_automix.calibration.graders.judges import LLMJudge
from langchain_automix.mix.limits.spend_limit import SpendLimit
from langchain_automix.utils.json_values import find_json
from langchain_automix.utils.text import normalize_answer, printable, quote_lines
from langchain_automix.verifiers.agreement import AgreementVerifier
from langchain_automix.verifiers.inputs import check_context
from langchain_automix.verifiers.prompting.languages import chinese, french, german, spanish
from langchain_automix.verifiers.prompting.quoting import as_json, plain
from langchain_automix.verifiers.prompting.truncation import truncate_context
from langchain_automix.verifiers.prompting.verdicts import parse_structured, parse_verdict
from langchain_automix.verifiers.prompting.wording import ENGLISH
from langchain_automix.verifiers.statements import Passage, statements
from langchain_automix.verifiers.support import SupportVerifier

Read = Callable[[str], Any]

_STRIDE = 2**4
_MOST = 4 * _STRIDE
"""Times as long as a 16th of it that a text may take: quadratic time grows by the square of 16."""

_LEAST = 0.2
"""Seconds of the processor that any text may take, so that a short time is never judged."""

_OF_RUNS, _OF_ONE_RUN = 2**20, 2**18
"""Characters of a text of many runs, each of which must be long; and of one run alone."""


def seconds(read: Read, text: str) -> float:
    """Return the time of this process that reading a text takes."""
    start = time.process_time()
    read(text)
    return time.process_time() - start


def assert_linear(read: Read, text_of: Callable[[int], str], length: int = _OF_ONE_RUN) -> None:
    """Fail where a text takes far more than 16 times as long as a 16th of it.

    This is the one test that measures: what a pattern does cannot be counted. It goes by the time
    of this process, stops a reader that takes too long, and gives it two more tries.
    """
    part, whole = text_of(length // _STRIDE), text_of(length)
    for _ in range(3):
        allowed = max(_MOST * min(seconds(read, part) for _ in range(2)), _LEAST)
        if is_read_within(allowed, read, whole):
            return
    pytest.fail(f"a text takes more than {_MOST} times as long as a {_STRIDE}th of it")


class _TooLongError(BaseException):
    """The time is up."""


def is_read_within(allowed: float, read: Read, text: str) -> bool:
    """Return whether a text is read within so many seconds of this process."""

    def stop(*_: object) -> None:
        raise _TooLongError

    usual = signal.signal(signal.SIGVTALRM, stop)
    gc.disable()  # a collection of all that the suite has loaded is no part of the reading
    signal.setitimer(signal.ITIMER_VIRTUAL, allowed)
    try:
        read(text)
    except _TooLongError:
        return False
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        gc.enable()
        signal.signal(signal.SIGVTALRM, usual)
    return True


def judge(reply: str) -> object:
    model = FakeListChatModel(responses=[reply])
    return LLMJudge(model=model).invoke(
        {"question": "q", "answer": "a", "references": ["b"], "context": None}
    )


def support(text: str) -> object:
    return SupportVerifier().invoke({"question": "q", "context": text, "answer": "It stood here."})


def agreement(text: str) -> object:
    verifier = AgreementVerifier(model=FakeListChatModel(responses=[text]), samples=1)
    return verifier.invoke({"question": "q", "answer": "Paris 7."})


def agreement_judged(text: str) -> object:
    judge = FakeListChatModel(responses=[text])
    verifier = AgreementVerifier(
        model=FakeListChatModel(responses=["Rome"]), samples=1, compare=judge
    )
    return verifier.invoke({"question": "q", "answer": "Paris 7."})


def conversation(text: str) -> object:
    call = {"name": "look", "args": {"at": text}, "id": "1"}
    return check_context(
        {
            "question": "q",
            "answer": "a",
            "messages": [
                HumanMessage(text),
                AIMessage("", tool_calls=[call]),
                ToolMessage(text, tool_call_id="1"),
            ],
        }
    )


def structured(text: str) -> object:
    return parse_structured(f'{{"reasoning": "{text}", "correct": true}}')


def spend_limit(text: str) -> None:
    with pytest.raises(ValueError, match="amount"):
        SpendLimit(limit=f"1{text}x")


READERS: dict[str, Read] = {
    "verdict": parse_verdict,
    "structured verdict": structured,
    "judge": judge,
    "quoted": lambda text: plain(text, ENGLISH),
    "as JSON": as_json,
    "quoted lines": quote_lines,
    "printable": printable,
    "JSON": find_json,
    "normalised": normalize_answer,
    "truncated": lambda text: truncate_context(
        text, relevant_to="a b", fits=lambda part: len(part) < 500
    ),
    "conversation": conversation,
    "statements": lambda text: statements(text, 8),
    "passage": Passage,
    "support": support,
    "agreement": agreement,
    "agreement judged": agreement_judged,
    "spend limit": spend_limit,
}

RUNS = (
    *(
        " ",
        "\t",
        "\n",
        "\n ",
        "*",
        "_",
        "#",
        ".",
        '."',
        "\u201d",
        "`",
        "```\n",
        "-",
        "1",
        "1,",
        "1.1.",
    ),
    *(
        "a",
        "e\u0301",
        "\u6c34",
        "<",
        "<start_of_",
        "<|",
        "[",
        "\nTool ",
        "\u200b",
        "/ ",
        "\r\n",
        "{",
    ),
)


def test_quadratic_time_is_found_in_one_run_of_many() -> None:
    read = re.compile("a+b").search
    with pytest.raises(pytest.fail.Exception, match="more than 64 times as long"):
        assert_linear(read, lambda length: "a" * (length // len(RUNS)), _OF_RUNS)


@pytest.mark.parametrize("read", READERS.values(), ids=list(READERS))
def test_a_run_of_anything(read: Read) -> None:
    def text_of(length: int) -> str:
        share = length // len(RUNS)
        return "".join(f"{(run * share)[:share]}x" for run in RUNS)

    assert_linear(read, text_of, _OF_RUNS)


@pytest.mark.parametrize("unit", [" ", "*", "_", "#", ".", "a", "-", "1"])
@pytest.mark.parametrize("name", ["verdict", "judge", "agreement judged", "spend limit", "JSON"])
def test_one_run_alone(name: str, unit: str) -> None:
    assert_linear(READERS[name], lambda length: unit * length + "x")


STARTS = {
    "filler": "Verification Decision: The AI Generated Answer is",
    "accept": "Verification Decision: Correct",
    "accept with a dot": "Verification Decision: Correct.",
    "label": "Verification Decision",
    "hashes": "#",
}


@pytest.mark.parametrize("start", STARTS.values(), ids=list(STARTS))
@pytest.mark.parametrize("unit", [" ", "*", "_ ", "\u3000"])
def test_verdict_lines(start: str, unit: str) -> None:
    assert_linear(parse_verdict, lambda length: start + (unit * length)[:length] + "x")


@pytest.mark.parametrize(
    "wording",
    [ENGLISH, *(module.WORDING for module in (chinese, french, german, spanish))],
    ids=["en", "zh", "fr", "de", "es"],
)
def test_verdict_lines_of_every_language(wording: Any) -> None:
    def read(text: str) -> object:
        return parse_verdict(text, wording)

    for end in (wording.filler, wording.accept, wording.reject):
        start = f"{wording.label}{wording.colon}{end}"
        assert_linear(read, partial(_spaced, start))


def _spaced(start: str, length: int) -> str:
    return f"{start}{' ' * length}x"


@pytest.mark.parametrize("start", ["Grade", "Grade: ", "Grade: 2", "Grade: 2 /", "*", "Grade is"])
@pytest.mark.parametrize("unit", [" ", "*", "_", "`", "."])
def test_grade_lines(start: str, unit: str) -> None:
    assert_linear(judge, lambda length: start + unit * length + "x")
