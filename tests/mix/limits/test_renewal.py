"""Reservations are renewed for as long as a query is under way, in one thread for all."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from typing import Any

import pytest

from langchain_automix.mix.limits.renewal import _MOST, Renewals
from tests.support.builders.waiting import LONG, wait_for


class Counted:
    """Renewals of one reservation, counted."""

    def __init__(self) -> None:
        self.times = 0
        self.thrice = threading.Event()

    def __call__(self) -> None:
        self.times += 1
        if self.times >= 3:
            self.thrice.set()


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "automix-renewals"]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Any:
    wait_for(lambda: not threads())  # an earlier test's
    yield
    wait_for(lambda: not threads())


def test_it_goes_on_until_the_end() -> None:
    renewals, renew = Renewals(), Counted()
    with renewals.keeping(renew, 0.01):
        assert renew.thrice.wait(LONG)
        [thread] = threads()
    thread.join(LONG)
    assert not thread.is_alive()
    times = renew.times
    with renewals.keeping(other := Counted(), 0.01):
        assert other.thrice.wait(LONG)
    assert renew.times == times


def test_one_thread_renews_all() -> None:
    renewals, many = Renewals(), [Counted() for _ in range(5)]
    with (
        renewals.keeping(many[0], 0.05),
        renewals.keeping(many[1], 0.01),
        renewals.keeping(many[2], 0.02),
        renewals.keeping(many[3], 0.01),
        renewals.keeping(many[4], 0.03),
    ):
        assert all(each.thrice.wait(LONG) for each in many)
        assert len(threads()) == 1


def test_a_shorter_lease_is_not_kept_waiting_by_a_longer_one() -> None:
    renewals, renew = Renewals(), Counted()
    with renewals.keeping(never := Counted(), 30 * LONG):
        with renewals.keeping(renew, 0.01):
            assert renew.thrice.wait(LONG)
        assert never.times == 0


def test_a_store_that_fails_is_tried_again() -> None:
    renewals, renew = Renewals(), Counted()

    def fails_first() -> None:
        renew()
        if not renew.thrice.is_set():
            raise ConnectionError

    with renewals.keeping(fails_first, 0.01):
        assert renew.thrice.wait(LONG)


def test_what_never_ends_is_not_kept_for_ever() -> None:
    renewals, renew = Renewals(), Counted()
    with renewals.keeping(renew, 0.01):
        wait_for(lambda: not threads())
        assert renew.times == _MOST


FORKED = """
import os, threading
from langchain_automix.mix.limits.renewal import Renewals

renewals, renewed = Renewals(), threading.Event()
with renewals.keeping(lambda: None, 3600):
    if (child := os.fork()) == 0:
        with renewals.keeping(renewed.set, 0.01):
            is_renewed = renewed.wait(60)
        os._exit(0 if is_renewed and not renewals._open else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def test_a_fork_leaves_the_parents_to_the_parent() -> None:
    told = subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED], check=False)
    assert told.returncode == 0


def test_it_goes_to_another_process_without_what_is_open() -> None:
    renewals = Renewals()
    with renewals.keeping(Counted(), 0.3):
        assert pickle.loads(pickle.dumps(renewals))._open == {}
