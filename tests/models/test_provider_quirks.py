"""What each provider says of an answer that is none, and of a request that fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata

from langchain_automix import AutoMixRunnable, CircuitBreaker, SelfVerifier, ThresholdRouter
from langchain_automix.models.failures import (
    is_cut_short,
    is_model_failure,
    may_be_billed,
    missing_answer_reason,
    status_of,
)
from langchain_automix.models.provider_quirks import CLOSED_STREAMS, PROVIDERS, early_ending
from tests.support.builders.mixes import mix, record_of
from tests.support.builders.scripted_replies import ACCEPT, Body, Error, Outcome, is_check
from tests.support.servers.gemini_server import GeminiServer
from tests.support.servers.openai_server import OpenAIServer
from tests.support.servers.responses_server import ResponsesServer

ROWS = [
    pytest.param(field, word, ending, id=f"{provider.name}, {field}: {word}")
    for provider in PROVIDERS
    for (field, word), ending in provider.endings
]
REASONS = {
    "refused": "the model refused to answer",
    "filtered": "a content filter stopped the answer",
}
PRICES = {name: {"input": 1, "output": 2} for name in ("small", "large")}


def _metadata(field: str, word: str) -> dict[str, Any]:
    outer, _, inner = field.partition(".")
    return {outer: {inner: word} if inner else word}


class TestTheTable:
    @pytest.mark.parametrize(("field", "word", "ending"), ROWS)
    def test_each_word(self, field: str, word: str, ending: str) -> None:
        metadata = _metadata(field, word)
        assert early_ending(metadata) == (ending, word)
        half = missing_answer_reason(AIMessage("Half an", response_metadata=metadata))
        nothing = missing_answer_reason(AIMessage("", response_metadata=metadata))
        if ending == "out of tokens":
            assert half is None, "what came stands, as with the plain model"
            assert nothing == "the model ran out of tokens before it answered"
        else:
            broken = f"the provider broke the answer off ({word})"
            assert half == nothing == REASONS.get(ending, broken)

    def test_what_is_known_of_closed_streams_is_in_the_documentation(self) -> None:
        page = Path(__file__).parents[2].joinpath("docs", "providers.md").read_text("utf-8")
        rows = [f"| {e.name} | {e.goes_on} | {e.billed} | {e.source} |" for e in CLOSED_STREAMS]
        table = page.split("| Provider | Goes on writing | Billed | Source |\n|---|---|---|---|\n")[
            1
        ]
        assert table.split("\n\n")[0].splitlines() == rows

    def test_one_word_has_one_meaning(self) -> None:
        meanings: dict[tuple[str, str], set[str]] = {}
        for provider in PROVIDERS:
            for word, ending in provider.endings:
                meanings.setdefault(word, set()).add(ending)
        assert all(len(found) == 1 for found in meanings.values())

    @pytest.mark.parametrize(
        "metadata",
        [
            {},
            {"finish_reason": "stop"},
            {"finish_reason": None, "prompt_feedback": {"block_reason": 0}},
            {"stop_reason": "pause_turn"},
            {"status": "completed", "incomplete_details": None},
            {"done_reason": "stop"},
        ],
    )
    def test_a_whole_answer(self, metadata: dict[str, Any]) -> None:
        assert early_ending(metadata) is None
        assert missing_answer_reason(AIMessage("Yes.", response_metadata=metadata)) is None

    def test_the_documentation_shows_it(self) -> None:
        page = Path(__file__).parents[2].joinpath("docs", "providers.md").read_text("utf-8")
        rows = [line for line in page.splitlines() if line.startswith("| ")]
        for provider in PROVIDERS:
            [row] = [
                line
                for line in rows
                if line.startswith(f"| {provider.name} | `{provider.field}` |")
            ]
            for (_, word), _ in provider.endings:
                assert f"`{word}`" in row, f"{provider.name}: {word}"

    def test_a_legacy_call_is_an_answer(self) -> None:
        call = {"function_call": {"name": "look", "arguments": "{}"}}
        assert missing_answer_reason(AIMessage("", additional_kwargs=call)) is None


@pytest.mark.parametrize(
    ("metadata", "reports_usage", "is_cut"),
    [
        ({"model_provider": "openai"}, False, True),
        ({"model_provider": "openai"}, True, False),
        ({"model_provider": "openai", "finish_reason": None}, False, False),
        ({"model_provider": "openai", "status": "completed"}, False, False),
        ({"model_provider": "another"}, False, False),
    ],
)
def test_a_stream_that_ends_without_a_reason(
    metadata: dict[str, Any], reports_usage: bool, is_cut: bool
) -> None:
    """Some servers never say why an answer ended; usage comes last, and tells of the end too."""
    usage = UsageMetadata(input_tokens=1, output_tokens=1, total_tokens=2)
    message = AIMessage("So", response_metadata=metadata)
    message.usage_metadata = usage if reports_usage else None
    assert is_cut_short(message) is is_cut


@pytest.mark.parametrize(
    "refusal",
    [
        AIMessage("", additional_kwargs={"refusal": "I cannot help."}),
        AIMessage([{"type": "refusal", "refusal": "I cannot help."}]),
    ],
)
def test_a_refusal_says_itself_why_it_ended(refusal: AIMessage) -> None:
    """So that middleware which deals with refusals, such as LangChain's own, is given it."""
    refusal.response_metadata = {"model_provider": "openai"}
    assert missing_answer_reason(refusal) == "the model refused to answer"
    assert not is_cut_short(refusal)


class TestResponses:
    @pytest.mark.parametrize("way", ["invoke", "stream"])
    @pytest.mark.parametrize(
        ("half", "problem"),
        [
            ({"incomplete": "content_filter"}, "a content filter stopped the answer"),
            ({"status": "cancelled"}, "the provider broke the answer off (cancelled)"),
        ],
        ids=["filtered", "cancelled"],
    )
    def test_half_an_answer_leads_on(
        self, server: OpenAIServer, half: dict[str, Any], problem: str, way: str
    ) -> None:
        """langchain#33840."""
        with ResponsesServer() as other:
            other.script = lambda _: [{"content": "Half an answer", **half}]
            models = other.model("small"), server.model("large")
            asked = AutoMixRunnable.from_models(*models, router=ThresholdRouter())
            if way == "invoke":
                message = asked.invoke("Where?")
            else:
                chunks = list(asked.stream("Where?"))
                message = chunks[0]
                for chunk in chunks[1:]:
                    message = message + chunk
        assert message.content == "a large answer"
        why = f"{problem[0].upper()}{problem[1:]}: large is asked."
        assert record_of(message)["why"] == why
        assert server.checks == other.checks == []

    @pytest.mark.parametrize(
        ("code", "counts"), [("server_error", True), ("invalid_prompt", False)]
    )
    @pytest.mark.parametrize("way", ["invoke", "stream"])
    def test_a_response_that_failed(self, code: str, way: str, counts: bool) -> None:
        with ResponsesServer() as server:
            error = {"code": code, "message": "sorry"}
            server.script = lambda _: [{"content": None, "status": "failed", "error": error}]
            with pytest.raises(ValueError, match="sorry") as raised:
                list(getattr(server.model("small"), way)("Where?"))
        assert is_model_failure(raised.value) is counts


class TestGemini:
    @pytest.fixture
    def gemini(self) -> Any:
        pytest.importorskip("langchain_google_genai", reason="asks by Gemini's own client")
        with GeminiServer() as server:
            yield server

    @pytest.mark.parametrize(
        ("status", "reason", "counts"),
        [
            (400, "INVALID_ARGUMENT", False),
            (400, "API_KEY_INVALID", True),
            (401, "UNAUTHENTICATED", True),
            (403, "PERMISSION_DENIED", True),
            (404, "NOT_FOUND", True),
            (429, "RESOURCE_EXHAUSTED", True),
            (500, "INTERNAL", True),
            (503, "UNAVAILABLE", True),
        ],
    )
    @pytest.mark.parametrize("how", ["invoke", "ainvoke"])
    async def test_what_it_refuses_costs_nothing(
        self,
        server: OpenAIServer,
        gemini: GeminiServer,
        status: int,
        reason: str,
        counts: bool,
        how: str,
    ) -> None:
        """js-genai#1609: LangChain's typed errors have no status; their cause has it as `code`."""
        body = {"error": {"code": status, "message": reason, "status": reason}}
        gemini.script = lambda _: Error(status, body)
        breaker = CircuitBreaker(failures=1)
        small = gemini.model("small")
        asked = AutoMixRunnable.from_models(
            small,
            server.model("large"),
            router=ThresholdRouter(),
            prices=PRICES,
            circuit_breaker=breaker,
        )
        message = asked.invoke("Q?") if how == "invoke" else await asked.ainvoke("Q?")
        assert message.content == "a large answer"
        assert record_of(message)["cost"] is not None
        assert (breaker.state(small) == "open") is counts

    def test_a_refused_n_is_remembered(self, server: OpenAIServer, gemini: GeminiServer) -> None:
        """litellm#20870: Gemini 3 takes one candidate only."""
        text = "Multiple candidates is not enabled for this model"
        refused = Error(400, {"error": {"code": 400, "message": text, "status": "X"}})

        def script(body: Body) -> Outcome:
            if is_check(body):
                return refused if body.get("n", 1) > 1 else [ACCEPT]
            return ["By the sea."]

        gemini.script = script
        asked = AutoMixRunnable.from_models(
            gemini.model("small"),
            server.model("large"),
            router=ThresholdRouter(),
            prices=PRICES,
            verifier=SelfVerifier(samples=3),
        )
        records = [record_of(asked.invoke("Where?")) for _ in range(2)]
        assert [len(record["verdicts"]) for record in records] == [3, 3]
        assert all(record["cost"] is not None for record in records)
        assert len(gemini.requests) == 5 + 4

    def test_a_prompt_that_is_blocked(self, server: OpenAIServer, gemini: GeminiServer) -> None:
        gemini.script = lambda _: [{"content": None, "block_reason": "SAFETY"}]
        models = gemini.model("small"), server.model("large")
        message = AutoMixRunnable.from_models(*models, router=ThresholdRouter()).invoke("Q?")
        assert record_of(message)["why"].startswith("A content filter stopped the answer: large")


def test_an_n_refused_by_openais_wire_is_remembered(server: OpenAIServer) -> None:
    def script(body: Body) -> Outcome:
        if is_check(body):
            return 400 if (body.get("n") or 1) > 1 else [ACCEPT]
        return ["By the sea."]

    server.script = script
    asked = mix(server, verifier=SelfVerifier(samples=3), prices=PRICES)
    for expected in (5, 4, 4):
        server.requests.clear()
        assert record_of(asked.invoke("Where?"))["cost"] is not None
        assert len(server.requests) == expected


def test_a_request_refused_for_itself_says_nothing_of_n(server: OpenAIServer) -> None:
    server.script = lambda body: 400 if is_check(body) else ["By the sea."]
    asked = mix(server, verifier=SelfVerifier(samples=2), prices=PRICES)
    for _ in range(2):
        server.requests.clear()
        asked.invoke("Where?")
        checks = [body for body in server.requests if is_check(body)]
        assert checks[0]["n"] == 2


def _of_httpx(status: int) -> Exception:
    request = httpx.Request("POST", "http://127.0.0.1")
    return httpx.HTTPStatusError(
        "m", request=request, response=httpx.Response(status, request=request)
    )


def _of_bedrock(status: int) -> Exception:
    exceptions = pytest.importorskip("botocore.exceptions", reason="Bedrock's own errors")
    response = {"Error": {"Code": "X"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error: Exception = exceptions.ClientError(response, "Converse")
    return error


def _of_ollama(status: int) -> Exception:
    error: Exception = pytest.importorskip("ollama", reason="Ollama's own errors").ResponseError(
        "m", status
    )
    return error


def _of_litellm(status: int) -> Exception:
    exceptions = pytest.importorskip("litellm.exceptions", reason="LiteLLM's own errors")
    error: Exception = exceptions.APIError(status, "m", "openai", "small")
    return error


def _of_genai(status: int) -> Exception:
    errors = pytest.importorskip("google.genai.errors", reason="Gemini's own errors")
    error: Exception = errors.APIError(status, {"error": {"message": "m"}})
    return error


class _GRPCError(Exception):
    """An error of gRPC, as langchain-google-vertexai lets it through."""

    def __init__(self, status: int) -> None:
        super().__init__("m")
        names = {400: "INVALID_ARGUMENT", 403: "PERMISSION_DENIED", 429: "RESOURCE_EXHAUSTED"}
        self._name = names.get(status, "UNAVAILABLE")

    def code(self) -> Any:
        return type("StatusCode", (), {"name": self._name})


@pytest.mark.parametrize(
    ("status", "counts"), [(400, False), (403, True), (429, True), (503, True)]
)
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    "make", [_of_httpx, _of_bedrock, _of_ollama, _of_litellm, _of_genai, _GRPCError]
)
def test_where_clients_keep_the_status(
    make: Any,
    status: int,
    wrapped: bool,
    counts: bool,
) -> None:
    error = make(status)
    if wrapped:
        error, cause = RuntimeError("in a wrapper"), error
        error.__cause__ = cause
    assert status_of(error) == status
    assert is_model_failure(error) is counts
    assert not may_be_billed(error)


@pytest.mark.parametrize("error", [ConnectionError("m"), TimeoutError(), OSError(5, "m")])
def test_without_a_status(error: Exception) -> None:
    assert status_of(error) is None
    assert is_model_failure(error)
    assert may_be_billed(error)


def test_a_code_that_is_no_status() -> None:
    error = json.JSONDecodeError("m", "", 0)
    error.code = 42  # type: ignore[attr-defined]
    assert status_of(error) is None
