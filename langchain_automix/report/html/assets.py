"""The parts of HTML pages: files, content policy, and data that cannot become markup."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from langchain_automix.errors import AutoMixError
from langchain_automix.utils.formatting import format_cost, format_share, pluralize
from langchain_automix.utils.install import install_hint

if TYPE_CHECKING:
    from jinja2 import Template

_NOT_TEXT = re.compile("[\ud800-\udfff\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""Lone surrogates, which files cannot hold, and control characters, which HTML forbids."""

_NOT_DATA = re.compile("[<>&\u2028\u2029\ud800-\udfff]")
"""Characters that would end a block of data early, or that files cannot hold."""


@cache
def asset(name: str, package: str = "langchain_automix.report.html") -> str:
    """Return the text of a file in this folder, or in another package."""
    return (files(package) / name).read_text(encoding="utf-8")


def open_template(name: str, **filters: Callable[..., Any]) -> Template:
    """Open the template of a page.

    Args:
        name: File name of the template.
        filters: Filters for this page only.

    Raises:
        AutoMixError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, FunctionLoader, StrictUndefined  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise AutoMixError(
            f"A report as a page needs jinja2, which is not installed: {install_hint('report')}"
        ) from error
    environment = Environment(
        autoescape=True,
        finalize=_replace_controls,
        loader=FunctionLoader(asset),
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    common = {"cost": format_cost, "pluralize": pluralize, "share": format_share}
    environment.filters |= {**common, **filters}
    return environment.get_template(name)


def content_policy(style: str, script: str) -> str:
    """Return a page's content policy: no requests, and no styles or scripts but these."""
    return (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def to_json(value: Any) -> str:
    """Return JSON in which HTML finds no markup."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _NOT_DATA.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _replace_controls(value: Any) -> Any:
    """Replace characters that a page cannot hold; ready-made HTML was processed in its parts."""
    is_text = isinstance(value, str) and not hasattr(value, "__html__")
    return _NOT_TEXT.sub("\ufffd", value) if is_text else value


def _digest(block: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()}"
