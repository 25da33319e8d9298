"""What a user gives to `calibrate`, looked at before anything is asked and paid for."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from langchain_core.runnables import RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase

from langchain_automix.calibration.config import Unit
from langchain_automix.errors import AutoMixError
from langchain_automix.mix.runnable import AutoMixRunnable
from langchain_automix.policy.data.records import check_name
from langchain_automix.verifiers.combined import CombinedVerifier

_LOGS = (".jsonl", ".jsonl.gz", ".parquet")
_CHOICES: Mapping[str, tuple[Any, ...]] = {
    "on_change": ("raise", "rerun"),
    "unlabelled": ("agreement", "grade"),
    "unit": (None, *get_args(Unit)),
}


def build_mix(models: Any, **given: Any) -> AutoMixRunnable:
    """Return the mix to calibrate: one of these models, or the user's own with other fields.

    Args:
        models: Models, cheap to expensive, or a mix of them.
        **given: Fields of the mix; None leaves one as it is.
    """
    wanted = {name: value for name, value in given.items() if value is not None}
    _refuse_checks(wanted.get("verifier", getattr(models, "verifier", None)))
    if not isinstance(models, AutoMixRunnable):
        return AutoMixRunnable(models=models, **wanted)
    if wanted:
        AutoMixRunnable(models=models.models, **wanted)  # a copy would take anything
    return models.model_copy(update=wanted)


def _refuse_checks(verifier: Any) -> None:
    """Refuse several checks that could not be kept one by one.

    Raises:
        AutoMixError: They are retried or replaced as one, or a log has no place for one's name.
    """
    inner = verifier
    while isinstance(inner, (RunnableBindingBase, RunnableWithFallbacks)):
        inner = inner.bound if isinstance(inner, RunnableBindingBase) else inner.runnable
    if not isinstance(inner, CombinedVerifier):
        return
    if inner is not verifier:
        raise AutoMixError(
            "The checks of a CombinedVerifier are made, priced and kept one by one: give it bare, "
            "and put retries and fallbacks around the checks in it."
        )
    _, *further = inner.checks
    for name in further:
        try:
            check_name(name)
        except ValueError as error:
            raise AutoMixError(f"The check {name!r} cannot be logged: {error}.") from error


def validate_settings(settings: Mapping[str, Any]) -> None:
    """Refuse settings of `calibrate` that are none.

    Raises:
        AutoMixError: One of them is wrong.
    """
    for name, known in _CHOICES.items():
        if settings[name] not in known:
            raise AutoMixError(f"{name} is {settings[name]!r}; give one of {known}.")
    limit, concurrency = settings["max_spend"], settings["concurrency"]
    if limit is not None and not 0 < limit < math.inf:
        raise AutoMixError(f"max_spend must be above 0, not {limit!r}; None is no limit.")
    if concurrency is not None and concurrency < 1:
        raise AutoMixError(f"concurrency must be 1 or more, not {concurrency!r}.")
    goal = settings["goal"] or {}
    if goal and not settings["adaptive"]:
        raise AutoMixError(f"goal={goal} is for adaptive=True, which is not given.")
    if not goal:
        return
    from langchain_automix.policy.fitting.goal import Goal  # noqa: PLC0415  (numpy)

    known = tuple(field.name for field in fields(Goal))
    if unknown := sorted(goal.keys() - set(known)):
        raise AutoMixError(f"goal: there is no {unknown[0]!r}; there are {', '.join(known)}.")


def journal_path(out: Path) -> Path:
    """Return the journal beside a log."""
    return out.with_name(out.name + ".journal")


def validate_output(out: Path) -> None:
    """Refuse a log that could not be written in the end, or would be written over something else.

    Raises:
        AutoMixError: So it is.
    """
    if out.is_dir():
        raise AutoMixError(f"The log {out} cannot be written: it is a folder.")
    if not out.name.endswith(_LOGS):
        raise AutoMixError(f"The log {out} has another format: give {', '.join(_LOGS)}.")
    if out.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise AutoMixError(
            f"The log {out} needs pyarrow: pip install 'langchain-automix[parquet]' brings it."
        )
    if not out.absolute().parent.is_dir():
        raise AutoMixError(f"The log {out} cannot be written: there is no such folder.")
    if out.exists() and not journal_path(out).exists():
        raise AutoMixError(
            f"{out} exists, and no calibration has begun it: move it away, or give another --out."
        )


def changed_since(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the settings that are not as before, each as then and now; none without any before."""
    if not before:
        return {}
    changed = _changed_checks(before, now)
    others = sorted({*before, *now} - {"checks", *_checks_in(before)[1], *_checks_in(now)[1]})
    changed |= {
        name: (before.get(name), now.get(name))
        for name in others
        if before.get(name) != now.get(name)
    }
    then, names = ([n for n in asks if n.startswith("model ")] for asks in (before, now))
    if then != names and sorted(then) == sorted(names):
        changed["order of the models"] = (then, names)
    return changed


def _checks_in(asks: Mapping[str, Any]) -> tuple[dict[str | None, Any], set[str]]:
    """Return what shapes each check, by name, and the settings that say so."""
    if "checks" in asks:
        return dict(asks["checks"]), {"checks"}
    names = {name for name in asks if name == "verdicts" or name.split(" ")[0] == "check"}
    return {None: {name: asks[name] for name in names}}, names


def _changed_checks(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checks that are not as before; one that is new or gone has not changed.

    Its calls are new, or wait in the journal; those of the others stand as they are.
    """
    (then, _), (new, _) = _checks_in(before), _checks_in(now)
    if (None in then) == (None in new):
        both = [name for name in then if name in new and then[name] != new[name]]
        if both != [None]:
            return {f"check {name}": (then[name], new[name]) for name in both}
        return {
            name: (then[None].get(name), new[None].get(name))
            for name in sorted({*then[None], *new[None]})
            if then[None].get(name) != new[None].get(name)
        }
    alone, several = (then[None], new) if None in then else (new[None], then)
    return {} if alone in several.values() else {"check": (then, new)}


def describe_changes(changed: Mapping[str, Any], out: Path) -> str:
    """Say what has changed since the run that began a log, and what may be done about it."""
    what = ", ".join(f"the {name}" for name in changed)
    return (
        f"Since the run that began {out}, this has changed: {what}. The calls that it shapes would "
        "be made, and paid for, again: allow that (on_change='rerun', --rerun-changed), or write "
        "another log."
    )
