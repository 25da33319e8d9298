"""Explain in words why a policy takes the step of a row."""

from __future__ import annotations

from langchain_automix.policy.decision.table import DecisionRow


def explain_row(
    row: DecisionRow, names: tuple[str, ...], models_in_play: tuple[int, ...], price: float
) -> str:
    """Return the reason for the step of a row, as half a sentence.

    Args:
        row: The step, and the value of each option.
        names: Names of the models.
        models_in_play: Indices of the models in play.
        price: Price of an answer of the last of them, as the quality that it must gain.
    """
    step, values = row.step, row.values
    name = names[step.model]
    if not values:
        return f"by the rule, the answer of {name} is {_DONE[step.action]}"
    kept = values["answer"]
    other = max((v for option, v in values.items() if option != "answer"), default=kept)
    if step.action == "verify":
        number = "more verdicts" if step.samples is None else f"{step.samples} more"
        if step.check is not None:
            number = f"the check {step.check!r}"
        return (
            f"{number} may change the decision, which is worth {other:.2f} with their price paid, "
            f"against {kept:.2f} for the answer as it is"
        )
    if step.action == "abstain":
        return f"no answer is worth giving; the best would be worth {kept:.2f}"
    large = names[models_in_play[-1]]
    if len(models_in_play) == 2 and (asked := f"escalate:{large}") in values:  # noqa: PLR2004
        # From the values, which decide: the qualities are clipped to [0, 1].
        gain = values[asked] + price - kept
        verb = "more" if step.action == "escalate" else "not more"
        return (
            f"{large} is expected to gain {gain:+.2f} in quality, {verb} than its price of "
            f"{price:.2f}"
        )
    if step.action == "answer":
        return f"keeping {name}'s answer is worth {kept:.2f}, anything else at most {other:.2f}"
    return f"asking {name} is worth {other:.2f} with its price paid, the answer so far {kept:.2f}"


_DONE = {"answer": "kept", "escalate": "asked for", "verify": "checked on", "abstain": "not given"}
