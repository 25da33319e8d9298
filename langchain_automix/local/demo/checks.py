"""The checks that the demo compares."""

from __future__ import annotations

from langchain_automix.local.models import CONTEXT_TOKENS
from langchain_automix.verifiers.agreement import AgreementVerifier
from langchain_automix.verifiers.base import Verifier
from langchain_automix.verifiers.log_probability import LogProbabilityVerifier
from langchain_automix.verifiers.self_verifier import SelfVerifier

FEW_SHOT, AGREEMENT, LEAST_PROBABLE = "few-shot", "agreement", "least probable token"
IN_WORDS = {
    FEW_SHOT: "few-shot verdicts of the small model on its own answer, as in the paper",
    AGREEMENT: "agreement of the small model's answer with answers sampled anew",
    LEAST_PROBABLE: "the probability of the answer's least probable token, which costs no call",
}
SAMPLES = 4
VERDICT_TOKENS = 80


def make_checks(samples: int = SAMPLES) -> dict[str, Verifier]:
    """Return the checks by name, the paper's first.

    Args:
        samples: Number of verdicts, or of resampled answers, per answer.
    """
    return {
        FEW_SHOT: SelfVerifier(
            samples=samples,
            max_tokens=VERDICT_TOKENS,
            max_input_tokens=CONTEXT_TOKENS - VERDICT_TOKENS - 256,
        ),
        AGREEMENT: AgreementVerifier(samples=samples),
        LEAST_PROBABLE: LogProbabilityVerifier(statistic="min"),
    }
