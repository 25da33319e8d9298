"""Keys of clients: kept as hashes, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID, uuid4

from langchain_automix.errors import AutoMixError
from langchain_automix.mix.limits.spend_limit import SpendLimit
from langchain_automix.serve.errors import ApiError

KEYS_VARIABLE = "AUTOMIX_API_KEYS"
"""The environment variable that holds keys, with commas between them."""

_SHORTEST = 8
_BEARER = "bearer "
_DRAWN = 10
"""Bytes of a query's id that are random: 74 bits, beside those that say what kind of UUID it is."""


@dataclass(frozen=True)
class ApiKey:
    """A key by which a client may ask; the key itself is not kept.

    ??? example "A key with a limit of its own"

        ```python
        from datetime import timedelta

        key = ApiKey.of("team-a", os.environ["TEAM_A_KEY"]).limited(
            SpendLimit("5 USD", per=timedelta(days=1), when_spent="raise")
        )
        ```
    """

    name: str
    """What it is called in limits, metrics and logs; no secret."""

    digest: bytes = field(repr=False)
    """SHA-256 of the key."""

    spend_limit: SpendLimit | None = None
    """What its queries may cost together; None: there is no limit of its own."""

    @classmethod
    def of(cls, name: str, key: str) -> ApiKey:
        """Return a key under a name.

        Raises:
            AutoMixError: The key is too short, or is no text that a header can hold.
        """
        if len(key) < _SHORTEST or not key.isascii() or not key.isprintable() or " " in key:
            raise AutoMixError(
                f"The key {name!r} is no key: take {_SHORTEST} or more printable ASCII "
                "characters without spaces, such as those that `openssl rand -hex 24` prints."
            )
        return cls(name, _digest(key))

    def limited(self, spend_limit: SpendLimit) -> ApiKey:
        """Return the key with a spend limit: one of its own, also where others have the same."""
        update = {"tag": self.tag, "name": f"{spend_limit.name} of key {self.name}"}
        return replace(self, spend_limit=spend_limit.model_copy(update=update))

    @property
    def tag(self) -> str:
        """The tag of its queries, by which its own limit knows them."""
        return f"automix-key={self.name}"


def new_run_id(key: ApiKey | None) -> UUID:
    """Return the id of a new query, in which any process can tell whose it is.

    Ten bytes are random; the others are an HMAC of those by the hash of the key. A query without a
    key has a random id.
    """
    drawn = uuid4()
    if key is None:
        return drawn
    return UUID(bytes=drawn.bytes[:_DRAWN] + _owner_mark(drawn, key))


def is_asked_by(key: ApiKey | None, run_id: UUID) -> bool:
    """Return whether the query of an id was asked with a key; without keys, anyone asked it."""
    return key is None or hmac.compare_digest(run_id.bytes[_DRAWN:], _owner_mark(run_id, key))


def _owner_mark(run_id: UUID, key: ApiKey) -> bytes:
    whole = hmac.digest(key.digest, run_id.bytes[:_DRAWN], "sha256")
    return whole[: len(run_id.bytes) - _DRAWN]


class Keyring:
    """The keys of all clients.

    Args:
        keys: The keys; without any, every client may ask.

    Raises:
        AutoMixError: Two keys are one, or have one name.
    """

    def __init__(self, keys: Sequence[ApiKey] = ()) -> None:
        names = [key.name for key in keys]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise AutoMixError(f"Two keys have the name {twice[0]!r}: give each its own.")
        if len({key.digest for key in keys}) < len(keys):
            raise AutoMixError("One key is given twice, under two names: give each its own.")
        self._keys = tuple(keys)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def find(self, authorization: str | None) -> ApiKey | None:
        """Return the key of a request; None where none are set.

        Every key is compared, whichever is found: how long that takes says nothing of them.

        Args:
            authorization: The header `Authorization`; None: there is none.

        Raises:
            ApiError: The request has no key, or one that is not known.
        """
        if not self._keys:
            return None
        given = authorization or ""
        is_bearer = given[: len(_BEARER)].lower() == _BEARER
        digest = _digest(given[len(_BEARER) :].strip() if is_bearer else "")
        found = None
        for key in self._keys:
            if hmac.compare_digest(digest, key.digest):
                found = key
        if found is None:
            said = "is not known here" if is_bearer else "is missing: send `Authorization: Bearer`"
            raise ApiError(
                401,
                f"The API key {said}.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return found


def keys_of_environment() -> list[ApiKey]:
    """Return the keys in `AUTOMIX_API_KEYS`; each is named by the beginning of its hash.

    Raises:
        AutoMixError: One is no key.
    """
    given = [key.strip() for key in os.environ.get(KEYS_VARIABLE, "").split(",")]
    named = {_digest(key).hex()[:8]: key for key in given if key}
    return [ApiKey.of(name, key) for name, key in named.items()]


def key_in(variable: str) -> str:
    """Return the key in an environment variable.

    Raises:
        AutoMixError: The variable is not set.
    """
    if not (key := os.environ.get(variable, "").strip()):
        raise AutoMixError(f"The environment variable {variable} holds no key: set it.")
    return key


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
