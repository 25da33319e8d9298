"""Examples to calibrate on: a user's own questions, from wherever they keep them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from typing_extensions import override

from langchain_automix.calibration.examples.fields import (
    FIELD_NAMES,
    FieldMapping,
    describe_type,
    read_context,
    read_messages,
    read_question,
    read_references,
    to_json_value,
)
from langchain_automix.calibration.examples.sources import FirstOf, Source, source_of
from langchain_automix.errors import AutoMixError, first_problem

if TYPE_CHECKING:
    from langsmith import Client


_QUESTION_NAMES = " or ".join(f"`{name}`" for name in FIELD_NAMES["question"])


class Example(BaseModel):
    """One question of a user's, with what is known of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(min_length=1)
    question: str = Field(min_length=1)
    """What was asked; what the check reads. If not given, the last of the messages."""

    context: str | None = None
    """What the answer must follow from. Of a list of documents, a paragraph each."""

    references: tuple[str, ...] = ()
    """Accepted answers; empty where none is known."""

    messages: tuple[Mapping[str, Any], ...] = ()
    """What was said before the question, each with `role` and `content`, as
    `langchain_core.messages.convert_to_messages` reads them."""

    prompt: str | None = Field(default=None, min_length=1)
    """The whole text that the models get, in place of what the template makes."""

    metadata: Mapping[str, Any] = Field(default_factory=dict)
    """Anything else, as JSON has it; goes into the log."""

    @model_validator(mode="before")
    @classmethod
    def _with_its_question(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or "question" in data or not data.get("messages"):
            return data
        try:
            question, before = read_question(read_messages(data["messages"]))
        except ValueError as error:
            raise ValueError(f"messages: {error}") from error
        return {**data, "question": question, "messages": before}

    @field_validator("id", mode="before")
    @classmethod
    def _id(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("question", "prompt")
    @classmethod
    def _text(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("it is empty")
        return value

    @field_validator("context", mode="before")
    @classmethod
    def _context(cls, value: Any) -> Any:
        return read_context(value)

    @field_validator("references", mode="before")
    @classmethod
    def _references(cls, value: Any) -> Any:
        return read_references(value)

    @field_validator("messages", mode="before")
    @classmethod
    def _messages(cls, value: Any) -> Any:
        return read_messages(value)

    @field_validator("metadata", mode="before")
    @classmethod
    def _metadata(cls, value: Any) -> Any:
        return to_json_value(value)


class Examples(Collection[Example]):
    """Examples that were looked through once, and are read anew each time they are gone through.

    So a file of any length takes little memory: of what was read, the ids alone are kept while
    it is looked through.

    Args:
        source: Where the examples are; see `examples_from`.
        naming: Which key holds which field.

    Raises:
        AutoMixError: An example does not fit, an id stands twice, or there is none.
    """

    def __init__(self, source: Source, naming: FieldMapping) -> None:
        self._source = source
        self._naming = naming
        self._count = 0
        self.referenced = 0
        """How many examples have an accepted answer."""

        seen = set[str]()
        for number, (where, example) in enumerate(self._read(), 1):
            if example.id in seen:
                raise AutoMixError(
                    f"{where}, field id: {example.id!r} stands in {self._first(example.id)}, too."
                )
            seen.add(example.id)
            self._count = number
            self.referenced += bool(example.references)
        if not self._count:
            raise AutoMixError(f"{source.name} holds no example.")
        naming.check()

    @property
    def source(self) -> str:
        """What the examples are called in messages: the path of a file, for instance."""
        return self._source.name

    @override
    def __iter__(self) -> Iterator[Example]:
        return (example for _, example in self._read())

    @override
    def __len__(self) -> int:
        return self._count

    @override
    def __contains__(self, item: object) -> bool:
        return any(example == item for example in self)

    def __repr__(self) -> str:
        return f"Examples({self._count} of {self._source.name})"

    def _read(self) -> Iterator[tuple[str, Example]]:
        for number, (where, row) in enumerate(self._source.rows(), 1):
            yield where, self._example(row, where, f"q{number}")

    def _example(self, row: Any, where: str, default_id: str) -> Example:
        if isinstance(row, Example):
            return row
        if not isinstance(row, Mapping | str):
            raise AutoMixError(
                f"{where} is {describe_type(row)}; give an object with a question, or the "
                "question alone."
            )
        try:
            # Nothing else says what the only text is.
            fields = {"question": row} if isinstance(row, str) else self._naming.sorted(row)
            return Example.model_validate({"id": default_id, **fields})
        except ValidationError as error:
            if error.errors()[0]["type"] == "missing":  # of all fields only a question may be
                raise AutoMixError(
                    f"{where}, field question: it is missing. It is read from {_QUESTION_NAMES}; "
                    'say names={"question": ...}, --question NAME, for another.'
                ) from error
            raise AutoMixError(f"{where}, {first_problem(error)}") from error
        except ValueError as error:
            raise AutoMixError(f"{where}, {error}") from error

    def _first(self, id: str) -> str:
        return next(where for where, example in self._read() if example.id == id)


def examples_from(
    source: Any,
    *,
    names: Mapping[str, str] | None = None,
    limit: int | None = None,
    client: Client | None = None,
) -> Examples:
    """Return the examples in a file, a list, a data frame or a dataset in LangSmith.

    The question is read from `question`, `query` or `input`; accepted answers from
    `references`, `reference`, `answer`, `answers`, `output` or `expected`; and `context`,
    `messages`, `prompt`, `id` and `metadata` from what is called so. Anything else goes into the
    metadata. Without an id the examples are `q1`, `q2` and so on.

    Args:
        source: Path of JSON lines (`.jsonl`, `.jsonl.gz`) or `.csv`; `langsmith:NAME OF A
            DATASET`; a sequence of `Example`, mappings, or questions; a pandas data frame.
        names: The user's own name for a field: `{"question": "my_column"}`.
        limit: Take only so many, the first ones. None: all.
        client: LangSmith client. None: one from the environment.

    Raises:
        AutoMixError: The source cannot be read, or an example does not fit; names place and
            field.
    """
    if isinstance(source, Examples):
        return source
    naming = FieldMapping(names)
    found = source_of(source, naming, client)
    return Examples(found if limit is None else FirstOf(found, limit), naming)
