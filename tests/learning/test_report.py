"""The report of a store: the answer to a team's question, and figures over time in each form."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed (extra `learning`)")

from langchain_automix import AutoMixError, POMDPRouter
from langchain_automix.learning.records import Event, GradeRecord, QueryRecord, Record, StoredQuery
from langchain_automix.learning.report import report_of
from langchain_automix.learning.review_settings import ReviewSettings
from langchain_automix.learning.spans import spans_of
from langchain_automix.learning.store.store import LearningStore
from langchain_automix.report.timeline.contents import FIRST_MODEL, Change, Timeline
from langchain_automix.report.timeline.plots import (
    plot_cost_over_time,
    plot_escalations_over_time,
    plot_quality_over_time,
)
from langchain_automix.report.timeline.report import TimelineReport
from tests.support.builders.stores import version
from tests.support.builders.synthetic_logs import world
from tests.support.builders.traffic import CHECK_COST, LARGE_COST, SMALL_COST, START, traffic
from tests.support.servers.chromium import chromium, opened

LOSES_LITTLE = ReviewSettings(max_loss=0.05)


@pytest.fixture
def store(tmp_path: Path) -> LearningStore:
    return LearningStore.open(f"sqlite:///{tmp_path / 'automix.db'}")


def reported(
    store: LearningStore, records: Iterable[Record], settings: ReviewSettings = LOSES_LITTLE
) -> Timeline:
    store.add(list(records))
    return report_of(store, settings).contents


def promoted(store: LearningStore, at: float) -> int:
    """Have a version decide since a time; the database's clock says when."""
    router = POMDPRouter.fit(world(200), cost_weight=0.03)
    policy = router.policy.model_dump_json(by_alias=True)
    number = store.add_version(version(policy=policy, at=at - 1))
    store._database.now = lambda _: at  # type: ignore[method-assign,assignment]
    store.promote(number, "It was proven.")
    return number


class TestTheAnswer:
    def test_what_would_have_been_saved(self, store: LearningStore) -> None:
        found = reported(store, traffic(800, stage="observe", told=1.0, share=0.9))
        assert re.fullmatch(
            r"You would have saved \d+ % \[\d+, \d+\] and lost at most [\d.]+ points with 95 %\.",
            found.answer,
        )
        saving = found.saving
        assert saving is not None
        assert saving.is_shown
        assert saving.more is None
        # Asking the small model first and keeping what its check accepts costs about this.
        cost = SMALL_COST + CHECK_COST + 0.33 * LARGE_COST
        assert saving.saved == pytest.approx(1 - cost / LARGE_COST, abs=0.15)
        assert saving.interval[0] < saving.saved < saving.interval[1]
        assert saving.lost is not None
        assert saving.lost_at_most is not None
        assert saving.lost < saving.lost_at_most <= 0.05
        assert saving.queries == found.labels < found.queries == 800

    def test_how_much_more_traffic_it_takes(self, store: LearningStore) -> None:
        found = reported(store, traffic(400, told=1.0), ReviewSettings(max_loss=0.01))
        assert found.saving is not None
        assert not found.saving.is_shown
        more = found.saving.more
        assert more is not None
        assert found.answer.endswith(f"to show at most 1 point takes about {more:,} queries more.")

    def test_the_bound_of_the_loss_holds(self, tmp_path: Path) -> None:
        """What six reports say of a loss at most is seldom below what they find on average."""
        lost, most = [], []
        for seed in range(6):
            store = LearningStore.open(f"sqlite:///{tmp_path / f'{seed}.db'}")
            saving = reported(store, traffic(130, told=0.9, seed=seed)).saving
            assert saving is not None
            assert saving.lost is not None
            assert saving.lost_at_most is not None
            lost.append(saving.lost)
            most.append(saving.lost_at_most)
        assert sum(bound < np.mean(lost) for bound in most) <= 1

    def test_too_early(self, store: LearningStore) -> None:
        found = reported(store, traffic(60, share=0.5))
        assert found.saving is None
        assert found.answer.startswith(f"It is too early to tell: {found.labels} queries were seen")
        assert f"takes {100 - found.labels} more such queries." in found.answer
        assert [number.value for number in found.numbers[:2]] == ["unknown", "unknown"]

    def test_without_any_cost(self, store: LearningStore) -> None:
        found = reported(store, traffic(150, costs=False))
        assert found.labels == 0
        assert found.saving is None
        assert found.answer.startswith("It is too early to tell: 0 queries were seen in full")
        assert any("The cost of 150 queries is unknown" in note for note in found.notes)
        assert found.spans[0].cost is None

    def test_what_a_version_saves(self, store: LearningStore) -> None:
        store.add(list(traffic(200)))
        number = promoted(store, START + 200 * 600 - 1)
        policy = traffic(3_000, first=200, stage="policy", version=number, share=0.2, told=1.0)
        found = reported(store, policy)
        assert found.stage == "policy"
        saving = found.saving
        assert saving is not None
        assert saving.version == number
        assert saving.queries == 3_000
        queries = [each.query for each in store.read("e")[0] if each.query.stage == "policy"]
        cost, alone = (sum(getattr(q, name) for q in queries) for name in ("cost", "alone"))
        assert saving.saved == pytest.approx(1 - cost / alone)
        assert found.answer.startswith(f"Version {number} saves ")
        assert saving.lost_at_most is not None
        assert f"most {np.ceil(saving.lost_at_most * 1000 - 1e-6) / 10:.1f} point" in found.answer

    def test_a_version_without_shadows_is_not_praised(self, store: LearningStore) -> None:
        store.add(list(traffic(200)))
        number = promoted(store, START + 200 * 600 - 1)
        policy = traffic(300, first=200, stage="policy", version=number, share=0.0)
        found = reported(store, policy)
        assert found.saving is not None
        assert found.saving.lost_at_most is None
        assert not found.saving.is_shown
        assert "at most 5 points is not shown yet" in found.answer

    def test_labels_of_other_sources_correct_agreement(self, store: LearningStore) -> None:
        store.add(list(traffic(300, told=1.0)))
        plain = report_of(store, LOSES_LITTLE).contents.saving
        # People find every tenth answer of the small model right, whatever the large one says.
        records = [GradeRecord(f"q{i}", 0, 1.0, "feedback", START) for i in range(0, 300, 3)]
        found = reported(store, records)
        assert plain is not None
        assert found.saving is not None
        assert found.saving.saved > plain.saved + 0.1
        assert "corrected by 100 grades of other sources" in found.detail

    def test_traffic_before_an_alarm_is_no_evidence(self, store: LearningStore) -> None:
        store.add(list(traffic(300)))
        store.add([Event(START + 250 * 600, "e", "alarm", "The cost has changed.", {})])
        found = report_of(store, LOSES_LITTLE).contents
        assert found.saving is None
        assert "49 queries were seen in full since the traffic has changed" in found.answer


class TestOverTime:
    def test_spans_hold_every_query_once(self, store: LearningStore) -> None:
        found = reported(store, traffic(1_000, seconds=3_600))
        assert sum(span.queries for span in found.spans) == 1_000
        assert len(found.spans) <= 60
        assert all(a.end <= b.start for a, b in zip(found.spans, found.spans[1:], strict=False))
        assert {span.end - span.start for span in found.spans} == {86_400.0}

    @pytest.mark.parametrize("seconds", [0.0, 0.001, 1.0, 60.0, 1e5, 1e7])
    def test_any_length_of_time(self, store: LearningStore, seconds: float) -> None:
        found = reported(store, traffic(90, seconds=seconds))
        assert 1 <= len(found.spans) <= 60
        assert sum(span.queries for span in found.spans) == 90
        page = TimelineReport(found).to_html()
        assert page.count("<section") >= 2

    def test_figures_of_a_span(self, store: LearningStore) -> None:
        store.add(list(traffic(50, stage="policy", version=3, share=0.5, seconds=1.0, told=1.0)))
        stored = store.read("e")[0]
        [span] = spans_of([_moved(each, START) for each in stored])
        queries = [each.query for each in stored]
        assert span.cost == pytest.approx(np.mean([q.cost for q in queries]))
        assert span.alone == pytest.approx(np.mean([q.alone for q in queries]))
        assert span.escalated == pytest.approx(np.mean([q.kept == 1 for q in queries]))
        assert (span.version, span.decided) == (3, 1.0)
        assert span.shadows == pytest.approx(sum(s.shadow_cost or 0 for s in stored))

    def test_agreement_is_weighed_by_its_chance(self, tmp_path: Path) -> None:
        """Of kept answers a tenth is graded, of escalated ones all: the mean is of all answers."""
        errors, naive = [], []
        for seed in range(30):
            store = LearningStore.open(f"sqlite:///{tmp_path / f'{seed}.db'}")
            made = list(traffic(400, stage="policy", share=0.1, told=0.5, seconds=0.001, seed=seed))
            store.add(made)
            everything = traffic(400, stage="policy", share=1.0, told=0.5, seconds=0.001, seed=seed)
            [span] = spans_of([_moved(each, START) for each in store.read("e")[0]])
            store = LearningStore.open(f"sqlite:///{tmp_path / f'{seed}-all.db'}")
            store.add(list(everything))
            [whole] = spans_of([_moved(each, START) for each in store.read("e")[0]])
            true = whole.quality["agreement"].quality
            errors.append(span.quality["agreement"].quality - true)
            graded = [r.quality for r in made if isinstance(r, GradeRecord) and r.model == 0]
            naive.append(span.quality[FIRST_MODEL].quality - float(np.mean(graded)))
        assert abs(np.mean(errors)) < 3 * np.std(errors) / 30**0.5 + 0.005
        assert np.mean(np.abs(naive)) > 0.01

    def test_versions_and_alarms_are_marked(self, store: LearningStore) -> None:
        store.add(list(traffic(150)))
        number = promoted(store, START + 1_000)
        store.add([Event(START + 2_000, "e", "alarm", "The cost has changed.", {})])
        store._database.now = lambda _: START + 3_000  # type: ignore[method-assign,assignment]
        store.rollback("e", "It lost.")
        found = report_of(store).contents
        moved = [(c.kind, c.version) for c in found.changes if c.version is not None]
        assert moved == [("promoted", number), ("rolled back", 0)]
        assert [c.text for c in found.changes if c.kind == "alarm"] == ["The cost has changed."]
        assert [row.status for row in found.versions] == ["rolled back"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Timeline:
    store = LearningStore.open(f"sqlite:///{tmp_path_factory.mktemp('store') / 'automix.db'}")
    store.add(list(traffic(300, seconds=3_600)))
    number = promoted(store, START + 300 * 3_600 - 1)
    store.add(
        list(traffic(400, first=300, stage="policy", version=number, share=0.3, seconds=3600))
    )
    store.add([GradeRecord(f"q{i}", 1, 0.5, "langsmith:tone", START) for i in range(0, 300, 9)])
    store.add([Event(START + 1.5e6, "e", "alarm", "The cost has changed.", {})])
    return report_of(store, LOSES_LITTLE).contents


HOSTILE = "</script><script>window.pwned = 1</script> | [a](http://b) <img src=x>"


def hostile(made: Timeline) -> Timeline:
    change = Change(made.first + 10, "promoted", HOSTILE, 3)
    return replace(made, models=(HOSTILE, "large"), changes=(change,), notes=(HOSTILE,))


class TestForms:
    def test_markdown(self, made: Timeline) -> None:
        text = TimelineReport(made).to_markdown()
        assert made.answer.split(" [")[0] in text
        assert "langsmith:tone" in text
        assert "| 1 | " in text
        assert "The cost has changed." in text
        widths = {line.count(" | ") for line in text.splitlines() if line.startswith("| 20")}
        assert widths <= {2, 5 + len(made.sources)}

    def test_markdown_of_what_is_hostile(self, made: Timeline) -> None:
        text = TimelineReport(hostile(made)).to_markdown()
        assert r"\<script\>" in text
        assert not re.search(r"(?<!\\)[<>\[\]]", text)

    def test_words(self, made: Timeline) -> None:
        said = str(TimelineReport(made))
        assert said.startswith(f"{made.answer}\n")
        assert "Spent on shadows: $0." in said

    def test_json(self, made: Timeline) -> None:
        plain = json.loads(json.dumps(TimelineReport(made).figures(), allow_nan=False))
        assert plain["answer"] == made.answer
        assert len(plain["spans"]) == len(made.spans)
        assert plain["saving"]["version"] == made.version

    def test_the_page_asks_for_nothing(self, made: Timeline) -> None:
        source = TimelineReport(hostile(made)).to_html()
        assert "default-src 'none'" in unescape(source)
        assert "window.pwned = 1</script>" not in source
        assert "<img" not in source
        assert not re.search(r"(?:src|href)=\"(?!#|data:)", source)

    def test_a_notebook_gets_a_frame(self, made: Timeline) -> None:
        assert TimelineReport(made)._repr_html_().startswith("<iframe srcdoc=")

    def test_plots(self, made: Timeline, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib")
        for draw in (plot_cost_over_time, plot_quality_over_time, plot_escalations_over_time):
            figure = draw(made)
            [axes] = figure.axes
            # One line for the promotion and one for the alarm, beside the series.
            upright = [line for line in axes.lines if len(set(line.get_xdata())) == 1]  # type: ignore[arg-type]
            assert len(upright) >= 2
            figure.savefig(tmp_path / f"{draw.__name__}.png")
        with pytest.raises(AutoMixError, match="known cost"):
            plot_cost_over_time(replace(made, spans=()))
        with pytest.raises(AutoMixError, match="graded"):
            plot_quality_over_time(replace(made, sources=()))


LOOK = """
const all = (which) => [...document.querySelectorAll(which)];
const range = document.getElementById("stop");
const place = () => all(".cursor").map((each) => each.getAttribute("x1")).join(" ");
const found = {
  pwned: window.pwned === undefined ? "no" : "yes",
  drawn: all(".chart svg").length,
  wide: document.documentElement.scrollWidth - window.innerWidth,
  stops: Number(range.max) + 1,
  marks: all(".chart .mark").length,
  alarms: all(".chart .alarm").length,
};
const before = [document.getElementById("chosen").textContent, place()];
range.focus();
found.focused = document.activeElement === range;
range.stepDown(3);
range.dispatchEvent(new Event("input"));
found.moved = document.getElementById("chosen").textContent !== before[0] && place() !== before[1];
found.said = range.getAttribute("aria-valuetext");
document.body.replaceChildren(JSON.stringify(found));
"""


@pytest.mark.skipif(chromium() is None, reason="no Chromium is on PATH")
class TestInABrowser:
    @pytest.mark.parametrize("width", [1280, 500])
    @pytest.mark.parametrize("change", [replace, hostile])
    def test_it_works_and_complains_of_nothing(
        self, made: Timeline, tmp_path: Path, width: int, change: Any
    ) -> None:
        shown = change(made)
        digest = base64.b64encode(hashlib.sha256(LOOK.encode()).digest()).decode()
        source = TimelineReport(shown).to_html()
        source = source.replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
        path = tmp_path / "page.html"
        path.write_text(
            source.replace("</body>", f"<script>{LOOK}</script></body>"), encoding="utf-8"
        )
        page = opened(path, width=width)
        body = re.search(r"<body>(.*)</body>", page.dom, re.DOTALL)
        assert body is not None
        found = json.loads(body[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
        assert page.complaints == ()
        assert found["pwned"] == "no"
        assert found["wide"] <= 0
        assert found["drawn"] == 2 + len(shown.sources)
        assert found["stops"] == len(shown.spans)
        assert found["marks"] == found["drawn"]
        assert found["alarms"] == (found["drawn"] if change is replace else 0)
        assert found["focused"]
        assert found["moved"]
        assert "Cost" in found["said"]


def _moved(each: StoredQuery, at: float) -> StoredQuery:
    query: QueryRecord = replace(each.query, at=at)
    return replace(each, query=query)
