"""What every test gets: no key, no tracing, nothing kept from the test before."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Before numpy is imported: the workers share the cores, and a second thread of each only waits.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
from hypothesis import settings
from langsmith import tracing_context

from langchain_automix.models import attachments, sampling
from langchain_automix.models.refusals import LOGPROBS, SEVERAL_REPLIES
from langchain_automix.routers import pomdp

if TYPE_CHECKING:
    from tests.support.builders.agents import Tools
    from tests.support.servers.openai_server import OpenAIServer

# Half of the usual number: the whole suite has 15 minutes on two slow cores.
settings.register_profile("suite", max_examples=50)
settings.load_profile("suite")

# Told to keep no bytecode, Python would rewrite every assert in every run, and compile the package
# in every process that a test starts: a third of the time.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

_OF_WIRE = re.compile(
    r"^(import (subprocess|multiprocessing|http\.server)|from tests\.support\.servers)\b"
    r"|os\.fork\(",
    re.MULTILINE,
)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out, where `-m "not wire"` would deselect all of a file, even its imports."""
    named = {Path(name.partition("::")[0]).resolve() for name in config.args}
    if config.option.markexpr != "not wire" or collection_path in named:
        return None
    return True if collection_path.is_file() and _is_of_wire(collection_path) else None


def _is_of_wire(path: Path) -> bool:
    if path.suffix == ".py":
        return _OF_WIRE.search(path.read_text("utf-8")) is not None
    return path.suffix == ".ipynb"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what asks a server or starts processes: `pytest -m "not wire"` answers soon."""
    of_wire: dict[Path, bool] = {}
    for item in items:
        if item.path not in of_wire:
            module = getattr(item, "module", None)  # a notebook has none
            values = () if module is None else vars(module).values()
            of_wire[item.path] = _is_of_wire(item.path) or any(map(_is_of_a_server, values))
        if of_wire[item.path]:
            item.add_marker("wire")


def _is_of_a_server(value: object) -> bool:
    home = getattr(value, "__module__", None) or getattr(value, "__name__", "")
    return value is subprocess or str(home).startswith("tests.support.servers")


@pytest.fixture(autouse=True)
def hermetic(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "LANGSMITH_", "LANGCHAIN_", "ANTHROPIC_")):
            monkeypatch.delenv(name)
    # A shell that starts the tests in the background has them, and their children, ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # No test may fetch weights by accident: no index, and an empty cache.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("AUTOMIX_CACHE", str(tmp_path / "cache"))
    # Nothing goes over TLS here, and each client would load all certificates: 0.1 s a model.
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    pomdp._warn_uncalibrated.cache_clear()
    sampling._warn_used_as_is.cache_clear()
    SEVERAL_REPLIES.forget()
    LOGPROBS.forget()
    attachments._warn_unreadable.cache_clear()
    with tracing_context(enabled=False):
        yield


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    from tests.support.servers.openai_server import OpenAIServer  # noqa: PLC0415  (slow to import, too)

    with OpenAIServer() as running:
        yield running


@pytest.fixture
def tools() -> Tools:
    from tests.support.builders.agents import Tools  # noqa: PLC0415  (agents are slow to import)

    return Tools()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("a small disk can only be mounted by root, where mounts are allowed")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=False)
