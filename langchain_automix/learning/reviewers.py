"""`Reviewers`: the reviewers of a `Learning`, one per epoch, and the warnings that follow."""

from __future__ import annotations

from collections.abc import Iterable

from langchain_automix.learning.epochs import EpochState
from langchain_automix.learning.reviewing import Happening, Reviewer
from langchain_automix.learning.settings import LearningSettings
from langchain_automix.learning.store.writer import LearningWarning
from langchain_automix.mix.telemetry import count_learning
from langchain_automix.utils.check_spec import spec_of
from langchain_automix.utils.user_warnings import warn_of_what_is_paid
from langchain_automix.verifiers.default import DefaultVerifier

_WARNED = {"alarm": "Learning has raised an alarm", "rolled back": "Learning goes back"}


class Reviewers:
    """The reviewers of a `Learning`, one per epoch.

    Args:
        settings: What the user has set.
    """

    def __init__(self, settings: LearningSettings) -> None:
        self._settings = settings
        self._by_epoch: dict[str, Reviewer] = {}

    def of(self, state: EpochState) -> Reviewer:
        """Return the reviewer of an epoch; one is made the first time."""
        if state.epoch not in self._by_epoch:
            settings, verifier = self._settings.for_reviews(), state.config.verifier
            defaults = verifier.specs() if isinstance(verifier, DefaultVerifier) else {}
            self._by_epoch[state.epoch] = Reviewer(
                state.epoch, state.names, settings, spec_of(verifier), defaults
            )
        return self._by_epoch[state.epoch]


def announce(happened: Iterable[Happening]) -> None:
    """Count what a review has found and done, and warn of what a person should know."""
    for kind, text in happened:
        count_learning(kind)
        if kind in _WARNED:
            warn_of_what_is_paid(f"{_WARNED[kind]}: {text}", LearningWarning)
