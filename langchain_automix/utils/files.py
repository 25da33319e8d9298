"""The lines of a file from anywhere: plain or gzipped, and never more than fits into memory."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from langchain_automix.errors import AutoMixError

LONGEST_LINE = 2**25
"""Characters: a line holds one query or example."""

_BLANK_LINES = 1_000_000
# A gzip file can hold a thousand times its size; JSON lines with different ids come to some 50.
_RATIO = 200
_FREE = 2**28


def bounded_lines(file: IO[str], path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text that are not blank, with their numbers.

    Raises:
        AutoMixError: A line is too long for one query, there are too many blank ones, or the
            text is far larger than its file.
    """
    most = max(_FREE, _RATIO * path.stat().st_size)
    number, read, blank = 0, 0, 0
    while line := file.readline(LONGEST_LINE):
        number += 1
        read += len(line)
        if len(line) == LONGEST_LINE:
            raise AutoMixError(
                f"{path}, line {number} is too long: a line of more than {LONGEST_LINE:,} "
                "characters is no query."
            )
        if read > most:
            raise AutoMixError(
                f"{path}, line {number}: too much for its size, over {_RATIO} times as much as "
                "the file; unpack it first if it is right."
            )
        blank = 0 if (told := bool(line.strip())) else blank + 1
        if blank > _BLANK_LINES:
            raise AutoMixError(f"{path}, line {number}: too much of it is blank.")
        if told:
            yield number, line


@contextlib.contextmanager
def atomic_replace(path: Path) -> Iterator[Path]:
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
    except OSError as error:
        raise AutoMixError(f"{path} cannot be written: {error.strerror}.") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
