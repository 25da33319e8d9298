"""Records of learning, made of a query that has ended and of what its shadow came to."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self
from uuid import UUID

from langchain_core.runnables import Runnable

from langchain_automix.errors import AutoMixError
from langchain_automix.learning.records import (
    AGREEMENT,
    AnswerRecord,
    Ending,
    GradeRecord,
    QueryRecord,
    RequestRecord,
    ShadowRecord,
    Stage,
)
from langchain_automix.mix.answer import ModelAnswer
from langchain_automix.mix.config import MixConfig
from langchain_automix.mix.learner import EndedQuery
from langchain_automix.mix.query import QueryState
from langchain_automix.mix.record import QueryLedger
from langchain_automix.mix.shadow import ShadowResult, with_names_of
from langchain_automix.models.messages import answer_text
from langchain_automix.models.prices import PriceSource, cost_of, dollars_of
from langchain_automix.models.usage import without_output
from langchain_automix.types import ModelCall, Verification, Visit
from langchain_automix.verifiers.inputs import check_context


class _Told(NamedTuple):
    """What is taken from the record of a query, which goes with its message."""

    action: str
    model_index: int
    cost: str | None
    alone: str | None
    confidence: float | None

    @property
    def kept(self) -> int | None:
        """The model whose answer was given."""
        return None if self.action == "abstain" else self.model_index


class EndedFacts(NamedTuple):
    """What the record of a query is made of: no more than that is kept until it is written."""

    config: MixConfig
    """Of the mix, as it is given."""

    verifier: Runnable[Any, Any]
    """What has checked."""

    ledger: QueryLedger
    told: _Told | None
    """What its record says; None: it has none."""

    has_failed: bool
    run_id: UUID
    at: float
    """When it ended, in seconds since 1970."""

    texts: Mapping[str, Any] | None
    """What was asked and answered, where that is kept."""

    @classmethod
    def of(cls, config: MixConfig, ended: EndedQuery, *, keep_texts: bool) -> Self:
        """Return the facts of a query that has just ended."""
        query, record, told = ended.query, ended.query.record, None
        if record is not None:
            told = _Told(
                record["action"],
                record["model_index"],
                record["cost"],
                record["alone"][config.names[-1]]["cost"],
                record["confidence"],
            )
        return cls(
            config,
            ended.config.verifier,
            query.ledger,
            told,
            ended.error is not None,
            ended.run_id,
            time.time(),
            _texts(query) if keep_texts else None,
        )

    @property
    def ending(self) -> Ending:
        """How it ended."""
        if self.told is None or self.has_failed:
            return "failed" if self.has_failed else "left"
        return "abstained" if self.told.action == "abstain" else "answered"


def query_record(
    id: str, version: int, stage: Stage, facts: EndedFacts, *, share: float, is_drawn: bool
) -> QueryRecord:
    """Return the record of a query.

    Args:
        id: Its id.
        version: Number of the policy that decided it.
        stage: Why it was that.
        facts: How it ended.
        share: Chance that it has a shadow.
        is_drawn: Whether it has one.
    """
    config, ledger, told = facts.config, facts.ledger, facts.told
    total = None if told is None else _dollars(told.cost)
    bill = _Bill(ledger.prices)
    if total is not None and len(ledger.calls) == 1:
        bill.know(ledger.calls[0], total)
    return QueryRecord(
        id=id,
        at=facts.at,
        epoch=config.epoch,
        version=version,
        stage=stage,
        kept=None if told is None else told.kept,
        share=share,
        is_drawn=is_drawn,
        ending=facts.ending,
        cost=bill.cost(ledger.calls) if told is None else total,
        alone=None if told is None else _dollars(told.alone),
        answers=_answers(ledger, ledger.visits, bill, (config.verifier, facts.verifier)),
        requests=_requests(ledger.calls, bill, "query"),
        run_id=str(facts.run_id),
        confidence=None if told is None else told.confidence,
        seconds=sum(ledger.seconds.values()),
        texts=facts.texts,
    )


def shadow_record(
    id: str,
    result: ShadowResult,
    before: Mapping[int, Visit],
    grading: Sequence[ModelCall],
    *,
    keep_texts: bool,
) -> ShadowRecord:
    """Return the record of a shadow.

    Args:
        id: Of its query.
        result: What it came to.
        before: What the query itself had found of each model's answer.
        grading: Requests for grades.
        keep_texts: Whether the answers are kept.
    """
    ledger = result.ledger
    bill = _Bill(ledger.prices)
    new = {i: v for i, v in result.visits.items() if before.get(i) != v}
    texts = {str(i): answer_text(result.answers[i].message) for i in new if i in result.answers}
    return ShadowRecord(
        query_id=id,
        at=time.time(),
        answers=_answers(ledger, new, bill, shadows=new.keys() - before.keys()),
        requests=(
            *_requests(ledger.calls, bill, "shadow"),
            *_requests(grading, bill, "grade"),
        ),
        cost=bill.cost([*ledger.calls, *grading]),
        texts={"shadow_answers": texts} if keep_texts else None,
    )


def grade_records(id: str, qualities: Mapping[int, float]) -> list[GradeRecord]:
    """Return how far the answers of a query agree with the largest model's."""
    now = time.time()
    return [GradeRecord(id, model, quality, AGREEMENT, now) for model, quality in qualities.items()]


def cost(calls: Iterable[ModelCall], prices: PriceSource | None) -> float | None:
    """Return what requests cost, in dollars; None: unknown."""
    return _Bill(prices).cost(calls)


class _Bill:
    """Prices the requests of one query, each once."""

    def __init__(self, prices: PriceSource | None) -> None:
        self._prices = prices
        self._known: dict[int, tuple[ModelCall, float | None]] = {}

    def know(self, call: ModelCall, cost: float) -> None:
        """Take note of what a request cost."""
        self._known[id(call)] = call, cost  # which keeps the call, and so its id

    def cost(self, calls: Iterable[ModelCall]) -> float | None:
        """Return what requests cost, in dollars; None: unknown."""
        costs = []
        for call in calls:
            if (found := self._known.get(id(call))) is None:
                found = self._known[id(call)] = call, self._price(call)
            if found[1] is None:
                return None
            costs.append(found[1])
        return math.fsum(costs)

    def _price(self, call: ModelCall) -> float | None:
        try:
            found = cost_of([call], self._prices)
        except AutoMixError:  # a price is none
            return None
        return None if found is None else float(found)


def _dollars(text: str | None) -> float | None:
    return None if text is None else float(dollars_of(text))


def _answers(
    ledger: QueryLedger,
    visits: Mapping[int, Visit],
    bill: _Bill,
    verifiers: tuple[Runnable[Any, Any], Runnable[Any, Any]] | None = None,
    *,
    shadows: Iterable[int] = (),
) -> tuple[AnswerRecord, ...]:
    found = []
    is_shadow = set(shadows)
    for index, visit in visits.items():
        check = visit.verification
        if verifiers is not None:
            check = with_names_of(*verifiers, check)
        leading, others = _checks(check, bill)
        asked = ledger.answered.get(index)
        found.append(
            AnswerRecord(
                model=index,
                cost=None if asked is None else bill.cost(asked),
                verification=leading,
                checks=others,
                is_shadow=index in is_shadow,
            )
        )
    return tuple(found)


def _checks(
    found: Verification | None, bill: _Bill
) -> tuple[dict[str, Any] | None, dict[str, dict[str, Any]]]:
    """Return what the leading check found as in a routing log, and the further ones by name."""
    if found is None:
        return None, {}
    others = {name: _check(each, each.calls, bill) for name, each in found.checks.items()}
    known = {name: each for name, each in others.items() if each is not None}
    of_others = [call for each in found.checks.values() for call in each.calls]
    own = [call for call in found.calls if not any(call is other for other in of_others)]
    return _check(found, own, bill), known


def _check(found: Verification, calls: Sequence[ModelCall], bill: _Bill) -> dict[str, Any] | None:
    if found.verdicts:
        total = bill.cost(calls)
        if total is None:
            return {"verdicts": list(found.verdicts), "fixed_cost": None, "sample_cost": None}
        # One request reads the prompt once, whatever the number of its verdicts.
        fixed = bill.cost([without_output(calls[0])]) or 0.0 if len(calls) == 1 else 0.0
        each = max(total - fixed, 0.0) / len(found.verdicts)
        return {"verdicts": list(found.verdicts), "fixed_cost": fixed, "sample_cost": each}
    if found.score is not None:
        return {"score": found.score, "cost": bill.cost(calls)}
    return None


def _requests(
    calls: Sequence[ModelCall],
    bill: _Bill,
    stage: Literal["query", "shadow", "grade"],
) -> tuple[RequestRecord, ...]:
    return tuple(
        RequestRecord(
            stage=stage,
            model=call.model,
            input_tokens=None if call.usage is None else call.usage.get("input_tokens"),
            output_tokens=None if call.usage is None else call.usage.get("output_tokens"),
            cost=bill.cost([call]),
        )
        for call in calls
    )


def _texts(query: QueryState) -> dict[str, Any]:
    told = check_context(query.check_input)
    answers: Mapping[int, ModelAnswer] = query.answers
    return {
        "question": told.question,
        "context": told.context,
        "answers": {str(i): answer_text(answer.message) for i, answer in answers.items()},
    }
