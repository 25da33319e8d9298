"""Drive one flow and pass on its last call in chunks."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import operator
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.messages import AIMessageChunk
from langchain_core.messages.ai import add_ai_message_chunks

from langchain_automix.flow.deadline import END_OF_STREAM, await_within, chunks_within
from langchain_automix.flow.drivers import (
    ASYNC_LIMIT,
    LIMIT,
    amake_calls,
    hold_slot,
    holding,
    limit_of,
    make_calls,
)
from langchain_automix.flow.run import FlowRun
from langchain_automix.flow.stream_guard import StreamGuard


def drive_stream(run: FlowRun[Any]) -> Iterator[Any]:
    """Make a flow's calls and yield the chunks of the one that streams."""
    limit = limit_of(run, threading.Semaphore)
    with contextlib.closing(run):
        while not run.done:
            call, parts = run.calls[0], list[Any]()
            if (guard := call.guard) is None:
                with holding(LIMIT, limit):  # released while the reader consumes chunks
                    outcomes = make_calls(run)
                run.resume(outcomes)
                continue
            try:
                with hold_slot(None):  # the caller may have stopped waiting
                    chunks = call.runnable.stream(call.input, run.start(call), **call.kwargs)
                for chunk in chunks_within(run.deadline, guard, chunks):
                    parts.append(chunk)
                    yield from guard.chunks_to_show(parts)
            except Exception as error:  # noqa: BLE001  (the flow decides what an error means)
                run.resume([run.explain(error, call)])
            else:
                run.streamed = guard.shown
                run.resume([add_chunks(parts)])


async def adrive_stream(run: FlowRun[Any]) -> AsyncIterator[Any]:
    """Make a flow's calls and yield the chunks of the one that streams, asynchronously."""
    limit = limit_of(run, asyncio.Semaphore)
    with contextlib.closing(run):
        while not run.done:
            call, parts = run.calls[0], list[Any]()
            if (guard := call.guard) is None:
                with holding(ASYNC_LIMIT, limit):
                    outcomes = await amake_calls(run)
                run.resume(outcomes)
                continue
            chunks: Any = call.runnable.astream(call.input, run.start(call), **call.kwargs)
            try:
                async with contextlib.aclosing(chunks):
                    while (chunk := await _next(run, guard, chunks)) is not END_OF_STREAM:
                        parts.append(chunk)
                        for shown in guard.chunks_to_show(parts):
                            yield shown
            except Exception as error:  # noqa: BLE001  (the flow decides what an error means)
                run.resume([run.explain(error, call)])
            else:
                run.streamed = guard.shown
                run.resume([add_chunks(parts)])
        await run.aannounce()


async def _next(run: FlowRun[Any], guard: StreamGuard, chunks: AsyncIterator[Any]) -> Any:
    """Return the next chunk or `END_OF_STREAM`; give up a stream that shows nothing in time."""
    async with await_within(None if guard.shown else run.deadline):
        return await anext(chunks, END_OF_STREAM)


def add_chunks(parts: list[Any]) -> Any:
    """Join the chunks of a stream; return None if there are none."""
    if parts and all(isinstance(part, AIMessageChunk) for part in parts):
        return add_ai_message_chunks(*parts)
    return functools.reduce(operator.add, parts) if parts else None
