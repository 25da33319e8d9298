"""What a mix made without a check costs, by what its largest model alone would cost.

Two models on a loopback server answer questions of four kinds, in an imagined world:

- The small model is right on 50, 70 or 90 %; the large one on 95 % of what the small one gets
  right, and on 60 % of the rest.
- The log-probabilities of an answer, where the server sends any, and the share of new answers that
  agree with it, are drawn from what `policy/decision/score_prior.py` was estimated from (public
  logs): an AUROC of 0.71 and 0.74. On the log of `cookbook/recordings/xquad_checks.jsonl.gz`, which
  the prior has not seen, they are 0.72 and 0.71.
- A verdict of the self-check accepts a right answer in 65 %, a wrong one in 55 % of cases: an AUROC
  of 0.55 (0.54 on that log); verdicts on the same answer have a correlation of a half.

Costs are those of the tokens that the server bills, the checks included. The seeds are fixed, and
each cell has the same queries.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator, Sequence
from statistics import fmean, stdev
from typing import Any, NamedTuple

from langchain_core.messages import HumanMessage, SystemMessage

from langchain_automix import AutoMixRunnable, SelfVerifier
from langchain_automix.models.prices import dollars_of
from langchain_automix.models.refusals import LOGPROBS
from langchain_automix.policy.decision.score_prior import score_given
from tests.benchmarks.surface import quietly
from tests.support.builders.mixes import weather
from tests.support.builders.scripted_replies import ACCEPT, REJECT, Body, is_check, text_of
from tests.support.servers.openai_server import OpenAIServer, token

RATIOS = (5, 10, 17, 25, 60)
RIGHT = (0.5, 0.7, 0.9)
QUERIES = 100
SEED = 15
KINDS = {
    "a short question": 0,
    "RAG, 2,000 tokens": 2_000,
    "an agent's step": 600,
    "a long answer": 0,
}
"""Words of the passage before a question."""
HEADS = ("query", "log-probs", "small right", *(f"{ratio}:1" for ratio in RATIOS), "quality lost")

_IF_RIGHT, _IF_WRONG = 0.95, 0.6
_ACCEPTS = {True: 0.65, False: 0.55}
_WORDS = {"a long answer": 300, "RAG, 2,000 tokens": 12}


class Query(NamedTuple):
    """A question, and what the models would say to it."""

    small: bool
    large: bool
    score: float
    agreement: float
    acceptance: float


class Cell(NamedTuple):
    """What a mix came to on the queries of one cell."""

    cost: float
    """Mean over the queries, by the mean cost of the large model alone."""

    margin: float
    """Of the 95 % interval."""

    lost: float
    """Quality below that of the large model alone, on the same queries."""

    by_chance: float
    """What asking the large model on a random part of the queries would lose, at the same cost."""


def queries(right: float, count: int = QUERIES, seed: int = SEED) -> list[Query]:
    """Return the queries of a world in which the small model is right this often."""
    dice = random.Random(f"{seed} {right}")
    found = []
    for i in range(count):
        small = i < right * count  # the share itself is no matter of chance
        large = dice.random() < (_IF_RIGHT if small else _IF_WRONG)
        score = _drawn(dice, score_given("token_probability", right=small))
        agreement = _drawn(dice, score_given("agreement", right=small))
        rate = _ACCEPTS[small]
        found.append(Query(small, large, score, agreement, dice.betavariate(rate, 1 - rate)))
    dice.shuffle(found)
    return found


def _drawn(dice: random.Random, chances: Sequence[tuple[float, float]]) -> float:
    return dice.choices([value for value, _ in chances], [chance for _, chance in chances])[0]


def script(kind: str, world: Sequence[Query], *, sends_logprobs: bool) -> Any:
    """Return how the server answers: by the number of the question, and its own dice."""
    dice = random.Random(SEED)

    def answer(query: Query, number: int, *, other: bool) -> dict[str, Any]:
        word = "other" if other else "town"
        if kind == "an agent's step":
            function = {"name": "weather", "arguments": f'{{"city": "{word} {number}"}}'}
            tool_call = {"id": f"call_{number}", "type": "function", "function": function}
            return {"content": None, "tool_calls": [tool_call]}
        words = [f"{word}{number} "] * _WORDS.get(kind, 3)
        entries = [token(each, query.score if i == 0 else 1.0) for i, each in enumerate(words)]
        if len(words) > 32:  # their mean is read
            entries = [token(each, query.score) for each in words]
        return {
            "content": "".join(words),
            "logprobs": entries if sends_logprobs else {"content": None},
        }

    def reply(body: Body) -> Any:
        texts = " ".join(text_of(message.get("content")) for message in body["messages"])
        number = int(re.findall(r"question number (\d+)", texts)[-1])
        query, many = world[number], range(body.get("n") or 1)
        if is_check(body):
            return [ACCEPT if dice.random() < query.acceptance else REJECT for _ in many]
        is_sample = body["model"] == "small" and body.get("temperature") == 1.0
        return [
            answer(query, number, other=is_sample and dice.random() > query.agreement) for _ in many
        ]

    return reply


def asked(kind: str, number: int) -> list[Any]:
    """Return the messages of a question."""
    passage = " ".join(f"passage {number}" for _ in range(KINDS[kind] // 2))
    question = f"{passage}\nThis is question number {number}: what town is it that is meant here?"
    return [SystemMessage("Be brief."), HumanMessage(question.strip())]


def cell(
    kind: str,
    ratio: int,
    right: float,
    *,
    sends_logprobs: bool,
    count: int = QUERIES,
    **fields: Any,
) -> Cell:
    """Ask a mix all queries of a cell, one after the other."""
    world = queries(right, count)
    prices = {
        "small": {"input": 1.0, "output": 4.0},
        "large": {"input": 1.0 * ratio, "output": 4.0 * ratio},
    }
    LOGPROBS.forget()  # a new server may have the port of an old one
    with OpenAIServer() as server, quietly():
        server.script = script(kind, world, sends_logprobs=sends_logprobs)
        mix: Any = AutoMixRunnable.from_models(
            server.model("small"), server.model("large"), prices=prices, **fields
        )
        if kind == "an agent's step":
            mix = mix.bind_tools([weather])
        records = [
            mix.invoke(asked(kind, number)).response_metadata["automix"] for number in range(count)
        ]
    cost = [float(dollars_of(record["cost"])) for record in records]
    alone = [float(dollars_of(record["alone"]["large"]["cost"])) for record in records]
    kept = [
        query.small if r["model"] == "small" else query.large
        for query, r in zip(world, records, strict=True)
    ]
    shares = [mine / fmean(alone) for mine in cost]
    gap = fmean(query.large for query in world) - fmean(query.small for query in world)
    return Cell(
        fmean(shares),
        1.96 * stdev(shares) / math.sqrt(count),
        fmean(query.large for query in world) - fmean(kept),
        gap * (1 - fmean(shares)) / (1 - 1 / ratio),
    )


def first_chain(**fields: Any) -> tuple[str, str]:
    """Return what the quickstart's chain costs, and its larger model alone, on list prices."""
    LOGPROBS.forget()
    with OpenAIServer() as server, quietly():
        answer = "The Baltic Sea."
        entries = [token(word, 0.98) for word in ("The ", "Baltic ", "Sea.")]
        sends = fields.pop("sends_logprobs")
        told: Any = entries if sends else {"content": None}

        def script(body: Body) -> Any:
            many = body.get("n") or 1
            return [ACCEPT if is_check(body) else {"content": answer, "logprobs": told}] * many

        server.script = script
        models = [server.model(name) for name in ("gpt-5.4-mini", "gpt-5.5")]
        mix = AutoMixRunnable.from_models(*models, **fields)
        question = "Which sea lies between Sweden and Finland?"
        for _ in range(2):  # the second one knows what the server sends
            message = mix.invoke([SystemMessage("Be brief."), HumanMessage(question)])
    record = message.response_metadata["automix"]
    return str(record["cost"]), str(record["alone"]["gpt-5.5"]["cost"])


def tables(count: int = QUERIES) -> Iterator[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """Yield the table of all cells, and what they come to."""
    rows: list[tuple[str, ...]] = []
    found: list[Cell] = []
    for kind in KINDS:
        for sends in (True, False):
            for right in RIGHT:
                cells = [
                    cell(kind, ratio, right, sends_logprobs=sends, count=count) for ratio in RATIOS
                ]
                found += cells
                costs = [f"{c.cost:.2f} ± {c.margin:.2f}" for c in cells]
                lost = " ".join(f"{c.lost:+.2f}" for c in cells)
                rows.append((kind, "yes" if sends else "no", f"{right:.0%}", *costs, lost))
    yield HEADS, rows
    ways: dict[str, dict[str, Any]] = {
        "no verifier, log-probabilities": {"sends_logprobs": True},
        "no verifier, none": {"sends_logprobs": False},
        "SelfVerifier(samples=8)": {"sends_logprobs": True, "verifier": SelfVerifier(samples=8)},
    }
    yield (
        ("the quickstart's chain", "cost", "gpt-5.5 alone"),
        [(name, *first_chain(**how)) for name, how in ways.items()],
    )
    paper = cell(
        "a short question", 10, 0.7, sends_logprobs=True, count=20, verifier=SelfVerifier()
    )
    yield (
        ("all cells", "figures"),
        [
            ("cells", str(len(found))),
            ("dearest, by the largest model alone", f"{max(c.cost for c in found):.3f}"),
            ("cells above 1.0", str(sum(c.cost > 1 for c in found))),
            ("mean cost, by the largest model alone", f"{fmean(c.cost for c in found):.2f}"),
            ("mean quality lost", f"{fmean(c.lost for c in found):+.3f}"),
            ("by chance at the same costs", f"{fmean(c.by_chance for c in found):+.3f}"),
            ("SelfVerifier() on a short question at 10:1 (20 queries)", f"{paper.cost:.2f}"),
        ],
    )
