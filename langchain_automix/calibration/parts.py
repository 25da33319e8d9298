"""What an example has come to: its answers with their checks and grades, and its row of the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessage

from langchain_automix.calibration.examples import Example
from langchain_automix.calibration.journal import Entry
from langchain_automix.calibration.setup import CURRENCIES, Check, Setup
from langchain_automix.types import ModelCall, Verification
from langchain_automix.verifiers.asking import answer_text

_OWN_METADATA = frozenset({"agreement", "check", "check_replies", "failed", "grades", "labelled"})
"""What stands in a row's metadata only where there is something to say; a user's own field of that
name would be taken for it."""


@dataclass(frozen=True)
class Checked:
    """What a check of an answer found, and what it cost."""

    found: Verification
    cost: dict[str, float]

    def logged(self) -> dict[str, Any]:
        """Return it as a routing log holds it."""
        found = self.found
        says = {"verdicts": found.verdicts} if found.verdicts else {"score": found.score}
        return {**says, **self.cost}


@dataclass
class Part:
    """One model's part in an example."""

    model: str
    message: AIMessage | None = None
    cost: float | None = None
    checks: dict[str | None, Checked] = field(default_factory=dict)
    """What each check found, by name; one that was not made, or failed, is not here."""

    quality: float | None = None
    agreement: float | None = None
    why: str = ""
    failed: str | None = None

    @property
    def text(self) -> str:
        """Its answer as text; empty where there is none."""
        return "" if self.message is None else answer_text(self.message)


@dataclass
class UnderWay:
    """An example under way: what is known of it, and what was paid on the way."""

    example: Example
    kept: dict[str, Entry]
    """Finished calls by key: those of earlier runs, and this one's as they end."""

    calls: list[ModelCall] = field(default_factory=list)
    seconds: float = 0.0

    def since(self, calls: int, seconds: float) -> tuple[list[ModelCall], float]:
        """Return the calls after the first so many, and the time after this."""
        return self.calls[calls:], self.seconds - seconds


def row_of(setup: Setup, example: Example, parts: Sequence[Part]) -> dict[str, Any]:
    """Return the example as a line of a routing log."""
    labels = "references" if example.references else setup.unlabelled
    first = setup.checks[0].name
    answers: list[dict[str, Any]] = []
    for part in parts:
        quality = part.agreement if labels == "agreement" else part.quality
        answer: dict[str, Any] = {"model": part.model, "quality": quality, "cost": part.cost}
        found = {check: each.logged() for check, each in part.checks.items()}
        if first in found:
            answer["verification"] = found.pop(first)
        if found:
            answer["checks"] = found
        answers.append(answer)
    metadata: dict[str, Any] = {
        **{k: v for k, v in example.metadata.items() if k not in _OWN_METADATA},
        "question": example.question,
        "context": example.context,
        "references": list(example.references),
        "answers": [None if part.message is None else part.text for part in parts],
        "replies": [_replies(part, first) for part in parts],
        "labels": labels,
        "verifier": setup.verifier,
        "check": first,
    }
    if further := {c.name: [_replies(p, c.name) for p in parts] for c in setup.checks[1:]}:
        metadata["check_replies"] = further
    if setup.compares:
        metadata["agreement"] = [part.agreement for part in parts]
    if any(part.why for part in parts):
        metadata["grades"] = [part.why for part in parts]
    if failed := {part.model: part.failed for part in parts if part.failed}:
        metadata["failed"] = failed
    return {
        "id": example.id,
        "currency": CURRENCIES[setup.unit],
        "answers": answers,
        "metadata": {k: v for k, v in metadata.items() if v is not None},
    }


def _replies(part: Part, check: str | None) -> list[str]:
    return list(part.checks[check].found.replies) if check in part.checks else []


def unknown_by(check: Check) -> Verification | None:
    """Return the invalid verdicts that say that a check found nothing; None of one that scores."""
    samples = check.samples
    return None if samples is None else Verification(verdicts=(None,) * samples)


def no_cost() -> dict[str, float]:
    """Return the cost of verdicts that nobody was asked for."""
    return {"fixed_cost": 0.0, "sample_cost": 0.0}
