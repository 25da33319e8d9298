"""Give up a draft while it is being written, once no finding of its check could keep it."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from langchain_core.messages.ai import UsageMetadata

from langchain_automix.flow.steps import Call
from langchain_automix.flow.watched import WatchedStream
from langchain_automix.mix.answer import GivenUpDraft
from langchain_automix.mix.config import MixConfig
from langchain_automix.mix.query import QueryState
from langchain_automix.models.prices import cost_of, format_dollars
from langchain_automix.models.usage import UsageCollector
from langchain_automix.models.wrappers import streamed_model
from langchain_automix.routers.base import Router
from langchain_automix.types import Decision, ModelCall, RoutingState, Verification, Visit
from langchain_automix.utils.formatting import pluralize
from langchain_automix.verifiers.base import Verifier
from langchain_automix.verifiers.score_bound import ScoreBound


class DraftWatch:
    """Follows one draft as it is written, and tells when escalation has become certain."""

    def __init__(self, bound: ScoreBound, foresight: Foresight) -> None:
        self._bound, self._foresight = bound, foresight
        self.given_up: GivenUpDraft | None = None
        """Set once the draft has been given up."""

    def why_close(self, piece: Any) -> str | None:
        """Say why to give up the draft, now that another chunk has arrived; else return None."""
        most = self._bound.add(piece)
        if most is None or _is_end(piece) or not self._foresight.escalates(most):
            return None
        self.given_up = GivenUpDraft(self._bound.tokens, most)
        tokens = pluralize(self._bound.tokens, "token")
        return (
            f"The draft was given up after {tokens}: its check can find {most:.2f} at most, and "
            "the next model is asked whatever follows."
        )


class Foresight:
    """Tells for which upper bounds of a score a router escalates, however the answer ends.

    The answer may end with any score up to the bound, as unusable (refused, filtered, cut off), or,
    if there are tools, as a call that the check cannot read. All of these must lead to the same
    decision. The router itself is asked for each, once.
    """

    def __init__(
        self,
        router: Router,
        state: RoutingState,
        decision: Decision,
        edges: Sequence[float],
        *,
        may_call: bool,
    ) -> None:
        """Look ahead from a step.

        Args:
            router: The router.
            state: The evidence before the answer.
            decision: The step: which model is asked, and which check follows.
            edges: Scores at which the router's decision may change; see `Router.score_edges`.
            may_call: Whether the answer may be a tool call.
        """
        self._router, self._state, self._decision, self._edges = router, state, decision, edges
        self._kept_from = len(edges) + 1  # the lowest bin known to lead to another decision
        self._may_call = may_call
        self._asks: tuple[Any, ...] | None = None

    def escalates(self, most: float) -> bool:
        """Whether the router escalates for every score up to this bound."""
        found = bisect.bisect_right(self._edges, most)
        for each in range(found, -1, -1):
            if each >= self._kept_from:
                return False
            if not self._asks_next(self._edges[each - 1] if each else 0.0):
                self._kept_from = each
                return False
        return True

    def _asks_next(self, score: float) -> bool:
        if self._asks is None:
            self._asks = self._step(Verification(problem="it cannot be used", usable=False))
            if self._may_call and self._step(_of(None, self._decision.check)) != self._asks:
                self._asks = ()
        is_next = self._asks[:1] == ("escalate",)
        return is_next and self._step(_of(score, self._decision.check)) == self._asks

    def _step(self, found: Verification) -> tuple[Any, ...]:
        """Return the router's next step, without the reasons."""
        visit = Visit(model_index=self._decision.model_index, verification=found)
        state = self._state.model_copy(update={"visits": (*self._state.visits, visit)})
        step = self._router.decide(state)
        return step.action, step.model_index, step.samples, step.check


def why_never(config: MixConfig) -> str | None:
    """Say why a mix never gives up a draft, or return None if it may."""
    if _keeps_drafts(config):
        return (
            "with max_latency, on_escalation_error='answer' or retries_if_unusable, a draft may be "
            "given after all"
        )
    verifier, router = config.verifier, config.router
    checks = [None, *getattr(verifier, "checks", ())]
    if not isinstance(verifier, Verifier) or not any(map(verifier.score_bound, checks)):
        return (
            "whatever this check finds, the end of an answer may change it; "
            "LogProbabilityVerifier(statistic='min') can only find less"
        )
    state = RoutingState(models=config.names)
    if not isinstance(router, Router) or router.score_edges(state) is None:
        return (
            "by this router, more than the check may decide; a fitted POMDPRouter without own_cost "
            "goes by its check, as does a ThresholdRouter"
        )
    if not any(map(streamed_model, config.answering[:-1])):
        return (
            "no model before the last has a stream that is the same answer: without retries, "
            "fallbacks, LangChain's cache and callbacks of its own"
        )
    return None


def watched(
    config: MixConfig, query: QueryState, decision: Decision, call: Call
) -> tuple[Call, DraftWatch | None]:
    """Return the call for a draft, watched if the draft may be given up, and its watch."""
    index, router, verifier = decision.model_index, config.router, config.verifier
    if not _may_give_up(config, query, decision) or call.guard is not None:
        return call, None
    if not isinstance(router, Router) or not isinstance(verifier, Verifier):
        return call, None
    state = query.state(config)
    edges, bound = router.score_edges(state), verifier.score_bound(decision.check)
    streamed = streamed_model(config.answerer(index, streams=True, plain=False))
    if edges is None or bound is None or streamed is None:
        return call, None
    may_call = bool(config.answer_format.tools)
    watch = DraftWatch(bound, Foresight(router, state, decision, edges, may_call=may_call))
    model = WatchedStream(streamed.model, watch.why_close, streamed.configs)
    return replace(call, runnable=model, kwargs={**streamed.kwargs, **call.kwargs}), watch


def _may_give_up(config: MixConfig, query: QueryState, decision: Decision) -> bool:
    """Whether only its check could keep a draft, and nothing else needs the whole draft."""
    answer_format = config.answer_format
    is_checked = config.verification and config.forced is None and decision.samples != 0
    return (
        config.give_up_early
        and is_checked
        and not _keeps_drafts(config)
        and query.learning is None
        and answer_format.may_stream
        and not answer_format.may_be_unusable
        and config.sends_logprobs[decision.model_index]
        and decision.model_index < len(config.models) - 1
    )


def _keeps_drafts(config: MixConfig) -> bool:
    """Whether a rejected draft may be given after all: when time is up, or for lack of a better."""
    return (
        config.max_latency is not None
        or config.on_escalation_error != "raise"
        or config.retries_if_unusable > 0
    )


def note_given_up(
    query: QueryState, decision: Decision, watch: DraftWatch | None, usage: UsageCollector
) -> bool:
    """Record whether a draft was given up: it has no answer, and its request's cost is unknown.

    Returns:
        Whether it was given up.
    """
    if watch is None or (draft := watch.given_up) is None:
        return False
    index = decision.model_index
    query.given_up[index] = draft
    query.ledger.add_lost_request(index, usage)
    found = _of(draft.most, decision.check, is_upper_bound=True)
    query.ledger.visits[index] = Visit(model_index=index, verification=found)
    return True


def given_up_in_record(query: QueryState) -> list[dict[str, Any]]:
    """Return the part of the record that lists the drafts given up.

    The price is that of the tokens received. It is not a bill, since no provider reports usage for
    a stream that was closed.
    """
    ledger, told = query.ledger, []
    for index, draft in query.given_up.items():
        model, provider = ledger.identities[index]
        usage = UsageMetadata(input_tokens=0, output_tokens=draft.tokens, total_tokens=draft.tokens)
        written = ModelCall(model=model, provider=provider, usage=usage)
        told.append(
            {
                "model": ledger.names[index],
                "tokens": draft.tokens,
                "confidence_at_most": draft.most,
                "price_of_tokens": format_dollars(cost_of([written], ledger.prices)),
            }
        )
    return told


def _is_end(piece: Any) -> bool:
    """Whether a chunk ends its answer: closing then saves nothing and would lose the usage."""
    is_last = getattr(piece, "chunk_position", "last") == "last"  # a whole answer is no chunk
    return is_last or bool(piece.response_metadata.get("finish_reason"))


def _of(score: float | None, check: str | None, **fields: Any) -> Verification:
    """Return a verification with a score; None means that the check could read nothing."""
    problem = "the answer holds nothing to read" if score is None else None
    found = Verification(score=score, problem=problem, **fields)
    return found if check is None else Verification(checks={check: found})
