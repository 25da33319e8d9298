"""The body of a chat completion: what a client may ask, and what that is to a mix.

Each field is either passed on to the models, or refused: none is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, convert_to_messages
from langchain_core.output_parsers.openai_tools import make_invalid_tool_call, parse_tool_call
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from langchain_automix.serve.errors import ApiError

LONGEST_NAME = 256
"""Characters that the name of a mix may have."""

_INT64 = 2**63


class _Part(BaseModel):
    """What a request is made of: no field that is not named here."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class TextPart(_Part):
    """A part of a message that is text."""

    type: Literal["text"]
    text: str


class ImageUrl(_Part):
    """Where an image is: an address, or the image itself as a `data:` URL."""

    url: str = Field(min_length=1)
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(_Part):
    """A part of a message that is an image."""

    type: Literal["image_url"]
    image_url: ImageUrl


class RefusalPart(_Part):
    """A part of an earlier answer by which the model refused."""

    type: Literal["refusal"]
    refusal: str


TextParts = Annotated[list[TextPart], Field(min_length=1)]
UserPart = Annotated[TextPart | ImagePart, Field(discriminator="type")]
AssistantPart = Annotated[TextPart | RefusalPart, Field(discriminator="type")]


class SystemMessage(_Part):
    """Instructions."""

    role: Literal["system", "developer"]
    content: str | TextParts
    name: str | None = None


class UserMessage(_Part):
    """What the user says."""

    role: Literal["user"]
    content: str | Annotated[list[UserPart], Field(min_length=1)]
    name: str | None = None


class CalledFunction(_Part):
    """The function of a tool call."""

    name: str = Field(min_length=1)
    arguments: str
    """JSON, as the model wrote it."""

    parsed_arguments: Any = None
    """The same as a value, which OpenAI's client adds to an answer and sends back with it."""


class ToolCall(_Part):
    """A call of a tool in an earlier answer."""

    id: str = Field(min_length=1)
    type: Literal["function"]
    function: CalledFunction
    index: int | None = None
    """Of an answer that was streamed and is sent back."""


class AssistantMessage(_Part):
    """An earlier answer."""

    role: Literal["assistant"]
    content: str | Annotated[list[AssistantPart], Field(min_length=1)] | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    name: str | None = None
    annotations: list[Any] | None = None
    """Of the answer that a client sends back; no model reads them."""

    parsed: Any = None
    """The content as a value, which OpenAI's client adds to an answer and sends back with it."""

    audio: None = None
    function_call: None = None


class ToolMessage(_Part):
    """What a tool returned."""

    role: Literal["tool"]
    content: str | TextParts
    tool_call_id: str = Field(min_length=1)


Message = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")
]


class Function(_Part):
    """A function that a model may call."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_-]+$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """A JSON schema."""

    strict: bool | None = None


class Tool(_Part):
    """A tool that a model may call."""

    type: Literal["function"]
    function: Function


class FunctionName(_Part):
    """The name of a function."""

    name: str = Field(min_length=1, max_length=64)


class NamedTool(_Part):
    """The tool that must be called."""

    type: Literal["function"]
    function: FunctionName


class TextFormat(_Part):
    """Answers as they come."""

    type: Literal["text"]


class JsonObjectFormat(_Part):
    """Answers that are a JSON object."""

    type: Literal["json_object"]


class JsonSchema(_Part):
    """The schema of an answer."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_-]+$")
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(_Part):
    """Answers that fit a JSON schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[
    TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")
]


class StreamOptions(_Part):
    """How a stream is sent."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class ChatCompletionRequest(_Part):
    """The body of `POST /v1/chat/completions`."""

    model: str = Field(min_length=1, max_length=LONGEST_NAME)
    """The name of a mix, as `/v1/models` lists them."""

    messages: list[Message] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    max_tokens: int | None = Field(default=None, ge=1, lt=_INT64)
    max_completion_tokens: int | None = Field(default=None, ge=1, lt=_INT64)
    temperature: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    n: Annotated[int, Field(ge=1, le=1)] | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=0)] | None = None

    # What is passed on as it is.
    top_p: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    seed: int | None = Field(default=None, ge=-_INT64, lt=_INT64)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2, allow_inf_nan=False)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2, allow_inf_nan=False)
    logit_bias: dict[str, Annotated[int, Field(ge=-100, le=100)]] | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    user: str | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None

    @field_validator("stream_options")
    @classmethod
    def _only_of_a_stream(
        cls, options: StreamOptions | None, info: ValidationInfo
    ) -> StreamOptions | None:
        if options is not None and not info.data.get("stream"):
            raise PydanticCustomError("without_stream", "Give it only with `stream`")
        return options

    @property
    def includes_usage(self) -> bool:
        """Whether the last chunk of a stream tells the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def passed_on(self) -> dict[str, Any]:
        """Return the parameters that go to the models under their own names."""
        given = {name: getattr(self, name) for name in PASSED_ON}
        return {name: value for name, value in given.items() if value is not None}

    def answer_settings(self) -> dict[str, Any]:
        """Return the parameters for which each provider has a name of its own.

        Raises:
            ApiError: The length of the answer is given twice.
        """
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ApiError(
                400,
                "max_tokens and max_completion_tokens are the same thing: give one of them.",
                param="max_tokens",
            )
        length = self.max_completion_tokens or self.max_tokens
        stop = [self.stop] if isinstance(self.stop, str) else self.stop
        given = {"temperature": self.temperature, "max_tokens": length, "stop": stop or None}
        return {name: value for name, value in given.items() if value is not None}

    def tools_given(self) -> list[dict[str, Any]]:
        """Return the tools in OpenAI's format."""
        return [tool.model_dump(exclude_none=True) for tool in self.tools or ()]

    def tool_settings(self) -> dict[str, Any]:
        """Return what is said of the tools beside them, as LangChain's models take it.

        Raises:
            ApiError: There are no tools, or the one that must be called is not among them.
        """
        names = [tool.function.name for tool in self.tools or ()]
        settings: dict[str, Any] = {}
        if isinstance(self.tool_choice, NamedTool):
            settings["tool_choice"] = name = self.tool_choice.function.name
            if name not in names:
                known = ", ".join(names) or "none"
                message = f"tool_choice names {name!r}, which is no tool of these: {known}."
                raise ApiError(400, message, param="tool_choice")
        elif self.tool_choice is not None:
            choice = self.tool_choice
            settings["tool_choice"] = "any" if choice == "required" else choice
        if self.parallel_tool_calls is not None:
            settings["parallel_tool_calls"] = self.parallel_tool_calls
        needing = [name for name in settings if settings[name] not in ("none", "auto")]
        if needing and not names:
            raise ApiError(400, f"{needing[0]} is given without tools.", param=needing[0])
        return settings if names else {}

    def question(self) -> str:
        """Return the text of what the user said last; empty if there is none."""
        said = [message.content for message in self.messages if isinstance(message, UserMessage)]
        if not said:
            return ""
        last = said[-1]
        if isinstance(last, str):
            return last
        return "\n".join(part.text for part in last if isinstance(part, TextPart))


REFUSED: Mapping[str, str] = {
    "n": "One answer is given to a request: leave out n, or ask several times.",
    "logprobs": "Log-probabilities are read by the mix, and not handed on: leave out logprobs.",
    "top_logprobs": "Log-probabilities are not handed on: leave out top_logprobs.",
    "functions": "functions is OpenAI's former name of tools: give tools.",
    "function_call": "function_call is OpenAI's former name of tool_choice: give tool_choice.",
    "modalities": "Answers are text: leave out modalities.",
    "audio": "Answers are text: leave out audio.",
    "prediction": "A prediction speeds up one model, and a mix has several: leave it out.",
    "web_search_options": "A mix searches no web by itself: leave out web_search_options.",
}
"""Parameters of OpenAI's that are not served, and why."""

PASSED_ON = (
    *("top_p", "seed", "presence_penalty", "frequency_penalty", "logit_bias"),
    *("reasoning_effort", "verbosity", "service_tier", "store"),
    *("prompt_cache_key", "safety_identifier", "user", "metadata"),
)
"""Parameters that go to the models as they are."""


def read_messages(request: ChatCompletionRequest) -> list[BaseMessage]:
    """Return the messages of a request as LangChain's."""
    return [_read_message(message) for message in request.messages]


_UNREAD: Any = {
    "annotations": True,
    "parsed": True,
    "tool_calls": {"__all__": {"index": True, "function": {"parsed_arguments": True}}},
}
"""What clients send back of an answer, and no model reads."""


def _read_message(message: Any) -> BaseMessage:
    given = message.model_dump(exclude_none=True, exclude=_UNREAD)
    given.setdefault("content", "")
    calls = given.pop("tool_calls", None) or []
    if isinstance(given["content"], list):
        given["content"] = [_as_text(part) for part in given["content"]]
    read: BaseMessage = convert_to_messages([given])[0]
    if isinstance(read, AIMessage):
        for call in calls:
            _add_call(read, call)
    return read


def _as_text(part: dict[str, Any]) -> dict[str, Any]:
    """Return a refusal, which not every provider knows, as the text that it is."""
    return {"type": "text", "text": part["refusal"]} if part["type"] == "refusal" else part


def _add_call(message: AIMessage, call: dict[str, Any]) -> None:
    """Add a tool call: an invalid one where its arguments are no JSON object."""
    try:
        parsed = parse_tool_call(call, return_id=True)
        if parsed is not None and isinstance(parsed["args"], dict):
            # Half a surrogate pair can be sent only as it came: escaped.
            json.dumps(parsed["args"], ensure_ascii=False).encode("utf-8")
            message.tool_calls.append({**parsed, "type": "tool_call"})  # type: ignore[typeddict-item]
            return
        problem = "the arguments are no JSON object"
    except Exception:  # noqa: BLE001  (of any kind; deep JSON is a RecursionError)
        problem = "the arguments are not JSON"
    message.invalid_tool_calls.append(make_invalid_tool_call(call, problem))
