"""`AnswerFormat`: how an answer is requested, read and returned; and answers as messages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from typing_extensions import override

from langchain_automix.mix.answer import ModelAnswer, read_message
from langchain_automix.models.provider_settings import (
    settings_of_others,
    strip_settings,
    strip_tools,
)
from langchain_automix.models.request_shape import with_answer_settings
from langchain_automix.models.tools import as_given, required_call, tools_in_openai_format
from langchain_automix.models.wrappers import map_chat_models
from langchain_automix.utils.fingerprints import repr_hash

Tool = dict[str, Any] | type | Callable[..., Any] | BaseTool


class AnswerFormat(ABC):
    """How an answer is requested, read and returned to the caller."""

    tools: Sequence[dict[str, Any]] = ()
    """The tools of the answering models, in OpenAI's format."""

    must_call: bool | str = False
    """Whether an answer must be a tool call; a name demands a call of that tool."""

    may_stream: bool = True
    """Whether the caller gets the message itself, rather than something built from it."""

    may_be_unusable: bool = False
    """Whether `read` may find an answer unusable. Then only the last model's answer is streamed."""

    may_shadow: bool = True
    """Whether models can be asked again after the caller has left."""

    @property
    def output_type(self) -> Any:
        """Type of what the caller gets."""
        return AIMessage

    @property
    def digest(self) -> str:
        """Short hash of what shapes the answers: the tools or the schema."""
        return repr_hash([self.tools, self.must_call])

    def for_shadow(self) -> AnswerFormat:
        """Return the format for asking models after the query, when its caller has left."""
        return self

    @abstractmethod
    def answerers(self, models: Sequence[Runnable[Any, Any]]) -> Sequence[Runnable[Any, Any]]:
        """Return, for each model, the Runnable that is called for its answer."""

    def read(self, output: Any, index: int) -> ModelAnswer:
        """Read what the answerer of a model returned.

        Raises:
            AutoMixError: The output holds no AI message.
        """
        return read_message(output, index)

    def read_error(self, error: Exception) -> ModelAnswer | None:
        """Read an error by which a client rejects an answer; None if the call itself failed."""
        del error
        return None

    def present(self, answer: ModelAnswer) -> Any:
        """Return what the caller gets for the kept answer."""
        return answer.message

    def bind(self, arguments: Mapping[str, Any]) -> tuple[AnswerFormat, Mapping[str, Any]]:
        """Return the format for a call with arguments, and the arguments left for the answerers."""
        return self, arguments


class MessageFormat(AnswerFormat):
    """Answers as chat models give them: messages, possibly with tool calls."""

    def __init__(
        self,
        tools: Sequence[Tool] = (),
        settings: Mapping[str, Any] | None = None,
        models_own: Sequence[dict[str, Any]] = (),
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        """Set up the format.

        Args:
            tools: Tools to bind to every model.
            settings: Further arguments of `bind_tools`, such as `tool_choice`.
            models_own: Tools that the models already have, in OpenAI's format; used if `tools` is
                empty.
            fields: Settings of the answering models; see `with_answer_settings`.
        """
        self._bound = [as_given(tool) for tool in tools]
        self._settings, self._fields = settings or {}, fields or {}
        self.tools = tools_in_openai_format(tools) or models_own
        self.must_call = required_call(self._settings.get("tool_choice"))

    @override
    def answerers(self, models: Sequence[Runnable[Any, Any]]) -> Sequence[Runnable[Any, Any]]:
        answering = [with_answer_settings(model, self._fields) for model in models]
        if not self._bound:
            return answering
        return [self._with_tools(model, models) for model in answering]

    def _with_tools(
        self, model: Runnable[Any, Any], models: Sequence[Runnable[Any, Any]]
    ) -> Runnable[Any, Any]:
        foreign = settings_of_others(model, models)
        tools = strip_tools(self._bound, foreign)
        settings = strip_settings(self._settings, foreign)

        def bind(chat_model: Any) -> Runnable[Any, Any]:
            if not hasattr(chat_model, "bind_tools"):
                raise NotImplementedError(f"{type(chat_model).__name__} takes no tools.")
            bound: Runnable[Any, Any] = chat_model.bind_tools(tools, **settings)
            return bound

        return map_chat_models(model, bind, other=bind)
