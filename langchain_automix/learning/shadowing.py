"""Runs the shadows of queries that were answered, within a budget, and grades the answers."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, TypeVar

from langchain_automix.learning.budget import ShadowBudget
from langchain_automix.learning.epochs import EpochState
from langchain_automix.learning.grading import Agreement, AgreementGrader, gradable
from langchain_automix.learning.records import Record
from langchain_automix.learning.rows import cost, grade_records, shadow_record
from langchain_automix.learning.workers import Workers
from langchain_automix.mix.config import MixConfig
from langchain_automix.mix.learner import EndedQuery
from langchain_automix.mix.query import QueryState
from langchain_automix.mix.shadow import (
    Shadow,
    ShadowResult,
    config_for_shadows,
    run_config_for_shadow,
    with_names_of,
)
from langchain_automix.types import UnaccountedCall, Visit
from langchain_automix.utils.locks import ProcessLock

T = TypeVar("T")
_LOGGER = logging.getLogger(__name__)

_THREADS = 2
_WAITING = 100


@dataclass(frozen=True, slots=True)
class ShadowJob:
    """A query that has ended, of which more is to be found out."""

    id: str
    state: EpochState
    config: MixConfig
    """Of the mix, as it is given."""

    ended: EndedQuery
    claim: Decimal | None
    """What its shadow may cost, in dollars; None: it has none, and its answers are graded only."""


class ShadowRunner:
    """Finds out, in threads beside the queries, what other models would have answered.

    Args:
        put: Takes the records.
        budget: What it may spend.
        grader: Compares the answers.
        keep_texts: Whether the answers are kept.

    Attributes:
        refused: Shadows for which there was no money.
    """

    def __init__(
        self,
        put: Callable[[Record], object],
        budget: ShadowBudget,
        grader: AgreementGrader,
        *,
        keep_texts: bool,
    ) -> None:
        self._put, self._budget, self._grader = put, budget, grader
        self._keep_texts = keep_texts
        self.refused = 0
        self.workers: Workers[ShadowJob] = Workers(self._work, threads=_THREADS, size=_WAITING)

    def claim(self, estimate: float | None) -> Decimal | None:
        """Claim the money of a shadow; None: there is none left, which is counted.

        Args:
            estimate: US dollars that it is likely to cost; None: unknown.
        """
        claim = self._budget.claim(estimate)
        self.refused += claim is None
        return claim

    def submit(self, job: ShadowJob) -> bool:
        """Take a query on, without waiting; False: too many wait."""
        is_taken = self.workers.submit(job)
        if not is_taken and job.claim is not None:
            self._budget.give_back(job.claim)
        return is_taken

    def _work(self, job: ShadowJob) -> None:
        if job.claim is None:
            self._grade(job, job.ended.query.answers, spent=[])
            return
        try:
            self._within_budget(job, job.claim)
        finally:
            self._budget.give_back(job.claim)

    def _within_budget(self, job: ShadowJob, claim: Decimal) -> None:
        token = self._budget.reserve(claim)
        if token is None:
            self.refused += 1
            return
        paid: float | None = None
        try:
            paid = self._shadow(job)
        finally:  # what broke off has an unknown cost
            self._budget.settle(token, paid)

    def _shadow(self, job: ShadowJob) -> float | None:
        """Run a shadow to its end, and return what it cost; None: unknown."""
        query = _named(job.config, job.ended)
        shadow = Shadow(config_for_shadows(job.config), query)
        result = _run(shadow, query, job)
        if result.is_refused:
            self.refused += 1
            return 0.0
        spent: list[Any] = []
        self._grade(job, result.answers, spent)
        record = shadow_record(
            job.id, result, query.ledger.visits, spent, keep_texts=self._keep_texts
        )
        self._put(record)
        return cost([*result.ledger.calls, *spent], result.ledger.prices)

    def _grade(self, job: ShadowJob, answers: Mapping[int, Any], spent: list[Any]) -> None:
        found = Agreement({}, spent)
        last = len(job.config.names) - 1
        try:
            self._grader.grade(gradable(answers), last, job.ended.query.check_input, found)
        except Exception:
            _LOGGER.warning("the answers of a query are not graded", exc_info=True)
        for record in grade_records(job.id, found.qualities):
            self._put(record)


def _named(config: MixConfig, ended: EndedQuery) -> QueryState:
    """Return a query whose checks have the names that they have in the mix."""
    default, used = config.verifier, ended.config.verifier
    visits = {
        index: Visit(model_index=index, verification=with_names_of(default, used, v.verification))
        for index, v in ended.query.ledger.visits.items()
    }
    return replace(ended.query, ledger=replace(ended.query.ledger, visits=visits))


def _run(shadow: Shadow, query: QueryState, job: ShadowJob) -> ShadowResult:
    config = run_config_for_shadow(job.ended.run_config)
    if not job.state.needs_async:
        result = shadow.invoke(query.input, config)
        if not result.needs_async:
            return result
        job.state.needs_async = True
        if any(not isinstance(call, UnaccountedCall) for call in result.ledger.calls):
            return result  # it is paid for, and the next one will be whole
    return _LOOP.run(shadow.ainvoke(query.input, config))


class _LoopThread:
    """An event loop in a thread of its own, kept for the clients that are bound to it."""

    def __init__(self) -> None:
        self._lock = ProcessLock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there, and wait for its result."""
        with self._lock:
            if self._loop is None or self._process != os.getpid():
                self._process, self._loop = os.getpid(), asyncio.new_event_loop()
                thread = threading.Thread(
                    target=self._loop.run_forever, name="automix-shadow-loop", daemon=True
                )
                thread.start()
            loop = self._loop
        return asyncio.run_coroutine_threadsafe(work, loop).result()


_LOOP = _LoopThread()
