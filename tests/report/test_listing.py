"""Which decisions a report lists, and that its size does not grow with the log."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from langchain_automix import POMDPRouter, Report
from langchain_automix.policy.fitting.baselines import fit_rule
from langchain_automix.policy.replay import replay_plan
from langchain_automix.report import decisions
from langchain_automix.report.decisions import LISTED, build_decisions, choose_listed
from langchain_automix.report.html.page import render_page
from tests.support.builders.reports import contents
from tests.support.builders.synthetic_logs import scored, world


def test_twenty_thousand_queries_are_a_page_of_bounded_size() -> None:
    data = scored("monotone", 20_000, 1)
    outcomes = replay_plan(fit_rule(data, 0.03, "threshold").plan, data)
    assert outcomes.paths is not None
    listed = choose_listed(outcomes, outcomes.paths, data, 0.03, seed=0)
    assert len(listed.rows) == LISTED
    assert "Listed are 2,000 of 20,000" in listed.words
    again = choose_listed(outcomes, outcomes.paths, data, 0.03, seed=0)
    assert (again.rows == listed.rows).all()

    ids = [str(row) for row in range(len(data))]
    texts = [{"question": "q" * 100, "answers": ["a" * 50, "b" * 50]}] * len(data)
    found = build_decisions(listed.rows, outcomes, outcomes.paths, data, ids, texts)
    everything = build_decisions(np.arange(3000), outcomes, outcomes.paths, data, ids, texts)
    some = replace(contents(60), decisions=found, kinds=listed.kinds, sample=listed.words)
    page = render_page(replace(some, queries=20_000))
    assert len(page) < 2_000_000
    assert len(render_page(replace(some, decisions=everything))) > len(page)

    # The counts are of all queries, and each kind has its most telling ones.
    kinds = {kind: sum(kind in each.kinds for each in found) for kind in listed.kinds}
    assert listed.kinds["saved"] > kinds["saved"]
    assert all(number >= min(250, listed.kinds[kind]) for kind, number in kinds.items())


def test_few_queries_are_all_listed() -> None:
    data = scored("monotone", 50, 1)
    outcomes = replay_plan(fit_rule(data, 0.03, "threshold").plan, data)
    assert outcomes.paths is not None
    listed = choose_listed(outcomes, outcomes.paths, data, 0.03, seed=0)
    assert (listed.rows == np.arange(50)).all()
    assert (listed.kinds, listed.words) == ({}, "")


def test_the_report_says_what_it_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "LISTED", 40)
    monkeypatch.setattr(decisions, "_OF_A_KIND", 5)
    report = Report.of(POMDPRouter.fit(world(60, k=2), cost_weight=0.03), world(100, seed=4, k=2))
    assert len(report.contents.decisions) == 40
    assert report.contents.queries == 100
    assert "Listed are 40 of 100" in report.to_html()
    assert "Listed are" not in report._repr_html_()
