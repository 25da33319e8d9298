"""A plan: an opening and its tables, validated."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from langchain_automix.policy.decision.observation import Frozen, Place, Price
from langchain_automix.policy.decision.table import DecisionTable, PlannedAction

MOST_SAMPLES = 1_000
"""More verdicts than this in one check are taken for damage to the file."""


class Plan(Frozen):
    """One solved rule."""

    name: str
    """What kind of rule it is, such as `always:large` or `monotone:small->large`."""

    opening: PlannedAction
    plays: tuple[Place, ...] = Field(min_length=1)
    """Indices of the models in play, ascending."""

    tables: tuple[DecisionTable, ...] = ()
    cost_weight: Price = 0.0
    """Cost weight that the rule is solved for."""

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        if list(self.plays) != sorted(set(self.plays)):
            raise ValueError("the models in play are named once each, in order")
        if any(len(r.quality) not in (0, len(self.plays)) for t in self.tables for r in t.rows):
            raise ValueError("a row gives the quality of every model in play, or of none")
        for table in self.tables:
            for row in table.rows:
                if (row.step.samples or 0) > MOST_SAMPLES:
                    raise ValueError(f"a check draws at most {MOST_SAMPLES} verdicts")
                if row.step.action == "answer" and row.step.model > table.model:
                    raise ValueError("the answer that is kept must have been given")
        return self

    @model_validator(mode="after")
    def _follows(self) -> Self:
        steps: list[tuple[int, int | None, PlannedAction]] = [(-1, None, self.opening)]
        for i, table in enumerate(self.tables):
            steps += [(i, table.model, row.step) for row in table.rows]
        for place, model, step in steps:
            reads = step.action in ("verify", "escalate") and step.samples != 0
            if reads != (step.then is not None):
                raise ValueError("a step leads to a table if and only if a check follows it")
            if step.model not in self.plays or (model is None and step.action != "escalate"):
                raise ValueError("a plan opens with a model, and uses only those in play")
            if step.then is None:
                continue
            stays = step.action == "verify" and step.then == place and step.model == model
            if step.then >= len(self.tables) or not (stays or step.then > place):
                raise ValueError("a step leads to its own table or to a later one")
            if self.tables[step.then].model != step.model:
                raise ValueError("a step leads to the table of the model that it checks")
            following = self.tables[step.then]
            if step.check not in {r.name for r in following.checks} | (
                set() if following.checks else {None}
            ):
                raise ValueError("a step leads to a table that reads the check that it makes")
            if step.action == "escalate" and model is not None and step.model <= model:
                raise ValueError("a plan escalates to later models only")
        return self
