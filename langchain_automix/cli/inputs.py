"""Read the files that options name: a prompt, a table of prices, a grader."""

from __future__ import annotations

import hashlib
import json
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from langchain_core.messages import get_buffer_string
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda

from langchain_automix.calibration.examples.examples import Examples
from langchain_automix.calibration.graders.custom import to_grader
from langchain_automix.calibration.graders.judges import LLMJudge
from langchain_automix.calibration.graders.text import GRADERS
from langchain_automix.errors import AutoMixError, near_matches
from langchain_automix.models.prices import checked_prices
from langchain_automix.utils.formatting import pluralize

_FIELDS = ("question", "context", "history")
_LONGEST_FILE = 2**24
"""In characters."""


def read_prompt(path: Path, examples: Examples) -> tuple[Runnable[Any, Any], list[str]]:
    """Return the prompt in a text file, and notes on what it leaves out.

    Args:
        path: A text with `{question}` in it, and optionally `{context}`, `{history}` and fields of
            the examples' metadata.
        examples: The examples that will fill it.

    Raises:
        AutoMixError: It cannot be read or filled.
    """
    template = _read_template(path)
    fields = set(template.input_variables)
    return _with_history(template), _notes_on_fields(examples, fields, path)


def read_question_prompt(path: Path, *, has_context: bool) -> Runnable[Any, Any]:
    """Return the prompt in a text file for one question, and its context if there is one.

    Raises:
        AutoMixError: It cannot be read, or has fields that have no value.
    """
    template = _read_template(path)
    fields = set(template.input_variables)
    if unknown := sorted(fields.difference(_FIELDS)):
        raise AutoMixError(
            f"The prompt {path} has {{{unknown[0]}}} in it, for which there is no value here: "
            "there is only {question}, {context} and {history}. Write a literal brace twice: "
            "{{ and }}."
        )
    if has_context and "context" not in fields:
        raise AutoMixError(
            f"The prompt {path} has no {{context}} in it, so the models would not see the context."
        )
    return _with_history(template)


def _with_history(template: ChatPromptTemplate) -> Runnable[Any, Any]:
    if "history" in template.input_variables:
        return RunnableLambda(_history_as_text) | template
    return template


def _read_template(path: Path) -> ChatPromptTemplate:
    text = _read(path, "prompt")
    try:
        template = ChatPromptTemplate.from_messages([("human", text.strip())])
    except ValueError as error:
        raise AutoMixError(
            f"The prompt {path} is not a template: {error}. Write a literal brace twice: {{{{ and "
            "}}."
        ) from error
    if "question" not in template.input_variables:
        raise AutoMixError(
            f"The prompt {path} has no {{question}} in it: write it where the question goes, and "
            "{context} and {history} where those go."
        )
    return template


def _notes_on_fields(examples: Examples, fields: set[str], path: Path) -> list[str]:
    """Return what a template leaves out of the examples.

    Raises:
        AutoMixError: An example lacks a field of the template.
    """
    others = fields.difference(_FIELDS)
    left_out = dict.fromkeys(("context", "history"), 0)
    for example in examples:
        if missing := sorted(others - example.metadata.keys()):
            raise AutoMixError(
                f"The prompt {path} has {{{missing[0]}}} in it, which example {example.id} does "
                "not have. Write a literal brace twice: {{ and }}."
            )
        left_out["context"] += example.context is not None and "context" not in fields
        left_out["history"] += bool(example.messages) and "history" not in fields
    return [
        f"{pluralize(count, 'example')} {'has' if count == 1 else 'have'} a {field}, but the "
        f"prompt has no {{{field}}}: the models do not see it."
        for field, count in left_out.items()
        if count
    ]


def _history_as_text(values: Mapping[str, Any]) -> dict[str, Any]:
    return {**values, "history": get_buffer_string(values["history"])}


def read_prices(path: Path) -> Mapping[str, Mapping[str, float]]:
    """Return the table of prices in a file.

    Raises:
        AutoMixError: It cannot be read, or holds no such table.
    """
    text = _read(path, "table of prices")
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AutoMixError(f"The prices {path} are not JSON: {error}.") from error
    try:
        prices: Mapping[str, Mapping[str, float]] = checked_prices(table)
    except AutoMixError as error:
        raise AutoMixError(f"{path}: {error}") from error
    return prices


def read_grader(quality: str, open_model: Callable[[str], Runnable[Any, Any]]) -> Any:
    """Return the grader that `--quality` names.

    Args:
        quality: The name of a grader; `judge:` and a model; or a file of Python, `:` and a
            function in it.
        open_model: Opens the judge.

    Raises:
        AutoMixError: There is no such grader.
    """
    if quality in GRADERS:
        return to_grader(quality)
    kind, _, model = quality.partition(":")
    if kind == "judge" and model:
        return LLMJudge(model=open_model(model))
    path, _, name = quality.rpartition(":")
    if path.endswith(".py") and name:
        return to_grader(_load_function(Path(path), name))
    raise AutoMixError(
        f"There is no grader {quality!r}.{near_matches(quality, GRADERS)} Give "
        f"{', '.join(GRADERS)}, judge:PROVIDER:MODEL, or path/to/file.py:function."
    )


def _load_function(path: Path, name: str) -> Any:
    """Return a function from a file, which runs like a script, with its own folder on the path."""
    source = _read(path, "grader")
    # A changed file may grade differently: its text is part of the grader's name.
    module_name = f"{path.stem}_{hashlib.sha256(source.encode()).hexdigest()[:12]}"
    module = types.ModuleType(module_name)
    module.__file__ = str(path)
    sys.modules[module_name] = module
    sys.path.insert(0, str(path.absolute().parent))
    try:
        # Not the import system: it takes the bytecode of a former text for this one's where both
        # have one length and were written within one second.
        code = compile(source, str(path), "exec", dont_inherit=True)
        exec(code, module.__dict__)  # noqa: S102 - the file that the user named
    except Exception as error:
        raise AutoMixError(
            f"The grader {path} cannot be run: {type(error).__name__}: {error}"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise AutoMixError(f"There is no function {name!r} in {path}.")
    return function


def _read(path: Path, what: str) -> str:
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(_LONGEST_FILE)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AutoMixError(f"The {what} {path} cannot be read: {reason}.") from error
    if len(text) == _LONGEST_FILE:
        raise AutoMixError(
            f"The {what} {path} is too long: more than {_LONGEST_FILE:,} characters."
        )
    return text
