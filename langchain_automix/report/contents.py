"""The contents of a report: plain figures and texts, measured before anything is rendered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from langchain_automix.evaluation.cost_at_quality import CostAtQuality
from langchain_automix.evaluation.headline import Headline
from langchain_automix.evaluation.recommendation import Recommendation
from langchain_automix.policy.benefit import BenefitGroup
from langchain_automix.policy.statistics import Interval

Kind = Literal["escalated_wrong", "kept_wrong", "hopeless", "saved"]
"""How a decision turned out. `escalated_wrong`: a larger model was paid for, and the answer is no
better than the first one. `kept_wrong`: a model that was not asked would have answered better.
`hopeless`: no model answers the query well (quality below one half). `saved`: the first model's
answer was kept, and no other is better."""


@dataclass(frozen=True)
class Number:
    """One of the three numbers at the top."""

    label: str
    value: str
    detail: str
    """One plain sentence: the interval, and what it is compared with."""


@dataclass(frozen=True)
class Labels:
    """Where the qualities in the log come from."""

    kind: Literal["references", "grade", "agreement", "corrected", "mixed", "unknown"]
    text: str
    """What the qualities can tell, and what they cannot."""


@dataclass(frozen=True)
class Point:
    """Mean cost and mean quality of a rule per query."""

    name: str
    cost: float
    quality: float
    quality_interval: Interval | None = None
    """95 % interval."""

    cost_interval: Interval | None = None
    escalation_rate: float | None = None
    verification_samples: float | None = None
    cost_weight: float | None = None
    """Cost weight that a policy on the frontier was fitted for."""

    utility_difference: float | None = None
    """For a baseline: mean utility of the policy minus that of this rule."""

    utility_interval: Interval | None = None
    """95 % interval of that difference."""


@dataclass(frozen=True)
class Benefit:
    """The gain from asking a larger model, by the confidence in a smaller one's answer."""

    model: str
    larger: str
    groups: tuple[BenefitGroup, ...]
    curve: tuple[tuple[float, float], ...]
    """(confidence, benefit) according to the policy's belief; empty if it never checks."""

    price: float
    """The cost of the larger model, in quality; escalating pays if the benefit exceeds it."""


@dataclass(frozen=True)
class ReliabilityGroup:
    """Answers with about the same stated confidence."""

    stated: float
    actual: float
    """Mean quality of the answers."""

    interval: Interval
    """95 % interval of that mean (Wilson)."""

    queries: int


@dataclass(frozen=True)
class Reliability:
    """Whether a stated confidence can be read as a probability of being right."""

    name: str
    """`confidence:<model>` or `belief`."""

    groups: tuple[ReliabilityGroup, ...]
    ece: float
    auroc: float | None
    auroc_interval: Interval | None


@dataclass(frozen=True)
class CostPart:
    """Mean cost per query of one kind of call."""

    part: Literal["answers", "checks"]
    model: str
    cost: float


@dataclass(frozen=True)
class LoggedText:
    """One model's answer to a query, and its check."""

    model: str
    text: str | None
    """The answer; None if the log contains no texts."""

    quality: float | None
    cost: float | None
    asked: bool
    """Whether the policy asked the model."""

    kept: bool
    verdicts: tuple[bool | None, ...] = ()
    """The verdicts that the policy drew."""

    score: float | None = None
    replies: tuple[str, ...] = ()
    """Replies of the checking model."""


@dataclass(frozen=True)
class LoggedDecision:
    """Decisions of the policy on one logged query."""

    id: str
    question: str | None
    context: str | None
    references: tuple[str, ...]
    answers: tuple[LoggedText, ...]
    model_index: int | None
    """Index of the model whose answer is kept; None if none is."""

    confidence: float | None
    quality: float
    cost: float
    kinds: tuple[Kind, ...]


@dataclass(frozen=True)
class Advice:
    """A change that would raise the utility, and by how much."""

    title: str
    gain: float | None
    """Upper bound of the expected gain in mean utility; None if the log cannot tell."""

    text: str


@dataclass(frozen=True)
class Contents:
    """Everything in a report; costs are in `currency`, means per query."""

    models: tuple[str, ...]
    currency: str | None
    queries: int
    left_out: int
    """Number of queries in the log that some model did not answer."""

    judged: Literal["cross-fitted", "held out", "fitted to it"]
    """How the policy is judged. `cross-fitted`: it was fitted to this log, so each query is judged
    by a policy that was fitted without it. `held out`: the policy itself is judged on another log;
    whether the logs share queries is unknown. `fitted to it`: it is judged on the single query that
    it was fitted to."""

    labels: Labels
    verdict: str
    """One sentence."""

    numbers: tuple[Number, Number, Number]
    policy_words: str
    """The policy, in words and as a table."""

    goal: dict[str, float]
    cost_weight: float
    point: Point
    baselines: tuple[Point, ...]
    frontier: tuple[Point, ...]
    """Cross-fitted policies from cheap to good; the stops of the slider."""

    benefits: tuple[Benefit, ...]
    reliabilities: tuple[Reliability, ...]
    cost_split: tuple[CostPart, ...]
    decisions: tuple[LoggedDecision, ...]
    """All decisions; for very many queries, the most telling ones and a random sample of the
    rest."""

    advice: tuple[Advice, ...]
    """Most useful first."""

    notes: tuple[str, ...]
    recommendation: Recommendation | None = None
    """What to do; None in a report of an earlier version."""

    headline: Headline | None = None
    """Shares of the quality and the cost of the best single model; None if undefined."""

    cost_at_quality: Mapping[str, tuple[CostAtQuality, ...]] = field(default_factory=dict)
    """For each rule, the cost of shares of the best single model's quality, cross-fitted."""

    kinds: Mapping[Kind, int] = field(default_factory=dict)
    """Number of queries of each kind, listed or not; empty if all are listed."""

    sample: str = ""
    """Which decisions are listed, in a sentence; empty if all are."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return asdict(self)
