"""Pages opened in headless Chromium, as far as one is on this machine."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    """Return the path of a Chromium; None where there is none."""
    return next((found for found in map(shutil.which, NAMES) if found), None)


@dataclass(frozen=True)
class Opened:
    """What became of a page."""

    dom: str
    complaints: tuple[str, ...]
    """Lines of its console: errors, and whatever its policy for content refused."""


def opened(path: Path, *, width: int = 1280) -> Opened:
    """Open a page, and return its document after its scripts ran."""
    done = run("--dump-dom", path, width)
    said = tuple(line for line in done.stderr.splitlines() if ":CONSOLE" in line)
    return Opened(done.stdout, said)


def run(what: str, path: Path, width: int = 1280) -> subprocess.CompletedProcess[str]:
    """Start Chromium, let it do something with a page, and wait for its end."""
    program = chromium()
    assert program is not None
    return subprocess.run(
        [
            program,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            "--v=0",
            f"--user-data-dir={path.parent / 'profile'}",
            f"--window-size={width},900",
            what,
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
