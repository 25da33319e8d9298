"""Traffic in a learning store: two models, a check, shadows and grades, without any model."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

from langchain_automix.learning.records import (
    AGREEMENT,
    AnswerRecord,
    Event,
    GradeRecord,
    QueryRecord,
    Record,
    RequestRecord,
    ShadowRecord,
    Stage,
)

MODELS = ("small", "large")
SMALL_COST, CHECK_COST, LARGE_COST = 0.0001, 0.00005, 0.002
START = 1_700_000_000.0
"""Of the first query, in seconds since 1970."""


def traffic(
    number: int,
    *,
    first: int = 0,
    epoch: str = "e",
    stage: Stage = "warm-up",
    right: float = 0.7,
    told: float = 0.95,
    share: float = 1.0,
    version: int = 0,
    start: float = START,
    seconds: float = 600.0,
    costs: bool = True,
    seed: int = 0,
) -> Iterator[Record]:
    """Queries that the large model answered, or, in the stage `policy`, the small one at times.

    Args:
        number: Of queries.
        first: Number of the first one.
        epoch: Of the mix.
        stage: As a mix has it.
        right: Share of the queries on which the small model agrees with the large one.
        told: Share of the queries on which the check is right about that.
        share: Chance of a shadow.
        version: Of the policy.
        start: Of the query of number 0, in seconds since 1970.
        seconds: Between two queries.
        costs: Whether they are known.
        seed: Of chance.
    """
    rng = random.Random(f"{seed} {first}")
    if not first:
        yield Event(start - 1, epoch, "epoch", "The models began.", {"models": list(MODELS)})
    for place in range(first, first + number):
        good = rng.random() < right
        accepted = good == (rng.random() < told)
        verdicts = [rng.random() < (0.9 if accepted else 0.1) for _ in range(4)]
        check = {"verdicts": verdicts, "fixed_cost": CHECK_COST, "sample_cost": 0.0}
        at = start + place * seconds
        drawn = rng.random() < share
        keeps = stage == "policy" and sum(verdicts) >= 2
        yield from _query(
            f"q{place}", at, epoch, stage, good, check, drawn, keeps, share, version, costs
        )


def _query(
    id: str,
    at: float,
    epoch: str,
    stage: Stage,
    good: bool,
    check: Mapping[str, Any],
    drawn: bool,
    keeps: bool,
    share: float,
    version: int,
    costs: bool,
) -> Iterator[Record]:
    def price(amount: float) -> float | None:
        return amount if costs else None

    small, large = SMALL_COST, LARGE_COST * (0.8 if int(id[1:]) % 2 else 1.2)
    asks_small = stage == "policy"
    answers, cost = [], 0.0
    if asks_small:
        answers.append(AnswerRecord(0, price(small), check))
        cost += small + CHECK_COST
    if not keeps:
        answers.append(AnswerRecord(1, price(large)))
        cost += large
    is_whole = asks_small and not keeps
    yield QueryRecord(
        id, at, epoch, version, stage, 0 if keeps else 1, share, drawn and not is_whole, "answered",
        price(cost), price(large), tuple(answers),
        (RequestRecord("query", None, 100, 10, price(cost)),), f"run-{id}",
    )  # fmt: skip
    if not drawn and not is_whole:
        return
    if not is_whole:
        extra = (
            AnswerRecord(1, price(large), is_shadow=True)
            if keeps
            else AnswerRecord(0, price(small), check, is_shadow=True)
        )
        shadow = large if keeps else small + CHECK_COST
        yield ShadowRecord(id, at + 1, (extra,), (), price(shadow))
    yield GradeRecord(id, 0, float(good), AGREEMENT, at + 1)
    yield GradeRecord(id, 1, 1.0, AGREEMENT, at + 1)
