"""`RoutingLog`: recorded qualities, verifications and costs of all models on some queries."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Annotated, Any, Self, overload

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, model_validator

from langchain_automix.errors import AutoMixError, first_problem

# Strict, so that no text and no truth value passes for a number, nor "yes" for a verdict.
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Cost = Annotated[float, Field(strict=True, ge=0)]


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LoggedVerification(_Line):
    """What a check of one answer found, and what it cost."""

    verdicts: tuple[StrictBool | None, ...] | None = Field(default=None, min_length=1)
    """Verdicts in the order drawn; None is an invalid one."""

    score: Share | None = None
    """Confidence of a continuous check."""

    fixed_cost: Cost = 0.0
    """Cost of a sampled check, whatever the number of its verdicts."""

    sample_cost: Cost = 0.0
    """Cost of each verdict."""

    cost: Cost | None = None
    """Cost of a continuous check."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.verdicts is None) == (self.score is None):
            raise ValueError("give either verdicts or a score")
        return self

    @property
    def accepts(self) -> int:
        """Number of verdicts that accept the answer."""
        return sum(verdict is True for verdict in self.verdicts or ())

    @property
    def rejects(self) -> int:
        """Number of verdicts that reject the answer."""
        return sum(verdict is False for verdict in self.verdicts or ())

    @property
    def total_cost(self) -> float:
        """Cost of the whole check."""
        if self.verdicts is None:
            return self.cost or 0.0
        return self.fixed_cost + len(self.verdicts) * self.sample_cost

    @property
    def confidence(self) -> float | None:
        """Share of accepts among the valid verdicts, or the score; None if unknown."""
        valid = self.accepts + self.rejects
        return self.accepts / valid if valid else self.score


class LoggedAnswer(_Line):
    """What one model did with one query."""

    model: str = Field(min_length=1)
    """Name of the model."""

    quality: Share | None
    """How good the answer is, in [0, 1]; None if the model was not run."""

    cost: Cost | None = None
    """Cost of the answer; None if the model was not run."""

    verification: LoggedVerification | None = None
    """Check of the answer; None if it was not checked."""


class LoggedQuery(_Line):
    """One query: the answers of all models, in the order of the models."""

    id: str = Field(min_length=1)
    answers: tuple[LoggedAnswer, ...] = Field(min_length=1)
    currency: str | None = None
    metadata: Mapping[str, Any] | None = None


class RoutingLog(Sequence[LoggedQuery]):
    """Recorded queries, each with the answers of the same models in the same order.

    What a policy is fitted from and replayed on. Kept as JSON lines, one query a line,
    plain or gzipped by the file's name.

    Args:
        queries: The recorded queries, as `LoggedQuery` or as mappings of the same shape.

    Raises:
        AutoMixError: A record does not fit the format, an id stands twice, or the models
            or the currency differ between queries; the message names place and field.
    """

    def __init__(self, queries: Iterable[LoggedQuery | Mapping[str, Any]]) -> None:
        self._queries = tuple(_checked(queries, place="record"))

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a log from a `.jsonl` or `.jsonl.gz` file; all of it, or an error."""
        path = Path(path)
        try:
            with _open(path, "r") as lines:
                records = [(i, line) for i, line in enumerate(lines, 1) if line.strip()]
        except (OSError, UnicodeDecodeError, EOFError) as error:
            raise AutoMixError(f"The routing log {path} cannot be read: {error}.") from error
        log = cls(())
        log._queries = tuple(_checked((_parse(path, *r) for r in records), place=f"{path}, line"))
        return log

    def write(self, path: str | Path) -> None:
        """Write the log to a `.jsonl` or `.jsonl.gz` file; a reader never sees half of it."""
        path = Path(path)
        with replacing(path) as unfinished, _open(unfinished, "w", named=path) as out:
            for query in self._queries:
                out.write(json.dumps(query.model_dump(exclude_none=False), allow_nan=False))
                out.write("\n")

    @overload
    def __getitem__(self, index: int) -> LoggedQuery: ...
    @overload
    def __getitem__(self, index: slice) -> RoutingLog: ...
    def __getitem__(self, index: int | slice) -> LoggedQuery | RoutingLog:
        if isinstance(index, slice):
            return RoutingLog(self._queries[index])
        return self._queries[index]

    def __len__(self) -> int:
        return len(self._queries)

    def __repr__(self) -> str:
        return f"RoutingLog({len(self)} queries, models={list(self.models)})"

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models, cheap to expensive; empty for an empty log."""
        return tuple(answer.model for answer in self[0].answers) if self._queries else ()

    @property
    def currency(self) -> str | None:
        """Unit of every cost in the log, where it says so."""
        return self[0].currency if self._queries else None


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file beside `path` to write; rename it to `path` if all goes well."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise AutoMixError(f"{path} cannot be written: {error.strerror}.") from error
    os.close(handle)
    unfinished = Path(name)
    try:
        yield unfinished
        unfinished.chmod(0o666 & ~_umask())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _open(path: Path, mode: str, *, named: Path | None = None) -> IO[str]:
    if (named or path).suffix == ".gz":
        return gzip.open(path, f"{mode}t", encoding="utf-8")  # type: ignore[return-value]
    return path.open(mode, encoding="utf-8")


def _parse(path: Path, number: int, line: str) -> tuple[int, Any]:
    try:
        return number, json.loads(line)
    except ValueError as error:
        raise AutoMixError(f"{path}, line {number} is not JSON: {error}.") from error


def _checked(records: Iterable[Any], place: str) -> Iterator[LoggedQuery]:
    seen: set[str] = set()
    first: LoggedQuery | None = None
    for number, record in enumerate(records, 1):
        if isinstance(record, tuple):
            number, record = record  # noqa: PLW2901  (a line of a file knows its own number)
        where = f"{place} {number}"
        query = record if isinstance(record, LoggedQuery) else _query(record, where)
        first = first or query
        if query.id in seen:
            raise AutoMixError(f"{where}: the id {query.id!r} stands twice in this log.")
        models = [answer.model for answer in query.answers]
        expected = [answer.model for answer in first.answers]
        if models != expected:
            raise AutoMixError(
                f"{where}, field answers: the models are {models}, but {expected} before; "
                "every query lists the same models in the same order."
            )
        if query.currency != first.currency:
            raise AutoMixError(f"{where}, field currency: a log has one currency throughout.")
        seen.add(query.id)
        yield query


def _query(record: Any, where: str) -> LoggedQuery:
    try:
        return LoggedQuery.model_validate(record)
    except ValidationError as error:
        raise AutoMixError(f"{where}, {first_problem(error)}") from error
