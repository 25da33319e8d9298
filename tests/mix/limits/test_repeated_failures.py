"""Money that is lost in silence has a voice: one warning, with what it costs to go on."""

from __future__ import annotations

import pickle
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.runnables import ConfigurableField, RunnableLambda

import langchain_automix
from langchain_automix import (
    AutoMixMiddleware,
    ChatAutoMix,
    CircuitBreaker,
    RepeatedFailureWarning,
    SelfVerifier,
    ThresholdRouter,
)
from langchain_automix.mix.limits.repeated_failures import Attempt, RepeatedFailures
from tests.support.builders.faults import FAULTS, PRICES, WAYS, Desk, ask
from tests.support.builders.faults import mixed as _mixed
from tests.support.builders.mixes import record_of
from tests.support.builders.scripted_replies import call
from tests.support.servers.openai_server import OpenAIServer

every_way = pytest.mark.parametrize("way", WAYS)


def mixed(server: OpenAIServer, *names: str, **fields: Any) -> Any:
    return _mixed(server, *names, **{"verifier": SelfVerifier(samples=2), **fields})


def told(act: Callable[[], object]) -> list[str]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        act()
    return [str(each.message) for each in found if each.category is RepeatedFailureWarning]


class TestOfAModel:
    @every_way
    async def test_the_third_query_in_a_row_warns_once(
        self, server: OpenAIServer, way: str
    ) -> None:
        Desk(server, small=FAULTS["500"], large="By the large.")
        asked = mixed(server)
        for _ in range(2):
            await ask(way, asked)
        with pytest.warns(RepeatedFailureWarning) as found:
            message = await ask(way, asked)
        with warnings.catch_warnings(record=True) as more:
            warnings.simplefilter("always")
            for _ in range(4):
                await ask(way, asked)
        assert not [each for each in more if each.category is RepeatedFailureWarning]
        [warning] = [w for w in found if w.category is RepeatedFailureWarning]
        text, record = str(warning.message), record_of(message)
        assert "small has given no answer that can be used (OpenAIAPIError)" in text
        assert f"answered by large, for {record['cost']} in all" in text
        assert f"small alone would have cost about {record['alone']['small']['cost']}" in text

    def test_a_reason_is_the_same_wherever_it_stands_in_the_answer(self) -> None:
        failures, attempt = RepeatedFailures(), Attempt("answer", "small")
        reasons = [f"the answer is no JSON (line 1 column {at})" for at in range(7, 12)]
        due = [failures.note({attempt: reason}) for reason in reasons]
        assert due == [[], [], [(attempt, reasons[2])], [], []]

    @every_way
    async def test_as_an_error_it_takes_the_place_of_no_answer(
        self, server: OpenAIServer, way: str
    ) -> None:
        Desk(server, small=FAULTS["500"], large="By the large.")
        asked = mixed(server)
        with warnings.catch_warnings():
            warnings.simplefilter("error", RepeatedFailureWarning)
            for _ in range(4):
                assert str((await ask(way, asked)).text) == "By the large."

    def test_a_success_between_starts_anew(self, server: OpenAIServer) -> None:
        desk = Desk(server, small=FAULTS["500"], large="By the large.")
        asked = mixed(server)

        def act() -> None:
            for outcome in (FAULTS["500"], FAULTS["500"], "Well.", FAULTS["500"], FAULTS["500"]):
                desk.answers["small"] = outcome
                asked.invoke("Where?")

        assert told(act) == []

    def test_each_reason_is_told(self, server: OpenAIServer) -> None:
        desk = Desk(server, small=FAULTS["500"], large="By the large.")
        asked = mixed(server)

        def act() -> None:
            for outcome in (FAULTS["500"], FAULTS["429"], FAULTS["500"]):
                desk.answers["small"] = outcome
                asked.invoke("Where?")
            for _ in range(3):
                desk.answers["small"] = FAULTS["429"]
                asked.invoke("Where?")

        [one] = told(act)
        assert "(OpenAIRateLimitError)" in one

    def test_an_unknown_cost_is_called_so(self, server: OpenAIServer) -> None:
        Desk(server, small=FAULTS["malformed"], large="By the large.")
        asked = mixed(server)
        [one] = told(lambda: [asked.invoke("Where?") for _ in range(3)])
        assert "at a cost that is not known" in one

    def test_copies_count_together(self, server: OpenAIServer) -> None:
        Desk(server, small=FAULTS["500"], large="By the large.")
        asked = mixed(server)
        copies = [asked, asked.model_copy(), asked.bind_tools([])]
        [one] = told(lambda: [each.invoke("Where?") for each in copies])
        assert "small" in one
        fields = {"cost_weight": ConfigurableField(id="weight")}
        other = mixed(server).configurable_fields(**fields)
        config: Any = {"configurable": {"weight": None}}
        assert len(told(lambda: [other.invoke("Where?", config) for _ in range(4)])) == 1

    @pytest.mark.parametrize("kind", [ChatAutoMix, AutoMixMiddleware])
    def test_in_every_form(self, server: OpenAIServer, kind: Any) -> None:
        from langchain.agents import create_agent  # noqa: PLC0415  (slow to import)

        Desk(server, small=FAULTS["500"], large="By the large.")
        models = [server.model("small"), server.model("large")]
        made = kind(
            models=models,
            router=ThresholdRouter(),
            verifier=SelfVerifier(samples=2),
            prices=PRICES,
        )
        asked: Any = made
        if kind is AutoMixMiddleware:
            agent: Any = create_agent(server.model("third"), [], middleware=[made])
            asked = RunnableLambda(lambda text: agent.invoke({"messages": text}))
        assert len(told(lambda: [asked.invoke("Where?") for _ in range(4)])) == 1

    def test_a_model_that_is_passed_over_fails_for_the_reason_of_before(
        self, server: OpenAIServer
    ) -> None:
        Desk(server, small=FAULTS["500"], large="By the large.")
        asked = mixed(server, circuit_breaker=CircuitBreaker(failures=2, cool_down=900))
        [one] = told(lambda: [asked.invoke("Where?") for _ in range(6)])
        assert "(OpenAIAPIError)" in one

    def test_answers_that_cannot_be_used(self, server: OpenAIServer) -> None:
        """A model that cannot call the tools loses as much as one that is down; no word of its."""

        def look(city: str) -> str:
            """Look."""
            return city

        names = iter(["secret_one", "secret_two", "secret_three"])
        desk = Desk(server, small="", large=call("look", city="Turku"))
        asked = mixed(server).bind_tools([look])

        def act() -> None:
            for name in names:
                desk.answers["small"] = call(name)
                asked.invoke("Where?")

        [one] = told(act)
        assert "small has given no answer that can be used" in one
        assert "secret" not in one

    def test_the_larger_one_where_the_earlier_answer_is_given(self, server: OpenAIServer) -> None:
        from tests.support.builders.scripted_replies import REJECT  # noqa: PLC0415

        Desk(server, check=REJECT, small="By the small.", large=FAULTS["429"])
        asked = mixed(server, on_escalation_error="answer")
        [one] = told(lambda: [asked.invoke("Where?") for _ in range(4)])
        assert "large has given no answer that can be used (OpenAIRateLimitError)" in one
        assert "answered by small" in one

    def test_where_all_fail_the_error_tells(self, server: OpenAIServer) -> None:
        Desk(server, small=FAULTS["500"], large=FAULTS["500"])
        asked = mixed(server)

        def act() -> None:
            for _ in range(4):
                with pytest.raises(Exception):  # noqa: B017, PT011
                    asked.invoke("Where?")

        assert told(act) == []


class TestOfACheck:
    def test_that_fails(self, server: OpenAIServer) -> None:
        Desk(server, check=FAULTS["500"], small="By the small.", large="By the large.")
        asked = mixed(server)
        [one] = told(lambda: [asked.invoke("Where?") for _ in range(4)])
        assert "The check of small's answers has found nothing" in one

    def test_that_never_holds_a_verdict(self, server: OpenAIServer) -> None:
        """B4's kind: each query pays the check and the larger model, and nothing says so."""
        Desk(server, check='{"city": "Turku"}', small="By the small.", large="By the large.")
        asked = mixed(server)
        [one] = told(lambda: [asked.invoke("Where?") for _ in range(4)])
        assert "(none of its replies holds a verdict)" in one


def test_of_a_router(server: OpenAIServer) -> None:
    def failing(_: object) -> object:
        raise ZeroDivisionError

    Desk(server, small="By the small.", large="By the large.")
    asked = mixed(server, router=RunnableLambda(failing))
    [one] = told(lambda: [asked.invoke("Where?") for _ in range(4)])
    assert "The router has failed (ZeroDivisionError)" in one


class TestTheCount:
    def test_survives_pickling(self) -> None:
        failures, attempt = RepeatedFailures(), Attempt("answer", "small")
        assert failures.note({attempt: "E"}) == failures.note({attempt: "E"}) == []
        restored = pickle.loads(pickle.dumps(failures))
        assert restored.note({attempt: "E"}) == [(attempt, "E")]
        assert pickle.loads(pickle.dumps(restored)).note({attempt: "E"}) == []

    def test_of_threads(self) -> None:
        failures, attempt = RepeatedFailures(), Attempt("answer", "small")
        due: list[Any] = []

        def work() -> None:
            for _ in range(200):
                due.extend(failures.note({attempt: "E"}))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert due == [(attempt, "E")]

    def test_is_bounded(self) -> None:
        failures = RepeatedFailures()
        for i in range(1500):
            for _ in range(3):
                failures.note({Attempt("answer", "small"): f"E{i}"})
        assert len(failures._told) == 1000


def test_its_class_is_public() -> None:
    assert issubclass(langchain_automix.RepeatedFailureWarning, UserWarning)
