"""Files from strangers: opening one ends in an error of one line, or in harmless data."""

from __future__ import annotations

import copy
import gzip
import json
import random
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from langchain_automix import (
    AutoMixError,
    POMDPRouter,
    RoutingLog,
    SelfVerifier,
    calibrate,
)
from langchain_automix.calibration import journal as journal_module
from langchain_automix.calibration.entries import from_entry, validate_row
from langchain_automix.calibration.graders.judges import LLMJudge
from langchain_automix.calibration.journal import Journal
from langchain_automix.cli.app import app
from langchain_automix.cli.inputs import read_prices
from langchain_automix.local import recording
from langchain_automix.local.recording import Recording
from langchain_automix.models.prices import checked_prices
from tests.support.builders.calibrating import PRICES, script
from tests.support.builders.synthetic_logs import world
from tests.support.servers.openai_server import OpenAIServer

QUERY: dict[str, Any] = {
    "id": "q",
    "answers": [
        {"model": "small", "quality": 0.0, "cost": 1.0, "verification": {"verdicts": [True]}},
        {"model": "large", "quality": 1.0, "cost": 9.0},
    ],
}
LINE = json.dumps(QUERY)
MAIN = "from langchain_automix.cli.app import main; main()"
ESCAPES = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e[bold red]x[/]\r"
DEEP = "[" * 100_000 + "]" * 100_000
NESTED = "[" * 500 + "]" * 500


@pytest.fixture(scope="module")
def policy_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("policy") / "policy.json"
    POMDPRouter.fit(world(200), cost_weight=0.03).save(path)
    return path.read_text()


def refused(path: Path) -> str:
    """Read a log that must be refused with one line; return that line."""
    with pytest.raises(AutoMixError) as caught:
        RoutingLog.read(path)
    said = str(caught.value)
    assert path.name in said
    assert "\n" not in said
    assert len(said) < 1000
    return said


def with_metadata(text: str) -> str:
    return f'{LINE[:-1]}, "metadata": {text}}}'


class TestLogs:
    @pytest.mark.parametrize(
        "line",
        [
            DEEP,
            with_metadata(f'{{"x": {DEEP}}}'),
            with_metadata('{"x": NaN}'),
            with_metadata('{"x": [{"y": 1e999}]}'),
            with_metadata("[]"),
            LINE.replace("1.0", "NaN"),
            LINE.replace("9.0", "1e999"),
            LINE.replace("9.0", "1" * 5000),
            LINE.replace("9.0", '"9"'),
            LINE.replace("9.0", "true"),
            LINE.replace('"q"', "7"),
            LINE.replace("[true]", "[1]"),
            LINE.replace("[true]", '"' + "x" * 100_000 + '"'),
            LINE.replace('"large"', '"small"'),
            '{"__class__": "os.system"}',
            "\x80\x04\x95",
        ],
    )
    def test_a_bad_line_is_one_error(self, tmp_path: Path, line: str) -> None:
        path = tmp_path / "log.jsonl"
        path.write_text(line, encoding="utf-8")
        refused(path)

    def test_metadata_of_odd_types_is_harmless(self, tmp_path: Path) -> None:
        path = tmp_path / "log.jsonl"
        path.write_text(with_metadata(f'{{"verifier": [1], "deep": {NESTED}}}'))
        log = RoutingLog.read(path)
        assert log.verifier is None
        log.write(tmp_path / "again.jsonl")
        assert RoutingLog.read(tmp_path / "again.jsonl")[0].metadata == log[0].metadata

    def test_no_name_is_a_path(self, tmp_path: Path) -> None:
        path = tmp_path / "log.jsonl"
        path.write_text(LINE.replace("small", "../../evil").replace('"q"', '"/etc/passwd"'))
        log = RoutingLog.read(path)
        POMDPRouter.fit(log, cost_weight=0.1).save(tmp_path / "policy.json")
        assert {found.name for found in tmp_path.iterdir()} == {"log.jsonl", "policy.json"}

    @pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz", "log.parquet"])
    def test_what_is_no_file(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).mkdir()
        refused(tmp_path / name)

    def test_a_gzip_that_is_none(self, tmp_path: Path) -> None:
        path = tmp_path / "log.jsonl.gz"
        path.write_bytes(gzip.compress(LINE.encode())[:-4])
        refused(path)
        path.write_bytes(b"PK\x03\x04" + b"\0" * 100)
        refused(path)


def bomb(path: Path, start: bytes, filler: bytes, megabytes: int) -> None:
    """Write a small gzip file that holds very much."""
    # What is packed one after another is read as one.
    block = gzip.compress(filler * (2**24 // len(filler)), 9)
    path.write_bytes(gzip.compress(start) + block * (megabytes // 16))


READ = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (1_500_000_000, 1_500_000_000))
from langchain_automix import AutoMixError, RoutingLog
from langchain_automix.calibration.examples.examples import examples_from
try:
    {read}
except AutoMixError as error:
    print(str(error))
"""


class TestBombs:
    @pytest.mark.parametrize(
        ("read", "start", "filler"),
        [
            ("RoutingLog.read(path)", b'{"id": "', b"a"),
            ("RoutingLog.read(path)", b"", b"\n"),
            ("RoutingLog.read(path)", b"", b" " * 2**20 + b"\n"),
            ("list(examples_from(path))", b'{"id": "', b"a"),
        ],
    )
    def test_what_inflates_to_gigabytes_is_refused(
        self, tmp_path: Path, start: bytes, filler: bytes, read: str
    ) -> None:
        path = tmp_path / "log.jsonl.gz"
        bomb(path, start, filler, 2_200)
        code = READ.format(read=read.replace("path", repr(str(path))))
        ran = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
        )
        assert ran.returncode == 0, ran.stderr[-500:]
        assert "log.jsonl.gz" in ran.stdout
        assert "much" in ran.stdout or "long" in ran.stdout


class TestPolicies:
    @pytest.mark.parametrize(
        "change",
        [
            lambda text: DEEP,
            lambda text: text.replace('"plans": [', f'"plans": [{NESTED}, ', 1),
            lambda text: text.replace('"cost_weight": ', '"cost_weight": NaN, "x": ', 1),
            lambda text: text.replace('"first_share": ', '"first_share": Infinity, "x": ', 1),
            lambda text: text.replace('"version": 1', '"version": 1, "version": 1', 1),
            lambda text: text.replace('"models": ', '"models": ["x", "y"], "models": ', 1),
            lambda text: text.replace('"version": 1', '"version": ' + "1" * 5000, 1),
            lambda text: "null",
            lambda text: "",
            lambda text: "\x80\x04\x95csystem",
        ],
    )
    def test_a_bad_one_is_one_error(self, tmp_path: Path, policy_text: str, change: Any) -> None:
        path = tmp_path / "policy.json"
        changed = change(policy_text)
        assert changed != policy_text
        path.write_text(changed, encoding="utf-8")
        with pytest.raises(AutoMixError) as caught:
            POMDPRouter.load(path)
        assert "policy.json" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 1000

    def test_a_file_of_gigabytes_is_not_read(self, tmp_path: Path, policy_text: str) -> None:
        path = tmp_path / "policy.json"
        path.write_text(policy_text)
        with path.open("r+b") as file:
            file.truncate(3 * 10**9)  # a sparse file takes no room
        with pytest.raises(AutoMixError, match="too large"):
            POMDPRouter.load(path)

    @pytest.mark.skipif(sys.platform == "win32", reason="there are no such devices")
    def test_what_has_no_end_is_not_read(self) -> None:
        with pytest.raises(AutoMixError, match="/dev/zero"):
            POMDPRouter.load("/dev/zero")
        with pytest.raises(AutoMixError, match="/dev/zero"):
            RoutingLog.read("/dev/zero")


class TestNames:
    """Names that hold commands to a terminal, markup or scripts, wherever they are shown."""

    @pytest.fixture
    def files(self, tmp_path: Path) -> tuple[Path, Path]:
        """Return a log whose names are hostile, and a policy fitted to it."""
        script = f"</script><script>alert(1)</script><img src=x onerror=alert(2)>|{ESCAPES}"
        renamed = {"a": f"small{script}", "b": f"large{script}"}
        records = list(world(120).records())
        for record in records:
            for answer, name in zip(record["answers"], renamed.values(), strict=False):
                answer["model"] = name
            record["currency"] = f"USD{script}"
            record["id"] += script
        log, policy = tmp_path / "log.jsonl", tmp_path / "policy.json"
        RoutingLog(records).write(log)
        POMDPRouter.fit(RoutingLog.read(log), cost_weight=0.03, verifier=script).save(policy)
        return log, policy

    def test_on_the_terminal(self, files: tuple[Path, Path], tmp_path: Path) -> None:
        log, policy = map(str, files)
        html = str(tmp_path / "report.html")
        for command in (
            ["fit", log, "--out", str(tmp_path / "p.json")],
            ["show", policy],
            ["evaluate", policy, log],
            ["report", policy, log, "--out", html],
        ):
            ran = CliRunner().invoke(app, command, catch_exceptions=False)
            assert ran.exit_code == 0, ran.output
            assert command[0] == "report" or "small</script>" in ran.output
            assert not set(ran.output) & set("\x1b\x07\x9b\u202e\r")
            assert "[bold red]" in ran.output or command[0] == "report"

    def test_in_an_error(self, tmp_path: Path) -> None:
        path = tmp_path / "log.jsonl"
        path.write_text(
            json.dumps({**QUERY, "id": ESCAPES}) + "\n" + LINE.replace("small", "\\u001b[2J")
        )
        ran = subprocess.run(
            [sys.executable, "-c", MAIN, "fit", str(path), "--out", "x"],
            capture_output=True,
            check=False,
        )
        assert ran.returncode == 2
        assert b"\x1b" not in ran.stderr
        assert ran.stderr.count(b"\n") == 1

    def test_in_the_report(self, files: tuple[Path, Path], tmp_path: Path) -> None:
        log, policy = map(str, files)
        page = tmp_path / "report.html"
        ran = CliRunner().invoke(app, ["report", policy, log, "--out", str(page)])
        assert ran.exit_code == 0, ran.output
        html = page.read_text("utf-8")
        assert "alert(1)" in html
        assert "<script>alert(1)" not in html
        assert "<img src=x" not in html


def made_up(**fields: Any) -> str:
    call = {"example": "q", "call": "answer small 0 x", "seconds": 0, "calls": [], "output": {}}
    return json.dumps({**call, "output": {"value": 1}, **fields})


class TestJournals:
    def sealed(self, entry: str) -> bytes:
        body = entry.encode()
        return b'%s, "crc": "%08x"}\n' % (body[:-1], zlib.crc32(body))

    @pytest.mark.parametrize(
        "entry",
        [
            '{"call": "x"}',
            '{"call": "x", "example": []}',
            '{"row": "x"}',
            '{"row": {}, "example": {}}',
            '{"session": 7}',
            f'{{"x": {DEEP}}}',
            '{"x": 1}',
            '{"row": "x", "example": "q"}',
            '{"row": "x", "example": "q", "query": []}',
            '{"session": {"checks": []}}',
            '{"session": {"checks": {"a": 1}}}',
            '{"call": "answer small 0 x", "example": "q", "error": []}',
            made_up(call=7),
            made_up(call="x"),
            made_up(call="grade  x"),
            made_up(example=None),
            made_up(check=[]),
            made_up(seconds="1"),
            made_up(seconds=-1),
            made_up(seconds=10**400),
            made_up(calls={}),
            made_up(calls=[7]),
            made_up(calls=[{"usage": []}]),
            made_up(calls=[{"usage": {"input_tokens": "7", "output_tokens": 1}}]),
            made_up(calls=[{"usage": {"input_tokens": -7, "output_tokens": 1}}]),
            made_up(calls=[{"usage": {"input_tokens": 10**300, "output_tokens": 1}}]),
            made_up(calls=[{"usage": {"input_token_details": [1]}}]),
            made_up(calls=[{"cost": "free"}]),
            made_up(calls=[{"cost": "1e999999 USD"}]),
            made_up(calls=[{"cost": "-1 USD"}]),
            made_up(calls=[{"model": []}]),
            made_up(output=[]),
            made_up(output={}),
            made_up(output={"message": {}, "grade": {}}),
            made_up(replies={}),
        ],
    )
    def test_a_line_that_was_made_up(self, tmp_path: Path, entry: str) -> None:
        path = tmp_path / "log.jsonl.journal"
        with Journal(path):
            pass
        first = path.read_bytes()
        path.write_bytes(first + self.sealed(entry) + self.sealed('{"ended": "done", "at": 0}'))
        try:
            with Journal(path) as journal:
                assert journal.calls == 0
        except AutoMixError as error:
            assert "Line 2" in str(error)
        else:
            assert entry == '{"x": 1}'

    def test_a_line_without_an_end(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(journal_module, "_LONGEST_LINE", 1000)
        path = tmp_path / "log.jsonl.journal"
        with Journal(path):
            pass
        with path.open("ab") as file:
            file.write(b"x" * 5000)
        with pytest.raises(AutoMixError, match="Line 2 of the journal .* is longer than any"):
            Journal(path)

    @pytest.mark.parametrize(
        "output",
        [
            {"message": []},
            {"message": {"type": "nobody", "data": {}}},
            {"message": {"type": "ai"}},
            {"message": {"type": "ai", "data": {"content": 7}}},
            {"grade": {"quality": 7}},
            {"verification": []},
        ],
    )
    def test_an_output_that_no_call_returns(self, output: dict[str, Any]) -> None:
        with pytest.raises(AutoMixError, match="Line 2 holds a call that no calibration has kept"):
            from_entry({"call": "c", "output": output, "calls": []}, [], lambda _: "Line 2")

    @pytest.mark.parametrize(
        "change",
        [
            lambda row: row.pop("answers"),
            lambda row: row["answers"].pop(),
            lambda row: row["answers"].append(row["answers"][0]),
            lambda row: row.update(answers=[1, 2]),
            lambda row: row["answers"][0].update(cost="1"),
            lambda row: row["answers"][0].pop("cost"),
            lambda row: row["answers"][0]["verification"].pop("sample_cost"),
            lambda row: row["answers"][1].update(checks={"a": {"verdicts": [True]}}),
            lambda row: row.update(currency="s"),
            lambda row: row["answers"][0].update(quality=7),
            lambda row: row["answers"][0].update(verification={"verdicts": "yes"}),
            lambda row: row["answers"][0].update(model="other"),
            lambda row: row.pop("metadata"),
            lambda row: row.update(metadata=[]),
            lambda row: row["metadata"].pop("labels"),
            lambda row: row["metadata"].update(labels=7),
            lambda row: row["metadata"].update(failed=["x"]),
            lambda row: row["metadata"].update(agreement=[1, 2, 3]),
            lambda row: row["metadata"].update(agreement="yes"),
        ],
    )
    def test_a_row_that_was_made_up(self, change: Any) -> None:
        row = {**json.loads(LINE), "currency": "USD", "metadata": {"labels": "references"}}
        row["answers"][0]["verification"] |= {"fixed_cost": 0.0, "sample_cost": 0.1}
        validate_row(row, ["small", "large"], "USD")
        change(row)
        with pytest.raises(ValueError):  # noqa: PT011
            validate_row(row, ["small", "large"], "USD")


WRONG: list[Any] = [None, True, -1, 10**400, 0.5, "x", "", [], [[]], {}, {"x": 1}, [{"x": [None]}]]


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to everything that stands within a value."""
    if place:
        yield place
    parts = (
        value
        if isinstance(value, dict)
        else dict(enumerate(value))
        if isinstance(value, list)
        else {}
    )
    for key, inner in parts.items():
        yield from places(inner, (*place, key))


class TestAChangedJournal:
    """The journal of a real run, with something of a wrong shape in one of its lines."""

    def run(self, server: OpenAIServer, out: Path) -> None:
        small, large, judge = (server.model(name) for name in ("small", "large", "judge"))
        calibrate(
            [{"question": f"Where was ship {i} built?", "answer": "Turku"} for i in (0, 1)],
            [small, large],
            quality=LLMJudge(model=judge),
            verifier=SelfVerifier(samples=2),
            prices=PRICES,
            out=out,
            concurrency=1,
            on_change="rerun",
        )

    def changes(self, entries: list[Any]) -> Iterator[tuple[int, list[Any]]]:
        """Yield the number of a line, and all entries with that one changed."""
        for i, entry in enumerate(entries[1:], 1):
            for *way, last in places(entry):
                for wrong in (*WRONG, KeyError):
                    changed = copy.deepcopy(entry)
                    inner = changed
                    for key in way:
                        inner = inner[key]
                    if wrong is KeyError:
                        del inner[last]
                    else:
                        inner[last] = wrong
                    yield i + 1, [*entries[:i], changed, *entries[i + 1 :]]

    @pytest.mark.filterwarnings("ignore:The quality of")
    @pytest.mark.parametrize("kept", ["with rows", "calls alone"])
    def test_it_is_one_error_that_says_where_or_harmless(
        self, server: OpenAIServer, tmp_path: Path, kept: str
    ) -> None:
        server.script = script
        out, path = tmp_path / "log.jsonl", tmp_path / "log.jsonl.journal"
        self.run(server, out)
        entries = [
            entry
            for line in path.read_bytes().splitlines(keepends=True)
            if (entry := journal_module._decode(line)) is not None
            if kept == "with rows" or "row" not in entry
        ]
        every = list(self.changes(entries))
        refusals = 0
        for line, changed in random.Random(0).sample(every, 120):
            path.write_bytes(b"".join(map(journal_module._encode, changed)))
            try:
                self.run(server, out)
            except AutoMixError as error:
                said = str(error)
                refusals += 1
                assert f"Line {line} of the journal {path}" in said or "costs is not known" in said
        assert refusals > 10


class TestPrices:
    @pytest.mark.parametrize("price", [1e300, "1e300", "1e-999999", -1, "x", True, None, [1]])
    def test_a_price_out_of_all_bounds(self, price: Any) -> None:
        with pytest.raises(AutoMixError, match="is no amount of dollars"):
            checked_prices({"small": {"input": price, "output": 1}})

    def test_a_file_without_an_end(self) -> None:
        with pytest.raises(AutoMixError, match="too long"):
            read_prices(Path("/dev/zero"))


WHOLE: dict[str, Any] = {"seconds": 1.0, "response": {}}


class TestRecordings:
    @pytest.mark.parametrize(
        "content",
        [
            [],
            {"calls": []},
            {"calls": {"a": {}}},
            {"calls": {"a": [7]}},
            {"calls": {"a": [{"seconds": 1}]}},
            {"calls": {"a": [{**WHOLE, "seconds": "x"}]}},
            {"calls": {"a": [{**WHOLE, "seconds": 1e300}]}},
            {"calls": {"a": [{**WHOLE, "response": []}]}},
            {"calls": {"a": [{"seconds": 1, "events": [1]}]}},
            {"calls": {"a": [{"seconds": 1, "events": [["x", {}]]}]}},
            {"about": []},
            {"schema": 1},
        ],
    )
    def test_a_bad_one_is_one_error(self, tmp_path: Path, content: Any) -> None:
        whole = {"schema": "langchain-automix/recording/1", "about": {}, "calls": {}}
        path = tmp_path / "recording.json.gz"
        text = json.dumps({**whole, **content} if isinstance(content, dict) else content)
        for data in (text, DEEP):
            path.write_bytes(gzip.compress(data.encode()))
            with pytest.raises(AutoMixError, match="is not a recording of a demo run"):
                Recording.read(path)

    def test_what_inflates_without_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(recording, "_LONGEST", 1000)
        (tmp_path / "r.gz").write_bytes(gzip.compress(b" " * 10_000))
        with pytest.raises(AutoMixError, match="too long"):
            Recording.read(tmp_path / "r.gz")


def test_parquet_text_that_is_not_utf_8(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    text = arrow.array([b"\xff\xfe"], arrow.binary()).view(arrow.string())
    parquet.write_table(arrow.table({"id": text}), tmp_path / "log.parquet")
    assert "cannot be read" in refused(tmp_path / "log.parquet")
