"""Text from elsewhere on a terminal, where a name or an answer could hold commands to it."""

from __future__ import annotations

import re

# All control characters but line ends and tabs, marks of direction, and halves of pairs.
_COMMANDS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"
    "\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Return a text with what a terminal would obey written out, such as `\x1b`."""
    return _COMMANDS.sub(lambda found: ascii(found[0])[1:-1], text)


def shown(text: str) -> str:
    """Return a text as rich's markup that shows it as it is, nothing in it obeyed."""
    from rich.markup import escape  # noqa: PLC0415  (the command line works without rich)

    return escape(printable(text))
