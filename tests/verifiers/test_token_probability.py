"""P(Yes) as different servers tell it, over the wire."""

from __future__ import annotations

import math
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import HumanMessage

from langchain_automix import Verification
from langchain_automix.verifiers.token_probability import TokenProbabilityVerifier
from tests.support.builders.checks import asked
from tests.support.builders.mixes import mix, record_of
from tests.support.servers.anthropic_server import AnthropicServer
from tests.support.servers.openai_server import OpenAIServer, answering, is_check, token


def entry(text: str, probability: float, **more: Any) -> dict[str, Any]:
    return {"token": text, "logprob": math.log(probability), **more}


def checked(server: OpenAIServer, logprobs: Any, said: str = "Yes", **fields: Any) -> Verification:
    server.script = lambda _: [{"content": said, "logprobs": logprobs}]
    return TokenProbabilityVerifier(model=server.model("small"), **fields).invoke(asked())


YES = token("Yes", 0.75, No=0.15)


class TestForms:
    @pytest.mark.parametrize(
        ("logprobs", "score"),
        [
            ([YES], 0.75 / 0.9),
            ([token("No", 0.6, Yes=0.3)], 0.3 / 0.9),
            # Case, spaces, and words cut in two tell the same word.
            ([token(" yes", 0.5, **{"No": 0.1, "YES": 0.2, " n": 0.2})], 0.7),
            # As byte-level and sentence-piece tokens are printed.
            ([token("\u2581Yes", 0.6, **{"\u0120No": 0.2, "\u2581no": 0.1})], 0.6 / 0.9),
            # A line break comes first: the word is what follows it.
            ([token("\n", 0.99, Yes=0.01), YES], 0.75 / 0.9),
            ([token("\u010a", 0.99), token(" ", 0.9), YES], 0.75 / 0.9),
            # Only what is among the first five.
            ([entry("Yes", 0.9, top_logprobs=[entry("Yes", 0.9), entry("No", 0.1)])], 0.9),
            ([entry("Yes", 0.8, top_logprobs={"Yes": math.log(0.8), "No": math.log(0.2)})], 0.8),
            # No alternatives: what the written token leaves over counts for the other word.
            ([entry("Yes", 0.9, top_logprobs=[])], 0.9),
            ([entry("Yes", 0.9, top_logprobs=None)], 0.9),
            ([entry("No", 0.9)], 0.1),
            # As completions had it, and as some servers still do.
            (
                {
                    "tokens": ["Yes"],
                    "token_logprobs": [math.log(0.6)],
                    "top_logprobs": [{"Yes": math.log(0.6), "No": math.log(0.2)}],
                },
                0.75,
            ),
            ({"tokens": [" No"], "token_logprobs": [math.log(0.8)], "top_logprobs": None}, 0.2),
            # Rounded above 0.
            ([{"token": "Yes", "logprob": 1e-6, "top_logprobs": []}], 1.0),
        ],
    )
    def test_the_score_is_read(self, server: OpenAIServer, logprobs: Any, score: float) -> None:
        assert checked(server, logprobs).score == pytest.approx(score)

    @pytest.mark.parametrize(
        "logprobs",
        [
            [],
            {"content": None},
            {"tokens": [], "token_logprobs": []},
            {"tokens": None, "token_logprobs": None},
            [{"token": "Yes", "logprob": None}],
            [{"token": "Yes", "logprob": "high"}],
            [token("\n", 0.99, Yes=0.01)],  # it stopped before the word
        ],
    )
    def test_where_none_can_be_read_the_check_is_unknown(
        self, server: OpenAIServer, logprobs: Any
    ) -> None:
        found = checked(server, logprobs)
        assert found.score is None
        assert found.confidence is None
        assert "returned no log-probabilities" in str(found.problem)
        assert len(found.calls) == 1  # it was paid for all the same

    @pytest.mark.parametrize(
        "logprobs",
        [
            [token("Perhaps", 0.9, Yes=0.05, No=0.04)],
            [token("<think>", 0.99)],
            [token("Y", 0.05)],
        ],
    )
    def test_where_neither_word_was_likely_it_is_unknown(
        self, server: OpenAIServer, logprobs: Any
    ) -> None:
        found = checked(server, logprobs)
        assert found.score is None
        assert "said neither Yes nor No" in str(found.problem)


class TestRequests:
    def test_three_tokens_and_five_alternatives_at_temperature_zero(
        self, server: OpenAIServer
    ) -> None:
        found = checked(server, [YES])
        [body] = server.requests
        assert (body["logprobs"], body["top_logprobs"], body["temperature"]) == (True, 5, 0.0)
        assert body["max_completion_tokens"] == 3
        assert "n" not in body
        assert found.replies == ("Yes",)

    def test_other_numbers_of_alternatives(self, server: OpenAIServer) -> None:
        checked(server, [YES], top_logprobs=2)
        assert server.requests[0]["top_logprobs"] == 2

    def test_a_server_that_sends_none_leaves_it_unknown(self, server: OpenAIServer) -> None:
        server.script = lambda body: [{"content": "Yes", "logprobs": {}}]
        found = TokenProbabilityVerifier(model=server.model("small")).invoke(asked())
        assert "returned no log-probabilities" in str(found.problem)

    async def test_asynchronously(self, server: OpenAIServer) -> None:
        server.script = lambda _: [{"content": "Yes", "logprobs": [YES]}]
        verifier = TokenProbabilityVerifier(model=server.model("small"))
        assert (await verifier.ainvoke(asked())).score == pytest.approx(0.75 / 0.9)

    def test_with_retries_and_bindings_of_the_model(self, server: OpenAIServer) -> None:
        outcomes: list[Any] = [500, [{"content": "Yes", "logprobs": [YES]}]]
        server.script = lambda _: outcomes.pop(0)
        model = server.model("small").bind(stop=["\n"]).with_retry(wait_exponential_jitter=False)
        found = TokenProbabilityVerifier(model=model).invoke(asked())
        assert found.score == pytest.approx(0.75 / 0.9)
        assert "stop" not in server.requests[1]

    def test_in_a_mix_the_large_model_judges(self, server: OpenAIServer) -> None:
        answers = answering("small says", "large says")
        no = {"content": "No", "logprobs": [token("No", 0.9, Yes=0.1)]}
        server.script = lambda body: [no] if is_check(body) else answers(body)
        verifier = TokenProbabilityVerifier(model=server.model("large"))
        message = mix(server, verifier=verifier).invoke("Where?")
        assert [body["model"] for body in server.requests] == ["small", "large", "large"]
        assert record_of(message)["confidence"] == pytest.approx(0.1)
        assert message.text == "large says"


class TestModelsThatServeNone:
    def test_the_responses_api_as_langchain_reads_it(self, server: OpenAIServer) -> None:
        model = server.model("small", use_responses_api=True)
        found = TokenProbabilityVerifier(model=model).invoke(asked())
        assert "set use_responses_api=False" in str(found.problem)
        assert server.requests == []

    def test_why_it_cannot_be_asked_there(self, server: OpenAIServer) -> None:
        # If this changes, LangChain has learnt to read them, and the check can use it.
        model = server.model("small", use_responses_api=True, logprobs=True, top_logprobs=5)
        with pytest.raises(TypeError, match="logprobs"):
            model.invoke([HumanMessage("Hi")])

    def test_anthropic_has_none(self) -> None:
        with AnthropicServer() as server:
            found = TokenProbabilityVerifier(model=server.model("small")).invoke(asked())
            assert "ChatAnthropic returns no log-probabilities" in str(found.problem)
            assert server.requests == []

    def test_nor_has_a_fake(self) -> None:
        found = TokenProbabilityVerifier(model=FakeListChatModel(responses=["Yes"])).invoke(asked())
        assert "returns no log-probabilities" in str(found.problem)
