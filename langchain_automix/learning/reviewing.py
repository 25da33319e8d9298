"""A review of a store: the traffic is read and judged, and what follows is written down."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from langchain_automix.errors import AutoMixError
from langchain_automix.learning.observations import Observations, observations_of
from langchain_automix.learning.records import Event, PolicyVersion, Stage, StoredQuery
from langchain_automix.learning.review import Review, review
from langchain_automix.learning.settings import ReviewSettings
from langchain_automix.learning.store.export import model_names
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.utils.check_spec import CheckSpec

if TYPE_CHECKING:
    from langchain_automix.learning.store.store import LearningStore

_LEASE_SECONDS = 300.0
"""After which the lock of a reviewer that was killed ends."""


@dataclass(frozen=True)
class Traffic:
    """All that a store holds of one epoch."""

    epoch: str
    models: tuple[str, ...]
    stored: Sequence[StoredQuery]
    observed: Observations
    versions: Sequence[PolicyVersion]
    events: Sequence[Event]

    @property
    def champion(self) -> PolicyVersion | None:
        """The version that decides; None: the largest model does."""
        return next((v for v in self.versions if v.status == "champion"), None)

    @property
    def stage(self) -> Stage:
        """How queries are decided at present, as far as the store says."""
        newest = self.stored[-1].query.stage
        if newest == "observe":
            return newest
        return "warm-up" if self.champion is None else "policy"

    @property
    def alarm(self) -> Event | None:
        """The latest alarm; None: there was none."""
        return next((e for e in reversed(self.events) if e.kind == "alarm"), None)


def read_traffic(store: LearningStore, epoch: str | None = None) -> Traffic:
    """Read all that a store holds of an epoch.

    Args:
        store: The store.
        epoch: None: that of the newest query.

    Raises:
        AutoMixError: The store holds no query, or none of the epoch.
    """
    epoch = store.newest_epoch() if epoch is None else epoch
    if epoch is None:
        raise AutoMixError(f"The learning store {store.name} holds no query yet.")
    stored, _ = store.read(epoch)
    if not stored:
        raise AutoMixError(f"The learning store {store.name} holds no query of epoch {epoch}.")
    versions, events = store.versions(epoch), store.events(epoch)
    width = 1 + max((answer.model for each in stored for answer in each.query.answers), default=0)
    models = model_names(versions, events, width)
    return Traffic(epoch, models, stored, observations_of(models, stored), versions, events)


@dataclass(frozen=True, slots=True)
class Reviewed:
    """A review that was carried out."""

    review: Review
    fitted: int | None = None
    """Number of the version that was fitted."""

    decides: int = 0
    """Number of the version that decides from now on; 0: the largest model."""

    def __str__(self) -> str:
        found = self.review
        decider = f"Version {self.decides}" if self.decides else "The largest model"
        lines = []
        if found.back_to is not None:
            lines.append(f"The policy was rolled back. {found.why}")
        if found.promote is not None:
            lines.append(f"Version {found.promote} was promoted. {found.why}")
        if self.fitted is not None and found.fitted is not None:
            lines.append(f"Version {self.fitted} ({found.fitted.status}): {found.fitted.why}")
        lines += [f"Version {c.number} was {c.status}: {c.why}" for c in found.changes]
        lines.append(f"{decider} decides. {found.next_step}")
        return "\n".join(lines)


def carry_out_review(
    store: LearningStore,
    settings: ReviewSettings,
    epoch: str | None = None,
    check: CheckSpec | str | None = None,
) -> Reviewed | None:
    """Review the traffic of an epoch, and write down what follows from it.

    Args:
        store: The store.
        settings: The goal, and how sure to be.
        epoch: None: that of the newest query.
        check: How the check is rebuilt from a policy file, or its fingerprint. None: as the
            latest version says.

    Returns:
        None where another process is at it.

    Raises:
        AutoMixError: The store holds no query of the epoch.
    """
    epoch = store.newest_epoch() if epoch is None else epoch
    with store.lock(f"review {epoch}", _LEASE_SECONDS) as is_held:
        if not is_held:
            return None
        traffic = read_traffic(store, epoch)
        found = look(traffic, settings, check=check)
        fitted = write_down(store, traffic, found)
        decides = store.champion(traffic.epoch) or 0
        return Reviewed(found, fitted, decides)


def look(
    traffic: Traffic,
    settings: ReviewSettings,
    *,
    check: CheckSpec | str | None = None,
    fits: bool = True,
) -> Review:
    """Return what a review of some traffic finds, now; nothing is changed."""
    if check is None:
        check = _check_of(traffic.versions)
    return review(
        traffic.observed,
        traffic.versions,
        settings,
        now=time.time(),
        epoch=traffic.epoch,
        alarm=None if traffic.alarm is None else traffic.alarm.at,
        check=check,
        fits=fits,
    )


def _check_of(versions: Sequence[PolicyVersion]) -> CheckSpec | str | None:
    """Return the check that the latest policy is for; None: no version says."""
    for version in reversed(versions):
        if version.policy:
            policy = Policy.model_validate_json(version.policy)
            return policy.check_spec or policy.verifier
    return None


def write_down(store: LearningStore, traffic: Traffic, found: Review) -> int | None:
    """Carry out what a review found; return the number of the version that was fitted."""
    for number, judged in found.judged.items():
        store.set_judged(number, judged)
    for change in found.changes:
        store.set_status(change.number, change.status, change.why)
    if found.back_to is not None and traffic.champion is not None:
        store.rollback(traffic.epoch, found.why, number=traffic.champion.number)
    if found.promote is not None:
        store.promote(found.promote, found.why)
    if found.fitted is None:
        return None
    number = store.add_version(found.fitted)
    kind = "rejected" if found.fitted.status == "rejected" else "fitted"
    detail = {"version": number, "labels": found.fitted.labels}
    store.add([Event(found.fitted.at, traffic.epoch, kind, found.fitted.why, detail)])
    return number
