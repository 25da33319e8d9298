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
from langchain_automix.local.models import CONTEXT_TOKENS, ModelPair
from langchain_automix.mix.runnable import AutoMixRunnable
from langchain_automix.policy.data.log import RoutingLog
from langchain_automix.routers.base import ask
from langchain_automix.routers.baselines import ReleasedPOMDPRouter
from langchain_automix.types import Decision, RoutingState, Verification
from langchain_automix.verifiers.base import VerifierInput
from langchain_automix.verifiers.self_verifier import SelfVerifier

Half = Literal["fit", "report"]
VERDICT_TOKENS = 80
# Price of an output token in input tokens: providers mostly charge from 4 to 8.
OUTPUT_PRICE = 5

PROMPT = ANSWER_FROM_CONTEXT


@dataclass(frozen=True)
class Spent:
    """Time and tokens of one stage."""

    seconds: float
    tokens_in: int
    tokens_out: int

    @property
    def units(self) -> float:
        """Its cost, where a token read costs one unit and the models cost the same."""
        return self.tokens_in + OUTPUT_PRICE * self.tokens_out


@dataclass(frozen=True)
class Answered:
    """One model's answer to one question, graded."""

    text: str
    correct: bool
    spent: Spent


@dataclass(frozen=True)
class Row:
    """One question, with all that was measured on it."""

    question: Question
    half: Half
    small: Answered
    check: Verification
    check_spent: Spent
    large: Answered
    record: dict[str, Any]
    """AutoMix's record of the query; on the fit half it always asks both models."""

    @property
    def escalated(self) -> bool:
        """Whether the mix asked the large model."""
        return bool(self.record["escalated"])

    @property
    def final(self) -> Answered:
        """The kept answer."""
        return self.large if self.record["model_index"] else self.small


class CallMeter(BaseCallbackHandler):
    """Times the runs that AutoMix names in its trace, and keeps the replies and the check."""

    run_inline = True

    def __init__(self, pair: ModelPair) -> None:
        self._clock = pair.clock
        self._started: dict[Any, tuple[str, float]] = {}
        self.seconds: dict[str, float] = {}
        self.replies: dict[str, AIMessage] = {}
        self.verification = Verification()

    @override
    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self._started[kwargs["run_id"]] = (kwargs.get("name") or "", self._clock())

    @override
    def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
        self._started[kwargs["run_id"]] = (kwargs.get("name") or "", self._clock())

    @override
    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.replies[self._stop(kwargs["run_id"])] = response.generations[0][0].message

    @override
    def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
        self._stop(kwargs["run_id"])
        if isinstance(outputs, Verification):
            self.verification = outputs

    def _stop(self, run_id: Any) -> str:
        name, start = self._started.pop(run_id)
        self.seconds[name] = self._clock() - start
        return name


class Demo:
    """Runs the questions through both models and the mix.

    On the fit half both models answer everything, and the router is fitted to that: the
    paper's own rule, which checks every answer, so that every step shows. (The full
    `POMDPRouter` leaves out a check that is not worth its price; the summary says what it
    would do.) On the other half the mix decides; where it keeps the small answer, the large
    model is asked afterwards for comparison, which does not count as the mix's cost.

    Args:
        pair: The two models.
        samples: Verdicts drawn for one answer.
        price_ratio: Price of a token of the large model, in tokens of the small one, for the
            router's decisions; None takes the measured seconds.
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
        """Measure the questions one by one, in order, skipping those that already have a row.

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
        """Fill the small model's prompt cache with the beginning of every check."""
        asked: VerifierInput = {"question": "Which?", "context": "This.", "answer": "This."}
        self._verifier.for_model(self.pair.small.chat).invoke({**asked, "samples": 1})

    def measure(self, question: Question, mix: AutoMixRunnable, half: Half) -> Row:
        """Put one question to the mix, and to the large model if the mix did not ask it."""
        try:
            return self._measure(question, mix, half)
        except Exception as error:
            raise self.pair.explain(error) from error

    def _measure(self, question: Question, mix: AutoMixRunnable, half: Half) -> Row:
        meter = CallMeter(self.pair)
        kept = mix.invoke(question.model_dump(), {"callbacks": [meter]})
        # The mix survives a failed call, but a measurement needs every one.
        for failed in kept.response_metadata["automix"]["failed"]:
            raise QueryFailedError(f"{failed['error']} of {failed['model']} ({failed['stage']})")
        if "escalate" not in meter.replies:
            chain = PROMPT | self.pair.large.chat.with_config(run_name="escalate")
            chain.invoke(question.model_dump(), {"callbacks": [meter]})
        return Row(
            question=question,
            half=half,
            small=_graded(question, meter, "draft"),
            check=meter.verification,
            check_spent=self._check_spent(meter),
            large=_graded(question, meter, "escalate"),
            record=kept.response_metadata["automix"],
        )

    def _check_spent(self, meter: CallMeter) -> Spent:
        check, count = meter.verification, self.pair.small.count_tokens
        usages = [call.usage for call in check.calls if call.usage is not None]
        return Spent(
            meter.seconds.get("SelfVerifier", 0.0),
            sum(usage["input_tokens"] for usage in usages),
            sum(map(count, check.replies))
            if count is not None
            else sum(usage["output_tokens"] for usage in usages),
        )


def _graded(question: Question, meter: CallMeter, stage: str) -> Answered:
    reply = meter.replies[stage]
    text = " ".join(str(reply.text).split())
    usage = reply.usage_metadata
    tokens = (usage["input_tokens"], usage["output_tokens"]) if usage else (0, 0)
    correct = exact_match(text, question.references) == 1
    return Answered(text, correct, Spent(meter.seconds[stage], *tokens))


def fit_half(questions: Sequence[Question]) -> int:
    """Return how many questions to fit on: about half, with no passage in both halves."""
    middle = len(questions) / 2
    cuts = [i for i in range(1, len(questions)) if questions[i].context != questions[i - 1].context]
    return min(cuts, key=lambda i: abs(i - middle)) if cuts else round(middle)


def routing_log(rows: Sequence[Row], pair: ModelPair, price_ratio: float | None) -> RoutingLog:
    """Return the rows as a routing log.

    Args:
        rows: Questions that both models answered.
        pair: The two models.
        price_ratio: Price of a token of the large model, in tokens of the small one; None
            takes the measured seconds.
    """
    return RoutingLog(_logged(row, pair, price_ratio) for row in rows)


def _logged(row: Row, pair: ModelPair, price_ratio: float | None) -> dict[str, Any]:
    small, large, check = row.small.spent, row.large.spent, row.check_spent
    # An empty answer is not checked; it is unknown, like a check without a valid verdict.
    verdicts = row.check.verdicts or (None,)
    if price_ratio is None:
        costs = (small.seconds, large.seconds)
        # Most of the prompt comes from the cache: the time goes into writing.
        fixed_cost, sample_cost = 0.0, check.seconds / len(verdicts)
    else:
        costs = (small.units, large.units * price_ratio)
        fixed_cost = float(check.tokens_in)
        sample_cost = OUTPUT_PRICE * check.tokens_out / len(verdicts)
    verification = {"verdicts": verdicts, "fixed_cost": fixed_cost, "sample_cost": sample_cost}
    small_answer, large_answer = (
        {"model": model.name, "quality": float(answered.correct), "cost": cost}
        for model, answered, cost in zip(
            (pair.small, pair.large), (row.small, row.large), costs, strict=True
        )
    )
    return {
        "id": row.question.id,
        "answers": [{**small_answer, "verification": verification}, large_answer],
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
