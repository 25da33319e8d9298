"""`AutoMixMiddleware`: the mix inside an agent of `langchain.agents.create_agent`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, Unpack

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import ensure_config, set_config_context
from langchain_core.runnables.utils import coro_with_context
from pydantic import ConfigDict
from typing_extensions import override

from langchain_automix.errors import AutoMixError
from langchain_automix.mix.answer import ModelAnswer, read_message
from langchain_automix.mix.answer_format import AnswerFormat
from langchain_automix.mix.config import MixConfig
from langchain_automix.mix.fields import CommonFields, MixFields, listing, names_of
from langchain_automix.mix.from_policy import read_policy
from langchain_automix.mix.guards import Guard, ask_unchecked
from langchain_automix.mix.query import QueryState
from langchain_automix.mix.runnable import AutoMixRunnable
from langchain_automix.mix.unknown_names import refuse_unknown_fields, refuse_unknown_tools
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
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.routers.pomdp import POMDPRouter
from langchain_automix.types import Decision
from langchain_automix.verifiers.base import models_of

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
        "AutoMixMiddleware is for agents of langchain 1.2.9 or newer, which cannot be imported "
        f"({error}): pip install 'langchain>=1.2.9'."
    ) from error


Response = ModelResponse[Any] | AIMessage | ExtendedModelResponse[Any]
"""What one call of an agent's model may return."""

Handler = Callable[[ModelRequest[Any]], Any]
"""Calls the model of a request, with all middleware further in."""


class AutoMixMiddleware(AgentMiddleware[Any, Any, Any]):
    """Makes each model call of an agent a mix: a cheap model's step is checked before it acts.

    What the small model drafts, a tool call or an answer, is checked first for free (does it
    parse, is the tool known, do its arguments fit, does a structured response fit its schema)
    and then by the verifier, which sees the conversation, the system message and the tools.
    Only a kept step reaches the agent: a rejected tool call never runs, and no stream shows
    it. As with `AutoMixRunnable`, `response_metadata["automix"]` of the message holds the record.

    The models of the mix answer instead of the agent's own model, which is called only if it is
    one of them. Middleware further in (later in the agent's list) runs for every model that the
    mix asks: `ModelFallbackMiddleware` after this one gives each model of the mix its fallbacks;
    before this one, it asks the whole mix again. Middleware that changes the tools of a request
    goes before this one, or its tools count as unknown.

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

    @listing(MixFields)
    def __init__(
        self,
        models: Sequence[BaseChatModel | str],
        *,
        sticky: bool = False,
        max_escalations: int | None = None,
        **settings: Unpack[MixFields],
    ) -> None:
        """Set up the mix.

        A run of the agent is what follows the last human message of its state. `sticky` and
        `max_escalations` read the records of its messages; nothing is kept here, so one instance
        serves any number of agents, threads and runs.

        Args:
            models: Two or more chat models, cheap to expensive, or their names.
            sticky: Whether a run that has escalated stays with the larger model, which is then
                asked first, and not checked. An answer that cannot be used still leads on.
            max_escalations: Maximum number of escalations in a run. After that the first model
                answers, and is not checked; but an answer that cannot be used (the free checks,
                `always_escalate_tools`) still leads on, beyond the limit. None: no limit.
            **settings: The fields of every form of the mix: `verifier`, `router`, `abstention`,
                `always_escalate_tools`, `retries_if_unusable`, `on_escalation_error`,
                `on_verification_error`, `allow_missing_finish_reason`, `max_latency`, `hedge`,
                `cost_weight`, `force_model`, `verification`, `prices`, `spend_limit` and
                `circuit_breaker`.

        Raises:
            AutoMixError: A setting is unknown, or a model is no chat model.
        """
        super().__init__()
        own = {"models", "sticky", "max_escalations", *names_of(MixFields)}
        refuse_unknown_fields(type(self).__name__, settings, own)
        if max_escalations is not None and max_escalations < 0:
            raise AutoMixError(f"max_escalations is {max_escalations}; it counts from 0.")
        self.sticky = sticky
        self.max_escalations = max_escalations
        self._mix = AutoMixRunnable(name=self.name, models=list(models), **settings)
        for name, model in zip(self._mix.model_names, self._mix.models, strict=True):
            if not isinstance(model, BaseChatModel):
                raise AutoMixError(
                    f"{name} is a {type(model).__name__}, but an agent's models are chat models: "
                    "set its arguments on the model itself; for retries and fallbacks put "
                    "ModelRetryMiddleware or ModelFallbackMiddleware after AutoMixMiddleware."
                )

    @classmethod
    @listing(CommonFields)
    def from_policy(
        cls,
        policy: str | Path | Policy | POMDPRouter,
        *models: BaseChatModel | str,
        verifier: Runnable[Any, Any] | str | None = None,
        check_models: Sequence[Runnable[Any, Any]] = (),
        other_models: bool = False,
        sticky: bool = False,
        max_escalations: int | None = None,
        **settings: Unpack[CommonFields],
    ) -> Self:
        """Mix an agent's models by a fitted policy; see `AutoMixRunnable.from_policy`."""
        read = read_policy(
            policy, models, verifier=verifier, check_models=check_models, other_models=other_models
        )
        chosen: dict[str, Any] = read.fields()
        return cls(**chosen, sticky=sticky, max_escalations=max_escalations, **settings)

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
            The kept model's response, its message with the record of the call.
        """
        asked = self._conversation(request)
        response: Response = self._mix_for(request, handler).invoke(asked)
        return response

    @override
    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Any]]
    ) -> Response:
        """Take one model call of the agent through the mix; see `wrap_model_call`."""
        asked = self._conversation(request)
        response: Response = await self._mix_for(request, handler).ainvoke(asked)
        return response

    def _conversation(self, request: ModelRequest[Any]) -> list[BaseMessage]:
        """Return the conversation of a request, as every model that checks can take it."""
        system = request.system_message
        messages = [*([] if system is None else [system]), *request.messages]
        readers = [*self._mix.models, *models_of(self._mix.verifier)]
        foreign = [foreign_settings(reader, request.model) for reader in readers]
        return strip_messages(messages, frozenset().union(*foreign))

    def _mix_for(self, request: ModelRequest[Any], handler: Handler) -> AutoMixRunnable:
        guards = [] if (guard := self._run_guard(request)) is None else [guard]
        agent_format = AgentFormat(request, handler)
        always = self._mix.always_escalate_tools
        refuse_unknown_tools(always, agent_format.tools, are_all=False)
        return self._mix.with_format(agent_format, guards)

    def _run_guard(self, request: ModelRequest[Any]) -> AgentRunGuard | None:
        """Return the guard for what this run of the agent has come to; None: there is none."""
        if not self.sticky and self.max_escalations is None:
            return None
        records = _records(request.state.get("messages") or request.messages)
        escalated = [record["model_index"] for record in records if record["escalated"]]
        reached = min(max(escalated, default=0), len(self._mix.models) - 1)
        config = self._mix.mix_config
        if self.sticky and reached:
            name = config.names[reached]
            why = f"This run of the agent has escalated to {name}, which answers the rest of it."
            return AgentRunGuard(config, reached, why)
        if self.max_escalations is not None and len(escalated) >= self.max_escalations:
            why = (
                f"{config.names[0]} is asked and not checked: this run of the agent has "
                f"escalated {len(escalated)} times, and may {self.max_escalations} times."
            )
            return AgentRunGuard(config, 0, why)
        return None


class AgentRunGuard(Guard):
    """Asks one model and keeps what it says; only what cannot be used leads on, unchecked."""

    def __init__(self, config: MixConfig, model_index: int, why: str) -> None:
        """Guard one step of an agent's run.

        Args:
            config: The mix.
            model_index: The model that is asked first.
            why: The reason, in one sentence.
        """
        super().__init__(config)
        self._opening = ask_unchecked(model_index, why)

    @override
    def opening(self, query: QueryState) -> Decision | None:
        return self._opening

    @override
    def review(self, decision: Decision, query: QueryState) -> Decision:
        if decision.action != "escalate":
            return decision
        return decision.model_copy(update={"samples": 0})


class AgentFormat(AnswerFormat):
    """Answers as an agent takes them: what the handler of one model request returns."""

    def __init__(self, request: ModelRequest[Any], handler: Handler) -> None:
        """Set up the format of one request.

        Args:
            request: What the agent asks of its model.
            handler: Calls a request's model.
        """
        self._request, self._handler = request, handler
        self._strategy = strategy = _strategy(request.response_format)
        choice = "any" if isinstance(strategy, ToolStrategy) else request.tool_choice
        self.tools = [*tools_in_openai_format(request.tools), *_answer_tools(strategy)]
        self.must_call = required_call(choice)
        self.may_be_unusable = strategy is not None

    @override
    def answerers(self, models: Sequence[Runnable[Any, Any]]) -> Sequence[Runnable[Any, Any]]:
        return [
            _Answerer(bound=model, request=self._request, handler=self._handler) for model in models
        ]

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
        """Return what the kept model gave, with the message that carries the record."""
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
        """Say why a structured response that was asked for is none."""
        strategy = self._strategy
        if strategy is None:
            return None
        structured = response.structured_response
        if structured is not None:
            # The agent takes what fits a JSON schema and what does not alike.
            schema = strategy.schema if isinstance(strategy.schema, Mapping) else None
            misfit = schema_problem(structured, schema)
            return misfit and f"the structured response does not fit its schema: {misfit}"
        if any(isinstance(each, ToolMessage) for each in response.result):
            # What the agent says of it quotes it.
            schemas = {spec.name: spec.json_schema for spec in _specs(strategy)}
            called = [(call["args"], schemas.get(call["name"])) for call in message.tool_calls]
            problems = [found for each in called if (found := schema_problem(*each)) is not None]
            return f"the structured response cannot be used ({(problems or ['as it is'])[0]})"
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
    """Return the request of a model of the mix, without what only others' models take."""
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


def _records(messages: Sequence[Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the records of a run: those since the last human message."""
    for message in reversed(messages):
        if isinstance(message, HumanMessage):
            return
        if isinstance(message, AIMessage) and "automix" in message.response_metadata:
            yield message.response_metadata["automix"]


def _strategy(response_format: Any) -> Any:
    """Return how a structured response is asked for; a bare schema leaves it to the model."""
    known = (ToolStrategy, ProviderStrategy, AutoStrategy)
    if response_format is None or isinstance(response_format, known):
        return response_format
    return AutoStrategy(response_format)


def _answer_tools(strategy: Any) -> list[dict[str, Any]]:
    """Return the tools by which a structured response may be given.

    They have no parameters here: whether the arguments fit is seen from what the agent made
    of them, which is more lenient.
    """
    return [
        {"type": "function", "function": {"name": spec.name, "description": spec.description}}
        for spec in _specs(strategy)
    ]


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
