"""Checks as values in a file, and the same checks made anew from them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from langchain_core.runnables import Runnable
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.retry import RunnableRetry
from pydantic import ValidationError

from langchain_automix.errors import AutoMixError, first_problem
from langchain_automix.models.identity import identity
from langchain_automix.utils.check_spec import COMBINED, CheckSpec
from langchain_automix.verifiers.agreement import AgreementVerifier, EarlierAgreementVerifier
from langchain_automix.verifiers.base import Verifier, fingerprint_of
from langchain_automix.verifiers.combined import CombinedVerifier
from langchain_automix.verifiers.decision_model import DecisionVerifier
from langchain_automix.verifiers.log_probability import LogProbabilityVerifier
from langchain_automix.verifiers.prompting.verifier import PromptedVerifier
from langchain_automix.verifiers.prompting.wording import Wording, shipped_language
from langchain_automix.verifiers.rules import FunctionVerifier, PatternVerifier, SchemaVerifier
from langchain_automix.verifiers.self_verifier import SelfVerifier
from langchain_automix.verifiers.support import SupportVerifier
from langchain_automix.verifiers.token_probability import TokenProbabilityVerifier

_KINDS: dict[str, type[Verifier]] = {
    kind.__name__: kind
    for kind in (
        AgreementVerifier,
        DecisionVerifier,
        EarlierAgreementVerifier,
        LogProbabilityVerifier,
        PatternVerifier,
        SchemaVerifier,
        SelfVerifier,
        SupportVerifier,
        TokenProbabilityVerifier,
    )
}
"""The checks that a file can name; a `CombinedVerifier` is one of several of them."""

_LACKED = "code of your own"


def spec_of(verifier: Runnable[Any, Any]) -> CheckSpec:
    """Return what a verifier is made of; a check with code of the user's own lacks that code."""
    inner = _inner(verifier)
    fingerprint = fingerprint_of(verifier)
    if isinstance(inner, CombinedVerifier):
        checks = {name: spec_of(check) for name, check in inner.checks.items()}
        return CheckSpec(kind=COMBINED, checks=checks, fingerprint=fingerprint)
    kind = type(inner)
    if _KINDS.get(kind.__name__) is not kind:
        return CheckSpec(kind=_own_name(inner), lacks=(_LACKED,), fingerprint=fingerprint)
    settings: dict[str, Any] = {}
    models: dict[str, str] = {}
    lacks: list[str] = []
    for name, field in kind.model_fields.items():
        value = _readable(getattr(inner, name))
        if field.exclude or name == "name" or (value is None and field.default is None):
            continue
        if isinstance(value, Runnable):
            if (model := _model_name(value)) is None:
                lacks.append(name)
            else:
                models[name] = model
        elif _is_plain(value):
            settings[name] = json.loads(json.dumps(value))
        else:
            lacks.append(name)
    return CheckSpec(
        kind=kind.__name__,
        settings=settings,
        models=models,
        lacks=tuple(lacks),
        fingerprint=fingerprint,
    )


def rebuild_check(
    spec: CheckSpec,
    models: Sequence[Runnable[Any, Any]],
    *,
    check_models: Sequence[Runnable[Any, Any]] = (),
    prompted: Callable[[bool], Mapping[str, Any]] | None = None,
) -> Verifier:
    """Make the check of a spec.

    Args:
        spec: What it is made of.
        models: The models of the mix, which a check may use by their names.
        check_models: Further models that checks may use.
        prompted: Returns settings that replace those of a check that writes a prompt; its argument
            is whether the check has a model of its own.

    Raises:
        AutoMixError: It cannot be made from a file, or uses a model that is not among these.
    """
    if spec.checks:
        named = {
            name: rebuild_check(each, models, check_models=check_models, prompted=prompted)
            for name, each in spec.checks.items()
        }
        return CombinedVerifier(checks=dict(named))
    kind = _KINDS.get(spec.kind)
    if kind is None or spec.lacks:
        what = spec.in_words()
        if kind is not None:
            what += f", whose {' and '.join(map(repr, spec.lacks))} no file can hold"
        raise AutoMixError(f"its check cannot be rebuilt from a file: {what}")
    fields: dict[str, Any] = {**spec.settings}
    for name, model in spec.models.items():
        fields[name] = _model_of(model, [*models, *check_models])
    if prompted is not None and issubclass(kind, PromptedVerifier):
        replaced = prompted("model" in spec.models)
        fields |= {name: each for name, each in replaced.items() if each is not None}
    try:
        return kind(**fields)
    except ValidationError as error:
        raise AutoMixError(
            f"its check cannot be rebuilt: {spec.kind}, {first_problem(error)}"
        ) from error


def _inner(verifier: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """Return a verifier without what does not change its findings: retries, a bound config."""
    while isinstance(verifier, RunnableBindingBase) and (
        isinstance(verifier, RunnableRetry) or not verifier.kwargs
    ):
        verifier = verifier.bound
    return verifier


def _own_name(verifier: Runnable[Any, Any]) -> str:
    function: Any = getattr(verifier, "func", None) or getattr(verifier, "afunc", None)
    if isinstance(verifier, FunctionVerifier):
        function = verifier.function
    named = type(verifier) if function is None else function
    return str(getattr(named, "__qualname__", None) or type(named).__qualname__)[:200]


def _model_name(model: Runnable[Any, Any]) -> str | None:
    """Return the name of a chat model or a decision model; None of anything else."""
    if (name := identity(model)[0]) is not None:
        return name
    try:
        return DecisionVerifier(model=model).model_name
    except ValueError:
        return None


def _model_of(name: str, models: Sequence[Runnable[Any, Any]]) -> Runnable[Any, Any]:
    found = [model for model in models if _model_name(model) == name]
    if not found:
        known = ", ".join(filter(None, map(_model_name, models))) or "none with a name"
        raise AutoMixError(
            f"its check asks the model {name}, which is not among those given ({known}): pass it "
            "in check_models=[...]"
        )
    return found[0]


def _readable(value: Any) -> Any:
    """Return a wording as a verifier takes it from JSON; another value as it is."""
    if not isinstance(value, Wording):
        return value
    return shipped_language(value) or json.loads(json.dumps(asdict(value)))


def _is_plain(value: Any) -> bool:
    """Whether a value comes back from JSON as it was."""
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError, RecursionError):
        return False
