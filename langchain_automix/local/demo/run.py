"""The demo's run: measure one third of the questions, learn from it, route the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from langchain_automix.local.demo.checks import SAMPLES, make_checks
from langchain_automix.local.demo.learning import Learned, Names, is_dearer, learn
from langchain_automix.local.demo.logs import routing_log
from langchain_automix.local.demo.measuring import PROMPT, Measurer, Row
from langchain_automix.local.demo.questions import Question
from langchain_automix.local.models import ModelPair
from langchain_automix.mix.runnable import AutoMixRunnable

__all__ = ["PRICE_RATIO", "PROMPT", "Demo", "Row", "fit_part", "routing_log"]

PRICE_RATIO = 25.0
"""Price of a token of the large model, in tokens of the small one."""


class Demo:
    """Runs questions through both models, all checks, and the mix with the best check.

    On the first third, both models answer and all checks are made, one by one. The checks are
    compared, and the policy is fitted, on these questions. On the other questions, the mix decides.
    If it keeps the small answer, the large model is asked afterwards for comparison, which does not
    count as a cost of the mix.

    Args:
        pair: The two models.
        samples: Number of verdicts, or of resampled answers, per check.
        price_ratio: Price of a token of the large model, in tokens of the small one, for the
            policy; None uses the measured seconds.
    """

    def __init__(
        self, pair: ModelPair, *, samples: int = SAMPLES, price_ratio: float | None = PRICE_RATIO
    ) -> None:
        self.pair = pair
        self.samples = samples
        self.price_ratio = price_ratio
        self.checks = make_checks(samples)
        self.rows: list[Row] = []
        self.learned: Learned | None = None
        self._measurer = Measurer(pair, self.checks)

    @property
    def names(self) -> Names:
        """Names of the small and the large model."""
        return self.pair.small.name, self.pair.large.name

    @property
    def fitted(self) -> list[Row]:
        """The rows of the fitting questions."""
        return [row for row in self.rows if row.part == "fit"]

    @property
    def routed(self) -> list[Row]:
        """The rows of the questions that the mix answered."""
        return [row for row in self.rows if row.part == "routed"]

    def run(self, questions: Sequence[Question]) -> Iterator[Row]:
        """Measure a third of the questions and route the rest, skipping those that have a row.

        Raises:
            AutoMixError: A model failed, or nothing can be learned from the first third.
        """
        cut = fit_part(questions)
        yield from self.measure(questions[:cut])
        yield from self.route(questions[cut:])

    def measure(self, questions: Sequence[Question]) -> Iterator[Row]:
        """Let both models answer, and make all checks.

        Raises:
            AutoMixError: A model failed.
        """
        done = {row.question.id for row in self.rows}
        for question in questions:
            if question.id not in done:
                row = self._measurer.measure(question)
                self.rows.append(row)
                yield row

    def learn(self) -> Learned:
        """Learn from the measured rows, only once.

        Raises:
            AutoMixError: Nothing can be learned from them.
        """
        if self.learned is None:
            self.learned = learn(self.fitted, self.names, self.price_ratio, self.checks)
        return self.learned

    def mix(self) -> AutoMixRunnable:
        """Return the mix of both models with the best check and the fitted policy."""
        return AutoMixRunnable.from_policy(
            self.learn().router,
            self.pair.small.chat,
            self.pair.large.chat,
            other_models=True,  # the same models, under `provider:model` names
            prompt=PROMPT,
        )

    def route(self, questions: Sequence[Question]) -> Iterator[Row]:
        """Let the mix answer; in a replay, also look up what the other checks found.

        Raises:
            AutoMixError: A model failed, or nothing can be learned from the measured questions.
        """
        mix, check = self.mix(), self.learn().check
        done = {row.question.id for row in self.rows}
        for question in questions:
            if question.id in done:
                continue
            row = self._measurer.route(question, mix, check)
            if self.pair.is_replay:
                recorded = self._measurer.measure(question)
                row = replace(
                    row, small=recorded.small, large=recorded.large, checks=recorded.checks
                )
            self.rows.append(row)
            yield row


def fit_part(questions: Sequence[Question]) -> int:
    """Return how many questions to fit on: about a third, with no passage in both parts."""
    third = len(questions) / 3
    cuts = [i for i in range(1, len(questions)) if questions[i].context != questions[i - 1].context]
    return min(cuts, key=lambda i: abs(i - third)) if cuts else max(1, round(third))


def has_something_to_weigh(demo: Demo, price_ratio: float | None) -> bool:
    """Whether the large model is the dearer one on both parts, at this price."""
    return all(
        is_dearer(routing_log(rows, demo.names, price_ratio)) for rows in (demo.fitted, demo.routed)
    )
