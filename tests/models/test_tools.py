"""Checks that cost nothing: what makes a tool call impossible to carry out."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, Literal

import pytest
from langchain_core.messages import AIMessage
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from langchain_automix.models.tools import (
    parsing_problem,
    provider_calls,
    required_call,
    schema_problem,
    tool_call_problem,
    tools_in_openai_format,
)
from tests.support.builders.no_warnings import no_warnings


def book(berth: int, side: Literal["port", "starboard"] = "port") -> str:
    """Book a berth."""
    return f"{berth} {side}"


def ships() -> str:
    """List the ships."""
    return ""


TOOLS = tools_in_openai_format([book, ships])


SLOW = "^(a|aa)+$"
LETTERS = "a" * 60 + "!"
DOUBLING = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(60)}
DRAFT = "https://json-schema.org/draft/2020-12/schema"
TOO_COSTLY: dict[str, tuple[Any, dict[str, Any]]] = {
    "a pattern": ({"a": LETTERS}, {"properties": {"a": {"pattern": SLOW}}}),
    "a pattern of names": ({LETTERS: 1}, {"patternProperties": {SLOW: {"type": "string"}}}),
    "other names": ({LETTERS: 1}, {"patternProperties": {SLOW: {}}, "additionalProperties": False}),
    "unevaluated names": (
        {LETTERS: 1},
        {"allOf": [{"patternProperties": {SLOW: {}}}], "unevaluatedProperties": False},
    ),
    "definitions": (1, {"$defs": {**DOUBLING, "d60": {"type": "string"}}, "$ref": "#/$defs/d0"}),
    "a draft of its own": (
        {"a": LETTERS},
        {"properties": {"a": {"$schema": DRAFT, "pattern": SLOW}}},
    ),
    "the draft of the whole": (
        {"a": {"b": LETTERS}},
        {
            "$schema": DRAFT,
            "properties": {"a": {"$ref": "#"}, "b": {"pattern": SLOW}},
        },
    ),
}
"""Values and schemas; with `re` and without a limit, each takes longer than a test may."""


def calling(*calls: tuple[str, dict[str, Any]], invalid: tuple[str | None, str] = ("", "")) -> Any:
    made = [
        {"name": name, "args": args, "id": str(i), "type": "tool_call"}
        for i, (name, args) in enumerate(calls)
    ]
    name, args = invalid
    broken = {"name": name, "args": args, "id": "x", "error": None, "type": "invalid_tool_call"}
    message: Any = {"tool_calls": made, "invalid_tool_calls": [broken] if args else []}
    return AIMessage("", **message)


class TestToolCalls:
    @pytest.mark.parametrize(
        "message",
        [
            AIMessage("No tool is needed."),
            calling(("book", {"berth": 5})),
            calling(("book", {"berth": 5, "side": "starboard"}), ("ships", {})),
        ],
    )
    def test_what_can_be_carried_out(self, message: AIMessage) -> None:
        assert tool_call_problem(message, TOOLS) is None

    @pytest.mark.parametrize(
        ("message", "problem"),
        [
            (
                calling(invalid=("book", '{"berth": ')),
                "the answer calls 'book' with arguments that are not JSON",
            ),
            (
                calling(invalid=(None, "{")),
                "the answer calls a tool with arguments that are not JSON",
            ),
            (
                calling(("ships", {}), ("sink", {})),
                "the answer calls no known tool (known: 'book', 'ships')",
            ),
            (
                calling(("book", {})),
                "the answer calls 'book' with arguments that do not fit its schema: "
                "'berth' is a required property",
            ),
            (
                calling(("book", {"berth": "five"})),
                "the answer calls 'book' with arguments that do not fit its schema: "
                "berth: not as its schema says (type: integer)",
            ),
            (
                calling(("book", {"berth": 5, "side": "aft"})),
                "the answer calls 'book' with arguments that do not fit its schema: "
                "side: not as its schema says (enum: ['port', 'starboard'])",
            ),
        ],
    )
    def test_what_cannot_is_said(self, message: AIMessage, problem: str) -> None:
        assert tool_call_problem(message, TOOLS) == problem

    def test_without_tools_nothing_is_known_of_them(self) -> None:
        assert tool_call_problem(calling(("sink", {})), []) is None
        assert tool_call_problem(calling(invalid=("sink", "{")), []) is not None

    @pytest.mark.parametrize("must_call", [True, "any", "required"])
    def test_some_call_can_be_demanded(self, must_call: Any) -> None:
        said = tool_call_problem(AIMessage("Later."), TOOLS, must_call=must_call)
        assert said == "the answer calls no tool, as it must"
        assert tool_call_problem(calling(("ships", {})), TOOLS, must_call=must_call) is None

    def test_one_tool_can_be_demanded(self) -> None:
        said = tool_call_problem(calling(("ships", {})), TOOLS, must_call="book")
        assert said == "the answer does not call 'book', as it must"
        called = calling(("ships", {}), ("book", {"berth": 1}))
        assert tool_call_problem(called, TOOLS, must_call="book") is None
        tool = {"type": "function", "function": {"name": "any"}}
        assert tool_call_problem(calling(("any", {})), [tool], must_call="any") is None

    @pytest.mark.parametrize(
        ("choice", "must_call"),
        [
            (None, False),
            ("auto", "auto"),
            ("web_search", "web_search"),
            (["book", "ships"], True),
            ([], False),
            ({"type": "auto"}, "auto"),
            ({"type": "any"}, "any"),
            ({"type": "tool", "name": "book"}, "book"),
            ({"type": "function", "function": {"name": "book"}}, "book"),
            ({"type": "function", "name": "book"}, "book"),
            ({"type": "custom", "custom": {"name": "book"}}, "book"),
            ({"type": "web_search_preview"}, "web_search_preview"),
            ({"type": "allowed_tools", "mode": "auto", "tools": [{"name": "book"}]}, False),
            ({"type": "allowed_tools", "mode": "required", "tools": []}, "required"),
            ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}, False),
            ({"type": "allowed_tools", "allowed_tools": {"mode": "required"}}, "required"),
            ({"auto": {}}, "auto"),
            ({"any": {}}, "any"),
            ({"tool": {"name": "book"}}, "book"),
            ({"function_calling_config": {"mode": "ANY"}}, "any"),
            ({"function_calling_config": {"mode": "AUTO"}}, False),
        ],
        ids=str,
    )
    def test_any_providers_choice(self, choice: Any, must_call: Any) -> None:
        assert required_call(choice) == must_call

    @pytest.mark.parametrize(
        "message",
        [
            AIMessage([{"type": "web_search_call", "id": "w", "status": "completed"}]),
            AIMessage("So.", additional_kwargs={"tool_outputs": [{"type": "web_search_call"}]}),
            AIMessage([{"type": "server_tool_use", "name": "web_search", "id": "s", "input": {}}]),
            AIMessage([{"type": "server_tool_call", "name": "web_search", "id": "s", "args": {}}]),
            AIMessage([{"type": "text", "text": "So.", "annotations": [{"url": "a"}]}]),
            AIMessage("So.", additional_kwargs={"annotations": [{"type": "url_citation"}]}),
            AIMessage(
                "So.", additional_kwargs={"provider_specific_fields": {"citations": [["a"]]}}
            ),
        ],
    )
    @pytest.mark.parametrize("name", ["web_search", "web_search_preview", "web_search_20250305"])
    def test_a_call_that_the_provider_ran(self, message: AIMessage, name: str) -> None:
        own = tools_in_openai_format([{"type": "web_search_20250305", "name": name}, book])
        for must_call in (name, "required", True):
            assert tool_call_problem(message, own, must_call=must_call) is None
        assert tool_call_problem(message, own, must_call="book") is not None
        # Without a name of its own, it is not among the tools.
        assert tool_call_problem(message, TOOLS, must_call=name) is None

    def test_gemini_tells_of_a_search(self) -> None:
        found = {"grounding_metadata": {"web_search_queries": ["ships"]}}
        message = AIMessage("So.", response_metadata=found)
        assert tool_call_problem(message, TOOLS, must_call="any") is None
        assert tool_call_problem(message, TOOLS, must_call="google_search") is None

    def test_the_callers_own_calls_are_not_the_providers(self) -> None:
        blocks: Any = [{"type": "function_call", "name": "f"}, {"type": "reasoning"}, "So."]
        assert provider_calls(AIMessage(blocks)) == []

    @pytest.mark.parametrize("must_call", [False, "auto", "none"])
    def test_or_none(self, must_call: Any) -> None:
        assert tool_call_problem(AIMessage("No."), TOOLS, must_call=must_call) is None


class TestSchemas:
    def test_a_field_deep_inside_is_named(self) -> None:
        number = {"type": "integer"}
        schema = {"properties": {"ships": {"items": {"properties": {"berth": number}}}}}
        value = {"ships": [{"berth": 1}, {"berth": "x"}]}
        assert (
            schema_problem(value, schema) == "ships.1.berth: not as its schema says (type: integer)"
        )

    @pytest.mark.parametrize(
        "schema",
        [
            {"additionalProperties": {"type": "integer"}},
            {"patternProperties": {"^T": {"type": "integer"}}},
            {"propertyNames": {"maxLength": 3}},
            {"additionalProperties": False, "properties": {"a": {}}},
        ],
    )
    def test_a_name_of_the_values_own_is_not_quoted(self, schema: Any) -> None:
        said = schema_problem({"Turku": "x"}, schema)
        assert said is not None
        assert "Turku" not in said

    def test_what_pydantic_finds_is_told_without_quoting(self) -> None:
        class Ship(BaseModel):
            model_config = ConfigDict(extra="forbid")
            name: str = ""
            sizes: dict[str, int] = {}

            @field_validator("name")
            @classmethod
            def _known(cls, name: str) -> str:
                raise ValueError(f"no ship is called {name}")

        wrong = {"name": "Halcyon", "sizes": {"Turku": "x"}, "port": 1}
        for part, told in (("name", "name: "), ("sizes", "sizes.")):
            with pytest.raises(ValidationError) as caught:
                Ship.model_validate({part: wrong[part], "Oulu": 1})
            said = parsing_problem(caught.value, Ship.model_json_schema())
            assert told in said
            assert not any(word in said for word in ("Halcyon", "Turku", "Oulu"))

    def test_definitions_inside_are_followed(self) -> None:
        schema = {"properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "integer"}}}
        assert schema_problem({"a": "x"}, schema) == "a: not as its schema says (type: integer)"

    @pytest.mark.parametrize(
        "schema",
        [
            None,
            {},
            {"type": "no such type"},
            {"properties": {"a": {"pattern": "("}}},
            {"properties": {"a": {"$ref": "#/$defs/nowhere"}}},
            {"properties": 5},
            {"$ref": "#"},
        ],
    )
    def test_a_schema_that_is_wrong_itself_says_nothing(self, schema: Any) -> None:
        assert schema_problem({"a": "x"}, schema) is None

    def test_a_schema_elsewhere_is_never_fetched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[Any] = []
        monkeypatch.setattr("urllib.request.urlopen", lambda *args, **_: asked.append(args))
        schema = {"properties": {"a": {"$ref": "http://127.0.0.1:9/schema.json"}}}
        with no_warnings():
            assert schema_problem({"a": "x"}, schema) is None
        assert not asked

    @pytest.mark.parametrize("name", TOO_COSTLY)
    def test_what_would_practically_never_end_says_nothing(self, name: str) -> None:
        value, schema = TOO_COSTLY[name]
        assert schema_problem(value, schema) is None

    def test_patterns_say_what_fits(self) -> None:
        schema = {
            "properties": {"a": {"pattern": "^[a-z]+$"}},
            "patternProperties": {"^n_": {"type": "integer"}},
            "additionalProperties": False,
        }
        assert schema_problem({"a": "x", "n_1": 1}, schema) is None
        assert schema_problem({"a": "X"}, schema) == "a: not as its schema says (pattern: ^[a-z]+$)"
        assert "type: integer" in (schema_problem({"n_1": "x"}, schema) or "")
        assert "additionalProperties" in (schema_problem({"b": 1}, schema) or "")

    def test_a_long_list_is_compared_whole(self) -> None:
        schema = {"items": {"properties": {"a": {"type": "integer", "minimum": 0}}}}
        assert schema_problem([{"a": 1}] * 5_000 + [{"a": -1}], schema) is not None

    def test_a_long_value_is_not_repeated_whole(self) -> None:
        said = schema_problem({"a": "x" * 5000}, {"properties": {"a": {"type": "integer"}}})
        assert said is not None
        assert len(said) < 250

    def test_the_library_is_imported_only_where_it_is_needed(self) -> None:
        code = (
            "import sys, langchain_automix as a; a.SelfVerifier, a.AutoMixRunnable;"
            "import langchain_automix.models.tools; assert 'jsonschema' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True)
