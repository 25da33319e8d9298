"""A plan: an opening and its decision tables, validated."""

from __future__ import annotations

from functools import cached_property
from typing import Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, model_validator

from langchain_automix.policy.decision.observation import Frozen
from langchain_automix.policy.decision.table import DecisionTable, PlannedAction

_MAX_SAMPLES = 1_000
"""Maximum number of verdicts per check; a larger number means that the file is damaged."""


class Plan(Frozen):
    """One solved rule."""

    name: str
    """What kind of rule it is, such as `always:large` or `monotone:small->large`."""

    opening: PlannedAction
    plays: tuple[NonNegativeInt, ...] = Field(min_length=1)
    """The kind of rule, such as `always:large` or `monotone:small->large`."""

    tables: tuple[DecisionTable, ...] = ()
    cost_weight: NonNegativeFloat = 0.0
    """Cost weight that the rule was solved for."""

    @cached_property
    def score_edges(self) -> tuple[float, ...]:
        """All edges between bins of the scores that its tables read, in ascending order."""
        encodings = (encoding for table in self.tables for encoding in table.encodings)
        return tuple(sorted({edge for encoding in encodings for edge in encoding.edges}))

    @model_validator(mode="after")
    def _validate(self) -> Self:
        if list(self.plays) != sorted(set(self.plays)):
            raise ValueError("the models in play are named once each, in order")
        if any(len(r.quality) not in (0, len(self.plays)) for t in self.tables for r in t.rows):
            raise ValueError("a row gives the quality of every model in play, or of none")
        self._validate_step(self.opening, -1, None)
        for index, table in enumerate(self.tables):
            for row in table.rows:
                if (row.step.samples or 0) > _MAX_SAMPLES:
                    raise ValueError(f"a check draws at most {_MAX_SAMPLES} verdicts")
                if row.step.action == "answer" and row.step.model > table.model:
                    raise ValueError("the answer that is kept must have been given")
                self._validate_step(row.step, index, table.model)
        return self

    def _validate_step(self, step: PlannedAction, index: int, model: int | None) -> None:
        """Validate a step of the table with this index, or the opening, which has no model."""
        is_checked = step.action in ("verify", "escalate") and step.samples != 0
        if is_checked != (step.then is not None):
            raise ValueError("a step leads to a table if and only if a check follows it")
        if step.model not in self.plays or (model is None and step.action != "escalate"):
            raise ValueError("a plan opens with a model, and uses only those in play")
        if step.then is None:
            return
        stays = step.action == "verify" and step.then == index and step.model == model
        if step.then >= len(self.tables) or not (stays or step.then > index):
            raise ValueError("a step leads to its own table or to a later one")
        following = self.tables[step.then]
        if following.model != step.model:
            raise ValueError("a step leads to the table of the model that it checks")
        if step.check not in {encoding.name for encoding in following.encodings}:
            raise ValueError("a step leads to a table that reads the check that it makes")
        if step.action == "escalate" and model is not None and step.model <= model:
            raise ValueError("a plan escalates to later models only")
