"""Feedback from LangSmith, as grades of the answers that were given."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_automix.calibration.langsmith.log import RUNS_A_REQUEST, Grades
from langchain_automix.calibration.langsmith.traces import SkippedRun
from langchain_automix.errors import AutoMixError
from langchain_automix.learning.records import GradeRecord, StoredQuery
from langchain_automix.utils.formatting import pluralize

if TYPE_CHECKING:
    from langsmith import Client
    from langsmith.schemas import Run

    from langchain_automix.learning.store.store import LearningStore

_FIELDS = ("id", "name", "run_type", "trace_id", "start_time")


@dataclass(frozen=True, slots=True)
class Synced:
    """What was read from LangSmith."""

    source: str
    """What the grades are called: `langsmith:KEY`."""

    traced: int
    """Queries of the store with a run in the project."""

    graded: int
    """Of them, those with feedback."""

    written: int
    """Grades that are new, or have changed."""

    unusable: int
    """Queries whose feedback lies outside [0, 1]."""

    def __str__(self) -> str:
        text = (
            f"{pluralize(self.traced, 'query', 'queries')} with a run in the project, "
            f"{self.graded:,} of them with feedback; {pluralize(self.written, 'grade')} of "
            f"{self.source} written."
        )
        if self.unusable:
            text += f" {self.unusable:,} have feedback outside [0, 1], which was left out."
        return text


def sync_langsmith(
    store: LearningStore,
    project: str,
    key: str = "correctness",
    client: Client | None = None,
    epoch: str | None = None,
) -> Synced:
    """Read the feedback on a mix's runs, as grades of the answers that it gave.

    It is that on the mix's own run, or else on the root of its trace where the trace holds no
    other query of the store. Read again, nothing changes but what has changed in LangSmith.

    Args:
        store: The store.
        project: Name of the tracing project.
        key: Key of the feedback whose score, in [0, 1], is the quality (the mean, where there are
            several).
        client: LangSmith client. None: one from the environment.
        epoch: None: that of the newest query.

    Raises:
        AutoMixError: The store holds no query yet, or LangSmith cannot be read.
    """
    epoch = store.newest_epoch() if epoch is None else epoch
    if epoch is None:
        raise AutoMixError(f"The learning store {store.name} holds no query yet.")
    stored = {
        each.query.run_id: each
        for each in store.read(epoch)[0]
        if each.query.run_id is not None and each.query.kept is not None
    }
    if client is None:
        import langsmith  # noqa: PLC0415  (only here is it needed)

        client = langsmith.Client()
    client.flush()  # what this process has traced but not yet sent
    source, grades = f"langsmith:{key}", Grades(client, key)
    project_id = _project(client, project)
    runs = {str(run.id): run for run in _runs(client, project_id, list(stored))}
    traces = Counter(str(run.trace_id) for run in runs.values())
    alone = [trace for trace, queries in traces.items() if queries == 1 and trace not in runs]
    roots = {str(run.id): run for run in _runs(client, project_id, alone)}
    grades.fetch([*runs.values(), *roots.values()])
    return _write(store, stored, runs, roots, grades, source)


def _write(
    store: LearningStore,
    stored: Mapping[str, StoredQuery],
    runs: Mapping[str, Run],
    roots: Mapping[str, Run],
    grades: Grades,
    source: str,
) -> Synced:
    graded, unusable, new = 0, 0, list[GradeRecord]()
    for id, run in runs.items():
        root = roots.get(str(run.trace_id))
        try:
            quality = grades.of(run, *([] if root is None else [root]))
        except SkippedRun:
            unusable += 1
            continue
        if quality is None:
            continue
        graded += 1
        new += _changed(stored[id], quality, source)
    store.add(new)
    return Synced(source, len(runs), graded, len(new), unusable)


def _changed(each: StoredQuery, quality: float, source: str) -> Iterator[GradeRecord]:
    """Yield the grade, unless the store has it."""
    model = each.query.kept
    known = any(
        (grade.model, grade.source, grade.quality) == (model, source, quality)
        for grade in each.grades
    )
    if model is not None and not known:
        yield GradeRecord(each.query.id, model, quality, source, time.time())


def _project(client: Client, name: str) -> Any:
    from langsmith.utils import LangSmithError  # noqa: PLC0415  (only here is it needed)

    try:
        return client.read_project(project_name=name).id
    except LangSmithError as error:
        raise AutoMixError(f"The LangSmith project {name!r} cannot be read: {error}") from error


def _runs(client: Client, project_id: Any, ids: Sequence[str]) -> Iterator[Run]:
    """Yield the runs of a project among some ids."""
    for start in range(0, len(ids), RUNS_A_REQUEST):
        some = ids[start : start + RUNS_A_REQUEST]
        with warnings.catch_warnings():
            # Newer clients would rather have `runs.query`, which older servers do not have.
            warnings.filterwarnings("ignore", message="list_runs")
            found = client.list_runs(project_id=project_id, run_ids=some, select=list(_FIELDS))
        yield from found
