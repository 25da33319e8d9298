"""The report as a page: what stands in it, that texts stay texts, and how it opens."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from langchain_automix import AutoMixError, Report
from langchain_automix.report.contents import Contents
from langchain_automix.report.html import page as page_module
from langchain_automix.report.html.page import CHUNK, render_page
from langchain_automix.utils.formatting import format_cost, format_quality, format_signed
from tests.support.builders.reports import HOSTILE, bare, contents, hostile
from tests.support.servers.chromium import chromium, opened

FETCHING = {"src", "srcset", "href", "action", "data", "poster", "background", "ping", "formaction"}
KNOWN = {"a", "article", "body", "button", "caption", "code", "dd", "details", "div", "dl", "dt"}
KNOWN |= {"fieldset", "figcaption", "figure", "footer", "h1", "h2", "h3", "head", "header", "html"}
KNOWN |= {"i", "input", "label", "legend", "li", "link", "main", "meta", "nav", "ol", "option", "p"}
KNOWN |= {"pre", "script", "section", "select", "span", "strong", "style", "summary", "table"}
KNOWN |= {"tbody", "td", "th", "thead", "title", "tr", "ul"}
VOID = {"input", "link", "meta"}


class Page(HTMLParser):
    """A page taken apart: elements with their attributes, blocks by their id, and its text."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.blocks: list[tuple[str, dict[str, str | None], str]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("script", "style"):
            self.blocks.append((tag, dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> where it does not belong"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            tag, attributes, before = self.blocks[-1]
            self.blocks[-1] = (tag, attributes, before + data)
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)

    def data(self, id: str) -> Any:
        [block] = [body for _, attributes, body in self.blocks if attributes.get("id") == id]
        return json.loads(block)

    def decisions(self) -> list[Any]:
        ids = [str(a["id"]) for _, a, _ in self.blocks if str(a.get("id")).startswith("texts-")]
        return [each for id in ids for each in self.data(id)]


MADE = {"plain": contents, "hostile": hostile, "bare": bare}


@pytest.fixture(params=MADE)
def made(request: pytest.FixtureRequest) -> Contents:
    found: Contents = MADE[request.param]()
    return found


def csp_of(page: Page) -> str:
    [policy] = [
        a["content"]
        for tag, a in page.elements
        if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None
    return policy


class TestThePage:
    def test_it_is_whole_and_asks_for_nothing(self, made: Contents) -> None:
        page = Page(render_page(made))
        assert not page.open
        assert {tag for tag, _ in page.elements} <= KNOWN
        for _, attributes in page.elements:
            for name in FETCHING & attributes.keys():
                assert re.match("#|data:,$", attributes[name] or "-"), attributes
            assert not [name for name in attributes if name.startswith("on") or name == "style"]
        style = "".join(body for tag, _, body in page.blocks if tag == "style")
        assert not re.search(r"url\(|@import", style)
        script = "".join(body for tag, a, body in page.blocks if tag == "script" and not a)
        assert not re.search("innerHTML|outerHTML|insertAdjacent|document.write|eval|Func", script)

    def test_its_policy_names_its_own_blocks_only(self, made: Contents) -> None:
        page = Page(render_page(made))
        policy = csp_of(page)
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        for tag, attributes, body in page.blocks:
            if attributes.get("type") == "application/json":
                continue
            digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
            assert f"{tag}-src 'sha256-{digest}'" in policy

    def test_without_script_the_figures_are_there(self) -> None:
        plain = contents()
        page = Page(render_page(plain))
        assert plain.verdict in page.text
        for number in plain.numbers:
            assert number.value in page.text
            assert number.detail in page.text
        for rule in ("always small-0.5b", "always large-70b", "random mixing", "oracle"):
            assert rule in page.text
        for advice in plain.advice:
            assert advice.title in page.text
        assert "+0.018 utility" in page.text
        assert plain.policy_words in page.text
        assert format_quality(plain.point.quality, plain.point.quality_interval) in page.text

    def test_every_chart_has_words_and_a_table(self) -> None:
        page = Page(render_page(contents()))
        charts = [a for _, a in page.elements if "data-chart" in a]
        kinds = [str(a["data-chart"]).split()[0] for a in charts]
        assert kinds == ["plane", "benefit", "reliability", "reliability", "cost"]
        assert all(a["role"] == "img" and len(a["aria-label"] or "") > 40 for a in charts)
        assert sum(tag == "table" for tag, _ in page.elements) == len(charts) + 1 + 1

    def test_headings_and_controls_have_names(self, made: Contents) -> None:
        page = Page(render_page(made))
        ids = [a["id"] for _, a in page.elements if "id" in a]
        assert len(ids) == len(set(ids))
        for tag, a in page.elements:
            for name in ("aria-labelledby", "aria-describedby", "for"):
                assert a.get(name) in {*ids, None}, (tag, a)
            if tag == "a":
                assert str(a["href"])[1:] in ids
        assert sum(tag == "h1" for tag, _ in page.elements) == 1
        assert ("html", {"lang": "en"}) in page.elements

    def test_what_is_unknown_is_said_to_be(self) -> None:
        page = Page(render_page(bare()))
        assert "(AUROC) is undefined here." in page.text
        assert "not measured" in page.text
        assert "Nothing was found that would raise the utility." in page.text
        assert "costs without a unit" in page.text
        none = replace(bare(), reliabilities=())
        assert "The log holds no check" in Page(render_page(none)).text


class TestTheData:
    def test_round_trip(self, made: Contents) -> None:
        page = Page(render_page(made))
        figures, decisions = page.data("report-data"), page.decisions()
        assert figures["queries"] == made.queries
        assert [p["cost"] for p in figures["frontier"]] == [p.cost for p in made.frontier]
        assert len(figures["rows"]) == len(decisions) == len(made.decisions)
        for row, texts, decision in zip(figures["rows"], decisions, made.decisions, strict=True):
            assert row[0] == decision.id
            assert row[2] == decision.model_index
            assert row[7] == list(decision.kinds)
            assert texts["question"] == decision.question
            assert texts["context"] == decision.context
            assert [a["text"] for a in texts["answers"]] == [a.text for a in decision.answers]
            assert [tuple(a["replies"]) for a in texts["answers"]] == [
                a.replies for a in decision.answers
            ]

    def test_blocks_are_of_one_size(self) -> None:
        page = Page(render_page(contents(2 * CHUNK + 3)))
        assert [len(page.data(f"texts-{k}")) for k in range(3)] == [CHUNK, CHUNK, 3]

    def test_no_text_can_end_its_block(self) -> None:
        source = render_page(hostile())
        page = Page(source)
        for tag, attributes, body in page.blocks:
            if tag == "script" and attributes:
                assert not re.search("[<>&\u2028\u2029]", body)
        assert source.encode(errors="strict"), "no lone surrogate is left"
        assert HOSTILE[0] in page.text
        assert HOSTILE[1] in page.text


class TestTexts:
    def test_what_is_not_html_is_escaped_once(self) -> None:
        source = render_page(replace(contents(), models=('<b title="&">', "\x00\ud800&amp;")))
        page = Page(source)
        for words in ('models <b title="&"> → \ufffd\ufffd&amp;', "costs in USD"):
            assert words in page.texts
        assert "b" not in {tag for tag, _ in page.elements}
        assert "&amp;amp;amp;" not in source

    def test_without_jinja2(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setitem(sys.modules, "jinja2", None)
        monkeypatch.setattr(page_module, "_template", page_module._template.__wrapped__)
        report = Report(contents())
        with pytest.raises(AutoMixError, match=r"pip install 'langchain-automix\[report\] @ file:"):
            report.write(tmp_path / "report.html")
        assert not list(tmp_path.iterdir())
        report.write(tmp_path / "report.md")
        assert (tmp_path / "report.md").exists()

    @pytest.mark.parametrize(
        ("cost", "shown"),
        [
            (0.000031, "0.000031"),
            (1.5e-9, "0.0000000015"),
            (0.0, "0"),
            (1234567.0, "1,230,000"),
            (12.0, "12"),
            (None, "unknown"),
        ],
    )
    def test_costs(self, cost: float | None, shown: str) -> None:
        assert format_cost(cost) == shown

    def test_figures(self) -> None:
        assert format_cost(0.5, "USD") == "0.5 USD"
        assert format_signed(-0.0124, (-0.02, 0.0051)) == "-0.012 (-0.020 to +0.005)"
        assert format_signed(-0.0004) == format_signed(0.0) == "0.000"
        assert format_quality(None) == format_signed(None) == "unknown"

    def test_a_minus_is_a_minus(self) -> None:
        lost = replace(contents().baselines[0], utility_difference=-0.0124)
        page = Page(render_page(replace(contents(), baselines=(lost,))))
        assert "\u22120.012 (+0.013 to +0.029)" in page.texts


class TestTheNotebook:
    def test_a_frame_with_some_of_the_decisions(self) -> None:
        report = Report(contents(1_000))
        shown = report._repr_html_()
        [(tag, attributes)] = Page(shown).elements
        assert tag == "iframe"
        assert attributes["sandbox"] == "allow-scripts"
        page = Page(attributes["srcdoc"] or "")
        rows = page.data("report-data")["rows"]
        assert len(rows) == len(page.decisions()) == 200
        places = [int(row[0].removeprefix("q-")) for row in rows]
        assert places == sorted(places)
        wrong = [d for d in report.contents.decisions if {*d.kinds} - {"saved"}]
        assert sum(bool({*row[7]} - {"saved"}) for row in rows) == min(200, len(wrong))

    def test_its_words(self) -> None:
        report = Report(contents())
        assert repr(report).startswith("Report(60 queries: The policy answers as well")
        assert str(report).count("\n") == 3

    def test_a_file_is_written_whole(self, tmp_path: Path) -> None:
        path = tmp_path / "report.html"
        path.write_text("before")
        Report(hostile()).write(path)
        assert Page(path.read_text(encoding="utf-8")).data("report-data")["queries"] == 30
        assert [each.name for each in tmp_path.iterdir()] == ["report.html"]


LOOK = """
const all = (which) => [...document.querySelectorAll(which)];
all("button.open").forEach((button) => button.click());
all("details").forEach((each) => { each.open = true; });
const found = {
  pwned: window.pwned === undefined ? "no" : "yes",
  rows: all(".decisions tbody tr").length,
  answers: all(".text.answer, .opened .note").map((each) => each.textContent),
  drawn: all(".chart svg").length,
  wide: document.documentElement.scrollWidth - window.innerWidth,
};
const range = document.getElementById("stop");
if (range.max > 0) {
  const before = [document.getElementById("chosen").textContent,
    document.querySelector("circle.policy").getAttribute("cx")];
  range.value = 1;
  range.dispatchEvent(new Event("input"));
  found.moved = document.getElementById("chosen").textContent !== before[0]
    && document.querySelector("circle.policy").getAttribute("cx") !== before[1];
}
all("input[name=kind]")[1].click();
found.filtered = all(".decisions tbody tr:not(.more)").length;
found.count = Number(all(".chip b")[1].textContent);
// What the page would still say in a moment has no place to be said any more.
for (let timer = setTimeout(() => {}); timer > 0; timer -= 1) clearTimeout(timer);
document.body.replaceChildren(JSON.stringify(found));
"""


def looked_at(made: Contents, folder: Path, width: int) -> tuple[Any, tuple[str, ...]]:
    """Open a page that looks at itself; its policy lets in this one script more."""
    digest = base64.b64encode(hashlib.sha256(LOOK.encode()).digest()).decode()
    source = render_page(made).replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
    path = folder / "page.html"
    path.write_text(source.replace("</body>", f"<script>{LOOK}</script></body>"), encoding="utf-8")
    found = opened(path, width=width)
    body = found.dom[found.dom.index("<body>") + 6 : found.dom.index("</body>")]
    words = "".join(Page(f"<p>{body}</p>").texts)
    return json.loads(words), found.complaints


@pytest.mark.skipif(chromium() is None, reason="no Chromium is on PATH")
class TestInABrowser:
    def test_that_complaints_are_seen(self, tmp_path: Path) -> None:
        path = tmp_path / "bad.html"
        path.write_text("<!doctype html><script>console.error('seen')</script>")
        assert "seen" in opened(path).complaints[0]

    @pytest.mark.parametrize("width", [1280, 500])
    def test_it_works_and_complains_of_nothing(
        self, made: Contents, tmp_path: Path, width: int
    ) -> None:
        found, complaints = looked_at(made, tmp_path, width)
        assert complaints == ()
        assert found["pwned"] == "no"
        assert found["wide"] <= 0
        assert found["rows"] == 2 * min(25, len(made.decisions))
        assert found["drawn"] == 2 + len(made.benefits) + len(made.reliabilities)
        assert found.get("moved", len(made.frontier) == 1)
        wanted = sum("escalated_wrong" in decision.kinds for decision in made.decisions)
        assert found["count"] == wanted
        assert found["filtered"] == min(25, wanted)

    def test_hostile_texts_are_shown_as_they_are(self, tmp_path: Path) -> None:
        found, _ = looked_at(hostile(), tmp_path, 1280)
        for each in HOSTILE[:4] + HOSTILE[5:8]:
            assert each in found["answers"]
        assert "An empty answer." in found["answers"]
