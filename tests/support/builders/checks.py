"""Checks for tests of several of them: free ones with a fixed outcome, and inputs for them."""

from __future__ import annotations

from typing import Any

from langchain_core.runnables import RunnableLambda

from langchain_automix import Verification

HALCYON: Any = {
    "context": "The ferry Halcyon was built in Turku in 1931.",
    "question": "Where was the Halcyon built?",
    "answer": "Turku",
}


def asked(**changes: Any) -> Any:
    return {**HALCYON, **changes}


def finding(**fields: Any) -> RunnableLambda[Any, Verification]:
    """A check that always finds the same, and tells in `replies` what it was asked."""
    return RunnableLambda(lambda given: Verification(**fields, replies=(str(sorted(given)),)))


def failing(error: Exception) -> RunnableLambda[Any, Any]:
    def fail(given: Any) -> Any:
        raise error

    return RunnableLambda(fail)
