"""Tool calls written as text: those are found, and answers that look a little like one are not."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from langchain_core.messages import AIMessage

from langchain_automix.models.written_calls import written_call

KNOWN = {"weather", "pay"}
ARGUMENTS = {"city": "Turku"}
CALL = json.dumps({"name": "weather", "arguments": ARGUMENTS})


@pytest.mark.parametrize(
    "text",
    [
        CALL,
        f"  {CALL}\n",
        f"```json\n{CALL}\n```",
        f"```\n{CALL}\n```",
        f"```tool_call\n{CALL}\n```",
        json.dumps({"name": "weather", "arguments": ARGUMENTS}, indent=2),
        json.dumps({"name": "weather", "parameters": ARGUMENTS}),  # Llama 3.1
        json.dumps({"name": "weather", "arguments": json.dumps(ARGUMENTS)}),
        json.dumps({"type": "function", "name": "weather", "parameters": {}}),
        json.dumps({"id": "c1", "type": "function", "function": json.loads(CALL)}),
        json.dumps({"function": "weather", "arguments": ARGUMENTS}),
        json.dumps({"tool": "weather", "tool_input": ARGUMENTS}),
        json.dumps({"action": "weather", "action_input": ARGUMENTS, "thought": "Look."}),
        json.dumps([json.loads(CALL), {"name": "pay", "arguments": {"amount": 3}}]),
        json.dumps({"tool_calls": [{"function": json.loads(CALL), "id": "c1"}]}),
        json.dumps({"content": None, "tool_calls": [json.loads(CALL)]}),
        f"{CALL}\n{CALL}",
        f"{CALL}; {CALL}",
        f"<tool_call>\n{CALL}\n</tool_call>",
        f"I will look it up.\n<tool_call>\n{CALL}\n</tool_call>",
        f"<tool_call>{CALL}",
        f"[TOOL_CALLS][{CALL}]",
        f"<|python_tag|>{CALL}<|eom_id|>",
        f"functools[{CALL}]",
        '<function=weather>{"city": "Turku"}</function>',
        '[weather(city="Turku")]',
        '[weather(city="Turku"), pay(amount=3)]',
        "[weather()]",
        "Thought: I need the weather.\nAction: weather\nAction Input: Turku",
    ],
)
def test_a_written_call(text: str) -> None:
    assert written_call(AIMessage(text), lambda: KNOWN) == "weather"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "It is sunny.",
        "I would call weather(city='Turku').",
        "weather",
        json.dumps({"name": "Turku", "arguments": ARGUMENTS}),
        json.dumps({"name": "weather", "city": "Turku"}),
        json.dumps({"name": "weather", "arguments": ARGUMENTS, "population": 3}),
        json.dumps({"name": "weather", "description": "Looks up.", "parameters": {"type": "x"}}),
        json.dumps({"name": "weather", "arguments": "none"}),
        json.dumps({"name": "weather", "arguments": [1]}),
        json.dumps({"tool": "weather", "name": "pay", "input": {}}),
        json.dumps({"city": "Turku", "degrees": 3}),
        json.dumps([json.loads(CALL), {"city": "Turku"}]),
        json.dumps([]),
        json.dumps([1, 2]),
        "{",
        "[",
        f"You can call the tool so:\n```json\n{CALL}\n```\nThen read the result.",
        f"You can call the tool so:\n```json\n{CALL}\n```",
        f"{CALL} is how a call looks.",
        f"```json\n{CALL}\n```\nor\n```json\n{CALL}\n```",
        "<tool_call> is how Qwen begins a call.",
        "Write <function=weather> to call it.",
        "[weather(Turku)]",
        "[weather] (see above)",
        "[the weather (of Turku)]",
        "Action: weather\nAction Input: Turku\nObservation: Sun.\nFinal Answer: Sun.",
        "Action: none\nAction Input: -",
        "My functools: [map]",
    ],
)
def test_an_answer(text: str) -> None:
    assert written_call(AIMessage(text), lambda: KNOWN) is None


@pytest.mark.parametrize(
    "content",
    [[{"type": "text", "text": CALL}], [{"type": "reasoning", "reasoning": "x"}, CALL]],
)
def test_in_content_blocks(content: Any) -> None:
    assert written_call(AIMessage(content), lambda: KNOWN) == "weather"


def test_beside_a_real_call_or_without_tools() -> None:
    made = {"name": "weather", "args": ARGUMENTS, "id": "c1"}
    assert written_call(AIMessage(CALL, tool_calls=[made]), lambda: KNOWN) is None
    assert written_call(AIMessage(CALL), set) is None


@pytest.mark.parametrize(
    "text",
    [
        "[" * 90_000,
        '{"a":' * 15_000,
        "[weather(" * 9_000 + ")]",
        "<tool_call>" * 8_000,
        "\n" * 90_000,
    ],
)
def test_hostile_text_is_read_at_once(text: str) -> None:
    started = time.thread_time()  # of this thread's own work, however busy the machine is
    assert written_call(AIMessage(text), lambda: KNOWN) is None
    assert time.thread_time() - started < 2
