"""Routing logs as Parquet files and as pandas frames; both are extras."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_automix.errors import AutoMixError
from langchain_automix.utils.files import reason_of
from langchain_automix.utils.install import import_extra
from langchain_automix.utils.plain_values import python_value, to_plain

if TYPE_CHECKING:
    from langchain_automix.policy.data.columns import LogColumns


_CHUNK = 10_000


def read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a Parquet file, with some thousands of them in memory at a time.

    Raises:
        AutoMixError: pyarrow is not installed, or the file cannot be read.
    """
    return map(_plain, parquet_rows(path, "routing log"))


def parquet_rows(path: Path, what: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file, with some thousands of them in memory at a time.

    Args:
        path: The file.
        what: What it holds, for messages.

    Raises:
        AutoMixError: pyarrow is not installed, or the file cannot be read.
    """
    arrow, parquet = _arrow()
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_CHUNK):
                yield from batch.to_pylist()
    except (OSError, arrow.ArrowException, UnicodeDecodeError) as error:
        raise AutoMixError(f"The {what} {path} cannot be read: {reason_of(error)}.") from error


def table_records(table: Any) -> Iterator[dict[str, Any]]:
    """Yield the records of an Arrow table, with some thousands of them in memory at a time."""
    for batch in table.to_batches(max_chunksize=_CHUNK):
        yield from map(_plain, batch.to_pylist())


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record in the form of JSON lines: null fields are left out."""
    found = {name: value for name, value in record.items() if value is not None}
    if isinstance(found.get("metadata"), str):
        try:
            found["metadata"] = json.loads(found["metadata"])
        except ValueError:
            found["metadata"] = {"text": found["metadata"]}
    answers = found.get("answers")
    for answer in answers if isinstance(answers, list) else ():
        check = answer.get("verification") if isinstance(answer, dict) else None
        if isinstance(check, dict):
            answer["verification"] = _known_only(check)
        further = answer.pop("checks", None) if isinstance(answer, dict) else None
        if further:  # pairs of a name and a check, as Arrow gives a map, or a struct with all names
            checks = dict(further)
            answer["checks"] = {name: _known_only(each) for name, each in checks.items() if each}
    return found


def _known_only(check: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in check.items() if value is not None}


def write_parquet(path: Path, records: Iterable[dict[str, Any]], *, checks: bool = False) -> None:
    """Write records to a Parquet file, some thousands of them at a time.

    Args:
        path: The file.
        records: The queries.
        checks: Whether some have further checks.

    Raises:
        AutoMixError: pyarrow is not installed, or an undeclared further check appears.
    """
    arrow, parquet = _arrow()
    schema = _schema(arrow, checks=checks)
    waiting = iter(records)
    with parquet.ParquetWriter(path, schema) as writer:
        while chunk := list(islice(waiting, _CHUNK)):
            for record in chunk:
                if "metadata" in record:
                    record["metadata"] = json.dumps(record["metadata"])
                if not checks and any(answer.get("checks") for answer in record["answers"]):
                    raise AutoMixError(
                        f"The query {record['id']!r} has further checks, which the schema of the "
                        "Parquet file does not have: write the log as .jsonl."
                    )
            writer.write_table(arrow.Table.from_pylist(chunk, schema=schema))


def _arrow() -> tuple[Any, Any]:
    return import_extra("pyarrow", "parquet"), import_extra("pyarrow.parquet", "parquet")


def _schema(arrow: Any, *, checks: bool) -> Any:
    number, text = arrow.float64(), arrow.string()
    check = arrow.struct(
        [
            ("verdicts", arrow.list_(arrow.bool_())),
            ("score", number),
            ("fixed_cost", number),
            ("sample_cost", number),
            ("cost", number),
        ]
    )
    fields = [("model", text), ("quality", number), ("cost", number), ("verification", check)]
    if checks:
        fields.append(("checks", arrow.map_(text, check)))
    answer = arrow.struct(fields)
    return arrow.schema(
        [("id", text), ("answers", arrow.list_(answer)), ("currency", text), ("metadata", text)]
    )


def to_pandas(store: LogColumns) -> Any:
    """Return a frame with one row an answer; see `RoutingLog.to_pandas`."""
    pandas = import_extra("pandas", "pandas")
    rows = []
    width = len(store.models)
    for place in range(len(store) * width):
        answer = store.answer(place)
        check = answer.pop("verification") or {}
        further = {"checks": answer.pop("checks", None)} if store.further else {}
        price = check.get("cost", check.get("fixed_cost"))
        rows.append(
            {
                "id": store.ids[place // width],
                **answer,
                "verdicts": None if "verdicts" not in check else list(check["verdicts"]),
                "score": check.get("score"),
                "check_cost": price,
                "sample_cost": check.get("sample_cost"),
                **further,
            }
        )
    return pandas.DataFrame(rows)


def from_pandas(frame: Any) -> Iterator[dict[str, Any]]:
    """Yield the records of a frame with one row an answer, the answers of a query together.

    Raises:
        AutoMixError: It is no data frame of pandas or polars, or lacks a column.
    """
    cells = _rows_of(frame)
    missing = {"id", "model", "quality", "cost"} - set(frame.columns)
    if missing:
        raise AutoMixError(f"The frame lacks the columns {sorted(missing)}.")
    rows = (dict(zip(frame.columns, row, strict=True)) for row in cells)
    for name, group in groupby(rows, key=lambda row: row["id"]):
        yield {"id": name, "answers": [_answer(row) for row in group]}


def _rows_of(frame: Any) -> Iterable[tuple[Any, ...]]:
    if hasattr(frame, "itertuples"):
        return frame.itertuples(index=False, name=None)  # type: ignore[no-any-return]
    if hasattr(frame, "iter_rows"):  # polars
        return frame.iter_rows()  # type: ignore[no-any-return]
    raise AutoMixError(f"A {type(frame).__name__} is no data frame of pandas or polars.")


def _answer(row: dict[str, Any]) -> dict[str, Any]:
    known = {name: _known(value) for name, value in row.items()}
    answer = {name: known[name] for name in ("model", "quality", "cost")}
    price = known.get("check_cost")
    if known.get("verdicts") is not None:
        answer["verification"] = {
            "verdicts": _verdicts(known["verdicts"]),
            "fixed_cost": price or 0.0,
            "sample_cost": known.get("sample_cost") or 0.0,
        }
    elif known.get("score") is not None or price is not None:
        answer["verification"] = {"score": known.get("score"), "cost": price}
    if known.get("checks"):
        checks = known["checks"]
        written = python_value(checks) if isinstance(checks, str) else None
        answer["checks"] = checks if written is None else written
    return answer


def _verdicts(value: Any) -> Any:
    """Return verdicts as truth values; what is none stays, for the log to refuse."""
    if isinstance(value, str):  # a frame that was a file of text
        value = python_value(value)
    if not isinstance(value, list | tuple):
        raise AutoMixError("The column verdicts holds a value that is no list of verdicts.")
    known = map(_known, value)
    return [bool(v) if isinstance(v, int | float) and v in (0, 1) else v for v in known]


def _known(value: Any) -> Any:
    """Return a cell in plain Python; None for any missing value of pandas."""
    value = to_plain(value)
    is_missing = isinstance(value, float) and value != value  # noqa: PLR0124
    return None if is_missing or type(value).__name__ in ("NAType", "NaTType") else value
