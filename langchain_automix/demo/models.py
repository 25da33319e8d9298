"""The two models of the demo: local ones on their servers, hosted ones, or a recording."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from langchain_automix.demo.llama_server import LlamaServer, count_tokens
from langchain_automix.demo.recording import Recorder, Recording, Replay
from langchain_automix.demo.weights import KNOWN, Progress, fetch
from langchain_automix.errors import AutoMixError

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

SMALL, LARGE = "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"
CONTEXT_TOKENS = 4096
ANSWER_TOKENS = 48


@dataclass(frozen=True)
class Model:
    """One chat model of the demo."""

    name: str
    chat: BaseChatModel
    check: Callable[[], None] = lambda: None
    """Raises AutoMixError if the model's server is no more."""

    count_tokens: Callable[[str], int] | None = None
    """Counts tokens exactly, where the model's own usage does not."""


@dataclass(frozen=True)
class Pair:
    """Both models, and the clock that tells what their calls take, in seconds."""

    small: Model
    large: Model
    clock: Callable[[], float] = time.perf_counter
    is_replay: bool = False
    recorder: Recorder | None = None

    def explain(self, error: Exception) -> AutoMixError:
        """Return the one clear error for a failed call: a dead server first of all."""
        if isinstance(error, AutoMixError):
            return error
        for model in (self.small, self.large):
            try:
                model.check()
            except AutoMixError as found:
                return found
        return AutoMixError(f"A model call failed: {type(error).__name__}: {error}")


@dataclass(frozen=True)
class Wanted:
    """Which models to open, and how."""

    small: str = SMALL
    large: str = LARGE
    weights: Path | None = None
    port: int = 0
    seed: int = 7
    samples: int = 8
    record: bool = False


@contextlib.contextmanager
def open_pair(wanted: Wanted, progress: Progress | None = None) -> Iterator[Pair]:
    """Open both models for the length of a `with` block; local servers end with it.

    A model is a name in `KNOWN` (weights are fetched once, and verified), a `.gguf` file, or
    a `provider:model` of LangChain's `init_chat_model`.

    Raises:
        AutoMixError: A model cannot be had; says why and what to do.
    """
    if wanted.small == wanted.large:
        raise AutoMixError(f"A mix needs two different models; both are {wanted.small!r}.")
    sources = [_source(spec, wanted, progress) for spec in (wanted.small, wanted.large)]
    if wanted.port and wanted.port + 1 > _LAST_PORT:
        raise AutoMixError(f"--port {wanted.port} leaves no port for the second server.")
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(
                LlamaServer(
                    path,
                    name=name,
                    port=wanted.port + i if wanted.port else 0,
                    slots=wanted.samples + 1 if i == 0 else 1,
                    context_tokens=CONTEXT_TOKENS,
                )
            )
            if path is not None
            else None
            for i, (name, path) in enumerate(sources)
        ]
        recorder = _recorder(servers, stack) if wanted.record else None
        small, large = (
            _hosted(name, wanted.seed)
            if server is None
            else _local(
                name,
                recorder.base_url if recorder else server.base_url,
                server.api_key,
                wanted.seed,
                check=server.check,
            )
            for (name, _), server in zip(sources, servers, strict=True)
        )
        yield Pair(small, large, recorder=recorder)


@contextlib.contextmanager
def open_replay(recording: Recording) -> Iterator[Pair]:
    """Open the two recorded models: the same way over HTTP, with recorded answers and times."""
    about = recording.about
    with Replay(recording) as server:
        small, large = (
            _local(about[name], server.base_url, "recorded", about["seed"])
            for name in ("small", "large")
        )
        yield Pair(small, large, clock=server.clock, is_replay=True)


_LAST_PORT = 65_535


def _source(spec: str, wanted: Wanted, progress: Progress | None) -> tuple[str, Path | None]:
    """Return a model's name, and its weights if it runs here."""
    if spec in KNOWN:
        return spec, fetch(KNOWN[spec], folder=wanted.weights, progress=progress)
    if spec.endswith(".gguf"):
        path = Path(spec).expanduser()
        pinned = next((w for w in KNOWN.values() if w.filename == path.name), None)
        if pinned is not None:
            path = fetch(pinned, folder=path, progress=progress)
        return path.stem, path
    if ":" in spec:
        return spec, None
    raise AutoMixError(
        f"There is no model {spec!r}: give a name ({', '.join(KNOWN)}), a .gguf file, or a "
        "provider:model such as openai:gpt-5.4-mini or ollama:llama3.2."
    )


def _recorder(servers: list[LlamaServer | None], stack: contextlib.ExitStack) -> Recorder:
    upstream = {s.name: (s.base_url, s.api_key) for s in servers if s is not None}
    if len(upstream) < len(servers):
        raise AutoMixError("Only local models can be recorded, two different ones.")
    return stack.enter_context(Recorder(upstream))


def _local(
    name: str,
    base_url: str,
    api_key: str,
    seed: int,
    check: Callable[[], None] = lambda: None,
) -> Model:
    # A proxy from the environment has no business between this process and its own servers.
    os.environ["NO_PROXY"] = ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1"]))
    try:
        from langchain_openai import ChatOpenAI  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise _missing("langchain-openai", "local") from error
    chat = ChatOpenAI(
        model=name,
        base_url=base_url,
        api_key=SecretStr(api_key),
        temperature=0,
        max_completion_tokens=ANSWER_TOKENS,
        seed=seed,
        timeout=300,
        max_retries=0,
    )
    return Model(name, chat, check, lambda text: count_tokens(base_url, api_key, name, text))


def _hosted(spec: str, seed: int) -> Model:
    try:
        from langchain.chat_models import init_chat_model  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise _missing("langchain", "cli") from error
    try:
        chat = init_chat_model(spec, temperature=0)
    except (ImportError, ValueError) as error:
        raise AutoMixError(f"The model {spec!r} cannot be opened: {error}") from error
    except Exception as error:  # providers raise kinds of their own, such as for a missing key
        raise AutoMixError(f"The model {spec!r} cannot be opened: {error}") from error
    if "seed" in type(chat).model_fields:
        chat = chat.model_copy(update={"seed": seed})
    return Model(spec, chat)


def _missing(package: str, extra: str) -> AutoMixError:
    return AutoMixError(
        f"{package} is not installed: pip install 'langchain-automix[{extra}]' brings it."
    )
