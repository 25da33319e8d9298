"""Hide the passwords in URLs before they are shown."""

from __future__ import annotations

import re

_PASSWORD = re.compile(r"(?<=://)\S*(?=@)|(?<=[?&]password=)[^&#]*|(?<=[?&]sslpassword=)[^&#]*")


def hide_password(url: str) -> str:
    """Return a URL with `***` for its user, its password and any passwords in its parameters."""
    return _PASSWORD.sub("***", url)
