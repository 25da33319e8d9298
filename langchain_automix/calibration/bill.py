"""`Bill`: the requests that one call of a calibration made, whether it succeeded or failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

from langchain_core.messages import AIMessage

from langchain_automix.calibration.config import CalibrationConfig
from langchain_automix.calibration.graders.text import Grade
from langchain_automix.flow.steps import Call
from langchain_automix.models.failures import is_answer_failure, may_be_billed
from langchain_automix.models.usage import UsageCollector, to_model_call, with_model_name
from langchain_automix.types import ModelCall, UnaccountedCall, Verification


class Bill(NamedTuple):
    """The requests of one call."""

    calls: list[ModelCall]
    """The requests that were reported."""

    lost: int = 0
    """Number of requests that were not reported, and may have been billed."""

    @classmethod
    def of(cls, output: Any, call: Call, collectors: Sequence[UsageCollector]) -> Self:
        """Build the bill of a call that returned something."""
        found = [each for collector in collectors for each in collector.calls]
        if isinstance(output, AIMessage):
            found = collectors[0].requests_for(output) if len(collectors) == 1 else found
            found = found or [to_model_call([output])]
        if isinstance(output, (Verification, Grade)) and len(output.calls) >= len(found):
            found = list(output.calls)
        return cls._of(found, call)

    @classmethod
    def of_failed(cls, error: Exception, call: Call, collectors: Sequence[UsageCollector]) -> Self:
        """Build the bill of a call that failed."""
        found = [e for one in collectors for e in (*one.calls, *one.unfinished)]
        is_told = any(one.accounts_for(error) for one in collectors)
        if not is_told and may_be_billed(error) and is_answer_failure(error):
            found.append(UnaccountedCall())
        return cls._of(found, call)

    @classmethod
    def _of(cls, found: Sequence[ModelCall], call: Call) -> Self:
        heard = [each for each in found if not isinstance(each, UnaccountedCall)]
        named = [with_model_name(each, call.runnable) for each in heard]
        return cls(named, len(found) - len(heard))

    def to_entry(self, seconds: float) -> dict[str, Any]:
        """Return the bill as an entry of the journal."""
        return {
            "seconds": round(seconds, 6),
            "calls": [each.model_dump(mode="json", exclude_none=True) for each in self.calls],
            **({"lost": self.lost} if self.lost else {}),
        }


def bill_of(setup: CalibrationConfig, entry: Mapping[str, Any]) -> tuple[float | None, int]:
    """Return the cost of an entry of the journal.

    Returns:
        Cost of the requests that were reported, in the unit of the log, None if unknown; and the
        number of requests that were not reported but may have been billed. If the log counts
        seconds, that number is 0: the time is known in any case.
    """
    calls = [ModelCall.model_validate(call) for call in entry.get("calls", ())]
    cost = setup.cost(calls, entry.get("seconds", 0.0))
    return cost, 0 if setup.unit == "seconds" else entry.get("lost", 0)
