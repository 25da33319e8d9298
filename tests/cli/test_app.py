"""The command line as its user meets it: exit codes, one clear line, JSON."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from langchain_automix import POMDPRouter, __version__, explain
from tests.support.builders.calibrating import command_line
from tests.support.builders.scripted_replies import Error
from tests.support.servers.openai_server import OpenAIServer, answering

WEIGHTS = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("COLUMNS", "200")
    return command_line(monkeypatch, capsys)


def test_version_and_help(run: Any) -> None:
    assert run("--version")[:2] == (0, f"{__version__}\n")
    code, out, _ = run("demo", "--help")
    assert code == 0
    assert "--replay" in out


class TestAsk:
    @pytest.fixture(autouse=True)
    def hosted(self, monkeypatch: pytest.MonkeyPatch, server: OpenAIServer) -> None:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "test")

    def test_the_answer_and_the_reason(
        self, run: Any, server: OpenAIServer, tmp_path: Path
    ) -> None:
        server.script = answering("Turku", "Helsinki")
        context = "The Halcyon was built in Turku."
        (tmp_path / "ships.txt").write_text(context, encoding="utf-8-sig")
        models = ("--small", "openai:small", "--large", "openai:large")
        code, out, _ = run("ask", "Where?", "--context", tmp_path / "ships.txt", *models)
        assert code == 0
        assert out.splitlines()[0] == "Turku"
        assert "(small) 8 of 8 verdicts accept the answer" in out
        asked = [each["messages"][-1]["content"] for each in (*server.requests, *server.checks)]
        assert all(context in content and "\ufeff" not in content for content in asked)

    def test_as_json_and_with_a_policy(
        self, run: Any, server: OpenAIServer, tmp_path: Path
    ) -> None:
        server.script = answering("Turku", "Helsinki", verdicts="r")
        POMDPRouter().save(tmp_path / "policy.json")
        models = ("--small", "openai:small", "--large", "openai:large")
        code, out, _ = run("ask", "Where?", "--policy", tmp_path / "policy.json", "--json", *models)
        assert code == 0
        found = json.loads(out)
        assert found["answer"] == "Helsinki"
        assert found["automix"]["escalated"]

    def test_the_decision_explained(self, run: Any, server: OpenAIServer) -> None:
        server.script = answering("Turku", "Helsinki", verdicts="r")
        models = ("--small", "openai:small", "--large", "openai:large")
        code, out, _ = run("ask", "Where?", "--explain", *models)
        assert code == 0
        assert out.startswith("Helsinki\n\nThe answer of large was kept, after an escalation.")
        assert "Verdicts   --------" in out
        code, as_json, _ = run("ask", "Where?", "--explain", "--json", *models)
        assert code == 0
        found = json.loads(as_json)
        assert explain(found) == found["explanation"]
        assert found["explanation"] in out

    @pytest.mark.parametrize(
        "key", ["a-key-of-nobody-1", "sk-ant-api03-AbCdEf012345", "AIza" + 30 * "x1"]
    )
    def test_a_key_that_a_provider_echoes(
        self, run: Any, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch, key: str
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", key)
        server.script = lambda _: Error(401, {"error": {"message": f"Wrong key: {key}."}})
        code, out, err = run("ask", "Where?", "--small", "openai:a", "--large", "openai:b")
        assert code == 2
        assert "Wrong key: ***" in err
        assert key not in out + err

    def test_models_in_the_wrong_order_of_price(self, run: Any) -> None:
        pytest.importorskip("genai_prices")
        pair = ("--small", "openai:gpt-5.5", "--large", "openai:gpt-5.4-mini")
        code, out, err = run("ask", "Where?", *pair)
        assert (code, out) == (2, "")
        assert "swap them" in err
        assert len(err.splitlines()) == 1


class TestBadInput:
    def fails(self, run: Any, *arguments: object) -> str:
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("automix: ")
        assert len(err.splitlines()) == 1
        return str(err)

    def test_no_such_model(self, run: Any) -> None:
        assert "There is no model 'gpt'" in self.fails(run, "demo", "--small", "gpt")
        assert "cannot be opened" in self.fails(run, "demo", "--small", "nobody:gpt")

    def test_one_model_only(self, run: Any) -> None:
        message = self.fails(run, "demo", "--small", "openai:a", "--large", "openai:a")
        assert "needs different models" in message

    @pytest.mark.parametrize("value", ["0", "-3", "x"])
    def test_less_than_one_sample(self, run: Any, value: str) -> None:
        code, _, err = run("demo", "--samples", value)
        assert code == 2
        assert "--samples" in err

    def test_an_empty_question(self, run: Any) -> None:
        assert "The question is empty" in self.fails(run, "ask", "  ")

    def test_a_missing_weights_file(
        self, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "test")
        message = self.fails(run, "demo", "--weights", tmp_path / "none")
        assert "none does not exist" in message
        message = self.fails(run, "demo", "--small", tmp_path / "none.gguf", "--large", "openai:b")
        assert "none.gguf cannot be read" in message

    def test_a_truncated_weights_file(self, run: Any, tmp_path: Path) -> None:
        (tmp_path / WEIGHTS).write_bytes(b"GGUF and no more")
        message = self.fails(run, "demo", "--weights", tmp_path)
        assert "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32" in message
        assert "16 bytes instead of 491,400,064" in message

    def test_a_port_that_is_taken(self, run: Any, tmp_path: Path) -> None:
        pytest.importorskip("xllamacpp", reason="needs the extra `local`")
        files = [tmp_path / "one.gguf", tmp_path / "two.gguf"]
        for file in files:
            file.write_bytes(b"GGUF")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            models = ("--small", files[0], "--large", files[1])
            message = self.fails(run, "demo", *models, "--port", port)
        assert f"ort {port} " in message

    def test_a_policy_file_that_is_not_one(self, run: Any, tmp_path: Path) -> None:
        (tmp_path / "policy.json").write_text("__import__('os').system('true')")
        message = self.fails(run, "ask", "Where?", "--policy", tmp_path / "policy.json")
        assert "is not a policy file" in message

    def test_a_context_that_cannot_be_read(self, run: Any, tmp_path: Path) -> None:
        message = self.fails(run, "ask", "Where?", "--context", tmp_path / "none.txt")
        assert "none.txt cannot be read" in message

    def test_questions_that_cannot_be_used(self, run: Any, tmp_path: Path) -> None:
        (tmp_path / "q.jsonl").write_text('{"question": "a"}')
        message = self.fails(run, "demo", "--data", tmp_path / "q.jsonl")
        assert "q.jsonl, line 1, field context" in message
        assert "more than the 400" in self.fails(run, "demo", "--questions", 401)
        message = self.fails(run, "demo", "--questions", 300)
        assert "more than the 268 that the policy was not fitted to" in message

    @pytest.mark.parametrize("option", [("--seed", 3), ("--small", "openai:a"), ("--samples", 4)])
    def test_options_that_a_replay_has_no_use_for(self, run: Any, option: Any) -> None:
        message = self.fails(run, "demo", "--replay", *option)
        assert f"{option[0]} does nothing in a replay" in message

    def test_an_output_that_cannot_be_written(self, run: Any, tmp_path: Path) -> None:
        for path in (tmp_path, tmp_path / "none" / "log.jsonl"):
            assert "cannot be written" in self.fails(run, "demo", "--replay", "--log", path)

    @pytest.mark.parametrize("ratio", ["1", "nan", "inf", "cheap", "-2"])
    def test_a_price_ratio_that_is_none(self, run: Any, ratio: str) -> None:
        assert "--price-ratio" in self.fails(run, "demo", f"--price-ratio={ratio}")
