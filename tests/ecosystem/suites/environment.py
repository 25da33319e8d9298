"""Fetch other people's suites, and make the environment that they run in."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import venv
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[3]
PACKAGES = ("langchain", "langgraph", "langgraph-prebuilt", "deepagents")
# What their tests import beside the packages themselves.
TEST_TOOLS = (
    *("pytest>=8", "pytest-asyncio", "pytest-mock", "pytest-socket", "pytest-xdist", "syrupy"),
    *("blockbuster", "dirty-equals", "freezegun", "httpx", "langchain-anthropic"),
    *("langchain-openai", "langchain-tests", "langgraph-checkpoint-sqlite", "pytest-timeout"),
    *("langgraph-checkpoint-postgres", "psycopg[binary,pool]"),
)
# Not theirs to pass here: they ask other servers, or measure.
LEFT_OUT = ("integration_tests", "benchmarks", "evals")
# What a test file says that has to do with a chat model.
_ASKS = re.compile(r"ChatModel|CallingModel|create_\w*agent")


class CannotFetchError(Exception):
    """The package index gave no source distribution."""


def fetch(package: str, folder: Path) -> Path | str:
    """Return the folder of a package's tests in its source distribution, or that it holds none.

    Args:
        package: Its name on the package index.
        folder: Where it goes. One that is there already is not fetched again.

    Raises:
        CannotFetchError: There is none, or the index cannot be reached.
    """
    why = ""
    if not (found := _distributions(package, folder)):
        options = ["--quiet", "--no-deps", "--no-binary", package, "--dest", str(folder)]
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", *options, package],
            capture_output=True,
            text=True,
            check=False,
        )
        found = _distributions(package, folder)
        why = (done.stderr.strip().splitlines()[-1:] or ["pip gave no reason"])[0]
    if not found:
        raise CannotFetchError(f"pip fetched no source distribution ({why})")
    root = folder / found[0].name.removesuffix(".tar.gz")
    if not root.exists():
        with tarfile.open(found[0]) as archive:
            archive.extractall(folder, filter="data")
    if not any(root.glob("tests/**/test_*.py")):
        return f"{found[0].name} holds no tests"
    return root / "tests"


def _distributions(package: str, folder: Path) -> list[Path]:
    name = package.replace("-", "[-_]")
    return [each for each in folder.glob("*.tar.gz") if re.match(rf"{name}-\d", each.name)]


def make_environment(place: Path, suites: Mapping[str, Path]) -> str:
    """Return the Python of an environment with the packages, their tools, and this one.

    One that is there already gets this package anew, and nothing else.

    Raises:
        subprocess.CalledProcessError: The packages cannot be installed.
    """
    python = str(place / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if (made := place / "made").exists():
        subprocess.run([*install, "--no-deps", "--force-reinstall", str(ROOT)], check=True)
        return python
    venv.create(place, with_pip=True)
    subprocess.run([*install, f"{ROOT}[cli]", *suites], check=True)
    theirs = [tool for tests in suites.values() for tool in _test_group(tests)]
    tools = [*TEST_TOOLS, *theirs]
    if subprocess.run([*install, *tools], check=False).returncode:
        for tool in tools:  # one that cannot be installed leaves out what imports it
            subprocess.run([*install, tool], check=False)
    made.touch()
    return python


def _test_group(tests: Path) -> list[str]:
    """Return what a suite's own `test` group asks for; nothing where its project is not here."""
    project = next((each / "pyproject.toml" for each in tests.parents if _is_project(each)), None)
    if project is None:
        return []
    groups = tomllib.loads(project.read_text()).get("dependency-groups", {})
    return [each for each in groups.get("test", ()) if isinstance(each, str)]


def _is_project(folder: Path) -> bool:
    return (folder / "pyproject.toml").exists()


def files_that_ask(tests: Path) -> tuple[list[Path], int]:
    """Return the test files that have to do with a chat model, and how many there are in all."""
    found = [
        each
        for each in sorted(tests.rglob("test_*.py"))
        if not set(each.relative_to(tests).parts) & set(LEFT_OUT)
    ]
    return [each for each in found if _ASKS.search(each.read_text())], len(found)
