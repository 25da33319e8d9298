"""No shadow is bought where costs are unknown, for nothing is learned there; a warning says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langchain_automix.learning.rows import cost
from langchain_automix.learning.store.writer import LearningWarning
from langchain_automix.mix.config import MixConfig
from langchain_automix.mix.learner import EndedQuery
from langchain_automix.models.prices import price_list_hint
from langchain_automix.utils.user_warnings import warn_of_what_is_paid

if TYPE_CHECKING:
    from langchain_automix.learning.epochs import EpochState

NO_PRICE = (
    "Nothing can be learned while it is unknown what the models, or their checks, cost: give the "
    "mix prices."
)
_REMEDY = (
    "Give the mix prices= (dollars per million tokens; `automix serve` takes them from --prices or "
    "its file)."
)


def has_prices(config: MixConfig, state: EpochState) -> bool:
    """Return whether the price of every model is known, and warn the first time that one is not."""
    if not config.unpriced:
        return True
    names = " and ".join(config.unpriced)
    _warn_once(
        state,
        f"Nothing can be learned, because the price of {names} is not known: no query has a "
        f"shadow. {_REMEDY}{price_list_hint()}",
    )
    return False


def has_known_costs(ended: EndedQuery, state: EpochState) -> bool:
    """Return whether all that a query's answers cost is known, and warn the first time it is not.

    What a shadow would add to a query with an unknown cost is no evidence.
    """
    ledger = ended.query.ledger
    for index, calls in ledger.answered.items():
        if cost(calls, ledger.prices) is None:
            _warn_once(
                state,
                f"Nothing can be learned from a query for which it is unknown what "
                f"{ended.config.names[index]} cost (it has no known price, or reports no tokens, "
                "as some models do in a stream without stream_usage=True): such a query has no "
                f"shadow. {_REMEDY}",
            )
            return False
    return True


def _warn_once(state: EpochState, message: str) -> None:
    if not state.no_cost:
        state.no_cost = message
        warn_of_what_is_paid(message, LearningWarning)
