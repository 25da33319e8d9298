"""Read single queries from LangSmith's traces: the models that answered, the checks, and the costs.

A mix is identified by its steps, which are the runs beneath it with a tag `automix:...` of their
own.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage
from pydantic import ValidationError

from langchain_automix.models.messages import answer_text
from langchain_automix.models.usage import to_model_call, without_output
from langchain_automix.types import Decision, ModelCall, RoutingState, Verification

if TYPE_CHECKING:
    from langsmith.schemas import Run


CostOf = Callable[[Sequence[ModelCall]], Decimal | float | None]

_TAG = "automix:"
_VERIFY, _ROUTE = "automix:verify", "automix:route"
_PART_OF_CHECK = "automix:check:"


class SkippedRun(Exception):  # noqa: N818  (not an error: the run lacks information)
    """Why a run is left out of a log."""


@dataclass(frozen=True)
class TracedAnswer:
    """The answer of one model to one query."""

    run: Run
    """The last run of the model, if it was asked more than once."""

    text: str | None
    cost: float | None
    """Cost of all its requests, in US dollars; None if any of them is unknown."""


@dataclass(frozen=True)
class TracedQuery:
    """One query as a mix answered it."""

    run: Run
    answers: Mapping[str, TracedAnswer]
    kept: str
    """Name of the model whose answer was kept."""

    models: tuple[str, ...] | None
    """All models of the mix, cheap to expensive; None if no router was asked."""

    checks: Mapping[str, Verification]


@dataclass
class Traces:
    """Runs of one or more projects, indexed by parent and by trace."""

    runs: dict[Any, Run] = field(default_factory=dict)
    children: dict[Any, list[Run]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def of(cls, runs: Iterable[Run]) -> Traces:
        """Return the runs in order of their start. Only the inputs of routers are kept."""
        traces = cls()
        for run in sorted(map(_drop_inputs, runs), key=lambda run: run.start_time):
            traces.runs[run.id] = run
            traces.children[run.parent_run_id].append(run)
        return traces

    @property
    def roots(self) -> Sequence[Run]:
        """Runs without a parent, in order of their start."""
        return self.children[None]

    def mixes(self) -> dict[Any, list[Run]]:
        """Return the runs that are a mix, by trace."""
        steps = (run for run in self.runs.values() if self._step_tags(run))
        parents = {run.parent_run_id: run.trace_id for run in steps}
        mixes: dict[Any, list[Run]] = defaultdict(list)
        for parent, trace in parents.items():
            if parent in self.runs:
                mixes[trace].append(self.runs[parent])
        return mixes

    def query(self, mix: Run, cost_of: CostOf) -> TracedQuery:
        """Read one run of a mix.

        Raises:
            SkippedRun: The run failed or is incomplete.
        """
        if mix.error:
            raise SkippedRun("the run failed")
        if mix.end_time is None:
            raise SkippedRun("the run is not finished")
        steps: dict[str, list[Run]] = defaultdict(list)
        for step in self.children[mix.id]:
            for tag in self._step_tags(step):
                steps[tag].append(step)
        routed = steps.pop(_ROUTE, [])
        steps.pop(_VERIFY, None)
        answers = {
            tag.removeprefix(_TAG): self._answer(runs, cost_of) for tag, runs in steps.items()
        }
        models, checks = _evidence(routed)
        kept = _kept(mix, routed, models) or (next(iter(answers)) if len(answers) == 1 else None)
        if kept is None:
            raise SkippedRun("it does not say whose answer was kept")
        if kept not in answers:
            raise SkippedRun("the run of the kept answer is missing")
        return TracedQuery(mix, answers, kept, models, checks)

    def single(self, root: Run, cost_of: CostOf) -> tuple[str, TracedAnswer] | None:
        """Return the only model in a trace without a mix, and its answer; None if several."""
        calls = list(self._model_runs(root))
        names = {(run.extra or {}).get("metadata", {}).get("ls_model_name") for run in calls}
        if len(names) != 1 or None in names or root.error:
            return None
        return names.pop(), self._answer([root], cost_of)

    def _step_tags(self, run: Run) -> set[str]:
        """Return the tags that make a run a step of its parent; a step's children inherit them.

        One check of several is not a step, because its parent is a check rather than a mix.
        """
        parent = self.runs.get(run.parent_run_id)
        inherited = (parent.tags if parent else None) or ()
        own = {tag for tag in run.tags or () if tag.startswith(_TAG)} - set(inherited)
        return {tag for tag in own if not tag.startswith(_PART_OF_CHECK)}

    def _answer(self, runs: Sequence[Run], cost_of: CostOf) -> TracedAnswer:
        calls: list[ModelCall] = []
        text = None
        for run in runs:
            for call in self._model_runs(run):
                output = call.outputs or {}
                messages = _messages(output)
                if messages:
                    calls.append(to_model_call(messages, output.get("llm_output")))
                    text = answer_text(messages[0])
        cost = cost_of(calls) if calls else None
        return TracedAnswer(runs[-1], text, None if cost is None else float(cost))

    def _model_runs(self, run: Run) -> Iterator[Run]:
        if run.run_type == "llm" and not self.children[run.id]:
            if not run.error:
                yield run
            return
        for child in self.children[run.id]:
            yield from self._model_runs(child)


def _drop_inputs(run: Run) -> Run:
    if _ROUTE not in (run.tags or ()):
        run.inputs = {}
    return run


def _evidence(routed: Sequence[Run]) -> tuple[tuple[str, ...] | None, dict[str, Verification]]:
    """Return the models and the checks in the last request to the router."""
    if not routed:
        return None, {}
    try:
        state = RoutingState.model_validate(routed[-1].inputs.get("input"))
    except ValidationError as error:
        raise SkippedRun("the router's input is hidden or of another version") from error
    checks = {state.models[visit.model_index]: visit.verification for visit in state.visits}
    return state.models, {name: check for name, check in checks.items() if check is not None}


def _kept(mix: Run, routed: Sequence[Run], models: tuple[str, ...] | None) -> str | None:
    """Return the model whose answer was kept, from the record or from the last decision."""
    if (record := record_in(mix.outputs)) is not None:
        action, kept = record.get("action"), record.get("model")
    elif routed and models is not None:
        try:
            decision = Decision.model_validate((routed[-1].outputs or {}).get("output"))
        except ValidationError:
            return None
        action, kept = decision.action, models[decision.model_index]
    else:
        return None
    if action == "abstain":
        raise SkippedRun("no answer was given (abstain)")
    return None if action == "verify" else kept


def _messages(output: Mapping[str, Any]) -> list[AIMessage]:
    """Return the replies to one request, with their text, tool calls and usage."""
    messages = []
    for generation in (output.get("generations") or [[]])[0]:
        fields = (generation.get("message") or {}).get("kwargs") or {}
        names = ("content", "tool_calls", "usage_metadata", "response_metadata")
        with contextlib.suppress(TypeError, ValueError):  # hidden, or not from a chat model
            messages.append(AIMessage(**{name: fields[name] for name in names if fields.get(name)}))
    return messages


def record_in(output: Any) -> dict[str, Any] | None:
    """Return the record of a query from a run's output, at any depth."""
    if isinstance(output, Mapping):
        metadata = output.get("response_metadata")
        if isinstance(metadata, Mapping) and isinstance(metadata.get("automix"), Mapping):
            return dict(metadata["automix"])
        output = list(output.values())
    if isinstance(output, list):
        return next((found for each in output if (found := record_in(each)) is not None), None)
    return None


def logged_check(check: Verification | None, cost_of: CostOf) -> dict[str, Any] | None:
    """Return a check as a routing log stores it; None if no check was made.

    Raises:
        SkippedRun: The cost or the score of the check is unknown, which a log cannot express.
    """
    if check is not None and any(each.is_upper_bound for each in (check, *check.checks.values())):
        raise SkippedRun("a draft was given up early, so that its score is not known")
    if check is None or not (check.verdicts or check.score is not None or check.calls):
        return None
    total = cost_of(check.calls)
    if not check.verdicts:
        if check.score is None and total is None:
            return None
        return {"score": check.score, "cost": None if total is None else float(total)}
    # The prompt is paid for once per request, however many verdicts the request returns.
    prompts = cost_of([without_output(call) for call in check.calls])
    if total is None or prompts is None:
        raise SkippedRun("the cost of its check is unknown (give cost_of=)")
    n, requests = len(check.verdicts), len(check.calls)
    fixed = (
        float(prompts) if n > requests else 0.0
    )  # with one request a verdict, all cost is per verdict
    sample = max(0.0, (float(total) - fixed) / n)
    return {
        "verdicts": list(check.verdicts),
        "fixed_cost": fixed / max(1, requests),
        "sample_cost": sample,
    }
