"""Checks that cost nothing: whether a tool call can be carried out at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ValidationError

from langchain_automix.models.wrappers import unwrap

_ANY_TOOL = ("any", "required")
_NO_DEMAND = ("", "auto", "none")
_LONGEST = 200
_OWN_NAME = "..."
"""Stands for a name that the value brings along, which would quote it."""

# Of these pydantic's words, or a validator's, may quote the value.
_IN_OTHER_WORDS = {
    "assertion_error": "a validator refuses it",
    "union_tag_invalid": "its tag is none of those known",
    "value_error": "a validator refuses it",
}


def tool_call_problem(
    message: AIMessage, tools: Sequence[Mapping[str, Any]], *, must_call: bool | str = False
) -> str | None:
    """Return what is wrong with the tool calls of an answer, in words; None if nothing is.

    Only what is certain counts: arguments that are not JSON, a tool that the model does not
    have, arguments that do not fit the tool's schema, no call where there must be one.

    Args:
        message: The answer.
        tools: The tools that the model had, in OpenAI's format. With none, nothing is known of
            them, and only arguments that are not JSON are found.
        must_call: Whether there must be a call: True, `any` or `required` for a call of any
            tool, a tool's name for a call of this one (`tool_choice`, as models take it).
    """
    for invalid in message.invalid_tool_calls:
        return f"the answer calls {invalid['name'] or 'a tool'!r} with arguments that are not JSON"
    schemas = {name: parameters for name, _, parameters in map(tool_parts, tools)}
    called = [call["name"] for call in message.tool_calls]
    if (missing := _missing(called, must_call, schemas)) is not None:
        return missing
    if not schemas:
        return None
    for call in message.tool_calls:
        name = call["name"]
        if name not in schemas:
            known = ", ".join(map(repr, schemas))
            return f"the answer calls no known tool: {name!r} (known: {known})"
        if (misfit := schema_problem(call["args"], schemas[name])) is not None:
            return f"the answer calls {name!r} with arguments that do not fit its schema: {misfit}"
    return None


def _missing(called: Sequence[str], must_call: bool | str, known: Mapping[str, Any]) -> str | None:
    if isinstance(must_call, str) and (must_call in known or must_call not in _ANY_TOOL):
        if must_call in called or (must_call in _NO_DEMAND and must_call not in known):
            return None
        return f"the answer does not call {must_call!r}, as it must"
    return "the answer calls no tool, as it must" if must_call and not called else None


def tool_parts(tool: Mapping[str, Any]) -> tuple[str, str, Mapping[str, Any] | None]:
    """Return a tool's name, its description, and the schema of its arguments, where it has one."""
    function = tool.get("function")
    about: Mapping[str, Any] = function if isinstance(function, Mapping) else tool
    parameters = about.get("parameters")
    schema = parameters if isinstance(parameters, Mapping) else None
    return str(about.get("name", "")), str(about.get("description") or ""), schema


def schema_problem(value: Any, schema: Mapping[str, Any] | None) -> str | None:
    """Return where and how a value does not fit a JSON schema; None if it fits.

    The value is not quoted, since it may be a rejected draft's: only the schema is.
    A schema that is not valid itself, or that refers to one elsewhere, says nothing: schemas
    are never fetched.
    """
    try:
        return schema_misfit(value, schema) if schema else None
    except Exception:  # noqa: BLE001  (a schema from anywhere: no reference, no such pattern)
        return None


def schema_misfit(value: Any, schema: Mapping[str, Any]) -> str | None:
    """Return where and how a value does not fit a JSON schema, without quoting the value.

    Raises:
        Exception: Of many kinds: the schema is not valid itself, or refers to one elsewhere.
    """
    # Not at the top: a mix without tools does not need it.
    from jsonschema.exceptions import best_match  # noqa: PLC0415
    from jsonschema.validators import Draft202012Validator, validator_for  # noqa: PLC0415
    from referencing import Registry  # noqa: PLC0415

    kind = validator_for(schema, default=Draft202012Validator)
    kind.check_schema(dict(schema))
    # The default registry would fetch what a `$ref` names; this one knows nothing.
    error = best_match(kind(dict(schema), registry=Registry()).iter_errors(value))
    if error is None:
        return None
    rule = f"{error.validator}: {error.validator_value}"
    said = error.message if error.validator == "required" else f"not as its schema says ({rule})"
    said = said if len(said) <= _LONGEST else f"{said[:_LONGEST]}..."
    field = ".".join(_named_in(error.absolute_path, schema))
    return f"{field}: {said}" if field else said


def _named_in(path: Iterable[str | int], schema: Any) -> Iterator[str]:
    """Yield the parts of a path; a name that the schema does not give is the value's own."""
    given = set(_names_of_properties(schema))
    for part in path:
        yield str(part) if isinstance(part, int) or part in given else _OWN_NAME


def _names_of_properties(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        if isinstance(properties := schema.get("properties"), Mapping):
            yield from properties
        for part in schema.values():
            yield from _names_of_properties(part)
    elif isinstance(schema, list | tuple):
        for part in schema:
            yield from _names_of_properties(part)


def parsing_problem(error: Exception, schema: Any = None) -> str:
    """Say what is wrong with an answer without quoting it: it may be rejected.

    Args:
        error: What reading it came to.
        schema: The JSON schema, or schemas, that name its fields. None: no field is named.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ValidationError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return "it cannot be parsed"
    found = (
        f"{'.'.join(_named_in(each['loc'], schema))}: "
        f"{_IN_OTHER_WORDS.get(each['type'], each['msg'])}"
        for each in cause.errors(include_input=False, include_url=False, include_context=False)
    )
    return "; ".join(found)[:_LONGEST]


def bound_tools(model: Runnable[Any, Any]) -> list[dict[str, Any]]:
    """Return the tools that are bound to a model, as `tools_in_openai_format` has them."""
    return tools_in_openai_format(unwrap(model)[1].get("tools") or ())


def tools_in_openai_format(tools: Iterable[Any]) -> list[dict[str, Any]]:
    """Return tools as `{"type": "function", "function": {"name": ..., ...}}`.

    Of a provider's own tool (`bash`, say) only the name is known; one without a name runs at
    the provider, is never called by a message, and is left out.
    """
    found: list[dict[str, Any]] = []
    for tool in tools:
        try:
            converted = convert_to_openai_tool(tool)
        except Exception:  # noqa: BLE001  (any provider's own form may come here)
            converted = dict(tool) if isinstance(tool, Mapping) else {}
        # The Responses API has name and parameters beside the type, where Chat has `function`.
        inner = converted.get(str(converted.get("type")))
        about = inner if isinstance(inner, Mapping) else converted
        if about.get("name"):
            kept = {k: about[k] for k in ("name", "description", "parameters") if about.get(k)}
            found.append({"type": "function", "function": kept})
    return found
