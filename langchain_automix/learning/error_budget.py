"""The chance of a wrong step, spent once over the life of an epoch, whatever happens in it.

Half of it is for the proofs of challengers, half for the terms of champions. Each comparison has a
part that was known when it began, and is looked at as often as one likes (`estimation.py`). What
begins anew, as after an alarm, has a new and smaller part: all parts together are never more than
the whole.
"""

from __future__ import annotations

from collections.abc import Sequence

from langchain_automix.learning.records import PolicyVersion

_MAIN_RIVAL = 0.8
"""Of the part of a version, what is for the comparison with the policy that decided when it was
made. The rest is for those with what else may decide by then."""


def for_proof(
    alpha: float, version: PolicyVersion, rival: int, versions: Sequence[PolicyVersion]
) -> float:
    """Return the chance with which a challenger may be shown to be better although it is not.

    The k-th version that differs from what was there has alpha / 2 / (k (k + 1)), for all that it
    may be compared with: the largest model, and the versions before it.

    Args:
        alpha: The chance of any wrong step in the epoch.
        version: The challenger.
        rival: Number of the version that it is compared with; 0: the largest model.
        versions: All versions of the epoch.
    """
    told_apart = (v.number for v in versions if not v.judged.get("alike"))
    place = max(1, sum(number <= version.number for number in told_apart))
    own = alpha / 2 / (place * (place + 1))
    others = sum(v.number < version.number for v in versions)  # one of all these is the main rival
    if not others:
        return own
    return own * (_MAIN_RIVAL if rival == version.parent else (1 - _MAIN_RIVAL) / others)


def for_term(alpha: float, term: int, *, proves_itself: bool) -> float:
    """Return the chance with which a champion may be shown to lose although it does not.

    The k-th term of a champion in the epoch has alpha / 2 / (k (k + 1)).

    Args:
        alpha: The chance of any wrong step in the epoch.
        term: The number of the term, from 1.
        proves_itself: Whether a champion that is held since an alarm must prove itself anew: half
            is for that proof then.
    """
    term = max(1, term)
    return alpha / 2 / (term * (term + 1)) / (2 if proves_itself else 1)
