"""Figures that a command prints in seconds are those on the pages."""

from __future__ import annotations

import re
from pathlib import Path

from langchain_automix import Comparison, RoutingLog, compare_verifiers
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
        low, high = row.auroc_interval
        bounds = "" if row.gain == 0 else " ({:+.3f} to {:+.3f})".format(*(row.gain_interval or ()))
        auroc = f"{row.auroc:.2f} ({low:.2f} to {high:.2f})"
        rows.append(
            (row.name, row.samples, auroc, f"{row.price_ratio:.2g}", f"{row.gain:+.3f}{bounds}")
        )
    return rows


def test_the_table_of_checks() -> None:
    found = printed(compare_verifiers(RoutingLog.read(LOG)))
    page = DOCS / "guides" / "choosing-a-check.md"
    assert [row for row in shown(page) if row not in found] == []
    names = {(name, k) for name, k, *_ in shown(page)}
    assert names >= {(name, k) for name, k, *_ in found if k is None or name == "agreement"}
    [loss] = [gain for name, _, _, _, gain in found if name == "one token conversation"]
    readme = (ROOT / "README.md").read_text("utf-8").replace("**", "")
    assert re.sub(r"\s", "", loss) in re.sub(r"\s", "", readme)
