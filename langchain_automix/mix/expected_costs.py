"""Estimate what each option of a query costs before anything is paid for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.utils import count_tokens_approximately

from langchain_automix.mix.config import MixConfig
from langchain_automix.mix.record import QueryLedger
from langchain_automix.models.prices import cost_of, is_cached
from langchain_automix.models.refusals import LOGPROBS
from langchain_automix.types import ModelCall
from langchain_automix.utils.default_checks import TOKENS
from langchain_automix.verifiers.base import VerifierInput
from langchain_automix.verifiers.default import DefaultVerifier

NOMINAL_RATIO = 10.0
"""Cost of a token of the largest model, in tokens of the cheapest, if a price is unknown. Models in
between are spaced evenly on a logarithmic scale. The prior assumes the same."""

NOMINAL_OUTPUT = 4
"""Cost of an output token, in input tokens, if a price is unknown."""

USUAL_ANSWER = 64
"""Assumed length of an answer, in tokens, before the mix has seen any."""

_TOOL_TOKENS = 8  # the least that a tool's name and schema take; only the opening relies on it


class ExpectedCosts(NamedTuple):
    """The expected cost of each option; see `RoutingState.expected_costs`."""

    costs: dict[str, float]
    are_nominal: bool


class _Option(NamedTuple):
    name: str
    model_index: int
    calls: Sequence[ModelCall]


def expected_costs(
    config: MixConfig, ledger: QueryLedger, check_input: VerifierInput, answer: AIMessage | None
) -> ExpectedCosts:
    """Return the expected cost of each option, for a router that weighs it.

    Args:
        config: The mix; its checks can be bought one by one.
        ledger: The requests, findings and costs so far.
        check_input: Information about the query for a check.
        answer: The answer that may be checked, or None before there is one.
    """
    options = _options(config, ledger, check_input, answer)
    costs = [cost_of(option.calls, config.prices) for option in options]
    is_nominal = None in costs or not costs[len(config.names) - 1]
    if is_nominal:
        costs = [_nominal(option, len(config.names)) for option in options]
    pairs = zip(options, costs, strict=True)
    found = {option.name: float(cost) for option, cost in pairs if cost is not None}
    return ExpectedCosts(found, is_nominal)


def _options(
    config: MixConfig, ledger: QueryLedger, check_input: VerifierInput, answer: AIMessage | None
) -> list[_Option]:
    """Return all options: the models' answers in their order, then the checks."""
    index = next(reversed(ledger.visits), 0)
    usage = _usage(config, ledger, check_input, answer, index)
    known = enumerate(zip(config.names, config.identities, strict=True))
    options = [
        _Option(f"escalate:{name}", j, [ModelCall(model=model, provider=provider, usage=usage)])
        for j, (name, (model, provider)) in known
    ]
    checker = config.checkers[index]
    if index == len(config.names) - 1 or not isinstance(checker, DefaultVerifier):
        return options
    if answer is None:  # a text of the expected length
        answer = AIMessage("word " * usage["output_tokens"])
    request: VerifierInput = {**check_input, "answer": answer}
    offers = checker.offers(request, usage, has_logprobs=_has_logprobs(config, ledger, index))
    return options + [_Option(f"verify:{o.check}:{o.samples}", index, o.calls) for o in offers]


def _usage(
    config: MixConfig,
    ledger: QueryLedger,
    check_input: VerifierInput,
    answer: AIMessage | None,
    index: int,
) -> UsageMetadata:
    """Return the tokens of an answer, as reported or else estimated."""
    calls = ledger.answered.get(index) or ()
    if calls and calls[-1].usage is not None and not is_cached(calls[-1]):
        return calls[-1].usage
    request = list(check_input.get("request") or ())
    read = count_tokens_approximately(request)
    read += _TOOL_TOKENS * len(check_input.get("tools") or ())
    written = config.account.usual_answer(index) or USUAL_ANSWER
    if answer is not None:
        written = count_tokens_approximately([answer])
    return UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)


def _has_logprobs(config: MixConfig, ledger: QueryLedger, index: int) -> bool:
    """Whether the answer has log-probabilities or, before it exists, may come with them."""
    visit = ledger.visits.get(index)
    if visit is not None and visit.verification is not None:
        tokens = visit.verification.checks.get(TOKENS)
        return tokens is not None and tokens.score is not None
    return config.sends_logprobs[index] and not LOGPROBS.knows(config.models[index])


def _nominal(option: _Option, model_count: int) -> Decimal:
    """Return the tokens of an option, weighted by the model's place in the mix."""
    weight = NOMINAL_RATIO ** (option.model_index / (model_count - 1))
    usages: list[Mapping[str, Any]] = [call.usage for call in option.calls if call.usage]
    tokens = sum(u["input_tokens"] + NOMINAL_OUTPUT * u["output_tokens"] for u in usages)
    return Decimal(tokens * weight)
