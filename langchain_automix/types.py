"""What travels between the stages of one query: small, immutable, JSON-ready.

A query's way: input -> answer -> `Verification` -> `RoutingState` -> `Decision` -> keep,
check more, or ask the next model.
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
    """One request to a provider, as far as its bill goes."""

    model: str | None = None
    """Model name that the provider reported."""

    provider: str | None = None
    """Provider that LangChain reported, such as `openai`."""

    usage: SkipValidation[UsageMetadata | None] = None
    """Tokens of the whole request, all its samples together; None when not reported.
    Not validated: providers add keys of their own."""

    cost: str | None = None
    """What it cost, as text with currency, where that was told: by the record of a model that
    is a mix itself. None: it follows from the usage."""


class Verification(_Record):
    """What a check of one answer found.

    Either `verdicts` (a sampled check) or a `score` (a continuous one). A verification
    with neither is an unknown, which is not the same as a rejection.
    """

    verdicts: tuple[Verdict, ...] = ()
    """Verdicts in the order drawn."""

    score: float | None = Field(default=None, ge=0, le=1)
    """Confidence of a continuous check."""

    is_upper_bound: bool = False
    """Whether the score is only known to be this at most: the draft was given up before its end
    (`give_up_early`), and would have scored no more."""

    replies: tuple[str, ...] = ()
    """What the checking model wrote, one text a verdict."""

    calls: tuple[ModelCall, ...] = ()
    """Requests that the check cost."""

    problem: str | None = None
    """Why there is nothing to go by, for instance `the answer is empty`."""

    undrawn: str | None = None
    """How many verdicts could not be drawn, and why; they are not among `verdicts`. None: all
    were drawn."""

    usable: bool = True
    """Whether the answer can be used at all. False: it does not parse or does not fit its
    schema; certain, and no model was asked."""

    checks: dict[str, Verification] = Field(default_factory=dict)
    """What further checks of the same answer found, by name, where several are combined: what
    stands above is then the first check's. A check that was not made is not here. Their requests
    are in `calls`, too."""

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
        """Number of replies that hold no verdict."""
        return sum(verdict is None for verdict in self.verdicts)

    @property
    def confidence(self) -> float | None:
        """Share of accepts among the valid verdicts, or the score, in [0, 1]; None if unknown."""
        valid = self.accepts + self.rejects
        return self.accepts / valid if valid else self.score

    def and_then(self, later: Verification) -> Verification:
        """Return this verification with the findings of a later check of the same answer added."""
        # A further check says nothing of the first one, and leaves its problem as it was.
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
    """One model that has answered the query, and what its check found."""

    model_index: int = Field(ge=0)
    """Place of the model in the mix; 0 is the cheapest."""

    verification: Verification | None = None
    """Check of its answer; None if it was not checked."""


class RoutingState(_Record):
    """What is known about one query when the router is asked: its evidence so far."""

    models: tuple[str, ...] = Field(default=("small", "large"), min_length=2)
    """Names of the models, cheap to expensive."""

    visits: tuple[Visit, ...] = ()
    """Models that have answered, in the order asked."""

    query_id: str | None = None
    """Which query this is, for routers that give equal queries equal treatment by chance."""

    cost_weight: float | None = Field(default=None, ge=0)
    """How much quality one unit of cost is worth to this query; None: the policy's own weight."""

    cost_so_far: str | None = None
    """What the query has cost until now, as text with currency; None when unknown."""

    answer_cost: dict[str, float] = Field(default_factory=dict)
    """What the latest answer cost, by currency (`USD`), as far as that is known."""

    time_left: float | None = Field(default=None, ge=0)
    """Seconds that are left to answer the query; None: it has no deadline."""

    seconds: dict[str, float] = Field(default_factory=dict)
    """Expected seconds of each option, as far as they are known: `verify`, and `escalate:` with
    the name of each model that can still be asked."""

    expected_costs: dict[str, float] = Field(default_factory=dict)
    """Expected cost of each option, for routers that weigh it (`Router.weighs_costs`): `escalate:`
    with the name of each model that can be asked, and `verify:` with the name of a check and the
    number of its verdicts, such as `verify:agreement:2`. Empty where no check can be chosen."""

    costs_are_nominal: bool = False
    """Whether no prices are known, so that these costs are tokens, weighed by the order of the
    models; else they are dollars."""

    @classmethod
    def after(cls, verification: Verification, models: tuple[str, ...] | None = None) -> Self:
        """Return the state after the first model's answer was checked."""
        visits = (Visit(model_index=0, verification=verification),)
        return cls(visits=visits) if models is None else cls(models=models, visits=visits)

    def fits(self, option: str) -> bool:
        """Whether an option is expected to end in time; one of which nothing is known is."""
        return self.time_left is None or self.time_left > self.seconds.get(option, 0.0)

    @property
    def answered(self) -> frozenset[int]:
        """Places of the models that have answered."""
        return frozenset(visit.model_index for visit in self.visits)

    @property
    def current(self) -> Visit:
        """The latest answer; raises IndexError when there is none."""
        return self.visits[-1]


class Decision(_Record):
    """What the router decided, and why."""

    action: Action
    """`answer`: keep an answer. `verify`: draw more verdicts. `escalate`: ask a later model.
    `abstain`: give no answer."""

    model_index: int = Field(ge=0)
    """Whose answer is kept or checked, or which model is asked; the latest, when abstaining."""

    model: str | None = None
    """Name of that model."""

    samples: int | None = Field(default=None, ge=0)
    """Verdicts to draw next. None: as many as the verifier draws by itself. After an
    escalation, 0: keep that model's answer without a check."""

    check: str | None = None
    """Name of the check to make next, where several are combined; None: the first, or only,
    one."""

    belief: dict[str, float] = Field(default_factory=dict)
    """Expected quality of each model's answer, in [0, 1], given the evidence."""

    values: dict[str, float] = Field(default_factory=dict)
    """Expected utility (quality minus cost weight times cost still to pay) of each option."""

    cost_so_far: str | None = None
    """What the query had cost until then, as text with currency; None when unknown."""

    why: str = ""
    """The reason, in one plain sentence."""


class UnaccountedCall(ModelCall):
    """A request of which nothing more is heard, and which may be billed: what it cost is unknown.

    That says nothing of the model's price, or of whether it reports its tokens.
    """
