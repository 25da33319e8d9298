"""The questions of the demo: the shipped ones, or a file of the user's."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from langchain_automix.errors import AutoMixError, first_problem
from langchain_automix.utils.files import reason_of

SHIPPED = Path(__file__).with_name("questions.jsonl")


class Question(BaseModel):
    """One question on one passage, with its accepted answers."""

    id: str = ""
    question: str = Field(min_length=1)
    context: str = Field(min_length=1)
    references: tuple[str, ...] = Field(min_length=1)
    kind: str | None = None

    model_config = ConfigDict(frozen=True, extra="ignore")


def read_questions(path: Path = SHIPPED) -> list[Question]:
    """Read JSON lines with `question`, `context` and `references`; one bad line rejects the file.

    Raises:
        AutoMixError: The file cannot be read, or a line is invalid; names the line and the field.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AutoMixError(f"The questions {path} cannot be read: {reason_of(error)}.") from error
    questions = [
        _question(line, f"{path}, line {number}", f"q{number}")
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if repeated := [id for id, count in Counter(q.id for q in questions).items() if count > 1]:
        raise AutoMixError(f"{path}, field id: {repeated[0]!r} is given more than once.")
    if len(questions) < 4:  # noqa: PLR2004  (two to fit on, two to report on)
        raise AutoMixError(f"{path} has {len(questions)} questions; the demo needs at least 4.")
    return questions


def in_order(questions: list[Question], seed: int) -> list[Question]:
    """Shuffle the passages, but keep the questions on each passage together.

    That way, a passage is read once, and then served from the models' prompt caches.
    """
    passages: dict[str, list[Question]] = {}
    for question in questions:
        passages.setdefault(question.context, []).append(question)
    groups = list(passages.values())
    random.Random(seed).shuffle(groups)  # noqa: S311  (an order, not a secret)
    return [question for group in groups for question in group]


def _question(line: str, where: str, default_id: str) -> Question:
    try:
        fields: Any = json.loads(line)
    except ValueError as error:
        raise AutoMixError(f"{where} is not JSON: {error}.") from error
    try:
        question = Question.model_validate(fields)
    except ValidationError as error:
        raise AutoMixError(f"{where}, {first_problem(error)}") from error
    if not question.question.strip():
        raise AutoMixError(f"{where}, field question: it is empty.")
    return question if question.id else question.model_copy(update={"id": default_id})
