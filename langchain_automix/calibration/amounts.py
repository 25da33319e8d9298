"""Amounts as people read them."""

from __future__ import annotations

import math

_MINUTE, _HOUR = 60, 3600
_THOUSAND, _MILLION = 1_000, 1_000_000


def amount(value: float, currency: str) -> str:
    """Return a cost with its currency: two digits that count, at least."""
    if currency != "USD":
        return duration(value)
    if value == 0:
        return "$0"
    if value < 1:  # rounded first, for 0.00999 has three zeros, and 0.010 two
        value = float(f"{value:.2g}")
    digits = 2 if value >= 1 else 1 - math.floor(math.log10(value))
    return f"${value:,.{digits}f}"


def duration(seconds: float) -> str:
    """Return seconds, in the unit that suits."""
    if seconds >= _HOUR:
        return f"{seconds / _HOUR:.1f} h"
    if seconds >= _MINUTE:
        return f"{seconds / _MINUTE:.1f} min"
    return f"{seconds:.2g} s" if 0 < seconds < 1 else f"{seconds:.1f} s"


def count(number: int) -> str:
    """Return a number of tokens, short."""
    if number >= 10 * _MILLION:
        return f"{number / _MILLION:,.0f}M"
    if number >= _MILLION:
        return f"{number / _MILLION:.1f}M"
    if number >= 10 * _THOUSAND:
        return f"{number / _THOUSAND:.0f}k"
    return f"{number:,}"


def between(low: str, high: str) -> str:
    """Return a range of two amounts; one of them where they read the same."""
    return low if low == high else f"{low} to {high}"


def plural(number: int, what: str) -> str:
    """Return a number with what is counted."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
