"""A shadow of a query: asks and checks the models that the query did not ask, to learn from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import PrivateAttr
from typing_extensions import override

from langchain_automix.errors import SpendLimitReachedError
from langchain_automix.flow.runnable import FlowRunnable
from langchain_automix.flow.steps import Steps
from langchain_automix.mix.account import MixAccount
from langchain_automix.mix.answer import ModelAnswer
from langchain_automix.mix.answering import request_answer
from langchain_automix.mix.checking import run_check
from langchain_automix.mix.config import MixConfig
from langchain_automix.mix.limits.latency import LatencyEstimator
from langchain_automix.mix.limits.repeated_failures import RepeatedFailures
from langchain_automix.mix.limits.spend_session import SpendSession
from langchain_automix.mix.query import QueryState
from langchain_automix.mix.record import QueryLedger, query_cost
from langchain_automix.types import Decision, Verification, Visit
from langchain_automix.utils.default_checks import AGREEMENT, SELF_CHECKS, TOKENS, ZERO_SHOT
from langchain_automix.utils.fingerprints import fingerprint_of
from langchain_automix.verifiers.combined import CombinedVerifier
from langchain_automix.verifiers.default import RESAMPLES, DefaultVerifier, is_short

SHADOW_TAG = "automix:shadow"
"""Tag of a shadow's run, so that metrics do not count it as a query."""

_ASYNC_ONLY = frozenset({"NotImplementedError", "TypeError"})
"""Errors by which LangChain reports that something has no synchronous form."""

_VERDICTS = 4
"""Number of self-check verdicts that a shadow draws if the mix has no check of its own."""


@dataclass
class ShadowResult:
    """The outcome of a shadow, even if it ended early."""

    ledger: QueryLedger
    """The shadow's own requests, and the visits of all models, the query's included."""

    answers: dict[int, ModelAnswer] = field(default_factory=dict)
    """The answers of all models that gave one, the query's included."""

    failed: dict[int, str] = field(default_factory=dict)
    """Why a model gave no answer, or why its answer could not be checked, by model."""

    is_refused: bool = False
    """Whether a spend limit left no room for the shadow."""

    needs_async: bool = False
    """Whether some part of it can only be called asynchronously."""

    @property
    def visits(self) -> Mapping[int, Visit]:
        """The finding about each model's answer."""
        return self.ledger.visits


class Shadow(FlowRunnable[Any, ShadowResult]):
    """Asks the models that a query did not ask; checks all answers except the largest model's.

    Its input is that of the models. It returns whatever it has, and raises no error of a model or a
    check. A mix that is near a spend limit runs no shadows.
    """

    _mix: MixConfig = PrivateAttr()
    _query: QueryState = PrivateAttr()

    def __init__(self, mix: MixConfig, query: QueryState) -> None:
        """Set up the shadow.

        Args:
            mix: The configuration returned by `config_for_shadows`.
            query: The query that has ended.
        """
        super().__init__()
        self._mix, self._query = mix, query

    @classmethod
    @override
    def is_lc_serializable(cls) -> bool:
        return False  # it belongs to a single query

    @override
    def _flow(self, input: Any, **kwargs: Any) -> Steps[ShadowResult]:
        mix, query = self._mix, self._query
        ledger = QueryLedger(mix.prices, mix.names, mix.identities)
        result = ShadowResult(ledger)
        state = QueryState(
            input,
            query.check_input,
            query_id=query.query_id,
            ledger=ledger,
            arguments=query.arguments,
            answers=result.answers,
        )
        spending = SpendSession(mix.spend_limits)
        try:
            yield from spending.reserve()
        except SpendLimitReachedError:
            result.is_refused = True
            return result
        # Near a limit, queries wait for one another. They must not wait for a shadow as well.
        result.is_refused = spending.is_near
        steps = _nothing() if result.is_refused else self._ask_all(state, result)
        yield from spending.run_and_settle(steps, partial(query_cost, ledger))
        return result

    def _ask_all(self, state: QueryState, result: ShadowResult) -> Steps[None]:
        """Ask the models in the same order as a query, so that a check sees the earlier answers."""
        last = len(self._mix.names) - 1
        for index in range(len(self._mix.names)):
            if (visit := self._query.ledger.visits.get(index)) is not None:
                state.ledger.visits[index] = visit
                if index in self._query.answers:
                    state.answers[index] = self._query.answers[index]
            else:
                yield from self._attempt(_ask(self._mix, state, index, last), index, result)
            if index < last and index in state.answers:
                yield from self._attempt(_check(self._mix, state, index), index, result)

    def _attempt(self, steps: Steps[None], index: int, result: ShadowResult) -> Steps[None]:
        try:
            yield from steps
        except Exception as error:  # noqa: BLE001  (keep what is known by then)
            result.failed[index] = type(error).__name__
            result.needs_async |= type(error).__name__ in _ASYNC_ONLY
        kinds = {error["error"] for error in result.ledger.failed}
        result.needs_async |= not kinds.isdisjoint(_ASYNC_ONLY)


def _nothing() -> Steps[None]:
    yield from ()


def _ask(mix: MixConfig, state: QueryState, index: int, last: int) -> Steps[None]:
    samples = 0 if index == last else None
    decision = Decision(action="escalate", model_index=index, samples=samples)
    if not (yield from request_answer(mix, state, decision)):
        # The refusal is remembered, so this request goes without log-probabilities.
        yield from request_answer(mix, state, decision)


def _check(mix: MixConfig, state: QueryState, index: int) -> Steps[None]:
    for decision in _checks(mix, state, index):
        yield from run_check(mix, state, decision)


def _checks(mix: MixConfig, state: QueryState, index: int) -> Iterator[Decision]:
    """Yield the checks of an answer still to be made, one at a time."""
    if isinstance(mix.verifier, DefaultVerifier):
        yield from _default_checks(state, index)
        return
    verifier = mix.verifier
    checks: Mapping[str | None, Runnable[Any, Any]] = {None: verifier}
    if isinstance(verifier, CombinedVerifier):
        names = [None, *list(verifier.checks)[1:]]
        checks = dict(zip(names, verifier.checks.values(), strict=True))
    for name, check in checks.items():
        found = _found(state, index, name)
        samples = getattr(check, "samples", None)
        drawn = len(found.verdicts)
        if found.score is not None or not found.usable:
            continue
        if not drawn:
            yield Decision(action="verify", model_index=index, check=name)
        elif isinstance(samples, int) and drawn < samples:
            more = samples - drawn
            yield Decision(action="verify", model_index=index, check=name, samples=more)


def _default_checks(state: QueryState, index: int) -> Iterator[Decision]:
    """Yield the default checks of a mix, cheapest first, until one finds something."""
    again = AGREEMENT if is_short(state.answers[index].message) else ZERO_SHOT
    numbers = {AGREEMENT: max(RESAMPLES), ZERO_SHOT: _VERDICTS}
    for name in dict.fromkeys((TOKENS, again, ZERO_SHOT)):
        visit = state.ledger.visits[index].verification
        if visit is not None and (not visit.usable or _says_something(visit)):
            return
        samples = numbers.get(name)
        yield Decision(action="verify", model_index=index, check=name, samples=samples)


def _says_something(found: Verification) -> bool:
    return any(each.confidence is not None for each in (found, *found.checks.values()))


def _found(state: QueryState, index: int, name: str | None) -> Verification:
    visit = state.ledger.visits[index].verification or Verification()
    return visit if name is None else visit.checks.get(name, Verification())


def config_for_shadows(config: MixConfig) -> MixConfig:
    """Return the configuration for shadows of a mix's queries.

    It is the mix's own, without a deadline or hedging. What a shadow learns about times, lengths
    and failures does not affect the queries.
    """
    return replace(
        config,
        answer_format=config.answer_format.for_shadow(),
        max_latency=None,
        hedge=None,
        give_up_early=False,
        on_verification_error="escalate",
        pace=LatencyEstimator(),
        failures=RepeatedFailures(),
        account=MixAccount(),
    )


def run_config_for_shadow(config: RunnableConfig) -> RunnableConfig:
    """Return the configuration of a shadow's run, given that of its query.

    It drops the query's handlers, and everything that belongs to the run of a graph.
    """
    inherited = getattr(config.get("callbacks"), "inheritable_tags", None) or ()
    own: Sequence[str] = [*(config.get("tags") or ()), *inherited]
    configurable = {
        name: value
        for name, value in (config.get("configurable") or {}).items()
        if not name.startswith("__")
    }
    shadow = RunnableConfig(
        tags=[*dict.fromkeys(own), SHADOW_TAG],
        metadata=dict(config.get("metadata") or {}),
        configurable=configurable,
        run_name="shadow",
        callbacks=None,
    )
    if (limit := config.get("max_concurrency")) is not None:
        shadow["max_concurrency"] = limit
    return shadow


def with_names_of(
    default: Runnable[Any, Any], used: Runnable[Any, Any], found: Verification | None
) -> Verification | None:
    """Return a check's findings under the name the check has in a mix that chooses its checks.

    A policy of such a mix is fitted to one of its checks or several. The first of them leads in the
    queries that the policy decides.

    Args:
        default: The check of the mix.
        used: The check that was made.
        found: Its findings.
    """
    if found is None or not isinstance(default, DefaultVerifier) or used is default:
        return found
    name = used.first if isinstance(used, CombinedVerifier) else _name_of(default, used)
    if name is None or name == default.first:
        return found
    leading = found.model_copy(update={"checks": {}})
    others = [call for each in found.checks.values() for call in each.calls]
    calls = tuple(c for c in found.calls if not any(c is other for other in others))
    leading = leading.model_copy(update={"calls": calls})
    return Verification(
        calls=found.calls,
        usable=found.usable,
        problem=None if found.usable else found.problem,
        checks={name: leading, **found.checks},
    )


def _name_of(default: DefaultVerifier, used: Runnable[Any, Any]) -> str | None:
    fingerprint = fingerprint_of(used)
    names = (*SELF_CHECKS, TOKENS, AGREEMENT)
    checks = {name: default.variant(name) for name in names}
    same = (n for n, check in checks.items() if check and fingerprint_of(check) == fingerprint)
    return next(same, None)


def is_answer(answer: ModelAnswer | None) -> bool:
    """Whether a model gave an answer that can be graded."""
    message = None if answer is None else answer.message
    return isinstance(message, AIMessage) and bool(message.tool_calls or str(message.text).strip())
