"""The answer's own log-probabilities as a check: what is asked for, what is read of it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel

from langchain_automix import (
    AutoMixRunnable,
    LogProbabilityVerifier,
    SelfVerifier,
    ThresholdRouter,
)
from langchain_automix.verifiers.base import prepare_answerer as set_to_answer
from tests.support.builders.checks import asked
from tests.support.builders.mixes import mix, record_of, weather
from tests.support.builders.scripted_replies import call
from tests.support.servers.anthropic_server import AnthropicServer
from tests.support.servers.openai_server import OpenAIServer, token

TOKENS = [token("Tur", 0.5, Hel=0.3, Rau=0.2), token("ku", 0.8), token(".", 0.9)]


def said(text: str = "Turku.", logprobs: Any = None, **fields: Any) -> AIMessage:
    told = {"content": TOKENS} if logprobs is None else logprobs
    return AIMessage(text, response_metadata={"logprobs": told}, **fields)


def score(answer: Any, statistic: Any = "mean") -> float | None:
    found = LogProbabilityVerifier(statistic=statistic).invoke(asked(answer=answer))
    assert (found.score is None) == (found.problem is not None)
    assert found.calls == ()
    return found.score


def problem(answer: Any, statistic: Any = "mean") -> str:
    found = LogProbabilityVerifier(statistic=statistic).invoke(asked(answer=answer))
    assert found.score is None
    return found.problem or ""


class TestWhatIsRead:
    @pytest.mark.parametrize(
        ("statistic", "expected"),
        [("min", 0.5), ("mean", (0.5 * 0.8 * 0.9) ** (1 / 3)), ("first", 0.5), ("margin", 0.2)],
    )
    def test_the_statistic(self, statistic: str, expected: float) -> None:
        assert score(said(), statistic) == pytest.approx(expected)

    @given(
        st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=20),
        st.sampled_from(["min", "mean", "first"]),
    )
    def test_by_brute_force(self, chances: list[float], statistic: str) -> None:
        entries = [token(f"w{i} ", chance) for i, chance in enumerate(chances)]
        text = "".join(each["token"] for each in entries)
        expected = {
            "min": min(chances),
            "mean": math.prod(chance ** (1 / len(chances)) for chance in chances),
            "first": chances[0],
        }
        found = score(said(text, {"content": entries}), statistic)
        assert found == pytest.approx(expected[statistic])

    @pytest.mark.parametrize("statistic", ["min", "mean", "first", "margin"])
    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ([token("\n\n", 0.01)], []),
            ([token(" ", 0.01), token("<|channel|>", 0.01)], [token("<|im_end|>", 0.01)]),
            ([token("<think>", 0.01), token("Tur", 0.01), token("ku.", 0.01)], []),
            ([token("", 0.01)], [token("\n", 0.01), token("</s>", 0.01)]),
        ],
    )
    def test_only_the_text_counts(self, statistic: str, before: Any, after: Any) -> None:
        told = {"content": [*before, *TOKENS, *after]}
        assert score(said(" Turku.\n", told), statistic) == score(said(), statistic)

    def test_also_where_the_text_cannot_be_found_in_the_tokens(self) -> None:
        told = {"content": [token("<|x|>", 0.1), token(" ", 0.1), *TOKENS, token("</s>", 0.1)]}
        assert score(said("TURKU", told), "min") == pytest.approx(0.5)

    def test_letters_that_are_broken_over_tokens(self) -> None:
        whole = "Ää".encode()
        broken = [
            {"token": f"bytes:{part}", "bytes": [part], "logprob": math.log(0.5 + i / 10)}
            for i, part in enumerate(whole)
        ]
        told = {"content": [token("Ä", 0.01), *broken]}
        assert score(said("Ää", told), "min") == pytest.approx(0.5)

    def test_the_older_form(self) -> None:
        told = {
            "tokens": ["Tur", "ku"],
            "token_logprobs": [math.log(0.6), math.log(0.9)],
            "top_logprobs": [{"Tur": math.log(0.6), "Hel": math.log(0.1)}, None],
        }
        assert score(said("Turku", told), "min") == pytest.approx(0.6)
        assert score(said("Turku", told), "margin") == pytest.approx(0.5)

    def test_a_bare_list_of_entries(self) -> None:
        assert score(said(logprobs=TOKENS)) == score(said())

    def test_an_impossible_and_a_rounded_one(self) -> None:
        told = {"content": [{"token": "Turku", "logprob": 1e-7}, token(".", 0.0)]}
        assert score(said(logprobs=told), "first") == 1.0
        assert score(said(logprobs=told), "min") == 0.0
        assert score(said(logprobs={"content": [{"token": "Turku.", "logprob": -math.inf}]})) == 0.0


class TestUnknown:
    @pytest.mark.parametrize(
        "logprobs", [{}, {"content": None}, {"content": []}, {"refusal": []}, 5, "x", [5]]
    )
    def test_none_there(self, logprobs: Any) -> None:
        assert "set logprobs=True on the answering model" in problem(said(logprobs=logprobs))

    @pytest.mark.parametrize("logprob", [None, math.nan, "x"])
    def test_none_that_can_be_read(self, logprob: Any) -> None:
        told = {"content": [{"token": "Turku.", "logprob": logprob}]}
        assert "no log-probabilities" in problem(said(logprobs=told))

    def test_a_text_alone(self) -> None:
        assert "no message of a model" in problem("Turku")

    def test_a_message_without_any(self) -> None:
        assert "no log-probabilities" in problem(AIMessage("Turku"))

    def test_a_tool_call(self) -> None:
        calling = [{"name": "weather", "args": {"city": "Turku"}, "id": "1"}]
        assert "calls a tool" in problem(said("", tool_calls=calling))

    def test_an_empty_answer(self) -> None:
        assert problem(said(" ")) == "the answer is empty"

    def test_no_alternatives_for_a_margin(self) -> None:
        told = {"content": [{"token": "Turku.", "logprob": -0.1, "top_logprobs": []}]}
        assert "set top_logprobs=2" in problem(said(logprobs=told), "margin")
        one = {"content": [token("Turku.", 0.9)]}
        assert "set top_logprobs=2" in problem(said(logprobs=one), "margin")


class TestInAMix:
    def test_the_models_are_asked_for_them(self, server: OpenAIServer) -> None:
        server.script = lambda _: [{"content": "Turku.", "logprobs": TOKENS}]
        verifier = LogProbabilityVerifier(statistic="margin")
        kept = mix(server, verifier=verifier, router=ThresholdRouter(threshold=0.15)).invoke("?")
        [body] = server.requests
        assert (body["logprobs"], body["top_logprobs"]) == (True, 2)
        assert record_of(kept)["confidence"] == pytest.approx(0.2)
        assert record_of(kept)["model"] == "small"

    def test_the_kept_answer_looks_as_ever_but_for_them(self, server: OpenAIServer) -> None:
        found = []
        for verifier in (SelfVerifier(), LogProbabilityVerifier()):
            kept = mix(server, verifier=verifier).invoke("Where?")
            metadata = dict(kept.response_metadata)
            del metadata["automix"]
            told = metadata.pop("logprobs", None)
            assert (told is None) == isinstance(verifier, SelfVerifier)
            found.append((kept.content, kept.usage_metadata, kept.tool_calls, metadata))
        assert found[0] == found[1]

    async def test_an_answer_that_streams_has_them_too(self, server: OpenAIServer) -> None:
        model: Any = LogProbabilityVerifier().for_answering(server.model("small"))
        server.script = lambda _: [{"content": "Turku.", "logprobs": TOKENS}]
        parts = [part async for part in model.astream("Where?")]
        whole = parts[0]
        for part in parts[1:]:
            whole += part
        assert score(whole, "min") == pytest.approx(0.5)

    def test_the_check_is_free(self, server: OpenAIServer) -> None:
        prices = {"small": {"input": 1.0, "output": 1.0}, "large": {"input": 9.0, "output": 9.0}}
        asked_mix = mix(server, verifier=LogProbabilityVerifier(), prices=prices)
        record = record_of(asked_mix.invoke("Where?"))
        assert len(server.requests) == 1
        assert record["cost"] == record["alone"]["small"]["cost"]

    def test_with_structured_output(self, server: OpenAIServer) -> None:
        class Port(BaseModel):
            city: str

        text = '{"city": "Turku"}'
        entries = [token('{"city": "', 1.0), token("Turku", 0.5), token('"}', 1.0)]
        server.script = lambda _: [{"content": text, "logprobs": entries}]
        router = ThresholdRouter(threshold=0.6)
        verifier = LogProbabilityVerifier(statistic="min")
        structured = mix(server, verifier=verifier, router=router)
        found = structured.with_structured_output(Port, include_raw=True).invoke("Where?")
        assert found["parsed"] == Port(city="Turku")
        assert [body["model"] for body in server.requests] == ["small", "large"]
        assert server.requests[0]["logprobs"] is True
        assert record_of(found["raw"])["confidence"] == pytest.approx(0.5)

    def test_a_tool_call_is_unknown(self, server: OpenAIServer) -> None:
        server.script = lambda _: [call("weather", city="Turku")]
        kept = mix(server, verifier=LogProbabilityVerifier()).bind_tools([weather]).invoke("Sun?")
        assert record_of(kept)["confidence"] is None


class TestWhichModelsAreSet:
    def test_wrappers_are_kept(self, server: OpenAIServer) -> None:
        model = server.model("small").bind(stop=["x"]).with_retry()
        wrapped = model.with_fallbacks([server.model("large")])
        ready: Any = set_to_answer(LogProbabilityVerifier().with_retry(), wrapped)
        assert ready.runnable.bound.bound.logprobs is True
        assert ready.runnable.kwargs == {"stop": ["x"]}
        assert ready.fallbacks[0].logprobs is True
        assert server.model("small").logprobs is None

    def test_more_alternatives_by_choice_are_kept(self, server: OpenAIServer) -> None:
        verifier = LogProbabilityVerifier(statistic="margin")
        ready: Any = verifier.for_answering(server.model("small", top_logprobs=5))
        assert (ready.logprobs, ready.top_logprobs) == (True, 5)

    def test_those_that_do_not_serve_them_are_as_they_were(self, server: OpenAIServer) -> None:
        anthropic = AnthropicServer()  # never started, for it is not asked
        verifier = LogProbabilityVerifier()
        others: list[Any] = [
            anthropic.model("claude"),
            server.model("small", profile={"reasoning_output": True}),
            server.model("small", use_responses_api=True),
            RunnableLambda(lambda _: AIMessage("Turku")),
        ]
        for other in others:
            assert verifier.for_answering(other) is other

    def test_a_mix_of_mixes(self, server: OpenAIServer) -> None:
        inner = mix(server, verifier=SelfVerifier(samples=1))
        outer = AutoMixRunnable.from_models(
            inner,
            server.model("third"),
            verifier=LogProbabilityVerifier(),
            router=ThresholdRouter(threshold=0.5),
        )
        server.script = lambda body: [body["model"]]
        assert outer.invoke("Where?").text == "third", "the inner mix has none: unknown"

    def test_the_fingerprint_tells_what_is_read(self) -> None:
        kinds: list[Any] = ["min", "mean", "first", "margin"]
        prints = {LogProbabilityVerifier(statistic=kind).fingerprint for kind in kinds}
        assert len(prints) == len(kinds)


@pytest.mark.parametrize(
    ("entry", "margin"),
    [
        ({"bytes": [999], "top_logprobs": []}, None),
        ({"bytes": ["x"], "top_logprobs": {"Yes": -0.1, "No": -3.0}}, 0.855),
        ({"bytes": 5, "top_logprobs": ["x", {"token": "No", "logprob": None}]}, None),
        ({"top_logprobs": [{"logprob": -0.1}, {"logprob": -3.0}]}, 0.855),
    ],
)
def test_what_a_server_sends_in_no_known_form(entry: dict[str, Any], margin: float | None) -> None:
    told = {"content": [{"token": "Yes", "logprob": -0.1, **entry}]}
    answer = AIMessage("Yes", response_metadata={"logprobs": told})
    found = LogProbabilityVerifier().invoke({"answer": answer})
    assert found.score == pytest.approx(0.905, abs=1e-3)
    found = LogProbabilityVerifier(statistic="margin").invoke({"answer": answer})
    assert found.score == (None if margin is None else pytest.approx(margin, abs=1e-3))


def test_lists_side_by_side_in_no_known_form() -> None:
    told = {"token_logprobs": [-0.1], "tokens": ["Yes"], "top_logprobs": [["a"]]}
    answer = AIMessage("Yes", response_metadata={"logprobs": told})
    found = LogProbabilityVerifier().invoke({"answer": answer})
    assert found.score == pytest.approx(0.905, abs=1e-3)
