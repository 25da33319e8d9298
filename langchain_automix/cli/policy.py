"""`automix fit`, `evaluate`, `show` and `report`: fit a policy, and look at it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from langchain_automix.cli.options import (
    USUAL_LOSS,
    AsJson,
    CostWeight,
    LogFile,
    PolicyFile,
    RayAddress,
    cost_weight_option,
)
from langchain_automix.cli.terminal import echo
from langchain_automix.errors import AutoMixError

if TYPE_CHECKING:
    from langchain_automix.policy.decision.policy import Policy


def register(app: typer.Typer) -> None:
    """Add `fit`, `evaluate`, `show` and `report` to the command line; errors are `AutoMixError`."""
    app.command("fit")(fit)
    app.command("evaluate")(evaluate)
    app.command("show")(show)
    app.command("report")(report)


def fit(
    log: LogFile,
    out: Annotated[Path, typer.Option("--out", help="Where the policy file goes.")],
    cost_weight: Annotated[
        float | None, cost_weight_option("Quality that one unit of cost is worth.")
    ] = None,
    max_cost: Annotated[float | None, typer.Option(help="Highest mean cost of a query.")] = None,
    min_quality: Annotated[float | None, typer.Option(help="Lowest mean quality.")] = None,
    max_loss: Annotated[
        float | None,
        typer.Option(
            help="Highest mean quality to lose against the best single model; the cheapest policy "
            "within it is fitted.",
            show_default=f"{USUAL_LOSS}, without another goal",
        ),
    ] = None,
    max_risk: Annotated[
        float | None, typer.Option(help="Highest chance of a wrong answer, guaranteed.")
    ] = None,
    confidence: Annotated[
        float | None,
        typer.Option(
            "--confidence",
            "--confidence-level",
            help="How sure --max-loss, --min-quality, --max-cost or --max-risk is to hold on new "
            "queries, such as 0.9.",
            show_default="in expectation; 0.95 for --max-risk",
        ),
    ] = None,
    abstain_value: Annotated[
        float | None,
        typer.Option(help="Utility of giving no answer; without it, every query is answered."),
    ] = None,
    verifier: Annotated[
        str | None, typer.Option(help="Fingerprint of the verifier.", show_default="the log's own")
    ] = None,
    rule: Annotated[
        Literal["pomdp", "threshold"],
        typer.Option(
            help="What to fit: the POMDP, or one threshold on the confidence in the small model's "
            "answers."
        ),
    ] = "pomdp",
    seed: Annotated[int, typer.Option(help="Seed: the same one gives the same policy.")] = 0,
    own_cost: Annotated[
        bool,
        typer.Option(
            "--own-cost",
            help="Take a larger model for dearer on queries whose own answer cost more than usual.",
        ),
    ] = False,
    ray: RayAddress = None,
    as_json: AsJson = False,
) -> None:
    """Fit a policy to a routing log, for one goal, and say what to expect of it.

    Without a goal, it is the cheapest that loses at most 0.01 of the best single model's quality.

    What to expect is cross-fitted: each query is judged by a policy that was fitted without it.
    """
    from langchain_automix.cli.logs import read_log
    from langchain_automix.evaluation.outlook import expect
    from langchain_automix.routers.baselines import FittedThresholdRouter
    from langchain_automix.routers.pomdp import POMDPRouter

    logged = read_log(log, ray)
    kind = FittedThresholdRouter if rule == "threshold" else POMDPRouter
    asked = (cost_weight, max_cost, min_quality, max_loss, max_risk, abstain_value)
    router = kind.fit(
        logged,
        cost_weight=cost_weight,
        max_cost=max_cost,
        min_quality=min_quality,
        max_loss=USUAL_LOSS if all(value is None for value in asked) else max_loss,
        max_risk=max_risk,
        confidence=confidence,
        abstain_value=abstain_value,
        verifier=verifier,
        seed=seed,
        own_cost=own_cost,
    )
    router.save(out)
    policy = router.policy
    outlook = expect(policy, logged, seed=seed)
    if not as_json:
        first = "" if outlook is None else "\n\n".join(outlook.lines()) + "\n\n"
        echo(f"{first}{router.explain()}\n\nWritten to {out}.")
        return
    expected: dict[str, Any] = {"headline": None, "recommendation": None}
    if outlook is not None:
        expected = asdict(outlook)
    typer.echo(json.dumps({"policy": str(out), **_fit_dict(policy), **expected}))


def _fit_dict(policy: Policy) -> dict[str, Any]:
    return {
        "queries": policy.fit.queries,
        "plans": [plan.name for plan in policy.plans],
        "first_share": policy.first_share,
        "cost_weight": policy.cost_weight,
        "goal": policy.goal,
        "candidates": [each.model_dump() for each in policy.fit.candidates],
        "notes": list(policy.fit.notes),
    }


def evaluate(
    policy: PolicyFile,
    log: LogFile,
    cost_weight: CostWeight = None,
    ray: RayAddress = None,
    as_json: AsJson = False,
) -> None:
    """Replay a policy on a routing log, and compare it with the baselines."""
    from langchain_automix.cli.logs import read_log
    from langchain_automix.evaluation.evaluate import evaluate as evaluate_policy
    from langchain_automix.routers.pomdp import POMDPRouter

    router = POMDPRouter.load(policy)
    evaluation = evaluate_policy(router, read_log(log, ray), cost_weight=cost_weight)
    if as_json:
        typer.echo(json.dumps(evaluation.to_dict(), allow_nan=False))
    else:
        echo(str(evaluation))


def show(policy: PolicyFile, as_json: AsJson = False) -> None:
    """Show a policy in words and as a table."""
    from langchain_automix.routers.pomdp import POMDPRouter

    router = POMDPRouter.load(policy)
    if as_json:
        typer.echo(json.dumps(router.policy.model_dump(by_alias=True), allow_nan=False))
    else:
        echo(router.explain())


def report(
    policy: Annotated[
        str, typer.Argument(help="Policy file, as `automix fit` writes it; or the URL of a store.")
    ],
    log: Annotated[
        Path | None, typer.Argument(help="Routing log, with a policy.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where the report goes: one .html file, or .md. With a policy, needed."),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the figures as Markdown.")
    ] = None,
    cost_weight: CostWeight = None,
    seed: Annotated[int, typer.Option(help="Seed: the same one gives the same report.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Write a page on what a policy does on a routing log: figures, charts, every decision.

    With the URL of a learning store: what its mix saves over time (`automix learning report`).
    """
    from langchain_automix.cli import learning

    if log is None and learning.is_store(policy):
        files = (out, markdown)
        learning.report_store(policy, files, cost_weight=cost_weight, seed=seed, as_json=as_json)
        return
    if log is None or out is None:
        missing = "a routing log" if log is None else "--out, where the page goes"
        raise AutoMixError(
            f"A report on a policy needs {missing}: automix report POLICY LOG --out report.html. "
            "A report on a learning store: automix report sqlite:///automix.db."
        )
    _report_policy(Path(policy), log, out, markdown, cost_weight, seed, as_json=as_json)


def _report_policy(
    policy: Path,
    log: Path,
    out: Path,
    markdown: Path | None,
    cost_weight: float | None,
    seed: int,
    *,
    as_json: bool,
) -> None:
    from langchain_automix.report.report import Report
    from langchain_automix.utils.files import atomic_replace

    made = Report.of(policy, log, cost_weight=cost_weight, seed=seed)
    made.write(out)
    if markdown is not None:
        with atomic_replace(markdown) as unfinished:
            unfinished.write_text(made.to_markdown(), encoding="utf-8", errors="replace")
    if as_json:
        typer.echo(json.dumps(made.figures(), allow_nan=False))
        return
    also = f" and {markdown}" if markdown else ""
    echo(f"{made}\n\nWritten to {out}{also}.")
