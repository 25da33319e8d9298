"""How to install an extra of this package, which is on no index, so that pip needs its folder."""

from __future__ import annotations

import functools
import json
from importlib import metadata

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
