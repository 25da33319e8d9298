"""The report as one HTML page, which holds all that it needs and asks for nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from itertools import islice
from string import Template
from typing import Any

from langchain_automix._version import __version__
from langchain_automix.report.contents import Contents, LoggedDecision
from langchain_automix.report.html import sections
from langchain_automix.report.html.markup import Html, text

CHUNK = 200
"""Decisions in one block of data; a block is read when one of its rows is opened."""

_QUESTION = 180
"""Characters of a question that stand in its row."""

_UNSAFE = re.compile("[<>&\u2028\u2029\ud800-\udfff]")
_SCRIPTS = ("page.js", "charts.js", "decisions.js")


def page_of(contents: Contents) -> str:
    """Return the report as a page of HTML.

    Every figure stands in the page itself; the charts, the slider and the table of decisions are
    drawn by its script. A policy for its content forbids any request, and any script but its
    own. Texts of the log are data, and are shown as text.
    """
    style, script = _asset("page.css"), _script()
    return Template(_asset("page.html")).substitute(
        title=text(f"AutoMix report: {' → '.join(contents.models)}"),
        csp=text(_content_policy(style, script)),
        style=style,
        script=script,
        data=_json(_figures(contents)),
        texts="\n".join(_blocks(contents.decisions)),
        version=text(__version__),
        **_parts(contents),
    )


def _parts(contents: Contents) -> dict[str, Html]:
    return {
        "about": sections.about(contents),
        "verdict": sections.verdict(contents),
        "numbers": sections.numbers(contents),
        "labels": text(contents.labels.text),
        "plane_words": text(sections.plane_words(contents)),
        "baselines": sections.baselines(contents),
        "frontier": sections.frontier(contents),
        "checks": sections.checks(contents),
        "cost_words": text(sections.cost_words(contents)),
        "cost_split": sections.cost_split(contents),
        "advice": sections.advice(contents),
        "policy": text(contents.policy_words),
        "notes": sections.notes(contents),
        "words": sections.words(),
    }


@cache
def _asset(name: str) -> str:
    return (files("langchain_automix.report.html") / name).read_text(encoding="utf-8")


@cache
def _script() -> str:
    return "\n".join(map(_asset, _SCRIPTS))


def _content_policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _digest(block: str) -> str:
    found = hashlib.sha256(block.encode()).digest()
    return f"sha256-{base64.b64encode(found).decode()}"


def _json(value: Any) -> str:
    """Return JSON that HTML cannot take for anything else."""
    plain = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", plain)


def _figures(contents: Contents) -> dict[str, Any]:
    """Return what the charts and the rows of the table show."""
    return {
        "currency": contents.currency,
        "queries": contents.queries,
        "models": contents.models,
        "costWeight": contents.cost_weight,
        "point": asdict(contents.point),
        "baselines": [
            {**asdict(b), "label": sections.rule_label(b.name)} for b in contents.baselines
        ],
        "frontier": [asdict(p) for p in contents.frontier],
        "benefits": [asdict(b) for b in contents.benefits],
        "reliabilities": [asdict(r) for r in contents.reliabilities],
        "costSplit": [asdict(part) for part in contents.cost_split],
        "chunk": CHUNK,
        "rows": [_row(decision) for decision in contents.decisions],
    }


def _row(decision: LoggedDecision) -> list[Any]:
    """Return what stands in a decision's row: short, because all rows are read at once."""
    question = decision.question
    if question is not None and len(question) > _QUESTION:
        question = f"{question[:_QUESTION]}…"
    return [
        decision.id,
        question,
        decision.model_index,
        sum(answer.asked for answer in decision.answers),
        _short(decision.confidence),
        _short(decision.quality),
        _short(decision.cost),
        decision.kinds,
    ]


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _blocks(decisions: tuple[LoggedDecision, ...]) -> Iterator[str]:
    """Yield the texts of the decisions, some of them to a block."""
    rest = iter(decisions)
    number = 0
    while some := list(islice(rest, CHUNK)):
        body = _json([_texts(decision) for decision in some])
        yield f'<script type="application/json" id="texts-{number}">{body}</script>'
        number += 1


def _texts(decision: LoggedDecision) -> dict[str, Any]:
    return {
        "question": decision.question,
        "context": decision.context,
        "references": decision.references,
        # By hand: asdict copies every text, which takes seconds for a large log.
        "answers": [vars(answer) for answer in decision.answers],
    }
