"""`TokenProbabilityVerifier`: read the probability with which the checking model says Yes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, cast

from langchain_core.messages import AIMessage
from pydantic import Field
from typing_extensions import override

from langchain_automix.flow.steps import Steps
from langchain_automix.models.logprobs import is_known, token_logprobs
from langchain_automix.models.request_shape import uses_responses_api, with_tools
from langchain_automix.models.sampling import ChatRunnable
from langchain_automix.models.wrappers import chat_model_of
from langchain_automix.types import Verification
from langchain_automix.verifiers.base import VerifierInput
from langchain_automix.verifiers.prompting.verifier import PromptedVerifier
from langchain_automix.verifiers.prompting.wording import Reply, Wording, folded
from langchain_automix.verifiers.sampling import draw

_MAX_TOKENS = 3  # some models write a line break before their word
_SPACE_MARKS = str.maketrans("\u2581\u0120\u010a", "  \n")  # how some servers print white space
_MIN_MASS = 0.1  # of Yes and No together; below it, their ratio means nothing


class TokenProbabilityVerifier(PromptedVerifier):
    """Ask a model for one word, Yes or No, and read how probable each was.

    This is P(True) of Kadavath et al. (arXiv 2207.05221, section 3). The reply is one token, so
    with `layout="conversation"` and a prompt cache, a check costs little more than reading the
    answer. The score is P(Yes) / (P(Yes) + P(No)), uncalibrated. With `model=`, a larger model
    judges the smaller one's answer, for the price of reading it.

    Without log-probabilities, the check is unknown. If the server sends only that of the written
    token, the remaining probability is assigned to the other word. LangChain does not pass on
    log-probabilities from OpenAI's Responses API, so set `use_responses_api=False`.

    ??? example "Let the large model judge the small model's answer"

        ```python
        from langchain_automix import AutoMixRunnable, ThresholdRouter, TokenProbabilityVerifier

        verifier = TokenProbabilityVerifier(model=large)
        router = ThresholdRouter(threshold=0.8)  # until a policy is fitted
        automix = AutoMixRunnable.from_models(small, large, verifier=verifier, router=router)
        ```
    """

    top_logprobs: int = Field(default=5, ge=2, le=20)
    """Number of alternatives to ask for; many servers return at most 5."""

    @property
    def fingerprint(self) -> str:
        """Short hash of the prompt and the verifier's own model."""
        return self._fingerprint(self._asks_for)

    @property
    @override
    def _asks_for(self) -> Reply:
        return "word"

    @override
    def _flow(self, input: VerifierInput, **kwargs: Any) -> Steps[Verification]:
        check = yield from self._check(input)
        if isinstance(check, Verification):
            return check
        chat_model = chat_model_of(cast("ChatRunnable", self.model))
        if chat_model is not None and "logprobs" not in type(chat_model).model_fields:
            kind = type(chat_model).__name__
            return Verification(problem=f"{kind} returns no log-probabilities to read a check from")
        if chat_model is not None and uses_responses_api(chat_model):
            return Verification(
                problem="LangChain passes on no log-probabilities from OpenAI's Responses API: set "
                "use_responses_api=False on the checking model"
            )
        [reply], calls, _ = yield from draw(
            cast("ChatRunnable", self.model),
            check.messages,
            samples=1,
            sampling="parallel",
            temperature=0.0,
            max_tokens=_MAX_TOKENS,
            further={"logprobs": True, "top_logprobs": self.top_logprobs},
            shape=with_tools(check.tools) if check.tools else None,
        )
        score = _score(reply, self.wording)
        finding = {"score": score} if isinstance(score, float) else {"problem": score}
        return Verification.model_validate(
            {**finding, "replies": (str(reply.text),), "calls": tuple(calls)}
        )


def _score(reply: AIMessage, wording: Wording) -> float | str:
    """Return the score of a one-word reply, or the reason why it has none."""
    alternatives = _first_word(reply.response_metadata.get("logprobs"))
    if not alternatives:
        return "the checking model returned no log-probabilities"
    yes = _mass(alternatives, wording.yes, wording.no)
    no = _mass(alternatives, wording.no, wording.yes)
    if not yes + no >= _MIN_MASS:
        return f"the checking model said neither {wording.yes} nor {wording.no}"
    if len(alternatives) == 1:
        return yes or 1 - no
    return yes / (yes + no)


def _first_word(logprobs: Any) -> list[dict[str, Any]]:
    """Return the alternatives for the first word, with their log-probabilities."""
    for written in token_logprobs(logprobs):
        # Without alternatives, the written token stands alone.
        alone = [(written.token, written.logprob)]
        tokens = [each for each in written.others if is_known(each[1])] or alone
        if str(written.token).translate(_SPACE_MARKS).strip() and is_known(tokens[0][1]):
            return [{"token": str(t).translate(_SPACE_MARKS), "logprob": p} for t, p in tokens]
    return []


def _mass(alternatives: Iterable[Mapping[str, Any]], word: str, other: str) -> float:
    """Return the total probability of tokens that are, or begin, one word and not the other."""
    word, other, total = folded(word), folded(other), 0.0
    for alternative in alternatives:
        token = folded(str(alternative["token"])).strip(" \t\n")
        begins = token and word.startswith(token) and not other.startswith(token)
        if begins and not math.isnan(alternative["logprob"]):
            total += math.exp(min(alternative["logprob"], 0.0))
    return min(total, 1.0)
