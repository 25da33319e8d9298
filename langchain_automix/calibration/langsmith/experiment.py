"""Run a chain with a mix in it on a dataset in LangSmith, and grade its answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import InvalidOperation
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult
from langchain_core.runnables import Runnable
from typing_extensions import override

from langchain_automix.calibration.graders.text import Grader, accepted_answers, exact_match
from langchain_automix.models.messages import answer_text
from langchain_automix.models.prices import dollars_of

if TYPE_CHECKING:
    from langsmith import Client
    from langsmith.evaluation import AsyncExperimentResults, ExperimentResults


@dataclass(frozen=True)
class LangSmithExperiment:
    """An experiment in LangSmith, with its results."""

    name: str
    """Name of the experiment, which `log_from_langsmith` reads as a project."""

    results: ExperimentResults | AsyncExperimentResults
    """Its rows, as returned by `langsmith.evaluate`."""

    summary: dict[str, float | int | None]
    """`queries`, `failed`, and means over the other queries: `quality`, `cost`, `escalation_rate`
    and `verification_samples`. A mean is None if the value of any query is unknown."""


def evaluate_on_langsmith(
    target: Runnable[Any, Any],
    dataset: str,
    *,
    quality: Grader = exact_match,
    reference: str | None = None,
    key: str = "correctness",
    client: Client | None = None,
    **settings: Any,
) -> LangSmithExperiment:
    """Run a chain on a dataset in LangSmith, and grade its answers.

    Each run gets feedback: its quality, and, if it has a record of the mix, `automix_cost` (in the
    record's currency), `automix_escalated`, `automix_confidence` and `automix_verdicts` (their
    number). Unknown values are left out.

    Args:
        target: Runnable from an example's inputs to an answer; the mix may be anywhere in it.
        dataset: Name of the dataset.
        quality: Grades the text of an answer against the accepted ones, like the functions in
            `langchain_automix.calibration.graders.text`.
        reference: Name of the output with the accepted answer, or with a list of them. None: the
            only output.
        key: Key of the feedback with the quality, as in `log_from_langsmith`.
        client: LangSmith client. None: one configured by the environment.
        **settings: Other arguments of `langsmith.evaluate`, such as `experiment_prefix`,
            `max_concurrency`, `num_repetitions` or `metadata`.

    Raises:
        AutoMixError: It is unclear which output of an example is the accepted answer.
    """
    import langsmith  # noqa: PLC0415  (only here is it needed)

    client = client or langsmith.Client()
    _Grading(quality, reference, key).add_to(settings, client, dataset)

    def answer(inputs: dict[str, Any]) -> dict[str, Any]:
        records = _Records()
        return records.beside(target.invoke(inputs, {"callbacks": [records]}))

    results = langsmith.evaluate(answer, data=dataset, client=client, **settings)
    rows = list(results)
    client.flush()
    return LangSmithExperiment(results.experiment_name, results, _summary(rows, key))


async def aevaluate_on_langsmith(
    target: Runnable[Any, Any],
    dataset: str,
    *,
    quality: Grader = exact_match,
    reference: str | None = None,
    key: str = "correctness",
    client: Client | None = None,
    **settings: Any,
) -> LangSmithExperiment:
    """Run `evaluate_on_langsmith` asynchronously; the arguments are the same."""
    import langsmith  # noqa: PLC0415

    client = client or langsmith.Client()
    _Grading(quality, reference, key).add_to(settings, client, dataset)

    async def answer(inputs: dict[str, Any]) -> dict[str, Any]:
        records = _Records()
        return records.beside(await target.ainvoke(inputs, {"callbacks": [records]}))

    results = await langsmith.aevaluate(answer, data=dataset, client=client, **settings)
    rows = [row async for row in results]
    client.flush()
    return LangSmithExperiment(results.experiment_name, results, _summary(rows, key))


class _Records(BaseCallbackHandler):
    """Collects the record of a mix, even if the chain converts its message to something else."""

    run_inline = True

    def __init__(self) -> None:
        self.record: dict[str, Any] | None = None

    @override
    def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
        if isinstance(outputs, BaseMessage):
            self._collect(outputs)

    @override
    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        # The output that a chain makes from a message, such as a parsed object, has no record.
        if name == "automix" and isinstance(data, dict) and "alone" in data:
            self.record = data

    @override
    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        for generations in response.generations:
            for generation in generations:
                if isinstance(message := getattr(generation, "message", None), BaseMessage):
                    self._collect(message)

    def _collect(self, message: BaseMessage) -> None:
        self.record = message.response_metadata.get("automix") or self.record

    def beside(self, output: Any) -> dict[str, Any]:
        """Return the output of the experiment's run: the text of the answer, and the record."""
        if isinstance(output, BaseMessage):
            self._collect(output)
            output = answer_text(output)
        shown = output if isinstance(output, dict) else {"output": output}
        return {**shown, "automix": self.record}


@dataclass(frozen=True)
class _Grading:
    quality: Grader
    reference: str | None
    key: str

    def grade(
        self, outputs: dict[str, Any] | None, reference_outputs: dict[str, Any] | None
    ) -> dict[str, Any]:
        """Return the feedback on one run."""
        outputs = outputs or {}
        if "automix" not in outputs:  # the run failed
            return {"results": []}
        accepted = accepted_answers(reference_outputs, self.reference)
        quality = self.quality(str(outputs.get("output", "")), accepted)
        scores = {self.key: quality, **_figures(outputs["automix"] or {})}
        known = {name: float(score) for name, score in scores.items() if score is not None}
        return {"results": [{"key": name, "score": score} for name, score in known.items()]}

    def add_to(self, settings: dict[str, Any], client: Client, dataset: str) -> None:
        """Add the grading to the settings; try it on an example before any model is paid."""
        for example in client.list_examples(dataset_name=dataset, limit=1):
            accepted_answers(example.outputs, self.reference)
        settings["evaluators"] = [self.grade, *settings.get("evaluators", ())]


def _figures(record: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the numbers in a record; None for unknown ones."""
    return {
        "automix_cost": _amount(record.get("cost")),
        "automix_escalated": record.get("escalated"),
        "automix_confidence": record.get("confidence"),
        "automix_verdicts": record.get("drawn"),
    }


def _amount(cost: str | None) -> float | None:
    """Return the number in a cost such as `0.0021 USD`."""
    try:
        return None if cost is None else float(dollars_of(cost))
    except (InvalidOperation, IndexError):
        return None


def _summary(rows: Iterable[Any], key: str) -> dict[str, float | int | None]:
    scores: list[dict[str, float]] = []
    failed = 0
    for row in rows:
        if row["run"].error:
            failed += 1
            continue
        results = row["evaluation_results"]["results"]
        scores.append({each.key: float(each.score) for each in results if each.score is not None})

    def mean(name: str) -> float | None:
        values = [each[name] for each in scores if name in each]
        return sum(values) / len(values) if values and len(values) == len(scores) else None

    return {
        "queries": len(scores) + failed,
        "failed": failed,
        "quality": mean(key),
        "cost": mean("automix_cost"),
        "escalation_rate": mean("automix_escalated"),
        "verification_samples": mean("automix_verdicts"),
    }
