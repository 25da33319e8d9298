"""`give_up_early` changes no decision: random policies and streams, and recorded ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk

from langchain_automix import (
    AutoMixRunnable,
    LogProbabilityVerifier,
    POMDPRouter,
    RoutingState,
    ThresholdRouter,
    Verification,
)
from langchain_automix.local.demo.checks import LEAST_PROBABLE
from langchain_automix.local.demo.learning import fit
from langchain_automix.local.demo.measuring import PROMPT
from langchain_automix.local.demo.questions import Question, in_order, read_questions
from langchain_automix.local.demo.run import Demo, fit_part
from langchain_automix.local.models import replayed_pair
from langchain_automix.local.recording import SHIPPED, Recording, Replay
from langchain_automix.mix.early import DraftWatch, Foresight
from langchain_automix.routers.base import OPENING, Router
from langchain_automix.types import Visit
from tests.support.builders.mixes import record_of
from tests.support.builders.score_policies import STEPS, score_router
from tests.support.builders.token_streams import TokenByToken
from tests.support.servers.openai_server import token

RECORDINGS = Path(__file__).parents[2] / "cookbook" / "recordings"
STATE = RoutingState(models=("small", "large"))


def watch_of(verifier: Any, router: Router, state: RoutingState, *, may_call: bool) -> DraftWatch:
    edges, bound = router.score_edges(state), verifier.score_bound()
    assert edges is not None
    return DraftWatch(bound, Foresight(router, state, OPENING, edges, may_call=may_call))


def step_after(router: Router, state: RoutingState, found: Verification) -> tuple[Any, ...]:
    visits = (Visit(model_index=0, verification=found),)
    decision = router.decide(state.model_copy(update={"visits": visits}))
    return decision.action, decision.model_index, decision.samples, decision.check


def chunks_of(entries: Sequence[dict[str, Any]]) -> list[AIMessageChunk]:
    return [
        AIMessageChunk(content=each["token"], response_metadata={"logprobs": {"content": [each]}})
        for each in entries
    ]


def whole_of(entries: Sequence[dict[str, Any]]) -> AIMessage:
    text = "".join(each["token"] for each in entries)
    return AIMessage(text, response_metadata={"logprobs": {"content": list(entries)}})


def given_up_at(watch: DraftWatch, entries: Sequence[dict[str, Any]]) -> int | None:
    """How many tokens of a draft had come when it was given up."""
    for i, chunk in enumerate(chunks_of(entries)):
        if watch.why_close(chunk):
            return i + 1
    return None


CHANCES = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=10)
EDGES = st.lists(st.floats(0.01, 0.99), max_size=4, unique=True).map(sorted)


@st.composite
def routers(draw: st.DrawFn) -> tuple[Router, RoutingState]:
    """A policy with any step in any bin, or a threshold; and a query's own cost weight."""
    weight = draw(st.one_of(st.none(), st.floats(0.0, 0.2)))
    state = STATE.model_copy(update={"cost_weight": weight})
    on_unknown: Any = draw(st.sampled_from(["escalate", "other"]))
    if draw(st.booleans()):
        on_unknown = "answer" if on_unknown == "other" else on_unknown
        return ThresholdRouter(threshold=draw(st.floats(0, 1)), on_unknown=on_unknown), state
    edges = draw(EDGES)
    steps = draw(st.lists(st.sampled_from(STEPS), min_size=len(edges) + 1, max_size=len(edges) + 1))
    on_unknown = "prior" if on_unknown == "other" else on_unknown
    return score_router(edges, steps, on_unknown=on_unknown), state


@example((ThresholdRouter(threshold=1e-260), STATE), [0.0], [0.0], False)
@given(routers(), CHANCES, CHANCES, st.booleans())
def test_whatever_follows_comes_to_the_same(
    made: tuple[Router, RoutingState], drawn: list[float], others: list[float], may_call: bool
) -> None:
    (router, state), verifier = made, LogProbabilityVerifier(statistic="min")
    entries = [token(f"w{i} ", chance) for i, chance in enumerate(drawn)]
    watch = watch_of(verifier, router, state, may_call=may_call)
    if (came := given_up_at(watch, entries)) is None:
        return
    assert watch.given_up is not None
    bound = Verification(score=watch.given_up.most, is_upper_bound=True)
    decided = step_after(router, state, bound)
    assert decided[0] == "escalate"
    further = [token(f"v{i} ", chance) for i, chance in enumerate(others)]
    edges = router.score_edges(state) or ()
    nudged = [edge + nudge for edge in edges for nudge in (-1e-9, 0.0, 1e-9)]
    at_edges = [[token("v", min(1.0, max(0.0, chance)))] for chance in nudged]
    for rest in (entries[came:], further, [], *at_edges):
        found = verifier.invoke({"answer": whole_of([*entries[:came], *rest])})
        assert step_after(router, state, found) == decided
    assert step_after(router, state, Verification(problem="filtered", usable=False)) == decided
    if may_call:
        assert step_after(router, state, Verification(problem="it calls a tool")) == decided


@given(routers(), CHANCES)
def test_nothing_is_waited_for_once_it_is_certain(
    made: tuple[Router, RoutingState], drawn: list[float]
) -> None:
    """The first token after which every score that is left escalates, found score by score."""
    (router, state), verifier = made, LogProbabilityVerifier(statistic="min")
    entries = [token(f"w{i} ", chance) for i, chance in enumerate(drawn)]
    came = given_up_at(watch_of(verifier, router, state, may_call=False), entries)
    edges = router.score_edges(state) or ()

    def is_certain(number: int) -> bool:
        most = verifier.invoke({"answer": whole_of(entries[:number])}).score or 0.0
        scores = [0.0, most, *(edge for edge in edges if edge <= most)]
        steps = {step_after(router, state, Verification(score=score)) for score in scores}
        steps.add(step_after(router, state, Verification(problem="filtered", usable=False)))
        return len(steps) == 1 and next(iter(steps))[0] == "escalate"

    certain = (number for number in range(1, len(entries) + 1) if is_certain(number))
    assert came == next(certain, None)


def recorded_drafts() -> Iterator[list[dict[str, Any]]]:
    """The tokens of every recorded answer that came with log-probabilities."""
    for path in [SHIPPED, *sorted(RECORDINGS.glob("*.json.gz"))]:
        for call in itertools.chain.from_iterable(Recording.read(path).calls.values()):
            for choice in call.get("response", {}).get("choices", ()):
                if entries := (choice.get("logprobs") or {}).get("content"):
                    yield entries


@pytest.mark.parametrize("statistic", ["min", "first"])
def test_recorded_streams_come_to_the_same(statistic: Any) -> None:
    verifier = LogProbabilityVerifier(statistic=statistic)
    drafts = list(recorded_drafts())
    assert len(drafts) == 825
    given_up = 0
    for number, entries in enumerate(drafts):
        found = verifier.invoke({"answer": whole_of(entries)})
        router = ThresholdRouter(threshold=(number % 19 + 1) / 20)
        watch = watch_of(verifier, router, STATE, may_call=False)
        came = given_up_at(watch, entries)
        is_escalated = step_after(router, STATE, found)[0] == "escalate"
        assert (came is not None) == is_escalated
        given_up += is_escalated
    assert given_up > 200


def streamed_models(recording: Recording) -> list[TokenByToken]:
    replay, about = Replay(recording), recording.about
    return [
        TokenByToken(model=about[size], replay=replay, seed=about["seed"])
        for size in ("small", "large")
    ]


def demo_router(recording: Recording, questions: list[Question]) -> POMDPRouter:
    """The policy that the demo fits to its first third, by the least probable token."""
    demo = Demo(replayed_pair(recording))
    list(demo.measure(questions[: fit_part(questions)]))
    check = demo.checks[LEAST_PROBABLE]
    return fit(demo.rows, demo.names, demo.price_ratio, LEAST_PROBABLE, check)


def test_every_question_of_the_demo_gets_the_same_answer() -> None:
    """Streamed by the recorded tokens."""
    recording = Recording.read(SHIPPED)
    questions = in_order(read_questions(), recording.about["seed"])
    router = demo_router(recording, questions)
    inputs = [question.model_dump() for question in questions]
    found = []
    for gives_up in (False, True):
        models = streamed_models(recording)
        mix = AutoMixRunnable.from_policy(
            router, *models, other_models=True, prompt=PROMPT, give_up_early=gives_up
        )
        found.append([(message.content, record_of(message)) for message in mix.batch(inputs)])
    names = ("model", "action", "escalated")
    without, with_it = (
        [(content, *(record[name] for name in names)) for content, record in each] for each in found
    )
    assert without == with_it
    assert not any(record["given_up"] for _, record in found[0])
    early = [record for _, record in found[1] if record["given_up"]]
    assert len(early) == sum(record["escalated"] for _, record in found[1]) > 100
