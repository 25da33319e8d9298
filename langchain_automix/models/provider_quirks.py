"""Map how each provider reports a missing or truncated answer, in one table.

The words come from the providers' own clients and documentation, which each row names. LangChain's
chat models pass them on in `response_metadata`. docs/providers.md shows the table to users.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Ending = Literal["refused", "filtered", "failed", "out of tokens"]
"""How an answer ended early. `refused`: by the model. `filtered`: by a content filter. `failed`: by
an error at the provider, possibly midway. `out of tokens`: at a limit; the text so far is valid."""


@dataclass(frozen=True)
class Provider:
    """The words by which a provider reports how an answer ended."""

    name: str
    field: str
    """The key of the word in `response_metadata`; a dot leads into a nested dict."""

    refused: tuple[str, ...] = ()
    filtered: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    out_of_tokens: tuple[str, ...] = ()

    @property
    def endings(self) -> Iterator[tuple[tuple[str, str], Ending]]:
        """Each field and word, with its meaning."""
        meanings: tuple[tuple[Ending, tuple[str, ...]], ...] = (
            ("refused", self.refused),
            ("filtered", self.filtered),
            ("failed", self.failed),
            ("out of tokens", self.out_of_tokens),
        )
        for ending, words in meanings:
            for word in words:
                yield (self.field, word), ending


_GEMINI_FILTERS = (
    "SAFETY",
    "RECITATION",
    "LANGUAGE",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT",
    "IMAGE_RECITATION",
    "ESCALATION",
    "MODEL_ARMOR",
)

PROVIDERS = (
    # openai/types/chat/chat_completion.py: Choice.finish_reason. A refusal is a field of the
    # message (`refusal`), not a reason.
    Provider(
        "OpenAI, chat completions",
        "finish_reason",
        filtered=("content_filter",),
        out_of_tokens=("length",),
    ),
    # openai/types/responses/response.py: IncompleteDetails.reason. A refusal is a content block.
    Provider(
        "OpenAI, Responses",
        "incomplete_details.reason",
        filtered=("content_filter",),
        out_of_tokens=("max_output_tokens", "max_messages"),
    ),
    # openai/types/responses/response_status.py.
    Provider("OpenAI, Responses", "status", failed=("failed", "cancelled")),
    # learn.microsoft.com/azure/ai-foundry/openai/concepts/content-filter: the same as OpenAI's; a
    # filtered prompt is an error with status 400.
    Provider(
        "Azure OpenAI", "finish_reason", filtered=("content_filter",), out_of_tokens=("length",)
    ),
    # anthropic/types/stop_reason.py. `pause_turn` is not an end: the caller continues the turn.
    Provider(
        "Anthropic",
        "stop_reason",
        refused=("refusal",),
        out_of_tokens=("max_tokens", "model_context_window_exceeded"),
    ),
    # google/genai/types.py: FinishReason, and BlockedReason for a prompt without candidates.
    Provider(
        "Gemini",
        "finish_reason",
        filtered=_GEMINI_FILTERS,
        failed=(
            "OTHER",
            "IMAGE_OTHER",
            "MALFORMED_FUNCTION_CALL",
            "MALFORMED_RESPONSE",
            "UNEXPECTED_TOOL_CALL",
            "TOO_MANY_TOOL_CALLS",
            "MISSING_THOUGHT_SIGNATURE",
            "PUP_LIMITED_DISABLED",
        ),
        out_of_tokens=("MAX_TOKENS", "CONTINUATION"),
    ),
    Provider(
        "Gemini",
        "prompt_feedback.block_reason",
        filtered=(
            "SAFETY",
            "BLOCKLIST",
            "PROHIBITED_CONTENT",
            "IMAGE_SAFETY",
            "MODEL_ARMOR",
            "JAILBREAK",
            "OTHER",
        ),
    ),
    # botocore/data/bedrock-runtime: StopReason. ChatBedrock renames it to `stop_reason`.
    *(
        Provider(
            "Bedrock Converse",
            field,
            refused=("refusal",),  # from Anthropic's models
            filtered=("guardrail_intervened", "content_filtered"),
            failed=("malformed_model_output", "malformed_tool_use"),
            out_of_tokens=("max_tokens", "model_context_window_exceeded"),
        )
        for field in ("stopReason", "stop_reason")
    ),
    # docs.mistral.ai/api: ChatCompletionChoice.finish_reason.
    Provider(
        "Mistral",
        "finish_reason",
        failed=("error",),
        out_of_tokens=("length", "model_length"),
    ),
    # ollama/_types.py: done_reason. After `load` or `unload`, nothing was generated.
    Provider("Ollama", "done_reason", failed=("load", "unload"), out_of_tokens=("length",)),
    # vllm/v1/engine: FinishReason (stop, length, abort, error; `repetition` cuts off a loop).
    Provider(
        "vLLM",
        "finish_reason",
        failed=("abort", "error", "repetition"),
        out_of_tokens=("length",),
    ),
    # llama.cpp/tools/server: stop, length, tool_calls.
    Provider("llama.cpp", "finish_reason", out_of_tokens=("length",)),
    # litellm/litellm_core_utils/core_helpers.py: other providers' words passed on by LiteLLM and
    # OpenRouter.
    Provider(
        "LiteLLM",
        "finish_reason",
        refused=("refusal",),
        filtered=(
            "content_filter",
            "content_filtered",
            "guardrail_intervened",
            "ERROR_TOXIC",
            "sensitive",
        ),
        failed=("error", "ERROR", "network_error"),
        out_of_tokens=("length", "max_tokens", "model_context_window_exceeded"),
    ),
)


def _endings_by_field() -> Iterator[tuple[str, tuple[str, ...], Mapping[str, Ending]]]:
    """Yield each field as the keys that lead to it, with the meanings of its words."""
    for name in dict.fromkeys(provider.field for provider in PROVIDERS):
        endings = (each for provider in PROVIDERS for each in provider.endings)
        first, *others = name.split(".")
        yield first, tuple(others), {word: end for (field, word), end in endings if field == name}


_ENDINGS = tuple(_endings_by_field())  # read for every answer

REPLY_READERS = frozenset(
    {
        # langchain-openai
        "_construct_lc_result_from_responses_api",
        "_convert_chunk_to_generation_chunk",
        "_convert_delta_to_message_chunk",
        "_convert_dict_to_message",
        "_convert_responses_chunk_to_generation_chunk",
        "_create_chat_result",  # and langchain-mistralai, langchain-litellm
        "_create_usage_metadata",
        # langchain-anthropic
        "_format_output",
        "_make_message_chunk_from_anthropic_event",
        # langchain-google-genai
        "_parse_response_candidate",
        "_response_to_result",
        # langchain-mistralai
        "_convert_chunk_to_message_chunk",
        "_convert_mistral_chat_message_to_message",
        # langchain-aws
        "_parse_response",
        "_parse_stream_event",
        # langchain-ollama
        "_get_usage_metadata_from_generation_info",
    }
)
"""Functions in LangChain's clients that read a reply. An error raised in them is the reply's fault:
it arrived, but not in the form that the provider promises."""


# Client errors that concern the model's account, whatever their status.
# ai.google.dev/gemini-api/docs/troubleshooting: a wrong key is a bad request (400);
# botocore/data/bedrock-runtime: so is an exhausted quota.
ACCOUNT_ERRORS = ("API_KEY_INVALID", "API key not valid", "ServiceQuotaExceeded")

# The status that LangChain's types of errors (langchain_core/exceptions.py) stand for, for clients
# whose errors have no status, such as langchain-google-genai.
STATUS_OF_KIND = {
    "ContextOverflowError": 400,
    "ModelInvalidRequestError": 400,
    "ModelAuthenticationError": 401,
    "ModelPermissionDeniedError": 403,
    "ModelNotFoundError": 404,
    "ModelRateLimitError": 429,
}

# grpc.StatusCode, and the HTTP status of each (google/rpc/code.proto), for
# langchain-google-vertexai.
STATUS_OF_GRPC = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "INTERNAL": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}

NEVER_SENT_ERRORS = frozenset(
    {
        "ConnectError",  # httpx
        "ConnectTimeout",
        "PoolTimeout",
        "ClientConnectorError",  # aiohttp, used by google-genai for async requests
        "ConnectionTimeoutError",
        "ConnectTimeoutError",  # botocore and urllib3
        "EndpointConnectionError",
        "NewConnectionError",
        "NoCredentialsError",
        "ParamValidationError",
        "ConnectionRefusedError",
        "gaierror",
    }
)
"""Types of errors after which no request can have reached the provider."""


@dataclass(frozen=True)
class ClosedStream:
    """What is known about streams that their reader closes before the end.

    No provider reports in the stream what it bills for them.
    """

    name: str
    goes_on: str
    """Whether the model goes on writing."""

    billed: str
    source: str


_OPENROUTER = "openrouter.ai/docs/api-reference/streaming"

CLOSED_STREAMS = (
    ClosedStream(
        "OpenAI, Azure, Anthropic, Cohere, DeepInfra, DeepSeek, Fireworks, Novita, Together, xAI, "
        "through OpenRouter",
        "no",
        "until then",
        _OPENROUTER,
    ),
    ClosedStream(
        "Alibaba, Bedrock, Google, Groq, Mistral, Nebius, Perplexity, SambaNova, through "
        "OpenRouter",
        "yes",
        "the whole answer",
        _OPENROUTER,
    ),
    ClosedStream(
        "Novita", "not known", "what was written, in any case", "novita.ai/docs/guides/llm-billing"
    ),
    ClosedStream("vLLM", "no", "-", "github.com/vllm-project/vllm/pull/32442"),
    ClosedStream(
        "llama.cpp",
        "no, but in some builds yes",
        "-",
        "github.com/ggml-org/llama.cpp/issues/4911, 11720 and 24496",
    ),
    ClosedStream("any other, asked directly", "not known", "not known", "-"),
)


def early_ending(metadata: Mapping[str, Any]) -> tuple[Ending, str] | None:
    """Return how an answer ended early, and the provider's word for it; None if it is complete.

    Args:
        metadata: The message's `response_metadata`.
    """
    for first, others, endings in _ENDINGS:
        if (word := metadata.get(first)) is None:
            continue
        for key in others:
            word = word.get(key) if isinstance(word, Mapping) else None
        word = getattr(word, "value", word)  # Gemini's words are enumerations
        if isinstance(word, str) and (ending := endings.get(word)) is not None:
            return ending, word
    return None
