"""What users say of an answer, found by message, run or query."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed (extra `learning`)")

from langchain_core.messages import AIMessage

from langchain_automix import AutoMixError
from tests.support.builders.learning_mixes import Make, learns, rows
from tests.support.builders.mixes import record_of
from tests.support.servers.openai_server import OpenAIServer


class TestFeedback:
    def test_by_message_run_and_query(self, server: OpenAIServer, make: Make) -> None:
        automix, run = learns(server, make()), UUID(int=7)
        learning: Any = automix.learning
        message = automix.invoke("Where?", {"run_id": run})
        learning.feedback(message, True)
        learning.feedback(run, 0.5, source="later")
        learning.feedback(str(run), 0.25, source="text")
        learning.feedback(record_of(message)["learning"]["id"], 0.75, source="id", model=0)
        [row] = rows(automix)
        found = {(g.source, g.model): g.quality for g in row.grades if g.source != "agreement"}
        assert found == {
            ("feedback", 1): 1.0,
            ("later", 1): 0.5,
            ("text", 1): 0.25,
            ("id", 0): 0.75,
        }

    def test_wrong_ones_are_refused(self, server: OpenAIServer, make: Make) -> None:
        automix = learns(server, make())
        learning: Any = automix.learning
        message = automix.invoke("Where?")
        for wrong in (1.5, -1, float("nan"), "good", None):
            with pytest.raises(AutoMixError, match=r"\[0, 1\]"):
                learning.feedback(message, wrong)
        with pytest.raises(AutoMixError, match="no query"):
            learning.feedback(uuid4(), 1.0)
        with pytest.raises(AutoMixError, match="of no query"):
            learning.feedback(AIMessage("Hello."), 1.0)
        with pytest.raises(AutoMixError, match="no model 2"):
            learning.feedback(message, 1.0, model=2)
        with pytest.raises(AutoMixError, match="another source"):
            learning.feedback(message, 1.0, source="agreement")
