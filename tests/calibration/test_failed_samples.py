"""Samples that fail while a check is calibrated: they are known as failures, now and later."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from langchain_automix import SelfVerifier, calibrate
from tests.support.builders.calibrating import PRICES
from tests.support.builders.calibrating import script as as_usual
from tests.support.builders.scripted_replies import Body
from tests.support.servers.openai_server import OpenAIServer, is_check


@pytest.mark.filterwarnings("ignore:.*failed, and are not complete")
def test_a_server_that_refuses_n_is_asked_one_by_one_and_again_after_a_stop(
    server: OpenAIServer, tmp_path: Path
) -> None:
    down = True

    def script(body: Body) -> Any:
        if (body.get("n") or 1) > 1:
            return 400
        return 500 if down and body["model"] == "large" else as_usual(body)

    server.script = script
    given: Any = {
        "models": [server.model("small"), server.model("large")],
        "verifier": SelfVerifier(samples=3),
        "quality": "exact_match",
        "prices": PRICES,
        "out": tmp_path / "log.jsonl",
    }
    examples = [{"question": f"Where was ship {i} built?", "answer": "Turku"} for i in range(2)]
    found = []
    for down in (True, False):
        server.requests.clear()
        log = calibrate(examples, **given)
        found.append([query.answers[0].verification for query in log])
        asked = [body.get("n") or 1 for body in server.requests if is_check(body)]
        # A refusal is no reply that could be kept: only it is asked for again.
        assert sorted(asked) == ([1] * 6 if down else []) + [3, 3]
    journal = (tmp_path / "log.jsonl.journal").read_text().splitlines()
    kept = [each for each in map(json.loads, journal) if "output" in each]
    assert not any("value" in each["output"] for each in kept)
    assert found[0] == found[1]
    assert [check.verdicts for check in found[1] if check] == [(True,) * 3, (False,) * 3]


@pytest.mark.filterwarnings("ignore:.*failed, and are not complete")
def test_the_drawn_count_though_one_failed_until_it_is_drawn(
    server: OpenAIServer, tmp_path: Path
) -> None:
    failing = iter([500])

    def script(body: Body) -> Any:
        return next(failing, None) or as_usual(body) if is_check(body) else as_usual(body)

    server.script = script
    given: Any = {
        "models": [server.model("small"), server.model("large")],
        "verifier": SelfVerifier(samples=3, sampling="parallel"),
        "quality": "exact_match",
        "prices": PRICES,
        "out": tmp_path / "log.jsonl",
    }
    examples = [{"question": "Where was ship 2 built?", "answer": "Turku"}]
    found: list[Any] = []
    for asked in (3, 1, 0):
        server.requests.clear()
        [query] = calibrate(examples, **given)
        check = query.answers[0].verification
        assert check is not None
        found.append((check.verdicts, (query.metadata or {}).get("failed")))
        assert sum(map(is_check, server.requests)) == asked
    assert found[0][0] == (True, True)
    assert "1 more could not be drawn: OpenAIAPIError" in found[0][1]["small"]
    assert found[1:] == [((True, True, True), None)] * 2
