"""Tools in OpenAI's format, and whether a call or a value fits its schema."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ValidationError

from langchain_automix.models.wrappers import unwrap

_ANY_TOOL = ("any", "required")
_SEARCH = "web_search"
# Message blocks of calls that the provider ran: LangChain's own, Anthropic's, Gemini's.
_PROVIDER_CALL_BLOCKS = {
    "server_tool_call": "",
    "server_tool_use": "",
    "mcp_tool_use": "mcp",
    "executable_code": "code_execution",
}
# Message blocks of calls that the caller runs.
_OWN_CALL_BLOCKS = frozenset(
    {"tool_call", "invalid_tool_call", "function_call", "custom_tool_call", "non_standard_call"}
)
# What Gemini found with its own tools.
_SEARCH_METADATA = {
    "grounding_metadata": "google_search",
    "url_context_metadata": "url_context",
}
# What OpenAI's search models and LiteLLM report about a search.
_SEARCH_FIELDS = ("annotations", "web_search_results", "citations")
_MAX_LENGTH = 200
_HIDDEN_NAME = "..."  # replaces a name from the value, which must not be quoted

# Error types whose messages may quote the value, with safe messages instead.
_SAFE_MESSAGES = {
    "assertion_error": "a validator refuses it",
    "union_tag_invalid": "its tag is none of those known",
    "value_error": "a validator refuses it",
}


class FormattedTool(dict[str, Any]):
    """A tool in OpenAI's format, along with the tool it was made from.

    This format cannot hold everything that a tool may have, such as `cache_control` or `extras`. A
    client is therefore given the original tool (`as_given`).
    """

    given: Any
    """The tool as the user gave it."""

    def __init__(self, formatted: Mapping[str, Any], given: Any) -> None:
        super().__init__(formatted)
        self.given = given

    def __reduce__(self) -> Any:
        return dict, (dict(self),)  # the tool may be a function that cannot be pickled


def as_given(tool: Any) -> Any:
    """Return a tool as the user gave it."""
    return tool.given if isinstance(tool, FormattedTool) else tool


def tool_call_problem(
    message: AIMessage, tools: Sequence[Mapping[str, Any]], *, must_call: bool | str = False
) -> str | None:
    """Say what is wrong with the tool calls of an answer, or return None if nothing is.

    Only certain faults count: arguments that are not JSON, an unknown tool, arguments that do not
    fit the tool's schema, a missing call. Text that the answer made up, such as the name of a tool,
    is not quoted, since the answer may be rejected.

    Args:
        message: The answer.
        tools: The model's tools, in OpenAI's format. If empty, they are unknown, and only arguments
            that are not JSON are found.
        must_call: The required call, as in `tool_choice`: True, `any` or `required` for any tool,
            or the name of a tool.
    """
    schemas = {name: parameters for name, _, parameters in map(tool_parts, tools)}
    for invalid in message.invalid_tool_calls:
        named = repr(invalid["name"]) if invalid["name"] in schemas else "a tool"
        return f"the answer calls {named} with arguments that are not JSON"
    called = [*(call["name"] for call in message.tool_calls), *provider_calls(message)]
    if (missing := _missing_call(called, must_call, schemas)) is not None:
        return missing
    if not schemas:
        return None
    for call in message.tool_calls:
        name = call["name"]
        if name not in schemas:
            known = ", ".join(map(repr, schemas))
            return f"the answer calls no known tool (known: {known})"
        if (misfit := schema_problem(call["args"], schemas[name])) is not None:
            return f"the answer calls {name!r} with arguments that do not fit its schema: {misfit}"
    return None


def _missing_call(
    called: Sequence[str], must_call: bool | str, known: Mapping[str, Any]
) -> str | None:
    if isinstance(must_call, str) and (must_call in known or must_call not in _ANY_TOOL):
        # An unknown tool runs at the provider, and may leave no trace in the message.
        if must_call not in known or _plain_name(must_call) in map(_plain_name, called):
            return None
        return f"the answer does not call {must_call!r}, as it must"
    return "the answer calls no tool, as it must" if must_call and not called else None


def required_call(tool_choice: Any) -> bool | str:
    """Return the call that any provider's tool choice requires: whether any, or of which tool."""
    if isinstance(tool_choice, list | tuple):  # Gemini: one of these
        return bool(tool_choice)
    if not isinstance(tool_choice, Mapping):
        return tool_choice or False
    if tool_choice.get("type") == "allowed_tools":  # OpenAI: tools that may be called, not must
        inner = tool_choice.get("allowed_tools")
        allowed = inner if isinstance(inner, Mapping) else tool_choice
        return "required" if allowed.get("mode") == "required" else False
    if isinstance(config := tool_choice.get("function_calling_config"), Mapping):  # Gemini
        return "any" if str(config.get("mode")).upper() == "ANY" else False
    for kind in ("auto", "any", "none"):  # Bedrock
        if kind in tool_choice:
            return kind
    inner = tool_choice.get("function") or tool_choice.get("tool") or tool_choice.get("custom")
    spec = inner if isinstance(inner, Mapping) else tool_choice
    return str(spec.get("name") or tool_choice.get("type") or "")


def provider_calls(message: AIMessage) -> list[str]:
    """Return the names of the tools that the provider itself ran for an answer."""
    named: list[str] = []
    outputs = message.additional_kwargs.get("tool_outputs") or ()  # langchain-openai, version 0
    for block in (*message.content, *outputs):
        if not isinstance(block, Mapping):
            continue
        kind = str(block.get("type"))
        if kind in _PROVIDER_CALL_BLOCKS:
            named.append(str(block.get("name") or _PROVIDER_CALL_BLOCKS[kind]))
        elif kind.endswith("_call") and kind not in _OWN_CALL_BLOCKS:  # from the Responses API
            named.append(kind.removesuffix("_call"))
        elif block.get("annotations"):
            named.append(_SEARCH)
    named += [name for key, name in _SEARCH_METADATA.items() if message.response_metadata.get(key)]
    fields = message.additional_kwargs.get("provider_specific_fields")  # LiteLLM
    found = {**message.additional_kwargs, **(fields if isinstance(fields, Mapping) else {})}
    return named + [_SEARCH for key in _SEARCH_FIELDS if found.get(key)]


def _plain_name(name: str) -> str:
    """Return a tool's name without its version: `web_search_20250305`, `web_search_preview`."""
    return re.sub(r"(_preview)?(_\d{4}_?\d{2}_?\d{2})?$", "", name)


def tool_parts(tool: Mapping[str, Any]) -> tuple[str, str, Mapping[str, Any] | None]:
    """Return a tool's name, its description, and the schema of its arguments, if any."""
    function = tool.get("function")
    spec: Mapping[str, Any] = function if isinstance(function, Mapping) else tool
    parameters = spec.get("parameters")
    schema = parameters if isinstance(parameters, Mapping) else None
    return str(spec.get("name", "")), str(spec.get("description") or ""), schema


def schema_problem(value: Any, schema: Mapping[str, Any] | None) -> str | None:
    """Say where and how a value does not fit a JSON schema, or return None if it fits.

    The value is not quoted, since it may come from a rejected draft. Everything fits a schema that
    is invalid, refers to another one (schemas are never fetched), or takes too long to compare.
    """
    try:
        return schema_misfit(value, schema) if schema else None
    except Exception:  # noqa: BLE001  (an unknown reference, a bad pattern, ...)
        return None


def schema_misfit(value: Any, schema: Mapping[str, Any]) -> str | None:
    """Say where and how a value does not fit a JSON schema, without quoting the value.

    Raises:
        Exception: The schema is invalid, refers to another one, or takes too long to compare; the
            type of the error varies.
    """
    # Imported here, since only a mix with tools needs them.
    from jsonschema.exceptions import best_match  # noqa: PLC0415

    from langchain_automix.models.json_schema import schema_errors  # noqa: PLC0415

    error = best_match(schema_errors(value, schema))
    if error is None:
        return None
    rule = f"{error.validator}: {error.validator_value}"
    text = error.message if error.validator == "required" else f"not as its schema says ({rule})"
    text = text if len(text) <= _MAX_LENGTH else f"{text[:_MAX_LENGTH]}..."
    field = ".".join(_known_names(error.absolute_path, schema))
    return f"{field}: {text}" if field else text


def _known_names(path: Iterable[str | int], schema: Any) -> Iterator[str]:
    """Yield the parts of a path, hiding names that are not in the schema."""
    known = set(_property_names(schema))
    for part in path:
        yield str(part) if isinstance(part, int) or part in known else _HIDDEN_NAME


def _property_names(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        if isinstance(properties := schema.get("properties"), Mapping):
            yield from properties
        for part in schema.values():
            yield from _property_names(part)
    elif isinstance(schema, list | tuple):
        for part in schema:
            yield from _property_names(part)


def parsing_problem(error: Exception, schema: Any = None) -> str:
    """Say what is wrong with an answer without quoting it, since it may be rejected.

    Args:
        error: The error raised by parsing it.
        schema: The JSON schema or schemas that define its field names; None hides all names.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ValidationError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return "it cannot be parsed"
    problems = (
        f"{'.'.join(_known_names(each['loc'], schema))}: "
        f"{_SAFE_MESSAGES.get(each['type'], each['msg'])}"
        for each in cause.errors(include_input=False, include_url=False, include_context=False)
    )
    return "; ".join(problems)[:_MAX_LENGTH]


def bound_tools(model: Runnable[Any, Any]) -> list[FormattedTool]:
    """Return the tools that are bound to a model, in OpenAI's format."""
    return tools_in_openai_format(unwrap(model)[1].get("tools") or ())


def tools_in_openai_format(tools: Iterable[Any]) -> list[FormattedTool]:
    """Return tools as `{"type": "function", "function": {"name": ..., ...}}`.

    Only the name of a provider's own tool (such as `bash`) is known. A tool without a name runs at
    the provider, is never called by a message, and is left out.
    """
    formatted: list[FormattedTool] = []
    for tool in tools:
        if isinstance(tool, FormattedTool) and "function" in tool:
            formatted.append(tool)
            continue
        given = as_given(tool)
        for converted in _converted(given):
            # The Responses API has name and parameters beside the type, where Chat has `function`.
            inner = converted.get(str(converted.get("type")))
            spec = inner if isinstance(inner, Mapping) else converted
            if spec.get("name"):
                kept = {k: spec[k] for k in ("name", "description", "parameters") if spec.get(k)}
                formatted.append(FormattedTool({"type": "function", "function": kept}, given))
    return formatted


def tools_as_shown(tools: Iterable[Any]) -> list[dict[str, Any]]:
    """Return tools as dicts, one per tool, in OpenAI's format if they have a name."""
    shown: list[dict[str, Any]] = []
    for tool in tools:
        named = tools_in_openai_format([tool])
        one = named[0] if len(named) == 1 else FormattedTool(_as_dict(tool), as_given(tool))
        shown.append(one)
    return shown


def _converted(tool: Any) -> Sequence[Mapping[str, Any]]:
    declared = _as_dict(tool).get("function_declarations")  # Gemini's format for several tools
    if isinstance(declared, list | tuple):
        return [_as_dict(each) for each in declared]
    try:
        return [convert_to_openai_tool(tool)]
    except Exception:  # noqa: BLE001  (may be in any provider's format)
        return [_as_dict(tool)]


def _as_dict(tool: Any) -> dict[str, Any]:
    return dict(tool) if isinstance(tool, Mapping) else {}
