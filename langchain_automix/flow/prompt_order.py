"""Order the queries of a batch so that a provider's prompt cache can serve them.

A cache serves a prompt only after the first request with that prompt has finished. Under a limit,
queries that share a long prompt would all be sent before that, side by side, and all be paid in
full. So the first query of each prompt goes ahead, and the others follow once it has finished. No
slot stays empty for this: if nothing else is left, a query goes without waiting.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.messages import BaseMessage
from langchain_core.prompt_values import PromptValue

if TYPE_CHECKING:
    from langchain_automix.flow.run import FlowRun

LEAST_SHARED = 1_024
"""Length, in characters, from which a shared beginning counts. Providers cache from 1,024 tokens
on, and a token has at least one character. A wrong guess changes only the order."""


class PromptOrder:
    """Tracks which queries of a batch share a prompt, across levels."""

    def __init__(self) -> None:
        """Start without any known prompt."""
        self._beginnings: dict[int, Hashable] = {}

    def level(self, runs: Sequence[FlowRun[Any]], slots: int | None = None) -> LevelQueue:
        """Return the queue of one level.

        Args:
            runs: The queries that are to take a step.
            slots: How many can do so at once; None if unknown.
        """
        if slots is None or slots < len(runs):
            self._read(runs)
        if not self._beginnings:
            return LevelQueue([run] for run in runs)
        groups: dict[Hashable, list[FlowRun[Any]]] = {}
        for run in runs:
            first, begins = run.calls[0], self._beginnings.get(id(run))
            key = (begins, first.run_name, id(first.runnable)) if begins else id(run)
            groups.setdefault(key, []).append(run)
        return LevelQueue(group[::-1] for group in groups.values())

    def _read(self, runs: Iterable[FlowRun[Any]]) -> None:
        """Read the prompts of answers; a check writes its own prompt, so it is not read."""
        for run in runs:
            text = None
            with contextlib.suppress(Exception):  # its own query will raise the error
                text = prompt_text(run.calls[0].input)
            if text is not None and len(text) >= LEAST_SHARED:
                self._beginnings[id(run)] = beginning(text)


class LevelQueue:
    """Hands out the queries of one level, to threads or to tasks."""

    def __init__(self, groups: Iterable[list[FlowRun[Any]]]) -> None:
        """Take the queries in groups that share a prompt; in each, the next to go stands last."""
        self._lock = threading.Lock()
        self._fresh = deque(groups)
        self._begun: dict[int, list[FlowRun[Any]]] = {}
        self._read: deque[list[FlowRun[Any]]] = deque()
        self._left = sum(map(len, self._fresh))
        self._ready = self._at_work = 0

    def __bool__(self) -> bool:
        """Whether any query is left."""
        return self._left > 0

    @contextlib.contextmanager
    def next(self) -> Iterator[FlowRun[Any]]:
        """Provide the next query; note at the end of the block that it has taken its step."""
        run = self.take()
        try:
            yield run
        finally:
            self.over(run)

    def take(self) -> FlowRun[Any]:
        """Return the next query: with a cached prompt, else with a new one, else any."""
        with self._lock:
            self._left -= 1
            # Start a new prompt while the queries at work have cached ones left to continue with.
            if self._fresh and self._ready <= self._at_work:
                run = self._begin()
            elif self._read:
                self._ready -= 1
                run = _next_of(self._read)
            else:
                run = self._any()
            self._at_work += 1
            return run

    def over(self, run: FlowRun[Any]) -> None:
        """Note that a query has taken its step."""
        with self._lock:
            self._at_work -= 1
            group = self._begun.pop(id(run), None)
            if group:
                self._ready += len(group)
                self._read.append(group)

    def _begin(self) -> FlowRun[Any]:
        group = self._fresh.popleft()
        run = group.pop()
        if group:
            self._begun[id(run)] = group
        return run

    def _any(self) -> FlowRun[Any]:
        return next(filter(None, self._begun.values())).pop()


def _next_of(groups: deque[list[FlowRun[Any]]]) -> FlowRun[Any]:
    run = groups[0].pop()
    if not groups[0]:
        groups.popleft()
    return run


def prompt_text(input: Any) -> str | None:
    """Return what a model is sent as one text, or None if it is not a prompt."""
    if isinstance(input, str):
        return input
    messages = input.to_messages() if isinstance(input, PromptValue) else input
    if not isinstance(messages, list) or not messages:
        return None
    if not all(isinstance(each, BaseMessage) for each in messages):
        return None
    return "".join(
        each.content if isinstance(each.content, str) else str(each.text) for each in messages
    )


def beginning(prompt: str) -> Hashable:
    """Return a key that is equal for two prompts that share about half of their text or more.

    The length is half of the prompt, rounded down in steps of a quarter, so that most prompts with
    the same context get the same key. The key holds two pieces; the text between them is assumed to
    be equal if both are.
    """
    size = LEAST_SHARED
    while size * 1.25 <= len(prompt) / 2:
        size = int(size * 1.25)
    return size, prompt[:LEAST_SHARED], prompt[size - LEAST_SHARED : size]
