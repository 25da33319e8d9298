"""Names in files that outlive the place of the code: ids of saved objects, names in fingerprints.

Journals, policies and dumps of earlier versions hold paths of modules. Those paths stand here, and
at `registered_name`, as plain texts: they say where something stood when it got its name, and
are not to be changed when it moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

PACKAGE = __name__.partition(".")[0]
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
"""The serialisable classes, and the modules whose paths version 0.1.0 wrote into their ids. A class
that is younger does not belong here."""

_MERGED = {"StructuredMix": "AutoMixRunnable"}
"""Classes that are gone, and those that load what they saved."""

OLD_IDS: Mapping[tuple[str, ...], tuple[str, ...]] = {
    (PACKAGE, *home.split("."), name): (PACKAGE, _MERGED.get(name, name))
    for name, home in _FIRST_HOMES.items()
} | {(PACKAGE, name): (PACKAGE, heir) for name, heir in _MERGED.items()}
"""From the ids that version 0.1.0 wrote to those of today, as LangChain's `load` takes them for
`additional_import_mappings`. It knows them by itself: see
`langchain_automix.flow.serialization`."""

_REGISTERED: dict[str, str] = {}


def registered_name(name: str) -> Callable[[T], T]:
    """Name a function or a class of this package in fingerprints, wherever it stands.

    Args:
        name: The path that it had when it first got into a fingerprint.

    Returns:
        A decorator that returns what it is given.
    """

    def register(what: T) -> T:
        named: Any = what
        _REGISTERED[f"{named.__module__}.{named.__qualname__}"] = name
        return what

    return register


def registered_path(path: str) -> str:
    """Return the name that stands for a path of this package in fingerprints.

    Args:
        path: Module and qualified name of a function or a class, or the id of a saved object,
            with dots. One that is not registered is returned as it is.
    """
    if path in _REGISTERED:
        return _REGISTERED[path]
    name = path.rpartition(".")[2]
    if path.partition(".")[0] == PACKAGE and name in _FIRST_HOMES:
        return f"{PACKAGE}.{_FIRST_HOMES[name]}.{name}"
    return path


def registered_id(id: Sequence[str]) -> list[str]:
    """Return what stands in fingerprints for the id of a saved object."""
    return registered_path(".".join(id)).split(".")
