"""Policies of several checks: fitted, kept in a file, replayed, and deciding in a mix."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.runnables import RunnableLambda

from langchain_automix import (
    AutoMixError,
    AutoMixRunnable,
    CombinedVerifier,
    POMDPRouter,
    RoutingLog,
    RoutingState,
    Verification,
    Visit,
    evaluate,
)
from langchain_automix.evaluation.router_replay import replay_router
from langchain_automix.policy.data.arrays import to_arrays
from langchain_automix.policy.decision.describe import describe_policy
from langchain_automix.policy.decision.plan import Plan
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.fitting.cross_fitting import CrossFit
from langchain_automix.policy.fitting.fit import fit_policy
from langchain_automix.policy.fitting.goal import Goal
from langchain_automix.policy.replay import replay_plan, replay_policy
from tests.support.builders.checks import finding
from tests.support.builders.logs_with_extra_checks import several
from tests.support.builders.synthetic_logs import world

WEIGHT = 0.04
NAMES = ("small", "large")


@functools.cache
def fitted() -> POMDPRouter:
    return POMDPRouter.fit(several(800), cost_weight=WEIGHT)


@functools.cache
def of_both() -> POMDPRouter:
    """The answers of the large model are checked, too, for nothing."""
    return POMDPRouter.fit(several(800, of_last=True), cost_weight=0.01)


def plan_of(router: POMDPRouter) -> Plan:
    [plan] = router.policy.plans
    return plan


def utility(router: POMDPRouter, log: RoutingLog, weight: float) -> Any:
    return replay_plan(plan_of(router), to_arrays(log)).utility(weight)


class TestFit:
    def test_together_they_are_worth_more_than_any_alone(self) -> None:
        assert plan_of(fitted()).name == "joint:small->large"
        unseen = several(3000, seed=2)
        together = utility(fitted(), unseen, WEIGHT)
        for name in unseen.checks:
            alone = POMDPRouter.fit(several(800).select(check=name), cost_weight=WEIGHT)
            gain = together - utility(alone, unseen.select(check=name), WEIGHT)
            assert gain.mean() > 2 * gain.std() / np.sqrt(len(gain))

    def test_what_costs_nothing_comes_first_and_what_is_dear_where_it_is_undecided(self) -> None:
        plan = plan_of(POMDPRouter.fit(several(800, seed=3), cost_weight=WEIGHT))
        assert plan.opening.check == "logprob"
        outcomes = replay_plan(plan, to_arrays(several(2000, seed=13)))
        assert outcomes.paths is not None
        spent = outcomes.paths.check_cost[:, 0]
        assert (spent == 0).any()
        judged = float((spent >= 2.0).mean())
        assert 0 < judged < 0.5

    def test_a_further_check_that_tells_more_is_chosen_alone(self) -> None:
        log = several(600, prices=(0.0, 0.0))
        records = list(log.records())
        for record in records:
            small = record["answers"][0]
            del small["checks"]["logprob"]
            small["checks"]["judge"]["score"] = 0.1 + 0.8 * small["quality"]
        router = POMDPRouter.fit(RoutingLog(records), cost_weight=WEIGHT)
        assert plan_of(router).name == "monotone:small->large by judge"
        assert plan_of(router).opening.check == "judge"
        [table] = plan_of(router).tables
        assert {row.step.action for row in table.rows if any(row.seen)} == {"answer", "escalate"}

    def test_checks_that_tell_nothing_leave_one_model_alone(self) -> None:
        records = list(several(300, prices=(0.5, 2.0)).records())
        rng = np.random.default_rng(0)
        for record in records:
            small = record["answers"][0]
            small["verification"]["verdicts"] = (rng.random(8) < 0.6).tolist()
            for check in small["checks"].values():
                check["score"] = float(rng.random())
        router = POMDPRouter.fit(RoutingLog(records), cost_weight=WEIGHT)
        assert plan_of(router).name.startswith("always:")

    def test_what_is_approximated_is_said(self) -> None:
        notes = [note for note in fitted().policy.fit.notes if "several checks" in note]
        assert "at most 8 verdicts and 6 bins of a score each" in notes[0]

    def test_queries_that_lack_a_check_are_left_out_and_counted(self) -> None:
        router = POMDPRouter.fit(several(150, lost=0.1), cost_weight=WEIGHT)
        [note] = [note for note in router.policy.fit.notes if "left out." in note]
        number = 150 - router.policy.fit.queries
        assert note.startswith(f"{number} of 150 complete queries lack a check")

    def test_budgets_and_folds(self) -> None:
        log = several(120)
        policy = fit_policy(to_arrays(log), Goal(max_cost=5.0), foretell=False)
        assert policy.goal == {"max_cost": 5.0}
        crossed = CrossFit(to_arrays(log), log.store.ids, WEIGHT)
        assert any("joint" in plan.name for plan in crossed.plans(WEIGHT))

    def test_the_words(self) -> None:
        text = " ".join(describe_policy(fitted().policy).split())
        assert "accept/reject, logprob how often small large do (score), judge (score)" in text
        assert "ask small, and check its answer by logprob (table 0)" in text
        more = r"(check once more by judge|draw \d more verdicts?) on .*small's"
        assert re.search(more, text)


class TestTheLastAnswer:
    """A check of the last answer that costs nothing chooses which of two answers to keep."""

    def test_it_is_used_and_gains(self) -> None:
        plan = plan_of(of_both())
        assert plan.name == "chain"
        [first, *later] = plan.tables
        assert {table.model for table in later} == {1}
        assert {
            (row.step.action, row.step.model) for t in later for row in t.rows if any(row.seen)
        } == {
            ("answer", 0),
            ("answer", 1),
        }
        unseen = several(3000, seed=5, of_last=True)
        blind = [
            {**r, "answers": [r["answers"][0], _unchecked(r["answers"][1])]}
            for r in unseen.records()
        ]
        without = POMDPRouter.fit(_blind(several(800, of_last=True)), cost_weight=0.01)
        gain = utility(of_both(), unseen, 0.01) - utility(without, RoutingLog(blind), 0.01)
        assert gain.mean() > 2 * gain.std() / np.sqrt(len(gain))
        assert first.model == 0

    def test_the_router_keeps_the_better_answer(self) -> None:
        kept = {}
        for score in (0.05, 0.95):
            state = RoutingState(models=NAMES)
            decision = of_both().opening(2)
            found: dict[int, Verification] = {}
            scores = {0: {"logprob": 0.6, "judge": 0.4}, 1: {"logprob": score}}
            for _ in range(9):
                if decision.action == "answer":
                    break
                index = decision.model_index
                assert decision.samples != 0
                check = _made(decision.check, decision.samples, scores[index], accepts=2)
                before = found.get(index)
                found[index] = check if before is None else before.and_then(check)
                visits = tuple(Visit(model_index=j, verification=v) for j, v in found.items())
                state = state.model_copy(update={"visits": visits})
                decision = of_both().decide(state)
            assert list(found) == [0, 1]
            kept[score] = decision.model_index
        assert kept == {0.05: 0, 0.95: 1}


def _unchecked(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "checks"}


def _blind(log: RoutingLog) -> RoutingLog:
    return RoutingLog(
        {**r, "answers": [r["answers"][0], _unchecked(r["answers"][1])]} for r in log.records()
    )


def _made(
    check: str | None, samples: int | None, scores: dict[str, float], accepts: int
) -> Verification:
    """Return what a check finds that is asked for."""
    if check is not None:
        return Verification(checks={check: Verification(score=scores[check])})
    number = 8 if samples is None else samples
    return Verification(verdicts=tuple(i < accepts for i in range(number)))


class TestReplay:
    @pytest.mark.parametrize("lost", [0.0, 0.3])
    @pytest.mark.parametrize("router", [fitted, of_both])
    def test_as_the_router_decides(self, router: Any, lost: float) -> None:
        """At once, and one query after the other by the router itself: the same."""
        log = several(150, seed=7, lost=lost, of_last=router is of_both)
        policy = router().policy
        outcomes = replay_policy(policy, to_arrays(log), log.store.ids)
        slowly = replay_router(router(), log)
        assert outcomes.model.tolist() == [one.model_index for one in slowly]
        assert outcomes.cost == pytest.approx([one.cost for one in slowly])
        assert outcomes.samples.tolist() == [one.samples for one in slowly]

    def test_only_what_is_bought_is_paid(self) -> None:
        log = several(400, seed=8)
        found = evaluate(fitted(), log)
        columns = to_arrays(log)
        outcomes = replay_plan(plan_of(fitted()), columns)
        assert outcomes.paths is not None
        answers = np.where(outcomes.paths.asked, columns.cost, 0.0).sum(axis=1)
        spent = outcomes.paths.check_cost.sum(axis=1)
        assert found.cost == pytest.approx(float((answers + spent).mean()))
        # Verdicts cost 0.05 for a request and 0.05 each, the judge 2, and the rest nothing.
        rest = np.where(spent >= 2, spent - 2, spent)
        assert set(np.round(rest / 0.05).astype(int).tolist()) <= set(range(13))
        assert found.verification_samples < 8

    def test_each_check_is_judged(self) -> None:
        records = list(several(60, seed=9, lost=0.2).records())
        for record in records:
            for check in record["answers"][0].get("checks", {}).values():
                check["cost"] = None
        found = evaluate(fitted(), RoutingLog(records))
        own = {name for name in found.calibration if name.startswith("confidence:")}
        assert own == {f"confidence:small{by}" for by in ("", " by logprob", " by judge")}
        assert any("what the check 'judge' of small's answers cost" in w for w in found.words)

    def test_a_log_without_the_check(self) -> None:
        with pytest.raises(AutoMixError, match="no check 'logprob'"):
            evaluate(fitted(), world(40))


class TestFile:
    def test_round_trip(self, tmp_path: Path) -> None:
        fitted().save(tmp_path / "policy.json")
        again = Policy.load(tmp_path / "policy.json")
        assert again == fitted().policy
        assert again.fingerprint == fitted().policy.fingerprint
        assert json.loads((tmp_path / "policy.json").read_text())["version"] == 2

    def test_one_check_is_written_as_before(self, tmp_path: Path) -> None:
        router = POMDPRouter.fit(world(200))
        router.save(tmp_path / "policy.json")
        found = json.loads((tmp_path / "policy.json").read_text())
        assert found["version"] == 1
        [plan] = found["plans"]
        assert set(plan["opening"]) == {"action", "model", "samples", "then"}
        assert set(plan["tables"][0]) == {"model", "kind", "counts_invalid", "edges", "rows"}
        assert set(plan["tables"][0]["rows"][0]["step"]) == set(plan["opening"])

    @pytest.mark.parametrize(
        ("damage", "said"),
        [
            (lambda p, t: p.update(version=1), "version 2"),
            (lambda p, t: t.update(checks=[]), "says how each of them is read"),
            (lambda p, t: t.update(kind="score"), "says how each of them is read"),
            (lambda p, t: t["checks"].append(t["checks"][0]), "reads each check once"),
            (lambda p, t: t["rows"].pop(0), "one row for nothing found"),
            (lambda p, t: t["rows"].append(t["rows"][0]), "one row for nothing found"),
            (lambda p, t: t["rows"][1]["seen"].append(0), "what each of them found"),
            (lambda p, t: t["rows"][1]["seen"].__setitem__(-1, 99), "what each of them found"),
            (lambda p, t: _asking(t)["step"].update(check="other"), "its rows ask for"),
            (lambda p, t: _asking(t)["step"].update(check="logprob"), "not drawn twice"),
            (lambda p, t: p["plans"][0]["opening"].update(check="other"), "reads the check"),
            (lambda p, t: t["checks"][1].update(edges=[0.9, 0.1]), "ascend"),
            (lambda p, t: t["checks"][0].update(most=0), "at least one verdict"),
        ],
    )
    def test_damage_is_refused(self, tmp_path: Path, damage: Any, said: str) -> None:
        path = tmp_path / "policy.json"
        fitted().save(path)
        found = json.loads(path.read_text())
        damage(found, found["plans"][0]["tables"][0])
        path.write_text(json.dumps(found))
        with pytest.raises(AutoMixError, match=said):
            Policy.load(path)


def _asking(table: dict[str, Any]) -> dict[str, Any]:
    """Return a row that asks for more once the free check was made."""
    rows = (row for row in table["rows"] if row["step"]["action"] == "verify" and row["seen"][3])
    found: dict[str, Any] = next(rows)
    return found


class TestInTheMix:
    """What a verifier is asked for, by a router that was fitted to three checks."""

    def asked(self, find: Any) -> tuple[list[tuple[str | None, int | None]], Any]:
        asked: list[tuple[str | None, int | None]] = []

        def check(request: Any) -> Verification:
            asked.append((request["check"], request.get("samples")))
            found: Verification = find(*asked[-1])
            return found

        models = [FakeListChatModel(responses=[f"{name} answer"]) for name in NAMES]
        verifier: RunnableLambda[Any, Any] = RunnableLambda(check)
        automix = AutoMixRunnable(models=models, verifier=verifier, router=fitted())
        return asked, automix.invoke("What?")

    def test_the_order_of_buying(self) -> None:
        scores = {"logprob": 0.5, "judge": 0.9}
        asked, message = self.asked(lambda name, n: _made(name, n, scores, accepts=n or 0))
        assert asked[0] == ("logprob", None)
        assert len(asked) > 1
        assert len({name for name, _ in asked[1:]} - {"logprob"}) >= 1
        assert "'logprob': the check scored" in message.response_metadata["automix"]["why"]

    def test_a_check_that_failed_is_not_bought_again(self) -> None:
        failed = Verification(problem="it timed out")

        def find(name: str | None, samples: int | None) -> Verification:
            if name == "logprob":
                return Verification(checks={name: failed})
            return _made(name, samples, {"judge": 0.9}, accepts=samples or 0)

        asked, message = self.asked(find)
        assert asked[0][0] == "logprob"
        assert [name for name, _ in asked].count("logprob") == 1
        assert len(asked) > 1
        assert message.content == "small answer"

    def test_nor_one_that_raised(self) -> None:
        def find(name: str | None, samples: int | None) -> Verification:
            if name == "logprob":
                raise ConnectionError("no answer")
            return _made(name, samples, {"judge": 0.9}, accepts=samples or 0)

        asked, message = self.asked(find)
        assert [name for name, _ in asked].count("logprob") == 1
        assert len(asked) > 1
        assert message.content == "small answer"

    def test_where_the_first_one_raises_the_others_are_asked(self) -> None:
        def find(name: str | None, samples: int | None) -> Verification:
            if name is None:
                raise ConnectionError("no answer")
            return _made(name, samples, {"logprob": 0.5, "judge": 0.9}, accepts=0)

        asked, message = self.asked(find)
        names = [name for name, _ in asked]
        assert names.count(None) <= 1
        assert "judge" in names
        assert message.content == "small answer"

    def test_when_all_fail_the_large_model_is_asked(self) -> None:
        def find(name: str | None, samples: int | None) -> Verification:
            failed = Verification(problem="it timed out")
            return failed if name is None else Verification(checks={name: failed})

        asked, message = self.asked(find)
        names = [name for name, _ in asked]
        assert len(names) == len(set(names))
        assert message.content in ("small answer", "large answer")
        if len(names) == 3:
            assert message.content == "large answer"

    def test_a_verifier_of_one_check_cannot_make_it_ask_for_ever(self) -> None:
        asked, _ = self.asked(lambda name, n: Verification(verdicts=(True,) * (n or 8)))
        names = [name for name, _ in asked]
        assert names.count("logprob") == 1
        assert names.count("judge") <= 1
        assert len(asked) < 12

    def test_a_first_check_that_finds_nothing_is_not_made_again(self) -> None:
        def nothing(given: Any) -> Verification:
            made.append("nothing")
            return Verification()

        made: list[str] = []
        checks: dict[str, Any] = {
            "self": RunnableLambda(nothing),
            "judge": finding(score=0.9),
            "logprob": finding(score=0.5),
        }
        models = [FakeListChatModel(responses=[f"{name} answer"]) for name in NAMES]
        verifier = CombinedVerifier(checks=checks)
        automix = AutoMixRunnable(models=models, verifier=verifier, router=fitted())
        record = automix.invoke("What?").response_metadata["automix"]
        assert made.count("nothing") <= 1
        assert "steps" not in record["why"]
        assert "than the -" not in record["why"]

    def test_an_empty_answer_is_not_checked_at_all(self) -> None:
        models = [FakeListChatModel(responses=[text]) for text in ("", "large answer")]
        verifier: RunnableLambda[Any, Any] = RunnableLambda(lambda _: Verification(score=1.0))
        automix = AutoMixRunnable(models=models, verifier=verifier, router=fitted())
        message = automix.invoke("What?")
        assert message.content == "large answer"
        assert "The answer is empty" in message.response_metadata["automix"]["why"]


class TestOffTheWay:
    """Findings that the policy would not have come to by itself."""

    def decide(self, check: Verification) -> Any:
        visits = (Visit(model_index=0, verification=check),)
        return fitted().decide(RoutingState(models=NAMES, visits=visits))

    def test_all_at_once(self) -> None:
        good = {"logprob": Verification(score=0.9), "judge": Verification(score=0.95)}
        bad = {"logprob": Verification(score=0.1), "judge": Verification(score=0.05)}
        kept = self.decide(Verification(verdicts=(True,) * 8, checks=good))
        assert kept.action == "answer"
        assert self.decide(Verification(verdicts=(False,) * 8, checks=bad)).action == "escalate"
        assert kept.why.startswith("8 of 8 verdicts accept the answer; 'logprob': ")

    def test_more_verdicts_than_it_knows_and_checks_that_it_does_not(self) -> None:
        other = {"other": Verification(score=0.0), "logprob": Verification(score=0.9)}
        found = self.decide(Verification(verdicts=(True,) * 40, checks=other))
        assert found.action == "answer"

    def test_what_cannot_be_made_any_more_is_no_option(self) -> None:
        failed = Verification(problem="it timed out")
        state = RoutingState.after(Verification(checks={"logprob": failed, "judge": failed}), NAMES)
        decision = fitted().decide(state)
        spent = {o for o in decision.values if o in ("verify:logprob", "verify:judge")}
        assert not spent
        assert decision.check not in ("logprob", "judge")

    def test_another_cost_weight(self) -> None:
        check = Verification(verdicts=(False,) * 8, checks={"judge": Verification(score=0.1)})
        visits = (Visit(model_index=0, verification=check),)
        state = RoutingState(models=NAMES, visits=visits, cost_weight=10.0)
        assert fitted().decide(state).action in ("answer", "verify")
