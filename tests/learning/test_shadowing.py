"""Shadows spend what they may, every dollar of it is counted, and none delays an answer."""

from __future__ import annotations

import threading
from typing import Any

import pytest

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed (extra `learning`)")


from langchain_automix import AutoMixRunnable, LearningWarning, SelfVerifier, SpendLimit
from tests.support.builders.learning_mixes import PRICES, Make, billed, learns, promote, rows
from tests.support.servers.openai_server import OpenAIServer


class TestMoney:
    def test_the_books_are_the_providers_bill(self, server: OpenAIServer, make: Make) -> None:
        automix = learns(server, make(share=0.5))
        for i in range(3):
            automix.invoke(f"Where is {i}?")
        automix.learning.flush()  # type: ignore[union-attr]
        promote(automix)
        automix.learning.refresh()  # type: ignore[union-attr]
        automix.batch([f"Where is {i}, then?" for i in range(6)])
        found = rows(automix)
        paid = sum((row.query.cost or 0) + (row.shadow_cost or 0) for row in found)
        assert paid == pytest.approx(billed(server), rel=1e-9)
        requests = [request for row in found for request in row.query.requests]
        assert len(requests) == len(server.billed)
        assert sum(r.cost or 0 for r in requests) == pytest.approx(billed(server), rel=1e-9)
        status = automix.learning.status()  # type: ignore[union-attr]
        assert status.spent == pytest.approx(sum(r.shadow_cost or 0 for r in found), rel=1e-4)

    def test_shadows_keep_to_their_budget(self, server: OpenAIServer, make: Make) -> None:
        learning = make(max_spend="0.005 USD")
        automix = learns(server, learning)
        for i in range(60):
            automix.invoke(f"Where is {i}?")
            if i % 10 == 0:
                learning.flush()  # what is claimed for shadows under way is not to be had
        found = rows(automix)
        shadowed = [row for row in found if row.is_shadowed]
        assert 0 < len(shadowed) < 60
        spent = sum(row.shadow_cost or 0 for row in shadowed)
        assert 0.003 < spent <= 0.005
        status = learning.status()
        assert status.spent <= 0.005
        assert status.refused > 0
        assert not found[-1].query.is_drawn
        # Few are drawn and then find that others have spent the money.
        assert sum(row.query.is_drawn for row in found) - len(shadowed) <= 3

    def test_without_a_budget_nothing_is_shadowed(self, server: OpenAIServer, make: Make) -> None:
        automix = learns(server, make(max_spend=0))
        automix.invoke("Where?")
        assert not rows(automix)[0].query.is_drawn
        assert len(server.requests) == 1

    def test_a_spend_limit_counts_shadows(self, server: OpenAIServer, make: Make) -> None:
        limit = SpendLimit(1, by="tenant")
        automix = learns(server, make(), spend_limit=limit)
        automix.invoke("Where?", {"configurable": {"tenant": "acme"}})
        automix.learning.flush()  # type: ignore[union-attr]
        assert float(limit.used("acme").split()[0]) == pytest.approx(billed(server), rel=1e-6)

    @pytest.mark.parametrize(
        ("prices", "named"),
        [(None, "small and large"), ({"large": PRICES["large"]}, "small")],
    )
    def test_without_prices_no_shadow_is_bought_and_one_warning_says_why(
        self, server: OpenAIServer, make: Make, prices: Any, named: str
    ) -> None:
        automix = learns(server, make(), prices=prices)
        with pytest.warns(LearningWarning) as told:
            for i in range(25):
                automix.invoke(f"Where is {i}?")
        (said,) = (str(each.message) for each in told)
        assert said.startswith(
            f"Nothing can be learned, because the price of {named} is not known: no query has a "
            "shadow. Give the mix prices="
        )
        found = rows(automix)
        assert not any(row.query.is_drawn or row.is_shadowed for row in found)
        assert [request["model"] for request in server.requests] == ["large"] * 25
        status = automix.learning.status()  # type: ignore[union-attr]
        assert (status.spent, status.share, status.next_step) == (0.0, 0.0, said)

    def test_without_the_price_of_what_checks_no_shadow_is_bought(
        self, server: OpenAIServer, make: Make
    ) -> None:
        check = SelfVerifier(model=server.model("judge"), samples=2)
        automix = learns(server, make(), verifier=check)
        with pytest.warns(LearningWarning, match="because the price of judge is not known"):
            automix.invoke("Where?")
        assert not rows(automix)[0].query.is_drawn
        assert [request["model"] for request in server.requests] == ["large"]

    def test_a_query_whose_cost_is_unknown_has_no_shadow(
        self, server: OpenAIServer, make: Make
    ) -> None:
        """Which of its models answers, and so what it costs, is known only afterwards."""
        large = server.model("large").with_fallbacks([server.model("spare")])
        models = [server.model("small"), large]
        learning = make()
        automix = AutoMixRunnable(
            models=models,
            verifier=SelfVerifier(samples=2),
            prices={"small": PRICES["small"]},
            learning=learning,
        )
        with pytest.warns(LearningWarning, match="unknown what large cost") as told:
            for i in range(3):
                automix.invoke(f"Where is {i}?")
            found = rows(automix)
        assert len(told) == 1
        assert not any(row.query.is_drawn or row.is_shadowed for row in found)
        assert [request["model"] for request in server.requests] == ["large"] * 3

    def test_what_does_not_fit_into_the_queue_is_counted(
        self, server: OpenAIServer, make: Make
    ) -> None:
        going = threading.Event()
        server.delay = lambda body: float(body["model"] == "small" and not going.wait(20))
        automix = learns(server, make())
        automix.batch([f"Where is {i}?" for i in range(110)], {"max_concurrency": 8})
        learning: Any = automix.learning
        assert learning.status().dropped >= 110 - 100 - 2
        going.set()
        assert learning.flush(60)
        found = rows(automix)
        assert len(found) == 110
        assert sum(row.query.is_drawn for row in found) == 110 - learning.status().dropped
        assert all(row.is_shadowed == row.query.is_drawn for row in found)
