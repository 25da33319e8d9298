"""Where the books of a spend limit are kept: in this process, in a LangGraph store, in Redis."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import uuid4

from typing_extensions import override

from langchain_automix._spend_book import Answer, Book, Seen, Standing, Terms
from langchain_automix._spend_redis import RedisStore, client_of
from langchain_automix._spend_store import SpendStore, now_ms
from langchain_automix.errors import AutoMixError

if TYPE_CHECKING:
    from langgraph.store.base import BaseStore

_PAGE = 100
_MANY = 64


class _Shelf:
    """The books of one process, by bucket."""

    def __init__(self) -> None:
        self.books: dict[str, Book] = {}
        self._swept_at = _MANY

    def book(self, bucket: str, terms: Terms, now: int) -> Book:
        """Return a book, with what has left the window forgotten."""
        if len(self.books) >= self._swept_at:
            # One bucket a tenant, for years: those of whom nothing is left in the window go.
            for book in self.books.values():
                book.forget(terms, now)
            self.books = {k: b for k, b in self.books.items() if b != Book()}
            self._swept_at = max(_MANY, 2 * len(self.books))
        book = self.books.setdefault(bucket, Book())
        book.forget(terms, now)
        return book


class ProcessStore(SpendStore):
    """Keeps the books in this process."""

    is_remote = False

    def __init__(self) -> None:
        super().__init__()
        self._shelf = _Shelf()
        self._lock = threading.Lock()

    @override
    def reserve(self, bucket: str, query: str, terms: Terms) -> Seen:
        with self._lock:
            now = now_ms()
            book = self._shelf.book(bucket, terms, now)
            book.held.pop(query, None)  # nobody waits for himself
            standing = book.standing(terms, now)
            answer = standing.verdict(terms.limit)
            if answer == "granted":
                book.hold(query, terms, now)
            return Seen(answer, standing)

    @override
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
        with self._lock:
            now = now_ms()
            book = self._shelf.book(bucket, terms, now)
            book.settle(query, cost, may, terms, now, lost=lost)

    @override
    def release(self, bucket: str, query: str, terms: Terms) -> None:
        with self._lock:
            self._shelf.book(bucket, terms, now_ms()).held.pop(query, None)

    @override
    def standing(self, bucket: str, terms: Terms) -> Standing:
        with self._lock:
            now = now_ms()
            return self._shelf.book(bucket, terms, now).standing(terms, now)


class GraphStore(SpendStore):
    """Keeps the books in a LangGraph `BaseStore`, which has no compare-and-swap.

    Each process writes one item, which only it writes: nobody's update is ever lost. It writes
    down its query's place first and reads all items after that, so of two processes that ask at
    once at least one sees the other, as long as the store lets a read see every write that was
    done before it. Both may then be told `busy`, and ask again.
    """

    def __init__(self, store: BaseStore, name: str) -> None:
        super().__init__()
        self._store = store
        self._name = name
        # One at a time in a process: its item must not go back in time.
        self._lock = threading.Lock()
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._key = uuid4().hex
        self._shelf = _Shelf()

    @override
    def reserve(self, bucket: str, query: str, terms: Terms) -> Seen:
        with self._lock:
            now = now_ms()
            self._change(bucket, terms, now, lambda book: book.hold(query, terms, now))
            answer: Answer = "busy"
            try:
                whole = self._whole(bucket, terms, now)
                del whole.held[query]
                standing = whole.standing(terms, now)
                answer = standing.verdict(terms.limit)
            finally:
                if answer != "granted":
                    self._give_away(bucket, query, terms, now)
            return Seen(answer, standing)

    @override
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
        with self._lock:
            now, most = now_ms(), 0
            if cost is None:
                most = self._whole(bucket, terms, now).standing(terms, now).most

            def settle(book: Book) -> None:
                book.settle(query, cost, may, terms, now, lost=lost, most=most)

            self._change(bucket, terms, now, settle)

    @override
    def release(self, bucket: str, query: str, terms: Terms) -> None:
        with self._lock:
            self._give_away(bucket, query, terms, now_ms())

    @override
    def standing(self, bucket: str, terms: Terms) -> Standing:
        with self._lock:
            now = now_ms()
            return self._whole(bucket, terms, now).standing(terms, now)

    def _give_away(self, bucket: str, query: str, terms: Terms, now: int) -> None:
        # Whether or not it can be told now: what is told next says it, too.
        self._book(bucket, terms, now).held.pop(query, None)
        self._change(bucket, terms, now, lambda _: None)

    def _change(self, bucket: str, terms: Terms, now: int, change: Callable[[Book], None]) -> None:
        """Change this process's book, here and in the store; where that fails, not at all."""
        changed = Book.of(self._book(bucket, terms, now).written())
        change(changed)
        kept = terms.kept
        # Processes that are no more leave their items; a store that can drops them.
        last = {"ttl": kept / 60_000} if kept and self._store.supports_ttl else {}
        self._store.put(self._namespace(bucket), self._key, changed.written(), index=False, **last)
        self._shelf.books[bucket] = changed

    def _book(self, bucket: str, terms: Terms, now: int) -> Book:
        if self._process != os.getpid():  # a fork: its parent writes on under the same key
            self._start()
        return self._shelf.book(bucket, terms, now)

    def _whole(self, bucket: str, terms: Terms, now: int) -> Book:
        books = [self._book(bucket, terms, now)]
        namespace, offset = self._namespace(bucket), 0
        while True:
            items = self._store.search(namespace, limit=_PAGE, offset=offset)
            # Some stores find also what only begins alike: for `acme` the books of `acme2`.
            own = (item for item in items if tuple(item.namespace) == namespace)
            books += [Book.of(item.value) for item in own if item.key != self._key]
            if len(items) < _PAGE:
                break
            offset += _PAGE
        whole = Book.together(books)
        whole.forget(terms, now)
        return whole

    def _namespace(self, bucket: str) -> tuple[str, ...]:
        return ("automix", "spend", _label(self._name), _label(bucket))


def _label(text: str) -> str:
    """Return a text as a label of a namespace, which has no full stop and is not empty."""
    return "_" + quote(text, safe="").replace(".", "%2E")


def store_of(given: Any, name: str) -> SpendStore:
    """Return what keeps the books, from what a user gave for it.

    Raises:
        AutoMixError: It is nothing that can, or redis-py is not installed.
    """
    if given is None:
        return ProcessStore()
    if isinstance(given, str):
        return RedisStore(client_of(given), name)
    if hasattr(given, "register_script"):
        if type(given).__module__.startswith("redis.asyncio"):
            raise AutoMixError(
                "The spend limit's store is an asynchronous Redis client, which belongs to one "
                "event loop: give its URL or a redis.Redis, which is asked in a thread, so that "
                "no event loop waits for it."
            )
        return RedisStore(given, name)
    if all(hasattr(given, method) for method in ("put", "search", "supports_ttl")):
        return GraphStore(given, name)
    raise AutoMixError(
        f"The spend limit's store is a {type(given).__name__}; give a Redis URL (redis://...), a "
        "redis.Redis client, or a LangGraph BaseStore; None keeps it in this process."
    )
