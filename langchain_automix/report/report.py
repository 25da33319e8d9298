"""`Report`: what a policy does on a routing log, to view, print and share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from typing_extensions import override

from langchain_automix.errors import AutoMixError
from langchain_automix.report.contents import Contents, LoggedDecision
from langchain_automix.report.pages import PageReport, notebook_frame

_NOTEBOOK_DECISIONS = 200
"""Number of decisions in a notebook's cell, which is saved with the notebook each time."""


@dataclass(frozen=True)
class Report(PageReport):
    """What a policy saves on a routing log, how certain that is, and every decision behind it.

    `write` creates one self-contained HTML page that needs no network and no server. A notebook
    displays the report by itself. The page contains the texts of the log, so anyone who gets it can
    read them.

    Example:
        >>> Report.of(router, log).write("report.html")  # doctest: +SKIP
    """

    contents: Contents = field(repr=False)
    """All figures and texts of the report."""

    @classmethod
    def of(
        cls, router: Any, log: Any, *, cost_weight: float | None = None, seed: int = 0
    ) -> Report:
        """Measure a policy on a log.

        Args:
            router: A fitted `POMDPRouter`, its `policy`, or the path of a policy file.
            log: A `RoutingLog`, or the path of one.
            cost_weight: How much quality one unit of cost is worth, at least 0. None: the policy's
                own.
            seed: Seed for folds and resampling; the same seed gives the same report.

        Raises:
            AutoMixError: The router has no fitted policy, the policy is for other models than the
                log, or a file cannot be read.
        """
        from langchain_automix.policy.data.log import RoutingLog  # noqa: PLC0415  (only needed here)
        from langchain_automix.report.measure import measure  # noqa: PLC0415  (loads numpy)

        policy = _policy_of(router)
        logged = RoutingLog.read(log) if isinstance(log, str | Path) else log
        return cls(measure(policy, logged, cost_weight=cost_weight, seed=seed))

    @override
    def to_html(self) -> str:
        from langchain_automix.report.html.page import render_page  # noqa: PLC0415  (reads its assets)

        return render_page(self.contents)

    @override
    def to_markdown(self) -> str:
        from langchain_automix.report.markdown import render_markdown  # noqa: PLC0415  (only here)

        return render_markdown(self.contents)

    def figures(self) -> dict[str, Any]:
        """Return all figures, ready for JSON: `contents` without the decisions."""
        plain = replace(self.contents, decisions=()).to_dict()
        del plain["decisions"]
        return plain

    def __str__(self) -> str:
        found, headline = self.contents.recommendation, self.contents.headline
        lines = [] if found is None else [str(found)]
        lines += [] if headline is None else [headline.describe()]
        lines.append(self.contents.verdict)
        lines += [f"{n.label}: {n.value}. {n.detail}" for n in self.contents.numbers]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Report({self.contents.queries} queries: {self.contents.verdict})"

    def _repr_html_(self) -> str:
        """Return the page inside a frame, with a sample of the decisions."""
        sample = _sample(self.contents.decisions, _NOTEBOOK_DECISIONS)
        page = Report(replace(self.contents, decisions=sample, sample="")).to_html()
        return notebook_frame(page, "AutoMix policy report")


def _policy_of(router: Any) -> Any:
    """Return the fitted policy of a router or a file, or the policy itself."""
    from langchain_automix.policy.decision.policy import Policy  # noqa: PLC0415  (loads what a fit needs)
    from langchain_automix.routers.pomdp import POMDPRouter  # noqa: PLC0415

    if isinstance(router, Policy):
        return router
    if isinstance(router, str | Path):
        return Policy.load(router)
    if isinstance(router, POMDPRouter) and router.is_calibrated:
        return router.policy
    raise AutoMixError(
        f"A report needs a fitted policy, and {type(router).__name__} has none: fit a POMDPRouter "
        "to a routing log, or give the path of a policy file."
    )


def _sample(decisions: Sequence[LoggedDecision], size: int) -> tuple[LoggedDecision, ...]:
    """Return up to `size` decisions in the order of the log, preferring those that went wrong."""

    def went_right(index: int) -> bool:
        return not {*decisions[index].kinds} - {"saved"}

    preferred = sorted(range(len(decisions)), key=went_right)[:size]
    return tuple(decisions[i] for i in sorted(preferred))
