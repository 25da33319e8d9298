"""A report as Markdown: all of it there, and nothing in a log can break it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from langchain_automix import POMDPRouter
from langchain_automix.evaluation.recommendation import Recommendation
from langchain_automix.report.contents import Advice, Contents, Point
from langchain_automix.report.markdown import render_markdown
from langchain_automix.report.measure import measure
from tests.support.builders.synthetic_logs import world


@pytest.fixture(scope="module")
def contents() -> Contents:
    policy = POMDPRouter.fit(world(200, k=3), cost_weight=0.03).policy
    return measure(policy, world(40, seed=3, k=3))


def unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def test_all_of_it_is_there(contents: Contents) -> None:
    text = unescaped(render_markdown(contents))
    assert contents.recommendation is not None
    assert contents.headline is not None
    assert text.splitlines()[2] == f"**{contents.recommendation.text}**"
    assert contents.headline.describe() in text
    assert f"### What shares of {contents.headline.against}'s quality cost" in text
    assert contents.verdict in text
    for number in contents.numbers:
        assert f"| {number.label} | {number.value} | {number.detail} |" in text
    for point in contents.baselines:
        assert f"| {point.name} | {point.quality:.4f} | {point.cost:.4g} |" in text
    for advice in contents.advice:
        assert advice.text in text
    for note in contents.notes:
        assert f"- {note}" in text
    assert contents.labels.text in text


def test_every_row_of_a_table_has_its_cells(contents: Contents) -> None:
    evil = "a|b\n| x |\r\n\n# <img src=x> @team [l](http://e) `c` \\| $x$"
    assert contents.headline is not None
    contents = replace(contents, recommendation=Recommendation("keep", "Keep it.", detail="So."))
    assert contents.headline is not None
    worse = replace(
        contents,
        headline=replace(contents.headline, against=evil),
        recommendation=Recommendation("keep", evil, evil, detail=evil),
        currency=evil,
        verdict=evil,
        baselines=(Point(name=evil, cost=1.0, quality=0.5, utility_difference=0.1),),
        advice=(Advice(evil, 0.1, evil),),
        notes=(evil,),
    )
    text = render_markdown(worse)
    assert len(render_markdown(contents).splitlines()) - len(text.splitlines()) == (
        len(contents.baselines) - 1 + len(contents.advice) - 1 + len(contents.notes) - 1
    )
    sizes = [
        len(re.findall(r"(?<!\\)\|", re.sub(r"\\\\", "", line)))
        for line in text.splitlines()
        if line.startswith("|")
    ]
    assert set(sizes) == {4, 6, 7}
    bare = re.sub(r"\\.", "", text)
    for mark in ("<", "@", "[", "`", "$"):
        assert mark not in bare
