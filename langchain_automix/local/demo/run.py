"""The demo's run: answer, check, fit the router on one half, route the other half."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableLambda
from typing_extensions import override

from langchain_automix.calibration.config import ANSWER_FROM_CONTEXT
from langchain_automix.calibration.graders.text import exact_match
from langchain_automix.errors import QueryFailedError
from langchain_automix.local.demo.questions import Question
from langchain_automix.local.models import CONTEXT_TOKENS, Model, ModelPair
from langchain_automix.mix.runnable import AutoMixRunnable
from langchain_automix.models.usage import UsageCollector
from langchain_automix.policy.data.log import RoutingLog
from langchain_automix.routers.base import ask
from langchain_automix.routers.baselines import ReleasedPOMDPRouter
from langchain_automix.types import Decision, RoutingState, Verification
from langchain_automix.verifiers.base import VerifierInput
from langchain_automix.verifiers.self_verifier import SelfVerifier

Half = Literal["fit", "report"]
VERDICT_TOKENS = 80
# What providers charge for a token written against one read; most stand between 4 and 8.
OUTPUT_PRICE = 5

PROMPT = ANSWER_FROM_CONTEXT


@dataclass(frozen=True)
class Spent:
    """What one stage took."""

    seconds: float
    tokens_in: int
    tokens_out: int

    @property
    def units(self) -> float:
        """Its price at one unit a token read, before any price ratio between models."""
        return self.tokens_in + OUTPUT_PRICE * self.tokens_out


@dataclass(frozen=True)
class Answered:
    """One model's answer to one question, graded."""

    text: str
    correct: bool
    spent: Spent


@dataclass(frozen=True)
class Row:
    """One question, all the way."""

    question: Question
    half: Half
    small: Answered
    check: Verification
    check_spent: Spent
    large: Answered
    record: dict[str, Any]
    """What AutoMix did, as it stands on the message; on the fit half it always asks both."""

    @property
    def final(self) -> Answered:
        """The kept answer."""
        return self.large if self.record["model_index"] else self.small


class CallMeter(BaseCallbackHandler):
    """Takes the time and the bill of the runs that AutoMix names in its trace."""

    run_inline = True

    def __init__(self, pair: ModelPair) -> None:
        self._clock = pair.clock
        self._started: dict[Any, tuple[str, float]] = {}
        self._bill = UsageCollector()
        self.seconds: dict[str, float] = {}
        self.replies: dict[str, AIMessage] = {}
        self.verification = Verification()

    @override
    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self._start(**kwargs)

    @override
    def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
        self._start(**kwargs)

    @override
    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        name = self._end(**kwargs)
        self._bill.on_llm_end(response, **kwargs)
        self.replies[name] = self._bill.replies[0]

    @override
    def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
        self._end(**kwargs)
        if isinstance(outputs, Verification):
            self.verification = outputs

    def _start(self, *, run_id: Any, name: str | None = None, **_: Any) -> None:
        self._started[run_id] = (name or "", self._clock())

    def _end(self, *, run_id: Any, **_: Any) -> str:
        name, start = self._started.pop(run_id)
        self.seconds[name] = self._clock() - start
        return name


class Demo:
    """Runs the questions through both models and the mix.

    On the fit half both models answer everything, and the router is fitted to that: the
    paper's own rule, which checks every answer, so that every step is seen. (The full
    `POMDPRouter` leaves out a check that is not worth its price; the summary says what it
    would do.) On the other half the mix decides; where it keeps the small answer, the large
    model is asked afterwards for comparison, which is not counted as the mix's.

    Args:
        pair: The two models.
        samples: Verdicts drawn for one answer.
        price_ratio: What a token of the large model costs, in tokens of the small one, for
            the router's decisions; None takes the measured seconds.
    """

    def __init__(
        self, pair: ModelPair, *, samples: int = 8, price_ratio: float | None = 17
    ) -> None:
        self.pair = pair
        self.samples = samples
        self.price_ratio = price_ratio
        self.rows: list[Row] = []
        self.router: ReleasedPOMDPRouter | None = None
        self._verifier = SelfVerifier(
            samples=samples,
            max_tokens=VERDICT_TOKENS,
            max_input_tokens=CONTEXT_TOKENS - VERDICT_TOKENS - 256,
        )

    def mix(self, router: Runnable[Any, Any]) -> AutoMixRunnable:
        """Return the mix of both models with this router."""
        return AutoMixRunnable(
            models=[self.pair.small.chat, self.pair.large.chat],
            verifier=self._verifier,
            router=router,
            prompt=PROMPT,
        )

    def run(self, questions: Sequence[Question]) -> Iterator[Row]:
        """Take the questions one by one, in order, after those that already have a row.

        Raises:
            AutoMixError: A model failed.
        """
        half = fit_half(questions)
        mix = self.mix(RunnableLambda(_always_both))
        for i, question in enumerate(questions):
            if i < len(self.rows):
                continue
            if i == half:
                log = routing_log(self.rows, self.pair, self.price_ratio)
                self.router = ReleasedPOMDPRouter.fit(log, verifier=self._verifier.fingerprint)
                mix = self.mix(self.router)
            row = self.measure(question, mix, "fit" if i < half else "report")
            self.rows.append(row)
            yield row

    def warm_up(self) -> None:
        """Have the small model read the worked checks once, which every check begins with."""
        asked: VerifierInput = {"question": "Which?", "context": "This.", "answer": "This."}
        self._verifier.for_model(self.pair.small.chat).invoke({**asked, "samples": 1})

    def measure(self, question: Question, mix: AutoMixRunnable, half: Half) -> Row:
        """Take one question through the mix, and ask the large model too if the mix did not."""
        try:
            return self._measure(question, mix, half)
        except Exception as error:
            raise self.pair.explain(error) from error

    def _measure(self, question: Question, mix: AutoMixRunnable, half: Half) -> Row:
        meter = CallMeter(self.pair)
        kept = mix.invoke(question.model_dump(), {"callbacks": [meter]})
        # The mix goes on where a call fails; what is measured here needs every one.
        for failed in kept.response_metadata["automix"]["failed"]:
            raise QueryFailedError(f"{failed['error']} of {failed['model']} ({failed['stage']})")
        if "escalate" not in meter.replies:
            chain = PROMPT | self.pair.large.chat.with_config(run_name="escalate")
            chain.invoke(question.model_dump(), {"callbacks": [meter]})
        return Row(
            question=question,
            half=half,
            small=self._answered(question, meter, "draft"),
            check=meter.verification,
            check_spent=self._check_spent(meter),
            large=self._answered(question, meter, "escalate"),
            record=kept.response_metadata["automix"],
        )

    def _answered(self, question: Question, meter: CallMeter, stage: str) -> Answered:
        reply = meter.replies[stage]
        text = " ".join(str(reply.text).split())
        usage = reply.usage_metadata
        spent = Spent(
            meter.seconds[stage],
            usage["input_tokens"] if usage else 0,
            usage["output_tokens"] if usage else 0,
        )
        return Answered(text, exact_match(text, question.references) == 1, spent)

    def _check_spent(self, meter: CallMeter) -> Spent:
        check = meter.verification
        usages = [call.usage for call in check.calls if call.usage is not None]
        count = self.pair.small.count_tokens
        return Spent(
            meter.seconds.get("SelfVerifier", 0.0),
            sum(usage["input_tokens"] for usage in usages),
            sum(usage["output_tokens"] for usage in usages)
            if count is None
            else _tokens(self.pair.small, check.replies),
        )


def fit_half(questions: Sequence[Question]) -> int:
    """Return how many of the questions to fit on: about half, and no passage in both halves."""
    middle = len(questions) / 2
    cuts = [i for i in range(1, len(questions)) if questions[i].context != questions[i - 1].context]
    return min(cuts, key=lambda i: abs(i - middle)) if cuts else round(middle)


def routing_log(rows: Sequence[Row], pair: ModelPair, price_ratio: float | None) -> RoutingLog:
    """Return the rows as a routing log.

    Args:
        rows: Questions that both models answered.
        pair: The two models.
        price_ratio: Prices a token of the large model in tokens of the small one; None takes
            the measured seconds.
    """
    return RoutingLog(_logged(row, pair, price_ratio) for row in rows)


def _logged(row: Row, pair: ModelPair, price_ratio: float | None) -> dict[str, Any]:
    spent = (row.small.spent, row.large.spent)
    # An empty answer is not checked: that is unknown, like a check without a valid verdict.
    verdicts = row.check.verdicts or (None,)
    if price_ratio is None:
        costs = [part.seconds for part in spent]
        # The prompt comes from the cache for the most part: the time goes into writing.
        fixed, each = 0.0, row.check_spent.seconds / len(verdicts)
    else:
        costs = [spent[0].units, spent[1].units * price_ratio]
        fixed = float(row.check_spent.tokens_in)
        each = OUTPUT_PRICE * row.check_spent.tokens_out / len(verdicts)
    answers: list[dict[str, Any]] = [
        {"model": model.name, "quality": float(answered.correct), "cost": cost}
        for model, answered, cost in zip(
            (pair.small, pair.large), (row.small, row.large), costs, strict=True
        )
    ]
    answers[0]["verification"] = {"verdicts": verdicts, "fixed_cost": fixed, "sample_cost": each}
    return {
        "id": row.question.id,
        "answers": answers,
        "currency": "second" if price_ratio is None else "small-model input token",
        "metadata": {
            "question": row.question.question,
            "references": row.question.references,
            "answers": [row.small.text, row.large.text],
            "replies": row.check.replies,
        },
    }


def _always_both(state: RoutingState) -> Decision:
    return ask(state, 1, why="On the fit half both models answer every question.")


def _tokens(model: Model, replies: Sequence[str]) -> int:
    assert model.count_tokens is not None  # noqa: S101
    return sum(model.count_tokens(reply) for reply in replies)
