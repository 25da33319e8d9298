"""Where examples are kept: each source yields them one by one, and says where each stands."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from langchain_automix.calibration.examples.fields import FieldMapping, is_absent
from langchain_automix.errors import AutoMixError
from langchain_automix.utils.files import bounded_lines

if TYPE_CHECKING:
    from langsmith import Client
    from langsmith.schemas import Example as Stored


_LANGSMITH = "langsmith:"
_JSON_CELLS = ("messages", "metadata")
_TAKEN = (
    "examples are read from .jsonl, .jsonl.gz and .csv files, from langsmith:NAME, a sequence "
    "and a pandas data frame"
)

Rows = Iterator[tuple[str, Any]]
"""Where an example stands, and what stands there."""


class Source(Protocol):
    """What holds examples, and can be read again and again."""

    @property
    def name(self) -> str:
        """What it is called in messages."""

    def rows(self) -> Rows:
        """Yield each example as it stands there: a mapping, a text or an `Example`."""


def source_of(source: Any, naming: FieldMapping, client: Client | None) -> Source:
    """Return where examples are kept; see `examples_from`.

    Raises:
        AutoMixError: It is nothing that examples can be read from.
    """
    if isinstance(source, str) and source.startswith(_LANGSMITH):
        return _langsmith(source.removeprefix(_LANGSMITH), naming, client)
    if isinstance(source, str | Path):
        return FileSource.of(Path(source), naming)
    if hasattr(source, "to_dict") and hasattr(source, "columns"):
        return FrameSource(source)
    if isinstance(source, Sequence) and not isinstance(source, bytes | bytearray):
        return ListSource(tuple(source))
    raise AutoMixError(f"A {type(source).__name__} holds no examples: {_TAKEN}.")


@dataclass(frozen=True)
class FileSource:
    """A file of JSON lines or CSV, which must stay as it is while it is used."""

    path: Path
    naming: FieldMapping
    stamp: tuple[int, int]

    @classmethod
    def of(cls, path: Path, naming: FieldMapping) -> FileSource:
        """Return the file as it is now."""
        if not path.name.endswith((".jsonl", ".jsonl.gz", ".csv")):
            raise AutoMixError(f"The examples {path} have another format: {_TAKEN}.")
        return cls(path, naming, _stamp(path))

    @property
    def name(self) -> str:
        """Path of the file."""
        return str(self.path)

    def rows(self) -> Rows:
        """Yield the lines; fails where the file has changed since it was first looked at."""
        self._check()
        try:
            with _open(self.path) as file:
                yield from self._csv(file) if self.path.suffix == ".csv" else self._lines(file)
        except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
            raise AutoMixError(f"The examples {self.path} cannot be read: {error}.") from error
        self._check()

    def _check(self) -> None:
        if _stamp(self.path) != self.stamp:
            raise AutoMixError(
                f"The examples {self.path} have changed since they were first read; start again."
            )

    def _lines(self, file: IO[str]) -> Rows:
        for number, line in bounded_lines(file, self.path):
            where = f"{self.path}, line {number}"
            yield where, _parsed(line, where)

    def _csv(self, file: IO[str]) -> Rows:
        reader = csv.reader(file, strict=True)
        before = 0
        header: list[str] | None = None
        try:
            for cells in reader:
                where = f"{self.path}, line {before + 1}"
                before = reader.line_num
                if not any(cell.strip() for cell in cells):
                    continue
                if header is None:
                    header = _header(cells, where)
                elif len(cells) > len(header):
                    raise AutoMixError(
                        f"{where} has {len(cells)} cells, but the first line names {len(header)}."
                    )
                else:
                    yield where, self._row(dict(zip(header, cells, strict=False)), where)
        except csv.Error as error:
            raise AutoMixError(
                f"{self.path}, line {reader.line_num} is not CSV: {error}; for long texts, give "
                "JSON lines."
            ) from error

    def _row(self, cells: Mapping[str, str], where: str) -> Mapping[str, Any]:
        """Return the cells that hold something; lists and objects are written as JSON."""
        row: dict[str, Any] = {key: cell for key, cell in cells.items() if cell.strip()}
        for key, cell in row.items():
            field = self.naming.field_of(key)
            if field in _JSON_CELLS:
                row[key] = _parsed(cell, f"{where}, field {field}")
            elif field == "references":
                row[key] = _listed(cell)
        return row


def _header(cells: Sequence[str], where: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    if twice := {name for name in names if names.count(name) > 1}:
        raise AutoMixError(f"{where}: the column {min(twice)!r} stands twice.")
    return names


def _listed(cell: str) -> Any:
    """Return a list where a cell holds one, written as JSON; else the text itself."""
    if cell.lstrip().startswith("["):
        try:
            found = json.loads(cell)
        except (ValueError, RecursionError):
            return cell
        return found if isinstance(found, list) else cell
    return cell


def _parsed(text: str, where: str) -> Any:
    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise AutoMixError(f"{where} is not JSON: {error}.") from error


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise AutoMixError(f"The examples {path} cannot be read: {error.strerror}.") from error
    return status.st_size, status.st_mtime_ns


def _open(path: Path) -> IO[str]:
    # Spreadsheets put a mark of the byte order in front.
    how: Any = {"mode": "rt", "encoding": "utf-8-sig"}
    if path.suffix == ".gz":
        return gzip.open(path, **how)  # type: ignore[no-any-return]
    # Line ends within a quoted cell are the cell's own.
    return path.open(newline="" if path.suffix == ".csv" else None, **how)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class ListSource:
    """Examples in memory."""

    items: tuple[Any, ...]
    name: str = "The list"
    places: tuple[str, ...] = ()
    """Where each stands; if not given, by its number."""

    def rows(self) -> Rows:
        """Yield the items."""
        for number, item in enumerate(self.items, 1):
            yield self.places[number - 1] if self.places else f"example {number}", item


@dataclass(frozen=True)
class FirstOf:
    """The first examples of another source."""

    source: Source
    count: int

    @property
    def name(self) -> str:
        """What the whole source is called."""
        return self.source.name

    def rows(self) -> Rows:
        """Yield the first ones."""
        return itertools.islice(self.source.rows(), self.count)


@dataclass(frozen=True)
class FrameSource:
    """A pandas data frame, one example a row."""

    frame: Any
    name: str = "The data frame"

    def rows(self) -> Rows:
        """Yield the rows, without their empty cells."""
        columns = [str(column) for column in self.frame.columns]
        _header(columns, self.name)
        for number, cells in enumerate(self.frame.itertuples(index=False, name=None), 1):
            row = {key: _unboxed(cell) for key, cell in zip(columns, cells, strict=True)}
            yield f"row {number}", {key: cell for key, cell in row.items() if not is_absent(cell)}


def _unboxed(cell: Any) -> Any:
    """Return what numpy holds as Python has it."""
    as_python = getattr(cell, "tolist", None)
    return as_python() if callable(as_python) else cell


def _langsmith(dataset: str, naming: FieldMapping, client: Client | None) -> ListSource:
    """Read a dataset in LangSmith, once: whoever changes it meanwhile changes no calibration."""
    import langsmith  # noqa: PLC0415  (only here is it needed)
    from langsmith.utils import LangSmithError  # noqa: PLC0415

    rows: list[Mapping[str, Any]] = []
    places: list[str] = []
    try:
        for example in (client or langsmith.Client()).list_examples(dataset_name=dataset):
            places.append(f"dataset {dataset!r}, example {example.id}")
            rows.append(_stored(example, naming, places[-1]))
    except LangSmithError as error:
        raise AutoMixError(f"The dataset {dataset!r} cannot be read: {error}") from error
    return ListSource(tuple(rows), f"The dataset {dataset!r}", tuple(places))


def _stored(example: Stored, naming: FieldMapping, where: str) -> Mapping[str, Any]:
    """Return an example of LangSmith's as one mapping, with keys that `naming` knows."""
    row, outputs = dict(example.inputs or {}), dict(example.outputs or {})
    if len(row) == 1 and naming.field_of(only := next(iter(row))) is None:
        field = "messages" if isinstance(row[only], list) else "question"
        if not naming.is_named(field):
            row[naming.key(field)] = row.pop(only)
    if outputs and not naming.is_named("references") and naming.reference_key(outputs) is None:
        raise AutoMixError(
            f"{where}: which output is the accepted answer? It has {sorted(outputs)}; say "
            'names={"references": ...}, --references NAME.'
        )
    if (key := naming.reference_key(outputs)) is not None:
        row[naming.key("references")] = outputs.pop(key)
    if not any(naming.field_of(key) == "id" for key in row):
        row[naming.key("id")] = str(example.id)
    return {**row, naming.key("metadata"): {**(example.metadata or {}), **outputs}}
