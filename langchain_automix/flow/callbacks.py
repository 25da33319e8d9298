"""Who hears of a call, and how a flow's record is announced."""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.callbacks.manager import AsyncRunManager, ahandle_event, handle_event
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tracers import BaseTracer
from langchain_core.tracers._streaming import _StreamingCallbackHandler, _V2StreamingCallbackHandler

from langchain_automix.flow.steps import Note

if TYPE_CHECKING:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForChainRun,
        BaseRunManager,
        CallbackManagerForChainRun,
    )
    from langchain_core.runnables import RunnableConfig


_LOGGER = logging.getLogger(__name__)


def announce(
    note: Note, run_manager: CallbackManagerForChainRun | AsyncCallbackManagerForChainRun
) -> None:
    """Tell tracers and listeners of a note; what fails in one never fails a query, or another.

    Those who listen asynchronously to an asynchronous run are left to `aannounce`.
    """
    for handler in _each_once(run_manager.handlers):
        try:
            _annotate_run(handler, note, run_manager)
            if note.event is not None and not _is_async_listener(handler, run_manager):
                handle_event([handler], *_EVENT, note.event, **_run_fields(run_manager))
        except Exception:
            _LOGGER.debug(_NOT_ANNOUNCED, type(handler).__name__, exc_info=True)


async def aannounce(
    note: Note, run_manager: CallbackManagerForChainRun | AsyncCallbackManagerForChainRun
) -> None:
    """Announce to listeners that are awaited, which `announce` leaves out."""
    if note.event is None:
        return
    for handler in _each_once(run_manager.handlers):
        if _is_async_listener(handler, run_manager):
            try:
                await ahandle_event([handler], *_EVENT, note.event, **_run_fields(run_manager))
            except Exception:
                _LOGGER.debug(_NOT_ANNOUNCED, type(handler).__name__, exc_info=True)


def is_inside_mix(tags: Iterable[str] | None) -> bool:
    """Whether a run is made for a mix: what that asks for is tagged so, and tags go down."""
    return any(tag.startswith("automix:") for tag in tags or ())


_NOT_ANNOUNCED = "%s takes no note of a decision"
_EVENT = ("on_custom_event", "ignore_custom_event", "automix")


def _run_fields(run_manager: BaseRunManager) -> dict[str, Any]:
    return {
        "run_id": run_manager.run_id,
        "tags": run_manager.tags,
        "metadata": run_manager.metadata,
    }


def _each_once(handlers: Sequence[BaseCallbackHandler]) -> Iterable[BaseCallbackHandler]:
    """Leave out a handler's repeats: one that is set on the mix and given to a call, too."""
    return {id(handler): handler for handler in handlers}.values()


def _is_async_listener(handler: BaseCallbackHandler, run_manager: BaseRunManager) -> bool:
    listens = inspect.iscoroutinefunction(handler.on_custom_event)
    return listens and isinstance(run_manager, AsyncRunManager)


def _annotate_run(handler: BaseCallbackHandler, note: Note, run_manager: BaseRunManager) -> None:
    run = (getattr(handler, "run_map", None) or {}).get(str(run_manager.run_id))
    if run is not None:
        known = run.extra or {}
        metadata = {**(known.get("metadata") or {}), **note.metadata}
        run.extra = {**known, "metadata": metadata}
        run.tags = [*(run.tags or []), *note.tags]


def is_reader(handler: BaseCallbackHandler) -> bool:
    """Whether a user sees tokens through this handler."""
    return isinstance(handler, _StreamingCallbackHandler | _V2StreamingCallbackHandler)


_TOKEN_EVENTS = frozenset({"on_llm_new_token", "on_stream_event"})


class TokenlessHandler(BaseCallbackHandler):
    """A user's handler that hears of a draft as ever, but for its tokens.

    A handler such as `StreamingStdOutCallbackHandler` shows what it hears, and what may yet be
    rejected is shown to nobody. For all else it is the handler itself.
    """

    def __init__(self, handler: BaseCallbackHandler) -> None:
        object.__setattr__(self, "_handler", handler)

    def __getattribute__(self, name: str) -> Any:
        if name in _TOKEN_EVENTS:
            return _ignore
        return getattr(object.__getattribute__(self, "_handler"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(object.__getattribute__(self, "_handler"), name, value)


def _ignore(*args: Any, **kwargs: Any) -> None:
    """Take no note of a token."""


def without_readers(handlers: Iterable[BaseCallbackHandler]) -> list[BaseCallbackHandler]:
    """Return the handlers that may hear of what nobody may be shown: no reader, and no token."""
    return [_without_tokens(handler) for handler in handlers if not is_reader(handler)]


def _without_tokens(handler: BaseCallbackHandler) -> BaseCallbackHandler:
    hears = any(
        getattr(type(handler), event, None) is not getattr(BaseCallbackHandler, event, None)
        for event in _TOKEN_EVENTS
    )
    return TokenlessHandler(handler) if hears and not isinstance(handler, BaseTracer) else handler


@contextlib.contextmanager
def ambient_config(config: RunnableConfig) -> Iterator[None]:
    """Make a configuration that of the context, for whatever is called without one.

    LangChain merges the configuration of the context into each binding, and gives it to a model
    that is called without any: who is left out of a call would hear of it so all the same.
    """
    token = var_child_runnable_config.set(config)
    try:
        yield
    finally:
        var_child_runnable_config.reset(token)
