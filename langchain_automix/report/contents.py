"""What a report says: plain figures and texts, measured before anything is drawn."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from langchain_automix.policy.benefit import BenefitGroup
from langchain_automix.policy.statistics import Interval

Kind = Literal["escalated_wrong", "kept_wrong", "hopeless", "saved"]
"""Of a decision: `escalated_wrong`, money was paid for a larger model and the answer is still no
better than the first one; `kept_wrong`, a model that was not asked would have answered better;
`hopeless`, no model answers it well (quality below one half); `saved`, the first model's answer
was kept and no other is better."""


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
    """What that can tell, and what it cannot."""


@dataclass(frozen=True)
class Point:
    """A rule's place on the plane of cost and quality; means per query."""

    name: str
    cost: float
    quality: float
    quality_interval: Interval | None = None
    """95 %."""

    cost_interval: Interval | None = None
    escalation_rate: float | None = None
    verification_samples: float | None = None
    cost_weight: float | None = None
    """Of a policy on the frontier: the cost weight that it was fitted for."""

    utility_difference: float | None = None
    """Of a baseline: mean utility of the policy minus that of this rule."""

    utility_interval: Interval | None = None
    """95 % interval of that difference."""


@dataclass(frozen=True)
class Benefit:
    """What asking the larger model gains, against the confidence in a smaller one's answer."""

    model: str
    larger: str
    groups: tuple[BenefitGroup, ...]
    curve: tuple[tuple[float, float], ...]
    """(confidence, benefit) as the policy believes it; empty where it never checks."""

    price: float
    """What the larger model costs, in quality: where the benefit is above, escalating pays."""


@dataclass(frozen=True)
class ReliabilityGroup:
    """Some answers of about the same stated confidence."""

    stated: float
    actual: float
    """Their mean quality."""

    interval: Interval
    """95 % interval of it (Wilson)."""

    queries: int


@dataclass(frozen=True)
class Reliability:
    """Whether a stated confidence can be read as a chance of being right."""

    name: str
    """`confidence:<model>` or `belief`."""

    groups: tuple[ReliabilityGroup, ...]
    ece: float
    auroc: float | None
    auroc_interval: Interval | None


@dataclass(frozen=True)
class CostPart:
    """What one kind of call costs, mean per query."""

    part: Literal["answers", "checks"]
    model: str
    cost: float


@dataclass(frozen=True)
class LoggedText:
    """One model's part in a query."""

    model: str
    text: str | None
    """Its answer; None where the log holds no texts."""

    quality: float | None
    cost: float | None
    asked: bool
    """Whether the policy asked it."""

    kept: bool
    verdicts: tuple[bool | None, ...] = ()
    """Those that the policy drew."""

    score: float | None = None
    replies: tuple[str, ...] = ()
    """What the check wrote."""


@dataclass(frozen=True)
class LoggedDecision:
    """What the policy does with one logged query."""

    id: str
    question: str | None
    context: str | None
    references: tuple[str, ...]
    answers: tuple[LoggedText, ...]
    model_index: int | None
    """Whose answer is kept; None where none is."""

    confidence: float | None
    quality: float
    cost: float
    kinds: tuple[Kind, ...]


@dataclass(frozen=True)
class Advice:
    """Something that would raise the utility, and by how much."""

    title: str
    gain: float | None
    """Expected gain in mean utility, at most; None where the log cannot tell."""

    text: str


@dataclass(frozen=True)
class Contents:
    """All of a report; see the parts. Costs are in `currency`, means per query."""

    models: tuple[str, ...]
    currency: str | None
    queries: int
    left_out: int
    """Queries of the log that some model did not answer."""

    judged: Literal["cross-fitted", "held out", "fitted to it"]
    """`cross-fitted`: the log is the one that the policy was fitted to, so each query is judged by
    a policy that was fitted without it. `held out`: the policy itself, on another log; whether
    single queries stand in both is not known. `fitted to it`: the one query that it was fitted
    to."""

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
    """Policies from cheap to good, cross-fitted; the stops of the slider."""

    benefits: tuple[Benefit, ...]
    reliabilities: tuple[Reliability, ...]
    cost_split: tuple[CostPart, ...]
    decisions: tuple[LoggedDecision, ...]
    advice: tuple[Advice, ...]
    """Most useful first."""

    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return asdict(self)
