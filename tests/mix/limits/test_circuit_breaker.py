"""The circuit breaker by itself: its states, and what counts as a failure."""

from __future__ import annotations

import json
import threading
from typing import Any

import httpx
import openai
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from langchain_automix import AutoMixError, CircuitBreaker
from langchain_automix.errors import (
    CircuitOpenError,
    DeadlineError,
    ModelsFailedError,
    SpendLimitReachedError,
)
from langchain_automix.mix.limits.circuit_breaker import key_of
from langchain_automix.models.failures import is_model_failure

FAILURES, COOL_DOWN = 3, 10.0


class Breaking(RuleBasedStateMachine):
    """Two models, calls that take their time, and a model of what should be."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.breaker = CircuitBreaker(FAILURES, COOL_DOWN, clock=lambda: self.now)
        self.row = {"a": 0, "b": 0}
        self.open_until: dict[str, float] = {}
        self.trial_since: dict[str, float] = {}
        self.calls: list[str] = []

    models = st.sampled_from(["a", "b"])

    @rule(seconds=st.sampled_from([0.5, 4.0, 9.5, 10.0, 25.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(model=models)
    def ask(self, model: str) -> None:
        until = self.open_until.get(model)
        trial = self.trial_since.get(model)
        tries = until is not None and self.now >= until
        busy = trial is not None and self.now - trial < COOL_DOWN
        assert self.breaker.admits(model) is (until is None or (tries and not busy))
        if until is None or (tries and not busy):
            self.calls.append(model)
            if tries:
                self.trial_since[model] = self.now

    @rule(model=models)
    def answers(self, model: str) -> None:
        if model in self.calls:
            self.calls.remove(model)
            self.breaker.succeeded(model)
            self.row[model] = 0
            self.open_until.pop(model, None)
            self.trial_since.pop(model, None)

    @rule(model=models)
    def fails(self, model: str) -> None:
        if model in self.calls:
            self.calls.remove(model)
            self.breaker.failed(model)
            self.row[model] += 1
            was_tried = self.trial_since.pop(model, None) is not None
            if was_tried or (self.row[model] >= FAILURES and model not in self.open_until):
                self.open_until[model] = self.now + COOL_DOWN

    @rule(model=models)
    def is_cancelled(self, model: str) -> None:
        if model in self.calls:
            self.calls.remove(model)
            self.breaker.gave_up(model)
            self.trial_since.pop(model, None)

    @rule(model=models)
    def is_asked_what_it_cannot_answer(self, model: str) -> None:
        if model in self.calls:
            self.calls.remove(model)
            self.breaker.failed(model, ValueError("the input"))
            self.trial_since.pop(model, None)

    @invariant()
    def its_state_is_told(self) -> None:
        for model in ("a", "b"):
            until = self.open_until.get(model)
            expected = "closed" if until is None else "open" if self.now < until else "half-open"
            assert self.breaker.state(model) == expected


TestBreaking = Breaking.TestCase
TestBreaking.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_of_many_threads_one_tries() -> None:
    now = 0.0
    breaker = CircuitBreaker(1, 5, clock=lambda: now)
    breaker.failed("m")
    now = 5.0
    admitted: list[bool] = []
    threads = [
        threading.Thread(target=lambda: admitted.append(breaker.admits("m"))) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(admitted) == [False] * 19 + [True]


# The client's own: one version of it comes with httpx, another with a copy.
_REQUEST: Any = httpx.Request("POST", "http://127.0.0.1")


def _status(status: int) -> openai.APIStatusError:
    response: Any = httpx.Response(status, request=_REQUEST)
    return openai.APIStatusError("scripted", response=response, body=None)


def _of_httpx(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "http://127.0.0.1/v1/chat/completions")
    return httpx.HTTPStatusError("", request=request, response=httpx.Response(status))


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (_status(400), False),
        (_status(413), False),
        (_status(422), False),
        (_status(401), True),
        (_status(404), True),
        (_status(429), True),
        (_status(500), True),
        (_status(503), True),
        (openai.APITimeoutError(_REQUEST), True),
        (openai.APIConnectionError(request=_REQUEST), True),
        (_of_httpx(400), False),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (json.JSONDecodeError("Expecting value", "<html>", 0), True),
        (ValueError("the input"), False),
        (TypeError("the input"), False),
        # What langchain-openai makes of a gateway's 200 that holds no answer.
        (ValueError({"message": "Provider returned error", "code": 502}), True),
        (ValueError({"message": "overloaded", "code": None}), True),
        (ValueError({"message": "too long", "code": 400}), False),
        (ValueError({"message": "", "code": "context_length_exceeded"}), False),
        (ValueError({"message": "", "type": "invalid_request_error"}), False),
        (TypeError("Received response with null value for 'choices'."), True),
        # What a model that is a mix itself raises.
        (DeadlineError("late"), True),
        (CircuitOpenError("open"), True),
        (ModelsFailedError("", [_status(400), _status(500)]), True),
        (ModelsFailedError("", [_status(400), _status(422)]), False),
        (SpendLimitReachedError("spent"), False),
        (AutoMixError("the input"), False),
    ],
)
def test_what_says_something_of_a_model(error: Exception, counts: bool) -> None:
    assert is_model_failure(error) is counts


def test_a_model_is_known_by_its_name_and_its_server() -> None:
    def model(name: str, port: int) -> ChatOpenAI:
        return ChatOpenAI(
            model=name, base_url=f"http://127.0.0.1:{port}/v1", api_key=SecretStr("test")
        )

    assert key_of(model("a", 1)) == key_of(model("a", 1).bind(stop=["."]).with_retry())
    assert len({key_of(model(name, port)) for name in "ab" for port in (1, 2)}) == 4
    plain: RunnableLambda[Any, Any] = RunnableLambda(lambda _: None)
    assert key_of(plain) == key_of(plain) != key_of(RunnableLambda(lambda _: None))


@pytest.mark.parametrize(("failures", "cool_down"), [(0, 1.0), (1, 0.0), (1, float("inf"))])
def test_numbers_out_of_range(failures: int, cool_down: float) -> None:
    with pytest.raises(AutoMixError, match=rf"failures={failures}, cool_down={cool_down}"):
        CircuitBreaker(failures, cool_down)
