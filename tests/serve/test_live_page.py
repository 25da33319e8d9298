"""The live page in headless Chromium: what it shows, to whom, and what it asks for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import pytest

from langchain_automix.serve import ApiKey, ServedQuery, ServeSettings
from tests.support.builders.mixes import ACCEPTS
from tests.support.servers.chromium import chromium
from tests.support.servers.chromium_tab import Tab, tab
from tests.support.servers.openai_server import OpenAIServer
from tests.support.servers.serving import MIX, Served, served_mix

pytestmark = pytest.mark.skipif(chromium() is None, reason="there is no Chromium on this machine")

SECRET = "a-key-of-team-a"
HOSTILE = "</td><img src=http://198.51.100.1/x onerror=alert(1)><script>alert(1)</script>"

# What axe calls serious, as far as it can be seen without it.
ACCESSIBLE = """(() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const shown = (node) => node.getClientRects().length > 0;
  const name = (node) => (node.getAttribute("aria-label") || node.innerText || "").trim()
    || [...(node.labels || [])].map((each) => each.innerText).join("");
  const ids = all("[id]").map((each) => each.id);
  const named = (node) => ["aria-labelledby", "aria-describedby", "for"]
    .map((each) => node.getAttribute(each)).filter((id) => id !== null);
  const levels = all("h1,h2,h3").filter(shown).map((h) => +h.tagName[1]);
  const controls = all("button,input,select").filter(shown);
  const focusable = all("summary,a[href],[tabindex='0'],[role=img]").filter(shown);
  const wholeTable = (each) => each.caption && each.querySelector("th[scope=col]");
  return [
    ...[...controls, ...focusable].filter((each) => !name(each)).map((each) => each.outerHTML),
    ...controls.filter((each) => each.getBoundingClientRect().height < 24).map((each) => each.id),
    ...all("table").filter((each) => !wholeTable(each)).map((each) => each.outerHTML),
    ...all("*").flatMap(named).filter((id) => !ids.includes(id)),
    ...ids.filter((id, k) => ids.indexOf(id) < k),
    ...levels.filter((level, k) => level > (levels[k - 1] || 0) + 1),
    ...["html[lang]", "title", "main"].filter((each) => !document.querySelector(each)),
  ];
})()"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Tab]:
    with tab() as opened:
        yield opened


@pytest.fixture
def page(browser: Tab) -> Iterator[Tab]:
    browser.requested.clear()
    browser.complaints.clear()
    browser.resize(1280)
    yield browser
    browser.ask("Page.navigate", url="about:blank")


@pytest.fixture
def shown(running: Served, page: Tab) -> Tab:
    page.open(f"{running.root_url}/")
    page.until("document.getElementById('connection').dataset.is === 'live'")
    page.until("!document.getElementById('live').hidden")
    return page


def text(page: Tab, id: str) -> str:
    return str(page.run(f"document.getElementById({json.dumps(id)}).innerText"))


def rows(page: Tab) -> int:
    return int(page.run("document.querySelectorAll('#rows tbody tr').length"))


def listed(page: Tab, words: str) -> None:
    """Wait until a row shows words."""
    has_words = f"document.getElementById('rows').innerText.includes({json.dumps(words)})"
    page.until(f"document.getElementById('rows').offsetHeight > 0 && {has_words}")


def query(number: int, **fields: Any) -> ServedQuery:
    known: dict[str, Any] = {"outcome": "kept", "model": "small", "why": f"reason {number}"}
    known |= {"cost": Decimal("0.001"), "largest_alone": Decimal("0.004"), "is_estimate": True}
    return ServedQuery(at=1e9 + number, id=f"chatcmpl-{number}", mix=MIX, **{**known, **fields})


def test_from_an_empty_page_to_the_first_query(server: OpenAIServer, page: Tab) -> None:
    with served_mix(server, verifier=ACCEPTS) as running:
        page.open(f"{running.root_url}/")
        page.until("document.getElementById('empty').offsetHeight > 0")
        command = text(page, "curl")
        assert f"curl {running.base_url}/chat/completions" in command
        assert f'"model":"{MIX}"' in command
        running.chat("Who built it?")
        page.until("document.querySelectorAll('#rows tbody tr').length === 1")
        page.until("document.getElementById('empty').offsetHeight === 0")
        found = text(page, "rows")
        [told] = running.told()
        assert told.why is not None
        assert told.why.split(":")[0] in found.replace("\u00a0", " ")
        assert "kept" in found
        assert "small" in found
        assert "estimated" in found
        assert "Who built it?" not in page.run("document.body.innerText")
        assert "less than the largest model alone" in text(page, "sentence")
        assert "1 query" in text(page, "said")
        assert page.complaints == []
        hosts = {urlsplit(url).netloc for url in page.requested}
        assert hosts == {urlsplit(running.root_url).netloc}


def test_costs_that_are_not_known_are_no_0(running: Served, shown: Tab) -> None:
    live = running.state.live
    for number, cost in enumerate((None, Decimal("0.001"))):
        live.observe(query(number, cost=cost, why=HOSTILE, question=HOSTILE))
    live.observe(query(2, outcome="failed", model=None, why=None, status=502, error="model_failed"))
    listed(shown, "model_failed")
    cells = shown.run(
        "[...document.querySelectorAll('#rows tbody tr')].slice(0, 3)"
        ".map((row) => [...row.cells].map((cell) => cell.innerText))"
    )
    failed, known, unknown = cells
    assert (unknown[3], unknown[4]) == ("unknown", "unknown")
    assert known[3].replace("\u00a0", " ") == "0.001 USD"
    assert "estimated" in known[4]
    assert failed[1].split() == ["failed", "no", "answer"]
    assert "Error 502: model_failed" in failed[2]
    assert HOSTILE in known[2]  # as words
    shown.until("document.getElementById('numbers').innerText.includes('1 query is unknown')")
    assert shown.complaints == []


def test_a_phone_a_dark_one_and_what_reads_aloud(running: Served, shown: Tab) -> None:
    running.state.live.observe(query(1, why="w" * 300, model="m" * 80))
    listed(shown, "w" * 300)
    for width in (360, 1280):
        shown.resize(width)
        shown.until(f"innerWidth === {width}")
        assert shown.run("document.documentElement.scrollWidth") <= width
        assert shown.run(ACCESSIBLE) == []
    background = "getComputedStyle(document.body).backgroundColor"
    light = shown.run(background)
    shown.prefer(color_scheme="dark", reduced_motion="reduce")
    assert shown.run(background) != light
    shown.prefer(color_scheme="light")


def test_by_keyboard_alone(running: Served, shown: Tab) -> None:
    live = running.state.live
    live.observe(query(34_567))
    listed(shown, "reason 34567")
    order = []
    for _ in range(6):
        shown.press("Tab")
        order.append(
            shown.run(
                "document.activeElement.id || document.activeElement.getAttribute('aria-label')"
                " || document.activeElement.className"
            )
        )
    assert order == [
        "skip",
        "window",
        "pause",
        "Figures of each mix",
        "Median and 95 % by stage",
        "The latest decisions",
    ]
    shown.run("document.getElementById('pause').focus()")
    shown.press("Enter")
    assert shown.run("document.getElementById('pause').getAttribute('aria-pressed')") == "true"
    live.observe(query(23_456))
    shown.until("document.getElementById('pause').innerText.includes('1 new')")
    assert "reason 23456" not in text(shown, "rows")
    shown.press("Enter")
    listed(shown, "reason 23456")


def test_many_events_leave_the_page_small(running: Served, shown: Tab) -> None:
    live = running.state.live
    for number in range(10_000):
        live.observe(query(number))
    listed(shown, "reason 9999")
    assert rows(shown) == 200
    shown.until("document.getElementById('detail').innerText.includes('10,0')")
    assert shown.run("document.querySelectorAll('*').length") < 5_000


def test_a_key_is_asked_for_kept_in_the_tab_and_forgotten(server: OpenAIServer, page: Tab) -> None:
    settings = ServeSettings(keys=(ApiKey.of("team-a", SECRET),))
    with served_mix(server, settings, verifier=ACCEPTS) as running:
        page.open(f"{running.root_url}/")
        page.until("document.activeElement.id === 'key'")
        page.type("another-key")
        page.press("Enter")
        page.until("document.getElementById('key-said').innerText.includes('not known')")
        page.type(SECRET)
        page.press("Enter")
        page.until("document.getElementById('empty').offsetHeight > 0")
        assert "$AUTOMIX_API_KEY" in text(page, "curl")
        assert page.run("[localStorage.length, document.cookie, location.search]") == [0, "", ""]
        assert SECRET not in "".join(page.requested)
        page.run("document.getElementById('forget').click()")
        page.until("document.activeElement.id === 'key'")
        assert page.run("sessionStorage.length") == 0
        assert MIX not in page.run("document.getElementById('main').innerText").split()


def test_it_comes_again_by_itself_and_says_so(running: Served, shown: Tab) -> None:
    live = running.state.live
    running.state.is_draining = True
    shown.until("document.getElementById('connection').innerText.includes('Trying again')")
    assert text(shown, "connection").startswith("The server has stopped.")
    live.observe(query(12_345))
    running.state.is_draining = False
    shown.run("document.getElementById('retry').click()")
    shown.until("document.getElementById('connection').dataset.is === 'live'")
    listed(shown, "reason 12345")
