"""Render a report over time as one self-contained HTML page that makes no request."""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any

from langchain_automix._version import __version__
from langchain_automix.report.html.assets import asset, content_policy, open_template, to_json
from langchain_automix.report.timeline.contents import Span, Timeline
from langchain_automix.report.timeline.words import WORDS, span_time
from langchain_automix.utils.formatting import format_quality, format_time

if TYPE_CHECKING:
    from jinja2 import Template

_STYLES = ("page.css", "timeline.css")
_SCRIPTS = ("base.js", "axes.js", "timeline.js")

_DECIDERS = {
    "observe": "observe: the largest model answers",
    "warm-up": "warm-up: the largest model answers",
    "policy": "version {} of the policy decides",
}


def render_timeline(contents: Timeline) -> str:
    """Render the report as an HTML page.

    Every figure is in the page itself; its script draws the charts and the slider. Its content
    policy forbids all requests and any script but its own.

    Raises:
        AutoMixError: jinja2 is not installed.
    """
    style, script = "\n".join(map(asset, _STYLES)), "\n".join(map(asset, _SCRIPTS))
    return _template().render(
        contents=contents,
        content_policy=content_policy(style, script),
        decider=_DECIDERS[contents.stage].format(contents.version),
        style=style,
        script=script,
        figures=to_json(_figures(contents)),
        version=__version__,
        words=WORDS,
    )


@cache
def _template() -> Template:
    return open_template(
        "timeline.html.jinja",
        meaning=lambda word: WORDS.get(word[:1].upper() + word[1:], ""),
        quality=_quality,
        begin=span_time,
        time=format_time,
        decider=_decider,
        whole=lambda text: text.replace(" %", "\u00a0%"),  # keep figures on one line
    )


def _quality(span: Span, source: str) -> str:
    graded = span.quality.get(source)
    return "" if graded is None else format_quality(graded.quality, graded.interval)


def _decider(span: Span) -> str:
    return f"version {span.version}" if span.version else "largest model"


def _figures(contents: Timeline) -> dict[str, Any]:
    """Return the data for the charts and the slider."""
    return {
        "currency": contents.currency,
        "sources": contents.sources,
        "words": WORDS,
        "spans": [
            {**asdict(span), "name": span_time(span), "decider": _decider(span)}
            for span in contents.spans
        ],
        "marks": [
            {
                "at": change.at,
                "kind": "alarm" if change.kind == "alarm" else "version",
                "name": _mark(change.version),
                "text": change.text,
            }
            for change in contents.changes
            if change.version is not None or change.kind == "alarm"
        ],
    }


def _mark(version: int | None) -> str:
    if version is None:
        return "alarm"
    return f"version {version}" if version else "largest model"
