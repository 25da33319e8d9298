"""`Learning` in a mix: nothing risked, nothing delayed, every dollar counted, no text kept."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import pickle
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed (extra `learning`)")

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.load import dumpd
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable, RunnableLambda
from pydantic import BaseModel

from langchain_automix import (
    AutoMixError,
    AutoMixMiddleware,
    AutoMixRunnable,
    ChatAutoMix,
    Learning,
    LearningWarning,
    POMDPRouter,
    SelfVerifier,
    SpendLimit,
    Verification,
)
from langchain_automix.learning.records import Event, PolicyVersion, StoredQuery
from langchain_automix.learning.reviewing import Reviewer
from langchain_automix.learning.store.store import LearningStore
from langchain_automix.utils.fingerprints import uniform
from tests.support.builders.mixes import ACCEPTS, RAG_PROMPT, mix, record_of, weather
from tests.support.builders.scripted_replies import call
from tests.support.builders.synthetic_logs import world
from tests.support.servers.openai_server import OpenAIServer, answering, is_check

PRICES = {"small": {"input": 1, "output": 2}, "large": {"input": 10, "output": 20}}
WAYS = ("invoke", "ainvoke", "batch", "abatch", "stream", "astream")
POLICY = POMDPRouter.fit(world(400, k=2), cost_weight=0.05).policy.model_dump_json(by_alias=True)

Make = Callable[..., Learning]


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/automix.db"


@pytest.fixture
def make(url: str) -> Iterator[Make]:
    made: list[Learning] = []

    def make(store: str = url, **settings: Any) -> Learning:
        made.append(Learning(store, **settings))
        return made[-1]

    yield make
    for learning in made:
        learning.close(2)


def learns(server: OpenAIServer, learning: Learning, **fields: Any) -> AutoMixRunnable:
    fields = {"verifier": SelfVerifier(samples=2), "prices": PRICES, **fields}
    return mix(server, learning=learning, **fields)


def rows(automix: Any) -> list[StoredQuery]:
    learning: Learning = automix.learning
    assert learning.flush()
    epochs = list(learning._epochs)
    return [row for epoch in epochs for row in learning.store.get().read(epoch)[0]]


def promote(automix: AutoMixRunnable, policy: str = POLICY) -> int:
    """Have a version decide, as another process does."""
    learning: Any = automix.learning
    store: LearningStore = learning.store.get()
    version = PolicyVersion(0, automix.mix_config.epoch, time.time(), policy, "challenger", "Try.")
    number = store.add_version(version)
    store.promote(number, "It is proven.")
    return number


def billed(server: OpenAIServer) -> float:
    micros = 0
    for bill in server.billed:
        prices = PRICES[bill["model"]]
        micros += prices["input"] * int(bill["prompt_tokens"])
        micros += prices["output"] * int(bill["completion_tokens"])
    return micros / 1e6


_RUNNER = asyncio.Runner()  # one event loop, as clients keep to theirs
run = _RUNNER.run


def ask(automix: Any, way: str, asked: Any = "Where?") -> Any:
    match way:
        case "invoke":
            return automix.invoke(asked)
        case "batch":
            return automix.batch([asked])[0]
        case "stream":
            return _sum(list(automix.stream(asked)))
    return run(_aask(automix, way, asked))


async def _aask(automix: Any, way: str, asked: Any) -> Any:
    if way == "ainvoke":
        return await automix.ainvoke(asked)
    if way == "abatch":
        return (await automix.abatch([asked]))[0]
    return _sum([chunk async for chunk in automix.astream(asked)])


def _sum(chunks: list[Any]) -> Any:
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    return total


class TestWarmUp:
    @pytest.mark.parametrize("way", WAYS)
    def test_the_largest_models_answer_is_given(
        self, server: OpenAIServer, make: Make, way: str
    ) -> None:
        automix = learns(server, make())
        answer = ask(automix, way)
        plain = ask(server.model("large"), way)
        assert (answer.content, answer.tool_calls) == (plain.content, plain.tool_calls)
        assert record_of(answer)["learning"]["stage"] == "warm-up"
        [row] = rows(automix)
        assert (row.query.kept, row.query.stage, row.query.version) == (1, "warm-up", 0)
        assert (row.query.share, row.query.is_drawn, row.is_shadowed) == (1.0, True, True)
        small, large = row.query.answers
        assert small.is_shadow
        assert small.verification is not None
        assert small.verification["verdicts"] == [True, True]
        assert not large.is_shadow
        assert {g.model: g.quality for g in row.grades} == {0: 0.0, 1: 1.0}

    @pytest.mark.parametrize("way", WAYS)
    def test_a_shadow_holds_up_nothing(self, server: OpenAIServer, make: Make, way: str) -> None:
        going = threading.Event()

        def wait(body: Any) -> float:
            if body["model"] == "small":
                going.wait(20)
            return 0.0

        server.delay = wait
        automix = learns(server, make())
        for _ in range(4):  # more than there are threads for shadows
            assert ask(automix, way).content == "a large answer"
        assert not going.is_set()
        going.set()
        assert [row.is_shadowed for row in rows(automix)] == [True] * 4

    def test_observing_changes_nothing_although_there_is_a_policy(
        self, server: OpenAIServer, make: Make
    ) -> None:
        automix = learns(server, make(mode="observe"))
        promote(automix)
        automix.learning.refresh()  # type: ignore[union-attr]
        answer = automix.invoke("Where?")
        assert answer.content == "a large answer"
        assert record_of(answer)["learning"]["stage"] == "observe"
        assert rows(automix)[0].is_shadowed


class TestVersions:
    def test_a_promoted_version_decides_within_seconds(
        self, server: OpenAIServer, make: Make
    ) -> None:
        automix = learns(server, make(share=0.0))
        assert automix.invoke("Where?").content == "a large answer"
        number = promote(automix)
        deadline = time.monotonic() + 5
        while (answer := automix.invoke("Where?")).content != "a small answer":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        learning = record_of(answer)["learning"]
        assert (learning["version"], learning["stage"]) == (number, "policy")
        last = rows(automix)[-1].query
        assert (last.version, last.share, last.is_drawn) == (number, 0.0, False)

    def test_a_new_process_begins_with_the_version(self, server: OpenAIServer, make: Make) -> None:
        number = promote(learns(server, make()))
        answer = learns(server, make()).invoke("Where?")
        assert record_of(answer)["learning"]["version"] == number

    def test_one_version_decides_a_query(self, server: OpenAIServer, make: Make) -> None:
        automix = learns(server, make())
        learning: Any = automix.learning
        first = promote(automix)
        learning.refresh()

        def check(_: Any) -> Verification:
            learning.store.get().rollback(automix.mix_config.epoch, "It loses.")
            learning.refresh()
            return Verification(verdicts=(True, True))

        automix = learns(server, learning, verifier=RunnableLambda(check))
        promote(automix)
        learning.refresh()
        before, after = automix.invoke("Where?"), automix.invoke("Where?")
        assert before.content == "a small answer"
        assert record_of(before)["learning"]["version"] > first
        assert after.content == "a large answer"
        assert record_of(after)["learning"]["version"] == 0

    def test_after_a_rollback_the_largest_model_answers(
        self, server: OpenAIServer, make: Make
    ) -> None:
        automix = learns(server, make())
        promote(automix)
        learning: Any = automix.learning
        learning.refresh()
        assert automix.invoke("Where?").content == "a small answer"
        learning.store.get().rollback(automix.mix_config.epoch, "It loses.")
        learning.refresh()
        assert automix.invoke("Where?").content == "a large answer"

    def test_a_policy_that_cannot_be_read_changes_nothing(
        self, server: OpenAIServer, make: Make
    ) -> None:
        automix = learns(server, make())
        promote(automix, '{"schema": "of the future"}')
        automix.learning.refresh()  # type: ignore[union-attr]
        assert automix.invoke("Where?").content == "a large answer"

    def test_a_kept_answer_has_the_large_one_as_its_shadow(
        self, server: OpenAIServer, make: Make
    ) -> None:
        automix = learns(server, make(share=1.0))
        promote(automix)
        automix.learning.refresh()  # type: ignore[union-attr]
        assert automix.invoke("Where?").content == "a small answer"
        [row] = rows(automix)
        assert [a.is_shadow for a in row.query.answers] == [False, True]
        assert {g.model: g.quality for g in row.grades} == {0: 0.0, 1: 1.0}
        assert row.query.answers[0].verification is not None
        assert row.query.answers[0].verification["verdicts"] == [True, True]
        assert len(server.checks) == 2  # the query drew one verdict, and the shadow the other

    def test_an_escalated_query_is_graded_without_a_shadow(
        self, server: OpenAIServer, make: Make
    ) -> None:
        server.script = answering("Turku", "turku.", verdicts="r")
        automix = learns(server, make(share=0.0))
        promote(automix)
        automix.learning.refresh()  # type: ignore[union-attr]
        assert automix.invoke("Where?").content == "turku."
        [row] = rows(automix)
        assert not row.query.is_drawn
        assert {g.model: g.quality for g in row.grades} == {0: 1.0, 1: 1.0}

    def test_another_check_prompt_or_schema_is_another_epoch(
        self, server: OpenAIServer, make: Make
    ) -> None:
        class Place(BaseModel):
            """A place."""

            name: str

        learning = make()
        automix = learns(server, learning)
        others = [
            learns(server, learning, verifier=SelfVerifier(samples=2, layout="zero_shot")),
            learns(server, learning, prompt=RAG_PROMPT),
            automix.bind_tools([weather]),
            automix.with_structured_output(Place),
        ]
        epochs = {each.mix_config.epoch for each in (automix, *others)}  # type: ignore[attr-defined]
        assert len(epochs) == 5
        again = learns(server, make(), verifier=SelfVerifier(samples=2))
        assert again.mix_config.epoch == automix.mix_config.epoch


class TestMoney:
    def test_the_books_are_the_providers_bill(self, server: OpenAIServer, make: Make) -> None:
        automix = learns(server, make(share=0.5))
        for i in range(3):
            automix.invoke(f"Where is {i}?")
        automix.learning.flush()  # type: ignore[union-attr]
        promote(automix)
        automix.learning.refresh()  # type: ignore[union-attr]
        automix.batch([f"Where is {i}, then?" for i in range(6)])
        found = rows(automix)
        paid = sum((row.query.cost or 0) + (row.shadow_cost or 0) for row in found)
        assert paid == pytest.approx(billed(server), rel=1e-9)
        requests = [request for row in found for request in row.query.requests]
        assert len(requests) == len(server.billed)
        assert sum(r.cost or 0 for r in requests) == pytest.approx(billed(server), rel=1e-9)
        status = automix.learning.status()  # type: ignore[union-attr]
        assert status.spent == pytest.approx(sum(r.shadow_cost or 0 for r in found), rel=1e-4)

    def test_shadows_keep_to_their_budget(self, server: OpenAIServer, make: Make) -> None:
        learning = make(max_spend="0.005 USD")
        automix = learns(server, learning)
        for i in range(60):
            automix.invoke(f"Where is {i}?")
            if i % 10 == 0:
                learning.flush()  # what is claimed for shadows under way is not to be had
        found = rows(automix)
        shadowed = [row for row in found if row.is_shadowed]
        assert 0 < len(shadowed) < 60
        spent = sum(row.shadow_cost or 0 for row in shadowed)
        assert 0.003 < spent <= 0.005
        status = learning.status()
        assert status.spent <= 0.005
        assert status.refused > 0
        assert not found[-1].query.is_drawn
        # Few are drawn and then find that others have spent the money.
        assert sum(row.query.is_drawn for row in found) - len(shadowed) <= 3

    def test_without_a_budget_nothing_is_shadowed(self, server: OpenAIServer, make: Make) -> None:
        automix = learns(server, make(max_spend=0))
        automix.invoke("Where?")
        assert not rows(automix)[0].query.is_drawn
        assert len(server.requests) == 1

    def test_a_spend_limit_counts_shadows(self, server: OpenAIServer, make: Make) -> None:
        limit = SpendLimit(1, by="tenant")
        automix = learns(server, make(), spend_limit=limit)
        automix.invoke("Where?", {"configurable": {"tenant": "acme"}})
        automix.learning.flush()  # type: ignore[union-attr]
        assert float(limit.used("acme").split()[0]) == pytest.approx(billed(server), rel=1e-6)

    def test_unknown_costs_use_the_budget_up(self, server: OpenAIServer, make: Make) -> None:
        automix = learns(server, make(max_spend="1 USD"), prices=None)
        automix.invoke("Where?")
        found = rows(automix)[0]
        assert (found.query.cost, found.shadow_cost) == (None, None)
        assert automix.learning.status().spent == pytest.approx(0.01)  # type: ignore[union-attr]

    def test_what_does_not_fit_into_the_queue_is_counted(
        self, server: OpenAIServer, make: Make
    ) -> None:
        going = threading.Event()
        server.delay = lambda body: float(body["model"] == "small" and not going.wait(20))
        automix = learns(server, make())
        automix.batch([f"Where is {i}?" for i in range(110)], {"max_concurrency": 8})
        learning: Any = automix.learning
        assert learning.status().dropped >= 110 - 100 - 2
        going.set()
        assert learning.flush(60)
        found = rows(automix)
        assert len(found) == 110
        assert sum(row.query.is_drawn for row in found) == 110 - learning.status().dropped
        assert all(row.is_shadowed == row.query.is_drawn for row in found)


class TestPrivacy:
    TEXTS = ("wombat question", "wombat context", "a small wombat", "a large wombat")

    def ask(self, server: OpenAIServer, learning: Learning) -> AutoMixRunnable:
        server.script = answering(*self.TEXTS[2:])
        automix = learns(server, learning, prompt=RAG_PROMPT)
        asked = {"question": self.TEXTS[0], "context": self.TEXTS[1]}
        message = automix.invoke(asked, {"metadata": {"user": "wombat user"}})
        learning.feedback(message, 1.0)
        assert learning.flush()
        return automix

    def test_no_text_is_in_the_store(
        self, server: OpenAIServer, make: Make, tmp_path: Path
    ) -> None:
        self.ask(server, make())
        files = list(tmp_path.iterdir())
        assert files
        for file in files:
            assert b"wombat" not in file.read_bytes()
            assert file.stat().st_mode & 0o077 == 0

    def test_with_keep_texts_they_are(self, server: OpenAIServer, make: Make) -> None:
        automix = self.ask(server, make(keep_texts=True))
        texts = json.dumps(rows(automix)[0].query.texts)
        assert all(text in texts for text in self.TEXTS)


class TestForms:
    def test_a_batch_has_a_row_a_query(self, server: OpenAIServer, make: Make) -> None:
        automix = learns(server, make())
        run(automix.abatch([f"Where is {i}?" for i in range(20)]))
        found = rows(automix)
        assert len({row.query.id for row in found}) == 20
        assert len({row.query.run_id for row in found}) == 20

    def test_structured_output(self, server: OpenAIServer, make: Make) -> None:
        class Place(BaseModel):
            """A place."""

            name: str

        def script(body: Any) -> Any:
            if is_check(body):
                return answering("")(body)
            return ['{"name":  "Turku"}' if body["model"] == "small" else '{"name": "Turku"}']

        server.script = script
        structured = learns(server, make()).with_structured_output(Place, method="json_schema")
        assert structured.invoke("Where?") == Place(name="Turku")
        assert {g.model: g.quality for g in rows(structured)[0].grades} == {0: 1.0, 1: 1.0}

    def test_an_agent(self, server: OpenAIServer, make: Make) -> None:
        def script(body: Any) -> Any:
            if is_check(body):
                return answering("")(body)
            if body["messages"][-1]["role"] == "tool":
                return ["Sunny."]
            return [call("weather", city="Turku" if body["model"] == "large" else "Oulu")]

        server.script = script
        models = [server.model("small"), server.model("large")]
        middleware = AutoMixMiddleware(
            models, learning=make(), verifier=SelfVerifier(samples=1), prices=PRICES, router=0.5
        )
        agent = create_agent(models[0], tools=[weather], middleware=[middleware])
        state = agent.invoke({"messages": [("human", "What is it like in Turku?")]})  # type: ignore[call-overload]
        assert state["messages"][-1].content == "Sunny."
        calls, last = rows(middleware)
        assert {g.model: g.quality for g in calls.grades} == {0: 0.0, 1: 1.0}
        assert {g.model: g.quality for g in last.grades} == {0: 1.0, 1: 1.0}

    def test_a_chat_model(self, server: OpenAIServer, make: Make) -> None:
        models = [server.model("small"), server.model("large")]
        chat = ChatAutoMix(
            models=models, learning=make(), verifier=SelfVerifier(samples=1), router=0.5
        )
        assert chat.invoke("Where?").content == "a large answer"
        assert rows(chat)[0].is_shadowed

    def test_models_that_are_asynchronous_only(self, make: Make) -> None:
        class Async(BaseChatModel):
            text: str

            @property
            def _llm_type(self) -> str:
                return "async"

            def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
                raise NotImplementedError

            async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
                await asyncio.sleep(0)
                return ChatResult(generations=[ChatGeneration(message=AIMessage(self.text))])

        check: Runnable[Any, Any] = RunnableLambda(lambda _: Verification(score=0.5))
        automix = AutoMixRunnable.from_models(
            Async(text="a"), Async(text="b"), learning=make(), verifier=check, router=0.5
        )
        for _ in range(2):
            run(automix.ainvoke("Where?"))
            automix.learning.flush()  # type: ignore[union-attr]
        for row in rows(automix):
            assert row.query.answers[0].verification == {"score": 0.5, "cost": 0.0}
            assert {g.model: g.quality for g in row.grades} == {0: 0.0, 1: 1.0}

    def test_the_default_check_is_known_by_its_names(
        self, server: OpenAIServer, make: Make
    ) -> None:
        automix = (
            learns(server, make(), verifier=None)
            if False
            else AutoMixRunnable.from_models(
                server.model("small"), server.model("large"), learning=make(), prices=PRICES
            )
        )
        automix.invoke("Where?")
        [row] = rows(automix)
        small = row.query.answers[0]
        assert small.verification is None
        assert small.checks["tokens"]["score"] == pytest.approx(0.9, abs=0.2)


class TestEndings:
    def test_a_query_that_fails(self, server: OpenAIServer, make: Make) -> None:
        server.script = lambda _: 500
        automix = learns(server, make())
        with pytest.raises(Exception, match=r"500|scripted"):
            automix.invoke("Where?")
        [row] = rows(automix)
        assert (row.query.ending, row.query.kept, row.query.is_drawn) == ("failed", None, False)
        assert len(server.requests) == 1

    def test_a_stream_that_is_left(self, server: OpenAIServer, make: Make) -> None:
        automix = learns(server, make())
        stream: Any = automix.stream("Where?")
        next(stream)
        stream.close()
        [row] = rows(automix)
        assert (row.query.ending, row.query.cost, row.query.is_drawn) == ("left", None, False)

    def test_what_was_never_begun_has_no_row(self, server: OpenAIServer, make: Make) -> None:
        automix = learns(server, make())
        with pytest.raises(AutoMixError):
            automix.invoke([])
        assert not rows(automix)


class TestStoreAway:
    @pytest.fixture(autouse=True)
    def _once(self) -> None:
        warnings.simplefilter("always")

    def test_one_that_cannot_be_reached(self, server: OpenAIServer, make: Make) -> None:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            learning = make("postgresql://me:secret@127.0.0.1:9/none")
            automix = learns(server, learning)
            answers = [automix.invoke("Where?").content for _ in range(5)]
        assert answers == ["a large answer"] * 5
        mine = [str(each.message) for each in told if each.category is LearningWarning]
        assert len(mine) == 1
        assert "secret" not in mine[0]
        assert learning.status().is_away
        assert learning.status().waiting >= 5
        assert "secret" not in repr(learning) + str(learning.status())

    def test_one_that_goes_and_comes_back(
        self, server: OpenAIServer, make: Make, tmp_path: Path
    ) -> None:
        automix, file = learns(server, make(max_spend=0)), tmp_path / "automix.db"
        automix.invoke("Where?")
        rows(automix)
        file.rename(tmp_path / "elsewhere")
        while not file.is_dir():  # the refresher may begin a store anew in between
            file.unlink(missing_ok=True)
            with contextlib.suppress(FileExistsError):
                file.mkdir()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            assert [automix.invoke("Where?").content for _ in range(3)] == ["a large answer"] * 3
            assert not automix.learning.flush(0.5)  # type: ignore[union-attr]
        assert [each.category for each in told] == [LearningWarning]
        assert automix.learning.status().is_away  # type: ignore[union-attr]
        file.rmdir()
        (tmp_path / "elsewhere").rename(file)
        assert len(rows(automix)) == 4

    def test_a_policy_outlives_its_store(
        self, server: OpenAIServer, make: Make, tmp_path: Path
    ) -> None:
        automix = learns(server, make(max_spend=0))
        promote(automix)
        learning: Any = automix.learning
        learning.refresh()
        holder = threading.Event()
        held = threading.Thread(target=_hold, args=(tmp_path / "automix.db", holder))
        held.start()  # the store is locked by another process, as when it is slow
        started = time.monotonic()
        answers = [automix.invoke("Where?") for _ in range(5)]
        assert time.monotonic() - started < 4
        assert [answer.content for answer in answers] == ["a small answer"] * 5
        holder.set()
        held.join()
        assert len(rows(automix)) == 5  # nothing was lost

    def test_what_can_never_be_a_store_is_told_at_once(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("This is no database.")
        with pytest.raises(AutoMixError, match="no SQLite database"):
            Learning(f"sqlite:///{tmp_path}/notes.txt")


def _hold(file: Path, until: threading.Event) -> None:
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    until.wait(20)
    connection.execute("COMMIT")
    connection.close()


class TestFeedback:
    def test_by_message_run_and_query(self, server: OpenAIServer, make: Make) -> None:
        automix, run = learns(server, make()), UUID(int=7)
        learning: Any = automix.learning
        message = automix.invoke("Where?", {"run_id": run})
        learning.feedback(message, True)
        learning.feedback(run, 0.5, source="later")
        learning.feedback(str(run), 0.25, source="text")
        learning.feedback(record_of(message)["learning"]["id"], 0.75, source="id", model=0)
        [row] = rows(automix)
        found = {(g.source, g.model): g.quality for g in row.grades if g.source != "agreement"}
        assert found == {
            ("feedback", 1): 1.0,
            ("later", 1): 0.5,
            ("text", 1): 0.25,
            ("id", 0): 0.75,
        }

    def test_wrong_ones_are_refused(self, server: OpenAIServer, make: Make) -> None:
        automix = learns(server, make())
        learning: Any = automix.learning
        message = automix.invoke("Where?")
        for wrong in (1.5, -1, float("nan"), "good", None):
            with pytest.raises(AutoMixError, match=r"\[0, 1\]"):
                learning.feedback(message, wrong)
        with pytest.raises(AutoMixError, match="no query"):
            learning.feedback(uuid4(), 1.0)
        with pytest.raises(AutoMixError, match="of no query"):
            learning.feedback(AIMessage("Hello."), 1.0)
        with pytest.raises(AutoMixError, match="no model 2"):
            learning.feedback(message, 1.0, model=2)
        with pytest.raises(AutoMixError, match="another source"):
            learning.feedback(message, 1.0, source="agreement")


class TestReviews:
    def test_one_is_made_when_it_is_asked_for(self, server: OpenAIServer, make: Make) -> None:
        learning = make(refit="never")
        assert learning.review() is None  # there is no mix yet
        automix = learns(server, learning)
        assert learning.review() is None  # nor a query
        automix.batch([f"Where is {i}?" for i in range(5)])
        assert learning.flush()
        found = learning.review()
        assert found is not None
        assert found.next_step == "The next fit takes 95 complete queries more."
        assert learning.status().next_step == found.next_step

    def test_not_while_another_is_under_way(self, server: OpenAIServer, make: Make) -> None:
        learning = make(refit="never")
        automix = learns(server, learning)
        automix.invoke("Where?")
        with learning.store.get().lock(f"review:{automix.mix_config.epoch}"):
            assert learning.review() is None
        assert learning.review() is not None


class TestGrades:
    def grades(self, server: OpenAIServer, learning: Learning) -> dict[int, float]:
        automix = learns(server, learning)
        automix.invoke("Where?")
        return {g.model: g.quality for g in rows(automix)[0].grades}

    @pytest.mark.parametrize(
        ("small", "large", "quality"),
        [
            ("Turku.", "turku", 1.0),
            ("Oulu", "Turku", 0.0),
            ('{"a": 1.0, "b": [2]}', '```json\n{"b": [2], "a": 1}\n```', 1.0),
            ('{"a": 1}', '{"a": true}', 0.0),
        ],
    )
    def test_texts_are_compared(
        self, server: OpenAIServer, make: Make, small: str, large: str, quality: float
    ) -> None:
        server.script = answering(small, large)
        assert self.grades(server, make()) == {0: quality, 1: 1.0}

    def test_tool_calls_are_compared_as_json(self, server: OpenAIServer, make: Make) -> None:
        def script(body: Any) -> Any:
            if is_check(body):
                return answering("")(body)
            return [call("pay", amount=1 if body["model"] == "small" else 1.0)]

        server.script = script
        assert self.grades(server, make()) == {0: 1.0, 1: 1.0}

    def test_a_function_grades(self, server: OpenAIServer, make: Make) -> None:
        learning = make(quality=lambda answer, references: 0.5 if "small" in answer else 0.0)
        assert self.grades(server, learning) == {0: 0.5, 1: 1.0}

    def test_what_a_grader_asks_is_paid_by_the_shadow(
        self, server: OpenAIServer, make: Make
    ) -> None:
        judge = server.model("small") | RunnableLambda(lambda _: 0.25)

        def to_text(given: Any) -> str:
            return str(given["answer"])

        learning = make(quality=RunnableLambda(to_text) | judge)
        assert self.grades(server, learning) == {0: 0.25, 1: 1.0}
        [row] = [r for e in learning._epochs for r in learning.store.get().read(e)[0]]
        assert [r.stage for r in row.query.requests].count("grade") == 1
        assert (row.query.cost or 0) + (row.shadow_cost or 0) == pytest.approx(billed(server))

    def test_a_grader_that_fails_leaves_a_row_without_a_grade(
        self, server: OpenAIServer, make: Make
    ) -> None:
        def fail(answer: str, references: Any) -> float:
            raise KeyError("a bug")

        automix = learns(server, make(quality=fail))
        automix.invoke("Where?")
        [row] = rows(automix)
        assert row.is_shadowed
        assert 0 not in {g.model for g in row.grades}


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "told"),
        [
            ({"max_loss": 2}, "max_loss must lie in .*: 2"),
            ({"share": -0.1}, "share must lie in .*: -0.1"),
            ({"confidence": 1.0}, "confidence must be a chance .*: 1.0"),
            ({"mode": "look"}, "'mix' or 'observe'"),
            ({"promote": True}, "'auto' or 'ask'"),
            ({"max_spend": "five"}, "max_spend is 'five'"),
            ({"max_spend": True}, "max_spend is True"),
            ({"max_spend": float("nan")}, "max_spend is nan"),
            ({"keep_days": -1}, "keep_days must be .*: -1"),
            ({"quality": "perfect"}, "no grader 'perfect'"),
        ],
    )
    def test_wrong_ones_are_refused(self, url: str, settings: Any, told: str) -> None:
        with pytest.raises(AutoMixError, match=told):
            Learning(url, **settings)

    def test_a_store_is_a_url(self) -> None:
        with pytest.raises(AutoMixError, match="must be a URL"):
            Learning(Path("automix.db"))  # type: ignore[arg-type]

    def test_they_are_ready_for_json(self, make: Make) -> None:
        shown = make(max_spend=2.5, quality="f1").settings.shown()
        assert json.loads(json.dumps(shown))["max_spend"] == "2.5 USD"

    def test_the_status_is_in_words(self, server: OpenAIServer, make: Make) -> None:
        automix = learns(server, make())
        automix.batch(["Where?", "When?"])
        rows(automix)
        said = str(automix.learning.status())  # type: ignore[union-attr]
        assert "The largest model answers: warm-up" in said
        assert "2 shadows for $" in said

    def test_copies_are_the_same_object(self, server: OpenAIServer, make: Make) -> None:
        learning = make()
        assert pickle.loads(pickle.dumps(learning)) is learning
        assert copy.deepcopy(learning) is learning
        saved = json.dumps(dumpd(learns(server, learning)))
        assert "Learning(" in saved

    def test_old_queries_are_deleted(self, server: OpenAIServer, make: Make) -> None:
        automix = learns(server, make(keep_queries=3, max_spend=0))
        automix.batch([f"Where is {i}?" for i in range(8)])
        rows(automix)
        automix.learning._pruned = 0.0  # type: ignore[union-attr]
        automix.learning._prune()  # type: ignore[union-attr]
        assert len(rows(automix)) == 3


def has_ended(name: str) -> bool:
    deadline = time.monotonic() + 5
    while any(thread.name == name for thread in threading.enumerate()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_threads_end_with_their_learning(url: str, server: OpenAIServer) -> None:
    learning = Learning(url)
    automix = learns(server, learning)
    automix.invoke("Where?")
    assert learning.close()
    assert has_ended("automix-refresh")
    assert automix.invoke("Where?").content == "a large answer"  # and it goes on
    assert len(rows(automix)) == 2
    learning.close()


def test_a_query_without_verdicts_is_accepted_as_ever(server: OpenAIServer, make: Make) -> None:
    automix = learns(server, make(), verifier=ACCEPTS)
    automix.invoke("Where?")
    assert rows(automix)[0].query.answers[0].verification == {"score": 1.0, "cost": 0.0}


def test_an_alarm_stands_in_the_record_until_it_is_over(server: OpenAIServer, make: Make) -> None:
    automix = learns(server, make(refit="never"))
    ask(automix, "invoke")
    learning: Any = automix.learning
    store, epoch = learning.store.get(), automix.mix_config.epoch
    store.add([Event(time.time(), epoch, "alarm", "The cost of a query has changed.", {})])
    learning.refresh()
    assert record_of(automix.invoke("Where?"))["learning"]["alarm"].startswith("The cost")
    assert learning.status().alarm == "The cost of a query has changed."
    assert not learning.status().alarm_is_over
    store.add([Event(time.time(), epoch, "quiet", "It is proven anew.", {})])
    learning.refresh()
    assert "alarm" not in record_of(automix.invoke("Where?"))["learning"]
    status = learning.status()
    assert (status.alarm, status.alarm_is_over) == ("The cost of a query has changed.", True)
    assert "That is over" in str(status)


class TestChance:
    """What is drawn depends on nothing that is found, and not on what a policy draws."""

    def test_a_shadow_is_drawn_apart_from_the_plan_of_a_policy(
        self, server: OpenAIServer, make: Make
    ) -> None:
        learning = make(mode="observe", warm_up_share=0.1)
        config = learns(server, learning).mix_config
        tickets: list[Any] = [learning.begin(config, "Where?", {}) for _ in range(3_000)]
        seed = learning.settings.seed
        drawn = [uniform(ticket.id, seed) for ticket in tickets if ticket.is_drawn]
        assert 200 < len(drawn) < 400
        assert sum(drawn) / len(drawn) == pytest.approx(0.5, abs=0.08)

    def test_without_money_there_is_no_chance_of_a_shadow(
        self, server: OpenAIServer, make: Make
    ) -> None:
        learning = make(max_spend="0.001 USD")
        automix = learns(server, learning)
        for i in range(20):
            automix.invoke(f"Where is {i}?")
            learning.flush()
        found = rows(automix)
        assert {row.query.share for row in found} == {1.0, 0.0}
        assert all(row.query.is_drawn == (row.query.share > 0) for row in found)
        assert learning.status().refused == sum(row.query.share == 0 for row in found)


def test_a_store_that_is_deleted_is_begun_anew(
    server: OpenAIServer, make: Make, tmp_path: Path
) -> None:
    learning = make(refit="never")
    automix = learns(server, learning)
    for i in range(8):
        automix.invoke(f"Where is {i}?")
        learning.flush()
    epoch = automix.mix_config.epoch
    promote(automix)
    learning.refresh()
    store = learning.store.get()
    reviewer = Reviewer.of_store(store, epoch)
    reviewer.run(store, is_due=True)
    for file in tmp_path.glob("automix.db*"):
        file.unlink()
    learning.refresh()
    automix.invoke("Where, then?")
    learning.flush()
    assert learning.status().stage == "warm-up"
    reviewer.run(store, is_due=True)
    assert len(reviewer._queries) == 1
    assert tuple(Reviewer.of_store(store, epoch).models) == automix.mix_config.names
