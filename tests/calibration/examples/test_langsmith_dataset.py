"""Examples from a dataset in LangSmith, over its own wire."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from langchain_automix import AutoMixError
from langchain_automix.calibration.examples.examples import Examples, examples_from
from tests.support.servers.langsmith_server import LangSmithServer


@pytest.fixture
def ls() -> Iterator[LangSmithServer]:
    with LangSmithServer(page=2) as running:
        yield running


class TestLangSmith:
    def read(self, ls: LangSmithServer, *rows: Any, **how: Any) -> Examples:
        dataset = ls.client.create_dataset("mine")
        examples: Any = [{"id": uuid.uuid4(), **row} for row in rows]
        ls.client.create_examples(dataset_id=dataset.id, examples=examples)
        return examples_from("langsmith:mine", client=ls.client, **how)

    def test_a_dataset(self, ls: LangSmithServer) -> None:
        id = uuid.uuid4()
        rows: list[Any] = [
            {
                "id": id,
                "inputs": {"question": "Where?", "context": "In Turku.", "lang": "en"},
                "reference_outputs": {"answer": "Turku", "source": "p. 3"},
                "metadata": {"level": 1},
            },
            {"inputs": {"country": "Finland"}, "reference_outputs": {"capital": "Helsinki"}},
            {"inputs": {"chat": [{"role": "user", "content": "Hm?"}]}, "reference_outputs": None},
        ]
        found = self.read(ls, *rows)
        first, second, third = found
        assert (first.id, first.question, first.context) == (str(id), "Where?", "In Turku.")
        assert first.references == ("Turku",)
        assert first.metadata.items() >= {"level": 1, "source": "p. 3", "lang": "en"}.items()
        assert (second.question, second.references) == ("Finland", ("Helsinki",))
        assert (third.question, third.references) == ("Hm?", ())
        asked = len(ls.requests)
        assert list(found) == list(found)
        assert len(ls.requests) == asked, "it is read once"

    def test_names(self, ls: LangSmithServer) -> None:
        row = {"inputs": {"a": "x", "b": "y"}, "reference_outputs": {"c": "z", "d": "w"}}
        found = self.read(ls, row, names={"question": "b", "references": "d"})
        [example] = found
        assert (example.question, example.references) == ("y", ("w",))
        assert example.metadata.items() >= {"a": "x", "c": "z"}.items()

    def test_which_output(self, ls: LangSmithServer) -> None:
        row = {"inputs": {"question": "x"}, "reference_outputs": {"c": "z", "d": "w"}}
        with pytest.raises(AutoMixError, match="which output is the accepted answer"):
            self.read(ls, row)

    def test_the_messages_of_a_run(self, ls: LangSmithServer) -> None:
        user, answer = (
            {"role": "user", "content": "Where?"},
            {"role": "assistant", "content": "Oulu"},
        )
        think = {"role": "assistant", "content": "Let me see."}
        rows = [
            {"inputs": {"question": "x"}, "reference_outputs": {"messages": said}}
            for said in ([user, answer], [think, answer], [answer, user])
        ]
        assert [e.references for e in self.read(ls, *rows)] == [("Oulu",)] * 3

    def test_messages_without_an_answer(self, ls: LangSmithServer) -> None:
        said = [{"role": "user", "content": "Where?"}]
        row = {"inputs": {"question": "x"}, "reference_outputs": {"messages": said}}
        with pytest.raises(AutoMixError, match="the messages hold no answer in words"):
            self.read(ls, row)

    def test_no_such_dataset(self, ls: LangSmithServer) -> None:
        with pytest.raises(AutoMixError, match="'none' cannot be read"):
            examples_from("langsmith:none", client=ls.client)
