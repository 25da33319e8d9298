"""What each option of a query is expected to cost, before anything is paid for it."""

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
"""What the largest model's tokens weigh, in tokens of the cheapest, where no price is known; those
between them are spaced evenly on a logarithmic scale. As in the prior."""

NOMINAL_OUTPUT = 4
"""What a written token weighs, in read ones, where no price is known."""

USUAL_ANSWER = 64
"""Tokens of an answer, before any answer of the mix is known."""

_TOOL_TOKENS = 8  # the least that a tool's name and schema take; only the opening needs a guess


class ExpectedCosts(NamedTuple):
    """What each option is expected to cost; see `RoutingState.expected_costs`."""

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
        config: The mix, whose checks can be bought.
        ledger: What was asked, found and paid so far.
        check_input: What a check is told of the query.
        answer: The answer that may be checked; None: there is none yet.
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
    """Return all options: first the answers of the models, in their order, then the checks."""
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
    if answer is None:  # a text of the length to be expected
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
    """Return the tokens of an answer: as reported, else as many as are likely."""
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
    """Whether an answer came with log-probabilities, or before there is one, may come with some."""
    visit = ledger.visits.get(index)
    if visit is not None and visit.verification is not None:
        tokens = visit.verification.checks.get(TOKENS)
        return tokens is not None and tokens.score is not None
    return config.sends_logprobs[index] and not LOGPROBS.knows(config.models[index])


def _nominal(option: _Option, model_count: int) -> Decimal:
    """Return the tokens of an option, weighed by the order of the models."""
    weight = NOMINAL_RATIO ** (option.model_index / (model_count - 1))
    usages: list[Mapping[str, Any]] = [call.usage for call in option.calls if call.usage]
    tokens = sum(u["input_tokens"] + NOMINAL_OUTPUT * u["output_tokens"] for u in usages)
    return Decimal(tokens * weight)
