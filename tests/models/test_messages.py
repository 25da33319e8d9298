"""Answers as the text that a check reads."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain_core.messages import AIMessage, ToolMessage

from langchain_automix.models.messages import answer_text
from langchain_automix.verifiers.inputs import check_context


def calling(args: dict[str, Any]) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": "look", "args": args, "id": "1"}])


@pytest.mark.parametrize("city", ["مدينة", "北京", "Åbo", "🚢", 'a "quoted" \\ one', "a\nb"])
def test_tool_arguments_are_read_as_they_were_written(city: str) -> None:
    written = answer_text(calling({"city": city}))
    assert written == f"[calls look with {json.dumps({'city': city}, ensure_ascii=False)}]"
    context = check_context(
        {
            "question": "q",
            "answer": "a",
            "messages": [calling({"city": city}), ToolMessage("", tool_call_id="1")],
        }
    )
    assert written in str(context.conversation)


def test_half_a_surrogate_pair_goes_into_a_request() -> None:
    written = answer_text(calling({"\udcff": "Å\ud83d"}))
    assert written == r'[calls look with {"\udcff": "Å\ud83d"}]'
    written.encode()
