"""All that a store holds of one epoch, read at once: for the status, the report, and by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from langchain_automix.errors import AutoMixError
from langchain_automix.learning.events import History
from langchain_automix.learning.observations import Observations, observations_of
from langchain_automix.learning.records import Event, PolicyVersion, Stage, StoredQuery
from langchain_automix.learning.review_result import Review
from langchain_automix.learning.review_settings import ReviewSettings
from langchain_automix.learning.reviewing import Reviewer
from langchain_automix.learning.store.export import model_names
from langchain_automix.utils.check_spec import CheckSpec

if TYPE_CHECKING:
    from langchain_automix.learning.store.store import LearningStore


_TAKEN_SECONDS = 10.0
"""Within which every process has taken a new version."""


@dataclass(frozen=True)
class Traffic:
    """All that a store holds of one epoch."""

    epoch: str
    models: tuple[str, ...]
    stored: Sequence[StoredQuery]
    observed: Observations
    versions: Sequence[PolicyVersion]
    events: Sequence[Event]
    reviewer: Reviewer
    """As its mix has told the store; it has read all this."""

    leading: str | None = None
    """Of a mix without a check of its own, the check that is read."""

    @property
    def champion(self) -> PolicyVersion | None:
        """The version that decides; None: the largest model does."""
        return next((v for v in self.versions if v.status == "champion"), None)

    @property
    def stage(self) -> Stage:
        """How queries are decided at present, as far as the store says."""
        newest, champion = self.stored[-1].query, self.champion
        if newest.stage == "observe" or champion is None:
            return "observe" if newest.stage == "observe" else "warm-up"
        is_held = newest.stage == "warm-up" and newest.at > (champion.since or 0.0) + _TAKEN_SECONDS
        return "warm-up" if is_held else "policy"

    @property
    def recent(self) -> Observations:
        """What was observed since the latest change: what came before is no evidence."""
        return self.observed.since(History.of(self.events).evidence_after)


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
    stored, after = store.read(epoch)
    if not stored:
        raise AutoMixError(f"The learning store {store.name} holds no query of epoch {epoch}.")
    versions, events = store.versions(epoch), store.events(epoch)
    width = 1 + max((answer.model for each in stored for answer in each.query.answers), default=0)
    models = model_names(versions, events, width)
    reviewer = _reviewer(store, epoch) or Reviewer(epoch, models, ReviewSettings())
    reviewer.check = reviewer.check or _latest_check(versions)
    reviewer.take(stored, after)
    leading = reviewer.leading(stored, versions)
    observed = observations_of(models, stored, leading)
    return Traffic(epoch, models, stored, observed, versions, events, reviewer, leading)


def _latest_check(versions: Sequence[PolicyVersion]) -> CheckSpec | str | None:
    """Return the check that the latest policy is for; None: no version says."""
    for version in reversed(versions):
        if version.policy:
            policy = version.to_policy()
            return policy.check_spec or policy.verifier
    return None


def _reviewer(store: LearningStore, epoch: str | None) -> Reviewer | None:
    """Return the reviewer that the mix has told the store; None: no mix has."""
    try:
        return None if epoch is None else Reviewer.of_store(store, epoch)
    except AutoMixError:
        return None


def settings_told(store: LearningStore, epoch: str | None = None, **given: Any) -> ReviewSettings:
    """Return what the reviews of an epoch go by: what is given, else what its mix goes by.

    Args:
        store: The store.
        epoch: None: that of the newest query.
        given: Settings of `ReviewSettings`; those that are None are not given.
    """
    epoch = store.newest_epoch() if epoch is None else epoch
    reviewer = _reviewer(store, epoch)
    told = ReviewSettings() if reviewer is None else reviewer.settings
    given = {name: value for name, value in given.items() if value is not None}
    if {"max_loss", "cost_weight"} & given.keys():  # one goal takes the place of the other
        given = {"max_loss": None, "cost_weight": None, **given}
    return replace(told, **given)


def look(traffic: Traffic, settings: ReviewSettings) -> Review:
    """Return what a review of some traffic finds now; nothing is fitted or changed."""
    reviewer = replace(traffic.reviewer, settings=settings)
    return reviewer.judge(
        traffic.observed, traffic.leading, traffic.versions, traffic.events, fits=False
    )
