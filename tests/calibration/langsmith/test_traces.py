"""What a trace tells of a check, and what it does not."""

from __future__ import annotations

from decimal import Decimal

import pytest

from langchain_automix.calibration.langsmith.traces import SkippedRun, logged_check
from langchain_automix.types import Verification


def free(calls: object) -> Decimal:
    del calls
    return Decimal(0)


def test_a_score() -> None:
    assert logged_check(Verification(score=0.4), free) == {"score": 0.4, "cost": 0.0}


@pytest.mark.parametrize("named", [False, True])
def test_the_score_of_a_draft_that_was_given_up_is_not_known(named: bool) -> None:
    bound = Verification(score=0.4, is_upper_bound=True)
    check = Verification(checks={"least": bound}) if named else bound
    with pytest.raises(SkippedRun, match="given up early"):
        logged_check(check, free)
