"""A server in a process of its own that answers after a pause, and counts who waits at once.

It does little but wait, so that what is measured is the client. Run as a module, it prints its
port; `running` does so.
"""

# ruff: noqa: T201

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.builders.scripted_replies import ACCEPT, REJECT

HARD = "(hard)"
"""What a question holds whose draft the check rejects."""


class Counts:
    """How many requests came, and how many waited at once."""

    requests = 0
    at_once = 0
    most_at_once = 0


def reply(messages: str) -> str:
    """Return a check's verdict, or an answer."""
    if "You check answers" not in messages:
        return "Turku"
    return REJECT if HARD in messages else ACCEPT


async def _serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counts: Counts, pause: float
) -> None:
    while head := await _head(reader):
        if head.startswith(b"get"):
            answer: dict[str, Any] = {"requests": counts.requests, "most": counts.most_at_once}
            counts.requests = counts.most_at_once = 0
        else:
            body = (await reader.readexactly(_length(head))).decode()
            counts.requests += 1
            counts.at_once += 1
            counts.most_at_once = max(counts.most_at_once, counts.at_once)
            await asyncio.sleep(pause)
            counts.at_once -= 1
            answer = _completion(reply(body))
        data = json.dumps(answer).encode()
        shape = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        writer.write(shape % len(data) + data)
    writer.close()


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return (await reader.readuntil(b"\r\n\r\n")).lower()
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


def _length(head: bytes) -> int:
    return int(head.partition(b"content-length:")[2].split(b"\r\n")[0])


def _completion(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": "small",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
    }


async def main(pause: float) -> None:
    """Serve until the process that started this one ends it."""
    counts = Counts()
    server = await asyncio.start_server(
        lambda reader, writer: _serve(reader, writer, counts, pause), "127.0.0.1", 0, backlog=256
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def running(pause: float) -> Iterator[str]:
    """Run the server, and give its address."""
    command = [sys.executable, "-m", __name__, str(pause)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def counted(address: str) -> dict[str, int]:
    """Return the counts since the last time, and start them anew."""
    with urllib.request.urlopen(address) as response:
        counts: dict[str, int] = json.load(response)
    return counts


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1])))
