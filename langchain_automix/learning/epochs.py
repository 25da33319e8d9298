"""`EpochState`: by which version the queries of one epoch are decided at present."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from langchain_automix.learning.events import active_alarm, latest
from langchain_automix.learning.records import Event, Stage
from langchain_automix.mix.config import MixConfig
from langchain_automix.mix.guards import ask_unchecked
from langchain_automix.routers.pomdp import POMDPRouter
from langchain_automix.types import Decision

if TYPE_CHECKING:
    from langchain_automix.learning.store.store import LearningStore


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a query reads at its beginning: one version, from begin to end."""

    version: int
    stage: Stage
    share: float
    """Chance of a shadow, in [0, 1]."""

    router: POMDPRouter | None = None
    """Decides; None: the largest model answers."""

    opening: Decision | None = None
    """The first step without a router."""

    alarm: str | None = None
    """What has changed in the traffic; None: nothing."""


class EpochState:
    """What a process knows of one epoch; the queries read its `snapshot` only.

    Args:
        config: Of a mix of this epoch.
        mode: Whether answers may change (`mix`), or not (`observe`).
        share: Chance of a shadow once there is a policy.
        warm_up_share: Chance of a shadow before, and in `observe`.
    """

    def __init__(
        self,
        config: MixConfig,
        mode: str,
        share: float,
        warm_up_share: float,
        on_drift: str = "shadow",
    ) -> None:
        self.epoch, self.names, self.config = config.epoch, config.names, config
        self.mode, self.share, self.warm_up_share = mode, share, warm_up_share
        self.on_drift = on_drift
        self.shadow_share: float | None = None
        """Chance of a shadow that the latest review set; None: there was none."""

        self.is_held = False
        """Whether the largest model answers although there is a policy, as after an alarm."""

        self.alarm: str | None = None
        """What has changed in the traffic since the policy was proven; None: nothing."""

        self.next_step = ""
        """What comes next, in one sentence, as the latest review of this process said."""

        self.no_cost = ""
        """What was warned of because costs are unknown; empty: nothing."""

        self.is_loaded = False
        """Whether the store was asked for its champion."""

        self.is_told = False
        """Whether the store knows of the epoch."""

        self.told_at = -math.inf
        """When this process told the store that the epoch began, by the monotonic clock, as long as
        the store does not know of it."""

        self.needs_async = False
        """Whether its shadows must be run asynchronously."""

        self.number = 0
        self._router: POMDPRouter | None = None
        self.snapshot = self._made()

    def load(self, store: LearningStore) -> None:
        """Take the champion of the store, if it is another one.

        Raises:
            StoreUnavailableError: The store is away.
            AutoMixError: The policy of the champion cannot be read here.
        """
        number = store.champion(self.epoch) or 0
        if number != self.number:
            found = [v for v in store.versions(self.epoch) if v.number == number]
            router = None if not found else POMDPRouter(policy=found[0].to_policy())
            self._router, self.number = router, number if found else 0
        self._take_events(store.events(self.epoch))
        self.is_loaded = True
        self.update()

    def _take_events(self, events: Sequence[Event]) -> None:
        """Go by the latest share, and by an alarm that is not over."""
        self.is_told = latest(events, "epoch") is not None
        if self.is_told:
            self.told_at = -math.inf
        share, alarm = latest(events, "share"), active_alarm(events)
        self.shadow_share = None if share is None else float(share.detail["share"])
        self.alarm = None if alarm is None else alarm.text
        self.is_held = alarm is not None and self.on_drift == "safe"

    def update(self) -> None:
        """Have new queries go by what is known now: the version, the shares, whether to hold."""
        made = self._made()
        if replace(made, opening=None) != replace(self.snapshot, opening=None):
            self.snapshot = made

    def _made(self) -> Snapshot:
        if self.mode == "observe":
            return self._largest("observe", "nothing that is learned changes an answer yet")
        if self._router is None:
            return self._largest("warm-up", "no policy is proven yet")
        if self.is_held:
            return self._largest("warm-up", "a policy must prove itself anew after an alarm")
        share = self.share if self.shadow_share is None else self.shadow_share
        return Snapshot(self.number, "policy", share, self._router, alarm=self.alarm)

    def _largest(self, stage: Stage, because: str) -> Snapshot:
        last = len(self.names) - 1
        opening = ask_unchecked(last, f"{self.names[last]} is asked and not checked: {because}.")
        share = self.warm_up_share if self.shadow_share is None else self.shadow_share
        return Snapshot(0, stage, share, None, opening, self.alarm)
