"""Quote untrusted text in a check, so that it cannot pass for a part of the check.

A draft, a document or a message may contain special tokens of a chat template (which many servers
obey even inside text), lines that only a check writes, or a check's verdict. Nothing is removed:
the model sees all of it, clearly as text.
"""

from __future__ import annotations

import functools
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from langchain_core.messages import BaseMessage

from langchain_automix.utils.text import MARK, as_read, break_template_marks
from langchain_automix.verifiers.prompting.wording import Wording

Quoting = Literal["plain", "json"]
"""How context, question and answer are quoted. `plain`: as they are, except for special tokens of
chat templates and lines that only a check writes. `json`: as JSON strings, which no text can close
from inside, followed by a reminder that they are data."""

_BASE64 = re.compile(r"(?:data:[\w/+.-]*;base64,)?[A-Za-z0-9+/=]{1000,}")
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def plain(text: str, wording: Wording) -> str:
    """Return a text in which special tokens of chat templates are broken and check lines quoted.

    Special tokens get a space after their first character. Lines that only a check writes get a
    leading `> `, so that a reply which repeats them contains no verdict.
    """
    text = break_template_marks(text)
    words = _check_words(wording)
    return _quote_lines(text, lambda line: words.match(line) or words.begins_a_part(line))


def as_json(text: str) -> str:
    r"""Return a text as a JSON string on one line, for `json.loads`.

    Invisible characters (zero-width ones, direction marks, line ends) and the first character of a
    special token are written as `\uXXXX`.
    """
    encoded = MARK.sub(lambda mark: _escape(mark[0]), json.dumps(text, ensure_ascii=False))
    return "".join(_escape(c) if unicodedata.category(c) in _INVISIBLE else c for c in encoded)


def can_be_taken_for_a_check(messages: Iterable[BaseMessage], wording: Wording) -> bool:
    """Whether messages contain special tokens of a chat template or lines that only a check writes.

    It reads more than their text, since a template also renders tool calls with their arguments and
    results, names, reasoning and documents. Lines that begin a question or a context are ignored:
    here they are the user's own, since a check that continues the conversation has no such lines.
    """
    words = _check_words(wording)
    return any(
        break_template_marks(text) != text or any(map(words.match, as_read(text).split("\n")))
        for message in messages
        for text in all_texts(message)
    )


def all_texts(message: BaseMessage) -> Iterator[str]:
    """Yield every text in a message that a chat template may show to the model."""
    parts: list[Any] = [message.content, message.name, message.additional_kwargs]
    fields = ("tool_calls", "invalid_tool_calls", "tool_call_id")
    parts += [getattr(message, field, None) for field in fields]
    while parts:
        part = parts.pop()
        if isinstance(part, str):
            if not _BASE64.fullmatch(part):  # an image is not text, and may be megabytes long
                yield part
        elif isinstance(part, Mapping):
            parts += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple):
            parts += part


def _quote_lines(text: str, is_quoted: Callable[[str], object]) -> str:
    """Return a text with `> ` before each line whose folded form is to be quoted."""
    lines, read = text.splitlines(keepends=True), as_read(text).split("\n")
    return "".join(
        f"> {line}" if is_quoted(as_it_is_read) else line
        for line, as_it_is_read in zip(lines, read, strict=False)
    )


def _escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(rf"\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


class _CheckWords(NamedTuple):
    """The words by which to recognise a line that only a check writes."""

    label: str
    verdicts: tuple[str, ...]
    begins: re.Pattern[str]
    part: re.Pattern[str]

    def begins_a_part(self, line: str) -> bool:
        """Whether a line begins a context or a question in the form that a check uses."""
        return self.part.match(line) is not None

    def match(self, line: str) -> bool:
        # Match a verdict anywhere after the first label, since a model may tidy what it repeats.
        at = line.find(self.label)
        rest = line[at + len(self.label) :] if at >= 0 else ""
        is_verdict = at >= 0 and any(word in rest for word in self.verdicts)
        return is_verdict or self.begins.match(line) is not None


@functools.lru_cache(maxsize=32)
def _check_words(wording: Wording) -> _CheckWords:
    label, accept, reject, answer, ask = (
        as_read(text).strip()
        for text in (wording.label, wording.accept, wording.reject, wording.answer, wording.ask)
    )
    ask = re.sub(r"^\W+", "", ask) or ask  # the opening mark of a Spanish question may be missing
    begins = rf"[^\w\n]*(?:{re.escape(answer)}\s?:|{re.escape(ask)})"
    parts = "|".join(
        re.escape(as_read(word).strip()) for word in (wording.context, wording.question)
    )
    part = rf"[^\w\n>]*(?:{parts})[\s*_]{{0,4}}:"
    return _CheckWords(label, (accept, reject), re.compile(begins), re.compile(part))
