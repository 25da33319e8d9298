"""`ThresholdRouter`: keep an answer if the check's confidence is high enough."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from typing_extensions import override

from langchain_automix.routers.base import Router, ask, keep, next_model
from langchain_automix.routers.explanations import findings
from langchain_automix.types import Decision, RoutingState


class ThresholdRouter(Router):
    """Keep an answer whose confidence reaches a threshold, else ask the next model.

    This is the plain rule of the paper (AutoMix, section 4.2, "Thresholding"). It uses the raw
    confidence, and assumes that a larger model is always better.

    ??? example "Keep an answer that most verdicts accept"

        ```python
        from langchain_automix import RoutingState, ThresholdRouter, Verification

        state = RoutingState.after(Verification(verdicts=(True, True, False)))
        print(ThresholdRouter(threshold=0.5).invoke(state).action)  # answer
        ```
    """

    threshold: float = Field(default=0.5, ge=0, le=1)
    """Lowest confidence, in [0, 1], at which an answer is kept."""

    on_unknown: Literal["escalate", "answer"] = "escalate"
    """What to do if the check gives no confidence; unknown does not mean a confidence of 0."""

    @property
    @override
    def label(self) -> str:
        return f"threshold:{self.threshold:g}"

    @override
    def score_edges(self, state: RoutingState) -> tuple[float, ...] | None:
        return (self.threshold,) if type(self) is ThresholdRouter else None

    @override
    def _decide(self, state: RoutingState) -> Decision:
        verification, later = state.current.verification, next_model(state)
        evidence = findings(verification)
        if later is None:
            return keep(state, why=f"{evidence}, and there is no larger model to ask.")
        confidence = None if verification is None else verification.confidence
        if confidence is None:
            is_kept = self.on_unknown == "answer"
            why = f"{evidence}: unknown, which this router answers with {self.on_unknown!r}."
        else:
            is_kept = confidence >= self.threshold
            reaches = "reaches" if is_kept else "is below"
            threshold = f"the threshold {self.threshold:.2f}"
            why = f"{evidence}: the confidence {confidence:.2f} {reaches} {threshold}."
            if verification is not None and verification.is_upper_bound:
                why = f"{evidence}, which {reaches} {threshold}."
        return keep(state, why=why) if is_kept else ask(state, later, why=why)
