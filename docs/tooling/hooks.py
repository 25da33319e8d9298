"""What MkDocs calls while it builds the site: generated pages, links out of it, `llms.txt`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

sys.path.insert(0, str(Path(__file__).parents[2]))  # MkDocs runs this file by its path

from docs.tooling import llms
from docs.tooling.diagrams import as_pictures
from docs.tooling.reference import command_page, python_page

_FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc=["']?(?:https?:)?//[^>]*>"""
    r"""|<link\b(?=[^>]*\brel=["']?(?:stylesheet|preload|preconnect|icon))[^>]*"""
    r"""\bhref=["']?(?:https?:)?//[^>]*>"""
)
_SHIM = "https://unpkg.com/iframe-worker/shim"
_GENERATED = {"reference/api.md": python_page, "reference/cli.md": command_page}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from the code."""
    for path, page in _GENERATED.items():
        files.append(File.generated(config, path, content=page()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Show each diagram as the picture that is kept of it."""
    return as_pictures(markdown, page.file.src_path)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Keep a page from fetching anything from elsewhere: the site works offline."""
    return _by_itself(output, page.url)


def on_post_template(output: str, template_name: str, config: MkDocsConfig) -> str:
    """Do the same for what is no page, such as 404.html."""
    return _by_itself(output, template_name)


def _by_itself(output: str, url: str) -> str:
    # What lets the search work where the site is opened as files; Material would fetch it.
    output = output.replace(_SHIM, get_relative_url("assets/iframe-worker.js", url))
    if found := _FETCHED.search(output):
        raise PluginError(f"{url} fetches from elsewhere: {found[0][:120]}")
    return output


def on_post_build(config: MkDocsConfig) -> None:
    """Write `llms.txt` and `llms-full.txt` beside the pages."""
    llms.write(Path(config.site_dir))
