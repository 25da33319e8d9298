"""A provider's prompt cache, as OpenAI documents its own, for servers in tests.

What a model reads of a request is, in this order: the schema of the reply, the tools, the messages.
`tool_choice` and the sampling are no part of it. A prefix of 1,024 tokens or more that a finished
request had is served from the cache, in steps of 128; each model has its own cache. Tokens are
counted the same way on all sides: a word is one, so is a message's role, and so is an image. Left
out are what makes a real cache miss: requests that go to several machines, and time.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from typing import Any

from tests.support.builders.scripted_replies import Body

LEAST = 1024
STEP = 128


def read_by(body: Body) -> list[str]:
    """The tokens of a request, in the order in which a model reads them."""
    found = _words(body.get("response_format"))
    for tool in body.get("tools") or ():
        found += _words(tool)
    for message in body["messages"]:
        found.append(f"<{message['role']}>")
        content = message.get("content") or ""
        for block in [content] if isinstance(content, str) else content:
            text = block if isinstance(block, str) else block.get("text")
            found += [f"<{json.dumps(block)}>"] if text is None else text.split()
        found += _words(message.get("tool_calls"))
    return found


def _words(value: Any) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", json.dumps(value)) if value else []


class PromptCache:
    def __init__(self) -> None:
        self._known: set[bytes] = set()
        self._lock = threading.Lock()

    def begin(self, body: Body) -> tuple[int, int]:
        """How many tokens a request has, and how many of them come from the cache."""
        tokens = read_by(body)
        with self._lock:
            served = [length for length, key in _prefixes(body, tokens) if key in self._known]
        return len(tokens), max(served, default=0)

    def finish(self, body: Body) -> None:
        with self._lock:
            self._known.update(key for _, key in _prefixes(body, read_by(body)))


def _prefixes(body: Body, tokens: list[str]) -> list[tuple[int, bytes]]:
    digest = hashlib.sha256(body["model"].encode())
    found = []
    for end in range(STEP, len(tokens) + 1, STEP):
        digest.update("\n".join(["", *tokens[end - STEP : end]]).encode())
        if end >= LEAST:
            found.append((end, digest.digest()))
    return found
