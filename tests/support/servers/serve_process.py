"""`automix serve` as a process of its own, for what only a process shows."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.builders.waiting import LONG, wait_for
from tests.support.servers.openai_server import OpenAIServer

_CODE = "from langchain_automix.cli.app import main; main()"


@dataclass
class ServeProcess:
    """A process that serves until it is told to stop."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    """All that it writes."""

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code once it has ended."""
        self.process.send_signal(number)
        return self.process.wait(LONG)


@contextlib.contextmanager
def serve_process(
    provider: OpenAIServer | str, log: Path, *arguments: object, port: int = 0
) -> Iterator[ServeProcess]:
    """Run `automix serve`, its OpenAI models at a loopback provider; kill it at the end.

    Args:
        provider: The provider, or its address.
        log: File for what the process writes.
        arguments: What stands after `serve`.
        port: Where it listens; 0: at any that is free.
    """
    environment = {
        **os.environ,
        "OPENAI_BASE_URL": provider if isinstance(provider, str) else provider.base_url,
        "OPENAI_API_KEY": "no key",
        "AUTOMIX_API_KEYS": "",
    }
    command = [sys.executable, "-c", _CODE, "serve", *map(str, arguments), "--port", str(port)]
    with (
        log.open("wb") as out,
        subprocess.Popen(command, stdout=out, stderr=out, env=environment) as process,
    ):
        try:
            wait_for(lambda: _port(log) or process.poll() is not None)
            found = _port(log)
            assert found is not None, log.read_text()
            yield ServeProcess(process, found, log)
        finally:
            process.kill()


def _port(log: Path) -> int | None:
    found = re.search(r"http://\S+:(\d+)/v1", log.read_text())
    return int(found[1]) if found else None
