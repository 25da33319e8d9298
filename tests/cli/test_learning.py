"""The verbs of `automix learning`, and `automix report` of a store."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed (extra `learning`)")

from langchain_automix import POMDPRouter, RoutingLog
from langchain_automix.learning.records import Event
from langchain_automix.learning.review_settings import ReviewSettings
from langchain_automix.learning.reviewing import Reviewer
from langchain_automix.learning.store.store import LearningStore
from langchain_automix.policy.decision.policy import Policy
from tests.support.builders.calibrating import command_line
from tests.support.builders.stores import version
from tests.support.builders.synthetic_logs import world
from tests.support.builders.traffic import MODELS, START, traffic


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("COLUMNS", "80")
    return command_line(monkeypatch, capsys)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'automix.db'}"


@pytest.fixture
def store(url: str) -> LearningStore:
    return LearningStore.open(url)


def shown(run: Any, *args: Any) -> str:
    code, out, err = run(*args)
    assert code == 0, err
    return str(out)


def figures(run: Any, *args: Any) -> Any:
    return json.loads(shown(run, *args, "--json"))


class TestStatus:
    def test_how_far_a_warm_up_has_come(self, run: Any, url: str, store: LearningStore) -> None:
        store.add(list(traffic(120, share=0.5)))
        token = store.reserve_spend("shadows", 0.25, None)
        assert token is not None
        store.settle_spend(token, 0.125)
        said = shown(run, "learning", "status", url)
        found = figures(run, "learning", "status", url)
        assert found["queries"] == 120
        assert 0 < found["labels"] == found["shadowed"] < 120
        assert f"120 queries, {found['labels']} of them seen in full." in said
        assert "The largest model answers: warm-up, so no policy is proven yet." in said
        assert "Saved so far: nothing against the largest model alone." in said
        assert "for $0.12; at present 100 % of the queries have one." in said
        assert "Drift: none was noticed." in said
        assert f"Next: The next fit takes {100 - found['labels']} complete queries more." in said

    def test_what_is_unknown_is_said(self, run: Any, url: str, store: LearningStore) -> None:
        store.add(list(traffic(30)))
        store.add(list(traffic(20, first=30, costs=False)))
        said = shown(run, "learning", "status", url)
        assert "on 30 queries. The cost of 20 queries is unknown." in said
        assert figures(run, "learning", "status", url)["unpriced"] == 20

    def test_what_was_saved_and_the_last_drift(
        self, run: Any, url: str, store: LearningStore
    ) -> None:
        store.add(list(traffic(40)))
        number = store.add_version(version(policy=_policy()))
        store.promote(number, "It was proven.")
        store.add(list(traffic(200, first=40, stage="policy", version=number, share=0.1)))
        store.add([Event(START, "e", "alarm", "The cost of a query has changed.", {})])
        said = shown(run, "learning", "status", url)
        found = figures(run, "learning", "status", url)
        assert f"Version {number} of the policy decides since" in said
        saved = 1 - found["cost"] / found["alone"]
        assert 0.2 < saved < 0.9
        assert f"{100 * saved:.0f} % of the cost of the largest model alone" in said
        assert "UTC): The cost of a query has changed. That is over" in said
        assert found["alarm_is_over"]


class TestFit:
    def test_it_fits_and_says_what_it_did(self, run: Any, url: str, store: LearningStore) -> None:
        store.add(list(traffic(150)))
        said = shown(run, "learning", "fit", url)
        assert "Version 1 (challenger): Fitted to 150 complete queries." in said
        assert "The largest model decides." in said
        [made] = store.versions()
        assert (made.status, made.labels) == ("challenger", 150)
        found = figures(run, "learning", "fit", url)
        assert (found["fitted"], found["decides"]) == (None, 0)

    def test_what_is_proven_decides_unless_a_person_is_to_say_so(
        self, run: Any, url: str, store: LearningStore
    ) -> None:
        store.add(list(traffic(150, told=1.0)))
        assert figures(run, "learning", "fit", url, "--max-loss", "0.1")["fitted"] == 1
        later = time.time() + 1  # after the version was made
        store.add(list(traffic(700, first=200, told=1.0, start=later, seconds=1.0)))
        found = figures(run, "learning", "fit", url, "--max-loss", "0.1", "--promote", "ask")
        assert (found["promoted"], found["decides"]) == (None, 0)
        assert found["judged"]["1"]["is_shown"]
        assert store.champion("e") is None
        said = shown(run, "learning", "fit", url, "--max-loss", "0.1")
        number = store.champion("e")
        assert number is not None
        assert f"Version {number} was promoted. It saves" in said
        assert f"Version {number} decides." in said

    def test_the_goal_is_the_mixs_own_unless_another_is_given(
        self, run: Any, url: str, store: LearningStore
    ) -> None:
        settings = ReviewSettings(max_loss=0.1, promote="ask", confidence=0.9)
        told = Reviewer("e", MODELS, settings, "a fingerprint").to_detail()
        store.add([*traffic(150), Event(START, "e", "epoch", "The models go on.", told)])
        assert "with 90 %" in shown(run, "learning", "report", url)
        assert figures(run, "learning", "fit", url)["fitted"] == 1
        [made] = store.versions()
        policy = Policy.model_validate_json(made.policy)
        assert policy.goal["max_loss"] < 0.1
        assert policy.verifier == "a fingerprint"
        assert "with 80 %" in shown(run, "learning", "report", url, "--confidence", "0.8")

    def test_two_at_once_do_not_review(self, run: Any, url: str, store: LearningStore) -> None:
        store.add(list(traffic(150)))
        with store.lock("review:e") as is_held:
            assert is_held
            assert "Another process reviews" in shown(run, "learning", "fit", url)
            assert figures(run, "learning", "fit", url) == {"is_held_by_another": True}
        assert store.versions() == []


class TestAPersonsSteps:
    @pytest.fixture
    def numbers(self, store: LearningStore) -> list[int]:
        store.add(list(traffic(40)))
        policy = _policy()
        return [store.add_version(version(policy=policy)) for _ in range(2)]

    def test_promote_and_roll_back(
        self, run: Any, url: str, store: LearningStore, numbers: list[int]
    ) -> None:
        one, two = numbers
        said = shown(run, "learning", "promote", url, one)
        assert f"Version {one} decides from now on, in place of the largest model." in said
        assert store.champion("e") == one
        assert figures(run, "learning", "promote", url, two) == {
            "epoch": "e",
            "before": one,
            "now": two,
            "note": "",
        }
        again = shown(run, "learning", "promote", url, two)
        assert again == f"Version {two} decides already; nothing was changed.\n"
        back = shown(run, "learning", "rollback", url, "--why", "Users complained.")
        assert f"Version {one} decides from now on, in place of version {two}." in back
        assert store.versions()[1].why == "Users complained."
        assert figures(run, "learning", "rollback", url)["now"] == 0

    def test_what_speaks_against_it_is_said(
        self, run: Any, url: str, store: LearningStore, numbers: list[int]
    ) -> None:
        store.set_status(numbers[0], "rejected", "It was not proven in time.")
        said = shown(run, "learning", "promote", url, numbers[0])
        assert "It was rejected before: It was not proven in time." in said
        store.add(list(traffic(5, first=100, epoch="other")))
        assert "The newest queries are of other" in shown(
            run, "learning", "promote", url, numbers[1]
        )

    def test_history(self, run: Any, url: str, store: LearningStore, numbers: list[int]) -> None:
        store.promote(numbers[0], "It was proven.")
        said = shown(run, "learning", "history", url)
        assert max(map(len, said.splitlines())) <= 80
        assert f"{numbers[0]} champion" in said
        assert f"{numbers[1]} challenger" in said
        assert "promoted" in said
        found = figures(run, "learning", "history", url)
        assert [each["status"] for each in found["versions"]] == ["champion", "challenger"]
        assert found["versions"][0]["policy"]["models"] == list(MODELS)
        assert [each["kind"] for each in found["events"]] == ["epoch", "promoted"]

    def test_a_store_without_a_past(self, run: Any, url: str, store: LearningStore) -> None:
        assert "Nothing has happened yet" in shown(run, "learning", "history", url)


class TestExport:
    def test_a_routing_log(self, run: Any, url: str, store: LearningStore, tmp_path: Path) -> None:
        store.add(list(traffic(25, share=0.5)))
        out = tmp_path / "log.jsonl"
        assert f"25 queries written to {out}." in " ".join(
            shown(run, "learning", "export", url, out).split()
        )
        log = RoutingLog.read(out)
        assert log.models == MODELS
        assert len(log) == figures(run, "learning", "export", url, out)["queries"] == 25


class TestReport:
    def test_both_ways_to_ask_for_it(
        self, run: Any, url: str, store: LearningStore, tmp_path: Path
    ) -> None:
        store.add(list(traffic(400, stage="observe", told=1.0)))
        said = shown(run, "learning", "report", url, "--max-loss", "0.03")
        assert said.startswith("You would have saved ")
        page, text = tmp_path / "page.html", tmp_path / "page.md"
        shorter = shown(run, "report", url, "--out", page, "--markdown", text)
        assert shorter.startswith("You would have saved ")
        assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
        assert text.read_text(encoding="utf-8").startswith("## AutoMix learning report")
        found = figures(run, "report", url)
        assert found["queries"] == found["labels"] == 400
        assert found["answer"] in shorter


class TestBadInput:
    @pytest.mark.parametrize("verb", ["status", "history", "fit", "rollback", "report"])
    def test_no_store_and_no_url(self, run: Any, tmp_path: Path, verb: str) -> None:
        missing = tmp_path / "none.db"
        for given, part in (
            (f"sqlite:///{missing}", "There is no learning store"),
            ("automix.db", "is no URL of a learning store: give one such as sqlite:///automix.db"),
            ("mysql://host/db", "mysql"),
        ):
            code, out, err = run("learning", verb, given)
            assert (code, out, err.count("\n")) == (2, "", 1), err
            assert part in err
        assert not missing.exists()

    @pytest.mark.parametrize("verb", ["status", "fit", "report", "rollback"])
    def test_an_empty_store(self, run: Any, url: str, store: LearningStore, verb: str) -> None:
        code, out, err = run("learning", verb, url)
        assert (code, out, err.count("\n")) == (2, "", 1), err

    @pytest.mark.parametrize(
        ("given", "part"),
        [
            (("fit", "--max-loss", "2"), "max_loss must lie in [0, 1]"),
            (("status", "--confidence", "1"), "confidence must be a chance"),
            (("fit", "--max-loss", "0.1", "--cost-weight", "3"), "one goal"),
            (("promote", "7"), "has no version 7"),
            (("status", "--epoch", "f"), "no query of epoch f"),
            (("export", "/nowhere/log.jsonl"), "/nowhere"),
        ],
    )
    def test_what_cannot_be(
        self, run: Any, url: str, store: LearningStore, given: tuple[str, ...], part: str
    ) -> None:
        store.add(list(traffic(20)))
        verb, *others = given
        code, out, err = run("learning", verb, url, *others)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert part in err

    def test_a_version_without_a_policy(self, run: Any, url: str, store: LearningStore) -> None:
        number = store.add_version(version(policy="", why="No policy could be fitted."))
        code, _, err = run("learning", "promote", url, number)
        assert code == 2
        assert "holds no policy to promote: No policy could be fitted." in err
        assert store.champion("e") is None

    def test_a_report_on_a_policy_needs_its_log(self, run: Any, tmp_path: Path) -> None:
        for given in ([tmp_path / "p.json"], [tmp_path / "p.json", tmp_path / "log.jsonl"]):
            code, _, err = run("report", *given)
            assert code == 2
            assert "A report on a policy needs" in err


def _policy() -> str:
    """The text of a policy for the models of the traffic."""
    router = POMDPRouter.fit(world(200), cost_weight=0.03)
    return router.policy.model_dump_json(by_alias=True)
