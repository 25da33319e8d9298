"""The demo: its run on scripted models over HTTP, its figures by hand, its recordings."""

from __future__ import annotations

import gzip
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from rich.console import Console

from langchain_automix import AutoMixError, RoutingLog
from langchain_automix.calibration.graders.text import exact_match, token_f1
from langchain_automix.cli.demo_run import run_demo
from langchain_automix.cli.options import DemoOptions
from langchain_automix.local.demo.questions import SHIPPED, Question, in_order, read_questions
from langchain_automix.local.demo.run import Demo, fit_half, routing_log
from langchain_automix.local.demo.summary import summarize
from langchain_automix.local.models import (
    Model,
    ModelOptions,
    ModelPair,
    open_pair,
    open_replay,
    openai_model,
)
from langchain_automix.local.recording import Recorder, Recording
from tests.local.test_server import child_of, tiny_gguf
from tests.support.servers.openai_server import ACCEPT, REJECT, OpenAIServer, is_check


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


def knowing(small_knows: set[int]) -> Any:
    """The small model is right on some questions, and its check knows; the large on all."""

    def script(body: dict[str, Any]) -> list[str]:
        asked = body["messages"][-1]["content"].partition("Question: Question ")[2]
        number = int(asked.partition("?")[0] or -1)  # the warm-up asks something else
        if is_check(body):
            return [ACCEPT if number in small_knows else REJECT] * (body.get("n") or 1)
        right = body["model"] == "large" or number in small_knows
        return [f"right {number}" if right else "wrong"]

    return script


@pytest.fixture
def pair(server: OpenAIServer) -> ModelPair:
    server.script = knowing({0, 1, 2, 5, 6, 7})
    ticks = iter(range(10**6))
    small, large = (Model(name, server.model(name)) for name in ("small", "large"))
    return ModelPair(small, large, clock=lambda: float(next(ticks)))


class TestRun:
    def test_one_half_is_fitted_on_and_the_other_routed(
        self, server: OpenAIServer, pair: ModelPair
    ) -> None:
        demo = Demo(pair)
        rows = list(demo.run(questions(10)))
        assert [row.half for row in rows] == ["fit"] * 4 + ["report"] * 6
        assert demo.router is not None
        assert demo.router.policy.fit.queries == 4
        assert [row.record["escalated"] for row in rows[4:]] == [
            True,
            False,
            False,
            False,
            True,
            True,
        ]
        assert all(row.final.correct for row in rows)
        # Each model answers each question once, and each answer of the small one is checked.
        asked = [(body["model"], is_check(body)) for body in server.requests]
        assert {kind: asked.count(kind) for kind in set(asked)} == {
            ("small", False): 10,
            ("small", True): 10,
            ("large", False): 10,
        }

    def test_what_is_spent_is_what_was_billed(self, server: OpenAIServer, pair: ModelPair) -> None:
        rows = list(Demo(pair).run(questions(6)))
        parts = [p for row in rows for p in (row.small.spent, row.check_spent, row.large.spent)]
        for side in ("prompt_tokens", "completion_tokens"):
            spent = [p.tokens_in if side == "prompt_tokens" else p.tokens_out for p in parts]
            assert sum(spent) == sum(billed[side] for billed in server.billed)
        assert all(part.seconds > 0 for part in parts)

    def test_it_goes_on_where_it_was(self, pair: ModelPair) -> None:
        demo = Demo(pair)
        first = next(demo.run(questions(6)))
        rest = list(demo.run(questions(6)))
        assert [row.question.id for row in [first, *rest]] == [f"q{i}" for i in range(6)]

    def test_a_failed_call_is_one_error(self, server: OpenAIServer, pair: ModelPair) -> None:
        server.script = lambda _: 500
        with pytest.raises(AutoMixError, match=r"A model call failed: .*scripted"):
            list(Demo(pair).run(questions(4)))

    def test_one_that_the_mix_would_go_on_from_is_an_error_too(
        self, server: OpenAIServer, pair: ModelPair
    ) -> None:
        script = server.script
        server.script = lambda body: 500 if body["model"] == "small" else script(body)
        with pytest.raises(AutoMixError, match=r"A model call failed: \w+ of small \(draft\)"):
            list(Demo(pair).run(questions(4)))

    @pytest.mark.skipif(os.name != "posix", reason="sends signals")
    def test_a_server_that_dies_in_between_is_named(self, tmp_path: Path) -> None:
        pytest.importorskip("xllamacpp", reason="needs the extra `local`")
        files = [tiny_gguf(tmp_path / f"{name}.gguf") for name in ("one", "two")]
        with open_pair(ModelOptions(small=str(files[0]), large=str(files[1]), samples=1)) as opened:
            check = opened.large.check
            os.kill(child_of(check.__self__), signal.SIGKILL)  # type: ignore[attr-defined]
            with pytest.raises(AutoMixError, match="model server 'two' died with exit code -9"):
                list(Demo(opened, samples=1).run(questions(4)))

    def test_no_passage_is_in_both_halves(self) -> None:
        assert fit_half(questions(10, per_passage=3)) == 6
        assert fit_half(questions(10, per_passage=10)) == 5
        assert fit_half(questions(4, per_passage=1)) == 2


class TestSummary:
    def test_figures_by_hand(self, pair: ModelPair) -> None:
        rows = list(Demo(pair, price_ratio=17).run(questions(10)))
        found = summarize(rows, pair, 17)
        assert found is not None
        accuracies = {way.name: way.accuracy for way in found.ways}
        assert accuracies == {"always small": 0.5, "always large": 1.0, "AutoMix": 1.0}
        assert found.confidence_auroc == 1.0
        assert (found.fitted_on, found.questions, found.escalation_rate) == (4, 6, 0.5)
        assert (found.verification_samples, found.invalid_verdicts) == (8.0, 0.0)
        assert [mixed.price_ratio for mixed in found.mixed][-3:] == [10, 17, 60]
        for mixed in found.mixed[-3:]:
            assert mixed.accuracy == 1.0
            assert mixed.escalation_rate == 0.5
        dear = found.mixed[-1]
        assert dear.random_mix == pytest.approx(
            0.5 + 0.5 * (dear.cost - 1 / 60) / (1 - 1 / 60), abs=0.02
        )
        assert dear.verdict == "yes"
        json.dumps(found.as_dict())

    def test_nothing_routed_yet(self, pair: ModelPair) -> None:
        rows = list(Demo(pair).run(questions(10)))
        assert summarize([], pair, 17) is None
        found = summarize(rows[:4], pair, 17)
        assert found is not None
        assert [way.name for way in found.ways] == ["always small", "always large"]
        assert found.ways[0].accuracy == 0.75
        assert (found.escalation_rate, found.mixed) == (None, ())

    def test_the_log_holds_the_run(self, pair: ModelPair) -> None:
        rows = list(Demo(pair).run(questions(4)))
        log = routing_log(rows, pair, None)
        assert log.models == ("small", "large")
        assert log.currency == "second"
        check = log[0].answers[0].verification
        assert check is not None
        assert check.total_cost == pytest.approx(rows[0].check_spent.seconds)


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
        server.script = knowing({0, 1, 2})
        data = self.write(tmp_path / "questions.jsonl", 8)
        options = self.options(data=data, questions=8, log=tmp_path / "log.jsonl")
        found, text = self.run(monkeypatch, server, options)
        assert len(found["rows"]) == 8
        assert found["summary"]["questions"] == 4
        assert "8 questions, about" in text
        assert "Did mixing pay" in text or "no seconds to save" in text
        assert len(RoutingLog.read(tmp_path / "log.jsonl")) == 8

    def test_the_time_runs_out(
        self, monkeypatch: Any, server: OpenAIServer, tmp_path: Path
    ) -> None:
        server.script = knowing({0, 1, 2})
        data = self.write(tmp_path / "questions.jsonl", 40)
        found, _ = self.run(monkeypatch, server, self.options(data=data, minutes=0.0001))
        assert 2 <= len(found["rows"]) < 8
        assert found["summary"]["questions"] >= 1

    def test_ctrl_c_sums_up_what_was_done(
        self, monkeypatch: Any, server: OpenAIServer, tmp_path: Path
    ) -> None:
        script = knowing({0, 1, 2})
        data = self.write(tmp_path / "questions.jsonl", 12)

        def interrupted(body: dict[str, Any]) -> Any:
            if len(server.requests) == 29:
                os.kill(os.getpid(), signal.SIGINT)
            return script(body)

        server.script = interrupted
        found, text = self.run(monkeypatch, server, self.options(data=data, questions=12))
        assert found["about"]["interrupted"]
        assert 6 < len(found["rows"]) < 12
        assert found["summary"]["questions"] == len(found["rows"]) - 6
        assert "Stopped after" in text


class TestRecording:
    def test_a_recorded_run_comes_back(self, server: OpenAIServer, tmp_path: Path) -> None:
        server.script = knowing({0, 1, 2})
        recorder = Recorder()
        small, large = (
            openai_model(name, server.base_url, "test", 7, recorder) for name in ("small", "large")
        )
        live = list(Demo(ModelPair(small, large)).run(questions(6)))
        about = {"small": "small", "large": "large", "seed": 7}
        recorder.recording(about).write(tmp_path / "run.json.gz")
        asked = len(server.requests)
        recording = Recording.read(tmp_path / "run.json.gz")
        with open_replay(recording) as pair:
            again = list(Demo(pair).run(questions(6)))
            assert pair.clock() == pytest.approx(
                sum(call["seconds"] for calls in recording.calls.values() for call in calls),
                rel=0.5,
            )
        assert len(server.requests) == asked, "a replay asks no model"
        for before, after in zip(live, again, strict=True):
            assert before.small.text == after.small.text
            assert before.check.verdicts == after.check.verdicts
            assert before.record == after.record

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

    def test_a_request_that_was_not_recorded(self) -> None:
        about = {"small": "small", "large": "large", "seed": 7}
        with (
            open_replay(Recording(about, {})) as pair,
            pytest.raises(AutoMixError, match="not in the recording"),
        ):
            list(Demo(pair).run(questions(4)))

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
        assert len(found) >= 40
        assert len({question.context for question in found}) >= 10
        assert sum(q.references == ("unanswerable",) for q in found) >= 5

    def test_every_literal_answer_stands_in_its_passage(self) -> None:
        for question in read_questions():
            if question.kind in ("easy", "medium"):
                context = question.context.lower()
                assert any(r.lower() in context for r in question.references), question.id

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
        found = run_demo(DemoOptions(replay=True, questions=10), console)
        assert found["about"]["replay"]
        assert len(found["rows"]) == 10
        assert found["summary"]["verification_samples"] == 8.0
        assert console.export_text().startswith("This is a replay")
        verdicts = [verdict for row in found["rows"] for verdict in row["check"]["verdicts"]]
        assert {True, False} <= set(verdicts)
        assert all(row["check"]["seconds"] > 1 for row in found["rows"])


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
