"""What answers a request: a mix with the request's tools, format and settings, made only once."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableBinding

from langchain_automix.errors import AutoMixError
from langchain_automix.mix.chat_model import ChatAutoMix
from langchain_automix.models.request_shape import takes_openai_arguments
from langchain_automix.models.wrappers import iter_chat_models
from langchain_automix.serve.chat_request import (
    PASSED_ON,
    ChatCompletionRequest,
    JsonSchemaFormat,
    TextFormat,
)
from langchain_automix.serve.errors import ApiError, unsupported
from langchain_automix.serve.own_threads import OwnThreads

_MOST = 128
_LONGEST = 100_000
"""Characters of tools, format and settings with which a mix is kept: clients may send megabytes."""

_THREADS = 4
_ANY_FIELDS = frozenset({"top_p", "seed"})
"""Settings that any provider's model may have a field for."""

_FOR_TRACES = frozenset({"user", "metadata"})
"""What the traces of this server keep, whether or not the models take it."""

_CHECKED = frozenset(PASSED_ON) - _FOR_TRACES
_SHAPING = ("temperature", "max_tokens", "top_p", "seed")
"""Settings that each provider may have a name of its own for, set on the models."""


class BoundMixes:
    """The mixes with settings of requests that were asked for last.

    An agent sends the same tools with every step.

    Args:
        mix: The mix of all of them.
    """

    def __init__(self, mix: ChatAutoMix) -> None:
        self._mix, self._threads = mix, OwnThreads(_THREADS)
        self._kept: OrderedDict[str, RunnableBinding[Any, Any]] = OrderedDict()

    async def bind(self, request: ChatCompletionRequest) -> RunnableBinding[Any, Any]:
        """Return what answers a request; its `kwargs` go to the models.

        Raises:
            ApiError: A model of the mix does not take what the request asks for.
        """
        arguments = self._arguments(request)
        shaping = self._shaping(request, arguments)
        asked = _as_text([shaping, request.response_format])
        key = hashlib.sha256(asked.encode()).hexdigest()
        if (found := self._kept.get(key)) is None:
            # What learns may wait for its store when there are new tools.
            found = await self._threads.run(self._made, request, shaping)
        if len(asked) <= _LONGEST:
            self._kept[key] = found
            self._kept.move_to_end(key)
        while len(self._kept) > _MOST:
            self._kept.popitem(last=False)
        if not arguments:
            return found
        return found.model_copy(update={"kwargs": {**found.kwargs, **arguments}})

    def _arguments(self, request: ChatCompletionRequest) -> dict[str, Any]:
        """Return what goes to the models with each call, as it is."""
        passed_on = {**request.passed_on(), **request.answer_settings()}
        for name in passed_on.keys() & _CHECKED:
            self._check(name)
        if not self._takes_all:
            passed_on = {k: v for k, v in passed_on.items() if k not in _FOR_TRACES}
        body: dict[str, Any] = {}
        if metadata := passed_on.pop("metadata", None):  # LangChain has an argument of that name
            body |= {"metadata": metadata} if request.store else {}
        if request.tools and _has_format(request):
            body["response_format"] = self._format_beside_tools(request)
        return {**passed_on, "extra_body": body} if body else passed_on

    def _format_beside_tools(self, request: ChatCompletionRequest) -> dict[str, Any]:
        """Return a response format as the models get it: no mix itself has a schema and tools.

        Raises:
            ApiError: A model of the mix does not take it so.
        """
        models = [each for model in self._mix.models for each in iter_chat_models(model)]
        if not self._takes_all or any(getattr(each, "extra_body", None) for each in models):
            text = "A model of this mix takes tools or a response_format, not both."
            raise unsupported("response_format", text)
        wanted: Any = request.response_format
        given: dict[str, Any] = wanted.model_dump(by_alias=True, exclude_none=True)
        return given

    def _shaping(self, request: ChatCompletionRequest, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return what a mix is made with; it is taken out of the arguments."""
        shaping = {name: arguments.pop(name) for name in _SHAPING if name in arguments}
        if request.tools:
            shaping["tools"] = request.tools_given()
        if settings := request.tool_settings():
            shaping["tool_settings"] = settings
        return shaping

    def _check(self, name: str) -> None:
        """Refuse a parameter that a model of the mix does not take.

        Raises:
            ApiError: It names the parameter and the model.
        """
        for served, model in zip(self._mix.model_names, self._mix.models, strict=True):
            for chat_model in iter_chat_models(model):
                if chat_model is None or not _takes(chat_model, name):
                    raise unsupported(
                        name, f"{served}, a model of this mix, takes no {name}: leave it out."
                    )

    @cached_property
    def _takes_all(self) -> bool:
        models = (each for model in self._mix.models for each in iter_chat_models(model))
        return all(each is not None and takes_openai_arguments(each) for each in models)

    def _made(
        self, request: ChatCompletionRequest, arguments: Mapping[str, Any]
    ) -> RunnableBinding[Any, Any]:
        param = "tools" if request.tools else "response_format"
        try:
            calls = self._mix.for_calls(**arguments)
            if request.tools or not _has_format(request):
                return calls
            mix: Any = calls.bound
            schema, settings = _output(request.response_format)
            structured = mix.with_structured_output(schema, include_raw=True, **settings)
            return calls.model_copy(update={"bound": structured})
        except AutoMixError:
            raise
        except Exception as error:  # LangChain raises any kind for what it cannot read
            text = f"A model of this mix cannot be asked with these {param}"
            raise ApiError(400, f"{text} ({type(error).__name__}).", param=param) from error


def _has_format(request: ChatCompletionRequest) -> bool:
    return not isinstance(request.response_format, TextFormat | None)


def _output(wanted: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the schema of a response format, and how the models are asked for it."""
    if not isinstance(wanted, JsonSchemaFormat):
        schema: dict[str, Any] = {"title": "json_object", "type": "object", "properties": {}}
        return schema, {"method": "json_mode"}
    asked = wanted.json_schema
    schema = {"type": "object", "properties": {}, **(asked.schema_ or {}), "title": asked.name}
    if asked.description is not None:
        schema["description"] = asked.description
    strict = {} if asked.strict is None else {"strict": asked.strict}
    return schema, {"method": "json_schema", **strict}


def _takes(chat_model: BaseChatModel, name: str) -> bool:
    has_field = name in _ANY_FIELDS and name in type(chat_model).model_fields
    return has_field or takes_openai_arguments(chat_model)


def _as_text(parts: list[Any]) -> str:
    return json.dumps(parts, sort_keys=True, default=lambda part: part.model_dump(by_alias=True))
