"""A policy's plots: that they are drawn, and what they say when they cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from langchain_automix import AutoMixError, POMDPRouter
from langchain_automix.routers.baselines import AlwaysRouter, FittedThresholdRouter
from tests.support.builders.synthetic_logs import world

pytest.importorskip("matplotlib", reason="the extra `plots` is not installed")


def test_benefit_and_frontier() -> None:
    log = world(200)
    router = POMDPRouter.fit(log, cost_weight=0.03)
    benefit: Any = router.plot(log)
    [axes] = benefit.axes
    assert "small" in axes.get_xlabel()
    [curve] = [line for line in axes.lines if line.get_label() == "expected benefit"]
    heights = curve.get_ydata()
    assert heights[0] > heights[-1]
    assert len(router.plot(log, kind="frontier").axes[0].lines) == 4


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (POMDPRouter, "pie", "There is no plot 'pie'"),
        (POMDPRouter, "frontier", "give one"),
        (AlwaysRouter, "benefit", "checks no answer"),
        (FittedThresholdRouter, "benefit", "holds no belief"),
    ],
)
def test_what_cannot_be_drawn(make: type[POMDPRouter], kind: str, message: str) -> None:
    router = make.fit(world(100), cost_weight=0.03)
    with pytest.raises(AutoMixError, match=message):
        router.plot(kind=kind)
