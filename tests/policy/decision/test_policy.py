"""The policy file: it comes back, and anything else is one clear error."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.language_models import FakeListChatModel
from langchain_core.runnables import RunnableLambda

from langchain_automix import (
    AgreementVerifier,
    AutoMixError,
    AutoMixRunnable,
    POMDPRouter,
    RoutingState,
    SelfVerifier,
    Verification,
)
from langchain_automix.routers.pomdp import VerifierChangedWarning
from langchain_automix.utils.fingerprints import stable_name
from tests.support.builders.no_warnings import no_warnings
from tests.support.builders.synthetic_logs import world


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("policy") / "policy.json"
    POMDPRouter.fit(world(200), max_cost=4.0, verifier="abc").save(path)
    return path.read_text()


def test_it_comes_back_and_decides_alike(tmp_path: Path) -> None:
    router = POMDPRouter.fit(world(300), cost_weight=0.03)
    router.save(tmp_path / "policy.json")
    again = POMDPRouter.load(tmp_path / "policy.json")
    assert again.policy == router.policy
    state = RoutingState.after(Verification(verdicts=(True, False, False)))
    assert again.decide(state) == router.decide(state)
    assert [p.name for p in tmp_path.iterdir()] == ["policy.json"]


def broken(text: str, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(AutoMixError) as caught:
        POMDPRouter.load(tmp_path / "broken.json")
    assert "broken.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_file(text: str, tmp_path: Path, share: float) -> None:
    broken(text[: int(len(text) * share)], tmp_path)


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("schema", "other"),
        ("version", 2),
        ("models", ["one"]),
        ("plans", []),
        ("first_share", 2),
        ("cost_weight", "__import__('os')"),
        ("spam", 1),
    ],
)
def test_a_wrong_field(text: str, tmp_path: Path, change: str, value: Any) -> None:
    broken(json.dumps({**json.loads(text), change: value}), tmp_path)


def leaves(found: Any, path: tuple[Any, ...] = ()) -> Any:
    if isinstance(found, dict | list) and found:
        entries = found.items() if isinstance(found, dict) else enumerate(found)
        for key, value in entries:
            yield from leaves(value, (*path, key))
    else:
        yield path


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(0, 10**6),
    st.sampled_from([None, -1, 10**9, "x", [], {}, True, 1e308, [[[]]]]),
)
def test_a_fuzzed_file_is_an_error_or_a_policy_that_ends(
    text: str, tmp_path: Path, seed: int, value: Any
) -> None:
    found = json.loads(text)
    path = random.Random(seed).choice(list(leaves(found)))
    place = found
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (tmp_path / "fuzzed.json").write_text(json.dumps(found))
    try:
        router = POMDPRouter.load(tmp_path / "fuzzed.json")
    except AutoMixError as error:
        assert "\n" not in str(error)
        return
    for name in ("a", "b", "c"):
        opening = router.opening(2, name)
        verdicts: tuple[bool, ...] = ()
        for _ in range(20):
            if opening.action not in {"escalate", "verify"}:
                break
            verdicts += (True,) * (opening.samples or 1)
            state = RoutingState.after(Verification(verdicts=verdicts))
            opening = router.decide(state.model_copy(update={"query_id": name}))
            if opening.action == "escalate":
                break
    router.explain()


def test_a_policy_for_another_verifier_warns(text: str, tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text(text)
    router = POMDPRouter.load(tmp_path / "policy.json")
    with pytest.warns(VerifierChangedWarning) as caught:
        router.warn_of_verifier(AgreementVerifier(samples=4))
    said = str(caught[0].message)
    assert "a check that the policy does not describe (fingerprint abc)" in said
    assert "agreement of 4 answers by small at t = 1 [" in said


def test_the_package_and_a_decision_need_no_numpy(text: str, tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text(text)
    code = (
        "import sys, langchain_automix as a; assert 'numpy' not in sys.modules\n"
        "from langchain_automix.policy.decision.policy import Policy\n"
        f"p = Policy.load({str(tmp_path / 'policy.json')!r})\n"
        "p.plan_for('x'); assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_check_of_a_users_own_warns_too() -> None:
    def own(given: Any) -> Verification:
        return Verification(score=1.0)

    models = [FakeListChatModel(responses=["x"]) for _ in range(2)]
    fitted = POMDPRouter.fit(world(60), verifier=SelfVerifier().fingerprint)
    with pytest.warns(VerifierChangedWarning):
        AutoMixRunnable(models=models, verifier=RunnableLambda(own), router=fitted)
    check = RunnableLambda(own)
    known = POMDPRouter.fit(world(60), verifier=stable_name(check))
    with no_warnings():
        AutoMixRunnable(models=models, verifier=check, router=known)
