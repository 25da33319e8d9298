"""Many clients that ask a server over sockets, and cost little themselves."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

DONE = b"data: [DONE]\n\n"
_CLOSED = (OSError, asyncio.IncompleteReadError)


@dataclass(frozen=True)
class Timing:
    """What one request took, in seconds."""

    first: float
    """Until the first byte of the body came."""

    whole: float


@dataclass
class Tally:
    """What came of many requests."""

    timings: list[Timing] = field(default_factory=list)
    failed: list[float] = field(default_factory=list)
    """When those requests were sent that did not get their whole answer (`time.perf_counter`)."""

    errors: list[int] = field(default_factory=list)
    """Statuses of answers that were errors."""

    @property
    def is_whole(self) -> bool:
        """Whether every request got its whole answer."""
        return not (self.failed or self.errors)

    def __str__(self) -> str:
        return f"{len(self.timings)} answered, {len(self.failed)} failed, errors {self.errors[:5]}"


@dataclass(frozen=True)
class Asked:
    """Where a request goes, and what it asks as a stream."""

    port: int
    model: str
    question: str

    @property
    def content(self) -> bytes:
        messages = [{"role": "user", "content": self.question}]
        asked = {"model": self.model, "messages": messages, "stream": True}
        body = json.dumps(asked).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


class Client:
    """One client with a connection of its own, which it keeps."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.in_flight = False

    async def ask(self, asked: Asked) -> Timing | None:
        """Ask once; None: there was no whole answer."""
        if self._streams is not None and self._streams[0].at_eof():
            self.close()  # by the server, while it was idle
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", asked.port)
            reader, writer = self._streams
        except OSError:
            return None  # nothing was sent
        start = time.perf_counter()
        self.in_flight = True
        try:
            writer.write(asked.content)
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.read(65_536)
            first = time.perf_counter() - start
            while not body.endswith(b"0\r\n\r\n") and b"content-length" not in head.lower():
                if not (part := await reader.read(65_536)):
                    raise asyncio.IncompleteReadError(body, None)
                body += part
        except _CLOSED:
            self.close()
            self._tally.failed.append(start)
            return None
        finally:
            self.in_flight = False
        if b"connection: close" in head.lower():
            self.close()
        if not head.startswith(b"HTTP/1.1 200 "):
            self._tally.errors.append(int(head[9:12]))
            return None
        if DONE not in body:
            self._tally.failed.append(start)
            return None
        return Timing(first, time.perf_counter() - start)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def ask_side_by_side(
    number: int,
    asked: list[Asked],
    goes_on: Callable[[], bool],
    tally: Tally | None = None,
    clients: list[Client] | None = None,
    pause: float = 0.0,
) -> Tally:
    """Have so many clients ask again and again; each asks all of a list in turn, as one request.

    Args:
        number: Clients.
        asked: What is asked one after the other; a timing is of all of them.
        goes_on: Whether a client asks again.
        tally: Where it is counted; None: in a new one.
        clients: Is given the clients.
        pause: Mean seconds for which a client waits before it asks (exponential).
    """
    tally = tally or Tally()

    async def one(client: list[Client]) -> None:
        while goes_on():
            if not await _paused(pause, goes_on):
                return
            start, timing = time.perf_counter(), None
            for each, at in zip(client, asked, strict=True):
                began = time.perf_counter()
                if (timing := await each.ask(at)) is None:
                    await asyncio.sleep(0.01)
                    break
            if timing is not None:
                end = time.perf_counter()
                tally.timings.append(Timing(began - start + timing.first, end - start))

    made = [[Client(tally) for _ in asked] for _ in range(number)]
    everyone = [each for client in made for each in client]
    if clients is not None:
        clients += everyone
    try:
        await asyncio.gather(*(one(client) for client in made))
    finally:
        for each in everyone:
            each.close()
    return tally


async def _paused(mean: float, goes_on: Callable[[], bool]) -> bool:
    """Wait for an exponential time; return whether the client still goes on."""
    until = time.monotonic() + (random.expovariate(1 / mean) if mean else 0.0)
    while (left := until - time.monotonic()) > 0 and goes_on():  # noqa: ASYNC110  (what ends it is no event)
        await asyncio.sleep(min(0.05, left))
    return not mean or goes_on()
