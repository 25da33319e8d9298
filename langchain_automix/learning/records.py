"""What is kept of each query, each shadow, each grade and each version of the policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from langchain_automix.policy.decision.policy import Policy

Stage = Literal["observe", "warm-up", "policy"]
"""How a query was decided: by the largest model because answers may not change (`observe`), by the
largest model because no policy is proven yet (`warm-up`), or by a version of the policy."""

Ending = Literal["answered", "abstained", "failed", "left"]

EventKind = Literal[
    "epoch",
    "fitted",
    "ready",
    "promoted",
    "rolled back",
    "rejected",
    "share",
    "alarm",
    "quiet",
    "renewed",
]
"""`epoch`: its models began to answer. `ready`: a policy is proven and waits for a person. `share`:
the share of shadows has changed. `quiet`: what was held since an alarm is proven anew. `renewed`:
a champion is watched from here on, as what came before is not known any more."""

Status = Literal["challenger", "champion", "retired", "rejected", "rolled back"]

AGREEMENT = "agreement"
"""Source of a grade that says how far an answer agrees with the largest model's."""


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request to a provider, as far as its bill goes."""

    stage: Literal["query", "shadow", "grade"]
    model: str | None
    input_tokens: int | None
    output_tokens: int | None
    cost: float | None
    """US dollars; None: unknown."""


@dataclass(frozen=True, slots=True)
class AnswerRecord:
    """What one model did with one query, without a word of its text."""

    model: int
    """Its index in the mix."""

    cost: float | None
    """Of its answer, in US dollars; None: unknown."""

    verification: Mapping[str, Any] | None = None
    """Its leading check as in a routing log (`verdicts` or `score`, and costs); None: not made."""

    checks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Further checks by name, likewise."""

    is_shadow: bool = False
    """Whether it was asked only to learn from it."""


@dataclass(frozen=True, slots=True)
class QueryRecord:
    """One query as it ended."""

    id: str
    at: float
    """Seconds since 1970."""

    epoch: str
    """Digest of models, check and prompt: queries of another epoch are no evidence."""

    version: int
    """Number of the policy that decided it; 0: the largest model, before any policy."""

    stage: Stage
    kept: int | None
    """Index of the model whose answer was given; None: there was no answer."""

    share: float
    """Chance, known beforehand and the same whatever was found, that the models which the query
    does not ask are asked as its shadow; in [0, 1]."""

    is_drawn: bool
    """Whether a shadow was drawn, and taken on."""

    ending: Ending
    cost: float | None
    """Of the query itself, in US dollars; None: unknown."""

    alone: float | None
    """What the largest model alone would have cost; None: unknown."""

    answers: Sequence[AnswerRecord] = ()
    requests: Sequence[RequestRecord] = ()
    run_id: str | None = None
    confidence: float | None = None
    seconds: float | None = None
    texts: Mapping[str, Any] | None = None
    """Question, context and answers; only with `keep_texts`."""

    @property
    def came_to_its_end(self) -> bool:
        """Whether it was answered, or the mix abstained; others are no evidence."""
        return self.ending in ("answered", "abstained")


@dataclass(frozen=True, slots=True)
class ShadowRecord:
    """What the shadow of a query found."""

    query_id: str
    at: float
    answers: Sequence[AnswerRecord] = ()
    requests: Sequence[RequestRecord] = ()
    cost: float | None = None
    texts: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class GradeRecord:
    """How good one answer of a query was."""

    query_id: str
    model: int
    quality: float
    """In [0, 1]."""

    source: str
    """`agreement`, `feedback`, `langsmith:KEY` or a name of the user's."""

    at: float


@dataclass(frozen=True, slots=True)
class StoredQuery:
    """A query with all that is known of it by now."""

    query: QueryRecord
    """As it ended; `answers` and `requests` hold those of its shadow, too."""

    grades: Sequence[GradeRecord] = ()
    shadow_cost: float | None = None
    """None: there was no shadow, or its cost is unknown."""

    is_shadowed: bool = False
    """Whether its shadow has come to an end."""


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """One version of the policy, with what became of it and why."""

    number: int
    """1 and up; 0 in a version that is not stored yet."""

    epoch: str
    at: float
    policy: str
    """The policy file's text, JSON."""

    status: Status
    why: str
    """In one sentence."""

    parent: int = 0
    """The version that decided when it was made; of one that was promoted, the version that decided
    until then, to which it goes back. 0: the largest model."""

    labels: int = 0
    """Complete queries that it was fitted to."""

    since: float | None = None
    """When it became the champion the last time; None: never."""

    judged: Mapping[str, Any] = field(default_factory=dict)
    """The latest comparison with its parent."""

    def to_policy(self) -> Policy:
        """Return the policy, read from its text.

        Raises:
            ValueError: The text is none, or of a later version of this package.
        """
        return Policy.model_validate_json(self.policy)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened: a promotion, a way back, an alarm."""

    at: float
    epoch: str
    kind: EventKind
    text: str
    """In one sentence."""

    detail: Mapping[str, Any] = field(default_factory=dict)


Record = QueryRecord | ShadowRecord | GradeRecord | Event
"""What is written as it comes."""
