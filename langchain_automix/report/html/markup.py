"""HTML that is escaped unless it was made here, and figures as text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from html import escape

from langchain_automix.report.contents import Interval

_NOT_TEXT = re.compile("[\ud800-\udfff\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""Lone surrogates, which no file can hold, and controls, which HTML forbids."""


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(raw: str) -> Html:
    """Return a text as HTML; what is HTML stays as it is."""
    return raw if isinstance(raw, Html) else Html(escape(_NOT_TEXT.sub("\ufffd", raw)))


def joined(parts: Iterable[str]) -> Html:
    """Return parts one after the other, escaped where they are plain text."""
    return Html("".join(map(text, parts)))


def element(name: str, *children: str, **attributes: str | None) -> Html:
    """Return an element; children and values of attributes are escaped.

    Attributes are written as in Python: `class_`, `aria_label`; one that is None is left out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{written}>{joined(children)}</{name}>")


def table(heads: Iterable[str], rows: Iterable[Iterable[str]], caption: str) -> Html:
    """Return a table that scrolls within itself; the first cell of a row is its heading."""
    heads = tuple(heads)
    head = element(
        "tr", *(element("th", each, scope="col", role="columnheader") for each in heads), role="row"
    )
    body = []
    for first, *others in rows:
        cells = (
            element("td", each, role="cell", data_name=name)
            for name, each in zip(heads[1:], others, strict=True)
        )
        heading = element("th", first, scope="row", role="rowheader", dir="auto")
        body.append(element("tr", heading, *cells, role="row"))
    # The roles are said, because a narrow screen shows rows as blocks, which would lose them.
    whole = element(
        "table",
        element("caption", caption, class_="unseen"),
        element("thead", head, role="rowgroup"),
        element("tbody", *body, role="rowgroup"),
        role="table",
    )
    # It can be scrolled, so the keyboard must reach it.
    return element("div", whole, class_="scrolls", tabindex="0", role="region", aria_label=caption)


def cost_text(cost: float | None, currency: str | None = None) -> str:
    """Return a cost with three digits and its unit, never as 1e-05."""
    if cost is None:
        return "unknown"
    short = Decimal(f"{cost:.3g}")
    return f"{short:,f}{f' {currency}' if currency else ''}"


def quality_text(quality: float | None, interval: Interval | None = None) -> str:
    """Return a quality with three decimals, and its interval if there is one."""
    if quality is None:
        return "unknown"
    if interval is None:
        return f"{quality:.3f}"
    return f"{quality:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def signed_text(difference: float | None, interval: Interval | None = None) -> str:
    """Return a difference with its sign, and its interval if there is one."""
    if difference is None:
        return "unknown"
    ends = f" ({_signed(interval[0])} to {_signed(interval[1])})" if interval else ""
    return f"{_signed(difference)}{ends}"


def _signed(value: float) -> str:
    text = f"{value:+.3f}"
    return "0.000" if text in ("+0.000", "-0.000") else text.replace("-", "\u2212")


def share_text(share: float | None) -> str:
    """Return a share in percent."""
    return "unknown" if share is None else f"{share:.1%}"
