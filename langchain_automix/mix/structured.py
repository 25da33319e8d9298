"""The mix with structured output: an answer that does not fit its schema is no answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, NoReturn

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableWithFallbacks
from langchain_core.runnables.configurable import DynamicRunnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import ValidationError
from typing_extensions import override

from langchain_automix.errors import AutoMixError
from langchain_automix.flow.run import FlowRun
from langchain_automix.flow.steps import Steps
from langchain_automix.mix.answer import ModelAnswer, read_message
from langchain_automix.mix.loop import QueryLoop
from langchain_automix.mix.runnable import AutoMixRunnable
from langchain_automix.models.tools import parsing_problem, schema_problem, tool_parts
from langchain_automix.models.wrappers import (
    map_chat_models,
    replace_structured_model,
    unwrap,
    without_streaming,
)


class StructuredMix(AutoMixRunnable):
    """What `AutoMixRunnable.with_structured_output` returns: a mix whose output fits a schema."""

    output: Any
    """A pydantic class, a TypedDict class, or a JSON schema."""

    output_settings: dict[str, Any]
    """What each model's own `with_structured_output` gets beside the schema."""

    include_raw: bool = False
    """Whether the output is a dict with `raw`, `parsed` and `parsing_error`."""

    @property
    @override
    def OutputType(self) -> Any:
        return self.output if isinstance(self.output, type) and not self.include_raw else dict

    @override
    def bind_tools(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise AutoMixError("A mix with structured output takes no tools; bind them, or a schema.")

    @override
    def _flow(self, input: Any, **kwargs: Any) -> Steps[Any]:
        return self._given((yield from self._query(input, kwargs)))

    @override
    def _query(self, input: Any, kwargs: Mapping[str, Any]) -> Steps[ModelAnswer]:
        if not kwargs:
            return self._mix.flow(input, {})
        answerers = [self._with_output(model, kwargs) for model in self.models]
        return replace(self._mix, answerers=answerers).flow(input, {})

    @override
    def _last_chunks(self, one: FlowRun[ModelAnswer]) -> Iterator[Any]:
        yield self._given(one.result())

    @override
    def _settings(self) -> QueryLoop:
        return replace(
            super()._settings(),
            read=self._read,
            read_error=self._read_error,
            may_stream=False,
            tools=(),
        )

    @override
    def _answerers(self) -> list[Runnable[Any, Any]]:
        # A model that streams by itself could not be told to be quiet once it is in a sequence.
        return [self._with_output(without_streaming(model)) for model in self.models]

    def _with_output(
        self, model: Runnable[Any, Any], kwargs: Mapping[str, Any] | None = None
    ) -> Runnable[Any, Any]:
        """Return a model with its structured output; the arguments of a call are bound to it."""
        if isinstance(model, RunnableWithFallbacks):
            fallbacks = [self._with_output(fallback, kwargs) for fallback in model.fallbacks]
            first = self._with_output(model.runnable, kwargs)
            return model.model_copy(update={"runnable": first, "fallbacks": fallbacks})
        if isinstance(model, DynamicRunnable):
            # What is configurable is the model, not the sequence around it.
            found = replace_structured_model(
                self._with_output(model.default, kwargs),
                lambda asked: asked.model_copy(update={"bound": model}),
            )
            if found is not None:
                return found
        bound = {**unwrap(model)[1], **(kwargs or {})}

        def change(chat_model: BaseChatModel) -> Runnable[Any, Any]:
            found = chat_model.with_structured_output(
                self.output, include_raw=True, **self.output_settings
            )
            return _bound_within(found, bound) if bound else found

        return map_chat_models(model, change, kwargs=lambda _: {})

    def _read(self, output: Any, index: int) -> ModelAnswer:
        raw = read_message(output["raw"], index).message
        problem = None
        if (error := output["parsing_error"]) is not None:
            fields = tool_parts(convert_to_openai_tool(self.output))[2]
            problem = f"the answer does not fit {self._name} ({parsing_problem(error, fields)})"
        elif output["parsed"] is None:
            problem = f"the answer holds no {self._name}"
        elif (misfit := schema_problem(output["parsed"], self._json_schema)) is not None:
            problem = f"the answer does not fit {self._name} ({misfit})"
        return ModelAnswer(raw, output, problem)

    def _read_error(self, error: Exception) -> ModelAnswer | None:
        # OpenAI's client reads a pydantic class by itself, and drops an answer that does not fit.
        misfits = isinstance(error, ValidationError) and error.title == self._name
        if not misfits and type(error).__name__ != "LengthFinishReasonError":
            return None
        raw = AIMessage("")  # its usage is lost: the cost of the query is unknown
        return self._read({"raw": raw, "parsed": None, "parsing_error": error}, 0)

    @cached_property
    def _name(self) -> str:
        name = getattr(self.output, "__name__", None) or self.output.get("title", "the schema")
        return str(name)

    @cached_property
    def _json_schema(self) -> Mapping[str, Any] | None:
        """The schema of a dict, which LangChain does not check; None for a pydantic class."""
        if is_basemodel_subclass(self.output):
            return None
        if isinstance(self.output, dict) and "properties" in self.output:
            return self.output
        return tool_parts(convert_to_openai_tool(self.output))[2]

    def _given(self, reply: ModelAnswer) -> Any:
        output: Mapping[str, Any] = reply.payload or {"parsed": None, "parsing_error": None}
        if self.include_raw:
            return {**output, "raw": reply.message}
        if output["parsing_error"] is not None:
            raise output["parsing_error"]
        return output["parsed"]


def _bound_within(found: Runnable[Any, Any], bound: dict[str, Any]) -> Runnable[Any, Any]:
    """Return a structured model whose request has the bound arguments.

    LangChain itself loses them: it hands them to the sequence, which takes none.
    """
    asking = replace_structured_model(found, lambda asked: asked.bind(**bound))
    if asking is None:
        raise AutoMixError(
            f"The arguments {sorted(bound)} bound to a model would be lost in its structured "
            "output: set them on the model itself."
        )
    return asking
