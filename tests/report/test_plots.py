"""A report's pictures: what is drawn is what was measured, and every axis says what it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from langchain_automix import AutoMixError, POMDPRouter
from langchain_automix.report.contents import Contents
from langchain_automix.report.measure import measure
from langchain_automix.report.plots import (
    plot_benefit,
    plot_cost_quality,
    plot_cost_split,
    plot_reliability,
)
from tests.support.builders.synthetic_logs import world

pytest.importorskip("matplotlib", reason="the extra `plots` is not installed")


@pytest.fixture(scope="module")
def contents() -> Contents:
    policy = POMDPRouter.fit(world(200, k=3, sample_cost=0.05), cost_weight=0.03).policy
    found = measure(policy, world(40, seed=3, k=3, sample_cost=0.05))
    return replace(found, currency="U$D and $x$")


def labels(axes: Any) -> set[str]:
    return set(axes.get_legend_handles_labels()[1])


def test_cost_and_quality(contents: Contents) -> None:
    figure = plot_cost_quality(contents)
    [axes] = figure.axes
    assert labels(axes) == {"random mixing", "frontier, cross-fitted", "this policy (95 %)"}
    assert "cost" in axes.get_xlabel()
    assert "quality" in axes.get_ylabel()
    drawn: Any = [xy for line in axes.lines for xy in np.asarray(line.get_xydata()).tolist()]
    places = {tuple(xy) for xy in drawn}
    for point in (contents.point, *contents.baselines, *contents.frontier):
        assert (point.cost, point.quality) in places
    figure.canvas.draw()


def test_benefit(contents: Contents) -> None:
    figure = plot_benefit(contents)
    [axes] = figure.axes
    assert {"expected benefit", "price of large"} == labels(axes)
    [benefit] = contents.benefits
    assert benefit.price == pytest.approx(0.3)
    assert len(axes.containers) == len(benefit.groups)
    assert plot_benefit(contents, "small").axes
    figure.canvas.draw()
    with pytest.raises(AutoMixError, match="no benefit to plot of large"):
        plot_benefit(contents, "large")


def test_reliability(contents: Contents) -> None:
    figure = plot_reliability(contents)
    [axes] = figure.axes
    assert len(axes.containers) == len(contents.reliabilities) == 2
    assert "confidence" in axes.get_xlabel()
    figure.canvas.draw()
    with pytest.raises(AutoMixError, match="no|No answer"):
        plot_reliability(replace(contents, reliabilities=()))


def test_cost_split(contents: Contents) -> None:
    figure = plot_cost_split(contents)
    [axes] = figure.axes
    heights = [bar.get_height() for group in axes.containers for bar in group]
    assert sum(heights) == pytest.approx(contents.point.cost)
    assert labels(axes) == {"answers", "checks"}
    assert r"U\$D" in axes.get_ylabel()
    figure.canvas.draw()


def test_no_window_and_no_global_state(contents: Contents) -> None:
    import matplotlib.pyplot as plt  # noqa: PLC0415

    before = plt.get_fignums()
    plot_cost_quality(contents)
    assert plt.get_fignums() == before
