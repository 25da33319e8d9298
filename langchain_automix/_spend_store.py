"""What keeps the books of a spend limit, wherever it keeps them."""

from __future__ import annotations

import time
import warnings
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import ClassVar

from langchain_automix._spend_book import Seen, Standing, Terms


def now_ms() -> int:
    """Return this machine's time in milliseconds."""
    return time.time_ns() // 1_000_000


class SpendStore(ABC):
    """Keeps the books of one limit: one a bucket. Every method is one atomic step."""

    is_remote: ClassVar[bool] = True
    """Whether a step may take longer than an event loop can wait."""

    def __init__(self) -> None:
        self._put_off: deque[Callable[[], None]] = deque()
        self._said: set[str] = set()

    def put_off(self, step: Callable[[], None]) -> None:
        """Do a step that nobody can wait for: at once where that takes no time, else later.

        Later is before the next query asks for a place. Until then, and where none does, the
        place that the step would give away counts as what it is worth.
        """
        self._put_off.append(step)
        if not self.is_remote:
            self.catch_up()

    def catch_up(self) -> None:
        """Do what was put off."""
        while self._put_off:
            try:
                step = self._put_off.popleft()
            except IndexError:  # another thread has done it
                return
            try:
                step()
            except Exception:
                self._put_off.appendleft(step)
                raise

    def warn_once(self, text: str, category: type[UserWarning]) -> None:
        """Warn of something, the first time that it is so."""
        if text not in self._said:
            self._said.add(text)
            warnings.warn(text, category, stacklevel=3)

    @abstractmethod
    def reserve(self, bucket: str, query: str, terms: Terms) -> Seen:
        """Ask for a query's place."""

    @abstractmethod
    def settle(
        self,
        bucket: str,
        query: str,
        cost: int | None,
        may: int,
        terms: Terms,
        *,
        lost: bool = False,
    ) -> None:
        """Count what a query came to, and give its place away; see `Book.settle`."""

    @abstractmethod
    def release(self, bucket: str, query: str, terms: Terms) -> None:
        """Give away the place of a query that has cost nothing."""

    @abstractmethod
    def standing(self, bucket: str, terms: Terms) -> Standing:
        """Return how the limit stands."""
