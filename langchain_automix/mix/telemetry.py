"""Record metrics through the OpenTelemetry API, if installed; without an SDK they are free."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from langchain_automix._version import __version__
from langchain_automix.models.prices import dollars_of

_LOGGER = logging.getLogger(__name__)
# OpenTelemetry's own boundaries for model calls, in seconds; its defaults suit milliseconds.
_SECONDS = [0.01 * 2**power for power in range(14)]


class _Instruments(NamedTuple):
    queries: Any
    escalations: Any
    verdicts: Any
    cost: Any
    unpriced: Any
    duration: Any
    learning: Any


def count_learning(kind: str) -> None:
    """Count an event of learning: an alarm, a promotion or a rollback; never fails."""
    try:
        if (instruments := _instruments()) is not None:
            instruments.learning.add(1, {"automix.event": kind})
    except Exception:
        _LOGGER.debug("the metrics miss an event", exc_info=True)


def measure(record: Mapping[str, Any], policy: str) -> None:
    """Count one query; a failure to count never fails the query.

    The attributes are the model whose answer was kept, the action and the policy. A query of
    unknown cost is left out of `automix.cost` and counted in `automix.unpriced_queries`.
    """
    try:
        if (instruments := _instruments()) is not None:
            _count(instruments, record, policy)
    except Exception:
        _LOGGER.debug("the metrics miss a query", exc_info=True)


def _count(instruments: _Instruments, record: Mapping[str, Any], policy: str) -> None:
    attributes = {
        "automix.model": record["model"],
        "automix.action": record["action"],
        "automix.policy": policy,
    }
    instruments.queries.add(1, attributes)
    instruments.escalations.add(int(record["escalated"]), attributes)
    instruments.verdicts.add(record["drawn"], attributes)
    instruments.unpriced.add(int(record["cost"] is None), attributes)
    if record["cost"] is not None:
        instruments.cost.add(float(dollars_of(record["cost"])), attributes)
    for stage, seconds in record["seconds"].items():
        instruments.duration.record(seconds, {**attributes, "automix.stage": stage})


@functools.cache
def _instruments() -> _Instruments | None:
    try:  # optional
        from opentelemetry.metrics import get_meter  # noqa: PLC0415
    except ImportError:
        return None
    meter = get_meter("langchain_automix", __version__)
    return _Instruments(
        queries=meter.create_counter("automix.queries", "{query}", "Queries answered"),
        escalations=meter.create_counter(
            "automix.escalations", "{query}", "Queries for which more than one model answered"
        ),
        verdicts=meter.create_counter("automix.verdicts", "{verdict}", "Verdicts drawn"),
        cost=meter.create_counter("automix.cost", "{USD}", "Cost of all requests, checks included"),
        unpriced=meter.create_counter(
            "automix.unpriced_queries", "{query}", "Queries whose cost is unknown"
        ),
        learning=meter.create_counter(
            "automix.learning.events", "{event}", "Alarms, promotions and ways back of policies"
        ),
        duration=meter.create_histogram(
            "automix.stage.duration",
            "s",
            "Time of each stage of a query",
            explicit_bucket_boundaries_advisory=_SECONDS,
        ),
    )
