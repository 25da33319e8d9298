"""What a policy does with each logged query, and the texts behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from langchain_automix.policy.data.arrays import ACCEPT, INVALID, Floats, LogArrays
from langchain_automix.policy.replay import Outcomes, Trajectories
from langchain_automix.report.contents import Kind, LoggedDecision, LoggedText
from langchain_automix.report.labels import as_metadata

_HALF = 0.5
"""Quality below which an answer is not a good one."""

_VERDICTS = {ACCEPT: True, INVALID: None}


def build_decisions(
    outcomes: Outcomes,
    paths: Trajectories,
    data: LogArrays,
    ids: Sequence[str],
    metadata: Sequence[Any],
) -> tuple[LoggedDecision, ...]:
    """Build the decision on each query, with the texts that its metadata hold.

    Args:
        outcomes: What became of each query.
        paths: What was asked and checked on the way.
        data: The queries.
        ids: Their ids.
        metadata: What their log holds of each beside the numbers; of any shape.
    """
    return tuple(
        _build_decision(row, outcomes, paths, data, ids[row], as_metadata(metadata[row]), kinds)
        for row, kinds in enumerate(_classify(outcomes, paths, data))
    )


def _classify(outcomes: Outcomes, paths: Trajectories, data: LogArrays) -> list[tuple[Kind, ...]]:
    """Return the kinds of each decision, as `contents.Kind` defines them.

    A query without a kept answer is never `kept_wrong`. One that the largest model answers is
    never `saved`: there was no larger model to spare.
    """
    first = paths.asked.argmax(axis=1)
    opening = data.quality[np.arange(len(data)), first]
    others = np.where(paths.asked, -np.inf, data.quality).max(axis=1)
    best = data.quality.max(axis=1)
    is_escalated, is_kept = outcomes.asked > 1, outcomes.model >= 0
    is_smaller = outcomes.model < len(data.models) - 1
    masks: dict[Kind, Floats] = {
        "escalated_wrong": is_escalated & (outcomes.quality <= opening),
        "kept_wrong": is_kept & (others > outcomes.quality),
        "hopeless": best < _HALF,
        "saved": is_kept & ~is_escalated & is_smaller & (outcomes.quality >= best),
    }
    flags = {kind: mask.tolist() for kind, mask in masks.items()}
    return [tuple(kind for kind, flag in flags.items() if flag[row]) for row in range(len(data))]


def _build_decision(
    row: int,
    outcomes: Outcomes,
    paths: Trajectories,
    data: LogArrays,
    id: str,
    metadata: Mapping[str, Any],
    kinds: tuple[Kind, ...],
) -> LoggedDecision:
    kept = int(outcomes.model[row])
    answers = tuple(
        _build_answer(row, j, paths, data, metadata, kept=kept == j)
        for j in range(len(data.models))
    )
    checked = np.flatnonzero(paths.checked[row]).tolist()
    return LoggedDecision(
        id=id,
        question=_text(metadata.get("question")),
        context=_text(metadata.get("context")),
        references=_texts(metadata.get("references")),
        answers=answers,
        model_index=None if kept < 0 else kept,
        confidence=_confidence(answers[checked[-1]]) if checked else None,
        quality=float(outcomes.quality[row]),
        cost=float(outcomes.cost[row]),
        kinds=kinds,
    )


def _build_answer(
    row: int,
    model: int,
    paths: Trajectories,
    data: LogArrays,
    metadata: Mapping[str, Any],
    *,
    kept: bool,
) -> LoggedText:
    drawn = int(paths.drawn[row, model])
    verdicts = data.verdicts[row, model, :drawn].tolist()
    score = float(data.score[row, model])
    is_scored = bool(paths.checked[row, model]) and not np.isnan(score)
    replies = _texts(_at(metadata.get("replies"), model))
    return LoggedText(
        model=data.models[model],
        text=_text(_at(metadata.get("answers"), model)),
        quality=float(data.quality[row, model]),
        cost=float(data.cost[row, model]),
        asked=bool(paths.asked[row, model]),
        kept=kept,
        verdicts=tuple(_VERDICTS.get(verdict, False) for verdict in verdicts),
        score=score if is_scored else None,
        replies=replies if is_scored else replies[:drawn],
    )


def _confidence(answer: LoggedText) -> float | None:
    """Return the raw confidence: the score, or the share of accepts; None if unknown."""
    valid = [verdict for verdict in answer.verdicts if verdict is not None]
    return sum(valid) / len(valid) if valid else answer.score


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: Any) -> tuple[str, ...]:
    """Return the texts of a list, or the one text; leave out anything else."""
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(each for each in values if isinstance(each, str))


def _at(value: Any, index: int) -> Any:
    """Return one element of a list; None if there is none."""
    return value[index] if isinstance(value, list | tuple) and index < len(value) else None
