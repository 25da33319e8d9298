"""`PosteriorPolicy`: with two models, escalate where the expected benefit pays for the cost.

AutoMix (section 4.2) states the choice as a POMDP. With two models there is one check and one
decision, so it comes down to this: escalate if and only if
E[quality of the large model - quality of the small one | check] > cost weight * cost of the large
model. The check's own cost is paid by then and does not count.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from langchain_automix._version import __version__
from langchain_automix.errors import AutoMixError, first_problem
from langchain_automix.policy.belief import (
    ScoreBelief,
    VerdictBelief,
    VerdictCell,
    fit_scores,
    fit_verdicts,
)
from langchain_automix.policy.log import LoggedQuery, RoutingLog, replacing

SCHEMA = "langchain-automix/policy"
_PRIOR_SAMPLES = 8


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FitStatistics(_Frozen):
    """What a policy was fitted on."""

    queries: int = Field(ge=0)
    """Number of logged queries; 0 means that the policy is a prior, not a fit."""

    quality: tuple[float, ...] = ()
    """Mean quality of each model."""

    escalation_rate: float | None = Field(default=None, ge=0, le=1)
    """Share of the logged queries that the policy would escalate."""


class TableRow(_Frozen):
    """What the policy does after some number of accepts, all verdicts being valid."""

    accepts: int = Field(ge=0)
    rejects: int = Field(ge=0)
    benefit: float
    """Expected quality of the large model's answer minus the small one's."""

    action: Literal["answer", "escalate"]


class PosteriorPolicy(_Frozen):
    """A solved decision rule for two models, as it stands in a policy file."""

    schema_name: Literal["langchain-automix/policy"] = Field(
        default="langchain-automix/policy", alias="schema"
    )
    version: Literal[1] = 1
    package: str = __version__
    """Version of this package that wrote the policy."""

    models: Annotated[tuple[str, ...], Field(min_length=2, max_length=2)]
    currency: str | None = None
    verifier: str | None = None
    """Fingerprint of the verifier whose checks were logged; None if not known."""

    samples: int | None = Field(default=None, ge=1)
    """Verdicts that each logged check drew; None for scores."""

    cost_weight: float = Field(ge=0)
    """How much quality one unit of cost is worth."""

    answer_cost: Annotated[
        tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=2, max_length=2)
    ]
    """Mean cost of an answer of each model."""

    belief: Annotated[VerdictBelief | ScoreBelief, Field(discriminator="kind")]
    fit: FitStatistics
    table: tuple[TableRow, ...] = ()
    """The decision for each number of accepts, for the reader; follows from the rest."""

    model_config = ConfigDict(populate_by_name=True)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        cells = self.belief.cells if isinstance(self.belief, VerdictBelief) else self.belief.points
        if any(len(cell.quality) != len(self.models) for cell in cells):
            raise ValueError("a cell of the belief needs one quality for each model")
        return self

    def expected_quality(
        self, accepts: int = 0, rejects: int = 0, score: float | None = None
    ) -> tuple[float, float]:
        """Return the expected quality of both models' answers, given what a check found.

        Without evidence of the kind that was logged, these are the means over the log.
        """
        if isinstance(self.belief, VerdictBelief):
            small, large = self.belief.expected_quality(accepts, rejects)
        elif score is not None:
            small, large = self.belief.expected_quality(score)
        else:
            total = sum(point.count for point in self.belief.points)
            small, large = (
                sum(point.count * point.quality[j] for point in self.belief.points) / total
                for j in range(2)
            )
        return small, large

    @property
    def escalation_price(self) -> float:
        """The quality that an answer of the large model must gain to pay for itself."""
        return self.cost_weight * self.answer_cost[1]

    def escalates(self, quality: tuple[float, float]) -> bool:
        """Whether to ask the large model, given both expected qualities."""
        return quality[1] - quality[0] > self.escalation_price

    def save(self, path: str | Path) -> None:
        """Write the policy as JSON; a reader never sees half of it."""
        with replacing(Path(path)) as unfinished:
            text = json.dumps(self.model_dump(by_alias=True), indent=1, allow_nan=False)
            unfinished.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a policy file, validated; its text is never evaluated."""
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise AutoMixError(f"The policy file {path} cannot be read: {error}.") from error
        except (ValueError, RecursionError) as error:
            raise AutoMixError(f"{path} is not a policy file: it is not JSON ({error}).") from error
        if not isinstance(found, dict) or found.get("schema") != SCHEMA:
            raise AutoMixError(
                f"{path} is not a policy file: it does not say {SCHEMA!r} in the field 'schema'. "
                "A policy file is written by POMDPRouter.save."
            )
        try:
            policy = cls.model_validate(found)
        except ValidationError as error:
            raise AutoMixError(f"The policy file {path}, {first_problem(error)}") from error
        if policy.table != policy.with_table().table:
            raise AutoMixError(
                f"The policy file {path}, field table: it does not follow from the rest of the "
                "file, which was edited or damaged. Fit the policy anew."
            )
        return policy

    def _tabulate(self) -> tuple[TableRow, ...]:
        rows = []
        for accepts in range((self.samples or -1) + 1):
            rejects = (self.samples or 0) - accepts
            quality = self.expected_quality(accepts, rejects)
            rows.append(
                TableRow(
                    accepts=accepts,
                    rejects=rejects,
                    benefit=round(quality[1] - quality[0], 6),
                    action="escalate" if self.escalates(quality) else "answer",
                )
            )
        return tuple(rows)

    def with_table(self) -> Self:
        """Return the policy with its decision table filled in."""
        return self.model_copy(update={"table": self._tabulate()})


def fit_posterior(
    log: RoutingLog, *, cost_weight: float | None = None, verifier: str | None = None
) -> PosteriorPolicy:
    """Fit the two-model policy to a routing log.

    Args:
        log: Queries that both models answered, the small one's answers checked.
        cost_weight: How much quality one unit of the log's cost is worth. None: the weight at
            which mixing the two models at random gains and loses nothing, which is the slope
            (large quality - small quality) / (large cost - small cost) on the log, 0 if the
            large model is not better, so that only expected benefit counts.
        verifier: Fingerprint of the verifier that checked.

    Raises:
        AutoMixError: The log has not two models, or nothing to learn from.
    """
    if len(log.models) != 2:  # noqa: PLR2004
        raise AutoMixError(
            f"A policy is fitted to a log of two models; this one has {len(log.models)}: "
            f"{list(log.models)}."
        )
    queries = [query for query in log if _complete(query)]
    if not queries:
        raise AutoMixError(
            "The routing log has no query that both models answered, with quality and cost, "
            "and whose first answer was checked: there is nothing to fit."
        )
    checks = [query.answers[0].verification for query in queries]
    qualities = [tuple(answer.quality or 0.0 for answer in query.answers) for query in queries]
    costs = [tuple(answer.cost or 0.0 for answer in query.answers) for query in queries]
    scores = [check.score for check in checks if check is not None and check.score is not None]
    if scores and len(scores) < len(queries):
        raise AutoMixError("The routing log mixes checks with verdicts and checks with a score.")
    counts = [(check.accepts, check.rejects) for check in checks if check is not None]
    belief = fit_scores(scores, qualities) if scores else fit_verdicts(counts, qualities)
    mean_quality, mean_cost = _column_means(qualities), _column_means(costs)
    weight = _indifferent_weight(mean_quality, mean_cost) if cost_weight is None else cost_weight
    policy = PosteriorPolicy(
        models=log.models,
        currency=log.currency,
        verifier=verifier,
        samples=None if scores else max(len(c.verdicts or ()) for c in checks if c is not None),
        cost_weight=weight,
        answer_cost=mean_cost,
        belief=belief,
        fit=FitStatistics(queries=len(queries), quality=mean_quality),
    )
    escalated = [
        policy.escalates(policy.expected_quality(c.accepts, c.rejects, c.score))
        for c in checks
        if c is not None
    ]
    fit = policy.fit.model_copy(update={"escalation_rate": sum(escalated) / len(escalated)})
    return policy.model_copy(update={"fit": fit}).with_table()


def _complete(query: LoggedQuery) -> bool:
    return query.answers[0].verification is not None and all(
        answer.quality is not None and answer.cost is not None for answer in query.answers
    )


def _column_means(rows: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(sum(column) / len(rows) for column in zip(*rows, strict=True))


def _indifferent_weight(quality: Sequence[float], cost: Sequence[float]) -> float:
    if cost[1] <= cost[0]:
        raise AutoMixError(
            f"In the routing log the large model costs no more than the small one ({cost[1]:g} "
            f"against {cost[0]:g} a query): put the models in the order cheap to expensive, or "
            "use the better one alone."
        )
    return max(0.0, (quality[1] - quality[0]) / (cost[1] - cost[0]))


def prior_policy() -> PosteriorPolicy:
    """Return the policy used before any fit: a guess in round numbers, not a calibration.

    It stands for 100 imagined queries: both models right on 52, only the large one on 28,
    only the small one on 8, neither on 12. Of 8 verdicts, a right small answer gets 6 accepts
    and a wrong one 4: a check that is better than chance, and no more than that. An answer of
    the large model costs ten small ones. The cost weight is the one at which mixing at random
    is indifferent, so the policy escalates where an answer looks worse than the average.
    """
    kinds = (((1.0, 1.0), 52, 6), ((0.0, 1.0), 28, 4), ((1.0, 0.0), 8, 6), ((0.0, 0.0), 12, 4))
    cells = tuple(
        VerdictCell(accepts=accepts, rejects=_PRIOR_SAMPLES - accepts, count=n, quality=quality)
        for quality, n, accepts in kinds
    )
    policy = PosteriorPolicy(
        models=("small", "large"),
        samples=_PRIOR_SAMPLES,
        cost_weight=_indifferent_weight((0.6, 0.8), (1.0, 10.0)),
        answer_cost=(1.0, 10.0),
        belief=VerdictBelief(alpha=1.0, beta=1.0, cells=cells),
        fit=FitStatistics(queries=0),
    )
    return policy.with_table()
