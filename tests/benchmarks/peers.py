"""What else a LangChain user can put in place of a mix of two models."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from langchain_core.language_models import BaseChatModel

WITHOUT = "cascadeflow is not installed (pip install --group peers); its rows are left out."


def cascadeflow(small: BaseChatModel, large: BaseChatModel) -> dict[str, Any]:
    """Return cascadeflow's chat model as it is by default, and in its leanest form; empty without.

    It reads the mean log-probability of the draft's tokens. By default, it judges by the words of
    the question beforehand whether to ask the small model at all.
    """
    if find_spec("cascadeflow") is None:
        return {}
    cascade = import_module("cascadeflow.langchain").CascadeFlow
    drafter = small.model_copy(update={"logprobs": True})
    lean = {"enable_pre_router": False, "enable_cost_tracking": False}
    return {
        "cascadeflow": cascade(drafter=drafter, verifier=large),
        "cascadeflow, no pre-router, no costs": cascade(drafter=drafter, verifier=large, **lean),
    }


def fallbacks(small: BaseChatModel, large: BaseChatModel) -> Any:
    """Return LangChain's own: the large model answers where the small one raises."""
    return small.model_copy(update={"fails": True}).with_fallbacks([large])
