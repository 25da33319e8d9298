"""What a policy does with each logged query, with the texts behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from langchain_automix.policy.data.arrays import ACCEPT, INVALID, Ints, LogArrays, Mask
from langchain_automix.policy.replay import Outcomes, Trajectories
from langchain_automix.report.contents import Kind, LoggedDecision, LoggedText
from langchain_automix.report.labels import as_metadata

_HALF = 0.5
"""Quality below which an answer is not good."""

_VERDICTS = {ACCEPT: True, INVALID: None}


LISTED = 2_000
"""Maximum number of decisions that a report lists; beyond it, it lists a sample."""

_OF_A_KIND = 250
"""Maximum number of most telling decisions of each kind in a sample."""


@dataclass(frozen=True)
class Listed:
    """Which decisions a report lists, and how many there are of each kind."""

    rows: Ints
    """Indices of the queries, in ascending order."""

    kinds: Mapping[Kind, int]
    """Number of decisions of each kind; empty if all queries are listed."""

    words: str
    """Which decisions these are, in a sentence; empty if they are all."""


def choose_listed(
    outcomes: Outcomes, paths: Trajectories, data: LogArrays, cost_weight: float, seed: int
) -> Listed:
    """Choose the decisions to list: all, or the most telling ones and a random sample.

    The most telling decisions of a kind have the largest difference in utility from the best other
    model. Ties are broken at random.

    Args:
        outcomes: The outcome of each query.
        paths: The models asked and the checks made for each query.
        data: The queries.
        cost_weight: How much quality one unit of cost is worth.
        seed: Seed for the sample.
    """
    n = len(data)
    if n <= LISTED:
        return Listed(np.arange(n), {}, "")
    masks = _classify(outcomes, paths, data)
    rng = np.random.default_rng(seed)
    kept = np.arange(len(data.models)) == outcomes.model[:, None]
    others = np.where(kept, -np.inf, data.quality - cost_weight * data.cost).max(axis=1)
    weight = np.abs(outcomes.utility(cost_weight) - others) + 1e-12 * rng.random(n)
    chosen = np.zeros(n, dtype=bool)
    for mask in masks.values():
        of_kind = np.flatnonzero(mask)
        chosen[of_kind[np.argsort(-weight[of_kind], kind="stable")[:_OF_A_KIND]]] = True
    telling = int(chosen.sum())
    rest = np.flatnonzero(~chosen)
    chosen[rng.permutation(rest)[: LISTED - telling]] = True
    words = (
        f"Listed are {LISTED:,} of {n:,}: the {telling:,} most telling ones of the kinds below, "
        f"and {LISTED - telling:,} of the others at random. The figures are of all {n:,}."
    )
    kinds = {kind: int(mask.sum()) for kind, mask in masks.items()}
    return Listed(np.flatnonzero(chosen), kinds, words)


def build_decisions(
    rows: Ints,
    outcomes: Outcomes,
    paths: Trajectories,
    data: LogArrays,
    ids: Sequence[str],
    metadata: Sequence[Any],
) -> tuple[LoggedDecision, ...]:
    """Build the decisions on some queries, with the texts in their metadata.

    Args:
        rows: Indices of the queries.
        outcomes: The outcome of each query.
        paths: The models asked and the checks made for each query.
        data: The queries.
        ids: Ids of the queries.
        metadata: Everything that the log stores for each query except the numbers, in any form.
    """
    masks = _classify(outcomes, paths, data)
    return tuple(
        _build_decision(
            row,
            outcomes,
            paths,
            data,
            ids[row],
            as_metadata(metadata[row]),
            tuple(kind for kind, mask in masks.items() if mask[row]),
        )
        for row in rows.tolist()
    )


def _classify(outcomes: Outcomes, paths: Trajectories, data: LogArrays) -> dict[Kind, Mask]:
    """Return the decisions of each kind, as defined by `contents.Kind`.

    A query without a kept answer is never `kept_wrong`. A query that the largest model answers is
    never `saved`, since there was no larger model to avoid.
    """
    first = paths.asked.argmax(axis=1)
    opening = data.quality[np.arange(len(data)), first]
    others = np.where(paths.asked, -np.inf, data.quality).max(axis=1)
    best = data.quality.max(axis=1)
    is_escalated, is_kept = outcomes.asked > 1, outcomes.model >= 0
    is_smaller = outcomes.model < len(data.models) - 1
    return {
        "escalated_wrong": is_escalated & (outcomes.quality <= opening),
        "kept_wrong": is_kept & (others > outcomes.quality),
        "hopeless": best < _HALF,
        "saved": is_kept & ~is_escalated & is_smaller & (outcomes.quality >= best),
    }


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
    """Return the raw confidence: the score or the share of accepts; None if unknown."""
    valid = [verdict for verdict in answer.verdicts if verdict is not None]
    return sum(valid) / len(valid) if valid else answer.score


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: Any) -> tuple[str, ...]:
    """Return the texts in a list, or a single text; leave out anything else."""
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(each for each in values if isinstance(each, str))


def _at(value: Any, index: int) -> Any:
    """Return one element of a list, or None if there is none."""
    return value[index] if isinstance(value, list | tuple) and index < len(value) else None
