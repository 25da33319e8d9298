"""Figures that a command prints in seconds are those on the pages."""

from __future__ import annotations

import re
from pathlib import Path
from unittest import mock

import pytest

from langchain_automix import Comparison, RoutingLog, compare_verifiers
from langchain_automix.cli.app import main
from tests.site.blocks import DOCS, ROOT

LOG = ROOT / "cookbook" / "recordings" / "xquad_checks.jsonl.gz"
CHECKS = {
    "few-shot, with reasoning, t = 1 (\\*)": "few-shot",
    "few-shot, verdict only, t = 1": "verdict only",
    "the same, t = 0.5 (\\*)": "verdict only t=0.5",
    "one token, few-shot": "one token",
    "one token, zero-shot": "one token zero-shot",
    "one token, conversation": "one token conversation",
    "one token, conversation, by the 1.5B model": "one token conversation by large",
    "log-probability, mean of the answer's tokens": "log-probability mean",
    "log-probability, the least probable token": "log-probability min",
    "log-probability, first token": "log-probability first",
    "log-probability, the two likeliest first tokens apart": "log-probability margin",
    "agreement of answers asked for again, t = 1": "agreement",
}
"""What the page calls a check, and what the command does."""

DEMO = (
    "always small",
    "always large",
    "AutoMix, agreement",
    "few-shot verdicts (k = 4), by the rule",
    "agreement of 4 answers",
    "probability of the least probable token",
)
"""Rows of the demo's two tables."""

Row = tuple[str, int | None, str, str, str]


def shown(page: Path) -> list[Row]:
    """Return the rows of the page's table: check, verdicts, AUROC, price and gain."""
    rows: list[Row] = []
    text = (
        page.read_text("utf-8").split("| check by the 0.5B model |")[1].split("| all together")[0]
    )
    for line in text.splitlines()[2:]:
        name, k, *figures = (cell.strip().replace("**", "") for cell in line.split("|")[1:-1])
        check = CHECKS[name] if name else rows[-1][0]
        auroc, price, gain = figures
        rows.append((check, int(k) if k else None, auroc, price, gain))
    return rows


def printed(found: Comparison) -> list[Row]:
    """Return the same rows, as they come out of the comparison."""
    rows: list[Row] = []
    for row in found.rows:
        assert row.auroc is not None
        assert row.auroc_interval is not None
        auroc = "{:.2f} ({:.2f} to {:.2f})".format(row.auroc, *row.auroc_interval)
        bounds = " ({:+.3f} to {:+.3f})".format(*row.gain_interval) if row.gain else ""
        gain = f"{row.gain:+.3f}{bounds}"
        rows.append((row.name, row.samples, auroc, f"{row.price_ratio:.2g}", gain))
    return rows


def test_the_table_of_checks() -> None:
    found = printed(compare_verifiers(RoutingLog.read(LOG)))
    page = DOCS / "guides" / "choosing-a-check.md"
    assert [row for row in shown(page) if row not in found] == []
    names = {(name, k) for name, k, *_ in shown(page)}
    assert names >= {(name, k) for name, k, *_ in found if k is None or name == "agreement"}


def test_the_figures_of_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    """Of each row that the replay prints and the pages show, every number is the same."""
    with pytest.raises(SystemExit), mock.patch("sys.argv", ["automix", "demo", "--replay"]):
        main()
    out = capsys.readouterr().out.partition("What 268 routed questions showed")[2]
    printed, anywhere = [numbers(line) for line in out.splitlines()], numbers(out)
    text = (DOCS / "benchmarks.md").read_text("utf-8")
    for row in DEMO:
        [line] = [line for line in text.splitlines() if line.startswith(f"| {row}")]
        wanted = numbers(line.split("|", 2)[2])
        # An interval of the cost is printed below its table.
        beside = min(([each for each in wanted if each not in found] for found in printed), key=len)
        assert len(beside) <= 2, line
        assert set(beside) <= set(anywhere), line
    gains = [
        numbers(line) for line in out.splitlines() if line.lstrip().startswith(("agree", "few"))
    ]
    readme = (ROOT / "README.md").read_text("utf-8")
    for figure in re.findall(r"\*\*([+-][\d.]+) points\*\*[^\[]*\[([^,]+), ([^\]]+)\]", readme):
        assert any(all(each.lstrip("+") in found for each in figure) for found in gains), figure


def numbers(text: str) -> list[str]:
    """Return the numbers in a line, without their plus signs."""
    return re.findall(r"-?\d+(?:\.\d+)?", text)
