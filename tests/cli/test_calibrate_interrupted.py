"""How `automix calibrate` ends early: by Ctrl-C, a kill, a dead server, or bad input."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from langchain_automix import AutoMixError, AutoMixRunnable, RoutingLog, SelfVerifier
from langchain_automix.calibration.journal import Journal
from langchain_automix.cli.calibration import Calibration
from langchain_automix.cli.checks import build_check
from langchain_automix.cli.options import CalibrationOptions
from langchain_automix.local.models import Model, ModelOptions
from tests.support.builders.calibrating import (  # noqa: F401
    MODELS,
    PROCESS,
    Run,
    calibrated_fixture,
    flat,
    folder_fixture,
    run_fixture,
    script,
    write,
)
from tests.support.builders.waiting import Gate, wait_for
from tests.support.servers.openai_server import OpenAIServer

COMMAND = [*PROCESS, "calibrate", "examples.jsonl", "--out", "log.jsonl", *MODELS]
COMMAND += ["--check", "few-shot", "--prices", "prices.json", "--yes", "--concurrency", "4"]
IN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals and terminals of POSIX")


def wait_for_requests(server: OpenAIServer, process: subprocess.Popen[Any], count: int) -> None:
    """Wait until a process that still runs has sent so many requests."""
    wait_for(lambda: len(server.requests) >= count or process.poll() is not None)
    assert process.poll() is None


class TestStops:
    @pytest.fixture
    def started(self, folder: Path, server: OpenAIServer) -> Iterator[subprocess.Popen[str]]:
        write(folder / "examples.jsonl", 60, answer="Turku")
        server.delay = 0.05
        with subprocess.Popen(
            COMMAND,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            wait_for_requests(server, process, 20)
            yield process
            process.kill()

    def finish(self, calibrated: Run, server: OpenAIServer, most: int) -> None:
        server.delay = 0.0
        code, out, _ = calibrated("--yes")
        assert code == 0
        assert "60 of 60 examples finished." in out
        assert 180 <= len(server.requests) <= 180 + most
        assert len(RoutingLog.read("log.jsonl")) == 60

    def test_an_interrupt(
        self, started: subprocess.Popen[str], calibrated: Run, server: OpenAIServer
    ) -> None:
        started.send_signal(signal.SIGINT)
        out, err = started.communicate(timeout=60)
        assert started.returncode == 130
        assert "Stopping: calls under way end first" in err
        assert "Interrupted. Run the same command again to resume." in flat(out)
        assert "Traceback" not in err
        assert len(RoutingLog.read("log.jsonl")) > 0
        self.finish(calibrated, server, most=0)

    def test_two_interrupts(
        self, started: subprocess.Popen[str], calibrated: Run, server: OpenAIServer
    ) -> None:
        server.delay = gate = Gate(number=4)  # as many as are under way at once
        gate.wait()
        started.send_signal(signal.SIGINT)
        assert started.stderr is not None
        while "Stopping" not in started.stderr.readline():  # two that arrive together are one
            assert started.poll() is None
        started.send_signal(signal.SIGINT)
        _, err = started.communicate(timeout=60)
        assert started.returncode == 130
        assert "Traceback" not in err
        gate.open()
        self.finish(calibrated, server, most=4)

    @POSIX
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_ends_it_once_the_log_is_written(
        self,
        started: subprocess.Popen[str],
        calibrated: Run,
        server: OpenAIServer,
        number: signal.Signals,
    ) -> None:
        started.send_signal(number)
        out, err = started.communicate(timeout=60)
        assert started.returncode == -number, "as if nobody had handled it"
        assert f"Stopped by {number.name}." in flat(out)
        assert "Traceback" not in err
        assert len(RoutingLog.read("log.jsonl")) > 0
        self.finish(calibrated, server, most=0)

    @POSIX
    def test_a_signal_before_an_example_is_finished(
        self, folder: Path, server: OpenAIServer
    ) -> None:
        server.delay = 2.0
        with subprocess.Popen(
            COMMAND, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            wait_for_requests(server, process, 4)
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGTERM
        assert "run the same command again to resume" in err
        assert "Traceback" not in err
        with Journal(folder / "log.jsonl.journal") as journal:
            assert journal.calls == len(server.requests) > 0

    @POSIX
    def test_a_terminal_that_is_closed(
        self, folder: Path, calibrated: Run, server: OpenAIServer
    ) -> None:
        write(folder / "examples.jsonl", 60, answer="Turku")
        server.delay = 0.05
        terminal, its_end = os.openpty()
        with subprocess.Popen(
            [sys.executable, "-c", IN_TERMINAL, *COMMAND],
            stdin=its_end,
            stdout=its_end,
            stderr=its_end,
            start_new_session=True,
        ) as process:
            os.close(its_end)
            wait_for_requests(server, process, 20)
            os.close(terminal)
            process.wait(timeout=60)
        assert process.returncode == -signal.SIGHUP
        assert len(RoutingLog.read("log.jsonl")) > 0
        self.finish(calibrated, server, most=0)

    def test_a_kill(
        self, started: subprocess.Popen[str], calibrated: Run, server: OpenAIServer
    ) -> None:
        started.kill()
        started.communicate(timeout=60)
        self.finish(calibrated, server, most=4)


class TestDeadServer:
    def test_it_ends_with_what_is_known_of_it(self, folder: Path, server: OpenAIServer) -> None:
        def died() -> None:
            raise AutoMixError("The model server 'small' died with exit code 9; its log ends.")

        server.script = lambda body: 500 if len(server.requests) > 6 else script(body)
        chats = [server.model(name) for name in ("small", "large")]
        mix = AutoMixRunnable(models=chats, verifier=SelfVerifier(samples=8))
        calibration = Calibration(
            CalibrationOptions(yes=True),
            ModelOptions(),
            partial(build_check, "few-shot"),
            "examples.jsonl",
            Path("log.jsonl"),
        )
        calibration._models = [Model(str(n), chat, died) for n, chat in enumerate(chats)]
        with pytest.raises(AutoMixError, match="exit code 9; its log ends. What was finished"):
            calibration.calibrate(mix, "seconds")
        assert len(server.requests) < 12, "no other example is tried"
        server.script = script
        server.requests.clear()
        calibration._models = ()
        assert calibration.calibrate(mix, "seconds").written.queries == 12
        assert len(server.requests) == 36 - 6


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (("--quality", "good"), "There is no grader 'good'. Give exact_match"),
            (("--quality", "none.py:grade"), "The grader none.py cannot be read"),
            (("--quality", "broken.py:grade"), "cannot be run: ZeroDivisionError"),
            (("--quality", "mine.py:other"), "There is no function 'other' in mine.py"),
            (("--quality", "judge:nobody:x"), "The model 'nobody:x' cannot be opened"),
            (("--prompt", "none.txt"), "The prompt none.txt cannot be read"),
            (("--prompt", "empty.txt"), "has no {question} in it"),
            (("--prompt", "other.txt"), "has {place} in it, which example q1 does not have"),
            (("--prompt", "brace.txt"), "is not a template"),
            (("--question", "frage"), "--question NAME"),
            (("--max-spend", "0"), "--max-spend must be above 0"),
            (("--max-spend", "nan"), "--max-spend must be above 0"),
            (("--cost-weight", "3"), "--cost-weight needs --adaptive"),
            (("--adaptive", "--cost-weight", "3", "--max-cost", "1"), "Give one goal"),
            (("--middle", "openai:small"), "is given twice"),
            (("--middle", "nothing"), "There is no model 'nothing'"),
            (("--without-references", "grade", "--limit", "13"), "cannot grade without"),
            (("--out", "log.txt"), "has another format"),
            (("--out", "none/log.jsonl"), "cannot be written"),
            (("--out", "taken.jsonl"), "was not written by a calibration"),
            (("--out", "examples.jsonl"), "would overwrite the examples"),
        ],
    )
    def test_one_line(
        self,
        calibrated: Run,
        folder: Path,
        server: OpenAIServer,
        arguments: tuple[str, ...],
        says: str,
    ) -> None:
        (folder / "taken.jsonl").write_text("mine")
        (folder / "empty.txt").write_text("Answer.")
        (folder / "other.txt").write_text("{question} {place}")
        (folder / "brace.txt").write_text("{question} {")
        (folder / "mine.py").write_text("def grade(answer, references): return 1.0")
        (folder / "broken.py").write_text("1 / 0")
        with (folder / "examples.jsonl").open("a") as file:
            file.write('{"question": "And ship 99?"}\n')
        code, out, err = calibrated("--yes", *arguments)
        assert (code, out) == (2, "")
        assert says in err
        assert err.startswith("automix: ")
        assert len(err.splitlines()) == 1
        assert not server.requests
        assert (folder / "taken.jsonl").read_text() == "mine"

    def test_prices_that_cannot_be_read(self, calibrated: Run, folder: Path) -> None:
        (folder / "prices.json").unlink()
        code, out, err = calibrated("--yes")
        assert (code, out) == (2, "")
        assert err == (
            "automix: The table of prices prices.json cannot be read: No such file or directory.\n"
        )

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("{", "are not JSON"),
            ("[]", "prices is a list; pass a table"),
            ('{"small": {"input": 1}}', "small"),
        ],
    )
    def test_prices(self, calibrated: Run, folder: Path, text: str, says: str) -> None:
        (folder / "prices.json").write_text(text)
        code, out, err = calibrated("--yes")
        assert (code, out) == (2, "")
        assert "prices.json" in err
        assert says in err
        assert len(err.splitlines()) == 1

    def test_no_price_list(self, run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As after `make demo`, which does not install the extra."""
        command = "calibrate", "examples.jsonl", "--out", "log.jsonl", *MODELS, "--yes"
        assert "langchain-automix[prices]" not in run(*command)[2]
        monkeypatch.setitem(sys.modules, "genai_prices", None)
        assert "pip install 'langchain-automix[prices]" in run(*command)[2]

    def test_no_price(self, run: Run, folder: Path) -> None:
        code, _, err = run("calibrate", "examples.jsonl", "--out", "log.jsonl", *MODELS, "--yes")
        assert code == 2
        assert "The price of small and large is not known" in err
        assert "--unit seconds" in err
        assert not list(folder.glob("log*"))

    def test_nothing_works(self, calibrated: Run, server: OpenAIServer) -> None:
        server.script = lambda body: 401
        code, _, err = calibrated("--yes")
        assert code == 2
        assert "AuthenticationError" in err
        assert "Traceback" not in err

    def test_local_models_are_counted_in_seconds(self, calibrated: Run, folder: Path) -> None:
        code, out, err = calibrated("--unit", "seconds", "--large", "none.gguf", "--yes")
        assert (code, out) == (2, "")
        assert "none.gguf cannot be read" in err
        (folder / "one.gguf").write_bytes(b"GGUF, and no model")
        models = ("--small", "one.gguf", "--large", "openai:large")
        code, out, err = calibrated(*models, "--yes")
        assert code == 2
        assert (
            "Costs are counted in seconds, because one.gguf on this machine has no price"
            in flat(out)
        )
        assert len(err.splitlines()) == 1
