"""Metrics by the OpenTelemetry API, read back by the real SDK; and nothing where they cannot be."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import opentelemetry.metrics
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from langchain_automix import AutoMixRunnable, AutoMixTotals, ThresholdRouter
from langchain_automix.mix import telemetry as _metrics
from tests.support.builders.mixes import by_question, mix, record_of
from tests.support.servers.openai_server import OpenAIServer

PRICES = {"small": {"input": 1, "output": 2}, "large": {"input": 10, "output": 20}}
UNITS = {
    "automix.queries": "{query}",
    "automix.escalations": "{query}",
    "automix.unpriced_queries": "{query}",
    "automix.verdicts": "{verdict}",
    "automix.cost": "{USD}",
    "automix.stage.duration": "s",
}

Read = Callable[[], dict[str, list[Any]]]


@pytest.fixture
def fresh() -> Iterator[None]:
    """The instruments are made once a process."""
    _metrics._instruments.cache_clear()
    yield
    _metrics._instruments.cache_clear()


@pytest.fixture
def read(fresh: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Read]:
    """Points by the name of their metric; a provider can be set once a process, so it is lent."""
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    monkeypatch.setattr(opentelemetry.metrics, "get_meter", provider.get_meter)

    def points() -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        data: Any = reader.get_metrics_data()
        for scope in [s for each in data.resource_metrics for s in each.scope_metrics]:
            assert scope.scope.name == "langchain_automix"
            for metric in scope.metrics:
                assert UNITS[metric.name] == metric.unit
                found[metric.name] = list(metric.data.data_points)
        return found

    yield points
    provider.shutdown()


def total(points: list[Any], **wanted: str) -> Any:
    of = {f"automix.{name}": value for name, value in wanted.items()}
    return sum(point.value for point in points if of.items() <= point.attributes.items())


def priced(server: OpenAIServer) -> AutoMixRunnable:
    server.script = by_question()
    small, large = (server.model(name, stream_usage=True) for name in PRICES)
    router = ThresholdRouter(threshold=0.5)
    return AutoMixRunnable.from_models(small, large, router=router, prices=PRICES)


def billed(server: OpenAIServer) -> float:
    dollars = 0.0
    for bill in server.billed:
        price = PRICES[bill["model"]]
        dollars += bill["prompt_tokens"] * price["input"] / 1e6
        dollars += bill["completion_tokens"] * price["output"] / 1e6
    return dollars


def test_what_was_run_is_what_is_measured(server: OpenAIServer, read: Read) -> None:
    automix = priced(server)
    records = [record_of(automix.invoke("easy")), record_of(automix.invoke("hard"))]
    records += [record_of(each) for each in automix.batch(["easy", "hard", "hard too"])]
    records += [record_of(list(automix.stream(each))[-1]) for each in ("easy", "hard")]

    async def run() -> None:
        records.append(record_of(await automix.ainvoke("hard")))
        records.extend(record_of(each) for each in await automix.abatch(["easy", "hard"]))

    asyncio.run(run())
    found = read()
    kept = Counter(record["model"] for record in records)
    assert kept == {"small": 4, "large": 6}
    for model, action in (("small", "answer"), ("large", "escalate")):
        assert total(found["automix.queries"], model=model, action=action) == kept[model]
    assert total(found["automix.queries"]) == 10
    assert total(found["automix.escalations"]) == 6
    assert total(found["automix.escalations"], model="small") == 0
    verdicts = sum(len(record["verdicts"]) for record in records)
    assert total(found["automix.verdicts"]) == verdicts > 0
    assert total(found["automix.unpriced_queries"]) == 0
    assert total(found["automix.cost"]) == pytest.approx(billed(server), rel=1e-9)
    stages = {"draft": 10, "verify": 10, "route": 10, "escalate": 6}
    for stage, times in stages.items():
        spans = [
            p for p in found["automix.stage.duration"] if p.attributes["automix.stage"] == stage
        ]
        assert sum(point.count for point in spans) == times
        assert all(point.min > 0 for point in spans)
        assert spans[0].explicit_bounds[0] == 0.01, "buckets are made for seconds"


def test_an_unknown_cost_is_none(server: OpenAIServer, read: Read) -> None:
    server.script = by_question()
    automix = mix(server, prices={"small": PRICES["small"]})
    automix.batch(["easy", "hard"])
    found = read()
    assert total(found["automix.queries"]) == 2
    assert total(found["automix.unpriced_queries"]) == 1
    assert total(found["automix.unpriced_queries"], model="large") == 1
    [known] = found["automix.cost"]
    assert known.attributes["automix.model"] == "small"
    assert 0 < known.value < billed(server)


def test_a_query_that_fails_is_not_counted(server: OpenAIServer, read: Read) -> None:
    outcomes = priced(server).batch(["easy", "bad"], return_exceptions=True)
    assert [isinstance(each, Exception) for each in outcomes] == [False, True]
    assert total(read()["automix.queries"]) == 1


@pytest.mark.parametrize("broken", ["counter", "meter"])
def test_a_failure_fails_no_query(
    server: OpenAIServer,
    read: Read,
    broken: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no metrics today")

    if broken == "meter":
        monkeypatch.setattr(opentelemetry.metrics, "get_meter", fail)
    elif made := _metrics._instruments():
        monkeypatch.setattr(made.queries, "add", fail)
    with caplog.at_level(logging.DEBUG, "langchain_automix"):
        assert priced(server).invoke("easy").text == "small: easy"
    [said] = [each for each in caplog.records if "metrics" in each.message]
    assert said.levelno == logging.DEBUG


@pytest.mark.usefixtures("fresh")
def test_without_the_package(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.metrics", None)
    assert priced(server).invoke("hard").text == "large: hard"
    assert _metrics._instruments() is None


def test_a_provider_may_come_later(server: OpenAIServer) -> None:
    """No SDK, then one that is set after the first query: it counts from there on."""
    server.script = by_question()
    script = f"""
import sys
from opentelemetry import metrics
from langchain_openai import ChatOpenAI
from langchain_automix import AutoMixRunnable, ThresholdRouter
small, large = [ChatOpenAI(model=m, base_url="{server.base_url}", api_key="x")
                for m in ("small", "large")]
automix = AutoMixRunnable.from_models(small, large, router=ThresholdRouter(threshold=0.5))
automix.invoke("easy")
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))
automix.batch(["easy", "hard"])
[resource] = reader.get_metrics_data().resource_metrics
for metric in resource.scope_metrics[0].metrics:
    if metric.name == "automix.queries":
        print(sum(point.value for point in metric.data.data_points))
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.split() == ["2"], done.stderr


def test_a_tracer_that_cannot_be_told_keeps_nobody_else_in_the_dark(server: OpenAIServer) -> None:
    class Broken(BaseCallbackHandler):
        run_map = 3

    totals = AutoMixTotals()
    message = priced(server).invoke("hard", {"callbacks": [Broken(), totals]})
    assert message.text == "large: hard"
    assert totals.escalations == totals.queries == 1


def test_a_mix_within_a_mix_is_counted_once(server: OpenAIServer, read: Read) -> None:
    chat_model = server.model("third")
    outer = AutoMixRunnable.from_models(priced(server), chat_model, verification=False)
    outer.invoke("hard")
    found = read()
    assert total(found["automix.queries"]) == 1
    assert total(found["automix.cost"]) == pytest.approx(billed(server), rel=1e-9)
