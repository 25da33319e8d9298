"""Agreement as evidence: with new answers to the same request, or with earlier ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self, cast

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.runnables import Runnable
from pydantic import Field
from typing_extensions import override

from langchain_automix.errors import AutoMixError
from langchain_automix.flow.steps import Steps
from langchain_automix.models.identity import identity
from langchain_automix.models.messages import answer_text, context_text
from langchain_automix.models.sampling import ChatRunnable, thinks
from langchain_automix.models.tools import bound_tools
from langchain_automix.models.wrappers import map_chat_models, replace_structured_model
from langchain_automix.types import EMPTY_ANSWER, ModelCall, Verification
from langchain_automix.utils.fingerprints import repr_hash
from langchain_automix.verifiers.base import VerifierInput
from langchain_automix.verifiers.inputs import check_context
from langchain_automix.verifiers.sampling import Sampling, draw, sampled_calls
from langchain_automix.verifiers.similarity import SimilarityVerifier


class AgreementVerifier(SimilarityVerifier):
    """Make the same request again several times, and count how many replies agree with the answer.

    A model that knows the answer repeats itself; one that guesses does not (self-consistency: Wang
    et al., arXiv 2203.11171; for cascades: Yue et al., arXiv 2310.03094). Each sample is a verdict:
    True if it agrees, False if not, None if the reply is empty.

    It repeats the original request (`request`) with its system message, tools, format and length,
    sampled at this `temperature`. Without a request, as when the check is called by itself, it
    sends the conversation in `messages`, then the context and the question.

    ??? example "Agreement with a second cheap model"

        ```python
        from langchain_automix import AgreementVerifier, AutoMixRunnable

        verifier = AgreementVerifier(model=another_small_one, samples=2)
        automix = AutoMixRunnable.from_models(small, large, verifier=verifier)
        ```
    """

    model: Runnable[Any, Any] | None = None
    """Chat model to ask again. None: `AutoMixRunnable` uses the model that answered, with its tools
    or format. A different model gets the query's tools unless it has bound ones; bind a format
    yourself."""

    samples: int = Field(default=8, ge=1)
    """Replies drawn for each answer."""

    temperature: float = Field(default=1.0, ge=0)
    """Sampling temperature of the replies; at 0 they would all be the same."""

    max_tokens: int | None = Field(default=None, ge=1)
    """Maximum length of a reply, in tokens. None: the same as for an answer. It is ignored for
    models that think first, according to their profile, since their thinking counts towards it."""

    sampling: Sampling = "auto"
    """How samples are drawn. `n`: in one request, which pays for the prompt once. `parallel`: one
    request each. `auto`: `n` if the model supports it."""

    @property
    def fingerprint(self) -> str:
        """Short hash of the model, the sampling and the comparison."""
        model = None if self.model is None else identity(self.model)
        length = [] if self.max_tokens is None else [self.max_tokens]
        shape = [type(self).__name__, model, self.temperature, *self._comparison, *length]
        return repr_hash(shape)

    @override
    def for_model(self, model: Runnable[Any, Any]) -> Self:
        """Return this verifier with the given model, unless it has its own."""
        return self if self.model is not None else self.model_copy(update={"model": model})

    @override
    def for_answerer(self, answerer: Runnable[Any, Any]) -> Self:
        """Return this verifier with the answering model, unless it has its own."""
        return self.for_model(map_chat_models(answerer, lambda model: model, other=_bound_model))

    @override
    def expected_calls(
        self, input: VerifierInput, samples: Sequence[int], usage: UsageMetadata
    ) -> Sequence[Sequence[ModelCall]] | None:
        """Return the requests, assuming replies as long as the answer; None if a judge compares."""
        if self.model is None or not isinstance(self.compare, str):
            return None
        written = usage["output_tokens"]
        if self.max_tokens is not None and not thinks(self.model):
            written = min(written, self.max_tokens)
        read = usage["input_tokens"]
        return [sampled_calls(self.model, read, written, n, self.sampling) for n in samples]

    @override
    def _flow(self, input: VerifierInput, **kwargs: Any) -> Steps[Verification]:
        if self.model is None:
            raise AutoMixError(
                "AgreementVerifier has no model to ask again: pass model=..., or use it inside an "
                "AutoMixRunnable, which uses the model that answered."
            )
        if not answer_text(input["answer"]):
            return Verification(problem=EMPTY_ANSWER)
        request = _request(input)
        if not request:
            return Verification(problem="there is no request to make again")
        drawn = yield from draw(
            _with_tools(self.model, input.get("tools") or ()),
            request,
            samples=input.get("samples") or self.samples,
            drawn=input.get("drawn", 0),
            sampling=self.sampling,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            answers=True,
        )
        question = check_context(input).question
        verdicts, others = yield from self._agreements(input["answer"], drawn.replies, question)
        return Verification(
            verdicts=tuple(verdicts),
            replies=tuple(answer_text(reply) for reply in drawn.replies),
            calls=(*drawn.calls, *others),
            undrawn=drawn.undrawn,
        )


class EarlierAgreementVerifier(SimilarityVerifier):
    """Measure how many earlier models agree with this answer.

    It makes no request, unless `compare` does. The score is the share of earlier answers that
    agree. It is unknown if there is none, as after the first model, or none that can be compared.
    Combine it with a check of the first model's answers.

    ??? example "Beside a check that every answer gets"

        ```python
        from langchain_automix import CombinedVerifier, EarlierAgreementVerifier, SelfVerifier

        verifier = CombinedVerifier(
            checks={"self": SelfVerifier(samples=4), "earlier": EarlierAgreementVerifier()}
        )
        ```
    """

    @property
    def fingerprint(self) -> str:
        """Short hash of the comparison."""
        return repr_hash([type(self).__name__, *self._comparison])

    @override
    def _flow(self, input: VerifierInput, **kwargs: Any) -> Steps[Verification]:
        if not answer_text(input["answer"]):
            return Verification(problem=EMPTY_ANSWER)
        earlier = input.get("earlier") or ()
        question = check_context(input).question
        verdicts, calls = yield from self._agreements(input["answer"], earlier, question)
        known = [verdict for verdict in verdicts if verdict is not None]
        if not known:
            reason = (
                "no earlier answer can be compared" if earlier else "there is no earlier answer"
            )
            return Verification(problem=reason, calls=tuple(calls))
        return Verification(score=sum(known) / len(known), calls=tuple(calls))


def _request(input: VerifierInput) -> list[BaseMessage]:
    if request := input.get("request"):
        return list(request)
    messages = list(input.get("messages") or ())
    if "question" not in input:
        return messages
    question, context = input["question"], context_text(input.get("context"))
    return [*messages, HumanMessage(f"{context}\n\n{question}" if context else question)]


def _bound_model(answerer: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """Return the model inside a structured model, with its format; else the answerer itself."""
    models = [answerer]

    def collect(bound: Runnable[Any, Any]) -> Runnable[Any, Any]:
        models.append(bound)
        return bound

    replace_structured_model(answerer, collect)
    return models[-1]


def _with_tools(model: Runnable[Any, Any], tools: Sequence[dict[str, Any]]) -> ChatRunnable:
    if not tools or bound_tools(model):
        return cast("ChatRunnable", model)
    bound = map_chat_models(model, lambda chat_model: chat_model.bind_tools(tools))
    return cast("ChatRunnable", bound)
