"""The figures of a log as it is written, and how amounts read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from langchain_automix import AutoMixError, POMDPRouter, RoutingLog, SelfVerifier
from langchain_automix.calibration.examples.examples import examples_from
from langchain_automix.calibration.log_writer import ModelTally
from langchain_automix.cli.checks import build_check, build_fitted_check
from langchain_automix.local.models import Model, ModelOptions, input_limit
from langchain_automix.policy.statistics import auroc
from langchain_automix.utils.fingerprints import fingerprint_of
from langchain_automix.utils.formatting import (
    format_amount,
    format_count,
    format_duration,
    format_range,
)
from langchain_automix.verifiers.known import KNOWN_CHECKS
from tests.support.builders.synthetic_logs import world

verdicts = st.lists(st.sampled_from([True, False, None]), min_size=1, max_size=8)
answers = st.lists(
    st.tuples(st.none() | st.floats(0, 1), st.floats(0, 1) | verdicts, st.floats(0, 9)), max_size=40
)


@given(answers)
def test_figures_are_those_of_the_whole_list(rows: list[tuple[Any, Any, float]]) -> None:
    tally = ModelTally("small")
    confidences: list[float | None] = []
    for quality, check, cost in rows:
        if isinstance(check, float):
            found: dict[str, Any] = {"score": check, "cost": cost}
            confidences.append(check)
        else:
            valid = [v for v in check if v is not None]
            found = {"verdicts": check, "fixed_cost": cost, "sample_cost": 1.0}
            confidences.append(sum(valid) / len(valid) if valid else None)
        tally.add({"quality": quality, "cost": cost, "verification": found})
    figures = tally.figures()
    known = [(c, q) for c, (q, _, _) in zip(confidences, rows, strict=True) if q is not None]
    assert figures.answers == len(known)
    assert figures.checks == len(rows)
    assert figures.quality == pytest.approx(_mean([q for _, q in known]))
    assert figures.cost == pytest.approx(_mean([cost for *_, cost in rows]))
    paid = [cost + (0 if isinstance(check, float) else len(check)) for _, check, cost in rows]
    assert figures.check_cost == pytest.approx(_mean(paid))
    scores, outcomes = [c for c, _ in known], [q >= 0.5 for _, q in known]
    assert figures.auroc == pytest.approx(auroc(scores, outcomes))


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "$0"),
        (0.0000123, "$0.000012"),
        (0.00998, "$0.010"),
        (0.5, "$0.50"),
        (0.999, "$1.00"),
        (1234.5, "$1,234.50"),
    ],
)
def test_dollars(value: float, text: str) -> None:
    assert format_amount(value, "USD") == text


def test_other_amounts() -> None:
    assert [format_duration(s) for s in (0.012, 12, 90, 9000)] == [
        "0.012 s",
        "12.0 s",
        "1.5 min",
        "2.5 h",
    ]
    assert format_amount(90, "second") == "1.5 min"
    assert [format_count(n) for n in (999, 9_999, 12_345, 1_234_567, 45_678_901)] == [
        "999",
        "9,999",
        "12k",
        "1.2M",
        "46M",
    ]
    assert format_range("1", "1") == "1"
    assert format_range("1", "2") == "1 to 2"


def test_only_the_first_examples(tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    path.write_text("".join(f'{{"question": "q {i}"}}\n' for i in range(9)) + "not JSON")
    found = examples_from(path, limit=4)
    assert len(found) == 4
    assert [e.question for e in found] == [f"q {i}" for i in range(4)]
    assert [e.id for e in found] == ["q1", "q2", "q3", "q4"]
    assert len(examples_from(["a", "b"], limit=5)) == 2
    with pytest.raises(AutoMixError, match="line 10 is not JSON"):
        examples_from(path)


def test_a_policy_takes_the_fingerprint_of_its_log() -> None:
    records = list(world(12, k=2).records())
    for record in records:
        record["metadata"] = {"verifier": "abc"}
    log = RoutingLog(records)
    assert log.verifier == "abc"
    assert POMDPRouter.fit(log).policy.verifier == "abc"
    assert POMDPRouter.fit(log, verifier="def").policy.verifier == "def"
    for other in ({"verifier": "xyz"}, {}, {"verifier": None}):
        mixed = RoutingLog([*records[:-1], {**records[-1], "metadata": other}])
        assert mixed.verifier is None
        assert POMDPRouter.fit(mixed).policy.verifier is None
    assert world(12, k=2).verifier is None


def test_a_local_check_fits_into_its_model() -> None:
    from langchain_openai import ChatOpenAI  # noqa: PLC0415

    chat = ChatOpenAI(model="x", api_key=SecretStr("test"))
    local = Model("local", chat, count_tokens=lambda text: len(text.split()))
    hosted, wanted = Model("hosted", chat), ModelOptions(answer_tokens=500, samples=3)
    check = build_check("few-shot", [local, hosted], wanted)
    assert isinstance(check, SelfVerifier)
    assert check.max_input_tokens == 4096 - 500 - 64
    assert check.samples == 3
    other = build_check("few-shot", [hosted, local], wanted)
    assert isinstance(other, SelfVerifier)
    assert other.max_input_tokens is None, "it is not the checker"
    assert input_limit([hosted, local], wanted) == 4096 - 500 - 64
    assert input_limit([hosted, hosted], wanted) is None
    assert check.fingerprint == other.fingerprint == SelfVerifier().fingerprint
    by_large = build_check("few-shot by large", [hosted, local], wanted)
    assert isinstance(by_large, SelfVerifier)
    assert by_large.max_input_tokens == 4096 - 500 - 64


@pytest.mark.parametrize("name", KNOWN_CHECKS)
def test_a_policy_meets_the_check_that_it_was_fitted_to(name: str) -> None:
    from langchain_openai import ChatOpenAI  # noqa: PLC0415

    models = [Model(n, ChatOpenAI(model=n, api_key=SecretStr("test"))) for n in ("a", "b")]
    check = build_check(name, models, ModelOptions(samples=3))
    log, options = world(8, k=2), ModelOptions(samples=3)
    as_before = POMDPRouter.fit(log, verifier=fingerprint_of(check)).policy
    assert as_before.check_spec is None
    described = POMDPRouter.fit(log, verifier=check).policy
    for policy in (as_before, described):
        assert build_fitted_check(policy, models, options) == check
    for unknown in ("another", None):
        policy = POMDPRouter.fit(log, verifier=unknown).policy
        assert isinstance(build_fitted_check(policy, models, options), SelfVerifier)
