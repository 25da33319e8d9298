"""`RoutingLog`: recorded qualities, verifications and costs of all models on some queries."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, overload

from pydantic import ValidationError

from langchain_automix.errors import AutoMixError, first_problem
from langchain_automix.policy.data.columns import LogColumns
from langchain_automix.policy.data.reading import open_text, stored
from langchain_automix.policy.data.records import FIRST_CHECK, LoggedQuery
from langchain_automix.policy.data.shards import read_shards
from langchain_automix.utils.check_spec import CheckSpec
from langchain_automix.utils.files import atomic_replace
from langchain_automix.utils.formatting import pluralize

_SHOWN_IDS = 5


class RoutingLog(Sequence[LoggedQuery]):
    """Recorded queries, each with the answers of the same models in the same order.

    What a policy is fitted from and replayed on. Kept as JSON lines, one query a line, plain or
    gzipped, or as Parquet, by the file's name; in memory in columns, so that a million queries
    take some hundreds of megabytes.

    Args:
        queries: The recorded queries, as `LoggedQuery` or as mappings of the same shape.

    Raises:
        AutoMixError: A record is invalid, an id is repeated, or the models or the currency
            differ between queries; the message names place and field.
    """

    def __init__(self, queries: Iterable[LoggedQuery | Mapping[str, Any]]) -> None:
        self._store = stored(enumerate(queries, 1), place="record")

    @classmethod
    def _of(cls, store: LogColumns) -> Self:
        log = cls(())
        log._store = store
        return log

    @classmethod
    def read(
        cls, source: Any, *, engine: Literal["ray"] | None = None, texts: bool | None = None
    ) -> Self:
        """Read a log, all of it, or an error.

        Args:
            source: A `.jsonl`, `.jsonl.gz` or `.parquet` file; a folder of such files, or a pattern
                such as `"logs/*.jsonl"`, whose files are taken in the order of their names; or a
                dataset of Ray, such as `ray.data.read_parquet("s3://bucket/logs")`.
            engine: `ray`: the files are read side by side by the workers of a Ray cluster, the one
                that this process is connected to, else as `ray.init` finds or starts it (extra
                `ray`); what comes of it is the same. None: by this process.
            texts: Whether the metadata of all queries, with their texts, is kept. If not, only what
                it says of checks and labels is, and a million queries of two models take some 200
                megabytes. None: yes, unless Ray reads the log.

        Raises:
            AutoMixError: A file cannot be read, a line is no query, an id is repeated, or the
                models or the currency differ between queries; the message names place and field.
        """
        return cls._of(read_shards(source, engine=engine, texts=texts))

    def write(self, path: str | Path) -> None:
        """Write the log, in the format of the file's name; a reader never sees half of it."""
        write_records(Path(path), self.records(), checks=bool(self._store.further))

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield each query as a mapping, in the form of a line of a file."""
        return map(self._store.record, range(len(self)))

    @classmethod
    def join(cls, logs: Iterable[RoutingLog] | Mapping[str, RoutingLog]) -> Self:
        """Return several logs as one, such as the shards of a calibration, in their order.

        Args:
            logs: Logs with the same models and currency. A mapping names each: its ids then begin
                with the name, as in `shard1:q1`, so that two logs may use the same ids.

        Raises:
            AutoMixError: Logs without names use the same ids, or the models or currencies differ.
        """
        if isinstance(logs, Mapping):
            named = ((f"{name}:", log) for name, log in logs.items())
            records = [
                {**r, "id": prefix + r["id"]} for prefix, log in named for r in log.records()
            ]
            return cls._of(stored(enumerate(records, 1), place="record"))
        logs = list(logs)
        counts = Counter(id for log in logs for id in log.store.ids)
        if repeated := [id for id, count in counts.items() if count > 1]:
            verb = "stands" if len(repeated) == 1 else "stand"
            more = ", ..." if len(repeated) > _SHOWN_IDS else "."
            raise AutoMixError(
                f"{pluralize(len(repeated), 'id')} {verb} in more than one log: "
                f"{', '.join(repeated[:_SHOWN_IDS])}{more} "
                "Give the logs by name to keep all of these queries: "
                "RoutingLog.join({'first': log, 'second': other})."
            )
        return cls._of(stored(enumerate((r for log in logs for r in log.records()), 1), "record"))

    @classmethod
    def from_pandas(cls, frame: Any) -> Self:
        """Return the log in a frame of pandas or polars with one row an answer.

        Columns: id, model, quality, cost, and where there was a check, verdicts (a list) with
        check_cost and sample_cost, or score with check_cost. The answers of a query are
        neighbours, in the order of the models.
        """
        from langchain_automix.policy.data.tabular import from_pandas  # noqa: PLC0415

        return cls(from_pandas(frame))

    def to_pandas(self) -> Any:
        """Return a frame with one row an answer, as `from_pandas` takes it."""
        from langchain_automix.policy.data.tabular import to_pandas  # noqa: PLC0415

        return to_pandas(self._store)

    def select(
        self,
        *,
        models: Sequence[str] | None = None,
        where: Callable[[LoggedQuery], bool] | None = None,
        check: str | None = None,
    ) -> RoutingLog:
        """Return a part of the log.

        Args:
            models: Names of the models to keep, cheap to expensive. None: all.
            where: Returns whether to keep a query. None: all.
            check: The check to keep alone, one of `checks`; it is the `verification` of the new
                log. None: all.

        Raises:
            AutoMixError: The log has no such model, or no such check.
        """
        unknown = [name for name in models or () if name not in self.models]
        if unknown:
            raise AutoMixError(f"The log has no model {unknown[0]!r}; it has {list(self.models)}.")
        if check is not None and check not in (FIRST_CHECK, *self.checks):
            raise AutoMixError(f"The log has no check {check!r}; it has {list(self.checks)}.")
        kept = [self.models.index(name) for name in self.models if models is None or name in models]
        places = (i for i in range(len(self)) if where is None or where(self[i]))
        return RoutingLog._of(self._store.part(places, kept, check))

    def split(self, share: float = 0.5, *, seed: int = 0) -> tuple[RoutingLog, RoutingLog]:
        """Return two logs, of random queries: about `share` of them, and the others.

        Args:
            share: Of the queries, for the first log, in (0, 1).
            seed: The same seed gives the same two logs.
        """
        if not 0 < share < 1:
            raise AutoMixError(f"The share of a split must lie between 0 and 1, not {share!r}.")
        order = list(range(len(self)))
        random.Random(seed).shuffle(order)  # noqa: S311  (no secret)
        cut = round(share * len(order))
        both = (sorted(order[:cut]), sorted(order[cut:]))
        models = range(len(self.models))
        first, second = (RoutingLog._of(self._store.part(part, models)) for part in both)
        return first, second

    def summary(self) -> dict[str, Any]:
        """Return what the log holds: queries, and for each model answers, means and checks."""
        models = {}
        store, width = self._store, len(self.models)
        for j, name in enumerate(self.models):
            quality = [q for q in store.quality[j::width] if q == q]  # noqa: PLR0124  (not NaN)
            cost = [c for c in store.cost[j::width] if c == c]  # noqa: PLR0124
            models[name] = {
                "answers": len(quality),
                "quality": sum(quality) / len(quality) if quality else None,
                "cost": sum(cost) / len(cost) if cost else None,
                "checked": sum(kind != 0 for kind in store.kind[j::width]),
            }
        return {"queries": len(self), "currency": self.currency, "models": models}

    @overload
    def __getitem__(self, index: int) -> LoggedQuery: ...
    @overload
    def __getitem__(self, index: slice) -> RoutingLog: ...
    def __getitem__(self, index: int | slice) -> LoggedQuery | RoutingLog:
        places = range(len(self))[index]
        if isinstance(places, range):
            return RoutingLog._of(self._store.part(places, range(len(self.models))))
        # What is in the store was validated on its way in.
        return LoggedQuery.model_validate(self._store.record(places))

    def __len__(self) -> int:
        return len(self._store)

    def __repr__(self) -> str:
        return f"RoutingLog({len(self)} queries, models={list(self.models)})"

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models, cheap to expensive; empty for an empty log."""
        return self._store.models

    @property
    def currency(self) -> str | None:
        """Unit of every cost in the log, where it says so."""
        return self._store.currency

    @property
    def checks(self) -> tuple[str, ...]:
        """Names of its checks: `first` for what `verification` holds, then the further ones."""
        first = (FIRST_CHECK,) if any(self._store.kind) else ()
        return (*first, *self._store.further)

    @property
    def verifier(self) -> str | None:
        """Fingerprint of the verifier that checked, as the metadata of all queries has it.

        None where a query has none, or another one.
        """
        return self.said_by_all("verifier")

    @property
    def check_spec(self) -> CheckSpec | None:
        """How that verifier is rebuilt, as the metadata has it; None where that is not known.

        Rows of earlier versions do not say, and count for nothing.

        Raises:
            AutoMixError: What the metadata holds is no such description.
        """
        if (verifier := self.verifier) is None:
            return None
        found: dict[str, Any] | None = None
        for place, metadata in self._store.metadata.items():
            said = metadata.get("check_spec")
            if said is None or said == found:
                continue
            if found is not None:  # two numbers of verdicts, which no fingerprint tells apart
                return None
            found, first = said, place
        if found is None:
            return None
        try:
            spec = CheckSpec.model_validate(found)
        except ValidationError as error:
            query = self._store.ids[first]
            raise AutoMixError(
                f"Query {query!r}, field metadata.check_spec: {first_problem(error)}"
            ) from error
        return spec if spec.fingerprint == verifier else None

    def said_by_all(self, field: str) -> str | None:
        """Return the text that the metadata of all queries has in a field; None if they differ."""
        metadata = self._store.metadata
        found = [(metadata.get(place) or {}).get(field) for place in range(len(self))]
        only = found[0] if found else None
        # Not a set: the file may hold a list here, which has no hash.
        return only if isinstance(only, str) and all(each == only for each in found) else None

    @property
    def store(self) -> LogColumns:
        """The columns that hold the log; not to be changed."""
        return self._store


def write_records(path: Path, records: Iterable[dict[str, Any]], *, checks: bool = False) -> None:
    """Write queries in the format of the file's name; all of them, or nothing.

    Args:
        path: The file.
        records: The queries.
        checks: Whether some have further checks, which a Parquet schema must declare first.

    Raises:
        AutoMixError: The file cannot be written, or an undeclared further check appears.
    """
    with atomic_replace(path, private=True) as unfinished:
        if path.suffix == ".parquet":
            from langchain_automix.policy.data.tabular import write_parquet  # noqa: PLC0415  (an extra)

            write_parquet(unfinished, records, checks=checks)
            return
        with open_text(unfinished, "w", named=path) as out:
            for record in records:
                out.write(json.dumps(record, allow_nan=False))
                out.write("\n")
