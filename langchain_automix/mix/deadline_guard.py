"""`DeadlineGuard`: skip what a deadline leaves no time for, a check before a larger model."""

from __future__ import annotations

from typing_extensions import override

from langchain_automix.errors import DeadlineError
from langchain_automix.flow.clock import Deadline
from langchain_automix.mix.answer import ModelAnswer
from langchain_automix.mix.guards import NO_TIME, Guard, ask_unchecked, decide_without_evidence
from langchain_automix.mix.limits.latency import Stage
from langchain_automix.mix.query import QueryState
from langchain_automix.routers.base import Router, keep, next_model
from langchain_automix.types import Decision, Verification, Visit


class DeadlineGuard(Guard):
    """Skips calls that are not expected to end in time; never drops an answer already received.

    A query without a deadline skips nothing, and neither does a call of unknown duration.
    """

    def leaves_out_check(self, query: QueryState, decision: Decision) -> bool:
        """Skip the check of an answer if it would not end in time, and record that."""
        config, index = self.config, decision.model_index
        clock, before = query.clock, query.ledger.visits[index].verification
        if clock is None or not config.verification or index not in query.usable:
            return False
        if config.is_free(decision.check):
            return False
        if self._fits_check(query, clock, index):
            return False
        config.pace.left_out("verify", index)
        for j in range(index + 1, len(config.names)):
            if not self._fits_answer(clock, j):  # else it would rule out checks for good
                config.pace.left_out("answer", j)
        query.unchecked[index, decision.check] = NO_TIME
        missing = Verification(problem=NO_TIME)
        if decision.check is not None:  # it says nothing about the first check
            missing = Verification(checks={decision.check: missing})
        together = missing if before is None else before.and_then(missing)
        query.ledger.visits[index] = Visit(model_index=index, verification=together)
        return True

    @override
    def preempt(self, query: QueryState) -> Decision | None:
        if query.clock is None:
            return None
        if self._is_over(query):
            return self._give_best(query, query.clock, keep(query.state(self.config)))
        if self.lacks_evidence(query):  # nor is there time for another check
            return decide_without_evidence(self.config, query)
        return None

    @override
    def review(self, decision: Decision, query: QueryState) -> Decision:
        if query.clock is None:
            return decision
        self._note_left_out(query, query.clock)
        if decision.action == "abstain":
            return decision
        if query.is_late:
            return self._without_time(query, query.clock, decision)
        if decision.action == "answer" or not query.usable:
            return decision
        return self._within_time(query, query.clock, decision)

    def _without_time(self, query: QueryState, clock: Deadline, decision: Decision) -> Decision:
        """Return a decision that needs only answers already received."""
        index = decision.model_index
        is_there = decision.action == "answer" and index in query.usable
        is_there |= decision.action == "escalate" and _is_answer(query.hedged.get(index))
        return decision if is_there else self._give_best(query, clock, decision)

    def _within_time(self, query: QueryState, clock: Deadline, decision: Decision) -> Decision:
        """Return the decision if it fits into the time left, else the best one that does."""
        index, is_check = decision.model_index, decision.action == "verify"
        if self._fits_check(query, clock, index) if is_check else self._fits_answer(clock, index):
            return decision
        self.config.pace.left_out("verify" if is_check else "answer", index)
        later = next_model(query.state(self.config)) if is_check else None
        if later is not None and self._fits_answer(clock, later):
            why = f"No time is left for another check: {self.config.names[later]} is asked."
            return ask_unchecked(later, why)
        return self._give_best(query, clock, decision)

    def lacks_evidence(self, query: QueryState) -> bool:
        """Whether the last check was skipped and no other check found anything."""
        found, last = query.current.verification, query.last
        if found is None or last is None:
            return False
        if query.unchecked.get((last.model_index, last.check)) != NO_TIME:
            return False
        return all(each.confidence is None for each in (found, *found.checks.values()))

    def _fits_answer(self, clock: Deadline, index: int) -> bool:
        return clock.left > (self.config.pace.expected("answer", index) or 0.0)

    def _fits_check(self, query: QueryState, clock: Deadline, index: int) -> bool:
        """Whether a check and the call it may lead to are expected to end in time.

        A check that leaves no time to ask a larger model could not change the decision.
        """
        pace = self.config.pace
        later = [
            pace.expected("answer", j) or 0.0
            for j in range(index + 1, len(self.config.names))
            if j not in query.ledger.visits
        ]
        # A hedged answer is requested while the check runs.
        after = 0.0 if self.config.hedge is not None else min(later, default=0.0)
        return clock.left > (pace.expected("verify", index) or 0.0) + after

    def _is_over(self, query: QueryState) -> bool:
        """Whether the time is up and a router has nothing to add about the answer at hand."""
        if not query.is_late:
            return False
        found, index = query.current.verification, query.current.model_index
        check = None if query.last is None else query.last.check
        is_known = found is None or (found.usable and (index, check) not in query.unchecked)
        is_hedged = any(map(_is_answer, query.hedged.values()))
        return not isinstance(self.config.router, Router) or not (is_known or is_hedged)

    def _note_left_out(self, query: QueryState, clock: Deadline) -> None:
        """Record what a router that considers the time left would have done with more of it."""
        router, decision, config = self.config.router, query.routed, self.config
        if decision is None or query.router_failed or not isinstance(router, Router):
            return
        state = query.state(config)
        if all(state.fits(option) for option in state.seconds):
            return
        wanted = router.decide(state.model_copy(update={"time_left": None, "seconds": {}}))
        if (wanted.action, wanted.model_index) == (decision.action, decision.model_index):
            return
        stage: Stage = "verify" if wanted.action == "verify" else "answer"
        config.pace.left_out(stage, wanted.model_index)
        if decision.action == "answer":
            query.degraded = self._shortage(clock, decision.model_index)
        elif decision.action == "abstain":
            query.degraded = f"{_time(clock)} did not suffice for more: no answer is given."

    def _give_best(self, query: QueryState, clock: Deadline, decision: Decision) -> Decision:
        """Return the decision for the best usable answer.

        Raises:
            DeadlineError: There is no usable answer.
        """
        if not query.usable:
            names, errors = self.config.names, query.errors.items()
            failed = ", ".join(f"{names[j]} ({type(error).__name__})" for j, error in errors)
            raise DeadlineError(
                f"No model gave an answer in time (max_latency={clock.limit:g} s): "
                f"{failed or 'none that can be used'}. Allow more time, or put a faster model "
                "first."
            )
        best = query.best(self.config)
        query.degraded = self._shortage(clock, best)
        return decision.model_copy(
            update={"action": "answer", "model_index": best, "why": query.degraded, "samples": None}
        )

    def _shortage(self, clock: Deadline, index: int) -> str:
        name = self.config.names[index]
        return f"{_time(clock)} did not suffice for more: the answer of {name} is given."


def _time(clock: Deadline) -> str:
    return f"The time (max_latency={clock.limit:g} s)"


def _is_answer(hedged: object) -> bool:
    return isinstance(hedged, ModelAnswer)
