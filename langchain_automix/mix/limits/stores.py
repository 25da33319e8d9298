"""Where the books of a spend limit are kept: in this process, in a LangGraph store, in Redis."""

from __future__ import annotations

import os
import threading
import time
import warnings
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote
from uuid import uuid4

from typing_extensions import override

from langchain_automix.errors import AutoMixError
from langchain_automix.mix.limits.ledger import (
    DOUBT,
    SLOTS,
    Answer,
    LimitStatus,
    LimitTerms,
    ReserveResult,
    SpendLedger,
)

if TYPE_CHECKING:
    from langgraph.store.base import BaseStore
    from redis import Redis


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
    def reserve(self, bucket: str, query: str, terms: LimitTerms) -> ReserveResult:
        """Ask for a query's place."""

    @abstractmethod
    def settle(
        self,
        bucket: str,
        query: str,
        cost: int | None,
        may: int,
        terms: LimitTerms,
        *,
        lost: bool = False,
    ) -> None:
        """Count what a query came to, and give its place away; see `Book.settle`."""

    @abstractmethod
    def release(self, bucket: str, query: str, terms: LimitTerms) -> None:
        """Give away the place of a query that has cost nothing."""

    @abstractmethod
    def standing(self, bucket: str, terms: LimitTerms) -> LimitStatus:
        """Return how the limit stands."""


_PAGE = 100
_MANY = 64


class _Shelf:
    """The books of one process, by bucket."""

    def __init__(self) -> None:
        self.books: dict[str, SpendLedger] = {}
        self._swept_at = _MANY

    def book(self, bucket: str, terms: LimitTerms, now: int) -> SpendLedger:
        """Return a book, with what has left the window forgotten."""
        if len(self.books) >= self._swept_at:
            # One bucket a tenant, for years: those of whom nothing is left in the window go.
            for book in self.books.values():
                book.forget(terms, now)
            self.books = {k: b for k, b in self.books.items() if b != SpendLedger()}
            self._swept_at = max(_MANY, 2 * len(self.books))
        book = self.books.setdefault(bucket, SpendLedger())
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
    def reserve(self, bucket: str, query: str, terms: LimitTerms) -> ReserveResult:
        with self._lock:
            now = now_ms()
            book = self._shelf.book(bucket, terms, now)
            book.held.pop(query, None)  # nobody waits for himself
            standing = book.standing(terms, now)
            answer = standing.verdict(terms.limit)
            if answer == "granted":
                book.hold(query, terms, now)
            return ReserveResult(answer, standing)

    @override
    def settle(
        self,
        bucket: str,
        query: str,
        cost: int | None,
        may: int,
        terms: LimitTerms,
        *,
        lost: bool = False,
    ) -> None:
        with self._lock:
            now = now_ms()
            book = self._shelf.book(bucket, terms, now)
            book.settle(query, cost, may, terms, now, lost=lost)

    @override
    def release(self, bucket: str, query: str, terms: LimitTerms) -> None:
        with self._lock:
            self._shelf.book(bucket, terms, now_ms()).held.pop(query, None)

    @override
    def standing(self, bucket: str, terms: LimitTerms) -> LimitStatus:
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
    def reserve(self, bucket: str, query: str, terms: LimitTerms) -> ReserveResult:
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
            return ReserveResult(answer, standing)

    @override
    def settle(
        self,
        bucket: str,
        query: str,
        cost: int | None,
        may: int,
        terms: LimitTerms,
        *,
        lost: bool = False,
    ) -> None:
        with self._lock:
            now, most = now_ms(), 0
            if cost is None:
                most = self._whole(bucket, terms, now).standing(terms, now).most

            def settle(book: SpendLedger) -> None:
                book.settle(query, cost, may, terms, now, lost=lost, most=most)

            self._change(bucket, terms, now, settle)

    @override
    def release(self, bucket: str, query: str, terms: LimitTerms) -> None:
        with self._lock:
            self._give_away(bucket, query, terms, now_ms())

    @override
    def standing(self, bucket: str, terms: LimitTerms) -> LimitStatus:
        with self._lock:
            now = now_ms()
            return self._whole(bucket, terms, now).standing(terms, now)

    def _give_away(self, bucket: str, query: str, terms: LimitTerms, now: int) -> None:
        # Whether or not it can be told now: what is told next says it, too.
        self._book(bucket, terms, now).held.pop(query, None)
        self._change(bucket, terms, now, lambda _: None)

    def _change(
        self, bucket: str, terms: LimitTerms, now: int, change: Callable[[SpendLedger], None]
    ) -> None:
        """Change this process's book, here and in the store; where that fails, not at all."""
        changed = SpendLedger.of(self._book(bucket, terms, now).written())
        change(changed)
        kept = terms.kept
        # Processes that are no more leave their items; a store that can drops them.
        last = {"ttl": kept / 60_000} if kept and self._store.supports_ttl else {}
        self._store.put(self._namespace(bucket), self._key, changed.written(), index=False, **last)
        self._shelf.books[bucket] = changed

    def _book(self, bucket: str, terms: LimitTerms, now: int) -> SpendLedger:
        if self._process != os.getpid():  # a fork: its parent writes on under the same key
            self._start()
        return self._shelf.book(bucket, terms, now)

    def _whole(self, bucket: str, terms: LimitTerms, now: int) -> SpendLedger:
        books = [self._book(bucket, terms, now)]
        namespace, offset = self._namespace(bucket), 0
        while True:
            items = self._store.search(namespace, limit=_PAGE, offset=offset)
            # Some stores find also what only begins alike: for `acme` the books of `acme2`.
            own = (item for item in items if tuple(item.namespace) == namespace)
            books += [SpendLedger.of(item.value) for item in own if item.key != self._key]
            if len(items) < _PAGE:
                break
            offset += _PAGE
        whole = SpendLedger.together(books)
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


_SECONDS = 5

_REMEMBERED = 600_000
"""Milliseconds for which it is known that a query has settled. A step is repeated where its reply
was lost: by redis-py at once, by the process itself before its next query."""

# The rule of `Standing.verdict`, and `Book.settle`, in one atomic step, which does no more when it
# is repeated. Its numbers are doubles, whole ones up to 2^53; `%.0f` because Lua would write large
# ones as 1e+15.
_SCRIPT = """
local step, query, now = ARGV[1], ARGV[2], tonumber(ARGV[3])
local limit, width, lease = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local told, slots, doubt = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local slot, oldest = 0, 0
if width > 0 then
  slot = math.floor(now / width)
  oldest = slot - slots
end
local spent, seen, settled, live, lost = 0, 0, 0, 0, 0
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local name, value = all[i], all[i + 1]
  local kind, about = string.sub(name, 1, 1), string.sub(name, 3)
  if kind == 'h' and about == query and step == 'reserve' then
    redis.call('HDEL', KEYS[1], name) -- it was granted before, and nobody heard it
  elseif kind == 'h' then
    local since, till = string.match(value, '^(%d+) (%d+)$')
    if tonumber(till) > now then
      live = live + 1
    elseif tonumber(since) >= oldest then
      lost = lost + 1
    else
      redis.call('HDEL', KEYS[1], name)
    end
  elseif tonumber(about) < oldest then
    redis.call('HDEL', KEYS[1], name)
  elseif kind == 's' then
    spent = spent + tonumber(value)
  elseif kind == 'n' then
    settled = settled + tonumber(value)
  else
    seen = math.max(seen, tonumber(value))
  end
end
local most, place = math.max(told, seen), told
if told < seen then place = seen + math.floor(doubt * seen / math.max(1, settled)) end
spent = spent + lost * most
local function text(number) return string.format('%.0f', number) end
local answer = 'spent'
if step == 'reserve' then
  if spent < limit then
    local fits = place > 0 and spent + (live + 1) * place <= limit
    answer = (live == 0 or fits) and 'granted' or 'busy'
  end
  if answer == 'granted' then
    redis.call('HSET', KEYS[1], 'h:' .. query, text(slot) .. ' ' .. text(now + lease))
  end
elseif step == 'settle' and redis.call('SET', KEYS[2], '1', 'NX', 'PX', ARGV[10]) then
  local cost, may = tonumber(ARGV[11]), tonumber(ARGV[12])
  local dearest = math.max(most, may)
  redis.call('HDEL', KEYS[1], 'h:' .. query)
  if not cost and dearest == 0 and ARGV[13] == '1' then
    redis.call('HSET', KEYS[1], 'h:' .. query .. '-lost', text(slot) .. ' ' .. text(now))
  else
    if not cost then cost = dearest > 0 and dearest or limit end
    redis.call('HINCRBY', KEYS[1], 's:' .. text(slot), text(cost))
    local before = tonumber(redis.call('HGET', KEYS[1], 'm:' .. text(slot)) or '0')
    if may > before then redis.call('HSET', KEYS[1], 'm:' .. text(slot), text(may)) end
    if may > 0 then redis.call('HINCRBY', KEYS[1], 'n:' .. text(slot), 1) end
  end
elseif step == 'release' then
  redis.call('HDEL', KEYS[1], 'h:' .. query)
end
if width > 0 and step ~= 'look' then
  redis.call('PEXPIRE', KEYS[1], text(width * (slots + 2) + lease))
end
return {answer, text(spent), live, text(most), text(place)}
"""


class RedisStore(SpendStore):
    """Keeps the books in Redis: one hash a bucket, and one script that does every step at once.

    The time is the server's, so that the clocks of the machines need not agree.
    """

    def __init__(self, client: Redis, name: str) -> None:
        super().__init__()
        self._script = client.register_script(_SCRIPT)
        self._name = name

    @override
    def reserve(self, bucket: str, query: str, terms: LimitTerms) -> ReserveResult:
        return self._do("reserve", bucket, query, terms)

    @override
    def settle(
        self,
        bucket: str,
        query: str,
        cost: int | None,
        may: int,
        terms: LimitTerms,
        *,
        lost: bool = False,
    ) -> None:
        amounts = ("" if cost is None else cost, may, int(lost))
        self._do("settle", bucket, query, terms, *amounts)

    @override
    def release(self, bucket: str, query: str, terms: LimitTerms) -> None:
        self._do("release", bucket, query, terms)

    @override
    def standing(self, bucket: str, terms: LimitTerms) -> LimitStatus:
        return self._do("look", bucket, "", terms).standing

    def _do(
        self,
        step: str,
        bucket: str,
        query: str,
        terms: LimitTerms,
        *more: Any,
        now: int | None = None,
    ) -> ReserveResult:
        time = "" if now is None else now
        limits = (terms.limit, terms.width, terms.lease, terms.told, SLOTS, DOUBT, _REMEMBERED)
        # The braces keep both keys on one server of a cluster.
        key = f"automix:spend:{{{quote(self._name, safe='')}:{quote(bucket, safe='')}}}"
        keys = [key, f"{key}:settled:{query}"]
        found: Any = self._script(keys=keys, args=[step, query, time, *limits, *more])
        answer: Any = found[0].decode() if isinstance(found[0], bytes) else found[0]
        return ReserveResult(answer, LimitStatus(*map(int, found[1:])))


def client_of(url: str) -> Redis:
    """Return a client of the server at a URL; it connects when it is first used.

    Raises:
        AutoMixError: It is no such URL, or redis-py is not installed.
    """
    try:  # an extra
        from redis import Redis  # noqa: PLC0415
    except ImportError as error:
        raise AutoMixError(
            "A spend limit in Redis needs redis-py: pip install 'langchain-automix[redis]'."
        ) from error
    try:
        return Redis.from_url(url, socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS)
    except ValueError:
        # Neither the URL nor a part of it is told: it may hold a password.
        raise AutoMixError(
            "The spend limit's store is a text, but no URL of a Redis server: redis://, rediss:// "
            "or unix://."
        ) from None
