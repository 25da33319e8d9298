"""Examples from files, lists, frames and LangSmith: what is read, and what is refused."""

from __future__ import annotations

import csv
import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, convert_to_messages

from langchain_automix import AutoMixError
from langchain_automix.calibration.examples.examples import Example, examples_from
from langchain_automix.calibration.examples.fields import read_references

ROWS: list[dict[str, Any]] = [
    {"question": "Where was it built?", "context": "In Turku.", "references": ["Turku"]},
    {"query": "When?", "answer": 1931, "title": "Halcyon", "id": 7},
    {"input": "Really?", "expected": True, "kind": "odd", "metadata": {"level": 2}},
]


def lines(path: Path, *rows: Any) -> Path:
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


def table(path: Path, *rows: list[str]) -> Path:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows(rows)
    return path


def only(source: Any, **how: Any) -> Example:
    [example] = examples_from(source, **how)
    return example


class TestFields:
    def test_every_name_is_read(self) -> None:
        first, second, third = examples_from(ROWS)
        assert (first.id, first.question, first.context) == (
            "q1",
            "Where was it built?",
            "In Turku.",
        )
        assert first.references == ("Turku",)
        assert (second.id, second.question, second.references) == ("7", "When?", ("1931",))
        assert second.metadata == {"title": "Halcyon"}
        assert (third.question, third.references) == ("Really?", ("true",))
        assert third.metadata == {"kind": "odd", "level": 2}

    @pytest.mark.parametrize("name", ["question", "query", "input"])
    @pytest.mark.parametrize(
        "reference", ["references", "reference", "answer", "answers", "output", "expected"]
    )
    def test_each_name(self, name: str, reference: str) -> None:
        found = only([{name: "Where?", reference: "Turku"}])
        assert (found.question, found.references, found.metadata) == ("Where?", ("Turku",), {})

    @pytest.mark.parametrize(
        ("value", "texts"),
        [
            ("Turku", ("Turku",)),
            (["Turku", "Abo", "Turku"], ("Turku", "Abo")),
            ({"text": ["Turku", "Abo"], "answer_start": [3, 9]}, ("Turku", "Abo")),
            ({"text": [], "answer_start": []}, ()),
            (3, ("3",)),
            (3.0, ("3",)),
            (0.5, ("0.5",)),
            (False, ("false",)),
            ([1, True, "x"], ("1", "true", "x")),
            ({"city": "Turku"}, ('{"city": "Turku"}',)),
            ({"role": "assistant", "content": "Turku"}, ("Turku",)),
            (AIMessage("Turku"), ("Turku",)),
            (None, ()),
            (" ", ()),
            ([], ()),
        ],
    )
    def test_references(self, value: Any, texts: tuple[str, ...]) -> None:
        assert read_references(value) == texts
        assert only([{"question": "q", "answer": value}]).references == texts

    def test_the_users_own_names(self) -> None:
        rows = [{"q": "Where?", "gold": "Turku", "answer": "Abo", "question": 5}]
        found = only(rows, names={"question": "q", "references": "gold"})
        assert (found.question, found.references) == ("Where?", ("Turku",))
        assert found.metadata == {"answer": "Abo", "question": 5}

    def test_a_name_may_be_another_fields(self) -> None:
        found = only([{"answer": "Where?", "output": "Turku"}], names={"question": "answer"})
        assert (found.question, found.references) == ("Where?", ("Turku",))

    @pytest.mark.parametrize(
        "context",
        [
            ["One.", "Two."],
            [Document("One."), {"page_content": "Two.", "metadata": {}}],
            "One.\n\nTwo.",
        ],
    )
    def test_a_context_of_documents(self, context: Any) -> None:
        assert only([{"question": "q", "context": context}]).context == "One.\n\nTwo."

    def test_the_last_message_is_the_question(self) -> None:
        said = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello."},
            {"role": "assistant", "content": "Hi."},
            {"role": "user", "content": "Where?"},
        ]
        found = only([{"messages": said}])
        assert found.question == "Where?"
        assert list(found.messages) == said[:3]
        beside = only([{"messages": said[:3], "question": "And when?"}])
        assert (beside.question, len(beside.messages)) == ("And when?", 3)

    def test_messages_in_any_form_of_langchain(self) -> None:
        said = [SystemMessage("Be brief."), ("ai", "Hi."), HumanMessage("Where?")]
        found = only([{"messages": said}])
        assert found.question == "Where?"
        read = convert_to_messages([dict(message) for message in found.messages])
        assert [(m.type, m.text) for m in read] == [("system", "Be brief."), ("ai", "Hi.")]

    def test_a_text_alone_is_a_question(self) -> None:
        assert [e.question for e in examples_from(["Where?", "When?"])] == ["Where?", "When?"]

    def test_an_example_stays_as_it_is(self) -> None:
        example = Example(id="x", question="Where?", prompt="Say where.", metadata={"a": 1})
        assert only([example]) is example
        again = examples_from([example])
        assert examples_from(again) is again

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ({"answer": "x"}, "example 1, field question: it is missing"),
            ({"question": " "}, "example 1, field question: it is empty."),
            ({"question": 5}, "field question"),
            ({"question": "a", "query": "b"}, "field question: both 'question' and 'query'"),
            ({"question": "a", "answer": "b", "output": "c"}, "field references: both"),
            ({"question": "a", "answer": ["b", ""]}, "field references: one of the accepted"),
            ({"question": "a", "answer": [["b"]]}, "field references: an accepted answer is a li"),
            ({"question": "a", "context": 5}, "field context: a text or a list of documents"),
            ({"question": "a", "context": [5]}, "field context: a document is an int"),
            ({"question": "a", "messages": "b"}, "field messages: a list of messages"),
            ({"question": "a", "messages": [{"role": "x", "content": "b"}]}, "field messages"),
            ({"messages": [{"role": "assistant", "content": "b"}]}, "is not the user's"),
            (
                {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
                "more than text",
            ),
            ({"question": "a", "metadata": 5}, "field metadata"),
            ({"question": "a", "metadata": {"k": 1}, "k": 2}, "metadata: 'k' is both in it and"),
            ({"question": "a", "metadata": {"k": [float("nan")]}}, "field metadata: it cannot be"),
            ({"question": "a", "id": True}, "field id"),
            ({"question": "a", "id": ""}, "example 1, field id"),
            ({"question": "a", "prompt": " "}, "field prompt: it is empty"),
            (5, "example 1 is an int"),
        ],
    )
    def test_what_is_refused(self, row: Any, message: str) -> None:
        with pytest.raises(AutoMixError, match=message) as failed:
            examples_from([row])
        assert "\n" not in str(failed.value)
        assert not str(failed.value).endswith("..")

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            ({"quest": "q"}, "no field 'quest'"),
            ({"question": "q", "context": "q"}, "one key is given for two"),
            ({"context": "passage"}, "no example has 'passage', which is named for its context"),
        ],
    )
    def test_names_that_fit_nothing(self, names: dict[str, str], message: str) -> None:
        with pytest.raises(AutoMixError, match=message):
            examples_from([{"question": "a", "q": "b"}], names=names)


class TestIds:
    def test_the_same_id_twice_names_both_places(self, tmp_path: Path) -> None:
        rows = [{"id": "a", "question": "x"}, {"question": "y"}, {"id": "a", "question": "z"}]
        path = lines(tmp_path / "e.jsonl", *rows)
        with pytest.raises(AutoMixError, match=r"line 3, field id: 'a' is also in .*line 1"):
            examples_from(path)

    def test_a_given_id_may_not_be_one_by_place(self) -> None:
        with pytest.raises(AutoMixError, match="example 2, field id: 'q2' is also in example 1"):
            examples_from([{"id": "q2", "question": "x"}, {"question": "y"}])


class TestFiles:
    @pytest.mark.parametrize("name", ["e.jsonl", "e.jsonl.gz"])
    def test_json_lines(self, tmp_path: Path, name: str) -> None:
        found = examples_from(str(lines(tmp_path / name, ROWS[0], "", *ROWS[1:])))
        assert list(found) == list(examples_from(ROWS)) == list(found)
        assert len(found) == found.referenced == 3
        assert found.source.endswith(name)
        assert next(iter(found)) in found

    def test_csv(self, tmp_path: Path) -> None:
        path = table(
            tmp_path / "e.csv",
            ["question", "context", "answers", "messages", "metadata", "title"],
            ["Where,\nthen?", "", '["Turku", "Abo"]', '[{"role": "user", "content": "x"}]', "", ""],
            [],
            ["When?", "In 1931.", "[1931", "", '{"level": 2}', "Halcyon"],
            ["Who?"],
        )
        first, second, third = examples_from(path)
        assert (first.question, first.context) == ("Where,\nthen?", None)
        assert (first.references, len(first.messages)) == (("Turku", "Abo"), 1)
        assert (second.references, second.context) == (("[1931",), "In 1931.")
        assert second.metadata == {"level": 2, "title": "Halcyon"}
        assert (third.question, third.references, third.id) == ("Who?", (), "q3")

    def test_the_line_of_a_cell_that_goes_over_several(self, tmp_path: Path) -> None:
        path = table(tmp_path / "e.csv", ["question"], ["a\nb\nc"], ["fine"], [" ", "x"])
        with pytest.raises(AutoMixError, match="line 6 has 2 cells"):
            examples_from(path)

    @given(
        st.lists(
            st.tuples(
                st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(
                    str.strip
                ),
                st.text(st.characters(exclude_categories=["Cs", "Cc"])).filter(
                    lambda text: not text.lstrip().startswith("[")
                ),
            ),
            min_size=1,
            max_size=5,
        )
    )
    def test_any_texts_come_back(self, texts: list[tuple[str, str]]) -> None:
        import tempfile  # noqa: PLC0415  (a fixture lives longer than one case)

        with tempfile.TemporaryDirectory() as folder:
            as_csv = table(
                Path(folder, "e.csv"), ["question", "answer"], *[list(pair) for pair in texts]
            )
            rows = [{"question": question, "answer": answer} for question, answer in texts]
            as_lines = lines(Path(folder, "e.jsonl"), *rows)
            assert list(examples_from(as_csv)) == list(examples_from(as_lines))
            assert [e.question for e in examples_from(as_lines)] == [q for q, _ in texts]

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("e.jsonl", b"{", "line 1 is not JSON"),
            ("e.jsonl", b'{"question": "a", "x": NaN}', "line 1 is not JSON"),
            ("e.jsonl", b'{"question": "a"}\n[1]', "line 2 is a list"),
            ("e.jsonl", b'"\xff"', "cannot be read"),
            ("e.jsonl", b"\n\n", "holds no example"),
            ("e.jsonl.gz", b"no gzip", "cannot be read"),
            (
                "e.jsonl.gz",
                gzip.compress(b'{"question": "a"}\n' * 99, mtime=0)[:-12],
                "cannot be read",
            ),
            ("e.csv", b"question,question\na,b", "the column 'question' is repeated"),
            ("e.csv", b"question\na\nb,c", "line 3 has 2 cells, but the first line names 1"),
            ("e.csv", b'question\n"a', "line 2 is not CSV"),
            ("e.csv", b"question,messages\na,[1", "line 2, field messages is not JSON"),
            ("e.csv", b"question\n", "holds no example"),
            ("e.csv", b"", "holds no example"),
            ("e.csv", b"text\na", "line 2, field question: it is missing"),
            ("e.json", b"[]", "have another format"),
            ("e.txt", b"", "have another format"),
        ],
    )
    def test_files_that_cannot_be_used(
        self, tmp_path: Path, name: str, content: bytes, message: str
    ) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(AutoMixError, match=message) as failed:
            examples_from(tmp_path / name)
        assert name in str(failed.value)

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(AutoMixError, match=r"cannot be read: No such file"):
            examples_from(tmp_path / "none.jsonl")

    def test_a_file_that_changes_later_changes_nothing(self, tmp_path: Path) -> None:
        path = lines(tmp_path / "e.jsonl", *ROWS)
        found = examples_from(path)
        path.unlink()
        assert list(found) == list(examples_from(ROWS))

    def test_a_long_file_is_held_once(self, tmp_path: Path) -> None:
        path = tmp_path / "e.jsonl"
        passage = "x" * 1000
        with path.open("w") as file:
            for i in range(20_000):
                file.write(json.dumps({"question": f"Question {i}?", "context": passage}) + "\n")
        size = path.stat().st_size
        assert size > 20_000_000
        tracemalloc.start()
        try:
            found = examples_from(path)
            held, while_reading = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert len(found) == 20_000
        assert held < 2 * size, "each text once, and some hundred bytes an example"
        assert while_reading < held + 6_000_000, "beside it the places, and one line at a time"


@pytest.fixture
def pd() -> Any:
    return pytest.importorskip("pandas", reason="the extra `pandas` is not installed")


class TestFrames:
    def test_a_frame(self, pd: Any) -> None:
        frame = pd.DataFrame(
            {
                "question": ["Where?", "When?"],
                "answer": [None, 1931],
                "context": [float("nan"), "In 1931."],
                "seen": pd.to_datetime(["2026-01-01", None]),
                "level": pd.array([1, None], dtype="Int64"),
            }
        )
        first, second = examples_from(frame)
        assert (first.references, first.context) == ((), None)
        assert first.metadata == {"seen": "2026-01-01 00:00:00", "level": 1}
        assert (second.references, second.context) == (("1931",), "In 1931.")
        assert second.metadata == {}

    def test_its_place_is_the_row(self, pd: Any) -> None:
        with pytest.raises(AutoMixError, match="row 2, field question"):
            examples_from(pd.DataFrame({"question": ["a", None]}))
        with pytest.raises(AutoMixError, match="The data frame holds no example"):
            examples_from(pd.DataFrame({"question": []}))


@pytest.mark.parametrize(
    "source", [(row for row in ROWS), {"question": "a"}, 5, b"x", None, {"a", "b"}]
)
def test_what_is_no_source(source: Any) -> None:
    with pytest.raises(AutoMixError, match="holds no examples: examples are read from"):
        examples_from(source)
