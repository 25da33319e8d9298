"""Checks as values in a file: each comes back as it was, or says why it cannot."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.runnables import ConfigurableField, Runnable, RunnableLambda
from langchain_openai import ChatOpenAI
from pydantic import SecretStr, ValidationError

from langchain_automix import (
    AgreementVerifier,
    AutoMixError,
    CombinedVerifier,
    EarlierAgreementVerifier,
    FunctionVerifier,
    LogProbabilityVerifier,
    PatternVerifier,
    SchemaVerifier,
    SelfVerifier,
    SupportVerifier,
    TokenProbabilityVerifier,
    Verification,
    Wording,
)
from langchain_automix.utils.check_spec import CheckSpec, check_in_words, spec_of
from langchain_automix.utils.fingerprints import fingerprint_of
from langchain_automix.verifiers.known import (
    KNOWN_CHECKS,
    build_known_check,
    fitted_check,
)
from langchain_automix.verifiers.specs import rebuild_check


def chat(name: str) -> ChatOpenAI:
    return ChatOpenAI(model=name, api_key=SecretStr("test"))


SMALL, LARGE, JUDGE = chat("small"), chat("large"), chat("judge")


def accepts(answer: str) -> bool:
    return bool(answer)


def reread(spec: CheckSpec) -> CheckSpec:
    return CheckSpec.model_validate(json.loads(json.dumps(spec.model_dump(mode="json"))))


REBUILT: dict[str, tuple[Runnable[Any, Any], str]] = {
    "few-shot": (SelfVerifier(), "8 verdicts by small at t = 1 (few-shot)"),
    "german": (
        SelfVerifier(samples=3, wording=Wording.of("de"), layout="zero_shot", temperature=0.5),
        "3 verdicts by small at t = 0.5 (zero-shot, German)",
    ),
    "own words": (
        SelfVerifier(
            wording=Wording(**{**vars(Wording.of("en")), "instruction": "Judge."}),
            reasoning=False,
            max_tokens=None,
        ),
        "8 verdicts by small at t = 1 (few-shot, own wording, without reasoning)",
    ),
    "by large": (
        TokenProbabilityVerifier(model=LARGE, layout="conversation"),
        "the probability of Yes by large (in-conversation)",
    ),
    "by a judge": (SelfVerifier(model=JUDGE), "8 verdicts by judge at t = 1 (few-shot)"),
    "agreement": (
        AgreementVerifier(samples=4, compare="exact"),
        "agreement of 4 answers by small at t = 1, compared as exact texts",
    ),
    "judged agreement": (
        AgreementVerifier(compare=JUDGE),
        "agreement of 8 answers by small at t = 1, compared by judge",
    ),
    "earlier": (EarlierAgreementVerifier(), "agreement with the earlier models' answers"),
    "least token": (
        LogProbabilityVerifier(statistic="min"),
        "the probability of the answer's least probable token",
    ),
    "support": (SupportVerifier(model=JUDGE), "support by the context, judged by judge"),
    "schema": (
        SchemaVerifier(schema={"type": "object", "required": ["total"]}),
        "whether the answer fits a JSON schema",
    ),
    "pattern": (
        PatternVerifier(pattern=r"\d+"),
        r"whether the answer matches the pattern \d+",
    ),
    "combined": (
        CombinedVerifier(
            checks={"self": SelfVerifier(samples=2), "logprob": LogProbabilityVerifier()}
        ),
        "self (2 verdicts by small at t = 1 (few-shot)) and logprob (the mean log-probability of "
        "the answer's tokens)",
    ),
    "configured": (
        AgreementVerifier(samples=4).with_config(tags=["mine"]),
        "agreement of 4 answers by small at t = 1",
    ),
    "retried": (
        AgreementVerifier(samples=4).with_retry(),
        "agreement of 4 answers by small at t = 1",
    ),
}


@pytest.mark.parametrize("name", REBUILT)
def test_a_check_is_rebuilt_from_json(name: str) -> None:
    verifier, words = REBUILT[name]
    spec = reread(spec_of(verifier))
    assert spec.in_words(["small"]) == words
    made = rebuild_check(spec, [SMALL, LARGE], check_models=[JUDGE])
    bare = getattr(verifier, "bound", verifier)
    assert made == bare
    assert fingerprint_of(made) == fingerprint_of(bare)
    assert spec_of(made).in_words(["small"]) == words


@pytest.mark.parametrize("name", KNOWN_CHECKS)
def test_a_known_check_is_described_and_found_without_description(name: str) -> None:
    made = build_known_check(name, [SMALL, LARGE], samples=4)
    assert rebuild_check(spec_of(made), [SMALL, LARGE]) == made
    assert fitted_check(None, fingerprint_of(made), [SMALL, LARGE], samples=4) == made
    if not KNOWN_CHECKS[name].by_large:
        words = check_in_words(None, fingerprint_of(made), ["small"])
        assert words == spec_of(made).in_words(["small"]).replace("4 ", "")


@given(
    samples=st.integers(1, 64),
    temperature=st.floats(0, 2),
    layout=st.sampled_from(["few_shot", "zero_shot", "conversation"]),
    reasoning=st.booleans(),
    limit=st.none() | st.integers(1, 10**6),
)
def test_every_setting_survives(**settings: Any) -> None:
    settings["max_input_tokens"] = settings.pop("limit")
    verifier = SelfVerifier(**settings)
    assert rebuild_check(reread(spec_of(verifier)), [SMALL, LARGE]) == verifier


@pytest.mark.parametrize(
    ("verifier", "said"),
    [
        (FunctionVerifier(function=accepts), "your own check accepts"),
        (RunnableLambda(lambda given: Verification(score=1.0)), "your own check .*lambda"),
        (AgreementVerifier(compare=lambda one, other: one == other), "'compare' no file can hold"),
        (
            SupportVerifier(embeddings=DeterministicFakeEmbedding(size=3)),
            "'embeddings' no file can hold",
        ),
        (
            CombinedVerifier(checks={"a": SelfVerifier(), "b": FunctionVerifier(function=accepts)}),
            "your own check accepts",
        ),
        (SelfVerifier().with_fallbacks([SelfVerifier(model=LARGE)]), "RunnableWithFallbacks"),
        (
            SelfVerifier().configurable_fields(samples=ConfigurableField(id="k")),
            "RunnableConfigurableFields",
        ),
    ],
)
def test_code_of_the_user_is_no_value(verifier: Runnable[Any, Any], said: str) -> None:
    spec = reread(spec_of(verifier))
    with pytest.raises(AutoMixError, match=f"cannot be rebuilt from a file: .*{said}"):
        rebuild_check(spec, [SMALL, LARGE])


def test_a_model_that_is_not_there_is_named() -> None:
    spec = spec_of(SelfVerifier(model=JUDGE))
    with pytest.raises(
        AutoMixError, match=r"asks the model judge, .*\(small, large\).*check_models"
    ):
        rebuild_check(spec, [SMALL, LARGE])


class Mine(SelfVerifier):
    """A check of the user's that looks like one of the package's."""


def test_a_class_of_the_users_is_never_taken_for_the_packages() -> None:
    assert spec_of(Mine()).lacks
    Mine.__name__ = "SelfVerifier"
    try:
        assert spec_of(Mine()).lacks
    finally:
        Mine.__name__ = "Mine"


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "SelfVerifier"},
        {"kind": "", "fingerprint": "x"},
        {"kind": "SelfVerifier", "fingerprint": "x", "code": "import os"},
        {"kind": "CombinedVerifier", "fingerprint": "x"},
        {"kind": "SelfVerifier", "fingerprint": "x", "checks": {"a": {}}},
        {"kind": "SelfVerifier", "fingerprint": "x", "settings": {"samples": float("nan")}},
    ],
)
def test_a_malformed_description_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CheckSpec.model_validate(wrong)


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        ("SelfVerifier", {"samples": 0}, "field samples"),
        ("SelfVerifier", {"run": "import os"}, "field run"),
        ("os.system", {}, "your own check os.system"),
        ("FunctionVerifier", {"function": "os.system"}, "your own check FunctionVerifier"),
        ("PatternVerifier", {"pattern": "("}, "regular expression"),
    ],
)
def test_what_a_description_says_is_validated_and_never_run(
    kind: str, settings: dict[str, Any], said: str
) -> None:
    spec = CheckSpec(kind=kind, settings=settings, fingerprint="x")
    with pytest.raises(AutoMixError, match=said):
        rebuild_check(spec, [SMALL, LARGE])
