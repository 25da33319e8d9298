"""Open the models of the demo: local ones on their servers, hosted ones, or a recording."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from langchain_core.messages import BaseMessage
from langchain_core.messages.utils import count_tokens_approximately
from pydantic import SecretStr

from langchain_automix.errors import AutoMixError, QueryFailedError
from langchain_automix.local.recorded_model import RecordedChatModel
from langchain_automix.local.recording import Recorder, Recording, Replay
from langchain_automix.local.server import LlamaServer, count_tokens
from langchain_automix.local.transport import PerTokenTransport, Transport
from langchain_automix.local.weights import KNOWN, Progress, fetch
from langchain_automix.utils.install import install_hint

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel


SMALL, LARGE = "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"
CONTEXT_TOKENS = 4096
RETRIES = 6
"""Retries of a hosted model in a long run: with the pauses of its client, enough to wait out a
limit on requests per minute."""

ANSWER_TOKENS = 48
# Tokens that a chat template may add, and that a check's reply may take beyond an answer's.
_MARGIN = 64
_LAST_PORT = 65_535
_TIMEOUT_SECONDS = 300
_TEMPLATES = dict.fromkeys((SMALL, LARGE), Path(__file__).with_name("qwen_tools.jinja"))


@dataclass(frozen=True)
class Model:
    """One chat model of the demo."""

    name: str
    chat: BaseChatModel
    check: Callable[[], None] = lambda: None
    """Raises AutoMixError if the model's server has died."""

    count_tokens: Callable[[str], int] | None = None
    """Counts tokens exactly, for models whose reported usage is inexact."""

    close: Callable[[], None] = lambda: None
    """Closes the connections of sync calls; those of async calls belong to their event loops."""


@dataclass(frozen=True)
class ModelPair:
    """Both models, and the clock that times their calls, in seconds."""

    small: Model
    large: Model
    clock: Callable[[], float] = time.perf_counter
    is_replay: bool = False
    recorder: Recorder | None = None

    def explain(self, error: Exception) -> AutoMixError:
        """Return one clear error for a failed call; a dead server is reported first."""
        return explain_failure(error, (self.small, self.large))


def explain_failure(error: Exception, models: Sequence[Model]) -> AutoMixError:
    """Return one clear error for a failed call of these models; a dead server is reported first."""
    if isinstance(error, AutoMixError) and not isinstance(error, QueryFailedError):
        return error
    for model in models:
        try:
            model.check()
        except AutoMixError as dead:
            return dead
    kind = "" if isinstance(error, QueryFailedError) else f"{type(error).__name__}: "
    return AutoMixError(f"A model call failed: {kind}{error}")


@dataclass(frozen=True)
class ModelOptions:
    """Which models to open, and how."""

    small: str = SMALL
    large: str = LARGE
    middle: tuple[str, ...] = ()
    """Models between the two, cheap to expensive."""

    weights: Path | None = None
    port: int = 0
    seed: int = 7
    samples: int = 8
    answer_tokens: int = ANSWER_TOKENS
    """Maximum length of a local model's answer, in tokens."""

    record: bool = False
    journal: Path | None = None
    """A file that keeps every recorded call at once, so that an interrupted recording can
    resume."""

    large_checks: bool = False
    """Whether the large model also draws verdicts on a smaller model's answers."""

    max_retries: int | None = None
    """Retries of a hosted model after an error; None keeps its class's default."""

    @property
    def specs(self) -> tuple[str, ...]:
        """All models, cheap to expensive."""
        return (self.small, *self.middle, self.large)


@contextlib.contextmanager
def open_pair(options: ModelOptions, progress: Progress | None = None) -> Iterator[ModelPair]:
    """Open the small and the large model, in the same way as `open_models`.

    Raises:
        AutoMixError: A model cannot be opened; says why and what to do.
    """
    recorder = Recorder(PerTokenTransport(), options.journal) if options.record else None
    with open_models(options, progress, recorder) as (small, large):
        yield ModelPair(small, large, recorder=recorder)


@contextlib.contextmanager
def open_models(
    options: ModelOptions, progress: Progress | None = None, recorder: Recorder | None = None
) -> Iterator[list[Model]]:
    """Open models until the end of the block, cheap to expensive; local servers end with it.

    A model is a name in `KNOWN` (whose weights are fetched once and verified), a `.gguf` file, or a
    `provider:model` of LangChain's `init_chat_model`.

    Raises:
        AutoMixError: A model cannot be opened; says why and what to do.
    """
    specs = options.specs
    if repeated := [spec for spec in specs if specs.count(spec) > 1]:
        raise AutoMixError(f"A mix needs different models; {repeated[0]!r} is given twice.")
    if options.port + len(specs) - 1 > _LAST_PORT:
        raise AutoMixError(f"--port {options.port} leaves no port for the other servers.")
    # Open first whatever can fail immediately, before any download.
    hosted = {spec: open_hosted(spec, options) for spec in specs if not is_local(spec)}
    with contextlib.ExitStack() as stack:
        servers = {
            spec: stack.enter_context(_server(index, options, progress))
            for index, spec in enumerate(specs)
            if spec not in hosted
        }
        if recorder and len({server.name for server in servers.values()}) != len(specs):
            raise AutoMixError("Only local models, of different names, can be recorded.")
        models = [hosted.get(spec) or _local(servers[spec], options, recorder) for spec in specs]
        for model in models:
            stack.callback(model.close)
        yield models


def input_limit(models: Sequence[Model], options: ModelOptions) -> int | None:
    """Return how many tokens all of these models can read, or None if all are hosted."""
    if all(model.count_tokens is None for model in models):
        return None
    return CONTEXT_TOKENS - options.answer_tokens - _MARGIN


def token_counter(models: Sequence[Model]) -> Callable[[list[BaseMessage]], int]:
    """Return a token counter for messages; an exact one if a model's server can count."""
    count = next(filter(None, (model.count_tokens for model in models)), None)
    if count is None:
        return count_tokens_approximately
    # Add a few tokens per message for the chat template.
    return lambda messages: sum(count(str(message.text)) + 8 for message in messages)


@contextlib.contextmanager
def open_replay(recording: Recording, pace: float = 0.0) -> Iterator[ModelPair]:
    """Open the two recorded models: the same chat models, with recorded answers and times.

    Args:
        recording: The recorded calls.
        pace: Share of the recorded pauses between streamed chunks to keep, from 0 to 1.
    """
    replay = Replay(recording, pace=pace)
    seed = recording.about["seed"]
    small, large = (
        # The address matters only for fingerprints; nothing is sent to it.
        openai_model(recording.about[size], "http://127.0.0.1/v1", "recorded", seed, replay)
        for size in ("small", "large")
    )
    yield ModelPair(small, large, clock=replay.clock, is_replay=True)


def replayed_pair(recording: Recording) -> ModelPair:
    """Return the two recorded models for plain answers and checks, without langchain-openai.

    Args:
        recording: The recorded calls.
    """
    replay, about = Replay(recording), recording.about
    small, large = (
        Model(name, RecordedChatModel(model=name, replay=replay, seed=about["seed"]))
        for name in (about["small"], about["large"])
    )
    return ModelPair(small, large, clock=replay.clock, is_replay=True)


@contextlib.contextmanager
def open_recorded(
    path: Path, *, answer_tokens: int = ANSWER_TOKENS, pace: float = 0.0
) -> Iterator[ModelPair]:
    """Open both local models for a notebook, from its recording or for real.

    With `AUTOMIX_LIVE=1` in the environment, the models themselves answer, and their calls are
    recorded again. Without it, the recorded calls are replayed. Streams, tool calls and response
    formats are recorded, too.

    Args:
        path: The recording.
        answer_tokens: Maximum length of an answer, in tokens; tool calls and structured output need
            more than a few words.
        pace: Share of the recorded pauses between streamed chunks to keep in a replay, from 0 to 1.

    Raises:
        AutoMixError: There is no such recording, or a model cannot be opened.
    """
    if not os.environ.get("AUTOMIX_LIVE"):
        with open_replay(Recording.read(path), pace) as pair:
            yield pair
        return
    options = ModelOptions(record=True, answer_tokens=answer_tokens)
    with open_pair(options) as pair:
        yield pair
        about = {"small": pair.small.name, "large": pair.large.name, "seed": options.seed}
        if pair.recorder is not None:
            pair.recorder.recording(about).write(path)


def is_local(spec: str) -> bool:
    """Whether a model runs on this machine: its name is in `KNOWN`, or it is a `.gguf` file.

    Raises:
        AutoMixError: The text names no model.
    """
    if spec in KNOWN or spec.endswith(".gguf"):
        return True
    if ":" in spec:
        return False
    raise AutoMixError(
        f"There is no model {spec!r}: give a name ({', '.join(KNOWN)}), a .gguf file, or a "
        "provider:model such as openai:gpt-5.4-mini or ollama:llama3.2."
    )


def _server(index: int, options: ModelOptions, progress: Progress | None) -> LlamaServer:
    spec = options.specs[index]
    draws_verdicts = index < len(options.specs) - 1 or options.large_checks
    path = Path(spec).expanduser()
    pinned = KNOWN.get(spec) or next((w for w in KNOWN.values() if w.filename == path.name), None)
    if pinned is not None:
        folder = options.weights if spec in KNOWN else path
        path = fetch(pinned, folder=folder, progress=progress)
    return LlamaServer(
        path,
        name=spec if spec in KNOWN else path.stem,
        port=options.port and options.port + index,
        # One slot more than a check fills, so that the answers' prompts stay in one slot.
        slots=options.samples + 1 if draws_verdicts else 1,
        context_tokens=CONTEXT_TOKENS,
        chat_template=_TEMPLATES.get(pinned.name) if pinned is not None else None,
    )


def _local(server: LlamaServer, options: ModelOptions, recorder: Recorder | None) -> Model:
    address = (server.name, server.base_url, server.api_key)
    transport = recorder or PerTokenTransport()
    model = openai_model(*address, options.seed, transport, answer_tokens=options.answer_tokens)
    return replace(model, check=server.check)


def openai_model(
    name: str,
    base_url: str,
    api_key: str,
    seed: int,
    transport: Transport | None = None,
    *,
    answer_tokens: int = ANSWER_TOKENS,
) -> Model:
    """Open a chat model of an OpenAI-compatible server, or of a transport in its place."""
    try:
        from langchain_openai import ChatOpenAI  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise _missing("langchain-openai", "local") from error
    # Never use a proxy from the environment between this process and its own servers. Sockets
    # without options keep langchain-openai from warning that a proxy is bypassed.
    has_socket_options = "http_socket_options" in ChatOpenAI.model_fields
    sockets: dict[str, Any] = {"http_socket_options": ()} if has_socket_options else {}
    client = httpx.Client(transport=transport, trust_env=False, timeout=_TIMEOUT_SECONDS)
    client.headers["Authorization"] = f"Bearer {api_key}"
    chat = ChatOpenAI(
        model=name,
        base_url=base_url,
        api_key=SecretStr(api_key),
        temperature=0,
        max_completion_tokens=answer_tokens,
        seed=seed,
        timeout=_TIMEOUT_SECONDS,
        max_retries=0,
        http_client=client,
        http_async_client=httpx.AsyncClient(transport=transport, trust_env=False),
        openai_proxy=None,
        **sockets,
    )
    return Model(
        name,
        chat,
        count_tokens=lambda text: count_tokens(client, base_url, name, text),
        close=client.close,
    )


def open_hosted(spec: str, options: ModelOptions) -> Model:
    """Open a `provider:model` of LangChain's `init_chat_model`.

    Raises:
        AutoMixError: It cannot be opened; says why and what to do.
    """
    try:
        from langchain.chat_models import init_chat_model  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise _missing("langchain", "cli") from error
    try:
        chat = init_chat_model(spec, temperature=0)
        if options.max_retries is not None and "max_retries" in type(chat).model_fields:
            # Open it again, since a model passes this value to its client on creation.
            chat = init_chat_model(spec, temperature=0, max_retries=options.max_retries)
    except Exception as error:  # each provider has its own errors, for instance for a missing key
        raise AutoMixError(f"The model {spec!r} cannot be opened: {error}") from error
    if "seed" in type(chat).model_fields:
        chat = chat.model_copy(update={"seed": options.seed})
    return Model(spec, chat)


def _missing(package: str, extra: str) -> AutoMixError:
    return AutoMixError(f"{package} is not installed: {install_hint(extra)}")
