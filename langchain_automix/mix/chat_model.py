"""`ChatAutoMix`: the mix as a `BaseChatModel`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, Unpack

from langchain_core.callbacks import AsyncCallbackManager, CallbackManager
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig
from langchain_core.runnables.config import merge_configs
from langchain_core.runnables.graph import Graph
from pydantic import Field, model_validator
from typing_extensions import override

from langchain_automix._version import __version__
from langchain_automix.errors import AutoMixError
from langchain_automix.flow.as_completed import LimitedAsCompleted
from langchain_automix.flow.callbacks import below_llm_run
from langchain_automix.mix.answer_format import Tool
from langchain_automix.mix.bound_tools import BoundMixes
from langchain_automix.mix.fields import ChatFields, ChatPolicyFields, listing
from langchain_automix.mix.from_policy import read_policy
from langchain_automix.mix.kept_answer import answer_chunks, as_result, without_usage
from langchain_automix.mix.runnable import AutoMixRunnable
from langchain_automix.mix.settings import MixSettings
from langchain_automix.mix.unknown_names import (
    refuse_unknown_fields,
    refuse_unknown_tools,
    settings_of_models,
)
from langchain_automix.models.identity import shared_kind, shared_profile, shared_provider
from langchain_automix.models.tools import tools_in_openai_format
from langchain_automix.models.wrappers import chat_model_of
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.routers.pomdp import POMDPRouter
from langchain_automix.utils.identifiers import registered_name
from langchain_automix.utils.user_warnings import warn_user

if TYPE_CHECKING:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForLLMRun,
        CallbackManagerForLLMRun,
    )
    from langchain_core.language_models.base import LangSmithParams
    from langchain_core.language_models.model_profile import ModelProfile


# Fields that a chat model may have, but that only the models of the mix could use.
_THE_MODELS_OWN = ("cache", "rate_limiter", "output_version")
# Settings for which each provider may use a different name.
_ANSWER_SETTINGS = frozenset({"temperature", "max_tokens", "top_p", "seed"})


@registered_name("langchain_automix.chat_model.ChatAutoMix")
class ChatAutoMix(LimitedAsCompleted, BaseChatModel, MixSettings):
    """A chat model that is a mix: a cheap model answers, and a larger one only where it pays.

    Use it where a `BaseChatModel` is required, for instance in agents. In a trace, its run is a
    chain that contains the models' runs, so no token is counted twice. It delegates all its work to
    an `AutoMixRunnable`.

    ??? example "In an agent"

        ```python
        from langchain.agents import create_agent

        from langchain_automix import ChatAutoMix

        model = ChatAutoMix(models=["openai:gpt-5.4-mini", "openai:gpt-5.5"])
        agent = create_agent(model, tools=[search])
        ```
    """

    is_mix: ClassVar[bool] = True  # for `models.identity`

    temperature: float | None = None
    """Sampling temperature of the answers; None leaves it to each model."""

    max_tokens: int | None = Field(default=None, ge=1)
    """Maximum length of an answer in tokens; None leaves it to each model."""

    stop: list[str] | None = None
    """Texts at which an answer ends; None leaves them to each model."""

    if TYPE_CHECKING:

        def __init__(
            self, *, models: Sequence[Runnable[Any, Any] | str], **fields: Unpack[ChatFields]
        ) -> None: ...

    @classmethod
    @listing(ChatPolicyFields)
    def from_policy(
        cls,
        policy: str | Path | Policy | POMDPRouter,
        *models: Runnable[Any, Any] | str,
        verifier: Runnable[Any, Any] | str | None = None,
        check_models: Sequence[Runnable[Any, Any]] = (),
        other_models: bool = False,
        **fields: Unpack[ChatPolicyFields],
    ) -> Self:
        """Build a mix from a fitted policy; see `AutoMixRunnable.from_policy`."""
        read = read_policy(
            policy, models, verifier=verifier, check_models=check_models, other_models=other_models
        )
        return cls(**read.fields(), **fields)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: Any) -> Any:
        """Reject unknown fields; warn about fields that only the models of the mix have."""
        if isinstance(values, Mapping):
            own = cls.model_fields.keys() - set(_THE_MODELS_OWN)
            others = set(values) - own
            of_models = settings_of_models(others, values.get("models"))
            if others > of_models:
                refuse_unknown_fields(cls.__name__, others - of_models, own)
            if idle := sorted(name for name in of_models if values[name]):
                warn_user(f"ChatAutoMix has no {', '.join(idle)} of its own: set it on the models.")
        return values

    @model_validator(mode="after")
    def _set_up(self) -> Self:
        self._add_version("langchain-automix", __version__)
        _ = self._runnable
        return self

    @cached_property
    def _runnable(self) -> AutoMixRunnable:
        fields = {name: getattr(self, name) for name in MixSettings.model_fields}
        mix = AutoMixRunnable(name=self.get_name(), **fields)
        return mix.with_answer_settings(self._answer_settings)

    @cached_property
    def _bound_mixes(self) -> BoundMixes:
        return BoundMixes()

    @property
    def _answer_settings(self) -> dict[str, Any]:
        return _known({"temperature": self.temperature, "max_tokens": self.max_tokens})

    @property
    def model_names(self) -> tuple[str, ...]:
        """Names of the models, each once."""
        return self._runnable.model_names

    @property
    @override
    def _llm_type(self) -> str:
        return shared_kind(self.models) or "automix"

    @property
    @override
    def _identifying_params(self) -> Mapping[str, Any]:
        return {"models": list(self.model_names)}

    @override
    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop or self.stop, **kwargs)
        name = kwargs.get("model") or "+".join(self.model_names)
        provider = shared_provider(self.models) or "automix"
        return {**params, "ls_provider": provider, "ls_model_name": name}

    @override
    def _resolve_model_profile(self) -> ModelProfile | None:
        return shared_profile(self.models)

    @override
    def get_num_tokens(self, text: str) -> int:
        return self._counter().get_num_tokens(text)

    @override
    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        return self._counter().get_num_tokens_from_messages(messages, tools)

    def _counter(self) -> BaseChatModel:
        first = chat_model_of(self.models[0])
        if first is None:
            raise AutoMixError("The first model of the mix is no chat model that counts tokens.")
        return first

    @override
    def get_graph(self, config: RunnableConfig | None = None) -> Graph:
        return self._runnable.get_graph(config)

    @override
    def bind_tools(
        self,
        tools: Sequence[Tool],
        *,
        tool_choice: str | bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return the mix with tools, in each model's own provider format.

        Args:
            tools: Tools, functions, pydantic classes or schemas.
            tool_choice: The tool that must be called, or `any` or `auto`, as the models accept it.
            **kwargs: Passed to each model's own `bind_tools`, such as `parallel_tool_calls`.
        """
        settings = _known({**kwargs, "tool_choice": tool_choice})
        shown = self._bound_mixes.bind(self._runnable, tools, settings)
        # Only a subset: an agent binds the tools of a single step.
        known = tools_in_openai_format(shown)
        refuse_unknown_tools(self.always_escalate_tools, known, are_all=False)
        return self.bind(tools=shown, **({"tool_settings": settings} if settings else {}))

    @override
    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        """Return the mix with answers that fit a schema; see `AutoMixRunnable`."""
        mix, arguments = self._mix_for()
        structured = mix.with_structured_output(schema, include_raw=include_raw, **kwargs)
        config = self._with_own_config(None)
        return RunnableBinding(bound=structured, kwargs=arguments, config=config)

    def for_calls(self, **kwargs: Any) -> RunnableBinding[LanguageModelInput, Any]:
        """Return what answers all calls with the same arguments, and is made only once.

        Args:
            **kwargs: Arguments of the calls, such as `temperature`, `tools` and `tool_settings`.
        """
        mix, arguments = self._mix_for(**kwargs)
        return RunnableBinding(bound=mix, kwargs=arguments, config=self._with_own_config(None))

    @override
    def invoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        mix, arguments = self._mix_for(**kwargs)
        message: AIMessage = mix.invoke(input, self._with_own_config(config), **arguments)
        return message

    @override
    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        mix, arguments = self._mix_for(**kwargs)
        message: AIMessage = await mix.ainvoke(input, self._with_own_config(config), **arguments)
        return message

    @override
    def stream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[AIMessageChunk]:
        if self._streaming_disabled(**kwargs):
            yield from answer_chunks(self.invoke(input, config, **kwargs))
            return
        mix, arguments = self._mix_for(**kwargs)
        yield from mix.stream(input, self._with_own_config(config), **arguments)

    @override
    async def astream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[AIMessageChunk]:
        if self._streaming_disabled(**kwargs):
            for chunk in answer_chunks(await self.ainvoke(input, config, **kwargs)):
                yield chunk
            return
        mix, arguments = self._mix_for(**kwargs)
        made: Any = mix.astream(input, self._with_own_config(config), **arguments)
        async with contextlib.aclosing(made) as chunks:  # closes at once when the reader leaves
            async for chunk in chunks:
                yield chunk

    @override
    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        mix, arguments = self._mix_for(**kwargs)
        configs = self._with_own_configs(config)
        return mix.batch(inputs, configs, return_exceptions=return_exceptions, **arguments)

    @override
    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        mix, arguments = self._mix_for(**kwargs)
        configs = self._with_own_configs(config)
        return await mix.abatch(inputs, configs, return_exceptions=return_exceptions, **arguments)

    # `generate` and version 3 events use the methods below, with a run of their own. That run
    # reports no usage, since its children, the models' own runs, have already reported it.

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        mix, arguments = self._mix_for(stop, **kwargs)
        return as_result(
            mix.invoke(messages, below_llm_run(run_manager, CallbackManager), **arguments)
        )

    @override
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        mix, arguments = self._mix_for(stop, **kwargs)
        below = below_llm_run(run_manager, AsyncCallbackManager)
        return as_result(await mix.ainvoke(messages, below, **arguments))

    @override
    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        mix, arguments = self._mix_for(stop, **kwargs)
        for chunk in mix.stream(messages, below_llm_run(run_manager, CallbackManager), **arguments):
            yield ChatGenerationChunk(message=without_usage(chunk))

    @override
    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        mix, arguments = self._mix_for(stop, **kwargs)
        below = below_llm_run(run_manager, AsyncCallbackManager)
        made: Any = mix.astream(messages, below, **arguments)
        async with contextlib.aclosing(made) as chunks:
            async for chunk in chunks:
                yield ChatGenerationChunk(message=without_usage(chunk))

    def _mix_for(
        self, stop: list[str] | None = None, **kwargs: Any
    ) -> tuple[AutoMixRunnable, dict[str, Any]]:
        """Return the mix for a call, and the arguments for the answering models."""
        arguments = {k: v for k, v in kwargs.items() if k not in _ANSWER_SETTINGS}
        if stop := stop or self.stop:
            arguments["stop"] = stop
        given = _known({k: v for k, v in kwargs.items() if k in _ANSWER_SETTINGS})
        mix, settings = self._runnable, {**self._answer_settings, **given}
        if settings != self._answer_settings:
            mix = mix.with_answer_settings(settings)
        if tools := arguments.pop("tools", None):
            choice = {"tool_choice": arguments.pop("tool_choice", None)}
            mix = self._with_tools(mix, tools, {**choice, **arguments.pop("tool_settings", {})})
        if (model := arguments.pop("model", None)) is not None:
            mix = mix.model_copy(update={"force_model": model})
        return mix, arguments

    def _with_tools(
        self, mix: AutoMixRunnable, tools: Any, settings: Mapping[str, Any]
    ) -> AutoMixRunnable:
        """Return a mix with tools: the one built by `bind_tools` if it matches, else a new one."""
        settings = _known(settings)
        made = self._bound_mixes.find(tools, settings) if mix is self._runnable else None
        return made or mix.with_tools(tools, settings)

    def _with_own_config(self, config: RunnableConfig | None) -> RunnableConfig:
        own: RunnableConfig = {
            "callbacks": self.callbacks,
            "tags": self.tags or [],
            "metadata": self.metadata or {},
        }
        return merge_configs(own, config)

    def _with_own_configs(
        self, config: RunnableConfig | list[RunnableConfig] | None
    ) -> RunnableConfig | list[RunnableConfig]:
        if isinstance(config, list):
            return [self._with_own_config(each) for each in config]
        return self._with_own_config(config)


def _known(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}
