"""Random queries by every way, and what the server billed for each: one case is one call."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from contextvars import copy_context
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import langsmith
from hypothesis import strategies as st
from langchain_core.callbacks import UsageMetadataCallbackHandler, get_usage_metadata_callback
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable
from openai import APIError
from pydantic import BaseModel
from typing_extensions import override

from langchain_automix import (
    AutoMixRunnable,
    AutoMixTotals,
    Decision,
    POMDPRouter,
    RoutingState,
    SelfVerifier,
    ThresholdRouter,
)
from langchain_automix.errors import ModelsFailedError
from langchain_automix.routers.base import Router, ask, keep, next_model
from tests.support.builders.mixes import pay, weather
from tests.support.builders.scripted_replies import (
    Body,
    Outcome,
    Reply,
    call,
    is_check,
    judging,
    text_of,
)
from tests.support.servers.openai_server import OpenAIServer

WAYS = ("invoke", "ainvoke", "batch", "abatch", "stream", "astream", "astream_events")
PRICES = {
    name: {"input": 0.5 + i, "output": 2 + i, "cache_read": "0.125"}
    for i, name in enumerate(("small", "large", "third"))
}
Bill = Mapping[str, int]
_MARK = re.compile(r"query \d+-\d+")


class Patient(Router):
    """Asks for more verdicts of every answer that a larger model might mend."""

    more: int = 2

    @override
    def _decide(self, state: RoutingState) -> Decision:
        check, later = state.current.verification, next_model(state)
        if check is None or later is None:
            return keep(state, why="It is the last.")
        if len(check.verdicts) < self.more and check.verdicts:
            index = state.current.model_index
            return Decision(action="verify", model_index=index, samples=1, why="More.")
        return ask(state, later) if (check.confidence or 0) < 0.5 else keep(state)


class Town(BaseModel):
    """A town."""

    name: str


@dataclass(frozen=True)
class Case:
    """One call of a mix: how it is made, and how its models and its server behave."""

    way: str
    size: int
    models: int
    router: str
    samples: int
    sampling: str
    knows_n: str
    verdicts: str
    drafts: str
    verifier: str
    cached: int
    retries: int
    with_prompt: bool
    down: str
    """Models that answer nothing but errors."""

    on_verification_error: str
    on_escalation_error: str


def cases() -> st.SearchStrategy[Case]:
    of = st.sampled_from
    return st.builds(
        Case,
        way=of(WAYS),
        size=st.integers(1, 3),
        models=of((2, 2, 3)),
        router=of(("threshold", "threshold", "patient", "pomdp")),
        samples=st.integers(1, 4),
        sampling=of(("auto", "n", "parallel")),
        knows_n=of(("known", "known", "ignored", "refused")),
        verdicts=st.text("aaarri", min_size=1, max_size=4),
        drafts=of(("text", "text", "text", "empty", "tool", "malformed", "unknown", "town", "no")),
        verifier=of(("plain", "plain", "plain", "fallback", "midway", "retried", "failing", "no")),
        cached=of((0, 0, 3, 40)),
        retries=of((0, 0, 1)),
        with_prompt=st.booleans(),
        down=of(("none", "none", "none", "none", "small", "large", "small large")),
        on_verification_error=of(("escalate", "keep", "prior", "raise", "raise")),
        on_escalation_error=of(("raise", "answer")),
    ).map(_possible)


def _possible(case: Case) -> Case:
    """What is asked for must be something that can be: `n` itself is refused by no one here."""
    if case.sampling == "n" and case.knows_n == "refused":
        case = replace(case, sampling="auto")
    if case.verifier == "midway":  # the first request is billed, and the ones after it fail
        case = replace(case, sampling="auto", samples=max(2, case.samples), knows_n="ignored")
    if case.verifier == "retried":  # a request beside the one that fails could be billed in vain
        case = replace(case, sampling="auto", knows_n="known")
    return case


@dataclass
class Ran:
    """What came of one case."""

    case: Case
    marks: list[str]
    found: list[Any]
    """Of each query its message, its parsed object, or the error that it raised."""

    billed: dict[str, list[dict[str, Any]]]
    """By query, the bills in the order of the requests."""

    usage: UsageMetadataCallbackHandler
    totals: AutoMixTotals

    def bill(self, mark: str) -> Bill:
        """What the server billed for one query."""
        return total(self.billed[mark])

    def price(self, mark: str) -> Decimal:
        whole = Decimal(0)
        for bill in self.billed[mark]:
            each, price = total([bill]), PRICES[bill["model"]]
            parts = {"input": each["input"] - each["cached"], "output": each["output"]}
            parts["cache_read"] = each["cached"]
            whole += sum(n * Decimal(str(price[kind])) for kind, n in parts.items())
        return whole / 1_000_000


def total(bills: list[dict[str, Any]]) -> Bill:
    found: Counter[str] = Counter()
    for bill in bills:
        found["input"] += bill["prompt_tokens"]
        found["output"] += bill["completion_tokens"]
        found["total"] += bill["total_tokens"]
        found["cached"] += bill.get("prompt_tokens_details", {}).get("cached_tokens", 0)
    return found


def reported(usages: list[dict[str, Any]]) -> Bill:
    """The same of what LangChain calls usage."""
    found: Counter[str] = Counter()
    for usage in usages:
        for kind in ("input", "output", "total"):
            found[kind] += usage[f"{kind}_tokens"]
        found["cached"] += (usage.get("input_token_details") or {}).get("cache_read") or 0
    return found


class Books:
    """Runs cases on one server, with one set of models."""

    def __init__(
        self, server: OpenAIServer, client: langsmith.Client, loop: asyncio.Runner
    ) -> None:
        # One loop for all, as the models keep their connections.
        self.loop = loop
        self.server = server
        self.client = client
        names = ("small", "large", "third")
        self.models = {name: server.model(name, stream_usage=True) for name in names}
        self.count = 0
        self.desks: dict[str, _Desk] = {}
        self.served: list[str] = []
        server.script = self._serve

    def _serve(self, body: Body) -> Outcome:
        """Answer by the script of the query's own case: a request may outlive its client."""
        said = " ".join(text_of(message.get("content")) for message in body["messages"])
        mark = _MARK.findall(said)[-1]
        outcome = self.desks[mark].answer(body, mark)
        if not isinstance(outcome, int):
            self.served.append(mark)
        return outcome

    def settle(self) -> None:
        """Put each bill to the query that it is for."""
        for mark, bill in zip(self.served, self.server.billed, strict=True):
            self.desks[mark].billed[mark].append(bill)

    def run(self, case: Case) -> Ran:
        self.count += 1
        marks = [f"query {self.count}-{i}" for i in range(case.size if "batch" in case.way else 1)]
        desk = _Desk(case, {mark: [] for mark in marks})
        self.desks |= dict.fromkeys(marks, desk)
        self.server.cached = case.cached
        totals = AutoMixTotals()
        config: Any = {"callbacks": [totals], "metadata": {"case": self.count}}
        client, mix = self.client, self._mix(case)
        with (
            langsmith.tracing_context(enabled=True, client=client, project_name="books"),
            get_usage_metadata_callback() as usage,
        ):
            found = self._called(mix, case, [_asked(mark, case) for mark in marks], config)
        return Ran(case, marks, found, desk.billed, usage, totals)

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        # In the context of now: the loop's own is that of its first work.
        return self.loop.run(work, context=copy_context())

    def _mix(self, case: Case) -> Runnable[Any, Any]:
        routers: dict[str, Any] = {"threshold": ThresholdRouter(threshold=0.5)}
        routers |= {"patient": Patient(), "pomdp": POMDPRouter()}
        verifier: Any = SelfVerifier(samples=case.samples, sampling=case.sampling)
        if case.verifier in {"fallback", "midway"}:
            verifier = verifier.with_fallbacks([SelfVerifier(model=self.models["third"])])
        elif case.verifier == "retried":
            verifier = verifier.with_retry(wait_exponential_jitter=False, stop_after_attempt=2)
        settings: Any = {
            "on_verification_error": case.on_verification_error,
            "on_escalation_error": case.on_escalation_error,
            "prices": PRICES,
        }
        mix = AutoMixRunnable(
            models=list(self.models.values())[: case.models],
            verifier=verifier,
            router=routers[case.router],
            verification=case.verifier != "no",
            retries_if_unusable=case.retries,
            **settings,
            prompt=ChatPromptTemplate.from_template("{context} {question}")
            if case.with_prompt
            else None,
        )
        if case.drafts in {"tool", "malformed", "unknown"}:
            return mix.bind_tools([weather, pay])
        if case.drafts in {"town", "no"}:
            return mix.with_structured_output(Town, method="function_calling", include_raw=True)
        return mix

    def _called(
        self, mix: Runnable[Any, Any], case: Case, inputs: list[Any], config: Any
    ) -> list[Any]:
        """Make the call; a query that fails comes to its error."""
        first, whole = inputs[0], {"return_exceptions": True}
        ways: dict[str, Callable[[], Any]] = {
            "batch": lambda: mix.batch(inputs, config, **whole),
            "abatch": lambda: self._run(mix.abatch(inputs, config, **whole)),
            "invoke": lambda: mix.invoke(first, config),
            "ainvoke": lambda: self._run(mix.ainvoke(first, config)),
            "stream": lambda: _joined(list(mix.stream(first, config))),
            "astream": lambda: _joined(self._run(_streamed(mix, first, config))),
            "astream_events": lambda: _joined(self._run(_events(mix, first, config))),
        }
        try:
            found = ways[case.way]()
        except (APIError, ModelsFailedError) as error:
            found = error
        return list(found) if "batch" in case.way else [found]


def _asked(mark: str, case: Case) -> Any:
    question = f"Where is {mark} from?"
    return {"question": question, "context": "It is a fox."} if case.with_prompt else question


class _Desk:
    """What one case's models and server say."""

    def __init__(self, case: Case, billed: dict[str, list[dict[str, Any]]]) -> None:
        self.case = case
        self.billed = billed
        self._judge = judging(case.verdicts)
        self._checks: Counter[str] = Counter()

    def answer(self, body: Body, mark: str) -> Outcome:
        if self.case.knows_n == "ignored":
            body = {**body, "n": 1}
        if not is_check(body) and body["model"] in self.case.down.split():
            return 500
        return self._check(body, mark) if is_check(body) else [self._draft(body)]

    def _check(self, body: Body, mark: str) -> list[Any] | int:
        self._checks[mark] += 1
        if body["model"] == "small":
            match self.case.verifier:
                case "fallback" | "failing":
                    return 500
                case "midway" if self._checks[mark] > 1:
                    return 500
                case "retried" if self._checks[mark] == 1:
                    return 500
        if self.case.knows_n == "refused" and (body.get("n") or 1) > 1:
            return 400
        return list(self._judge(body))

    def _draft(self, body: Body) -> Reply:
        drafts = self.case.drafts
        if drafts == "empty":
            return "" if body["model"] == "small" else "From Turku, as all are."
        if drafts == "town" or (drafts == "no" and body["model"] != "small"):
            return call("Town", name="Turku")
        if drafts == "no":
            return call("Town", size=3)
        if drafts not in {"tool", "malformed", "unknown"} or body["model"] != "small":
            return f"From Turku, says {body['model']}."
        made = call("fly" if drafts == "unknown" else "weather", city="Turku")
        if drafts == "malformed":
            made["tool_calls"][0]["function"]["arguments"] = '{"city": '
        return made


async def _streamed(mix: Runnable[Any, Any], given: Any, config: Any) -> list[Any]:
    return [chunk async for chunk in mix.astream(given, config)]


async def _events(mix: Runnable[Any, Any], given: Any, config: Any) -> list[Any]:
    events = [event async for event in mix.astream_events(given, config, version="v2")]
    return [
        event["data"]["chunk"]
        for event in events
        if event["event"] == "on_chain_stream" and not event["parent_ids"]
    ]


def _joined(chunks: list[Any]) -> Any:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    return whole
