"""Validate settings before anything is paid for, and find what changed since the last run."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain_core.runnables import Runnable, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase

from langchain_automix.errors import AutoMixError
from langchain_automix.mix.runnable import AutoMixRunnable
from langchain_automix.models.prices import PriceSource
from langchain_automix.policy.data.records import check_name
from langchain_automix.utils.install import install_hint
from langchain_automix.verifiers.combined import CombinedVerifier
from langchain_automix.verifiers.self_verifier import SelfVerifier

_LOG_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")


def build_mix(
    models: AutoMixRunnable | Sequence[Runnable[Any, Any] | str],
    prompt: Runnable[Any, Any] | None,
    verifier: Runnable[Any, Any] | None,
    prices: PriceSource | None,
) -> AutoMixRunnable:
    """Return the mix to calibrate: a new one of these models, or the user's with replaced fields.

    Args:
        models: Models, cheap to expensive, or a mix of them.
        prompt: Prompt of the mix. None: the mix's own, if it has one.
        verifier: Verifier of the mix. None: the mix's own, or a `SelfVerifier` for models.
        prices: Prices of the mix. None: the mix's own.

    Raises:
        AutoMixError: The verifier combines several checks that cannot be kept separately.
    """
    given = {"prompt": prompt, "verifier": verifier, "prices": prices}
    replaced: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    _validate_checks(replaced.get("verifier", getattr(models, "verifier", None)))
    if not isinstance(models, AutoMixRunnable):
        # A mix without a check would choose one by price, and a log would pay for all of them.
        return AutoMixRunnable(models=models, **{"verifier": SelfVerifier(), **replaced})
    if replaced:
        AutoMixRunnable(models=models.models, **replaced)  # validates what a copy would not
    return models.model_copy(update=replaced)


def _validate_checks(verifier: Any) -> None:
    inner = verifier
    while isinstance(inner, (RunnableBindingBase, RunnableWithFallbacks)):
        inner = inner.bound if isinstance(inner, RunnableBindingBase) else inner.runnable
    if not isinstance(inner, CombinedVerifier):
        return
    if inner is not verifier:
        raise AutoMixError(
            "The checks of a CombinedVerifier are made, priced and kept one by one: pass it "
            "without retries or fallbacks around it, and put those around the checks in it."
        )
    _, *further = inner.checks
    for name in further:
        try:
            check_name(name)
        except ValueError as error:
            raise AutoMixError(f"The check {name!r} cannot be logged: {error}.") from error


def journal_path(out: Path) -> Path:
    """Return the path of the journal beside a log."""
    return out.with_name(out.name + ".journal")


def validate_output(out: Path) -> None:
    """Check that the log can be written in the end, and replaces nothing but an earlier log.

    Raises:
        AutoMixError: The log cannot be written, or would overwrite another file.
    """
    try:
        _validate_place(out)
    except OSError as error:  # such as a name that is too long, or a folder without permission
        raise AutoMixError(f"The log {out} cannot be written: {error.strerror}.") from error


def _validate_place(out: Path) -> None:
    if out.is_dir():
        raise AutoMixError(f"The log {out} cannot be written: it is a folder.")
    if not out.name.endswith(_LOG_SUFFIXES):
        raise AutoMixError(
            f"The log {out} has another format: its name must end in {', '.join(_LOG_SUFFIXES)}."
        )
    if out.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise AutoMixError(
            f"The log {out} needs pyarrow, which is not installed: {install_hint('parquet')}"
        )
    if not out.absolute().parent.is_dir():
        raise AutoMixError(f"The log {out} cannot be written: its folder does not exist.")
    if out.exists() and not journal_path(out).exists():
        raise AutoMixError(
            f"{out} exists, and was not written by a calibration: move it away, or write another "
            "log."
        )


def changed_since(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the settings that have changed, each with its old and new value.

    The result is empty if there was no earlier run.
    """
    if not before:
        return {}
    own = {"checks", *_check_settings(before), *_check_settings(now)}
    changed = _changed_checks(before, now) | _differences(before, now, {*before, *now} - own)
    models_before, models = (
        [name for name in settings if name.startswith("model ")] for settings in (before, now)
    )
    if models_before != models and sorted(models_before) == sorted(models):
        changed["order of the models"] = (models_before, models)
    return changed


def _differences(
    before: Mapping[str, Any], now: Mapping[str, Any], names: Iterable[str]
) -> dict[str, tuple[Any, Any]]:
    pairs = {name: (before.get(name), now.get(name)) for name in sorted(names)}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _check_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the only check."""
    return {
        name: value
        for name, value in settings.items()
        if name == "verdicts" or name.split(" ")[0] == "check"
    }


def _changed_checks(
    before: Mapping[str, Any], now: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Return the checks that have changed. An added or removed check does not count as changed.

    Its calls are new, or stay in the journal; those of the other checks are still valid.
    """
    if "checks" in before and "checks" in now:
        kept = before["checks"].keys() & now["checks"].keys()
        changed = _differences(before["checks"], now["checks"], kept)
        return {f"check {name}": pair for name, pair in changed.items()}
    alone_before, alone = _check_settings(before), _check_settings(now)
    if "checks" in before:
        return {} if alone in before["checks"].values() else {"check": (before["checks"], alone)}
    if "checks" in now:
        return (
            {}
            if alone_before in now["checks"].values()
            else {"check": (alone_before, now["checks"])}
        )
    return _differences(alone_before, alone, {*alone_before, *alone})


def describe_changes(changed: Mapping[str, Any], out: Path) -> str:
    """Say what has changed since the run that began a log, and how to continue."""
    names = ", ".join(f"the {name}" for name in changed)
    return (
        f"Since the run that began {out}, this has changed: {names}. The calls that depend on it "
        "would be made, and paid for, again: allow that (on_change='rerun', --rerun-changed), or "
        "write another log."
    )
