"""`AutoMixMiddleware`: the mix inside an agent built with `langchain.agents.create_agent`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, Unpack

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import Runnable
from typing_extensions import override

from langchain_automix.errors import AutoMixError
from langchain_automix.mix.config import MixConfig
from langchain_automix.mix.fields import CommonFields, MixFields, listing, names_of
from langchain_automix.mix.from_policy import read_policy
from langchain_automix.mix.guards import Guard, ask_unchecked
from langchain_automix.mix.learner import Learner
from langchain_automix.mix.query import QueryState
from langchain_automix.mix.runnable import AutoMixRunnable
from langchain_automix.mix.unknown_names import refuse_unknown_fields, refuse_unknown_tools
from langchain_automix.models.pickling import HoldsModels
from langchain_automix.models.provider_settings import (
    foreign_settings,
    strip_messages,
)
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.routers.pomdp import POMDPRouter
from langchain_automix.types import Decision
from langchain_automix.verifiers.base import models_of

try:
    from langchain.agents.middleware import AgentMiddleware, ModelRequest

    from langchain_automix.mix.agent_format import AgentFormat, Handler, Response
except ImportError as error:
    raise ImportError(
        "AutoMixMiddleware is for agents of langchain 1.2.9 or newer, which cannot be imported "
        f"({error}): pip install 'langchain>=1.2.9'."
    ) from error


class AutoMixMiddleware(HoldsModels, AgentMiddleware[Any, Any, Any]):
    """Turns each model call of an agent into a mix: a cheap model's step is checked before it acts.

    The small model's draft, a tool call or an answer, is first checked for free: whether it parses,
    the tool is known, its arguments fit, and a structured response fits its schema. Then the
    verifier checks it, given the conversation, the system message and the tools. Only a kept step
    reaches the agent: a rejected tool call never runs, and no stream shows it. As with
    `AutoMixRunnable`, the message holds the record in `response_metadata["automix"]`.

    The models of the mix answer instead of the agent's own model, which is called only if it is one
    of them. Inner middleware (later in the agent's list) runs for every model that the mix asks.
    `ModelFallbackMiddleware` after this one gives each model of the mix its fallbacks; before this
    one, it calls the whole mix again. Put middleware that changes a request's tools before this
    one, or the mix does not know those tools.

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

        A run of the agent starts at the last human message of its state. `sticky` and
        `max_escalations` read the records in the run's messages. The instance keeps no state, so it
        can serve any number of agents, threads and runs.

        Args:
            models: Two or more chat models, cheap to expensive, or their names.
            sticky: Whether a run that has escalated stays with the larger model, which is then
                asked first and not checked. An answer that cannot be used still leads to the next
                model.
            max_escalations: Maximum number of escalations in a run; None sets no limit. After that,
                the first model answers and is not checked. An answer that cannot be used (by the
                free checks or `always_escalate_tools`) still leads to the next model, beyond the
                limit.
            **settings: The fields common to every form of the mix: `verifier`, `router`,
                `abstention`, `always_escalate_tools`, `retries_if_unusable`, `on_escalation_error`,
                `on_verification_error`, `allow_missing_finish_reason`, `max_latency`, `hedge`,
                `cost_weight`, `force_model`, `verification`, `prices`, `spend_limit`,
                `circuit_breaker` and `learning`.

        Raises:
            AutoMixError: A setting is unknown, or a model is not a chat model.
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
        """Build the middleware from a fitted policy; see `AutoMixRunnable.from_policy`."""
        read = read_policy(
            policy, models, verifier=verifier, check_models=check_models, other_models=other_models
        )
        chosen: dict[str, Any] = read.fields()
        return cls(**chosen, sticky=sticky, max_escalations=max_escalations, **settings)

    @property
    def model_names(self) -> tuple[str, ...]:
        """Names of the models, each once."""
        return self._mix.model_names

    @property
    def learning(self) -> Learner | None:
        """The learner that learns from the mix's own queries."""
        return self._mix.learning

    @override
    def wrap_model_call(self, request: ModelRequest[Any], handler: Handler) -> Response:
        """Run one model call of the agent through the mix.

        Args:
            request: The agent's request to its model.
            handler: Calls the model of a request.

        Returns:
            The kept model's response; its message carries the record of the call.
        """
        asked = self._conversation(request)
        response: Response = self._mix_for(request, handler).invoke(asked)
        return response

    @override
    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Any]]
    ) -> Response:
        """Run one model call of the agent through the mix; see `wrap_model_call`."""
        asked = self._conversation(request)
        response: Response = await self._mix_for(request, handler).ainvoke(asked)
        return response

    def _conversation(self, request: ModelRequest[Any]) -> list[BaseMessage]:
        """Return the conversation of a request in a form that every checking model accepts."""
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
        """Return the guard for this run of the agent, or None if no rule applies to it so far."""
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
    """Asks one model and keeps its answer; only an unusable one leads on, again unchecked."""

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


def _records(messages: Sequence[Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the records of the current run, that is, since the last human message."""
    for message in reversed(messages):
        if isinstance(message, HumanMessage):
            return
        if isinstance(message, AIMessage) and "automix" in message.response_metadata:
            yield message.response_metadata["automix"]
