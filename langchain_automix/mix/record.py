"""The record of one query: the decision, the reason, the cost, and the cost of alternatives."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable

from langchain_automix.errors import AutoMixError
from langchain_automix.flow.steps import Report
from langchain_automix.models.failures import may_be_billed
from langchain_automix.models.prices import (
    CURRENCY,
    PricedCalls,
    PriceSource,
    add_costs,
    call_cost,
    format_dollars,
    is_cached,
)
from langchain_automix.models.usage import UsageCollector, with_model_name
from langchain_automix.types import Decision, ModelCall, UnaccountedCall, Verification, Visit

_LOGGER = logging.getLogger(__name__)
Identity = tuple[str | None, str | None]
_TOKENS = ("input_tokens", "output_tokens", "total_tokens")


@dataclass
class QueryLedger:
    """What one query has asked, found and paid so far."""

    prices: PriceSource | None = None
    names: Sequence[str] = ()
    """Names of the models in the mix."""

    identities: Sequence[Identity] = ()
    """Names and providers of the models, used to look up prices."""

    visits: dict[int, Visit] = field(default_factory=dict)
    calls: list[ModelCall] = field(default_factory=list)
    """All requests, in the order in which they were made."""

    answered: dict[int, list[ModelCall]] = field(default_factory=dict)
    """Requests for an answer, by model."""

    failed: list[dict[str, str | None]] = field(default_factory=list)
    """What failed: `model`, `stage` and `error`, the type of the error. The text of the error is
    left out, as it may quote a prompt."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds spent in each stage: `draft`, `verify`, `route`, `escalate`."""

    _costs: dict[int, tuple[ModelCall, Decimal | None]] = field(
        default_factory=dict, init=False, repr=False
    )

    def price(self, calls: Iterable[ModelCall]) -> PricedCalls:
        """Return the cost of requests and the models of unknown cost; price each request once."""
        return add_costs((call, self._cost(call)) for call in calls)

    def _cost(self, call: ModelCall) -> Decimal | None:
        if (known := self._costs.get(id(call))) is None:  # kept calls keep their id
            known = self._costs[id(call)] = call, call_cost(call, self.prices)
        return known[1]

    @property
    def cost_so_far(self) -> str | None:
        """Cost of the query so far, as text with its currency; None if unknown."""
        return format_dollars(self.price(self.calls).total)

    def answer_cost(self, index: int) -> dict[str, float]:
        """Return the cost of a model's answer by currency; empty if unknown or free."""
        cost = self.price(self.answered.get(index, ())).total
        return {CURRENCY: float(cost)} if cost else {}

    def add_request(self, index: int, call: ModelCall) -> None:
        """Add a request for an answer."""
        self.calls.append(call)
        self.answered.setdefault(index, []).append(call)

    def add_reply(
        self, index: int, usage: UsageCollector, reply: AIMessage, model: Runnable[Any, Any]
    ) -> None:
        """Add the requests of an answering call that returned a message."""
        for call in usage.requests_for(reply):
            self.add_request(index, with_model_name(call, model))

    def add_failed_request(
        self, index: int, stage: str, error: Exception, usage: UsageCollector
    ) -> None:
        """Add an answering call that failed; its cost is unknown if no usage was reported."""
        self._add_failure(self.names[index], stage, error)
        is_known = self._add_heard(index, usage) and usage.accounts_for(error)
        if may_be_billed(error) and not is_known:
            self.add_unheard_request(index)

    def add_lost_request(self, index: int, usage: UsageCollector) -> None:
        """Add an answering call that was cancelled midway."""
        if not self._add_heard(index, usage):
            self.add_unheard_request(index)

    def _add_heard(self, index: int, usage: UsageCollector) -> bool:
        heard = [*usage.calls, *usage.unfinished]
        for call in heard:
            self.add_request(index, call)
        return bool(heard) or bool(usage.failed)

    def add_unheard_request(self, index: int) -> None:
        """Add a request for an answer whose outcome was never reported; its cost is unknown."""
        model, provider = self.identities[index]
        call = UnaccountedCall(model=model or self.names[index], provider=provider)
        self.add_request(index, call)

    def add_failed_check(
        self, index: int, errors: Sequence[tuple[str | None, BaseException]]
    ) -> None:
        """Add a check that failed in whole or in part: each type of error once per model."""
        kinds = {(model, type(error)): (model, error) for model, error in errors}
        for model, error in kinds.values():
            self._add_failure(model or self.names[index], "verify", error)

    def add_failed_route(self, error: Exception) -> None:
        """Add a failure of the router."""
        self._add_failure(None, "route", error)

    def add_seconds(self, stage: str, seconds: float) -> None:
        """Add the duration of one step, in seconds."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def _add_failure(self, model: str | None, stage: str, error: BaseException) -> None:
        kind = type(error).__name__
        self.failed.append({"model": model, "stage": stage, "error": kind})
        _LOGGER.warning("%s failed (%s): %s", model or "the router", stage, kind)


def build_record(
    ledger: QueryLedger,
    decision: Decision,
    degraded: str | None = None,
    hedged: str | None = None,
    leading: str | None = None,
    learning: Mapping[str, Any] | None = None,
    given_up: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Build the record of a query that has ended, ready for JSON.

    Args:
        ledger: The requests, findings and costs.
        decision: The last decision.
        degraded: What went wrong and made the answer worse.
        hedged: Name of a model that was asked before it was known whether it would be needed.
        leading: Name of the leading check if there are several, else None.
        learning: Which version of a learned policy decided, and why; None if nothing is learned.
        given_up: Drafts that were given up while being written.
    """
    checks = [visit.verification for visit in ledger.visits.values() if visit.verification]
    check = _deciding_check(checks[-1]) if checks else Verification()
    bill = ledger.price(ledger.calls)
    alone = _single_model_costs(ledger)
    largest, is_estimate = alone[-1]
    saved = None if largest is None or bill.total is None else largest - bill.total
    # The first model asked is not an escalation, even if its answer is kept unchecked.
    asked_one = decision.action == "escalate" and len(ledger.visits) == 1
    return {
        "model": ledger.names[decision.model_index],
        "model_index": decision.model_index,
        "action": "answer" if asked_one else decision.action,
        "confidence": _confidence(check),
        "verdicts": list(check.verdicts),
        "drawn": sum(len(each.verdicts) for check in checks for each in _parts(check).values()),
        "checks": _checks(ledger, leading),
        "escalated": len(ledger.visits) > 1,
        "cost": format_dollars(bill.total),
        "unpriced": list(bill.unpriced),
        "tokens": _tokens(ledger.calls),
        "alone": {
            name: {"cost": format_dollars(cost), "estimate": estimate}
            for name, (cost, estimate) in zip(ledger.names, alone, strict=True)
        },
        "saved": format_dollars(saved),
        "saved_is_estimate": saved is not None and is_estimate,
        "belief": decision.belief,
        "values": decision.values,
        "why": decision.why,
        "degraded": degraded,
        "hedged": hedged,
        "given_up": list(given_up),
        "failed": list(ledger.failed),
        **({} if learning is None else {"learning": dict(learning)}),
    }


def _parts(check: Verification) -> dict[str | None, Verification]:
    """Return the checks made of one answer, by name; the only or first check has the name None."""
    first = check.verdicts or check.score is not None or check.problem or not check.checks
    parts: dict[str | None, Verification] = {None: check} if first else {}
    return parts | dict(check.checks.items())


def _deciding_check(check: Verification) -> Verification:
    """Return the check that represents all: the first, or the last that found something.

    If the first check was not made, the last one counts, since another check is bought only if the
    findings so far do not suffice.
    """
    if check.confidence is not None or check.verdicts or not check.checks:
        return check
    known = [each for each in check.checks.values() if each.confidence is not None]
    return known[-1] if known else check


def _confidence(check: Verification) -> float | None:
    """Return the confidence if it is known; an upper bound does not count."""
    return None if check.is_upper_bound else check.confidence


def _checks(ledger: QueryLedger, leading: str | None) -> list[dict[str, Any]]:
    """Return every check of every model's answer, in the order in which they were made."""
    return [
        {
            "model": ledger.names[index],
            "check": name or (leading if each.verdicts or each.score is not None else None),
            "confidence": _confidence(each),
            "verdicts": list(each.verdicts),
            "problem": "the draft was given up" if each.is_upper_bound else each.problem,
        }
        for index, visit in ledger.visits.items()
        if visit.verification is not None
        for name, each in _parts(visit.verification).items()
    ]


def unfinished_record(
    ledger: QueryLedger, learning: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Build the record of a query that failed or was cancelled: its cost up to then."""
    try:
        bill = ledger.price(ledger.calls)
    except AutoMixError:  # an invalid price must not replace the error that ended the query
        bill = PricedCalls(None)
    return {
        "unfinished": True,
        "cost": format_dollars(bill.total),
        "unpriced": list(bill.unpriced),
        "tokens": _tokens(ledger.calls),
        "failed": list(ledger.failed),
        **({} if learning is None else {"learning": dict(learning)}),
    }


class QueryCost(NamedTuple):
    """The cost of a query, in dollars."""

    cost: Decimal | None
    """The cost; None if unknown."""

    may: Decimal | None
    """The cost if every model had been asked; None if unknown."""

    is_lost: bool = False
    """Whether the cost is unknown only because the outcome of some requests was never reported.
    `may` then counts the others."""


def query_cost(ledger: QueryLedger) -> QueryCost:
    """Return the cost of a query, with an estimate for models that gave no answer."""
    heard = _heard(ledger)
    cost = heard.price(heard.calls).total
    if cost is None:
        return QueryCost(None, None)
    others = [would for would, is_estimate in _single_model_costs(heard) if is_estimate]
    may = cost + sum((would for would in others if would is not None), Decimal(0))
    is_lost = len(heard.calls) < len(ledger.calls)
    return QueryCost(None if is_lost else cost, may, is_lost)


def _heard(ledger: QueryLedger) -> QueryLedger:
    """Return a copy of the ledger without requests whose outcome was never reported."""

    def heard(calls: Sequence[ModelCall]) -> list[ModelCall]:
        return [call for call in calls if not isinstance(call, UnaccountedCall)]

    answered = {i: kept for i, calls in ledger.answered.items() if (kept := heard(calls))}
    return replace(ledger, calls=heard(ledger.calls), answered=answered)


def report_of(
    record: Mapping[str, Any], policy: str, count: Callable[[], None] | None = None
) -> Report:
    """Build the report of a query's own run: flat values to filter by, and the record."""
    flat = {
        "automix_action": record["action"],
        "automix_escalated": record["escalated"],
        "automix_confidence": record["confidence"],
        "automix_model": record["model"],
        "automix_policy": policy,
        "automix_cost": record["cost"],
        "automix_saved": record["saved"],
        "automix_degraded": True if record["degraded"] else None,
        "automix_given_up": True if record["given_up"] else None,
        **policy_version(record),
    }
    tags = ["automix-escalated"] if record["escalated"] else []
    known = {name: value for name, value in flat.items() if value is not None}
    return Report(metadata=known, tags=tags, event=record, count=count)


def policy_version(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata that names the version of a learned policy that decided the query."""
    learning = record.get("learning")
    return {} if learning is None else {"automix_policy_version": learning["version"]}


def _tokens(calls: Sequence[ModelCall]) -> dict[str, int] | None:
    """Add up the tokens of all requests; return None if any request did not report them.

    An answer from LangChain's cache is not a request.
    """
    usages: list[Any] = [call.usage for call in calls if not is_cached(call)]
    if None in usages:
        return None
    return {kind: sum(usage[kind] for usage in usages) for kind in _TOKENS}


def _single_model_costs(ledger: QueryLedger) -> list[tuple[Decimal | None, bool]]:
    """Return what each model would have cost alone, and whether that is an estimate.

    For a model that was asked, it is the cost of all attempts. Any other model is assumed to read
    and write as many tokens as the last answering request whose tokens are known. An answer from
    LangChain's cache is assumed to be free with any model, so it claims no saving. A model that is
    itself a mix says nothing about the cost of other models.
    """
    costs: list[tuple[Decimal | None, bool]] = []
    requests = [call for calls in ledger.answered.values() for call in calls]
    known = [call.usage for call in requests if call.usage is not None and call.cost is None]
    usage = known[-1] if known else None
    for index, (model, provider) in enumerate(ledger.identities):
        alone = [ModelCall(model=model, provider=provider, usage=usage)]
        calls = ledger.answered.get(index, alone)
        costs.append((ledger.price(calls).total, index not in ledger.answered))
    return costs
