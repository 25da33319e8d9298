"""Try the oldest versions that pyproject.toml allows: `python -m tests.lowest` (`make lowest`).

Installs the package with each of its dependencies, and those of its extras, at the lower bound into
an environment in a temporary folder, and asks a mix by every door over a server on 127.0.0.1. Needs
nothing but Python and pip. What `local` and `cookbook` bring is left out: gigabytes of wheels.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
EXTRAS = ("cli", "prices", "parquet", "pandas", "plots", "report", "redis", "serve")
# What a user brings (the bound is that of `local`), and a package that langchain 1.2.9 brings: the
# newest one that its langgraph allows (1.0.13) cannot be imported with it.
BESIDE = ("langchain-openai>=1.0", "langgraph-prebuilt>=1.0.8")
MODULES = ("cli.app", "policy.data.tabular", "report.report", "mix.limits.stores", "serve.server")


def lower_bounds() -> list[str]:
    """Return every dependency of the package and its extras as `name==lower bound`."""
    project = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *BESIDE]
    wanted += [each for name in EXTRAS for each in extras[name]]
    found = (re.match(r"([A-Za-z0-9_.-]+)>=([0-9.]+)", each) for each in wanted)
    return sorted({f"{each[1]}=={each[2]}" for each in found if each})


def ask() -> None:
    """Import everything that is public, and ask a mix by every door."""
    import langchain_automix  # noqa: PLC0415  (in the environment made for it)

    for name in langchain_automix.__all__:
        getattr(langchain_automix, name)
    for name in MODULES:
        importlib.import_module(f"langchain_automix.{name}")

    from langchain.agents import create_agent  # noqa: PLC0415

    from tests.support.servers.openai_server import OpenAIServer, answering  # noqa: PLC0415

    def look(city: str) -> str:
        """Look a city up."""
        return city

    with OpenAIServer() as server:
        server.script = answering("By the sea.", "By the lake.")
        models: list[Any] = [server.model("small"), server.model("large")]
        fields: dict[str, Any] = {
            "models": models,
            "verifier": langchain_automix.SelfVerifier(samples=2),
            "router": langchain_automix.ThresholdRouter(threshold=0.5),
        }
        mix = langchain_automix.ChatAutoMix(**fields)
        inner = langchain_automix.AutoMixMiddleware(**fields)
        agents: list[Any] = [
            create_agent(mix, [look]),
            create_agent(models[1], [look], middleware=[inner]),
        ]
        asked = {"messages": [("human", "Where?")]}
        said = [
            langchain_automix.AutoMixRunnable(**fields).invoke("Where?"),
            mix.bind_tools([look]).invoke("Where?"),
            *(agent.invoke(asked)["messages"][-1] for agent in agents),
        ]
        _ask_served(mix)
    for message in said:
        if (message.text, message.response_metadata["automix"]["drawn"]) != ("By the sea.", 2):
            raise AssertionError(message)


def _ask_served(mix: Any) -> None:
    """Ask a mix behind OpenAI's protocol, whole, as a stream and wrongly."""
    from tests.support.servers.serving import served  # noqa: PLC0415

    with served({"mix": mix}) as running, running.client() as client:
        answers = [running.chat(), running.chat(stream=True), running.chat(n=2)]
        answers += [client.get(path) for path in ("/v1/models", "/openapi.json", "/readyz")]
        untyped = client.post("/v1/chat/completions", content=b"{}")
    found = [answer.status_code for answer in (*answers, untyped)]
    if found != [200, 200, 400, 200, 200, 200, 415]:
        raise AssertionError(found, [answer.text for answer in answers])


def main() -> int:
    """Install, ask, and say what was used."""
    if sys.argv[1:] == ["ask"]:
        ask()
        return 0
    with tempfile.TemporaryDirectory() as folder:
        venv.create(Path(folder), with_pip=True)
        python = str(Path(folder, "bin", "python"))
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        install += ["--no-compile"]  # a few modules of each package are imported, once
        bounds = lower_bounds()
        print("Installing", *bounds)  # noqa: T201
        for command in ([*install, str(ROOT), *bounds], [python, "-m", "tests.lowest", "ask"]):
            done = subprocess.run(command, cwd=ROOT, check=False)
            if done.returncode:
                return done.returncode
    print("The mix works with all of them, by every door.")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
