"""`SelfVerifier`: a model checks an answer a few times, against the context."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self, cast

from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, get_buffer_string
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import ConfigDict, Field
from typing_extensions import override

from langchain_automix._flow import Flow, adrive, drive
from langchain_automix._models import chat_model_of
from langchain_automix.errors import AutoMixError
from langchain_automix.types import Verification
from langchain_automix.verifiers.base import Verifier, VerifierInput
from langchain_automix.verifiers.fitting import shorten
from langchain_automix.verifiers.prompts import Asked, check_messages, parse_verdict
from langchain_automix.verifiers.sampling import ChatRunnable, Sampling, draw

if TYPE_CHECKING:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForChainRun,
        CallbackManagerForChainRun,
    )


class SelfVerifier(Verifier):
    """Ask a model several times whether an answer follows from its context.

    Few-shot self-verification of AutoMix (Aggarwal, Madaan et al., NeurIPS 2024, section
    4.1): the check is framed as entailment, each sample writes one sentence of reasoning
    and then a verdict, and the confidence is the share of accepts among the valid verdicts.

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

    model: Runnable[Any, Any] | None = None
    """Chat model that checks. None: `AutoMixRunnable` puts in the model that answered."""

    samples: int = Field(default=8, ge=1)
    """Verdicts drawn for one answer (k in the paper)."""

    temperature: float = Field(default=1.0, ge=0)
    """Sampling temperature of the verdicts."""

    max_tokens: int = Field(default=160, ge=1)
    """Longest reply of one check, in tokens; not set for models that think first."""

    sampling: Sampling = "auto"
    """How the samples are drawn. `n`: in one request, which pays for the prompt once.
    `parallel`: one request each. `auto`: `n` where the model has it."""

    max_input_tokens: int | None = Field(default=None, ge=1)
    """Longest check, in tokens. The context is shortened to fit, never the question or the
    answer. None: the limit in the model's profile, where it has one."""

    token_counter: Callable[[list[BaseMessage]], int] = Field(
        default=count_tokens_approximately, exclude=True
    )
    """Counts the tokens of messages; the default estimates from the number of characters."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    @property
    def fingerprint(self) -> str:
        """Short hash of what shapes the verdicts: the prompt and how samples are drawn.

        A policy that was fitted to checks with one fingerprint says little about others.
        """
        prompt = [message.text for message in check_messages(Asked(""), "")]
        shape = [prompt, self.temperature, self.max_tokens]
        return hashlib.sha256(json.dumps(shape).encode()).hexdigest()[:16]

    @override
    def for_model(self, model: Runnable[Any, Any]) -> Self:
        """Return this verifier, checking with the given model unless it has one of its own."""
        return self if self.model is not None else self.model_copy(update={"model": model})

    @override
    def invoke(
        self, input: VerifierInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Verification:
        """Check one answer.

        Args:
            input: The answer, with its question and context, or with the conversation.
            config: The run's configuration.
            **kwargs: Not used.

        Returns:
            The verdicts, in the order drawn.

        Raises:
            AutoMixError: The question is empty, or there is no model to check with.
        """
        return self._call_with_config(self._invoke, input, config)

    @override
    async def ainvoke(
        self, input: VerifierInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Verification:
        """Check one answer asynchronously; see `invoke`."""
        return await self._acall_with_config(self._ainvoke, input, config)

    def _invoke(
        self,
        input: VerifierInput,
        run_manager: CallbackManagerForChainRun,
        config: RunnableConfig,
    ) -> Verification:
        return drive(self._check(input), run_manager, config)

    async def _ainvoke(
        self,
        input: VerifierInput,
        run_manager: AsyncCallbackManagerForChainRun,
        config: RunnableConfig,
    ) -> Verification:
        return await adrive(self._check(input), run_manager, config)

    def _check(self, input: VerifierInput) -> Flow[Verification]:
        if self.model is None:
            raise AutoMixError(
                "SelfVerifier has no model to check with: pass model=..., or use it inside an "
                "AutoMixRunnable, which puts in the model that answered."
            )
        answer = answer_text(input["answer"])
        if not answer:
            return Verification(problem="the answer is empty")
        asked = what_was_asked(input)
        if not asked.question.strip():
            return Verification(problem="the question holds no text that a check could read")
        messages = self._messages(asked, answer)
        if messages is None:
            return Verification(problem="the question and the answer do not fit into a check")
        replies, calls = yield from draw(
            cast("ChatRunnable", self.model),
            messages,
            samples=input.get("samples") or self.samples,
            drawn=input.get("drawn", 0),
            sampling=self.sampling,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
        )
        texts = tuple(str(reply.text) for reply in replies)
        return Verification(
            verdicts=tuple(parse_verdict(text) for text in texts),
            replies=texts,
            calls=tuple(calls),
        )

    def _messages(self, asked: Asked, answer: str) -> list[BaseMessage] | None:
        limit = self.max_input_tokens or self._profile_limit()
        if limit is not None:
            bare = asked._replace(context=None, conversation="-" if asked.conversation else None)
            room = limit - self.token_counter(check_messages(bare, answer))
            if room < 0:
                return None
            asked = asked.shortened(
                lambda text: shorten(
                    text,
                    relevant_to=f"{asked.question} {answer}",
                    fits=lambda part: self.token_counter([HumanMessage(part)]) <= room,
                )
            )
        return check_messages(asked, answer)

    def _profile_limit(self) -> int | None:
        chat_model = chat_model_of(self.model) if self.model is not None else None
        limit = (chat_model.profile or {}).get("max_input_tokens") if chat_model else None
        # The default counter estimates; a tenth is kept back for where it counts too few.
        return None if limit is None else limit - limit // 10


def answer_text(answer: str | BaseMessage) -> str:
    """Return an answer as the text that a check reads: its words, and its tool calls."""
    if isinstance(answer, str):
        return answer.strip()
    tool_calls = answer.tool_calls if isinstance(answer, AIMessage) else []
    calls = [f"[calls {call['name']} with {json.dumps(call['args'])}]" for call in tool_calls]
    return "\n".join([str(answer.text).strip(), *calls]).strip()


def what_was_asked(input: VerifierInput) -> Asked:
    """Return the question, and what its answer must follow from.

    Without a question as such, the last human message is the question. The rest of the
    conversation is shown, but what it does not hold may still be right: a check that is
    grounded needs its context as such.

    Raises:
        AutoMixError: The question is given and empty.
    """
    if "question" not in input:
        return _from_conversation(input.get("messages") or ())
    if not input["question"].strip():
        raise AutoMixError("The question is empty: there is nothing to check an answer to.")
    return Asked(input["question"], context=context_text(input.get("context")))


def _from_conversation(messages: Sequence[BaseMessage]) -> Asked:
    asked = [i for i, message in enumerate(messages) if isinstance(message, HumanMessage)]
    if not asked:
        return Asked("")
    last = asked[-1]
    rest = [*messages[:last], *messages[last + 1 :]]
    return Asked(str(messages[last].text), conversation=get_buffer_string(rest) if rest else None)


def context_text(context: str | Sequence[Document | str] | None) -> str | None:
    """Return a context as one text, its documents a paragraph each."""
    if context is None or isinstance(context, str):
        return context
    texts = (part.page_content if isinstance(part, Document) else str(part) for part in context)
    return "\n\n".join(texts)
