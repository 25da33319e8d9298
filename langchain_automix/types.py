"""The objects that the stages of a query exchange: small, immutable, and ready for JSON.

Stages of a query: input -> answer -> `Verification` -> `RoutingState` -> `Decision` -> keep the
answer, check it again, or ask the next model.
"""

from __future__ import annotations

from typing import Literal, Self

from langchain_core.messages.ai import UsageMetadata
from pydantic import BaseModel, ConfigDict, Field, SkipValidation

Verdict = bool | None
"""One verdict of a check: True accepts the answer, False rejects it, None is invalid."""

Action = Literal["answer", "verify", "escalate", "abstain"]

EMPTY_ANSWER = "the answer is empty"
NO_TEXT = "the answer holds no text that a check could read"
"""The problem of an answer that no check could read."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelCall(_Record):
    """The data of one request to a provider that determine its cost."""

    model: str | None = None
    """Model name that the provider reported."""

    provider: str | None = None
    """Provider that LangChain reported, such as `openai`."""

    usage: SkipValidation[UsageMetadata | None] = None
    """Tokens of the whole request with all its samples; None if not reported. Not validated,
    because providers add their own keys."""

    cost: str | None = None
    """Cost as text with a currency, if it was reported in the record of a model that is a mix
    itself. None: the cost is computed from the usage."""


class Verification(_Record):
    """The result of checking one answer.

    It has either `verdicts` (a sampled check) or a `score` (a continuous one). A verification with
    neither is unknown, which is not the same as a rejection.
    """

    verdicts: tuple[Verdict, ...] = ()
    """Verdicts in the order in which they were drawn."""

    score: float | None = Field(default=None, ge=0, le=1)
    """Confidence in the answer, in [0, 1], from a continuous check."""

    is_upper_bound: bool = False
    """Whether the score is only an upper bound, because the draft was stopped before its end
    (`give_up_early`). The complete draft would not have a higher score."""

    replies: tuple[str, ...] = ()
    """Replies of the checking model, one text for each verdict."""

    calls: tuple[ModelCall, ...] = ()
    """Requests that were made for the check."""

    problem: str | None = None
    """Why the check found nothing, for instance `the answer is empty`."""

    undrawn: str | None = None
    """How many verdicts could not be drawn, and why; they are not included in `verdicts`. None if
    all were drawn."""

    usable: bool = True
    """Whether the answer can be used at all. It cannot if it does not parse or does not match its
    schema; this is certain, and no model is asked."""

    checks: dict[str, Verification] = Field(default_factory=dict)
    """Results of further checks of the same answer, by name, if several checks are combined; the
    other fields then belong to the first check. A check that was not made is missing. The requests
    of these checks are included in `calls`."""

    @property
    def accepts(self) -> int:
        """Number of verdicts that accept the answer."""
        return sum(verdict is True for verdict in self.verdicts)

    @property
    def rejects(self) -> int:
        """Number of verdicts that reject the answer."""
        return sum(verdict is False for verdict in self.verdicts)

    @property
    def invalid(self) -> int:
        """Number of replies without a verdict."""
        return sum(verdict is None for verdict in self.verdicts)

    @property
    def confidence(self) -> float | None:
        """Share of accepts among the valid verdicts, or the score, in [0, 1]; None if unknown."""
        valid = self.accepts + self.rejects
        return self.accepts / valid if valid else self.score

    def and_then(self, later: Verification) -> Verification:
        """Return this verification combined with that of a later check of the same answer."""
        # A further check does not change the problem of the first one.
        of_first = bool(later.verdicts) or later.score is not None or not later.checks
        return Verification(
            verdicts=self.verdicts + later.verdicts,
            score=self.score if later.score is None else later.score,
            replies=self.replies + later.replies,
            calls=self.calls + later.calls,
            problem=(None if self.usable and of_first else self.problem) or later.problem,
            undrawn="; ".join(filter(None, (self.undrawn, later.undrawn))) or None,
            usable=self.usable and later.usable,
            checks=self.checks
            | {
                name: self.checks[name].and_then(check) if name in self.checks else check
                for name, check in later.checks.items()
            },
        )


class Visit(_Record):
    """A model that has answered the query, and the check of its answer."""

    model_index: int = Field(ge=0)
    """Index of the model in the mix; 0 is the cheapest."""

    verification: Verification | None = None
    """Check of its answer; None if it was not checked."""


class RoutingState(_Record):
    """The evidence about one query when the router is asked."""

    models: tuple[str, ...] = Field(default=("small", "large"), min_length=2)
    """Names of the models, cheap to expensive."""

    visits: tuple[Visit, ...] = ()
    """Models that have answered, in the order in which they were asked."""

    query_id: str | None = None
    """Id of the query, for routers that decide at random but treat equal queries equally."""

    cost_weight: float | None = Field(default=None, ge=0)
    """How much quality one unit of cost is worth in this query. None: the weight of the policy."""

    cost_so_far: str | None = None
    """Cost of the query so far, as text with a currency; None if unknown."""

    answer_cost: dict[str, float] = Field(default_factory=dict)
    """Cost of the latest answer, if known, by currency (`USD`)."""

    time_left: float | None = Field(default=None, ge=0)
    """Seconds left to answer the query; None if it has no deadline."""

    seconds: dict[str, float] = Field(default_factory=dict)
    """Expected seconds of each option, if known. Options: `verify`, and `escalate:` with the name
    of each model that can still be asked."""

    expected_costs: dict[str, float] = Field(default_factory=dict)
    """Expected cost of each option, for routers that weigh it (`Router.weighs_costs`): `escalate:`
    with the name of each model that can be asked, and `verify:` with the name of a check and the
    number of its verdicts, such as `verify:agreement:2`. Empty if no check can be chosen."""

    costs_are_nominal: bool = False
    """Whether no prices are known. The costs are then tokens, weighted by the order of the models;
    otherwise they are dollars."""

    @classmethod
    def after(cls, verification: Verification, models: tuple[str, ...] | None = None) -> Self:
        """Return the state after the check of the first model's answer."""
        visits = (Visit(model_index=0, verification=verification),)
        return cls(visits=visits) if models is None else cls(models=models, visits=visits)

    def fits(self, option: str) -> bool:
        """Return whether an option is expected to end in time; True if its duration is unknown."""
        return self.time_left is None or self.time_left > self.seconds.get(option, 0.0)

    @property
    def answered(self) -> frozenset[int]:
        """Indices of the models that have answered."""
        return frozenset(visit.model_index for visit in self.visits)

    @property
    def current(self) -> Visit:
        """The latest answer; raises IndexError if there is none."""
        return self.visits[-1]


class Decision(_Record):
    """A decision of the router, and the reason for it."""

    action: Action
    """`answer`: keep an answer. `verify`: draw more verdicts. `escalate`: ask a later model.
    `abstain`: give no answer."""

    model_index: int = Field(ge=0)
    """Index of the model whose answer is kept or checked, or that is asked. With `abstain`, the
    latest model."""

    model: str | None = None
    """Name of that model."""

    samples: int | None = Field(default=None, ge=0)
    """Number of verdicts to draw next. None: the verifier's own number. With `escalate`, 0 means:
    keep that model's answer without a check."""

    check: str | None = None
    """Name of the check to make next, if several are combined. None: the first or only one."""

    belief: dict[str, float] = Field(default_factory=dict)
    """Expected quality of each model's answer, in [0, 1], given the evidence."""

    values: dict[str, float] = Field(default_factory=dict)
    """Expected utility (quality minus cost weight times cost still to pay) of each option."""

    cost_so_far: str | None = None
    """Cost of the query before the decision, as text with a currency; None if unknown."""

    why: str = ""
    """The reason, in one plain sentence."""


class UnaccountedCall(ModelCall):
    """A request that may be billed although no reply arrived, so that its cost is unknown.

    It does not mean that the model has no price, or does not report its tokens.
    """
