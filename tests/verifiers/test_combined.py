"""Several checks of one answer: which are made, what stands where, what a failure costs."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda

from langchain_automix import (
    AutoMixError,
    CombinedVerifier,
    FunctionVerifier,
    SelfVerifier,
    TokenProbabilityVerifier,
    Verification,
)
from langchain_automix.errors import QueryFailedError
from langchain_automix.verifiers.base import verifier_for
from tests.support.builders.checks import asked, failing, finding
from tests.support.builders.mixes import Witness, mix, record_of
from tests.support.builders.scripted_replies import Body
from tests.support.servers.openai_server import OpenAIServer, answering


def raising(kind: type[Exception]) -> Any:
    def check(answer: str) -> bool:
        raise kind

    return check


def three(**changed: Any) -> CombinedVerifier:
    checks = {
        "self": finding(verdicts=(True, False)),
        "agree": finding(score=0.25),
        "shape": finding(verdicts=(True,)),
    }
    return CombinedVerifier(checks={**checks, **changed})


class TestWhichAreMade:
    def test_all_if_not_told(self) -> None:
        found = three().invoke(asked())
        assert found.verdicts == (True, False)
        assert list(found.checks) == ["agree", "shape"]
        assert found.checks["agree"].score == 0.25
        assert found.checks["shape"].verdicts == (True,)

    @pytest.mark.parametrize("check", [None, "self"])
    def test_the_first(self, check: str | None) -> None:
        found = three().invoke(asked(check=check))
        assert (found.verdicts, found.checks) == ((True, False), {})

    async def test_one_by_name(self) -> None:
        found = await three().ainvoke(asked(check="agree"))
        assert (found.verdicts, found.score) == ((), None)
        assert {name: check.score for name, check in found.checks.items()} == {"agree": 0.25}

    def test_an_unknown_one_is_refused(self) -> None:
        with pytest.raises(AutoMixError, match="no check 'lost' among those combined: 'self', 'a"):
            three().invoke(asked(check="lost"))

    def test_none_at_all_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least 1 item"):
            CombinedVerifier(checks={})

    def test_what_is_told_goes_on_to_the_check(self) -> None:
        found = three().invoke(asked(check="agree", samples=3, drawn=2))
        [told] = found.checks["agree"].replies
        assert told == "['answer', 'context', 'drawn', 'question', 'samples']"

    def test_one_after_the_other_is_all_at_once(self) -> None:
        checks = three()
        first = checks.invoke(asked(check=None))
        then = first.and_then(checks.invoke(asked(check="agree")))
        then = then.and_then(checks.invoke(asked(check="shape")))
        assert then == checks.invoke(asked())

    def test_checks_may_themselves_be_combined(self) -> None:
        outer = CombinedVerifier(checks={"all": three(), "last": finding(score=1.0)})
        found = outer.invoke(asked())
        assert found.verdicts == (True, False)
        assert list(found.checks) == ["agree", "shape", "last"]


class TestFailures:
    def test_one_does_not_lose_the_others(self) -> None:
        found = three(agree=failing(RuntimeError("no such draft"))).invoke(asked())
        assert found.verdicts == (True, False)
        assert found.problem is None
        assert found.checks["agree"].problem == "the check failed (RuntimeError)"
        assert found.checks["shape"].verdicts == (True,)

    def test_nor_does_the_first(self) -> None:
        found = three(self=failing(RuntimeError())).invoke(asked())
        assert found.problem == "the check failed (RuntimeError)"
        assert found.confidence is None
        assert found.checks["agree"].score == 0.25

    async def test_all_of_them_are_an_error(self) -> None:
        both = {"a": failing(RuntimeError("first")), "b": failing(KeyError("second"))}
        for check in (CombinedVerifier(checks=both), CombinedVerifier(checks={"a": both["a"]})):
            with pytest.raises(RuntimeError, match="first"):
                await check.ainvoke(asked())

    def test_so_is_the_one_asked_for(self) -> None:
        with pytest.raises(RuntimeError):
            three(agree=failing(RuntimeError())).invoke(asked(check="agree"))

    def test_what_was_given_wrong_is_to_be_mended(self) -> None:
        with pytest.raises(AutoMixError, match="no model to check with"):
            three(agree=SelfVerifier()).invoke(asked())

    def test_a_check_must_return_a_verification(self) -> None:
        broken: Any = RunnableLambda(lambda _: 0.5)
        with pytest.raises(AutoMixError, match="'agree' returned float, not a Verification"):
            three(agree=broken).invoke(asked())

    def test_what_the_failed_check_paid_is_told(self, server: OpenAIServer) -> None:
        def script(body: Body) -> Any:
            return 500 if len(server.requests) > 2 else ["an answer"]

        server.script = script
        model = server.model("small")
        again: Any = RunnableLambda(lambda said: said.text) | model
        paid = RunnableLambda(lambda given: given["question"]) | model | again | again
        checks = {"self": finding(score=0.5), "paid": paid}
        found = CombinedVerifier(checks=checks).invoke(asked())
        assert str(found.checks["paid"].problem).startswith("the check failed (")
        assert len(found.calls) == len(found.checks["paid"].calls) == 2
        assert [call.usage["input_tokens"] for call in found.calls if call.usage] == [
            billed["prompt_tokens"] for billed in server.billed
        ]

    def test_what_a_check_of_ones_own_paid_is_told_though_it_does_not_tell(
        self, server: OpenAIServer
    ) -> None:
        asks: Any = RunnableLambda(lambda given: given["question"]) | server.model("small")
        own = asks | RunnableLambda(lambda said: Verification(score=0.5))
        combined = CombinedVerifier(checks={"self": finding(score=0.5), "own": own})
        for given in (asked(), asked(check="own")):
            found = combined.invoke(given)
            assert [call.model for call in found.calls] == ["small"]
            assert found.checks["own"].calls == found.calls

    def test_nothing_found_is_said(self) -> None:
        found = three(self=finding(), agree=finding()).invoke(asked())
        assert found.problem == found.checks["agree"].problem == "the check found nothing"
        assert found.checks["shape"].problem is None

    def test_a_mix_that_checks_and_fails_does_not_lose_the_others(self) -> None:
        found = three(agree=failing(QueryFailedError("all models failed"))).invoke(asked())
        assert found.checks["agree"].problem == "the check failed (QueryFailedError)"

    def test_an_interrupt_is_no_failure(self) -> None:
        class GraphBubbleUp(Exception):  # noqa: N818  (LangGraph's name)
            pass

        own = FunctionVerifier(function=raising(GraphBubbleUp))
        checks: list[Any] = [failing(GraphBubbleUp()), own]
        for check in checks:
            with pytest.raises(GraphBubbleUp):
                three(agree=check).invoke(asked())

    def test_an_answer_that_one_check_finds_unusable_is(self) -> None:
        found = three(shape=finding(usable=False, problem="it is no JSON")).invoke(asked())
        assert not found.usable
        assert found.problem == "it is no JSON"


class TestAsAVerifier:
    def test_the_model_that_answered_checks(self, server: OpenAIServer) -> None:
        server.script = answering(verdicts="ar")
        own = SelfVerifier(model=server.model("large"), samples=2)
        combined = CombinedVerifier(
            checks={"self": SelfVerifier(samples=4).with_retry(), "other": own}
        )
        ready = verifier_for(combined, server.model("small"))
        found = ready.invoke(asked())
        assert sorted(body["model"] for body in server.requests) == ["large", "small"]
        assert found.verdicts == (True, False, True, False)
        assert found.checks["other"].verdicts == (True, False)
        assert [call.model for call in found.calls] == ["small", "large"]
        assert combined.samples is None, "a retried check does not tell"

    def test_the_model_is_set_to_answer_as_they_need(self, server: OpenAIServer) -> None:
        from langchain_automix import LogProbabilityVerifier  # noqa: PLC0415

        combined = CombinedVerifier(checks={"a": SelfVerifier(), "b": LogProbabilityVerifier()})
        ready: Any = combined.for_answering(server.model("small"))
        assert ready.logprobs is True

    def test_the_fingerprint_follows_its_parts(self) -> None:
        one, other = SelfVerifier(), SelfVerifier(temperature=0.5)
        word = TokenProbabilityVerifier()
        shapes = [
            {"a": one, "b": word},
            {"b": word, "a": one},
            {"a": other, "b": word},
            {"a": one, "c": word},
            {"a": one},
        ]
        prints = [CombinedVerifier(checks=shape).fingerprint for shape in shapes]
        assert len(set(prints)) == len(shapes)
        assert prints == [CombinedVerifier(checks=shape).fingerprint for shape in shapes]

    def test_in_a_mix_a_trace_shows_which_check_it_was(self, server: OpenAIServer) -> None:
        server.script = answering("small", "large", verdicts="aaar")
        verifier = CombinedVerifier(
            checks={"self": SelfVerifier(samples=4), "shape": finding(verdicts=(True,))}
        )
        witness = Witness()
        kept = mix(server, verifier=verifier).invoke("Where?", {"callbacks": [witness]})
        assert record_of(kept)["verdicts"] == [True, True, True, False]
        names = list(witness.names.values())
        assert "check self" in names
        assert "check shape" not in names, "the router asks for the first"
        assert not witness.open

    @pytest.mark.parametrize("how", ["sync", "async"])
    async def test_side_by_side(self, server: OpenAIServer, how: str) -> None:
        server.script, server.delay = answering(verdicts="a"), 0.2
        own = SelfVerifier(model=server.model("small"), samples=1)
        combined = CombinedVerifier(checks={"a": own, "b": own, "c": failing(RuntimeError())})
        found = combined.invoke(asked()) if how == "sync" else await combined.ainvoke(asked())
        assert found.confidence == found.checks["b"].confidence == 1.0
        assert found.checks["c"].problem
        assert server.most_at_once == 2

    async def test_many_at_once(self, server: OpenAIServer) -> None:
        server.script = answering(verdicts="aaar")
        combined = three(self=SelfVerifier(model=server.model("small"), samples=4))
        for found in (combined.batch([asked()] * 3), await combined.abatch([asked()] * 3)):
            assert [each.confidence for each in found] == [0.75] * 3
            assert all(isinstance(each, Verification) for each in found)
