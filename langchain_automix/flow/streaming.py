"""Drive one flow whose last call is passed on in chunks."""

from __future__ import annotations

import contextlib
import functools
import operator
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from langchain_core.messages import AIMessageChunk
from langchain_core.messages.ai import add_ai_message_chunks

from langchain_automix.flow.deadline import END_OF_STREAM, await_within, chunks_before
from langchain_automix.flow.drivers import amake_calls, hold_slot, make_calls
from langchain_automix.flow.run import FlowRun
from langchain_automix.flow.steps import Call
from langchain_automix.flow.stream_guard import says_something


def drive_stream(one: FlowRun[Any]) -> Iterator[Any]:
    """Carry out a flow's calls, and yield the chunks of the one that streams."""
    with contextlib.closing(one):
        while not one.done:
            call = one.calls[0]
            if call.showing is None:
                one.resume(make_calls(one))
                continue
            parts: list[Any] = []
            try:
                with hold_slot(None):  # nobody may wait for it any more
                    chunks = call.runnable.stream(call.input, one.config_of(call), **call.kwargs)
                for chunk in chunks_before(call, chunks):
                    parts.append(chunk)
                    yield from _chunks_to_show(call, parts)
            except Exception as error:  # noqa: BLE001  (the flow decides what an error means)
                one.resume(error)
            else:
                one.streamed = call.showing.told
                one.resume([_add_chunks(parts)])


async def adrive_stream(one: FlowRun[Any]) -> AsyncIterator[Any]:
    """Carry out a flow's calls, and yield the chunks of the one that streams, asynchronously."""
    with contextlib.closing(one):
        while not one.done:
            call = one.calls[0]
            if call.showing is None:
                await one.aresume(await amake_calls(one))
                continue
            parts: list[Any] = []
            chunks: Any = call.runnable.astream(call.input, one.config_of(call), **call.kwargs)
            try:
                async with contextlib.aclosing(chunks):
                    while (chunk := await _next(call, chunks)) is not END_OF_STREAM:
                        parts.append(chunk)
                        for shown in _chunks_to_show(call, parts):
                            yield shown
            except Exception as error:  # noqa: BLE001  (the flow decides what an error means)
                await one.aresume(error)
            else:
                one.streamed = call.showing.told
                await one.aresume([_add_chunks(parts)])


async def _next(call: Call, chunks: AsyncIterator[Any]) -> Any:
    """Return the next chunk or `END_OF_STREAM`; give up a stream that shows nothing in time."""
    told = call.showing is not None and call.showing.told
    async with await_within(None if told else call.clock):
        return await anext(chunks, END_OF_STREAM)


def _chunks_to_show(call: Call, parts: Sequence[Any]) -> Sequence[Any]:
    """Return what may be shown now that the last part is there.

    What shows nothing is kept back until something is shown: until then, another model may yet
    answer in this one's place.
    """
    if call.showing is None or call.showing.told:
        return parts[-1:]
    if not says_something(parts[-1]):
        return ()
    call.showing.told = True
    return parts


def _add_chunks(parts: list[Any]) -> Any:
    """Join the chunks of a stream; None where it had none."""
    if parts and all(isinstance(part, AIMessageChunk) for part in parts):
        return add_ai_message_chunks(*parts)
    return functools.reduce(operator.add, parts) if parts else None
