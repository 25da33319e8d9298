"""The demo: its run on scripted models over HTTP, its figures by hand, its recordings."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.messages import HumanMessage
from rich.console import Console

from langchain_automix import AutoMixError, RoutingLog
from langchain_automix.calibration.graders.text import exact_match, token_f1
from langchain_automix.cli import demo_run
from langchain_automix.cli.demo_run import run_demo
from langchain_automix.cli.options import DemoOptions
from langchain_automix.evaluation.router_replay import replay_router
from langchain_automix.local.demo import run, view
from langchain_automix.local.demo.checks import AGREEMENT, FEW_SHOT, LEAST_PROBABLE, make_checks
from langchain_automix.local.demo.learning import Gain
from langchain_automix.local.demo.questions import SHIPPED, Question, in_order, read_questions
from langchain_automix.local.demo.run import Demo, Row, fit_part, routing_log
from langchain_automix.local.demo.summary import PAPERS_RULE, summarize
from langchain_automix.local.models import (
    Model,
    ModelOptions,
    ModelPair,
    open_pair,
    open_replay,
    openai_model,
    replayed_pair,
)
from langchain_automix.local.recording import Recorder, Recording
from langchain_automix.verifiers.base import Verifier
from tests.local.test_server import child_of, tiny_gguf
from tests.support.servers.openai_server import ACCEPT, REJECT, OpenAIServer, is_check

COUNT = 90
EASY = frozenset(number for number in range(COUNT) if number % 10 not in (3, 6, 9))
"""Questions that the small model knows; the large one knows all."""


def questions(count: int, per_passage: int = 2) -> list[Question]:
    return [
        Question(
            id=f"q{i}",
            question=f"Question {i}?",
            context=f"Passage {i // per_passage}.",
            references=(f"right {i}",),
        )
        for i in range(count)
    ]


def knowing(small_knows: frozenset[int] = EASY) -> Any:
    """The small model repeats what it knows, and guesses otherwise; its verdicts are a coin's."""

    def script(body: dict[str, Any]) -> list[str]:
        asked = body["messages"][-1]["content"].partition("Question: Question ")[2]
        number = int(asked.partition("?")[0])
        replies = range(body.get("n") or 1)
        if is_check(body):
            return [ACCEPT if (number // 2 + j) % 2 else REJECT for j in replies]
        if body["model"] == "large" or number in small_knows:
            return [f"right {number}" for _ in replies]
        is_draft = not body.get("temperature")
        return ["wrong"] if is_draft else [f"guess {j} by {body.get('seed')}" for j in replies]

    return script


@pytest.fixture
def pair(server: OpenAIServer) -> ModelPair:
    server.script = knowing()
    ticks = iter(range(10**6))
    small, large = (Model(name, server.model(name, seed=7)) for name in ("small", "large"))
    return ModelPair(small, large, clock=lambda: float(next(ticks)))


class TestRun:
    def test_a_third_is_measured_and_the_rest_routed(
        self, server: OpenAIServer, pair: ModelPair
    ) -> None:
        demo = Demo(pair)
        rows = list(demo.run(questions(COUNT)))
        assert [row.part for row in rows] == ["fit"] * 30 + ["routed"] * 60
        assert demo.learned is not None
        assert demo.learned.router.policy.fit.queries == 30
        assert demo.learned.check == AGREEMENT
        assert demo.learned.buys_checks
        # What the small model does not know, and nothing else, goes to the large one.
        escalated = {int(row.question.id[1:]) for row in demo.routed if row.escalated}
        assert escalated == set(range(30, COUNT)) - EASY
        assert all(row.final.correct for row in demo.routed)
        assert {name for row in demo.fitted for name in row.checks} == set(demo.checks)
        # Each model answers each question once; only the measured part gets every check.
        kinds = [
            (body["model"], "few-shot" if is_check(body) else bool(body.get("temperature")))
            for body in server.requests
        ]
        drawn = Counter(kinds)
        assert drawn["small", False] == drawn["large", False] == COUNT
        assert drawn["small", "few-shot"] == 30
        assert drawn["small", True] >= COUNT, "one request a question, or more"

    def test_what_is_spent_is_what_was_billed(self, server: OpenAIServer, pair: ModelPair) -> None:
        demo = Demo(pair)
        rows = list(demo.measure(questions(6)))
        parts = [p for row in rows for p in (row.small.spent, row.large.spent)]
        parts += [each.spent for row in rows for each in row.checks.values()]
        for side in ("prompt_tokens", "completion_tokens"):
            spent = [p.tokens_in if side == "prompt_tokens" else p.tokens_out for p in parts]
            assert sum(spent) == sum(billed[side] for billed in server.billed)
        assert all(row.checks[LEAST_PROBABLE].spent.units == 0 for row in rows)

    def test_it_goes_on_where_it_was(self, pair: ModelPair) -> None:
        demo = Demo(pair)
        first = next(demo.measure(questions(6)))
        rest = list(demo.measure(questions(6)))
        assert [row.question.id for row in [first, *rest]] == [f"q{i}" for i in range(6)]

    def test_a_failed_call_is_one_error(self, server: OpenAIServer, pair: ModelPair) -> None:
        server.script = lambda _: 500
        with pytest.raises(AutoMixError, match=r"A model call failed: .*scripted"):
            list(Demo(pair).measure(questions(4)))

    def test_one_that_the_mix_would_go_on_from_is_an_error_too(
        self, server: OpenAIServer, pair: ModelPair
    ) -> None:
        demo = Demo(pair)
        list(demo.measure(questions(30)))
        script = server.script
        server.script = lambda body: 500 if body["model"] == "small" else script(body)
        with pytest.raises(AutoMixError, match=r"A model call failed: \w+ of small \(draft\)"):
            list(demo.route(questions(32)))

    @pytest.mark.skipif(os.name != "posix", reason="sends signals")
    def test_a_server_that_dies_in_between_is_named(self, tmp_path: Path) -> None:
        pytest.importorskip("xllamacpp", reason="needs the extra `local`")
        files = [tiny_gguf(tmp_path / f"{name}.gguf") for name in ("one", "two")]
        with open_pair(ModelOptions(small=str(files[0]), large=str(files[1]), samples=1)) as opened:
            check = opened.large.check
            os.kill(child_of(check.__self__), signal.SIGKILL)  # type: ignore[attr-defined]
            with pytest.raises(AutoMixError, match="model server 'two' died with exit code -9"):
                list(Demo(opened, samples=1).measure(questions(4)))

    def test_no_passage_is_in_both_parts(self) -> None:
        assert fit_part(questions(10, per_passage=3)) == 3
        assert fit_part(questions(12, per_passage=6)) == 6
        assert fit_part(questions(4, per_passage=1)) == 1


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """A recording of all questions by scripted models."""
    path = tmp_path_factory.mktemp("recording") / "run.json.gz"
    with OpenAIServer() as server:
        server.script = knowing()
        recorder = Recorder()
        small, large = (
            openai_model(name, server.base_url, "test", 7, recorder) for name in ("small", "large")
        )
        list(Demo(ModelPair(small, large)).measure(questions(COUNT)))
        about = {"small": "small", "large": "large", "seed": 7, "samples": 4, "questions": COUNT}
        recorder.recording(about).write(path)
    return Recording.read(path)


@pytest.fixture(scope="module")
def replayed(recording: Recording) -> Demo:
    demo = Demo(replayed_pair(recording))
    list(demo.run(questions(COUNT)))
    return demo


class TestReplay:
    def test_it_needs_no_provider_and_gives_what_chat_openai_gives(
        self, recording: Recording, replayed: Demo
    ) -> None:
        with open_replay(recording) as pair:
            again = list(Demo(pair).run(questions(COUNT)))
        assert len(again) == len(replayed.rows)
        for mine, theirs in zip(replayed.rows, again, strict=True):
            assert mine.record == theirs.record
            assert (mine.small.text, mine.large.text) == (theirs.small.text, theirs.large.text)
            assert mine.small.spent.units == theirs.small.spent.units
            for name, check in mine.checks.items():
                assert check.found.verdicts == theirs.checks[name].found.verdicts
                assert check.found.score == theirs.checks[name].found.score
                assert check.spent.units == theirs.checks[name].spent.units

    def test_every_routed_question_has_all_checks(self, replayed: Demo) -> None:
        assert all(set(row.checks) == set(replayed.checks) for row in replayed.rows)

    def test_the_mix_does_what_its_router_does_on_the_log(self, replayed: Demo) -> None:
        """What was asked and paid call by call is what the replayed log says."""
        learned, rows = replayed.learn(), replayed.routed
        log = routing_log(rows, replayed.names, 25, learned.check)
        outcomes = replay_router(learned.router, log)
        assert [row.escalated for row in rows] == [each.escalated for each in outcomes]
        for row, outcome in zip(rows, outcomes, strict=True):
            small, large = row.spent
            paid = sum(part.units for part in small) + 25 * sum(part.units for part in large)
            # A check that stops early has the mean price of its replies in the log.
            assert paid == pytest.approx(outcome.cost, rel=0.02)

    def test_a_request_that_was_not_recorded(self) -> None:
        about = {"small": "small", "large": "large", "seed": 7}
        with pytest.raises(AutoMixError, match="not in the recording"):
            list(Demo(replayed_pair(Recording(about, {}))).measure(questions(4)))


class TestSummary:
    def test_figures_by_hand(self, replayed: Demo) -> None:
        found = summarize(replayed)
        assert found is not None
        known = sum(number in EASY for number in range(30, COUNT))
        accuracies = {way.name: way.accuracy for way in found.ways}
        assert accuracies == {"always small": known / 60, "always large": 1.0, "AutoMix": 1.0}
        assert (found.fitted_on, found.questions) == (30, 60)
        assert found.escalation_rate == pytest.approx(1 - known / 60)
        assert (found.kept.answers, found.kept.right) == (known, known)
        assert (found.drafts.answers, found.drafts.right) == (60 - known, 0)
        assert (found.after.answers, found.after.right) == (60 - known, 60 - known)
        assert found.against_large is not None
        assert found.against_large.value == 0
        json.dumps(found.as_dict())

    def test_checks_side_by_side(self, replayed: Demo) -> None:
        found = summarize(replayed)
        assert found is not None
        checks = {each.name: each for each in found.checks}
        assert set(checks) == {PAPERS_RULE, FEW_SHOT, AGREEMENT, LEAST_PROBABLE}
        assert checks[AGREEMENT].auroc == 1.0
        assert checks[LEAST_PROBABLE].auroc == 0.5
        assert checks[LEAST_PROBABLE].price == 0
        assert checks[FEW_SHOT].price > checks[AGREEMENT].price > 0
        assert checks[AGREEMENT].judged.gain.interval[0] > 0
        assert not checks[LEAST_PROBABLE].judged.buys_checks
        assert checks[PAPERS_RULE].judged.gain.value < 0

    def test_the_gain_is_over_the_better_single_model(self, replayed: Demo) -> None:
        """By hand, at both rates; at the tying one it is what random mixing lacks, too."""
        found = summarize(replayed)
        assert found is not None
        assert found.gain is not None
        assert found.gain_at_fitted_rate is not None
        rows = replayed.routed
        accuracy = [
            np.mean([each.correct for each in side])
            for side in (
                [row.small for row in rows],
                [row.large for row in rows],
                [row.final for row in rows],
            )
        ]
        paid = [
            sum(p.units for p in s) + 25 * sum(p.units for p in b)
            for s, b in (row.spent for row in rows)
        ]
        cost = [
            np.mean([row.small.spent.units for row in rows]),
            25 * np.mean([row.large.spent.units for row in rows]),
            np.mean(paid),
        ]
        share = (cost[2] - cost[0]) / (cost[1] - cost[0])
        random_mix = accuracy[0] + share * (accuracy[1] - accuracy[0])
        assert found.gain.value == pytest.approx(accuracy[2] - random_mix)
        weight = replayed.learn().router.policy.cost_weight
        utility = [q - weight * c for q, c in zip(accuracy, cost, strict=True)]
        assert found.gain_at_fitted_rate.value == pytest.approx(utility[2] - max(utility[:2]))
        for gain in (found.gain, found.gain_at_fitted_rate):
            assert gain.interval[0] < gain.value < gain.interval[1]

    def test_every_price_has_its_own_policy(self, replayed: Demo) -> None:
        found = summarize(replayed)
        assert found is not None
        assert [each.price_ratio for each in found.prices if each.price_ratio] == [10, 25, 60]
        costs = [each.judged.cost for each in found.prices if each.price_ratio]
        assert costs == sorted(costs, reverse=True)

    def test_what_was_not_routed_has_no_gain(self, pair: ModelPair) -> None:
        demo = Demo(pair)
        assert summarize(demo) is None
        list(demo.measure(questions(4)))
        found = summarize(demo)
        assert found is not None
        assert [way.name for way in found.ways] == ["always small", "always large"]
        assert (found.gain, found.checks, found.prices) == (None, (), ())

    def test_a_mix_that_is_the_better_model_gains_nothing(self) -> None:
        def answer(model: str, quality: float, cost: float) -> dict[str, Any]:
            return {"model": model, "quality": quality, "cost": cost}

        log = RoutingLog(
            {"id": f"q{i}", "answers": [answer("s", i % 2, 1.0), answer("l", 1.0, 2.0)]}
            for i in range(10)
        )
        gain = Gain.of(np.ones(10), np.full(10, 2.0), log, 0.1)
        assert (gain.value, gain.interval, gain.best) == (0.0, (0.0, 0.0), "l")
        assert gain.in_words == "within chance"

    def test_the_log_holds_the_run(self, replayed: Demo) -> None:
        log = routing_log(replayed.rows, replayed.names, None)
        assert log.models == ("small", "large")
        assert log.currency == "second"
        row, answer = replayed.rows[0], log[0].answers[0]
        assert answer.verification is not None
        assert answer.verification.total_cost == pytest.approx(row.checks[FEW_SHOT].spent.seconds)
        assert set(answer.checks) == {AGREEMENT, LEAST_PROBABLE}


class TestCommand:
    def options(self, **changes: Any) -> DemoOptions:
        return DemoOptions(small="openai:small", large="openai:large", **changes)

    def run(self, monkeypatch: Any, server: OpenAIServer, options: DemoOptions) -> tuple[Any, str]:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "test")
        console = Console(record=True, width=100)
        return run_demo(options, console), console.export_text()

    def write(self, path: Path, count: int) -> Path:
        path.write_text("\n".join(q.model_dump_json() for q in questions(count)))
        return path

    def test_models_by_provider_and_a_file_of_questions(
        self, monkeypatch: Any, server: OpenAIServer, tmp_path: Path
    ) -> None:
        server.script = knowing()
        data = self.write(tmp_path / "questions.jsonl", 36)
        options = self.options(data=data, questions=36, log=tmp_path / "log.jsonl")
        found, text = self.run(monkeypatch, server, options)
        assert len(found["rows"]) == 36
        assert found["summary"]["questions"] == 24
        assert "36 questions, at most" in text
        assert "Learning: 12 questions" in text
        assert "AutoMix was right on" in text
        log = RoutingLog.read(tmp_path / "log.jsonl")
        assert len(log) == 36
        assert all(len(query.answers) == 2 for query in log)

    def test_the_time_runs_out(
        self, monkeypatch: Any, server: OpenAIServer, tmp_path: Path
    ) -> None:
        server.script = knowing()
        data = self.write(tmp_path / "questions.jsonl", 40)
        found, text = self.run(monkeypatch, server, self.options(data=data, minutes=0.0001))
        assert len(found["rows"]) == 8, "a slow machine is asked fewer questions, and waited for"
        assert found["summary"]["questions"] >= 1
        assert "AutoMix was right on" in text

    def test_ctrl_c_sums_up_what_was_done(
        self, monkeypatch: Any, server: OpenAIServer, tmp_path: Path
    ) -> None:
        script = knowing()
        data = self.write(tmp_path / "questions.jsonl", 12)

        def interrupted(body: dict[str, Any]) -> Any:
            if len(server.requests) == 29:
                os.kill(os.getpid(), signal.SIGINT)
            return script(body)

        server.script = interrupted
        found, text = self.run(monkeypatch, server, self.options(data=data, questions=12))
        assert found["about"]["interrupted"]
        assert 4 < len(found["rows"]) < 12
        assert found["summary"]["questions"] == len(found["rows"]) - 4
        assert "Stopped after" in text

    def test_a_live_run_learns_from_the_recording_of_the_same_models(
        self, monkeypatch: Any, server: OpenAIServer, recording: Recording, pair: ModelPair
    ) -> None:
        """Only what the mix asks is asked live, and only on questions that were not fitted on."""
        monkeypatch.setattr(demo_run, "recorded_questions", lambda _: questions(COUNT))
        console = Console(record=True, width=80)
        under_way = demo_run._Run(DemoOptions(), console, Demo(pair), seed=7)
        found = under_way.route_after(recording, 10)
        parts = Counter(row["part"] for row in found["rows"])
        assert parts == {"fit": 30, "routed": 10}
        assert {
            int(re.findall(r"Question (\d+)", str(body["messages"]))[-1])
            for body in server.requests
        } == set(range(30, 40))
        assert not any(is_check(body) for body in server.requests)
        text = " ".join(console.export_text().split())
        assert "Learned from recorded answers to 30 questions" in text
        assert "10 questions cannot tell it from chance" in text or "more than chance" in text
        assert found["summary"]["checks"] == (), "one check is made live, so none are compared"

    def test_a_recording_that_was_stopped_goes_on(
        self, server: OpenAIServer, tmp_path: Path
    ) -> None:
        server.script = knowing()
        journal = tmp_path / "run.journal"

        def record(count: int) -> tuple[int, Recorder]:
            recorder = Recorder(journal=journal)
            small, large = (
                openai_model(name, server.base_url, "test", 7, recorder)
                for name in ("small", "large")
            )
            before = len(server.requests)
            list(Demo(ModelPair(small, large)).measure(questions(count)))
            return len(server.requests) - before, recorder

        assert record(4)[0] == 16
        with journal.open("a") as file:
            file.write('["half a li')
        asked, recorder = record(6)
        assert asked == 8, "four questions came from the journal"
        assert len(recorder.recording({}).calls) == 24

    def test_local_models_are_recorded_and_replayed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("xllamacpp", reason="needs the extra `local`")

        def short_checks(samples: int) -> dict[str, Verifier]:  # a tiny model reads few tokens
            every = make_checks(samples)
            return {name: every[name] for name in (AGREEMENT, LEAST_PROBABLE)}

        monkeypatch.setattr(run, "make_checks", short_checks)
        small, large = (str(tiny_gguf(tmp_path / f"{name}.gguf")) for name in ("small", "large"))
        options = DemoOptions(
            small=small,
            large=large,
            samples=2,
            data=self.write(tmp_path / "questions.jsonl", 4),
            questions=4,
            record=tmp_path / "run.json.gz",
        )
        live = run_demo(options, Console(record=True, width=80))
        assert not list(tmp_path.glob("*.journal")), "the recording is complete"
        recording = Recording.read(tmp_path / "run.json.gz")
        assert recording.about["questions"] == 4
        demo = Demo(replayed_pair(recording), samples=2)
        again = list(demo.measure(in_order(questions(4), 7)))
        assert [row["small"]["answer"] for row in live["rows"]] == [r.small.text for r in again]
        assert [row["checks"][AGREEMENT]["verdicts"] for row in live["rows"]] == [
            list(row.checks[AGREEMENT].found.verdicts) for row in again
        ]


class TestView:
    def test_a_question_is_cut_to_the_terminal_and_an_answer_to_its_share(
        self, replayed: Demo
    ) -> None:
        long = Question(id="x", question="Why " * 60 + "?", context="c", references=("r",))
        for row in (replayed.fitted[0], replayed.routed[0]):
            changed = Row(**{**vars(row), "question": long})
            for width in (60, 80, 120):
                console = Console(record=True, width=width)
                view.row(console, changed)
                lines = console.export_text().splitlines()
                assert len(lines) == (3 if row.part == "fit" else 2)
                assert len(lines[0]) == width
                assert lines[0].endswith("…")
                assert all(len(line) <= width for line in lines)

    @pytest.mark.parametrize("width", [80, 120])
    def test_no_cell_of_the_tables_is_cut(
        self, monkeypatch: Any, replayed: Demo, width: int
    ) -> None:
        from langchain_automix.local.demo import results  # noqa: PLC0415

        found = summarize(replayed)
        assert found is not None
        console = Console(record=True, width=width)
        results.show(console, found, ("qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"))
        assert "…" not in console.export_text()

    def test_the_remaining_time_moves_between_questions(self) -> None:
        assert view.remaining(5, None, 0, 10) is None
        assert view.remaining(10, 10, 2, 10) == 40
        assert view.remaining(13, 10, 2, 10) == 37
        assert (view.remaining(15, 10, 2, 10) or 0) > 35, "a slow question is not yet over"
        late = [view.remaining(10 + s, 10, 2, 3) or 0 for s in (20, 40, 80)]
        assert late == sorted(late)
        assert late[0] > 0


class TestRecording:
    async def test_local_servers_are_recorded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("xllamacpp", reason="needs the extra `local`")
        for name in ("HTTP_PROXY", "OPENAI_PROXY"):  # dead ones, which nothing may go through
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        small, large = (str(tiny_gguf(tmp_path / f"{name}.gguf")) for name in ("small", "large"))
        options = ModelOptions(small=small, large=large, samples=2, answer_tokens=4, record=True)
        with open_pair(options) as pair:
            live = await self.answers(pair)
            assert pair.recorder is not None
            recording = pair.recorder.recording({"small": "small", "large": "large", "seed": 7})
        with open_replay(recording) as pair:
            assert await self.answers(pair) == live

    @staticmethod
    async def answers(pair: ModelPair) -> list[Any]:
        two = pair.small.chat.model_copy(update={"n": 2})
        result = await two.agenerate([[HumanMessage("Two?")]])
        assert pair.large.count_tokens is not None
        return [
            [reply.text for reply in result.generations[0]],
            result.llm_output,
            pair.small.chat.invoke("Hi").text,
            [chunk.text for chunk in pair.large.chat.stream("Hi")],
            [chunk.text async for chunk in pair.large.chat.astream("Ho")],
            pair.large.count_tokens("one two"),
        ]

    @pytest.mark.parametrize(
        "content", [b"", b"{}", gzip.compress(b"{}", mtime=0), gzip.compress(b"[1", mtime=0)]
    )
    def test_not_a_recording(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "run.json.gz").write_bytes(content)
        with pytest.raises(AutoMixError, match=r"run.json.gz is not a recording"):
            Recording.read(tmp_path / "run.json.gz")


class TestShipped:
    def test_the_questions_are_enough(self) -> None:
        found = read_questions()
        assert len(found) >= 330
        assert len({question.context for question in found}) >= 60
        assert len(found) - fit_part(in_order(found, 7)) >= 220
        assert sum("unanswerable" in q.references for q in found) >= 5

    def test_every_literal_answer_stands_in_its_passage(self) -> None:
        literal = [
            q for q in read_questions() if q.kind in ("span", "number or date", "who or where")
        ]
        assert len(literal) > 300
        for question in literal:
            assert question.references[0].lower() in question.context.lower(), question.id

    def test_no_question_is_asked_twice_and_every_answer_accepts_itself(self) -> None:
        found = read_questions()
        assert len({(q.context, q.question) for q in found}) == len(found)
        for question in found:
            for reference in question.references:
                assert exact_match(reference, question.references) == 1

    def test_the_order_depends_on_the_seed_alone(self) -> None:
        found = read_questions()
        assert in_order(found, 1) == in_order(found, 1) != in_order(found, 2)
        assert sorted(q.id for q in in_order(found, 3)) == sorted(q.id for q in found)

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            (["{"], "line 1 is not JSON"),
            (['{"question": "a", "context": "b"}'], "line 1, field references"),
            (['{"question": " ", "context": "b", "references": ["c"]}'], "line 1, field question"),
            (['{"question": "a", "context": "b", "references": []}'], "line 1, field references"),
            (
                ['{"id": "x", "question": "a", "context": "b", "references": ["c"]}'] * 4,
                "'x' is given more than once",
            ),
            (['{"question": "a", "context": "b", "references": ["c"]}'] * 3, "needs at least 4"),
        ],
    )
    def test_questions_that_cannot_be_used(
        self, tmp_path: Path, lines: list[str], message: str
    ) -> None:
        (tmp_path / "q.jsonl").write_text("\n".join(lines))
        with pytest.raises(AutoMixError, match=message):
            read_questions(tmp_path / "q.jsonl")

    def test_the_shipped_file_is_the_default(self) -> None:
        assert DemoOptions().data is None
        assert read_questions() == read_questions(SHIPPED)

    def test_the_recording_replays(self) -> None:
        """The prompts are the recorded ones, and the run ends on real answers of real models."""
        console = Console(record=True, width=80)
        found = run_demo(DemoOptions(replay=True, questions=60), console)
        assert found["about"]["replay"]
        assert len(found["rows"]) == 60
        assert console.export_text().startswith("This is a replay")
        verdicts = [v for row in found["rows"] for v in row["checks"][FEW_SHOT]["verdicts"]]
        assert {True, False} <= set(verdicts)
        assert all(len(row["checks"][AGREEMENT]["verdicts"]) in (0, 4) for row in found["rows"])
        scores = [row["checks"][LEAST_PROBABLE]["confidence"] for row in found["rows"]]
        assert all(0 <= score <= 1 for score in scores if score is not None)
        assert len(set(scores)) > 30
        assert all(row["small"]["seconds"] > 0 for row in found["rows"])

    def test_the_recording_holds_every_question(self) -> None:
        recording, found = Recording.read(), read_questions()
        demo = Demo(replayed_pair(recording), samples=recording.about["samples"])
        rows = list(demo.measure(in_order(found, recording.about["seed"])))
        assert len(rows) == recording.about["questions"] == len(found)

    def test_a_replay_loads_no_provider_and_no_server(self) -> None:
        program = (
            "import sys\n"
            "sys.modules.update(dict.fromkeys(\n"
            "    ['langchain_openai', 'openai', 'xllamacpp', 'jinja2', 'platformdirs']))\n"
            "from rich.console import Console\n"
            "from langchain_automix.cli.demo_run import run_demo\n"
            "from langchain_automix.cli.options import DemoOptions\n"
            "found = run_demo(DemoOptions(replay=True, questions=12), Console())\n"
            "assert len(found['rows']) == 12\n"
        )
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


class TestGrading:
    @pytest.mark.parametrize(
        ("answer", "references", "grade"),
        [
            ("The Eiffel Tower.", ["eiffel tower"], 1.0),
            ("Eiffel", ["eiffel tower"], 0.0),
            ("1,859", ["1859"], 1.0),
            ("", ["x"], 0.0),
        ],
    )
    def test_exact_match(self, answer: str, references: list[str], grade: float) -> None:
        assert exact_match(answer, references) == grade

    def test_token_f1(self) -> None:
        assert token_f1("the old tower", ["tower of old"]) == pytest.approx(0.8)
        assert token_f1("nothing", ["tower", "bridge"]) == 0.0
        assert token_f1("", [""]) == 1.0
