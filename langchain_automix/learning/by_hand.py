"""A person's steps: review the traffic once, promote a version, or go back from one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from langchain_automix.errors import AutoMixError

if TYPE_CHECKING:
    from langchain_automix.learning.review_result import Review
    from langchain_automix.learning.review_settings import ReviewSettings
    from langchain_automix.learning.store.store import LearningStore


@dataclass(frozen=True, slots=True)
class Step:
    """What a step has changed."""

    epoch: str
    before: int
    """Number of the version that decided before; 0: the largest model."""

    now: int
    """Number of the version that decides from now on; 0: the largest model."""

    note: str = ""
    """What is worth knowing of it, in one sentence."""

    def __str__(self) -> str:
        if self.before == self.now:
            return f"{_named(self.now)} decides already; nothing was changed."
        text = f"{_named(self.now)} decides from now on, in place of {_named(self.before, 1)}."
        return f"{text} {self.note}".rstrip()


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
        lines = []
        if found.back_to is not None:
            lines.append(f"The policy was rolled back. {found.why}")
        if found.promote is not None:
            lines.append(f"Version {found.promote} was promoted. {found.why}")
        if self.fitted is not None and found.fitted is not None:
            lines.append(f"Version {self.fitted} ({found.fitted.status}): {found.fitted.why}")
        lines += [f"Version {c.number} was {c.status}: {c.why}" for c in found.changes]
        lines += found.ready.values()
        lines.append(f"{_named(self.decides)} decides. {found.next_step}")
        return "\n".join(lines)


def review_once(
    store: LearningStore, settings: ReviewSettings, epoch: str | None = None
) -> Reviewed | None:
    """Review an epoch now, and do what follows from it.

    Args:
        store: The store.
        settings: The goal, and how sure to be.
        epoch: None: that of the newest query.

    Returns:
        None where another process is at it.

    Raises:
        AutoMixError: The store holds no query of the epoch.
    """
    from langchain_automix.learning.traffic import read_traffic  # noqa: PLC0415  (loads numpy)

    traffic = read_traffic(store, epoch)
    reviewer = replace(traffic.reviewer, settings=settings)
    found = reviewer.run(store, is_due=True)
    if found is None:
        return None
    known = {version.number for version in traffic.versions}
    new = [v.number for v in store.versions(traffic.epoch) if v.number not in known]
    fitted = new[-1] if new and found.fitted is not None else None
    return Reviewed(found, fitted, store.champion(traffic.epoch) or 0)


def promote(store: LearningStore, number: int, why: str) -> Step:
    """Have a version decide from now on, whatever is shown of it.

    Raises:
        AutoMixError: There is no such version, or it holds no policy.
    """
    versions = store.versions()
    version = next((each for each in versions if each.number == number), None)
    if version is None:
        known = ", ".join(str(each.number) for each in versions) or "none"
        raise AutoMixError(
            f"The learning store {store.name} has no version {number}; it has: {known}."
        )
    if not version.policy:
        raise AutoMixError(f"Version {number} holds no policy to promote: {version.why}")
    before = store.champion(version.epoch) or 0
    is_changed = store.promote(number, why)
    notes = []
    if is_changed and version.status in ("rejected", "rolled back"):
        notes.append(f"It was {version.status} before: {version.why}")
    newest = store.newest_epoch()
    if newest not in (None, version.epoch):
        notes.append("The newest queries are of other models, another check or another prompt.")
    return Step(version.epoch, before if is_changed else number, number, " ".join(notes))


def roll_back(store: LearningStore, why: str, epoch: str | None = None) -> Step:
    """Go back to the version that decided before the present one, or to the largest model.

    Raises:
        AutoMixError: The largest model decides already.
    """
    epoch = store.newest_epoch() if epoch is None else epoch
    before = None if epoch is None else store.champion(epoch)
    now = None if epoch is None or before is None else store.rollback(epoch, why, before)
    if epoch is None or before is None or now is None:
        raise AutoMixError(
            f"There is nothing to go back from in {store.name}: the largest model decides."
        )
    return Step(epoch, before, now)


def _named(number: int, place: int = 0) -> str:
    largest = ("The largest model", "the largest model")[place]
    return f"{('Version', 'version')[place]} {number}" if number else largest
