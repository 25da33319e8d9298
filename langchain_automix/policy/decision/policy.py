"""The policy and its file: validated JSON, read in plain Python.

A *plan* is one solved rule: an opening and, for each model whose answer is checked, a table from
what the check found to what to do. A *policy* is one plan or two. With two, the id of a query
selects one, so that a mean cost is met exactly.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from langchain_automix._version import __version__
from langchain_automix.errors import AutoMixError, first_problem
from langchain_automix.policy.decision.observation import Frozen, Share
from langchain_automix.policy.decision.plan import Plan
from langchain_automix.policy.decision.table import CHECKED
from langchain_automix.utils.check_spec import CheckSpec, check_in_words
from langchain_automix.utils.files import atomic_replace, reason_of
from langchain_automix.utils.fingerprints import uniform

SCHEMA = "langchain-automix/policy"

_MAX_BYTES = 2**27
"""Maximum size of a policy file; those of five models take some megabytes."""


class Candidate(Frozen):
    """One family that the fit could choose, and the evidence for it."""

    name: str
    expected: float
    """Utility that the candidate's own POMDP predicts."""

    cross_fitted: float | None = None
    """Mean utility on the folds that it was not fitted to; None if it was ruled out because a
    simpler candidate is expected to do better."""

    error: NonNegativeFloat | None = None
    """Standard error of its cross-fitted gain over the best trivial policy."""


class FitStatistics(Frozen):
    """What a policy was fitted to, and which candidates it was chosen from."""

    queries: NonNegativeInt
    """Number of logged queries; 0 means that the policy is a prior, not a fit."""

    quality: tuple[float, ...] = ()
    """Mean quality of each model."""

    cost: tuple[float, ...] = ()
    """Mean cost of an answer of each model."""

    candidates: tuple[Candidate, ...] = ()
    log: str | None = None
    """Digest of the log (see `langchain_automix.policy.fitting.digest`); None if unknown."""

    notes: tuple[str, ...] = ()
    """Notes for the reader, one sentence each."""


class Policy(Frozen):
    """A decision rule, with everything needed to use, read and verify it."""

    schema_name: Literal["langchain-automix/policy"] = Field(
        default="langchain-automix/policy", alias="schema"
    )
    version: Literal[1, 2] = 1
    """2 if it reads several checks of an answer, which older versions of this package cannot."""

    package: str = __version__
    """Version of this package that wrote the policy."""

    models: tuple[str, ...] = Field(min_length=2)
    currency: str | None = None
    verifier: str | None = None
    """Fingerprint of the verifier that made the logged checks; None if unknown."""

    check_spec: CheckSpec | None = None
    """How to rebuild that verifier; None, as in files of earlier versions, if unknown."""

    own_cost: bool = False
    """Whether the price of a larger model is scaled for each query by the cost of the query's own
    answer relative to the mean cost. False, as in files of earlier versions, if it is not."""

    goal: dict[str, float] = Field(default_factory=dict)
    """The goal of the fit, such as `max_cost`; empty if there was none."""

    cost_weight: NonNegativeFloat
    """How much quality one unit of cost is worth."""

    plans: tuple[Plan, ...] = Field(min_length=1, max_length=2)
    first_share: Share = 1.0
    """Share of the queries that the first plan gets; the second plan gets the rest."""

    seed: int = 0
    fit: FitStatistics

    model_config = ConfigDict(populate_by_name=True)

    @model_validator(mode="after")
    def _validate(self) -> Self:
        if (self.version == 2) != any(t.checks for p in self.plans for t in p.tables):  # noqa: PLR2004
            raise ValueError("a policy has version 2 if and only if it reads several checks")
        if any(j >= len(self.models) for plan in self.plans for j in plan.plays):
            raise ValueError("a plan uses a model that the policy does not name")
        if any(len(m) not in (0, len(self.models)) for m in (self.fit.quality, self.fit.cost)):
            raise ValueError("the means of the fit are of every model, or of none")
        rows = (row for plan in self.plans for table in plan.tables for row in table.rows)
        options = {option for row in rows for option in row.values}
        asked = {o.removesuffix(CHECKED) for o in options if o.startswith("escalate:")}
        if asked - {f"escalate:{name}" for name in self.models}:
            raise ValueError("the values of a row name a model that the policy does not")
        if (self.first_share < 1) and len(self.plans) == 1:
            raise ValueError("a share below 1 needs a second plan")
        if self.check_spec is not None and self.check_spec.fingerprint != self.verifier:
            raise ValueError("check_spec describes another verifier than the field verifier names")
        if self.own_cost and "max_risk" in self.goal:
            raise ValueError("max_risk holds for the policy's own decisions, not with own_cost")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_unknown(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out fields that earlier versions did not know, to keep fingerprints unchanged."""
        written: dict[str, Any] = write(self)
        if self.check_spec is None:
            written.pop("check_spec", None)
        if not self.own_cost:
            written.pop("own_cost", None)
        return written

    @property
    def own_costs(self) -> tuple[float, ...] | None:
        """Mean cost of each model's answer, for scaling by a query's own cost; else None."""
        return self.fit.cost if self.own_cost and self.fit.cost else None

    @property
    def check_in_words(self) -> str | None:
        """Description of the check that the policy was fitted to; None if unknown."""
        return check_in_words(self.check_spec, self.verifier, self.models[:-1])

    @property
    def reads_checks(self) -> bool:
        """Whether any query's answer is checked."""
        return any(plan.opening.then is not None for plan in self.plans)

    @cached_property
    def fingerprint(self) -> str:
        """Short hash of the whole policy, the same for the same file."""
        return hashlib.sha256(self.model_dump_json(by_alias=True).encode()).hexdigest()[:12]

    def plan_for(self, query_id: str | None) -> Plan:
        """Return the plan for a query: fixed for each id; without an id, the larger share's."""
        if len(self.plans) == 1:
            return self.plans[0]
        if query_id is None:
            return self.plans[0 if self.first_share >= 0.5 else 1]  # noqa: PLR2004
        return self.plans[0 if uniform(query_id, self.seed) < self.first_share else 1]

    def save(self, path: str | Path) -> None:
        """Write the policy as JSON; a reader never sees a partial file.

        Raises:
            AutoMixError: The file cannot be written.
        """
        with atomic_replace(Path(path)) as unfinished:
            text = json.dumps(self.model_dump(by_alias=True), allow_nan=False)
            unfinished.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read and validate a policy file; nothing in it is ever evaluated.

        Raises:
            AutoMixError: The file cannot be read, or is not a policy file.
        """
        try:
            with Path(path).open("rb") as file:
                content = json.loads(_read_text(file), object_pairs_hook=_build_object)
        except OSError as error:
            raise AutoMixError(
                f"The policy file {path} cannot be read: {reason_of(error)}."
            ) from error
        except (ValueError, RecursionError) as error:
            raise AutoMixError(f"{path} is not a policy file: it is not JSON ({error}).") from error
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            raise AutoMixError(
                f"{path} is not a policy file: it does not say {SCHEMA!r} in the field 'schema'. "
                "A policy file is written by POMDPRouter.save."
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise AutoMixError(f"The policy file {path}, {first_problem(error)}") from error


def _read_text(file: IO[bytes]) -> bytes:
    text = file.read(_MAX_BYTES + 1)
    if len(text) > _MAX_BYTES:
        raise ValueError("it is too large")
    return text


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        # Readers differ in which of two values they take, so a reviewer might see the unused one.
        raise ValueError("a name is repeated in one object")
    return content
