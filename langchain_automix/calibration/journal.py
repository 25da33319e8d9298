"""The journal of a calibration: each finished call, on disk before anything is made from it."""

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
from pathlib import Path
from typing import IO, Any, Self

from langchain_core.messages import AIMessage, BaseMessage, message_to_dict, messages_from_dict

from langchain_automix.calibration.config import json_hash
from langchain_automix.calibration.examples.examples import Example
from langchain_automix.calibration.examples.fields import to_json_default
from langchain_automix.calibration.graders.text import Grade
from langchain_automix.errors import AutoMixError
from langchain_automix.models.usage import UsageCollector
from langchain_automix.types import ModelCall, Verification

if sys.platform != "win32":
    import fcntl

_SYNC_SECONDS = 1.0
_BALLAST_BYTES = 2_000_000
"""Disk space kept free for the calls that are under way when a disk fills."""

Entry = dict[str, Any]
_FIRST: Entry = {"journal": "langchain-automix/calibration", "version": 1}


class Journal:
    """Append-only file of finished calls: one line of JSON a call, each with a checksum.

    A line is with the operating system before `add` returns, so that it outlives the process,
    and on the disk about a second later, so that a power failure costs a second. What is found
    again is looked up in the file: in memory stand only the places of lines, some dozens of bytes
    a call.

    Args:
        path: The file; made if it is not there. One process at a time may have it open.
        heard: Is told of each finished call that the file holds already.

    Raises:
        AutoMixError: It cannot be written, another process has it, or a line in it is damaged.
    """

    def __init__(self, path: Path, heard: Callable[[Entry], None] = lambda _: None) -> None:
        self.path = path
        self._heard = heard
        self.torn = 0
        """Bytes of a last line that was cut short; the call that it held is made again."""

        self.full = False
        """Whether the disk is full: what is under way can still be kept, no more."""

        self.settings: dict[str, Any] = {}
        """Of the last session that wrote here."""

        self.ended = True
        """Whether the last session came to its end."""

        self.calls = 0
        """Finished calls in the file."""

        self._session: Entry | None = None
        self._places: dict[str, array[int]] = {}
        self._rows: dict[str, tuple[int, str]] = {}
        self._lock = threading.Lock()
        self._synced = 0.0
        self._ballast = path.with_name(path.name + ".reserve")
        try:
            self._file = path.open("ab", buffering=0)
            self._reader = path.open("rb")
        except OSError as error:
            raise AutoMixError(
                f"The journal {path} cannot be written: {error.strerror}. Nothing was asked."
            ) from error
        try:
            _lock_alone(self._file, path)
            self._end = self._read()
            self.is_new = self._end == 0
            if self.is_new:
                self._append(_FIRST)
            self._reserve()
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def close(self) -> None:
        """Bring everything to the disk, and let go of the file."""
        with self._lock, contextlib.suppress(OSError):
            if not self._file.closed:
                os.fsync(self._file.fileno())
                self._ballast.unlink(missing_ok=True)
                self._close()

    def _close(self) -> None:
        self._reader.close()
        self._file.close()  # and with it the lock

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Begin a session with these settings; noted with its first call."""
        self._session = {"session": dict(settings), "at": time.time()}

    def end(self, why: str) -> None:
        """Note that the session came to its end, if it made a call."""
        if self._session is None:
            self._append({"ended": why, "at": time.time()})

    def add(self, example: str, key: str, entry: Entry) -> None:
        """Keep one finished call, or what one failed of.

        Args:
            example: What the example's calls are kept by.
            key: The call.
            entry: What it returned and took; or `error`.

        Raises:
            AutoMixError: It could not be written, and is not in the file.
        """
        if self._session is not None:
            session, self._session = self._session, None
            self._append(session)
        place = self._append({"example": example, "call": key, **entry})
        self.calls += "error" not in entry
        self._places.setdefault(example, array("q")).append(place)

    def add_row(self, example: str, digest: str, row: Entry) -> None:
        """Keep what all calls of an example came to, by its id."""
        self._rows[example] = (self._append({"example": example, "row": digest, **row}), digest)

    def calls_of(self, example: str) -> dict[str, Entry]:
        """Return the finished calls of an example, by key; failed ones are not among them."""
        found = (self._line(place) for place in self._places.get(example, ()))
        return {entry["call"]: entry for entry in found if "error" not in entry}

    def knows(self, example: str) -> bool:
        """Whether a call for this example was made before."""
        return example in self._places

    def row(self, example: str, digest: str) -> Entry | None:
        """Return what the example of an id came to, if it was under the same settings."""
        place, kept = self._rows.get(example, (0, ""))
        return self._line(place) if kept == digest else None

    def _line(self, place: int) -> Entry:
        with self._lock:
            self._reader.seek(place)
            line = self._reader.readline()
        if (entry := _checked(line)) is None:
            raise AutoMixError(f"The journal {self.path} was changed while it was in use.")
        return entry

    def _append(self, entry: Entry) -> int:
        """Write one line, whole or not at all; return its place."""
        line = _sealed(entry)
        with self._lock:
            place = self._end
            try:
                self._write(line)
            except OSError as error:
                if self.full or not self._ballast.exists():
                    raise self._lost(error) from error
                # What was kept back is for this line, and for those of the calls under way.
                self.full = True
                self._ballast.unlink()
                try:
                    self._write(line)
                except OSError as again:
                    raise self._lost(again) from again
            self._end = place + len(line)
            if (now := time.monotonic()) - self._synced > _SYNC_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = now
            return place

    def _write(self, line: bytes) -> None:
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(self._end)
            raise

    def _lost(self, error: OSError) -> AutoMixError:
        return AutoMixError(
            f"The journal {self.path} cannot be written: {error.strerror}. {self.calls} finished "
            "calls are in it; make room, and run the same command again."
        )

    def _reserve(self) -> None:
        try:
            self._ballast.write_bytes(b"\0" * _BALLAST_BYTES)
        except OSError as error:
            self._ballast.unlink(missing_ok=True)
            raise AutoMixError(
                f"Nothing can be written beside the journal {self.path}: {error.strerror}. "
                "Nothing was asked; mend that, and run the same command again."
            ) from error

    def _read(self) -> int:
        """Read what earlier sessions wrote; return where the next line goes."""
        place, bad, line = 0, 0, b""
        for number, line in enumerate(self._reader, 1):
            entry = _checked(line)
            if entry is not None and bad:
                raise AutoMixError(
                    f"Line {bad} of the journal {self.path} is damaged, and others follow it. "
                    "Take the line out, and its call is made again; or give another --out."
                )
            if entry is None or (number == 1 and entry != _FIRST):
                bad = bad or number
                continue
            try:
                self._note(entry, place)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise AutoMixError(
                    f"Line {number} of the journal {self.path} is none that a calibration writes: "
                    "give another --out."
                ) from error
            place += len(line)
        if bad == 1 and not _HEADER.startswith(line):
            raise AutoMixError(f"{self.path} is not the journal of a calibration: nothing is done.")
        if (size := self._reader.tell()) > place:
            self.torn = size - place
            self._file.truncate(place)
        return place

    def _note(self, entry: Entry, place: int) -> None:
        if "call" in entry:
            self._places.setdefault(entry["example"], array("q")).append(place)
            if "error" not in entry:
                self.calls += 1
                self._heard(entry)
        elif "row" in entry:
            self._rows[entry["example"]] = (place, entry["row"])
        elif "session" in entry:
            self.settings, self.ended = dict(entry["session"]), False
        elif "ended" in entry:
            self.ended = True


def _sealed(entry: Entry) -> bytes:
    """Return an entry as a line, with its checksum."""
    # Half of a pair of surrogates, as a model that is cut short may send it, is no valid UTF-8;
    # `json.loads` reads it in this form.
    body = json.dumps(entry, ensure_ascii=False, default=to_json_default).encode(
        "utf-8", "surrogatepass"
    )
    return b'%s, "crc": "%08x"}\n' % (body[:-1], zlib.crc32(body))


_HEADER = _sealed(_FIRST)


def _checked(line: bytes) -> Entry | None:
    """Return what a line holds; None if it is damaged or cut short."""
    body, mark, seal = line.rpartition(b', "crc": "')
    if not mark or seal != b'%08x"}\n' % zlib.crc32(body + b"}"):
        return None
    try:
        entry = json.loads(body + b"}")
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _lock_alone(file: IO[bytes], path: Path) -> None:
    """Take the file for this process; the lock ends with the process, however it ends."""
    if sys.platform == "win32":  # it has no such lock
        return
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise AutoMixError(
            f"Another process is writing the journal {path}: wait for it to end, or give another "
            "--out. Nothing was asked."
        ) from error


def example_key(example: Example) -> str:
    """Return what the calls of an example are kept by: what it asks, whatever its id and place."""
    said = [dict(message) for message in example.messages]
    return json_hash([example.question, example.context, said, example.prompt])


def to_entry(output: Any) -> dict[str, Any]:
    """Return what a call returned, as JSON holds it, with its kind."""
    if isinstance(output, BaseMessage):
        return {"message": message_to_dict(output)}
    if isinstance(output, Verification):
        return {"verification": output.model_dump(mode="json")}
    if isinstance(output, Grade):
        return {"grade": output.model_dump(mode="json")}
    return {"value": output}


def from_entry(entry: Entry, bills: list[UsageCollector]) -> Any:
    """Return what a kept call returned; its bill is heard as it was then."""
    [(kind, value)] = entry["output"].items()
    made: Any = value
    if kind == "message":
        [made] = messages_from_dict([value])
    elif kind == "verification":
        made = Verification.model_validate(value)
    elif kind == "grade":
        made = Grade.model_validate(value)
    for bill in bills:
        bill.calls = [ModelCall.model_validate(call) for call in entry["calls"]]
        replies = messages_from_dict(entry["replies"]) if "replies" in entry else [made]
        bill.replies = [reply for reply in replies if isinstance(reply, AIMessage)]
    return made


def to_plain_input(value: Any) -> Any:
    """Return an input as JSON holds it, so that equal inputs have equal keys."""
    if isinstance(value, BaseMessage):
        return [value.type, value.content, getattr(value, "tool_calls", [])]
    if isinstance(value, Mapping):
        return {str(key): to_plain_input(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain_input(each) for each in value]
    to_messages = getattr(value, "to_messages", None)
    return to_plain_input(to_messages()) if to_messages is not None else value
