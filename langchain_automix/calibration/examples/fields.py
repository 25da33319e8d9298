"""The fields of an example: their names in a user's data, and the forms of their values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import (
    BaseMessage,
    HumanMessage,
    convert_to_messages,
    convert_to_openai_messages,
)

from langchain_automix.calibration.examples.containers import (
    UNANSWERABLE,
    answers_in,
    is_conversation,
    last_answer,
    message_text,
)
from langchain_automix.errors import AutoMixError, near_matches
from langchain_automix.models.messages import context_text
from langchain_automix.utils.plain_values import to_plain

FIELD_NAMES: Mapping[str, tuple[str, ...]] = {
    "id": ("id",),
    "question": ("question", "query", "input"),
    "context": ("context",),
    "references": ("references", "reference", "answer", "answers", "output", "expected"),
    "messages": ("messages",),
    "prompt": ("prompt",),
    "metadata": ("metadata",),
}
"""Keys from which each field of an example is read, unless the user names another key. The field's
own name comes first."""


class FieldMapping:
    """Maps the keys of a user's data to the fields of an example.

    Args:
        names: Your own key for a field; the field is then read from this key only.

    Attributes:
        names: The user's own keys, by field.
        field_of: The field for each key.
        keys: All keys of the rows read so far, in order.

    Raises:
        AutoMixError: A field is not one of `FIELD_NAMES`, or a key is given for two fields.
    """

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        self.names = dict(names or {})
        self._unseen = set(self.names)
        for field in self.names.keys() - FIELD_NAMES.keys():
            raise AutoMixError(f"names: there is no field {field!r}; there are {[*FIELD_NAMES]}.")
        own = {key: field for field, key in self.names.items()}
        if len(own) < len(self.names):
            raise AutoMixError("names: one key is given for two fields.")
        usual = {key: f for f, keys in FIELD_NAMES.items() if f not in self.names for key in keys}
        self.field_of = {**usual, **own}
        self.keys: dict[str, None] = {}

    def fields(self, row: Mapping[Any, Any]) -> dict[str, Any]:
        """Return the fields of one example; all other values are added to its metadata.

        Raises:
            ValueError: A field is given twice.
        """
        self._unseen -= {field for field, key in self.names.items() if key in row}
        self.keys.update(dict.fromkeys(map(str, row)))
        fields: dict[str, Any] = {}
        key_of: dict[str, str] = {}
        rest: dict[str, Any] = {}
        for key, cell in row.items():
            if is_absent(value := to_plain(cell)):
                continue
            field = self.field_of.get(key)
            if field is None:
                rest[str(key)] = value
            elif field in fields:
                raise ValueError(
                    f"field {field}: both {key_of[field]!r} and {key!r} hold it; say which "
                    f"with names={{{field!r}: ...}}, --{field} NAME."
                )
            else:
                fields[field], key_of[field] = value, key
        if not rest:
            return fields
        # SQuAD 2 marks a question that cannot be answered like this, in a file or in a table.
        if rest.get("is_impossible") in (True, "True", "true") and not fields.get("references"):
            fields["references"] = UNANSWERABLE
        metadata = fields.get("metadata", {})
        if not isinstance(metadata, Mapping):
            raise ValueError(  # noqa: TRY004  (reported as a problem of the field)
                f"field metadata: an object is needed, not {describe_type(metadata)}."
            )
        if repeated := sorted(metadata.keys() & rest.keys()):
            raise ValueError(f"field metadata: {repeated[0]!r} is both in it and beside it.")
        return {**fields, "metadata": {**rest, **metadata}}

    def reference_key(self, outputs: Mapping[str, Any]) -> str | None:
        """Return the key of the output that is the accepted answer; None if this is not clear.

        It is the only output, or the only one with a name such as `answer`.
        """
        known = [key for key in outputs if self.field_of.get(key) == "references"]
        if len(known) == 1:
            return known[0]
        return next(iter(outputs)) if len(outputs) == 1 and "references" not in self.names else None

    def check(self) -> None:
        """Check that each of the user's own names occurred in an example.

        Raises:
            AutoMixError: A name did not occur.
        """
        if self._unseen:
            field = min(self._unseen)
            key = self.names[field]
            raise AutoMixError(
                f"names: no example has {key!r}, which is named for its {field}."
                f"{near_matches(key, self.keys)} They have: {', '.join(self.keys)}."
            )


def is_absent(value: Any) -> bool:
    """Return whether a value is missing: None, or the content of an empty cell in a data frame."""
    if value is None or type(value).__name__ in {"NAType", "NaTType"}:
        return True
    return isinstance(value, float) and value != value  # noqa: PLR0124  (NaN)


def read_references(value: Any) -> tuple[str, ...]:
    """Return the accepted answers, one or a list of them, as texts without duplicates.

    A number or a boolean becomes its JSON text, a message its text, a conversation the text of its
    last answer, an object of a known form its answers (`answers_in`), and any other object its JSON
    text. An empty text means that there is no accepted answer.

    Raises:
        ValueError: One of several answers is empty or a list, or a conversation has no answer.
    """
    value = to_plain(value)
    if is_absent(value) or (isinstance(value, str) and not value.strip()):
        return ()
    if isinstance(value, Mapping):
        value = answers_in(value)
    if is_conversation(value):
        value = last_answer(value)
    several = value if isinstance(value, list | tuple) else [value]
    return tuple(dict.fromkeys(map(_reference, several)))


def _reference(value: Any) -> str:
    if isinstance(value, Mapping):
        value = answers_in(value)
    text = message_text(value)
    if text is not None:
        value = text
    elif isinstance(value, list | tuple):
        raise ValueError("an accepted answer is a list; give a text (or JSON as a text)")
    elif isinstance(value, float) and value.is_integer():
        value = int(value)  # a data frame with empty cells stores whole numbers as floats
    if not isinstance(value, str):
        try:
            return json.dumps(value, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            kind = describe_type(value)
            raise ValueError(f"{kind} is neither a text nor JSON: {error}") from error
    if not value.strip():
        raise ValueError("one of the accepted answers is empty")
    return value


def read_context(value: Any) -> str | None:
    """Return a context, given as a text or as a list of texts and documents, as one text.

    Raises:
        ValueError: The context is of another type.
    """
    value = to_plain(value)
    if is_absent(value):
        return None
    if isinstance(value, str | Document | Mapping):
        value = [value]
    if not isinstance(value, list | tuple):
        raise ValueError(f"a text or a list of documents is needed, not {describe_type(value)}")  # noqa: TRY004
    parts = [
        p["page_content"] if isinstance(p, Mapping) and "page_content" in p else p for p in value
    ]
    for part in parts:
        if not isinstance(part, str | Document):
            raise ValueError(  # noqa: TRY004
                f"a document is {describe_type(part)}; give a text or its `page_content`"
            )
    text = context_text(parts)
    return text if text and text.strip() else None


def read_messages(value: Any) -> tuple[Mapping[str, Any], ...]:
    """Return messages of any form that LangChain reads as mappings with `role` and `content`.

    Raises:
        ValueError: LangChain cannot read the messages.
    """
    value = to_plain(value)
    if is_absent(value):
        return ()
    if not isinstance(value, list | tuple):
        raise ValueError(f"a list of messages is needed, not {describe_type(value)}")  # noqa: TRY004
    # Keep messages that are already in this form unchanged, so that nothing is lost.
    return tuple(
        message
        if isinstance(message, Mapping) and "role" in message
        else convert_to_openai_messages([converted])[0]
        for message, converted in zip(value, _convert(value), strict=True)
    )


def read_question(messages: Sequence[Mapping[str, Any]]) -> tuple[str, Sequence[Mapping[str, Any]]]:
    """Return the question at the end of a conversation, and the messages before it.

    Raises:
        ValueError: The conversation does not end with a question in text.
    """
    last = _convert(messages)[-1]
    if not isinstance(last, HumanMessage):
        raise ValueError(  # noqa: TRY004  (reported as a problem of the field)
            "the last message is not the user's; give what was asked last, and an accepted "
            "answer to it as references"
        )
    if not isinstance(last.content, str) and any(
        isinstance(block, Mapping) and block.get("type") != "text" for block in last.content
    ):
        raise ValueError("the last message holds more than text; give the question in words too")
    return str(last.text), messages[:-1]


def _convert(messages: Iterable[Any]) -> list[BaseMessage]:
    try:
        return convert_to_messages(list(messages))
    except (ValueError, NotImplementedError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(f"LangChain cannot read the messages: {reason}") from error


def to_json_value(value: Any) -> Any:
    """Return a value as JSON data: numpy numbers as numbers, times and other objects as text.

    Raises:
        ValueError: The value contains something that JSON cannot represent, such as NaN.
    """
    try:
        return json.loads(json.dumps(value, default=to_json_default, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"it cannot be written as JSON: {error}") from error


def to_json_default(value: Any) -> Any:
    """Return a numpy or pandas value as JSON data; anything else as text."""
    if is_absent(value):
        return None
    plain = to_plain(value)
    return str(value) if plain is value else plain


def describe_type(value: Any) -> str:
    """Return the type of a value in words, for error messages."""
    name = "truth value" if isinstance(value, bool) else type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
