"""`automix calibrate` as its user meets it: money first, changes, what it says at the end."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from langchain_automix import AgreementVerifier, POMDPRouter, RoutingLog, SelfVerifier
from langchain_automix.calibration.journal import Journal
from langchain_automix.cli import calibration
from langchain_automix.cli.open_models import opened_models
from tests.support.builders.calibrating import (  # noqa: F401
    MODELS,
    PRICES,
    PROCESS,
    Run,
    calibrated_fixture,
    events,
    flat,
    folder_fixture,
    run_fixture,
    script,
    write,
)
from tests.support.builders.no_warnings import no_warnings
from tests.support.builders.scripted_replies import Error, text_of
from tests.support.servers.openai_server import OpenAIServer, is_check


class TestMoney:
    def test_without_a_terminal_nothing_is_asked_without_yes(
        self, calibrated: Run, server: OpenAIServer, folder: Path
    ) -> None:
        code, out, err = calibrated()
        assert code == 2
        assert "12 examples." in out, "the estimate comes first"
        assert "give --yes" in err
        assert len(err.splitlines()) == 1
        assert not server.requests
        assert not list(folder.glob("log*")), "nothing was asked, and nothing is left behind"

    def test_a_dry_run(self, calibrated: Run, server: OpenAIServer, folder: Path) -> None:
        code, out, _ = calibrated("--dry-run")
        assert code == 0
        lines = [line.split()[:3] for line in out.splitlines()]
        for model in ("small", "large"):
            assert ["answer", model, "12"] in lines
        assert "few-shot 12" in flat(out)
        assert ["tokens", "none", "free"] in lines
        assert "in all 36" in flat(out)
        assert "That is likely to cost $" in out
        assert not server.requests
        assert not list(folder.glob("log*"))
        assert max(map(len, out.splitlines())) <= 80

    def test_the_estimate_holds_what_is_spent(self, calibrated: Run) -> None:
        code, out, _ = calibrated("--yes", "--json")
        assert code == 0
        first, done = events(out)[0], events(out)[-1]
        assert first["cost"][0] / 2 <= done["spent"] <= first["cost"][1]
        assert first["calls"] == done["calls"] == 36

    def test_a_limit(self, calibrated: Run, server: OpenAIServer) -> None:
        code, out, _ = calibrated("--yes", "--json", "--concurrency", 1)
        full = events(out)[-1]["spent"]
        for path in Path.cwd().glob("log*"):
            path.unlink()
        server.requests.clear()
        limit = full / 2
        code, out, _ = calibrated("--yes", "--max-spend", limit, "--concurrency", 1)
        assert code == 0
        assert "It stopped before --max-spend" in out
        finished = int(re.findall(r"(\d+) of 12 examples finished", out)[0])
        assert 3 <= finished < 7
        assert f"{12 - finished} left" in out
        assert len(RoutingLog.read("log.jsonl")) == finished
        paid = sum(
            (
                bill["prompt_tokens"] * PRICES[bill["model"]]["input"]
                + bill["completion_tokens"] * PRICES[bill["model"]]["output"]
            )
            / 1e6
            for bill in server.billed[36:]
        )
        assert paid <= limit
        code, out, _ = calibrated("--yes")
        assert "Already finished" in out
        assert "12 of 12 examples finished" in out
        assert len(server.requests) == 36

    def test_no_limit_holds_what_has_no_price(self, calibrated: Run, folder: Path) -> None:
        (folder / "prices.json").write_text(
            json.dumps({name: PRICES[name] for name in ("small", "large")})
        )
        grading = ("--quality", "judge:openai:judge")
        code, out, err = calibrated("--max-spend", 1, "--yes", *grading)
        assert code == 2
        assert "--max-spend 1 cannot be enforced, for the cost of `grade small` is unknown" in err
        assert "there is no price for: grade small, grade large" in flat(out)
        assert "unknown" in out
        assert "$0 " not in out

    def test_seconds(self, calibrated: Run) -> None:
        code, out, _ = calibrated("--unit", "seconds", "--yes")
        assert code == 0
        assert "How long it takes can be estimated only after some calls" in flat(out)
        assert "$" not in out
        assert RoutingLog.read("log.jsonl").currency == "second"


class TestAsking:
    """With a terminal for what is typed."""

    @pytest.fixture
    def typed(self, calibrated: Run, monkeypatch: pytest.MonkeyPatch) -> Any:
        def call(keys: str, *arguments: object) -> tuple[int, str]:
            mine, theirs = pty.openpty()
            os.write(mine, keys.encode())
            with os.fdopen(theirs) as terminal, os.fdopen(mine):
                monkeypatch.setattr(sys, "stdin", terminal)
                code, out, err = calibrated(*arguments)
            return code, out + err

        return call

    def test_yes_then_no(self, typed: Any, server: OpenAIServer) -> None:
        code, out = typed("n\n")
        assert code == 1
        assert "Go on? [y/N]" in out
        assert "No call was made." in out
        assert not server.requests
        code, out = typed("y\n")
        assert code == 0
        assert "12 of 12 examples finished" in out
        assert len(server.requests) == 36
        code, out = typed("")
        assert code == 0, "where no call is left, nothing is asked"
        assert "No call is left to make." in out
        # Another check: allowed by the second question only.
        code, out = typed("n\n", "--samples", 4, "--yes")
        assert code == 1
        assert "the verdicts (8, now 4)" in out
        assert len(server.requests) == 36
        code, out = typed("y\ny\n", "--samples", 4)
        assert code == 0
        assert len(server.requests) == 36 + 12
        code, out = typed("", "--samples", 4)
        assert (code, len(server.requests)) == (0, 48)

    def test_ctrl_d_is_no(self, typed: Any, server: OpenAIServer) -> None:
        code, out = typed("\x04")
        assert code == 1
        assert "No call was made." in out
        assert not server.requests


class TestChanges:
    def test_a_changed_prompt(self, calibrated: Run, server: OpenAIServer, folder: Path) -> None:
        (folder / "prompt.txt").write_text("In one word: {question}\n")
        prompt = ("--prompt", "prompt.txt", "--yes")
        assert calibrated(*prompt)[0] == 0
        assert server.requests[0]["messages"][-1]["content"].startswith("In one word: Where")
        (folder / "prompt.txt").write_text("In two words: {question}\n")
        code, _, err = calibrated(*prompt)
        assert code == 2
        assert "this has changed: the prompt." in err
        assert "give --rerun-changed" in err
        assert len(server.requests) == 36
        assert calibrated(*prompt, "--rerun-changed")[0] == 0
        answers = [body for body in server.requests[36:] if not is_check(body)]
        assert len(answers) == 24
        (folder / "prompt.txt").write_text("In one word: {question}\n")
        code, out, _ = calibrated(*prompt)
        assert code == 0, "what was asked before is still there"
        assert "No call is left" in out

    def test_a_grader_whose_file_changes(
        self, calibrated: Run, server: OpenAIServer, folder: Path
    ) -> None:
        for worth in ("0.25", "0.75"):
            (folder / "mine.py").write_text(f"def grade(answer, references):\n  return {worth}\n")
            # Written within one second of each other, and of one length: Python's cache of
            # bytecode takes one for the other.
            os.utime(folder / "mine.py", (0, 0))
            assert calibrated("--quality", "mine.py:grade", "--yes")[0] == 0
            assert {q.answers[0].quality for q in RoutingLog.read("log.jsonl")} == {float(worth)}
        assert len(server.requests) == 36


class TestWhatItSays:
    def test_the_end_and_what_comes_next(self, calibrated: Run, run: Run) -> None:
        code, out, _ = calibrated("--yes", examples="examples.jsonl")
        assert code == 0
        assert "small 12 0.50" in flat(out)
        assert "large 12 1.00" in flat(out)
        small = next(line for line in out.splitlines() if line.split()[:2] == ["small", "12"])
        assert small.split()[-1] == "1.00", "the check is right each time"
        assert "automix fit log.jsonl --out policy.json" in out
        assert max(map(len, out.splitlines())) <= 80
        with no_warnings():
            assert run("fit", "log.jsonl", "--out", "policy.json", "--cost-weight", 10)[0] == 0
            policy = POMDPRouter.load("policy.json").policy
            assert policy.check_spec is not None
            assert list(policy.check_spec.checks) == ["few-shot", "tokens"]
            fitted = policy.check_spec.checks["few-shot"]
            assert fitted.fingerprint == SelfVerifier().fingerprint
            asked = run("ask", "Where was ship 2 built?", "--policy", "policy.json", *MODELS)
        assert asked[0] == 0, "the check of `ask` is the one that was logged"

    def test_the_usual_check_is_agreement(
        self, run: Run, folder: Path, server: OpenAIServer
    ) -> None:
        given = ("--prices", "prices.json", "--samples", "3")
        assert (
            run("calibrate", "examples.jsonl", "--out", "a.jsonl", *MODELS, *given, "--yes")[0] == 0
        )
        assert not server.checks
        check = RoutingLog.read("a.jsonl")[0].answers[0].verification
        assert check is not None
        assert check.verdicts == (True,) * 3
        with no_warnings():
            assert run("fit", "a.jsonl", "--out", "policy.json", "--cost-weight", 10)[0] == 0
            spec = POMDPRouter.load("policy.json").policy.check_spec
            assert spec is not None
            assert spec.checks["agreement"].fingerprint == AgreementVerifier().fingerprint
            assert run("ask", "Where was ship 2 built?", "--policy", "policy.json", *MODELS)[0] == 0

    def test_a_check_that_is_not_there(self, run: Run, folder: Path) -> None:
        given = ("examples.jsonl", "--out", "a.jsonl", *MODELS, "--check", "shot")
        code, _, err = run("calibrate", *given)
        assert code == 2
        assert (
            "There is no check 'shot'. Did you mean 'few-shot' or 'zero-shot'? There are: few-"
            in flat(err)
        )

    def test_json_lines(self, calibrated: Run) -> None:
        code, out, err = calibrated("--yes", "--json")
        assert (code, err) == (0, "")
        found = events(out)
        assert [event["event"] for event in found] == ["estimate", "progress", "done"]
        estimate, progress, done = found
        assert estimate["examples"] == progress["examples"] == 12
        assert (done["finished"], done["failed"], done["left"]) == (12, 0, 0)
        assert [m["model"] for m in done["models"]] == ["small", "large"]
        assert done["models"][0]["auroc"] == 1.0
        assert done["next"] == "automix fit log.jsonl --out policy.json"
        log = RoutingLog.read("log.jsonl").summary()["models"]
        for model in done["models"]:
            assert model["cost"] == pytest.approx(log[model["model"]]["cost"])

    def test_without_accepted_answers(self, calibrated: Run) -> None:
        code, out, _ = calibrated("--yes", examples="bare.jsonl")
        assert code == 0
        assert "12 without an accepted answer. Answers to these are graded by how far" in flat(out)
        assert "Quality here is agreement with large" in flat(out)
        assert "cannot tell where large is wrong" in flat(out)

    def test_some_accepted_answers(self, calibrated: Run, folder: Path) -> None:
        write(folder / "some.jsonl", 6)
        with (folder / "some.jsonl").open("a") as file:
            for i in range(6, 30):
                row = {"id": f"r{i}", "question": f"Where was ship {i} built?", "answer": "Turku"}
                file.write(json.dumps(row) + "\n")
        code, out, _ = calibrated("--yes", examples="some.jsonl")
        assert code == 0
        assert "The quality of 6 examples without an accepted answer" in flat(out)
        assert "corrected by what the 24 with one show" in flat(out)

    def test_a_judge_without_accepted_answers(self, calibrated: Run, server: OpenAIServer) -> None:
        grading = ("--without-references", "grade", "--quality", "judge:openai:judge")
        code, out, _ = calibrated("--yes", "--json", *grading, examples="bare.jsonl")
        assert code == 0
        assert [m["quality"] for m in events(out)[-1]["models"]] == [1.0, 1.0]
        assert events(out)[-1]["notes"] == []
        assert sum(body["model"] == "judge" for body in server.requests) == 24

    def test_failed_examples(self, calibrated: Run, server: OpenAIServer) -> None:
        server.script = lambda body: (
            400 if "ship 3 " in text_of(body["messages"][-1]["content"]) else script(body)
        )
        code, out, _ = calibrated("--yes", "--concurrency", 1)
        assert code == 0
        assert "11 of 12 examples finished, 1 failed." in out
        assert "q4: answer of small: OpenAIInvalidRequestError" in out
        assert "Run the same command to retry these" in flat(out)
        server.script = script
        server.requests.clear()
        code, out, _ = calibrated("--yes")
        assert "12 of 12 examples finished." in out
        assert len(server.requests) == 3

    def test_own_names_a_limit_and_a_prompt_with_history(
        self, calibrated: Run, server: OpenAIServer, folder: Path
    ) -> None:
        said = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Ahoy."}]
        row = {"frage": "Where was ship 2 built?", "gut": "Turku", "messages": said, "land": "FI"}
        other = {**row, "frage": "Where was ship 3 built?"}
        (folder / "own.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps(other)}\n")
        (folder / "prompt.txt").write_text("{land} {history} | {question}")
        names = ("--question", "frage", "--references", "gut", "--limit", 1)
        code, out, _ = calibrated("--yes", *names, "--prompt", "prompt.txt", examples="own.jsonl")
        assert code == 0, out
        asked = [b["messages"][-1]["content"] for b in server.requests if not is_check(b)]
        assert asked == ["FI Human: Hello.\nAI: Ahoy. | Where was ship 2 built?"] * 2
        (folder / "prompt.txt").write_text("{question}")
        how = ("--dry-run", *names, "--prompt", "prompt.txt")
        assert "1 example has a history, but the prompt has no {history}" in flat(
            calibrated(*how, examples="own.jsonl")[1]
        )

    def test_hosted_models_wait_out_a_limit_of_requests(
        self, calibrated: Run, server: OpenAIServer
    ) -> None:
        refused = iter([Error(429, headers={"retry-after-ms": "5"})] * 5)
        server.script = lambda body: next(refused, None) or script(body)
        code, out, _ = calibrated("--yes", "--concurrency", 1, "--limit", 1)
        assert code == 0
        assert "1 of 1 examples finished." in out
        assert len(server.requests) == 5 + 3


class TestTwoAtOnce:
    def test_the_loser_leaves_the_winners_journal(
        self, calibrated: Run, server: OpenAIServer, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The winner begins after the loser has seen that there is no journal."""
        winners: list[Journal] = []
        opened = opened_models

        def late(*arguments: Any) -> Any:
            winners.append(Journal(folder / "log.jsonl.journal"))
            return opened(*arguments)

        monkeypatch.setattr(calibration, "opened_models", late)
        code, _, err = calibrated("--yes")
        assert code == 2
        assert "Another process is writing the journal" in err
        assert not server.requests
        with winners[0] as winner:
            winner.add("q", "answer small 0 x", {"seconds": 0, "calls": []})
            assert (folder / "log.jsonl.journal").exists()
            assert (folder / "log.jsonl.journal.reserve").exists()

    def test_a_folder_that_cannot_be_written(
        self, run: Run, folder: Path, server: OpenAIServer, small_disk: Path
    ) -> None:
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        given = ("--out", small_disk / "log.jsonl", *MODELS, "--prices", "prices.json", "--yes")
        code, _, err = run("calibrate", "examples.jsonl", *given)
        assert code == 2
        assert "cannot be written: Read-only file system" in err
        assert len(err.splitlines()) == 1
        assert not server.requests


@pytest.mark.parametrize("length", [300, 245])
def test_a_name_that_is_too_long(run: Run, folder: Path, length: int) -> None:
    out = folder / f"{'x' * length}.jsonl"
    code, _, err = run(
        "calibrate", "examples.jsonl", "--out", out, *MODELS, "--prices", "prices.json", "--yes"
    )
    assert code == 2
    assert "cannot be written: File name too long" in err
    assert len(err.splitlines()) == 1


def test_only_their_owner_may_read_the_log_and_the_journal(calibrated: Run, folder: Path) -> None:
    assert calibrated("--yes")[0] == 0
    for name in ("log.jsonl", "log.jsonl.journal"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
