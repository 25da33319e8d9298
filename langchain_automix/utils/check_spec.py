"""`CheckSpec`: how to rebuild a check, as stored in policies and logs, and its description."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from langchain_automix.utils.fingerprints import fingerprint_of

COMBINED = "CombinedVerifier"
_LONGEST_NAME = 60
_ORDER = {"few_shot": "few-shot", "zero_shot": "zero-shot", "conversation": "in-conversation"}
_LANGUAGES = {"de": "German", "es": "Spanish", "fr": "French", "zh": "Chinese"}
_STATISTICS = {
    "min": "the probability of the answer's least probable token",
    "mean": "the mean log-probability of the answer's tokens",
    "first": "the probability of the answer's first token",
    "length": "the least probable token of a short answer, or the mean of a long one",
    "margin": "the margin between the two most probable first tokens of the answer",
}


class CheckSpec(BaseModel):
    """The settings of a verifier: plain values and names; nothing in them is ever evaluated."""

    kind: str = Field(min_length=1, max_length=200)
    """Name of the verifier's class, such as `AgreementVerifier`; for a user's own check, the name
    of its class or function."""

    settings: dict[str, JsonValue] = Field(default_factory=dict)
    """The fields that are plain values."""

    models: dict[str, str] = Field(default_factory=dict)
    """The fields that are models, with the models' names; excludes a model that checks its own
    answer."""

    checks: dict[str, CheckSpec] = Field(default_factory=dict)
    """The checks of a `CombinedVerifier` by name, the leading one first."""

    lacks: tuple[str, ...] = ()
    """Settings that a file cannot hold, such as a function. A check that lacks a setting cannot be
    rebuilt."""

    fingerprint: str = Field(min_length=1)
    """The verifier's fingerprint."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="after")
    def _validate(self) -> Self:
        if bool(self.checks) != (self.kind == COMBINED):
            raise ValueError(f"a {COMBINED}, and nothing else, has checks")
        return self

    def in_words(self, answering: Sequence[str] = ()) -> str:
        """Describe the check in words.

        Args:
            answering: Names of the models whose answers are checked.
        """
        if self.checks:
            parts = (f"{name} ({each.in_words(answering)})" for name, each in self.checks.items())
            return " and ".join(parts)
        describe = _WORDS.get(self.kind)
        if describe is None:
            return f"your own check {_short(self.kind)}"
        by = self.models.get("model") or (
            answering[0] if len(answering) == 1 else "the model that answered"
        )
        return describe(self, by)


def spec_of(check: Any) -> CheckSpec:
    """Return the spec of a check; for the user's own code, it holds only the name."""
    inner = check
    # Skip wrappers that do not change its findings: LangChain's retries, and bindings of a config
    # alone. The class is inspected, since other wrappers forward the attributes of what they wrap.
    while "bound" in getattr(type(inner), "model_fields", ()) and not inner.kwargs:
        inner = inner.bound
    fingerprint = fingerprint_of(check)
    if hasattr(type(inner), "check_spec"):
        spec: CheckSpec = inner.check_spec
        return spec.model_copy(update={"fingerprint": fingerprint})
    function = getattr(inner, "func", None) or getattr(inner, "afunc", None)
    return spec_of_code(type(inner) if function is None else function, fingerprint)


def spec_of_code(code: Any, fingerprint: str) -> CheckSpec:
    """Return all that a file can hold of a check in the user's own code: its name."""
    name = str(getattr(code, "__qualname__", None) or type(code).__qualname__)
    return CheckSpec(kind=name[:200], lacks=("code of your own",), fingerprint=fingerprint)


def check_in_words(
    spec: CheckSpec | None, fingerprint: str | None, answering: Sequence[str]
) -> str | None:
    """Describe the check that a policy was fitted to, or return None if nothing is known about it.

    Args:
        spec: The policy's spec of the check. If None, as in files of earlier versions, the check is
            recognised by its fingerprint, provided that it had a name at that time.
        fingerprint: The fingerprint in the policy.
        answering: Names of the models whose answers are checked.
    """
    if spec is None and fingerprint is not None:
        if fingerprint not in _EARLIER:
            return f"a check that the policy does not describe (fingerprint {fingerprint})"
        kind, settings = _EARLIER[fingerprint]
        spec = CheckSpec(kind=kind, settings=settings, fingerprint=fingerprint)
    return None if spec is None else spec.in_words(answering)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}..."


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _prompt(spec: CheckSpec) -> str:
    order = _ORDER.get(str(spec.settings.get("layout", "few_shot")), "")
    wording = spec.settings.get("wording", "en")
    language = _LANGUAGES.get(str(wording), "own wording" if wording != "en" else "")
    return ", ".join(filter(None, (order, language)))


def _self_verifier(spec: CheckSpec, by: str) -> str:
    get = spec.settings.get
    how = [_prompt(spec)]
    if get("reasoning") is False:
        how.append("without reasoning")
    if get("structured"):
        how.append("structured")
    temperature = _number(get("temperature", 1.0))
    return f"{_drawn(spec, 'verdicts')} by {by} at t = {temperature} ({', '.join(how)})"


def _token_probability(spec: CheckSpec, by: str) -> str:
    return f"the probability of Yes by {by} ({_prompt(spec)})"


def _agreement(spec: CheckSpec, by: str) -> str:
    get = spec.settings.get
    text = f"agreement of {_drawn(spec, 'answers')} by {by} at t = "
    return f"{text}{_number(get('temperature', 1.0))}{_comparison(spec)}"


def _drawn(spec: CheckSpec, what: str) -> str:
    """Describe how many are drawn; files of earlier versions do not say."""
    return f"{spec.settings['samples']} {what}" if "samples" in spec.settings else what


def _earlier_agreement(spec: CheckSpec, by: str) -> str:
    del by
    return f"agreement with the earlier models' answers{_comparison(spec)}"


def _comparison(spec: CheckSpec) -> str:
    if "compare" in spec.models:
        return f", compared by {spec.models['compare']}"
    if "compare" in spec.lacks:
        return ", compared in a way of your own"
    how = spec.settings.get("compare", "normalised")
    return "" if how == "normalised" else f", compared as {how} texts"


def _log_probability(spec: CheckSpec, by: str) -> str:
    del by
    statistic = str(spec.settings.get("statistic", "mean"))
    return _STATISTICS.get(statistic, f"the log-probability of the answer ({statistic})")


def _support(spec: CheckSpec, by: str) -> str:
    del by
    how = f", judged by {spec.models['model']}" if "model" in spec.models else ""
    how = ", compared by embeddings" if "embeddings" in spec.lacks else how
    where = "context and a retriever" if "retriever" in spec.lacks else "context"
    return f"support by the {where}{how}"


def _decision(spec: CheckSpec, by: str) -> str:
    del spec
    return f"the decision of {by}"


def _schema(spec: CheckSpec, by: str) -> str:
    del spec, by
    return "whether the answer fits a JSON schema"


def _pattern(spec: CheckSpec, by: str) -> str:
    del by
    return f"whether the answer matches the pattern {_short(str(spec.settings.get('pattern')))}"


_WORDS = {
    "AgreementVerifier": _agreement,
    "DecisionVerifier": _decision,
    "EarlierAgreementVerifier": _earlier_agreement,
    "LogProbabilityVerifier": _log_probability,
    "PatternVerifier": _pattern,
    "SchemaVerifier": _schema,
    "SelfVerifier": _self_verifier,
    "SupportVerifier": _support,
    "TokenProbabilityVerifier": _token_probability,
}

_EARLIER: dict[str, tuple[str, dict[str, JsonValue]]] = {
    "8feb7692a5ac5331": ("SelfVerifier", {}),
    "75409b8bf4067b00": ("SelfVerifier", {"temperature": 0.5}),
    "406b7251e6dfa1b0": ("SelfVerifier", {"layout": "zero_shot"}),
    "5fe3d51d05267079": ("SelfVerifier", {"layout": "conversation"}),
    "74a616830290c5d3": ("SelfVerifier", {"reasoning": False}),
    "189b460671ce5373": ("TokenProbabilityVerifier", {}),
    "5f3d9d38f627238c": ("TokenProbabilityVerifier", {"layout": "zero_shot"}),
    "baf0a5ab29af7af8": ("TokenProbabilityVerifier", {"layout": "conversation"}),
    "1c083c6c29b1dd55": ("AgreementVerifier", {}),
    "9b8e7de33d9212d5": ("LogProbabilityVerifier", {}),
}
"""The checks of `verifiers/known.py` by fingerprint, for policies without a spec."""
