"""`ChatQuery`: one request for a completion, from the mix that it asks to what is told of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Mapping
from decimal import Decimal
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import merge_configs

from langchain_automix.serve.chat_request import ChatCompletionRequest, read_messages
from langchain_automix.serve.chat_response import Answer, CallNumbers, Completion, refusal_of
from langchain_automix.serve.errors import ApiError, is_spend_limit
from langchain_automix.serve.keys import ApiKey, new_run_id
from langchain_automix.serve.mixes import CurrentMix, ServedMix
from langchain_automix.serve.observing import RecordListener, ServedQuery, told_by

ID_PREFIX = "chatcmpl-"
"""What ids of completions begin with; the id of the query's run follows."""

_CLIENT_LEFT = 499


class ChatQuery:
    """One request for a completion.

    Args:
        served: The mix that it asks.
        request: What it asks.
        key: The client's key; None: none are set.
        show_texts: Whether its question may be told to observers.
    """

    def __init__(
        self,
        served: ServedMix,
        request: ChatCompletionRequest,
        key: ApiKey | None,
        *,
        show_texts: bool,
    ) -> None:
        self.request = request
        self.run_id = new_run_id(key)
        self._served, self._key = served, key
        self._current: CurrentMix = served.current  # from here to its end
        self._listener = RecordListener()
        self._show_texts = show_texts
        self._began = time.monotonic()
        self._has_asked = False
        self.completion = Completion(f"{ID_PREFIX}{self.run_id.hex}", int(time.time()), served.name)

    async def answer(self) -> Answer:
        """Return the answer of the mix.

        Raises:
            Exception: Whatever ended the query; `to_api_error` says what its client is told.
        """
        messages = read_messages(self.request)
        bound = await self._current.bound.bind(self.request)
        self._has_asked = True
        output = await bound.bound.ainvoke(messages, self._config(bound.config), **bound.kwargs)
        return Answer.of(output)

    async def chunks(self) -> AsyncGenerator[dict[str, Any]]:
        """Yield the answer of the mix as chunks of a stream, the record in the last one.

        Raises:
            Exception: As `answer` does.
        """
        messages = read_messages(self.request)
        bound = await self._current.bound.bind(self.request)
        self._has_asked = True
        stream: Any = bound.bound.astream(messages, self._config(bound.config), **bound.kwargs)
        whole, numbers, has_begun = Answer(), CallNumbers(), False
        beside = {"usage": None} if self.request.includes_usage else {}  # as OpenAI has it
        async with contextlib.aclosing(stream) as parts:
            async for part in parts:
                for delta in _deltas(part, whole, numbers):
                    begin = {} if has_begun else {"role": "assistant"}
                    yield self.completion.chunk({**begin, **delta}, **beside)
                    has_begun = True
        if not has_begun:
            yield self.completion.chunk({"role": "assistant", "content": ""}, **beside)
        if not self.request.includes_usage:
            yield self.completion.chunk({}, whole.finish_reason, automix=whole.record)
            return
        yield self.completion.chunk({}, whole.finish_reason, **beside)
        yield self.completion.usage_chunk(whole.record)

    @property
    def record(self) -> Mapping[str, Any] | None:
        """Its record, as soon as there is one."""
        record = self._listener.record
        return None if record is None or "unfinished" in record else record

    def ended(self, error: ApiError | None = None, *, is_cancelled: bool = False) -> ServedQuery:
        """Return what is told of the query now that it has ended.

        Args:
            error: What its client was told instead of an answer; None: there was none.
            is_cancelled: Whether its client went away before that.
        """
        told = told_by(self._listener.record)
        if not told and (not self._has_asked or is_spend_limit(error)):
            told = {"cost": Decimal(0)}  # it was refused before any model was asked
        if error is not None or is_cancelled:
            told = {k: told[k] for k in ("cost", "seconds") if k in told}
            told["outcome"] = "cancelled" if is_cancelled else "failed"
        status = 200 if error is None else error.status
        return ServedQuery(
            at=time.time(),
            id=self.completion.id,
            mix=self._served.name,
            duration=time.monotonic() - self._began,
            policy=self._policy(),
            status=_CLIENT_LEFT if is_cancelled else status,
            error=None if error is None or is_cancelled else error.code,
            streamed=bool(self.request.stream),
            key=None if self._key is None else self._key.name,
            question=self.request.question() if self._show_texts else None,
            **{"outcome": "kept", **told},
        )

    def _policy(self) -> str | None:
        learning = (self._listener.record or {}).get("learning")
        return self._current.policy if learning is None else f"v{learning['version']}"

    def _config(self, own: RunnableConfig) -> RunnableConfig:
        """Return the configuration of its run, for traces, limits and the listener."""
        asked: dict[str, Any] = {"mix": self._served.name}
        if self.request.user is not None:
            asked["user"] = self.request.user
        if self.request.metadata:
            asked["request"] = dict(self.request.metadata)
        return merge_configs(
            own,
            {
                "run_id": self.run_id,
                "callbacks": [self._listener],
                "tags": [] if self._key is None else [self._key.tag],
                "metadata": {f"automix_{name}": value for name, value in asked.items()},
            },
        )


def _deltas(part: Any, whole: Answer, numbers: CallNumbers) -> list[dict[str, Any]]:
    """Return what a part of the answer adds to it, and add it to the whole."""
    if isinstance(part, Mapping):  # a structured output comes in one piece
        return _deltas_of(Answer.of(part), whole)
    whole.metadata.update(part.response_metadata)
    deltas: list[dict[str, Any]] = []
    if text := str(part.text):
        whole.text += text
        deltas.append({"content": text})
    if said := refusal_of(part):
        whole.refusal = (whole.refusal or "") + said
        deltas.append({"refusal": said})
    if calls := numbers.deltas(part):
        whole.tool_calls.extend(calls)
        deltas.append({"tool_calls": calls})
    return deltas


def _deltas_of(answer: Answer, whole: Answer) -> list[dict[str, Any]]:
    whole.metadata.update(answer.metadata)
    whole.text, whole.refusal, whole.tool_calls = answer.text, answer.refusal, answer.tool_calls
    deltas: list[dict[str, Any]] = []
    if answer.text:
        deltas.append({"content": answer.text})
    if answer.refusal:
        deltas.append({"refusal": answer.refusal})
    if answer.tool_calls:
        numbered = [{"index": i, **call} for i, call in enumerate(answer.tool_calls)]
        deltas.append({"tool_calls": numbered})
    return deltas
