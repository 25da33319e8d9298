"""What the first steps cost a new user, by what the large model alone costs on those queries.

The code and the commands are read from the site's pages and run as they stand, against a loopback
server that bills gpt-5.4-mini and gpt-5.5 at their list prices. The world is that of
`tests/benchmarks/defaults.py`: the small model is right on 70 % of the questions, the large one on
85 %, and log-probabilities, new answers and verdicts tell as much as there. Every cost is that of
the tokens which the server billed. The questions and their seeds are fixed, and no two steps share
a question. A calibration asks all models, and so costs more than the large one; it is paid once.
"""

# ruff: noqa: T201

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shlex
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

from langchain_core.runnables import RunnableLambda, RunnablePassthrough

from langchain_automix import AutoMixRunnable
from langchain_automix.models.prices import token_prices
from langchain_automix.models.refusals import LOGPROBS
from tests.benchmarks.defaults import SEED, Query, queries
from tests.benchmarks.surface import quietly
from tests.support.builders.scripted_replies import ACCEPT, REJECT, Body, is_check, text_of
from tests.support.servers.openai_server import OpenAIServer, token

SMALL, LARGE = "gpt-5.4-mini", "gpt-5.5"
RIGHT, QUERIES, CALIBRATION = 0.7, 60, 100
DOCS = Path(__file__).parents[2] / "docs"
HEADS = ("step", "queries", "cost, USD", f"{LARGE} alone", "ratio", "right", f"{LARGE} right")
Row = tuple[str, ...]


def script(world: Sequence[Query]) -> Callable[[Body], Any]:
    """Return how the server answers: by the number of the question, whatever comes in between."""
    asked: Counter[tuple[int, str]] = Counter()

    def reply(body: Body) -> Any:
        texts = " ".join(text_of(message.get("content")) for message in body["messages"])
        number = int((re.findall(r"in case (\d+)", texts) or [0])[-1])  # the page's own: 0
        small, sampled = body["model"] == SMALL, body.get("temperature") == 1.0
        kind = "check" if is_check(body) else "sample" if small and sampled else "answer"
        replies = []
        for _ in range(body.get("n") or 1):
            asked[number, kind] += 1
            chance = random.Random(f"{SEED} {number} {kind} {asked[number, kind]}").random()
            replies.append(_reply(world[number], number, kind, chance, small=small))
        return replies

    return reply


def _reply(query: Query, number: int, kind: str, chance: float, *, small: bool) -> Any:
    if kind == "check":
        return ACCEPT if chance < query.acceptance else REJECT
    right = query.small if small else query.large
    word = "town" if right else "hamlet" if small else "harbour"
    if kind == "sample" and chance > query.agreement:
        word = "elsewhere"
    words, sure = (f"{word} ", f"number {number}"), query.score if small else 0.98
    return {"content": "".join(words), "logprobs": [token(words[0], sure), token(words[1], 1.0)]}


def question(number: int) -> str:
    """Return a question of the world."""
    return f"To which town did the ship of the company sail at last in case {number}?"


def passage(asked: str) -> str:
    """Return what a retriever finds for a question: some 300 words."""
    return f"{asked.rstrip('?')}: the log of that voyage says this. " + "The wind was fair. " * 70


class Walk:
    """A new user, and what their provider bills."""

    def __init__(self, server: OpenAIServer) -> None:
        self.server = server
        self.names: dict[str, Any] = {"retriever": RunnableLambda(passage)}
        self.rows: list[Row] = []

    def cost(self, work: Callable[[], Any]) -> tuple[Decimal, Any]:
        """Return what the server billed for some work, and what came of it."""
        before = len(self.server.billed)
        found = work()
        total = Decimal(0)
        for bill in self.server.billed[before:]:
            read, written = token_prices(bill["model"], "openai") or (Decimal("nan"),) * 2
            total += read * bill["prompt_tokens"] + written * bill["completion_tokens"]
        return total / 1_000_000, found

    def python(self, page: str, heading: str) -> None:
        """Run the first Python example under a heading of a page."""
        exec(example(page, heading, "python"), self.names)

    def compare(self, step: str, mix: Any, alone: Any, asked: dict[int, Any]) -> None:
        """Add what a mix costs on these queries, and the large model on the same ones."""
        cost, answers = self.cost(lambda: [mix.invoke(asked[number]) for number in asked])
        dear, truths = self.cost(lambda: [alone.invoke(asked[number]) for number in asked])
        self.add(step, len(asked), cost, dear, share_right(answers), share_right(truths))

    def add(self, step: str, count: int, cost: Decimal, dear: Decimal, *right: Any) -> None:
        """Add a row."""
        figures = f"{cost:.5f}", f"{dear:.5f}", f"{cost / dear:.2f}"
        shares = ("" if share is None else f"{share:.0%}" for share in right)
        self.rows.append((step, str(count), *figures, *shares))


def example(page: str, heading: str, language: str) -> str:
    """Return the first example in a language under a heading of a page."""
    text = (
        DOCS.joinpath(page)
        .read_text(encoding="utf-8")
        .split(f"\n## {heading}\n")[1]
        .split("\n## ")[0]
    )
    return text.split(f"```{language}\n")[1].split("```")[0]


def command(line: str, *options: str) -> Any:
    """Run a command of a page, and return the last JSON object that it prints."""
    program = str(Path(sys.executable).with_name("automix"))
    whole = [program, *shlex.split(line)[1:], *options, "--json"]
    done = subprocess.run(whole, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def share_right(answers: Sequence[Any]) -> float:
    """Return the share of right answers."""
    right = [str(getattr(answer, "text", answer)).startswith("town") for answer in answers]
    return sum(right) / len(right)


def walk(server: OpenAIServer, world: Sequence[Query]) -> list[Row]:
    """Take the steps of the pages, each on queries of its own."""
    new = Walk(server)
    numbers = iter(range(len(world)))

    def some(count: int) -> dict[int, str]:
        return {number: question(number) for number in islice(numbers, count)}

    new.python("quickstart.md", "In a chain")
    small, large = new.names["small"], new.names["large"]
    dicts = {number: {"question": text} for number, text in some(QUERIES).items()}
    new.compare("first chain", new.names["chain"], new.names["prompt"] | large, dicts)

    new.python("guides/rag.md", "As the answer stage of RAG")
    context = {"context": new.names["retriever"], "question": RunnablePassthrough()}
    rag_alone = context | new.names["rag_prompt"] | large
    new.compare("RAG chain", new.names["rag"], rag_alone, some(QUERIES))

    examples = some(CALIBRATION)
    with Path("questions.jsonl").open("w") as file:
        for number, text in examples.items():
            line = {"question": text, "references": [f"town number {number}"]}
            file.write(json.dumps(line) + "\n")
    commands = example("guides/calibrate.md", "Calibrate on your own questions", "console")
    calibrate, fit, report, *_ = commands.splitlines()
    cost, _ = new.cost(lambda: command(calibrate, "--yes"))
    dear, truths = new.cost(lambda: [large.invoke(text) for text in examples.values()])
    new.add("automix calibrate, once", CALIBRATION, cost, dear, None, share_right(truths))
    fitted = command(fit)
    print("automix fit:", fitted["recommendation"]["text"])
    if (head := fitted["headline"]) and head["against"] == LARGE:
        right = [head["quality"] * share_right(truths), share_right(truths)]
        new.add("automix fit, expected", CALIBRATION, dear * Decimal(head["cost"]), dear, *right)
    print("automix report:", command(report)["verdict"], end="\n\n")

    mix = AutoMixRunnable.from_policy("policy.json", small, large)
    new.compare("from_policy", mix, large, some(QUERIES))
    rag_mix = AutoMixRunnable.from_policy(
        "policy.json", small, large, prompt=new.names["rag_prompt"]
    )
    new.compare("RAG, from_policy", context | rag_mix, rag_alone, some(QUERIES))
    return new.rows


def table() -> tuple[tuple[str, ...], list[Row]]:
    """Return what each step cost."""
    LOGPROBS.forget()
    world = queries(RIGHT, 4 * QUERIES + CALIBRATION)
    with contextlib.ExitStack() as stack:
        stack.enter_context(quietly())
        server = stack.enter_context(OpenAIServer())
        server.script = script(world)
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(contextlib.chdir(folder))
        key = {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "no key"}
        stack.enter_context(mock.patch.dict(os.environ, key))
        return HEADS, walk(server, world)
