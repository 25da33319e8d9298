"""Random plans: the replay in arrays agrees with the replay of the router, query by query."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_automix import POMDPRouter, RoutingLog
from langchain_automix.evaluation.router_replay import replay_router
from langchain_automix.policy.data.arrays import to_arrays
from langchain_automix.policy.decision.observation import CheckEncoding, verify_option
from langchain_automix.policy.decision.plan import Plan
from langchain_automix.policy.decision.policy import FitStatistics, Policy
from langchain_automix.policy.decision.table import DecisionRow, DecisionTable, PlannedAction
from langchain_automix.policy.replay import Outcomes, replay_policy

RECORDED = 12
"""Verdicts on each checked answer: more than twice what a table knows, and one draw more."""

MAX_VERDICTS, MAX_SAMPLES, QUERIES = 4, 3, 40

Kinds = dict[str | None, Literal["verdicts", "score"]]


@dataclass
class RandomPlan:
    """Builds a plan that may do anything that a policy file can say."""

    rng: random.Random
    names: tuple[str, ...]
    kinds: Kinds
    several: bool
    tables: list[DecisionTable | None] = field(default_factory=list)

    def make(self) -> Plan:
        number = self.rng.randint(1, len(self.names))
        in_play = tuple(sorted(self.rng.sample(range(len(self.names)), number)))
        opening = self.ask(in_play[0], in_play, ())
        tables = tuple(table for table in self.tables if table is not None)
        return Plan(name="random", opening=opening, plays=in_play, tables=tables)

    def ask(self, model: int, in_play: tuple[int, ...], answered: tuple[int, ...]) -> PlannedAction:
        """Ask a model, and mostly check its answer, which a table of its own then reads."""
        if self.rng.random() < 0.2 or len(self.tables) > 8:
            return PlannedAction(action="escalate", model=model, samples=0)
        index = self.table(model, in_play, (*answered, model))
        table = self.tables[index]
        assert table is not None
        check = self.rng.choice([encoding.name for encoding in table.checks] or [None])
        return PlannedAction(
            action="escalate", model=model, samples=self.samples(check), then=index, check=check
        )

    def samples(self, check: str | None) -> int | None:
        some = self.kinds[check] == "verdicts" and self.rng.random() < 0.8
        return self.rng.randint(1, MAX_SAMPLES) if some else None

    def table(self, model: int, in_play: tuple[int, ...], answered: tuple[int, ...]) -> int:
        index = len(self.tables)
        self.tables.append(None)
        names = self.rng.sample(list(self.kinds), self.rng.randint(1, len(self.kinds)))
        encodings = [self.encoding(name) for name in (names if self.several else [None])]
        parts = list(product(*(findings(encoding) for encoding in encodings)))
        nothing, some = parts[0], parts[1:]
        if self.several or encodings[0].kind == "verdicts":
            some = self.rng.sample(some, self.rng.randint(1, min(len(some), 60)))
        rows = [self.row(encodings, part, index, in_play, answered) for part in some]
        shape: dict[str, Any] = {"kind": "several", "checks": tuple(encodings)}
        if self.several:
            rows.append(self.row(encodings, nothing, index, in_play, answered))
        else:
            [encoding] = encodings
            shape = encoding.model_dump(include={"kind", "counts_invalid", "edges"})
            if encoding.kind == "score":
                rows = [r.model_copy(update={"seen": (r.seen[0] - 1,)}) for r in rows]
        self.tables[index] = DecisionTable(model=model, rows=tuple(rows), **shape)
        return index

    def encoding(self, name: str | None) -> CheckEncoding:
        if self.kinds[name] == "score":
            edges = sorted({round(self.rng.random(), 1) for _ in range(self.rng.randint(0, 3))})
            return CheckEncoding(name=name, kind="score", edges=tuple(edges))
        return CheckEncoding(
            name=name,
            kind="verdicts",
            most=self.rng.randint(1, MAX_VERDICTS),
            counts_invalid=self.rng.random() < 0.5,
        )

    def row(
        self,
        encodings: list[CheckEncoding],
        parts: tuple[tuple[int, ...], ...],
        index: int,
        in_play: tuple[int, ...],
        answered: tuple[int, ...],
    ) -> DecisionRow:
        model, later = answered[-1], [j for j in in_play if j > answered[-1]]
        again = [
            PlannedAction(
                action="verify",
                model=model,
                samples=self.samples(encoding.name),
                then=index,
                check=encoding.name,
            )
            for encoding, part in zip(encodings, parts, strict=True)
            if encoding.kind == "verdicts" or (self.several and not any(part))
        ]
        kept = PlannedAction(action="answer", model=self.rng.choice(answered))
        asked = [self.ask(self.rng.choice(later), in_play, answered)] if later else []
        step = self.rng.choice(
            [kept, PlannedAction(action="abstain", model=model), *again, *again, *asked, *asked]
        )
        options = ["answer", "abstain", *(f"escalate:{self.names[j]}" for j in later)]
        options += [f"{option}, checked" for option in options[2:]]
        options += [verify_option(one.check, one.samples) for one in again]
        some = {option for option in options if self.rng.random() < 0.7} | {"answer"}
        return DecisionRow(
            seen=tuple(number for part in parts for number in part),
            step=step,
            quality=tuple(self.rng.random() for _ in in_play) if self.rng.random() < 0.8 else (),
            values={o: self.rng.random() for o in sorted(some)} if self.rng.random() < 0.9 else {},
        )


def findings(encoding: CheckEncoding) -> Iterator[tuple[int, ...]]:
    """Yield all that a check may find, nothing first."""
    if encoding.kind == "score":
        yield from ((i,) for i in range(len(encoding.edges) + 2))
        return
    for counts in product(range(encoding.most + 1), repeat=3):
        if sum(counts) <= encoding.most and (encoding.counts_invalid or not counts[2]):
            yield counts


def random_log(rng: random.Random, names: tuple[str, ...], kinds: Kinds) -> RoutingLog:
    """Return queries whose checks are now and then missing, or found nothing."""

    def check(kind: str) -> dict[str, Any]:
        if kind == "score":
            score = None if rng.random() < 0.2 else round(rng.random(), 1)
            return {"score": score, "cost": rng.random()}
        rate = rng.choice((0.0, 0.3, 0.8))
        verdicts = [None if rng.random() < rate else rng.random() < 0.6 for _ in range(RECORDED)]
        return {"verdicts": verdicts, "fixed_cost": rng.random(), "sample_cost": rng.random()}

    def answer(model: str, *, whole: bool) -> dict[str, Any]:
        made = {n: check(k) for n, k in kinds.items() if whole or rng.random() < 0.8}
        first = {"verification": made.pop(None)} if None in made else {}
        figures = {"quality": rng.choice((0.0, 0.5, 1.0)), "cost": rng.random()}
        return {"model": model, **figures, **first, "checks": made}

    return RoutingLog(
        {"id": f"q{i}", "answers": [answer(name, whole=i == 0) for name in names]}
        for i in range(QUERIES)
    )


def random_policy(seed: int) -> tuple[POMDPRouter, RoutingLog]:
    rng = random.Random(seed)
    names = ("a", "b", "c", "d")[: rng.randint(2, 4)]
    kinds: Kinds = {None: rng.choice(("verdicts", "score"))}
    several = rng.random() < 0.6
    if several:
        kinds |= {"judge": "score", "votes": "verdicts"}
    plans = tuple(RandomPlan(rng, names, kinds, several).make() for _ in range(rng.randint(1, 2)))
    policy = Policy(
        version=2 if any(table.checks for plan in plans for table in plan.tables) else 1,
        models=names,
        cost_weight=1.0,
        plans=plans,
        first_share=0.5 if len(plans) > 1 else 1.0,
        fit=FitStatistics(queries=QUERIES),
    )
    return POMDPRouter(policy=policy), random_log(rng, names, kinds)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**9))
def test_both_replays_agree(seed: int) -> None:
    router, log = random_policy(seed)
    fast = replay_policy(router.policy, to_arrays(log), log.store.ids)
    slow = replay_router(router, log)
    assert fast.model.tolist() == [one.model_index for one in slow]
    assert fast.quality.tolist() == [one.quality for one in slow]
    assert fast.samples.tolist() == [one.samples for one in slow]
    assert (fast.asked > 1).tolist() == [one.escalated for one in slow]
    assert fast.cost == pytest.approx([one.cost for one in slow])
    adds_up(fast, log)


def adds_up(outcomes: Outcomes, log: RoutingLog) -> None:
    """The trajectory of each query leads to its outcome."""
    paths = outcomes.paths
    assert paths is not None
    answers = np.where(paths.asked, to_arrays(log).cost, 0.0).sum(axis=1)
    assert outcomes.cost == pytest.approx(answers + paths.check_cost.sum(axis=1))
    assert (outcomes.samples == paths.drawn.sum(axis=1)).all()
    assert (outcomes.asked == paths.asked.sum(axis=1)).all()
    assert np.isnan(outcomes.expected[outcomes.model < 0]).all()
