"""Replay a router on a routing log: the answers it would have kept, and their cost."""

from __future__ import annotations

from dataclasses import dataclass

from langchain_automix.errors import AutoMixError
from langchain_automix.policy.data.log import RoutingLog
from langchain_automix.policy.data.records import FIRST_CHECK, LoggedAnswer, LoggedQuery
from langchain_automix.routers.base import Router
from langchain_automix.types import Decision, RoutingState, Verification, Visit


@dataclass(frozen=True)
class RouterOutcome:
    """The outcome of one logged query."""

    model_index: int
    """Index of the model whose answer is kept; -1 if none is."""

    quality: float
    """Quality of the kept answer, in [0, 1]; 0 if none is kept."""

    cost: float
    """Cost of all answers and checks, in the log's currency."""

    samples: int
    """Verdicts drawn."""

    escalated: bool
    """Whether more than one model was asked."""


def replay_router(router: Router, log: RoutingLog) -> list[RouterOutcome]:
    """Send every logged query through a router, using the recorded answers and checks.

    Verdicts are drawn in the recorded order, and only as many as the router asks for.

    Raises:
        AutoMixError: The router asks for an answer or a check that was not recorded.
    """
    has_checks = FIRST_CHECK in log.checks
    unit = log.currency or ""
    return [_replay(router, query, unit, has_checks=has_checks) for query in log]


def _replay(router: Router, query: LoggedQuery, unit: str, *, has_checks: bool) -> RouterOutcome:
    models = tuple(answer.model for answer in query.answers)
    visits: dict[int, Visit] = {}
    cost, samples = 0.0, 0
    decision = router.opening(len(models), query.id)
    while decision.action not in ("answer", "abstain"):
        index = decision.model_index
        answer = query.answers[index]
        if decision.action == "escalate":
            cost += _known(answer.cost, query, answer)
            visits[index] = Visit(model_index=index)
            if decision.samples == 0:
                break
        if decision.check is None and not has_checks:
            raise AutoMixError(
                f"The log has no checks, and the router asks for one of {answer.model}'s answer to "
                f"query {query.id!r}."
            )
        before = visits[index].verification
        drawn, price, new = _check(query, answer, before, decision)
        cost, samples = cost + price, samples + new
        together = drawn if before is None else before.and_then(drawn)
        visits[index] = Visit(model_index=index, verification=together)
        state = RoutingState(
            models=models,
            visits=tuple(visits.values()),
            query_id=query.id,
            answer_cost={} if answer.cost is None else {unit: answer.cost},
        )
        decision = router.decide(state)
    if decision.action == "abstain":
        return RouterOutcome(-1, 0.0, cost, samples, len(visits) > 1)
    kept = query.answers[decision.model_index]
    quality = _known(kept.quality, query, kept)
    return RouterOutcome(decision.model_index, quality, cost, samples, len(visits) > 1)


def _check(
    query: LoggedQuery, answer: LoggedAnswer, before: Verification | None, decision: Decision
) -> tuple[Verification, float, int]:
    """Return the findings of a check, its price, and the number of verdicts drawn."""
    name = decision.check
    check = answer.verification if name is None else answer.checks.get(name)
    if check is None:
        which = "" if name is None else f" {name!r}"
        missing = Verification(problem=f"the log has no check{which} of this answer")
        return _named(name, missing), 0.0, 0
    if check.verdicts is None:
        problem = "the check found nothing" if check.score is None else None
        scored = Verification(score=check.score, problem=problem)
        return _named(name, scored), check.total_cost, 0
    if before is not None and name is not None:
        before = before.checks.get(name)
    start = len(before.verdicts) if before else 0
    end = len(check.verdicts) if decision.samples is None else start + decision.samples
    drawn = check.verdicts[start:end]
    if not drawn or (decision.samples is not None and len(drawn) < decision.samples):
        raise AutoMixError(
            f"The log has {len(check.verdicts)} verdicts on {answer.model}'s answer to query "
            f"{query.id!r}; the router asks for {end}."
        )
    price = check.fixed_cost + len(drawn) * check.sample_cost
    return _named(name, Verification(verdicts=drawn)), price, len(drawn)


def _named(check: str | None, found: Verification) -> Verification:
    """Return a finding as that of an additional check, if the check has a name."""
    return found if check is None else Verification(checks={check: found})


def _known(value: float | None, query: LoggedQuery, answer: LoggedAnswer) -> float:
    if value is None:
        raise AutoMixError(
            f"The log does not say how {answer.model} did on query {query.id!r}, which the "
            "router chooses."
        )
    return value
