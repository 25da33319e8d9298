"""`Reviewers`: the reviewers of a `Learning`, one an epoch, and what is said of what they find."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_automix.learning.epochs import EpochState
from langchain_automix.learning.review_result import Review
from langchain_automix.learning.reviewing import Reviewer
from langchain_automix.learning.settings import LearningSettings
from langchain_automix.learning.store.writer import LearningWarning
from langchain_automix.mix.telemetry import count_learning
from langchain_automix.utils.check_spec import spec_of
from langchain_automix.utils.user_warnings import warn_of_what_is_paid
from langchain_automix.verifiers.default import DefaultVerifier

if TYPE_CHECKING:
    from langchain_automix.learning.store.store import LearningStore

_WARNED = {"alarm": "Learning has raised an alarm", "rolled back": "Learning goes back"}


class Reviewers:
    """The reviewers of a `Learning`, one an epoch.

    Args:
        settings: What the user has set.
    """

    def __init__(self, settings: LearningSettings) -> None:
        self._settings = settings
        self._by_epoch: dict[str, Reviewer] = {}

    def to_detail(self, state: EpochState) -> dict[str, Any]:
        """Return what another process needs to review an epoch, ready for JSON."""
        return self._of(state).to_detail()

    def review(
        self, state: EpochState, store: LearningStore, *, is_due: bool = False
    ) -> Review | None:
        """Review an epoch, count what happened, and warn of what a person should know.

        Args:
            state: The epoch.
            store: The store.
            is_due: Whether to review it however little has changed.

        Returns:
            What was decided and done; None: there was no review.
        """
        reviewer = self._of(state)
        found = reviewer.run(store, is_due=is_due)
        if found is None:
            return None
        state.next_step = found.next_step
        for kind, text in reviewer.happened:
            count_learning(kind)
            if kind in _WARNED:
                warn_of_what_is_paid(f"{_WARNED[kind]}: {text}", LearningWarning)
        return found

    def _of(self, state: EpochState) -> Reviewer:
        if state.epoch not in self._by_epoch:
            settings, verifier = self._settings.for_reviews(), state.config.verifier
            defaults = verifier.specs() if isinstance(verifier, DefaultVerifier) else {}
            self._by_epoch[state.epoch] = Reviewer(
                state.epoch, state.names, settings, spec_of(verifier), defaults
            )
        return self._by_epoch[state.epoch]
