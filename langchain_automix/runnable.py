"""`AutoMixRunnable`: one query's way through answer, verify, route."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue
from langchain_core.prompts import BasePromptTemplate
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSerializable
from langchain_core.runnables.base import RunnableBindingBase
from pydantic import ConfigDict, Field, model_validator
from typing_extensions import override

from langchain_automix._flow import Call, Flow, adrive, drive
from langchain_automix._models import chat_model_of
from langchain_automix.costs import CURRENCY, cost_of, token_prices
from langchain_automix.errors import AutoMixError
from langchain_automix.routers.base import OPENING, Router
from langchain_automix.routers.pomdp import POMDPRouter
from langchain_automix.types import Decision, ModelCall, RoutingState, Verification, Visit
from langchain_automix.verifiers.base import VerifierInput, verifier_for
from langchain_automix.verifiers.sampling import model_call
from langchain_automix.verifiers.self_verifier import SelfVerifier, answer_text, context_text

if TYPE_CHECKING:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForChainRun,
        CallbackManagerForChainRun,
    )

# LangGraph's message stream leaves out runs with this tag: a draft may yet be rejected.
_NOT_FOR_USERS = "nostream"
_MAX_STEPS = 100


class AutoMixRunnable(RunnableSerializable[Any, AIMessage]):
    """A cheap model answers and is checked; a larger model is asked where that pays off.

    Goes where a chat model goes in a chain: `prompt | AutoMixRunnable(...) | parser`. The
    message that comes out is the kept model's own; `response_metadata["automix"]` holds the
    record of the query: `model` (name kept), `model_index`, `action`, `confidence`,
    `verdicts`, `escalated`, `cost` (as text with currency, None when unknown) and `why`.

    ??? example "In a chain"

        ```python
        from langchain_automix import AutoMixRunnable

        chain = prompt | AutoMixRunnable.from_models(small, large) | StrOutputParser()
        ```

    ??? example "As the answer stage of RAG"

        ```python
        rag = {
            "context": retriever,
            "question": RunnablePassthrough(),
        } | AutoMixRunnable.from_models(small, large, prompt=rag_prompt)
        ```
    """

    models: list[Runnable[Any, Any]]
    """The chat models, two or more, cheap to expensive; bound, with retries or fallbacks."""

    verifier: Runnable[Any, Any] = Field(default_factory=SelfVerifier)
    """Checks an answer: a Runnable from `VerifierInput` to `Verification`. A `SelfVerifier`
    without a model checks with the model that answered."""

    router: Runnable[Any, Any] = Field(default_factory=POMDPRouter)
    """Decides what is done next: a Runnable from `RoutingState` to `Decision`."""

    prompt: Runnable[Any, Any] | None = None
    """Makes the models' input from a dict, whose question and context go to the verifier as
    such. None: the input is a model's input, and the verifier reads the conversation."""

    question_key: str = "question"
    """Key of the question in the dict that goes into `prompt`."""

    context_key: str = "context"
    """Key of the context in that dict: a text, or documents; may be missing."""

    abstention: str = "No answer: none is likely enough to be right."
    """What is said when the router abstains."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    @classmethod
    def from_models(cls, *models: Runnable[Any, Any], **fields: Any) -> Self:
        """Mix chat models, given cheap to expensive.

        Works before any fit, by a prior that is not calibrated, and says so once.

        Args:
            *models: Two or more chat models.
            **fields: Any other field, such as `prompt=`, `verifier=` or `router=`.
        """
        return cls(models=list(models), **fields)

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if len(self.models) < 2:  # noqa: PLR2004
            raise AutoMixError(
                f"A mix needs two or more models, cheap to expensive; given: {len(self.models)}."
            )
        names = self.model_names
        prices = [_prices(model) for model in self.models]
        for i, (this, following) in enumerate(itertools.pairwise(prices)):
            if this and following and this != following and _at_least(this, following):
                raise AutoMixError(
                    f"The models go cheap to expensive, but {names[i]} costs ${this[0]:g} in and "
                    f"${this[1]:g} out for a million tokens, more than {names[i + 1]} after it "
                    f"(${following[0]:g} and ${following[1]:g}): swap them."
                )
        self._opening()
        if isinstance(self.router, POMDPRouter):
            self.router.warn_of_verifier(getattr(self.verifier, "fingerprint", None))
        return self

    @property
    def model_names(self) -> tuple[str, ...]:
        """Names of the models, each once; `model-0` and so on where a model has no name."""
        names: list[str] = []
        for i, model in enumerate(self.models):
            name = _identity(model)[0] or f"model-{i}"
            names.append(f"{name}-{i}" if name in names else name)
        return tuple(names)

    @property
    @override
    def InputType(self) -> Any:
        return self.prompt.InputType if self.prompt is not None else self.models[0].InputType

    @property
    @override
    def OutputType(self) -> Any:
        return AIMessage

    @override
    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AIMessage:
        """Answer one query.

        Args:
            input: What a chat model takes, or with `prompt` the dict that it takes.
            config: The run's configuration.
            **kwargs: Go to the answering models, such as `stop`.

        Returns:
            The kept answer, with the record of the query in its `response_metadata`.

        Raises:
            AutoMixError: The question is empty, or the input is not of the right kind.
        """
        return self._call_with_config(self._invoke, input, config, **kwargs)

    @override
    async def ainvoke(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """Answer one query asynchronously; see `invoke`."""
        return await self._acall_with_config(self._ainvoke, input, config, **kwargs)

    def _invoke(
        self,
        input: Any,
        run_manager: CallbackManagerForChainRun,
        config: RunnableConfig,
        **kwargs: Any,
    ) -> AIMessage:
        return drive(self._mix(input, kwargs), run_manager, config)

    async def _ainvoke(
        self,
        input: Any,
        run_manager: AsyncCallbackManagerForChainRun,
        config: RunnableConfig,
        **kwargs: Any,
    ) -> AIMessage:
        return await adrive(self._mix(input, kwargs), run_manager, config)

    def _mix(self, input: Any, kwargs: Mapping[str, Any]) -> Flow[AIMessage]:
        """Take one query from its input to the kept answer."""
        way = yield from self._set_out(input)
        decision = self._opening(way.query_id)
        for _ in range(_MAX_STEPS):
            if decision.action in ("answer", "abstain"):
                return self._arrive(way, decision)
            if decision.action == "escalate":
                yield from self._ask(way, decision.model_index, kwargs)
                if decision.samples == 0:
                    return self._arrive(way, decision)
            yield from self._verify(way, decision)
            decision = yield from self._route(way)
        raise AutoMixError(
            f"The router asked for more than {_MAX_STEPS} steps on one query; it must decide "
            "to answer at some point."
        )

    def _opening(self, query_id: str | None = None) -> Decision:
        count = len(self.models)
        return self.router.opening(count, query_id) if isinstance(self.router, Router) else OPENING

    def _set_out(self, input: Any) -> Flow[_Way]:
        if self.prompt is None:
            messages = _messages(input)
            return _Way(input, {"answer": "", "messages": messages}, _digest(messages))
        if not isinstance(input, Mapping) or self.question_key not in input:
            has = f"the keys {sorted(input)}" if isinstance(input, Mapping) else type(input)
            raise AutoMixError(
                f"With `prompt`, the input is a dict with the key {self.question_key!r}, which "
                f"the check reads (question_key= names another); this input has {has}."
            )
        question = _text(input[self.question_key])
        if not question.strip():
            raise AutoMixError(f"The question is empty (key {self.question_key!r} of the input).")
        asked: VerifierInput = {"answer": "", "question": question}
        if (context := input.get(self.context_key)) is not None:
            asked["context"] = context
            if isinstance(self.prompt, BasePromptTemplate):
                # A template can only print documents as they are, with their metadata.
                input = {**input, self.context_key: context_text(context)}
        [prompted] = yield [Call(self.prompt, input)]
        return _Way(prompted, asked, _digest((asked.get("context"), question)))

    def _ask(self, way: _Way, index: int, kwargs: Mapping[str, Any]) -> Flow[None]:
        if not 0 <= index < len(self.models) or index in way.answers:
            raise AutoMixError(
                f"The router escalates to model {index}, which "
                + ("has answered already." if index in way.answers else "is not in the mix.")
            )
        call = Call(
            self.models[index],
            way.input,
            run_name="escalate" if way.answers else "draft",
            tags=[f"automix:{self.model_names[index]}", _NOT_FOR_USERS],
            kwargs=kwargs,
        )
        [message] = yield [call]
        if not isinstance(message, AIMessage):
            raise AutoMixError(
                f"Model {index} returned {type(message).__name__}, not an AIMessage: the models "
                "of a mix are chat models; a parser goes after the mix."
            )
        way.answers[index] = message
        way.visits[index] = Visit(model_index=index)
        way.calls.append(model_call([message]))

    def _verify(self, way: _Way, decision: Decision) -> Flow[None]:
        index = decision.model_index
        if index not in way.answers:
            raise AutoMixError(f"The router checks model {index}, which has not answered.")
        found = Verification(problem="the answer is empty")
        if answer_text(way.answers[index]):
            request: VerifierInput = {**way.asked, "answer": way.answers[index]}
            if decision.samples is not None:
                request["samples"] = decision.samples
            if (earlier := way.visits[index].verification) is not None:
                request["drawn"] = len(earlier.verdicts)
            verifier = verifier_for(self.verifier, self.models[index])
            [found] = yield [Call(verifier, request, tags=["automix:verify", _NOT_FOR_USERS])]
        before = way.visits[index].verification
        together = found if before is None else before.and_then(found)
        way.visits[index] = Visit(model_index=index, verification=together)
        way.calls.extend(found.calls)

    def _route(self, way: _Way) -> Flow[Decision]:
        visits = tuple(way.visits.values())
        state = RoutingState(models=self.model_names, visits=visits, query_id=way.query_id)
        [decision] = yield [Call(self.router, state, tags=["automix:route"])]
        if not isinstance(decision, Decision):
            raise AutoMixError(f"The router returned {type(decision).__name__}, not a Decision.")
        return decision

    def _arrive(self, way: _Way, decision: Decision) -> AIMessage:
        index = decision.model_index
        if index not in way.answers:
            raise AutoMixError(f"The router keeps model {index}'s answer, but it gave none.")
        checks = [visit.verification for visit in way.visits.values() if visit.verification]
        check = checks[-1] if checks else Verification()
        cost = cost_of(way.calls)
        # The first model asked is no escalation, even where its answer is kept unchecked.
        asked_one = decision.action == "escalate" and len(way.answers) == 1
        record = {
            "model": self.model_names[index],
            "model_index": index,
            "action": "answer" if asked_one else decision.action,
            "confidence": check.confidence,
            "verdicts": list(check.verdicts),
            "escalated": len(way.answers) > 1,
            "cost": None if cost is None else f"{cost:f} {CURRENCY}",
            "why": decision.why,
        }
        kept = way.answers[index]
        if decision.action == "abstain":  # no draft is shown, in no mode
            kept = AIMessage(self.abstention)
        metadata = {**kept.response_metadata, "automix": record}
        return kept.model_copy(update={"response_metadata": metadata})


@dataclass
class _Way:
    """How far one query has come."""

    input: Any
    asked: VerifierInput
    query_id: str
    answers: dict[int, AIMessage] = field(default_factory=dict)
    visits: dict[int, Visit] = field(default_factory=dict)
    calls: list[ModelCall] = field(default_factory=list)


def _messages(input: Any) -> list[BaseMessage]:
    if isinstance(input, Mapping):
        raise AutoMixError(
            "The input is a dict, which chat models do not take: give AutoMixRunnable the "
            "prompt that reads it (prompt=...), or put the prompt before it in the chain."
        )
    if isinstance(input, PromptValue):
        messages = input.to_messages()
    elif isinstance(input, str):
        messages = [HumanMessage(input)]
    else:
        messages = convert_to_messages(input)
    asked = [message.content for message in messages if isinstance(message, HumanMessage)]
    last = asked[-1] if asked else "".join(str(message.text) for message in messages)
    if isinstance(last, str) and not last.strip():
        raise AutoMixError("The question is empty: there is nothing to answer.")
    return messages


def _digest(asked: Any) -> str:
    """Return a name for a query: the same for the same question, whenever it is asked."""
    if isinstance(asked, list):
        asked = [(message.type, message.content) for message in asked]
    return hashlib.sha256(repr(asked).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _text(question: Any) -> str:
    if isinstance(question, BaseMessage):
        return str(question.text)
    return str(question or "")


def _identity(model: Runnable[Any, Any]) -> tuple[str | None, str | None]:
    """Return the model's name and its provider, as LangChain reports them in traces."""
    chat_model = chat_model_of(model)
    if chat_model is None:
        return None, None
    kwargs = model.kwargs if isinstance(model, RunnableBindingBase) else {}
    params = chat_model._get_ls_params(**kwargs)  # noqa: SLF001  (only there both stand)
    return params.get("ls_model_name"), params.get("ls_provider")


def _prices(model: Runnable[Any, Any]) -> tuple[Any, Any] | None:
    name, provider = _identity(model)
    return None if name is None else token_prices(name, provider)


def _at_least(prices: tuple[Any, Any], others: tuple[Any, Any]) -> bool:
    return all(price >= other for price, other in zip(prices, others, strict=True))
