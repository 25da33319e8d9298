"""`Metrics`: what Prometheus may know of an app, without any text, key or name of a client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from typing_extensions import override

from langchain_automix.serve.errors import SPEND_LIMIT
from langchain_automix.serve.learners import Learners
from langchain_automix.serve.limits import OVERLOADED, Slots
from langchain_automix.serve.mixes import Mixes
from langchain_automix.serve.observing import Observers, ServedQuery

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
"""Seconds, as far as a query may take by default."""

_REFUSED = {(429, SPEND_LIMIT): "spend_limit", (503, OVERLOADED): "overloaded"}
"""Why a query was refused, by its status and the code of its error."""

_REASONS = ("key", *_REFUSED.values())
_NONE = "none"


class Metrics:
    """Counts what the queries of one app came to, in a registry of its own.

    Labels hold names of mixes and models and a few fixed words: their number is bounded, whatever
    clients send.

    Args:
        mixes: The mixes.
        slots: Counts the queries under way.
        observers: Count what they were not told.
        learners: Know how far the mixes have come that learn.
    """

    def __init__(
        self, mixes: Mixes, slots: Slots, observers: Observers, learners: Learners
    ) -> None:
        self._mixes = mixes
        self.registry = CollectorRegistry()
        self._queries = self._counter(
            "queries", "Queries that have ended.", "mix", "outcome", "model"
        )
        self._cost = self._counter(
            "cost_dollars", "Known costs of queries, failed ones among them.", "mix"
        )
        self._unknown = self._counter(
            "unknown_costs",
            "Queries whose cost is unknown, or that of the largest model alone.",
            "mix",
            "of",
        )
        self._alone = self._counter(
            "largest_alone_dollars",
            "What the largest model alone cost or would have cost, where both costs are known.",
            "mix",
            "basis",
        )
        self._compared = self._counter(
            "compared_cost_dollars",
            "Costs of the queries that automix_largest_alone_dollars counts.",
            "mix",
        )
        self._refused = self._counter("refused", "Requests that were refused.", "reason")
        self._duration = self._histogram(
            "query_seconds", "From a request to the end of its response.", "mix"
        )
        self._stages = self._histogram(
            "stage_seconds", "Time that a query spent in a stage.", "mix", "stage"
        )
        self.registry.register(_Present(mixes, slots, observers, learners))
        self._begin()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"automix_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"automix_{name}", text, labels, registry=self.registry, buckets=_BUCKETS)

    def _begin(self) -> None:
        """Begin every series whose labels are known at 0, so that a rate has where to begin."""
        for reason in _REASONS:
            self._refused.labels(reason)
        for served in self._mixes:
            for metric in (self._cost, self._compared, self._duration):
                metric.labels(served.name)
            for of in ("query", "largest_alone"):
                self._unknown.labels(served.name, of)
            for basis in ("measured", "estimated"):
                self._alone.labels(served.name, basis)

    def observe(self, query: ServedQuery) -> None:
        """Count a query that has ended."""
        mix = query.mix
        self._queries.labels(mix, query.outcome, self._model(query)).inc()
        if (reason := _REFUSED.get((query.status, query.error or ""))) is not None:
            self._refused.labels(reason).inc()
        self._duration.labels(mix).observe(query.duration)
        for stage, seconds in query.seconds.items():
            self._stages.labels(mix, stage).observe(seconds)
        if query.cost is None:
            self._unknown.labels(mix, "query").inc()
        else:
            self._cost.labels(mix).inc(float(query.cost))
        if not query.is_answered:
            return
        if query.largest_alone is None:
            self._unknown.labels(mix, "largest_alone").inc()
        elif query.cost is not None:
            basis = "estimated" if query.is_estimate else "measured"
            self._alone.labels(mix, basis).inc(float(query.largest_alone))
            self._compared.labels(mix).inc(float(query.cost))

    def refuse(self, reason: Literal["key"]) -> None:
        """Count a request that was refused before it became a query."""
        self._refused.labels(reason).inc()

    def expose(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics, and their content type.

        Args:
            accept: The header `Accept` of who asks.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def _model(self, query: ServedQuery) -> str:
        if query.model is None:
            return _NONE
        names = self._mixes.get(query.mix).current.mix.model_names
        return query.model if query.model in names else "other"


class _Present(Collector):
    """What is so at the moment somebody asks."""

    def __init__(
        self, mixes: Mixes, slots: Slots, observers: Observers, learners: Learners
    ) -> None:
        self._mixes, self._slots, self._observers = mixes, slots, observers
        self._learners = learners

    @override
    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("automix_in_flight", "Queries under way.", value=self._slots.taken)
        yield CounterMetricFamily(
            "automix_observers_dropped",
            "Queries that an observer was not told of, for too many were waiting.",
            value=self._observers.dropped,
        )
        policy = InfoMetricFamily("automix_policy", "The policy that decides.", labels=["mix"])
        for served in self._mixes:
            version = self._learners.policy(served.name) or _NONE
            policy.add_metric([served.name], {"version": version})
        yield policy
        yield from self._learning()

    def _learning(self) -> Iterator[Metric]:
        numbers = {mix: _numbers(each) for mix, each in self._learners.statuses.items()}
        for name, text in _LEARNING.items():
            family = GaugeMetricFamily(f"automix_learning_{name}", text, labels=["mix"])
            for mix, told in numbers.items():
                if name in told:
                    family.add_metric([mix], told[name])
            if family.samples:
                yield family


_LEARNING = {
    "store_up": "Whether the learning store can be used.",
    "queries": "Queries in the learning store.",
    "shadowed": "Queries whose shadow has come to an end.",
    "share": "Chance that a query has a shadow at present.",
    "spent_dollars": "What shadows have cost.",
    "dropped": "Records and shadows that found their queue full.",
    "refused": "Shadows for which there was no money.",
    "waiting": "Records that are still to be written.",
    "alarm": "Whether the latest alarm about the traffic still holds.",
}


def _numbers(status: Any) -> Mapping[str, float]:
    """Return the numbers of a status; those of the store only where it can be used."""
    here = {name: float(getattr(status, name)) for name in ("dropped", "refused", "waiting")}
    if status.is_away:
        return {"store_up": 0.0, **here}
    return {
        "store_up": 1.0,
        **{name: float(getattr(status, name)) for name in ("queries", "shadowed", "share")},
        "spent_dollars": float(status.spent),
        "alarm": float(status.alarm is not None and not status.alarm_is_over),
        **here,
    }
