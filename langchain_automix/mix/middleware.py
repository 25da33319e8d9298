"""`AutoMixMiddleware`: the mix inside an agent of `langchain.agents.create_agent`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import ensure_config, set_config_context
from langchain_core.runnables.utils import coro_with_context
from pydantic import ConfigDict, Field
from typing_extensions import override

from langchain_automix.errors import AutoMixError
from langchain_automix.flow.steps import Steps
from langchain_automix.mix.answer import ModelAnswer, read_message
from langchain_automix.mix.loop import QueryLoop
from langchain_automix.mix.runnable import AutoMixRunnable, demanded
from langchain_automix.mix.settings import MixSettings
from langchain_automix.models.tools import parsing_problem, schema_problem, tools_in_openai_format
from langchain_automix.routers.base import Router, keep, next_model
from langchain_automix.types import Decision, RoutingState

try:
    from langchain.agents.middleware import (
        AgentMiddleware,
        ExtendedModelResponse,
        ModelRequest,
        ModelResponse,
    )
    from langchain.agents.structured_output import (
        AutoStrategy,
        ProviderStrategy,
        StructuredOutputError,
        ToolStrategy,
    )
except ImportError as error:
    raise ImportError(
        "AutoMixMiddleware is for agents of langchain, which is not installed: "
        "pip install 'langchain>=1.2'."
    ) from error


Response = ModelResponse[Any] | AIMessage | ExtendedModelResponse[Any]
"""What one call of an agent's model may come to."""

Handler = Callable[[ModelRequest[Any]], Any]
"""Calls the model of a request, with all middleware that stands further in."""


class AutoMixMiddleware(AgentMiddleware[Any, Any, Any]):
    """Each model call of an agent is a mix: a cheap model's step is checked before it acts.

    What the small model drafts, a tool call or an answer, is checked first for free (does it
    parse, is the tool known, do its arguments fit, does a structured response fit its schema)
    and then by the verifier, which sees the conversation, the system message and the tools.
    Only a kept step reaches the agent: a rejected tool call never runs, and no stream shows
    it. The message that comes out holds the record of the call in
    `response_metadata["automix"]`, as that of `AutoMixRunnable` does.

    The models of the mix answer in place of the agent's own model, which is not called unless
    it is one of them. Middleware further in (later in the agent's list) is run for every
    model that the mix asks, so that `ModelFallbackMiddleware` after this one gives each model
    of the mix its fallbacks; one before this one asks the whole mix again. What changes the
    tools of a request goes before this one, or its tools count as unknown.

    ??? example "In an agent"

        ```python
        from langchain.agents import create_agent

        from langchain_automix import AutoMixMiddleware

        mix = AutoMixMiddleware(
            models=["openai:gpt-5.4-mini", "openai:gpt-5.5"],
            always_escalate_tools=["send_email"],
            sticky=True,
        )
        agent = create_agent("openai:gpt-5.4-mini", tools=[search, send_email], middleware=[mix])
        ```
    """

    def __init__(
        self,
        models: Sequence[BaseChatModel | str],
        *,
        sticky: bool = False,
        max_escalations: int | None = None,
        **settings: Any,
    ) -> None:
        """Set up the mix.

        A run of the agent is what follows the last human message of its state. Both options
        on runs read the records of its messages; nothing is kept here, so that one instance
        serves any number of agents, threads and runs.

        Args:
            models: Two or more chat models, cheap to expensive, or their names.
            sticky: Whether a run that has escalated stays with the larger model: it is asked
                straight away, and not checked. An answer that cannot be used still leads on.
            max_escalations: Most escalations of a run. After that the first model answers, and
                is not checked; but an answer that cannot be used (the free checks,
                `always_escalate_tools`) still leads on, beyond the limit. None: no limit.
            **settings: What every form of the mix has: `verifier`, `router`, `abstention`,
                `always_escalate_tools`, `retries_if_unusable`, `on_escalation_error`,
                `on_verification_error`, `max_latency`, `hedge`, `cost_weight`, `force_model`,
                `verification`, `prices`, `spend_limit` and `circuit_breaker`.

        Raises:
            AutoMixError: A setting is unknown, or a model is no chat model.
        """
        super().__init__()
        if unknown := sorted(settings.keys() - MixSettings.model_fields.keys()):
            known = ", ".join(sorted(MixSettings.model_fields.keys() - {"models"}))
            raise AutoMixError(f"AutoMixMiddleware has no {', '.join(unknown)}; it has {known}.")
        if max_escalations is not None and max_escalations < 0:
            raise AutoMixError(f"max_escalations is {max_escalations}; it counts from 0.")
        self.sticky = sticky
        self.max_escalations = max_escalations
        self._mix = _AgentMix(name=self.name, models=list(models), **settings)
        for name, model in zip(self._mix.model_names, self._mix.models, strict=True):
            if not isinstance(model, BaseChatModel):
                raise AutoMixError(
                    f"{name} is a {type(model).__name__}, but an agent's models are chat models: "
                    "set its arguments on the model itself; for retries and fallbacks put "
                    "ModelRetryMiddleware or ModelFallbackMiddleware after AutoMixMiddleware."
                )

    @property
    def model_names(self) -> tuple[str, ...]:
        """Names of the models, each once."""
        return self._mix.model_names

    @override
    def wrap_model_call(self, request: ModelRequest[Any], handler: Handler) -> Response:
        """Take one model call of the agent through the mix.

        Args:
            request: What the agent asks of its model.
            handler: Calls a request's model.

        Returns:
            What the kept model gave, its message with the record of the call.
        """
        response: Response = self._for(request, handler).invoke(_conversation(request))
        return response

    @override
    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Any]]
    ) -> Response:
        """Take one model call of the agent through the mix; see `wrap_model_call`."""
        response: Response = await self._for(request, handler).ainvoke(_conversation(request))
        return response

    def _for(self, request: ModelRequest[Any], handler: Handler) -> _AgentMix:
        fields: dict[str, Any] = {"request": request, "handler": handler}
        if (router := self._run_router(request)) is not None:
            fields["router"] = router
        return self._mix.model_copy(update=fields)

    def _run_router(self, request: ModelRequest[Any]) -> Router | None:
        """Return the router that this run of the agent has come to; None: the usual one."""
        if not self.sticky and self.max_escalations is None:
            return None
        records = _records(request.state.get("messages") or request.messages)
        escalated = [record["model_index"] for record in records if record["escalated"]]
        reached = min(max(escalated, default=0), len(self._mix.models) - 1)
        if self.sticky and reached:
            name = self.model_names[reached]
            why = f"This run of the agent has escalated to {name}, which answers the rest of it."
            return _Straight(start=reached, why=why)
        if self.max_escalations is not None and len(escalated) >= self.max_escalations:
            why = (
                f"{self.model_names[0]} is asked and not checked: this run of the agent has "
                f"escalated {len(escalated)} times, and may {self.max_escalations} times."
            )
            return _Straight(start=0, why=why)
        return None


class _Straight(Router):
    """Asks one model and keeps what it says; only what cannot be used leads on."""

    start: int
    why: str

    @override
    def opening(self, *args: Any, **kwargs: Any) -> Decision:
        return Decision(action="escalate", model_index=self.start, samples=0, why=self.why)

    @override
    def _decide(self, state: RoutingState) -> Decision:
        return keep(state, why=self.why)

    @override
    def _ask_next(self, state: RoutingState) -> Decision | None:
        if (later := next_model(state)) is None:
            return None
        return Decision(action="escalate", model_index=later, samples=0)


class _AgentMix(AutoMixRunnable):
    """The mix of one model call of an agent."""

    request: Any = Field(default=None, exclude=True)
    """What the agent asks of its model; None before any call."""

    handler: Any = Field(default=None, exclude=True)
    """Calls a request's model."""

    @override
    def _flow(self, input: Any, **kwargs: Any) -> Steps[Any]:
        return _with_record((yield from self._mix.flow(input, kwargs)))

    @override
    def _settings(self) -> QueryLoop:
        usual = super()._settings()
        if self.request is None:
            return usual
        wanted = _strategy(self.request.response_format)
        choice = "any" if isinstance(wanted, ToolStrategy) else self.request.tool_choice
        return replace(
            usual,
            tools=[*tools_in_openai_format(self.request.tools), *_answer_tools(wanted)],
            must_call=demanded(choice),
            read=self._read,
            read_error=self._read_error,
            may_be_unusable=wanted is not None,
        )

    @override
    def _answerers(self) -> list[Runnable[Any, Any]]:
        if self.request is None:
            return self.models
        return [
            _Answerer(bound=model, request=self.request, handler=self.handler)
            for model in self.models
        ]

    def _read_error(self, error: Exception) -> ModelAnswer | None:
        if not isinstance(error, StructuredOutputError):
            return None
        wanted = _strategy(self.request.response_format)
        schemas = [spec.json_schema for spec in _tool_strategy(wanted).schema_specs]
        found = parsing_problem(getattr(error, "source", error), schemas)
        return ModelAnswer(error.ai_message, error, f"the answer does not fit ({found})")

    def _read(self, output: Any, index: int) -> ModelAnswer:
        response = _model_response(output)
        message = read_message(_message_of(response), index).message
        return ModelAnswer(message, output, self._misfit(response, message))

    def _misfit(self, response: ModelResponse[Any], message: AIMessage) -> str | None:
        """Say why a structured response that was asked for is none."""
        wanted = _strategy(self.request.response_format)
        if wanted is None:
            return None
        given = response.structured_response
        if given is not None:
            # The agent takes what fits a JSON schema and what does not alike.
            schema = wanted.schema if isinstance(wanted.schema, Mapping) else None
            misfit = schema_problem(given, schema)
            return misfit and f"the structured response does not fit its schema: {misfit}"
        if any(isinstance(told, ToolMessage) for told in response.result):
            # What the agent says of it quotes it.
            schemas = {spec.name: spec.json_schema for spec in _specs(wanted)}
            called = [(call["args"], schemas.get(call["name"])) for call in message.tool_calls]
            found = [found for each in called if (found := schema_problem(*each)) is not None]
            return f"the structured response cannot be used ({(found or ['as it is'])[0]})"
        return None if message.tool_calls else "the answer holds no structured response"


class _Answerer(RunnableBindingBase[Any, Any]):
    """One model of the mix, called as the agent calls its own."""

    request: Any
    handler: Any

    model_config = ConfigDict(extra="forbid")

    @override
    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        with set_config_context(ensure_config(config)) as context:
            try:
                return context.run(self.handler, self.request.override(model=self.bound))
            except StructuredOutputError as error:
                return error

    @override
    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        with set_config_context(ensure_config(config)) as context:
            asked = self.handler(self.request.override(model=self.bound))
            try:
                return await coro_with_context(asked, context, create_task=True)
            except StructuredOutputError as error:
                return error


def _conversation(request: ModelRequest[Any]) -> list[BaseMessage]:
    system = request.system_message
    return [*([] if system is None else [system]), *request.messages]


def _records(messages: Sequence[Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the records of a run: those since the last human message."""
    for message in reversed(messages):
        if isinstance(message, HumanMessage):
            return
        if isinstance(message, AIMessage) and "automix" in message.response_metadata:
            yield message.response_metadata["automix"]


def _strategy(wanted: Any) -> Any:
    """Return how a structured response is asked for; a bare schema leaves it to the model."""
    if wanted is None or isinstance(wanted, ToolStrategy | ProviderStrategy | AutoStrategy):
        return wanted
    return AutoStrategy(wanted)


def _answer_tools(wanted: Any) -> list[dict[str, Any]]:
    """Return the tools by which a structured response may be given.

    They have no parameters here: whether the arguments fit is seen from what the agent made
    of them, which is more lenient.
    """
    return [
        {"type": "function", "function": {"name": spec.name, "description": spec.description}}
        for spec in _specs(wanted)
    ]


def _specs(wanted: Any) -> Sequence[Any]:
    if wanted is None or isinstance(wanted, ProviderStrategy):
        return []
    return _tool_strategy(wanted).schema_specs


def _tool_strategy(wanted: Any) -> ToolStrategy[Any]:
    return wanted if isinstance(wanted, ToolStrategy) else ToolStrategy(wanted.schema)


def _model_response(output: Response) -> ModelResponse[Any]:
    if isinstance(output, ExtendedModelResponse):
        return output.model_response
    return ModelResponse(result=[output]) if isinstance(output, AIMessage) else output


def _message_of(response: ModelResponse[Any]) -> AIMessage | None:
    said = [message for message in response.result if isinstance(message, AIMessage)]
    return said[-1] if said else None


def _with_record(reply: ModelAnswer) -> Response:
    """Return what the kept model gave, with the message that carries the record."""
    given = reply.payload
    if isinstance(given, StructuredOutputError):
        raise given
    if given is None or isinstance(given, AIMessage):
        return ModelResponse(result=[reply.message])
    response = _model_response(given)
    old = _message_of(response)
    result = [reply.message if message is old else message for message in response.result]
    response = replace(response, result=result)
    if isinstance(given, ExtendedModelResponse):
        return replace(given, model_response=response)
    return response
