"""`AutoMixTotals`: the totals of many queries, in one callback."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from typing_extensions import override

from langchain_automix.flow.callbacks import is_inside_mix
from langchain_automix.mix.account import WATCHED_QUERIES
from langchain_automix.models.prices import dollars_of, format_dollars
from langchain_automix.utils.locks import ProcessLock


class AutoMixTotals(BaseCallbackHandler):
    """Adds up the records of all queries that it hears of, from any mix, thread or chain.

    If a mix is a model of another mix, its queries are not counted separately, since the outer
    record includes their cost.

    ??? example "What a batch cost, and saved"

        ```python
        from langchain_automix import AutoMixTotals

        totals = AutoMixTotals()
        chain.batch(questions, {"callbacks": [totals]})
        print(totals)
        ```
    """

    run_inline = True

    def __init__(self) -> None:
        """Start at zero."""
        self.queries = 0
        """Queries answered."""

        self.unfinished = 0
        """Queries that failed, were cancelled or whose stream was abandoned. What they cost up to
        then is included in the cost and the tokens."""

        self.escalations = 0
        """Queries for which more than one model answered."""

        self.verdicts = 0
        """Verdicts drawn."""

        self.given_up = 0
        """Drafts that were given up while being written (`give_up_early`)."""

        self.given_up_tokens = 0
        """Tokens received of those drafts; how many more would have followed is unknown."""

        self.tokens: Counter[str] = Counter()
        """Tokens of all requests, checks included, by kind; see `without_tokens`."""

        self.without_tokens = 0
        """Queries with a request that reported no tokens."""

        self.models: Counter[str] = Counter()
        """Queries by the model whose answer was kept."""

        self.unpriced: Counter[str] = Counter()
        """Queries whose cost is unknown, by the model without a price."""

        self.saved_is_estimate = False
        """Whether the saving includes an estimate of what the largest model would have cost."""

        self._cost: Decimal | None = Decimal(0)
        self._saved: Decimal | None = Decimal(0)
        self._lock = ProcessLock()

    @property
    def cost(self) -> str | None:
        """Cost of all queries, failed ones included, as text; None if any cost is unknown."""
        return format_dollars(self._cost)

    @property
    def saved(self) -> str | None:
        """How much more the largest model alone would have cost, as text; None if unknown."""
        return format_dollars(self._saved)

    @override
    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        if name != "automix" or not isinstance(data, Mapping):
            return
        if {"alone", "unfinished"} & data.keys() and not is_inside_mix(kwargs.get("tags")):
            with self._lock:
                self._add(data)

    def _add(self, record: Mapping[str, Any]) -> None:
        self.unpriced.update(record["unpriced"])
        if record["tokens"] is None:
            self.without_tokens += 1
        else:
            self.tokens.update(record["tokens"])
        self._cost = _sum(self._cost, record["cost"])
        if "unfinished" in record:
            self.unfinished += 1
            return
        self.queries += 1
        self.escalations += bool(record["escalated"])
        self.verdicts += record["drawn"]
        given_up = record.get("given_up") or ()  # records of earlier versions have none
        self.given_up += len(given_up)
        self.given_up_tokens += sum(draft["tokens"] for draft in given_up)
        self.models[record["model"]] += 1
        self.saved_is_estimate |= record["saved_is_estimate"]
        self._saved = _sum(self._saved, record["saved"])

    @property
    def is_loss(self) -> bool:
        """Whether the queries have cost more than the largest model alone would have cost."""
        return self._saved is not None and self._saved < 0

    def __str__(self) -> str:
        """Return the totals in words."""
        if not self.queries and not self.unfinished:
            return "0 queries"
        kept = ", ".join(f"{name} {count}" for name, count in self.models.most_common())
        cost = self.cost or f"unknown (no price or no tokens: {', '.join(self.unpriced)})"
        queries = "1 query" if self.queries == 1 else f"{self.queries} queries"
        verdicts = "1 verdict" if self.verdicts == 1 else f"{self.verdicts} verdicts"
        early = (
            f" ({self.given_up} of them mid-draft, after {self.given_up_tokens} tokens in all)"
            if self.given_up
            else ""
        )
        failed = f", {self.unfinished} more failed" if self.unfinished else ""
        return (
            f"{queries}{failed}, {self.escalations} escalated{early}, {verdicts}; "
            f"kept: {kept or 'none'}; cost {cost}, {self._compared()}"
        )

    def _compared(self) -> str:
        if self._saved is None:
            return "what the largest alone would have cost is unknown"
        comparison = "less" if self._saved >= 0 else "more"
        estimate = ", estimated" if self.saved_is_estimate else ""
        amount = format_dollars(abs(self._saved))
        compared = f"{amount} {comparison} than the largest alone{estimate}"
        is_clear = self.is_loss and self.queries >= WATCHED_QUERIES
        return f"{compared}\n{_ADVICE}" if is_clear else compared


_ADVICE = (
    "This mix loses money: fit a policy to your own questions, check by something cheaper, or ask "
    "the largest model alone."
)


def _sum(total: Decimal | None, cost: str | None) -> Decimal | None:
    return None if total is None or cost is None else total + dollars_of(cost)
