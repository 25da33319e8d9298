"""What shapes an answer does not shape a check, whatever a provider calls it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from langchain_openai import ChatOpenAI

from langchain_automix import AutoMixRunnable, SelfVerifier, ThresholdRouter
from langchain_automix.models.sampling import for_sampling
from langchain_automix.models.wrappers import unwrap
from tests.support.builders.mixes import record_of
from tests.support.builders.scripted_replies import ACCEPT, Body, is_check
from tests.support.servers.anthropic_server import AnthropicServer
from tests.support.servers.gemini_server import GeminiServer
from tests.support.servers.openai_server import OpenAIServer
from tests.support.servers.responses_server import ResponsesServer

SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}}
FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "city", "strict": True, "schema": SCHEMA},
}

# What answers are shaped by, and what of it a check keeps.
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "vLLM": ({"extra_body": {"guided_json": SCHEMA}}, {}),
    "vLLM, beside another": (
        {"extra_body": {"guided_regex": "a+", "repetition_penalty": 1.1}},
        {"extra_body": {"repetition_penalty": 1.1}},
    ),
    "vLLM, since 0.12": ({"extra_body": {"structured_outputs": {"json": SCHEMA}}}, {}),
    "SGLang": ({"extra_body": {"ebnf": "root ::= 'a'"}}, {}),
    "llama.cpp": (
        {"extra_body": {"grammar": "root ::= 'a'", "top_k": 5}},
        {"extra_body": {"top_k": 5}},
    ),
    "an end": ({"extra_body": {"stop_token_ids": [7]}}, {}),
    "tokens": ({"logit_bias": {"7": -100}}, {}),
    "media": ({"modalities": ["text", "audio"], "audio": {"voice": "a"}}, {}),
    "a search": ({"web_search_options": {}}, {"web_search_options": {}}),
}


def _script(body: Body) -> list[str]:
    if is_check(body):
        return [ACCEPT] * (body.get("n") or 1)
    return ['{"name": "Turku"}']


def _asked(small: Any, server: OpenAIServer) -> dict[str, Any]:
    models = small, server.model("large")
    verifier = SelfVerifier(samples=2)
    asked = AutoMixRunnable.from_models(*models, router=ThresholdRouter(), verifier=verifier)
    return record_of(asked.invoke("Where?"))


@pytest.mark.parametrize("way", ["field", "argument", "further"])
@pytest.mark.parametrize(("shape", "kept"), SHAPES.values(), ids=SHAPES)
def test_of_openais_wire(
    server: OpenAIServer, shape: dict[str, Any], kept: dict[str, Any], way: str
) -> None:
    """vllm#12225."""
    server.script = _script
    small: Any
    if way == "argument":
        small = server.model("small").bind(**shape)
    elif way == "field" and shape.keys() <= ChatOpenAI.model_fields.keys():
        small = server.model("small", **shape)
    else:
        small = server.model("small", model_kwargs=shape)
    assert _asked(small, server)["verdicts"] == [True, True]
    answer, check = server.requests
    for name, value in _flat(shape).items():
        assert answer[name] == value
        expected = _flat(kept)
        assert (name in check) is (name in expected)


def _flat(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What a request has in its body: the client puts the extra body beside the rest."""
    extra: Mapping[str, Any] = arguments.get("extra_body", {})
    return {**{name: arguments[name] for name in arguments.keys() - {"extra_body"}}, **extra}


def test_of_the_responses_api(server: OpenAIServer) -> None:
    text = {"format": {"type": "json_schema", "name": "city", "schema": SCHEMA}, "verbosity": "low"}
    with ResponsesServer() as other:
        other.script = _script
        small = other.model("small", model_kwargs={"text": text})
        assert _asked(small, server)["verdicts"] == [True, True]
        answer, *checks = other.requests
    assert answer["text"] == text
    assert [check["text"] for check in checks] == [{"verbosity": "low"}] * 2


@pytest.mark.parametrize("bound", [False, True])
def test_of_anthropic(server: OpenAIServer, bound: bool) -> None:
    shape = {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}
    with AnthropicServer() as other:
        other.script = _script
        small = other.model("small").bind(**shape) if bound else other.model("small", **shape)
        assert _asked(small, server)["verdicts"] == [True, True]
        answer, *checks = other.requests
    assert answer["output_config"]["format"]["schema"] == SCHEMA
    assert all("output_config" not in check for check in checks)


@pytest.mark.parametrize("bound", [False, True])
def test_of_gemini(server: OpenAIServer, bound: bool) -> None:
    """langchain-google#1039."""
    pytest.importorskip("langchain_google_genai", reason="asks by Gemini's own client")
    shape = {"response_mime_type": "application/json", "response_schema": SCHEMA}
    with GeminiServer() as other:
        other.script = _script
        small = other.model("small").bind(**shape) if bound else other.model("small", **shape)
        assert _asked(small, server)["verdicts"] == [True, True]
        answer, *checks = other.requests
    assert answer["generationConfig"]["responseMimeType"] == "application/json"
    for check in checks:
        assert not {"responseMimeType", "responseJsonSchema"} & check["generationConfig"].keys()


def test_answers_that_are_sampled_again_keep_their_shape(server: OpenAIServer) -> None:
    shape = {"extra_body": {"guided_json": SCHEMA, "seed": 7}, "response_format": FORMAT}
    again: Any = for_sampling(
        server.model("small").bind(**shape), temperature=1.0, max_tokens=None, answers=True
    )
    kept = {"extra_body": {"guided_json": SCHEMA}, "response_format": FORMAT}
    assert unwrap(again)[1] == kept
