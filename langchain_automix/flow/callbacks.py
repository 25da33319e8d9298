"""Decide who hears of a call, and announce the report of a run."""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.callbacks.manager import AsyncRunManager, ahandle_event, handle_event
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tracers import BaseTracer
from langchain_core.tracers._streaming import _StreamingCallbackHandler, _V2StreamingCallbackHandler

from langchain_automix.flow.steps import Call, Report

if TYPE_CHECKING:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForChainRun,
        BaseCallbackManager,
        CallbackManagerForChainRun,
    )
    from langchain_core.runnables import RunnableConfig

    RunManager = CallbackManagerForChainRun | AsyncCallbackManagerForChainRun

_LOGGER = logging.getLogger(__name__)
_OF_ONE_RUN = frozenset({"callbacks", "run_name", "run_id"})
_COPIED = frozenset({"tags", "metadata", "configurable"})
_EVENT = ("on_custom_event", "ignore_custom_event", "automix")
_START_EVENTS = frozenset(
    {"on_chain_start", "on_chat_model_start", "on_llm_start", "on_retriever_start", "on_tool_start"}
)
_READERS = (_StreamingCallbackHandler, _V2StreamingCallbackHandler)
_TOKEN_EVENTS = frozenset({"on_llm_new_token", "on_stream_event"})


def child_config(
    call: Call, run_manager: RunManager, config: RunnableConfig, *, has_readers: bool
) -> RunnableConfig:
    """Return the configuration that makes a call a child of the given run."""
    manager: Any = run_manager.get_child()
    first = list(call.callbacks)
    if has_readers and call.guard is not None:
        first.append(call.guard)
    for kind in ("handlers", "inheritable_handlers"):
        # In front, since they may correct what the others hear, or keep a token from the readers.
        handlers = [*reversed(first), *getattr(manager, kind)]
        if call.audience == "readers":
            handlers = [handler for handler in handlers if is_reader(handler)]
        elif call.audience == "tracers":
            if has_readers:
                handlers = [handler for handler in handlers if not is_reader(handler)]
            handlers = [_without_tokens(handler) for handler in handlers]
        elif has_readers and call.tags:
            handlers = [_without_our_tags(handler) for handler in handlers]
        setattr(manager, kind, handlers)
    child = _copy(config)
    child["callbacks"] = manager
    if call.run_name is not None:
        child["run_name"] = call.run_name
    if call.tags:
        child["tags"] = [*(config.get("tags") or []), *call.tags]
    if call.metadata:
        child["metadata"] = {**(config.get("metadata") or {}), **call.metadata}
    return child


def _copy(config: RunnableConfig) -> RunnableConfig:
    """Copy the part of a configuration that calls inherit, so that changes stay with the copy.

    `patch_config` does the same, but completes the configuration again each time.
    """
    inherited = {
        key: copy(value) if key in _COPIED else value
        for key, value in config.items()
        if key not in _OF_ONE_RUN
    }
    return cast("RunnableConfig", inherited)


@contextlib.contextmanager
def in_context(config: RunnableConfig) -> Iterator[None]:
    """Make a call's configuration the current one until the end of the block.

    LangChain gives the current configuration to whatever is called without one, and merges it into
    bindings. A handler that we keep from the call would otherwise hear of it.
    """
    token = var_child_runnable_config.set(config)
    try:
        yield
    finally:
        var_child_runnable_config.reset(token)


def announce(report: Report, run_manager: RunManager) -> None:
    """Announce a report to all handlers except those that `aannounce` awaits.

    An error in a handler never fails the query and never keeps the report from other handlers.
    """
    if report.count is not None and not is_inside_mix(run_manager.tags):
        report.count()
    for handler in _each_once(run_manager):
        with _harmless(handler):
            _annotate_run(handler, report, run_manager)
            if report.event is not None and not _is_awaited(handler, run_manager):
                handle_event([handler], *_EVENT, report.event, **_about(run_manager))


async def aannounce(report: Report, run_manager: RunManager) -> None:
    """Announce a report to the asynchronous handlers of an asynchronous run."""
    for handler in _each_once(run_manager):
        if report.event is not None and _is_awaited(handler, run_manager):
            with _harmless(handler):
                await ahandle_event([handler], *_EVENT, report.event, **_about(run_manager))


def is_inside_mix(tags: Iterable[str] | None) -> bool:
    """Whether a run belongs to a mix: its calls are tagged, and child runs inherit the tags."""
    return any(map(_is_ours, tags or ()))


def _is_ours(tag: str) -> bool:
    return tag.startswith("automix:")


def is_reader(handler: BaseCallbackHandler) -> bool:
    """Whether a user sees tokens through this handler."""
    kind: Any = type(handler)
    known = _is_kind_of_reader(kind)
    return isinstance(handler, _READERS) if known is None else known


@cache  # one of them is a protocol, and checking a class against a protocol is slow
def _is_kind_of_reader(kind: Any) -> bool | None:
    """Whether handlers of this class show tokens; None if it may proxy another handler."""
    stands_for_another = kind.__getattribute__ is not object.__getattribute__
    if stands_for_another or hasattr(kind, "__getattr__"):
        return None
    return issubclass(kind, _READERS)


def hears_requests_only(handler: BaseCallbackHandler) -> bool:
    """Whether a handler declares, by this attribute, that it ignores chains and checks."""
    return getattr(handler, "hears_requests_only", False) is True


class TokenlessHandler(BaseCallbackHandler):
    """Proxy of a user's handler that hears everything about a draft except its tokens.

    A handler such as `StreamingStdOutCallbackHandler` prints the tokens it hears, and a draft that
    may be rejected must not be shown. In all other respects it behaves as the handler itself.
    """

    def __init__(self, handler: BaseCallbackHandler) -> None:
        object.__setattr__(self, "_handler", handler)

    def __getattribute__(self, name: str) -> Any:
        if name in _TOKEN_EVENTS:
            return _ignore
        return getattr(object.__getattribute__(self, "_handler"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(object.__getattribute__(self, "_handler"), name, value)


class UntaggedHandler(BaseCallbackHandler):
    """Proxy of a reader that hides this package's own tags from it.

    Users see a run's tags beside its tokens, for instance in LangGraph's stream metadata. In all
    other respects it behaves as the handler itself.
    """

    def __init__(self, handler: BaseCallbackHandler) -> None:
        object.__setattr__(self, "_handler", handler)

    def __getattribute__(self, name: str) -> Any:
        found = getattr(object.__getattribute__(self, "_handler"), name)
        return _untagged(found) if name in _START_EVENTS else found

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(object.__getattribute__(self, "_handler"), name, value)


def _untagged(listener: Any) -> Any:
    """Wrap a listener so that it is not told our tags."""

    def without(kwargs: dict[str, Any]) -> dict[str, Any]:
        tags = kwargs.get("tags")
        return {**kwargs, "tags": tags and [tag for tag in tags if not _is_ours(tag)]}

    if inspect.iscoroutinefunction(listener):

        async def alisten(*args: Any, **kwargs: Any) -> Any:
            return await listener(*args, **without(kwargs))

        return alisten

    def listen(*args: Any, **kwargs: Any) -> Any:
        return listener(*args, **without(kwargs))

    return listen


def _without_our_tags(handler: BaseCallbackHandler) -> BaseCallbackHandler:
    hears = is_reader(handler) and type(handler) is not UntaggedHandler
    return UntaggedHandler(handler) if hears else handler


def _ignore(*args: Any, **kwargs: Any) -> None:
    """Ignore a token."""


def _without_tokens(handler: BaseCallbackHandler) -> BaseCallbackHandler:
    kind: Any = type(handler)
    return TokenlessHandler(handler) if _shows_tokens(kind) else handler


@cache
def _shows_tokens(kind: Any) -> bool:
    hears = any(
        getattr(kind, event, None) is not getattr(BaseCallbackHandler, event, None)
        for event in _TOKEN_EVENTS
    )
    return hears and not issubclass(kind, BaseTracer)


@contextlib.contextmanager
def _harmless(handler: BaseCallbackHandler) -> Iterator[None]:
    try:
        yield
    except Exception:
        _LOGGER.debug("%s takes no note of a decision", type(handler).__name__, exc_info=True)


def _each_once(run_manager: RunManager) -> Iterable[BaseCallbackHandler]:
    """Return each handler once, even if it is set both on the mix and on a call."""
    return {id(handler): handler for handler in run_manager.handlers}.values()


def _about(run_manager: RunManager) -> dict[str, Any]:
    return {name: getattr(run_manager, name) for name in ("run_id", "tags", "metadata")}


def _is_awaited(handler: BaseCallbackHandler, run_manager: RunManager) -> bool:
    listens = inspect.iscoroutinefunction(handler.on_custom_event)
    return listens and isinstance(run_manager, AsyncRunManager)


def _annotate_run(handler: BaseCallbackHandler, report: Report, run_manager: RunManager) -> None:
    run = (getattr(handler, "run_map", None) or {}).get(str(run_manager.run_id))
    if run is not None:
        known = run.extra or {}
        metadata = {**(known.get("metadata") or {}), **report.metadata}
        run.extra = {**known, "metadata": metadata}
        run.tags = [*(run.tags or []), *report.tags]


def below_llm_run(run_manager: Any, kind: Callable[..., BaseCallbackManager]) -> RunnableConfig:
    """Return the configuration for a call made inside an LLM run, which has no children."""
    if run_manager is None:
        return {}
    manager = kind(handlers=[], parent_run_id=run_manager.run_id)
    # Handlers that show tokens hear them from the LLM run itself.
    handlers = [h for h in run_manager.inheritable_handlers if not is_reader(h)]
    manager.set_handlers(handlers)
    manager.add_tags(run_manager.inheritable_tags)
    inherited = run_manager.inheritable_metadata
    manager.add_metadata({k: v for k, v in inherited.items() if not k.startswith("ls_")})
    return {"callbacks": manager}
