"""Files that earlier versions wrote still open, and mean what they meant."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.load import dumpd, load
from langchain_core.load.serializable import Serializable
from langchain_core.prompts import (
    ChatPromptTemplate,
    HumanMessagePromptTemplate,
    PromptTemplate,
)
from langchain_openai import ChatOpenAI

import langchain_automix
from langchain_automix import (
    AutoMixRunnable,
    POMDPRouter,
    RoutingLog,
    SelfVerifier,
    ThresholdRouter,
)
from langchain_automix.calibration.graders.text import exact_match
from langchain_automix.local.recording import Recording, Replay
from langchain_automix.utils.fingerprints import stable_name
from langchain_automix.utils.identifiers import OLD_IDS, registered_name
from tests.golden import make
from tests.support.builders.mixes import record_of
from tests.support.servers.openai_server import OpenAIServer, answering

pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")


def golden(name: str) -> Any:
    return json.loads((make.HERE / name).read_text(encoding="utf-8"))


DUMPS: dict[str, Any] = golden("dumps.json")


class TestPolicies:
    @pytest.mark.parametrize(("name", "version"), [("policy-v1", 1), ("policy-v2", 2)])
    def test_it_decides_as_it_did(self, name: str, version: int) -> None:
        router = POMDPRouter.load(make.HERE / f"{name}.json")
        assert router.policy.version == version
        assert make.decisions(router) == golden("decisions.json")[name]

    def test_both_steps_of_a_policy_are_among_them(self) -> None:
        for found in golden("decisions.json").values():
            assert {each["action"] for each in found} == {"answer", "escalate", "verify"}

    def test_it_still_knows_its_check(self) -> None:
        router = POMDPRouter.load(make.HERE / "policy-v1.json")
        assert router.policy.verifier == SelfVerifier().fingerprint


class TestLogs:
    def test_with_one_check(self) -> None:
        log = RoutingLog.read(make.HERE / "log-one-check.jsonl")
        assert (len(log), log.models) == (40, ("small", "large"))
        lines = (make.HERE / "log-one-check.jsonl").read_text().splitlines()
        written = [json.loads(line) for line in lines]
        for query, line in zip(log, written, strict=True):
            small, large = query.answers
            assert [small.quality, large.quality] == [a["quality"] for a in line["answers"]]
            assert [small.cost, large.cost] == [1.0, 10.0]
            assert small.verification is not None
            verdicts = line["answers"][0]["verification"]["verdicts"]
            assert list(small.verification.verdicts or ()) == verdicts

    def test_with_several_checks(self) -> None:
        log = RoutingLog.read(make.HERE / "log-several-checks.jsonl")
        lines = (make.HERE / "log-several-checks.jsonl").read_text().splitlines()
        written = [json.loads(line)["answers"][0].get("checks", {}) for line in lines]
        assert len(log) == 40
        assert {len(checks) for checks in written} == {0, 1, 2}
        for query, checks in zip(log, written, strict=True):
            found = query.answers[0].checks
            assert {name: check.score for name, check in found.items()} == {
                name: check["score"] for name, check in checks.items()
            }


class TestJournals:
    @pytest.mark.parametrize(("name", "kept", "missing"), [("exact", 7, 11), ("judged", 10, 16)])
    def test_a_calibration_goes_on_and_pays_nothing_twice(
        self, server: OpenAIServer, tmp_path: Path, name: str, kept: int, missing: int
    ) -> None:
        server.script = make.script
        out = tmp_path / f"calibration-{name}.jsonl"
        journal = Path(f"{out}.journal")
        shutil.copy(make.HERE / journal.name, journal)
        before = self.entries(journal)
        assert sum("call" in entry for entry in before) == kept
        run, _ = make.JOURNALS[name]
        run(server.base_url, tmp_path / "anew.jsonl")
        assert len(server.requests) == kept + missing
        server.requests.clear()
        log = run(server.base_url, out)
        assert len(server.requests) == missing
        # What is added anew says how its check is rebuilt; rows of before do not, and agree.
        assert log.check_spec is not None
        assert log.check_spec.fingerprint == log.verifier
        records = list(log.records())
        specs = [record["metadata"].pop("check_spec", None) for record in records]
        assert None in specs
        assert records == list(RoutingLog.read(make.HERE / f"calibration-{name}.jsonl").records())
        # A finished row is taken as it is: its settings count as the same.
        rows = [entry["example"] for entry in self.entries(journal) if "row" in entry]
        assert len(rows) == len(set(rows)) == len(log)
        run(server.base_url, out)
        assert len(server.requests) == missing

    def entries(self, journal: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]


class TestDumps:
    def test_a_mix_answers(self, server: OpenAIServer) -> None:
        again = loaded(self.on(server, DUMPS["mix"]), POMDPRouter, SelfVerifier)
        server.script = answering("small says", "large says", verdicts="rr")
        given = {"question": "Where?", "context": "Turku."}
        kept = again.invoke(given)
        assert kept.text == "large says"
        assert set(record_of(kept)["verdicts"]) == {False}
        assert server.requests[0]["messages"][0]["content"] == "Read: Turku.\nAnswer: Where?"
        assert server.requests[0]["tools"] == [make.TOOL]
        assert again.always_escalate_tools == ["pay"]
        router = POMDPRouter.load(make.HERE / "policy-v1.json")
        assert again.router.policy == router.policy

    def test_structured_output_answers(self, server: OpenAIServer) -> None:
        server.script = answering('{"place": "Turku"}', '{"place": "Turku"}', verdicts="a")
        again = loaded(self.on(server, DUMPS["structured"]), ThresholdRouter, SelfVerifier)
        asked = {"question": "Where?", "context": "Turku."}
        assert again.invoke(asked) == {"place": "Turku"}
        assert loaded(dumpd(again), AutoMixRunnable).invoke(asked) == {"place": "Turku"}
        first, check, *anew = server.requests
        assert first["response_format"]["json_schema"]["name"] == "Place"
        assert [{**body, "n": 0} for body in anew] == [{**body, "n": 0} for body in (first, check)]

    @pytest.mark.parametrize("name", DUMPS)
    def test_an_old_id_opens_as_the_same_object(self, name: str) -> None:
        again = loaded(DUMPS[name])
        new, old = dumpd(again), without_ids(DUMPS[name])
        if name == "structured":  # the class is gone: a mix has a schema, as it has tools
            old |= {"id": ["AutoMixRunnable"], "name": "AutoMixRunnable"}
            assert old["kwargs"].pop("output_settings") == {}  # the default, which is not saved
        assert type(again).__name__ == old["id"][-1]
        assert without_ids(new) == old
        assert loaded(new).model_dump() == again.model_dump()

    @pytest.mark.parametrize("name", DUMPS)
    def test_a_new_id_names_the_package_and_the_class(self, name: str) -> None:
        ids = [found for found in ids_in(dumpd(loaded(DUMPS[name]))) if len(found) > 1]
        ours = [found for found in ids if found[0] == "langchain_automix"]
        assert ours
        assert all(len(found) == 2 for found in ours)

    def test_a_class_of_a_users_own_keeps_the_id_of_its_module(self) -> None:
        class Stricter(SelfVerifier):
            """A check of a user's own."""

        assert Stricter.lc_id() == [*__name__.split("."), "Stricter"]

    def on(self, server: OpenAIServer, dump: Any) -> Any:
        return json.loads(json.dumps(dump).replace(make.NOWHERE, server.base_url))


def loaded(dump: Any, *kinds: type[Any]) -> Any:
    """Load as the site shows it, with the classes that are in the dump."""
    ours = {found[-1] for found in ids_in(dump) if found[0] == "langchain_automix"}
    assert {kind.__name__ for kind in kinds} <= ours
    allowed: list[Any] = [getattr(langchain_automix, name) for name in sorted(ours)]
    allowed += [ChatOpenAI, ChatPromptTemplate, HumanMessagePromptTemplate, PromptTemplate]
    return load(
        dump,
        allowed_objects=allowed,
        valid_namespaces=["langchain_automix"],
        secrets_map={"OPENAI_API_KEY": "test"},
    )


def ids_in(found: Any) -> list[list[str]]:
    if isinstance(found, list):
        return [each for part in found for each in ids_in(part)]
    if not isinstance(found, dict):
        return []
    own = [found["id"]] if found.get("type") == "constructor" else []
    return own + [each for part in found.values() for each in ids_in(part)]


def without_ids(found: Any) -> Any:
    """Return a dump without the paths of classes, and without what LangChain adds beside."""
    if isinstance(found, list):
        return [without_ids(each) for each in found]
    if not isinstance(found, dict):
        return found
    kept = {name: without_ids(each) for name, each in found.items()}
    return {**kept, "id": found["id"][-1:]} if found.get("type") == "constructor" else kept


def test_a_recording_is_replayed() -> None:
    replay = Replay(Recording.read(make.HERE / "recording.json.gz"))
    model = make.model("small", http_client=httpx.Client(transport=replay))
    assert model.invoke("Where was ship 2 built?").text == "Turku"
    chunks = list(model.stream("Where was ship 3 built?"))
    assert "".join(chunk.text for chunk in chunks) == "Oslo"


class TestFingerprints:
    def test_each_is_what_it_was(self) -> None:
        assert make.fingerprints() == golden("fingerprints.json")

    def test_what_moves_keeps_its_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for moved in (exact_match, SelfVerifier):
            monkeypatch.setattr(moved, "__module__", "langchain_automix.elsewhere")
        registered_name("langchain_automix.calibration.grading.exact_match")(exact_match)
        assert make.fingerprints() == golden("fingerprints.json")
        assert stable_name(SelfVerifier) == "langchain_automix.verifiers.self_verifier.SelfVerifier"
        assert SelfVerifier.lc_id() == ["langchain_automix", "SelfVerifier"]


def classes() -> Iterator[type[Serializable]]:
    for module in pkgutil.walk_packages(langchain_automix.__path__, "langchain_automix."):
        for kind in vars(importlib.import_module(module.name)).values():
            if isinstance(kind, type) and issubclass(kind, Serializable):
                yield kind


def test_whatever_can_be_saved_is_found_by_its_id() -> None:
    """By the package and its name, or it is of the inside, and in nobody's hands."""
    named = {
        kind
        for kind in classes()
        if kind.lc_id()[0] == "langchain_automix"
        and kind.is_lc_serializable()
        and not inspect.isabstract(kind)
        and not kind.__name__.startswith("_")
        and kind.__name__ != "ExampleRunnable"
    }
    assert {OLD_IDS[old][-1] for old in OLD_IDS} <= {kind.__name__ for kind in named}
    for kind in named:
        assert kind.lc_id() == ["langchain_automix", kind.__name__]
        assert getattr(langchain_automix, kind.__name__) is kind


def test_the_old_ids_as_a_table_of_ones_own() -> None:
    """Where LangChain's own table does not know them."""
    code = """
        import json, sys
        from langchain_core.load.load import ALL_SERIALIZABLE_MAPPINGS, load
        from langchain_automix import SelfVerifier
        from langchain_automix.utils.identifiers import OLD_IDS
        for old in OLD_IDS:
            del ALL_SERIALIZABLE_MAPPINGS[old]
        how = {"allowed_objects": [SelfVerifier], "valid_namespaces": ["langchain_automix"]}
        print(type(load(json.load(sys.stdin), additional_import_mappings=OLD_IDS, **how)).__name__)
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        input=json.dumps(DUMPS["self"]),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "SelfVerifier"
