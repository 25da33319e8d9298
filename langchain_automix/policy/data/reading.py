"""Read the files of a routing log: JSON lines, plain or gzipped, and Parquet."""

from __future__ import annotations

import contextlib
import gzip
import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from langchain_automix.errors import AutoMixError, first_problem
from langchain_automix.policy.data.columns import LogColumns
from langchain_automix.policy.data.facts import QueryFacts
from langchain_automix.policy.data.records import LoggedQuery
from langchain_automix.utils.files import bounded_lines, reason_of


def read_file(path: Path, *, texts: bool = True) -> LogColumns:
    """Read a `.jsonl`, `.jsonl.gz` or `.parquet` file; all of it, or an error.

    Args:
        path: The file.
        texts: Whether all metadata is kept. If not, only what `QueryFacts` keeps of it.

    Raises:
        AutoMixError: It cannot be read, or a line is no query of a log.
    """
    if path.suffix.lower() == ".parquet":
        from langchain_automix.policy.data.tabular import read_parquet  # noqa: PLC0415  (an extra)

        return stored(enumerate(read_parquet(path), 1), place=f"{path}, row", texts=texts)
    try:
        with open_text(path, "r") as lines:
            return stored(bounded_lines(lines, path), place=f"{path}, line", texts=texts)
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise AutoMixError(f"The routing log {path} cannot be read: {reason_of(error)}.") from error


def open_text(path: Path, mode: str, *, named: Path | None = None) -> IO[str]:
    """Open a file of JSON lines, which is gzipped if the name (`named`, else its own) says so."""
    encoding = "utf-8-sig" if mode == "r" else "utf-8"  # some editors write a byte order mark
    if (named or path).suffix.lower() == ".gz":
        return gzip.open(path, f"{mode}t", encoding=encoding)  # type: ignore[return-value]
    return path.open(mode, encoding=encoding)


def stored(records: Iterable[tuple[int, Any]], place: str, *, texts: bool = True) -> LogColumns:
    """Validate numbered records, or lines of JSON, and put them into a store.

    Args:
        records: The records, each with its number.
        place: What stands before the number in errors.
        texts: Whether all metadata is kept.

    Raises:
        AutoMixError: A record is no query, or does not go with the others.
    """
    store, seen = LogColumns() if texts else LogColumns(metadata=QueryFacts()), set[str]()
    for number, record in records:
        where = f"{place} {number}"
        query = record if isinstance(record, LoggedQuery) else _query(record, where)
        if query.id in seen:
            raise AutoMixError(
                f"{where}: the id {query.id!r} is repeated in this log. RoutingLog.join puts "
                "logs together that use the same ids."
            )
        models = tuple(answer.model for answer in query.answers)
        if len(set(models)) < len(models):
            raise AutoMixError(f"{where}, field answers: a model is repeated: {list(models)}.")
        if len(store) and models != store.models:
            raise AutoMixError(
                f"{where}, field answers: the models are {list(models)}, but "
                f"{list(store.models)} before; every query lists the same models in the same order."
            )
        if len(store) and query.currency != store.currency:
            raise AutoMixError(f"{where}, field currency: a log has one currency throughout.")
        seen.add(query.id)
        store.add(query)
    for further in store.further.values():
        further.fill(len(store.quality))
    return store


def _query(record: Any, where: str) -> LoggedQuery:
    try:
        if not isinstance(record, str):
            return LoggedQuery.model_validate(record)
        with contextlib.suppress(ValidationError):
            return LoggedQuery.model_validate_json(record)
        return LoggedQuery.model_validate(json.loads(record))  # explains better what is wrong
    except ValidationError as error:
        hint = ""
        if isinstance(record, str) and '"answers"' not in record:
            hint = (
                " Is it a routing log? `automix calibrate` writes one from examples; its lines "
                "have an id, and answers of the models."
            )
        raise AutoMixError(f"{where}, {first_problem(error)}{hint}") from error
    except (ValueError, RecursionError) as error:
        raise AutoMixError(f"{where} is not JSON: {error}.") from error
