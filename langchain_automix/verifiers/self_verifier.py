"""`SelfVerifier`: a model checks an answer several times, against its context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from langchain_core.messages import BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.runnables import RunnableConfig
from pydantic import Field
from typing_extensions import override

from langchain_automix.flow.steps import Steps, made_of_steps
from langchain_automix.models.request_shape import (
    RequestShape,
    can_shape,
    in_format,
    together,
    with_tools,
)
from langchain_automix.models.sampling import ChatRunnable, thinks
from langchain_automix.models.wrappers import chat_model_of
from langchain_automix.types import ModelCall, Verdict, Verification
from langchain_automix.verifiers.base import VerifierInput
from langchain_automix.verifiers.prompting.verdicts import (
    parse_structured,
    parse_verdict,
    verdict_schema,
)
from langchain_automix.verifiers.prompting.verifier import CheckRequest, PromptedVerifier
from langchain_automix.verifiers.prompting.wording import Reply
from langchain_automix.verifiers.sampling import Sampling, draw, sampled_calls

_VERDICT_TOKENS = 24  # for the verdict line alone
_USUAL_REPLY, _USUAL_VERDICT = 40, 8  # tokens of a sentence and the verdict line; of the line alone


class SelfVerifier(PromptedVerifier):
    """Ask a model several times whether an answer follows from its context.

    This is the few-shot self-verification of AutoMix (Aggarwal, Madaan et al., NeurIPS 2024,
    section 4.1), framed as entailment. Each sample is one sentence of reasoning and a verdict. The
    confidence is the share of accepts among the valid verdicts.

    ??? example "Check an answer"

        ```python
        from langchain_automix import SelfVerifier

        verification = SelfVerifier(model=small).invoke(
            {
                "context": "The Halcyon was built in Turku in 1931.",
                "question": "Where was the Halcyon built?",
                "answer": "Turku",
            }
        )
        print(verification.confidence, verification.verdicts)
        ```
    """

    samples: int = Field(default=8, ge=1)
    """Verdicts drawn for each answer (k in the paper)."""

    temperature: float = Field(default=1.0, ge=0)
    """Sampling temperature of the verdicts."""

    max_tokens: int | None = Field(default=160, ge=1)
    """Maximum length of a reply, in tokens; at most 24 without reasoning. It is ignored for models
    that think first, according to their profile, since their thinking counts towards it. Set None,
    the model's own limit, for a thinking model without a profile."""

    sampling: Sampling = "auto"
    """How samples are drawn. `n`: in one request, which pays for the prompt once. `parallel`: one
    request each. `auto`: `n` if the model supports it."""

    reasoning: bool = True
    """Whether a sentence of reasoning precedes the verdict. Without it, a reply takes a tenth of
    the tokens."""

    structured: bool = False
    """Whether the verdict is JSON with a schema that the provider enforces: `reasoning`, if any,
    and `correct`. This needs the native structured output of OpenAI or Anthropic; with other
    models, the check is unknown. OpenAI puts the schema before all messages, so that with
    `layout="conversation"` the prompt cache serves nothing."""

    @property
    def fingerprint(self) -> str:
        """Short hash of the prompt, the verifier's own model, and the sampling."""
        return self._fingerprint(self.temperature, self.max_tokens)

    @override
    @made_of_steps
    def invoke(
        self, input: VerifierInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Verification:
        """Check one answer.

        Args:
            input: The answer, with its question and context, or with the conversation.
            config: The run's configuration.
            **kwargs: Unused.

        Returns:
            The verdicts, in the order in which they were drawn.

        Raises:
            AutoMixError: The question is empty, or there is no model to check with.
        """
        return super().invoke(input, config)

    @property
    @override
    def _asks_for(self) -> Reply:
        if self.structured:
            return "structured" if self.reasoning else "structured_verdict"
        return "reasoning" if self.reasoning else "verdict"

    @property
    def _longest_reply(self) -> int | None:
        if self.reasoning or self.max_tokens is None:
            return self.max_tokens
        return min(self.max_tokens, _VERDICT_TOKENS)

    def _shape(self, check: CheckRequest) -> RequestShape | None:
        shapes = [with_tools(check.tools)] if check.tools else []
        if self.structured:
            shapes.append(in_format("verdict", verdict_schema(reasoning=self.reasoning)))
        return together(*shapes) if shapes else None

    def _read(self, text: str) -> Verdict:
        if self.structured:
            return parse_structured(text, self.wording, reasoning=self.reasoning)
        return parse_verdict(text, self.wording)

    @override
    def expected_calls(
        self, input: VerifierInput, samples: Sequence[int], usage: UsageMetadata
    ) -> Sequence[Sequence[ModelCall]] | None:
        """Return the requests of a check: its prompt is counted, its replies are estimated."""
        if self.model is None:
            return None
        check = self._build_check(input)
        if isinstance(check, Verification):
            return None
        read = self.token_counter(check.messages) + _not_counted(input, usage, self.token_counter)
        written = _USUAL_REPLY if self.reasoning else _USUAL_VERDICT
        if thinks(self.model):  # about as long as for the answer
            written += (usage.get("output_token_details") or {}).get("reasoning") or 0
        return [sampled_calls(self.model, read, written, n, self.sampling) for n in samples]

    @override
    def _flow(self, input: VerifierInput, **kwargs: Any) -> Steps[Verification]:
        check = yield from self._check(input)
        if isinstance(check, Verification):
            return check
        model, shape = cast("ChatRunnable", self.model), self._shape(check)
        if self.structured and shape is not None and not can_shape(shape, model):
            kind = type(chat_model_of(model) or model).__name__
            return Verification(
                problem=f"{kind} is not known to support structured output: set "
                "structured=False, or check with another model"
            )
        drawn = yield from draw(
            model,
            check.messages,
            samples=input.get("samples") or self.samples,
            drawn=input.get("drawn", 0),
            sampling=self.sampling,
            temperature=self.temperature,
            max_tokens=self._longest_reply,
            shape=shape,
        )
        texts = tuple(str(reply.text) for reply in drawn.replies)
        return Verification(
            verdicts=tuple(self._read(text) for text in texts),
            replies=texts,
            calls=tuple(drawn.calls),
            undrawn=drawn.undrawn,
        )


def _not_counted(
    input: VerifierInput, usage: UsageMetadata, count: Callable[[list[BaseMessage]], int]
) -> int:
    """Return the tokens of the answering request that a count of its text misses.

    These are images, for example, which the check reads again. Overestimating them cannot lead to
    buying too many checks.
    """
    request = list(input.get("request") or ())
    return max(0, usage["input_tokens"] - count(request)) if request else 0
