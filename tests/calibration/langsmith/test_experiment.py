"""LangSmith, both ways, over a server that speaks its wire: the wire, and experiments."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import langsmith
import pytest
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda

from langchain_automix import (
    AutoMixError,
)
from langchain_automix.calibration.graders.text import exact_match
from langchain_automix.calibration.langsmith.experiment import (
    aevaluate_on_langsmith,
    evaluate_on_langsmith,
)
from langchain_automix.calibration.langsmith.log import log_from_langsmith
from tests.support.builders.langsmith_traces import (
    LARGE,
    SMALL,
    capitals,
    chain_of,
    grade,
    mix_of,
    script,
    traced,
    whole_cost,
)
from tests.support.builders.no_warnings import no_warnings
from tests.support.servers.langsmith_server import LangSmithServer
from tests.support.servers.openai_server import OpenAIServer, is_check

pytestmark = [
    # Newer clients would rather be asked in ways that older servers do not know.
    pytest.mark.filterwarnings("ignore:(list_runs|read_run)"),
    pytest.mark.filterwarnings("ignore:Of . in . queries"),
]


@pytest.fixture
def langsmith_server() -> Iterator[LangSmithServer]:
    with LangSmithServer(page=3) as running:
        yield running


class TestTheServer:
    @pytest.mark.parametrize("compressed", [True, False])
    def test_decodes_what_the_client_sends(self, server: OpenAIServer, compressed: bool) -> None:
        with LangSmithServer(compressed=compressed) as ls:
            traced(ls, mix_of(server), "Capital of Italy?", project="p")
            shape = [(depth, run["name"], run["run_type"]) for depth, run in ls.tree()]
            assert shape == [
                (0, "AutoMixRunnable", "chain"),
                (1, "draft", "llm"),
                (1, "SelfVerifier", "chain"),
                (2, "verify", "llm"),
                (1, "ThresholdRouter", "chain"),
                (1, "escalate", "llm"),
            ]
            [root] = ls.roots
            assert root["inputs"] == {"input": "Capital of Italy?"}
            assert root["outputs"]["output"]["content"] == "Rome"
            assert f"post.{root['id']}.inputs" in ls.parts
            assert ls.client.read_run(root["id"]).status == "success"

    def test_reads_in_pages(self, server: OpenAIServer, langsmith_server: LangSmithServer) -> None:
        ls = langsmith_server
        traced(ls, mix_of(server), "Italy?", "France?", project="p")
        assert len(list(ls.client.list_runs(project_name="p"))) == len(ls.runs) == 11
        assert sum("/runs/query" in path for _, path in ls.requests) == 4
        roots = list(ls.client.list_runs(project_name="p", is_root=True, limit=1))
        assert [str(run.id) for run in roots] == [ls.roots[-1]["id"]]

    def test_filters(self, server: OpenAIServer, langsmith_server: LangSmithServer) -> None:
        ls = langsmith_server
        tagged = mix_of(server).with_config(metadata={"stage": "qa", "round": 2})
        traced(ls, tagged, "Italy?", "France?", project="p")
        grade(ls, ls.roots[0], 0.25)

        def names(**query: Any) -> list[str]:
            return [run.name or "" for run in ls.client.list_runs(project_name="p", **query)]

        assert names(filter=f'has(tags, "automix:{LARGE}")') == ["escalate"]
        assert names(filter='and(eq(run_type, "llm"), eq(name, "draft"))') == ["draft"] * 2
        both = 'and(eq(metadata_key, "stage"), eq(metadata_value, "qa"))'
        assert len(names(filter=both)) == 11
        assert not names(filter='and(eq(metadata_key, "stage"), eq(metadata_value, "2"))')
        assert len(names(filter="has(metadata, '{\"round\": 2}')")) == 11
        graded = 'and(eq(feedback_key, "correctness"), lt(feedback_score, 0.5))'
        assert names(filter=graded) == ["AutoMixRunnable"]
        assert "escalate" in names(trace_filter=graded)
        assert len(names(is_root=True, tree_filter='eq(name, "escalate")')) == 1

    def test_takes_feedback_in_the_batch_and_by_itself(
        self, server: OpenAIServer, langsmith_server: LangSmithServer
    ) -> None:
        ls = langsmith_server
        traced(ls, mix_of(server), "France?", project="p")
        [root] = ls.roots
        grade(ls, root, True)
        assert all(name.split(".")[0] in {"post", "patch", "feedback"} for name in ls.parts)
        ls.client.create_feedback(root["id"], "tone", score=0.5, session_id=root["session_id"])
        assert [part.split(".")[0] for part in ls.parts].count("feedback") == 1
        assert ("POST", "/feedback") in ls.requests
        found = ls.client.list_feedback(run_ids=[root["id"]], feedback_key=["tone"])
        assert [each.score for each in found] == [0.5]
        [read] = ls.client.list_runs(project_name="p", is_root=True)
        assert read.feedback_stats
        assert read.feedback_stats["correctness"] == {"n": 1, "avg": 1.0}

    def test_takes_runs_one_by_one(
        self, server: OpenAIServer, langsmith_server: LangSmithServer
    ) -> None:
        ls = langsmith_server
        url = ls.client.api_url
        client = langsmith.Client(api_url=url, api_key="test", auto_batch_tracing=False)
        with langsmith.tracing_context(enabled=True, client=client, project_name="p"):
            mix_of(server).invoke("Italy?")
        assert not ls.parts
        assert len(ls.tree()) == 6
        assert ls.roots[0]["outputs"]["output"]["content"] == "Rome"

    def test_says_what_it_does_not_know(self) -> None:
        def ask() -> None:
            with LangSmithServer() as ls, pytest.raises(langsmith.utils.LangSmithError):
                ls.client.list_prompts()

        with pytest.raises(AssertionError, match="GET /repos"):
            ask()


class TestOnADataset:
    def test_an_experiment_is_graded_and_read_back(
        self, server: OpenAIServer, langsmith_server: LangSmithServer
    ) -> None:
        ls = langsmith_server
        capitals(ls)
        done = evaluate_on_langsmith(chain_of(server), "capitals", client=ls.client)
        assert done.summary["queries"] == 3
        assert done.summary["quality"] == 1
        assert done.summary["escalation_rate"] == pytest.approx(2 / 3)
        assert done.summary["verification_samples"] == 4
        keys = {each["key"] for each in ls.feedback}
        figures = {"cost", "escalated", "confidence", "verdicts"}
        assert keys == {"correctness", *(f"automix_{name}" for name in figures)}
        log = log_from_langsmith(done.name, client=ls.client)
        assert len(log) == 3
        assert done.summary["cost"] == pytest.approx(whole_cost(log) / 3)

    def test_single_models_fill_in_what_the_mix_did_not_ask(
        self, server: OpenAIServer, langsmith_server: LangSmithServer
    ) -> None:
        ls = langsmith_server
        capitals(ls)
        evaluate_on_langsmith(chain_of(server), "capitals", client=ls.client)
        with pytest.warns(UserWarning, match="for 0 of 3 queries"):
            before = log_from_langsmith(dataset="capitals", client=ls.client)
        assert [[a.quality for a in q.answers] for q in before].count([None, 1.0]) == 2
        prompt = ChatPromptTemplate.from_messages([("human", "Capital of {country}?")])
        for name in (SMALL, LARGE):
            single = prompt | server.model(name)
            evaluate_on_langsmith(single, "capitals", client=ls.client)
        with no_warnings():
            log = log_from_langsmith(dataset="capitals", client=ls.client)
        assert sorted([a.quality for a in query.answers] for query in log) == [
            [0.0, 1.0],
            [0.0, 1.0],
            [1.0, 1.0],
        ]
        assert all(answer.cost for query in log for answer in query.answers)
        assert {query.id for query in log} == set(ls.examples)

    def test_another_draft_lends_no_quality(
        self, server: OpenAIServer, langsmith_server: LangSmithServer
    ) -> None:
        ls = langsmith_server
        capitals(ls)
        evaluate_on_langsmith(chain_of(server), "capitals", client=ls.client)
        prompt = ChatPromptTemplate.from_messages([("human", "Capital of {country}?")])
        server.script = lambda body: ["Lisbon"]
        evaluate_on_langsmith(prompt | server.model(SMALL), "capitals", client=ls.client)
        log = log_from_langsmith(dataset="capitals", client=ls.client)
        assert [query.answers[0].quality for query in log].count(None) == 2

    def test_a_grader_grades_the_drafts_too(
        self, server: OpenAIServer, langsmith_server: LangSmithServer
    ) -> None:
        ls = langsmith_server
        capitals(ls)
        evaluate_on_langsmith(chain_of(server), "capitals", client=ls.client)
        log = log_from_langsmith(dataset="capitals", grader=exact_match, client=ls.client)
        pairs = sorted(str([answer.quality for answer in query.answers]) for query in log)
        assert pairs == ["[0.0, 1.0]", "[0.0, 1.0]", "[1.0, None]"]

    async def test_asynchronously(
        self, server: OpenAIServer, langsmith_server: LangSmithServer
    ) -> None:
        ls = langsmith_server
        capitals(ls)
        done = await aevaluate_on_langsmith(chain_of(server), "capitals", client=ls.client)
        assert done.summary["quality"] == 1
        assert len(log_from_langsmith(done.name, client=ls.client)) == 3

    def test_figures_of_a_mix_whose_message_is_parsed_away(
        self, server: OpenAIServer, langsmith_server: LangSmithServer
    ) -> None:
        ls = langsmith_server
        capitals(ls)
        schema = {"title": "City", "type": "object", "properties": {"name": {"type": "string"}}}
        asked = mix_of(server).with_structured_output(schema, method="json_schema")
        server.script = lambda body: ['{"name": "Rome"}'] if not is_check(body) else script(body)
        chain: Runnable[Any, Any] = (
            RunnableLambda(lambda given: f"Capital of {given['country']}?") | asked
        )
        done = evaluate_on_langsmith(chain, "capitals", client=ls.client)
        assert done.summary["cost"] is not None
        assert done.summary["escalation_rate"] == pytest.approx(2 / 3)

    def test_failures_are_counted(
        self, server: OpenAIServer, langsmith_server: LangSmithServer
    ) -> None:
        ls = langsmith_server
        capitals(ls)
        chain = chain_of(server)
        server.script = lambda body: 500 if "Spain" in str(body) else script(body)
        done = evaluate_on_langsmith(chain, "capitals", client=ls.client)
        assert (done.summary["queries"], done.summary["failed"]) == (3, 1)
        assert done.summary["quality"] == 1

    def test_which_output_is_the_answer_is_asked_before_any_money_is_spent(
        self, server: OpenAIServer, langsmith_server: LangSmithServer
    ) -> None:
        ls = langsmith_server
        dataset = ls.client.create_dataset("two")
        both = {"capital": "Rome", "river": "Tiber"}
        example = {"inputs": {"country": "Italy"}, "reference_outputs": both, "id": uuid.uuid4()}
        ls.client.create_examples(dataset_id=dataset.id, examples=[example])
        with pytest.raises(AutoMixError, match="reference="):
            evaluate_on_langsmith(chain_of(server), "two", client=ls.client)
        assert not server.requests
        done = evaluate_on_langsmith(chain_of(server), "two", reference="capital", client=ls.client)
        assert done.summary["quality"] == 1
