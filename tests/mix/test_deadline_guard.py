"""`max_latency`: what a deadline leaves out, and what it gives up; with real delays over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.messages import AIMessage

from langchain_automix import AutoMixMiddleware, AutoMixRunnable, ChatAutoMix, ThresholdRouter
from langchain_automix.errors import AutoMixError, DeadlineError
from langchain_automix.flow import clock
from langchain_automix.flow.clock import Deadline
from langchain_automix.mix.answer import ModelAnswer
from langchain_automix.mix.deadline_guard import DeadlineGuard
from langchain_automix.mix.guards import NO_TIME
from langchain_automix.mix.limits.latency import LatencyEstimator
from langchain_automix.mix.query import QueryState
from langchain_automix.mix.record import QueryLedger
from langchain_automix.policy.decision.plan import Plan
from langchain_automix.policy.decision.table import DecisionRow, PlannedAction
from langchain_automix.routers.evidence import best_row_in_time
from langchain_automix.types import Decision, RoutingState, Verification, Visit
from tests.support.builders.faults import ACCEPT, PRICES, WAYS, ask
from tests.support.builders.mixes import Witness, mix, record_of
from tests.support.builders.scripted_replies import Body
from tests.support.builders.waiting import Gate, eventually, own_threads, wait_for
from tests.support.servers.openai_server import OpenAIServer, answering, is_check

every_way = pytest.mark.parametrize("way", WAYS)
LIMIT = 1.5
LONG = 8.0
Silence = Callable[[str], None]


def slow(server: OpenAIServer, **seconds: float) -> None:
    """Models `small` and `large`, and `check`, take so long; rejected drafts."""
    server.delay = lambda body: seconds.get(_kind(body), 0.0)
    server.script = answering("By the small.", "By the large.", verdicts="r")


@pytest.fixture
def silent(server: OpenAIServer) -> Iterator[Silence]:
    """Makes `small`, `large` or `check` say nothing until the test has ended."""
    gates = []

    def silence(kind: str) -> None:
        slow(server)
        gates.append(Gate(lambda body: _kind(body) == kind))
        server.delay = gates[-1]

    yield silence
    for gate in gates:
        gate.open()


def _kind(body: Body) -> str:
    return "check" if is_check(body) else str(body["model"])


def asked(server: OpenAIServer) -> list[str]:
    return [_kind(body) for body in server.requests]


def timed(server: OpenAIServer, **fields: Any) -> Any:
    return mix(server, max_latency=LIMIT, prices=PRICES, **fields)


class TestACallUnderWay:
    @every_way
    async def test_of_a_larger_model(self, server: OpenAIServer, silent: Silence, way: str) -> None:
        silent("large")
        message = await ask(way, timed(server))
        record = record_of(message)
        assert message.content == "By the small."
        assert record["degraded"] == (
            "The time (max_latency=1.5 s) did not suffice for more: the answer of small is given."
        )
        assert record["failed"] == [
            {"model": "large", "stage": "escalate", "error": "DeadlineError"}
        ]
        assert (record["cost"], record["unpriced"]) == (None, ["large"]), "it may have been billed"

    @every_way
    async def test_of_a_check(self, server: OpenAIServer, silent: Silence, way: str) -> None:
        silent("check")
        message = await ask(way, timed(server))
        record = record_of(message)
        assert (message.content, record["cost"]) == ("By the small.", None)
        assert "did not suffice" in record["degraded"]
        assert {it["stage"] for it in record["failed"]} == {"verify"}
        assert asked(server) == ["small", "check"]

    @every_way
    async def test_with_no_answer(self, server: OpenAIServer, silent: Silence, way: str) -> None:
        silent("small")
        with pytest.raises(
            DeadlineError, match=r"max_latency=1.5 s\): small \(DeadlineError\)"
        ) as it:
            await ask(way, timed(server))
        assert isinstance(it.value, AutoMixError)
        assert isinstance(it.value, TimeoutError)
        assert "large" not in asked(server)

    @pytest.mark.parametrize("way", ["invoke", "stream", "astream"])
    async def test_a_mix_within_begins_no_further_call(
        self, server: OpenAIServer, way: str
    ) -> None:
        server.script = answering("By the small.", "By the large.", verdicts="r")
        server.delay = gate = Gate(lambda body: body["model"] == "small")
        before = own_threads()
        inner = ChatAutoMix(models=[server.model("small"), server.model("last")])
        first = server.model("large")
        outer = AutoMixRunnable.from_models(
            first, inner, router=ThresholdRouter(threshold=0.5), max_latency=LIMIT
        )
        assert (await ask(way, outer)).content == "By the large."
        gate.open()  # what was given up goes on in its thread, and ends there
        await eventually(lambda: own_threads() <= before)
        assert asked(server) == ["large", "check", "small"]

    @every_way
    async def test_what_is_shown_goes_on(self, server: OpenAIServer, way: str) -> None:
        if "stream" not in way:
            pytest.skip("nothing is shown before its end")
        slow(server)
        server.token_delay = 1.0
        message = await ask(way, timed(server, verification=False))
        assert message.content == "By the small."

    async def test_nothing_is_left_behind(self, server: OpenAIServer, silent: Silence) -> None:
        silent("large")
        witness = Witness()
        await timed(server).ainvoke("Where?", {"callbacks": [witness]})
        roots = {run for run, parent in witness.parents.items() if parent is None}
        assert not roots & witness.open.keys()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    def test_the_thread_ends_by_itself(self, server: OpenAIServer) -> None:
        slow(server)
        before = own_threads()
        server.delay = gate = Gate(lambda body: _kind(body) == "large")
        timed(server).invoke("Where?")
        left = own_threads() - before
        assert left
        assert all(thread.daemon for thread in left)
        gate.open()
        wait_for(lambda: own_threads() <= before)


class TestWhatDoesNotFitIsLeftOut:
    def learned(self, server: OpenAIServer, mixed: Any, **seconds: float) -> None:
        for what, each in seconds.items():
            stage: Any = "verify" if what == "check" else "answer"
            mixed._pace.learn(stage, 0 if what in {"small", "check"} else 1, each)

    @pytest.mark.parametrize("way", ["invoke", "ainvoke"])
    async def test_a_check(self, server: OpenAIServer, way: str) -> None:
        slow(server)
        mixed = timed(server)
        self.learned(server, mixed, check=LONG)
        message = await ask(way, mixed)
        assert message.content == "By the large."
        assert asked(server) == ["small", "large"]
        assert "No time was left for a check" in record_of(message)["why"]

    def test_a_check_after_which_there_is_no_time_for_a_larger_model(
        self, server: OpenAIServer
    ) -> None:
        slow(server)
        mixed = timed(server)
        self.learned(server, mixed, check=LIMIT * 0.6, large=LIMIT * 0.6)
        assert mixed.invoke("Where?").content == "By the large."
        assert asked(server) == ["small", "large"]

    @pytest.mark.parametrize("way", ["invoke", "ainvoke"])
    async def test_then_a_larger_model(self, server: OpenAIServer, way: str) -> None:
        slow(server)
        mixed = timed(server)
        self.learned(server, mixed, check=LONG, large=LONG)
        message = await ask(way, mixed)
        assert message.content == "By the small."
        assert asked(server) == ["small"]
        assert "did not suffice" in record_of(message)["degraded"]

    def test_what_calls_take_is_learned_and_shared(self, server: OpenAIServer) -> None:
        slow(server, check=0.2)
        mixed = timed(server)
        mixed.model_copy(update={"cost_weight": None}).invoke("Where?")
        assert mixed._pace.expected("verify", 0) > 0.2
        assert 0 < mixed._pace.expected("answer", 0) < mixed._pace.expected("verify", 0)

    def test_what_is_left_out_is_tried_again_some_day(self, server: OpenAIServer) -> None:
        slow(server)
        mixed = timed(server)
        self.learned(server, mixed, check=LIMIT * 1.5)
        for _ in range(9):
            mixed.invoke("Where?")
        assert "check" in asked(server)

    @pytest.mark.parametrize("kind", [ChatAutoMix, AutoMixMiddleware])
    def test_in_every_form(self, server: OpenAIServer, silent: Silence, kind: Any) -> None:
        from langchain.agents import create_agent  # noqa: PLC0415  (slow to import)

        silent("large")
        models = [server.model("small"), server.model("large")]
        made = kind(models=models, router=ThresholdRouter(), max_latency=LIMIT)
        if kind is ChatAutoMix:
            message = made.invoke("Where?")
        else:
            agent: Any = create_agent(server.model("third"), [], middleware=[made])
            message = agent.invoke({"messages": "Where?"})["messages"][-1]
        assert message.content == "By the small."

    def test_a_query_in_a_batch_is_not_charged_for_the_others(self, server: OpenAIServer) -> None:
        slow(server, small=0.3)
        server.script = lambda body: [ACCEPT] * (body.get("n") or 1) if is_check(body) else ["s"]
        messages = timed(server).batch(["Where?"] * 6, {"max_concurrency": 1})
        assert all(record_of(message)["degraded"] is None for message in messages)


PLAN = Plan(
    name="chain", opening=PlannedAction(action="escalate", model=0, samples=0), plays=(0, 1, 2)
)
NAMES = ("a", "b", "c")


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({}, ("escalate", 2)),
        ({"escalate:third": 2.0}, ("escalate", 1)),
        ({"escalate:third": 2.0, "escalate:large": 2.0}, ("answer", 0)),
        ({"escalate:large": 2.0}, ("escalate", 2)),
    ],
)
def test_of_what_fits_the_most_valuable(seconds: dict[str, float], best: tuple[str, int]) -> None:
    values = {"answer": 0.2, "escalate:b": 0.5, "escalate:c": 0.9}
    row = DecisionRow(
        seen=(0,), step=PlannedAction(action="escalate", model=2, samples=0), values=values
    )
    state = RoutingState.after(Verification(score=0.1), ("small", "large", "third"))
    state = state.model_copy(update={"time_left": 1.0, "seconds": seconds})
    found = best_row_in_time(row, PLAN, state, NAMES)
    assert (found.step.action, found.step.model) == best
    assert best_row_in_time(row, PLAN, state.model_copy(update={"time_left": None}), NAMES) is row


def test_the_pace() -> None:
    pace = LatencyEstimator()
    assert pace.expected("answer", 0) is None
    pace.learn("answer", 0, 1.0)
    pace.learn("answer", 0, 0.5, at_least=True)
    assert pace.expected("answer", 0) == 1.0, "given up earlier than usual tells nothing"
    pace.learn("answer", 0, 3.0, at_least=True)
    assert pace.expected("answer", 0) == 3.0
    pace.learn("answer", 0, 1.0)
    assert 1.0 < (pace.expected("answer", 0) or 0) < 3.0


def test_the_clock_runs_while_calls_do(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=lambda: now))
    deadline = Deadline(10)
    with deadline.running():
        now += 3
        assert deadline.left == 7
    now += 3
    assert deadline.left == 7


def test_a_limit_of_nothing_is_refused(server: OpenAIServer) -> None:
    with pytest.raises(ValueError, match="max_latency"):
        mix(server, max_latency=0)


def test_a_further_check_that_is_left_out_says_nothing_of_the_first(server: OpenAIServer) -> None:
    first = Verification(score=0.9)
    guard = DeadlineGuard(mix(server).mix_config)
    decision = Decision(action="verify", model_index=0, check="other")
    query = QueryState("?", {"answer": ""}, "q", QueryLedger(), Deadline(0.0), last=decision)
    query.answers[0] = ModelAnswer(AIMessage("By the small."))
    query.ledger.visits[0] = Visit(model_index=0, verification=first)
    assert guard.leaves_out_check(query, decision)
    found = query.current.verification
    assert found is not None
    assert (found.score, found.problem) == (0.9, None)
    assert found.checks["other"].problem == NO_TIME
    assert not guard.lacks_evidence(query)
    nothing = Verification(checks=found.checks)
    query.ledger.visits[0] = Visit(model_index=0, verification=nothing)
    assert guard.lacks_evidence(query)
