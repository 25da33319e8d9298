"""The books balance: what is billed is what the trace, the record and all totals say, exactly."""

from __future__ import annotations

import asyncio
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import fields
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.soak.random_queries import Books, Case, Ran, cases, reported, total
from tests.support.servers.langsmith_server import LangSmithServer
from tests.support.servers.openai_server import OpenAIServer

RUNS = 240
ROOTS = {("AutoMixRunnable", "chain")}
WRAPPERS = {"RunnableWithFallbacks"}
ROUTERS = {"ThresholdRouter", "Patient", "POMDPRouter"}
STAGES = {"draft", "escalate", "SelfVerifier", "ChatPromptTemplate", *WRAPPERS, *ROUTERS}

Trees = dict[str, list[dict[str, Any]]]


def all_ran(books: Books) -> list[Ran]:
    ran: list[Ran] = []

    @settings(
        max_examples=RUNS,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases())
    def run(case: Case) -> None:
        ran.append(books.run(case))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a router that is not calibrated says so
        run()
    return ran


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[list[Ran], Trees]]:
    """All cases, and by the mark of each query its runs, each before its children."""
    with OpenAIServer() as server, LangSmithServer() as ls, asyncio.Runner() as loop:
        books = Books(server, ls.client, loop)
        ran = all_ran(books)
        books.settle()
        traces: Trees = defaultdict(list)
        for each in ls.runs:
            traces[each["trace_id"]].append(each)
        marks = [mark for each in ran for mark in each.marks]
        by_mark: Trees = {}
        for runs in traces.values():
            [mark] = [mark for mark in marks if f"{mark} " in str(runs[0]["inputs"])]
            assert mark not in by_mark, "two traces of one query"
            by_mark[mark] = runs
        assert by_mark.keys() == set(marks)
        yield ran, by_mark


@pytest.fixture
def ran(world: tuple[list[Ran], Trees]) -> list[Ran]:
    return world[0]


@pytest.fixture
def trees(world: tuple[list[Ran], Trees]) -> Trees:
    return world[1]


def test_every_path_is_among_them(ran: list[Ran]) -> None:
    assert len(ran) >= 200
    for field in fields(Case):
        seen = Counter(getattr(each.case, field.name) for each in ran)
        assert min(seen.values()) >= 5 or field.name == "verdicts", (field.name, seen)
    records = [record for each in ran for record in each_record(each)]
    assert sum(record["escalated"] for record in records) > 50
    assert sum(not record["escalated"] for record in records) > 50
    assert sum(None in record["verdicts"] for record in records) > 20
    assert sum(isinstance(it, Exception) for each in ran for it in each.found) > 10
    assert sum(record["degraded"] is not None for record in records) > 10
    assert sum(bool(record["failed"]) for record in records) > 20
    assert any(len(bills) > 9 for each in ran for bills in each.billed.values())


def each_record(each: Ran) -> list[dict[str, Any]]:
    return [it for it in map(record, each.found) if it is not None]


def record(found: Any) -> dict[str, Any] | None:
    if isinstance(found, Exception):
        return None
    message = found["raw"] if isinstance(found, dict) else found
    known: dict[str, Any] = message.response_metadata["automix"]
    return known


def dollars(cost: str | None) -> Decimal:
    assert cost is not None
    return Decimal(cost.removesuffix(" USD"))


def test_the_record_says_what_was_billed(ran: list[Ran]) -> None:
    for each in ran:
        for mark, found in zip(each.marks, each.found, strict=True):
            if (known := record(found)) is None:
                case = each.case
                raises = case.verifier == "failing" and case.on_verification_error == "raise"
                assert raises or case.down != "none", (case, found)
                continue
            bill = each.bill(mark)
            kinds = ("input", "output", "total")
            assert known["tokens"] == {f"{k}_tokens": bill[k] for k in kinds}, each.case
            assert dollars(known["cost"]) == each.price(mark), each.case


def test_the_totals_say_what_was_billed(ran: list[Ran]) -> None:
    for each in ran:
        kept = [mark for mark, it in zip(each.marks, each.found, strict=True) if record(it)]
        # What failed had a price, too.
        bill = total([bill for mark in each.marks for bill in each.billed[mark]])
        assert each.totals.queries == len(kept)
        assert each.totals.unfinished == len(each.marks) - len(kept)
        assert each.totals.without_tokens == 0
        found = {kind: each.totals.tokens[f"{kind}_tokens"] for kind in ("input", "output")}
        assert found == {"input": bill["input"], "output": bill["output"]}, each.case
        assert dollars(each.totals.cost) == sum(map(each.price, each.marks)), each.case
        assert each.totals.escalations == sum(it["escalated"] for it in each_record(each))


def test_langchains_own_count_says_what_was_billed(ran: list[Ran]) -> None:
    for each in ran:
        bills = [bill for mark in each.marks for bill in each.billed[mark]]
        for name in {bill["model"] for bill in bills} | each.usage.usage_metadata.keys():
            usages: Any = [each.usage.usage_metadata[name]]
            of_it = total([bill for bill in bills if bill["model"] == name])
            assert reported(usages) == of_it, (name, each.case)


def test_the_trace_says_what_was_billed(ran: list[Ran], trees: Trees) -> None:
    for each in ran:
        for mark in each.marks:
            usages = [(run["extra"]["metadata"].get("usage_metadata"), run) for run in trees[mark]]
            assert all(run["run_type"] == "llm" for usage, run in usages if usage), each.case
            assert reported([usage for usage, _ in usages if usage]) == each.bill(mark), each.case


def test_one_root_and_every_parent_is_right(ran: list[Ran], trees: Trees) -> None:
    for each in ran:
        for mark in each.marks:
            root, *others = trees[mark]
            assert root.get("parent_run_id") is None
            assert (root["name"], root["run_type"]) in ROOTS, root["name"]
            by_id = {run["id"]: run for run in trees[mark]}
            for run in others:
                parent = by_id[run["parent_run_id"]]
                assert run["dotted_order"].startswith(f"{parent['dotted_order']}."), each.case
                assert is_right(run, parent, by_id), (each.case, parent["name"], run["name"])


def is_right(run: dict[str, Any], parent: dict[str, Any], by_id: dict[str, Any]) -> bool:
    """Whether a run is where it belongs; what a model is made of stands beneath its answer."""
    if "parent_run_id" not in parent:
        return run["name"] in STAGES
    match run["name"]:
        case "verify":
            return bool(parent["name"] == "SelfVerifier")
        case "SelfVerifier":
            return parent["name"] in {
                *WRAPPERS,
                "SelfVerifier",
            }  # a retry has the name of what it retries
        case "draft" | "escalate" | "ChatPromptTemplate":
            return False
    above = [parent["name"]]
    while "parent_run_id" in parent:
        parent = by_id[parent["parent_run_id"]]
        above.append(parent["name"])
    return above[-2] in {"draft", "escalate"}
