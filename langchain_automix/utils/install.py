"""The extras of this package: how to install one, and a module that needs one.

The package is on no index, so pip needs its folder.
"""

from __future__ import annotations

import functools
import importlib
import json
from importlib import metadata
from typing import Any

from langchain_automix.errors import AutoMixError

_CLONE = "file:///path/to/clone"


@functools.cache
def _source() -> str:
    """Return the address that this package was installed from, or a placeholder if unknown."""
    try:
        written = metadata.distribution("langchain-automix").read_text("direct_url.json")
        address = json.loads(written or "{}").get("url")
    except (metadata.PackageNotFoundError, ValueError, AttributeError):
        return _CLONE
    is_folder = isinstance(address, str) and address.startswith("file://") and "'" not in address
    return address if is_folder else _CLONE


def install_hint(extra: str) -> str:
    """Return the command that installs an extra of this package."""
    return f"pip install 'langchain-automix[{extra}] @ {_source()}'"


def import_extra(module: str, extra: str) -> Any:
    """Return a module that an extra of this package installs.

    Raises:
        AutoMixError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise AutoMixError(
            f"This needs {module.partition('.')[0]}, which is not installed: {install_hint(extra)}"
        ) from error
