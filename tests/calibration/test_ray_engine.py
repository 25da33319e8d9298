"""What a run and its workers say to each other; the workers are of this process, not Ray's."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda

from langchain_automix import AutoMixError, Verification, acalibrate, calibrate
from langchain_automix.calibration import ray_engine, session
from langchain_automix.calibration.budget import Progress
from langchain_automix.calibration.ray_engine import SentSetup
from langchain_automix.calibration.ray_worker import ExampleWorker
from tests.support.builders.calibrating import PRICES, script
from tests.support.servers.openai_server import OpenAIServer


class DiedError(Exception):
    """As Ray's own error."""


class Actor:
    """A worker in threads of this process; one that is told to die answers no more."""

    def __init__(self, pool: ThreadPoolExecutor, *given: Any) -> None:
        self._pool, self._worker, self.is_dead = pool, ExampleWorker(*given), False
        self.start, self.resume = (
            SimpleNamespace(remote=lambda *args, name=name: self._call(name, *args))
            for name in ("start", "resume")
        )

    def _call(self, name: str, *args: Any) -> Any:
        if self.is_dead:
            raise DiedError("it is dead")
        return self._pool.submit(getattr(self._worker, name), *args)


class Cluster:
    """What the engine uses of Ray, with two CPUs."""

    def __init__(self) -> None:
        self.actors: list[Actor] = []
        self.pool = ThreadPoolExecutor(64)
        self.exceptions = SimpleNamespace(
            RayTaskError=KeyError,
            **dict.fromkeys(("RayActorError", "WorkerCrashedError", "ObjectLostError"), DiedError),
        )

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def remote(self, kind: type) -> Any:
        assert kind is ExampleWorker
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._made))

    def _made(self, *given: Any) -> Actor:
        self.actors.append(Actor(self.pool, *given))
        return self.actors[-1]

    def get(self, reference: Any) -> Any:
        result = reference.result()
        if any(actor.is_dead for actor in self.actors[-1:]):
            raise DiedError("it has died\nand more")
        return result

    def kill(self, actor: Actor) -> None:
        actor.is_dead = True


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    monkeypatch.setattr(session, "connect", lambda: made)
    monkeypatch.setattr(ray_engine, "connect", lambda: made)
    monkeypatch.setattr(session, "sent", lambda setup: SentSetup(made, setup))
    return made


def questions(number: int) -> list[dict[str, Any]]:
    return [{"question": f"Where was ship {i} built?", "answer": "Turku"} for i in range(number)]


def models(server: OpenAIServer) -> list[Any]:
    server.script = script
    return [server.model("small"), server.model("large")]


def billed(server: OpenAIServer) -> float:
    return sum(
        float(each["prompt_tokens"]) * PRICES[each["model"]]["input"] / 1e6
        + float(each["completion_tokens"]) * PRICES[each["model"]]["output"] / 1e6
        for each in server.billed
    )


def test_what_is_finished_needs_no_worker(
    server: OpenAIServer, tmp_path: Path, cluster: Cluster
) -> None:
    mix = models(server)
    here = calibrate(questions(9), mix, prices=PRICES, out=tmp_path / "here.jsonl")
    given: dict[str, Any] = {"prices": PRICES, "out": tmp_path / "there.jsonl", "engine": "ray"}
    there = calibrate(questions(9), mix, **given)
    assert list(there.records()) == list(here.records())
    assert (len(cluster.actors), len(server.requests)) == (2, 2 * 9 * 3)
    assert all(actor.is_dead for actor in cluster.actors)
    calibrate(questions(9), mix, **given)
    assert (len(cluster.actors), len(server.requests)) == (2, 2 * 9 * 3)


async def test_async(server: OpenAIServer, tmp_path: Path, cluster: Cluster) -> None:
    given: dict[str, Any] = {"prices": PRICES, "out": tmp_path / "log.jsonl", "engine": "ray"}
    assert len(await acalibrate(questions(4), models(server), **given)) == 4
    assert await asyncio.to_thread(len, cluster.actors) == 2


def test_an_example_that_kills_every_worker_ends_the_run(
    server: OpenAIServer, tmp_path: Path, cluster: Cluster
) -> None:
    def kills(values: Any) -> Verification:
        cluster.actors[-1].is_dead = True
        return Verification(score=1.0)

    with pytest.raises(AutoMixError, match=r"3 workers of Ray have died.*'q1'.*and more$"):
        calibrate(
            questions(1),
            models(server),
            prices=PRICES,
            verifier=RunnableLambda(kills),
            out=tmp_path / "log.jsonl",
            engine="ray",
            concurrency=1,
        )
    assert len(cluster.actors) == 1 + 3
    assert len(server.requests) == 1  # the answer was kept before anything died


def test_one_budget_holds_over_all_workers(
    server: OpenAIServer, tmp_path: Path, cluster: Cluster
) -> None:
    given: dict[str, Any] = {"prices": PRICES, "out": tmp_path / "log.jsonl", "engine": "ray"}
    seen: list[Progress] = []
    mix = models(server)
    with pytest.warns(UserWarning, match="Stopped at max_spend"):
        calibrate(questions(40), mix, max_spend=0.01, on_progress=seen.append, **given)
    assert 0 < billed(server) <= 0.01
    assert seen[-1].spent == pytest.approx(billed(server))
    assert len(server.requests) < 40 * 3
    assert len(calibrate(questions(40), mix, **given)) == 40
    assert len(server.requests) == 40 * 3
    assert cluster.actors


def test_an_error_ends_the_run_and_what_was_paid_for_is_kept(
    server: OpenAIServer, tmp_path: Path, cluster: Cluster
) -> None:
    def stop(progress: Progress) -> None:
        if progress.done == 2:
            raise RuntimeError("the listener has had enough")

    given: dict[str, Any] = {"prices": PRICES, "out": tmp_path / "log.jsonl", "engine": "ray"}
    with pytest.raises(RuntimeError, match="had enough"):
        calibrate(questions(8), models(server), on_progress=stop, concurrency=2, **given)
    assert 2 * 3 <= len(server.requests) < 8 * 3
    calibrate(questions(8), models(server), **given)
    assert len(server.requests) == 8 * 3
    assert cluster.actors


def test_an_error_of_a_worker_is_the_run_s(
    server: OpenAIServer, tmp_path: Path, cluster: Cluster
) -> None:
    def cannot(answer: str, references: list[str]) -> float:
        raise ValueError("no grade")

    with pytest.raises(AutoMixError, match=r"example q1 cannot be graded: ValueError: no grade"):
        calibrate(
            questions(2),
            models(server),
            quality=cannot,
            prices=PRICES,
            out=tmp_path / "log.jsonl",
            engine="ray",
            concurrency=1,
        )
    assert cluster.actors
