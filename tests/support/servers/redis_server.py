"""A Redis server of the tests' own, on this machine, that keeps nothing; Debian's redis-server."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_BINARY = shutil.which("redis-server")
MISSING = (
    "there is no redis-server (apt-get install redis-server)"
    if _BINARY is None
    else "redis-py is not installed"
    if importlib.util.find_spec("redis") is None
    else ""
)
needs_redis = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Run a server; give its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    log = (folder / "redis.log").open("wb")
    with log, subprocess.Popen([str(_BINARY), *settings], cwd=folder, stdout=log) as running:
        try:
            _wait_for(port, running)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            running.terminate()


def _wait_for(port: int, running: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        assert running.poll() is None, "redis-server has ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError("redis-server does not answer")
