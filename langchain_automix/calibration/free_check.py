"""The free check: the log-probabilities of the answers, logged in addition to the requested check.

They come with the answers. The log can therefore show their value at no cost, and a fit may choose
them as the check.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from langchain_core.runnables import Runnable

from langchain_automix.calibration.config import CalibrationConfig
from langchain_automix.models.refusals import LOGPROBS
from langchain_automix.models.wrappers import fallbacks_and_config
from langchain_automix.utils.check_spec import spec_of
from langchain_automix.utils.default_checks import TOKENS
from langchain_automix.verifiers.combined import CombinedVerifier
from langchain_automix.verifiers.default import log_probabilities
from langchain_automix.verifiers.known import known_name
from langchain_automix.verifiers.log_probability import LogProbabilityVerifier

Row = dict[str, Any]

_WENT_WITHOUT = (
    "This log was begun without the log-probabilities of the answers, so it goes on without the "
    "free check: to have that, too, write another log."
)


def with_free_check(setup: CalibrationConfig) -> CalibrationConfig:
    """Return a calibration with the free check in addition to the requested one, if possible.

    It is not possible if none of the checked models has a field for log-probabilities. Models with
    fallbacks are not asked for them either, because the first fallback would answer if they were
    refused. Nothing is added to a `CombinedVerifier`, which names all its checks.
    """
    mix = setup.mix
    checked = mix.models[:-1]
    if any(fallbacks_and_config(model)[0] for model in checked):
        return setup
    if (verifier := _beside(mix.verifier)) is None:
        return setup
    free = replace(setup, mix=mix.model_copy(update={"verifier": verifier}), asked_mix=mix)
    return free if any(free.sends_logprobs[: len(checked)]) else setup


def as_begun(
    setup: CalibrationConfig, before: Mapping[str, Any]
) -> tuple[CalibrationConfig, tuple[str, ...]]:
    """Return a calibration with or without the free check, as in the earlier run, and notes.

    A log that was started without the free check continues without it; otherwise half of its
    answers would have none.

    Args:
        setup: The calibration, with the free check if possible.
        before: The settings of the last run; empty if there was none.
    """
    plain = setup.without_free_check()
    if not before:
        models = zip(setup.mix.models[:-1], setup.sends_logprobs, strict=False)
        sends = any(sends and not LOGPROBS.knows(model) for model, sends in models)
        return (setup if sends else plain), ()
    names = [
        f"model {name}"
        for name, new, old in zip(setup.names, setup.fingerprints, plain.fingerprints, strict=True)
        if new != old
    ]
    was_plain = any(before.get(name) == plain.call_settings[name] for name in names)
    return (plain, (_WENT_WITHOUT,)) if was_plain else (setup, ())


def as_asked(before: Mapping[str, Any], setup: CalibrationConfig) -> Mapping[str, Any]:
    """Return earlier settings; a model that sent more than is now read counts as the same."""
    models = zip(setup.names, setup.richer_fingerprints, setup.fingerprints, strict=True)
    same = {
        f"model {name}": own
        for name, richer, own in models
        if richer is not None and before.get(f"model {name}") == richer
    }
    return {**before, **same}


def silent_models(rows: Iterable[Row], name: str) -> frozenset[str]:
    """Return the models none of whose answers came with log-probabilities."""
    seen: set[str] = set()
    heard: set[str] = set()
    for row in rows:
        for answer in row["answers"]:
            seen.add(answer["model"])
            found = (answer.get("checks") or {}).get(name) or {}
            if found.get("score") is not None:
                heard.add(answer["model"])
    return frozenset(seen - heard)


def leave_out_free_check(row: Row, setup: CalibrationConfig, silent: frozenset[str]) -> None:
    """Remove the free check from a row for models that never sent log-probabilities."""
    name = setup.free_check
    for answer in row["answers"]:
        if answer["model"] in silent and "checks" in answer:
            answer["checks"].pop(name, None)
            if not answer["checks"]:
                del answer["checks"]
    if not silent.issuperset(setup.names[:-1]):
        return
    plain, metadata = setup.without_free_check(), row["metadata"]
    metadata |= {"verifier": plain.verifier, "check_spec": plain.check_spec}
    metadata["check_replies"].pop(name, None)
    if len(plain.checks) == 1:
        del metadata["check_replies"]
    if plain.checks[0].name is None:
        del metadata["check"]


def _beside(verifier: Runnable[Any, Any]) -> CombinedVerifier | None:
    """Return a check combined with the free one; None if nothing is to be added."""
    spec = spec_of(verifier)
    if spec.checks or spec.kind == LogProbabilityVerifier.__name__:
        return None
    name = known_name(verifier) or _in_words(spec.kind)
    return CombinedVerifier(checks={name: verifier, TOKENS: log_probabilities()})


def _in_words(kind: str) -> str:
    """Return a readable name of a check from the name of its class or function."""
    name = kind.rpartition(".")[2].removesuffix("Verifier")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower() or kind
