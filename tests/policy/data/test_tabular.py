"""The routing log in columns, as Parquet and as a frame."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from langchain_automix import AutoMixError, RoutingLog
from langchain_automix.policy.data.arrays import to_arrays
from tests.support.builders.synthetic_logs import query, world


def mixed() -> RoutingLog:
    records = [
        query(1, 0.0, 1.0, [True, None, False]),
        query(2, 0.5, 1.0, 0.25),
        query(3, 0.5, 1.0, [False]),
    ]
    records[0]["metadata"] = {"question": "é?"}
    records[1]["answers"][1]["verification"] = {"score": None, "cost": 0.5}
    records[2]["answers"][1] = {"model": "large", "quality": None, "cost": None}
    return RoutingLog({**record, "currency": "EUR"} for record in records)


@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz", "log.parquet"])
def test_every_format_keeps_everything(tmp_path: Path, name: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    mixed().write(tmp_path / name)
    assert list(RoutingLog.read(tmp_path / name)) == list(mixed())


def test_a_frame_keeps_the_answers() -> None:
    pytest.importorskip("pandas", reason="the extra `pandas` is not installed")
    log = world(20)
    assert list(RoutingLog.from_pandas(log.to_pandas())) == list(log)
    with pytest.raises(AutoMixError, match="lacks the columns"):
        RoutingLog.from_pandas(log.to_pandas().drop(columns=["cost"]))


def test_a_frame_that_was_a_file_of_text(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="the extra `pandas` is not installed")
    log = world(20)
    log.to_pandas().to_csv(tmp_path / "log.csv", index=False)
    again = pandas.read_csv(tmp_path / "log.csv", dtype={"id": str})
    assert list(RoutingLog.from_pandas(again)) == list(log)
    again["verdicts"] = "[True False]"  # as numpy writes it
    with pytest.raises(AutoMixError, match="no list of verdicts"):
        RoutingLog.from_pandas(again)
    frame = log.to_pandas()
    frame["verdicts"] = [["True", "no"]] * len(frame)
    with pytest.raises(AutoMixError, match="field answers.0.verification.verdicts.0"):
        RoutingLog.from_pandas(frame)


def test_frames_of_other_kinds() -> None:
    class Series:
        def to_list(self) -> list[bool | None]:
            return [True, None]

    class Frame:  # as polars has it
        columns = ("id", "model", "quality", "cost", "verdicts", "check_cost")

        def iter_rows(self) -> list[tuple[object, ...]]:
            return [("a", "s", 0.0, 1, Series(), 0.5), ("a", "l", None, np.float64(2), None, None)]

    [found] = RoutingLog.from_pandas(Frame())
    first, second = found.answers
    assert first.verification is not None
    assert (first.verification.verdicts, first.verification.fixed_cost) == ((True, None), 0.5)
    assert (second.quality, second.cost) == (None, 2.0)
    with pytest.raises(AutoMixError, match="A list is no data frame"):
        RoutingLog.from_pandas([])


def test_select_split_summary() -> None:
    log = world(100)
    assert log.select(models=["large"]).models == ("large",)
    right = log.select(where=lambda q: q.answers[0].quality == 1)
    assert 30 < len(right) < 70
    first, second = log.split(0.3, seed=1)
    assert (len(first), len(second)) == (30, 70)
    assert {q.id for q in first}.isdisjoint(q.id for q in second)
    assert [q.id for q in first] == [q.id for q in log.split(0.3, seed=1)[0]]
    found = log.summary()
    assert found["queries"] == 100
    assert found["models"]["small"]["checked"] == 100
    assert found["models"]["large"]["cost"] == pytest.approx(10)
    with pytest.raises(AutoMixError, match="no model 'tiny'"):
        log.select(models=["tiny"])
    with pytest.raises(AutoMixError, match="between 0 and 1"):
        log.split(1.0)


def test_models_in_another_order_and_a_model_twice(tmp_path: Path) -> None:
    swapped = query(2, 0.0, 1.0, [True])
    swapped["answers"].reverse()
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(map(json.dumps, (query(1, 0.0, 1.0, [True]), swapped))))
    with pytest.raises(AutoMixError, match="line 2, field answers: the models are"):
        RoutingLog.read(path)
    twice = query(1, 0.0, 1.0, [True])
    twice["answers"].append(twice["answers"][0])
    with pytest.raises(AutoMixError, match="a model is repeated"):
        RoutingLog([twice])


def test_columns_are_the_log() -> None:
    columns = to_arrays(mixed())
    assert columns.verdicts[0, 0].tolist() == [1, -1, 0]
    assert columns.verdicts[2, 0].tolist() == [0, -2, -2]
    assert columns.score[1, 0] == 0.25
    assert np.isnan(columns.quality[2, 1])
    assert columns.complete.tolist() == [True, True, False]
