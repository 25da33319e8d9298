"""The results of one example: each model's answer, checks and grades, and the row of the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessage

from langchain_automix.calibration.config import CURRENCIES, CalibrationConfig
from langchain_automix.calibration.examples.examples import Example
from langchain_automix.models.messages import answer_text
from langchain_automix.types import Verification

_OPTIONAL_METADATA = frozenset(
    {"agreement", "check", "check_replies", "check_spec", "failed", "grades", "labelled"}
)
"""Metadata that only some rows have. A user's field of the same name would be mistaken for it."""


@dataclass(frozen=True)
class CheckResult:
    """The result of a check of an answer, and its cost."""

    verification: Verification
    cost: dict[str, float]

    def logged(self) -> dict[str, Any]:
        """Return the result as a routing log stores it."""
        verdicts, score = self.verification.verdicts, self.verification.score
        return {**({"verdicts": verdicts} if verdicts else {"score": score}), **self.cost}


@dataclass
class ModelResult:
    """One model's answer to an example, with its checks and grades."""

    model: str
    message: AIMessage | None = None
    cost: float | None = None
    checks: dict[str | None, CheckResult] = field(default_factory=dict)
    """Result of each check, by name; checks that failed or were not made are missing."""

    quality: float | None = None
    agreement: float | None = None
    why: str = ""
    failed: str | None = None

    @property
    def text(self) -> str:
        """The text of the answer; empty if there is none."""
        return "" if self.message is None else answer_text(self.message)


def row_of(
    setup: CalibrationConfig, example: Example, results: Sequence[ModelResult]
) -> dict[str, Any]:
    """Return an example as a line of a routing log."""
    labels = "references" if example.references else setup.unlabelled
    metadata = _metadata(setup, example, results, labels)
    return {
        "id": example.id,
        "currency": CURRENCIES[setup.unit],
        "answers": [_answer(result, labels, setup.checks[0].name) for result in results],
        "metadata": {k: v for k, v in metadata.items() if v is not None},
    }


def _answer(result: ModelResult, labels: str, first_check: str | None) -> dict[str, Any]:
    quality = result.agreement if labels == "agreement" else result.quality
    answer: dict[str, Any] = {"model": result.model, "quality": quality, "cost": result.cost}
    checks = {name: check.logged() for name, check in result.checks.items()}
    if first_check in checks:
        answer["verification"] = checks.pop(first_check)
    if checks:
        answer["checks"] = checks
    return answer


def _metadata(
    setup: CalibrationConfig, example: Example, results: Sequence[ModelResult], labels: str
) -> dict[str, Any]:
    first, *others = (check.name for check in setup.checks)
    metadata: dict[str, Any] = {
        **{k: v for k, v in example.metadata.items() if k not in _OPTIONAL_METADATA},
        "question": example.question,
        "context": example.context,
        "references": list(example.references),
        "answers": [None if result.message is None else result.text for result in results],
        "replies": _replies(results, first),
        "labels": labels,
        "verifier": setup.verifier,
        "check_spec": setup.check_spec,
        "check": first,
    }
    if others:
        metadata["check_replies"] = {name: _replies(results, name) for name in others}
    if setup.compares:
        metadata["agreement"] = [result.agreement for result in results]
    if any(result.why for result in results):
        metadata["grades"] = [result.why for result in results]
    if failed := {result.model: result.failed for result in results if result.failed}:
        metadata["failed"] = failed
    return metadata


def _replies(results: Sequence[ModelResult], check: str | None) -> list[list[str]]:
    """Return the replies of a check for each answer; an empty list if the check was not made."""
    made = (result.checks.get(check) for result in results)
    return [[] if found is None else list(found.verification.replies) for found in made]
