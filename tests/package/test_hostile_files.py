"""Files from strangers: opening one ends in an error of one line, or in harmless data."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from langchain_automix import AutoMixError, POMDPRouter, RoutingLog
from langchain_automix.calibration.journal import Journal
from langchain_automix.cli.app import app
from tests.support.builders.synthetic_logs import world

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
