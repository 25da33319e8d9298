"""Tokens to money. What is not known stays unknown: None, never 0."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from langchain_automix.types import ModelCall

CURRENCY = "USD"
_A_MILLION = 1_000_000

# LangChain's names of providers that the price list calls otherwise.
_PROVIDERS = {"google_genai": "google", "google_vertexai": "google", "mistralai": "mistral"}


def cost_of(calls: Iterable[ModelCall]) -> Decimal | None:
    """Return what requests cost, in US dollars; None as soon as one of them is unknown.

    Prices come from `genai-prices` (the extra `prices`), offline; without it, or for a model
    that it does not list, the price is unknown.
    """
    total = Decimal(0)
    for call in calls:
        cost = _call_cost(call)
        if cost is None:
            return None
        total += cost
    return total


def token_prices(model: str, provider: str | None) -> tuple[Decimal, Decimal] | None:
    """Return the dollar prices of a million input and output tokens; None if unknown."""
    call = ModelCall(model=model, provider=provider)
    price_in = _price(call, {"input_tokens": _A_MILLION, "output_tokens": 0})
    price_out = _price(call, {"input_tokens": 0, "output_tokens": _A_MILLION})
    return None if price_in is None or price_out is None else (price_in, price_out)


def _call_cost(call: ModelCall) -> Decimal | None:
    if call.usage is None:
        return None
    if call.usage.get("total_cost") == 0:  # LangChain's mark of an answer from its cache
        return Decimal(0)
    read = call.usage.get("input_token_details") or {}
    written = call.usage.get("output_token_details") or {}
    tokens = {
        "input_tokens": call.usage["input_tokens"],
        "output_tokens": call.usage["output_tokens"],
        "cache_read_tokens": read.get("cache_read"),
        "cache_write_tokens": read.get("cache_creation"),
        "input_audio_tokens": read.get("audio"),
        "output_audio_tokens": written.get("audio"),
    }
    return _price(call, tokens)


def _price(call: ModelCall, tokens: Mapping[str, int | None]) -> Decimal | None:
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
