"""`ServeSettings`: who may ask, how much, and for how long."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from langchain_automix.errors import AutoMixError
from langchain_automix.serve.keys import KEYS_VARIABLE, ApiKey, Keyring

MEGABYTE = 1_000_000
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#@*]+")


@dataclass(frozen=True)
class ServeSettings:
    """Who may ask, how much, and for how long.

    Raises:
        AutoMixError: A setting is not possible.
    """

    keys: tuple[ApiKey, ...] = ()
    """Keys of the clients; without any, every client may ask."""

    show_texts: bool = False
    """Whether questions may be shown to observers of queries, such as the live page."""

    metrics_open: bool = False
    """Whether `/metrics` is told without a key, as to a scraper in a network of your own."""

    max_body_bytes: int = 20 * MEGABYTE
    """Largest body of a request, in bytes; images are part of it."""

    timeout: float = 600.0
    """Seconds that one query may take, its response included."""

    max_concurrent: int = 1_000
    """Queries at a time; one more is refused with status 503."""

    grace: float = 30.0
    """Seconds that queries under way are given to end when the server stops."""

    cors_origins: tuple[str, ...] = ()
    """Web pages whose scripts may ask, such as `https://app.example.com`; none by default."""

    def __post_init__(self) -> None:
        for name in ("max_body_bytes", "timeout", "max_concurrent"):
            if not 0 < getattr(self, name) < float("inf"):
                raise AutoMixError(f"{name} must be above 0, not {getattr(self, name)!r}.")
        if not 0 <= self.grace < float("inf"):
            raise AutoMixError(f"grace is seconds, 0 or more, not {self.grace!r}.")
        Keyring(self.keys)
        for origin in self.cors_origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise AutoMixError(
                    f"cors_origins: {origin!r} is no origin of a web page, such as "
                    "https://app.example.com, without a path or a slash at its end."
                )
        if "*" in self.cors_origins and not self.keys:
            raise AutoMixError(
                "cors_origins has '*', and no key is set: any web page that is open on this "
                f"machine could spend your money. Set {KEYS_VARIABLE}, or name the pages."
            )


def check_host(host: str, settings: ServeSettings) -> None:
    """Refuse to serve other machines without keys.

    Raises:
        AutoMixError: The host is not this machine's own, and there is no key.
    """
    if not settings.keys and not is_loopback(host):
        raise AutoMixError(
            f"--host {host} can be reached from other machines, and no key is set: whoever "
            f"reaches it could spend your money. Set {KEYS_VARIABLE} to one or more keys, with "
            "commas between them, or leave out --host."
        )


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
