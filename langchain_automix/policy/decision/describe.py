"""Describe a policy in words and as tables, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from langchain_automix.policy.decision.observation import CheckEncoding, Observation
from langchain_automix.policy.decision.plan import Plan
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.decision.table import DecisionTable, PlannedAction
from langchain_automix.utils.formatting import pluralize
from langchain_automix.utils.tables import text_table

_MAX_ROWS = 20


def describe_policy(policy: Policy) -> str:
    """Describe a policy in words and as a table."""
    lines = [*_describe_fit(policy), ""]
    shares = (policy.first_share, 1 - policy.first_share)
    for plan, share in zip(policy.plans, shares, strict=False):
        if len(policy.plans) > 1:
            lines.append(f"For {share:.1%} of the queries, chosen by their id ({plan.name}):")
        lines += [*_describe_plan(policy, plan), ""]
    if policy.fit.candidates:
        lines += [*_describe_candidates(policy), ""]
    lines += list(policy.fit.notes)
    return "\n".join(lines).strip()


def describe_goal(goal: Mapping[str, float], unit: str = "") -> str:
    """Describe the goal of a fit in words.

    Args:
        goal: The goal, as in a policy file.
        unit: Currency of costs, with a space before it.
    """
    words = {
        "cost_weight": f"the best trade at a cost weight of {{:g}}{unit and ' per' + unit}",
        "max_cost": f"a mean cost of at most {{:g}}{unit} a query",
        "min_quality": "a mean quality of at least {:g}",
        "max_loss": "a mean quality at most {:g} below the best single model's",
        "max_risk": "a wrong answer to at most {:.4g} of the queries",
        "abstain_value": "no answer being worth {:g}",
        "confidence": "with confidence {:g}",
        "confidence_level": "with confidence {:g}",
    }
    return ", ".join(words[n].format(v) if n in words else f"{n} {v:g}" for n, v in goal.items())


def _describe_fit(policy: Policy) -> Iterable[str]:
    unit = f" {policy.currency}" if policy.currency else ""
    yield (
        f"Fitted to {policy.fit.queries} logged queries."
        if policy.fit.queries
        else "A prior, not fitted to any log and not calibrated to your models."
    )
    yield f"Models: {', '.join(policy.models)}."
    if (check := policy.check_in_words) is not None:
        yield f"Check: {check}."
    yield f"Goal: {describe_goal(policy.goal, unit) or 'none given'}."
    yield f"Cost weight: {policy.cost_weight:g} of quality for one unit{unit or ' of cost'}."
    if policy.own_cost:
        yield "A larger model's price is scaled, query by query, by what the query's answer cost."
    if policy.fit.quality:
        means = zip(policy.models, policy.fit.quality, policy.fit.cost, strict=True)
        rows = [(name, f"{quality:.4f}", f"{cost:g}{unit}") for name, quality, cost in means]
        yield from text_table(("model", "mean quality", "mean cost"), rows)


def _describe_plan(policy: Policy, plan: Plan) -> Iterable[str]:
    yield f"Start: {_describe_step(policy, plan.opening)}."
    names = [policy.models[j] for j in plan.plays]
    for index, table in enumerate(plan.tables):
        yield (
            f"Table {index}: after the check of {policy.models[table.model]}'s answer, with the "
            "quality that each model's answer is then expected to have; an answer is kept "
            "unchecked where a model is only asked:"
        )
        heading = ", ".join(
            _format_kind(e) if e.name is None else f"{e.name} ({_format_kind(e)})"
            for e in table.encodings
        )
        rows = _format_rows(policy, plan, table)
        heads = (heading, "how often", *names, "do")
        yield from text_table(heads, rows[:_MAX_ROWS], left=(0, len(heads) - 1))
        if len(rows) > _MAX_ROWS:
            yield f"  ... and {len(rows) - _MAX_ROWS} more rows, in the file."


def _format_kind(encoding: CheckEncoding) -> str:
    if encoding.kind == "score":
        return "score"
    return "accept/reject/invalid" if encoding.counts_invalid else "accept/reject"


def _format_rows(policy: Policy, plan: Plan, table: DecisionTable) -> list[tuple[str, ...]]:
    """Return the rows that the policy reaches; all rows if their frequencies are unknown."""
    known = any(row.chance for row in table.rows)
    return [
        (
            ", ".join(map(_format_observation, table.encodings, table.split(row.seen))),
            f"{row.chance:.1%}" if known else "",
            *(f"{q:.3f}" for q in row.quality),
            *("",) * (len(plan.plays) - len(row.quality)),
            _describe_step(policy, row.step, short=True),
        )
        for row in table.rows
        if row.chance > 0 or not known
    ]


def _format_observation(encoding: CheckEncoding, observation: Observation) -> str:
    if not any(observation):
        return "-"
    if encoding.kind != "score":
        return "/".join(map(str, observation if encoding.counts_invalid else observation[:2]))
    bounds = (0.0, *encoding.edges, 1.0)
    return f"{bounds[observation[0] - 1]:.4g} to {bounds[observation[0]]:.4g}"


def _describe_step(policy: Policy, step: PlannedAction, *, short: bool = False) -> str:
    name = policy.models[step.model] if step.model < len(policy.models) else "a later model"
    by = "" if step.check is None else f" by {step.check}"
    drawn = "" if step.samples is None else pluralize(step.samples, "verdict")
    if step.action == "answer":
        return f"keep {name}'s" if short else f"keep the answer of {name}"
    if step.action == "abstain":
        return "give no answer"
    if step.action == "verify":
        more = f"draw {drawn.replace(' ', ' more ')}" if drawn else "check once more"
        return f"{more}{by} on {name}'s" if short else f"{more}{by} on the answer of {name}"
    if step.then is None:
        return f"ask {name}" if short else f"ask {name}, and keep its answer unchecked"
    how = f" with {drawn}" if drawn else ""
    if short:
        return f"ask {name}, check{by}{how} (table {step.then})"
    return f"ask {name}, and check its answer{by}{how} (table {step.then})"


def _describe_candidates(policy: Policy) -> Iterable[str]:
    yield "Chosen from (utility a query; cross-fitted where it was in the running):"
    rows = []
    for c in sorted(policy.fit.candidates, key=lambda c: -c.expected)[:_MAX_ROWS]:
        figures = (c.expected, c.cross_fitted, c.error)
        rows.append((c.name, *("" if figure is None else f"{figure:.4f}" for figure in figures)))
    yield from text_table(("candidate", "expected", "cross-fitted", "error of its gain"), rows)
