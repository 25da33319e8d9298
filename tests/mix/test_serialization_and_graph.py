"""The mix seen from outside: written down and read again, drawn as a graph, its schemas."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from langchain_core.load import dumpd, dumps, load, loads
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import (
    RunnableLambda,
)
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_openai import ChatOpenAI

from langchain_automix import (
    AutoMixRunnable,
    POMDPRouter,
    SelfVerifier,
    ThresholdRouter,
)
from tests.support.builders.mixes import PROMPT, RAG_PROMPT, mix, record_of, weather
from tests.support.builders.synthetic_logs import world
from tests.support.servers.openai_server import OpenAIServer, answering, is_check

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::langchain_core._api.LangChainBetaWarning",
)


class TestSerialisation:
    @pytest.mark.parametrize("fitted", [True, False])
    def test_same_decisions_after(self, server: OpenAIServer, fitted: bool) -> None:
        router: Any = POMDPRouter.fit(world(300)) if fitted else ThresholdRouter(threshold=0.7)
        asked = mix(server, router=router, prompt=RAG_PROMPT, always_escalate_tools=["weather"])
        asked = asked.bind_tools([convert_to_openai_tool(weather)], tool_choice="auto")
        how: Any = {
            "allowed_objects": [
                AutoMixRunnable,
                SelfVerifier,
                type(router),
                ChatOpenAI,
                *self.of_prompts(),
            ],
            "valid_namespaces": ["langchain_automix"],
            "secrets_map": {"OPENAI_API_KEY": "test"},
        }
        for again in (load(dumpd(asked), **how), loads(dumps(asked), **how)):
            server.requests.clear()
            assert isinstance(again, AutoMixRunnable)
            found = []
            for each, verdicts in itertools.product((asked, again), ("aar", "arr", "r")):
                server.script = answering("small says", "large says", verdicts=verdicts)
                given = {"question": "Where?", "context": "Turku."}
                found.append(record_of(each.invoke(given)))
            assert found[:3] == found[3:]
            assert len({record["model"] for record in found}) == 2
            assert again.always_escalate_tools == ["weather"]
            assert again.tools == asked.tools
            drafts = [body for body in server.requests if not is_check(body)]
            assert drafts[: len(drafts) // 2] == drafts[len(drafts) // 2 :]
        assert "test" not in dumps(asked.models[0].openai_api_key)  # type: ignore[attr-defined]

    def of_prompts(self) -> list[Any]:
        from langchain_core.prompts import (  # noqa: PLC0415
            HumanMessagePromptTemplate,
            PromptTemplate,
        )

        return [ChatPromptTemplate, HumanMessagePromptTemplate, PromptTemplate]


class TestShape:
    def drawn(self, runnable: Any) -> str:
        found: str = runnable.get_graph().draw_mermaid(with_styles=False)
        return found

    def test_the_graph(self, server: OpenAIServer) -> None:
        text = self.drawn(mix(server))
        for edge in ("&nbsp;escalate&nbsp;", "&nbsp;verify&nbsp;", "&nbsp;answer&nbsp;"):
            assert edge in text
        assert "ThresholdRouter -. &nbsp;escalate&nbsp; .-> large" in text

    @pytest.mark.parametrize("count", [2, 3])
    @pytest.mark.parametrize("with_prompt", [False, True])
    def test_the_graph_in_a_chain(
        self, server: OpenAIServer, count: int, with_prompt: bool
    ) -> None:
        models = [server.model(name) for name in ("small", "large", "third")[:count]]
        prompt = RAG_PROMPT if with_prompt else None
        asked = AutoMixRunnable.from_models(*models, router=ThresholdRouter(), prompt=prompt)
        before: Any = RunnableLambda(lambda given: given) if with_prompt else PROMPT
        text = self.drawn(before | asked | StrOutputParser())
        assert text.count("&nbsp;escalate&nbsp;") == count - 1
        assert "&nbsp;answer&nbsp;" in text, "an accepted answer goes on to the parser"
        assert "StrOutputParser" in text

    @pytest.mark.parametrize("forced", [0, 1, 2])
    def test_the_graph_of_a_forced_model(self, server: OpenAIServer, forced: int) -> None:
        models = [server.model(name) for name in ("small", "large", "third")]
        asked = AutoMixRunnable.from_models(*models, force_model=forced)
        text = self.drawn(PROMPT | asked | StrOutputParser())
        assert ("small", "large", "third")[forced] in text

    def test_schemas(self, server: OpenAIServer) -> None:
        asked = mix(server)
        plain = server.model("large")
        assert asked.get_input_jsonschema()["anyOf"] == plain.get_input_jsonschema()["anyOf"]
        assert asked.get_output_jsonschema()["title"]
        chain = PROMPT | asked
        assert chain.get_input_jsonschema()["required"] == ["question"]
        with_prompt = mix(server, prompt=RAG_PROMPT)
        assert with_prompt.get_input_jsonschema()["required"] == ["context", "question"]
        assert with_prompt.OutputType is AIMessage
