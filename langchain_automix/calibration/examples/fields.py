"""What an example's fields may look like in a user's own data, and under which names they stand."""

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

from langchain_automix.errors import AutoMixError
from langchain_automix.models.messages import context_text

FIELD_NAMES: Mapping[str, tuple[str, ...]] = {
    "id": ("id",),
    "question": ("question", "query", "input"),
    "context": ("context",),
    "references": ("references", "reference", "answer", "answers", "output", "expected"),
    "messages": ("messages",),
    "prompt": ("prompt",),
    "metadata": ("metadata",),
}
"""Names under which each field of an example is found, where the user names no other."""


class FieldMapping:
    """Which key of a user's data holds which field.

    Args:
        names: The user's own key for a field; of that field, only this key is read.

    Raises:
        AutoMixError: A field is not one of `FIELD_NAMES`, or a key stands for two fields.
    """

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        self._own = dict(names or {})
        self._unseen = set(self._own)
        for field in self._own.keys() - FIELD_NAMES.keys():
            raise AutoMixError(f"names: there is no field {field!r}; there are {[*FIELD_NAMES]}.")
        if len(set(self._own.values())) < len(self._own):
            raise AutoMixError("names: one key is given for two fields.")
        self._field_of = {
            key: field
            for field, keys in FIELD_NAMES.items()
            for key in ([self._own[field]] if field in self._own else keys)
            if field in self._own or key not in self._own.values()
        }

    def sorted(self, row: Mapping[Any, Any]) -> dict[str, Any]:
        """Return the fields of one example; what is none of them goes into the metadata.

        Raises:
            ValueError: A field stands twice.
        """
        self._unseen -= {field for field, key in self._own.items() if key in row}
        fields: dict[str, Any] = {}
        found_as: dict[str, str] = {}
        rest: dict[str, Any] = {}
        for key, value in row.items():
            if is_absent(value):
                continue
            field = self._field_of.get(key)
            if field is None:
                rest[str(key)] = value
            elif field in fields:
                raise ValueError(
                    f"field {field}: both {found_as[field]!r} and {key!r} hold it; say which "
                    f"with names={{{field!r}: ...}}, --{field} NAME."
                )
            else:
                fields[field], found_as[field] = value, key
        if not rest:
            return fields
        given = fields.get("metadata", {})
        if not isinstance(given, Mapping):
            raise ValueError(f"field metadata: an object is needed, not {describe_type(given)}.")  # noqa: TRY004
        if twice := sorted(given.keys() & rest.keys()):
            raise ValueError(f"field metadata: {twice[0]!r} stands in it and beside it.")
        return {**fields, "metadata": {**rest, **given}}

    def field_of(self, key: str) -> str | None:
        """Return the field that a key stands for; None for any other key."""
        return self._field_of.get(key)

    def key(self, field: str) -> str:
        """Return a key that stands for a field."""
        return self._own.get(field, FIELD_NAMES[field][0])

    def is_named(self, field: str) -> bool:
        """Whether the user names a key for a field."""
        return field in self._own

    def reference_key(self, outputs: Mapping[str, Any]) -> str | None:
        """Return which output of an example is the accepted answer; None where it is not clear.

        The only one there is, or the only one with a name such as `answer`.
        """
        known = [key for key in outputs if self.field_of(key) == "references"]
        if len(known) == 1:
            return known[0]
        only = len(outputs) == 1 and not self.is_named("references")
        return next(iter(outputs)) if only else None

    def check(self) -> None:
        """Say which of the user's keys no example had.

        Raises:
            AutoMixError: There is such a key.
        """
        if self._unseen:
            field = min(self._unseen)
            raise AutoMixError(
                f"names: no example has {self._own[field]!r}, which is named for its {field}."
            )


def is_absent(value: Any) -> bool:
    """Whether a value stands for nothing: None, or what a data frame has in an empty cell."""
    if value is None or type(value).__name__ in {"NAType", "NaTType"}:
        return True
    return isinstance(value, float) and value != value  # noqa: PLR0124  (NaN)


def read_references(value: Any) -> tuple[str, ...]:
    """Return one accepted answer, or a list of them, as texts, each once.

    A number or a truth value becomes its JSON text, a message its words, SQuAD's
    `{"text": [...]}` its texts, any other object its JSON text. An empty text stands for none.

    Raises:
        ValueError: One of several is empty, or is a list.
    """
    if is_absent(value) or (isinstance(value, str) and not value.strip()):
        return ()
    if isinstance(value, Mapping) and isinstance(value.get("text"), list | tuple):
        value = value["text"]
    several = value if isinstance(value, list | tuple) else [value]
    return tuple(dict.fromkeys(map(_reference, several)))


def _reference(value: Any) -> str:
    if isinstance(value, BaseMessage):
        value = str(value.text)
    elif _is_message(value):
        value = value["content"]
    if isinstance(value, list | tuple):
        raise ValueError("an accepted answer is a list; give a text (or JSON as a text)")  # noqa: TRY004
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a data frame has its whole numbers so, beside an empty cell
    text = value if isinstance(value, str) else _json(value)
    if not text.strip():
        raise ValueError("one of the accepted answers is empty")
    return text


def _is_message(value: Any) -> bool:
    if not isinstance(value, Mapping) or not isinstance(value.get("content"), str):
        return False
    return bool({"role", "type"} & value.keys())


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{describe_type(value)} is neither a text nor JSON: {error}") from error


def read_context(value: Any) -> str | None:
    """Return a context as one text: a text, or a list of texts and documents.

    Raises:
        ValueError: It is something else.
    """
    if is_absent(value):
        return None
    if isinstance(value, str | Document) or _is_document(value):
        value = [value]
    if not isinstance(value, list | tuple):
        raise ValueError(f"a text or a list of documents is needed, not {describe_type(value)}")  # noqa: TRY004
    texts: list[str | Document] = []
    for part in value:
        if _is_document(part):
            texts.append(str(part["page_content"]))
        elif isinstance(part, str | Document):
            texts.append(part)
        else:
            raise ValueError(
                f"a document is {describe_type(part)}; give a text or its `page_content`"
            )
    text = context_text(texts)
    return text if text and text.strip() else None


def _is_document(value: Any) -> bool:
    return isinstance(value, Mapping) and "page_content" in value


def read_messages(value: Any) -> tuple[Mapping[str, Any], ...]:
    """Return messages, in any form that LangChain reads, as mappings with `role` and `content`.

    Raises:
        ValueError: LangChain cannot read them.
    """
    if is_absent(value):
        return ()
    if not isinstance(value, list | tuple):
        raise ValueError(f"a list of messages is needed, not {describe_type(value)}")  # noqa: TRY004
    # As they are, where they have the right form already: nothing is lost on the way.
    return tuple(
        message if isinstance(message, Mapping) and "role" in message else _as_mapping(read)
        for message, read in zip(value, _read(value), strict=True)
    )


def read_question(messages: Sequence[Mapping[str, Any]]) -> tuple[str, Sequence[Mapping[str, Any]]]:
    """Return the question that a conversation ends with, and what was said before it.

    Raises:
        ValueError: It does not end with a question in words.
    """
    read = _read(messages)
    if not isinstance(read[-1], HumanMessage):
        raise ValueError(  # noqa: TRY004  (pydantic takes these as the field's problem)
            "the last message is not the user's; give what was asked last, and an accepted "
            "answer to it as references"
        )
    content = read[-1].content
    if not isinstance(content, str) and any(
        isinstance(block, Mapping) and block.get("type") != "text" for block in content
    ):
        raise ValueError("the last message holds more than text; give the question in words, too")
    return str(read[-1].text), messages[:-1]


def _read(messages: Iterable[Any]) -> list[BaseMessage]:
    try:
        return convert_to_messages(list(messages))
    except (ValueError, NotImplementedError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(f"LangChain cannot read the messages: {reason}") from error


def _as_mapping(message: BaseMessage) -> Mapping[str, Any]:
    [mapping] = convert_to_openai_messages([message])
    return mapping


def to_json_value(value: Any) -> Any:
    """Return a value as JSON has it: numbers of numpy as numbers, times and the like as texts.

    Raises:
        ValueError: It holds a number that JSON does not have.
    """
    try:
        return json.loads(json.dumps(value, default=to_json_default, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"it cannot be written as JSON: {error}") from error


def to_json_default(value: Any) -> Any:
    """Return what numpy and pandas hold in a form that JSON has; a text, of anything else."""
    if is_absent(value):
        return None
    as_list = getattr(value, "tolist", None)
    return as_list() if callable(as_list) else str(value)


def describe_type(value: Any) -> str:
    """Return what a value is, for a message."""
    name = "truth value" if isinstance(value, bool) else type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
