"""`explain`: describe one decision in words and text bars."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage

from langchain_automix.errors import AutoMixError
from langchain_automix.models.prices import dollars_of, format_dollars
from langchain_automix.utils.formatting import pluralize

_WIDTH = 24
_LINE = 78
_LONGEST_NAME = 36
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_NEEDED = {"action", "cost", "escalated", "model", "verdicts", "why"}


def explain(message: AIMessage | Mapping[str, Any]) -> str:
    """Explain how a query was decided: who answered, what checks found, what options were worth.

    Args:
        message: The answer of a mix, or its record (`response_metadata["automix"]`), or what
            `automix ask --json` printed.

    Returns:
        A few lines of text, with a bar for the expected quality of each model and one for the value
        of each option.

    Raises:
        AutoMixError: The message contains no record.

    ??? example "Why was the large model asked?"

        ```python
        from langchain_automix import explain

        print(explain(automix.invoke("Where was the Halcyon built?")))
        ```
    """
    if isinstance(message, AIMessage):
        message = message.response_metadata.get("automix") or {}
    if isinstance(message, Mapping):
        message = message.get("automix", message)
    if not isinstance(message, Mapping) or not message.keys() >= _NEEDED:
        raise AutoMixError(
            "There is no record to explain: give the message that a mix returned, before a parser "
            "takes its text (its record is in response_metadata['automix'])."
        )
    lines = [_headline(message), *_wrapped(message["why"])]
    degraded = message.get("degraded") or ""
    lines += _wrapped("" if degraded in message["why"] else degraded)
    lines += _bars("Expected quality", message.get("belief") or {}, floor=0.0)
    lines += _bars("Value of each option", message.get("values") or {}, floor=None)
    return "\n".join([*lines, *_bill(message)])


def _headline(record: Mapping[str, Any]) -> str:
    if record["action"] == "abstain":
        return "No answer was given."
    how = "after an escalation" if record["escalated"] else "without an escalation"
    return f"The answer of {record['model']} was kept, {how}."


def _wrapped(text: str) -> list[str]:
    if not text:
        return []
    indent = "  "
    return ["", *textwrap.wrap(text, _LINE, initial_indent=indent, subsequent_indent=indent)]


def _bars(title: str, values: Mapping[str, float], *, floor: float | None) -> list[str]:
    """Draw numbers as bars that start at `floor`, or at the lowest number if that is below 0."""
    if not values:
        return []
    low = min(0.0, *values.values()) if floor is None else floor
    high = max(1.0, *values.values()) if floor is not None else max(low, *values.values())
    longest = min(_LONGEST_NAME, max(len(name) for name in values))
    best = max(values.values())
    lines = ["", f"{title}  (< the highest)" if len(values) > 1 else title]
    for name, value in values.items():
        mark = " <" if value == best and len(values) > 1 else ""
        bar = _bar((value - low) / (high - low) if high > low else 0.0)
        lines.append(f"  {_short(name):<{longest}}  {value:6.3f}  {bar}{mark}".rstrip())
    return lines


def _short(name: str) -> str:
    """Shorten a name in the middle, since models differ at both ends of their names."""
    if len(name) <= _LONGEST_NAME:
        return name
    half = (_LONGEST_NAME - 1) // 2
    return f"{name[: _LONGEST_NAME - 1 - half]}…{name[-half:]}"


def _bar(share: float) -> str:
    eighths = round(max(0.0, min(1.0, share)) * _WIDTH * 8)
    whole, part = divmod(eighths, 8)
    return ("█" * whole + _EIGHTHS[part]).rstrip()


def _bill(record: Mapping[str, Any]) -> list[str]:
    lines = _checks(record)
    unpriced = ", ".join(record.get("unpriced") or ())
    lines.append(
        f"Cost       {record['cost'] or f'unknown: no price, or no tokens, of {unpriced}'}"
    )
    for draft in record.get("given_up") or ():
        price = draft["price_of_tokens"] or "unknown"
        tokens = pluralize(draft["tokens"], "token")
        lines.append(f"           {draft['model']} given up after {tokens}, whose price is {price}")
    for name, alone in (record.get("alone") or {}).items():
        about = "about " if alone["estimate"] else ""
        cost = "unknown" if alone["cost"] is None else f"{about}{alone['cost']}"
        lines.append(f"           {name} alone: {cost}")
    return ["", *lines, *_saving(record)]


def _checks(record: Mapping[str, Any]) -> list[str]:
    """Return a line for each check; for older records, one line for the verdicts."""
    named = [check for check in record.get("checks") or () if check["check"] is not None]
    if not named:
        drawn = _signs(record["verdicts"])
        return [f"Verdicts   {drawn}  {_LEGEND}"] if drawn else []
    lines: list[str] = []
    for check in named:
        head = "           " if lines else "Checks     "
        found = "nothing" if check["confidence"] is None else f"{check['confidence']:.2f}"
        drawn = _signs(check["verdicts"])
        told = f"{drawn}  {_LEGEND}" if drawn else found
        lines.append(f"{head}{check['check']} of {check['model']}: {told}")
    return lines


_LEGEND = "(+ accepts, - rejects, ? invalid)"


def _signs(verdicts: Sequence[bool | None]) -> str:
    signs = {True: "+", False: "-", None: "?"}
    return "".join(signs[verdict] for verdict in verdicts)


def _saving(record: Mapping[str, Any]) -> list[str]:
    """Return what the query saved or lost compared with the largest model alone."""
    if not record.get("saved") or not record.get("alone"):
        return []
    saved = dollars_of(record["saved"])
    if not saved:
        return []
    head = "Saved      " if saved > 0 else "Lost       "
    about = "about " if record.get("saved_is_estimate") else ""
    largest = [*record["alone"]][-1]
    return [f"{head}{about}{format_dollars(abs(saved))} against {largest} alone"]
