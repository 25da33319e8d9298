"""Measure questions: each model's answer, each check's findings, and what the mix does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from typing_extensions import override

from langchain_automix.calibration.config import ANSWER_FROM_CONTEXT
from langchain_automix.calibration.graders.text import exact_match
from langchain_automix.errors import QueryFailedError
from langchain_automix.local.demo.questions import Question
from langchain_automix.local.models import ModelPair
from langchain_automix.mix.runnable import AutoMixRunnable
from langchain_automix.types import Verification
from langchain_automix.verifiers.base import Verifier, VerifierInput

Part = Literal["fit", "routed"]
PROMPT = ANSWER_FROM_CONTEXT
OUTPUT_PRICE = 5
"""Price of an output token in input tokens; providers mostly charge from 4 to 8."""


@dataclass(frozen=True)
class Spent:
    """Time and tokens of one stage."""

    seconds: float
    tokens_in: int
    tokens_out: int

    @property
    def units(self) -> float:
        """The cost, if an input token costs one unit and both models cost the same."""
        return self.tokens_in + OUTPUT_PRICE * self.tokens_out


@dataclass(frozen=True)
class Answered:
    """One model's answer to one question, graded."""

    text: str
    correct: bool
    spent: Spent


@dataclass(frozen=True)
class Checked:
    """The findings of one check, and what they took."""

    found: Verification
    spent: Spent


@dataclass(frozen=True)
class Row:
    """One question, with everything that was measured on it."""

    question: Question
    part: Part
    small: Answered
    large: Answered
    checks: Mapping[str, Checked]
    """The checks by name: all of them if measured, else the one that the mix made, if any."""

    mix_check: Checked | None = None
    """The draws of the mix's check; None if it drew nothing."""

    record: Mapping[str, Any] = field(default_factory=dict)
    """AutoMix's record of the query; empty for fitting questions."""

    @property
    def escalated(self) -> bool:
        """Whether the mix asked the large model."""
        return bool(self.record.get("escalated") or self.record.get("model_index"))

    @property
    def spent(self) -> tuple[list[Spent], list[Spent]]:
        """The mix's spending on the small and on the large model."""
        asked_large = bool(self.escalated)
        alone = bool(self.record.get("model_index")) and not self.record.get("escalated")
        small = [] if alone else [self.small.spent]
        if self.mix_check is not None:
            small.append(self.mix_check.spent)
        return small, [self.large.spent] if asked_large else []

    @property
    def final(self) -> Answered:
        """The kept answer."""
        return self.large if self.record.get("model_index") else self.small


class Measurer:
    """Puts questions to a pair of models, to checks, and to a mix.

    Args:
        pair: The two models.
        checks: The checks to make of the small model's answers, by name.
    """

    def __init__(self, pair: ModelPair, checks: Mapping[str, Verifier]) -> None:
        self.pair = pair
        self.checks = checks
        # Log-probabilities come with an answer for free, and change nothing else in it.
        self._small: Any = pair.small.chat
        for check in checks.values():
            self._small = check.for_answering(self._small)
        self._bound = {
            name: check.for_answerer(pair.small.chat).for_model(pair.small.chat)
            for name, check in checks.items()
        }

    def measure(self, question: Question) -> Row:
        """Let both models answer, and make all checks of the small one's answer, one by one.

        Raises:
            AutoMixError: A model failed.
        """
        try:
            request = PROMPT.format_messages(**question.model_dump())
            draft, small = self._answer(self._small, question, request)
            found = {name: self.check(name, question, request, draft) for name in self.checks}
            _, large = self._answer(self.pair.large.chat, question, request)
        except Exception as error:
            raise self.pair.explain(error) from error
        return Row(question, "fit", small, large, found)

    def _answer(
        self, model: Any, question: Question, request: list[BaseMessage]
    ) -> tuple[AIMessage, Answered]:
        start = self.pair.clock()
        reply = model.invoke(request)
        return reply, graded(question, reply, self.pair.clock() - start)

    def check(
        self, name: str, question: Question, request: list[BaseMessage], answer: AIMessage
    ) -> Checked:
        """Make one check of an answer."""
        shown: VerifierInput = {
            "question": question.question,
            "context": question.context,
            "answer": answer,
            "request": request,
        }
        start = self.pair.clock()
        found = self._bound[name].invoke(shown)
        if found.problem and found.calls and not found.verdicts:
            raise QueryFailedError(f"The check {name!r} failed: {found.problem}")
        return checked(found, self.pair.clock() - start)

    def route(self, question: Question, mix: AutoMixRunnable, check: str) -> Row:
        """Put one question to a mix, and to the large model if the mix did not ask it.

        Args:
            question: The question to ask.
            mix: The mix, whose verifier is the check.
            check: Name of the check.

        Raises:
            AutoMixError: A model failed.
        """
        try:
            return self._route(question, mix, check)
        except Exception as error:
            raise self.pair.explain(error) from error

    def _route(self, question: Question, mix: AutoMixRunnable, check: str) -> Row:
        meter = CallMeter(self.pair)
        kept = mix.invoke(question.model_dump(), {"callbacks": [meter]})
        record = kept.response_metadata["automix"]
        # The mix survives a failed call, but a measurement needs every call.
        for failed in record["failed"]:
            raise QueryFailedError(f"{failed['error']} of {failed['model']} ({failed['stage']})")
        replies, seconds = meter.replies, meter.seconds
        # A policy that asks only the large model runs it in the first stage.
        first = "large" if record["model_index"] and not record["escalated"] else "small"
        stages = {first: "draft", **({"large": "escalate"} if record["escalated"] else {})}
        answers: dict[str, Answered] = {
            size: graded(question, replies[stage], seconds[stage]) for size, stage in stages.items()
        }
        request = PROMPT.format_messages(**question.model_dump())
        for size, model in (("small", self._small), ("large", self.pair.large.chat)):
            if size not in answers:  # for comparison; not a cost of the mix
                answers[size] = self._answer(model, question, request)[1]
        drawn = meter.checked()
        checks = {} if drawn is None else {check: drawn}
        return Row(question, "routed", answers["small"], answers["large"], checks, drawn, record)


class CallMeter(BaseCallbackHandler):
    """Times the runs that AutoMix names in its trace, and keeps the replies and the check."""

    run_inline = True

    def __init__(self, pair: ModelPair) -> None:
        self._clock = pair.clock
        self._started: dict[Any, tuple[str, float]] = {}
        self.seconds: dict[str, float] = {}
        self.replies: dict[str, AIMessage] = {}
        self.verification: Verification | None = None
        self._check_seconds = 0.0

    def checked(self) -> Checked | None:
        """Return the findings of all draws of the check together, and what they took."""
        found = self.verification
        return None if found is None else checked(found, self._check_seconds)

    @override
    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self._started[kwargs["run_id"]] = (kwargs.get("name") or "", self._clock())

    @override
    def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
        self._started[kwargs["run_id"]] = (kwargs.get("name") or "", self._clock())

    @override
    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        name, seconds = self._stop(kwargs["run_id"])
        self.seconds[name] = seconds
        self.replies[name] = response.generations[0][0].message

    @override
    def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
        _, seconds = self._stop(kwargs["run_id"])
        if isinstance(outputs, Verification):
            before = self.verification
            self.verification = outputs if before is None else before.and_then(outputs)
            self._check_seconds += seconds

    def _stop(self, run_id: Any) -> tuple[str, float]:
        name, start = self._started.pop(run_id)
        return name, self._clock() - start


def graded(question: Question, reply: AIMessage, seconds: float) -> Answered:
    """Grade a model's reply; it is right if it equals an accepted answer."""
    text = " ".join(str(reply.text).split())
    usage = reply.usage_metadata
    tokens = (usage["input_tokens"], usage["output_tokens"]) if usage else (0, 0)
    correct = exact_match(text, question.references) == 1
    return Answered(text, correct, Spent(seconds, *tokens))


def checked(found: Verification, seconds: float) -> Checked:
    """Return the findings of a check, with the tokens of its calls."""
    usages = [call.usage for call in found.calls if call.usage is not None]
    return Checked(
        found,
        Spent(
            seconds,
            sum(usage["input_tokens"] for usage in usages),
            sum(usage["output_tokens"] for usage in usages),
        ),
    )
