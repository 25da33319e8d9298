"""Examples to calibrate on: the user's own questions, from any source."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

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
from langchain_automix.calibration.examples.readers import open_source
from langchain_automix.errors import AutoMixError, first_problem
from langchain_automix.utils.formatting import pluralize

if TYPE_CHECKING:
    from langsmith import Client


_QUESTION_NAMES = " or ".join(f"`{name}`" for name in FIELD_NAMES["question"])


def _id(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("it is empty")
    return value


NonBlank = Annotated[str, Field(min_length=1), AfterValidator(_not_blank)]


class Example(BaseModel):
    """One question, with its context, accepted answers and conversation, if any."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(min_length=1), BeforeValidator(_id)]
    question: NonBlank
    """The question, as the check reads it. Default: the last message."""

    context: Annotated[str | None, BeforeValidator(read_context)] = None
    """The text that the answer must follow from. A list of documents is joined to paragraphs."""

    references: Annotated[tuple[str, ...], BeforeValidator(read_references)] = ()
    """Accepted answers; empty if none is known."""

    messages: Annotated[tuple[Mapping[str, Any], ...], BeforeValidator(read_messages)] = ()
    """The conversation before the question: messages with `role` and `content`, as read by
    `langchain_core.messages.convert_to_messages`."""

    prompt: NonBlank | None = None
    """The whole text for the models, used instead of a filled template."""

    metadata: Annotated[Mapping[str, Any], BeforeValidator(to_json_value)] = Field(
        default_factory=dict
    )
    """Any other JSON data; it is written to the log."""

    @model_validator(mode="before")
    @classmethod
    def _question_from_messages(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or "question" in data or not data.get("messages"):
            return data
        try:
            question, before = read_question(read_messages(data["messages"]))
        except ValueError as error:
            raise ValueError(f"messages: {error}") from error
        return {**data, "question": question, "messages": before}


class Examples(list[Example]):
    """Examples in the order of their source, each with a unique id.

    Args:
        examples: The examples.
        source: Name of the examples in messages, such as the path of a file.
        columns: Names of the source's columns or fields.
    """

    def __init__(
        self, examples: Iterable[Example], source: str, columns: Iterable[str] = ()
    ) -> None:
        super().__init__(examples)
        self.source = source
        self.columns = tuple(columns)
        self.referenced = sum(bool(example.references) for example in self)
        """Number of examples with an accepted answer."""

    @property
    def without_answers(self) -> str | None:
        """A message, if no example has an accepted answer but an unknown column may hold them.

        None otherwise.
        """
        known = {name for names in FIELD_NAMES.values() for name in names}
        if self.referenced or not set(self.columns) - known:
            return None
        names = ", ".join(FIELD_NAMES["references"])
        return (
            f"0 of {pluralize(len(self), 'example')} have accepted answers; columns: "
            f"{', '.join(self.columns)}. Accepted answers are read from {names}; say "
            'names={"references": ...}, --references NAME, for another.'
        )

    def __repr__(self) -> str:
        return f"Examples({len(self)} of {self.source})"


def examples_from(
    source: Any,
    *,
    names: Mapping[str, str] | None = None,
    limit: int | None = None,
    client: Client | None = None,
) -> Examples:
    """Return the examples in a file, a list, a data frame or a dataset in LangSmith.

    The question is read from `question`, `query` or `input`; accepted answers from `references`,
    `reference`, `answer`, `answers`, `output` or `expected`; and `context`, `messages`, `prompt`,
    `id` and `metadata` from the fields of the same names. All other fields are added to the
    metadata. Examples without an id are named `q1`, `q2` and so on.

    The source is read into memory once; later changes to it do not affect a calibration.

    Args:
        source: Path of a file of JSON lines (`.jsonl`, `.jsonl.gz`), a `.parquet` file, or a `.csv`
            file (separated by commas, semicolons, tabs or bars); `langsmith:NAME OF A DATASET`; a
            sequence of `Example`s, mappings, or questions; a data frame of pandas or polars, an
            Arrow table, a split of a Hugging Face dataset, or a Ray dataset. In a table, lists are
            written as JSON or in Python's notation.
        names: Your own names of fields, such as `{"question": "my_column"}`.
        limit: Number of examples to take, starting with the first. None: all.
        client: LangSmith client. None: one configured by the environment.

    Raises:
        AutoMixError: The source cannot be read or holds no example, an example is invalid, or two
            examples have the same id. The message names the place and the field.
    """
    if isinstance(source, Examples):
        return source
    mapping = FieldMapping(names)
    name, rows = open_source(source, mapping, client)
    examples: dict[str, Example] = {}
    places: dict[str, str] = {}
    for number, (where, row) in enumerate(itertools.islice(rows, limit), 1):
        example = _to_example(row, mapping, where, f"q{number}")
        if (id := example.id) in places:
            raise AutoMixError(f"{where}, field id: {id!r} is also in {places[id]}.")
        examples[id], places[id] = example, where
    if not examples:
        raise AutoMixError(f"{name} holds no example.")
    mapping.check()
    return Examples(examples.values(), name, mapping.keys)


def _to_example(row: Any, mapping: FieldMapping, where: str, default_id: str) -> Example:
    if isinstance(row, Example):
        return row
    if not isinstance(row, Mapping | str):
        raise AutoMixError(
            f"{where} is {describe_type(row)}; give an object with a question, or the question "
            "alone."
        )
    try:
        fields = {"question": row} if isinstance(row, str) else mapping.fields(row)
        return Example.model_validate({"id": default_id, **fields})
    except ValidationError as error:
        if error.errors()[0]["type"] == "missing":  # only a question can be missing
            own = mapping.names.get("question")
            raise AutoMixError(
                f"{where}, field question: it is missing. It is read from "
                f"{_QUESTION_NAMES if own is None else f'`{own}`'}; "
                'say names={"question": ...}, --question NAME, for another. The example has: '
                f"{', '.join(map(str, row)) or 'nothing'}."
            ) from error
        raise AutoMixError(f"{where}, {first_problem(error)}") from error
    except ValueError as error:
        raise AutoMixError(f"{where}, {error}") from error
