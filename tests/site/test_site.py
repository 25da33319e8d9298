"""What is kept beside the pages is up to date, and each page can be found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.tooling import diagrams, llms, reference
from langchain_automix import __all__ as public
from tests.site.blocks import DOCS, PAGES, ROOT

README = ROOT / "README.md"
LINES, BYTES, PICTURE_BYTES = 150, 10_000, 150_000
GENERATED = {"reference/api.md", "reference/cli.md"}
_LINK = re.compile(r"(?P<picture>!?)\[(?P<words>[^\]]*)\]\((?P<to>[^)\s]+)\)")


def links(page: Path) -> list[re.Match[str]]:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    return [found for found in _LINK.finditer(text) if not found["to"].startswith("http")]


def test_the_readme_is_short() -> None:
    text = README.read_text("utf-8")
    assert text.count("\n") <= LINES
    assert len(text.encode()) <= BYTES


def test_each_page_is_in_the_navigation_once() -> None:
    found = [entry.path for entry in llms.navigation()]
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert len(found) == len(set(found))
    assert set(found) == pages | GENERATED


def test_llms_txt_is_up_to_date() -> None:
    assert (DOCS / "llms.txt").read_text("utf-8") == llms.index(), "python -m docs.tooling.llms"


def test_llms_txt_describes_each_page() -> None:
    lines = llms.index().splitlines()
    assert [line for line in lines if line.startswith("- ") and "): " not in line] == []


def test_llms_full_holds_every_page() -> None:
    whole = llms.full()
    for entry in llms.navigation():
        if entry.path != "reference/api.md":
            assert f"<!-- {entry.path} -->" in whole


def test_every_public_name_has_its_group() -> None:
    named = [name for names in reference.GROUPS.values() for name in names]
    assert len(named) == len(set(named))
    assert {*named, "__version__"} == set(public)


@pytest.mark.parametrize("page", [README, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_of_what_is_no_page_of_the_site(page: Path) -> None:
    """MkDocs checks those of the others."""
    for found in links(page):
        path, _, anchor = found["to"].partition("#")
        target = page.parent / path
        assert target.exists(), found[0]
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^a-z0-9]+", "-", each.lower()) for each in headings}


def test_pictures_have_words_and_are_small() -> None:
    shown = [found for page in PAGES for found in links(page) if found["picture"]]
    assert shown
    assert [found["to"] for found in shown if len(found["words"]) < 40] == []
    sizes = {path.name: path.stat().st_size for path in (DOCS / "pictures").iterdir()}
    assert {name: size for name, size in sizes.items() if size > PICTURE_BYTES} == {}


def test_diagrams_are_drawn_as_they_are_written() -> None:
    found = list(diagrams.diagrams())
    assert found
    for each in found:
        assert each.mark in each.path.read_text("utf-8"), "python -m docs.tooling.pictures diagrams"
