"""A person's steps: promote a version, or go back from one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from langchain_automix.errors import AutoMixError

if TYPE_CHECKING:
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
