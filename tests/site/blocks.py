"""The code blocks of a page.

A block that cannot be run has a comment before it that says why:
`<!-- not run: langchain-litellm brings 210 MB -->`.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from pytest_examples import CodeExample, find_examples

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

NOT_RUN = {"docs/scale.md": "a Ray cluster takes many seconds to start; its own tests have one"}
"""Pages whose Python is not run, and why."""

_NOT_RUN = re.compile(r"<!-- not run: (?P<reason>[^>]{10,}) -->\s*\Z")
_CONSOLE = re.compile(r"^ *```console\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL)


def python_blocks(page: Path) -> list[CodeExample]:
    """Return the Python blocks of a page that are to be run."""
    if page.relative_to(ROOT).as_posix() in NOT_RUN:
        return []
    text = page.read_text("utf-8")
    return [each for each in _python(page) if reason(each, text) is None]


def reasons(page: Path) -> list[str]:
    """Return why blocks of a page are not run."""
    text = page.read_text("utf-8")
    return [found for each in _python(page) if (found := reason(each, text))]


def reason(example: CodeExample, text: str) -> str | None:
    """Return why a block is not run; None: it is."""
    fence = text.rindex("```", 0, example.start_index)
    found = _NOT_RUN.search(text[:fence])
    return found["reason"] if found else None


def _python(page: Path) -> list[CodeExample]:
    return [each for each in find_examples(page) if each.prefix.startswith("py")]


def commands(page: Path, program: str) -> list[list[str]]:
    """Return the arguments of each line of the page's consoles that starts a program."""
    lines = (
        line.strip().removeprefix("$ ")
        for found in _CONSOLE.finditer(page.read_text("utf-8"))
        for line in found["text"].splitlines()
    )
    words = (shlex.split(line, comments=True) for line in lines if line.startswith(program + " "))
    return [each[1:] for each in words]
