"""A run that nobody hears of takes the steps of its router and checks; all else is called."""

from __future__ import annotations

import functools
import traceback
from typing import Any, ClassVar, cast
from uuid import UUID

import pytest
from langchain_core.callbacks import BaseCallbackHandler, CallbackManager
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.runnables.config import ensure_config
from langchain_core.tracers.context import collect_runs
from pydantic import Field
from typing_extensions import override

from langchain_automix import (
    AutoMixRunnable,
    Decision,
    LogProbabilityVerifier,
    POMDPRouter,
    RoutingState,
    SelfVerifier,
    ThresholdRouter,
    Verification,
)
from langchain_automix.flow.drivers import drive
from langchain_automix.flow.run import FlowRun
from langchain_automix.flow.steps import Call, F, Flow, Steps, call, gather, steps_instead
from langchain_automix.verifiers.base import Verifier, VerifierInput
from tests.flow.test_where import ask

WAYS = ["invoke", "ainvoke", "batch", "abatch"]
SURE = Verification(score=1.0)


async def message_of(how: str, automix: AutoMixRunnable, is_heard: bool = False) -> AIMessage:
    """Return the answer to a query of one tenant."""
    config: RunnableConfig = {"configurable": {"tenant": "one"}}
    if is_heard:
        config["callbacks"] = [BaseCallbackHandler()]
    if how == "batch":
        [message] = automix.batch(["Where?"], config)
    elif how == "abatch":
        [message] = await automix.abatch(["Where?"], config)
    elif how == "ainvoke":
        message = await automix.ainvoke("Where?", config)
    else:
        message = automix.invoke("Where?", config)
    return cast("AIMessage", message)


async def record_of(how: str, automix: AutoMixRunnable, is_heard: bool = False) -> dict[str, Any]:
    """Return the record of a query of one tenant."""
    message = await message_of(how, automix, is_heard)
    return cast("dict[str, Any]", message.response_metadata["automix"])


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


def wrapped(method: F) -> F:
    """Wrap a method as tools for tracing do: with the attributes of what is wrapped."""

    @functools.wraps(method)
    def wrapper(router: Any, *args: Any, **kwargs: Any) -> Any:
        router.calls.append(method.__name__)
        return method(router, *args, **kwargs)

    return cast("F", wrapper)


class Wrapped(ThresholdRouter):
    """Its methods were wrapped, and so do more than its steps."""

    calls: list[str] = Field(default_factory=list)

    invoke: ClassVar[Any] = wrapped(ThresholdRouter.invoke)
    ainvoke: ClassVar[Any] = wrapped(ThresholdRouter.ainvoke)


class FailsAtOnce(Sure):
    """Raises before there are any steps."""

    @override
    def _flow(self, input: VerifierInput, **kwargs: Any) -> Steps[Verification]:
        raise KeyError("no such evidence")


class Returns(ThresholdRouter):
    """Returns what it is given, be it a decision or not."""

    returned: Any = None

    @override
    def _decide(self, state: RoutingState) -> Decision:
        return cast("Decision", self.returned)


class ReadsContext(ThresholdRouter):
    """Says what a model would get that it called."""

    @override
    def _decide(self, state: RoutingState) -> Decision:
        config = ensure_config()
        why = f"{config['configurable']}, {config['tags']}, {config.get('run_name')}"
        return super()._decide(state).model_copy(update={"why": why})


class Writes(Runnable[Any, Any]):
    """Changes the configuration that it is given."""

    @override
    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        assert config is not None
        kept = config["metadata"], config["configurable"]
        found = ["written" in each for each in kept]
        for each in kept:
            each["written"] = True
        return AIMessage(str(found))


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


@pytest.mark.parametrize("is_heard", [False, True])
@pytest.mark.parametrize("how", WAYS)
async def test_what_is_wrapped_is_invoked(how: str, is_heard: bool) -> None:
    router = Wrapped(threshold=0.5, calls=[])
    await record_of(how, mix(router=router), is_heard)
    assert router.calls == ["ainvoke" if how.startswith("a") else "invoke"]


@pytest.mark.parametrize("how", WAYS)
async def test_a_check_that_fails_before_its_steps_is_a_failed_check(how: str) -> None:
    record = await record_of(how, mix(verifier=FailsAtOnce()))
    assert record["failed"] == [{"model": "model-0", "stage": "verify", "error": "KeyError"}]
    assert record["model"] == "model-1"


@pytest.mark.parametrize(
    ("returned", "why"),
    [(None, "returned NoneType"), (Decision(action="escalate", model_index=7), "to model 7")],
)
@pytest.mark.parametrize("how", WAYS)
async def test_what_is_no_decision_is_told_alike_to_all(how: str, returned: Any, why: str) -> None:
    automix = mix(router=Returns(threshold=0.5, returned=returned))
    unheard, heard = [await record_of(how, automix, is_heard) for is_heard in (False, True)]
    assert unheard == heard
    assert why in unheard["why"]


@pytest.mark.parametrize("how", WAYS)
async def test_a_router_has_its_own_context(how: str) -> None:
    automix = mix(router=ReadsContext(threshold=0.5))
    unheard, heard = [await record_of(how, automix, is_heard) for is_heard in (False, True)]
    assert unheard == heard
    assert unheard["why"] == "{'tenant': 'one'}, ['automix:route'], None"


@pytest.mark.parametrize("is_heard", [False, True])
async def test_a_call_may_change_its_own_configuration_only(is_heard: bool) -> None:
    automix = AutoMixRunnable(
        models=[Writes(), Writes()], verifier=FailsAtOnce(), router=ThresholdRouter(threshold=0.5)
    )
    for how in WAYS:
        assert (await message_of(how, automix, is_heard)).content == "[False, False]"


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


def test_steps_that_were_never_gone_on_with_are_no_other_call() -> None:
    """Where a call could not be made, the next one must not go on with what that had begun."""

    class Asks(Sure):
        @override
        def _flow(self, input: VerifierInput, **kwargs: Any) -> Steps[Verification]:
            yield from call(Call(answers("yes"), "first"))
            return SURE

    def steps() -> Steps[Any]:
        yield from gather(Call(Asks(), {"answer": ""}, is_instant=True))
        return (yield from call(Call(answers("the model's own"), "second")))

    manager = CallbackManager([]).on_chain_start({}, {}, name="a flow")
    run: FlowRun[Any] = FlowRun(Flow(steps()), manager, ensure_config())
    run.resume([RuntimeError("no thread could be started")])
    assert drive(run).text == "the model's own"


@pytest.mark.parametrize("how", WAYS)
async def test_what_does_more_as_its_flow_begins_does_it(how: str) -> None:
    """A deadline or a report of its own, say."""
    begun: list[str] = []

    class Begins(Sure):
        @override
        def _begin(self, input: Any, kwargs: Any, config: RunnableConfig) -> Flow[Any]:
            begun.append("begun")
            return super()._begin(input, kwargs, config)

    await ask(how, mix(verifier=Begins()))
    assert begun == ["begun"]


def test_routers_and_checks_of_this_package_are_no_more_than_their_steps() -> None:
    for each in (ThresholdRouter(), POMDPRouter(), SelfVerifier(), LogProbabilityVerifier()):
        assert steps_instead(Call(each, {"answer": "Here."})) is not None
    for other in (Counts(), ThresholdRouter().with_retry(), mix()):
        assert steps_instead(Call(other, {"answer": "Here."})) is None
