"""Every block of code on the site and in the README is run, or says why it is not."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from langsmith.utils import get_env_var
from pytest_examples import CodeExample

from langchain_automix.cli.app import app, main
from langchain_automix.local.demo.questions import SHIPPED, read_questions
from langchain_automix.local.models import replayed_pair
from langchain_automix.local.recording import Recording
from tests.benchmarks.__main__ import PARTS
from tests.site.blocks import PAGES, ROOT, commands, python_blocks, reasons
from tests.site.namespaces import ADDRESSES, LARGE, SMALL, given, on_langsmith, script, write_files
from tests.support.servers.langsmith_server import LangSmithServer
from tests.support.servers.ollama_server import OllamaServer
from tests.support.servers.openai_server import OpenAIServer

pytestmark = pytest.mark.filterwarnings("ignore")

README = ROOT / "README.md"
MODELS = ("--small", f"openai:{SMALL}", "--large", f"openai:{LARGE}")
ASKING = ("calibrate", "ask", "compare-verifiers")
RUN = {"calibrate", "fit", "evaluate", "show", "report", "ask"}
"""Commands that are run; others are only read, as the program does."""

NOT_RUN = 3
"""Blocks of the whole site that may say why they are not run."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    write_files(folder)
    return folder


@pytest.fixture
def place(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: OpenAIServer
) -> Iterator[Path]:
    """Stand in a folder of a reader's, with their providers on 127.0.0.1."""
    folder = tmp_path / "reader"
    shutil.copytree(files, folder)
    monkeypatch.chdir(folder)
    server.script = script
    with OllamaServer() as ollama:
        ollama.script = script
        for name, value in {
            "OPENAI_BASE_URL": server.base_url,
            "OPENAI_API_KEY": "test",
            "OLLAMA_HOST": ollama.base_url,
            "TEAM_A_KEY": "0123456789abcdef",
            "COLUMNS": "80",
        }.items():
            monkeypatch.setenv(name, value)
        yield folder


@pytest.fixture
def langsmith(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have LangSmith on 127.0.0.1, with a project of traces and a data set."""
    with LangSmithServer() as ls:
        monkeypatch.setenv("LANGSMITH_ENDPOINT", ls.client.api_url)
        monkeypatch.setenv("LANGSMITH_API_KEY", "test")
        forget_environment()
        on_langsmith(ls, given()["chain"])
        yield
    forget_environment()


def forget_environment() -> None:
    """Have LangSmith's client, which reads each variable once, read the environment anew."""
    cached: Any = get_env_var
    cached.cache_clear()


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def reported() -> set[tuple[str, ...]]:
    """Return the reports that were made: they take seconds, and several pages show the same."""
    return set()


WITH_PYTHON = [page for page in PAGES if python_blocks(page) and page != README]
WITH_COMMANDS = [page for page in PAGES if commands(page, "automix")]


def run(example: CodeExample, names: dict[str, Any]) -> str:
    """Run a block among names, and return what it prints; an error points into the page."""
    # Not by pytest-examples: pytest 9 cannot show the tracebacks that it makes.
    above = "\n" * example.start_line
    code = compile(above + example.source, str(example.path), "exec", dont_inherit=True)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, names)
    return printed.getvalue()


@pytest.mark.parametrize("page", WITH_PYTHON, ids=named)
def test_python_runs(
    page: Path, place: Path, server: OpenAIServer, request: pytest.FixtureRequest
) -> None:
    names = given()
    text = page.read_text("utf-8")
    if 'out="log.jsonl"' in text:
        (place / "log.jsonl").unlink()
    if "langsmith(" in text:
        request.getfixturevalue("langsmith")
    for example in python_blocks(page):
        example.source = ADDRESSES.sub(server.base_url, example.source)
        run(example, names)


def test_what_the_readme_prints(place: Path) -> None:
    """Its chain is run with two recorded models, and prints to the letter what stands there."""
    pair = replayed_pair(Recording.read())
    prices = {
        pair.small.name: {"input": 0.05, "output": 0.25},
        pair.large.name: {"input": 1.25, "output": 6.25},
    }
    [asked] = [each for each in read_questions(SHIPPED) if each.id == "one-hand-clock-4"]
    first, *others = python_blocks(README)
    models = f'ChatOpenAI(model="{SMALL}"), ChatOpenAI(model="{LARGE}")'
    assert models in first.source
    assert asked.question in first.source
    first.source = first.source.replace(models, "recorded")
    first.source = first.source.replace("prompt=prompt)", "prompt=prompt, prices=prices)")
    names: dict[str, Any] = {
        **given(),
        "recorded": (pair.small.chat, pair.large.chat),
        "prices": prices,
        "passage": asked.context,
    }
    printed = run(first, names)
    shown = re.search(r"```text\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert shown is not None
    assert printed.strip() == shown[1].strip()
    names |= {name: given()[name] for name in ("small", "large")}
    for example in others:
        run(example, names)


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=named)
def test_commands_run(
    page: Path,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    reported: set[tuple[str, ...]],
) -> None:
    """What asks models has two by name, and is approved."""
    if any(words[0] == "calibrate" for words in commands(page, "automix")):
        for name in ("log.jsonl", "policy.json"):
            (place / name).unlink()
    for words in commands(page, "automix"):
        elsewhere = "--ray" in words or "sqlite:" in " ".join(words)  # what other tests have
        if words[0] not in RUN or elsewhere or tuple(words) in reported:
            understood(words)
            continue
        reported |= {tuple(words)} if words[0] == "report" else set()
        more = [*MODELS] if words[0] in ASKING and "--small" not in words else []
        more += ["--yes"] if words[0] == "calibrate" else []
        monkeypatch.setattr(sys, "argv", ["automix", *words, *more])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert not stopped.value.code, (words, capsys.readouterr().err)


def understood(words: list[str]) -> None:
    """Read a command as the program does, without running it."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("automix", list(words))
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)


def test_few_blocks_are_not_run() -> None:
    found = [reason for page in PAGES for reason in reasons(page)]
    assert len(found) <= NOT_RUN, found


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_what_is_to_be_made_can_be_made(page: Path) -> None:
    """Every target of make, and every part of the benchmark, that a page names."""
    text = page.read_text("utf-8")
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    asked = set(re.findall(r"`make ([a-z]+)", text)) | {
        words[0] for words in commands(page, "make") if words
    }
    assert asked <= targets
    assert set(re.findall(r"--only ([a-z-]+)", text)) <= set(PARTS)
