"""Long contexts and many passages are read in a thread: the event loop serves others meanwhile."""

from __future__ import annotations

import functools
import math
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.embeddings import Embeddings
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from langchain_automix import SelfVerifier, SupportVerifier
from langchain_automix.flow.off_loop import LONG_TEXT
from langchain_automix.models.embeddings import cosines
from langchain_automix.utils.text import as_read
from langchain_automix.verifiers import statements as _statements
from langchain_automix.verifiers import support
from langchain_automix.verifiers.prompting.verifier import PromptedVerifier

LONG = "The Halcyon was built in Turku in 1931. " * (LONG_TEXT // 30)


class Made(Embeddings):
    """Vectors of a text's length; where they were compared is noted by the test."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[len(text), 1.0, 0.5] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """The threads in which the work was done."""
    seen: list[threading.Thread] = []

    def noted(holder: Any, name: str) -> None:
        work = getattr(holder, name)

        def noting(*args: Any) -> Any:
            seen.append(threading.current_thread())
            return work(*args)

        monkeypatch.setattr(holder, name, noting)

    noted(support, "_by_words")
    noted(support, "_best")
    noted(PromptedVerifier, "_build_check")
    return seen


@pytest.mark.parametrize("kind", ["words", "embeddings", "self"])
async def test_a_long_context_is_read_in_a_thread(
    kind: str, threads: list[threading.Thread]
) -> None:
    model: Any = RunnableLambda(lambda _: AIMessage("Verification Decision: Correct"))
    verifier: Any = {
        "words": SupportVerifier(),
        "embeddings": SupportVerifier(embeddings=Made()),
        "self": SelfVerifier(model=model, samples=1),
    }[kind]
    asked: Any = {"question": "Where?", "answer": "It was built in Turku.", "context": LONG}
    apart = await verifier.ainvoke(asked)
    assert threads[-1] is not threading.main_thread()
    assert verifier.invoke(asked) == apart
    if kind != "embeddings":
        await verifier.ainvoke({**asked, "context": "Turku."})
        assert threads[-1] is threading.main_thread(), "what is short is not worth a thread"


async def test_what_is_made_once_in_a_process_is_made_in_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[threading.Thread] = []

    @functools.cache
    def pattern() -> re.Pattern[str]:
        made.append(threading.current_thread())
        return re.compile(r"\w+")

    monkeypatch.setattr(_statements, "_pattern", pattern)
    asked: Any = {"question": "Where?", "answer": "Built in Turku.", "context": "In Turku."}
    for _ in range(2):
        await SupportVerifier().ainvoke(asked)
    [thread] = made
    assert thread is not threading.main_thread()


FIRST_CHECK = """
import asyncio, sys
from langchain_core.runnables import RunnableLambda
from langchain_automix import SupportVerifier

async def main():
    await RunnableLambda(lambda x: x, lambda x: asyncio.sleep(0)).ainvoke(1)
    before = set(sys.modules)
    await SupportVerifier().ainvoke({"answer": "Built in Turku.", "context": "In Turku."})
    print(sorted(set(sys.modules) - before))

asyncio.run(main())
"""


def test_the_first_check_by_words_loads_nothing_on_the_event_loop() -> None:
    """What LangChain itself loads for the first run of any Runnable, some 40 ms, is not ours."""
    told = subprocess.run(
        [sys.executable, "-c", FIRST_CHECK], capture_output=True, text=True, check=False
    )
    assert (told.stdout, told.stderr) == ("[]\n", "")


ONE_CALL = re.compile(r"(?:[^\S\n]|[-_\u2010-\u2015])+")


@pytest.mark.parametrize("text", ["a{0}b", "a{0}{0}b", "a {0}-{0} b\nc", "{0}a{0}"])
def test_words_are_broken_as_one_expression_would(text: str) -> None:
    for character in map(chr, range(0x110000)):
        if ONE_CALL.match(character) and character.splitlines() != [""]:
            given = text.format(character)
            assert as_read(given) == ONE_CALL.sub(" ", given), hex(ord(character))


def test_no_single_call_reads_a_megabyte_slowly() -> None:
    """A call into C lets no other thread run: such an expression held the event loop for 0.15 s."""

    def seconds(work: Callable[[], Any]) -> float:
        started = time.thread_time()
        work()
        return time.thread_time() - started

    text = "the ship was built in Turku. " * 40_000
    fastest = min(seconds(lambda: as_read(text)) for _ in range(5))
    assert fastest < min(seconds(lambda: ONE_CALL.sub(" ", text)) for _ in range(5)) / 4


numbers = st.floats(-1e150, 1e150, allow_nan=False)


@given(st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=2, max_size=6))
def test_cosines_are_those_of_the_formula(vectors: list[list[float]]) -> None:
    found = cosines(vectors, first=2)
    for i, row in enumerate(found):
        for j, value in enumerate(row):
            lengths = [max(map(abs, vectors[k])) for k in (i, j)]
            if 0.0 in lengths:
                assert value is None
                continue
            one, other = ([x / n for x in vectors[k]] for k, n in zip((i, j), lengths, strict=True))
            formula = math.fsum(x * y for x, y in zip(one, other, strict=True))
            assert value == pytest.approx(
                formula / (math.hypot(*one) * math.hypot(*other)), abs=1e-9
            )


def test_what_has_no_direction_has_no_cosine() -> None:
    assert cosines([[0.0, 0.0], [1.0, 0.0]], first=2) == [[None, None], [None, 1.0]]
    assert cosines([[math.nan, 1.0], [1.0, 0.0]])[0][1] is None
    assert cosines([[math.inf, 1.0], [1.0, 0.0]])[0][1] is None
