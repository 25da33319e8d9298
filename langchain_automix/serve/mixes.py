"""The mixes that are served, by name; each is taken anew when its policy file changes."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from langchain_automix.errors import AutoMixError, near_matches
from langchain_automix.learning.learning import Learning
from langchain_automix.mix.chat_model import ChatAutoMix
from langchain_automix.mix.limits.spend_limit import SpendLimit, limits_of
from langchain_automix.serve.binding import BoundMixes
from langchain_automix.serve.chat_request import LONGEST_NAME
from langchain_automix.serve.errors import ApiError, shortened
from langchain_automix.utils.files import reason_of

_LOGGER = logging.getLogger(__name__)

_DIGEST = 12


@dataclass(frozen=True)
class PolicyFile:
    """A policy file, and how a mix is made by it.

    It is read anew when it changes.
    """

    path: Path
    make: Callable[[Path], ChatAutoMix]
    """Makes the mix by the policy in the file, always of the same models."""


class CurrentMix(NamedTuple):
    """What decides the queries that begin now: each goes by one of these to its end."""

    mix: ChatAutoMix
    policy: str | None
    """Version of its policy: the beginning of the file's hash; None: it has no file."""

    bound: BoundMixes
    """The mix with the tools, the format and the settings of requests."""


class ServedMix:
    """A mix under its name.

    Args:
        name: Its name, which is that of a model to clients.
        source: The mix, or the policy file that it is made by.
        limits: Spend limits beside its own, such as those of the clients' keys.

    Raises:
        AutoMixError: The mix cannot be made.
    """

    def __init__(
        self, name: str, source: ChatAutoMix | PolicyFile, limits: Sequence[SpendLimit] = ()
    ) -> None:
        self.name, self.created = name, int(time.time())
        self._source, self._limits = source, list(limits)
        self._seen: Any = None
        if isinstance(source, PolicyFile):
            self._seen = _stamp(source.path)
            self.current = self._read(source)
        else:
            self.current = self._current(source, None)

    def refresh(self) -> bool:
        """Take the policy anew if its file has changed; return whether another one decides now.

        A file that cannot be used leaves the present policy in its place, and is warned of once.
        """
        source = self._source
        if not isinstance(source, PolicyFile) or (stamp := _stamp(source.path)) == self._seen:
            return False
        self._seen = stamp
        try:
            made = self._read(source)
        except (AutoMixError, ValueError, OSError) as error:
            _LOGGER.warning(
                "The policy of %s has changed, and cannot be used: %s The former one goes on.",
                self.name,
                error,
            )
            return False
        is_other = made.policy != self.current.policy
        self.current = made
        if is_other:
            _LOGGER.info("%s goes by policy %s from now on.", self.name, made.policy)
        return is_other

    def _read(self, source: PolicyFile) -> CurrentMix:
        """Return the mix of a policy file, and the hash of what was read."""
        try:
            before = source.path.read_bytes()
            made = source.make(source.path)
            if source.path.read_bytes() != before:  # it was written meanwhile
                self._seen = None
        except OSError as error:
            raise AutoMixError(
                f"The policy {source.path} cannot be read: {reason_of(error)}."
            ) from error
        return self._current(made, hashlib.sha256(before).hexdigest()[:_DIGEST])

    def _current(self, mix: ChatAutoMix, policy: str | None) -> CurrentMix:
        if self._limits:
            limits = [*limits_of(mix.spend_limit), *self._limits]
            mix = mix.model_copy(update={"spend_limit": limits})
        _ = mix.model_names  # a model without a price is refused now
        return CurrentMix(mix, policy, BoundMixes(mix))


class Mixes:
    """All mixes that are served.

    Args:
        mixes: By name, each a mix or the policy file that it is made by.
        limits: Spend limits that hold in all of them, beside their own.

    Raises:
        AutoMixError: There is none, a name is empty or too long, or what is given is no mix.
    """

    def __init__(
        self,
        mixes: Mapping[str, ChatAutoMix | PolicyFile],
        limits: Sequence[SpendLimit] = (),
    ) -> None:
        if not mixes:
            raise AutoMixError("There is no mix to serve: give one or more, by name.")
        for name, given in mixes.items():
            if not name.strip():
                raise AutoMixError("A mix needs a name by which clients ask for it.")
            if len(name) > LONGEST_NAME:
                raise AutoMixError(
                    f"The name of a mix has {len(name)} characters, but {LONGEST_NAME} at most: "
                    f"{shortened(name)!r}."
                )
            if not isinstance(given, ChatAutoMix | PolicyFile):
                raise AutoMixError(
                    f"The mix {name!r} is a {type(given).__name__}, but must be a ChatAutoMix, "
                    "which takes the messages of a chat."
                )
        self._mixes = {name: ServedMix(name, given, limits) for name, given in mixes.items()}

    def __iter__(self) -> Iterator[ServedMix]:
        return iter(self._mixes.values())

    @property
    def learners(self) -> dict[str, Learning]:
        """What learns, by the name of its mix; several mixes may share one."""
        return {
            served.name: learner
            for served in self
            if isinstance(learner := served.current.mix.learning, Learning)
        }

    def get(self, name: str) -> ServedMix:
        """Return a mix by its name.

        Raises:
            ApiError: There is none.
        """
        if (found := self._mixes.get(name)) is None:
            near = near_matches(name, self._mixes)
            message = f"There is no model {name!r}.{near} GET /v1/models lists all."
            raise ApiError(404, message, code="model_not_found", param="model")
        return found

    async def watch(self, seconds: float) -> None:
        """Take policies anew as their files change, until it is cancelled.

        Args:
            seconds: How often to look.
        """
        while True:
            await asyncio.sleep(seconds)
            await self.refresh()

    async def refresh(self) -> None:
        """Take the policies anew whose files have changed, beside the queries."""
        for served in self:
            try:
                await asyncio.to_thread(served.refresh)
            except Exception:  # it is looked at again
                _LOGGER.warning("the policy of %s was not looked at", served.name, exc_info=True)


def _stamp(path: Path) -> Any:
    """Return what changes when a file does; None where it is away."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
