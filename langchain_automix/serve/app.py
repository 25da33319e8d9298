"""`create_app`: mixes behind OpenAI's protocol, as an ASGI app."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from functools import partial
from typing import Any

from langchain_automix._version import __version__
from langchain_automix.utils.install import install_hint

try:
    import prometheus_client  # noqa: F401  (of the same extra)
    from fastapi import FastAPI
except ImportError as error:
    raise ImportError(f"{error.name} is not installed: {install_hint('serve')}") from error

from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response

from langchain_automix.mix.chat_model import ChatAutoMix
from langchain_automix.serve.chat_request import ChatCompletionRequest
from langchain_automix.serve.chat_response import HEADERS
from langchain_automix.serve.error_handlers import add_error_handlers
from langchain_automix.serve.feedback import Feedback, FeedbackTaken, take_feedback
from langchain_automix.serve.limits import BodyLimit
from langchain_automix.serve.live_routes import add_live_routes
from langchain_automix.serve.mixes import Mixes, PolicyFile, ServedMix
from langchain_automix.serve.observing import Observer
from langchain_automix.serve.query import ChatQuery
from langchain_automix.serve.responses import COMPLETION, ERRORS, NOT_SCORED, ModelCard, ModelList
from langchain_automix.serve.settings import ServeSettings
from langchain_automix.serve.state import Key, ServeState, State
from langchain_automix.serve.streaming import QueryResponse
from langchain_automix.serve.strict_json import StrictJsonRoute


def create_app(
    mixes: Mapping[str, ChatAutoMix | PolicyFile],
    settings: ServeSettings | None = None,
    *,
    observers: Iterable[Observer] = (),
) -> FastAPI:
    """Return an ASGI app that serves mixes by OpenAI's protocol.

    It may be served by uvicorn as it is, or mounted in an app of yours.

    ??? example "In an app of yours"

        ```python
        app = FastAPI()
        app.mount("/llm", create_app({"support": ChatAutoMix(models=[small, large])}))
        ```

    Args:
        mixes: What is served, by name: each is a model to clients.
        settings: Who may ask, how much, and for how long; None: everyone, within usual limits.
        observers: Are told of each query that has ended, in a thread of their own.

    Raises:
        AutoMixError: There is no mix, or what is given is none.
    """
    settings = settings or ServeSettings()
    limits = [key.spend_limit for key in settings.keys if key.spend_limit is not None]
    state = ServeState(Mixes(mixes, limits), settings)
    for observer in observers:
        state.observers.add(observer)
    app = FastAPI(
        title="langchain-automix",
        version=__version__,
        description="Mixes of chat models behind OpenAI's protocol.",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
    )
    app.state.automix = state
    described: Any = app
    described.openapi = partial(_openapi, app)  # as FastAPI would have it
    app.router.route_class = StrictJsonRoute
    add_error_handlers(app)
    _add_routes(app)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes, timeout=settings.timeout)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=[*HEADERS, "x-request-id", "retry-after"],
        )
    return app


def state_of(app: FastAPI) -> ServeState:
    """Return what the requests of an app of `create_app` share."""
    state: ServeState = app.state.automix
    return state


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state = state_of(app)
    state.start()
    try:
        yield
    finally:
        await state.stop()


def _add_routes(app: FastAPI) -> None:
    app.post("/v1/chat/completions", responses={**COMPLETION, **ERRORS})(complete)
    app.post("/v1/feedback", responses={**NOT_SCORED, **ERRORS})(score)
    app.get("/v1/models", responses=ERRORS)(list_models)
    app.get("/v1/models/{name:path}", responses=ERRORS)(show_model)
    for path, tell in (("/healthz", healthz), ("/readyz", readyz)):  # some probes ask by HEAD
        app.api_route(path, methods=["GET", "HEAD"], include_in_schema=False)(tell)
    add_live_routes(app)


async def complete(body: ChatCompletionRequest, state: State, key: Key) -> Response:
    """Answer a chat, by the mix of the name `model`; whole, or as a stream of events."""
    served = state.mixes.get(body.model)
    query = ChatQuery(served, body, key, show_texts=state.settings.show_texts)
    return QueryResponse(query, state.observers, state.slots, state.settings.timeout)


async def score(body: Feedback, state: State, key: Key) -> FeedbackTaken:
    """Say how good an answer was, to the mix that gave it and learns."""
    return await take_feedback(state.mixes, body, key, state.store_threads)


async def list_models(state: State, _: Key) -> ModelList:
    """List the mixes."""
    return ModelList(data=[_card(served) for served in state.mixes])


async def show_model(name: str, state: State, _: Key) -> ModelCard:
    """Show one mix."""
    return _card(state.mixes.get(name))


async def healthz() -> dict[str, str]:
    """Say that the process is alive."""
    return {"status": "ok"}


async def readyz(state: State) -> Response:
    """Say whether queries are answered: not before it has started, nor once it stops."""
    status = "ok" if state.is_ready else "draining"
    return JSONResponse({"status": status}, 200 if state.is_ready else 503)


def _card(served: ServedMix) -> ModelCard:
    current = served.current
    return ModelCard(
        id=served.name,
        created=served.created,
        models=list(current.mix.model_names),
        policy=current.policy,
    )


def _openapi(app: FastAPI) -> dict[str, Any]:
    """Return the description of the app, without the status that FastAPI itself would give."""
    if app.openapi_schema is None:
        schema = FastAPI.openapi(app)
        for path in schema["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            schema["components"]["schemas"].pop(name, None)
    return app.openapi_schema or {}
