"""Tokens to money. What is not known stays unknown: None, never 0."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple
from weakref import WeakSet

from langchain_core.messages.ai import UsageMetadata

from langchain_automix.errors import AutoMixError
from langchain_automix.types import ModelCall

CURRENCY = "USD"
_A_MILLION = 1_000_000

# LangChain's names of providers that the price list calls otherwise.
_PROVIDERS = {"google_genai": "google", "google_vertexai": "google", "mistralai": "mistral"}


PriceSource = (
    Mapping[str, Mapping[str, Decimal | float | str]]
    | Callable[[ModelCall], Decimal | float | None]
)
"""Prices of a user's own. A table: by model name, the dollars for a million tokens: `input` and
`output`, and where they differ `cache_read`, `cache_write`, `cache_write_1h`, `input_audio`,
`output_audio` and `reasoning`. Or a function from one request to its dollars; None where it
does not know, which leaves it to `genai-prices`; where it fails, it does not know."""

# Kinds of tokens, by LangChain's names, and the prices that hold for them: the first one given.
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
# OpenAI's tiers of service have prices of their own, and LangChain puts them before the kinds.
_TIERS = ("flex", "priority")
# A provider reports the version that it ran: gpt-5.4-mini-2026-03-17 is priced as gpt-5.4-mini.
_VERSION = re.compile(r"[-@]\d{4}-?\d{2}-?\d{2}$")


class PriceWarning(UserWarning):
    """A function of a user's own that tells prices failed: what a request cost may be unknown."""


_FAILED: WeakSet[Any] = WeakSet()
"""The functions whose failing was warned of."""


class PricedCalls(NamedTuple):
    """What some requests cost."""

    total: Decimal | None
    """US dollars; None as soon as one of the requests is unknown."""

    unpriced: tuple[str, ...] = ()
    """Models whose requests are unknown: no price, or no tokens reported."""


def price_calls(calls: Iterable[ModelCall], prices: PriceSource | None = None) -> PricedCalls:
    """Return what requests cost, and which models that is not known of.

    Args:
        calls: The requests.
        prices: The user's own; what they do not know comes from `genai-prices` (the extra
            `prices`), offline. Without it, or for a model that it does not list, the price is
            unknown.

    Raises:
        AutoMixError: A price is negative or no number.
    """
    total = Decimal(0)
    unpriced: dict[str, None] = {}
    for call in calls:
        cost = _call_cost(call, prices)
        if cost is None:
            unpriced[call.model or "a model without a name"] = None
        else:
            total += cost
    return PricedCalls(None if unpriced else total, tuple(unpriced))


def cost_of(calls: Iterable[ModelCall], prices: PriceSource | None = None) -> Decimal | None:
    """Return what requests cost in US dollars; None if any is unknown (see `price_calls`)."""
    return price_calls(calls, prices).total


def format_dollars(cost: Decimal | None) -> str | None:
    """Return a cost as text with its currency; None stays None."""
    return None if cost is None else f"{cost:f} {CURRENCY}"


def checked_prices(prices: Any) -> Any:
    """Return prices of a user's own as they are.

    Raises:
        AutoMixError: They are neither a function nor a table, or the table is wrong somewhere.
    """
    if prices is None or callable(prices):
        return prices
    if not isinstance(prices, Mapping):
        raise AutoMixError(
            f"prices is a {type(prices).__name__}; give a table by model name, or a function."
        )
    for model, entry in prices.items():
        if not isinstance(entry, Mapping) or not {"input", "output"} <= entry.keys() <= PRICE_KEYS:
            given = sorted(map(str, entry)) if isinstance(entry, Mapping) else repr(entry)
            raise AutoMixError(
                f"The prices of {model} are given for {given}; a table names `input` and "
                f"`output`, and may name {sorted(PRICE_KEYS - {'input', 'output'})}."
            )
        for price in entry.values():
            _dollars(price, model)
    return prices


def dollars_of(cost: str) -> Decimal:
    """Return the amount of a cost that `format_dollars` wrote."""
    return Decimal(cost.split(maxsplit=1)[0])


def token_prices(model: str, provider: str | None) -> tuple[Decimal, Decimal] | None:
    """Return the dollar prices of a million input and output tokens; None if unknown."""
    call = ModelCall(model=model, provider=provider)
    price_in = _listed_price(call, {"input_tokens": _A_MILLION, "output_tokens": 0})
    price_out = _listed_price(call, {"input_tokens": 0, "output_tokens": _A_MILLION})
    return None if price_in is None or price_out is None else (price_in, price_out)


def is_priced(model: str | None, provider: str | None, prices: PriceSource | None) -> bool:
    """Return whether a request to a model that reports its tokens has a known cost."""
    usage = UsageMetadata(input_tokens=1, output_tokens=1, total_tokens=2)
    return cost_of([ModelCall(model=model, provider=provider, usage=usage)], prices) is not None


def is_cached(call: ModelCall) -> bool:
    """Whether the answer came from LangChain's cache: no request was made, and it was free."""
    told: Mapping[str, Any] = call.usage or {}  # such a usage may hold nothing but the mark
    return told.get("total_cost") == 0


def _call_cost(call: ModelCall, prices: PriceSource | None) -> Decimal | None:
    if call.cost is not None:
        return dollars_of(call.cost)
    if is_cached(call):
        return Decimal(0)
    if call.usage is None:
        return None
    if callable(prices):
        if (found := _by_function(call, prices)) is not None:
            return found
    elif prices and (entry := _entry(call.model, prices)) is not None:
        return _by_table(call.usage, entry, call.model)
    return _by_list(call)


def _by_function(call: ModelCall, prices: Callable[[ModelCall], Any]) -> Decimal | None:
    """Price a request by a function; where that fails, it does not know: the answer is paid for."""
    try:
        found = prices(call)
    except Exception as error:  # noqa: BLE001  (a user's own)
        _warn_of(call, prices, error)
        return None
    return None if found is None else _dollars(found, call.model)


def _warn_of(call: ModelCall, prices: Any, error: Exception) -> None:
    try:
        if prices in _FAILED:
            return
        _FAILED.add(prices)
    except TypeError:  # some callables can be in no such set
        pass
    warnings.warn(
        f"prices= failed for {call.model!r} ({type(error).__name__}: {error}), and counts as not "
        "knowing what a request cost, here and wherever it fails again: let it return None.",
        PriceWarning,
        stacklevel=2,
    )


def _entry(model: str | None, prices: Mapping[str, Any]) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = prices.get(model or "")
    return found or prices.get(_VERSION.sub("", model or ""))


def _details(usage: UsageMetadata, way: str) -> dict[str, int]:
    """Return the tokens of each kind, without the tier of service in its name."""
    told: Mapping[str, Any] = usage
    found: dict[str, int] = {}
    for name, number in (told.get(f"{way}_token_details") or {}).items():
        tier, _, kind = name.partition("_")
        kind = kind if tier in _TIERS else name
        found[kind] = found.get(kind, 0) + int(number or 0)
    return found


def _by_table(usage: UsageMetadata, entry: Mapping[str, Any], model: str | None) -> Decimal:
    """Price a request by a table; kinds of tokens without a price of their own cost the usual.

    A token may be of two kinds (audio that was cached), and is billed once. Where the kinds are
    more than all tokens together, it is billed as the dearer one: never less than it cost.
    """
    total = Decimal(0)
    told: Mapping[str, Any] = usage
    for way, kinds in _KINDS.items():
        details = _details(usage, way)
        priced = [
            (_dollars(entry[key], model), details[kind])
            for kind, keys in kinds.items()
            if kind in details and (key := next((k for k in keys if k in entry), None))
        ]
        rest = int(told[f"{way}_tokens"])
        for price, number in sorted(priced, reverse=True):
            billed = min(number, rest)
            total += billed * price
            rest -= billed
        total += rest * _dollars(entry[way], model)
    return total / _A_MILLION


def _by_list(call: ModelCall) -> Decimal | None:
    """Price a request by `genai-prices`; None where it cannot."""
    usage = call.usage
    if usage is None:
        return None
    read, written = _details(usage, "input"), _details(usage, "output")
    told = {*(usage.get("input_token_details") or {}), *(usage.get("output_token_details") or {})}
    if told & {*_TIERS}:  # the list has the standard tier's prices only
        return None
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
    # A kind that is not there need not be told, and is not known of every model.
    return _listed_price(call, {kind: n for kind, n in tokens.items() if n})


def _dollars(price: Any, model: str | None) -> Decimal:
    try:
        found = Decimal(str(price))
    except ArithmeticError:
        found = Decimal("NaN")
    if not found.is_finite() or found < 0:
        raise AutoMixError(f"The price {price!r} of {model} is no amount of dollars, 0 or more.")
    return found


def _listed_price(call: ModelCall, tokens: Mapping[str, int | None]) -> Decimal | None:
    # Without a provider the list would guess one from the model's name; a guess is no price.
    if call.model is None or call.provider is None:
        return None
    try:  # an extra, and half a second to import
        from genai_prices import Usage, calc_price  # noqa: PLC0415
    except ImportError:
        return None
    provider = _PROVIDERS.get(call.provider, call.provider)
    try:
        price = calc_price(Usage(**tokens), model_ref=call.model, provider_id=provider)
    except (LookupError, ValueError):
        return None
    return price.total_price
