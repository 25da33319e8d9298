"""What a spend limit takes, and what it refuses before anything is paid."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda
from langgraph.store.memory import InMemoryStore
from pydantic import ValidationError

from langchain_automix import (
    AutoMixMiddleware,
    AutoMixRunnable,
    CombinedVerifier,
    SelfVerifier,
    SpendLimit,
    UncalibratedWarning,
)
from langchain_automix.errors import AutoMixError
from tests.support.builders.mixes import mix
from tests.support.builders.no_warnings import no_warnings
from tests.support.builders.spending import PRICES, limited
from tests.support.servers.openai_server import OpenAIServer

pytestmark = pytest.mark.filterwarnings(
    f"ignore::{UncalibratedWarning.__module__}.UncalibratedWarning"
)


class TestWhatIsRefused:
    def test_a_model_without_a_price(self, server: OpenAIServer) -> None:
        with pytest.raises(AutoMixError, match=r"that of small is not known\. Give it in prices="):
            mix(server, spend_limit=SpendLimit(1), prices={"large": PRICES["large"]})
        with pytest.raises(AutoMixError, match="that of model-0 is not known"):
            AutoMixRunnable.from_models(
                RunnableLambda(lambda _: "x"),
                server.model("large"),
                spend_limit=SpendLimit(1),
                prices=PRICES,
            )

    def test_a_checking_model_without_a_price(self, server: OpenAIServer) -> None:
        checking: Any = SelfVerifier(model=server.model("judge"))
        combined = CombinedVerifier(checks={"a": SelfVerifier(), "b": checking.with_retry()})
        for verifier in (checking, checking.with_retry(), combined):
            with pytest.raises(AutoMixError, match="that of judge, which checks, is not known"):
                mix(server, spend_limit=SpendLimit(1), prices=PRICES, verifier=verifier)
            known: Any = PRICES | {"judge": PRICES["small"]}
            mix(server, spend_limit=SpendLimit(1), prices=known, verifier=verifier)
            fields: Any = {"prices": PRICES, "verifier": verifier, "verification": False}
            mix(server, spend_limit=SpendLimit(1), **fields)

    def test_a_mix_in_a_mix_with_the_same_limit(self, server: OpenAIServer) -> None:
        limit = SpendLimit(1)
        inner = limited(server, limit)
        with pytest.raises(AutoMixError, match="count every query twice"):
            AutoMixRunnable.from_models(
                inner, server.model("large"), spend_limit=[limit], prices=PRICES
            )
        AutoMixRunnable.from_models(
            inner, server.model("large"), spend_limit=SpendLimit(1), prices=PRICES
        )

    @pytest.mark.parametrize(
        "fields",
        [
            {"limit": 0},
            {"limit": "1 EUR"},
            {"limit": "1e99"},
            {"limit": 1, "per": timedelta(milliseconds=1)},
            {"limit": 1, "soft": 1.0},
            {"limit": 1, "store": "http://user:secret@127.0.0.1"},
            {"limit": 1, "store": 5},
            {"limit": 1, "query_cost": -1},
            {"limit": 1, "name": ""},
            {"limit": 1, "when_spent": "stop"},
        ],
    )
    def test_fields_out_of_their_range(self, fields: dict[str, Any]) -> None:
        with pytest.raises(ValidationError) as told:
            SpendLimit(**fields)
        assert "secret" not in str(told.value)

    def test_two_limits_that_are_one(self, server: OpenAIServer) -> None:
        store, limit = InMemoryStore(), SpendLimit(1)
        for twice in ([limit, limit], [SpendLimit(1, store=store), SpendLimit(2, store=store)]):
            with pytest.raises(AutoMixError, match="share one name"):
                limited(server, twice)

    def test_an_asynchronous_redis_client(self) -> None:
        redis = pytest.importorskip("redis.asyncio")
        with pytest.raises(ValidationError, match="give its URL or a redis.Redis"):
            SpendLimit(1, store=redis.Redis())

    def test_it_tells_nobody_where_its_store_is(self) -> None:
        pytest.importorskip("redis")
        assert "secret" not in repr(SpendLimit(1, store="redis://user:secret@127.0.0.1:1/0"))


def test_amounts() -> None:
    for given in ("1.00 USD", "$1", 1, 1.0, Decimal(1), " $ 1.0 USD"):
        assert SpendLimit(given).limit == 1
    assert SpendLimit(0.1).limit == Decimal("0.1")
    assert SpendLimit("0.000000001").used() == "0 USD"


def test_the_middleware_takes_a_limit(server: OpenAIServer) -> None:
    models: Any = [server.model("small"), server.model("large")]
    with pytest.raises(AutoMixError, match="not known"):
        AutoMixMiddleware(models=models, spend_limit=SpendLimit(1))
    with no_warnings():
        AutoMixMiddleware(models=models, spend_limit=SpendLimit(1), prices=PRICES)
