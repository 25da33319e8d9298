"""How figures are written in a report's sentences."""

from __future__ import annotations

import math
from decimal import Decimal

_LEAST_SHARE = 5e-4
"""A share below this would be written as none, and one as far below 1 as all."""

_SMALL = 0.01
"""Costs below this are said per 1,000 queries, so that they can be read."""


def format_quality(value: float) -> str:
    """Return a quality in [0, 1]."""
    return f"{value:.3f}"


def format_signed(value: float) -> str:
    """Return a difference of qualities or of utilities."""
    text = f"{value:+.3f}"
    return "0.000" if text in ("+0.000", "-0.000") else text


def format_interval(interval: tuple[float, float]) -> str:
    """Return the 95 % interval of a difference."""
    return f"95 % interval {format_signed(interval[0])} to {format_signed(interval[1])}"


def format_percent(share: float) -> str:
    """Return a share; in tenths of a percent where it is small or nearly all."""
    if 0 < share < _LEAST_SHARE:
        return "under 0.1 %"
    if 1 - _LEAST_SHARE < share < 1:
        return "over 99.9 %"
    digits = 1 if 0 < share < 0.1 or 0.9 < share < 1 else 0  # noqa: PLR2004
    return f"{share * 100:.{digits}f} %"


def format_change(share: float) -> str:
    """Return a change as a share, with its sign; without one where it rounds to none."""
    text = f"{share * 100:+.0f} %"
    return "0 %" if text in ("+0 %", "-0 %") else text


def format_number(number: int, noun: str, many: str | None = None) -> str:
    """Return a number of things: 1 query, 2 queries."""
    return f"{number:,} {noun if number == 1 else many or f'{noun}s'}"


def format_money(cost: float, currency: str | None) -> str:
    """Return a mean cost per query, with its unit; per 1,000 queries where it is small."""
    unit = f" {currency}" if currency else ""
    if 0 < abs(cost) < _SMALL:
        return f"{_without_exponent(cost * 1000)}{unit} per 1,000 queries"
    return f"{_without_exponent(cost)}{unit} a query"


def _without_exponent(cost: float) -> str:
    """Return a cost with three digits, never as 1e-05."""
    return f"{Decimal(f'{cost:.3g}'):,f}"


def describe_gain(gain: float, cost_weight: float, cost: float, currency: str | None) -> str:
    """Return what a gain in utility is worth: in quality, and in money.

    Not in money where quality has no price, or where no more than `cost` is spent at present:
    nothing costs less than nothing.
    """
    text = f"as good as {format_signed(gain)} of quality at the same cost"
    if 0 < gain <= cost_weight * cost:
        text += f", or as {format_money(gain / cost_weight, currency)} less at the same quality"
    return text


_MINUTE, _HOUR = 60, 3600
_THOUSAND, _MILLION = 1_000, 1_000_000


def format_amount(value: float, currency: str) -> str:
    """Return a cost with its currency: two digits that count, at least."""
    if currency != "USD":
        return format_duration(value)
    if value == 0:
        return "$0"
    if value < 1:  # rounded first, for 0.00999 has three zeros, and 0.010 two
        value = float(f"{value:.2g}")
    digits = 2 if value >= 1 else 1 - math.floor(math.log10(value))
    return f"${value:,.{digits}f}"


def format_duration(seconds: float) -> str:
    """Return seconds, in the unit that suits."""
    if seconds >= _HOUR:
        return f"{seconds / _HOUR:.1f} h"
    if seconds >= _MINUTE:
        return f"{seconds / _MINUTE:.1f} min"
    return f"{seconds:.2g} s" if 0 < seconds < 1 else f"{seconds:.1f} s"


def format_count(number: int) -> str:
    """Return a number of tokens, short."""
    if number >= 10 * _MILLION:
        return f"{number / _MILLION:,.0f}M"
    if number >= _MILLION:
        return f"{number / _MILLION:.1f}M"
    if number >= 10 * _THOUSAND:
        return f"{number / _THOUSAND:.0f}k"
    return f"{number:,}"


def format_range(low: str, high: str) -> str:
    """Return a range of two amounts; one of them where they read the same."""
    return low if low == high else f"{low} to {high}"


def pluralize(number: int, what: str) -> str:
    """Return a number with what is counted."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
