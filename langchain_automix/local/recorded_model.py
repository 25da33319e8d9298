"""`RecordedChatModel`: the demo's replay, without a provider's package and without HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, BaseMessage, convert_to_openai_messages
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import ConfigDict, Field
from typing_extensions import override

from langchain_automix.errors import AutoMixError
from langchain_automix.local.recording import NOT_RECORDED, Replay

_PATH = "/v1/chat/completions"


class RecordedChatModel(BaseChatModel):
    """Replays the recorded answers of a `ChatOpenAI` model.

    It supports the fields in which the demo's calls differ. Recorded tools, formats and streams are
    replayed by `open_replay`, which needs langchain-openai.
    """

    model: str
    """Name of the recorded model."""

    replay: Replay = Field(exclude=True, repr=False)
    """Holds the recorded answers."""

    temperature: float = 0.0
    seed: int | None = None
    n: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None

    model_config = ConfigDict(arbitrary_types_allowed=True)

    @property
    @override
    def _llm_type(self) -> str:
        return "recorded-chat"

    @override
    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        # The same as for the recorded model, since a check's fingerprint contains both.
        params = super()._get_ls_params(stop=stop, **kwargs)
        return {**params, "ls_provider": "openai", "ls_model_name": self.model}

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call = self.replay.find(_PATH, self._body(messages))
        if call is None:
            raise AutoMixError(NOT_RECORDED)
        response = call["response"]
        usage = _usage(response["usage"])
        generations = [
            ChatGeneration(message=self._message(choice, usage)) for choice in response["choices"]
        ]
        output = {"token_usage": response["usage"], "model_name": self.model}
        return ChatResult(generations=generations, llm_output=output)

    def _body(self, messages: Sequence[BaseMessage]) -> dict[str, Any]:
        return {
            "model": self.model,
            "messages": convert_to_openai_messages(messages),
            "temperature": self.temperature,
            "seed": self.seed,
            "n": self.n,
        }

    def _message(self, choice: dict[str, Any], usage: UsageMetadata) -> AIMessage:
        metadata = {"finish_reason": choice["finish_reason"], "model_name": self.model}
        if self.logprobs:
            metadata["logprobs"] = choice.get("logprobs")
        return AIMessage(
            content=choice["message"]["content"] or "",
            response_metadata=metadata,
            usage_metadata=usage,
        )


def _usage(usage: dict[str, Any]) -> UsageMetadata:
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    return UsageMetadata(
        input_tokens=usage["prompt_tokens"],
        output_tokens=usage["completion_tokens"],
        total_tokens=usage["total_tokens"],
        input_token_details={"cache_read": cached},
    )
