"""Buy checks one by one if they are worth their price, before any policy is fitted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from langchain_automix.policy.decision.check_values import (
    Belief,
    Prospect,
    Rates,
    belief_after_agreement,
    belief_after_tokens,
    belief_after_verdicts,
    prospect_of_agreement,
    prospect_of_tokens,
    prospect_of_verdicts,
    unchecked_belief,
)
from langchain_automix.routers.base import ask, keep, next_model
from langchain_automix.routers.explanations import findings
from langchain_automix.types import Decision, RoutingState, Verification
from langchain_automix.utils.default_checks import (
    AGREEMENT,
    SELF,
    SELF_CHECKS,
    TOKENS,
    VERDICT_ONLY,
    ZERO_SHOT,
)
from langchain_automix.utils.formatting import pluralize

_RATES = {
    SELF: Rates(0.65, 0.55),
    ZERO_SHOT: Rates(0.64, 0.56),
    VERDICT_ONLY: Rates(0.63, 0.57),
}
"""How often one verdict accepts a right and a wrong answer: an AUROC of 0.55, 0.54 and 0.53. The
table in docs/guides/choosing-a-check.md measured 0.54 for one few-shot verdict. What the examples
and the reasoning add is within its noise, and assumed to be small."""

_MOST_VERDICTS = 8
_MOST_RESAMPLED = 16  # the most that the prior of agreement covers


class _Offer(NamedTuple):
    """A check that can be bought."""

    check: str
    samples: int
    cost: float


def can_buy(state: RoutingState) -> bool:
    """Whether the mix offers checks to choose from."""
    return any(option.startswith("verify:") for option in state.expected_costs)


def opening_by_cost(state: RoutingState, factor: float) -> Decision:
    """Return the first step: the cheapest model if a check can pay, else the largest.

    The cheapest model is asked if a check of its answer costs less than it is worth, and the
    answer, the check and the expected escalations together cost less than the largest model. It is
    also asked if a raised cost weight favours it, as when money is short.

    Args:
        state: The state before any visit, with the expected cost of each option.
        factor: The cost weight, as a multiple of the usual one.
    """
    names, costs = state.models, state.expected_costs
    draft, largest = costs[f"escalate:{names[0]}"], costs[f"escalate:{names[-1]}"]
    before = unchecked_belief().repriced(factor)
    best: tuple[float, _Offer, Prospect] | None = None
    for offer in _offers(state):
        prospect = _prospect(offer, before, (0, 0), factor)
        net = prospect.gain - _price(offer, state, before, factor)
        total = draft + offer.cost + (1 - prospect.kept) * largest
        if net > 0 and total < largest and (best is None or net > best[0]):
            best = net, offer, prospect
    if best is None and not before.favours_small:
        return _ask_largest(state)
    why = f"A query starts with {names[0]}, whose answer is checked by what is worth its price."
    if best is None:
        why = f"At this cost weight {names[0]} is asked: no check of its answer is worth its price."
    return Decision(action="escalate", model_index=0, check=TOKENS, why=why)


def _ask_largest(state: RoutingState) -> Decision:
    names = state.models
    why = (
        f"{names[-1]} is asked at once: at these prices and lengths, an answer of {names[0]} with "
        f"a check and the escalations to be expected would save nothing{_caveat(state)}."
    )
    return Decision(action="escalate", model_index=len(names) - 1, samples=0, why=why)


def decide_by_value(state: RoutingState, factor: float) -> Decision:
    """Decide to keep the answer, to ask the next model, or to buy the most valuable check.

    Args:
        state: The state after a usable answer, with the expected cost of each option.
        factor: The cost weight, as a multiple of the usual one.
    """
    later = _later(state)
    found = state.current.verification or Verification()
    if later is None:
        return keep(state, why=f"{findings(found)}, and there is no larger model to ask.")
    before, verdicts, rates = _belief_without_verdicts(found, factor)
    belief = before
    if rates is not None and any(verdicts):
        belief = belief_after_verdicts(before, *verdicts, rates)
    best, worth = _best_offer(state, found, before, belief, verdicts, factor)
    names = (state.models[state.current.model_index], state.models[later])
    values = {"answer": belief.small, f"escalate:{names[1]}": belief.large - belief.price}
    if best is not None:
        values[f"verify:{best.check}"] = worth
    details = {
        "belief": dict(zip(names, (belief.small, belief.large), strict=True)),
        "values": {option: round(value, 6) for option, value in values.items()},
    }
    if best is not None:
        return Decision(
            action="verify",
            model_index=state.current.model_index,
            check=None if best.check == SELF else best.check,  # the leading check has no name
            samples=best.samples,
            why=_why_bought(state, found, best, worth - belief.value),
            **details,
        )
    why = _why_decided(state, found, belief, names[1])
    if belief.escalates:
        return ask(state, later, **details, why=why).model_copy(
            update={"check": None if _is_last(state, later) else TOKENS}
        )
    return keep(state, **details, why=why)


def _later(state: RoutingState) -> int | None:
    """Return the model to ask after the current one: the next, or the largest if cheaper."""
    later = next_model(state)
    if later is None or _is_last(state, later):
        return later
    costs, last = state.expected_costs, len(state.models) - 1
    largest = costs[f"escalate:{state.models[last]}"]
    kept = prospect_of_tokens().kept
    total = costs[f"escalate:{state.models[later]}"] + (1 - kept) * largest
    return later if total < largest else last


def _is_last(state: RoutingState, model_index: int) -> bool:
    return model_index == len(state.models) - 1


def _belief_without_verdicts(
    found: Verification, factor: float
) -> tuple[Belief, tuple[int, int], Rates | None]:
    """Return the belief without self-checks, and a self-check's accepts, rejects and rates."""
    tokens, again = found.checks.get(TOKENS), found.checks.get(AGREEMENT)
    belief = unchecked_belief()
    if tokens is not None and tokens.score is not None:
        belief = belief_after_tokens(tokens.score)
    elif again is not None and 0 < again.accepts + again.rejects <= _MOST_RESAMPLED:
        belief = belief_after_agreement(again.accepts, again.rejects)
    made = _self_checks(found)
    counts = sum(c.accepts for c in made.values()), sum(c.rejects for c in made.values())
    rates = next((_RATES[name] for name in made), None)
    return belief.repriced(factor), counts, rates


def _self_checks(found: Verification) -> Mapping[str, Verification]:
    """Return the self-checks that have been made, by name."""
    made = {name: found.checks[name] for name in SELF_CHECKS if name in found.checks}
    if found.verdicts:  # the findings of the leading check are at the top level
        made[SELF] = found
    return made


def _best_offer(
    state: RoutingState,
    found: Verification,
    before: Belief,
    belief: Belief,
    verdicts: tuple[int, int],
    factor: float,
) -> tuple[_Offer | None, float]:
    """Return the most valuable check, or None if none is worth its price, and its value."""
    largest = state.expected_costs[f"escalate:{state.models[-1]}"]
    best, most = None, 0.0
    for offer in _open_offers(state, found):
        prospect = _prospect(offer, before, verdicts, factor)
        # Even its best outcome would not make the query cheaper than asking the largest model now.
        if offer.cost >= prospect.kept * largest:
            continue
        net = prospect.gain - _price(offer, state, belief, factor)
        if net > most:
            best, most = offer, net
    return best, belief.value + most


def _open_offers(state: RoutingState, found: Verification) -> Iterator[_Offer]:
    """Yield the checks that can still be bought and would end in time."""
    if not state.fits("verify"):
        return
    made = _self_checks(found)
    drawn = sum(len(check.verdicts) for check in made.values())
    for offer in _offers(state):
        if offer.check == TOKENS:  # free, and read already if there are any
            continue
        if offer.check == AGREEMENT:
            if AGREEMENT not in found.checks and not made:
                yield offer
        elif drawn + offer.samples <= _MOST_VERDICTS and _is_open(made, offer.check):
            yield offer


def _is_open(made: Mapping[str, Verification], check: str) -> bool:
    """Whether a self-check can be made or continued; an answer gets only one kind."""
    return not made or (check in made and made[check].problem is None)


def _offers(state: RoutingState) -> Iterator[_Offer]:
    for option, cost in state.expected_costs.items():
        kind, _, rest = option.partition(":")
        if kind == "verify":
            check, _, samples = rest.rpartition(":")
            yield _Offer(check, int(samples), cost)


def _prospect(offer: _Offer, before: Belief, verdicts: tuple[int, int], factor: float) -> Prospect:
    if offer.check == TOKENS:
        return prospect_of_tokens(factor)
    if offer.check == AGREEMENT:
        return prospect_of_agreement(offer.samples, factor)
    return prospect_of_verdicts(before, *verdicts, offer.samples, _RATES[offer.check])


def _price(offer: _Offer, state: RoutingState, belief: Belief, factor: float) -> float:
    """Return the price of a check in quality, in proportion to that of the largest model."""
    largest = state.expected_costs[f"escalate:{state.models[-1]}"]
    if offer.check == AGREEMENT:
        belief = belief_after_agreement(0, 0).repriced(factor)
    return belief.price * offer.cost / largest


def _why_bought(state: RoutingState, found: Verification, offer: _Offer, gain: float) -> str:
    largest = state.models[-1]
    share = offer.cost / state.expected_costs[f"escalate:{largest}"]
    number = pluralize(offer.samples, "new answer" if offer.check == AGREEMENT else "verdict")
    return (
        f"{_known(found)}: the check {offer.check!r} ({number}) may change the decision, "
        f"which is worth {gain:.3f} in quality beyond its price, {share:.1%} of an answer of "
        f"{largest}{_caveat(state)}."
    )


def _why_decided(state: RoutingState, found: Verification, belief: Belief, name: str) -> str:
    verb = "more" if belief.escalates else "not more"
    return (
        f"{_known(found)}: {name} is expected to gain {belief.benefit:+.2f} in quality, {verb} "
        f"than the {belief.price:.2f} of quality that its cost is worth{_caveat(state)}."
    )


def _known(found: Verification) -> str:
    """Describe the findings, leaving out checks that found nothing."""
    named = {SELF: found.model_copy(update={"checks": {}})} | found.checks
    known = {name: check for name, check in named.items() if check.confidence is not None}
    if not known:
        return "No check of the answer is to be had for what it is worth"
    return findings(Verification(checks=known))


def _caveat(state: RoutingState) -> str:
    nominal = ", no price is known, so tokens are weighed by the order of the models"
    return f" (by a prior, not calibrated{nominal if state.costs_are_nominal else ''})"
