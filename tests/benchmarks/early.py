"""What drafts given up early save: on the demo's recorded tokens, and to the first token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from langchain_automix import AutoMixRunnable, LogProbabilityVerifier, POMDPRouter, ThresholdRouter
from langchain_automix.local.demo.checks import LEAST_PROBABLE
from langchain_automix.local.demo.learning import fit
from langchain_automix.local.demo.measuring import PROMPT
from langchain_automix.local.demo.questions import Question, in_order, read_questions
from langchain_automix.local.demo.run import Demo, fit_part
from langchain_automix.local.models import replayed_pair
from langchain_automix.local.recording import SHIPPED, Recording, Replay
from langchain_automix.policy.statistics import Interval, ratio_interval, wilson_interval
from langchain_automix.routers.base import Router
from tests.benchmarks.surface import Row, Work, quietly, timed
from tests.support.builders.token_streams import TokenByToken
from tests.support.servers.openai_server import OpenAIServer, Script, token

LEAST = LogProbabilityVerifier(statistic="min")
LONG_DRAFT = 8
"""Tokens from which a draft of the demo, whose answers are short, counts as long."""


class Draft(NamedTuple):
    """One draft of the demo's recording: its tokens, those that were read, and what came of it."""

    tokens: int
    read: int
    escalated: bool
    given_up: bool


def demo_policy(recording: Recording, questions: Sequence[Question]) -> POMDPRouter:
    """Return the policy that the demo fits to its first third, by the least probable token."""
    demo = Demo(replayed_pair(recording))
    list(demo.measure(questions))
    return fit(demo.rows, demo.names, demo.price_ratio, LEAST_PROBABLE, demo.checks[LEAST_PROBABLE])


def drafts_of(
    recording: Recording, questions: Sequence[Question], router: Router, *, gives_up: bool
) -> tuple[list[Draft], list[str]]:
    """Let a mix answer, its drafts streamed as recorded; return them, and the answers."""
    replay, about = Replay(recording), recording.about
    small, large = (
        TokenByToken(model=about[size], replay=replay, seed=about["seed"])
        for size in ("small", "large")
    )
    mix = AutoMixRunnable(
        models=[small, large], verifier=LEAST, router=router, prompt=PROMPT, give_up_early=gives_up
    )
    found, answers = [], []
    for question in questions:
        message = mix.invoke(question.model_dump())
        record = message.response_metadata["automix"]
        whole = len(small.logprobs_of(PROMPT.format_messages(**question.model_dump())))
        read = record["given_up"][0]["tokens"] if record["given_up"] else whole
        found.append(Draft(whole, read, record["escalated"], bool(record["given_up"])))
        answers.append(str(message.text))
    return found, answers


def seconds_a_token(recording: Recording) -> float:
    """Return how long the small model took for a token, by least squares over its answers.

    The recording has the seconds of a whole call, which are those of its prompt, too.
    """
    rows, taken = [], []
    for calls in recording.calls.values():
        for call in calls:
            response = call.get("response", {})
            if response.get("model") != recording.about["small"] or len(response["choices"]) > 1:
                continue
            usage = response["usage"]
            cached = usage["prompt_tokens_details"]["cached_tokens"]
            rows.append((1, usage["prompt_tokens"] - cached, usage["completion_tokens"]))
            taken.append(call["seconds"])
    slopes, *_ = np.linalg.lstsq(np.array(rows, float), np.array(taken), rcond=None)
    return float(slopes[2])


def on_the_recording() -> Iterator[Row]:
    """Yield what is saved on the questions that the demo routes, by policy and by threshold."""
    recording = Recording.read(SHIPPED)
    questions = in_order(read_questions(), recording.about["seed"])
    cut = fit_part(questions)
    pace = seconds_a_token(recording)
    routers: dict[str, Router] = {"fitted policy": demo_policy(recording, questions[:cut])}
    routers |= {f"threshold {at:g}": ThresholdRouter(threshold=at) for at in (0.5, 0.8)}
    for name, router in routers.items():
        whole, answers = drafts_of(recording, questions[cut:], router, gives_up=False)
        found, early = drafts_of(recording, questions[cut:], router, gives_up=True)
        assert answers == early, "an answer is another one"
        assert [each.escalated for each in whole] == [each.escalated for each in found]
        yield name, *_figures(found, pace)
        long = [each for each in found if each.tokens >= LONG_DRAFT]
        yield f"{name}, drafts of {LONG_DRAFT} tokens or more", *_figures(long, pace)


def _figures(found: Sequence[Draft], pace: float) -> Iterator[str]:
    escalated = [each for each in found if each.escalated]
    yield f"{np.mean([each.tokens for each in found]):.1f}"
    yield f"{len(escalated)} of {len(found)}"
    share = sum(each.given_up for each in escalated) / len(escalated)
    yield _with_interval(share, wilson_interval(share, len(escalated)))
    saved = np.array([float(each.tokens - each.read) for each in found])
    tokens = np.array([float(each.tokens) for each in found])
    is_escalated = np.array([each.escalated for each in found])
    for of in (is_escalated, np.ones_like(is_escalated)):
        interval = ratio_interval(saved[of], tokens[of])
        yield _with_interval(float(saved[of].sum() / tokens[of].sum()), interval)
    seconds = saved[is_escalated] * pace
    half = 1.96 * float(seconds.std(ddof=1)) / len(seconds) ** 0.5
    yield f"{seconds.mean():.3f} ± {half:.3f}"


def _with_interval(value: float, interval: Interval) -> str:
    low, high = interval
    return f"{value:.1%} ({low:.1%} to {high:.1%})"


def beside_likely_drafts() -> Iterator[Row]:
    """Yield what it would be worth to ask the next model beside a draft likely to be given up.

    By the fitted policy's own chances, given the most that the check can still find.
    """
    recording = Recording.read(SHIPPED)
    questions = in_order(read_questions(), recording.about["seed"])
    cut = fit_part(questions)
    [plan] = demo_policy(recording, questions[:cut]).policy.plans
    rows = sorted(plan.tables[0].rows, key=lambda row: row.seen)
    asks = np.array([row.step.action == "escalate" for row in rows])
    chances = np.array([row.chance for row in rows])
    likely = np.cumsum(chances * asks) / np.cumsum(chances)
    certain = np.logical_and.accumulate(asks)
    about = recording.about
    small = TokenByToken(model=about["small"], replay=Replay(recording), seed=about["seed"])
    bins = [
        np.searchsorted(
            plan.score_edges,
            np.exp(np.minimum.accumulate(small.logprobs_of(PROMPT.format_messages(**q)))),
            side="right",
        )
        for q in (question.model_dump() for question in questions[cut:])
    ]
    for hedge in (0.6, 0.75, 0.9):
        sooner = [
            float(np.argmax(certain[each]) - np.argmax(likely[each] >= hedge))
            for each in bins
            if certain[each].any()
        ]
        kept = [each for each in bins if not certain[each].any()]
        in_vain = sum(bool((likely[each] >= hedge).any()) for each in kept)
        yield f"{hedge:g}", f"{np.mean(sooner):.2f}", f"{in_vain} of {len(kept)}"


def _draft(tokens: int, improbable: int | None) -> dict[str, Any]:
    entries = [token(f"w{i} ", 0.1 if i == improbable else 0.9) for i in range(tokens)]
    return {"content": "".join(entry["token"] for entry in entries), "logprobs": entries}


def first_tokens(tokens: int, pause: float, rounds: int) -> Iterator[Row]:
    """Yield when the first token of an answer is there, from mixes and from bare models.

    A draft that is rejected has its improbable token after a quarter. One that comes in one piece
    takes as long as a stream of its tokens.
    """
    with OpenAIServer() as server:
        server.token_delay = pause
        server.delay = lambda body: 0.0 if body.get("stream") else (tokens - 1) * pause
        works = _works(server)

        async def measured() -> dict[str, dict[str, list[float]]]:
            found = {}
            for name, improbable in (("kept", None), ("escalated", tokens // 4)):
                drafts = {"small": _draft(tokens, improbable), "large": _draft(tokens, None)}
                server.script = _script(drafts)
                await timed(works, 1)  # its connections, and what it imports
                found[name] = await timed(works, rounds)
            return found

        for name, taken in asyncio.run(measured()).items():
            yield (
                f"{name}, {tokens} tokens at {pause * 1e3:.0f} ms",
                *(f"{median(found) * 1e3:.0f} ({_spread(found)})" for found in taken.values()),
            )


def _script(drafts: dict[str, Any]) -> Script:
    return lambda body: [drafts[body["model"]]]


def _works(server: OpenAIServer) -> dict[str, Work]:
    small, large = (server.model(name, stream_usage=True) for name in ("small", "large"))
    telling = small.bind(logprobs=True)

    def mix(*, gives_up: bool) -> Any:
        fields: dict[str, Any] = {"verifier": LEAST, "router": ThresholdRouter(threshold=0.5)}
        return AutoMixRunnable.from_models(small, large, give_up_early=gives_up, **fields)

    whole_drafts, early = mix(gives_up=False), mix(gives_up=True)

    async def first(chunks: Any) -> float:
        came = None
        async for chunk in chunks:
            if chunk.content and came is None:
                came = time.perf_counter()
        assert came is not None
        return came

    async def whole() -> None:
        await small.ainvoke("Where?")

    async def last() -> None:
        async for _ in telling.astream("Where?"):
            pass

    return {
        "stream": lambda: first(large.astream("Where?")),
        "whole": whole,
        "last": last,
        "mix": lambda: first(whole_drafts.astream("Where?")),
        "early": lambda: first(early.astream("Where?")),
    }


def _spread(found: Sequence[float]) -> str:
    low, high = np.percentile(found, [25, 75]) * 1e3
    return f"{low:.0f} to {high:.0f}"


def tables(rounds: int = 7, pause: float = 0.008) -> Iterator[tuple[Row, list[Row]]]:
    """Yield the tables: the heads, and the rows."""
    pace = seconds_a_token(Recording.read(SHIPPED)) * 1e3
    saved = (
        "the demo's recording",
        "tokens of a draft, mean",
        "escalated drafts",
        "of them given up",
        "their tokens saved",
        "of all drafts' tokens",
        f"seconds saved a given-up draft, at {pace:.0f} ms a token",
    )
    first = (
        "first token, ms (middle half)",
        "the bare model's stream",
        "the bare model's whole answer",
        "its stream to the end",
        "the mix",
        "the mix that gives up early",
    )
    beside = ("asked beside a draft likely to be given up, from", "tokens sooner", "paid in vain")
    with quietly():
        yield saved, list(on_the_recording())
        yield beside, list(beside_likely_drafts())
        yield first, [row for n in (46, 400) for row in first_tokens(n, pause, rounds)]
