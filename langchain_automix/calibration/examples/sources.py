"""Sources of examples: each reader yields rows one by one, with the place of each."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from langchain_automix.calibration.examples.fields import FieldMapping, is_absent
from langchain_automix.errors import AutoMixError
from langchain_automix.utils.files import bounded_lines

if TYPE_CHECKING:
    from langsmith import Client
    from langsmith.schemas import Example as LangSmithExample


_LANGSMITH = "langsmith:"
_JSON_COLUMNS = ("messages", "metadata")
_ACCEPTED = (
    "examples are read from .jsonl, .jsonl.gz and .csv files, from langsmith:NAME, a sequence "
    "and a pandas data frame"
)

Rows = Iterator[tuple[str, Any]]
"""The place of an example, for messages, and its content: a mapping, a text or an example."""


def open_source(source: Any, mapping: FieldMapping, client: Client | None) -> tuple[str, Rows]:
    """Return the name of a source in messages, and its rows; see `examples_from`.

    Raises:
        AutoMixError: Examples cannot be read from it.
    """
    if isinstance(source, str) and source.startswith(_LANGSMITH):
        dataset = source.removeprefix(_LANGSMITH)
        return f"The dataset {dataset!r}", _langsmith_rows(dataset, mapping, client)
    if isinstance(source, str | Path):
        if not str(source).endswith((".jsonl", ".jsonl.gz", ".csv")):
            raise AutoMixError(f"The examples {source} have another format: {_ACCEPTED}.")
        return str(source), _file_rows(Path(source), mapping)
    if hasattr(source, "to_dict") and hasattr(source, "columns"):
        return "The data frame", _frame_rows(source)
    if isinstance(source, Sequence) and not isinstance(source, bytes | bytearray):
        return "The list", ((f"example {n}", item) for n, item in enumerate(source, 1))
    raise AutoMixError(f"A {type(source).__name__} holds no examples: {_ACCEPTED}.")


def _file_rows(path: Path, mapping: FieldMapping) -> Rows:
    # Spreadsheets write a byte order mark; line breaks within a quoted cell belong to it.
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
        raise AutoMixError(f"The examples {path} cannot be read: {reason}.") from error


def _csv_rows(file: IO[str], path: Path, mapping: FieldMapping) -> Rows:
    """Yield the rows of a table, without their empty cells."""
    reader = csv.reader(file, strict=True)
    header: list[str] | None = None
    last_line = 0
    try:
        for cells in reader:
            where, last_line = f"{path}, line {last_line + 1}", reader.line_num
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
            yield where, {k: _cell_value(v, mapping.field_of.get(k), where) for k, v in row.items()}
    except csv.Error as error:
        raise AutoMixError(
            f"{path}, line {reader.line_num} is not CSV: {error}; for long texts, give JSON lines."
        ) from error


def _check_columns(names: Sequence[str], where: str) -> None:
    if repeated := {name for name in names if names.count(name) > 1}:
        raise AutoMixError(f"{where}: the column {min(repeated)!r} is repeated.")


def _cell_value(cell: str, field: str | None, where: str) -> Any:
    """Return the value of a cell; lists and objects are written as JSON."""
    if field in _JSON_COLUMNS:
        return _parse_json(cell, f"{where}, field {field}")
    if field == "references" and cell.lstrip().startswith("["):
        try:
            value = json.loads(cell)
        except (ValueError, RecursionError):
            return cell
        return value if isinstance(value, list) else cell
    return cell


def _parse_json(text: str, where: str) -> Any:
    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not valid JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise AutoMixError(f"{where} is not JSON: {error}.") from error


def _frame_rows(frame: Any) -> Rows:
    """Yield the rows of a data frame, without their empty cells, as Python values."""
    columns = [str(column) for column in frame.columns]
    _check_columns(columns, "The data frame")
    for number, cells in enumerate(frame.itertuples(index=False, name=None), 1):
        values = (cell.tolist() if hasattr(cell, "tolist") else cell for cell in cells)
        row = zip(columns, values, strict=True)
        yield f"row {number}", {key: value for key, value in row if not is_absent(value)}


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
    """Return an example of LangSmith's as one mapping, with keys that `mapping` knows."""
    names, row, outputs = mapping.names, dict(example.inputs or {}), dict(example.outputs or {})
    if len(row) == 1 and (only := next(iter(row))) not in mapping.field_of:
        field = "messages" if isinstance(row[only], list) else "question"
        if field not in names:
            row[field] = row.pop(only)
    reference = mapping.reference_key(outputs)
    if reference is not None:
        row[names.get("references", "references")] = outputs.pop(reference)
    elif outputs and "references" not in names:
        raise AutoMixError(
            f"{where}: which output is the accepted answer? It has {sorted(outputs)}; say "
            'names={"references": ...}, --references NAME.'
        )
    if not any(mapping.field_of.get(key) == "id" for key in row):
        row[names.get("id", "id")] = str(example.id)
    return {**row, names.get("metadata", "metadata"): {**(example.metadata or {}), **outputs}}
