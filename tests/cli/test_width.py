"""Tables and sentences fit a terminal of 80 columns, and no word is cut."""

from __future__ import annotations

import os
import pty
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_automix import POMDPRouter, RoutingLog, SelfVerifier
from langchain_automix.utils.tables import LINE, text_table
from tests.support.builders.synthetic_logs import world

fcntl = pytest.importorskip("fcntl")
termios = pytest.importorskip("termios")

NAMES = ("meta-llama/Llama-3.2-3B-Instruct-Turbo", "meta-llama/Llama-3.1-405B-Instruct-Turbo")
words = st.text("abc", min_size=1, max_size=12)
cells = st.lists(words, max_size=12).map(" ".join)


@given(st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=5))
def test_a_table_fits_and_keeps_every_word(rows: list[tuple[str, str, str]]) -> None:
    lines = list(text_table(("one", "two", "three"), rows, left=(0, 2)))
    assert max(map(len, lines)) <= LINE
    written = sorted(" ".join(lines).split())
    assert written == sorted(f"one two three {' '.join(map(' '.join, rows))}".split())


def test_a_table_that_fits_is_as_it_was() -> None:
    assert list(text_table(("name", "n"), [("a b", "12"), ("long one", "3")])) == [
        "  name       n",
        "  a b       12",
        "  long one   3",
    ]


def at_a_terminal(*arguments: str) -> list[str]:
    """Return the lines that a command shows at a terminal."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 50, LINE, 0, 0))
    program = [str(Path(sys.executable).with_name("automix")), *arguments]
    env = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    shown = b""
    with subprocess.Popen(program, stdout=follower, stderr=follower, env=env):
        os.close(follower)
        while True:
            try:
                if not (piece := os.read(leader, 65_536)):
                    break
            except OSError:  # how the end of a terminal is told
                break
            shown += piece
    os.close(leader)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode()).splitlines()


def test_the_commands_of_a_policy(tmp_path: Path) -> None:
    records = list(world(60).records())
    for record in records:
        for answer, name in zip(record["answers"], NAMES, strict=True):
            answer["model"] = name
    log, policy = str(tmp_path / "log.jsonl"), str(tmp_path / "policy.json")
    RoutingLog(records).write(log)
    POMDPRouter.fit(RoutingLog(records), cost_weight=0.03, verifier=SelfVerifier()).save(policy)
    for arguments in (
        ("fit", log, "--out", policy),
        ("show", policy),
        ("evaluate", policy, log),
        ("fit", log, "--out", policy, "--max-cost", "1e-9"),
    ):
        lines = at_a_terminal(*arguments)
        assert len(lines) > 1
        assert max(map(len, lines)) <= LINE, (arguments, max(lines, key=len))
