"""A faulty provider in a process of its own, which bills exactly and keeps its own books.

It speaks just enough of HTTP and of OpenAI's chat completions, and does little else, so that many
thousand requests cost little. Each query has a mark, which its answer must bear: by that, an
answer that is lost or mixed up is found. Run as a module, it prints its port; `running` does so.
"""

# ruff: noqa: T201

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import subprocess
import sys
import urllib.request
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from tests.support.builders.scripted_replies import ACCEPT, REJECT
from tests.support.servers.loopback import event

MARK = re.compile(r"K\d{7}[eh]")
"""The mark of a query: its number, and whether it is easy or hard for the small model."""

FAULTS = {
    "500": 3,
    "429": 3,
    "cut before": 2,
    "cut": 3,
    "short": 2,
    "malformed": 2,
    "empty": 2,
    "invalid": 3,
    "slow": 1,
}
"""What goes wrong, and how often beside the others. `cut before`: the connection breaks before any
of the answer. `cut`: in its midst. `short`: a stream ends without having said that it does; whole
answers are cut instead. `invalid`: verdicts that say nothing; answers are empty instead. `slow`:
the answer never comes."""

REFUSED = frozenset({"500", "429"})
"""Faults that are not billed."""

UNSEEN = frozenset({"cut before", "cut", "short", "malformed", "slow"})
"""Faults that are billed, though no bill gets through."""

_INVALID = "I would rather not say."
_PATIENCE = 60.0


@dataclass(frozen=True)
class Request:
    """One request, as the provider has it in its books."""

    model: str
    stage: str
    """`answer` or `check`."""

    fault: str | None
    retry: int
    """How often the client's own retries had made the same request before."""

    input: int
    """Tokens billed, as the next one."""

    output: int


def answer_of(mark: str, model: str) -> str:
    """Return the one right answer of a model to a query."""
    return f"{mark} is on shelf {zlib.crc32(f'{mark} {model}'.encode()) % 1000}, says {model}."


class Provider:
    """Answers, bills, and does wrong by lot: the same request has the same fate in every run."""

    def __init__(self, seed: int, share: float) -> None:
        self.seed = seed
        self.share = share
        self.queries: dict[str, list[Request]] = defaultdict(list)
        self.mixed = 0
        """Requests in which marks of several queries stood together."""

        self.requests = 0
        self.at_once = 0
        self.most_at_once = 0
        self.connections = 0
        self._times: Counter[Any] = Counter()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).lower():
                if head.startswith(b"get"):
                    _send(writer, 200, json.dumps(await self._books()).encode())
                    continue
                body = await reader.readexactly(_number(head, b"content-length:"))
                self.at_once += 1
                self.most_at_once = max(self.most_at_once, self.at_once)
                try:
                    if not await self._answer(head, body.decode(), reader, writer):
                        break
                finally:
                    self.at_once -= 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client went away, as it may
        finally:
            self.connections -= 1
            writer.close()

    async def _books(self) -> dict[str, Any]:
        """Return what happened since the last time, once nothing is under way."""
        quiet = 0
        while quiet < 5:
            await asyncio.sleep(0.02)
            quiet = 0 if self.at_once else quiet + 1
        books = {
            "queries": {
                mark: [asdict(each) for each in requests] for mark, requests in self.queries.items()
            },
            "requests": self.requests,
            "mixed": self.mixed,
            "most_at_once": self.most_at_once,
            "connections": self.connections - 1,
        }
        self.queries, self._times = defaultdict(list), Counter()
        self.requests = self.mixed = self.most_at_once = 0
        return books

    async def _answer(
        self, head: bytes, text: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one request; return whether the connection is kept."""
        body = json.loads(text)
        marks = set(MARK.findall(text))
        self.mixed += len(marks) != 1
        self.requests += 1
        mark = min(marks)
        model, stage = body["model"], "check" if "You check answers" in text else "answer"
        self._times[mark, model, stage] += 1
        lot = random.Random(f"{self.seed} {mark} {model} {stage} {self._times[mark, model, stage]}")
        fault = self._fault(lot, stage, streams=bool(body.get("stream")))
        replies = _replies(lot, mark, model, stage, fault, body.get("n") or 1)
        output = sum(len(reply.split()) for reply in replies)
        billed = (0, 0) if fault in REFUSED else (len(text) // 4, output)
        retry = _number(head, b"x-stainless-retry-count:")
        self.queries[mark].append(Request(model, stage, fault, retry, *billed))
        await asyncio.sleep(lot.expovariate(1 / 0.01))
        if fault in REFUSED:
            _send(writer, int(fault or 500), b'{"error": {"message": "by lot"}}')
            return True
        if fault == "cut before":
            return False
        if fault == "slow":
            await _gone(reader)
            return False
        usage = {"prompt_tokens": billed[0], "completion_tokens": output}
        usage["total_tokens"] = sum(billed)
        if body.get("stream"):
            return await _stream(writer, body, replies[0], usage, fault)
        whole = json.dumps(_completion(model, replies, usage)).encode()
        if fault == "malformed":
            whole = whole[: len(whole) // 2] + b"}"
        return _send(writer, 200, whole, half=fault in {"cut", "short"})

    def _fault(self, lot: random.Random, stage: str, *, streams: bool) -> str | None:
        if lot.random() >= self.share:
            return None
        [fault] = lot.choices(list(FAULTS), list(FAULTS.values()))
        if fault == "short" and not streams:
            return "cut"
        if fault == "malformed" and streams:
            return "short"
        if fault in {"empty", "invalid"}:
            return "invalid" if stage == "check" else "empty"
        return fault


def _replies(
    lot: random.Random, mark: str, model: str, stage: str, fault: str | None, n: int
) -> list[str]:
    if stage == "answer":
        return ["" if fault == "empty" else answer_of(mark, model)]
    if fault == "invalid":
        return [_INVALID] * n
    rejects = mark.endswith("h") if model == "small" else lot.random() < 0.3
    return [REJECT if rejects else ACCEPT] * n


def _completion(model: str, replies: list[str], usage: dict[str, int]) -> dict[str, Any]:
    choices = [
        {"index": i, "message": {"role": "assistant", "content": reply}, "finish_reason": "stop"}
        for i, reply in enumerate(replies)
    ]
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": model}
    return {**head, "choices": choices, "usage": usage}


async def _stream(
    writer: asyncio.StreamWriter,
    body: dict[str, Any],
    reply: str,
    usage: dict[str, int],
    fault: str | None,
) -> bool:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return event({**head, "model": body["model"], "choices": [choice]})

    pieces = [chunk({"content": word}) for word in re.findall(r"\S+\s*", reply)]
    writer.write(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    _part(writer, chunk({"role": "assistant", "content": ""}))
    if fault in {"cut", "short"}:
        # From nothing shown at all to everything but the end.
        for piece in pieces[: usage["prompt_tokens"] % (len(pieces) + 1)]:
            _part(writer, piece)
        if fault == "short":
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        return False
    for piece in pieces:
        _part(writer, piece)
        await writer.drain()
        await asyncio.sleep(0)
    ending = chunk({}, "stop")
    if (body.get("stream_options") or {}).get("include_usage"):
        ending += event({**head, "model": body["model"], "choices": [], "usage": usage})
    _part(writer, ending + b"data: [DONE]\n\n")
    writer.write(b"0\r\n\r\n")
    await writer.drain()
    return True


async def _gone(reader: asyncio.StreamReader) -> None:
    """Wait until the client has lost its patience: it has nothing more to say until then."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(reader.read(1), _PATIENCE)


def _part(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%s\r\n" % (len(data), data))


def _send(writer: asyncio.StreamWriter, status: int, data: bytes, *, half: bool = False) -> bool:
    wait = b"retry-after: 0.01\r\n" if status == 429 else b""
    writer.write(
        b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\n%scontent-length: %d\r\n\r\n"
        % (status, wait, len(data))
    )
    writer.write(data[: len(data) // 2] if half else data)
    return not half


def _number(head: bytes, name: bytes) -> int:
    return int(head.partition(name)[2].split(b"\r\n")[0] or 0)


async def main(seed: int, share: float) -> None:
    """Serve until the process that started this one ends, or ends it."""
    provider = Provider(seed, share)
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await asyncio.to_thread(sys.stdin.read)


@contextmanager
def running(seed: int, share: float) -> Iterator[str]:
    """Run the provider, which does wrong on this share of requests, and give its address."""
    command = [sys.executable, "-m", __name__, str(seed), str(share)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def books_of(address: str) -> dict[str, Any]:
    """Return the provider's books since the last time, once it has nothing to do."""
    with urllib.request.urlopen(address, timeout=120) as response:
        books: dict[str, Any] = json.load(response)
    queries = books["queries"].items()
    books["queries"] = {mark: [Request(**each) for each in made] for mark, made in queries}
    return books


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
