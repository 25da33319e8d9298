"""The stack of an error inside a model's call names the steps of the query that led to the call."""

from __future__ import annotations

import logging
import traceback
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from langchain_automix import AutoMixRunnable, SelfVerifier, ThresholdRouter
from langchain_automix.flow.runnable import FlowRunnable
from langchain_automix.flow.steps import Call, Steps, call, gather, values
from tests.flow.test_batch import batch_of

WAYS = ["invoke", "ainvoke", "stream", "astream", "batch", "abatch"]
RETRIED = RuntimeError("always the same error")


def fails(given: Any) -> AIMessage:
    raise ValueError("no model would say this")


async def ask(how: str, mixed: AutoMixRunnable) -> Any:
    if how in ("batch", "abatch"):
        return await batch_of(how, mixed, ["Where?"])
    if how == "stream":
        return list(mixed.stream("Where?"))
    if how == "astream":
        return [chunk async for chunk in mixed.astream("Where?")]
    return await mixed.ainvoke("Where?") if how == "ainvoke" else mixed.invoke("Where?")


@pytest.mark.parametrize("how", WAYS)
async def test_of_an_answer(how: str) -> None:
    mixed = AutoMixRunnable(
        models=[RunnableLambda(fails), RunnableLambda(fails)],
        router=ThresholdRouter(),
        force_model=1,
    )
    with pytest.raises(ValueError, match="no model would say this") as raised:
        await ask(how, mixed)
    stack = "".join(traceback.format_exception(raised.value))
    assert "In the call 'draft' of " in stack
    assert "QueryLoop.run -> " in stack
    assert " -> request_answer -> " in stack


@pytest.mark.parametrize("how", WAYS)
async def test_of_a_check(how: str) -> None:
    """The notes of a check, from the innermost call outwards: its own flow, then the mix's."""
    mixed = AutoMixRunnable(
        models=[RunnableLambda(lambda _: AIMessage("Here."))] * 2,
        verifier=SelfVerifier(model=RunnableLambda(fails), samples=2, sampling="parallel"),
        router=ThresholdRouter(),
        on_verification_error="raise",
    )
    with pytest.raises(ValueError, match="no model would say this") as raised:
        await ask(how, mixed)
    first, second = raised.value.__notes__
    assert first == "In the call 'verify' of SelfVerifier._flow -> draw"
    assert second.startswith("In the call 'SelfVerifier' of ")
    assert "QueryLoop.run -> " in second
    assert " -> run_check -> " in second


class Two(FlowRunnable[Any, Any]):
    def _flow(self, input: Any, **kwargs: Any) -> Steps[Any]:
        return (yield from self._asks(input))

    def _asks(self, given: Any) -> Steps[Any]:
        def again(_: Any) -> Any:
            raise RETRIED

        failing, fine = RunnableLambda(again), RunnableLambda(str)
        error, one = yield from gather(Call(failing, given, "failing"), Call(fine, given))
        assert isinstance(error, RuntimeError)
        assert one == "1"
        assert (yield from call(Call(fine, 2))) == "2"
        return values([error])


@pytest.mark.parametrize("how", ["batch", "abatch"])
async def test_the_same_error_is_noted_once_a_place(how: str) -> None:
    found = await batch_of(how, Two(), [1, 1, 1], return_exceptions=True)
    assert found == [RETRIED] * 3
    assert RETRIED.__notes__ == ["In the call 'failing' of Two._flow -> Two._asks"]


def test_an_error_that_takes_no_note_is_raised_as_it_is() -> None:
    class Frozen(Exception):  # noqa: N818
        def __setattr__(self, name: str, value: Any) -> None:
            if name == "__notes__":
                raise AttributeError(name)
            super().__setattr__(name, value)

    frozen = Frozen()

    def raise_it(given: Any) -> AIMessage:
        raise frozen

    models = [RunnableLambda(raise_it)] * 2
    mixed = AutoMixRunnable(models=models, router=ThresholdRouter(), force_model=0)
    with pytest.raises(Frozen) as raised:
        mixed.invoke("Where?")
    assert raised.value is frozen


def test_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "langchain_automix.flow")
    Two().batch([1], return_exceptions=True)
    assert "Two._flow -> Two._asks calls failing, str" in caplog.messages
