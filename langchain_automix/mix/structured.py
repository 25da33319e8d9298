"""Structured output: an answer that does not fit its schema counts as unusable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableWithFallbacks
from langchain_core.runnables.configurable import DynamicRunnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import ValidationError
from typing_extensions import override

from langchain_automix.errors import AutoMixError
from langchain_automix.mix.answer import ModelAnswer, read_message
from langchain_automix.mix.answer_format import AnswerFormat
from langchain_automix.models.request_shape import with_answer_settings
from langchain_automix.models.tools import parsing_problem, schema_problem, tool_parts
from langchain_automix.models.wrappers import (
    map_chat_models,
    replace_structured_model,
    unwrap,
    without_streaming,
)
from langchain_automix.utils.fingerprints import repr_hash


@dataclass(frozen=True)
class StructuredFormat(AnswerFormat):
    """Answers that fit a schema; each model is asked in its provider's own way."""

    schema: Any
    """A pydantic class, a TypedDict class, or a JSON schema."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of each model's own `with_structured_output`."""

    include_raw: bool = False
    """Whether the caller gets a dict with `raw`, `parsed` and `parsing_error`."""

    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of a call, which must be bound inside the parser."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the answering models; see `with_answer_settings`."""

    may_stream = False

    @property
    @override
    def output_type(self) -> Any:
        return self.schema if isinstance(self.schema, type) and not self.include_raw else dict

    @property
    @override
    def digest(self) -> str:
        return repr_hash([self._name, convert_to_openai_tool(self.schema)])

    @override
    def bind(self, arguments: Mapping[str, Any]) -> tuple[AnswerFormat, Mapping[str, Any]]:
        return (replace(self, arguments=arguments) if arguments else self), {}

    @override
    def answerers(self, models: Sequence[Runnable[Any, Any]]) -> Sequence[Runnable[Any, Any]]:
        # A model that streams by default can no longer be silenced once it is in a sequence.
        answering = (with_answer_settings(model, self.fields) for model in models)
        return [self._structured(without_streaming(model)) for model in answering]

    @override
    def read(self, output: Any, index: int) -> ModelAnswer:
        raw = read_message(output["raw"], index).message
        problem = None
        if (error := output["parsing_error"]) is not None:
            fields = tool_parts(convert_to_openai_tool(self.schema))[2]
            problem = f"the answer does not fit {self._name} ({parsing_problem(error, fields)})"
        elif output["parsed"] is None:
            problem = f"the answer holds no {self._name}"
        elif (misfit := schema_problem(output["parsed"], self._json_schema)) is not None:
            problem = f"the answer does not fit {self._name} ({misfit})"
        return ModelAnswer(raw, output, problem)

    @override
    def read_error(self, error: Exception) -> ModelAnswer | None:
        # OpenAI's client parses pydantic classes itself, and drops an answer that does not fit.
        misfits = isinstance(error, ValidationError) and error.title == self._name
        if not misfits and type(error).__name__ != "LengthFinishReasonError":
            return None
        raw = AIMessage("")  # its usage is lost, so the cost of the query is unknown
        return self.read({"raw": raw, "parsed": None, "parsing_error": error}, 0)

    @override
    def present(self, answer: ModelAnswer) -> Any:
        output: Mapping[str, Any] = answer.payload or {"parsed": None, "parsing_error": None}
        if self.include_raw:
            return {**output, "raw": answer.message}
        if output["parsing_error"] is not None:
            raise output["parsing_error"]
        return output["parsed"]

    def _structured(self, model: Runnable[Any, Any]) -> Runnable[Any, Any]:
        """Return a model with its structured output."""
        if isinstance(model, RunnableWithFallbacks):
            fallbacks = [self._structured(fallback) for fallback in model.fallbacks]
            first = self._structured(model.runnable)
            return model.model_copy(update={"runnable": first, "fallbacks": fallbacks})
        if isinstance(model, DynamicRunnable):
            # The model is configurable, and not the sequence around it.
            found = replace_structured_model(
                self._structured(model.default),
                lambda asked: asked.model_copy(update={"bound": model}),
            )
            if found is not None:
                return found
        bound = {**unwrap(model)[1], **self.arguments}

        def change(asked: Any) -> Runnable[Any, Any]:
            if not hasattr(asked, "with_structured_output"):
                raise NotImplementedError(f"{type(asked).__name__} has no structured output.")
            structured = asked.with_structured_output(
                self.schema, include_raw=True, **self.settings
            )
            return _bind_within(structured, bound) if bound else structured

        return map_chat_models(model, change, kwargs=lambda _: {}, other=change)

    @cached_property
    def _name(self) -> str:
        name = getattr(self.schema, "__name__", None) or self.schema.get("title", "the schema")
        return str(name)

    @cached_property
    def _json_schema(self) -> Mapping[str, Any] | None:
        """The schema of a dict, which LangChain does not validate; None for a pydantic class."""
        if is_basemodel_subclass(self.schema):
            return None
        if isinstance(self.schema, dict) and "properties" in self.schema:
            return self.schema
        return tool_parts(convert_to_openai_tool(self.schema))[2]


def _bind_within(structured: Runnable[Any, Any], arguments: dict[str, Any]) -> Runnable[Any, Any]:
    """Bind arguments to the request of a structured model.

    LangChain would lose them, since it passes them to the sequence, which accepts none.
    """
    bound = replace_structured_model(structured, lambda asked: asked.bind(**arguments))
    if bound is None:
        raise AutoMixError(
            f"The arguments {sorted(arguments)} bound to a model would be lost in its structured "
            "output: set them on the model itself."
        )
    return bound
