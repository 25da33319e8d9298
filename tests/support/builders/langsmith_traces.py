"""Traces of questions about capitals, on the loopback LangSmith, for the tests that read them."""

from __future__ import annotations

from typing import Any

import langsmith
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable

from langchain_automix import (
    AutoMixRunnable,
    RoutingLog,
    SelfVerifier,
    ThresholdRouter,
)
from tests.support.builders.scripted_replies import ACCEPT, REJECT, Body, text_of
from tests.support.servers.langsmith_server import LangSmithServer
from tests.support.servers.openai_server import OpenAIServer, is_check

SMALL, LARGE = "gpt-4o-mini", "gpt-4o"
CAPITALS = {"Italy": "Rome", "France": "Paris", "Spain": "Madrid"}


def script(body: Body) -> list[str]:
    """The small model knows France only; the check sees it."""
    said = " ".join(text_of(message.get("content")) for message in body["messages"])
    country = next(name for name in CAPITALS if name in said)
    if is_check(body):
        verdicts = [ACCEPT, ACCEPT, "Hm.", ACCEPT] if country == "France" else [REJECT] * 4
        return verdicts[: body.get("n") or 1]
    return [CAPITALS[country] if body["model"] == LARGE else "Paris"]


def mix_of(server: OpenAIServer, **fields: Any) -> AutoMixRunnable:
    server.script = script
    fields = {
        "verifier": SelfVerifier(samples=4),
        "router": ThresholdRouter(threshold=0.5),
        **fields,
    }
    return AutoMixRunnable(models=[server.model(SMALL), server.model(LARGE)], **fields)


def chain_of(server: OpenAIServer, **fields: Any) -> Runnable[Any, Any]:
    prompt = ChatPromptTemplate.from_messages([("human", "Capital of {country}?")])
    return prompt | mix_of(server, **fields) | StrOutputParser()


def traced(ls: LangSmithServer, chain: Runnable[Any, Any], *inputs: Any, project: str) -> None:
    with langsmith.tracing_context(enabled=True, client=ls.client, project_name=project):
        for each in inputs:
            chain.invoke(each)
    ls.client.flush()


def grade(ls: LangSmithServer, run: dict[str, Any], score: Any, key: str = "correctness") -> None:
    ls.client.create_feedback(
        run["id"], key, score=score, trace_id=run["trace_id"], session_id=run["session_id"]
    )
    ls.client.flush()


def capitals(ls: LangSmithServer) -> None:
    dataset = ls.client.create_dataset("capitals")
    examples: Any = [
        {"inputs": {"country": country}, "reference_outputs": {"capital": capital}}
        for country, capital in CAPITALS.items()
    ]
    ls.client.create_examples(dataset_id=dataset.id, examples=examples)


def usage_of(bill: dict[str, Any]) -> Any:
    return {
        "input_tokens": bill["prompt_tokens"],
        "output_tokens": bill["completion_tokens"],
        "total_tokens": bill["total_tokens"],
    }


def whole_cost(log: RoutingLog) -> float:
    answers = [answer for query in log for answer in query.answers]
    checks = [answer.verification.total_cost for answer in answers if answer.verification]
    return sum(answer.cost or 0 for answer in answers) + sum(checks)
