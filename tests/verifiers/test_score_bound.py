"""The most that an answer can score while its tokens come: never less than what it scores."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import add_ai_message_chunks

from langchain_automix import CombinedVerifier, LogProbabilityVerifier, SelfVerifier
from langchain_automix.verifiers.score_bound import ScoreBound
from tests.support.servers.openai_server import token

PIECES = ("a", " b", "é", "  ", "\n", "\u3000", "<|im_end|>", "ß ", "", "42", " \u3000x")
TOKENS = st.lists(
    st.tuples(st.sampled_from(PIECES), st.floats(0.0, 1.0), st.floats(0.0, 1.0)),
    min_size=1,
    max_size=12,
)
STATISTICS: Any = st.sampled_from(["min", "first", "margin"])


def pieces_of(tokens: list[dict[str, Any]], text: list[str]) -> list[AIMessageChunk]:
    """Chunks of a stream: some text and some tokens each, not always together."""
    return [
        AIMessageChunk(
            content=words,
            response_metadata={"logprobs": {"content": entries}} if entries else {},
        )
        for words, entries in itertools.zip_longest(text, _split(tokens, len(text)), fillvalue="")
    ]


def _split(tokens: list[dict[str, Any]], parts: int) -> list[list[dict[str, Any]]]:
    return [tokens[i * len(tokens) // parts : (i + 1) * len(tokens) // parts] for i in range(parts)]


def bound_of(statistic: Any) -> ScoreBound:
    bound = LogProbabilityVerifier(statistic=statistic).score_bound()
    assert bound is not None
    return bound


def score_of(statistic: Any, whole: AIMessage) -> float | None:
    return LogProbabilityVerifier(statistic=statistic).invoke({"answer": whole}).score


@given(TOKENS, STATISTICS, st.integers(1, 4), st.booleans(), st.booleans())
def test_it_is_never_less_than_the_score(
    drawn: list[tuple[str, float, float]], statistic: Any, lag: int, thinks: bool, cleans: bool
) -> None:
    """Whatever the server does with its text: late or early, cleaned up, without its thoughts."""
    tokens = [token(text, p, other=q) for text, p, q in drawn]
    written = "".join(text for text, _, _ in drawn if text != "<|im_end|>")
    if cleans:
        written = written.replace("  ", " ").lstrip()
    if thinks:
        tokens = [token("<think>", 0.5), token("a", 0.0), token("</think>", 0.5), *tokens]
    text = [written[i : i + lag] for i in range(0, len(written), lag)] or [""]
    chunks = pieces_of(tokens, text)
    final = score_of(statistic, add_ai_message_chunks(*chunks))
    bound = bound_of(statistic)
    known = [most for chunk in chunks if (most := bound.add(chunk)) is not None]
    assert known == sorted(known, reverse=True)
    assert bound.tokens == len(tokens)
    if known:
        assert final is not None
        assert final <= known[-1]


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=8), STATISTICS)
def test_it_is_the_score_at_the_end(chances: list[float], statistic: Any) -> None:
    tokens = [token(f"w{i}", p, other=p / 2) for i, p in enumerate(chances)]
    chunks = pieces_of(tokens, [each["token"] for each in tokens])
    bound = bound_of(statistic)
    for chunk in chunks:
        last = bound.add(chunk)
    assert last == score_of(statistic, add_ai_message_chunks(*chunks))


class TestWhatItWaitsFor:
    def test_white_space_counts_once_text_follows(self) -> None:
        bound = bound_of("min")
        [first, second] = pieces_of([token("a", 0.9), token(" ", 0.1)], ["a", " "])
        assert bound.add(first) == pytest.approx(0.9)
        assert bound.add(second) == pytest.approx(0.9), "the answer may end here"
        [third] = pieces_of([token("b", 0.8)], ["b"])
        assert bound.add(third) == pytest.approx(0.1)

    def test_tokens_that_run_ahead_of_the_text(self) -> None:
        bound = bound_of("min")
        assert bound.add(pieces_of([token("abc", 0.3)], ["ab"])[0]) is None
        assert bound.add(AIMessageChunk(content="c")) == pytest.approx(0.3)

    def test_thoughts_that_are_no_text(self) -> None:
        bound = bound_of("min")
        assert bound.add(pieces_of([token("hm", 0.1)], [""])[0]) is None
        assert bound.add(pieces_of([token("4", 0.2)], ["4"])[0]) is None
        assert bound.add(pieces_of([token("2", 0.2)], ["2"])[0]) is None

    def test_nothing_is_known_without_log_probabilities(self) -> None:
        bound = bound_of("min")
        assert bound.add(AIMessageChunk(content="text")) is None
        unknown = {"logprobs": {"content": [{"token": "s", "logprob": math.nan}]}}
        assert bound.add(AIMessageChunk(content="s", response_metadata=unknown)) is None


class TestWhichChecks:
    @pytest.mark.parametrize("statistic", ["mean", "length"])
    def test_a_mean_may_rise_again(self, statistic: Any) -> None:
        assert LogProbabilityVerifier(statistic=statistic).score_bound() is None

    def test_a_check_that_asks_a_model(self) -> None:
        assert SelfVerifier().score_bound() is None

    def test_one_of_several(self) -> None:
        least = LogProbabilityVerifier(statistic="min")
        both = CombinedVerifier(checks={"self": SelfVerifier(), "least": least})
        assert both.score_bound() is None
        assert both.score_bound("least") is not None
        assert both.score_bound("other") is None

    def test_one_that_reads_otherwise(self) -> None:
        class Own(LogProbabilityVerifier):
            pass

        assert Own(statistic="min").score_bound() is None
