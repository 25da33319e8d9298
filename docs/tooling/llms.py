"""The site for language models: `python -m docs.tooling.llms` writes docs/llms.txt anew.

`llms.txt` (https://llmstxt.org) lists the pages with one line each; `llms-full.txt`, which the
build puts beside the pages, holds the whole text. Both follow the navigation in mkdocs.yml.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from docs.tooling.reference import command_page

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SUMMARY = (
    "A LangChain package. A cheap model answers, the answer is checked, and a larger model is "
    "paid for only where the evidence says that it pays."
)


class Entry(NamedTuple):
    """One page of the navigation."""

    section: str
    title: str
    path: str


def navigation() -> list[Entry]:
    """Return the pages of the site, in the order of the navigation."""
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    return list(_entries(config["nav"], ""))


def _entries(items: list[dict[str, Any]], section: str) -> Iterator[Entry]:
    for item in items:
        for title, below in item.items():
            if isinstance(below, str):
                yield Entry(section or "Start", title, below)
            else:
                yield from _entries(below, title)


def text_of(path: str) -> tuple[str, str]:
    """Return a page's description and its text."""
    if path == "reference/cli.md":
        return _parts(command_page())
    if path == "reference/api.md":
        return "Every public name, from its docstring.", ""
    if path == "changelog.md":
        return "What has changed, by version.", (ROOT / "CHANGELOG.md").read_text("utf-8")
    return _parts((DOCS / path).read_text("utf-8"))


def _parts(text: str) -> tuple[str, str]:
    """Return the description in a page's front matter, or its first sentence; and the text."""
    if not text.startswith("---\n"):
        paragraph = " ".join(text.split("\n\n")[1].split())
        return paragraph.partition(". ")[0].rstrip(".") + ".", text
    head, _, body = text[4:].partition("\n---\n")
    return str(yaml.safe_load(head).get("description", "")), body.lstrip()


def index() -> str:
    """Return `llms.txt`."""
    lines = ["# langchain-automix", "", f"> {SUMMARY}"]
    section = ""
    for entry in navigation():
        if entry.section != section:
            section = entry.section
            lines += ["", f"## {section}", ""]
        description, _ = text_of(entry.path)
        page = entry.path.removesuffix(".md") + ".html"
        lines.append(f"- [{entry.title}]({page})" + (f": {description}" if description else ""))
    return "\n".join(lines) + "\n"


def full() -> str:
    """Return `llms-full.txt`: the text of every page that is written by hand, and the commands."""
    pages = ((entry, text_of(entry.path)[1]) for entry in navigation())
    texts = [f"<!-- {entry.path} -->\n\n{text.strip()}\n" for entry, text in pages if text]
    return "\n".join([f"# langchain-automix\n\n> {SUMMARY}\n", *texts])


def write(folder: Path) -> None:
    """Write both files into a folder."""
    (folder / "llms.txt").write_text(index(), "utf-8")
    (folder / "llms-full.txt").write_text(full(), "utf-8")


def main() -> None:
    """Write docs/llms.txt, which is kept in the repository."""
    (DOCS / "llms.txt").write_text(index(), "utf-8")
    sys.stdout.write(f"{DOCS.name}/llms.txt is written.\n")


if __name__ == "__main__":
    main()
