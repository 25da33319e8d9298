"""Contents of reports made to order: realistic ones, large ones, and ones with hostile texts."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

from langchain_automix.policy.benefit import BenefitGroup
from langchain_automix.report.contents import (
    Advice,
    Benefit,
    Contents,
    CostPart,
    Kind,
    Labels,
    LoggedDecision,
    LoggedText,
    Number,
    Point,
    Reliability,
    ReliabilityGroup,
)

TEXT = (
    "the river harbour of Turku was founded in a year that several chronicles date differently "
    "while its cathedral school taught Latin grammar to merchants and sailors who carried tar "
    "timber and salted herring across the Baltic before the railway reached the northern coast"
)
WORDS = TEXT.split()

HOSTILE = (
    "</script><script>window.pwned = 1; console.error('pwned')</script>",
    "<img src=x onerror=\"window.pwned = 1; console.error('pwned')\">",
    "<!-- <script> --> & &amp; &lt;b&gt; ]]> <![CDATA[ x ]]>",
    "\u202eright to left override\u202c, مرحبا بالعالم, שלום",
    "emoji 👩\u200d🔬🧪 and \u2028 line \u2029 separators \x00 \x1b[31m",
    "a" * 900,
    "https://example.com/?q=" + "x" * 300,
    "'\"`${window.pwned = 1}` javascript:alert(1)",
    "",
    "lone \ud800 surrogate",
)


def prose(draw: random.Random, length: int) -> str:
    """Return about `length` characters of sentences."""
    words: list[str] = []
    while sum(len(word) + 1 for word in words) < length:
        sentence = draw.choices(WORDS, k=draw.randint(6, 18))
        words += [sentence[0].capitalize(), *sentence[1:-1], f"{sentence[-1]}."]
    return " ".join(words)


def decision(draw: random.Random, i: int, models: tuple[str, ...], **more: Any) -> LoggedDecision:
    """Return one decision: the first answer is checked 8 times, and kept if most accept it."""
    ease = draw.random()
    right = [float(draw.random() < ease ** (1 / (1 + 3 * j))) for j in range(len(models))]
    accepts = 0.25 + 0.6 * right[0]
    verdicts = tuple(None if draw.random() < 0.03 else draw.random() < accepts for _ in range(8))
    confidence = verdicts.count(True) / 8
    kept = 0 if confidence > 0.5 else len(models) - 1
    answers = tuple(
        LoggedText(
            model=model,
            text=prose(draw, draw.choice((20, 60, 160))),
            quality=right[j],
            cost=0.000031 * 12**j * (0.5 + draw.random()),
            asked=j in (0, kept),
            kept=j == kept,
            verdicts=verdicts if j == 0 else (),
            replies=tuple(prose(draw, 60) for _ in range(8)) if j == 0 else (),
        )
        for j, model in enumerate(models)
    )
    return LoggedDecision(
        id=f"q-{i}",
        question=f"{prose(draw, 60)[:-1]}?",
        context=prose(draw, 800),
        references=(prose(draw, 20),),
        answers=answers,
        model_index=kept,
        confidence=confidence,
        quality=right[kept],
        cost=sum(answer.cost or 0.0 for answer in answers if answer.asked),
        **{"kinds": kinds(right, kept), **more},
    )


def kinds(right: list[float], kept: int) -> tuple[Kind, ...]:
    """Return what a decision is, as `Kind` defines it."""
    found: list[tuple[Kind, bool]] = [
        ("escalated_wrong", kept > 0 and right[kept] <= right[0]),
        ("kept_wrong", max(right) > right[kept]),
        ("hopeless", max(right) < 0.5),
        ("saved", kept == 0 and max(right) <= right[0]),
    ]
    return tuple(kind for kind, holds in found if holds)


def contents(
    queries: int = 60, models: tuple[str, ...] = ("small-0.5b", "large-70b"), seed: int = 1
) -> Contents:
    """Return what a report of so many queries may say."""
    draw = random.Random(seed)
    decisions = tuple(decision(draw, i, models) for i in range(queries))
    last = len(models) - 1
    cost = sum(d.cost for d in decisions) / queries
    quality = sum(d.quality for d in decisions) / queries
    singles = [
        Point(
            f"always:{model}",
            sum(d.answers[j].cost or 0.0 for d in decisions) / queries,
            sum(d.answers[j].quality or 0.0 for d in decisions) / queries,
            utility_difference=0.021 - 0.004 * j,
            utility_interval=(0.013 - 0.01 * j, 0.029 + 0.01 * j),
        )
        for j, model in enumerate(models)
    ]
    low, high = singles[0], singles[-1]
    span = high.quality - low.quality
    near: dict[str, Any] = {
        "cost": cost * 1.04,
        "utility_difference": 0.011,
        "utility_interval": (-0.002, 0.024),
    }
    baselines = (
        *singles,
        Point("random_mix", **{**near, "cost": cost}, quality=quality - span * 0.12),
        Point("threshold", **near, quality=quality - span * 0.03),
        Point("double_threshold", **near, quality=quality - span * 0.035),
        Point("released", **{**near, "cost": cost * 1.1}, quality=quality - span * 0.08),
        Point("oracle", low.cost * 4, min(1.0, quality + 0.06), utility_difference=-0.08),
    )
    return Contents(
        models=models,
        currency="USD",
        queries=queries,
        left_out=3,
        judged="cross-fitted",
        labels=Labels(
            "references",
            "Qualities are F1 against the reference answers in the log. A right answer in other "
            "words counts as partly wrong.",
        ),
        verdict=(
            f"The policy answers as well as {models[-1]} alone and costs 41 % less, "
            "and the log is large enough to be sure of that."
        ),
        numbers=(
            Number(
                "Cost",
                "\u221241 %",
                "95 % interval \u221244 % to \u221238 %, against always the large one.",
            ),
            Number("Quality", "+0.4 points", "95 % interval \u22120.6 to +1.4, against the same."),
            Number("Escalated", "38 %", "Share of the queries on which a second model is paid."),
        ),
        policy_words=(
            "Fitted to 5000 logged queries.\nGoal: none given.\n"
            "Start: ask small, and check its answer with 8 verdicts (table 0).\n"
            "  accept/reject  how often  E[quality small]  E[quality large]  do\n"
            "  0/8                 4.1%             0.081             0.634  ask large, unchecked\n"
            "  8/0                22.7%             0.941             0.950  keep the answer\n"
        ),
        goal={"cost_weight": 30.0},
        cost_weight=30.0,
        point=Point(
            "policy",
            cost,
            quality,
            (quality - 0.012, quality + 0.012),
            (cost * 0.96, cost * 1.04),
            escalation_rate=0.38,
            verification_samples=5.2,
        ),
        baselines=baselines,
        frontier=frontier(low, high, quality - low.quality),
        benefits=tuple(benefit(models[j], models[last], high.cost) for j in range(last)),
        reliabilities=(
            *(reliability(f"confidence:{model}", 0.14) for model in models[:last]),
            reliability("belief", 0.02),
        ),
        cost_split=(
            CostPart("answers", models[0], cost * 0.2),
            CostPart("checks", models[0], cost * 0.1),
            *(CostPart("answers", model, cost * 0.7 / last) for model in models[1:]),
        ),
        decisions=decisions,
        advice=(
            Advice("Check with the large model", 0.018, "Its verdicts tell right from wrong."),
            Advice("Log 400 more queries", 0.006, "The interval is too wide to use 8 verdicts."),
            Advice("Shorten the check's prompt", 0.0021, "It costs as much as the answer."),
        ),
        notes=("The log holds 8 verdicts an answer; a policy can draw no more than that.",),
    )


def frontier(low: Point, high: Point, rise: float, stops: int = 14) -> tuple[Point, ...]:
    """Return policies from cheap to good, on a curve that rises so far above the cheapest."""
    found = []
    for k in range(stops):
        share = k / (stops - 1)
        quality = low.quality + rise * min(1.0, 2 * share) ** 0.5 - 0.01 * max(0.0, share - 0.5)
        found.append(
            Point(
                "frontier",
                low.cost + (high.cost - low.cost) * share,
                quality,
                (quality - 0.013, quality + 0.013),
                escalation_rate=share,
                verification_samples=32 * share * (1 - share),
                cost_weight=400 * 0.7**k,
            )
        )
    return tuple(found)


def benefit(model: str, larger: str, cost: float) -> Benefit:
    """Return a falling benefit, with its data."""
    groups = tuple(BenefitGroup(k / 8, 0.52 - 0.07 * k, 0.03, 40 + 60 * k) for k in range(9))
    curve = tuple((k / 8, 0.5 - 0.062 * k) for k in range(9))
    return Benefit(model, larger, groups, curve, price=30 * cost)


def reliability(name: str, off: float) -> Reliability:
    """Return stated confidences that are off by so much at the ends."""
    edges = [k / 8 for k in range(10)]
    groups = tuple(
        ReliabilityGroup(
            a, min(1.0, max(0.0, m := a + off * (1 - 2 * a))), (max(0.0, m - 0.05), m + 0.05), 300
        )
        for a, _ in pairwise(edges)
    )
    return Reliability(name, groups, ece=off / 2, auroc=0.78, auroc_interval=(0.75, 0.81))


def hostile() -> Contents:
    """Return a report each text of which tries to be something else than text."""
    plain = contents(len(HOSTILE) * 3, models=(HOSTILE[0], HOSTILE[1]))
    decisions = tuple(
        replace(
            found,
            id=f"{i} {text}",
            question=text,
            context=text,
            references=(text,),
            answers=tuple(
                replace(answer, text=text, replies=(text, text)) for answer in found.answers
            ),
        )
        for i, (found, text) in enumerate(zip(plain.decisions, HOSTILE * 3, strict=True))
    )
    return replace(
        plain,
        currency="<b>$",
        verdict=HOSTILE[0],
        labels=Labels("mixed", HOSTILE[2]),
        numbers=(Number(*HOSTILE[:3]), Number(*HOSTILE[3:6]), Number(*HOSTILE[6:9])),
        policy_words="\n".join(HOSTILE),
        advice=tuple(Advice(text, 0.01, text) for text in HOSTILE),
        notes=HOSTILE,
        decisions=decisions,
    )


def bare() -> Contents:
    """Return the least that a report may hold: no texts, no check, no currency, one point."""
    plain = contents(7)
    decisions = tuple(
        replace(
            found,
            question=None,
            context=None,
            references=(),
            confidence=None,
            model_index=None if i == 0 else found.model_index,
            kinds=(),
            answers=tuple(
                replace(a, text=None, quality=None, cost=None, verdicts=(), replies=())
                for a in found.answers
            ),
        )
        for i, found in enumerate(plain.decisions)
    )
    point = Point("policy", 0.0, 0.5)
    return replace(
        plain,
        currency=None,
        left_out=0,
        judged="held out",
        goal={},
        point=point,
        baselines=tuple(replace(b, utility_interval=None) for b in plain.baselines[:2]),
        frontier=(replace(point, name="frontier", cost_weight=0.0),),
        benefits=(),
        reliabilities=(
            Reliability("belief", (ReliabilityGroup(0.5, 0.5, (0.2, 0.8), 7),), 0.0, None, None),
        ),
        cost_split=(CostPart("answers", "small", 0.0),),
        decisions=decisions,
        advice=(),
        notes=(),
    )
