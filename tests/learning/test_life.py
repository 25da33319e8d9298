"""The whole life of a policy, over HTTP: warm-up, proof, promotion, and the way back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed (extra `learning`)")

from langchain_automix import AutoMixRunnable, Learning, LogProbabilityVerifier
from langchain_automix.learning.reviewing import Reviewer
from langchain_automix.learning.store.store import LearningStore
from tests.support.builders.scripted_replies import Body
from tests.support.servers.openai_server import OpenAIServer, token

PRICES = {"small": {"input": 1, "output": 1}, "large": {"input": 20, "output": 20}}


class Town:
    """Two models that are asked for the number of a house; the small one tells when it guesses."""

    def __init__(self) -> None:
        self.random = random.Random(3)
        self.is_spoilt = False

    def __call__(self, body: Body) -> Any:
        number = body["messages"][-1]["content"].split()[-1]
        if body["model"] == "large":
            return [number]
        knows = not self.is_spoilt and self.random.random() < 0.7
        answer = number if knows else "none"
        probability = 0.99 if knows or self.is_spoilt else 0.3
        return [{"content": answer, "logprobs": [token(answer, probability)]}]


@pytest.fixture
def town() -> Town:
    return Town()


@pytest.fixture
def server(town: Town) -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        server.script = town
        yield server


@pytest.fixture
def learning(tmp_path: Path) -> Iterator[Learning]:
    learning = Learning(f"sqlite:///{tmp_path}/automix.db", max_loss=0.05, refit="never", share=0.2)
    yield learning
    learning.close(2)


def _ask(automix: AutoMixRunnable, learning: Learning, numbers: range) -> list[dict[str, Any]]:
    asked = [f"What is the number of house {i}" for i in numbers]
    records = []
    for start in range(0, len(asked), 50):  # more at once than there is room for shadows are lost
        messages = automix.batch(asked[start : start + 50])
        records += [message.response_metadata["automix"] for message in messages]
        assert learning.flush()
    return records


def _review(learning: Learning) -> Any:
    """Review as another process does, by what the store holds."""
    store: LearningStore = learning.store.get()
    epoch = store.newest_epoch()
    assert epoch is not None
    found = Reviewer.of_store(store, epoch).run(store, is_due=True)
    learning.refresh()
    return found


@pytest.mark.parametrize("check", [{"verifier": LogProbabilityVerifier()}, {}])
def test_a_policy_is_proven_decides_and_gives_way(
    server: OpenAIServer, town: Town, learning: Learning, check: dict[str, Any]
) -> None:
    """By a check of the user's, and by the one that the mix chooses."""
    models = server.model("small"), server.model("large")
    automix = AutoMixRunnable.from_models(*models, prices=PRICES, learning=learning, **check)
    warm_up = _ask(automix, learning, range(110))
    assert {record["learning"]["stage"] for record in warm_up} == {"warm-up"}
    assert {record["model"] for record in warm_up} == {"large"}
    assert _review(learning).fitted.status == "challenger"

    for start in range(110, 1_910, 150):  # often 500; where it looks hopeless, more
        _ask(automix, learning, range(start, start + 150))
        if (promoted := _review(learning).promote) is not None:
            break
    assert promoted is not None
    decided = _ask(automix, learning, range(2_000, 2_200))
    assert {record["learning"]["version"] for record in decided} == {promoted}
    assert {record["learning"]["stage"] for record in decided} == {"policy"}
    kept = sum(record["model"] == "small" for record in decided)
    assert 110 <= kept <= 170
    status = learning.status()
    assert (status.stage, status.version) == ("policy", promoted)
    assert status.saved is not None

    town.is_spoilt = True
    for start in range(3_000, 4_000, 200):
        _ask(automix, learning, range(start, start + 200))
        found = _review(learning)
        if found.back_to is not None:
            break
    assert found.back_to == 0
    kinds = [event.kind for event in learning.store.get().events()]
    assert "alarm" in kinds
    assert kinds.index("promoted") < kinds.index("alarm")
    assert kinds[-1] in ("rolled back", "share")
    assert "loses more than 0.05" in found.why
    assert {record["model"] for record in _ask(automix, learning, range(5_000, 5_010))} == {"large"}
