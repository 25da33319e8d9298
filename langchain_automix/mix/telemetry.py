"""Metrics by the OpenTelemetry API, where it is installed: no SDK, no cost; no API, nothing."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from langchain_automix._version import __version__
from langchain_automix.models.prices import dollars_of

_LOGGER = logging.getLogger(__name__)
# OpenTelemetry's own for calls of models; its usual ones are made for milliseconds.
_SECONDS = [0.01 * 2**power for power in range(14)]


class _Instruments(NamedTuple):
    queries: Any
    escalations: Any
    verdicts: Any
    cost: Any
    unpriced: Any
    duration: Any


def measure(record: Mapping[str, Any], policy: str) -> None:
    """Count one query; what fails in that never fails the query.

    The attributes are the model whose answer was kept, the action and the policy; a query of
    unknown cost adds nothing to `automix.cost`, and one to `automix.unpriced_queries`.
    """
    try:
        if (made := _instruments()) is not None:
            _count(made, record, policy)
    except Exception:
        _LOGGER.debug("the metrics miss a query", exc_info=True)


def _count(made: _Instruments, record: Mapping[str, Any], policy: str) -> None:
    about = {
        "automix.model": record["model"],
        "automix.action": record["action"],
        "automix.policy": policy,
    }
    made.queries.add(1, about)
    made.escalations.add(int(record["escalated"]), about)
    made.verdicts.add(record["drawn"], about)
    made.unpriced.add(int(record["cost"] is None), about)
    if record["cost"] is not None:
        made.cost.add(float(dollars_of(record["cost"])), about)
    for stage, seconds in record["seconds"].items():
        made.duration.record(seconds, {**about, "automix.stage": stage})


@functools.cache
def _instruments() -> _Instruments | None:
    try:  # the user's choice, not a dependency
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
        duration=meter.create_histogram(
            "automix.stage.duration",
            "s",
            "Time of each stage of a query",
            explicit_bucket_boundaries_advisory=_SECONDS,
        ),
    )
