"""A mix as a policy file describes it, at all three doors."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import Runnable
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from langchain_automix import (
    AgreementVerifier,
    AutoMixError,
    AutoMixMiddleware,
    AutoMixRunnable,
    ChatAutoMix,
    CombinedVerifier,
    FunctionVerifier,
    LogProbabilityVerifier,
    POMDPRouter,
    Report,
    RoutingLog,
    SelfVerifier,
    ThresholdRouter,
    calibrate,
)
from langchain_automix.routers.pomdp import VerifierChangedWarning
from tests.golden.make import HERE
from tests.support.builders.calibrating import PRICES, script
from tests.support.builders.synthetic_logs import world
from tests.support.servers.openai_server import OpenAIServer

pytestmark = pytest.mark.filterwarnings("error::UserWarning")


def chat(name: str) -> ChatOpenAI:
    return ChatOpenAI(model=name, api_key=SecretStr("test"))


SMALL, LARGE, JUDGE = chat("small"), chat("large"), chat("judge")


def accepts(answer: str) -> bool:
    return bool(answer)


def fitted(path: Path, verifier: Runnable[Any, Any] | str | None, queries: int = 200) -> Path:
    POMDPRouter.fit(world(queries), cost_weight=0.03, verifier=verifier).save(path)
    return path


@pytest.fixture(name="policy")
def policy_fixture(tmp_path: Path) -> Path:
    return fitted(tmp_path / "policy.json", AgreementVerifier(samples=4))


Door = Callable[..., Any]
DOORS: list[Door] = [
    AutoMixRunnable.from_policy,
    ChatAutoMix.from_policy,
    AutoMixMiddleware.from_policy,
]


def parts(made: Any) -> tuple[Any, Any]:
    mix = getattr(made, "_mix", made)
    return mix.verifier, mix.router


@pytest.mark.parametrize("door", DOORS)
class TestDoors:
    def test_the_check_and_the_router_are_the_policys(self, door: Door, policy: Path) -> None:
        for given in (
            policy,
            str(policy),
            POMDPRouter.load(policy),
            POMDPRouter.load(policy).policy,
        ):
            made = door(given, SMALL, LARGE, cost_weight=0.1)
            assert parts(made) == (AgreementVerifier(samples=4), POMDPRouter.load(policy))
            mix: Any = getattr(made, "_mix", made)
            assert mix.cost_weight == 0.1

    def test_other_models_are_refused_unless_they_are_meant(self, door: Door, policy: Path) -> None:
        with pytest.raises(AutoMixError) as caught:
            door(policy, SMALL, JUDGE)
        said = str(caught.value)
        assert "fitted to the models small, large, but is given small, judge." in said
        assert "other_models=True" in said
        with pytest.raises(AutoMixError, match="large, small, in another order"):
            door(policy, LARGE, SMALL)
        with pytest.raises(AutoMixError, match="given none"):
            door(policy)
        made = door(policy, SMALL, JUDGE, other_models=True)
        assert parts(made)[0] == AgreementVerifier(samples=4)

    def test_the_users_function_must_be_passed(self, door: Door, tmp_path: Path) -> None:
        own = FunctionVerifier(function=accepts)
        path = fitted(tmp_path / "own.json", own)
        with pytest.raises(AutoMixError) as caught:
            door(path, SMALL, LARGE)
        assert str(caught.value) == (
            f"The policy {path}: its check cannot be rebuilt from a file: your own check accepts, "
            "or pass the check itself in verifier=."
        )
        assert parts(door(path, SMALL, LARGE, verifier=own))[0] == own

    def test_a_check_by_name_instead(self, door: Door, policy: Path) -> None:
        with pytest.warns(VerifierChangedWarning):
            made = door(policy, SMALL, LARGE, verifier="few-shot by large")
        assert parts(made)[0] == SelfVerifier(model=LARGE)

    def test_a_file_that_says_nothing_of_its_check(self, door: Door, tmp_path: Path) -> None:
        path = fitted(tmp_path / "old.json", None)
        with pytest.raises(AutoMixError, match=r"does not say which check .* verifier=\."):
            door(path, SMALL, LARGE)
        path = fitted(tmp_path / "strange.json", "abcdef")
        with pytest.raises(AutoMixError, match=r"does not describe .*\(fingerprint abcdef\)"):
            door(path, SMALL, LARGE)


def test_models_of_the_check_are_found_by_name(tmp_path: Path) -> None:
    check = CombinedVerifier(
        checks={
            "judge": SelfVerifier(model=JUDGE, samples=2),
            "large": SelfVerifier(model=LARGE, samples=2),
            "free": LogProbabilityVerifier(),
        }
    )
    path = fitted(tmp_path / "policy.json", check)
    with pytest.raises(AutoMixError, match="the model judge, which is not among those given"):
        AutoMixRunnable.from_policy(path, SMALL, LARGE)
    mix = AutoMixRunnable.from_policy(path, SMALL, LARGE, check_models=[JUDGE])
    assert mix.verifier == check


def test_a_policy_that_reads_no_check_needs_none(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    router = POMDPRouter.fit(
        world(200), cost_weight=0.0, verifier=FunctionVerifier(function=accepts)
    )
    plan = router.policy.plans[0].model_copy(
        update={
            "opening": router.policy.plans[0].opening.model_copy(
                update={"model": 1, "samples": 0, "then": None}
            ),
            "tables": (),
        }
    )
    POMDPRouter(policy=router.policy.model_copy(update={"plans": (plan,)})).save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VerifierChangedWarning)
        AutoMixRunnable.from_policy(path, SMALL, LARGE)


def test_an_old_file_meets_its_check_by_its_fingerprint() -> None:
    mix = AutoMixRunnable.from_policy(HERE / "policy-v1.json", SMALL, LARGE)
    assert mix.verifier == SelfVerifier()
    router = POMDPRouter.load(HERE / "policy-v1.json")
    assert "Check: verdicts by small at t = 1 (few-shot)." in router.explain()


def test_a_description_leaves_a_policy_of_before_as_it_was() -> None:
    old = json.loads((HERE / "policy-v1.json").read_text())
    policy = POMDPRouter.load(HERE / "policy-v1.json").policy
    assert "check_spec" not in policy.model_dump(by_alias=True)
    assert json.loads(json.dumps(policy.model_dump(by_alias=True))) == old


def test_a_description_must_be_that_of_the_verifier(policy: Path) -> None:
    content = json.loads(policy.read_text())
    content["verifier"] = "another"
    policy.write_text(json.dumps(content))
    with pytest.raises(AutoMixError, match="check_spec describes another verifier"):
        POMDPRouter.load(policy)


class TestFromALog:
    def calibrated(
        self, server: OpenAIServer, out: Path, verifier: Runnable[Any, Any]
    ) -> RoutingLog:
        server.script = script
        examples = [
            {"question": f"Where was ship {i} built?", "reference": "Turku"} for i in range(40)
        ]
        models = [server.model("small"), server.model("large")]
        mix = AutoMixRunnable(models=models, verifier=verifier, prices=PRICES)
        return calibrate(examples, mix, out=out)

    def test_from_examples_to_a_mix(self, server: OpenAIServer, tmp_path: Path) -> None:
        check = AgreementVerifier(samples=3)
        log = self.calibrated(server, tmp_path / "log.jsonl", check)
        assert RoutingLog.read(tmp_path / "log.jsonl").check_spec == log.check_spec
        assert log.check_spec is not None
        for part in log.split():
            assert part.check_spec == log.check_spec
        path = tmp_path / "policy.json"
        router = POMDPRouter.fit(log)
        router.save(path)
        mix = AutoMixRunnable.from_policy(path, server.model("small"), server.model("large"))
        assert isinstance(mix.verifier, CombinedVerifier)
        assert list(mix.verifier.checks) == ["agreement", "tokens"]
        assert mix.verifier.checks["agreement"] == check
        assert "(agreement of 3 answers by small at t = 1)" in POMDPRouter.load(path).explain()

    def test_one_of_several_checks(self, server: OpenAIServer, tmp_path: Path) -> None:
        checks: dict[str, Runnable[Any, Any]] = {
            "few-shot": SelfVerifier(samples=2),
            "agreement": AgreementVerifier(samples=3),
        }
        log = self.calibrated(server, tmp_path / "log.jsonl", CombinedVerifier(checks=checks))
        models = server.model("small"), server.model("large")
        for name, check in (("first", checks["few-shot"]), ("agreement", checks["agreement"])):
            router = POMDPRouter.fit(log.select(check=name))
            mix = AutoMixRunnable.from_policy(router, *models)
            assert mix.verifier == check
        both = AutoMixRunnable.from_policy(POMDPRouter.fit(log), *models)
        assert both.verifier == CombinedVerifier(checks=checks)

    def test_a_damaged_description_is_an_error_with_its_place(self) -> None:
        records = list(world(20).records())
        for record in records:
            record["metadata"] = {"verifier": "x", "check_spec": {"kind": "SelfVerifier"}}
        with pytest.raises(AutoMixError, match=r"metadata.check_spec: field fingerprint"):
            POMDPRouter.fit(RoutingLog(records))


def test_the_report_names_the_check(policy: Path) -> None:
    said = Report.of(policy, world(80)).to_html()
    assert "Check: agreement of 4 answers by small at t = 1." in said


def test_a_mix_without_a_check_takes_its_policys(policy: Path, tmp_path: Path) -> None:
    mix = AutoMixRunnable.from_models(SMALL, LARGE, router=str(policy))
    assert mix.verifier == AgreementVerifier(samples=4)
    own = fitted(tmp_path / "own.json", FunctionVerifier(function=accepts))
    with pytest.warns(VerifierChangedWarning, match="your own check accepts"):
        mix = AutoMixRunnable.from_models(SMALL, LARGE, router=str(own))
    assert mix.verifier == SelfVerifier()


class TestByName:
    @pytest.mark.parametrize(
        "door",
        [
            lambda **fields: AutoMixRunnable.from_models(SMALL, LARGE, **fields),
            lambda **fields: ChatAutoMix(models=[SMALL, LARGE], **fields),
            lambda **fields: AutoMixMiddleware([SMALL, LARGE], **fields),
        ],
    )
    def test_a_name_a_file_a_number(self, door: Door, policy: Path) -> None:
        made = door(verifier="agreement", router=str(policy))
        assert parts(made) == (AgreementVerifier(), POMDPRouter.load(policy))
        assert parts(door(verifier="few-shot", router=0.6))[1] == ThresholdRouter(threshold=0.6)
        assert parts(door(verifier="few-shot by large", router=1))[0] == SelfVerifier(model=LARGE)
        for given, said in (
            (
                "agrement",
                r"no check 'agrement'\. Did you mean 'agreement'\? There are: few-shot",
            ),
            (SelfVerifier, r"SelfVerifier is no check: .*parentheses"),
            (accepts, "Wrap a function in FunctionVerifier"),
            (3, "verifier=3 is no check: give a verifier"),
        ):
            with pytest.raises(ValueError, match=said):
                door(verifier=given, router=0.5)
        for router, said in (
            ("none.json", "router='none.json' is no file"),
            (1.5, "router=1.5 is no router: .*path of a policy file; or a number in"),
            (True, "router=True is no router"),
            (ThresholdRouter, "ThresholdRouter is no router: .*parentheses"),
        ):
            with pytest.raises(ValueError, match=said):
                door(verifier="few-shot", router=router)
