"""The files of `examples/deploy`: by their own linters, and whether they go together."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "examples" / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "docker-compose.yml").read_text())
CLUSTER: list[dict[str, Any]] = list(yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text()))
MIXES: dict[str, Any] = tomllib.loads((FOLDER / "mixes.toml").read_text())


def linter(name: str) -> str:
    """The path of a linter beside this Python; skip where it is not installed."""
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.mark.parametrize(
    "command",
    [
        ("hadolint", "Dockerfile"),
        ("yamllint", "--strict", "docker-compose.yml", "kubernetes.yaml"),
        ("compose-lint", "docker-compose.yml"),
        ("kubernetes-validate", "--strict", "--quiet", "kubernetes.yaml"),
    ],
    ids=lambda command: command[0],
)
def test_the_linters_find_nothing(command: tuple[str, ...]) -> None:
    name, *arguments = command
    run = subprocess.run(
        [linter(name), *arguments], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in CLUSTER if each["kind"] == kind}


def container(kind: str, name: str) -> dict[str, Any]:
    (only,) = of_kind(kind)[name]["spec"]["template"]["spec"]["containers"]
    return dict(only)


def test_every_store_is_a_service_in_both() -> None:
    (mix,) = MIXES["mixes"].values()
    urls = [urlsplit(mix["spend_limit"]["store"]), urlsplit(mix["learning"]["store"])]
    assert [url.scheme for url in urls] == ["redis", "postgresql"]
    for url in urls:
        assert url.password is None  # which comes from the environment
        assert url.hostname in COMPOSE["services"]
        assert url.hostname in of_kind("Service")
    database = COMPOSE["services"]["postgres"]["environment"]
    assert (urls[1].username, urls[1].path[1:]) == (
        database["POSTGRES_USER"],
        database["POSTGRES_DB"],
    )
    named = {
        each["name"]: each.get("value") for each in container("StatefulSet", "postgres")["env"]
    }
    assert (named["POSTGRES_USER"], named["POSTGRES_DB"]) == (urls[1].username, urls[1].path[1:])


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def test_containers_are_given_longer_to_end_than_queries() -> None:
    grace = MIXES["grace"]
    assert seconds(COMPOSE["services"]["automix"]["stop_grace_period"]) > grace
    pause = int(container("Deployment", "automix")["lifecycle"]["preStop"]["exec"]["command"][1])
    pod = of_kind("Deployment")["automix"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > grace + pause


def test_one_port_and_one_command() -> None:
    dockerfile = (FOLDER / "Dockerfile").read_text()
    server = container("Deployment", "automix")
    (port,) = server["ports"]
    assert f"EXPOSE {port['containerPort']}" in dockerfile
    given = re.search(r"^CMD \[(.*)\]", dockerfile, re.MULTILINE)
    assert given
    assert re.findall(r'"([^"]+)"', given[1]) == server["args"]
    proxy = (FOLDER / "nginx.conf").read_text()
    assert f"server automix:{port['containerPort']} resolve" in proxy
    outside = COMPOSE["services"]["balancer"]["ports"][0].rpartition(":")[2]
    assert f"listen {outside};" in proxy


def test_no_key_stands_in_a_file() -> None:
    for name in ("OPENAI_API_KEY", "AUTOMIX_API_KEYS", "PGPASSWORD"):
        assert COMPOSE["services"]["automix"]["environment"][name].startswith("${")
    assert not of_kind("Secret")


def test_the_image_has_every_extra_that_the_mixes_need() -> None:
    root = tomllib.loads((FOLDER.parents[1] / "pyproject.toml").read_text())
    extras = re.search(r"/src\[([^\]]+)\]", (FOLDER / "Dockerfile").read_text())
    assert extras
    known = {"serve", *root["project"]["optional-dependencies"]}
    assert {"serve", "redis", "learning", "prices"} == set(extras[1].split(",")) <= known
