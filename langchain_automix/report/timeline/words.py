"""Explanations of the words in a report over time, for all its forms."""

from __future__ import annotations

from langchain_automix.report.timeline.contents import FIRST_MODEL, Span
from langchain_automix.utils.formatting import format_time

WORDS = {
    "Cost": "Mean of a query: all its answers and checks, without its shadow. Queries of which it "
    "is unknown are left out.",
    "Largest model alone": "What the largest model alone would have cost for the same queries.",
    "Shadow": "The models that a query did not ask, asked after its answer was given, to learn "
    "from; its cost is counted apart.",
    "Quality by source": "Of the answers that were given, from 0 to 1, by who graded them. "
    "Agreement compares an answer with the largest model's; each such grade is weighed by how "
    f"unlikely it was to be made. “{FIRST_MODEL[:1].upper()}{FIRST_MODEL[1:]}” counts that "
    "model's answers whether they were given or not.",
    "Escalated": "Share of the answered queries that asked more than one model.",
    "Version": "The policy that decided; without one, the largest model answers.",
    "Saving": "Share of the largest model's cost that is not paid.",
    "Quality lost": "Quality of the largest model's answer less that of the answer given, in "
    "points of 0.01.",
    "Seen in full": "Quality and cost of every model are known: the query asked them all, or its "
    "shadow did.",
    "Alarm": "The traffic is no longer what it was: a signal has changed by more than chance.",
    "Interval": "95 %: the range that would hold the true mean for 95 of 100 such stretches of "
    "traffic.",
}
"""The words that need explaining."""


def span_time(span: Span) -> str:
    """Return when a span begins, as short as its length allows."""
    text = format_time(span.start)
    return text.split()[0] if (span.end - span.start) % 86_400 == 0 else text.removesuffix(" UTC")
