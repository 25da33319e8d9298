"""Another cost weight at the time of a query: as if the policy had been fitted at it."""

from __future__ import annotations

import pytest

from langchain_automix import (
    AutoMixError,
    AutoMixRunnable,
    POMDPRouter,
    RoutingState,
    ThresholdRouter,
    Verification,
)
from tests.support.builders.synthetic_logs import world
from tests.support.servers.openai_server import OpenAIServer

WEIGHTS = (0.005, 0.01, 0.02, 0.04)


@pytest.fixture(scope="module")
def fitted() -> dict[float, POMDPRouter]:
    log = world(400)
    routers = {weight: POMDPRouter.fit(log, cost_weight=weight) for weight in WEIGHTS}
    # Another family has another belief, and so other values.
    assert len({router.policy.plans[0].name for router in routers.values()}) == 1
    return routers


@pytest.mark.parametrize("own", WEIGHTS)
@pytest.mark.parametrize("other", WEIGHTS)
def test_after_the_check_it_decides_as_a_fit_at_that_weight(
    fitted: dict[float, POMDPRouter], own: float, other: float
) -> None:
    for accepts in range(9):
        check = Verification(verdicts=(True,) * accepts + (False,) * (8 - accepts))
        state = RoutingState.after(check, fitted[own].policy.models)
        asked = fitted[own].decide(state.model_copy(update={"cost_weight": other}))
        expected = fitted[other].decide(state)
        assert (asked.action, asked.model_index) == (expected.action, expected.model_index)
        assert asked.values == pytest.approx(expected.values, abs=1e-5)


def test_a_guarantee_does_not_survive_another_weight(server: OpenAIServer) -> None:
    router = POMDPRouter.fit(world(400), max_risk=0.3)
    models = [server.model("small"), server.model("large")]
    with pytest.raises(ValueError, match="max_risk, whose guarantee holds for its own"):
        AutoMixRunnable.from_models(*models, router=router, cost_weight=1.0)
    with pytest.raises(AutoMixError, match="max_risk"):
        router.opening(2, cost_weight=1.0)


def test_a_router_that_knows_no_cost_says_so(server: OpenAIServer) -> None:
    models = [server.model("small"), server.model("large")]
    with pytest.warns(UserWarning, match="cost_weight has no effect"):
        AutoMixRunnable.from_models(*models, router=ThresholdRouter(), cost_weight=1.0)
