"""Read lines of untrusted files with bounded memory, and replace files atomically."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from langchain_automix.errors import AutoMixError

LONGEST_LINE = 2**25
"""Maximum length of a line, in characters."""

_MAX_BLANK_LINES = 1_000_000
# Gzip can compress a thousandfold, but JSON lines with different ids compress about 50-fold.
_MAX_RATIO = 200
_MIN_CHARACTERS = 2**28
_LONGEST_NAME = 200  # with its ending, within the 255 bytes of a file name


def bounded_lines(file: IO[str], path: Path) -> Iterator[tuple[int, str]]:
    """Yield the non-blank lines of a text, with their numbers.

    Raises:
        AutoMixError: A line is too long, too many lines are blank, or the text is far larger than
            its file.
    """
    max_characters = max(_MIN_CHARACTERS, _MAX_RATIO * path.stat().st_size)
    number, read, blank = 0, 0, 0
    while line := file.readline(LONGEST_LINE):
        number += 1
        read += len(line)
        if len(line) == LONGEST_LINE:
            raise AutoMixError(
                f"{path}, line {number} is too long: a line of more than {LONGEST_LINE:,} "
                "characters is no query."
            )
        if read > max_characters:
            raise AutoMixError(
                f"{path}, line {number}: the text is much larger than the file, more than "
                f"{_MAX_RATIO} times; unpack the file first if that is right."
            )
        if line.strip():
            blank = 0
            yield number, line
        elif (blank := blank + 1) > _MAX_BLANK_LINES:
            raise AutoMixError(f"{path}, line {number}: too long a run of blank lines.")


@contextlib.contextmanager
def atomic_replace(path: Path, *, private: bool = False) -> Iterator[Path]:
    """Yield a temporary file beside `path` to write to, and rename it to `path` on success.

    Args:
        path: The file to write or replace.
        private: Whether only its owner may read it.

    Raises:
        AutoMixError: The file cannot be written.
    """
    temporary = path.with_name(f".{path.name[:_LONGEST_NAME]}.{secrets.token_hex(4)}")
    try:
        # The system applies the umask, which a process cannot read without changing it.
        mode = 0o600 if private else 0o666
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
    except OSError as error:
        raise AutoMixError(f"{path} cannot be written: {error.strerror}.") from error
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise AutoMixError(f"{path} cannot be written: {error.strerror}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def reason_of(error: Exception) -> str:
    """Return why a file cannot be used, without its name and the error number."""
    return getattr(error, "strerror", None) or str(error)
