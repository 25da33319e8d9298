"""What a reply says of its tokens."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage

from langchain_automix.models.usage import to_model_call

TOLD = {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}


@pytest.mark.parametrize(
    "wrong",
    [
        {"input_tokens": -5},
        {"output_tokens": -2},
        {"input_token_details": {"cache_read": -1}},
        {"output_token_details": {"reasoning": -1}},
    ],
)
def test_fewer_tokens_than_none_are_unknown(wrong: dict[str, Any]) -> None:
    replies = [AIMessage("a", usage_metadata={**TOLD, **each}) for each in ({}, wrong)]
    assert to_model_call(replies[:1]).usage == TOLD
    assert to_model_call(replies[1:]).usage is None
    assert to_model_call(replies).usage is None  # a part of the whole
