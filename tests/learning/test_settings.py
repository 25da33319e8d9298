"""Settings are checked, shown without secrets, and go where a mix goes."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed (extra `learning`)")

from langchain_core.load import dumpd

from langchain_automix import AutoMixError, Learning
from tests.support.builders.learning_mixes import Make, learns, rows
from tests.support.servers.openai_server import OpenAIServer


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "told"),
        [
            ({"max_loss": 2}, "max_loss must lie in .*: 2"),
            ({"share": -0.1}, "share must lie in .*: -0.1"),
            ({"confidence": 1.0}, "confidence must be a chance .*: 1.0"),
            ({"mode": "look"}, "'mix' or 'observe'"),
            ({"promote": True}, "'auto' or 'ask'"),
            ({"max_spend": "five"}, "max_spend is 'five'"),
            ({"max_spend": True}, "max_spend is True"),
            ({"max_spend": float("nan")}, "max_spend is nan"),
            ({"keep_days": -1}, "keep_days must be .*: -1"),
            ({"quality": "perfect"}, "no grader 'perfect'"),
        ],
    )
    def test_wrong_ones_are_refused(self, url: str, settings: Any, told: str) -> None:
        with pytest.raises(AutoMixError, match=told):
            Learning(url, **settings)

    def test_a_store_is_a_url(self) -> None:
        with pytest.raises(AutoMixError, match="must be a URL"):
            Learning(Path("automix.db"))  # type: ignore[arg-type]

    def test_they_are_ready_for_json(self, make: Make) -> None:
        shown = make(max_spend=2.5, quality="f1").settings.shown()
        assert json.loads(json.dumps(shown))["max_spend"] == "2.5 USD"

    def test_the_status_is_in_words(self, server: OpenAIServer, make: Make) -> None:
        automix = learns(server, make())
        automix.batch(["Where?", "When?"])
        rows(automix)
        said = str(automix.learning.status())  # type: ignore[union-attr]
        assert "The largest model answers: warm-up" in said
        assert "2 shadows for $" in said

    def test_copies_are_the_same_object(self, server: OpenAIServer, make: Make) -> None:
        learning = make()
        assert pickle.loads(pickle.dumps(learning)) is learning
        assert copy.deepcopy(learning) is learning
        saved = json.dumps(dumpd(learns(server, learning)))
        assert "Learning(" in saved

    def test_old_queries_are_deleted(self, server: OpenAIServer, make: Make) -> None:
        automix = learns(server, make(keep_queries=3, max_spend=0))
        automix.batch([f"Where is {i}?" for i in range(8)])
        rows(automix)
        automix.learning._upkeep._pruned = 0.0  # type: ignore[union-attr]
        automix.learning._upkeep._prune()  # type: ignore[union-attr]
        assert len(rows(automix)) == 3
