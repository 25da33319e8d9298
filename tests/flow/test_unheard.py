"""A run that nobody hears of takes the steps of its router and checks; all else is called."""

from __future__ import annotations

import traceback
from typing import Any
from uuid import UUID

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.tracers.context import collect_runs
from pydantic import Field
from typing_extensions import override

from langchain_automix import (
    AutoMixRunnable,
    Decision,
    RoutingState,
    SelfVerifier,
    ThresholdRouter,
    Verification,
)
from langchain_automix.flow.steps import Call, Steps, call
from langchain_automix.verifiers.base import Verifier, VerifierInput
from tests.flow.test_where import ask

WAYS = ["invoke", "ainvoke", "batch", "abatch"]
SURE = Verification(score=1.0)


def answers(text: str) -> Runnable[Any, Any]:
    return RunnableLambda(lambda _: AIMessage(text))


def mix(**fields: Any) -> AutoMixRunnable:
    fields = {"verifier": Sure(), "router": ThresholdRouter(threshold=0.5), **fields}
    return AutoMixRunnable(models=[answers("small"), answers("large")], **fields)


class Sure(Verifier):
    """Accepts what it is given, and notes how it was asked."""

    is_quick: bool = True
    """Whether the flow may take its first steps itself."""

    @override
    def is_free(self, check: str | None = None) -> bool:
        return self.is_quick

    @override
    def _flow(self, input: VerifierInput, **kwargs: Any) -> Steps[Verification]:
        yield from ()
        return SURE


class Counts(Sure):
    """Does more than its steps."""

    calls: list[str] = Field(default_factory=list)

    @override
    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        self.calls.append("invoke")
        return super().invoke(input, config, **kwargs)

    @override
    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        self.calls.append("ainvoke")
        return await super().ainvoke(input, config, **kwargs)


class Decides(ThresholdRouter):
    """Overrides the public method."""

    @override
    def decide(self, state: RoutingState) -> Decision:
        return super().decide(state).model_copy(update={"why": "As I say."})


class Fails(ThresholdRouter):
    @override
    def _decide(self, state: RoutingState) -> Decision:
        raise KeyError("no such evidence")


class Runs(BaseCallbackHandler):
    """Notes the names of the runs of chains."""

    def __init__(self) -> None:
        self.names: list[str] = []

    @override
    def on_chain_start(self, *args: Any, run_id: UUID, **kwargs: Any) -> None:
        self.names.append(kwargs["name"])


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("is_quick", [True, False])
async def test_what_does_more_in_invoke_is_invoked(how: str, is_quick: bool) -> None:
    check = Counts(is_quick=is_quick, calls=[])
    await ask(how, mix(verifier=check))
    assert check.calls == ["ainvoke" if how.startswith("a") else "invoke"]


@pytest.mark.parametrize("how", WAYS)
async def test_a_router_that_overrides_decide_decides(how: str) -> None:
    found = await ask(how, mix(router=Decides(threshold=0.5)))
    [message] = found if isinstance(found, list) else [found]
    assert message.response_metadata["automix"]["why"] == "As I say."


@pytest.mark.parametrize("how", WAYS)
async def test_a_router_that_fails_is_left_out(how: str) -> None:
    found = await ask(how, mix(router=Fails(threshold=0.5)))
    [message] = found if isinstance(found, list) else [found]
    record = message.response_metadata["automix"]
    assert record["failed"] == [{"model": None, "stage": "route", "error": "KeyError"}]


@pytest.mark.parametrize("how", WAYS)
async def test_the_models_of_a_check_get_its_tags(how: str) -> None:
    tags: list[Any] = []

    def verdict(_: Any, config: RunnableConfig) -> AIMessage:
        tags.append(config["tags"])
        return AIMessage("Verification Decision: Correct")

    check = SelfVerifier(model=RunnableLambda(verdict), samples=1)
    await ask(how, mix(verifier=check))
    assert all("automix:verify" in each for each in tags)
    assert len(tags) == 1


@pytest.mark.parametrize("is_quick", [True, False])
def test_who_hears_of_a_run_hears_of_all_its_parts(is_quick: bool) -> None:
    runs = Runs()
    automix = mix(verifier=Sure(is_quick=is_quick))
    automix.invoke("Where?", {"callbacks": [runs]})
    assert {"AutoMixRunnable", "Sure", "ThresholdRouter"} <= set(runs.names)
    with collect_runs() as collected:  # of a handler that LangChain gives to each run by itself
        automix.invoke("Where?")
    below = {run.name for root in collected.traced_runs for run in root.child_runs}
    assert {"Sure", "ThresholdRouter"} <= below


async def test_a_quick_check_may_make_calls() -> None:
    """Its first steps are taken at once, and its calls are made as ever."""

    class Asks(Sure):
        @override
        def _flow(self, input: VerifierInput, **kwargs: Any) -> Steps[Verification]:
            first = yield from call(Call(answers("yes"), "first"))
            second = yield from call(Call(answers("no"), "second"))
            return Verification(score=1.0 if (first.text, second.text) == ("yes", "no") else 0.0)

    for how in WAYS:
        found = await ask(how, mix(verifier=Asks()))
        [message] = found if isinstance(found, list) else [found]
        assert message.content == "small"


async def test_the_error_of_a_quick_check_says_where() -> None:
    def fails(_: Any) -> Any:
        raise ValueError("no verdict")

    class Asks(Sure):
        @override
        def _flow(self, input: VerifierInput, **kwargs: Any) -> Steps[Verification]:
            yield from call(Call(RunnableLambda(fails), "first", "a question"))
            return SURE

    for how in WAYS:
        with pytest.raises(ValueError, match="no verdict") as raised:
            await ask(how, mix(verifier=Asks(), on_verification_error="raise"))
        stack = "".join(traceback.format_exception(raised.value))
        assert "In the call 'a question' of " in stack
        assert "Asks._flow" in stack
        assert "QueryLoop.run" in stack
