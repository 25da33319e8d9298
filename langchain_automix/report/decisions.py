"""The table of decisions: what a policy does with each logged query, and the texts behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from langchain_automix.policy.data.arrays import ACCEPT, INVALID, Floats, LogArrays
from langchain_automix.policy.replay import Outcomes, Trajectories
from langchain_automix.report.contents import Kind, LoggedDecision, LoggedText
from langchain_automix.report.labels import metadata_of

_HALF = 0.5
"""Quality below which an answer is not a good one."""

_VERDICTS = {ACCEPT: True, INVALID: None}


def decisions_of(
    outcomes: Outcomes,
    paths: Trajectories,
    data: LogArrays,
    ids: Sequence[str],
    metadata: Sequence[Any],
) -> tuple[LoggedDecision, ...]:
    """Return what becomes of each query, with the texts that its metadata hold.

    Args:
        outcomes: What became of each query.
        paths: How.
        data: The queries.
        ids: Their ids.
        metadata: What their log holds of each beside the numbers; of any shape.
    """
    kinds = kinds_of(outcomes, paths, data)
    return tuple(
        _decision(place, outcomes, paths, data, ids[place], metadata_of(metadata[place]), kind)
        for place, kind in enumerate(kinds)
    )


def kinds_of(outcomes: Outcomes, paths: Trajectories, data: LogArrays) -> list[tuple[Kind, ...]]:
    """Return the kinds of each decision, as `contents.Kind` defines them.

    No query is `kept_wrong` of which no answer is kept, and none is `saved` whose answer is that
    of the largest model: nothing is left out there.
    """
    rows = np.arange(len(data))
    first = paths.asked.argmax(axis=1)
    opening = data.quality[rows, first]
    others = np.where(paths.asked, -np.inf, data.quality).max(axis=1)
    best = data.quality.max(axis=1)
    escalated = outcomes.asked > 1
    kept = outcomes.model >= 0
    last = len(data.models) - 1
    found: dict[Kind, Floats] = {
        "escalated_wrong": escalated & (outcomes.quality <= opening),
        "kept_wrong": kept & (others > outcomes.quality),
        "hopeless": best < _HALF,
        "saved": kept & ~escalated & (outcomes.model < last) & (outcomes.quality >= best),
    }
    lists = {kind: mask.tolist() for kind, mask in found.items()}
    return [
        tuple(kind for kind, mask in lists.items() if mask[place]) for place in range(len(data))
    ]


def _decision(
    place: int,
    outcomes: Outcomes,
    paths: Trajectories,
    data: LogArrays,
    id: str,
    metadata: Mapping[str, Any],
    kinds: tuple[Kind, ...],
) -> LoggedDecision:
    kept = int(outcomes.model[place])
    answers = tuple(_answer(place, j, kept, paths, data, metadata) for j in range(len(data.models)))
    checked = [j for j, found in enumerate(paths.checked[place].tolist()) if found]
    return LoggedDecision(
        id=id,
        question=_text(metadata.get("question")),
        context=_text(metadata.get("context")),
        references=_texts(metadata.get("references")),
        answers=answers,
        model_index=None if kept < 0 else kept,
        confidence=_confidence(answers[checked[-1]]) if checked else None,
        quality=float(outcomes.quality[place]),
        cost=float(outcomes.cost[place]),
        kinds=kinds,
    )


def _answer(
    place: int,
    model: int,
    kept: int,
    paths: Trajectories,
    data: LogArrays,
    metadata: Mapping[str, Any],
) -> LoggedText:
    checked = bool(paths.checked[place, model])
    drawn = int(paths.drawn[place, model])
    verdicts = data.verdicts[place, model, :drawn].tolist()
    score = float(data.score[place, model])
    replies = _texts(_at(metadata.get("replies"), model))
    scored = checked and not np.isnan(score)
    return LoggedText(
        model=data.models[model],
        text=_text(_at(metadata.get("answers"), model)),
        quality=float(data.quality[place, model]),
        cost=float(data.cost[place, model]),
        asked=bool(paths.asked[place, model]),
        kept=model == kept,
        verdicts=tuple(_VERDICTS.get(verdict, False) for verdict in verdicts),
        score=score if scored else None,
        replies=replies if scored else replies[:drawn],
    )


def _confidence(answer: LoggedText) -> float | None:
    """Return the raw confidence: the score, or the share of accepts; None if not known."""
    valid = [verdict for verdict in answer.verdicts if verdict is not None]
    return sum(valid) / len(valid) if valid else answer.score


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: Any) -> tuple[str, ...]:
    """Return the texts of a list, or the one text; nothing else."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list | tuple):
        return ()
    return tuple(each for each in value if isinstance(each, str))


def _at(value: Any, place: int) -> Any:
    """Return one element of a list; None if there is no such."""
    return value[place] if isinstance(value, list | tuple) and place < len(value) else None
