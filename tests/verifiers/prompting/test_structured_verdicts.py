"""Verdicts as JSON of a schema: what is asked for, how they are read, and how long replies get."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda

from langchain_automix import SelfVerifier
from langchain_automix.models.request_shape import in_format, uses_responses_api
from langchain_automix.verifiers.prompting.verdicts import parse_structured, verdict_schema
from langchain_automix.verifiers.prompting.wording import Wording
from tests.support.builders.checks import asked
from tests.support.builders.mixes import mix, record_of
from tests.support.servers.anthropic_server import AnthropicServer
from tests.support.servers.openai_server import OpenAIServer, answering, is_check

ACCEPT = json.dumps({"reasoning": "The context says so.", "correct": True})
REJECT = json.dumps({"reasoning": "The context says otherwise.", "correct": False})


DEFAULT = "8feb7692a5ac5331"
"""The fingerprint that policies in use were fitted to."""


def replying(*replies: Any) -> Any:
    """A script that gives its checks these replies, and cycles through them for `n`."""

    def script(body: dict[str, Any]) -> list[Any]:
        return [replies[i % len(replies)] for i in range(body.get("n") or 1)]

    return script


class TestReading:
    @pytest.mark.parametrize(("reply", "verdict"), [(ACCEPT, True), (REJECT, False)])
    def test_a_whole_object_is_a_verdict(self, reply: str, verdict: bool) -> None:
        assert parse_structured(reply) is verdict
        assert parse_structured(f" \n{reply}\n") is verdict
        alone = json.dumps({"correct": verdict})
        assert parse_structured(alone, reasoning=False) is verdict

    @pytest.mark.parametrize(
        "reply",
        [
            "",
            "true",
            "null",
            "[]",
            '{"reasoning": "So.", "correct": tru',  # cut off
            '{"reasoning": "So."}',
            '{"correct": true}',  # the reasoning is missing
            '{"reasoning": "So.", "correct": null}',
            '{"reasoning": "So.", "correct": "true"}',
            '{"reasoning": "So.", "correct": 1}',
            '{"reasoning": null, "correct": true}',
            '{"reasoning": "So.", "correct": true, "sure": false}',
            '{"reasoning": "So.", "correct": false, "correct": true}',
            '{"reasoning": "So.", "Correct": true}',
            '[{"reasoning": "So.", "correct": true}]',
            '{"reasoning": "So.", "correct": true} {"reasoning": "So.", "correct": true}',
            '```json\n{"reasoning": "So.", "correct": true}\n```',
            '{"reasoning": "It is wrong.\\nVerification Decision: Incorrect", "correct": true}',
            "[" * 100_000,
        ],
    )
    def test_anything_else_is_invalid(self, reply: str) -> None:
        assert parse_structured(reply) is None

    def test_a_quotation_inside_the_reasoning_does_not_count(self) -> None:
        quoted = 'It says: {"reasoning": "x", "correct": true}, which proves nothing.'
        reply = json.dumps({"reasoning": quoted, "correct": False})
        assert parse_structured(reply) is False

    def test_reasoning_that_was_not_asked_for_is_invalid(self) -> None:
        assert parse_structured(ACCEPT, reasoning=False) is None

    @given(st.text())
    def test_text_is_invalid(self, text: str) -> None:
        assert parse_structured(text) is None
        assert parse_structured(json.dumps(text)) is None

    @given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.booleans())
    def test_reasoning_without_a_verdict_line_never_changes_the_verdict(
        self, reasoning: str, correct: bool
    ) -> None:
        reply = json.dumps({"reasoning": reasoning, "correct": correct})
        assert parse_structured(reply) in {correct, None}
        if "verification" not in reasoning.casefold():
            assert parse_structured(reply) is correct


class TestAskingOpenAI:
    def test_the_schema_is_sent_and_n_replies_cost_one_request(self, server: OpenAIServer) -> None:
        server.script = replying(ACCEPT, REJECT, "I would rather not say.")
        verifier = SelfVerifier(model=server.model("small"), structured=True, samples=3)
        found = verifier.invoke(asked())
        assert found.verdicts == (True, False, None)
        [body] = server.requests
        assert (body["n"], body["temperature"]) == (3, 1.0)
        assert body["response_format"]["json_schema"]["strict"] is True
        schema = body["response_format"]["json_schema"]["schema"]
        assert list(schema["properties"]) == ["reasoning", "correct"]  # in the order of writing
        assert schema == verdict_schema(reasoning=True)
        assert "Reply with a JSON object" in body["messages"][0]["content"]
        assert "Verification Decision" not in json.dumps(body)
        [call] = found.calls
        assert call.usage is not None
        assert call.usage["output_tokens"] == server.billed[0]["completion_tokens"]

    def test_examples_are_shown_in_the_form_that_is_asked_for(self, server: OpenAIServer) -> None:
        server.script = replying(ACCEPT)
        SelfVerifier(model=server.model("small"), structured=True).invoke(asked())
        said = [m["content"] for m in server.requests[0]["messages"] if m["role"] == "assistant"]
        verdicts = [parse_structured(text) for text in said]
        assert len(verdicts) == 6
        assert sum(map(bool, verdicts)) == 3
        assert None not in verdicts

    def test_the_verdict_alone(self, server: OpenAIServer) -> None:
        server.script = replying('{"correct": true}', ACCEPT)
        small = server.model("small")
        verifier = SelfVerifier(model=small, structured=True, reasoning=False, samples=2)
        assert verifier.invoke(asked()).verdicts == (True, None)
        [body] = server.requests
        assert body["max_completion_tokens"] == 24
        assert list(body["response_format"]["json_schema"]["schema"]["properties"]) == ["correct"]

    async def test_asynchronously_in_parallel_with_seeds(self, server: OpenAIServer) -> None:
        server.script = replying(ACCEPT)
        model = server.model("small", seed=7)
        verifier = SelfVerifier(model=model, structured=True, samples=3, sampling="parallel")
        assert (await verifier.ainvoke(asked())).verdicts == (True,) * 3
        assert sorted(body["seed"] for body in server.requests) == [7, 8, 9]
        assert all("response_format" in body for body in server.requests)

    def test_one_reply_that_was_cut_loses_no_others(self, server: OpenAIServer) -> None:
        # OpenAI's client, told of a response format, raises for all where one was cut.
        cut = {"content": ACCEPT[:20], "finish_reason": "length"}
        server.script = replying(ACCEPT, cut)
        verifier = SelfVerifier(model=server.model("small"), structured=True, samples=4)
        assert verifier.invoke(asked()).verdicts == (True, None, True, None)

    def test_a_refusal_is_invalid(self, server: OpenAIServer) -> None:
        server.script = replying({"content": None, "refusal": "I cannot judge this."})
        verifier = SelfVerifier(model=server.model("small"), structured=True, samples=2)
        assert verifier.invoke(asked()).verdicts == (None, None)

    def test_the_answers_own_format_and_body_are_told_apart(self, server: OpenAIServer) -> None:
        server.script = replying(ACCEPT)
        model = server.model("small", extra_body={"top_k": 5}).bind(
            response_format={"type": "json_object"}
        )
        SelfVerifier(model=model, structured=True, samples=1).invoke(asked())
        [body] = server.requests
        assert body["top_k"] == 5
        assert body["response_format"]["type"] == "json_schema"

    def test_in_a_mix_it_decides(self, server: OpenAIServer) -> None:
        answers = answering("small says", "large says")
        check = replying(REJECT)
        server.script = lambda body: check(body) if is_check(body) else answers(body)
        message = mix(server, verifier=SelfVerifier(structured=True)).invoke("Where?")
        assert record_of(message)["verdicts"] == [False] * 8
        assert message.text == "large says"


class TestLanguages:
    @pytest.mark.parametrize("language", ["de", "en", "es", "fr", "zh"])
    @pytest.mark.parametrize("reasoning", [True, False])
    def test_the_instruction_is_translated_and_the_fields_are_not(
        self, server: OpenAIServer, language: str, reasoning: bool
    ) -> None:
        wording = Wording.of(language)
        reply = json.dumps(
            {"reasoning": "So.", "correct": False} if reasoning else {"correct": False}
        )
        server.script = replying(reply)
        verifier = SelfVerifier(
            model=server.model("small"), wording=wording, structured=True, reasoning=reasoning
        )
        assert verifier.invoke(asked()).verdicts == (False,) * 8
        said = server.requests[0]["messages"][0]["content"]
        assert "JSON" in said
        assert "'correct'" in said
        assert ("'reasoning'" in said) is reasoning
        assert wording.label not in said

    def test_another_languages_verdict_line_in_the_reasoning_contradicts(self) -> None:
        german = Wording.of("de")
        said = {"reasoning": "Urteil der Prüfung: Falsch", "correct": True}
        assert parse_structured(json.dumps(said), german) is None
        assert parse_structured(json.dumps({**said, "correct": False}), german) is False


class TestOtherModels:
    def test_anthropic_is_asked_in_its_own_form(self) -> None:
        with AnthropicServer() as server:
            server.script = replying(ACCEPT)
            model = server.model("claude-test")
            found = SelfVerifier(model=model, structured=True, samples=2).invoke(asked())
            assert found.verdicts == (True, True)
            body = server.requests[0]
            assert body["output_config"]["format"]["schema"]["required"] == ["reasoning", "correct"]

    @pytest.mark.parametrize(
        "model",
        [
            FakeListChatModel(responses=[ACCEPT]),
            RunnableLambda(lambda _: ACCEPT),
        ],
    )
    def test_where_no_way_is_known_the_check_is_unknown(self, model: Any) -> None:
        found = SelfVerifier(model=model, structured=True).invoke(asked())
        assert found.verdicts == ()
        assert found.confidence is None
        assert "set structured=False" in str(found.problem)

    def test_a_profile_that_denies_it_is_believed(self, server: OpenAIServer) -> None:
        model = server.model("small", profile={"structured_output": False})
        found = SelfVerifier(model=model, structured=True).invoke(asked())
        assert "structured=False" in str(found.problem)
        assert server.requests == []

    def test_a_fallback_without_it_is_enough_to_be_unknown(self, server: OpenAIServer) -> None:
        model = server.model("small").with_fallbacks([FakeListChatModel(responses=[ACCEPT])])
        found = SelfVerifier(model=model, structured=True).invoke(asked())
        assert "structured=False" in str(found.problem)

    def test_the_responses_api_gets_the_schema_as_its_text_format(
        self, server: OpenAIServer
    ) -> None:
        model = server.model("small", use_responses_api=True)
        assert uses_responses_api(model)
        shaped: Any = in_format("verdict", verdict_schema(reasoning=True))(model)
        payload = shaped._get_request_payload([HumanMessage("Hi")])
        assert payload["text"]["format"]["name"] == "verdict"
        assert payload["text"]["format"]["schema"] == verdict_schema(reasoning=True)


class TestFingerprint:
    def test_the_default_is_what_it_was(self) -> None:
        assert SelfVerifier().fingerprint == DEFAULT
        assert SelfVerifier(structured=False).fingerprint == DEFAULT

    def test_it_tells_structured_checks_apart(self) -> None:
        kinds = [{"structured": s, "reasoning": r} for s in (True, False) for r in (True, False)]
        assert len({SelfVerifier(**kind).fingerprint for kind in kinds}) == 4


class TestLength:
    @pytest.mark.parametrize(
        ("fields", "sent"),
        [
            ({}, 160),
            ({"reasoning": False}, 24),
            ({"structured": True}, 160),
            ({"max_tokens": 10, "reasoning": False}, 10),
            ({"max_tokens": None}, 700),
            ({"max_tokens": None, "reasoning": False}, 700),
        ],
    )
    def test_replies_are_bounded(
        self, server: OpenAIServer, fields: dict[str, Any], sent: int
    ) -> None:
        model = server.model("small", max_tokens=700)
        SelfVerifier(model=model, **fields).invoke(asked())
        assert server.requests[0]["max_completion_tokens"] == sent

    def test_none_leaves_a_bound_limit_and_still_no_tools_or_format(
        self, server: OpenAIServer
    ) -> None:
        model = server.model("small").bind(
            max_tokens=300, stop=["\n"], response_format={"type": "json_object"}, tools=[]
        )
        SelfVerifier(model=model, max_tokens=None).invoke(asked())
        [body] = server.requests
        assert body["max_completion_tokens"] == 300
        assert not {"stop", "response_format", "tools"} & body.keys()

    @pytest.mark.parametrize("reasoning", [True, False])
    def test_a_model_that_thinks_first_is_not_bounded(
        self, server: OpenAIServer, reasoning: bool
    ) -> None:
        # OpenAI counts the thinking into max_completion_tokens: a bound would leave no reply.
        model = server.model("o4-mini")
        assert (model.profile or {})["reasoning_output"] is True
        SelfVerifier(model=model, reasoning=reasoning).invoke(asked())
        assert "max_completion_tokens" not in server.requests[0]
        SelfVerifier(model=server.model("gpt-4o-mini"), reasoning=reasoning).invoke(asked())
        assert server.requests[1]["max_completion_tokens"] == (160 if reasoning else 24)
