"""`CombinedVerifier`: several checks of the same answer, each evidence of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

from langchain_core.runnables import Runnable
from pydantic import ConfigDict, Field
from typing_extensions import override

from langchain_automix.errors import AutoMixError
from langchain_automix.flow.steps import Call, Steps
from langchain_automix.models.failures import is_fault
from langchain_automix.models.usage import UsageCollector
from langchain_automix.types import Verification
from langchain_automix.utils.fingerprints import repr_hash
from langchain_automix.verifiers.base import (
    Verifier,
    VerifierInput,
    bind_answerer,
    fingerprint_of,
    models_of,
    prepare_answerer,
    verifier_for,
)


class CombinedVerifier(Verifier):
    """Check one answer in several ways.

    The first check leads: what it finds stands in the `Verification` as such, what the others
    find stands by name in `Verification.checks`, and the requests of all are in its `calls`. A
    router may buy one check at a time (`Decision.check`), and in a mix gets only those: a policy
    that was fitted to all of them asks for each where it pays, a `ThresholdRouter` and the prior
    for the first alone. Called without a word of it, all are made.

    Of several that are made, one that fails does not lose what the others found, and were paid
    for: why it failed becomes its `problem`. Only if all fail, or the one that was asked for
    does, is the error raised.

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
        """Verdicts that the leading check draws, where it tells."""
        return getattr(self.checks[self.first], "samples", None)

    @property
    def fingerprint(self) -> str:
        """Short hash of the checks: their names, in their order, and their own fingerprints."""
        return repr_hash([[name, fingerprint_of(check)] for name, check in self.checks.items()])

    @override
    def for_model(self, model: Runnable[Any, Any]) -> Self:
        """Return these checks, each as it is to be used for answers of the model."""
        return self._each(lambda check: verifier_for(check, model))

    @override
    def for_answerer(self, answerer: Runnable[Any, Any]) -> Self:
        """Return these checks, each told what gives the answers."""
        return self._each(lambda check: bind_answerer(check, answerer))

    @override
    def for_answering(self, model: Runnable[Any, Any]) -> Runnable[Any, Any]:
        """Return the model set to answer with what any of the checks reads."""
        for check in self.checks.values():
            model = prepare_answerer(check, model)
        return model

    @override
    def own_models(self) -> list[Runnable[Any, Any]]:
        """Return the models that any of the checks has of its own."""
        return [model for check in self.checks.values() for model in models_of(check)]

    @override
    def _flow(self, input: VerifierInput, **kwargs: Any) -> Steps[Verification]:
        given = {key: value for key, value in input.items() if key != "check"}
        names = [input["check"] or self.first] if "check" in input else [*self.checks]
        bills = {name: UsageCollector() for name in names}
        found = yield [self._call(name, given, bills[name]) for name in names]
        failed = [each for each in found if isinstance(each, Exception)]
        wrong = [error for error in failed if not is_fault(error)]
        if wrong or len(failed) == len(names):
            # What was given wrong is to be mended; and where nothing was found, nothing is lost.
            raise (wrong or failed)[0]
        made = zip(names, found, strict=True)
        return self._together({name: _made(name, each, bills[name]) for name, each in made})

    def _call(self, name: str, given: Mapping[str, Any], bill: UsageCollector) -> Call:
        if name not in self.checks:
            known = ", ".join(map(repr, self.checks))
            raise AutoMixError(f"There is no check {name!r} among those combined: {known}.")
        return Call(
            self.checks[name],
            given,
            run_name=f"check {name}",
            tags=[f"automix:check:{name}"],
            callbacks=[bill],
            hands_back=True,
        )

    def _together(self, made: Mapping[str, Verification]) -> Verification:
        """Return what the checks found as one: the leading one's, and the others by name."""
        leading = made.get(self.first, Verification())
        others = {name: found for name, found in made.items() if name != self.first}
        problem = leading.problem
        if leading.usable:
            certain = (found.problem for found in others.values() if not found.usable)
            problem = next(certain, problem)
        return leading.model_copy(
            update={
                "calls": tuple(call for found in made.values() for call in found.calls),
                "checks": {**leading.checks, **others},
                "problem": problem,
                "usable": all(found.usable for found in made.values()),
            }
        )

    def _each(self, change: Callable[[Runnable[Any, Any]], Runnable[Any, Any]]) -> Self:
        checks = {name: change(check) for name, check in self.checks.items()}
        return self.model_copy(update={"checks": checks})


def _made(name: str, found: Any, bill: UsageCollector) -> Verification:
    if isinstance(found, Exception):
        # The error's own words may quote the answer, which may be rejected; its run has them.
        problem = f"the check failed ({type(found).__name__})"
        return Verification(problem=problem, calls=tuple(bill.calls))
    if not isinstance(found, Verification):
        raise AutoMixError(
            f"The check {name!r} returned {type(found).__name__}, not a Verification."
        )
    changes: dict[str, Any] = {}
    # A check of a user's own may make requests that it does not tell of.
    if len(found.calls) < len(bill.calls):
        changes["calls"] = tuple(bill.calls)
    if found == Verification(calls=found.calls, replies=found.replies):
        # Else a router could not know that the first check was made, and would ask for it again.
        changes["problem"] = "the check found nothing"
    return found.model_copy(update=changes) if changes else found
