"""Read a log by its shards, here or by the workers of a Ray cluster, and put them together."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from langchain_automix.errors import AutoMixError
from langchain_automix.policy.data.columns import LogColumns
from langchain_automix.policy.data.reading import read_file, stored
from langchain_automix.utils.ray_cluster import is_ray_dataset, map_blocks, map_on_ray

ENDINGS = (".jsonl", ".jsonl.gz", ".parquet")


def read_shards(
    source: Any, *, engine: Literal["ray"] | None = None, texts: bool | None = None
) -> LogColumns:
    """Read a log, by its shards; the arguments are those of `RoutingLog.read`.

    Raises:
        AutoMixError: As there.
    """
    if engine not in (None, "ray"):
        raise AutoMixError(f"engine must be 'ray' or None, not {engine!r}.")
    if is_ray_dataset(source):
        keeps = bool(texts)
        parts = map_blocks(partial(_read_block, texts=keeps), source)
        return _joined((f"block {n}", store) for n, store in enumerate(parts, 1))
    paths = log_files(source)
    keeps = engine is None if texts is None else texts
    read = partial(read_file, texts=keeps)
    stores = map(read, paths) if engine is None else map_on_ray(read, paths)
    return _joined(zip(map(str, paths), stores, strict=True))


def log_files(source: str | Path) -> list[Path]:
    """Return the files of a log: itself, those in a folder, or those that a pattern names.

    Raises:
        AutoMixError: There is none.
    """
    path = Path(source)
    if path.is_dir():
        found = sorted(each for each in path.iterdir() if _is_shard(each))
    elif glob.has_magic(str(source)) and not path.exists():
        found = sorted(Path(each) for each in glob.glob(str(source), recursive=True))  # noqa: PTH207  (an absolute one)
    else:
        return [path]
    if not found:
        raise AutoMixError(
            f"{source} holds no routing log: files of it end in {', '.join(ENDINGS)}."
        )
    return found


def _is_shard(path: Path) -> bool:
    """Return whether a path in the folder of a log is one of its files.

    Names that begin with a dot or an underscore are those of marks and unfinished files, as Spark
    has them.

    Raises:
        AutoMixError: It is a folder that holds files of a log, which would be left out.
    """
    if path.name.startswith((".", "_")):
        return False
    if path.is_dir():
        if any(_is_shard(each) for each in path.iterdir()):
            raise AutoMixError(
                f"{path} is a folder within a log's: name the files of all folders by a pattern, "
                f"such as '{path.parent}/**/*{ENDINGS[0]}'."
            )
        return False
    return path.name.lower().endswith(ENDINGS)


def _read_block(block: Any, *, texts: bool) -> LogColumns:
    """Read a block of a dataset: an Arrow table."""
    from langchain_automix.policy.data.tabular import table_records  # noqa: PLC0415  (an extra)

    return stored(enumerate(table_records(block), 1), place="row", texts=texts)


def _joined(parts: Iterable[tuple[str, LogColumns]]) -> LogColumns:
    """Return shards as one store, in their order.

    Raises:
        AutoMixError: An id stands in two of them, or the models or currencies differ.
    """
    whole, seen = LogColumns(), set[str]()
    for place, part in parts:
        if not len(part):
            continue
        if len(whole):
            _check_same(whole, part, place)
        if not seen.isdisjoint(part.ids):
            repeated = next(id for id in part.ids if id in seen)
            raise AutoMixError(f"{place}: the id {repeated!r} stands in another shard, too.")
        seen.update(part.ids)
        if not len(whole):
            whole = part
        else:
            whole.append(part)
    return whole


def _check_same(whole: LogColumns, part: LogColumns, place: str) -> None:
    if part.models != whole.models:
        raise AutoMixError(
            f"{place}: the models are {list(part.models)}, but {list(whole.models)} in the shards "
            "before; all of a log list the same models in the same order."
        )
    if part.currency != whole.currency:
        raise AutoMixError(
            f"{place}: the currency is {part.currency}, but {whole.currency} in the shards before."
        )
