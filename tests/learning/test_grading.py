"""How far the answers of a query agree with the largest model's."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed (extra `learning`)")

from langchain_core.runnables import RunnableLambda

from langchain_automix import Learning
from tests.support.builders.learning_mixes import Make, billed, learns, rows
from tests.support.builders.scripted_replies import call
from tests.support.servers.openai_server import OpenAIServer, answering, is_check


class TestGrades:
    def grades(self, server: OpenAIServer, learning: Learning) -> dict[int, float]:
        automix = learns(server, learning)
        automix.invoke("Where?")
        return {g.model: g.quality for g in rows(automix)[0].grades}

    @pytest.mark.parametrize(
        ("small", "large", "quality"),
        [
            ("Turku.", "turku", 1.0),
            ("Oulu", "Turku", 0.0),
            ('{"a": 1.0, "b": [2]}', '```json\n{"b": [2], "a": 1}\n```', 1.0),
            ('{"a": 1}', '{"a": true}', 0.0),
        ],
    )
    def test_texts_are_compared(
        self, server: OpenAIServer, make: Make, small: str, large: str, quality: float
    ) -> None:
        server.script = answering(small, large)
        assert self.grades(server, make()) == {0: quality, 1: 1.0}

    def test_tool_calls_are_compared_as_json(self, server: OpenAIServer, make: Make) -> None:
        def script(body: Any) -> Any:
            if is_check(body):
                return answering("")(body)
            return [call("pay", amount=1 if body["model"] == "small" else 1.0)]

        server.script = script
        assert self.grades(server, make()) == {0: 1.0, 1: 1.0}

    def test_a_function_grades(self, server: OpenAIServer, make: Make) -> None:
        learning = make(quality=lambda answer, references: 0.5 if "small" in answer else 0.0)
        assert self.grades(server, learning) == {0: 0.5, 1: 1.0}

    def test_what_a_grader_asks_is_paid_by_the_shadow(
        self, server: OpenAIServer, make: Make
    ) -> None:
        judge = server.model("small") | RunnableLambda(lambda _: 0.25)

        def to_text(given: Any) -> str:
            return str(given["answer"])

        learning = make(quality=RunnableLambda(to_text) | judge)
        assert self.grades(server, learning) == {0: 0.25, 1: 1.0}
        [row] = [r for e in learning._epochs for r in learning.store.get().read(e)[0]]
        assert [r.stage for r in row.query.requests].count("grade") == 1
        assert (row.query.cost or 0) + (row.shadow_cost or 0) == pytest.approx(billed(server))

    def test_a_grader_that_fails_leaves_a_row_without_a_grade(
        self, server: OpenAIServer, make: Make
    ) -> None:
        def fail(answer: str, references: Any) -> float:
            raise KeyError("a bug")

        automix = learns(server, make(quality=fail))
        automix.invoke("Where?")
        [row] = rows(automix)
        assert row.is_shadowed
        assert 0 not in {g.model for g in row.grades}
