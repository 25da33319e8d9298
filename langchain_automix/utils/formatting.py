"""Format numbers as text: qualities, shares, money, durations and counts."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal

_NEGLIGIBLE_SHARE = 5e-4
"""A smaller share would be rounded to none; one this close to 1 would be rounded to all."""

_SMALL_COST = 0.01
"""Costs below this are stated per 1,000 queries, to be readable."""

_MINUTE, _HOUR = 60, 3600
_THOUSAND, _MILLION = 1_000, 1_000_000


def format_quality(quality: float | None, interval: tuple[float, float] | None = None) -> str:
    """Format a quality in [0, 1], with its interval if there is one."""
    if quality is None:
        return "unknown"
    ends = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    return f"{quality:.3f}{ends}"


def format_signed(
    difference: float | None, interval: tuple[float, float] | None = None, *, digits: int = 3
) -> str:
    """Format a difference with its sign, and with its interval if any; zero has no sign."""
    if difference is None:
        return "unknown"
    text = f"{difference:+.{digits}f}"
    text = text if float(text) else text[1:]
    return f"{text} ({format_signed_range(interval, digits)})" if interval else text


def format_signed_range(interval: tuple[float, float], digits: int = 3) -> str:
    """Format the interval of a difference."""
    return " to ".join(format_signed(end, digits=digits) for end in interval)


def format_interval(interval: tuple[float, float]) -> str:
    """Format the 95 % interval of a difference, labelled as such."""
    return f"95 % interval {format_signed_range(interval)}"


def format_percent(share: float) -> str:
    """Format a share for a sentence; small or nearly complete shares get a decimal."""
    if 0 < share < _NEGLIGIBLE_SHARE:
        return "under 0.1 %"
    if 1 - _NEGLIGIBLE_SHARE < share < 1:
        return "over 99.9 %"
    digits = 1 if 0 < share < 0.1 or 0.9 < share < 1 else 0  # noqa: PLR2004
    return f"{share * 100:.{digits}f} %"


def format_share(share: float | None) -> str:
    """Format a share for a table, always with the same number of digits."""
    return "unknown" if share is None else f"{share:.1%}"


def format_change(share: float) -> str:
    """Format a relative change with its sign; without a sign if it rounds to zero."""
    text = f"{share * 100:+.0f} %"
    return "0 %" if text in ("+0 %", "-0 %") else text


def pluralize(number: int, noun: str, plural: str | None = None) -> str:
    """Format a number of things: 1 query, 2 queries."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def format_cost(cost: float | None, currency: str | None = None) -> str:
    """Format a cost with three significant digits and its unit, never as 1e-05."""
    if cost is None:
        return "unknown"
    return f"{Decimal(f'{cost:.3g}'):,f}{f' {currency}' if currency else ''}"


def format_query_cost(cost: float, currency: str | None) -> str:
    """Format a mean cost per query, or per 1,000 queries if it is small."""
    if 0 < abs(cost) < _SMALL_COST:
        return f"{format_cost(cost * 1000, currency)} per 1,000 queries"
    return f"{format_cost(cost, currency)} a query"


def describe_gain(gain: float, cost_weight: float, cost: float, currency: str | None) -> str:
    """Describe what a gain in utility is worth, in quality and in money.

    Money is left out if quality has no price, or if the gain exceeds the present `cost`, since a
    cost cannot become negative.
    """
    text = f"as good as {format_signed(gain)} of quality at the same cost"
    if 0 < gain <= cost_weight * cost:
        saved = format_query_cost(gain / cost_weight, currency)
        text += f", or as {saved} less at the same quality"
    return text


def format_amount(value: float, currency: str) -> str:
    """Format an amount spent: dollars with at least two significant digits, or seconds."""
    if currency != "USD":
        return format_duration(value)
    if value == 0:
        return "$0"
    if value < 1:  # round first, since 0.00999 has three zeros, and 0.010 two
        value = float(f"{value:.2g}")
    digits = 2 if value >= 1 else 1 - math.floor(math.log10(value))
    return f"${value:,.{digits}f}"


def format_duration(seconds: float) -> str:
    """Format seconds in a suitable unit."""
    if seconds >= _HOUR:
        return f"{seconds / _HOUR:.1f} h"
    if seconds >= _MINUTE:
        return f"{seconds / _MINUTE:.1f} min"
    return f"{seconds:.2g} s" if 0 < seconds < 1 else f"{seconds:.1f} s"


def format_time(seconds: float) -> str:
    """Format a time in seconds since 1970 to the minute, in UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def format_points(quality: float) -> str:
    """Format a difference in quality in points of 0.01."""
    text = f"{100 * quality:.1f}".removesuffix(".0")
    text = text if float(text) else "0"
    return f"{text} point" if text == "1" else f"{text} points"


def format_count(number: int) -> str:
    """Format a number of tokens, abbreviated."""
    if number >= 10 * _MILLION:
        return f"{number / _MILLION:,.0f}M"
    if number >= _MILLION:
        return f"{number / _MILLION:.1f}M"
    if number >= 10 * _THOUSAND:
        return f"{number / _THOUSAND:.0f}k"
    return f"{number:,}"


def format_range(low: str, high: str) -> str:
    """Join the ends of a range, or return one of them if both read the same."""
    return low if low == high else f"{low} to {high}"
