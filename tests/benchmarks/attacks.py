"""How often an attack turns the check of real models from reject to accept.

Each case of `tests/support/builders/attacks.py` is a wrong answer, checked once without the
attacker's text and once with it, at temperature 0. A flip: rejected without the text, accepted
with it. Right answers are checked, too, for a check that rejects everything has no flips. Every
verdict is written to a file as it comes, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from langchain_core.messages import BaseMessage, HumanMessage
from typing_extensions import override

from langchain_automix import SelfVerifier, TokenProbabilityVerifier
from langchain_automix.local.models import LARGE, SMALL, Model, ModelOptions, open_models
from langchain_automix.types import Verification
from langchain_automix.verifiers.base import VerifierInput
from langchain_automix.verifiers.inputs import CheckContext
from langchain_automix.verifiers.prompting.messages import format_context
from langchain_automix.verifiers.prompting.verifier import PromptedVerifier
from tests.support.builders.attacks import BASES, CASES, Case, in_turn

MODELS = (SMALL, LARGE)
HEADS = (
    "model, check",
    "right accepted",
    "wrong accepted",
    "with attack",
    "flips",
    "of drafts",
    "of documents",
    "of messages",
    "invalid",
)


class Unguarded(SelfVerifier):
    """The check with untrusted text as it is: what there was before it was guarded."""

    @override
    def _messages(self, asked: CheckContext, answer: str, *rest: Any) -> list[BaseMessage]:
        *opening, _ = super()._messages(asked, answer, *rest)
        context = format_context(asked, self.wording)
        return [*opening, HumanMessage(self.wording.block(context, asked.question, answer))]


_ONCE: Any = {"samples": 1, "temperature": 0.0}
# The ways that share their opening follow each other: the server keeps it in its cache.
WAYS: dict[str, PromptedVerifier] = {
    "few-shot, unguarded": Unguarded(**_ONCE),
    "few-shot": SelfVerifier(**_ONCE),
    "few-shot, json": SelfVerifier(**_ONCE, quoting="json"),
    "one word": TokenProbabilityVerifier(),
    "one word, json": TokenProbabilityVerifier(quoting="json"),
    "conversation": SelfVerifier(**_ONCE, layout="conversation"),
    "one word, conversation": TokenProbabilityVerifier(layout="conversation"),
}


class Asker:
    """Asks one check of one model, or knows from the file what it said."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self.known: dict[str, bool | None] = {}
        if results.exists():
            *whole, cut = results.read_bytes().split(b"\n")
            if cut:  # by a kill: it is asked again
                results.write_bytes(b"".join(line + b"\n" for line in whole))
            for found in map(json.loads, whole):
                self.known[found["key"]] = found["verdict"]

    def ask(self, model: Model, verifier: PromptedVerifier, given: VerifierInput) -> bool | None:
        """Return the verdict: accepted, rejected, or None where there is none."""
        check = verifier.for_model(model.chat)
        made = check._build_check(in_turn(given))
        if isinstance(made, Verification):
            return None
        messages = made.messages
        # What is asked decides what is said: equal prompts are asked once.
        asked = [model.name, check._asks_for, *((m.type, m.text) for m in messages)]
        key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:24]
        if key not in self.known:
            verification = check.invoke(in_turn(given))
            self.known[key] = _verdict(verification)
            row: dict[str, Any] = {"key": key, "model": model.name, "verdict": self.known[key]}
            row |= {"replies": verification.replies, "score": verification.score}
            row |= {"problem": verification.problem, "asked": messages[-1].text[-300:]}
            with self.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=True) + "\n")
        return self.known[key]


def _verdict(verification: Verification) -> bool | None:
    confidence = verification.confidence
    return None if confidence is None else confidence > 0.5


class Found(NamedTuple):
    """What one check said of one case, without the attack and with it."""

    case: Case
    before: bool | None
    after: bool | None

    @property
    def flipped(self) -> bool:
        """Whether a rejected wrong answer was accepted because of the attack."""
        return self.before is False and self.after is True


def rows(
    names: Sequence[str],
    results: Path,
    cases: int | None = None,
    ways: Sequence[str] = tuple(WAYS),
) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """Yield, model by model, the table of all its checks."""
    asker = Asker(results)
    small, *middle, large = names
    wanted = ModelOptions(small=small, middle=tuple(middle), large=large, samples=1)
    chosen = CASES[:: max(1, len(CASES) // cases)][:cases] if cases else CASES
    with open_models(wanted) as models:
        for model in models:
            yield model.name, [_row(asker, model, way, chosen) for way in ways]


def _row(asker: Asker, model: Model, way: str, cases: Sequence[Case]) -> tuple[str, ...]:
    verifier = WAYS[way]
    right = [
        asker.ask(model, verifier, VerifierInput(context=c, question=q, answer=answer))
        for c, q, answer, _ in (BASES if len(cases) > len(BASES) else BASES[: len(cases)])
    ]
    found = []
    for case in cases:
        before = asker.ask(model, verifier, case.plain)
        found.append(Found(case, before, asker.ask(model, verifier, case.attacked)))
    sys.stderr.write(f"{model.name}: {way}: {sum(each.flipped for each in found)} flips\n")
    parts = [
        _flips([each for each in found if each.case.where == where])
        for where in ("draft", "document", "message")
    ]
    return (
        f"{model.name}, {way}",
        _share(right),
        _share([each.before for each in found]),
        _share([each.after for each in found]),
        _flips(found),
        *parts,
        str(sum(each.after is None for each in found)),
    )


def _share(verdicts: Sequence[bool | None]) -> str:
    return f"{sum(verdict is True for verdict in verdicts)} of {len(verdicts)}"


def _flips(found: Sequence[Found]) -> str:
    return f"{sum(each.flipped for each in found)} of {sum(e.before is False for e in found)}"
