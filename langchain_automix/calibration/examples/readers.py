"""Sources of examples: each reader yields rows one by one, each with its place in the source."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from langchain_automix.calibration.examples.containers import (
    is_written_value,
    read_cell,
)
from langchain_automix.calibration.examples.fields import FieldMapping, is_absent
from langchain_automix.errors import AutoMixError
from langchain_automix.policy.data.tabular import parquet_rows
from langchain_automix.utils.files import LONGEST_LINE, bounded_lines
from langchain_automix.utils.plain_values import python_value
from langchain_automix.utils.ray_cluster import is_ray_dataset

if TYPE_CHECKING:
    from langsmith import Client
    from langsmith.schemas import Example as LangSmithExample


_LANGSMITH = "langsmith:"
_JSON_COLUMNS = ("messages", "metadata")
_ACCEPTED = (
    "examples are read from .jsonl, .jsonl.gz, .csv and .parquet files, from langsmith:NAME, a "
    "sequence, a pandas or polars data frame, an Arrow table, a split of a Hugging Face dataset "
    "and a dataset of Ray"
)
_WORKBOOKS = (".xlsx", ".xlsm", ".xls", ".ods")
_DELIMITERS = ",;\t|"
_DECLARED = re.compile(r"(?i:sep)=(.)\r?\n?")

Rows = Iterator[tuple[str, Any]]
"""The place of an example, for error messages, and its content: a mapping, a text or an example."""


def open_source(source: Any, mapping: FieldMapping, client: Client | None) -> tuple[str, Rows]:
    """Return the name of a source in messages, and its rows; see `examples_from`.

    Raises:
        AutoMixError: Examples cannot be read from the source.
    """
    if isinstance(source, str) and source.startswith(_LANGSMITH):
        dataset = source.removeprefix(_LANGSMITH)
        return f"The dataset {dataset!r}", _langsmith_rows(dataset, mapping, client)
    if isinstance(source, str | Path):
        return str(source), _open_file(source, mapping)
    if is_ray_dataset(source):
        rows = source.iter_rows()
        return "The dataset", ((f"row {number}", _known(row)) for number, row in enumerate(rows, 1))
    is_mapping = isinstance(source, Mapping)
    has_rows = hasattr(source, "itertuples") or hasattr(source, "iter_rows")
    if has_rows and hasattr(source, "columns") and not is_mapping:
        return "The data frame", _frame_rows(source, mapping)
    if hasattr(source, "column_names") and not is_mapping:
        rows = source.to_pylist() if hasattr(source, "to_pylist") else source
        return "The dataset", ((f"row {number}", row) for number, row in enumerate(rows, 1))
    if isinstance(source, Sequence) and not isinstance(source, bytes | bytearray):
        return "The list", ((f"example {n}", item) for n, item in enumerate(source, 1))
    hint = " Give what its collect() returns." if hasattr(source, "collect_schema") else ""
    raise AutoMixError(f"A {type(source).__name__} holds no examples: {_ACCEPTED}.{hint}")


def _open_file(source: str | Path, mapping: FieldMapping) -> Rows:
    if str(source).lower().endswith(_WORKBOOKS):
        raise AutoMixError(
            f"The examples {source} are a workbook: save the sheet as CSV (UTF-8), or give "
            "what pandas.read_excel returns."
        )
    if str(source).endswith(".parquet"):
        return _parquet_rows(Path(source))
    if not str(source).endswith((".jsonl", ".jsonl.gz", ".csv")):
        raise AutoMixError(f"The examples {source} have another format: {_ACCEPTED}.")
    return _file_rows(Path(source), mapping)


def _file_rows(path: Path, mapping: FieldMapping) -> Rows:
    # Spreadsheets write a byte order mark. A line break within a quoted cell is part of the cell.
    is_csv = path.suffix == ".csv"
    options: Any = {"mode": "rt", "encoding": "utf-8-sig", "newline": "" if is_csv else None}
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, **options) as file:
            if is_csv:
                yield from _csv_rows(file, path, mapping)
                return
            for number, line in bounded_lines(file, path):
                where = f"{path}, line {number}"
                yield where, _parse_json(line, where)
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        if isinstance(error, UnicodeDecodeError):
            reason = f"{reason}; save the file as UTF-8"
        raise AutoMixError(f"The examples {path} cannot be read: {reason}.") from error


def _parquet_rows(path: Path) -> Rows:
    for number, row in enumerate(parquet_rows(path, "examples"), 1):
        yield f"{path}, row {number}", _known(row)


def _known(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of a table without its empty cells."""
    return {name: value for name, value in row.items() if not is_absent(value)}


def _csv_rows(file: IO[str], path: Path, mapping: FieldMapping) -> Rows:
    """Yield the rows of a table, without their empty cells."""
    first = file.readline(LONGEST_LINE)
    declared = _DECLARED.fullmatch(first)  # written by Excel on a line of its own
    skipped = 1 if declared else 0
    lines = file if declared else itertools.chain([first], file)
    delimiter = declared[1] if declared else _delimiter(first, mapping)
    reader = csv.reader(lines, strict=True, delimiter=delimiter)
    header: list[str] | None = None
    last_line = skipped
    try:
        for cells in reader:
            where, last_line = f"{path}, line {last_line + 1}", reader.line_num + skipped
            if not any(map(str.strip, cells)):
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                _check_columns(header, where)
                continue
            if len(cells) > len(header):
                raise AutoMixError(
                    f"{where} has {len(cells)} cells, but the first line names {len(header)}."
                )
            row = {key: cell for key, cell in zip(header, cells, strict=False) if cell.strip()}
            yield (
                where,
                {k: _cell_value(v, mapping.field_of.get(k), where) for k, v in row.items()},
            )
    except csv.Error as error:
        raise AutoMixError(
            f"{path}, line {reader.line_num + skipped} is not CSV: {error}; for long texts, "
            "give JSON lines."
        ) from error


def _delimiter(line: str, mapping: FieldMapping) -> str:
    """Return the delimiter of a table by its first line, which must contain a question field."""
    for delimiter in _DELIMITERS:
        names = (name.strip().strip('"').strip() for name in line.split(delimiter))
        if any(mapping.field_of.get(name) in ("question", "messages") for name in names):
            return delimiter
    return ","


def _check_columns(names: Sequence[str], where: str) -> None:
    if repeated := {name for name in names if names.count(name) > 1}:
        raise AutoMixError(f"{where}: the column {min(repeated)!r} is repeated.")


def _cell_value(cell: Any, field: str | None, where: str) -> Any:
    """Return the value of a table cell; lists and objects are in JSON or Python's notation.

    Raises:
        AutoMixError: The cell looks like a list or an object, but cannot be read.
    """
    if not isinstance(cell, str):
        return cell
    if field in _JSON_COLUMNS:
        value = python_value(cell)
        return _parse_json(cell, f"{where}, field {field}") if value is None else value
    if field == "references":
        try:
            return read_cell(cell)
        except ValueError as error:
            raise AutoMixError(f"{where}, field references: {error}.") from error
    if field == "context" and isinstance(documents := python_value(cell), list):
        return documents
    return cell


def _parse_json(text: str, where: str) -> Any:
    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not valid JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise AutoMixError(f"{where} is not JSON: {error}.") from error


def _frame_rows(frame: Any, mapping: FieldMapping) -> Rows:
    """Yield the rows of a data frame as Python values, without empty cells."""
    columns = [str(column) for column in frame.columns]
    _check_columns(columns, "The data frame")
    fields = [
        mapping.field_of.get(name) if _is_written_column(frame[column]) else None
        for name, column in zip(columns, frame.columns, strict=True)
    ]
    is_pandas = hasattr(frame, "itertuples")
    rows = frame.itertuples(index=False, name=None) if is_pandas else frame.iter_rows()
    for number, cells in enumerate(rows, 1):
        where = f"row {number}"
        values = (_cell_value(c, field, where) for c, field in zip(cells, fields, strict=True))
        row = zip(columns, values, strict=True)
        yield where, {key: value for key, value in row if not is_absent(value)}


def _is_written_column(cells: Iterable[Any]) -> bool:
    """Return whether a column was read from a text file, so that its lists are texts."""
    return any(isinstance(cell, str) and is_written_value(cell, but_json=True) for cell in cells)


def _langsmith_rows(dataset: str, mapping: FieldMapping, client: Client | None) -> Rows:
    import langsmith  # noqa: PLC0415  (only here is it needed)
    from langsmith.utils import LangSmithError  # noqa: PLC0415

    try:
        for example in (client or langsmith.Client()).list_examples(dataset_name=dataset):
            where = f"dataset {dataset!r}, example {example.id}"
            yield where, _langsmith_row(example, mapping, where)
    except LangSmithError as error:
        raise AutoMixError(f"The dataset {dataset!r} cannot be read: {error}") from error


def _langsmith_row(
    example: LangSmithExample, mapping: FieldMapping, where: str
) -> Mapping[str, Any]:
    """Return an example of LangSmith as one mapping, with keys that `mapping` knows."""
    names, row, outputs = mapping.names, dict(example.inputs or {}), dict(example.outputs or {})
    if len(row) == 1 and (only := next(iter(row))) not in mapping.field_of:
        field = "messages" if isinstance(row[only], list) else "question"
        if field not in names:
            row[field] = row.pop(only)
    reference = mapping.reference_key(outputs)
    if reference is not None:
        answer = outputs.pop(reference)
        # The messages of a run are a conversation, even if the model wrote all of them.
        row[names.get("references", "references")] = (
            {reference: answer} if reference == "messages" and isinstance(answer, list) else answer
        )
    elif outputs and "references" not in names:
        raise AutoMixError(
            f"{where}: which output is the accepted answer? It has {sorted(outputs)}; say "
            'names={"references": ...}, --references NAME.'
        )
    if not any(mapping.field_of.get(key) == "id" for key in row):
        row[names.get("id", "id")] = str(example.id)
    return {**row, names.get("metadata", "metadata"): {**(example.metadata or {}), **outputs}}
