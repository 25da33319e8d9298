"""One flow in progress: what it is sent, how it ends, and that its report is announced once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.runnables import RunnableLambda

from langchain_automix.flow.run import FlowRun
from langchain_automix.flow.runnable import FlowRunnable
from langchain_automix.flow.steps import Call, Flow, Report, Steps, call, gather, values
from tests.flow.test_batch import batch_of

ECHO = RunnableLambda(lambda given: given)


class Listener(BaseCallbackHandler):
    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        self.events.append(data)


class AwaitedListener(AsyncCallbackHandler):
    def __init__(self) -> None:
        self.events: list[Any] = []

    async def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        self.events.append(data)


class Reporting(FlowRunnable[Any, Any]):
    """Makes a call, perhaps fails, and reports its input."""

    def _flow(self, input: Any, **kwargs: Any) -> Steps[Any]:
        found = yield from call(Call(ECHO, input))
        if found == "bad":
            raise ValueError(found)
        return found

    def _begin(self, input: Any, kwargs: Any, config: Any) -> Flow[Any]:
        return Flow(self._flow(input), report=lambda: Report(event={"of": input}))


def run_of(steps: Steps[Any], report: Callable[[], Report | None] = lambda: None) -> FlowRun[Any]:
    runs: list[FlowRun[Any]] = []

    def begin(given: Any, run_manager: Any, config: Any) -> None:
        runs.append(FlowRun(Flow(steps, report=report), run_manager, config))

    cast("Any", RunnableLambda)(begin).invoke(None)
    return runs[0]


class TestReport:
    @pytest.mark.parametrize("how", ["invoke", "ainvoke", "batch", "abatch"])
    async def test_is_announced_once(self, how: str) -> None:
        listener, awaited = Listener(), AwaitedListener()
        config: Any = {"callbacks": [listener, awaited]}
        given = ["one", "bad", "two"]
        if "batch" in how:
            found = await batch_of(how, Reporting(), given, config, return_exceptions=True)
            assert isinstance(found[1], ValueError)
        else:
            for each in given:
                asked = Reporting()
                try:
                    _ = (
                        await asked.ainvoke(each, config)
                        if how == "ainvoke"
                        else asked.invoke(each, config)
                    )
                except ValueError:
                    assert each == "bad"
        assert sorted(event["of"] for event in listener.events) == sorted(given)
        if how in ("ainvoke", "abatch"):
            assert sorted(event["of"] for event in awaited.events) == sorted(given)

    async def test_of_a_flow_that_is_cancelled(self) -> None:
        async def hang(given: Any) -> Any:
            await asyncio.sleep(30)

        class Hanging(Reporting):
            def _flow(self, input: Any, **kwargs: Any) -> Steps[Any]:
                return (yield from call(Call(RunnableLambda(hang), input)))

        listener = Listener()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await Hanging().ainvoke("one", {"callbacks": [listener]})
        assert listener.events == [{"of": "one"}]


class TestEnding:
    def test_a_closed_flow_sees_which_calls_have_started(self) -> None:
        seen: list[bool] = []
        made = Call(ECHO, 1)

        def steps() -> Steps[Any]:
            try:
                yield from gather(made)
                yield from gather(made)
            except GeneratorExit:
                seen.append(made.started)
                raise

        run = run_of(steps())
        run.start(made)
        run.close()
        run = run_of(steps())
        run.start(made)
        run.resume([1])  # now it is wanted a second time
        run.close()
        assert seen == [True, False]

    def test_its_report_is_made_once_it_has_ended(self) -> None:
        ended: list[str] = []

        def steps() -> Steps[None]:
            try:
                yield from call(Call(ECHO, 1))
            finally:
                ended.append("steps")

        def report() -> None:
            ended.append("report")

        run = run_of(steps(), report)
        run.close()
        run.close()
        assert ended == ["steps", "report"]


def test_errors_are_results() -> None:
    def steps() -> Steps[Any]:
        assert (yield from gather()) == ()
        found = yield from gather(Call(ECHO, 1), Call(ECHO, 2))
        assert values(found) == [1, 2]
        found = yield from gather(Call(ECHO, 1), Call(ECHO, 2))
        with pytest.raises(ValueError, match="the second"):
            values(found)
        with pytest.raises(ValueError, match="the third"):
            yield from call(Call(ECHO, 3))

    run = run_of(steps())
    run.resume([1, 2])
    run.resume([1, ValueError("the second")])
    run.resume([ValueError("the third")])
    assert run.done
    assert run.result() is None
