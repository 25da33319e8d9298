"""An OpenAI-compatible llama.cpp server for one GGUF file, in a child process on 127.0.0.1.

`LlamaServer` is the parent's side; `main`, run with `python -m`, is the child's side. The child
gets its settings as one line on stdin, and exits when stdin ends. The system closes that pipe
however the parent ends, so no server outlives it.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self, cast

import httpx

from langchain_automix.errors import AutoMixError
from langchain_automix.utils.install import install_hint

_LOOPBACK = "127.0.0.1"
_STOP_SECONDS = 5.0
_POLL_SECONDS = 0.05
# By default, llama.cpp caches old prompts in up to 8 GiB of RAM: too much next to a second model.
_PROMPT_CACHE_MIB = 1024
# llama.cpp's threads wait for each other at every step, and by default (libgomp) they spin for
# milliseconds meanwhile. If other programs want the same cores, this keeps the very thread they
# wait for from running, and an answer takes several times as long.
_PATIENT = {"GOMP_SPINCOUNT": "1000"}
_ERROR_LINE = re.compile(r"^[\d.]+ E (.*)")


class LlamaServer:
    """A local model server that runs until the end of a `with` block.

    ```python
    with LlamaServer(path, name="small") as server:
        model = ChatOpenAI(model="small", base_url=server.base_url, api_key=server.api_key)
    ```

    It listens only on 127.0.0.1, requires a random key, and ends with this process.

    Args:
        path: The GGUF file.
        name: Name of the model in requests.
        port: TCP port; 0 takes any free one.
        slots: Number of requests, or of choices in one request, answered at the same time.
        context_tokens: Number of prompt and answer tokens that each slot holds. llama.cpp lowers it
            to the context that the model was trained with.
        threads: Number of CPU threads; None leaves it to llama.cpp.
        chat_template: A Jinja file that builds prompts; None uses the model's own.
        ready_within: Maximum loading time, in seconds.

    Raises:
        AutoMixError: A number is out of range.
    """

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        port: int = 0,
        slots: int = 9,
        context_tokens: int = 4096,
        threads: int | None = None,
        chat_template: Path | None = None,
        ready_within: float = 120.0,
    ) -> None:
        for what, value, least, most in (
            ("port", port, 0, 65_535),
            ("slots", slots, 1, 256),
            ("context_tokens", context_tokens, 1, 2**20),
            ("threads", 1 if threads is None else threads, 1, 1024),
        ):
            if not least <= value <= most:
                raise AutoMixError(f"{what} is {value}; give a number from {least} to {most}.")
        self.path = path
        self.name = name
        self.api_key = secrets.token_urlsafe(24)
        """The random key that this server requires; useless elsewhere."""
        self._ready_within = ready_within
        self._settings: dict[str, Any] = {
            "path": str(path.absolute()),
            "name": name,
            "port": port,
            "slots": slots,
            "context_tokens": context_tokens,
            "threads": threads,
            "chat_template": None if chat_template is None else str(chat_template.absolute()),
        }
        self._child: _Child | None = None

    @property
    def base_url(self) -> str:
        """The address for an OpenAI client, including `/v1`.

        Raises:
            AutoMixError: The server is not running.
        """
        self.check()
        return f"{cast('_Child', self._child).address}/v1"

    def start(self) -> Self:
        """Load the model and return once it answers; does nothing if it is already running.

        Raises:
            AutoMixError: The file is missing or is not a complete GGUF file, the port is taken,
                xllamacpp is not installed, or the child fails or is not ready in time.
        """
        if self._child is not None:
            return self
        _check_file(self.path)
        if importlib.util.find_spec("xllamacpp") is None:
            raise AutoMixError(
                f"Local models need xllamacpp, which is not installed: {install_hint('local')}"
            )
        if port := self._settings["port"]:
            _check_port(port)
        atexit.register(self.stop)
        try:
            self._child = _Child.spawn({**self._settings, "api_key": self.api_key})
            self._wait_until_ready(self._child)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the child within about 5 seconds; may be called any number of times."""
        atexit.unregister(self.stop)
        child, self._child = self._child, None
        if child is not None:
            child.end()

    def check(self) -> None:
        """Do nothing if the server is running.

        Raises:
            AutoMixError: The server was not started or has died; includes its exit code and last
                log lines.
        """
        if self._child is None:
            raise AutoMixError(
                f"The model server {self.name!r} does not run; use it inside its `with` block."
            )
        code = self._child.process.poll()
        if code is not None:
            raise AutoMixError(
                f"The model server {self.name!r} died with exit code {code}; "
                f"its log ends with: {' | '.join(self._child.log()[-3:]) or '(nothing)'}"
            )

    def __enter__(self) -> Self:
        """Start the server."""
        return self.start()

    def __exit__(self, *_error: object) -> None:
        """Stop the server."""
        self.stop()

    def _wait_until_ready(self, child: _Child) -> None:
        deadline = time.monotonic() + self._ready_within
        while time.monotonic() < deadline:
            if child.is_healthy():
                return
            if child.process.poll() is not None:
                raise AutoMixError(
                    f"The model server could not load {self.path}: {child.first_error()}; check "
                    "that the file is whole."
                )
            time.sleep(_POLL_SECONDS)
        raise AutoMixError(
            f"The model server for {self.path} was not ready within {self._ready_within:g} s; "
            "allow more time or take a smaller model."
        )


def count_tokens(client: httpx.Client, base_url: str, model: str, text: str) -> int:
    """Count the tokens of a text for a llama.cpp server's model, without special tokens.

    It is needed since the usage that the server reports for a request with several replies covers
    only one of them.

    Args:
        client: Sends the request, with the server's key.
        base_url: Address of the server, including `/v1`.
        model: Name of the model.
        text: The text to count.
    """
    url = base_url.removesuffix("/v1") + "/tokenize"
    reply = client.post(url, json={"content": text, "model": model}).raise_for_status()
    return len(reply.json()["tokens"])


@dataclass
class _Child:
    """A running child, and the folder for its output."""

    process: subprocess.Popen[bytes]
    folder: tempfile.TemporaryDirectory[str]
    address: str | None = None

    @classmethod
    def spawn(cls, settings: dict[str, Any]) -> Self:
        folder = tempfile.TemporaryDirectory(prefix="automix-", ignore_cleanup_errors=True)
        package_root = str(Path(__file__).parents[2])
        python_path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
        with Path(folder.name, "out").open("wb") as out, Path(folder.name, "log").open("wb") as log:
            # -P keeps the user's working folder off the import path; PYTHONPATH makes the child run
            # this copy of the package.
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "langchain_automix.local.server"],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=log,
                env={**_PATIENT, **os.environ, "PYTHONPATH": python_path},
            )
        # A child that died at once breaks the pipe; the wait for readiness reports why.
        with contextlib.suppress(BrokenPipeError):
            # The key goes through the pipe, since other users can read a command line.
            line = json.dumps({**settings, "folder": folder.name})
            cast("IO[bytes]", process.stdin).write(line.encode() + b"\n")
        return cls(process, folder)

    def is_healthy(self) -> bool:
        """Whether the server answers; from then on, its address is known."""
        line, end, _ = Path(self.folder.name, "out").read_text("utf-8").partition("\n")
        if not end:
            return False
        self.address = str(json.loads(line)["listening_address"])
        try:
            # Never use a proxy from the environment between this process and its child.
            return httpx.get(f"{self.address}/health", trust_env=False).is_success
        except httpx.HTTPError:  # not listening yet
            return False

    def log(self) -> list[str]:
        text = Path(self.folder.name, "log").read_text("utf-8", errors="replace")
        return [line.strip() for line in text.splitlines() if line.strip()]

    def first_error(self) -> str:
        """Return the first error in the log, since the others only follow from it."""
        lines = self.log()
        errors = [match[1] for line in lines if (match := _ERROR_LINE.match(line))]
        return (errors or lines[-1:] or ["it left no log"])[0]

    def end(self) -> None:
        cast("IO[bytes]", self.process.stdin).close()
        try:
            # While loading a model, the child does not read stdin, so waiting would be useless.
            self.process.wait(0 if self.address is None else _STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()


def _check_file(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise AutoMixError(
            f"The model file {path} cannot be read ({error.strerror}); give the path of a GGUF "
            "file."
        ) from error
    if magic != b"GGUF":
        raise AutoMixError(
            f"The model file {path} is not a GGUF file (it begins with {magic!r}); give the path "
            "of one."
        )


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        if os.name == "posix":
            # Otherwise, a server that has just ended would still seem to hold the port. On Windows,
            # the same option would let us share a port that is in use.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_LOOPBACK, port))
        except OSError as error:
            raise AutoMixError(
                f"Port {port} cannot be used ({error.strerror}); choose another, or leave it out "
                "to take any free one."
            ) from error


def main() -> None:
    """Serve one model until stdin ends: the child's side of `LlamaServer`."""
    # Ctrl-C reaches the whole process group; the parent decides when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_stdin, args=(settings["folder"],), daemon=True).start()
    # Only the address may go to stdout, even if native code prints there.
    answer = os.dup(1)
    os.dup2(2, 1)
    try:
        server = _serve(settings)
    except RuntimeError as error:
        os.write(2, f"{error}\n".encode())
        os._exit(1)
    reply = json.dumps({"listening_address": server.listening_address})
    os.write(answer, reply.encode() + b"\n")
    threading.Event().wait()


def _end_with_stdin(folder: str) -> None:
    # Use os.read and os._exit, since neither locks nor native threads may delay the exit.
    while os.read(0, 1024):
        pass
    # A killed parent cannot remove the folder; a running one no longer needs it.
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def _serve(settings: dict[str, Any]) -> Any:
    import xllamacpp  # noqa: PLC0415 - 100 MB, needed in the child only

    params = xllamacpp.CommonParams()
    params.model.path = settings["path"]
    params.model_alias = {settings["name"]}
    params.hostnames = [_LOOPBACK]
    params.port = settings["port"]
    params.api_keys = [settings["api_key"]]
    params.ui = False
    params.n_parallel = settings["slots"]
    params.n_ctx = settings["slots"] * settings["context_tokens"]
    params.cache_ram_mib = _PROMPT_CACHE_MIB
    if settings["chat_template"] is not None:
        params.chat_template = Path(settings["chat_template"]).read_text("utf-8")
    if settings["threads"] is not None:
        params.cpuparams.n_threads = settings["threads"]
        params.cpuparams_batch.n_threads = settings["threads"]
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main()
