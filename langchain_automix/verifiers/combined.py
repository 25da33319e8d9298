"""`CombinedVerifier`: several checks of one answer, each with its own findings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

from langchain_core.runnables import Runnable
from pydantic import ConfigDict, Field
from typing_extensions import override

from langchain_automix.errors import AutoMixError
from langchain_automix.flow.steps import Call, Steps, gather
from langchain_automix.models.failures import is_fault
from langchain_automix.models.usage import UsageCollector
from langchain_automix.types import Verification
from langchain_automix.utils.check_spec import COMBINED, CheckSpec, spec_of
from langchain_automix.utils.fingerprints import fingerprint_of, repr_hash
from langchain_automix.verifiers.base import (
    Verifier,
    VerifierInput,
    bind_answerer,
    models_of,
    prepare_answerer,
    verifier_for,
)
from langchain_automix.verifiers.score_bound import ScoreBound


class CombinedVerifier(Verifier):
    """Check one answer in several ways.

    The first check leads: its findings are those of the `Verification`. The findings of the others
    are in `Verification.checks`, by name, and the requests of all are in `calls`. In a mix, the
    router buys one check at a time (`Decision.check`): a fitted policy buys each check where it
    pays, while a `ThresholdRouter` and the prior buy only the first. Without `check`, all checks
    are made.

    If a check fails, its `problem` says why, and the findings of the others, which were paid for,
    are kept. An error is raised only if all checks fail.

    ??? example "A check that is free, beside one that costs"

        ```python
        from langchain_automix import CombinedVerifier, LogProbabilityVerifier, SelfVerifier

        verifier = CombinedVerifier(
            checks={"self": SelfVerifier(samples=4), "logprob": LogProbabilityVerifier()}
        )
        automix = AutoMixRunnable.from_models(small, large, verifier=verifier)
        ```
    """

    checks: dict[str, Runnable[Any, Any]] = Field(min_length=1)
    """The checks by name, the leading one first: Runnables from `VerifierInput` to
    `Verification`."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    @property
    def first(self) -> str:
        """Name of the leading check."""
        return next(iter(self.checks))

    @property
    def samples(self) -> int | None:
        """Number of verdicts that the leading check draws, if it has one."""
        return getattr(self.checks[self.first], "samples", None)

    @property
    @override
    def check_spec(self) -> CheckSpec:
        """The checks by name, each in the form that a file keeps."""
        checks = {name: spec_of(check) for name, check in self.checks.items()}
        return CheckSpec(kind=COMBINED, checks=checks, fingerprint=self.fingerprint)

    @property
    def fingerprint(self) -> str:
        """Short hash of the names and fingerprints of the checks, in order."""
        return repr_hash([[name, fingerprint_of(check)] for name, check in self.checks.items()])

    @override
    def for_model(self, model: Runnable[Any, Any]) -> Self:
        """Return these checks, each set up for answers of the model."""
        return self._each(lambda check: verifier_for(check, model))

    @override
    def for_answerer(self, answerer: Runnable[Any, Any]) -> Self:
        """Return these checks, each set up for answers of the model with its tools or format."""
        return self._each(lambda check: bind_answerer(check, answerer))

    @override
    def for_answering(self, model: Runnable[Any, Any]) -> Runnable[Any, Any]:
        """Return the model, set up to return what any of the checks reads."""
        for check in self.checks.values():
            model = prepare_answerer(check, model)
        return model

    @override
    def is_free(self, check: str | None = None) -> bool:
        """Whether one of the checks makes no request."""
        wanted = self.checks.get(check or self.first)
        return isinstance(wanted, Verifier) and wanted.is_free()

    @override
    def score_bound(self, check: str | None = None) -> ScoreBound | None:
        """Return the score bound of one of the checks."""
        wanted = self.checks.get(check or self.first)
        return wanted.score_bound() if isinstance(wanted, Verifier) else None

    @override
    def own_models(self) -> list[Runnable[Any, Any]]:
        """Return the checks' own models."""
        return [model for check in self.checks.values() for model in models_of(check)]

    @override
    def _flow(self, input: VerifierInput, **kwargs: Any) -> Steps[Verification]:
        given = {key: value for key, value in input.items() if key != "check"}
        names = [input["check"] or self.first] if "check" in input else [*self.checks]
        bills = {name: UsageCollector() for name in names}
        found = yield from gather(*(self._call(name, given, bills[name]) for name in names))
        failed = [each for each in found if isinstance(each, Exception)]
        wrong = [error for error in failed if not is_fault(error)]
        if wrong or len(failed) == len(names):
            # The user must fix a wrong argument; and if all checks failed, no finding is lost.
            raise (wrong or failed)[0]
        results = zip(names, found, strict=True)
        return self._merge({name: _read(name, each, bills[name]) for name, each in results})

    def _call(self, name: str, given: Mapping[str, Any], bill: UsageCollector) -> Call:
        if name not in self.checks:
            known = ", ".join(map(repr, self.checks))
            raise AutoMixError(f"There is no check {name!r} among those combined: {known}.")
        return self._named_call(self.checks[name], name, given, bill)

    def _named_call(
        self, check: Runnable[Any, Any], name: str, given: Mapping[str, Any], bill: UsageCollector
    ) -> Call:
        return Call(
            check,
            given,
            run_name=f"check {name}",
            tags=[f"automix:check:{name}"],
            callbacks=[bill],
        )

    def _merge(self, results: Mapping[str, Verification]) -> Verification:
        """Return the findings of the leading check, with the others' by name."""
        leading = results.get(self.first, Verification())
        others = {name: other for name, other in results.items() if name != self.first}
        problem = leading.problem
        if leading.usable:
            unusable = (other.problem for other in others.values() if not other.usable)
            problem = next(unusable, problem)
        return leading.model_copy(
            update={
                "calls": tuple(call for each in results.values() for call in each.calls),
                "checks": {**leading.checks, **others},
                "problem": problem,
                "usable": all(each.usable for each in results.values()),
            }
        )

    def _each(self, change: Callable[[Runnable[Any, Any]], Runnable[Any, Any]]) -> Self:
        checks = {name: change(check) for name, check in self.checks.items()}
        return self.model_copy(update={"checks": checks})


def _read(name: str, result: Any, bill: UsageCollector) -> Verification:
    if isinstance(result, Exception):
        # The error's text may quote an answer that is later rejected, so only the trace has it.
        problem = f"the check failed ({type(result).__name__})"
        return Verification(problem=problem, calls=tuple(bill.calls))
    if not isinstance(result, Verification):
        raise AutoMixError(
            f"The check {name!r} returned {type(result).__name__}, not a Verification."
        )
    changes: dict[str, Any] = {}
    # A user's own check may make requests that it does not report.
    if len(result.calls) < len(bill.calls):
        changes["calls"] = tuple(bill.calls)
    if result == Verification(calls=result.calls, replies=result.replies):
        # Without a problem, a router would not know that the check was made, and would repeat it.
        changes["problem"] = "the check found nothing"
    return result.model_copy(update=changes) if changes else result
