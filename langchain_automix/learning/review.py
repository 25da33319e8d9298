"""One look at the traffic: fit a challenger, promote it where it is proven, go back where it fails.

A review reads what was observed and says what to do; it changes nothing itself. So the same lines
decide in production and in the benchmark of streams.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from langchain_automix.errors import AutoMixError
from langchain_automix.learning.comparing import Comparison, Contest, replay
from langchain_automix.learning.error_budget import for_proof, for_term
from langchain_automix.learning.events import History
from langchain_automix.learning.fitting import fit_to
from langchain_automix.learning.observations import Observations
from langchain_automix.learning.records import PolicyVersion, Status
from langchain_automix.learning.review_result import Review, StatusChange
from langchain_automix.learning.review_settings import ReviewSettings
from langchain_automix.learning.unpriced import NO_PRICE
from langchain_automix.models.prices import CURRENCY
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.utils.check_spec import CheckSpec
from langchain_automix.utils.formatting import pluralize

FIRST_FIT = 100
"""Complete queries from which the first challenger is fitted; each later one takes twice as many
as the one before."""

_MOST_CHALLENGERS = 4

_WARM_UP = 200
"""Complete queries of a warm-up in any case."""

_LONGEST_WARM_UP = 1_000
"""Complete queries after which a warm-up ends without a proof."""

_HORIZON = 1_500
"""A challenger is promising while it would be proven within so many queries more."""

_WATCH = 500
"""Queries after a promotion that are shadowed at the full share."""

_QUIET = 0.1
"""Part of the share that is left when more shadows would hardly change the policy."""

_AFTER_ALARM = 0.25
"""Share of the queries that are shadowed from an alarm to the next fit, at least."""


def review(
    observed: Observations,
    versions: Sequence[PolicyVersion],
    settings: ReviewSettings,
    *,
    now: float,
    epoch: str = "",
    history: History | None = None,
    check: CheckSpec | str | None = None,
    fits: bool = True,
) -> Review:
    """Look at the traffic of an epoch and say what to do.

    Args:
        observed: All queries of the epoch.
        versions: All versions of the epoch.
        settings: The goal, and how sure to be.
        now: Seconds since 1970.
        epoch: Digest of models, check and prompt.
        history: What has happened in the epoch; None: nothing yet.
        check: How the check is rebuilt from a policy file, or its fingerprint.
        fits: Whether a challenger is fitted where it is time.
    """
    look = _Look(observed, versions, settings, now, epoch, history or History(), check)
    return look.result(fits=fits)


class _Look:
    def __init__(
        self,
        observed: Observations,
        versions: Sequence[PolicyVersion],
        settings: ReviewSettings,
        now: float,
        epoch: str,
        history: History,
        check: CheckSpec | str | None,
    ) -> None:
        alarm, quiet = history.alarm, history.quiet
        self.all, self.observed = observed, observed.since(history.evidence_after)
        self.versions = sorted(versions, key=lambda version: version.number)
        self.settings, self.now, self.epoch = settings, now, epoch
        self.history, self.alarm, self.check = history, alarm, check
        self.hold = None if quiet is not None and alarm is not None and quiet > alarm else alarm
        """Since when the champion is held, if the settings say so."""
        self.policies: dict[int, Policy] = {}
        champions = [v for v in self.versions if v.status == "champion"]
        self.deciding = champions[-1] if champions else None
        self.held = self.deciding if self._is_held() else None
        self.champion = None if self.held else self.deciding
        """The version that challengers are compared with; None: the largest model alone."""
        self.judged: dict[int, Comparison] = {}
        self.lost: set[int] = set()
        """Versions of whose comparison queries are not known any more."""
        self.fitted: PolicyVersion | None = None
        """The version that this look fits."""

    @property
    def labels(self) -> int:
        """Complete queries that are evidence."""
        return int(self.observed.evidence.sum())

    @property
    def challengers(self) -> list[PolicyVersion]:
        """Versions that may yet be proven; a champion that is held must prove itself anew."""
        held = [self.held] if self.held else []
        least = self.champion.number if self.champion else 0  # those before it lost to it
        recent = [v for v in self._waiting if v.number > least and v.number not in self.lost]
        return [*held, *recent]

    @property
    def _waiting(self) -> list[PolicyVersion]:
        return [v for v in self.versions if v.status == "challenger" and self._is_recent(v)]

    def _is_held(self) -> bool:
        """Whether the largest model answers since an alarm, whatever the champion says."""
        since = self.deciding.since if self.deciding else None
        is_safe = self.settings.on_drift == "safe" and self.hold is not None
        return is_safe and since is not None and since <= (self.hold or 0.0)

    def result(self, *, fits: bool) -> Review:
        back_to, why = self._watch()
        if back_to is not None:
            return self._review(back_to=back_to, why=why)
        for version in self.challengers:
            self._compare(version)
        found = self.judged
        proven = [v for v in self.challengers if v.number in found and found[v.number].is_shown]
        if self.held in proven:
            return self._review(ends_hold=True, why=self._proof(proven[0]))
        if proven and self.settings.promote == "auto":
            best = max(proven, key=lambda v: self.judged[v.number].gain)
            return self._review(
                promote=best.number,
                why=self._proof(best),
                changes=[
                    StatusChange(v.number, "rejected", f"Version {best.number} was proven first.")
                    for v in self.challengers
                    if v.number < best.number and v is not self.held
                ],
            )
        ready = {v.number: f"Version {v.number} is proven: {self._proof(v)}" for v in proven}
        self.fitted = self._fitted() if fits else None
        return self._review(fitted=self.fitted, changes=self._surplus(), ready=ready)

    def _review(self, **found: Any) -> Review:
        share, next_step = self._share(changes=found.get("promote") is not None)
        judged = {number: each.to_record() for number, each in self.judged.items()}
        champion = None if self.deciding is None else self.deciding.number
        return Review(
            share=share,
            next_step=next_step,
            judged=judged,
            champion=champion,
            renews=champion in self.lost,
            **found,
        )

    # Judging.

    def _alpha(self, version: PolicyVersion) -> float:
        """Return the chance of a wrong step that there is for what a version is compared with."""
        alpha = self.settings.alpha
        if version is self.deciding:
            is_safe = self.settings.on_drift == "safe"
            return for_term(alpha, self.history.terms, proves_itself=is_safe)
        rival = self.champion.number if self.champion else 0
        return for_proof(alpha, version, rival, self.versions)

    def _contest(self, version: PolicyVersion, start: float) -> Contest:
        """Return the traffic on which a version is compared, and note if it is not all known."""
        contest = Contest.since(self.all, start, version.judged)
        if contest.lacks(version.judged):
            self.lost.add(version.number)
        return contest

    def _compare(self, version: PolicyVersion) -> None:
        """Compare a challenger with the champion, on traffic since it was made."""
        settings, champion = self.settings, self.champion
        start = max(version.at, champion.at if champion else 0.0, self.hold or 0.0)
        if version is self.held:
            start = max(start, self.history.renewed or 0.0)
        contest = self._contest(version, start)
        if version.number in self.lost:
            return
        policy, alpha = self._policy(version), self._alpha(version)
        rival = None if champion is None else self._policy(champion)
        if settings.cost_weight is not None:
            found = contest.gains_utility(policy, rival, settings.cost_weight, alpha)
        else:
            found = contest.loses_little(policy, rival, settings.max_loss or 0.0, alpha)
        self.judged[version.number] = found

    def _watch(self) -> tuple[int | None, str]:
        """Return what to go back to where the champion is shown to lose, and why."""
        champion = self.champion
        if champion is None:
            return None, ""
        start = max(champion.since or champion.at, self.alarm or 0.0, self.history.renewed or 0.0)
        contest, alpha = self._contest(champion, start), self._alpha(champion)
        if champion.number in self.lost:
            return None, ""
        parent = next((v for v in self.versions if v.number == champion.parent), None)
        before = None if parent is None else self._policy(parent)
        if self.settings.cost_weight is not None:
            weight = self.settings.cost_weight
            lost = contest.gains_utility(before, self._policy(champion), weight, alpha)
            what = f"version {champion.parent}" if parent else "the largest model alone"
            text = f"It has less utility than {what}"
        else:
            allowed = self.settings.max_loss or 0.0
            lost = contest.loses_quality(self._policy(champion), allowed, alpha)
            text = f"It loses more than {allowed:g} of quality against the largest model"
        self.judged[champion.number] = lost
        if not lost.is_shown:
            return None, ""
        return champion.parent, (
            f"{text}: {lost.gain + (self.settings.max_loss or 0.0):.4f} a query, shown on "
            f"{pluralize(lost.queries, 'query', 'queries')}."
        )

    def _proof(self, version: PolicyVersion) -> str:
        found = self.judged[version.number]
        shown = f"shown on {pluralize(found.queries, 'query', 'queries')}"
        if self.settings.cost_weight is not None:
            least = f"at least {found.bound:.4f}"
            return f"It gains {found.gain:.4f} of utility a query, {least}, {shown}."
        allowed = self.settings.max_loss or 0.0
        return (
            f"It saves {found.saving:.3g} {CURRENCY} a query and loses "
            f"{max(allowed - found.gain, 0.0):.4f} of quality against the largest model, at most "
            f"{allowed - max(found.bound, 0.0):.4f}, {shown}."
        )

    # Fitting.

    def _next_fit(self) -> int:
        """Return how many complete queries the next fit takes."""
        made = [v.labels for v in self.versions if self._is_recent(v)]
        made += [self.fitted.labels] if self.fitted else []
        return 2 * max(made) if made else FIRST_FIT

    def _is_recent(self, version: PolicyVersion) -> bool:
        return self.alarm is None or version.at > self.alarm

    def _fitted(self) -> PolicyVersion | None:
        if self.labels < self._next_fit():
            return None
        try:
            policy, size = fit_to(self.observed, self.settings, self.check)
        except AutoMixError as error:
            return self._version("", "rejected", f"No policy could be fitted: {error}", alike=True)
        if self._is_alike(policy):
            what = f"version {self.champion.number}" if self.champion else "the largest model"
            why = f"It decides as {what} does."
            return self._version(policy.model_dump_json(by_alias=True), "rejected", why, alike=True)
        why = f"Fitted to {pluralize(self.labels, 'complete query', 'complete queries')}"
        if size < 0.95 * self.labels:
            why += f", which say as much as {size:.0f} drawn alike"
        return self._version(policy.model_dump_json(by_alias=True), "challenger", f"{why}.")

    def _version(
        self, policy: str, status: Status, why: str, *, alike: bool = False
    ) -> PolicyVersion:
        parent = 0 if self.champion is None else self.champion.number
        return PolicyVersion(
            0,
            self.epoch,
            self.now,
            policy,
            status,
            why,
            parent=parent,
            labels=self.labels,
            judged={"alike": True} if alike else {},
        )

    def _is_alike(self, policy: Policy) -> bool:
        champion = None if self.champion is None else self._policy(self.champion)
        one, other = replay(policy, self.observed), replay(champion, self.observed)
        return bool((one.model == other.model).all() and (one.cost == other.cost).all())

    def _surplus(self) -> list[StatusChange]:
        """Return the challengers that can be proven no more, and the oldest of too many."""
        able = [v for v in self.challengers if v is not self.held][-_MOST_CHALLENGERS:]
        surplus = [v for v in self.versions if v.status == "challenger" and v not in able]
        return [StatusChange(v.number, "rejected", self._why_given_up(v)) for v in surplus]

    def _why_given_up(self, version: PolicyVersion) -> str:
        if self._is_recent(version):
            return "It was not proven in time."
        return "The traffic has changed since it was fitted."

    def _policy(self, version: PolicyVersion) -> Policy:
        if version.number not in self.policies:
            self.policies[version.number] = version.to_policy()
        return self.policies[version.number]

    # Shadowing.

    def _share(self, *, changes: bool) -> tuple[float, str]:
        """Return the share of the queries to shadow, and what comes next."""
        settings, labels = self.settings, self.labels
        wait = self._next_fit() - labels
        fit = f"The next fit takes {pluralize(wait, 'complete query', 'complete queries')} more."
        if wait <= 0:
            fit = "The next fit is due."
        if self.observed.has_no_price:
            fit = NO_PRICE
        if self.champion is None and not changes:
            if labels < _WARM_UP or (self._is_promising() and labels < _LONGEST_WARM_UP):
                return settings.warm_up_share, self._until_proven() or fit
            share = min(settings.share, settings.warm_up_share)
            return share, f"No policy is likely to be proven soon. {fit}"
        if self.alarm is not None and labels < FIRST_FIT:
            return max(settings.share, _AFTER_ALARM), f"The traffic has changed. {fit}"
        start = self.champion.since if self.champion else None
        watched = 0 if changes or start is None else int((self.all.at > start).sum())
        if watched < _WATCH:
            return settings.share, f"The new policy is watched. {fit}"
        return settings.share * _QUIET, f"More shadows would hardly change the policy. {fit}"

    def _is_promising(self) -> bool:
        """Whether a challenger may be proven soon."""
        if self.fitted is not None and self.fitted.status == "challenger":
            return True
        found = [self.judged.get(v.number) for v in self.challengers]
        return any(
            each is None or each.queries < FIRST_FIT or each.needed < each.queries + _HORIZON
            for each in found
        )

    def _until_proven(self) -> str:
        """Say how many queries it may take to prove the challenger that is closest to it."""
        left = [
            self.judged[v.number].needed - self.judged[v.number].queries
            for v in self.challengers
            if v.number in self.judged
        ]
        nearest = min((each for each in left if math.isfinite(each)), default=None)
        if nearest is None:
            return ""
        rounded = max(10, 10 * math.ceil(max(nearest, 0) / 10))
        return f"A challenger may be proven within about {rounded:,} queries."
