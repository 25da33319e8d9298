"""Names in files that outlive module paths: ids of saved objects, names in fingerprints.

Journals, policies and dumps of earlier versions contain the module paths of their time. These
paths, both here and in `registered_name`, must not change when code moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

PACKAGE = __name__.partition(".")[0]


def is_of_package(kind: type) -> bool:
    """Whether a class is this package's own, so that its behaviour is known."""
    return kind.__module__.partition(".")[0] == PACKAGE


T = TypeVar("T")

_FIRST_HOMES = {
    "AgreementVerifier": "verifiers.agreement",
    "AlwaysRouter": "routers.baselines",
    "AutoMixRunnable": "runnable",
    "CombinedVerifier": "verifiers.combined",
    "DecisionVerifier": "verifiers.decision",
    "DoubleThresholdRouter": "routers.baselines",
    "EarlierAgreementVerifier": "verifiers.agreement",
    "EmbeddingSimilarity": "calibration.judges",
    "FittedThresholdRouter": "routers.baselines",
    "FunctionVerifier": "verifiers.plain",
    "LLMJudge": "calibration.judges",
    "LogProbabilityVerifier": "verifiers.log_probability",
    "OracleRouter": "routers.baselines",
    "POMDPRouter": "routers.pomdp",
    "PatternVerifier": "verifiers.plain",
    "RandomMixRouter": "routers.baselines",
    "ReleasedPOMDPRouter": "routers.baselines",
    "SchemaVerifier": "verifiers.plain",
    "SelfVerifier": "verifiers.self_verifier",
    "StructuredMix": "_structured",
    "SupportVerifier": "verifiers.support",
    "ThresholdRouter": "routers.threshold",
    "TokenProbabilityVerifier": "verifiers.token_probability",
}
"""The serialisable classes of version 0.1.0, with the modules in their ids; no later classes."""

_MERGED = {"StructuredMix": "AutoMixRunnable"}
"""Classes that no longer exist, with the classes that load their saved objects."""

OLD_IDS: Mapping[tuple[str, ...], tuple[str, ...]] = {
    (PACKAGE, *home.split("."), name): (PACKAGE, _MERGED.get(name, name))
    for name, home in _FIRST_HOMES.items()
} | {(PACKAGE, name): (PACKAGE, heir) for name, heir in _MERGED.items()}
"""Maps the ids of version 0.1.0 to today's, for `additional_import_mappings` of LangChain's `load`.
They are registered automatically; see `langchain_automix.flow.serialization`."""

_REGISTERED: dict[str, str] = {}


def registered_name(name: str) -> Callable[[T], T]:
    """Decorate a function or class with the path that names it in fingerprints: its first one."""

    def register(named: T) -> T:
        current: Any = named
        _REGISTERED[f"{current.__module__}.{current.__qualname__}"] = name
        return named

    return register


def registered_path(path: str) -> str:
    """Return the name that stands for a dotted path (of code or a saved object) in fingerprints."""
    if path in _REGISTERED:
        return _REGISTERED[path]
    name = path.rpartition(".")[2]
    if path.partition(".")[0] == PACKAGE and name in _FIRST_HOMES:
        return f"{PACKAGE}.{_FIRST_HOMES[name]}.{name}"
    return path


def registered_id(id: Sequence[str]) -> list[str]:
    """Return the name that stands for the id of a saved object in fingerprints."""
    return registered_path(".".join(id)).split(".")
