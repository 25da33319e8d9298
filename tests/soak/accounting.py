"""What must be true of a query after a soak: its answer, its error, and every book of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from langchain_openai._compat import httpx
from openai import OpenAIError

from langchain_automix import AutoMixTotals, SpendLimitReachedError
from langchain_automix.errors import QueryFailedError
from langchain_automix.models.prices import dollars_of
from tests.soak.provider import MARK, REFUSED, UNSEEN, Request, answer_of
from tests.soak.world import PRICES, Query

CLEAR = (OpenAIError, QueryFailedError, json.JSONDecodeError, httpx.HTTPError)
"""Errors that say what went wrong: the client's own, and those of the mix."""


@dataclass
class Bill:
    """What the provider billed for one query, by what its client can know of it."""

    known: Sequence[Request]
    unseen: Sequence[Request]
    """Billed, but no bill got through."""

    hidden: Sequence[Request]
    """Billed, but the client's own retries have told nobody of it."""

    @classmethod
    def of(cls, requests: Iterable[Request]) -> Bill:
        kept: dict[tuple[str, str], list[Request]] = {}
        hidden = []
        for request in requests:
            before = kept.setdefault((request.model, request.stage), [])
            if request.retry and before:
                hidden.append(before.pop())
            before.append(request)
        asked = [request for each in kept.values() for request in each]
        unseen = [request for request in asked if request.fault in UNSEEN]
        return cls([request for request in asked if request not in unseen], unseen, hidden)


def tokens_of(requests: Iterable[Request]) -> dict[str, int]:
    read = written = 0
    for request in requests:
        read, written = read + request.input, written + request.output
    return {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}


def price_of(requests: Iterable[Request]) -> Decimal:
    whole = Decimal(0)
    for request in requests:
        price = PRICES[request.model]
        whole += request.input * Decimal(str(price["input"]))
        whole += request.output * Decimal(str(price["output"]))
    return whole / 1_000_000


def problems(query: Query, requests: Sequence[Request]) -> Iterator[str]:
    """Say everything that is wrong with one query."""
    if query.end == "lost":
        yield "it never ended"
        return
    if query.end == "answered":
        yield from _of_answer(query, requests)
    elif not any(answer_of(query.mark, model).startswith(query.text) for model in PRICES):
        yield f"a part was shown that is of no right answer: {query.text!r}"
    if query.end == "failed" and not isinstance(query.error, CLEAR):
        yield f"the error is not clear: {query.error!r}"
    if query.trace is not None:
        marks = {mark for run in query.trace.traced_runs for mark in _marks(run)}
        if marks - {query.mark} or (query.end == "answered" and not marks):
            yield f"the trace tells of {sorted(marks)}"
    yield from _of_books(query, requests)


def _of_answer(query: Query, requests: Sequence[Request]) -> Iterator[str]:
    record = query.record
    if record is None:
        yield "its answer has no record"
        return
    model = record["model"]
    made = {each.fault for each in requests if each.model == model and each.stage == "answer"}
    if not query.text and record["degraded"] and "empty" in made:
        return  # all that there was, given as it is
    if query.text != answer_of(query.mark, model):
        yield f"the answer of {model} is {query.text!r}"
    if None not in made:
        yield f"{model} has not given the answer that it is said to have given"
    bill = Bill.of(requests)
    failed = {each["model"] for each in record["failed"] if each["stage"] in ("draft", "escalate")}
    for each in [*bill.known, *bill.unseen]:
        if each.stage == "answer" and each.fault in REFUSED | UNSEEN and each.model not in failed:
            yield f"that {each.model} failed ({each.fault}) is not in the record"


def _of_books(query: Query, requests: Sequence[Request]) -> Iterator[str]:
    events = query.told.events
    if not events:
        # Refused before it began, or broken off before.
        refused = isinstance(query.error, SpendLimitReachedError)
        if requests or not (refused or query.end in {"cancelled", "left"}):
            yield f"it was billed {len(requests)} requests, and nobody was told what it cost"
        return
    if len(events) > 1:
        yield f"it was told of {len(events)} times"
    [event, *_] = events
    told = {name: value for name, value in event.items() if name != "seconds"}
    if query.end == "answered" and told != query.record:
        yield "what was told of it is not its record"
    if query.end == "failed" and "unfinished" not in event:
        yield "it failed, but is told of as answered"
    if event["tokens"] is not None:
        yield from _of_bill(query, event, Bill.of(requests))
    elif event["cost"] is not None or not event["unpriced"]:
        yield "its tokens are unknown, but not its cost"


def _of_bill(query: Query, event: Mapping[str, Any], bill: Bill) -> Iterator[str]:
    """Hold a cost that is said to be known against what the provider billed."""
    if bill.unseen:
        faults = [each.fault for each in bill.unseen]
        yield f"{faults} were billed unseen, but its cost is said to be known"
    elif event["tokens"] != tokens_of(bill.known):
        yield f"its tokens are {event['tokens']}, the provider billed {tokens_of(bill.known)}"
    elif dollars_of(event["cost"]) != price_of(bill.known):
        yield f"its cost is {event['cost']}, its price {price_of(bill.known)}"
    elif query.end == "answered":
        usages: Any = query.usage.usage_metadata.values()
        counted = {kind: sum(usage[kind] for usage in usages) for kind in event["tokens"]}
        if counted != event["tokens"]:
            yield f"LangChain counts {counted} tokens, the record {event['tokens']}"


def _marks(run: Any) -> set[str]:
    found = set(MARK.findall(f"{run.inputs} {run.outputs}"))
    return found.union(*map(_marks, run.child_runs))


@dataclass
class Tally:
    """What all queries of a soak came to."""

    ends: Counter[str] = field(default_factory=Counter)
    ways: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    escalated: int = 0
    degraded: int = 0
    passed_over: int = 0
    """Answers of queries of which some call had failed."""

    exact: int = 0
    """Queries whose cost is known, to the token what the provider billed."""

    unknown: int = 0
    """Queries whose cost is said to be unknown."""

    late: int = 0
    """Of these, the ones of which all bills were sent, and that were not broken off: they came too
    late, by `max_latency` or for the client's patience."""

    hidden: int = 0
    """Requests billed that the client's own retries have hidden."""

    known: Decimal = Decimal(0)
    """What the queries of known cost came to, in dollars: by the records, and by the bills."""

    unseen: Decimal = Decimal(0)
    """What the provider billed for the queries of unknown cost."""

    scarce: Decimal = Decimal(0)
    """What is known to be spent under the limit that raises."""

    wrong: list[str] = field(default_factory=list)

    def add(self, queries: Sequence[Query], books: Mapping[str, list[Request]]) -> None:
        """Check and count the queries of one round."""
        for query in queries:
            requests = books.get(query.mark, [])
            found = problems(query, requests)
            self.wrong += [f"{query.mark} ({query.mix}, {query.way}): {each}" for each in found]
            self._count(query, requests)
        for mark in books.keys() - {query.mark for query in queries}:
            self.wrong.append(f"{mark} was asked when its round was over")

    def _count(self, query: Query, requests: Sequence[Request]) -> None:
        self.ends[query.end] += 1
        self.ways[query.way] += 1
        self.requests += len(requests)
        self.faults.update(each.fault for each in requests if each.fault)
        if query.error is not None:
            self.errors[type(query.error).__name__] += 1
        if query.record is not None:
            self.escalated += query.record["escalated"]
            self.degraded += query.record["degraded"] is not None
            self.passed_over += bool(query.record["failed"])
        bill = Bill.of(requests)
        self.hidden += sum(each.input > 0 for each in bill.hidden)
        if query.told.events and query.told.events[0]["tokens"] is not None:
            self.exact += 1
            self.known += price_of(bill.known)
            if query.mix == "limited" and query.scarce:
                self.scarce += price_of(bill.known)
        elif query.told.events:
            self.unknown += 1
            self.late += not bill.unseen and query.end in {"answered", "failed"}
            self.unseen += price_of([*bill.known, *bill.unseen])

    def check_totals(
        self, totals: AutoMixTotals, queries: Sequence[Query], books: Mapping[str, list[Request]]
    ) -> None:
        """Hold what one handler for all queries of a round says against the provider's books."""
        events = [(query, event) for query in queries for event in query.told.events[:1]]
        known = [query for query, event in events if event["tokens"] is not None]
        billed = [each for query in known for each in Bill.of(books.get(query.mark, [])).known]
        expected = {
            "queries": sum("unfinished" not in event for _, event in events),
            "unfinished": sum("unfinished" in event for _, event in events),
            "without_tokens": len(events) - len(known),
            "escalations": sum(event.get("escalated", False) for _, event in events),
            "tokens": tokens_of(billed),
            "cost": None if len(known) < len(events) else price_of(billed),
        }
        cost = None if totals.cost is None else dollars_of(totals.cost)
        said = {**vars(totals), "tokens": dict(totals.tokens), "cost": cost}
        for name, value in expected.items():
            if (found := said[name]) != value:
                self.wrong.append(f"the totals say {name} {found}, the books {value}")
