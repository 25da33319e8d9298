"""`Review`: what is to be done after a look at the traffic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_automix.learning.records import PolicyVersion, Status


@dataclass(frozen=True, slots=True)
class StatusChange:
    """A version that changes its status."""

    number: int
    status: Status
    why: str


@dataclass(frozen=True, slots=True)
class Review:
    """What is to be done after a look at the traffic."""

    promote: int | None = None
    """Number of the challenger that is proven."""

    back_to: int | None = None
    """Number of the version to go back to, 0 for the largest model; None: there is no reason."""

    champion: int | None = None
    """Number of the version that decided; None: the largest model alone."""

    ends_hold: bool = False
    """Whether the champion that was held since an alarm is proven anew."""

    renews: bool = False
    """Whether the version that decides is to be watched anew, as evidence of it was lost."""

    ready: Mapping[int, str] = field(default_factory=dict)
    """Challengers that are proven and wait for a person, with what is shown of them."""

    why: str = ""
    """Why the policy changes, in one sentence."""

    fitted: PolicyVersion | None = None
    """A version that was fitted, not stored yet."""

    changes: Sequence[StatusChange] = ()
    judged: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    """The comparison of each challenger, and of the champion, with what it is measured against."""

    share: float = 1.0
    """Share of the queries to shadow from now on."""

    next_step: str = ""
    """What comes next, in one sentence."""
