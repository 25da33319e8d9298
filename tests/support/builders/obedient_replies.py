"""A script that does as it is asked: calls the tool, fits the schema, or says something."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.support.builders.scripted_replies import (
    Body,
    Reply,
    Script,
    call,
    is_check,
    judging,
    text_of,
)

_FORMATS = {
    "date": "2024-02-29",
    "date-time": "2024-02-29T12:00:00Z",
    "email": "some@example.com",
    "time": "12:00:00Z",
    "uri": "https://example.com",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_DEEPEST = 8  # where a schema that names itself is given no more members


def obliging(text: str = "{model} is glad to help.", verdicts: str = "a") -> Script:
    """A provider good enough for LangChain's standard tests.

    Tools are called until the last message is a tool's result, or for as long as `tool_choice`
    demands a call. Otherwise JSON where `response_format` says so, and the text where not.
    """
    judge = judging(verdicts)

    def reply(body: Body) -> Reply:
        asked = _Asked(body)
        tool = _tool(body)
        if tool:
            return call(tool["name"], **asked.fit(tool.get("parameters") or {}))
        wanted = body.get("response_format") or {"type": "text"}
        if wanted["type"] == "json_schema":
            return json.dumps(asked.fit(wanted["json_schema"]["schema"]), ensure_ascii=False)
        if wanted["type"] == "json_object":  # its keys can only be known from the prompt
            keys = asked.quoted or ["answer"]
            return json.dumps({key: f"some {key}" for key in keys}, ensure_ascii=False)
        return text.replace("{model}", body["model"])

    def script(body: Body) -> list[Reply]:
        if is_check(body):
            return list(judge(body))
        return [reply(body) for _ in range(body.get("n") or 1)]

    return script


def _tool(body: Body) -> dict[str, Any] | None:
    choice = body.get("tool_choice") or "auto"
    tools: dict[str, dict[str, Any]] = {
        tool["function"]["name"]: tool["function"] for tool in body.get("tools") or ()
    }
    if not tools or choice == "none":
        return None
    if isinstance(choice, dict):
        return tools[choice["function"]["name"]]
    if body["messages"][-1]["role"] != "tool":
        return next(iter(tools.values()))
    if choice == "auto":
        return None
    # An agent that must call something ends with its answer tool, which stands last.
    called = {
        tool_call["function"]["name"]
        for message in body["messages"]
        for tool_call in message.get("tool_calls") or ()
    }
    return next((tools[name] for name in tools if name not in called), [*tools.values()][-1])


class _Asked:
    """Values from the last words of the user: numbers and quoted words, in their order."""

    def __init__(self, body: Body) -> None:
        said = [message for message in body["messages"] if message["role"] == "user"]
        text = text_of(said[-1].get("content")) if said else ""
        # An apostrophe inside a word opens no quotation.
        found = re.findall(r"(?<!\w)'([^']+)'(?!\w)|\"([^\"]+)\"|“([^”]+)”", text)
        self.quoted = ["".join(groups) for groups in found]
        self._words = list(self.quoted)
        self._numbers = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", text)]
        self._defs: dict[str, Any] = {}

    def fit(self, schema: dict[str, Any]) -> dict[str, Any]:
        self._defs = {**schema.get("$defs", {}), **schema.get("definitions", {})}
        return self._object(schema, 0)

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        """Only what is required: a model may leave out the rest, and some do."""
        properties = schema.get("properties", {})
        return {
            name: self._value(name, properties.get(name, {}), depth + 1)
            for name in schema.get("required", ())
        }

    def _value(self, name: str, schema: dict[str, Any], depth: int) -> Any:
        schema = self._plain(schema)
        if "const" in schema or "enum" in schema:
            return schema["const"] if "const" in schema else schema["enum"][0]
        kind = schema.get("type", "object" if "properties" in schema else "string")
        match kind:
            case "object":
                value: Any = self._object(schema, depth)
            case "array":
                least = max(schema.get("minItems", 0), depth < _DEEPEST)
                items = schema.get("items", {})
                value = [self._value(name, items, depth + 1) for _ in range(least)]
            case "integer" | "number":
                value = self._number(schema, whole=kind == "integer")
            case "boolean" | "null":
                value = True if kind == "boolean" else None
            case _:
                value = self._string(name, schema)
        return value

    def _plain(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Without references, and with the first of its alternatives that says something."""
        while "$ref" in schema:
            rest = {key: schema[key] for key in schema if key != "$ref"}
            schema = {**self._defs[schema["$ref"].rpartition("/")[2]], **rest}
        for key in ("anyOf", "oneOf", "allOf"):
            if schema.get(key):
                ways = [way for way in schema[key] if way.get("type") != "null"]
                return self._plain(ways[0] if ways else {"type": "null"})
        if isinstance(schema.get("type"), list):
            kinds = [kind for kind in schema["type"] if kind != "null"]
            return {**schema, "type": kinds[0] if kinds else "null"}
        return schema

    def _number(self, schema: dict[str, Any], *, whole: bool) -> float:
        value = _next(self._numbers, 3.0)
        least = schema.get("minimum", schema.get("exclusiveMinimum", value - 1) + 1)
        most = schema.get("maximum", schema.get("exclusiveMaximum", value + 1) - 1)
        value = min(max(value, least), most)
        return int(value) if whole else value

    def _string(self, name: str, schema: dict[str, Any]) -> str:
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        text: str = _next(self._words, f"some {name}")
        return text.ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength")]


def _next(values: list[Any], otherwise: Any) -> Any:
    """Each value once, and the last of them for whatever is asked after it."""
    if not values:
        return otherwise
    return values.pop(0) if len(values) > 1 else values[0]
