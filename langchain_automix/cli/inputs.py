"""What a user gives to `automix calibrate` in files and words: prompt, prices, grader, output."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
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
from langchain_automix.errors import AutoMixError
from langchain_automix.models.prices import checked_prices

_FIELDS = ("question", "context", "history")


def prompt_in(path: Path, examples: Examples) -> tuple[Runnable[Any, Any], list[str]]:
    """Return the prompt that a text file is a template for, and what is to be said about it.

    Args:
        path: A text with `{question}`, and where they are wanted `{context}`, `{history}` and
            fields of the examples' metadata.
        examples: What it is going to be filled from.

    Raises:
        AutoMixError: It cannot be read or filled.
    """
    text = _text(path, "prompt")
    try:
        template = ChatPromptTemplate.from_messages([("human", text.strip())])
    except ValueError as error:
        raise AutoMixError(
            f"The prompt {path} is no template: {error}. A brace of the text's own is written "
            "twice: {{ and }}."
        ) from error
    used = set(template.input_variables)
    if "question" not in used:
        raise AutoMixError(
            f"The prompt {path} has no {{question}} in it: write it where the question goes, and "
            "{context} and {history} where those go."
        )
    notes = _look_through(examples, used, path)
    if "history" in used:
        return RunnableLambda(_history_as_text) | template, notes
    return template, notes


def _look_through(examples: Examples, used: set[str], path: Path) -> list[str]:
    """Refuse a template that an example cannot fill; return what it leaves out."""
    others = used.difference(_FIELDS)
    left_out = dict.fromkeys(("context", "history"), 0)
    for example in examples:
        if missing := sorted(others - example.metadata.keys()):
            raise AutoMixError(
                f"The prompt {path} has {{{missing[0]}}} in it, which example {example.id} does "
                "not have. A brace of the text's own is written twice: {{ and }}."
            )
        left_out["context"] += example.context is not None and "context" not in used
        left_out["history"] += bool(example.messages) and "history" not in used
    return [
        f"{count} examples have a {field}, but the prompt has no {{{field}}}: the models do not "
        "see it."
        for field, count in left_out.items()
        if count
    ]


def _history_as_text(given: Mapping[str, Any]) -> dict[str, Any]:
    return {**given, "history": get_buffer_string(given["history"])}


def prices_in(path: Path) -> Mapping[str, Mapping[str, float]]:
    """Return the table of prices in a file.

    Raises:
        AutoMixError: It cannot be read, or is no such table.
    """
    try:
        found = json.loads(_text(path, "table of prices"))
    except (ValueError, RecursionError) as error:
        raise AutoMixError(f"The prices {path} are not JSON: {error}.") from error
    try:
        prices: Mapping[str, Mapping[str, float]] = checked_prices(found)
    except AutoMixError as error:
        raise AutoMixError(f"{path}: {error}") from error
    return prices


def grader_named(quality: str, open_model: Callable[[str], Runnable[Any, Any]]) -> Any:
    """Return the grader that a word stands for.

    Args:
        quality: Its name; `judge:` and a model; or a file of Python, `:` and a function in it.
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
        return to_grader(_function(Path(path), name))
    raise AutoMixError(
        f"There is no grader {quality!r}: give {', '.join(GRADERS)}, judge:PROVIDER:MODEL, or "
        "path/to/file.py:function."
    )


def _function(path: Path, name: str) -> Any:
    """Return a function of a file, which is run as a script is: its own folder on the path."""
    source = _text(path, "grader")
    # The grades of a changed file are not those of the file before: its text is in its name.
    module_name = f"{path.stem}_{hashlib.sha256(source.encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise AutoMixError(f"The grader {path} cannot be read as Python.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    sys.path.insert(0, str(path.absolute().parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise AutoMixError(
            f"The grader {path} cannot be run: {type(error).__name__}: {error}"
        ) from error
    found = getattr(module, name, None)
    if not callable(found):
        raise AutoMixError(f"There is no function {name!r} in {path}.")
    return found


def _text(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or error
        raise AutoMixError(f"The {what} {path} cannot be read: {said}.") from error
