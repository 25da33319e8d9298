"""A routing log from LangSmith's traces, over a server that speaks its wire."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import langsmith
import pytest
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel

from langchain_automix import (
    AutoMixError,
    AutoMixRunnable,
    ChatAutoMix,
    CombinedVerifier,
    PatternVerifier,
    SelfVerifier,
    ThresholdRouter,
)
from langchain_automix.calibration.langsmith.log import log_from_langsmith
from langchain_automix.models.prices import cost_of
from langchain_automix.types import ModelCall
from tests.support.builders.langsmith_traces import (
    CAPITALS,
    LARGE,
    SMALL,
    chain_of,
    grade,
    mix_of,
    script,
    traced,
    usage_of,
)
from tests.support.builders.scripted_replies import ACCEPT, Body
from tests.support.servers.langsmith_server import LangSmithServer
from tests.support.servers.openai_server import OpenAIServer, is_check

pytestmark = [
    # Newer clients would rather be asked in ways that older servers do not know.
    pytest.mark.filterwarnings("ignore:(list_runs|read_run)"),
    pytest.mark.filterwarnings("ignore:Of . in . queries"),
]


_IN_CAPITALS = PatternVerifier(pattern=r"[A-Z].*")


@pytest.fixture
def langsmith_server() -> Iterator[LangSmithServer]:
    with LangSmithServer(page=3) as running:
        yield running


class TestLogFromLangSmith:
    def test_a_check_of_several_is_no_query(
        self, server: OpenAIServer, langsmith_server: LangSmithServer
    ) -> None:
        ls = langsmith_server
        both = CombinedVerifier(checks={"self": SelfVerifier(samples=4), "form": _IN_CAPITALS})
        chain = chain_of(server, verifier=both)
        traced(ls, chain, {"country": "France"}, project="p")
        grade(ls, ls.roots[0], 0.5)  # of the chain, which holds no other query
        [query] = log_from_langsmith("p", client=ls.client)
        assert [answer.quality for answer in query.answers] == [0.5, None]

    def test_the_kept_answer_has_the_grade(
        self, server: OpenAIServer, langsmith_server: LangSmithServer
    ) -> None:
        ls = langsmith_server
        traced(ls, chain_of(server), {"country": "Italy"}, {"country": "France"}, project="p")
        for root, score in zip(ls.roots, (1, 0.5), strict=True):
            grade(ls, root, score)
        log = log_from_langsmith("p", client=ls.client)
        assert log.models == (SMALL, LARGE)
        assert log.currency == "USD"
        italy, france = log
        assert [answer.quality for answer in italy.answers] == [None, 1.0]
        assert [answer.quality for answer in france.answers] == [0.5, None]
        assert france.answers[1].cost is None
        assert france.answers[0].verification
        assert france.answers[0].verification.verdicts == (True, True, None, True)
        assert italy.answers[1].verification is None
        mixes = [run for run in ls.runs if run["name"] == "AutoMixRunnable"]
        assert [italy.id, france.id] == [run["id"] for run in mixes]

    def test_the_costs_are_those_that_were_billed(
        self, server: OpenAIServer, langsmith_server: LangSmithServer
    ) -> None:
        ls = langsmith_server
        traced(ls, mix_of(server), "Italy?", project="p")
        grade(ls, ls.roots[0], 1)
        [italy] = log_from_langsmith("p", client=ls.client)
        billed = [
            cost_of([ModelCall(model=bill["model"], provider="openai", usage=usage_of(bill))])
            for bill in server.billed
        ]
        small, large = italy.answers
        assert small.verification
        found = [small.cost, small.verification.total_cost, large.cost]
        assert found == [pytest.approx(float(cost or 0)) for cost in billed]
        assert small.verification.fixed_cost > 0
        record = ls.roots[0]["outputs"]["output"]["response_metadata"]["automix"]
        assert sum(map(float, found)) == pytest.approx(float(record["cost"].split()[0]))  # type: ignore[arg-type]

    def test_in_parallel_each_verdict_pays_for_its_prompt(
        self, server: OpenAIServer, langsmith_server: LangSmithServer
    ) -> None:
        ls = langsmith_server
        verifier = SelfVerifier(samples=4, sampling="parallel")
        traced(ls, mix_of(server, verifier=verifier), "Italy?", project="p")
        grade(ls, ls.roots[0], 1)
        [italy] = log_from_langsmith("p", client=ls.client)
        check = italy.answers[0].verification
        assert check
        assert check.fixed_cost == 0
        assert len(check.verdicts or ()) == 4

    def test_a_draft_may_have_a_grade_of_its_own(
        self, server: OpenAIServer, langsmith_server: LangSmithServer
    ) -> None:
        ls = langsmith_server
        traced(ls, mix_of(server), "Italy?", project="p")
        grade(ls, ls.roots[0], 1)
        grade(ls, next(run for run in ls.runs if run["name"] == "draft"), 0)
        [italy] = log_from_langsmith("p", client=ls.client)
        assert [answer.quality for answer in italy.answers] == [0.0, 1.0]

    def test_a_callable_finds_the_quality(
        self, server: OpenAIServer, langsmith_server: LangSmithServer
    ) -> None:
        ls = langsmith_server
        traced(ls, mix_of(server), "Italy?", "France?", project="p")
        grade(ls, ls.roots[0], 4, key="stars")

        def stars(run: Any, feedback: Any) -> float | None:
            return float(feedback[0].score / 5) if feedback else None

        with pytest.warns(UserWarning, match="1 of 2 runs are left out.*1 because it has no grade"):
            [italy] = log_from_langsmith("p", quality=stars, client=ls.client)
        assert italy.answers[1].quality == 0.8

    def test_what_cannot_be_used_is_counted(
        self, server: OpenAIServer, langsmith_server: LangSmithServer
    ) -> None:
        ls = langsmith_server
        mix = mix_of(server)
        traced(ls, mix, "Italy?", "France?", "Spain?", project="p")
        server.script = lambda body: 500
        with pytest.raises(Exception, match="scripted"):
            traced(ls, mix, "Italy?", project="p")
        grade(ls, ls.roots[0], 1)
        grade(ls, ls.roots[1], 7)
        with pytest.warns(UserWarning, match="3 of 4 runs are left out") as told:
            [italy] = log_from_langsmith("p", client=ls.client)
        assert italy.answers[1].quality == 1
        said = str(told[0].message)
        for why in ("the run failed", "its quality lies outside [0, 1]", "it has no grade"):
            assert f"1 because {why}" in said

    def test_an_unknown_price_is_not_zero(
        self, server: OpenAIServer, langsmith_server: LangSmithServer
    ) -> None:
        ls = langsmith_server
        models = [server.model("local-small"), server.model("local-large")]
        verifier, router = SelfVerifier(samples=4), ThresholdRouter(threshold=0.5)
        server.script = lambda body: [ACCEPT if is_check(body) else "Rome"] * (body.get("n") or 1)
        mix = AutoMixRunnable(models=models, verifier=verifier, router=router)
        traced(ls, mix, "Italy?", project="p")
        grade(ls, ls.roots[0], 1)
        with pytest.raises(AutoMixError, match="cost of its check is unknown"):
            log_from_langsmith("p", client=ls.client)

        def tokens(calls: Any) -> float:
            return float(sum(call.usage["total_tokens"] for call in calls) / 1e6)

        [italy] = log_from_langsmith("p", client=ls.client, cost_of=tokens)
        assert italy.answers[0].cost == pytest.approx(server.billed[0]["total_tokens"] / 1e6)

    def test_feedback_on_a_trace_with_two_queries_is_nobodys(
        self, server: OpenAIServer, langsmith_server: LangSmithServer
    ) -> None:
        ls = langsmith_server
        mix = mix_of(server)

        def twice(country: str) -> str:
            return str(mix.invoke(f"{country}?").text + mix.invoke("France?").text)

        traced(ls, RunnableLambda(twice), "Italy", project="p")
        grade(ls, ls.roots[0], 1)
        with pytest.raises(AutoMixError, match="2 because it has no grade"):
            log_from_langsmith("p", client=ls.client)
        grade(ls, next(run for run in ls.runs if run["name"] == "AutoMixRunnable"), 1)
        with pytest.warns(UserWarning, match="1 because it has no grade"):
            assert len(log_from_langsmith("p", client=ls.client)) == 1

    def test_a_mix_as_a_chat_model_streamed(
        self, server: OpenAIServer, langsmith_server: LangSmithServer
    ) -> None:
        ls = langsmith_server
        server.script = script
        chat = ChatAutoMix(
            models=[server.model(name, stream_usage=True) for name in (SMALL, LARGE)],
            verifier=SelfVerifier(samples=4),
            router=ThresholdRouter(threshold=0.5),
        )
        with langsmith.tracing_context(enabled=True, client=ls.client, project_name="p"):
            assert "".join(str(chunk.text) for chunk in chat.stream("Italy?")) == "Rome"
        grade(ls, ls.roots[0], 1)
        [italy] = log_from_langsmith("p", client=ls.client)
        assert [answer.quality for answer in italy.answers] == [None, 1.0]
        assert italy.answers[1].cost

    def test_a_parsed_answer_holds_no_record_but_the_decision_is_traced(
        self, server: OpenAIServer, langsmith_server: LangSmithServer
    ) -> None:
        ls = langsmith_server

        class Capital(BaseModel):
            """A capital."""

            name: str

        def in_json(body: Body) -> list[str]:
            replies = script(body)
            return replies if is_check(body) else [f'{{"name": "{replies[0]}"}}']

        mix = mix_of(server).with_structured_output(Capital, method="json_schema")
        server.script = in_json
        traced(ls, mix, "Italy?", "France?", project="p")
        for root in ls.roots:
            grade(ls, root, 1)
        italy, france = log_from_langsmith("p", client=ls.client)
        assert [answer.quality for answer in italy.answers] == [None, 1.0]
        assert [answer.quality for answer in france.answers] == [1.0, None]
        assert italy.answers[0].cost

    def test_a_model_that_was_forced(
        self, server: OpenAIServer, langsmith_server: LangSmithServer
    ) -> None:
        ls = langsmith_server
        traced(ls, mix_of(server, force_model=1), "Italy?", project="p")
        grade(ls, ls.roots[0], 1)
        with pytest.raises(AutoMixError, match="give models="):
            log_from_langsmith("p", client=ls.client)
        [italy] = log_from_langsmith("p", models=(SMALL, LARGE), client=ls.client)
        assert [answer.quality for answer in italy.answers] == [None, 1.0]

    def test_hidden_outputs_say_nothing(
        self, server: OpenAIServer, langsmith_server: LangSmithServer
    ) -> None:
        ls = langsmith_server
        url = ls.client.api_url
        client = langsmith.Client(api_url=url, api_key="test", hide_outputs=True, hide_inputs=True)
        with langsmith.tracing_context(enabled=True, client=client, project_name="p"):
            mix_of(server).invoke("Italy?")
        client.flush()
        assert "Rome" not in str(ls.runs)
        grade(ls, ls.roots[0], 1)
        with pytest.raises(AutoMixError, match="hidden"):
            log_from_langsmith("p", client=ls.client)

    def test_two_mixes_must_be_told_apart(
        self, server: OpenAIServer, langsmith_server: LangSmithServer
    ) -> None:
        ls = langsmith_server
        traced(ls, mix_of(server), "Italy?", project="p")
        other = AutoMixRunnable(
            models=[server.model(SMALL), server.model("gpt-4.1")],
            verifier=SelfVerifier(samples=4),
            router=ThresholdRouter(threshold=0.5),
        )
        traced(ls, other, "France?", project="p")
        for root in ls.roots:
            grade(ls, root, 1)
        with pytest.raises(AutoMixError, match="several mixes"):
            log_from_langsmith("p", client=ls.client)
        with pytest.warns(UserWarning, match="it is of another mix"):
            assert len(log_from_langsmith("p", models=(SMALL, LARGE), client=ls.client)) == 1

    def test_caller_tags_and_a_batch(
        self, server: OpenAIServer, langsmith_server: LangSmithServer
    ) -> None:
        ls = langsmith_server
        chain = chain_of(server).with_config(tags=["automix:mine", "qa"])
        inputs: list[Any] = [{"country": name} for name in CAPITALS]
        with langsmith.tracing_context(enabled=True, client=ls.client, project_name="p"):
            chain.batch(inputs)
        for root in ls.roots:
            grade(ls, root, 1)
        log = log_from_langsmith("p", client=ls.client)
        assert len(log) == 3
        assert [len([a for a in q.answers if a.cost]) for q in log].count(1) == 1

    def test_names_that_are_not_there(self, langsmith_server: LangSmithServer) -> None:
        with pytest.raises(AutoMixError, match="name of a project"):
            log_from_langsmith(client=langsmith_server.client)
        with pytest.raises(langsmith.utils.LangSmithNotFoundError):
            log_from_langsmith("nowhere", client=langsmith_server.client)
