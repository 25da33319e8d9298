"""`AutoMixRunnable`: the mix as a Runnable, wherever a chat model goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.graph import Graph
from langchain_core.runnables.utils import ConfigurableFieldSpec, get_unique_config_specs
from pydantic import ConfigDict, Field, PrivateAttr, model_validator
from typing_extensions import override

from langchain_automix.errors import AutoMixError
from langchain_automix.flow.run import FlowRun
from langchain_automix.flow.steps import Flow, Steps
from langchain_automix.mix.account import MixAccount
from langchain_automix.mix.answer import ModelAnswer
from langchain_automix.mix.answer_format import AnswerFormat, MessageFormat, Tool
from langchain_automix.mix.by_name import to_index
from langchain_automix.mix.config import MixConfig
from langchain_automix.mix.early import why_never
from langchain_automix.mix.fields import RunnableFields, RunnablePolicyFields, listing
from langchain_automix.mix.from_policy import read_policy
from langchain_automix.mix.graph import build_graph
from langchain_automix.mix.guards import Guard
from langchain_automix.mix.kept_answer import answer_chunks
from langchain_automix.mix.learner import prepare_learner
from langchain_automix.mix.limits.latency import LatencyEstimator
from langchain_automix.mix.limits.repeated_failures import RepeatedFailures
from langchain_automix.mix.limits.sharing import shared
from langchain_automix.mix.limits.spend_limit import limits_of
from langchain_automix.mix.loop import QueryLoop
from langchain_automix.mix.settings import MixSettings
from langchain_automix.mix.streamed import StreamedRunnable
from langchain_automix.mix.structured import StructuredFormat
from langchain_automix.mix.unknown_names import refuse_unknown_fields, refuse_unknown_tools
from langchain_automix.models.identity import identity, model_names
from langchain_automix.models.tools import bound_tools, tools_in_openai_format
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.routers.pomdp import POMDPRouter
from langchain_automix.utils.user_warnings import warn_user

# What `bind_tools` and `with_structured_output` set.
_BOUND = frozenset({"tools", "tool_settings", "output", "output_settings", "include_raw"})


class AutoMixRunnable(StreamedRunnable, MixSettings):
    """A cheap model answers and is checked; a larger model is asked where that pays off.

    Goes where a chat model goes in a chain: `prompt | AutoMixRunnable(...) | parser`. The
    message that comes out is the kept model's own; `response_metadata["automix"]` holds the
    record of the query: `model` (name kept), `model_index`, `action`, `confidence`,
    `verdicts` (both of the last answer's leading check; where that was not made, of the last one
    that found something), `checks` (each check that was made), `drawn` (the number of all
    verdicts), `escalated`, `cost` (as text with currency, None when unknown) and `why`.

    A stream never shows an answer that is rejected: a checked one comes once it is accepted,
    one that is kept whatever it is comes token by token.

    ??? example "In a chain"

        ```python
        from langchain_automix import AutoMixRunnable

        chain = prompt | AutoMixRunnable.from_models(small, large) | StrOutputParser()
        ```

    ??? example "As the answer stage of RAG"

        ```python
        rag = {
            "context": retriever,
            "question": RunnablePassthrough(),
        } | AutoMixRunnable.from_models(small, large, prompt=rag_prompt)
        ```
    """

    prompt: Runnable[Any, Any] | None = None
    """Makes the models' input from a dict, whose question and context go to the verifier as
    such. None: the input is a model's input, and the verifier reads the conversation."""

    question_key: str = "question"
    """Key of the question in the dict that goes into `prompt`."""

    context_key: str = "context"
    """Key of the context in that dict: a text, or documents; may be missing."""

    history_key: str = "history"
    """Key of what was said before in that dict: messages, which the check sees, too; may be
    missing."""

    tools: list[Any] = Field(default_factory=list)
    """Tools that `bind_tools` has given to all models."""

    tool_settings: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of `bind_tools`, such as `tool_choice`."""

    output: Any = None
    """Schema that `with_structured_output` has given to all models: a pydantic class, a TypedDict
    class, or a JSON schema. None: the mix answers with messages."""

    output_settings: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of `with_structured_output`, such as `method`."""

    include_raw: bool = False
    """Whether a structured output is a dict with `raw`, `parsed` and `parsing_error`."""

    _format: AnswerFormat | None = PrivateAttr(default=None)
    _guards: tuple[Guard, ...] = PrivateAttr(default=())
    _answer_settings: Mapping[str, Any] = PrivateAttr(default_factory=dict)

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    if TYPE_CHECKING:

        def __init__(
            self, *, models: Sequence[Runnable[Any, Any] | str], **fields: Unpack[RunnableFields]
        ) -> None: ...

    @classmethod
    @listing(RunnableFields)
    def from_models(
        cls, *models: Runnable[Any, Any] | str, **fields: Unpack[RunnableFields]
    ) -> Self:
        """Mix chat models, given cheap to expensive.

        Works before any fit, by a prior that is not calibrated, and says so once.

        Args:
            *models: Two or more chat models, or their names.
            **fields: Any other field, such as `prompt=`, `verifier=` or `router=`.
        """
        return cls(models=models, **fields)

    @classmethod
    @listing(RunnablePolicyFields)
    def from_policy(
        cls,
        policy: str | Path | Policy | POMDPRouter,
        *models: Runnable[Any, Any] | str,
        verifier: Runnable[Any, Any] | str | None = None,
        check_models: Sequence[Runnable[Any, Any]] = (),
        other_models: bool = False,
        **fields: Unpack[RunnablePolicyFields],
    ) -> Self:
        """Mix chat models by a fitted policy, with the check that it was fitted to.

        Args:
            policy: The policy file, as `automix fit` writes it.
            *models: The models that it was fitted to, cheap to expensive, or their names.
            verifier: A check instead of the policy's own, or its name; needed where the policy's
                cannot be rebuilt from a file, such as a function of yours.
            check_models: Further models that the check asks, found by their names.
            other_models: Whether the models may have other names than the policy's.
            **fields: Any other field, such as `prompt=`.

        Raises:
            AutoMixError: The file is no policy, the models are others, or the check cannot be
                rebuilt.
        """
        read = read_policy(
            policy, models, verifier=verifier, check_models=check_models, other_models=other_models
        )
        return cls(**read.fields(), **fields)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and (unknown := set(values) - cls.model_fields.keys()):
            refuse_unknown_fields(cls.__name__, unknown, cls.model_fields.keys() - _BOUND)
        return values

    @model_validator(mode="after")
    def _validate(self) -> Self:
        names = self.model_names
        self._check_order(names)
        self._check_limits(names)
        self._pace = shared(LatencyEstimator, self.models, self.verifier)
        self._failures = shared(RepeatedFailures, self.models, self.verifier)
        self._account = shared(MixAccount, self.models, self.verifier, self.router)
        self._loop.opening()
        self._warn_of_router()
        if self.give_up_early and (reason := why_never(self.mix_config)) is not None:
            warn_user(f"give_up_early has no effect: {reason}.")
        if self.learning is not None:
            prepare_learner(self.learning, self.mix_config)
        return self

    @property
    def model_names(self) -> tuple[str, ...]:
        """Names of the models, each once; `model-0` and so on where a model has no name."""
        return model_names(self.models)

    @property
    @override
    def InputType(self) -> Any:
        return self.prompt.InputType if self.prompt is not None else self.models[0].InputType

    @override
    def get_input_schema(self, config: RunnableConfig | None = None) -> Any:
        """Return the schema of the input: with `prompt`, of the dict that it takes."""
        if self.prompt is not None:
            return self.prompt.get_input_schema(config)
        return super().get_input_schema(config)

    @property
    @override
    def OutputType(self) -> Any:
        return self.answer_format.output_type

    @property
    @override
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        parts = [*self.models, self.verifier, self.router, *([self.prompt] if self.prompt else [])]
        return get_unique_config_specs(spec for part in parts for spec in part.config_specs)

    @override
    def get_graph(self, config: RunnableConfig | None = None) -> Graph:
        """Return the graph of the mix: who answers, who checks, and where it may go from there."""
        schemas = self.get_input_schema(config), self.get_output_schema(config)
        return build_graph(self.mix_config, self._loop.opening(), *schemas)

    def bind_tools(
        self, tools: Sequence[Tool], *, tool_choice: str | bool | None = None, **kwargs: Any
    ) -> AutoMixRunnable:  # not Self, in which `with_fallbacks` would not see a Runnable
        """Return the mix with tools: each model gets them in its own provider's format.

        A tool call is an answer. It is checked first for what needs no model: does it parse,
        is the tool known, do its arguments fit the tool's schema; then by the verifier.

        Args:
            tools: Tools, functions, pydantic classes or schemas.
            tool_choice: Which tool must be called, or `any`, `auto`; as the models take it.
            **kwargs: Go to each model's own `bind_tools`, such as `parallel_tool_calls`.

        Raises:
            NotImplementedError: A model takes no tools.
            AutoMixError: The mix has structured output, or `always_escalate_tools` names a tool
                that is not among these.
        """
        refuse_unknown_tools(self.always_escalate_tools, tools_in_openai_format(tools))
        settings = kwargs if tool_choice is None else {**kwargs, "tool_choice": tool_choice}
        return self.with_tools(tools, settings)

    def with_tools(self, tools: Sequence[Tool], settings: Mapping[str, Any]) -> AutoMixRunnable:
        """Return the mix with tools as `bind_tools` does, which may be only some of all there are.

        Args:
            tools: Tools, functions, pydantic classes or schemas.
            settings: Further arguments of the models' `bind_tools`.
        """
        if self.output is not None:
            raise AutoMixError(
                "A mix with structured output takes no tools; bind them, or a schema."
            )
        bound = self.model_copy(update={"tools": list(tools), "tool_settings": dict(settings)})
        bound._prepare_answers()  # noqa: SLF001  (a model that takes no tools says so now)
        return bound

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[Any, Any]:
        """Return the mix with answers that fit a schema, each model in its provider's format.

        An answer that does not fit is rejected without asking any model, and the next model is
        asked (or the same again, by `retries_if_unusable`).

        Args:
            schema: A pydantic class, a TypedDict class, or a JSON schema.
            include_raw: Whether the output is a dict with `raw` (the message, with its record),
                `parsed` and `parsing_error`; else it is the parsed object, and the last
                model's parsing error is raised.
            **kwargs: Go to each model's own `with_structured_output`, such as `method`.
        """
        if self.tools:
            raise AutoMixError(
                "A mix with tools has no structured output: a model gets tools or a schema."
            )
        fields = {"output": schema, "include_raw": include_raw, "output_settings": kwargs}
        structured = self.model_copy(update=fields)
        structured._prepare_answers()  # noqa: SLF001  (likewise)
        return structured

    def _prepare_answers(self) -> None:
        """Have the models, and what learns from their answers, get ready for another format."""
        _ = self.mix_config.answerers
        if self.learning is not None:
            self.learning.prepare(self.mix_config)

    @override
    def _last_chunks(self, run: FlowRun[ModelAnswer]) -> Iterator[Any]:
        answer = run.result()
        if self.answer_format.may_stream:
            yield from answer_chunks(answer.message, streamed=run.streamed)
        else:
            yield self.answer_format.present(answer)

    @override
    def _flow(self, input: Any, **kwargs: Any) -> Steps[Any]:
        return self._presented(self._query(input, kwargs).steps)

    @override
    def _begin(self, input: Any, kwargs: Mapping[str, Any], config: RunnableConfig) -> Flow[Any]:
        flow = self._query(input, kwargs, config)
        return Flow(self._presented(flow.steps), flow.deadline, flow.report, flow.ended)

    def _presented(self, steps: Steps[ModelAnswer]) -> Steps[Any]:
        return self.answer_format.present((yield from steps))

    @override
    def _query(
        self, input: Any, kwargs: Mapping[str, Any], config: RunnableConfig | None = None
    ) -> Flow[ModelAnswer]:
        answer_format, arguments = self.answer_format.bind(kwargs)
        loop = self._loop
        if answer_format is not self.answer_format:
            mix_config = replace(loop.config, answer_format=answer_format)
            loop = QueryLoop(mix_config, self._guards, self.learning)
        return loop.begin(input, arguments, config)

    def with_format(self, answer_format: AnswerFormat, guards: Sequence[Guard] = ()) -> Self:
        """Return the mix with another format of its answers, and with further guards.

        Args:
            answer_format: How an answer is asked for, read and handed out.
            guards: Stand around the router beside the mix's own.
        """
        copy = self.model_copy()
        copy._format, copy._guards = answer_format, tuple(guards)  # noqa: SLF001  (of its own kind)
        return copy

    def with_answer_settings(self, settings: Mapping[str, Any]) -> Self:
        """Return the mix with settings of its answers, under each provider's own name for them.

        Args:
            settings: `temperature`, `max_tokens`, in tokens, `top_p` and `seed`.
        """
        copy = self.model_copy()
        copy._answer_settings = settings  # noqa: SLF001  (of its own kind)
        return copy

    @cached_property
    def answer_format(self) -> AnswerFormat:
        """How an answer is asked for, read and handed out."""
        if self._format is not None:
            return self._format
        if self.output is not None:
            return StructuredFormat(
                self.output, self.output_settings, self.include_raw, fields=self._answer_settings
            )
        own = bound_tools(self.models[0])
        return MessageFormat(self.tools, self.tool_settings, own, self._answer_settings)

    @cached_property
    def mix_config(self) -> MixConfig:
        """Who answers, checks and decides, as worked out from the fields."""
        names = self.model_names
        return MixConfig(
            names=names,
            models=self.models,
            answer_format=self.answer_format,
            verifier=self.verifier,
            router=self.router,
            prompt=self.prompt,
            question_key=self.question_key,
            context_key=self.context_key,
            history_key=self.history_key,
            abstention=self.abstention,
            always_escalate_tools=frozenset(self.always_escalate_tools),
            retries_if_unusable=self.retries_if_unusable,
            on_escalation_error=self.on_escalation_error,
            on_verification_error=self.on_verification_error,
            allow_missing_finish_reason=self.allow_missing_finish_reason,
            verification=self.verification,
            max_latency=self.max_latency,
            hedge=self.hedge,
            give_up_early=self.give_up_early,
            pace=self._pace,
            failures=self._failures,
            account=self._account,
            forced=None if self.force_model is None else to_index(self.force_model, names),
            cost_weight=self.cost_weight,
            spend_limits=limits_of(self.spend_limit),
            breaker=self.circuit_breaker,
            prices=self.prices,
            identities=[identity(model) for model in self.models],
        )

    @cached_property
    def _loop(self) -> QueryLoop:
        return QueryLoop(self.mix_config, self._guards, self.learning)


StructuredMix = AutoMixRunnable
"""Name under which version 0.1.0 saved a mix with structured output."""
