"""`Learning` in a mix: nothing risked, nothing delayed, every dollar counted, no text kept."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed (extra `learning`)")

from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel

from langchain_automix import (
    AutoMixError,
    AutoMixRunnable,
    Learning,
    SelfVerifier,
    Verification,
)
from langchain_automix.learning import upkeep
from langchain_automix.learning.records import Event
from langchain_automix.learning.reviewing import Reviewer
from tests.support.builders.learning_mixes import (
    WAYS,
    Make,
    ask,
    learns,
    promote,
    rows,
)
from tests.support.builders.mixes import ACCEPTS, RAG_PROMPT, record_of, weather
from tests.support.builders.waiting import wait_for
from tests.support.servers.openai_server import OpenAIServer, answering


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
        assert upkeep._REFRESH_SECONDS <= 5

        def of_the_version() -> Any:
            answer = automix.invoke("Where?")
            return answer if answer.content == "a small answer" else None

        learning = record_of(wait_for(of_the_version))["learning"]
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


def test_threads_end_with_their_learning(url: str, server: OpenAIServer) -> None:
    learning = Learning(url)
    automix = learns(server, learning)
    automix.invoke("Where?")
    assert learning.close()
    wait_for(lambda: all(thread.name != "automix-refresh" for thread in threading.enumerate()))
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
