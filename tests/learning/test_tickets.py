"""Whether a query has a shadow is left to chance alone."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed (extra `learning`)")


from langchain_automix.utils.fingerprints import uniform
from tests.support.builders.learning_mixes import Make, learns, rows
from tests.support.servers.openai_server import OpenAIServer


class TestChance:
    """What is drawn depends on nothing that is found, and not on what a policy draws."""

    def test_a_shadow_is_drawn_apart_from_the_plan_of_a_policy(
        self, server: OpenAIServer, make: Make
    ) -> None:
        learning = make(mode="observe", warm_up_share=0.1)
        config = learns(server, learning).mix_config
        tickets: list[Any] = [learning.begin(config, "Where?", {}) for _ in range(3_000)]
        seed = learning.settings.seed
        drawn = [uniform(ticket.id, seed) for ticket in tickets if ticket.is_drawn]
        assert 200 < len(drawn) < 400
        assert sum(drawn) / len(drawn) == pytest.approx(0.5, abs=0.08)

    def test_without_money_there_is_no_chance_of_a_shadow(
        self, server: OpenAIServer, make: Make
    ) -> None:
        learning = make(max_spend="0.001 USD")
        automix = learns(server, learning)
        for i in range(20):
            automix.invoke(f"Where is {i}?")
            learning.flush()
        found = rows(automix)
        assert {row.query.share for row in found} == {1.0, 0.0}
        assert all(row.query.is_drawn == (row.query.share > 0) for row in found)
        assert learning.status().refused == sum(row.query.share == 0 for row in found)
