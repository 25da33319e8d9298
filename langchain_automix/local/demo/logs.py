"""Convert rows of the demo to routing logs, at any price of the large model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_automix.local.demo.checks import FEW_SHOT
from langchain_automix.local.demo.measuring import Checked, Row
from langchain_automix.policy.data.log import RoutingLog
from langchain_automix.utils.check_spec import spec_of
from langchain_automix.verifiers.base import Verifier

TOKEN, SECOND = "small-model input token", "second"


def routing_log(
    rows: Sequence[Row],
    names: tuple[str, str],
    price_ratio: float | None,
    check: str | None = None,
    verifier: Verifier | None = None,
) -> RoutingLog:
    """Convert rows to a routing log.

    Args:
        rows: Questions that both models answered.
        names: Names of the small and the large model.
        price_ratio: Price of a token of the large model, in tokens of the small one; None uses the
            measured seconds.
        check: The only check to log. None: all checks that were made, with the few-shot one
            leading.
        verifier: The verifier that made the check, or all checks together; for the metadata.
    """
    made_by: dict[str, Any] = {}
    if verifier is not None:
        spec = spec_of(verifier)
        made_by = {
            "verifier": spec.fingerprint,
            "check_spec": spec.model_dump(mode="json", exclude_defaults=True),
        }
    return RoutingLog(_logged(row, names, price_ratio, check, made_by) for row in rows)


def _logged(
    row: Row,
    names: tuple[str, str],
    price_ratio: float | None,
    check: str | None,
    made_by: dict[str, Any],
) -> dict[str, Any]:
    small, large = row.small.spent, row.large.spent
    by_tokens = price_ratio is not None
    made = {name: _check(each, by_tokens=by_tokens) for name, each in row.checks.items()}
    first = check or FEW_SHOT
    first_answer: dict[str, Any] = {
        "model": names[0],
        "quality": float(row.small.correct),
        "cost": small.units if by_tokens else small.seconds,
    }
    if first in made:
        first_answer["verification"] = made[first]
    if check is None:
        first_answer["checks"] = {name: each for name, each in made.items() if name != first}
    last_answer = {
        "model": names[1],
        "quality": float(row.large.correct),
        "cost": large.units * price_ratio if price_ratio is not None else large.seconds,
    }
    return {
        "id": row.question.id,
        "answers": [first_answer, last_answer],
        "currency": TOKEN if by_tokens else SECOND,
        "metadata": {
            "question": row.question.question,
            "references": row.question.references,
            "answers": [row.small.text, row.large.text],
            "check": first,
            **made_by,
        },
    }


def _check(checked: Checked, *, by_tokens: bool) -> dict[str, Any]:
    found, spent = checked.found, checked.spent
    if found.score is not None:
        return {"score": found.score, "cost": spent.units if by_tokens else spent.seconds}
    # An empty answer is not checked, and counts as unknown like a check without a valid verdict.
    verdicts = found.verdicts or (None,)
    if not by_tokens:
        # Most of the prompt comes from the cache, so the time is spent on writing.
        return {
            "verdicts": verdicts,
            "fixed_cost": 0.0,
            "sample_cost": spent.seconds / len(verdicts),
        }
    written = spent.units - spent.tokens_in
    return {
        "verdicts": verdicts,
        "fixed_cost": float(spent.tokens_in),
        "sample_cost": written / len(verdicts),
    }
