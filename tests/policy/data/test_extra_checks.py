"""Further checks of an answer in the routing log: in every format, in parts, and as numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from langchain_automix import AutoMixError, RoutingLog
from langchain_automix.policy.data.arrays import LogArrays, to_arrays
from langchain_automix.policy.fitting.digest import log_digest, was_fitted_to
from langchain_automix.policy.fitting.fit import fit_policy
from langchain_automix.policy.fitting.goal import Goal
from tests.support.builders.logs_with_extra_checks import several
from tests.support.builders.synthetic_logs import query, world


def mixed() -> RoutingLog:
    """Some answers have further checks, of both kinds; the second query has none."""
    first: dict[str, Any] = query(1, 0.0, 1.0, [True, False])
    first["answers"][0]["checks"] = {
        "again": {"verdicts": [None, True], "fixed_cost": 0.5, "sample_cost": 0.25},
        "logprob": {"score": 0.5, "cost": None},
    }
    third: dict[str, Any] = query(3, 0.5, 1.0, [False])
    third["answers"][1]["checks"] = {"logprob": {"score": 0.75, "cost": 2.0}}
    return RoutingLog([first, query(2, 0.5, 1.0, [True]), third])


def test_one_check_alone_goes_by_its_own_name() -> None:
    records = list(mixed().records())
    for record in records:
        said = {"first": [["ok"], []], "logprob": [["-1"], []]}
        record["metadata"] = {"check": "few-shot", "verifier": "all", "replies": said["first"]}
        record["metadata"]["check_replies"] = {"logprob": said["logprob"]}
    log = RoutingLog(records)
    alone = log.select(check="logprob")
    assert (alone.said_by_all("check"), alone.verifier) == ("logprob", None)
    assert alone[0].metadata == {"check": "logprob", "replies": [["-1"], []]}
    first = log.select(check="first")
    assert first[0].metadata == {"check": "few-shot", "replies": [["ok"], []]}
    assert mixed().select(check="logprob").said_by_all("check") == "logprob"
    assert mixed().select(check="first")[0].metadata is None


class TestFormats:
    @pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz", "log.parquet"])
    def test_every_format_keeps_them(self, tmp_path: Path, name: str) -> None:
        if name.endswith("parquet"):
            pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
        mixed().write(tmp_path / name)
        again = RoutingLog.read(tmp_path / name)
        assert list(again) == list(mixed())
        assert again.checks == ("first", "again", "logprob")
        assert again[0].answers[0].checks["again"].verdicts == (None, True)
        assert again[1].answers[0].checks == {}

    def test_a_frame_keeps_them(self) -> None:
        pytest.importorskip("pandas", reason="the extra `pandas` is not installed")
        assert list(RoutingLog.from_pandas(mixed().to_pandas())) == list(mixed())
        assert "checks" not in world(3).to_pandas().columns

    def test_a_log_without_them_is_written_as_before(self, tmp_path: Path) -> None:
        log = RoutingLog([query(1, 0.0, 1.0, [True, None])])
        log.write(tmp_path / "log.jsonl")
        assert (tmp_path / "log.jsonl").read_text() == (
            '{"id": "1", "answers": [{"model": "small", "quality": 0.0, "cost": 1.0, '
            '"verification": {"verdicts": [true, null], "fixed_cost": 0.0, "sample_cost": 0.0}}, '
            '{"model": "large", "quality": 1.0, "cost": 10.0, "verification": null}]}\n'
        )
        assert "checks" not in json.dumps(list(mixed()[1:2].records()))

    @pytest.mark.parametrize("name", ["", "first", "4", "a:b", "a,b"])
    def test_names_that_no_policy_could_tell(self, name: str) -> None:
        record: dict[str, Any] = query(1, 0.0, 1.0, [True])
        record["answers"][0]["checks"] = {name: {"score": 0.5}}
        with pytest.raises(AutoMixError, match=r"record 1, field answers\.0\.checks.*colon"):
            RoutingLog([record])


class TestParts:
    def test_one_check_alone(self) -> None:
        log = several(30)
        judge = log.select(check="judge")
        assert judge.checks == ("first",)
        for one, all_of in zip(judge, log, strict=True):
            assert one.answers[0].verification == all_of.answers[0].checks["judge"]
            assert one.answers[0].checks == {}
        first = log.select(check="first")
        assert first[3].answers[0].verification == log[3].answers[0].verification
        assert first.checks == ("first",)
        assert log.select(models=["large"]).checks == ()
        with pytest.raises(AutoMixError, match="no check 'other'; it has .*'judge'"):
            log.select(check="other")

    def test_parts_keep_them(self) -> None:
        log = several(20)
        assert list(log[5:9]) == [log[i] for i in range(5, 9)]
        half, other = log.split(0.5)
        assert half.checks == other.checks == log.checks

    def test_columns(self) -> None:
        columns = to_arrays(mixed())
        assert columns.checks["logprob"].score[0, 0] == 0.5
        assert np.isnan(columns.checks["logprob"].score[1]).all()
        assert columns.checks["logprob"].fixed_cost[2, 1] == 2.0
        alone = columns.rows(np.array([0])).alone("again")
        assert alone.counts(0).tolist() == [[1, 0, 1]]
        assert alone.checks == {}
        assert to_arrays(several(5)).checks_of(0) == (None, "logprob", "judge")
        assert to_arrays(several(5)).only([1]).checks_of(0) == ()


class TestPrices:
    def log(self, prices: list[float | None]) -> RoutingLog:
        records = [query(i, i % 2, 1.0, 0.25 + i % 2 / 2) for i in range(len(prices))]
        for record, price in zip(records, prices, strict=True):
            record["answers"][0]["verification"]["cost"] = price
        return RoutingLog(records)

    def test_an_unknown_price_is_told(self) -> None:
        policy = fit_policy(self.log([None] * 10))
        assert policy.fit.notes[0] == (
            "The log does not say what the check of small's answers cost on 10 of 10 queries; it "
            "counts as free."
        )

    def test_a_price_that_is_sometimes_unknown_is_the_mean_of_the_others(self) -> None:
        columns = to_arrays(self.log([1.0, 3.0, None]))
        assert columns.fixed_cost[:, 0].tolist() == [1.0, 3.0, 2.0]
        [note] = columns.notes
        assert "1 of 3 queries; the others' mean is taken" in note

    def test_a_known_price_needs_no_word(self) -> None:
        assert to_arrays(self.log([1.0, 0.0])).notes == ()
        assert to_arrays(world(5)).notes == ()


def test_the_digest_is_of_all_checks() -> None:
    log = several(30)
    policy = fit_policy(log, Goal(cost_weight=0.04))
    assert was_fitted_to(policy, RoutingLog(reversed(list(log))))
    assert not was_fitted_to(policy, several(30, prices=(0.1, 2.0)))
    assert log_digest(log) != log_digest(log.select(check="first"))


def test_arrays_without_further_checks_are_made_as_before() -> None:
    zeros = np.zeros((1, 2))
    made = LogArrays(
        ("a", "b"), zeros, zeros, np.empty((1, 2, 0), dtype=np.int8), zeros, zeros, zeros, zeros[0]
    )
    assert (made.checks, made.notes) == ({}, ())
