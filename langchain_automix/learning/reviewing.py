"""Reviews of a store: what was observed is read, a review says what to do, and the store does it.

One process at a time reviews an epoch, whichever comes first; all others go by what it decides.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Self

from langchain_automix.errors import AutoMixError
from langchain_automix.learning.drift import DriftMonitor, Signals
from langchain_automix.learning.events import History, latest_time
from langchain_automix.learning.observations import Observations, observations_of
from langchain_automix.learning.records import (
    AGREEMENT,
    Event,
    EventKind,
    PolicyVersion,
    StoredQuery,
)
from langchain_automix.learning.review import review
from langchain_automix.learning.review_result import Review, StatusChange
from langchain_automix.learning.review_settings import ReviewSettings
from langchain_automix.utils.check_spec import CheckSpec

if TYPE_CHECKING:
    from langchain_automix.learning.store.store import LearningStore

_EVERY = 20
"""Queries, shadows and grades between two reviews, at least."""

_SHARE_BETWEEN = 0.02
"""How many queries come between two reviews, by those that a review reads: each takes time."""

_MOST_SECONDS = 60.0
"""Seconds between two reviews if anything has changed."""

_LATE_SECONDS = 60.0
"""Seconds after which a shadow that has not come to an end is no longer waited for."""

_WINDOW = 20_000
"""Queries that a review reads, the newest."""

_RENEWED = "What came first is not known any more: the policy is watched anew from here on."


Happening = tuple[EventKind, str]
"""A kind of event, and what it says in one sentence."""


@dataclass
class Reviewer:
    """Reviews one epoch of a store again and again, and remembers what it has read of it."""

    epoch: str
    models: Sequence[str]
    settings: ReviewSettings
    check: CheckSpec | str | None = None
    """How the check is rebuilt from a policy file, or its fingerprint."""

    default_checks: Mapping[str, CheckSpec] = field(default_factory=dict)
    """Of a mix without a check of its own, those among which it chooses, by name: a policy is
    fitted to the one that was made most often."""

    happened: list[Happening] = field(default_factory=list)
    """What the latest review found or did that is worth saying."""

    _after: int = 0
    _queries: dict[str, StoredQuery] = field(default_factory=dict)
    _changed: int = 0
    _reviewed: float = 0.0
    _monitor: DriftMonitor | None = None
    _watched: set[str] = field(default_factory=set)
    _watched_to: float = 0.0

    def to_detail(self) -> dict[str, Any]:
        """Return what another process needs to review the same epoch, ready for JSON."""
        settings = {n: v for n, v in vars(self.settings).items() if n != "prior"}
        check = self.check
        if isinstance(check, CheckSpec):
            check = check.model_dump_json(by_alias=True)
        defaults = {n: c.model_dump_json(by_alias=True) for n, c in self.default_checks.items()}
        return {
            "models": list(self.models),
            "settings": settings,
            "check": check,
            "default_checks": defaults,
        }

    @classmethod
    def of_store(cls, store: LearningStore, epoch: str) -> Self:
        """Return the reviewer of an epoch, as the mix that began it has told the store.

        Raises:
            AutoMixError: No mix has.
        """
        told = [event.detail for event in store.events(epoch) if event.kind == "epoch"]
        if not told or "settings" not in told[-1]:
            raise AutoMixError(
                f"The learning store {store.name} does not say what its mix goes by: no mix of "
                "this version has begun to answer with it."
            )
        detail, check = told[-1], told[-1]["check"]
        if isinstance(check, str) and check.startswith("{"):
            check = CheckSpec.model_validate_json(check)
        defaults = {
            name: CheckSpec.model_validate_json(text)
            for name, text in detail.get("default_checks", {}).items()
        }
        settings = ReviewSettings(**detail["settings"])
        return cls(epoch, detail["models"], settings, check, defaults)

    def run(self, store: LearningStore, *, is_due: bool = False) -> Review | None:
        """Review the epoch where that is due, and no other process does so.

        Args:
            store: The store.
            is_due: Whether to review it however little has changed.

        Returns:
            What was decided and done; None: there was no review, as before the first query.

        Raises:
            StoreUnavailableError: The store is away.
        """
        with store.lock(f"review:{self.epoch}") as is_held:
            if not is_held:
                return None
            self._read(store)
            waited = time.monotonic() - self._reviewed
            usual = max(_EVERY, _SHARE_BETWEEN * len(self._queries))
            enough = self._changed >= (1 if waited > _MOST_SECONDS else usual)
            if not self._queries or not (is_due or enough):
                return None
            self._changed, self._reviewed = 0, time.monotonic()
            return self._review(store)

    def _read(self, store: LearningStore) -> None:
        before = self._after
        found, self._after = store.read(self.epoch, before, _WINDOW)
        if self._after < before:  # the store was deleted: what it held is no evidence any more
            self._queries, self._monitor, self._watched = {}, None, set()
        self.take(found, self._after)

    def take(self, found: Sequence[StoredQuery], after: int) -> None:
        """Take in queries that were read from the store, up to a change of it."""
        self._after = after
        self._changed += len(found)
        self._queries |= {each.query.id: each for each in found}
        if len(self._queries) > _WINDOW:
            newest = sorted(self._queries.values(), key=lambda each: each.query.at)[-_WINDOW:]
            self._queries = {each.query.id: each for each in newest}

    def _review(self, store: LearningStore) -> Review:
        events = store.events(self.epoch)
        raised = list(self._alarms(latest_time(events, "alarm")))
        store.add(raised)
        versions, stored = store.versions(self.epoch), list(self._queries.values())
        leading = self.leading(stored, versions)
        observed = observations_of(self.models, stored, leading)
        found = self.judge(observed, leading, versions, [*events, *raised])
        self._apply(store, found, events)
        self.happened = [(event.kind, event.text) for event in raised]
        if found.promote is not None:
            self.happened.append(("promoted", found.why))
        if found.back_to is not None:
            self.happened.append(("rolled back", found.why))
        return found

    def judge(
        self,
        observed: Observations,
        leading: str | None,
        versions: Sequence[PolicyVersion],
        events: Sequence[Event],
        *,
        fits: bool = True,
    ) -> Review:
        """Return what is to be done; nothing is changed.

        Args:
            observed: The traffic, as read by the leading check.
            leading: The check; see `leading`.
            versions: All versions of the epoch.
            events: All events of the epoch.
            fits: Whether a challenger is fitted where it is time.
        """
        stale = self._stale(versions, leading)
        found = review(
            observed,
            [replace(v, status="rejected") if v.number in stale else v for v in versions],
            self.settings,
            now=time.time(),
            epoch=self.epoch,
            history=History.of(events),
            check=self.check if leading is None else self.default_checks[leading],
            fits=fits,
        )
        why = "It goes by a check that is no longer the one made most often."
        changes = [StatusChange(number, "rejected", why) for number in stale]
        return replace(found, changes=[*found.changes, *changes])

    def _stale(self, versions: Sequence[PolicyVersion], leading: str | None) -> list[int]:
        """Return the challengers that were fitted to another check than the one that is read."""
        return [
            version.number
            for version in versions
            if version.status == "challenger" and self._check_of(version) not in (None, leading)
        ]

    def _check_of(self, version: PolicyVersion) -> str | None:
        """Return the default check that a version was fitted to; None: it is none of them."""
        if not self.default_checks:
            return None
        names = {check.fingerprint: name for name, check in self.default_checks.items()}
        return names.get(json.loads(version.policy).get("verifier"))

    def leading(
        self, stored: Iterable[StoredQuery], versions: Sequence[PolicyVersion]
    ) -> str | None:
        """Return, of a mix without a check of its own, the check that is read; else None.

        That of the champion, which can be judged on no other; else the one made most often.
        """
        champion = next((v for v in versions if v.status == "champion"), None)
        own = None if champion is None else self._check_of(champion)
        return own or _most_often(stored, self.default_checks)

    def _apply(self, store: LearningStore, found: Review, events: Sequence[Event]) -> None:
        for number, judged in found.judged.items():
            store.set_judged(number, judged)
        for change in found.changes:
            store.set_status(change.number, change.status, change.why)
        if found.back_to is not None:
            store.rollback(self.epoch, found.why, found.champion)
        if found.promote is not None:
            store.promote(found.promote, found.why)
        if found.fitted is not None:
            number = store.add_version(found.fitted)
            store.add([self._fitted(found.fitted, number)])
        if notes := list(self._notes(found, events)):
            store.add(notes)

    def _notes(self, found: Review, events: Sequence[Event]) -> Iterator[Event]:
        """Yield what is to be said of a review, beside its steps."""
        if found.ends_hold:
            yield self._event("quiet", found.why)
        if found.renews:
            yield self._event("renewed", _RENEWED)
        ready = {event.detail.get("version") for event in events if event.kind == "ready"}
        for number, why in found.ready.items():
            if number not in ready:
                yield self._event("ready", why, version=number)
        shares = [event.detail["share"] for event in events if event.kind == "share"]
        if not shares or shares[-1] != found.share:
            yield self._event("share", found.next_step, share=found.share)

    def _fitted(self, version: PolicyVersion, number: int) -> Event:
        kind: EventKind = "fitted" if version.status == "challenger" else "rejected"
        return self._event(kind, f"Version {number}: {version.why}", version=number)

    def _event(self, kind: EventKind, text: str, **detail: Any) -> Event:
        return Event(time.time(), self.epoch, kind, text, detail)

    # Drift.

    def _alarms(self, since: float | None) -> Iterator[Event]:
        """Yield the alarms of queries that were not looked at yet, in the order of their time."""
        if self._monitor is None:
            self._monitor, self._watched_to = DriftMonitor(), since or 0.0
        for each in sorted(self._queries.values(), key=attrgetter("query.at")):
            if each.query.at <= self._watched_to or each.query.id in self._watched:
                continue
            if not _is_settled(each):
                break  # those after it are looked at when it is
            self._watched.add(each.query.id)
            alarm = self._monitor.update(_signals(each, len(self.models) - 1))
            if alarm is not None:
                yield Event(each.query.at, self.epoch, "alarm", str(alarm), asdict(alarm))
        self._watched &= self._queries.keys()


def _most_often(queries: Iterable[StoredQuery], known: Collection[str]) -> str | None:
    """Return which of some checks was made most often; the first where none was, if any."""
    made = Counter(
        name
        for each in queries
        for answer in each.query.answers
        if answer.model == 0
        for name, found in answer.checks.items()
        if name in known and _finding(found) is not None
    )
    return made.most_common(1)[0][0] if made else next(iter(known), None)


def _is_settled(each: StoredQuery) -> bool:
    """Whether nothing more is to be expected of a query."""
    is_late = time.time() - each.query.at > _LATE_SECONDS
    return not each.query.is_drawn or each.is_shadowed or is_late


def _signals(each: StoredQuery, last: int) -> Signals:
    """Return what a query tells of the traffic."""
    query = each.query
    if not query.came_to_its_end:
        return Signals(query.version, query.at)
    by_policy = query.stage == "policy"
    asked = {answer.model for answer in query.answers if not answer.is_shadow}
    agreed = [g.quality for g in each.grades if g.model == 0 and g.source == AGREEMENT]
    return Signals(
        query.version,
        query.at,
        confidence=_confidence(each),
        escalated=last in asked and len(asked) > 1 if by_policy else None,
        agreement=agreed[0] if agreed and each.is_shadowed else None,
        cost=query.cost,
    )


def _confidence(each: StoredQuery) -> float | None:
    """Return what the check found on the first model's answer, in the query or in its shadow."""
    for answer in each.query.answers:
        if answer.model != 0:
            continue
        for check in filter(None, (answer.verification, *answer.checks.values())):
            if (confidence := _finding(check)) is not None:
                return confidence
    return None


def _finding(check: Mapping[str, Any]) -> float | None:
    """Return the share of accepts among the valid verdicts, or the score; None: it is unknown."""
    verdicts = [verdict for verdict in check.get("verdicts") or () if verdict is not None]
    if verdicts:
        return float(sum(verdicts) / len(verdicts))
    score = check.get("score")
    return None if score is None else float(score)
