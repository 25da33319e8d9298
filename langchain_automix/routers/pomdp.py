"""`POMDPRouter`: escalate where the evidence says that it is worth it."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Literal, Self

from pydantic import Field
from typing_extensions import override

from langchain_automix.errors import AutoMixError
from langchain_automix.policy.log import RoutingLog
from langchain_automix.policy.posterior import PosteriorPolicy, fit_posterior, prior_policy
from langchain_automix.routers.base import OPENING, Router, ask, findings, keep, next_model
from langchain_automix.types import Decision, RoutingState


class UncalibratedWarning(UserWarning):
    """A router decides by a prior that was not fitted to the user's models."""


class POMDPRouter(Router):
    """Read a check as noisy evidence, and pay for a larger model where that pays off.

    The belief is the posterior over logged queries given the check. With two models the
    POMDP of AutoMix (section 4.2) comes down to: escalate where the expected benefit, in
    quality, is more than cost weight times the cost of the large model.

    Fit it to a routing log of your own models. Until then it decides by a documented prior
    (`langchain_automix.policy.posterior.prior_policy`), and says once that it is not
    calibrated.

    ??? example "Fit, save, load, decide"

        ```python
        from langchain_automix import POMDPRouter, RoutingLog, RoutingState, Verification

        POMDPRouter.fit(RoutingLog.read("log.jsonl")).save("policy.json")
        router = POMDPRouter.load("policy.json")
        state = RoutingState.after(Verification(verdicts=(True, False, True, True)))
        print(router.invoke(state).why)
        ```
    """

    policy: PosteriorPolicy = Field(default_factory=prior_policy)
    """The solved decision rule; by default the prior, which is not calibrated."""

    on_unknown: Literal["escalate", "prior"] = "escalate"
    """What to do when the check found nothing to go by (no valid verdict, an empty answer):
    ask the next model, or decide from the mean qualities on the log."""

    @classmethod
    def fit(
        cls, log: RoutingLog, *, cost_weight: float | None = None, verifier: str | None = None
    ) -> Self:
        """Return a router fitted to a routing log of two models.

        Args:
            log: Queries with the quality and cost of both models and the check of the first.
            cost_weight: How much quality one unit of the log's cost is worth, at least 0.
                None: the weight at which mixing the models at random neither gains nor loses.
            verifier: `SelfVerifier.fingerprint` of the verifier that made the log.

        Raises:
            AutoMixError: The log has not two models, or no query to learn from.
        """
        return cls(policy=fit_posterior(log, cost_weight=cost_weight, verifier=verifier))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return a router with the policy of a file; the file is validated, never evaluated.

        Raises:
            AutoMixError: The file cannot be read or is not a policy file.
        """
        return cls(policy=PosteriorPolicy.load(path))

    def save(self, path: str | Path) -> None:
        """Write the policy to a file, as versioned JSON.

        Raises:
            AutoMixError: The file cannot be written.
        """
        self.policy.save(path)

    @property
    def is_calibrated(self) -> bool:
        """Whether the policy was fitted to a log."""
        return self.policy.fit.queries > 0

    @override
    def opening(self, model_count: int) -> Decision:
        """Return the first step; a fitted policy is for the two models of its log."""
        if self.is_calibrated and model_count != len(self.policy.models):
            raise AutoMixError(
                f"The policy was fitted to {len(self.policy.models)} models "
                f"({', '.join(self.policy.models)}), but {model_count} are mixed here: mix the "
                "same models, or use a ThresholdRouter for more of them."
            )
        return OPENING

    @override
    def _decide(self, state: RoutingState) -> Decision:
        if not self.is_calibrated:
            _say_uncalibrated()
        found = findings(state.current.verification)
        later = next_model(state)
        if later is None:
            return keep(state, why=f"{found}, and there is no larger model to ask.")
        verification = state.current.verification
        if (verification is None or verification.confidence is None) and (
            self.on_unknown == "escalate"
        ):
            why = f"{found}: unknown, so {state.models[later]} is asked to be safe."
            return ask(state, later, why=why)
        return self._weigh(state, later, found)

    def _weigh(self, state: RoutingState, later: int, found: str) -> Decision:
        quality = self._expected_quality(state)
        price = self.policy.escalation_price
        this_name, later_name = state.models[state.current.model_index], state.models[later]
        details = {
            "belief": {this_name: quality[0], later_name: quality[1]},
            "values": {"answer": quality[0], f"escalate:{later_name}": quality[1] - price},
        }
        gain = f"{later_name} is expected to gain {quality[1] - quality[0]:+.2f} in quality"
        caveat = "" if self.is_calibrated else " (by a prior, not calibrated)"
        if self.policy.escalates(quality):
            why = f"{found}: {gain}, more than its price of {price:.2f}{caveat}."
            return ask(state, later, why=why, **details)
        why = f"{found}: {gain}, not more than its price of {price:.2f}{caveat}."
        return keep(state, why=why, **details)

    def _expected_quality(self, state: RoutingState) -> tuple[float, float]:
        check = state.current.verification
        if check is None:
            return self.policy.expected_quality()
        return self.policy.expected_quality(check.accepts, check.rejects, check.score)


@functools.cache
def _say_uncalibrated() -> None:
    warnings.warn(
        "POMDPRouter decides by a prior that is not calibrated to your models: fit one to a "
        "routing log with POMDPRouter.fit(log), and load it with POMDPRouter.load(path).",
        UncalibratedWarning,
        stacklevel=2,
    )
