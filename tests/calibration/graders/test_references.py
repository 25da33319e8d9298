"""Accepted answers that a grader cannot read, said before anything is paid for."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from langchain_automix import AutoMixError, calibrate
from langchain_automix.calibration.examples.examples import examples_from
from langchain_automix.calibration.graders.custom import to_grader
from langchain_automix.calibration.graders.references import readable_examples
from langchain_automix.calibration.graders.text import multiple_choice
from tests.calibration.test_calibrate import PRICES, models
from tests.support.builders.no_warnings import no_warnings
from tests.support.builders.scripted_replies import ACCEPT, Body, Outcome
from tests.support.servers.openai_server import OpenAIServer, is_check

ANSWERS = {"small": "unanswerable", "large": "The answer is: C, of 1931."}


def answered(body: Body) -> Outcome:
    return [ACCEPT] * body.get("n", 1) if is_check(body) else [ANSWERS[body["model"]]]


def rows(*answers: Any, **more: Any) -> list[dict[str, Any]]:
    return [{"question": f"q{i}", "answer": answer, **more} for i, answer in enumerate(answers)]


def read(rows: list[dict[str, Any]], quality: Any = "multiple_choice") -> list[tuple[str, ...]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        examples = readable_examples(examples_from(rows), to_grader(quality))
    return [example.references for example in examples]


class TestChoices:
    CITIES = ("Turku", "Vaasa", "Oulu", "Pori")

    @pytest.mark.parametrize(
        "more",
        [
            {"choices": [*CITIES]},
            {"options": [*CITIES]},
            {"choices": {"text": [*CITIES], "label": [*"ABCD"]}},
            {"choices": str([*CITIES])},  # as a CSV file has it
            {"choices": '["Turku", "Vaasa", "Oulu", "Pori"]'},
            {"metadata": {"choices": [*CITIES]}},
        ],
    )
    def test_an_index_or_a_text_is_a_letter(self, more: dict[str, Any]) -> None:
        assert read(rows(2, 0, "3", **more)) == [("C",), ("A",), ("D",)]
        assert read(rows("Oulu", "Turku", **more)) == [("C",), ("A",)]
        assert read(rows("B", 2, None, **more)) == [("B",), ("C",), ()]
        assert read(rows(2, **more), multiple_choice) == [("C",)]

    def test_how_an_index_is_counted_is_said(self) -> None:
        with pytest.warns(UserWarning, match="counted from 0: 0 is A"):
            readable_examples(examples_from(rows(2, choices=[*self.CITIES])), multiple_choice)

    def test_a_number_among_the_choices(self) -> None:
        numbers = [3, 2, 1, 0]
        with pytest.raises(AutoMixError, match="can read none"):  # an index, or a choice?
            read(rows(0, 1, choices=numbers))
        assert read([*rows(2, choices=numbers), *rows(9, choices=[9, 8])]) == [("B",), ("A",)]
        assert read(rows(2, 3, choices=["0", "1", "2", "3"])) == [("C",), ("D",)]

    def test_counted_from_one_it_is_refused(self) -> None:
        with pytest.raises(AutoMixError, match="index \\(from 0\\)"):
            read(rows(4, 1, choices=[*self.CITIES]))

    def test_other_graders_take_the_label_as_it_is(self) -> None:
        assert read(rows(2, choices=[*self.CITIES]), "exact_match") == [("2",)]


@pytest.mark.parametrize(
    ("quality", "answer", "needs"),
    [
        ("multiple_choice", 2, "a letter"),
        ("numeric", "four", "a number in digits"),
        ("json_equal", "Turku", "JSON"),
    ],
)
class TestUnreadable:
    def test_none_can_be_read(self, quality: str, answer: Any, needs: str) -> None:
        with pytest.raises(AutoMixError, match=f"of example q1: it needs {needs}"):
            read(rows(answer, None), quality)

    def test_some_cannot_be_read(self, quality: str, answer: Any, needs: str) -> None:
        known = "B 1" if quality != "json_equal" else "1"
        with pytest.warns(UserWarning, match=f"1 of 2 labelled examples, .* it needs {needs}"):
            readable_examples(examples_from(rows(known, answer, None)), to_grader(quality))


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([{"text": []}, {"text": []}], "all are labelled 'unanswerable'"),
        (["Turku", "['Paris', 'paris']"], "lists written as text"),
    ],
)
def test_labels_that_are_probably_a_mistake(answers: list[Any], message: str) -> None:
    with pytest.warns(UserWarning, match=message):
        readable_examples(examples_from(rows(*answers)), to_grader("f1"))


def test_nothing_is_said_of_labels_that_are_fine() -> None:
    with no_warnings():
        for answers in (["Turku", {"text": []}], [None], ['["a"]', "[x]"]):
            examples = examples_from(rows(*answers))
            assert readable_examples(examples, to_grader("exact_match")) is examples


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        server.script = answered
        yield server


def test_nothing_is_paid_for_labels_that_cannot_be_read(
    server: OpenAIServer, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"prices": PRICES, "out": tmp_path / "log.jsonl"}
    with pytest.raises(AutoMixError, match="can read none of the accepted answers, such as '2'"):
        calibrate(rows(2, 3), models(server), quality="multiple_choice", **given)
    assert not server.requests
    labelled = rows(2, 3, choices=["Turku", "Vaasa", "Oulu", "Pori"])
    with pytest.warns(UserWarning, match="counted from 0"):
        log = calibrate(labelled, models(server), quality="multiple_choice", **given)
    assert [[answer.quality for answer in query.answers] for query in log] == [[0, 1], [0, 0]]


def test_an_invented_answer_to_an_unanswerable_question_is_wrong(
    server: OpenAIServer, tmp_path: Path
) -> None:
    squad = [{"question": "When?", "context": "In Turku.", "answers": {"text": []}}]
    log = calibrate(squad, models(server), prices=PRICES, out=tmp_path / "log.jsonl")
    assert [answer.quality for answer in log[0].answers] == [1, 0]


def test_answers_that_cannot_be_read_are_counted(server: OpenAIServer, tmp_path: Path) -> None:
    server.script = lambda body: answered(body) if is_check(body) else ["1.234"]
    given: dict[str, Any] = {"prices": PRICES, "out": tmp_path / "log.jsonl"}
    with pytest.warns(UserWarning, match="1 of 2 answers of small and 1 of 2 of large"):
        log = calibrate(rows("1,234", "7"), models(server), quality="numeric", **given)
    assert [[answer.quality for answer in query.answers] for query in log] == [[None] * 2, [0, 0]]
