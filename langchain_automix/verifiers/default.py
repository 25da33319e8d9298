"""`DefaultVerifier`: the checks from which a mix without a check of its own chooses by price."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.runnables import Runnable
from pydantic import ConfigDict, Field
from typing_extensions import override

from langchain_automix.flow.steps import Call
from langchain_automix.models.messages import answer_text
from langchain_automix.models.usage import UsageCollector
from langchain_automix.models.wrappers import fallbacks_and_config
from langchain_automix.types import ModelCall
from langchain_automix.utils.check_spec import CheckSpec, spec_of
from langchain_automix.utils.default_checks import (
    AGREEMENT,
    SELF,
    SELF_CHECKS,
    TOKENS,
    VERDICT_ONLY,
    ZERO_SHOT,
)
from langchain_automix.verifiers.agreement import AgreementVerifier
from langchain_automix.verifiers.base import Verifier, VerifierInput
from langchain_automix.verifiers.combined import CombinedVerifier
from langchain_automix.verifiers.log_probability import SHORT_ANSWER, LogProbabilityVerifier
from langchain_automix.verifiers.self_verifier import SelfVerifier

_VARIANTS: dict[str, dict[str, Any]] = {
    ZERO_SHOT: {"layout": "zero_shot"},
    VERDICT_ONLY: {"layout": "zero_shot", "reasoning": False},
}

VERDICTS = (1, 2, 4, 8)
"""Total numbers of verdicts that a self-check may draw."""

RESAMPLES = (2, 4)
"""Numbers of new answers that the agreement check may draw."""

_LONGEST_SHORT_ANSWER = 5 * SHORT_ANSWER
"""Maximum length of a short answer, in characters: about five per token, including the space."""


class CheckOffer(NamedTuple):
    """A check that may be bought."""

    check: str
    samples: int
    """Number of verdicts or new answers; 0 for a check that draws none."""

    calls: Sequence[ModelCall]
    """The requests, with the tokens they are likely to take."""


def log_probabilities() -> LogProbabilityVerifier:
    """Return the free check, which reads any answer that comes with log-probabilities."""
    return LogProbabilityVerifier(statistic="length", asks_thinking_models=True)


def _checks() -> dict[str, Runnable[Any, Any]]:
    return {
        SELF: SelfVerifier(),
        TOKENS: log_probabilities(),
        AGREEMENT: AgreementVerifier(samples=max(RESAMPLES), max_tokens=3 * SHORT_ANSWER),
    }


class DefaultVerifier(CombinedVerifier):
    """The checks of a mix without `verifier=`, until a policy is fitted.

    There are three checks, of which the uncalibrated `POMDPRouter` buys those that are worth their
    price:

    - `tokens`: how probable the draft's own tokens were, if its server reports it. Free.
    - `agreement`: whether two to four short new answers of the same model say the same. It is
      offered only if log-probabilities are missing and the answer is short (160 characters; longer
      answers hardly ever repeat word for word, and each costs as much as the draft).
    - `self`: the few-shot self-check of `SelfVerifier`, with one to eight verdicts. Its variants
      `self without examples` and `self without reasons`, which writes the verdict alone, are
      offered, too, since examples and reasons may cost more than they are worth.

    Called by itself, it makes these three checks as a `CombinedVerifier` does, and `self` leads. In
    a mix with a policy, the check that the policy was fitted to replaces it; with another router,
    `SelfVerifier()` does. For other checks or settings, make a `CombinedVerifier` and fit a policy
    to it.
    """

    checks: dict[str, Runnable[Any, Any]] = Field(default_factory=_checks, exclude=True)
    """The checks by name, the leading one first."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    @override
    def for_answering(self, model: Runnable[Any, Any]) -> Runnable[Any, Any]:
        """Return the model, set up to send log-probabilities, unless it has fallbacks.

        If its server refused the field, the first fallback would answer every time, at its price.
        """
        return model if _has_fallbacks(model) else super().for_answering(model)

    def offers(
        self, input: VerifierInput, usage: UsageMetadata, *, has_logprobs: bool
    ) -> Iterator[CheckOffer]:
        """Yield the checks of an answer that may be bought, with the requests of each.

        Args:
            input: The answer, and what it is checked against.
            usage: Tokens of the request that gave the answer.
            has_logprobs: Whether the answer has, or is expected to have, log-probabilities.
        """
        if has_logprobs:
            yield CheckOffer(TOKENS, 0, ())
        elif is_short(input["answer"]):
            yield from self._offers_of(AGREEMENT, RESAMPLES, input, usage)
        for name in SELF_CHECKS:
            yield from self._offers_of(name, VERDICTS, input, usage)

    def _offers_of(
        self, name: str, numbers: Sequence[int], input: VerifierInput, usage: UsageMetadata
    ) -> Iterator[CheckOffer]:
        check = self.variant(name)
        if not isinstance(check, Verifier):
            return
        expected = check.expected_calls(input, numbers, usage) or ()
        for number, calls in zip(numbers, expected, strict=False):
            yield CheckOffer(name, number, calls)

    def specs(self) -> dict[str, CheckSpec]:
        """Return the spec of each check, by name."""
        made = ((name, self.variant(name)) for name in (*self.checks, *_VARIANTS))
        return {name: spec_of(check) for name, check in made if check is not None}

    def variant(self, name: str) -> Runnable[Any, Any] | None:
        """Return a check by its name, including the variants of the leading one."""
        leading: Any = self.checks[SELF]
        changes: dict[str, Any] | None = _VARIANTS.get(name)
        changed: Runnable[Any, Any] | None = self.checks.get(name)
        return changed if changes is None else cast("Verifier", leading.model_copy(update=changes))

    @override
    def _call(self, name: str, given: Mapping[str, Any], bill: UsageCollector) -> Call:
        check = self.variant(name)
        if check is None or name in self.checks:
            return super()._call(name, given, bill)
        return self._named_call(check, name, given, bill)


def is_short(answer: Any) -> bool:
    """Whether an answer is short enough for another one to repeat it."""
    if isinstance(answer, AIMessage) and answer.invalid_tool_calls:
        return False
    return 0 < len(answer_text(answer)) <= _LONGEST_SHORT_ANSWER


def _has_fallbacks(model: Runnable[Any, Any]) -> bool:
    return bool(fallbacks_and_config(model)[0])
