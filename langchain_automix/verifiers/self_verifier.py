"""`SelfVerifier`: a model checks an answer a few times, against the context."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, Self, cast

from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    ToolMessage,
    get_buffer_string,
)
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import ConfigDict, Field
from typing_extensions import override

from langchain_automix._flow import Flow
from langchain_automix._models import chat_model_of
from langchain_automix.errors import AutoMixError
from langchain_automix.types import Verification
from langchain_automix.verifiers.attachments import attachments_of, cannot_read
from langchain_automix.verifiers.base import Verifier, VerifierInput
from langchain_automix.verifiers.fitting import shorten
from langchain_automix.verifiers.free import tool_parts
from langchain_automix.verifiers.prompts import (
    ONLY_ATTACHED,
    Asked,
    check_messages,
    parse_verdict,
)
from langchain_automix.verifiers.sampling import ChatRunnable, Sampling, draw


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
        return super().invoke(input, config)

    @override
    def _flow(self, input: VerifierInput, **kwargs: Any) -> Flow[Verification]:
        if self.model is None:
            raise AutoMixError(
                "SelfVerifier has no model to check with: pass model=..., or use it inside an "
                "AutoMixRunnable, which puts in the model that answered."
            )
        answer = answer_text(input["answer"])
        if not answer:
            return Verification(problem="the answer is empty")
        asked = what_was_asked(input)
        attachments = _attachments(input)
        if not asked.question.strip():
            if not attachments:
                return Verification(problem="the question holds no text that a check could read")
            asked = asked._replace(question=ONLY_ATTACHED)
        if attachments and (problem := cannot_read(self.model, attachments)) is not None:
            return Verification(problem=problem)
        messages = self._messages(asked, answer, attachments)
        if messages is None:
            and_tools = "the question, the answer and the tools"
            what = and_tools if asked.tools else "the question and the answer"
            return Verification(problem=f"{what} do not fit into a check")
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

    def _messages(
        self, asked: Asked, answer: str, attachments: Sequence[dict[str, Any]]
    ) -> list[BaseMessage] | None:
        limit = self.max_input_tokens or self._profile_limit()
        if limit is not None:
            bare = asked._replace(context=None, conversation="-" if asked.conversation else None)
            # Only text is counted: what an image takes is each provider's own affair.
            room = limit - self.token_counter(check_messages(bare, answer))
            if room < 0:
                return None
            if asked.context and asked.conversation:
                room //= 2
            asked = asked.shortened(
                lambda text: shorten(
                    text,
                    relevant_to=f"{asked.question} {answer}",
                    fits=lambda part: self.token_counter([HumanMessage(part)]) <= room,
                )
            )
        return check_messages(asked, answer, attachments)

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

    Without a question as such, the last human message is the question; with one, all messages
    are what was said before it. The conversation is shown, but what it does not hold may still
    be right: a check that is grounded needs its context as such.

    Raises:
        AutoMixError: The question is given and empty.
    """
    if "question" not in input:
        asked = _from_conversation(input.get("messages") or ())
    elif not input["question"].strip():
        raise AutoMixError("The question is empty: there is nothing to check an answer to.")
    else:
        said = input.get("messages") or ()
        asked = Asked(
            input["question"],
            context=context_text(input.get("context")),
            conversation=_conversation_text(said) if said else None,
        )
    return asked._replace(tools=_tools_text(input.get("tools") or ()))


def _from_conversation(messages: Sequence[BaseMessage]) -> Asked:
    asked = [i for i, message in enumerate(messages) if isinstance(message, HumanMessage)]
    if not asked:
        return Asked("")
    last = asked[-1]
    rest = [*messages[:last], *messages[last + 1 :]]
    return Asked(str(messages[last].text), conversation=_conversation_text(rest) if rest else None)


def _conversation_text(messages: Sequence[BaseMessage]) -> str:
    """Return what was said, a paragraph each; tool calls look as they do in an answer."""
    called: dict[str | None, str] = {}
    lines: list[str] = []
    for message in messages:
        if isinstance(message, AIMessage) and message.tool_calls:
            called |= {call["id"]: call["name"] for call in message.tool_calls}
            lines.append(f"AI: {answer_text(message)}")
        elif isinstance(message, ToolMessage):
            name = message.name or called.get(message.tool_call_id) or "result"
            failed = " (failed)" if message.status == "error" else ""
            lines.append(f"Tool {name}{failed}: {message.text}")
        else:
            lines.append(get_buffer_string([message]))
    return "\n".join(lines)


def _attachments(input: VerifierInput) -> Sequence[dict[str, Any]]:
    if "attachments" in input:
        return input["attachments"]
    return attachments_of(input.get("messages") or ())


def _tools_text(tools: Sequence[dict[str, Any]]) -> str | None:
    lines: list[str] = []
    for name, description, parameters in map(tool_parts, tools):
        about = f": {' '.join(description.split())}" if description else ""
        takes = json.dumps(parameters, separators=(",", ":"), ensure_ascii=False, default=str)
        lines.append(f"- {name}{about}{f' Arguments: {takes}' if parameters else ''}")
    return "\n".join(lines) or None


def context_text(context: str | Sequence[Document | str] | None) -> str | None:
    """Return a context as one text, its documents a paragraph each."""
    if context is None or isinstance(context, str):
        return context
    texts = (part.page_content if isinstance(part, Document) else str(part) for part in context)
    return "\n\n".join(texts)
