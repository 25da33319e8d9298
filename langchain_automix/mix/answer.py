"""What one model gave, and how a chat model's output is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage

from langchain_automix.errors import AutoMixError


@dataclass(frozen=True)
class ModelAnswer:
    """What one model gave: its message, and what was made of it."""

    message: AIMessage
    payload: Any = None
    """What the caller gets in the message's place, such as a parsed object."""

    problem: str | None = None
    """Why it cannot be used, such as a schema that it does not fit."""


def read_message(output: Any, index: int) -> ModelAnswer:
    """Read what a chat model returns.

    Raises:
        AutoMixError: It is no message of an AI.
    """
    if not isinstance(output, AIMessage):
        raise AutoMixError(
            f"Model {index} returned {type(output).__name__}, not an AIMessage: the models of a "
            "mix are chat models; a parser goes after the mix."
        )
    return ModelAnswer(output)
