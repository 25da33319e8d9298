"""Build a routing log from LangSmith's traces and their feedback."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from langchain_automix.calibration.graders.text import Grader, accepted_answers
from langchain_automix.calibration.langsmith.traces import (
    CostOf,
    SkippedRun,
    TracedAnswer,
    TracedQuery,
    Traces,
    logged_check,
)
from langchain_automix.errors import AutoMixError
from langchain_automix.models.prices import CURRENCY, cost_of
from langchain_automix.policy.data.log import RoutingLog
from langchain_automix.utils.user_warnings import warn_user

if TYPE_CHECKING:
    from langsmith import Client
    from langsmith.schemas import Feedback, Run


Quality = str | Callable[["Run", Sequence["Feedback"]], float | None]
"""Key of the feedback with the quality, or a callable that returns the quality; None if there is
none."""

# fmt: off
_FIELDS = (
    "id", "name", "run_type", "parent_run_id", "trace_id", "session_id", "reference_example_id",
    "start_time", "end_time", "error", "tags", "extra", "inputs", "outputs",
)
# fmt: on
RUNS_A_REQUEST = 50
"""Maximum number of runs in one request, since their ids are part of the address."""


def log_from_langsmith(
    project: str | Sequence[str] | None = None,
    *,
    dataset: str | None = None,
    quality: Quality = "correctness",
    grader: Grader | None = None,
    reference: str | None = None,
    models: Sequence[str] | None = None,
    client: Client | None = None,
    cost_of: CostOf = cost_of,
    start_time: datetime | None = None,
) -> RoutingLog:
    """Build a routing log from traced queries and their feedback.

    Feedback on a query's run is the quality of the answer that was kept; so is feedback on the root
    of its trace, unless the trace contains another query. Feedback on the run of a draft is the
    quality of that draft. Answers without feedback, and models that were not run, stay unknown.

    With a dataset, each example is one query, and its experiments are combined. The newest run of a
    mix gives the checks. Other runs of the mix, and experiments in which a single model answered,
    give the quality and cost of models that this run did not ask, and the quality of identical
    answers. They tell nothing about a different answer.

    Runs that failed, are incomplete or have no grade are left out, and counted in a warning.
    Another warning counts the queries for which every model's quality and cost are known. A policy
    is fitted to those only, and if the router chose them they are not a random sample. To know all
    of them, run every model over the dataset once, for example with `evaluate_on_langsmith`.

    Args:
        project: Name of a tracing project or experiment, or several names.
        dataset: Name of a dataset whose experiments are read; with `project`, only those.
        quality: Key of the feedback whose score, in [0, 1], is the quality (the mean if there are
            several scores); or a callable from a run and its feedback to the quality.
        grader: With a dataset: grades every traced answer without a grade, including rejected
            drafts, against the accepted answers of the example.
        reference: Name of the output with the accepted answer, or with a list of them. None: the
            only output.
        models: Names of the models, cheap to expensive; runs of other mixes are left out. None:
            those in the traces, if they agree.
        client: LangSmith client. None: one configured by the environment.
        cost_of: Returns the cost of requests in US dollars, or None if unknown. The default uses
            the price list of `langchain_automix.models.prices`.
        start_time: If given, only runs that started at this time or later are read.

    Raises:
        AutoMixError: Neither a project nor a dataset is given, the runs belong to several mixes, or
            no run can be used.
    """
    if project is None and dataset is None:
        raise AutoMixError("Give the name of a project or of a dataset in LangSmith.")
    if client is None:
        import langsmith  # noqa: PLC0415  (only here is it needed)

        client = langsmith.Client()
    client.flush()  # send what this process has traced
    runs = itertools.chain.from_iterable(
        _runs(client, each, start_time) for each in _project_ids(client, project, dataset)
    )
    accepted = {}
    if grader is not None and dataset is not None:
        accepted = {
            example.id: accepted_answers(example.outputs, reference)
            for example in client.list_examples(dataset_name=dataset)
        }
    builder = _LogBuilder(Traces.of(runs), cost_of, grader, accepted)
    builder.read(Grades(client, quality))
    names = tuple(models) if models is not None else builder.models()
    records = builder.by_example(names) if dataset is not None else builder.by_run(names)
    log = RoutingLog(list(records))
    _warn_skipped(builder.skipped, len(log))
    _warn_gaps(log)
    return log


def _project_ids(
    client: Client, project: str | Sequence[str] | None, dataset: str | None
) -> Iterator[Any]:
    """Find projects by name, or those with experiments on a dataset."""
    if project is None:
        for session in client.list_projects(reference_dataset_name=dataset):
            yield session.id
        return
    for name in [project] if isinstance(project, str) else project:
        yield client.read_project(project_name=name).id


def _runs(client: Client, project_id: Any, start_time: datetime | None) -> Iterator[Run]:
    with warnings.catch_warnings():
        # Newer clients recommend `runs.query`, which older servers do not have.
        warnings.filterwarnings("ignore", message="list_runs")
        runs = client.list_runs(project_id=project_id, select=list(_FIELDS), start_time=start_time)
    return iter(runs)


class Grades:
    """The qualities that feedback assigns to runs.

    Args:
        client: LangSmith client.
        quality: Key of the feedback to use, or a callable that returns the quality.
    """

    def __init__(self, client: Client, quality: Quality) -> None:
        self._client = client
        self._quality = quality
        self._feedback: dict[Any, list[Feedback]] = defaultdict(list)

    def fetch(self, runs: Iterable[Run]) -> None:
        """Read the feedback on runs, dozens of runs in one request."""
        ids = list(dict.fromkeys(run.id for run in runs))
        key = [self._quality] if isinstance(self._quality, str) else None
        for start in range(0, len(ids), RUNS_A_REQUEST):
            some = ids[start : start + RUNS_A_REQUEST]
            for feedback in self._client.list_feedback(run_ids=some, feedback_key=key):
                self._feedback[feedback.run_id].append(feedback)

    def of(self, *runs: Run) -> float | None:
        """Return the quality of the first of these runs that is graded; None if none is.

        Raises:
            SkippedRun: A grade is outside [0, 1].
        """
        for run in runs:
            feedback = self._feedback.get(run.id, [])
            if isinstance(self._quality, str):
                scores = [float(each.score) for each in feedback if each.score is not None]
                quality = sum(scores) / len(scores) if scores else None
            else:
                quality = self._quality(run, feedback)
            if quality is not None:
                if not 0 <= quality <= 1:
                    raise SkippedRun("its quality lies outside [0, 1]")
                return float(quality)
        return None

    def has(self, run: Run) -> bool:
        """Return whether there is any feedback on a run."""
        return bool(self._feedback.get(run.id))


_Known = tuple[TracedAnswer, float]
"""A model's answer to an example, and its quality."""


@dataclass
class _LogBuilder:
    """Collects the usable queries of the traces, with their qualities."""

    traces: Traces
    cost_of: CostOf
    grader: Grader | None = None
    accepted: Mapping[Any, Sequence[str]] = field(default_factory=dict)
    """Accepted answers for the grader, by example."""

    queries: list[TracedQuery] = field(default_factory=list)
    qualities: dict[Any, dict[str, float]] = field(default_factory=dict)
    """Quality of each graded answer, by run of the mix and by model."""

    known: dict[Any, dict[str, list[_Known]]] = field(default_factory=dict)
    """Answers with their qualities, by example and by model."""

    skipped: Counter[str] = field(default_factory=Counter)

    def read(self, grades: Grades) -> None:
        """Read every query of a mix, and every answer of a single model to an example."""
        mixes = self.traces.mixes()
        queries: list[TracedQuery] = []
        for run in itertools.chain.from_iterable(mixes.values()):
            with self._counting_skipped():
                queries.append(self.traces.query(run, self.cost_of))
        queries.sort(key=lambda query: query.run.start_time, reverse=True)
        grades.fetch(self._runs_with_feedback(queries, mixes))
        for query in queries:
            with self._counting_skipped():
                self._grade(query, grades, alone=len(mixes[query.run.trace_id]) == 1)
                self.queries.append(query)
        for root in reversed(self.traces.roots):
            if root.reference_example_id is not None and root.trace_id not in mixes:
                with self._counting_skipped():
                    self._grade_single(root, grades)

    @contextlib.contextmanager
    def _counting_skipped(self) -> Iterator[None]:
        try:
            yield
        except SkippedRun as why:
            self.skipped[str(why)] += 1

    def _runs_with_feedback(
        self, queries: Iterable[TracedQuery], mixes: Mapping[Any, Any]
    ) -> Iterator[Run]:
        for query in queries:
            yield query.run
            yield from (answer.run for answer in query.answers.values())
        for root in self.traces.roots:
            if root.trace_id in mixes or root.reference_example_id is not None:
                yield root

    def _grade(self, query: TracedQuery, grades: Grades, *, alone: bool) -> None:
        root = self._root(query)
        qualities = {}
        for name, answer in query.answers.items():
            graded = [answer.run] if grades.has(answer.run) else []
            if name == query.kept:
                graded += [query.run, *([root] if alone and root is not None else [])]
            quality = grades.of(*graded)
            quality = self._grade_by_references(root, answer) if quality is None else quality
            if quality is not None:
                qualities[name] = quality
        if not qualities:
            raise SkippedRun("it has no grade")
        self.qualities[query.run.id] = qualities
        for name, quality in qualities.items():
            self._remember(root, name, (query.answers[name], quality))

    def _grade_single(self, root: Run, grades: Grades) -> None:
        quality = grades.of(root)
        answered = self.traces.single(root, self.cost_of)
        if answered is None:
            return
        name, answer = answered
        quality = self._grade_by_references(root, answer) if quality is None else quality
        if quality is not None:
            self._remember(root, name, (answer, quality))

    def _grade_by_references(self, root: Run | None, answer: TracedAnswer) -> float | None:
        accepted = None if root is None else self.accepted.get(root.reference_example_id)
        if self.grader is None or accepted is None or answer.text is None:
            return None
        return self.grader(answer.text, accepted)

    def _remember(self, root: Run | None, name: str, known: _Known) -> None:
        if root is not None and root.reference_example_id is not None:
            of_example = self.known.setdefault(root.reference_example_id, {})
            of_example.setdefault(name, []).append(known)

    def _root(self, query: TracedQuery) -> Run | None:
        return self.traces.runs.get(query.run.trace_id)

    def models(self) -> tuple[str, ...]:
        """Return the models of the mix.

        Raises:
            AutoMixError: The runs belong to several mixes, or do not name the models.
        """
        mixes = dict.fromkeys(query.models for query in self.queries if query.models)
        if len(mixes) > 1:
            shown = " and ".join(str(list(mix)) for mix in mixes)
            raise AutoMixError(f"The runs are of several mixes, {shown}: choose one with models=.")
        if not mixes and self.queries:
            raise AutoMixError(
                "No run asked a router, so none names all models of the mix: give models=."
            )
        return next(iter(mixes), ())

    def by_run(self, models: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        """Yield a record of each query, with the id of its run."""
        for query in reversed(self.queries):
            yield from self._record(str(query.run.id), query, models, {})

    def by_example(self, models: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        """Yield a record of each example: its newest checked query, and other known answers."""
        chosen: dict[Any, TracedQuery] = {}
        for query in sorted(self.queries, key=lambda query: not query.checks):
            root = self._root(query)
            if root is None or root.reference_example_id is None:
                self.skipped["it belongs to no example"] += 1
            else:
                chosen.setdefault(root.reference_example_id, query)
        for example, query in chosen.items():
            yield from self._record(str(example), query, models, self.known.get(example, {}))

    def _record(
        self,
        name: str,
        query: TracedQuery,
        models: tuple[str, ...],
        known: Mapping[str, Sequence[_Known]],
    ) -> Iterator[dict[str, Any]]:
        with self._counting_skipped():
            if not query.answers.keys() <= set(models) or query.models not in (None, models):
                raise SkippedRun("it is of another mix")
            answers = [self._logged(query, model, known.get(model, ())) for model in models]
            metadata = {"run_id": str(query.run.id), "trace_id": str(query.run.trace_id)}
            yield {"id": name, "answers": answers, "currency": CURRENCY, "metadata": metadata}

    def _logged(self, query: TracedQuery, model: str, known: Sequence[_Known]) -> dict[str, Any]:
        answer = query.answers.get(model)
        if answer is None:
            other, quality = known[0] if known else (None, None)
            return {"model": model, "quality": quality, "cost": other.cost if other else None}
        quality = self.qualities[query.run.id].get(model)
        if quality is None and answer.text:
            quality = next((q for other, q in known if other.text == answer.text), None)
        check = logged_check(query.checks.get(model), self.cost_of)
        return {"model": model, "quality": quality, "cost": answer.cost, "verification": check}


def _warn_skipped(skipped: Counter[str], kept: int) -> None:
    """Warn about runs that were left out.

    Raises:
        AutoMixError: No run is left.
    """
    reasons = "; ".join(f"{count} because {why}" for why, count in skipped.most_common())
    if not kept:
        why = f"left out: {reasons}" if reasons else "there is no run of a mix"
        raise AutoMixError(f"LangSmith holds nothing to build a routing log from ({why}).")
    if skipped:
        warn_user(
            f"{skipped.total()} of {skipped.total() + kept} runs are left out of the routing log: "
            f"{reasons}."
        )


def _warn_gaps(log: RoutingLog) -> None:
    """Warn if a policy can be fitted to only a part of a log."""
    complete = sum(
        all(a["quality"] is not None and a["cost"] is not None for a in record["answers"])
        for record in log.records()
    )
    if complete < len(log):
        warn_user(
            f"The quality and the cost of every model are known for {complete} of {len(log)} "
            "queries. A policy is fitted to these only, and those that a router escalated are not "
            "a random sample: run each model over the same dataset too."
        )
