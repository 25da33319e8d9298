"""`hedge`: the next model is asked beside the check where the policy says it will be needed."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from langchain_automix import (
    CircuitBreaker,
    CombinedVerifier,
    LogProbabilityVerifier,
    POMDPRouter,
    SelfVerifier,
    SpendLimit,
    ThresholdRouter,
)
from tests.support.builders.faults import ACCEPT, FAULTS, PRICES, REJECT, WAYS, Desk, ask
from tests.support.builders.mixes import mix, record_of
from tests.support.builders.score_policies import ANSWER, ESCALATE, score_router
from tests.support.builders.synthetic_logs import world
from tests.support.builders.waiting import until_together
from tests.support.servers.openai_server import OpenAIServer


class _Ship(BaseModel):
    year: int


every_way = pytest.mark.parametrize("way", WAYS)
ROUTER = POMDPRouter.fit(world(300))


def hedged(server: OpenAIServer, **fields: Any) -> Any:
    return mix(server, **{"router": ROUTER, "hedge": 0.0, "prices": PRICES, **fields})


def billed(server: OpenAIServer) -> Decimal:
    tokens = sum(b["prompt_tokens"] + 2 * b["completion_tokens"] for b in server.billed)
    return Decimal(tokens) / 1_000_000


@every_way
async def test_it_is_there_when_it_is_needed(server: OpenAIServer, way: str) -> None:
    desk = Desk(server, check=REJECT, small="By the small.", large="By the large.")
    # The draft comes first, and alone.
    server.delay = until_together(server, 2, lambda _: len(desk.asked()) > 1)
    message = await ask(way, hedged(server))
    assert message.content == "By the large."
    record = record_of(message)
    assert (record["hedged"], record["escalated"]) == ("large", True)
    assert server.most_at_once == 2, "it is asked beside the check"
    assert desk.asked().count("large") == 1
    assert Decimal(str(record["cost"]).split()[0]) == billed(server)


@every_way
async def test_it_is_paid_for_where_it_is_not_needed(server: OpenAIServer, way: str) -> None:
    desk = Desk(server, check=ACCEPT, small="By the small.", large="A Zebra.")
    message = await ask(way, hedged(server))
    assert message.content == "By the small."
    record = record_of(message)
    assert (record["hedged"], record["model"], record["escalated"]) == ("large", "small", False)
    assert desk.asked().count("large") == 1
    assert Decimal(str(record["cost"]).split()[0]) == billed(server)


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_it_fails(server: OpenAIServer, way: str) -> None:
    Desk(server, check=ACCEPT, small="By the small.", large=FAULTS["500"])
    record = record_of(await ask(way, hedged(server)))
    assert record["model"] == "small"
    assert record["failed"] == [{"model": "large", "stage": "escalate", "error": "OpenAIAPIError"}]
    desk = Desk(server, check=REJECT, small="By the small.", large=FAULTS["500"])
    server.requests.clear()
    message = await ask(way, hedged(server, on_escalation_error="answer"))
    assert message.content == "By the small."
    assert len(record_of(message)["failed"]) == 1
    assert desk.asked().count("large") == 1, "a call that failed is not made again"


@pytest.mark.parametrize("hedge", [None, 0.0])
def test_it_does_not_fit(server: OpenAIServer, hedge: float | None) -> None:
    """OpenAI's client itself raises what does not fit; asked for ahead or not, that is no fault."""
    Desk(server, check=REJECT, small='{"year": 1931}', large='{"year": "no"}')
    breaker = CircuitBreaker(1)
    mixed = hedged(server, hedge=hedge, circuit_breaker=breaker)
    output = mixed.with_structured_output(_Ship, include_raw=True).invoke("When?")
    assert output["parsed"] is None
    assert isinstance(output["parsing_error"], ValidationError)
    record = record_of(output["raw"])
    assert (record["hedged"], record["failed"]) == (None if hedge is None else "large", [])
    assert "large cannot be used" in record["degraded"]
    assert breaker.state(mixed.models[1]) == "closed"


def test_a_model_whose_circuit_is_open_is_not_asked(server: OpenAIServer) -> None:
    desk = Desk(server, check=ACCEPT, small="By the small.", large="By the large.")
    breaker = CircuitBreaker(failures=1)
    mixed = hedged(server, circuit_breaker=breaker)
    breaker.failed(mixed.models[1])
    record = record_of(mixed.invoke("Where?"))
    assert (record["model"], record["hedged"]) == ("small", None)
    assert desk.asked().count("large") == 0


def test_it_is_not_bought_while_money_is_short(server: OpenAIServer) -> None:
    desk = Desk(server, check=ACCEPT, small="By the small.", large="By the large.")
    limit = SpendLimit("1 USD", soft=0.0)
    mixed = hedged(server, spend_limit=limit)
    mixed.invoke("Where?")  # what it cost is so much that the next one saves
    first = desk.asked().count("large")
    record = record_of(mixed.invoke("Where else?"))
    assert (first, record["hedged"]) == (1, None)
    assert desk.asked().count("large") == 1


async def test_the_check_fails(server: OpenAIServer) -> None:
    desk = Desk(server, check=500, small="By the small.", large="By the large.")
    message = await ask("ainvoke", hedged(server))
    assert message.content == "By the large."
    assert desk.asked().count("large") == 1


@pytest.mark.parametrize(
    "fields", [{"hedge": None}, {"hedge": 1.0}, {"router": ThresholdRouter()}], ids=str
)
def test_it_is_not_worth_it(server: OpenAIServer, fields: dict[str, Any]) -> None:
    desk = Desk(server, check=ACCEPT, small="By the small.", large="By the large.")
    record = record_of(hedged(server, **fields).invoke("Where?"))
    assert (record["model"], record["hedged"]) == ("small", None)
    assert "large" not in desk.asked()


@pytest.mark.parametrize("named", [False, True])
async def test_nobody_is_asked_beside_a_check_that_takes_no_time(
    server: OpenAIServer, named: bool
) -> None:
    """It would be paid for, and waited for, and be there no sooner."""
    Desk(server, small="By the small.", large="By the large.")
    verifier: Any = LogProbabilityVerifier(statistic="min")
    if named:
        verifier = CombinedVerifier(checks={"least": verifier, "self": SelfVerifier()})
    router = score_router([0.5], [ESCALATE, ANSWER])
    mixed = hedged(server, verifier=verifier, router=router)
    messages = [await ask("ainvoke", mixed), await ask("invoke", mixed)]
    assert [record_of(message)["hedged"] for message in messages] == [None, None]
    assert [body["model"] for body in server.requests] == ["small", "small"]
