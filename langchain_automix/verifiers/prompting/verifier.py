"""What the checks that ask a model have in common: which model, and what it is shown."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Annotated, Any, NamedTuple, Self

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.runnables import Runnable
from pydantic import BeforeValidator, ConfigDict, Field
from typing_extensions import override

from langchain_automix.errors import AutoMixError
from langchain_automix.models.attachments import unreadable_reason
from langchain_automix.models.identity import identity
from langchain_automix.models.messages import answer_text
from langchain_automix.models.request_shape import can_shape, with_tools
from langchain_automix.models.wrappers import chat_model_of
from langchain_automix.types import EMPTY_ANSWER, Verification
from langchain_automix.verifiers.base import Verifier, VerifierInput
from langchain_automix.verifiers.inputs import (
    CheckContext,
    attachments_to,
    check_context,
    tool_names,
)
from langchain_automix.verifiers.prompting.messages import (
    Layout,
    check_messages,
    follow_up_messages,
)
from langchain_automix.verifiers.prompting.quoting import Quoting, as_json, can_be_taken_for_a_check
from langchain_automix.verifiers.prompting.truncation import truncate_context
from langchain_automix.verifiers.prompting.wording import ENGLISH, Reply, Wording


class CheckRequest(NamedTuple):
    """What a model is sent to check an answer."""

    messages: list[BaseMessage]
    tools: Sequence[dict[str, Any]] = ()
    """The answering call's tools, where the check goes on with its conversation."""


def _wording_of(given: object) -> object:
    return Wording.of(given) if isinstance(given, str) else given


class PromptedVerifier(Verifier):
    """Base of the checks that show a model the answer, and read what it replies."""

    model: Runnable[Any, Any] | None = None
    """Chat model that checks. None: `AutoMixRunnable` puts in the model that answered. Another
    one, such as the large model, often judges better than the small model judges itself."""

    layout: Layout = "few_shot"
    """Where the parts of the check stand. `few_shot`: instruction and worked examples first, as
    in the paper. `zero_shot`: the same without examples. `conversation`: after the answering
    call's own messages, so that a prompt cache serves a long context a second time; where these
    hold what looks like a part of the check, they are shown in it instead, as JSON strings."""

    wording: Annotated[Wording, BeforeValidator(_wording_of)] = ENGLISH
    """The words of the check, by which its verdict is read, too; as a `Wording`, or as the code
    of a language that is shipped, such as `de` (see `Wording.of`)."""

    quoting: Quoting | None = None
    """How untrusted text stands in the check. `plain`: as it is, but for the marks of chat
    templates and the lines that only a check writes. `json`: as JSON strings, said to be data.
    None: `plain`, and with `layout="conversation"` `json` where the check stands on its own."""

    max_input_tokens: int | None = Field(default=None, ge=1)
    """Longest check, in tokens. The context is shortened to fit, never the question or the
    answer. None: the limit in the model's profile, where it has one."""

    token_counter: Callable[[list[BaseMessage]], int] = Field(
        default=count_tokens_approximately, exclude=True
    )
    """Counts the tokens of messages; the default estimates from the number of characters."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    @property
    @override
    def lc_attributes(self) -> dict[str, Any]:
        return {"wording": "en" if self.wording is ENGLISH else asdict(self.wording)}

    @override
    def for_model(self, model: Runnable[Any, Any]) -> Self:
        """Return this verifier, checking with the given model unless it has one of its own."""
        return self if self.model is not None else self.model_copy(update={"model": model})

    @property
    @abstractmethod
    def _asks_for(self) -> Reply: ...

    def _fingerprint(self, *settings: Any) -> str:
        """Return a short hash of the prompt, of a model of its own, and of further settings."""
        messages = self._ask_for(CheckContext(""), "", (), [HumanMessage("")])
        shape = [[message.text for message in messages], *settings]
        if self.model is not None:
            shape.append(identity(self.model))
        return hashlib.sha256(json.dumps(shape).encode()).hexdigest()[:16]

    def _check_of(self, input: VerifierInput) -> CheckRequest | Verification:
        """Return what is sent to check an answer; a verification where nothing can be.

        Raises:
            AutoMixError: The question is empty, or there is no model to check with.
        """
        if self.model is None:
            raise AutoMixError(
                f"{type(self).__name__} has no model to check with: pass model=..., or use it "
                "inside an AutoMixRunnable, which puts in the model that answered."
            )
        answer = answer_text(input["answer"])
        if not answer:
            return Verification(problem=EMPTY_ANSWER)
        asked = check_context(input)
        attachments = attachments_to(input)
        if not asked.question.strip():
            if not attachments:
                return Verification(problem="the question holds no text that a check could read")
            asked = asked._replace(question=self.wording.only_attached)
        if attachments and (problem := unreadable_reason(self.model, attachments)) is not None:
            return Verification(problem=problem)
        check = self._fitting(asked, answer, attachments, input)
        if check is None:
            and_tools = "the question, the answer and the tools"
            what = and_tools if asked.tools else "the question and the answer"
            return Verification(problem=f"{what} do not fit into a check")
        return check

    def _ask_for(
        self,
        asked: CheckContext,
        answer: str,
        attachments: Sequence[dict[str, Any]],
        request: Sequence[BaseMessage],
    ) -> list[BaseMessage]:
        reply, wording = self._asks_for, self.wording
        if self.layout == "conversation" and request:
            texts = (str(message.text) for message in request)
            if not can_be_taken_for_a_check(texts, wording):
                return follow_up_messages(request, asked, answer, reply=reply, wording=wording)
        # A check of an answer whose request is not known has no conversation to go on with.
        return check_messages(
            asked,
            answer,
            attachments,
            layout=self.layout,
            reply=reply,
            wording=wording,
            quoting=self._quotes,
        )

    @property
    def _quotes(self) -> Quoting:
        return self.quoting or ("json" if self.layout == "conversation" else "plain")

    def _fitting(
        self,
        asked: CheckContext,
        answer: str,
        attachments: Sequence[dict[str, Any]],
        input: VerifierInput,
    ) -> CheckRequest | None:
        """Return the check, its context shortened until it fits; None: it cannot fit."""
        limit = self.max_input_tokens or self._profile_limit()
        request, tools = input.get("request") or (), input.get("tools") or ()
        # Only text is counted: what an image takes is each provider's own affair.
        if limit is None or self.token_counter(self._ask_for(asked, answer, (), request)) <= limit:
            messages = self._ask_for(asked, answer, attachments, request)
            goes_on = bool(request) and messages[0] is request[0]
            if not (tools and goes_on and self._keeps(tools)):
                return CheckRequest(messages)
            # What stands in the request is not written out a second time.
            asked = asked._replace(tools=tool_names(tools))
            return CheckRequest(self._ask_for(asked, answer, attachments, request), tools)
        # The conversation cannot be shortened without losing its cache: the block can.
        bare = asked._replace(context=None, conversation="-" if asked.conversation else None)
        room = limit - self.token_counter(self._ask_for(bare, answer, (), ()))
        if room < 0:
            return None
        if asked.context and asked.conversation:
            room //= 2
        quote = as_json if self._quotes == "json" else str
        asked = asked.shortened(
            lambda text: truncate_context(
                text,
                relevant_to=f"{asked.question} {answer}",
                fits=lambda part: self.token_counter([HumanMessage(quote(part))]) <= room,
            )
        )
        return CheckRequest(self._ask_for(asked, answer, attachments, ()))

    def _keeps(self, tools: Sequence[dict[str, Any]]) -> bool:
        return self.model is not None and can_shape(with_tools(tools), self.model)

    def _profile_limit(self) -> int | None:
        chat_model = chat_model_of(self.model) if self.model is not None else None
        limit = (chat_model.profile or {}).get("max_input_tokens") if chat_model else None
        # The default counter estimates; a tenth is kept back for where it counts too few.
        return None if limit is None else limit - limit // 10
