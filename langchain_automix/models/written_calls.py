"""Detect tool calls that a model writes as text instead of making them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from langchain_core.messages import AIMessage

_MAX_LENGTH = 100_000  # in characters
_NAMES = ("name", "function", "tool", "tool_name", "action")
_ARGUMENTS = ("arguments", "parameters", "args", "input", "tool_input", "action_input")
_BESIDE = frozenset({"type", "id", "call_id", "thought", "index"})
# What chat templates put before and after a call: Qwen and Hermes, Mistral, Llama, Phi.
_MARKS = {
    "<tool_call>": "</tool_call>",
    "<tool_calls>": "</tool_calls>",
    "<function_call>": "</function_call>",
    "[TOOL_CALLS]": "",
    "<|python_tag|>": "<|eom_id|>",
    "functools": "",
}
_PYTHON_CALL = re.compile(r"(?:^\[|\),)\s*([A-Za-z_]\w*)\((?=\)|\s*\w+\s*=)")


def written_call(message: AIMessage, known: Callable[[], Collection[str]]) -> str | None:
    """Return the name of the known tool that an answer calls only in its text, or None.

    Small models, and servers without a parser for their chat template, write a call as text. It
    counts only if the answer is nothing but a call, or ends with one after a chat template's mark.
    An answer that explains a call, or is some other JSON, is an ordinary answer.

    Args:
        message: The answer.
        known: Returns the names of the model's tools; called only if needed.
    """
    if message.tool_calls or message.invalid_tool_calls:
        return None
    text = str(message.text).strip()
    if not text or len(text) > _MAX_LENGTH:
        return None
    for body in _bodies(text):
        names = _json_names(body) or _python_names(body) or _react_names(body)
        if names and set(names) <= set(known()):
            return names[0]
    return None


def _bodies(text: str) -> Iterator[str]:
    """Yield the parts of a text that may be a call: all of it, and the text after each mark."""
    yield _unfenced(text)
    for mark, end in _MARKS.items():
        before, found, after = text.partition(mark)
        if found and (mark != "functools" or not before.strip()):
            yield _unfenced(after.strip().removesuffix(end).strip()) if end else after.strip()
    _, found, after = text.partition("<function=")  # Llama: <function=look>{"city": ...}</function>
    name, _, arguments = after.partition(">")
    if found and arguments.strip().removesuffix("</function>").strip().startswith("{"):
        yield json.dumps({"name": name.strip(), "arguments": {}})


def _unfenced(text: str) -> str:
    """Return the text inside a code fence, if the fence is all there is."""
    if not (text.startswith("```") and text.endswith("```") and text.count("```") == 2):  # noqa: PLR2004
        return text
    first, _, rest = text[3:-3].partition("\n")
    is_label = first.strip().lower() in {"", "json", "tool_call", "tool_code", "python", "xml"}
    return (rest if is_label else text[3:-3]).strip()


def _json_names(text: str) -> list[str]:
    """Return the names of the calls if a text consists of JSON calls, one or several in a row."""
    names: list[str] = []
    decoder, at = json.JSONDecoder(), 0
    if text[:1] not in ("{", "["):
        return []
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return []
        found = _called(value)
        if not found:
            return []
        names += found
        while at < len(text) and (text[at].isspace() or text[at] in ",;"):
            at += 1
    return names


def _called(value: Any) -> list[str]:
    """Return the names of the tools that a JSON value calls; none if it is anything else."""
    if isinstance(value, list):
        found = [_called(each) for each in value]
        return [name for names in found for name in names] if found and all(found) else []
    if not isinstance(value, Mapping):
        return []
    if set(value) <= {"tool_calls", "content", "role"} and value.get("tool_calls"):
        return _called(value["tool_calls"])
    if isinstance(value.get("function"), Mapping) and set(value) <= {"function", *_BESIDE}:
        return _called(value["function"])
    named = [key for key in _NAMES if isinstance(value.get(key), str)]
    given = [key for key in _ARGUMENTS if key in value]
    if len(named) != 1 or len(given) != 1 or not set(value) <= {*named, *given, *_BESIDE}:
        return []
    return [str(value[named[0]])] if _is_object(value[given[0]]) else []


def _is_object(arguments: Any) -> bool:
    if isinstance(arguments, str):
        return arguments.strip().startswith("{") and arguments.strip().endswith("}")
    return isinstance(arguments, Mapping)


def _python_names(text: str) -> list[str]:
    """Return the names of the calls in `[look(city="Turku")]`, the style of Llama 4."""
    return _PYTHON_CALL.findall(text) if text.startswith("[") and text.endswith(")]") else []


def _react_names(text: str) -> list[str]:
    """Return the name in `Action: look` and `Action Input: ...`, the last lines of a text."""
    before, found, given = text.rpartition("\nAction Input:")
    name = before.rpartition("\n")[2]
    if not found or not given.strip() or not name.startswith("Action:"):
        return []
    return [] if "\nObservation:" in given or "\nFinal Answer:" in given else [name[7:].strip()]
