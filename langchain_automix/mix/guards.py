"""Guards around the router: settle a step before it is asked, or overrule its decision."""

from __future__ import annotations

from typing_extensions import override

from langchain_automix.mix.config import MixConfig
from langchain_automix.mix.query import QueryState
from langchain_automix.routers.base import Router, keep, next_or_keep
from langchain_automix.routers.explanations import findings
from langchain_automix.types import Decision, Verification

NO_TIME = "no time was left for a check"
"""Reported problem of a check that was skipped because of a deadline."""


class Guard:
    """Acts on each step of a query, before and after the router.

    Guards surround the router in layers. They are asked before it from the outermost in, and review
    its decision from the innermost out.
    """

    def __init__(self, config: MixConfig) -> None:
        """Guard the queries of a mix."""
        self.config = config

    def opening(self, query: QueryState) -> Decision | None:
        """Return the first step of a query, or None to leave it to others."""

    def preempt(self, query: QueryState) -> Decision | None:
        """Return a later step without asking the router, or None to leave it to others."""

    def review(self, decision: Decision, query: QueryState) -> Decision:
        """Return the decision, or a different one with its reason."""
        del query
        return decision


class SpendGuard(Guard):
    """Restricts a query to the cheapest model once the spend limit is reached."""

    @override
    def opening(self, query: QueryState) -> Decision | None:
        why = query.allowance.cheapest
        return None if why is None else ask_unchecked(0, why)

    @override
    def review(self, decision: Decision, query: QueryState) -> Decision:
        return query.allowance.annotate(decision)


class ForcedModelGuard(Guard):
    """Asks the model given in `force_model`, and keeps its answer."""

    @override
    def opening(self, query: QueryState) -> Decision | None:
        if (forced := self.config.forced) is None:
            return None
        why = f"{self.config.names[forced]} was asked for, whatever the evidence (force_model)."
        return ask_unchecked(forced, why)


class LearningGuard(Guard):
    """Asks the model that a learner prescribes before there is a proven policy."""

    @override
    def opening(self, query: QueryState) -> Decision | None:
        return query.prescribed


class SavingGuard(Guard):
    """Asks the largest model directly if drafts of the cheapest have saved nothing lately."""

    @override
    def opening(self, query: QueryState) -> Decision | None:
        config = self.config
        if not (config.buys_checks and query.is_admitted and config.account.leaves_out_draft()):
            return None
        names = config.names
        why = (
            f"{names[-1]} is asked at once: lately, answers of {names[0]} with their checks and "
            "escalations have saved nothing."
        )
        return ask_unchecked(len(names) - 1, why)


class VerificationOffGuard(Guard):
    """Skips every check if `verification` is off."""

    @override
    def review(self, decision: Decision, query: QueryState) -> Decision:
        if self.config.verification or decision.action != "escalate":
            return decision
        update: dict[str, object] = {"samples": 0}
        if not query.ledger.visits:
            name = self.config.names[decision.model_index]
            update["why"] = f"{name} is asked and not checked: verification is off."
        return decision.model_copy(update=update)


class FailedCheckGuard(Guard):
    """Applies `on_verification_error` after a failed check."""

    @override
    def preempt(self, query: QueryState) -> Decision | None:
        found, router = query.current.verification, self.config.router
        check = None if query.last is None else query.last.check
        failed = (query.current.model_index, check) in query.unchecked
        nothing = found is not None and found.confidence is None and not found.checks
        if self.config.buys_checks and found is not None:  # a further check may be the only one
            nothing = all(each.confidence is None for each in (found, *found.checks.values()))
        asks_for_another = isinstance(router, Router) and router.reads_several
        if not failed or not nothing or asks_for_another:
            return None
        return decide_without_evidence(self.config, query)

    @override
    def review(self, decision: Decision, query: QueryState) -> Decision:
        again = (decision.model_index, decision.check) in query.unchecked
        if decision.action != "verify" or not again:
            return decision
        return decide_without_evidence(self.config, query)


class InvalidDecisionGuard(Guard):
    """Takes the safe option if the router fails or its decision cannot be carried out."""

    @override
    def preempt(self, query: QueryState) -> Decision | None:
        return decide_without_router(self.config, query) if query.router_failed else None

    @override
    def review(self, decision: Decision, query: QueryState) -> Decision:
        if decision is not query.routed:
            return decision
        query.router_failed = self._problem(decision, query)
        if query.router_failed:
            return decide_without_router(self.config, query)
        query.belief = decision.belief or query.belief
        return decision

    def _problem(self, decision: Decision, query: QueryState) -> str | None:
        """Say why a decision cannot be carried out, or return None if it can."""
        index = decision.model_index
        if decision.action == "escalate" and index in query.ledger.visits:
            return f"The router escalates to model {index}, which has been asked already"
        if decision.action == "escalate" and index >= len(self.config.models):
            return f"The router escalates to model {index}, which is not in the mix"
        if decision.action == "verify" and index not in query.usable:
            return f"The router checks model {index}, which gave no answer that can be checked"
        return self._kept_in_vain(index, query) if decision.action == "answer" else None

    def _kept_in_vain(self, index: int, query: QueryState) -> str | None:
        # The router may keep a failed answer if there is no alternative; its error is then raised.
        # `final_decision` handles the most recent answer.
        may_keep = index in query.errors and index == len(self.config.models) - 1
        if index not in query.answers and not may_keep:
            return f"The router keeps model {index}'s answer, but it gave none"
        is_known = index in (*query.usable, query.current.model_index)
        if not is_known and query.usable and not may_keep:
            return f"The router keeps model {index}'s answer, which cannot be used"
        return None


def ask_unchecked(model_index: int, why: str) -> Decision:
    """Return the decision to ask a model and keep its answer without a check."""
    return Decision(action="escalate", model_index=model_index, samples=0, why=why)


def decide_without_router(config: MixConfig, query: QueryState) -> Decision:
    """Return the simplest safe decision: the next model, or the last answer if there is none.

    If that answer cannot be used either, `final_decision` decides.
    """
    names, later = config.names, max(query.ledger.visits) + 1
    if later < len(names):
        query.degraded = f"{query.router_failed}, so that {names[later]} was asked to be safe."
        return ask_unchecked(later, query.degraded)
    kept = query.current.model_index
    query.degraded = f"{query.router_failed}, so that the last answer, of {names[kept]}, is given."
    return Decision(action="answer", model_index=kept, why=query.degraded)


def decide_without_evidence(config: MixConfig, query: QueryState) -> Decision:
    """Return the decision after a check that failed (by `on_verification_error`) or was skipped."""
    router, state = config.router, query.state(config)
    check = state.current.verification or Verification()
    found = findings(state.current.verification)
    is_left_out = any(each.problem == NO_TIME for each in (check, *check.checks.values()))
    if not is_left_out and config.on_verification_error == "keep":
        decision = keep(state, why=f"{found}: the answer is kept (on_verification_error).")
    elif isinstance(router, Router):
        by_means = is_left_out or config.on_verification_error == "prior"
        decision = router.without_evidence(state, by_means=by_means)
    else:
        decision = next_or_keep(state)
    if decision.action == "answer":
        query.degraded = f"{found}, so that the answer is given without having been checked."
    return decision
