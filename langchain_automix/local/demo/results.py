"""Print the tables and sentences at the end of a demo run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.table import Column, Table

from langchain_automix.local.demo.measuring import OUTPUT_PRICE
from langchain_automix.local.demo.view import heading, note

if TYPE_CHECKING:
    from rich.console import Console, JustifyMethod

    from langchain_automix.local.demo.learning import Gain
    from langchain_automix.local.demo.summary import (
        AtPrice,
        CheckFigures,
        Share,
        Summary,
        Way,
    )
    from langchain_automix.policy.statistics import Interval


def show(console: Console, figures: Summary, names: tuple[str, str]) -> None:
    """Print the figures of a run, and what they mean."""
    kind = "routed" if figures.gain is not None else "measured"
    heading(console, f"What {figures.questions} {kind} questions showed")
    console.print(_ways(figures.ways, figures.price_ratio))
    note(console, f"Small is {names[0]}, large is {names[1]}. Brackets hold 95 % intervals.", "dim")
    console.print()
    for line in sentences(figures):
        note(console, line)
    if figures.checks:
        console.print()
        heading(console, "Which check is worth its price?")
        console.print(_checks(figures.checks))
        note(console, _HOW_TO_READ, "dim")
    if figures.prices:
        console.print()
        heading(console, "And at other prices of the large model?")
        console.print(_prices(figures.prices))
        note(
            console,
            f"At each price the check is chosen and the policy fitted anew on the "
            f"{figures.fitted_on} questions fitted on. Prices count tokens, one written as "
            f"{OUTPUT_PRICE} read; cost is that of always asking the large model.",
            "dim",
        )
        console.print()
        for line in about_time(figures):
            note(console, line)


_HOW_TO_READ = (
    "AUROC: the chance that a right answer gets more confidence than a wrong one; 0.5 is chance. "
    "Price: of one check, as a share of the large model's answer. Gain: of a mix with this check "
    "over both models mixed at random, in points of accuracy at equal cost. The released rule, by "
    "the paper's authors, checks every answer; the other mixes may leave the check out."
)


def sentences(figures: Summary) -> Iterator[str]:
    """Yield sentences on what a run showed, and what it did not."""
    if figures.gain is None or figures.against_large is None:
        yield "Nothing was routed: it takes more questions."
        return
    small, large, mix = figures.ways
    yield (
        f"AutoMix was right on {mix.accuracy:.0%} of the questions and always large on "
        f"{large.accuracy:.0%} (difference {_points(figures.against_large)} points), at "
        f"{mix.cost:.0%} {_shares(mix.cost_interval)} of its cost; always small on "
        f"{small.accuracy:.0%}."
    )
    if figures.drafts.answers or figures.kept.answers:
        yield (
            f"It kept {figures.kept.answers} answers of the small model: {_right(figures.kept)} "
            f"right. It rejected {figures.drafts.answers}: {_right(figures.drafts)} of those "
            f"drafts were right, and {_right(figures.after)} of the large model's answers in "
            "their place."
        )
    yield (
        f"Gain over both models mixed at random, at equal cost: {_points(figures.gain)} points of "
        f"accuracy{_verdict(figures.gain, figures.questions)}. That is the gain over the better "
        "single model at the exchange rate of accuracy and cost where the two tie on these "
        "questions."
    )
    fitted = figures.gain_at_fitted_rate
    if fitted is not None:
        yield (
            "At the rate that the policy was fitted for, where they tied on the questions fitted "
            f"on, the better single model here is {fitted.best}, and the gain over it is "
            f"{_points(fitted)} points{_verdict(fitted, figures.questions)}."
        )


def _verdict(gain: Gain, questions: int) -> str:
    if gain.in_words == "yes":
        return ": more than chance"
    if gain.in_words == "no":
        return ": a loss, and more than chance"
    return f": {questions} questions cannot tell it from chance"


def _right(share: Share) -> str:
    return f"{share.right / share.answers:.0%}" if share.answers else "none"


def about_time(figures: Summary) -> Iterator[str]:
    """Describe whether a check pays at the measured seconds, and why hosted prices differ."""
    measured = next((each for each in figures.prices if each.price_ratio is None), None)
    took = f"the large model took {figures.time_ratio:.1f} times as long as the small one"
    hosted = (
        "Prices of hosted models differ more than seconds do here, where both share one machine: "
        "the large one of a pair often costs 10 to 60 times as much."
    )
    if measured is None:
        yield f"In seconds there is nothing to save here: {took} or less. {hosted}"
    elif not measured.judged.buys_checks:
        yield f"In seconds no check pays here: {took}, too little to pay for one. {hosted}"
    else:
        gain = measured.judged.gain
        yield (
            f"In seconds: {took}, and a mix with {measured.judged.check} gains {_points(gain)} "
            f"points ({_beyond_chance(gain)}). {hosted}"
        )


def _beyond_chance(gain: Gain) -> str:
    return {"yes": "more than chance", "no": "a loss"}.get(gain.in_words, gain.in_words)


def _ways(ways: Sequence[Way], ratio: float | None) -> Table:
    price = "cost in seconds" if ratio is None else f"cost at {ratio:g}:1"
    table = _table("", "accuracy", price, "seconds", "small tokens", "large tokens")
    for way in ways:
        table.add_row(
            f"  {way.name}",
            f"{way.accuracy:.0%} {_shares(way.interval)}",
            f"{way.cost:.0%}",
            f"{way.seconds:.1f}",
            f"{way.small_tokens:,.0f}",
            f"{way.large_tokens:,.0f}",
            style="bold" if way.name == "AutoMix" else None,
        )
    return table


def _checks(checks: Sequence[CheckFigures]) -> Table:
    table = _table("  check", "AUROC", "", "price", "gain", "")
    for each in checks:
        interval, is_bought = each.auroc_interval, each.judged.buys_checks
        table.add_row(
            f"  {each.name}",
            "?" if each.auroc is None else f"{each.auroc:.2f}",
            "" if interval is None else f"[{interval[0]:.2f}, {interval[1]:.2f}]",
            "0" if not each.price else f"{each.price:.0%}",
            *(_gain_cells(each.judged.gain) if is_bought else ("not bought", "")),
        )
    return table


def _prices(prices: Sequence[AtPrice]) -> Table:
    table = _table("  price", "check", "asks large", "cost", "accuracy", "gain", "")
    for each in prices:
        judged = each.judged
        table.add_row(
            "  in seconds" if each.price_ratio is None else f"  {each.price_ratio:g}:1",
            judged.check if judged.buys_checks else "none",
            f"{judged.escalation_rate:.0%}",
            f"{judged.cost:.0%}",
            f"{judged.accuracy:.0%}",
            *(_gain_cells(judged.gain) if judged.buys_checks else ("", "")),
        )
    return table


def _gain_cells(gain: Gain) -> tuple[str, str]:
    value, _, interval = _points(gain).partition(" ")
    return value, interval


def _points(gain: Gain) -> str:
    """Return a gain and its interval in points of accuracy."""
    low, high = gain.interval
    return f"{100 * gain.value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _shares(interval: Interval) -> str:
    low, high = interval
    return f"[{100 * low:.0f}, {100 * high:.0f}]"


def _table(*names: str) -> Table:
    columns: list[tuple[str, JustifyMethod]] = [
        (name, "left" if i == 0 or name == "check" else "right") for i, name in enumerate(names)
    ]
    return Table(
        *(Column(name, justify=how, header_style="dim", no_wrap=True) for name, how in columns),
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
