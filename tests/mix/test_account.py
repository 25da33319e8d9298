"""A mix that costs more than its largest model alone says so; drafts that save nothing pause."""

from __future__ import annotations

import copy
import pickle
import random
import threading
import warnings
from typing import Any

import pytest

from langchain_automix import (
    AutoMixRunnable,
    AutoMixTotals,
    LogProbabilityVerifier,
    MixCostWarning,
    SelfVerifier,
    ThresholdRouter,
    explain,
)
from langchain_automix.mix.account import WATCHED_QUERIES, MixAccount
from tests.support.builders.mixes import mix, record_of
from tests.support.builders.no_warnings import no_warnings
from tests.support.servers.openai_server import OpenAIServer

TABLE = {"small": {"input": 1.0, "output": 4.0}, "large": {"input": 2.0, "output": 8.0}}


def record(cost: str | None = "3 USD", alone: str | None = "2 USD", **fields: Any) -> Any:
    check = {
        "model": "small",
        "check": "tokens",
        "confidence": 0.5,
        "verdicts": [],
        "problem": None,
    }
    return {
        "cost": cost,
        "alone": {"small": {"cost": "1 USD"}, "large": {"cost": alone}},
        "checks": [check],
        "escalated": False,
        **fields,
    }


def add(account: MixAccount, *records: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for each in records:
            account.add(each)
    return [str(each.message) for each in caught if each.category is MixCostWarning]


class TestItWatchesItself:
    def test_once_after_twenty_queries_with_the_figures_and_what_to_do(self) -> None:
        account = MixAccount()
        assert not add(account, *[record()] * (WATCHED_QUERIES - 1))
        [said] = add(account, *[record()] * 100)
        assert "20 queries of the mix of small, large have cost 60 USD" in said
        assert "about 40 USD (1.50 times as much)" in said
        for advice in ("Fit a policy", "cheaper", "large alone"):
            assert advice in said

    def test_not_where_it_saves_nor_where_a_cost_is_unknown(self) -> None:
        for kept in (record("1 USD"), record(None), record(alone=None)):
            assert not add(MixAccount(), *[kept] * 50)

    def test_a_loss_that_comes_late_is_said_late(self) -> None:
        account = MixAccount()
        assert not add(account, *[record("1 USD")] * 30)
        assert len(add(account, *[record("9 USD")] * 30)) == 1

    def test_not_by_the_first_draft_after_queries_of_the_largest_model_alone(self) -> None:
        """As a mix that learns asks them until a policy is proven."""
        account, alone = MixAccount(), record("2 USD", checks=[])
        assert not add(account, *[alone] * 200, *[record()] * (WATCHED_QUERIES - 1))
        [said] = add(account, record())
        assert "20 queries of the mix" in said

    @pytest.mark.parametrize(
        "broken", [{}, {"alone": {}}, {"cost": "much"}, {"checks": None}, {"alone": None}]
    )
    def test_it_never_raises(self, broken: dict[str, Any]) -> None:
        account = MixAccount()
        account.add({**record(), **broken} if broken else {})
        with no_warnings():
            for _ in range(30):
                account.add(record())

    def test_threads(self) -> None:
        account = MixAccount()
        work = [
            threading.Thread(target=add, args=(account, *[record("1 USD")] * 200)) for _ in "abcd"
        ]
        for each in work:
            each.start()
        for each in work:
            each.join()
        assert account.queries == 800

    def test_copies_share_it_and_another_process_goes_on_from_it(self) -> None:
        account = MixAccount()
        add(account, *[record()] * 15)
        assert copy.deepcopy(account) is account
        elsewhere = pickle.loads(pickle.dumps(account))
        assert len(add(elsewhere, *[record()] * 5)) == 1
        assert account.queries == 15


class TestInAMix:
    def losing(self, server: OpenAIServer) -> AutoMixRunnable:
        return mix(server, verifier=SelfVerifier(samples=8), prices=TABLE)

    def test_any_mix_warns(self, server: OpenAIServer) -> None:
        asked = self.losing(server)
        with pytest.warns(MixCostWarning, match="small, large") as caught:
            asked.batch([f"Question {i}?" for i in range(30)])
        assert len([each for each in caught if each.category is MixCostWarning]) == 1

    def test_also_where_each_query_has_a_copy_of_it(self, server: OpenAIServer) -> None:
        asked = self.losing(server)
        with pytest.warns(MixCostWarning):
            for i in range(20):
                asked.model_copy(update={"abstention": "-"}).invoke(f"Question {i}?")

    def test_explain_and_the_totals_say_it(self, server: OpenAIServer) -> None:
        totals = AutoMixTotals()
        asked = self.losing(server)
        with pytest.warns(MixCostWarning):
            found = asked.batch(["Where?"] * 20, {"callbacks": [totals]})
        assert "Lost       about" in explain(found[0])
        assert "against large alone" in explain(found[0])
        assert totals.is_loss
        assert str(totals).splitlines()[1].startswith("This mix loses money")

    def test_a_saving_is_said_in_the_same_way(self, server: OpenAIServer) -> None:
        router = ThresholdRouter(threshold=0.1)
        asked = mix(server, verifier=LogProbabilityVerifier(), router=router, prices=TABLE)
        message = asked.invoke("Where?")
        assert "Saved      about" in explain(message)
        assert float(record_of(message)["saved"].split()[0]) > 0


class TestPausedDrafts:
    """Of a mix that buys its checks itself: what saves nothing is left out for a while."""

    def left_out(self, account: MixAccount, most: int = 1_000) -> int:
        number = 0
        while number < most and account.leaves_out_draft():
            number += 1
        return number

    def test_drafts_that_save_are_never_left_out(self) -> None:
        account = MixAccount()
        for i in range(200):
            add(account, record("2.2 USD", escalated=True) if i % 2 else record("0.2 USD"))
            assert not account.leaves_out_draft()

    def test_drafts_that_only_cost_are_left_out_for_longer_and_longer(self) -> None:
        account, pauses = MixAccount(), list[int]()
        for _ in range(38):
            add(account, record("2.2 USD", escalated=True))
            pauses.append(self.left_out(account))
        assert [pause for pause in pauses if pause] == [32, 64, 128, 256]

    def test_what_hopeless_drafts_cost_in_all_stays_small(self) -> None:
        account, paid = MixAccount(), 0.0
        queries = 1_000
        for _ in range(queries):
            if account.leaves_out_draft():
                paid += 1.0
            else:
                add(account, record("2.2 USD", escalated=True))
                paid += 1.1
        assert paid / queries < 1.005

    def test_blind_drafts_are_left_out_sooner(self) -> None:
        account = MixAccount()
        blind = record("0.2 USD")
        blind["checks"][0]["confidence"] = None
        add(account, blind, blind)
        assert not account.leaves_out_draft()
        add(account, blind)
        assert self.left_out(account) == 32

    def test_after_a_pause_drafts_that_save_end_it(self) -> None:
        account = MixAccount()
        add(account, *[record("2.2 USD", escalated=True)] * 21)
        assert self.left_out(account) == 32
        add(account, *[record("0.2 USD")] * 4)
        assert not account.leaves_out_draft()
        add(account, *[record("2.2 USD", escalated=True)] * 41)
        assert self.left_out(account) == 32, "as short as the first one"

    def test_chance_alone_seldom_stops_drafts_that_save(self) -> None:
        stopped = 0
        for seed in range(200):
            dice, account = random.Random(seed), MixAccount()
            for _ in range(200):
                is_kept = dice.random() < 0.38
                add(account, record("0.4 USD") if is_kept else record("2.4 USD", escalated=True))
                stopped += self.left_out(account) > 0
        assert stopped < 20

    def test_drafts_that_begin_to_lose_are_noticed_whatever_they_had_saved(self) -> None:
        account = MixAccount()
        add(account, *[record("0.2 USD")] * 1_000)
        number = 0
        while not account.leaves_out_draft():
            add(account, record("2.2 USD", escalated=True))
            number += 1
        assert number < 100
