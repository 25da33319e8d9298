"""The journal of a calibration: each finished call, written to disk before its result is used."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
import zlib
from array import array
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any, Self

from langchain_automix.calibration.entries import Entry, validate_entry
from langchain_automix.calibration.examples.fields import to_json_default
from langchain_automix.errors import AutoMixError

if sys.platform != "win32":
    import fcntl

_SYNC_SECONDS = 1.0
_LONGEST_LINE = 2**28  # bytes
_RESERVE_BYTES = 2_000_000
"""Disk space reserved for the calls that are running when the disk fills up."""

OFFSET = "offset"
"""Key of an entry that was read from the file: the offset of its line in bytes."""

_HEADER: Entry = {"journal": "langchain-automix/calibration", "version": 1}


# Not a database: if a file is cut short, or copied without its write-ahead log, SQLite loses every
# call, whereas lines of text lose only the last one. SQLite was not faster either.
class Journal:
    """Append-only file of finished calls: one line of JSON for each call, with a checksum.

    A line reaches the operating system before `add` returns, so it survives the process. It reaches
    the disk about a second later, so a power failure costs at most that second. Entries are read
    back from the file: memory holds only the offsets of lines, some dozens of bytes for each call.

    Args:
        path: The file; created if missing. Only one process at a time can open it.
        on_call: Called with each finished or failed call that the file already contains.

    Attributes:
        is_new: Whether the file was empty.
        calls: Number of finished calls in the file.
        torn: Number of bytes in a last line that was cut short; its call is made again.
        full: Whether the disk is full: only running calls can still be kept.
        settings: Settings of the last session in this file.
        ended: Whether that session ended properly.
        lost: Calls of earlier sessions that have a beginning but no end, and the number of times:
            by example, key, and name of the check if there are several. They may have been billed.
        tells_beginnings: Whether that session recorded the beginning of each call; earlier versions
            did not.

    Raises:
        AutoMixError: The file cannot be written, another process has it open, or a line is damaged.
    """

    def __init__(self, path: Path, on_call: Callable[[Entry], None] = lambda _: None) -> None:
        self.path, self.calls, self.torn = path, 0, 0
        self.full, self.ended, self.tells_beginnings = False, True, False
        self.lost: dict[tuple[str, str, str | None], int] = {}
        self.settings: dict[str, Any] = {}
        self._session: Entry | None = None
        self._offsets: dict[str, array[int]] = {}
        self._rows: dict[str, tuple[int, str]] = {}
        self._lock = threading.RLock()
        self._synced = 0.0
        self._reserve = path.with_name(path.name + ".reserve")
        self._end, self.is_new = 0, False
        try:
            self._file = _open_locked(path)
            self._reader = path.open("rb")
        except OSError as error:
            raise AutoMixError(
                f"The journal {path} cannot be written: {error.strerror}. No call was made."
            ) from error
        try:
            self._end = self._read(on_call)
            self.is_new = self._end == 0
            if self.is_new:
                self._append(_HEADER)
            self._fill_reserve()
        except BaseException:
            self.discard()
            self._close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def close(self) -> None:
        """Flush everything to the disk and close the file."""
        with self._lock, contextlib.suppress(OSError):
            if not self._file.closed:
                os.fsync(self._file.fileno())
                self._reserve.unlink(missing_ok=True)
                self._close()

    def discard(self) -> None:
        """Delete the file if this process created it and it contains no call."""
        # The lock is still held, so the file belongs to this process.
        if self.is_new and self._end <= len(_encode(_HEADER)):
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)

    def _close(self) -> None:
        self._reader.close()
        self._file.close()  # releases the lock

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Begin a session with these settings; they are written with its first call."""
        self._session = {"session": dict(settings), "at": time.time()}

    def end(self, why: str) -> None:
        """Record the end of the session, if it made a call."""
        if self._session is None:
            self._append({"ended": why, "at": time.time()})

    def begin_call(self, example: str, key: str, check: str | None = None) -> None:
        """Record that a call is about to be made. If no end follows, it may have been billed.

        Raises:
            AutoMixError: The line could not be written; do not make the call.
        """
        self._begin_session()
        named = {} if check is None else {"check": check}
        self._append({"begun": key, "example": example, **named})

    def add(self, example: str, key: str, entry: Entry) -> None:
        """Keep one finished or failed call.

        Args:
            example: The example's key, as returned by `example_key`.
            key: Key of the call.
            entry: Its output, time and usage, or its `error`.

        Raises:
            AutoMixError: The line could not be written; no part of it is in the file.
        """
        self._begin_session()
        offset = self._append({"example": example, "call": key, **entry})
        self.calls += "error" not in entry
        self._offsets.setdefault(example, array("q")).append(offset)

    def _begin_session(self) -> None:
        with self._lock:
            if self._session is not None:
                session, self._session = self._session, None
                self._append(session)

    def add_row(self, example: str, digest: str, row: Entry) -> None:
        """Keep the finished row of an example, by the example's id."""
        self._rows[example] = (self._append({"example": example, "row": digest, **row}), digest)

    def calls_of(self, example: str) -> dict[str, Entry]:
        """Return the finished calls of an example, by key, without failed calls."""
        entries = map(self._line, self._offsets.get(example, ()))
        return {entry["call"]: entry for entry in entries if "error" not in entry}

    def knows(self, example: str) -> bool:
        """Return whether a call was made for this example before."""
        return example in self._offsets

    def row(self, example: str, digest: str) -> Entry | None:
        """Return the row of an example, by its id, if its digest is unchanged."""
        offset, kept = self._rows.get(example, (0, ""))
        return self._line(offset) if kept == digest else None

    def _line(self, offset: int) -> Entry:
        with self._lock:
            self._reader.seek(offset)
            line = self._reader.readline()
        if (entry := _decode(line)) is None:
            raise AutoMixError(f"The journal {self.path} was changed while it was in use.")
        return {**entry, OFFSET: offset}

    def place(self, entry: Entry) -> str:
        """Return the place of an entry for messages: its line in the file, if known."""
        if OFFSET not in entry:
            return f"The journal {self.path}"
        with self._lock:
            self._reader.seek(0)
            number = 1
            while self._reader.tell() < entry[OFFSET]:
                self._reader.readline()
                number += 1
        return f"Line {number} of the journal {self.path}"

    def _append(self, entry: Entry) -> int:
        """Write one line, completely or not at all, and return its offset."""
        line = _encode(entry)
        with self._lock:
            offset = self._end
            try:
                self._write(line)
            except OSError as error:
                if self.full or not self._reserve.exists():
                    raise AutoMixError(
                        f"The journal {self.path} cannot be written: {error.strerror}. "
                        f"{self.calls} finished calls are in it; make room, and run the same "
                        "command again."
                    ) from error
                # The reserve is for this line and those of the running calls.
                self.full = True
                self._reserve.unlink()
                return self._append(entry)
            self._end += len(line)
            if (now := time.monotonic()) - self._synced > _SYNC_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = now
            return offset

    def _write(self, line: bytes) -> None:
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(self._end)
            raise

    def _fill_reserve(self) -> None:
        try:
            self._reserve.write_bytes(b"\0" * _RESERVE_BYTES)
        except OSError as error:
            self._reserve.unlink(missing_ok=True)
            raise AutoMixError(
                f"Nothing can be written beside the journal {self.path}: {error.strerror}. "
                "No call was made; fix that, and run the same command again."
            ) from error

    def _read(self, on_call: Callable[[Entry], None]) -> int:
        """Read the lines of earlier sessions, and return the offset for the next line."""
        end, damaged, line = 0, 0, b""
        for number, line in enumerate(iter(partial(self._reader.readline, _LONGEST_LINE), b""), 1):
            if len(line) == _LONGEST_LINE:
                raise AutoMixError(
                    f"Line {number} of the journal {self.path} is longer than any that a "
                    "calibration writes: give another --out."
                )
            entry = _decode(line)
            if entry is not None and damaged:
                raise AutoMixError(
                    f"Line {damaged} of the journal {self.path} is damaged, and others follow it. "
                    "Take the line out, and its call is made again; or give another --out."
                )
            if entry is None or (number == 1 and entry != _HEADER):
                damaged = damaged or number
                continue
            try:
                validate_entry(entry)
                self._index(entry, end, on_call)
            except (AttributeError, KeyError, TypeError, ValueError, ArithmeticError) as error:
                raise AutoMixError(
                    f"Line {number} of the journal {self.path} was not written by a calibration: "
                    "give another --out."
                ) from error
            end += len(line)
        if damaged == 1 and not _encode(_HEADER).startswith(line):
            raise AutoMixError(
                f"{self.path} is not the journal of a calibration. No call was made."
            )
        self.torn = self._reader.tell() - end
        if self.torn:
            self._file.truncate(end)
        return end

    def _index(self, entry: Entry, offset: int, on_call: Callable[[Entry], None]) -> None:
        if "begun" in entry:
            self.tells_beginnings = True
            call = (entry["example"], entry["begun"], entry.get("check"))
            self.lost[call] = self.lost.get(call, 0) + 1
        elif "call" in entry:
            self._offsets.setdefault(entry["example"], array("q")).append(offset)
            self.calls += "error" not in entry
            call = (entry["example"], entry["call"], entry.get("check"))
            if self.lost.get(call, 0) > 1:
                self.lost[call] -= 1
            else:
                self.lost.pop(call, None)
            on_call(entry)
        elif "row" in entry:
            self._rows[entry["example"]] = (offset, entry["row"])
        elif "session" in entry:
            self.settings, self.ended = dict(entry["session"]), False
            self.tells_beginnings = False
        elif "ended" in entry:
            self.ended = True


def _encode(entry: Entry) -> bytes:
    """Return an entry as a line with its checksum."""
    # A truncated reply may end with half a surrogate pair, which is invalid UTF-8, but which
    # `json.loads` can read in this form.
    text = json.dumps(entry, ensure_ascii=False, default=to_json_default)
    body = text.encode("utf-8", "surrogatepass")
    return b'%s, "crc": "%08x"}\n' % (body[:-1], zlib.crc32(body))


def _decode(line: bytes) -> Entry | None:
    """Return the entry in a line; None if it is damaged or cut short."""
    body, _, checksum = line.rpartition(b', "crc": "')
    if checksum != b'%08x"}\n' % zlib.crc32(body + b"}"):
        return None
    try:
        entry = json.loads(body + b"}")
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _open_locked(path: Path) -> IO[bytes]:
    """Open a journal for appending by this process only; a new file is readable only by its owner.

    Raises:
        AutoMixError: Another process has it open.
        OSError: It cannot be opened.
    """
    while True:
        number = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        file = os.fdopen(number, "ab", buffering=0)
        try:
            _lock_file(file, path)
            if path.exists() and os.path.samestat(os.fstat(number), path.stat()):
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # another process has just discarded it


def _lock_file(file: IO[bytes], path: Path) -> None:
    """Lock the file for this process. The lock ends with the process, even if it is killed."""
    if sys.platform == "win32":  # Windows has no such lock
        return
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise AutoMixError(
            f"Another process is writing the journal {path}: wait for it to end, or give another "
            "--out. No call was made."
        ) from error
