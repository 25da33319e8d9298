"""The answer of one model, and how to read a chat model's output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage

from langchain_automix.errors import AutoMixError


@dataclass(frozen=True)
class ModelAnswer:
    """The message of one model, and the data read from it."""

    message: AIMessage
    payload: Any = None
    """Object that the caller gets instead of the message, such as a parsed one."""

    problem: str | None = None
    """Why the answer cannot be used, such as a schema that it does not fit."""


@dataclass(frozen=True)
class GivenUpDraft:
    """A draft whose stream was closed while it was being written."""

    tokens: int
    """Number of tokens received."""

    most: float
    """The highest score that the check could still have found, in [0, 1]."""


def read_message(output: Any, index: int) -> ModelAnswer:
    """Read the output of a chat model.

    Raises:
        AutoMixError: The output is not an AI message.
    """
    if not isinstance(output, AIMessage):
        raise AutoMixError(
            f"Model {index} returned {type(output).__name__}, not an AIMessage: the models of a "
            "mix are chat models; a parser goes after the mix."
        )
    return ModelAnswer(output)
