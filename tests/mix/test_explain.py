"""`explain`: what a decision looks like as text."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda

from langchain_automix import (
    AutoMixError,
    Decision,
    POMDPRouter,
    SelfVerifier,
    ThresholdRouter,
    explain,
)
from tests.support.builders.mixes import mix, record_of, weather
from tests.support.builders.scripted_replies import call
from tests.support.servers.openai_server import OpenAIServer, answering

PRICES = {"small": {"input": 1, "output": 2}, "large": {"input": 10, "output": 20}}
RECORD: dict[str, Any] = {
    "model": "small",
    "model_index": 0,
    "action": "answer",
    "confidence": 0.5,
    "verdicts": [True, False, None],
    "escalated": False,
    "cost": "0.1 USD",
    "unpriced": [],
    "alone": {"small": {"cost": "0.05 USD", "estimate": False}},
    "belief": {"small": 0.5, "large": 1.0},
    "values": {"answer": 0.5, "escalate": 0.25},
    "why": "It is worth more than its price.",
}

pytestmark = pytest.mark.filterwarnings("ignore::langchain_automix.UncalibratedWarning")


def bars(text: str) -> dict[str, int]:
    """Eighths of a character in the bar behind each name."""
    rows = re.findall(r"^  (\S.*?) +-?\d+\.\d{3} *([█▏▎▍▌▋▊▉]*)", text, re.MULTILINE)
    return {name: sum(" ▏▎▍▌▋▊▉█".index(c) for c in bar) for name, bar in rows}


def test_kept(server: OpenAIServer) -> None:
    text = explain(
        mix(server, router=POMDPRouter(), verifier=SelfVerifier(), prices=PRICES).invoke("Where?")
    )
    assert text.startswith("The answer of small was kept, without an escalation.")
    assert "Expected quality  (< the highest)" in text
    assert "Verdicts   ++++++++  (+ accepts, - rejects, ? invalid)" in text
    assert re.search(r"Cost       0\.\d+ USD", text)
    assert re.search(r"large alone: about 0\.\d+ USD", text)


def test_escalated(server: OpenAIServer) -> None:
    server.script = answering("s", "l", verdicts="rir")
    text = explain(
        mix(server, router=POMDPRouter(), verifier=SelfVerifier(), prices=PRICES).invoke("Where?")
    )
    assert text.startswith("The answer of large was kept, after an escalation.")
    assert "Verdicts   -?--?--?" in text
    assert "about" not in text


def test_abstained(server: OpenAIServer) -> None:
    decided = Decision(action="abstain", model_index=0, why="None is good enough.")
    text = explain(mix(server, router=RunnableLambda(lambda _: decided)).invoke("Where?"))
    assert text.startswith("No answer was given.\n\n  None is good enough.")
    assert "Expected quality" not in text


def test_forced_and_unpriced(server: OpenAIServer) -> None:
    text = explain(mix(server, force_model="large").invoke("Where?"))
    assert text.startswith("The answer of large was kept, without an escalation.")
    assert "(force_model)" in text
    assert "Cost       unknown: no price, or no tokens, of large" in text
    assert "small alone: unknown" in text
    assert "Verdicts" not in text


def test_unusable(server: OpenAIServer) -> None:
    def script(body: Any) -> Any:
        return [call("wether" if body["model"] == "small" else "weather", city="Turku")]

    server.script = script
    asked = mix(server, verification=False).bind_tools([weather])
    text = explain(asked.invoke("Weather?"))
    assert "after an escalation" in text
    assert "wether" not in text  # a rejected draft made it up


def test_a_message_made_of_chunks_and_every_form_of_it(server: OpenAIServer) -> None:
    whole: Any = None
    for chunk in mix(server, router=POMDPRouter(), verifier=SelfVerifier(), prices=PRICES).stream(
        "Where?"
    ):
        whole = chunk if whole is None else whole + chunk
    text = explain(whole)
    record = json.loads(json.dumps(record_of(whole)))
    assert explain(record) == explain({"answer": "x", "automix": record}) == text


@pytest.mark.parametrize(
    "given",
    [
        AIMessage("hello"),
        AIMessage("hello", response_metadata={"automix": None}),
        HumanMessage("why"),
        "why is a word in this text",
        {},
        {"why": "not all of a record"},
        None,
        3,
    ],
)
def test_without_a_record(given: Any) -> None:
    with pytest.raises(AutoMixError, match="There is no record to explain"):
        explain(given)


class TestBars:
    def test_of_qualities_are_shares_of_one(self) -> None:
        qualities = {"none": 0.0, "half": 0.5, "one": 1.0}
        found = bars(explain({**RECORD, "belief": qualities, "values": {}}))
        assert found == {"none": 0, "half": 96, "one": 192}

    def test_of_values_begin_at_the_least_where_it_is_negative(self) -> None:
        values = {"answer": -1.0, "verify": 0.0, "escalate": 1.0}
        text = explain({**RECORD, "belief": {}, "values": values})
        assert bars(text) == {"answer": 0, "verify": 96, "escalate": 192}
        assert "  answer    -1.000\n" in text
        assert re.search(r"escalate +1\.000  █{24} <$", text, re.MULTILINE)

    @pytest.mark.parametrize("values", [{"a": 0.0, "b": 0.0}, {"a": -2.0, "b": -2.0}, {"a": -2.0}])
    def test_of_equals(self, values: dict[str, float]) -> None:
        text = explain({**RECORD, "belief": {}, "values": values})
        assert {*bars(text).values()} <= {0, 192}

    def test_one_alone_is_not_marked(self) -> None:
        text = explain({**RECORD, "belief": {"small": 0.5}, "values": {}})
        assert "<" not in text


def test_no_line_is_wider_than_a_terminal() -> None:
    names = {"a" * 200 + "-mini": 0.5, "a" * 200 + "-pro": 0.9}
    text = explain({**RECORD, "belief": names, "values": names, "why": "word " * 100})
    assert max(map(len, text.splitlines())) < 80
    assert "…" in text
    assert "-mini" in text


def test_of_the_threshold_router(server: OpenAIServer) -> None:
    text = explain(mix(server, router=ThresholdRouter(threshold=0.5)).invoke("Where?"))
    assert text.startswith("The answer of small was kept")
