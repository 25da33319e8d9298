"""`PromptedVerifier`, the base of checks that prompt a model with the answer."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, NamedTuple, Self

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.runnables import Runnable
from pydantic import BeforeValidator, ConfigDict, Field
from typing_extensions import override

from langchain_automix.errors import AutoMixError
from langchain_automix.flow.off_loop import LONG_TEXT, off_loop
from langchain_automix.flow.steps import Steps
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
from langchain_automix.verifiers.prompting.wording import ENGLISH, Reply, Wording, shipped_language


class CheckRequest(NamedTuple):
    """A request to check an answer."""

    messages: list[BaseMessage]
    tools: Sequence[dict[str, Any]] = ()
    """The answering call's tools, if the check continues its conversation."""


def _length(input: VerifierInput) -> int:
    """Return roughly how many characters a check has to read."""
    messages = (*input.get("messages", ()), *input.get("request", ()))
    context = input.get("context") or ""
    documents = [context] if isinstance(context, str) else context
    return sum(len(str(each.content)) for each in messages) + sum(
        len(each if isinstance(each, str) else each.page_content) for each in documents
    )


def _to_wording(wording: object) -> object:
    return Wording.of(wording) if isinstance(wording, str) else wording


class PromptedVerifier(Verifier):
    """Base of the checks that show a model the answer and read its reply."""

    model: Runnable[Any, Any] | None = None
    """Chat model that checks. None: `AutoMixRunnable` uses the model that answered. A different
    model, such as the large one, often judges better than the small model judges itself."""

    layout: Layout = "few_shot"
    """The order of the check's parts. `few_shot`: instruction and worked examples first, as in the
    paper. `zero_shot`: the same without examples. `conversation`: the messages of the answering
    call first, so that a prompt cache serves a long context again. If these messages contain text
    that looks like a part of the check, the check quotes them as JSON strings instead."""

    wording: Annotated[Wording, BeforeValidator(_to_wording)] = ENGLISH
    """The words of the check and of its verdict: a `Wording`, or the code of a shipped language,
    such as `de` (see `Wording.of`)."""

    quoting: Quoting | None = None
    """How untrusted text is quoted. `plain`: as it is, except for special tokens of chat templates
    and lines that only a check writes. `json`: as JSON strings, declared to be data. None: `plain`;
    with `layout="conversation"`, `json` for a standalone check."""

    max_input_tokens: int | None = Field(default=None, ge=1)
    """Maximum length of a check, in tokens. The context is shortened to fit, but never the question
    or the answer. None: the limit in the model's profile, if any."""

    token_counter: Callable[[list[BaseMessage]], int] = Field(
        default=count_tokens_approximately, exclude=True
    )
    """Counts the tokens of messages; by default, an estimate from the number of characters."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    @property
    @override
    def lc_attributes(self) -> dict[str, Any]:
        return {"wording": "en" if self.wording is ENGLISH else asdict(self.wording)}

    @override
    def _setting(self, name: str) -> Any:
        if name != "wording":
            return super()._setting(name)
        return shipped_language(self.wording) or json.loads(json.dumps(asdict(self.wording)))

    @override
    def for_model(self, model: Runnable[Any, Any]) -> Self:
        """Return this verifier with the given model, unless it has its own."""
        return self if self.model is not None else self.model_copy(update={"model": model})

    @property
    @abstractmethod
    def _asks_for(self) -> Reply: ...

    def _fingerprint(self, *settings: Any) -> str:
        """Return a short hash of the prompt, the verifier's own model, and further settings."""
        messages = self._messages(CheckContext(""), "", (), [HumanMessage("")])
        shape = [[message.text for message in messages], *settings]
        if self.model is not None:
            shape.append(identity(self.model))
        return hashlib.sha256(json.dumps(shape).encode()).hexdigest()[:16]

    def _check(self, input: VerifierInput) -> Steps[CheckRequest | Verification]:
        """Return the request for a check; a long one is built in a thread, off the event loop."""
        is_long = _length(input) > LONG_TEXT
        return (yield from off_loop(partial(self._build_check, input), is_long=is_long))

    def _build_check(self, input: VerifierInput) -> CheckRequest | Verification:
        """Return the request for a check, or a verification if no request is possible.

        Raises:
            AutoMixError: The question is empty, or there is no model to check with.
        """
        if self.model is None:
            raise AutoMixError(
                f"{type(self).__name__} has no model to check with: pass model=..., or use it "
                "inside an AutoMixRunnable, which uses the model that answered."
            )
        answer = answer_text(input["answer"])
        if not answer:
            return Verification(problem=EMPTY_ANSWER)
        context = check_context(input)
        attachments = attachments_to(input)
        if not context.question.strip():
            if not attachments:
                return Verification(problem="the question has no text that a check could read")
            context = context._replace(question=self.wording.only_attached)
        if attachments and (problem := unreadable_reason(self.model, attachments)) is not None:
            return Verification(problem=problem)
        check = self._fit(context, answer, attachments, input)
        if check is None:
            parts = ", the answer and the tools" if context.tools else " and the answer"
            return Verification(problem=f"the question{parts} do not fit into a check")
        return check

    def _messages(
        self,
        context: CheckContext,
        answer: str,
        attachments: Sequence[dict[str, Any]],
        request: Sequence[BaseMessage],
    ) -> list[BaseMessage]:
        reply, wording = self._asks_for, self.wording
        continues = self.layout == "conversation" and bool(request)
        if continues and not can_be_taken_for_a_check(request, wording):
            return follow_up_messages(request, context, answer, reply=reply, wording=wording)
        return check_messages(
            context,
            answer,
            attachments,
            layout=self.layout,
            reply=reply,
            wording=wording,
            quoting=self._quoting,
        )

    @property
    def _quoting(self) -> Quoting:
        return self.quoting or ("json" if self.layout == "conversation" else "plain")

    def _fit(
        self,
        context: CheckContext,
        answer: str,
        attachments: Sequence[dict[str, Any]],
        input: VerifierInput,
    ) -> CheckRequest | None:
        """Return the check with its context shortened to fit, or None if it cannot fit."""
        limit = self.max_input_tokens or self._profile_limit()
        request, tools = input.get("request") or (), input.get("tools") or ()
        # Only text is counted: each provider counts images differently.
        if (
            limit is None
            or self.token_counter(self._messages(context, answer, (), request)) <= limit
        ):
            messages = self._messages(context, answer, attachments, request)
            continues = bool(request) and messages[0] is request[0]
            if not (tools and continues and self._can_send(tools)):
                return CheckRequest(messages)
            # The request already carries the tools, so the check only names them.
            context = context._replace(tools=tool_names(tools))
            return CheckRequest(self._messages(context, answer, attachments, request), tools)
        # Shortening the conversation would lose its cache, so make a standalone check.
        bare = context._replace(context=None, conversation="-" if context.conversation else None)
        room = limit - self.token_counter(self._messages(bare, answer, (), ()))
        if room < 0:
            return None
        if context.context and context.conversation:
            room //= 2
        quote = as_json if self._quoting == "json" else str
        shortened = context.shortened(
            lambda text: truncate_context(
                text,
                relevant_to=f"{context.question} {answer}",
                fits=lambda part: self.token_counter([HumanMessage(quote(part))]) <= room,
            )
        )
        return CheckRequest(self._messages(shortened, answer, attachments, ()))

    def _can_send(self, tools: Sequence[dict[str, Any]]) -> bool:
        return self.model is not None and can_shape(with_tools(tools), self.model)

    def _profile_limit(self) -> int | None:
        chat_model = chat_model_of(self.model) if self.model is not None else None
        limit = (chat_model.profile or {}).get("max_input_tokens") if chat_model else None
        # Hold back a tenth, since the default counter only estimates.
        return None if limit is None else limit - limit // 10
