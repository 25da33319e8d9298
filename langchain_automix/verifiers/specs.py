"""Rebuild checks from their settings in a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.runnables import Runnable
from pydantic import ValidationError

from langchain_automix.errors import AutoMixError, first_problem
from langchain_automix.models.identity import identity
from langchain_automix.utils.check_spec import CheckSpec
from langchain_automix.verifiers.agreement import AgreementVerifier, EarlierAgreementVerifier
from langchain_automix.verifiers.base import Verifier
from langchain_automix.verifiers.combined import CombinedVerifier
from langchain_automix.verifiers.decision_model import DecisionVerifier
from langchain_automix.verifiers.log_probability import LogProbabilityVerifier
from langchain_automix.verifiers.prompting.verifier import PromptedVerifier
from langchain_automix.verifiers.rules import PatternVerifier, SchemaVerifier
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
"""The checks that a file can name; a `CombinedVerifier` consists of several of them."""


def rebuild_check(
    spec: CheckSpec,
    models: Sequence[Runnable[Any, Any]],
    *,
    check_models: Sequence[Runnable[Any, Any]] = (),
    prompted: Callable[[bool], Mapping[str, Any]] | None = None,
) -> Verifier:
    """Build the check that a spec describes.

    Args:
        spec: The description of the check.
        models: The models of the mix, which a check may use by name.
        check_models: Further models that checks may use.
        prompted: Returns settings that override those of a check that writes a prompt; its argument
            is whether the check has a model of its own.

    Raises:
        AutoMixError: The check cannot be rebuilt from a file, or uses a model that was not given.
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


def _model_name(model: Runnable[Any, Any]) -> str | None:
    """Return the name of a chat model or a decision model, or None for anything else."""
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
