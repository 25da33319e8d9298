"""What a mix without a check may buy, and what that is expected to cost."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.messages.ai import UsageMetadata

from langchain_automix import AgreementVerifier, DefaultVerifier, LogProbabilityVerifier
from langchain_automix.utils.check_spec import spec_of
from langchain_automix.utils.default_checks import (
    AGREEMENT,
    SELF,
    SELF_CHECKS,
    TOKENS,
    VERDICT_ONLY,
    ZERO_SHOT,
)
from langchain_automix.verifiers.default import CheckOffer, is_short
from langchain_automix.verifiers.specs import rebuild_check
from tests.support.builders.scripted_replies import ACCEPT, Body, call, is_check
from tests.support.servers.openai_server import OpenAIServer, token

REQUEST = [SystemMessage("Be brief."), HumanMessage("Where was the ferry Halcyon built?")]


def usage(read: int = 20, written: int = 3) -> UsageMetadata:
    return UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)


def offers(
    server: OpenAIServer, answer: Any, *, has_logprobs: bool = False, read: int = 20
) -> dict[tuple[str, int], CheckOffer]:
    check = DefaultVerifier().for_model(server.model("small"))
    given: Any = {"answer": answer, "messages": REQUEST, "request": REQUEST}
    found = check.offers(given, usage(read), has_logprobs=has_logprobs)
    return {(offer.check, offer.samples): offer for offer in found}


def tokens(offer: CheckOffer) -> tuple[int, int]:
    used = [each.usage for each in offer.calls if each.usage is not None]
    return sum(u["input_tokens"] for u in used), sum(u["output_tokens"] for u in used)


class TestWhatIsOffered:
    def test_free_evidence_stands_for_new_answers(self, server: OpenAIServer) -> None:
        found = offers(server, AIMessage("Turku"), has_logprobs=True)
        assert found[TOKENS, 0].calls == ()
        assert AGREEMENT not in {name for name, _ in found}
        assert {name for name, _ in found} == {TOKENS, *SELF_CHECKS}

    def test_new_answers_only_of_a_short_one(self, server: OpenAIServer) -> None:
        short, long = offers(server, AIMessage("Turku")), offers(server, AIMessage("word " * 60))
        assert [number for name, number in short if name == AGREEMENT] == [2, 4]
        assert AGREEMENT not in {name for name, _ in long}
        assert TOKENS not in {name for name, _ in short}

    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            ("Turku", True),
            (AIMessage(""), False),
            (AIMessage("x" * 160), True),
            (AIMessage("x" * 161), False),
            (AIMessage("", tool_calls=[{"name": "f", "args": {"x": 1}, "id": "1"}]), True),
            (AIMessage("", tool_calls=[{"name": "f", "args": {"x": "y" * 200}, "id": "1"}]), False),
        ],
    )
    def test_what_is_short(self, answer: Any, expected: bool) -> None:
        assert is_short(answer) is expected


class TestWhatItIsExpectedToCost:
    def test_the_cheaper_ways_are_cheaper(self, server: OpenAIServer) -> None:
        found = offers(server, AIMessage("Turku"))
        read, written = zip(*(tokens(found[name, 8]) for name in SELF_CHECKS), strict=True)
        assert read[0] > 3 * read[1] >= 3 * read[2] - 100
        assert written[0] == written[1] > 4 * written[2]

    def test_one_request_reads_the_prompt_once(self, server: OpenAIServer) -> None:
        found = offers(server, AIMessage("Turku"))
        one, eight = found[ZERO_SHOT, 1], found[ZERO_SHOT, 8]
        assert len(eight.calls) == 1
        assert tokens(eight) == (tokens(one)[0], 8 * tokens(one)[1])

    @pytest.mark.parametrize("name", [*SELF_CHECKS, AGREEMENT])
    def test_no_less_than_it_costs(self, server: OpenAIServer, name: str) -> None:
        """A server counts a word as a token here, and so fewer than any provider does."""
        server.script = lambda body: [ACCEPT if is_check(body) else "Turku"] * (body.get("n") or 1)
        offer = offers(server, AIMessage("Turku"))[name, 4]
        check = DefaultVerifier().for_model(server.model("small"))
        given: Any = {"answer": AIMessage("Turku"), "messages": REQUEST, "request": REQUEST}
        asked: Any = {**given, "check": name, "samples": 4}
        check.invoke(asked)
        billed = [server.billed[-1][f"{kind}_tokens"] for kind in ("prompt", "completion")]
        read, written = tokens(offer)
        assert len(server.requests) == len(offer.calls) == 1
        assert billed[0] <= read
        assert billed[1] <= written

    def test_what_the_text_does_not_show_is_counted_too(self, server: OpenAIServer) -> None:
        without = tokens(offers(server, AIMessage("Turku"), read=20)[SELF, 1])[0]
        with_image = tokens(offers(server, AIMessage("Turku"), read=1_020)[SELF, 1])[0]
        assert with_image >= without + 900


class TestHowItIsMade:
    @pytest.mark.parametrize("name", [ZERO_SHOT, VERDICT_ONLY])
    def test_without_examples_or_reasons(self, server: OpenAIServer, name: str) -> None:
        server.script = lambda body: [ACCEPT] * (body.get("n") or 1)
        check = DefaultVerifier().for_model(server.model("small"))
        given: Any = {"answer": "Turku", "question": "Where?", "check": name, "samples": 2}
        found = check.invoke(given)
        [body] = server.requests
        assert len(body["messages"]) == 2, "the instruction and what is judged"
        assert (body["n"], body["max_completion_tokens"]) == (
            2,
            24 if name == VERDICT_ONLY else 160,
        )
        assert found.checks[name].verdicts == (True, True)
        assert not found.verdicts

    def test_a_policy_file_can_rebuild_its_checks(self) -> None:
        check = DefaultVerifier()
        again = rebuild_check(spec_of(check), [])
        assert again.fingerprint == check.fingerprint  # type: ignore[attr-defined]
        assert "least probable token of a short answer" in spec_of(check).in_words(["small"])


class TestItsParts:
    def test_the_least_probable_token_of_a_short_answer_the_mean_of_a_long_one(self) -> None:
        def score(count: int) -> float | None:
            words = [token("word ", 0.5 if i == 0 else 0.9) for i in range(count)]
            metadata = {"logprobs": {"content": words}}
            answer = AIMessage("word " * count, response_metadata=metadata)
            return LogProbabilityVerifier(statistic="length").invoke({"answer": answer}).score

        assert score(32) == pytest.approx(0.5)
        assert score(33) == pytest.approx(0.9, abs=0.02)

    def test_thinking_models_are_asked_by_choice(self, server: OpenAIServer) -> None:
        thinking = server.model("small", profile={"reasoning_output": True})
        assert LogProbabilityVerifier().for_answering(thinking) is thinking
        asked: Any = DefaultVerifier().for_answering(thinking)
        assert asked.logprobs is True

    def test_new_answers_are_as_long_as_they_may_be(self, server: OpenAIServer) -> None:
        server.script = lambda body: ["Turku"] * body["n"]
        check = AgreementVerifier(model=server.model("small"), samples=2, max_tokens=7)
        check.invoke({"question": "Where?", "answer": "Turku"})
        assert server.requests[0]["max_completion_tokens"] == 7
        assert check.fingerprint != AgreementVerifier(model=server.model("small")).fingerprint

    def test_a_fingerprint_of_before_is_as_it_was(self) -> None:
        plain = AgreementVerifier()
        assert plain.fingerprint == AgreementVerifier(max_tokens=None).fingerprint


def test_a_tool_call_that_is_repeated_agrees(server: OpenAIServer) -> None:
    def script(body: Body) -> Any:
        return [call("weather", city="Turku") for _ in range(body.get("n") or 1)]

    server.script = script
    answer = AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Turku"}, "id": "1"}])
    check = DefaultVerifier().for_model(server.model("small"))
    given: Any = {"answer": answer, "question": "Sun?", "check": AGREEMENT, "samples": 2}
    assert check.invoke(given).checks[AGREEMENT].verdicts == (True, True)
