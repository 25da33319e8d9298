"""`LogProbabilityVerifier`: how sure the answering model was of the words that it wrote."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable
from pydantic import ConfigDict
from typing_extensions import override

from langchain_automix.flow.steps import Steps
from langchain_automix.models.logprobs import TokenLogprob, is_known, token_logprobs
from langchain_automix.models.request_shape import uses_responses_api
from langchain_automix.models.wrappers import map_chat_models, replace_structured_model
from langchain_automix.types import EMPTY_ANSWER, Verification
from langchain_automix.utils.fingerprints import repr_hash
from langchain_automix.verifiers.base import Verifier, VerifierInput

_TOLD_BY = (
    "set logprobs=True on the answering model (AutoMixRunnable does so on chat models that have "
    "the field), if its provider serves them"
)
_SPECIAL = re.compile(r"<\|.*\|>|</?s>|<(?:bos|eos|pad|unk|(?:start|end)_of_turn)>")


class LogProbabilityVerifier(Verifier):
    """Read how probable the answer's own tokens were to the model that wrote them.

    It makes no call: the answer's message brings its log-probabilities along, as OpenAI's chat
    completions have them (`response_metadata["logprobs"]`), or in the older form of its
    completions. `AutoMixRunnable` sets the models to send them; of what a user sees of a kept
    answer only this metadata is new. Models that think first do not send them.

    The score lies in [0, 1]. It says how sure the model was of its wording, which is no
    probability that the answer is right: of two phrasings of the same truth each has a half.

    Tokens that are no part of the text do not count: white space before and after it, special
    tokens, thoughts. An answer that calls tools, or has no log-probabilities, is unknown.

    ??? example "A check for nothing"

        ```python
        from langchain_automix import AutoMixRunnable, LogProbabilityVerifier, ThresholdRouter

        verifier = LogProbabilityVerifier(statistic="margin")
        router = ThresholdRouter(threshold=0.8)  # until a policy is fitted
        automix = AutoMixRunnable.from_models(small, large, verifier=verifier, router=router)
        ```
    """

    statistic: Literal["min", "mean", "first", "margin"] = "mean"
    """What is read. `min`: the probability of the least probable token. `mean`: the geometric mean
    of the probabilities, which is exp of the mean log-probability. `first`: the probability of the
    first token. `margin`: that of the most probable first token minus that of the second (Ramirez
    et al., arXiv 2405.02134, section 3), which needs `top_logprobs=2`, and is set, too."""

    model_config = ConfigDict(extra="forbid")

    @property
    def fingerprint(self) -> str:
        """Short hash of what is read."""
        return repr_hash([type(self).__name__, self.statistic])

    @override
    def for_answering(self, model: Runnable[Any, Any]) -> Runnable[Any, Any]:
        """Return the model set to send the log-probabilities of its answers.

        A chat model without the fields `logprobs` and `top_logprobs` stays as it is, and so does
        one that thinks first, by its profile, or is asked over OpenAI's Responses API: requests
        for them are refused there.
        """

        def change(chat_model: BaseChatModel) -> Runnable[Any, Any]:
            fields = type(chat_model).model_fields
            thinks = (chat_model.profile or {}).get("reasoning_output")
            knows = {"logprobs", "top_logprobs"} <= fields.keys()
            if thinks or not knows or uses_responses_api(chat_model):
                return chat_model
            wanted: dict[str, Any] = {"logprobs": True}
            if self.statistic == "margin":
                wanted["top_logprobs"] = max(2, getattr(chat_model, "top_logprobs", None) or 0)
            return chat_model.model_copy(update=wanted)

        def structured(other: Runnable[Any, Any]) -> Runnable[Any, Any]:
            return (
                replace_structured_model(other, lambda asked: map_chat_models(asked, change))
                or other
            )

        return map_chat_models(model, change, other=structured)

    @override
    def _flow(self, input: VerifierInput, **kwargs: Any) -> Steps[Verification]:
        yield from ()
        found = self._score(input["answer"])
        return Verification(problem=found) if isinstance(found, str) else Verification(score=found)

    def _score(self, answer: str | BaseMessage) -> float | str:
        """Return the score of an answer, or why it has none."""
        if not isinstance(answer, AIMessage):
            return f"the answer is no message of a model, and has no log-probabilities: {_TOLD_BY}"
        if answer.tool_calls:
            return "the answer calls a tool: it has no text whose tokens could be read"
        said = str(answer.text).strip()
        if not said:
            return EMPTY_ANSWER
        tokens = _of_the_text(list(_tokens(answer.response_metadata.get("logprobs"))), said)
        if not tokens:
            return f"the answer has no log-probabilities: {_TOLD_BY}"
        if self.statistic == "margin":
            return _margin(tokens[0])
        logprobs = [each.logprob for each in tokens]
        found = {"min": min(logprobs), "first": logprobs[0]}.get(self.statistic)
        found = math.fsum(logprobs) / len(logprobs) if found is None else found
        return _probability(found)


class _Token(NamedTuple):
    text: bytes
    logprob: float
    top: tuple[float, ...]
    """Log-probabilities of the most probable tokens in this place, the best first."""


def _tokens(logprobs: Any) -> Iterator[_Token]:
    """Yield the tokens of a response; what has no log-probability that can be read is left out."""
    for written in token_logprobs(logprobs):
        if is_known(written.logprob):
            top = sorted((float(p) for _, p in written.others if is_known(p)), reverse=True)
            yield _Token(_bytes_of(written), float(written.logprob), tuple(top))


def _bytes_of(written: TokenLogprob) -> bytes:
    if isinstance(written.raw, list) and written.raw:
        with contextlib.suppress(TypeError, ValueError):
            return bytes(written.raw)
    return str(written.token or "").encode(errors="replace")


def _of_the_text(tokens: Sequence[_Token], said: str) -> list[_Token]:
    """Return the tokens that the answer's text was written with."""
    written = b"".join(token.text for token in tokens)
    start = written.rfind(said.encode(errors="replace"))
    if start < 0:  # not to be found again: a server that cleans up, or tokens without their bytes
        return _without_marks(tokens)
    end = start + len(said.encode(errors="replace"))
    found: list[_Token] = []
    at = 0
    for token in tokens:
        if at < end and at + len(token.text) > start:
            found.append(token)
        at += len(token.text)
    return found


def _without_marks(tokens: Sequence[_Token]) -> list[_Token]:
    """Return tokens without special ones, and without white space before the first word."""
    kept = [each for each in tokens if not _SPECIAL.fullmatch(each.text.decode(errors="replace"))]
    return list(itertools.dropwhile(lambda each: not each.text.strip(), kept))


def _margin(token: _Token) -> float | str:
    if len(token.top) < 2:  # noqa: PLR2004  (the two most probable)
        return (
            "the answer's first token has no alternatives: set top_logprobs=2 or more on the "
            "answering model"
        )
    best, second, *_ = map(_probability, token.top)
    return best - second


def _probability(logprob: float) -> float:
    return math.exp(min(logprob, 0.0))  # what is rounded may lie above 0
