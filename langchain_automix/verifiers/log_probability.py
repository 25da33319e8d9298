"""`LogProbabilityVerifier`: how probable the answer's tokens were to the model that wrote them."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.runnables import Runnable
from pydantic import ConfigDict
from typing_extensions import override

from langchain_automix.flow.steps import Steps
from langchain_automix.models.logprobs import TokenLogprob, is_known, token_logprobs
from langchain_automix.models.request_shape import uses_responses_api
from langchain_automix.models.sampling import thinks
from langchain_automix.models.wrappers import map_chat_models, replace_structured_model
from langchain_automix.types import EMPTY_ANSWER, ModelCall, Verification
from langchain_automix.utils.fingerprints import repr_hash
from langchain_automix.verifiers.base import Verifier, VerifierInput
from langchain_automix.verifiers.score_bound import ScoreBound, TextToken

_HINT = (
    "set logprobs=True on the answering model (AutoMixRunnable does so on chat models that have "
    "the field and do not think first, as gpt-5 does), if its provider serves them"
)
SHORT_ANSWER = 32
"""Length, in tokens, up to which the least probable token represents the whole answer."""

_SPECIAL = re.compile(r"<\|.*\|>|</?s>|<(?:bos|eos|pad|unk|(?:start|end)_of_turn)>")


class LogProbabilityVerifier(Verifier):
    """Read how probable the answer's own tokens were to the model that wrote them.

    It makes no call: the log-probabilities are in the answer's `response_metadata["logprobs"]`, in
    the format of OpenAI's chat completions or of its older completions. `AutoMixRunnable` sets the
    models to send them; nothing else in a kept answer changes. Models that think first do not send
    them.

    The score is in [0, 1]. It measures how sure the model was of its wording, which is not the
    probability that the answer is right: two phrasings of the same truth share it.

    Tokens outside the text do not count: surrounding white space, special tokens, thoughts. The
    check is unknown for an answer that calls tools or has no log-probabilities.

    ??? example "A check for nothing"

        ```python
        from langchain_automix import AutoMixRunnable, LogProbabilityVerifier, ThresholdRouter

        verifier = LogProbabilityVerifier(statistic="margin")
        router = ThresholdRouter(threshold=0.8)  # until a policy is fitted
        automix = AutoMixRunnable.from_models(small, large, verifier=verifier, router=router)
        ```
    """

    statistic: Literal["min", "mean", "first", "margin", "length"] = "mean"
    """What to read. `min`: the probability of the least probable token. `mean`: the geometric mean
    over all tokens. `first`: the probability of the first token. `margin`: the difference between
    the two most probable first tokens (Ramirez et al., arXiv 2405.02134, section 3), for which
    `top_logprobs=2` is set as well. `length`: `min` for up to 32 tokens and `mean` for more, since
    nearly every long answer has an improbable token somewhere, which says nothing about the
    whole."""

    asks_thinking_models: bool = False
    """Whether models that think first, according to their profile, are asked for log-probabilities,
    too. Some send them as long as they do not think. A refusal costs nothing, and a mix does not
    ask such a model again."""

    model_config = ConfigDict(extra="forbid")

    @property
    def fingerprint(self) -> str:
        """Short hash of the statistic."""
        return repr_hash([type(self).__name__, self.statistic])

    @override
    def for_answering(self, model: Runnable[Any, Any]) -> Runnable[Any, Any]:
        """Return the model, set up to send the log-probabilities of its answers.

        A chat model is left as it is if it lacks the fields `logprobs` and `top_logprobs`, uses
        OpenAI's Responses API or (unless `asks_thinking_models`) thinks first, since such requests
        are refused.
        """

        def change(chat_model: BaseChatModel) -> Runnable[Any, Any]:
            fields = type(chat_model).model_fields
            has_fields = {"logprobs", "top_logprobs"} <= fields.keys()
            refuses = thinks(chat_model) and not self.asks_thinking_models
            if refuses or not has_fields or uses_responses_api(chat_model):
                return chat_model
            settings: dict[str, Any] = {"logprobs": True}
            if self.statistic == "margin":
                settings["top_logprobs"] = max(2, getattr(chat_model, "top_logprobs", None) or 0)
            return chat_model.model_copy(update=settings)

        def structured(other: Runnable[Any, Any]) -> Runnable[Any, Any]:
            changed = replace_structured_model(other, lambda bound: map_chat_models(bound, change))
            return changed or other

        return map_chat_models(model, change, other=structured)

    @override
    def _flow(self, input: VerifierInput, **kwargs: Any) -> Steps[Verification]:
        yield from ()
        score = self._score(input["answer"])
        return Verification(problem=score) if isinstance(score, str) else Verification(score=score)

    @override
    def expected_calls(
        self, input: VerifierInput, samples: Sequence[int], usage: UsageMetadata
    ) -> Sequence[Sequence[ModelCall]]:
        """Return no requests, since the check makes none."""
        del input, usage
        return [()] * len(samples)

    @override
    def is_free(self, check: str | None = None) -> bool:
        """Return True: what it reads comes with the answer."""
        del check
        return type(self) is LogProbabilityVerifier

    @override
    def score_bound(self, check: str | None = None) -> ScoreBound | None:
        """Return a bound if the score can only fall, or depends on the first token alone.

        A mean may rise again, so it has none.
        """
        del check
        one_sided = self.statistic in ("min", "first", "margin")
        if not one_sided or type(self) is not LogProbabilityVerifier:  # may read otherwise
            return None
        return ScoreBound(self._text_tokens, first_only=self.statistic != "min")

    def _text_tokens(self, piece: AIMessage) -> list[TextToken]:
        return [
            TextToken(token.text, self._own_score(token), _is_special(token))
            for token in _tokens(piece.response_metadata.get("logprobs"))
        ]

    def _own_score(self, token: _Token) -> float | None:
        if self.statistic != "margin":
            return _probability(token.logprob)
        margin = _margin(token)
        return None if isinstance(margin, str) else margin

    def _score(self, answer: str | BaseMessage) -> float | str:
        """Return the score of an answer, or the reason why it has none."""
        if not isinstance(answer, AIMessage):
            return f"the answer is no message of a model, and has no log-probabilities: {_HINT}"
        if answer.tool_calls:
            return "the answer calls a tool: it has no text whose tokens could be read"
        text = str(answer.text).strip()
        if not text:
            return EMPTY_ANSWER
        tokens = _tokens_of_text(list(_tokens(answer.response_metadata.get("logprobs"))), text)
        if not tokens:
            return f"the answer has no log-probabilities: {_HINT}"
        if self.statistic == "margin":
            return _margin(tokens[0])
        return _probability(self._chosen([each.logprob for each in tokens]))

    def _chosen(self, logprobs: Sequence[float]) -> float:
        if self.statistic == "first":
            return logprobs[0]
        is_short = self.statistic == "length" and len(logprobs) <= SHORT_ANSWER
        if self.statistic == "min" or is_short:
            return min(logprobs)
        return math.fsum(logprobs) / len(logprobs)


class _Token(NamedTuple):
    text: bytes
    logprob: float
    source: TokenLogprob


def _tokens(logprobs: Any) -> Iterator[_Token]:
    """Yield the tokens of a response that have a log-probability."""
    for written in token_logprobs(logprobs):
        if is_known(written.logprob):
            yield _Token(_bytes_of(written), float(written.logprob), written)


def _bytes_of(written: TokenLogprob) -> bytes:
    if isinstance(written.raw, list) and written.raw:
        with contextlib.suppress(TypeError, ValueError):
            return bytes(written.raw)
    return str(written.token or "").encode(errors="replace")


def _tokens_of_text(tokens: Sequence[_Token], text: str) -> list[_Token]:
    """Return the tokens that make up the answer's text."""
    written = b"".join(token.text for token in tokens)
    encoded = text.encode(errors="replace")
    if written == encoded and tokens[0].text and tokens[-1].text:
        return list(tokens)
    start = written.rfind(encoded)
    if start < 0:  # the server edits the text, or sends tokens without their bytes
        return _without_special_tokens(tokens)
    end = start + len(encoded)
    ends = list(itertools.accumulate(len(token.text) for token in tokens))
    return [
        t for t, stop in zip(tokens, ends, strict=True) if stop - len(t.text) < end and stop > start
    ]


def _without_special_tokens(tokens: Sequence[_Token]) -> list[_Token]:
    """Return the tokens without special ones and leading white space."""
    kept = [each for each in tokens if not _is_special(each)]
    return list(itertools.dropwhile(lambda each: not each.text.strip(), kept))


def _is_special(token: _Token) -> bool:
    return _SPECIAL.fullmatch(token.text.decode(errors="replace")) is not None


def _margin(token: _Token) -> float | str:
    top = sorted((float(p) for _, p in token.source.others if is_known(p)), reverse=True)
    if len(top) < 2:  # noqa: PLR2004  (the two most probable)
        return (
            "the answer's first token has no alternatives: set top_logprobs=2 or more on the "
            "answering model"
        )
    best, second, *_ = map(_probability, top)
    return best - second


def _probability(logprob: float) -> float:
    return math.exp(min(logprob, 0.0))  # rounding may push it above 0
