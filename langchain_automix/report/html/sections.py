"""The parts of the page that need no script: every figure, in sentences and tables."""

from __future__ import annotations

from collections.abc import Iterable

from langchain_automix.report.contents import Benefit, Contents, CostPart, Point, Reliability
from langchain_automix.report.html.markup import (
    Html,
    cost_text,
    element,
    joined,
    quality_text,
    share_text,
    signed_text,
    table,
)
from langchain_automix.utils.formatting import format_number

_RULES = {
    "random_mix": "random mixing",
    "threshold": "one threshold",
    "double_threshold": "two thresholds",
    "released": "released AutoMix rule",
    "oracle": "oracle",
}

_JUDGED = {
    "cross-fitted": "cross-fitted: each query judged by a policy fitted without it",
    "held out": "held out: the policy itself, on another log than it was fitted to",
    "fitted to it": "the very query that the policy was fitted to",
}

_LONG = 110
"""Characters of a verdict above which its letters are smaller."""

_CHANCE = 0.5
"""AUROC of what tells nothing."""

_NO_GAIN = 0.0005
"""A gain that three decimals would show as nothing."""

WORDS = (
    ("Quality", "How good an answer is, from 0 to 1, by the labels in the log."),
    ("Cost", "Mean cost of a query: all answers and all checks, of every model that was asked."),
    (
        "Cost weight",
        "How much quality one unit of cost is worth. Utility = quality \u2212 weight x cost.",
    ),
    (
        "Check",
        "The model's answer is held against the context; each verdict accepts it, rejects it, "
        "or says nothing usable (invalid).",
    ),
    (
        "Confidence",
        "The raw number of a check, such as the share of verdicts that accept. It is no "
        "probability unless the diagram says so.",
    ),
    (
        "Benefit",
        "Quality of the larger model's answer minus quality of this one. Escalating pays where "
        "it is above the price of the larger model.",
    ),
    (
        "Random mixing",
        "Sends a random share of the queries to the largest model, at the same cost. A policy "
        "that reads its checks well lies above that line.",
    ),
    (
        "Oracle",
        "Knows the qualities beforehand and picks the best model for each query. No rule can "
        "reach it; it shows how much there is to gain.",
    ),
    ("Interval", "95 %: the range that would hold the true mean for 95 of 100 such logs."),
    (
        "Cross-fitted, held out",
        "Cross-fitted: every query is judged by a policy that was fitted without it. Held out: "
        "the policy itself, on another log than the one that it was fitted to; queries that stand "
        "in both would flatter it.",
    ),
)


def rule_label(name: str) -> str:
    """Return how a baseline is called on the page."""
    if name.startswith("always:"):
        return f"always {name.removeprefix('always:')}"
    return _RULES.get(name, name)


def reliability_label(name: str) -> str:
    """Return how a stated confidence is called on the page."""
    if name == "belief":
        return "Belief in the answers kept"
    return f"Confidence in answers of {name.removeprefix('confidence:')}"


def about(contents: Contents) -> Html:
    """Return what was measured on what, on one line."""
    parts = [format_number(contents.queries, "query", "queries")]
    if contents.left_out:
        parts.append(f"{contents.left_out:,} left out that some model did not answer")
    parts.append(_JUDGED[contents.judged])
    parts.append(f"models {' → '.join(contents.models)}")
    parts.append(f"costs in {contents.currency}" if contents.currency else "costs without a unit")
    return joined(element("li", part, dir="auto") for part in parts)


def verdict(contents: Contents) -> Html:
    """Return the verdict, a long one in smaller letters."""
    size = "sentence long" if len(contents.verdict) > _LONG else "sentence"
    return element("p", contents.verdict, class_=size, dir="auto")


def numbers(contents: Contents) -> Html:
    """Return the three numbers."""
    return joined(
        element(
            "div",
            element("dt", number.label),
            element("dd", number.value, class_="value"),
            element("dd", number.detail, class_="detail"),
            class_="card",
        )
        for number in contents.numbers
    )


def plane_words(contents: Contents) -> str:
    """Return the plane of cost and quality as a sentence."""
    unit, point = contents.currency, contents.point
    others = "; ".join(
        f"{rule_label(b.name)} {cost_text(b.cost, unit)}, {quality_text(b.quality)}"
        for b in contents.baselines
    )
    return (
        f"Cost and quality, means per query. This policy: cost {cost_text(point.cost, unit)}, "
        f"quality {quality_text(point.quality, point.quality_interval)}. Others: {others}."
    )


def baselines(contents: Contents) -> Html:
    """Return the table of the policy and everything that it is compared with."""
    heads = ("Rule", "Quality", "Cost", "Gain in utility by the policy", "So the policy is")
    rows = [("this policy", *_place(contents.point, contents.currency), "", "")]
    rows += [
        (
            rule_label(b.name),
            *_place(b, contents.currency),
            signed_text(b.utility_difference, b.utility_interval),
            _compared(b),
        )
        for b in contents.baselines
    ]
    return table(heads, rows, "The policy and the baselines, means per query")


def _place(point: Point, currency: str | None) -> tuple[str, str]:
    quality = quality_text(point.quality, point.quality_interval)
    return quality, cost_text(point.cost, currency)


def _compared(baseline: Point) -> str:
    if baseline.name == "oracle":
        return "out of its reach"
    if baseline.utility_interval is None:
        return "not measured"
    low, high = baseline.utility_interval
    if low > 0:
        return "better"
    return "worse" if high < 0 else "not shown to differ"


def frontier(contents: Contents) -> Html:
    """Return the table of the policies that the slider goes through."""
    heads = ("Cost", "Quality", "Cost weight", "Escalated", "Verdicts drawn")
    rows = (
        (
            cost_text(p.cost, contents.currency),
            quality_text(p.quality, p.quality_interval),
            cost_text(p.cost_weight),
            share_text(p.escalation_rate),
            "unknown" if p.verification_samples is None else f"{p.verification_samples:.1f}",
        )
        for p in contents.frontier
    )
    return _data("The frontier as a table", heads, rows, "Policies from cheap to good")


def _data(summary: str, heads: Iterable[str], rows: Iterable[Iterable[str]], caption: str) -> Html:
    return element("details", element("summary", summary), table(heads, rows, caption))


def checks(contents: Contents) -> Html:
    """Return benefit and reliability, each with its data as a table."""
    found = [_benefit(b, i) for i, b in enumerate(contents.benefits)]
    found += [_reliability(r, i) for i, r in enumerate(contents.reliabilities)]
    if not found:
        return element("p", "The log holds no check, so there is nothing to show here.")
    return joined(found)


def _benefit(benefit: Benefit, number: int) -> Html:
    title = f"Benefit of {benefit.larger} over {benefit.model}"
    paying = [g for g in benefit.groups if g.benefit > benefit.price]
    words = (
        f"Asking {benefit.larger} costs {benefit.price:.3f} in quality. The benefit is above that "
        f"in {len(paying)} of {len(benefit.groups)} groups of answers, from low confidence to high."
    )
    rows = (
        (f"{g.confidence:.3f}", signed_text(g.benefit), f"{g.error:.3f}", f"{g.queries:,}")
        for g in benefit.groups
    )
    heads = ("Confidence", "Benefit", "Standard error", "Queries")
    data = _data("Benefit as a table", heads, rows, f"{title}, by confidence")
    return _figure(title, words, f"benefit {number}", data)


def _reliability(found: Reliability, number: int) -> Html:
    title = reliability_label(found.name)
    auroc = "AUROC is undefined here."
    if found.auroc is not None:
        ends = found.auroc_interval
        between = f" ({ends[0]:.2f} to {ends[1]:.2f})" if ends else ""
        auroc = f"It tells right answers from wrong ones with AUROC {found.auroc:.2f}{between}."
        if ends and ends[0] <= _CHANCE:
            auroc = (
                "It is not shown to tell right answers from wrong ones better than chance: AUROC "
                f"{found.auroc:.2f}{between}."
            )
    words = f"What is stated is off by {found.ece:.3f} on average (ECE). {auroc}"
    rows = (
        (f"{g.stated:.3f}", quality_text(g.actual, g.interval), f"{g.queries:,}")
        for g in found.groups
    )
    heads = ("Stated", "Actual quality", "Queries")
    data = _data("Reliability as a table", heads, rows, f"{title}: stated and actual")
    return _figure(title, words, f"reliability {number}", data)


def _figure(title: str, words: str, chart: str, data: Html) -> Html:
    drawn = element(
        "div", class_="chart", role="img", aria_label=f"{title}. {words}", data_chart=chart
    )
    caption = element("figcaption", element("h3", title), element("p", words))
    return element("figure", caption, drawn, data)


def cost_words(contents: Contents) -> str:
    """Return where the money goes, as a sentence."""
    checked = sum(part.cost for part in contents.cost_split if part.part == "checks")
    total = sum(part.cost for part in contents.cost_split)
    spent = cost_text(total, contents.currency)
    if not total:
        return "The log holds no costs."
    share = f"{checked / total:.1%}" if checked else "none"
    return f"A query costs {spent} on average; {share} of it goes into checks."


def cost_split(contents: Contents) -> Html:
    """Return the table of what answers and checks of each model cost."""
    total = sum(part.cost for part in contents.cost_split)
    rows: list[tuple[str, ...]] = [
        (
            joined((_key(contents, part), f"{part.part} of {part.model}")),
            cost_text(part.cost, contents.currency),
            share_text(part.cost / total if total else None),
        )
        for part in contents.cost_split
    ]
    rows.append(("all", cost_text(total, contents.currency), "100.0%" if total else "unknown"))
    return table(("For", "Cost of a query", "Share"), rows, "What each kind of call costs")


def _key(contents: Contents, part: CostPart) -> Html:
    """Return the colour that the part has in the chart."""
    place = contents.models.index(part.model) if part.model in contents.models else 0
    return element("i", class_=f"key {part.part} m{min(place, 4)}")


def advice(contents: Contents) -> Html:
    """Return what would help, most useful first."""
    if not contents.advice:
        return element("p", "Nothing was found that would raise the utility.")
    items = (
        element(
            "li",
            element("h3", each.title),
            element("p", _gain(each.gain), class_="gain"),
            element("p", each.text),
        )
        for each in contents.advice
    )
    return element("ol", *items, class_="advice")


def _gain(gain: float | None) -> str:
    if gain is None:
        return "not to be told from this log"
    if gain < _NO_GAIN:
        return "no gain expected"
    return f"up to {signed_text(gain)} utility"


def notes(contents: Contents) -> Html:
    """Return what else is to be known, if anything."""
    if not contents.notes:
        return Html()
    return element("ul", *(element("li", note, dir="auto") for note in contents.notes))


def words() -> Html:
    """Return what the words on the page mean."""
    return joined(
        element("div", element("dt", word), element("dd", meaning)) for word, meaning in WORDS
    )
