"""Take one query through answer, check and route: one loop for every way to call a mix."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from langchain_core.runnables import Runnable, RunnableConfig

from langchain_automix.errors import AutoMixError
from langchain_automix.flow.clock import Deadline
from langchain_automix.flow.steps import Call, Flow, Steps, call
from langchain_automix.mix.answer import ModelAnswer
from langchain_automix.mix.answering import request_answer
from langchain_automix.mix.checking import run_check
from langchain_automix.mix.config import MixConfig
from langchain_automix.mix.deadline_guard import DeadlineGuard
from langchain_automix.mix.finishing import finish, report_query
from langchain_automix.mix.from_policy import check_for
from langchain_automix.mix.guards import (
    FailedCheckGuard,
    ForcedModelGuard,
    Guard,
    InvalidDecisionGuard,
    LearningGuard,
    SavingGuard,
    SpendGuard,
    VerificationOffGuard,
    decide_without_router,
)
from langchain_automix.mix.learner import EndedQuery, Learner, Ticket, take_ticket
from langchain_automix.mix.limits.allowance import SpendAllowance
from langchain_automix.mix.limits.repeated_failures import Attempt, warn_of_failure
from langchain_automix.mix.limits.spend_session import SpendSession
from langchain_automix.mix.query import QueryState, read_input
from langchain_automix.mix.record import QueryLedger, query_cost
from langchain_automix.models.failures import is_fault
from langchain_automix.routers.base import OPENING, Router
from langchain_automix.types import Decision
from langchain_automix.utils.locks import ProcessLock

K = TypeVar("K")

_MAX_STEPS = 100

_MAX_VERSIONS = 4
"""How many versions of a learned policy keep their loop: the latest, and those still in use."""

_MAX_CHOSEN = 32
"""How many selections of models, made by runs' configurations, keep their loop."""

_LOCK = ProcessLock()


class QueryLoop:
    """The loop that takes a query from its input to the kept answer."""

    def __init__(
        self, config: MixConfig, guards: Sequence[Guard] = (), learner: Learner | None = None
    ) -> None:
        """Set up the loop.

        Args:
            config: The mix: its models, check and router.
            guards: Guards besides those of every mix; the limits on money and time come before
                them.
            learner: Decides which version of a policy each query follows; None leaves it to the
                router.
        """
        self.config = config
        self.learner = learner
        self._versions: OrderedDict[int, QueryLoop] = OrderedDict()
        self._chosen: OrderedDict[str, QueryLoop] = OrderedDict()
        self._own_guards = (LearningGuard(config), *guards)
        self._deadline = DeadlineGuard(config)
        self._guards: Sequence[Guard] = (
            SpendGuard(config),
            ForcedModelGuard(config),
            self._deadline,
            *self._own_guards,
            SavingGuard(config),
            VerificationOffGuard(config),
            FailedCheckGuard(config),
            InvalidDecisionGuard(config),
        )

    def begin(
        self, input: Any, arguments: Mapping[str, Any], run_config: RunnableConfig | None = None
    ) -> Flow[ModelAnswer]:
        """Return the flow of one query, from its input to the kept answer.

        Args:
            input: A chat model's input or, with a prompt, the dict that the prompt takes.
            arguments: Arguments for the answering models.
            run_config: Configuration of the query's run, which may select other models.
        """
        chosen = self._of_chosen(run_config or {}) if self.config.choices else self
        return chosen.begin_as_named(input, arguments)

    def begin_as_named(self, input: Any, arguments: Mapping[str, Any]) -> Flow[ModelAnswer]:
        """Return the flow of one query, for the models named in this loop's configuration."""
        ticket = take_ticket(self.learner, self.config, input, arguments)
        loop = self if ticket is None or ticket.router is None else self._version(ticket.router)
        config = loop.config
        query = QueryState(
            input,
            {"answer": ""},
            ledger=QueryLedger(config.prices, config.names, config.identities),
            clock=None if config.max_latency is None else Deadline(config.max_latency),
            arguments=arguments,
            prescribed=None if ticket is None else ticket.opening,
            learning=None if ticket is None else ticket.label,
        )
        ended = None if ticket is None else partial(_end, ticket, config, query)
        return Flow(loop.run(query), query.clock, partial(report_query, config, query), ended)

    def _of_chosen(self, run_config: RunnableConfig) -> QueryLoop:
        """Return the loop for the models that a run's configuration selects."""
        given = run_config.get("configurable") or {}
        key = repr([(name, given[name]) for name in sorted(self.config.choices & given.keys())])

        def make() -> QueryLoop:
            config = self.config.named_by(run_config)
            if config is self.config:
                return self
            return QueryLoop(config, self._own_guards[1:], self.learner)

        return _latest(self._chosen, key, make, _MAX_CHOSEN)

    def _version(self, router: Runnable[Any, Any]) -> QueryLoop:
        """Return the loop in which a version of a learned policy decides."""

        def make() -> QueryLoop:
            config, check = self.config, self.config.verifier
            if config.has_default_check:  # as in a mix whose router is that policy
                check = check_for(router, config.models)
            config = replace(config, router=router, verifier=check)
            return QueryLoop(config, self._own_guards[1:])

        # The loop keeps the router alive, so the router's id stays unique.
        return _latest(self._versions, id(router), make, _MAX_VERSIONS)

    def run(self, query: QueryState) -> Steps[ModelAnswer]:
        """Take one query from its input to the kept answer."""
        config = self.config
        yield from read_input(config, query)
        spending = SpendSession(config.spend_limits, query.clock)
        yield from spending.reserve()
        query.is_admitted = True
        # A router that is not asked has no cost weight to raise.
        is_settled = any(guard.opening(query) for guard in self._own_guards)
        router = None if is_settled else config.router
        query.allowance = spending.allowance(
            config.names, router, config.forced, config.cost_weight, query.query_id
        )
        query.degraded = query.allowance.cheapest
        cost = partial(query_cost, query.ledger)
        return (yield from spending.run_and_settle(self._answer(query), cost))

    def opening(self, query: QueryState | None = None) -> Decision:
        """Return the first step of a query.

        Args:
            query: The query; None for any query, without a spend limit.

        Raises:
            AutoMixError: The router cannot decide among this number of models.
        """
        config, router = self.config, self.config.router
        if query is None:
            allowance = SpendAllowance(config.cost_weight)
            query = QueryState(None, {"answer": ""}, allowance=allowance)
        for guard in self._guards:
            if (opening := guard.opening(query)) is not None:
                return opening
        if not isinstance(router, Router):
            return self._review(OPENING, query)
        if config.buys_checks and query.is_admitted:
            return self._review(router.opening_by_cost(query.state(config)), query)
        decision = router.opening(
            len(config.models),
            query.query_id,
            cost_weight=query.allowance.cost_weight,
            checks=config.verification,
        )
        return self._review(decision, query)

    def _answer(self, query: QueryState) -> Steps[ModelAnswer]:
        failures = self.config.failures
        try:
            answer = yield from self._answered(query)
        except Exception:
            failures.note(query.outcomes)  # the raised error reports them
            raise
        for attempt, reason in failures.note(query.outcomes):
            warn_of_failure(attempt, reason, query.record or {})
        return answer

    def _answered(self, query: QueryState) -> Steps[ModelAnswer]:
        decision, steps = self.opening(query), 0
        while decision.action not in ("answer", "abstain"):
            query.last = decision
            if decision.action == "escalate":
                if not (yield from request_answer(self.config, query, decision)):
                    decision = self.opening(query)
                    continue
                if _is_settled(query, decision):
                    break
            if not self._deadline.leaves_out_check(query, decision):
                yield from run_check(self.config, query, decision)
            steps += 1
            if steps == _MAX_STEPS:
                query.router_failed = f"The router asked for more than {_MAX_STEPS} steps"
            decision = yield from self._next(query)
        return (yield from finish(self.config, query, decision))

    def _next(self, query: QueryState) -> Steps[Decision]:
        query.routed = None
        preempted = (guard.preempt(query) for guard in self._guards)
        decision = next((each for each in preempted if each is not None), None)
        if decision is None:
            decision = yield from self._route(query)
        return self._review(decision, query)

    def _review(self, decision: Decision, query: QueryState) -> Decision:
        for guard in reversed(self._guards):
            decision = guard.review(decision, query)
        return decision

    def _route(self, query: QueryState) -> Steps[Decision]:
        """Ask the router; a router that fails is not asked again."""
        # Tracers only, since the check's findings may quote a draft.
        router, state = self.config.router, query.state(self.config)
        wanted = Call(router, state, tags=["automix:route"], audience="tracers", is_instant=True)
        started = time.perf_counter()
        try:
            decision: Any = yield from call(wanted)
        except Exception as error:
            if isinstance(error, AutoMixError) or not is_fault(error):
                raise
            query.ledger.add_failed_route(error)
            query.router_failed = f"The router failed ({type(error).__name__})"
            query.outcomes[Attempt("router")] = type(error).__name__
            return decide_without_router(self.config, query)
        finally:
            query.ledger.add_seconds("route", time.perf_counter() - started)
        if not isinstance(decision, Decision):
            query.router_failed = f"The router returned {type(decision).__name__}, not a Decision"
            query.outcomes[Attempt("router")] = f"it returned {type(decision).__name__}"
            return decide_without_router(self.config, query)
        query.routed = decision
        query.outcomes.setdefault(Attempt("router"), None)
        return decision


def _latest(
    kept: OrderedDict[K, QueryLoop], key: K, make: Callable[[], QueryLoop], most: int
) -> QueryLoop:
    """Return a kept loop, or make it, and keep only the most recently used ones."""
    with _LOCK:
        found = kept[key] if key in kept else make()
        kept[key] = found
        kept.move_to_end(key)
        while len(kept) > most:
            kept.popitem(last=False)
        return found


def _end(
    ticket: Ticket,
    config: MixConfig,
    query: QueryState,
    run_id: UUID,
    run_config: RunnableConfig,
    error: Exception | None,
) -> None:
    ticket.end(EndedQuery(config, query, run_id, run_config, error))


def _is_settled(query: QueryState, decision: Decision) -> bool:
    """Whether the requested answer is kept without a check."""
    check = query.ledger.visits[decision.model_index].verification
    leads_on = check is not None and not check.usable and query.allowance.cheapest is None
    return decision.samples == 0 and not leads_on
