"""The books of a spend limit in Redis, which several processes on several machines share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from typing_extensions import override

from langchain_automix._spend_book import DOUBT, SLOTS, Seen, Standing, Terms
from langchain_automix._spend_store import SpendStore
from langchain_automix.errors import AutoMixError

if TYPE_CHECKING:
    from redis import Redis

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
    def reserve(self, bucket: str, query: str, terms: Terms) -> Seen:
        return self._do("reserve", bucket, query, terms)

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
        amounts = ("" if cost is None else cost, may, int(lost))
        self._do("settle", bucket, query, terms, *amounts)

    @override
    def release(self, bucket: str, query: str, terms: Terms) -> None:
        self._do("release", bucket, query, terms)

    @override
    def standing(self, bucket: str, terms: Terms) -> Standing:
        return self._do("look", bucket, "", terms).standing

    def _do(
        self, step: str, bucket: str, query: str, terms: Terms, *more: Any, now: int | None = None
    ) -> Seen:
        time = "" if now is None else now
        limits = (terms.limit, terms.width, terms.lease, terms.told, SLOTS, DOUBT, _REMEMBERED)
        # The braces keep both keys on one server of a cluster.
        key = f"automix:spend:{{{quote(self._name, safe='')}:{quote(bucket, safe='')}}}"
        keys = [key, f"{key}:settled:{query}"]
        found: Any = self._script(keys=keys, args=[step, query, time, *limits, *more])
        answer: Any = found[0].decode() if isinstance(found[0], bytes) else found[0]
        return Seen(answer, Standing(*map(int, found[1:])))


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
