"""`AgentFormat`: ask a model of the mix for an agent's next step, and read its response."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain.agents.middleware import ExtendedModelResponse, ModelRequest, ModelResponse
from langchain.agents.structured_output import (
    AutoStrategy,
    ProviderStrategy,
    StructuredOutputError,
    ToolStrategy,
)
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import ensure_config, set_config_context
from langchain_core.runnables.utils import coro_with_context
from pydantic import ConfigDict
from typing_extensions import override

from langchain_automix.mix.answer import ModelAnswer, read_message
from langchain_automix.mix.answer_format import AnswerFormat, MessageFormat
from langchain_automix.models.provider_settings import (
    foreign_settings,
    strip_messages,
    strip_settings,
    strip_tools,
)
from langchain_automix.models.tools import (
    parsing_problem,
    required_call,
    schema_problem,
    tools_in_openai_format,
)

Response = ModelResponse[Any] | AIMessage | ExtendedModelResponse[Any]
"""What a call to an agent's model may return."""

Handler = Callable[[ModelRequest[Any]], Any]
"""Calls the model of a request, through all inner middleware."""


class AgentFormat(AnswerFormat):
    """Answers in the form an agent takes: whatever the handler of a model request returns."""

    def __init__(self, request: ModelRequest[Any], handler: Handler) -> None:
        """Set up the format of one request.

        Args:
            request: The agent's request to its model.
            handler: Calls the model of a request.
        """
        self._request, self._handler = request, handler
        self._strategy = strategy = _strategy(request.response_format)
        choice = "any" if isinstance(strategy, ToolStrategy) else request.tool_choice
        self.tools = [*tools_in_openai_format(request.tools), *_answer_tools(strategy)]
        self.must_call = required_call(choice)
        self.may_be_unusable = strategy is not None
        self.may_shadow = not isinstance(strategy, ProviderStrategy)

    @override
    def answerers(self, models: Sequence[Runnable[Any, Any]]) -> Sequence[Runnable[Any, Any]]:
        return [
            _Answerer(bound=model, request=self._request, handler=self._handler) for model in models
        ]

    @override
    def for_shadow(self) -> AnswerFormat:
        """Return the format for asking models for the same step outside the agent.

        The agent's inner middleware must not run for a step that it knows nothing about.
        """
        request, strategy = self._request, self._strategy
        tools = [*request.tools, *(_answer_tool(spec) for spec in _specs(strategy))]
        choice = "any" if strategy is not None else request.tool_choice
        settings = {**request.model_settings, **({} if choice is None else {"tool_choice": choice})}
        return MessageFormat(tools, settings if tools else {})

    @override
    def read(self, output: Any, index: int) -> ModelAnswer:
        response = _model_response(output)
        message = read_message(_message_of(response), index).message
        return ModelAnswer(message, output, self._misfit(response, message))

    @override
    def read_error(self, error: Exception) -> ModelAnswer | None:
        if not isinstance(error, StructuredOutputError):
            return None
        schemas = [spec.json_schema for spec in _tool_strategy(self._strategy).schema_specs]
        problem = parsing_problem(getattr(error, "source", error), schemas)
        return ModelAnswer(error.ai_message, error, f"the answer does not fit ({problem})")

    @override
    def present(self, answer: ModelAnswer) -> Response:
        """Return the response of the kept model, with the message that carries the record."""
        given = answer.payload
        if isinstance(given, StructuredOutputError):
            raise given
        if given is None or isinstance(given, AIMessage):
            return ModelResponse(result=[answer.message])
        response = _model_response(given)
        old = _message_of(response)
        result = [answer.message if message is old else message for message in response.result]
        response = replace(response, result=result)
        if isinstance(given, ExtendedModelResponse):
            return replace(given, model_response=response)
        return response

    def _misfit(self, response: ModelResponse[Any], message: AIMessage) -> str | None:
        """Say why the requested structured response is missing or does not fit, or return None."""
        strategy = self._strategy
        if strategy is None:
            return None
        structured = response.structured_response
        if structured is not None:
            # The agent itself does not validate responses against a JSON schema.
            schema = strategy.schema if isinstance(strategy.schema, Mapping) else None
            misfit = schema_problem(structured, schema)
            return misfit and f"the structured response does not fit its schema: {misfit}"
        if any(isinstance(each, ToolMessage) for each in response.result):
            # The agent's own error message quotes the response.
            schemas = {spec.name: spec.json_schema for spec in _specs(strategy)}
            called = [(call["args"], schemas.get(call["name"])) for call in message.tool_calls]
            problems = [found for each in called if (found := schema_problem(*each)) is not None]
            return f"the structured response cannot be used ({(problems or ['as it is'])[0]})"
        return None if message.tool_calls else "the answer holds no structured response"


class _Answerer(RunnableBindingBase[Any, Any]):
    """One model of the mix, called in the same way as the agent's own model."""

    request: Any
    handler: Any

    model_config = ConfigDict(extra="forbid")

    @override
    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        with set_config_context(ensure_config(config)) as context:
            try:
                return context.run(self.handler, _request_for(self.request, self.bound))
            except StructuredOutputError as error:
                return error

    @override
    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        with set_config_context(ensure_config(config)) as context:
            asked = self.handler(_request_for(self.request, self.bound))
            try:
                return await coro_with_context(asked, context, create_task=True)
            except StructuredOutputError as error:
                return error


def _request_for(request: ModelRequest[Any], model: Any) -> ModelRequest[Any]:
    """Return the request for a model of the mix, without settings that only other models accept."""
    request, own = request.override(model=model), request.model
    if not (names := foreign_settings(model, own)):
        return request
    stripped: dict[str, Any] = {
        "model_settings": strip_settings(request.model_settings, names),
        "messages": strip_messages(request.messages, names),
        "tools": strip_tools(request.tools, names),
    }
    if request.system_message is not None:
        [stripped["system_message"]] = strip_messages([request.system_message], names)
    return request.override(**stripped)


def _strategy(response_format: Any) -> Any:
    """Return how a structured response is requested; a bare schema leaves that to the model."""
    known = (ToolStrategy, ProviderStrategy, AutoStrategy)
    if response_format is None or isinstance(response_format, known):
        return response_format
    return AutoStrategy(response_format)


def _answer_tools(strategy: Any) -> list[dict[str, Any]]:
    """Return the tools through which a model may give a structured response.

    They have no parameters here. Whether the arguments fit is judged by what the agent made of
    them, which is more lenient.
    """
    return [
        {"type": "function", "function": {"name": spec.name, "description": spec.description}}
        for spec in _specs(strategy)
    ]


def _answer_tool(spec: Any) -> dict[str, Any]:
    """Return a tool through which a model gives a structured response, with its parameters."""
    function = {"name": spec.name, "description": spec.description, "parameters": spec.json_schema}
    return {"type": "function", "function": function}


def _specs(strategy: Any) -> Sequence[Any]:
    if strategy is None or isinstance(strategy, ProviderStrategy):
        return []
    return _tool_strategy(strategy).schema_specs


def _tool_strategy(strategy: Any) -> ToolStrategy[Any]:
    return strategy if isinstance(strategy, ToolStrategy) else ToolStrategy(strategy.schema)


def _model_response(output: Response) -> ModelResponse[Any]:
    if isinstance(output, ExtendedModelResponse):
        return output.model_response
    return ModelResponse(result=[output]) if isinstance(output, AIMessage) else output


def _message_of(response: ModelResponse[Any]) -> AIMessage | None:
    said = [message for message in response.result if isinstance(message, AIMessage)]
    return said[-1] if said else None
