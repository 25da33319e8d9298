"""A check of a user's own, in ten lines, as the site shows it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from langchain_core.load import dumpd, load
from langchain_core.runnables import RunnableLambda

from langchain_automix import (
    AgreementVerifier,
    AutoMixRunnable,
    CombinedVerifier,
    EarlierAgreementVerifier,
    LogProbabilityVerifier,
    PatternVerifier,
    SchemaVerifier,
    SupportVerifier,
    ThresholdRouter,
    Verification,
)
from tests.support.builders.mixes import RAG_PROMPT, record_of
from tests.support.builders.scripted_replies import Body
from tests.support.servers.openai_server import OpenAIServer

pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")


def cites_its_sources(given: dict[str, Any]) -> Verification:
    if not given.get("context"):
        return Verification(problem="there is no context to cite")
    text = given["answer"].text  # the answering model's message
    return Verification(verdicts=("[1]" in text or "[2]" in text,))


def script(body: Body) -> list[str]:
    return ["In Turku." if body["model"] == "small" else "In Turku [1]."]


@pytest.mark.parametrize("how", ["sync", "async", "batch"])
async def test_it_decides_what_is_kept(server: OpenAIServer, how: str) -> None:
    server.script = script
    automix = AutoMixRunnable.from_models(
        server.model("small"),
        server.model("large"),
        prompt=RAG_PROMPT,
        verifier=RunnableLambda(cites_its_sources),
        router=ThresholdRouter(threshold=0.5),
    )
    given = {"question": "Where?", "context": "[1] It was built in Turku."}
    if how == "sync":
        kept = automix.invoke(given)
    elif how == "async":
        kept = await automix.ainvoke(given)
    else:
        [kept] = automix.batch([given])
    assert kept.text == "In Turku [1]."
    assert record_of(kept)["verdicts"] == [False]
    without = await automix.ainvoke({**given, "context": ""})
    assert record_of(without)["confidence"] is None


def test_what_it_pays_is_billed(server: OpenAIServer) -> None:
    server.script = lambda body: ["yes" if body["model"] == "third" else "In Turku."]
    third = server.model("third")

    def asks(given: Any) -> Verification:
        return Verification(verdicts=(third.invoke("Right?").text == "yes",))

    automix = AutoMixRunnable.from_models(
        server.model("small"),
        server.model("large"),
        verifier=RunnableLambda(asks),
        router=ThresholdRouter(threshold=0.5),
    )
    tokens = record_of(automix.invoke("Where?"))["tokens"]
    assert len(server.requests) == 2
    assert tokens["total_tokens"] == sum(billed["total_tokens"] for billed in server.billed)


def test_the_site_shows_the_same() -> None:
    page = Path(__file__).parents[2] / "docs" / "guides" / "your-own-check.md"
    found = re.search(r"def cites_its_sources.*?\n\n\n", page.read_text("utf-8"), re.DOTALL)
    assert found is not None
    shown = re.sub(r"\s", "", found[0])
    own = re.sub(r"\s", "", Path(__file__).read_text(encoding="utf-8"))
    assert shown.replace("dict)", "dict[str,Any])") in own


def test_the_shipped_checks_can_be_written_down_and_read_again(server: OpenAIServer) -> None:
    model = server.model("small", logprobs=True)
    checks: list[Any] = [
        AgreementVerifier(model=model, samples=2, compare="exact", temperature=0.5),
        EarlierAgreementVerifier(compare=model),
        LogProbabilityVerifier(statistic="margin"),
        PatternVerifier(pattern=r"\d+", whole=False),
        SchemaVerifier(schema={"type": "object", "required": ["a"]}),
        SupportVerifier(model=model, max_statements=3),
    ]
    together = CombinedVerifier(checks={type(each).__name__: each for each in checks})
    allowed: Any = [*map(type, checks), CombinedVerifier, type(model)]
    for check in (*checks, together):
        again = load(
            dumpd(check),
            allowed_objects=allowed,
            valid_namespaces=["langchain_automix"],
            secrets_map={"OPENAI_API_KEY": "test"},
        )
        assert type(again) is type(check)
        assert again.fingerprint == check.fingerprint
