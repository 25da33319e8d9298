"""Keep the ledgers of a spend limit: in this process, in a LangGraph store or in Redis."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote
from uuid import uuid4

from typing_extensions import override

from langchain_automix.errors import AutoMixError
from langchain_automix.mix.limits.ledger import (
    DOUBT,
    SLOTS,
    LimitStatus,
    LimitTerms,
    ReserveResult,
    Settlement,
    SpendLedger,
    Step,
)
from langchain_automix.mix.limits.spend_store import SpendStore, SpendWarning
from langchain_automix.utils.install import install_hint
from langchain_automix.utils.locks import ProcessLock

if TYPE_CHECKING:
    from langgraph.store.base import BaseStore
    from redis import Redis

T = TypeVar("T")


def now_ms() -> int:
    """Return this machine's time in milliseconds."""
    return time.time_ns() // 1_000_000


class _Ledgers(dict[str, SpendLedger]):
    """The ledgers of one process, by bucket."""

    _MIN_SWEEP = 64
    _sweep_at = _MIN_SWEEP

    def current(self, bucket: str, terms: LimitTerms, now: int) -> SpendLedger:
        """Return a ledger, without what has left the window."""
        if len(self) >= self._sweep_at:
            # There may be a bucket for each tenant, over years: drop those with nothing in the
            # window.
            for name, ledger in list(self.items()):
                ledger.forget(terms, now)
                if ledger == SpendLedger():
                    del self[name]
            self._sweep_at = max(self._MIN_SWEEP, 2 * len(self))
        ledger = self.setdefault(bucket, SpendLedger())
        ledger.forget(terms, now)
        return ledger


class ProcessStore(SpendStore):
    """Keeps the ledgers in this process."""

    is_remote = False

    def __init__(self, process: int | None = None) -> None:
        """Start with nothing spent; `process` is where the limit was created, by default here."""
        super().__init__()
        self._ledgers = _Ledgers()
        self._lock = ProcessLock()
        self._process = process or os.getpid()

    @override
    def step(
        self, step: Step, bucket: str, query: str, terms: LimitTerms, settlement: Settlement
    ) -> ReserveResult:
        if self._process != os.getpid():  # forked, or sent to this process
            self._process = os.getpid()
            self.warn_once(
                "A spend limit in memory has come to another process, and counts there by itself: "
                "several processes may together spend several times as much. Give it a store that "
                'they share, such as store="redis://...".',
                SpendWarning,
            )
        with self._lock:
            now = now_ms()
            ledger = self._ledgers.current(bucket, terms, now)
            return ledger.apply(step, query, terms, now, settlement)


class GraphStore(SpendStore):
    """Keeps the ledgers in a LangGraph `BaseStore`, which has no compare-and-set.

    Each process writes only its own item, so no update is lost. It first writes its reservation and
    then reads all items. If two processes ask at the same time, at least one sees the other,
    provided that a read sees every write completed before it. Both may then be `busy` and ask
    again.
    """

    _PAGE_SIZE = 100

    def __init__(self, store: BaseStore, name: str) -> None:
        super().__init__()
        self._store = store
        self._name = name
        # One step at a time per process: its item must not go back in time.
        self._lock = ProcessLock()
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._key = uuid4().hex
        self._ledgers = _Ledgers()

    @override
    def step(
        self, step: Step, bucket: str, query: str, terms: LimitTerms, settlement: Settlement
    ) -> ReserveResult:
        with self._lock:
            if self._process != os.getpid():  # a fork: the parent keeps writing under the old key
                self._start()
            now = now_ms()
            own = self._ledgers.current(bucket, terms, now)
            if step == "status":
                return self._merged(bucket).apply(step, query, terms, now)
            if step == "reserve":
                return self._reserve(bucket, query, terms, now)
            if step == "release":
                # Even if writing fails now: the next write covers it.
                own.reservations.pop(query, None)
            elif settlement.cost is None:
                seen = self._merged(bucket).apply("status", query, terms, now).status.max_cost
                settlement = settlement._replace(cost=max(seen, settlement.max_cost) or None)
            return self._change(
                bucket, terms, lambda own: own.apply(step, query, terms, now, settlement)
            )

    def _reserve(self, bucket: str, query: str, terms: LimitTerms, now: int) -> ReserveResult:
        self._change(bucket, terms, lambda own: own.reserve(query, terms, now))
        is_granted = False
        try:
            result = self._merged(bucket).apply("reserve", query, terms, now)
            is_granted = result.admission == "granted"
            return result
        finally:
            if not is_granted:
                self._ledgers[bucket].reservations.pop(query, None)
                self._change(bucket, terms, lambda _: None)

    def _change(self, bucket: str, terms: LimitTerms, change: Callable[[SpendLedger], T]) -> T:
        """Change this process's ledger, here and in the store; if that fails, change neither."""
        ledger = SpendLedger.from_json(self._ledgers[bucket].to_json())
        result = change(ledger)
        # Processes that have ended leave their items behind; a store with expiry drops them.
        ttl = {}
        if terms.retention and self._store.supports_ttl:
            ttl["ttl"] = terms.retention / 60_000
        self._store.put(self._namespace(bucket), self._key, ledger.to_json(), index=False, **ttl)
        self._ledgers[bucket] = ledger
        return result

    def _merged(self, bucket: str) -> SpendLedger:
        """Return the combined ledger of all processes."""
        ledgers, offset = [self._ledgers[bucket]], 0
        namespace = self._namespace(bucket)
        while True:
            items = self._store.search(namespace, limit=self._PAGE_SIZE, offset=offset)
            ledgers += [
                SpendLedger.from_json(item.value)
                for item in items
                # Some stores match namespaces by text prefix: for `acme`, they also find `acme2`.
                if tuple(item.namespace) == namespace and item.key != self._key
            ]
            if len(items) < self._PAGE_SIZE:
                return SpendLedger.merge(ledgers)
            offset += self._PAGE_SIZE

    def _namespace(self, bucket: str) -> tuple[str, ...]:
        # A label must be non-empty and contain no full stop.
        labels = ("_" + _quoted(text).replace(".", "%2E") for text in (self._name, bucket))
        return ("automix", "spend", *labels)


_MEMORY_MS = 600_000
"""Milliseconds for which Redis remembers that a query has settled, in case a step is repeated
because its reply was lost: by redis-py immediately, or by the process before its next query."""

# The rule of `SpendLedger.apply` in one atomic step; repeating the step changes nothing.
# Compare-and-set took 2 to 10 times as long under eight processes. Numbers are doubles, exact up to
# 2^53; they are formatted with `%.0f` because Lua would write large ones as 1e+15.
_SCRIPT = """
local step, query, now = ARGV[1], ARGV[2], tonumber(ARGV[3])
local limit, width, lease = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local max_query_cost, slots, doubt = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local cost, query_max, is_lost = tonumber(ARGV[11]), tonumber(ARGV[12]), ARGV[13] == '1'
local function call(command, ...) return redis.call(command, KEYS[1], ...) end
local function text(number) return string.format('%.0f', number) end
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local slot = width > 0 and math.floor(now / width) or 0
local oldest = width > 0 and slot - slots or 0
local spent, seen, settled, active, expired = 0, 0, 0, 0, 0
local all = call('HGETALL')
for i = 1, #all, 2 do
  local kind, name, value = string.sub(all[i], 1, 1), string.sub(all[i], 3), all[i + 1]
  if kind == 'h' then
    local since, till = string.match(value, '^(%d+) (%d+)$')
    if name == query and step == 'reserve' then call('HDEL', all[i]) -- its reply was lost
    elseif tonumber(till) > now then active = active + 1
    elseif tonumber(since) >= oldest then expired = expired + 1
    else call('HDEL', all[i]) end
  elseif tonumber(name) < oldest then call('HDEL', all[i])
  elseif kind == 's' then spent = spent + tonumber(value)
  elseif kind == 'n' then settled = settled + tonumber(value)
  else seen = math.max(seen, tonumber(value)) end
end
local max_cost, reserved = math.max(max_query_cost, seen), max_query_cost
if reserved < seen then reserved = seen + math.floor(doubt * seen / math.max(1, settled)) end
spent = spent + expired * max_cost
local admission = 'spent'
if spent < limit then
  local fits = reserved > 0 and spent + (active + 1) * reserved <= limit
  admission = (active == 0 or fits) and 'granted' or 'busy'
end
if step == 'reserve' and admission == 'granted' then
  call('HSET', 'h:' .. query, text(slot) .. ' ' .. text(now + lease))
elseif step == 'release' then
  call('HDEL', 'h:' .. query)
elseif step == 'renew' then
  local held = call('HGET', 'h:' .. query)
  if held then
    call('HSET', 'h:' .. query, string.match(held, '^%d+') .. ' ' .. text(now + lease))
  end
elseif step == 'settle' and redis.call('SET', KEYS[2], '1', 'NX', 'PX', ARGV[10]) then
  local dearest = math.max(max_cost, query_max)
  call('HDEL', 'h:' .. query)
  if not cost and dearest == 0 and is_lost then
    call('HSET', 'h:' .. query .. '-lost', text(slot) .. ' ' .. text(now))
  else
    call('HINCRBY', 's:' .. text(slot), text(cost or (dearest > 0 and dearest or limit)))
    local before = tonumber(call('HGET', 'm:' .. text(slot)) or '0')
    if query_max > before then call('HSET', 'm:' .. text(slot), text(query_max)) end
    if query_max > 0 then call('HINCRBY', 'n:' .. text(slot), 1) end
  end
end
if width > 0 and step ~= 'status' then
  call('PEXPIRE', text(width * (slots + 2) + lease))
end
return {admission, text(spent), active, text(max_cost), text(reserved)}
"""


class RedisStore(SpendStore):
    """Keeps the ledgers in Redis: a hash per bucket, and one script for every step.

    It uses the server's clock, so the clocks of the machines need not agree.
    """

    def __init__(
        self, client: Redis, name: str, clock: Callable[[], int | str] = lambda: ""
    ) -> None:
        super().__init__()
        self._script = client.register_script(_SCRIPT)
        self._name = name
        self._clock = clock

    @override
    def step(
        self, step: Step, bucket: str, query: str, terms: LimitTerms, settlement: Settlement
    ) -> ReserveResult:
        # The braces keep both keys on the same server of a cluster.
        key = f"automix:spend:{{{_quoted(self._name)}:{_quoted(bucket)}}}"
        cost = "" if settlement.cost is None else settlement.cost
        amounts = (cost, settlement.max_cost, int(settlement.is_lost))
        reply: Any = self._script(
            keys=[key, f"{key}:settled:{query}"],
            args=[step, query, self._clock(), *terms, SLOTS, DOUBT, _MEMORY_MS, *amounts],
        )
        admission: Any = reply[0].decode() if isinstance(reply[0], bytes) else reply[0]
        return ReserveResult(admission, LimitStatus(*map(int, reply[1:])))


def _quoted(text: str) -> str:
    return quote(text, safe="", errors="surrogatepass")


def open_store(store: Any, name: str, process: int | None = None) -> SpendStore:
    """Return the store that keeps the ledgers, as given by `SpendLimit.store`.

    Args:
        store: The store.
        name: The name of the limit.
        process: The process in which an in-memory limit was created; None for this one.

    Raises:
        AutoMixError: The value is not a store, or redis-py is not installed.
    """
    if store is None:
        return ProcessStore(process)
    if isinstance(store, str):
        return RedisStore(_redis_client(store), name)
    if hasattr(store, "register_script"):
        if type(store).__module__.startswith("redis.asyncio"):
            raise AutoMixError(
                "The spend limit's store is an asynchronous Redis client, which belongs to one "
                "event loop: give its URL or a redis.Redis, which is called in a thread, so that "
                "no event loop waits for it."
            )
        return RedisStore(store, name)
    if all(hasattr(store, method) for method in ("put", "search", "supports_ttl")):
        return GraphStore(store, name)
    raise AutoMixError(
        f"The spend limit's store is a {type(store).__name__}; give a Redis URL (redis://...), a "
        "redis.Redis client, or a LangGraph BaseStore; None keeps it in this process."
    )


_TIMEOUT_SECONDS = 1


def _redis_client(url: str) -> Redis:
    """Return a client of the server at a URL; it connects on first use."""
    try:  # an optional dependency
        from redis import Redis  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415
        from redis.exceptions import ConnectionError as Broken  # noqa: PLC0415
        from redis.retry import Retry  # noqa: PLC0415
    except ImportError as error:
        raise AutoMixError(
            "A spend limit in Redis needs redis-py, which is not installed: "
            f"{install_hint('redis')}"
        ) from error
    try:
        return Redis.from_url(
            url,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            # An idle connection may be broken, so retry once; do not retry a server that hangs.
            retry=Retry(NoBackoff(), 1, supported_errors=(Broken,)),
        )
    except ValueError:
        # Show no part of the URL, since it may contain a password.
        raise AutoMixError(
            "The spend limit's store is text, but not the URL of a Redis server: redis://, "
            "rediss:// or unix://."
        ) from None
