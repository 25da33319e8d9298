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
from langchain_core.load import dumpd
from langchain_core.messages import (
    AIMessage,
    HumanMessage,
    SystemMessage,
    convert_to_messages,
    messages_to_dict,
)

from langchain_automix import AutoMixError
from langchain_automix.calibration.examples.examples import Example, examples_from
from langchain_automix.calibration.examples.fields import read_references

ROWS: list[dict[str, Any]] = [
    {"question": "Where was it built?", "context": "In Turku.", "references": ["Turku"]},
    {"query": "When?", "answer": 1931, "title": "Halcyon", "id": 7},
    {"input": "Really?", "expected": True, "kind": "odd", "metadata": {"level": 2}},
]

SAID = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Turku"}]


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
            ({"text": [], "answer_start": []}, ("unanswerable",)),  # SQuAD 2
            ([{"text": "Turku", "answer_start": 3}], ("Turku",)),
            ({"value": "Turku", "aliases": ["Abo", "Turku"]}, ("Turku", "Abo")),
            (SAID, ("Turku",)),
            ([HumanMessage("Where?"), AIMessage("Turku")], ("Turku",)),
            ({"messages": [*SAID, AIMessage("In Turku.")]}, ("In Turku.",)),
            ([*SAID, {"role": "assistant", "content": None, "tool_calls": []}], ("Turku",)),
            ([dumpd(message) for message in convert_to_messages(SAID)], ("Turku",)),
            (messages_to_dict(convert_to_messages(SAID)), ("Turku",)),
            ([AIMessage("Turku"), AIMessage("Abo")], ("Turku", "Abo")),
            ({"role": "assistant", "content": [{"type": "text", "text": "Turku"}]}, ("Turku",)),
            ({"choices": [{"message": SAID[1]}]}, ("Turku",)),
            ({"generations": [[{"text": "Turku"}]]}, ("Turku",)),
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
            ("['Turku', 'Abo']", ("['Turku', 'Abo']",)),  # a text of the user's own
        ],
    )
    def test_references(self, value: Any, texts: tuple[str, ...]) -> None:
        assert read_references(value) == texts
        assert only([{"question": "q", "answer": value}]).references == texts

    def test_an_impossible_question(self) -> None:
        rows = [
            {"question": "a", "answers": [], "is_impossible": True},
            {"question": "a", "answers": [], "is_impossible": False},
            {"question": "a", "answers": ["x"], "is_impossible": False},
        ]
        assert [e.references for e in examples_from(rows)] == [("unanswerable",), (), ("x",)]

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
            (
                {"question": "a", "answer": SAID[:1]},
                "field references: the messages hold no answer",
            ),
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

    @pytest.mark.parametrize(
        ("cell", "references"),
        [
            ("['Paris', 'paris']", ("Paris", "paris")),
            ("[\"L'été\", 'été']", ("L'été", "été")),
            ("{'text': ['Paris'], 'answer_start': [3]}", ("Paris",)),
            ("{'text': [], 'answer_start': []}", ("unanswerable",)),
            ("[sic]", ("[sic]",)),
            ("{a}", ("{a}",)),
        ],
    )
    def test_a_list_that_was_written_as_text(
        self, tmp_path: Path, cell: str, references: tuple[str, ...]
    ) -> None:
        path = table(tmp_path / "e.csv", ["question", "references"], ["q", cell])
        assert only(path).references == references

    @pytest.mark.parametrize(
        "cell",
        ["['Paris' 'paris']", "['Paris', 'par", "[1. 2.]", "array(['Paris'], dtype=object)",
         "{'text': array(['Paris'], dtype=object)}", "[np.str_('Paris')]"],
    )  # fmt: skip
    def test_a_list_that_cannot_be_read_for_sure(self, tmp_path: Path, cell: str) -> None:
        path = table(tmp_path / "e.csv", ["question", "references"], ["q", cell])
        with pytest.raises(AutoMixError, match="line 2, field references: the cell looks like"):
            examples_from(path)

    def test_other_columns_that_were_lists(self, tmp_path: Path) -> None:
        path = table(
            tmp_path / "e.csv",
            ["question", "context", "messages"],
            ["q", "['One.', 'Two.']", "[{'role': 'user', 'content': 'x'}]"],
            ["q", "['One.' 'Two.']", ""],
        )
        first, second = examples_from(path)
        assert (first.context, len(first.messages)) == ("One.\n\nTwo.", 1)
        assert second.context == "['One.' 'Two.']"

    @pytest.mark.parametrize("start", ["", "sep={}\r\n"])
    @pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
    def test_other_separators(self, tmp_path: Path, start: str, mark: str, encoding: str) -> None:
        text = start.format(mark) + f'"question"{mark}answer\r\n"a{mark}b"{mark}3.5\r\n'
        (tmp_path / "e.csv").write_text(text, encoding=encoding, newline="")
        found = only(tmp_path / "e.csv")
        assert (found.question, found.references) == (f"a{mark}b", ("3.5",))

    def test_a_separator_by_the_users_own_name(self, tmp_path: Path) -> None:
        (tmp_path / "e.csv").write_text("frage;antwort\na;3,5\nb;1;2\n", encoding="utf-8")
        names = {"question": "frage", "references": "antwort"}
        with pytest.raises(AutoMixError, match="line 3 has 3 cells"):
            examples_from(tmp_path / "e.csv", names=names)
        assert only(tmp_path / "e.csv", names=names, limit=1).references == ("3,5",)

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
            ("e.csv", "question\n\xe9".encode("cp1252"), "save the file as UTF-8"),
            ("e.csv", b"sep=;\nquestion;a\nb;c;d", "line 3 has 3 cells"),
            ("e.xlsx", b"PK", "are a workbook: save the sheet as CSV"),
            ("e.XLS", b"", "are a workbook"),
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

    def test_arrays_and_lists_within(self, pd: Any) -> None:
        np = pytest.importorskip("numpy")
        answers = {"text": np.array(["Turku", "Abo"], dtype=object), "start": np.array([1, 2])}
        frame = pd.DataFrame(
            {
                "question": ["q", "r"],
                "answers": [answers, np.array([1, 2])],
                "context": [np.array(["One.", "Two."], dtype=object), None],
                "seen": [np.array([np.array([1.0])], dtype=object), np.int64(3)],
            }
        )
        first, second = examples_from(frame)
        assert (first.references, first.context) == (("Turku", "Abo"), "One.\n\nTwo.")
        assert (first.metadata, second.metadata) == ({"seen": [[1.0]]}, {"seen": 3})
        assert second.references == ("1", "2")
        row = {"question": np.str_("q"), "answer": answers, "level": np.float32(0.5)}
        assert only([row]).references == ("Turku", "Abo")
        assert only([row]).metadata == {"level": 0.5}
        assert Example(id="x", question="q", references=np.array(["a", "b"])).references == (*"ab",)

    def test_a_frame_that_was_a_csv_file(self, pd: Any, tmp_path: Path) -> None:
        frame = pd.DataFrame(
            {"question": ["q", "r"], "references": [["Paris", "paris"], ["L'été"]]}
        )
        frame.to_csv(tmp_path / "e.csv", index=False)
        again = pd.read_csv(tmp_path / "e.csv")
        for source in (frame, again, tmp_path / "e.csv"):
            assert [e.references for e in examples_from(source)] == [("Paris", "paris"), ("L'été",)]
        of_json = pd.DataFrame({"question": ["q"], "answer": ['["a", "b"]']})
        assert only(of_json).references == ('["a", "b"]',)  # may be what is to be answered
        with pytest.raises(AutoMixError, match="row 1, field references: the cell looks like"):
            examples_from(pd.DataFrame({"question": ["q"], "references": ["['a' 'b']"]}))

    def test_an_arrow_table(self) -> None:
        pa = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
        table = pa.table({"question": ["q"], "answers": [["Turku", "Abo"]], "level": [1]})
        for source in (table, table.to_batches()[0]):
            found = only(source)
            assert (found.references, found.metadata) == (("Turku", "Abo"), {"level": 1})
        row = {"question": pa.scalar("q"), "answers": pa.array(["a"]), "level": pa.scalar(None)}
        assert (only([row]).references, only([row]).metadata) == (("a",), {})

    def test_frames_and_datasets_of_other_kinds(self) -> None:
        class Series:
            def to_list(self) -> list[str]:
                return ["Turku", "Abo"]

        class Frame:  # as polars has it
            columns = ("question", "answers")

            def to_dict(self) -> Any:
                raise NotImplementedError

            def __getitem__(self, name: str) -> list[Any]:
                return [row[self.columns.index(name)] for row in self.iter_rows()]

            def iter_rows(self) -> list[tuple[Any, ...]]:
                return [("q", Series()), ("r", None)]

        class Dataset:  # as Hugging Face has it
            column_names = ("question", "answers")

            def __iter__(self) -> Any:
                return iter([{"question": "q", "answers": ["Turku", "Abo"]}, {"question": "r"}])

        for source in (Frame(), Dataset()):
            references = [example.references for example in examples_from(source)]
            assert references == [("Turku", "Abo"), ()]

    def test_a_frame_that_is_not_read_yet(self) -> None:
        class LazyFrame:  # as polars has it
            columns = ("question",)

            def collect_schema(self) -> None: ...

        with pytest.raises(AutoMixError, match=r"holds no examples: .*\. Give what its collect"):
            examples_from(LazyFrame())

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
