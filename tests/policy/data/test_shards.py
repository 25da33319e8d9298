"""Logs in folders and patterns of files, and their metadata without texts."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from langchain_automix import AutoMixError, POMDPRouter, RoutingLog
from langchain_automix.policy.data.columns import LogColumns
from langchain_automix.policy.data.facts import QueryFacts
from langchain_automix.report.labels import describe_labels
from tests.support.builders.logs_with_extra_checks import several
from tests.support.builders.sharded_logs import in_shards, said
from tests.support.builders.synthetic_logs import query, world


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "parquet"])
def test_a_folder_and_a_pattern_are_the_whole_log(tmp_path: Path, ending: str) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    log = said(several(12, lost=0.4))
    folder = in_shards(log, tmp_path / "logs", ending)
    (folder / "notes.txt").write_text("no log")
    for source in (folder, str(folder / f"part-*.{ending}")):
        read = RoutingLog.read(source)
        assert list(read.records()) == list(log.records())
        assert (read.models, read.currency, read.checks) == (log.models, log.currency, log.checks)


def test_a_folder_leaves_out_no_shard_and_reads_nothing_else(tmp_path: Path) -> None:
    log = said(world(9, k=1))
    folder = in_shards(log, tmp_path / "logs")
    (folder / "part-2.jsonl").rename(folder / "part-2.JSONL")
    for name in ("._part-0.jsonl", "_part-3.jsonl", ".part-3.jsonl"):  # of a Mac, of Spark
        (folder / name).write_bytes(b"\x00\x05\x16\x07")
    assert list(RoutingLog.read(folder).records()) == list(log.records())
    (folder / "part-4").mkdir()
    world(30, k=1)[20:].write(folder / "part-4" / "part-0.jsonl")
    with pytest.raises(AutoMixError, match=r"part-4 is a folder within a log's: .*\*\*/\*\.jsonl"):
        RoutingLog.read(folder)


def test_further_checks_that_begin_late_or_end_early(tmp_path: Path) -> None:
    plain = RoutingLog(query(100 + i, 0.0, 1.0, [True]) for i in range(3))
    late = RoutingLog.join([plain, several(4)])
    early = RoutingLog.join([several(4), plain])
    for log in (late, early):
        read = RoutingLog.read(in_shards(log, tmp_path / f"{log[0].id}", shards=4))
        assert list(read.records()) == list(log.records())
        assert len(read.store.further["logprob"].kind) == len(log) * 2


def test_without_texts_a_log_says_the_same_of_its_checks_and_labels(tmp_path: Path) -> None:
    log = said(world(30, k=2))
    folder = in_shards(log, tmp_path / "logs")
    short = RoutingLog.read(folder, texts=False)
    assert short[0].metadata == {
        "verifier": "a-check",
        "labels": "references",
        "check_replies": {"logprob": None},
    }
    assert (short.verifier, short.said_by_all("labels")) == ("a-check", None)
    kinds = [describe_labels(list(each.store.metadata.values()), "large") for each in (log, short)]
    assert kinds[0] == kinds[1]
    fits = [POMDPRouter.fit(each, cost_weight=0.01).policy for each in (log, short)]
    assert fits[0] == fits[1]
    assert list(pickle.loads(pickle.dumps(short)).records()) == list(short.records())
    part = short[2:4]
    assert part[0].metadata == short[2].metadata


def test_a_shard_that_does_not_go_with_the_others(tmp_path: Path) -> None:
    folder = in_shards(world(9, k=1), tmp_path / "logs")
    RoutingLog([query(0, 0.0, 1.0, [True])]).write(folder / "part-9.jsonl")
    with pytest.raises(AutoMixError, match=r"part-9\.jsonl: the id '0' stands in another shard"):
        RoutingLog.read(folder)
    other = query(99, 0.0, 1.0, [True])
    other["answers"][1]["model"] = "huge"
    RoutingLog([other]).write(folder / "part-9.jsonl")
    with pytest.raises(AutoMixError, match=r"part-9\.jsonl: the models are \['small', 'huge'\]"):
        RoutingLog.read(folder)
    RoutingLog([{**query(99, 0.0, 1.0, [True]), "currency": "EUR"}]).write(folder / "part-9.jsonl")
    with pytest.raises(AutoMixError, match=r"part-9\.jsonl: the currency is EUR, but None"):
        RoutingLog.read(folder)


def test_what_holds_no_log(tmp_path: Path) -> None:
    for source in (tmp_path, str(tmp_path / "*.jsonl")):
        with pytest.raises(AutoMixError, match="holds no routing log"):
            RoutingLog.read(source)
    with pytest.raises(AutoMixError, match="cannot be read"):
        RoutingLog.read(tmp_path / "missing.jsonl")
    with pytest.raises(AutoMixError, match="engine must be 'ray' or None, not 'spark'"):
        RoutingLog.read(tmp_path, engine="spark")  # type: ignore[arg-type]


def test_an_empty_shard_says_nothing_of_models(tmp_path: Path) -> None:
    folder = in_shards(world(9, k=1), tmp_path / "logs")
    (folder / "part-00.jsonl").write_text("")
    assert len(RoutingLog.read(folder)) == 9


def test_facts_are_a_mapping_with_gaps() -> None:
    facts = QueryFacts()
    facts[1] = {"labels": "grade", "question": "Who?"}
    facts[3] = {"labels": "grade"}
    facts[4] = "no names with values"
    assert dict(facts) == {1: {"labels": "grade"}, 3: {"labels": "grade"}, 4: {}}
    assert facts[1] is facts[3]
    assert (len(facts), facts.get(0), facts.get(-1), 2 in facts) == (3, None, None, False)
    del facts[3]
    assert sorted(facts) == [1, 4]
    more = QueryFacts()
    more[0], more[2] = {"labels": "agreement"}, {"labels": "grade"}
    facts.append(more, 6)
    assert {place: found.get("labels") for place, found in facts.items()} == {
        1: "grade",
        4: None,
        6: "agreement",
        8: "grade",
    }
    assert len(LogColumns(metadata=facts).metadata) == 4
