"""Recorded answers as streams, token by token: what a draft looked like while it was written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk
from typing_extensions import override

from langchain_automix.local.recorded_model import RecordedChatModel


class TokenByToken(RecordedChatModel):
    """Streams a recorded answer by its recorded tokens."""

    def logprobs_of(self, messages: list[BaseMessage]) -> list[float]:
        """Return the log-probabilities of a recorded answer's tokens."""
        asked = self.model_copy(update={"logprobs": True})
        [generation] = asked._generate(messages).generations
        entries = generation.message.response_metadata["logprobs"]["content"]
        return [entry["logprob"] for entry in entries]

    @override
    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        whole: Any = self._generate(messages, stop, run_manager, **kwargs).generations[0].message
        metadata = dict(whole.response_metadata)
        entries = (metadata.pop("logprobs") or {}).get("content") or []
        assert "".join(entry["token"] for entry in entries) == whole.content
        for entry in entries:
            logprobs = {"logprobs": {"content": [entry], "refusal": None}}
            chunk = AIMessageChunk(content=entry["token"], response_metadata=logprobs)
            yield ChatGenerationChunk(message=chunk)
        end = AIMessageChunk(
            content="", usage_metadata=whole.usage_metadata, response_metadata=metadata
        )
        yield ChatGenerationChunk(message=end)
