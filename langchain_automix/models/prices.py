"""Convert tokens to dollars. An unknown cost is None, never 0."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple
from weakref import WeakSet

from langchain_core.messages.ai import UsageMetadata

from langchain_automix.errors import AutoMixError, near_matches
from langchain_automix.types import ModelCall
from langchain_automix.utils.install import install_hint
from langchain_automix.utils.user_warnings import warn_of_what_is_paid

CURRENCY = "USD"
_AMOUNT = re.compile(rf"\s*(?:\$\s*)?([\d.]+)\s*(?:{CURRENCY}\s*)?")
_MILLION = 1_000_000
_ORDINARY = 1_000
"""Number of tokens in a request that no provider prices as a long one."""

_MAX_DOLLARS = 10**9
"""Upper limit for a price per million tokens or per request, so that sums stay exact."""

_LEAST = -400
"""Decimal exponent below that of any float; 1e-999999 would take a megabyte to print."""


# Providers whose names differ between LangChain and the price list.
_PROVIDERS = {"google_genai": "google", "google_vertexai": "google", "mistralai": "mistral"}


PriceSource = (
    Mapping[str, Mapping[str, Decimal | float | str]]
    | Callable[[ModelCall], Decimal | float | None]
)
"""The user's own prices. Either a table, by model name, of dollars per million tokens: `input` and
`output` and, if they differ, `cache_read`, `cache_write`, `cache_write_1h`, `input_audio`,
`output_audio` and `reasoning`. Or a function from one request to dollars; if it returns None or
fails, `genai-prices` is used."""

# Kinds of tokens, by LangChain's names, with their price keys; the first key given applies.
_KINDS: dict[str, dict[str, tuple[str, ...]]] = {
    "input": {
        "cache_read": ("cache_read",),
        "cache_creation": ("cache_write",),
        "ephemeral_5m_input_tokens": ("cache_write",),
        "ephemeral_1h_input_tokens": ("cache_write_1h", "cache_write"),
        "audio": ("input_audio",),
    },
    "output": {"reasoning": ("reasoning",), "audio": ("output_audio",)},
}
PRICE_KEYS = frozenset(
    {"input", "output"} | {key for kinds in _KINDS.values() for ks in kinds.values() for key in ks}
)
# OpenAI's service tiers have their own prices; LangChain prefixes the kinds with the tier.
_TIERS = ("flex", "priority")
# Providers report the exact version: gpt-5.4-mini-2026-03-17 is priced as gpt-5.4-mini.
_VERSION = re.compile(r"[-@]\d{4}-?\d{2}-?\d{2}$")


class PriceWarning(UserWarning):
    """The user's price function failed, so the cost of a request may be unknown."""


_WARNED: WeakSet[Any] = WeakSet()


class PricedCalls(NamedTuple):
    """The cost of some requests."""

    total: Decimal | None
    """US dollars; None if the cost of any request is unknown."""

    unpriced: tuple[str, ...] = ()
    """Models of requests without a known cost: no price, or no tokens reported."""


def price_calls(calls: Iterable[ModelCall], prices: PriceSource | None = None) -> PricedCalls:
    """Return the cost of requests, and the models whose cost is unknown.

    Args:
        calls: The requests.
        prices: The user's own prices; the rest comes from `genai-prices` (extra `prices`), offline.
            Without it, or for a model that it does not list, the price is unknown.

    Raises:
        AutoMixError: A price is negative or not a number.
    """
    return add_costs((call, call_cost(call, prices)) for call in calls)


def add_costs(costs: Iterable[tuple[ModelCall, Decimal | None]]) -> PricedCalls:
    """Add up the costs of requests, where None is an unknown cost."""
    total = Decimal(0)
    unpriced: dict[str, None] = {}
    for call, cost in costs:
        if cost is None:
            unpriced[call.model or "a model without a name"] = None
        else:
            total += cost
    return PricedCalls(None if unpriced else total, tuple(unpriced))


def cost_of(calls: Iterable[ModelCall], prices: PriceSource | None = None) -> Decimal | None:
    """Return the cost of requests in US dollars, or None if any is unknown (see `price_calls`)."""
    return price_calls(calls, prices).total


def format_dollars(cost: Decimal | None) -> str | None:
    """Return a cost as text with its currency; None stays None."""
    return None if cost is None else f"{cost:f} {CURRENCY}"


def checked_prices(prices: Any) -> Any:
    """Validate the user's own prices, and return them.

    Raises:
        AutoMixError: The value is neither a function nor a table, or the table is invalid.
    """
    if prices is None or callable(prices):
        return prices
    if not isinstance(prices, Mapping):
        raise AutoMixError(
            f"prices is a {type(prices).__name__}; pass a table by model name, or a function."
        )
    for model, entry in prices.items():
        if not isinstance(entry, Mapping) or not {"input", "output"} <= entry.keys() <= PRICE_KEYS:
            keys = sorted(map(str, entry)) if isinstance(entry, Mapping) else repr(entry)
            raise AutoMixError(
                f"The prices of {model} are given for {keys}: give `input` and `output`, in "
                "dollars per million tokens, and where they differ "
                f"{', '.join(sorted(PRICE_KEYS - {'input', 'output'}))}."
            )
        for price in entry.values():
            _dollars(price, model)
    return prices


def amount_in(text: str) -> str | None:
    """Return the number in an amount of dollars that a user wrote, such as `5 USD` or `$5`.

    Return None if the text is not such an amount.
    """
    match = _AMOUNT.fullmatch(text)
    return None if match is None else match[1]


def dollars_of(cost: str) -> Decimal:
    """Parse a cost written by `format_dollars`."""
    return Decimal(cost.split(maxsplit=1)[0])


def token_prices(model: str, provider: str | None) -> tuple[Decimal, Decimal] | None:
    """Return the dollars per million input and output tokens, or None if unknown.

    The prices are for requests of ordinary length; many lists charge more for very long ones.
    """
    call = ModelCall(model=model, provider=provider)
    price_in = _listed_price(call, {"input_tokens": _ORDINARY, "output_tokens": 0})
    price_out = _listed_price(call, {"input_tokens": 0, "output_tokens": _ORDINARY})
    if price_in is None or price_out is None:
        return None
    return price_in * _MILLION / _ORDINARY, price_out * _MILLION / _ORDINARY


def is_priced(model: str | None, provider: str | None, prices: PriceSource | None) -> bool:
    """Return whether a request to a model that reports its tokens has a known cost."""
    usage = UsageMetadata(input_tokens=1, output_tokens=1, total_tokens=2)
    return cost_of([ModelCall(model=model, provider=provider, usage=usage)], prices) is not None


def nearest_priced(model: str | None, provider: str | None, prices: PriceSource | None) -> str:
    """Return ` Did you mean 'X'?` with the priced models whose names are most similar.

    Return an empty text if none is similar.
    """
    known = [*prices] if isinstance(prices, Mapping) else []
    with contextlib.suppress(ImportError):  # an optional dependency
        from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415

        listed = _PROVIDERS.get(provider or "", provider)
        for each in get_snapshot().providers:
            known += [m.id for m in each.models] if each.id == listed else []
    return near_matches(model or "", [name for name in known if name != model], cutoff=0.75)


def price_list_hint() -> str:
    """Return how to install the price list, as a sentence after a space; "" if it is installed."""
    try:
        import genai_prices  # noqa: F401, PLC0415
    except ImportError:
        return f" The price list of the extra `prices` knows many models: {install_hint('prices')}."
    return ""


def is_cached(call: ModelCall) -> bool:
    """Whether the answer came from LangChain's cache, without a request."""
    usage: Mapping[str, Any] = call.usage or {}  # may hold nothing but this mark
    return usage.get("total_cost") == 0


def call_cost(call: ModelCall, prices: PriceSource | None = None) -> Decimal | None:
    """Return the cost of one request in US dollars, or None if unknown (see `price_calls`)."""
    if call.cost is not None:
        return dollars_of(call.cost)
    if is_cached(call):
        return Decimal(0)
    if call.usage is None:
        return None
    if callable(prices):
        if (cost := _by_function(call, prices)) is not None:
            return cost
    elif prices and (entry := _entry(call.model, prices)) is not None:
        return _by_table(call.usage, entry, call.model)
    return _by_list(call)


def _by_function(call: ModelCall, prices: Callable[[ModelCall], Any]) -> Decimal | None:
    """Price a request by the user's function; None if it fails, so that the answer is not lost."""
    try:
        price = prices(call)
    except Exception as error:  # noqa: BLE001  (the user's own function)
        _warn_failed(call, prices, error)
        return None
    return None if price is None else _dollars(price, call.model)


def _warn_failed(call: ModelCall, prices: Any, error: Exception) -> None:
    try:
        if prices in _WARNED:
            return
        _WARNED.add(prices)
    except TypeError:  # not every callable can be put into the set
        pass
    warn_of_what_is_paid(
        f"prices= failed for {call.model!r} ({type(error).__name__}: {error}): where it fails, the "
        "cost of a request counts as unknown. Let it return None instead.",
        PriceWarning,
    )


def _entry(model: str | None, prices: Mapping[str, Any]) -> Mapping[str, Any] | None:
    entry: Mapping[str, Any] | None = prices.get(model or "")
    return entry or prices.get(_VERSION.sub("", model or ""))


def _details(usage: Mapping[str, Any], direction: str) -> dict[str, int]:
    """Return the tokens of each kind, with the service tier removed from its name."""
    tokens: dict[str, int] = {}
    for name, number in (usage.get(f"{direction}_token_details") or {}).items():
        tier, _, kind = name.partition("_")
        kind = kind if tier in _TIERS else name
        tokens[kind] = tokens.get(kind, 0) + int(number or 0)
    return tokens


def _by_table(usage: Mapping[str, Any], entry: Mapping[str, Any], model: str | None) -> Decimal:
    """Price a request by a table; kinds of tokens without their own price cost the usual.

    A token may be of two kinds (such as cached audio), but is billed once. If the kinds add up to
    more than all tokens, the higher prices apply, so the cost is never understated.
    """
    total = Decimal(0)
    for direction, kinds in _KINDS.items():
        priced = [
            (_dollars(entry[key], model), number)
            for kind, number in _details(usage, direction).items()
            if (key := next((k for k in kinds.get(kind, ()) if k in entry), None))
        ]
        rest = int(usage[f"{direction}_tokens"])
        for price, number in sorted(priced, reverse=True):
            billed = min(number, rest)
            total += billed * price
            rest -= billed
        total += rest * _dollars(entry[direction], model)
    return total / _MILLION


def _by_list(call: ModelCall) -> Decimal | None:
    """Price a request by `genai-prices`; None if that is not possible."""
    usage = call.usage
    if usage is None:
        return None
    details = {
        *(usage.get("input_token_details") or {}),
        *(usage.get("output_token_details") or {}),
    }
    if details & {*_TIERS}:  # the list has only standard-tier prices
        return None
    read, written = _details(usage, "input"), _details(usage, "output")
    five_minutes, hour = (read.get(f"ephemeral_{time}_input_tokens", 0) for time in ("5m", "1h"))
    tokens = {
        "input_tokens": usage["input_tokens"],
        "output_tokens": usage["output_tokens"],
        "cache_read_tokens": read.get("cache_read"),
        "cache_write_tokens": read.get("cache_creation", 0) + five_minutes + hour,
        "cache_write_5m_tokens": five_minutes,
        "cache_write_1h_tokens": hour,
        "input_audio_tokens": read.get("audio"),
        "output_audio_tokens": written.get("audio"),
        "output_reasoning_tokens": written.get("reasoning"),
    }
    # Leave out absent kinds, since not every model has a price for them.
    return _listed_price(call, {kind: n for kind, n in tokens.items() if n})


def _dollars(price: Any, model: str | None) -> Decimal:
    amount = _decimal_of(str(price))
    if amount is None:
        raise AutoMixError(f"The price {price!r} of {model} is no amount of dollars, 0 or more.")
    return amount


@lru_cache(maxsize=1024)  # a table's prices are read for each request
def _decimal_of(text: str) -> Decimal | None:
    """Return an amount of dollars, or None if the text is not one."""
    try:
        amount = Decimal(text)
    except ArithmeticError:
        return None
    is_amount = amount.is_finite() and 0 <= amount <= _MAX_DOLLARS
    return amount if is_amount and amount.adjusted() >= _LEAST else None


def _listed_price(call: ModelCall, tokens: Mapping[str, int | None]) -> Decimal | None:
    # Without a provider, the list would guess one from the model's name.
    if call.model is None or call.provider is None:
        return None
    try:  # an optional dependency that takes half a second to import
        from genai_prices import Usage, calc_price  # noqa: PLC0415
    except ImportError:
        return None
    provider = _PROVIDERS.get(call.provider, call.provider)
    try:
        price = calc_price(Usage(**tokens), model_ref=call.model, provider_id=provider)
    except (LookupError, ValueError):
        return None
    return price.total_price
