"""The routing log: what goes in comes out, and what is wrong is named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from langchain_automix import AutoMixError, RoutingLog

DATA = Path(__file__).parents[4] / "shared" / "data"


def line(id: str = "q1", **changes: Any) -> dict[str, Any]:
    small: dict[str, Any] = {
        "model": "small",
        "quality": 0.0,
        "cost": 1.0,
        "verification": {"verdicts": [True, False, None], "fixed_cost": 2.0, "sample_cost": 0.5},
    }
    large = {"model": "large", "quality": 1.0, "cost": 20}
    return {"id": id, "answers": [{**small, **changes}, large]}


@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz"])
def test_it_comes_back_as_written(tmp_path: Path, name: str) -> None:
    log = RoutingLog([line("a"), {**line("b"), "metadata": {"question": "é?"}}])
    log.write(tmp_path / name)
    again = RoutingLog.read(tmp_path / name)
    assert list(again) == list(log)
    assert again.models == ("small", "large")
    assert [path.name for path in tmp_path.iterdir()] == [name], "no temporary file is left"
    check = again[0].answers[0].verification
    assert check is not None
    assert (check.accepts, check.rejects, check.confidence, check.total_cost) == (1, 1, 0.5, 3.5)


def test_gzip_by_name(tmp_path: Path) -> None:
    RoutingLog([line()]).write(tmp_path / "log.jsonl.gz")
    assert json.loads(gzip.decompress((tmp_path / "log.jsonl.gz").read_bytes()))["id"] == "q1"


def test_a_slice_is_a_log() -> None:
    log = RoutingLog([line("a"), line("b"), line("c")])
    assert [query.id for query in log[1:]] == ["b", "c"]
    assert "3 queries" in repr(log)
    assert RoutingLog([]).models == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quality": 1.5}, "line 2, field answers.0.quality"),
        ({"quality": "1"}, "line 2, field answers.0.quality"),
        ({"quality": True}, "line 2, field answers.0.quality"),
        ({"cost": -1}, "line 2, field answers.0.cost"),
        ({"cost": float("nan")}, "line 2, field answers.0.cost"),
        (
            {"verification": {"verdicts": ["yes"]}},
            "line 2, field answers.0.verification.verdicts.0",
        ),
        ({"verification": {}}, "give either verdicts or a score"),
        ({"verification": {"score": 0.5, "verdicts": [True]}}, "give either verdicts or a score"),
        ({"model": "other"}, r"line 2, field answers: the models are \['other', 'large'\]"),
        ({"spam": 1}, "line 2, field answers.0.spam"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(json.dumps(found) for found in (line("a"), line("b", **changes))))
    with pytest.raises(AutoMixError, match=message):
        RoutingLog.read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "log.jsonl, line 1 is not JSON"),
        ("\n[]\n", "line 2, field"),
        (json.dumps(line()) + "\n" + json.dumps(line()), "the id 'q1' is repeated"),
        (
            json.dumps(line("a")) + "\n" + json.dumps({**line("b"), "currency": "EUR"}),
            "line 2, field currency",
        ),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "log.jsonl").write_text(text)
    with pytest.raises(AutoMixError, match=message):
        RoutingLog.read(tmp_path / "log.jsonl")


@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz"])
def test_a_byte_order_mark_is_no_part_of_a_log(tmp_path: Path, name: str) -> None:
    content = (json.dumps(line()) + "\n").encode("utf-8-sig")
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    log = RoutingLog.read(tmp_path / name)
    assert log[0].id == "q1"
    log.write(tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes().startswith(b"{")


class TestJoin:
    def test_shards_with_their_own_ids(self) -> None:
        shards = [RoutingLog([line("a"), line("b")]), RoutingLog([line("c")])]
        joined = RoutingLog.join(shards)
        assert list(joined) == [*shards[0], *shards[1]]
        assert len(RoutingLog.join([])) == 0

    def test_ids_that_stand_in_both_are_named(self) -> None:
        shards = [RoutingLog([line(f"q{i}") for i in range(9)]) for _ in range(2)]
        with pytest.raises(AutoMixError, match=r"9 ids stand .*: q0, q1, q2, q3, q4, \.\.\. Give"):
            RoutingLog.join(shards)
        with pytest.raises(AutoMixError, match=r"1 id stands in more than one log: q1. Give"):
            RoutingLog.join([RoutingLog([line("q1")]), RoutingLog([line("q1"), line("q2")])])

    def test_names_keep_ids_apart(self) -> None:
        shards = {name: RoutingLog([line("q1"), line("q2")]) for name in ("monday", "tuesday")}
        joined = RoutingLog.join(shards)
        ids = [query.id for query in joined]
        assert ids == ["monday:q1", "monday:q2", "tuesday:q1", "tuesday:q2"]
        assert joined[2].answers == shards["tuesday"][0].answers

    def test_other_models_are_refused(self) -> None:
        with pytest.raises(AutoMixError, match="record 2, field answers: the models are"):
            RoutingLog.join([RoutingLog([line("a")]), RoutingLog([line("b", model="other")])])

    def test_the_error_of_a_file_names_it(self, tmp_path: Path) -> None:
        (tmp_path / "log.jsonl").write_text(f"{json.dumps(line())}\n{json.dumps(line())}\n")
        with pytest.raises(AutoMixError, match=r"RoutingLog\.join"):
            RoutingLog.read(tmp_path / "log.jsonl")


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(AutoMixError, match="cannot be read"):
        RoutingLog.read(tmp_path / "none.jsonl")
    (tmp_path / "broken.jsonl.gz").write_bytes(gzip.compress(b"{}")[:-5])
    with pytest.raises(AutoMixError, match="cannot be read"):
        RoutingLog.read(tmp_path / "broken.jsonl.gz")
    with pytest.raises(AutoMixError, match="cannot be written"):
        RoutingLog([line()]).write(tmp_path / "nowhere" / "log.jsonl")


@pytest.mark.skipif(not DATA.exists(), reason="the recorded logs are not at hand")
@pytest.mark.parametrize("path", sorted(DATA.glob("**/*_log*/*.jsonl.gz")), ids=lambda p: p.name)
def test_real_logs_are_read(path: Path) -> None:
    log = RoutingLog.read(path)
    assert len(log) > 100
    assert len(log.models) >= 2
