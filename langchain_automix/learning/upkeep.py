"""`Upkeep`: what a `Learning` does beside the queries, every two seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from langchain_automix.errors import AutoMixError, StoreUnavailableError
from langchain_automix.learning.budget import ShadowBudget
from langchain_automix.learning.epochs import EpochState
from langchain_automix.learning.handle import StoreHandle
from langchain_automix.learning.records import Event, Record
from langchain_automix.learning.refresher import Refresher
from langchain_automix.learning.review_result import Review
from langchain_automix.learning.reviewers import Reviewers, announce
from langchain_automix.learning.settings import LearningSettings
from langchain_automix.mix.config import MixConfig
from langchain_automix.utils.locks import ProcessLock

if TYPE_CHECKING:
    from langchain_automix.learning.store.store import LearningStore

_LOGGER = logging.getLogger(__name__)

_REFRESH_SECONDS = 2.0
_PRUNE_SECONDS = 3600.0
_LOST_SECONDS = 60.0
"""Seconds after which an event that is not in the store is told again."""


class Upkeep:
    """Keeps the epochs of a `Learning`: by which version each decides, its reviews, old queries.

    Args:
        settings: What the user has set.
        store: The store.
        put: Takes records for it.
        budget: What shadows may spend.

    Attributes:
        epochs: By their digests, in the order in which mixes began to answer.
        refresher: The thread in which all that is done.
    """

    def __init__(
        self,
        settings: LearningSettings,
        store: StoreHandle,
        put: Callable[[Record], object],
        budget: ShadowBudget,
    ) -> None:
        self._settings, self._store, self._put, self._budget = settings, store, put, budget
        self._reviewers = Reviewers(settings)
        self._lock, self._telling = ProcessLock(), ProcessLock()
        self._pruned = 0.0
        self.epochs: dict[str, EpochState] = {}
        self.refresher = Refresher(self.tick, _REFRESH_SECONDS)

    def state(self, config: MixConfig) -> EpochState:
        """Return the epoch of a mix, which begins with its first query."""
        settings = self._settings
        with self._lock:
            found = self.epochs.get(config.epoch)
            if found is None:
                shares = settings.share, settings.warm_up_share
                found = EpochState(config, settings.mode, *shares, settings.on_drift)
                self.epochs[config.epoch] = found
                self.refresher.wake()
            return found

    def tick(self) -> None:
        """Look at the store: which version decides, whether there is money, what is too old."""
        self.load_all()
        try:
            self._budget.look_up()
            self._prune()
            if self._settings.refit == "thread":
                self._review_all()
        except StoreUnavailableError as error:
            self._store.warn_away(error)

    def load_all(self) -> None:
        """Take the newest version of every epoch."""
        for state in list(self.epochs.values()):
            self.load(state)

    def load(self, state: EpochState) -> None:
        """Take the newest version of an epoch, unless the store is away."""
        try:
            store = self._store.get()
            is_first = not state.is_loaded
            state.load(store)
            if is_first or not state.is_told:  # or the store was deleted, and made anew
                self._begin_epoch(state)
        except StoreUnavailableError as error:
            self._store.warn_away(error)
        except (AutoMixError, ValueError) as error:  # the policy is one of a later version
            _LOGGER.warning("a policy cannot be read: %s", error)
        else:
            self._store.is_back()

    def _begin_epoch(self, state: EpochState) -> None:
        """Have the store know the models and the goal of an epoch, and that it began."""
        store = self._store.get()
        detail = self._reviewers.of(state).to_detail()
        with self._telling:
            if time.monotonic() - state.told_at < _LOST_SECONDS:
                return  # it is on its way to the store
            self._tell_begin(state, store, detail)

    def _tell_begin(
        self, state: EpochState, store: LearningStore, detail: Mapping[str, Any]
    ) -> None:
        told = [event.detail for event in store.events(state.epoch) if event.kind == "epoch"]
        if told and told[-1] == detail:
            return
        names = ", ".join(state.names)
        text = f"The models {names} go on with other settings."
        if not told:
            text = f"The models {names} began to answer."
        self._put(Event(time.time(), state.epoch, "epoch", text, detail))
        state.told_at = time.monotonic()

    def _prune(self) -> None:
        settings, now = self._settings, time.monotonic()
        days, keep = settings.keep_days, settings.keep_queries
        if (days is None and keep is None) or now < self._pruned:
            return
        self._pruned = now + _PRUNE_SECONDS
        older = None if days is None else timedelta(days=days)
        self._store.get().prune(older_than=older, keep=keep)

    def _review_all(self) -> None:
        """Judge the policies of all epochs, where that is due."""
        store = self._store.get()
        for state in list(self.epochs.values()):
            self.review(state, store)

    def review(
        self, state: EpochState, store: LearningStore, *, is_due: bool = False
    ) -> Review | None:
        """Review an epoch, say what happened, and go by what was decided.

        Args:
            state: The epoch.
            store: The store.
            is_due: Whether to review it however little has changed.

        Returns:
            What was decided and done; None: there was no review.
        """
        reviewer = self._reviewers.of(state)
        found = reviewer.run(store, is_due=is_due)
        if found is not None:
            state.next_step = found.next_step
            announce(reviewer.happened)
            self.load(state)
        return found
