"""Render a report as one self-contained HTML page that makes no request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any

from langchain_automix._version import __version__
from langchain_automix.evaluation.cost_at_quality import COST_TABLE_WORDS, cost_table
from langchain_automix.report.contents import Contents, LoggedDecision, Point
from langchain_automix.report.html.assets import asset, content_policy, open_template, to_json
from langchain_automix.utils.formatting import format_quality, format_signed

if TYPE_CHECKING:
    from jinja2 import Template

CHUNK = 200
"""Number of decisions in one block of data; a block is parsed when one of its rows is opened."""

_LONGEST_QUESTION = 180
"""Maximum number of characters of a question shown in its row."""

_SCRIPTS = ("base.js", "page.js", "axes.js", "charts.js", "decisions.js")
_RULES = {
    "random_mix": "random mixing",
    "threshold": "one threshold",
    "double_threshold": "two thresholds",
    "released": "released AutoMix rule",
}

_WORDS = {
    "Quality": "How good an answer is, from 0 to 1, by the labels in the log.",
    "Cost": "Mean cost of a query: all answers and all checks, of every model that was asked.",
    "Cost weight": "How much quality one unit of cost is worth.",
    "Utility": "Quality less cost weight times cost: one number for both.",
    "Gain in utility by the policy": "Utility of the policy less that of the rule in this row, and "
    "its 95 % interval; above 0 the policy is better.",
    "Check": "The model's answer is examined; each verdict accepts it, rejects it, or says nothing "
    "usable (invalid). A check may give a score instead.",
    "Confidence": "The raw number of a check, such as the share of verdicts that accept. It is no "
    "probability unless the diagram says so.",
    "Stated": "The confidence, or the belief, in answers of about the same.",
    "Actual quality": "Mean quality of those answers; as stated, if the confidence can be trusted.",
    "ECE": "Expected calibration error: how far what is stated is from the quality, on average.",
    "AUROC": "The chance that the check is surer of a right answer than of a wrong one; 0.5 is "
    "chance, 1 is never wrong.",
    "Benefit": "Quality of the larger model's answer less quality of this one. Escalating pays "
    "where it is above the price of the larger model.",
    "Standard error": "How far the benefit may be off by chance; twice as much is rare.",
    "Escalated": "Share of the queries on which more than one model is asked.",
    "Verdicts drawn": "Mean number of verdicts of the check that are paid for on a query.",
    "Frontier": "The policies on offer, from cheap to good: none of them is beaten by another in "
    "both cost and quality.",
    "Asked": "A share of the quality of the best single model.",
    "Got": "The share of it that the policy reached, on queries that had no part in its choice.",
    "Random mixing": "Sends a random share of the queries to the largest model, at the same cost. "
    "A policy that reads its checks well lies above that line.",
    "One threshold": "Keeps the small model's answer where the confidence in it reaches a number.",
    "Two thresholds": "Asks the large model where the confidence lies between two numbers: below, "
    "no model may help.",
    "Released AutoMix rule": "The rule of the code that was published with the AutoMix paper.",
    "Oracle": "Knows the qualities beforehand and picks the best model for each query. No rule can "
    "reach it; it shows how much there is to gain.",
    "Interval": "95 %: the range that would hold the true mean for 95 of 100 such logs.",
    "Cross-fitted": "Every query is judged by a policy that was fitted without it.",
    "Held out": "The policy itself, on another log than the one that it was fitted to; queries "
    "that stand in both would flatter it.",
}
"""The words on the page that need explaining: for the list at its end, and where they occur."""

_SAME_WORDS = {
    "Cost of a query": "Cost",
    "Released rule": "Released AutoMix rule",
    "Policy": "Frontier",
}


def render_page(contents: Contents) -> str:
    """Render the report as an HTML page.

    Every figure is in the page itself; its script draws the charts, the slider and the table of
    decisions. Its content policy forbids all requests and any script but its own. Texts from the
    log are treated as data, and shown as text.

    Raises:
        AutoMixError: jinja2 is not installed.
    """
    style, script = asset("page.css"), "\n".join(map(asset, _SCRIPTS))
    return _template().render(
        contents=contents,
        content_policy=content_policy(style, script),
        cost_rows=_cost_rows(contents),
        share_words=COST_TABLE_WORDS,
        words=_WORDS,
        style=style,
        script=script,
        figures=to_json(_figures(contents)),
        texts=_text_blocks(contents.decisions),
        version=__version__,
    )


@cache
def _template() -> Template:
    return open_template(
        "page.html.jinja",
        meaning=_meaning,
        quality=format_quality,
        rule=_label_rule,
        signed=lambda *numbers: format_signed(*numbers).replace("-", "\u2212"),
        standing=_describe_standing,
    )


def _label_rule(name: str) -> str:
    if name.startswith("always:"):
        return f"always {name.removeprefix('always:')}"
    return _RULES.get(name, name)


def _meaning(term: str) -> str:
    """Return the sentence that explains a word, or an empty text if it needs none."""
    capital = term[:1].upper() + term[1:]
    return _WORDS.get(_SAME_WORDS.get(capital, capital), "")


def _cost_rows(contents: Contents) -> tuple[list[str], list[tuple[str, ...]]] | None:
    """Return the cost of shares of the best quality, as heads and rows; None if unknown."""
    if not contents.cost_at_quality or contents.headline is None:
        return None
    heads, rows = cost_table(contents.cost_at_quality)
    return [head[0].upper() + head[1:] for head in heads], rows


def _describe_standing(baseline: Point) -> str:
    """Describe how the policy compares with a baseline."""
    if baseline.name == "oracle":
        return "out of its reach"
    if baseline.utility_interval is None:
        return "not measured"
    low, high = baseline.utility_interval
    if low > 0:
        return "better"
    return "worse" if high < 0 else "not shown to differ"


def _figures(contents: Contents) -> dict[str, Any]:
    """Return the data for the charts and the rows of the table."""
    return {
        "currency": contents.currency,
        "queries": contents.queries,
        "models": contents.models,
        "costWeight": contents.cost_weight,
        "point": asdict(contents.point),
        "baselines": [{**asdict(b), "label": _label_rule(b.name)} for b in contents.baselines],
        "frontier": [asdict(p) for p in contents.frontier],
        "benefits": [asdict(b) for b in contents.benefits],
        "reliabilities": [asdict(r) for r in contents.reliabilities],
        "costSplit": [asdict(part) for part in contents.cost_split],
        "chunk": CHUNK,
        "rows": [_row(decision) for decision in contents.decisions],
        "kinds": dict(contents.kinds),
        "sample": contents.sample,
        "words": _WORDS,
    }


def _row(decision: LoggedDecision) -> list[Any]:
    """Return the data of a decision's row; it is short, since all rows are parsed at once."""
    question = decision.question
    if question is not None and len(question) > _LONGEST_QUESTION:
        question = f"{question[:_LONGEST_QUESTION]}…"
    numbers = (decision.confidence, decision.quality, decision.cost)
    return [
        decision.id,
        question,
        decision.model_index,
        sum(answer.asked for answer in decision.answers),
        *(None if number is None else float(f"{number:.6g}") for number in numbers),
        decision.kinds,
    ]


def _text_blocks(decisions: tuple[LoggedDecision, ...]) -> Iterator[str]:
    """Yield the texts of the decisions as JSON, `CHUNK` decisions per block."""
    for start in range(0, len(decisions), CHUNK):
        yield to_json([_texts(decision) for decision in decisions[start : start + CHUNK]])


def _texts(decision: LoggedDecision) -> dict[str, Any]:
    return {
        "question": decision.question,
        "context": decision.context,
        "references": decision.references,
        # Built by hand, since asdict copies every text, which takes seconds for a large log.
        "answers": [vars(answer) for answer in decision.answers],
    }
