"""The mix where a chat model was, over real HTTP: each test is one use that LangChain has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.documents import Document
from langchain_core.exceptions import ModelAPIError
from langchain_core.globals import set_llm_cache
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import JsonOutputParser, StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import (
    ConfigurableField,
    RunnableBranch,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from langchain_core.runnables.history import RunnableWithMessageHistory

from langchain_automix import (
    AutoMixRunnable,
    POMDPRouter,
    SelfVerifier,
    ThresholdRouter,
)
from tests.support.builders.mixes import (
    KEPT,
    PROMPT,
    RAG_PROMPT,
    Witness,
    by_question,
    mix,
    record_of,
)
from tests.support.builders.synthetic_logs import world
from tests.support.servers.anthropic_server import AnthropicServer
from tests.support.servers.openai_server import OpenAIServer, answering, is_check

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::langchain_core._api.LangChainBetaWarning",
)

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class TestChains:
    def test_pipe(self, server: OpenAIServer) -> None:
        server.script = answering('{"place": "Turku"}')
        chain = PROMPT | mix(server) | JsonOutputParser()
        assert chain.invoke({"question": "Where?"}) == {"place": "Turku"}

    def test_assign(self, server: OpenAIServer) -> None:
        server.script = answering("Turku")
        chain = RunnablePassthrough.assign(answer=PROMPT | mix(server) | StrOutputParser())
        assert chain.invoke({"question": "Where?"}) == {"question": "Where?", "answer": "Turku"}

    async def test_parallel(self, server: OpenAIServer) -> None:
        server.script = by_question()
        both = RunnableParallel(one=mix(server), other=(lambda text: f"hard {text}") | mix(server))
        for output in (both.invoke("Where?"), await both.ainvoke("Where?")):
            assert output["one"].content == "small: Where?"
            assert output["other"].content == "large: hard Where?"

    def test_branch_map_and_functions(self, server: OpenAIServer) -> None:
        server.script = by_question()
        asked = mix(server)
        branch = RunnableBranch((lambda text: "Where" in text, asked), lambda _: None)
        assert branch.invoke("Where?").content == "small: Where?"
        assert [m.content for m in asked.map().invoke(["a", "b"])] == ["small: a", "small: b"]
        inside = RunnableLambda(lambda text: asked.invoke(text).content)
        witness = Witness()
        assert inside.invoke("Where?", {"callbacks": [witness]}) == "small: Where?"
        roots = [run for run, parent in witness.parents.items() if parent is None]
        assert len(roots) == 1, "the mix is a child of the function that calls it"

    def test_history(self, server: OpenAIServer) -> None:
        history = InMemoryChatMessageHistory()
        prompt = ChatPromptTemplate.from_messages(
            [MessagesPlaceholder("turns"), ("human", "{question}")]
        )
        chain = RunnableWithMessageHistory(
            prompt | mix(server),
            lambda: history,
            input_messages_key="question",
            history_messages_key="turns",
        )
        server.script = answering("Turku.", "Turku, in 1931.", verdicts="a" * 8 + "r" * 8)
        chain.invoke({"question": "Where was she built?"}, {"configurable": {}})
        chain.invoke({"question": "And when?"}, {"configurable": {}})
        said = [message.content for message in history.messages]
        assert said == ["Where was she built?", "Turku.", "And when?", "Turku, in 1931."]
        read = server.checks[1]["messages"][-1]["content"]
        assert "Where was she built?" in read
        assert "Question: And when?" in read


class TestRag:
    def test_with_a_bm25_retriever(self, server: OpenAIServer) -> None:
        community = pytest.importorskip("langchain_community.retrievers")
        pytest.importorskip("rank_bm25")
        texts = ["The Halcyon was built in Turku.", "Cats sleep a lot.", "Ships sail the sea."]
        retriever = community.BM25Retriever.from_texts(texts, k=1)
        rag = {"context": retriever, "question": RunnablePassthrough()} | mix(
            server, prompt=RAG_PROMPT
        )
        rag.invoke("Where was the Halcyon built?")
        [asked, check] = server.requests
        assert asked["messages"][0]["content"].startswith("Read: The Halcyon was built in Turku.\n")
        assert "Context: The Halcyon was built in Turku.\n" in check["messages"][-1]["content"]

    @pytest.mark.parametrize("verdicts", ["a", "r"])
    def test_citations_are_untouched(self, verdicts: str) -> None:
        citation = {
            "type": "char_location",
            "cited_text": "built in Turku",
            "document_index": 0,
            "document_title": "Ships",
            "start_char_index": 0,
            "end_char_index": 14,
        }
        blocks: Any = {"content": [{"type": "text", "text": KEPT, "citations": [citation]}]}
        with AnthropicServer() as server:
            server.script = answering(blocks, blocks, verdicts=verdicts)
            models = [server.model(name) for name in ("small", "large")]
            asked = AutoMixRunnable.from_models(*models, router=ThresholdRouter())
            message = asked.invoke("Where?")
            chunks = list(asked.stream("Where?"))
        assert message.content[0]["citations"][0]["cited_text"] == "built in Turku"
        annotations = message.content_blocks[0]["annotations"]
        assert annotations[0]["title"] == "Ships"
        assert "cited_text" in repr(chunks) or verdicts == "r"

    def test_documents_as_context(self, server: OpenAIServer) -> None:
        documents = [Document("Turku."), Document("1931.", metadata={"source": "secret"})]
        mix(server, prompt=RAG_PROMPT).invoke({"question": "Where?", "context": documents})
        for body in server.requests:
            assert "Turku.\n\n1931." in body["messages"][-1]["content"]
            assert "secret" not in repr(body)


class TestImages:
    @pytest.mark.parametrize("given", ["messages", "prompt"])
    def test_an_image_reaches_the_model_and_the_check(
        self, server: OpenAIServer, given: str
    ) -> None:
        image = {"type": "image_url", "image_url": {"url": PIXEL}}
        question = {"type": "text", "text": "What is it?"}
        if given == "messages":
            mix(server).invoke([HumanMessage([question, image])])
        else:
            parts: list[Any] = [
                {"type": "text", "text": "{question}"},
                {"type": "image_url", "image_url": {"url": "{image}"}},
            ]
            prompt = ChatPromptTemplate.from_messages([("human", parts)])
            asked = mix(server, prompt=prompt)
            asked.invoke({"question": "What is it?", "image": PIXEL})
        assert len(server.requests) == 2
        assert all(PIXEL in json.dumps(body) for body in server.requests)


class TestRetriesAndFallbacks:
    def test_retries_inside_are_not_multiplied(self, server: OpenAIServer) -> None:
        server.script = lambda body: 500
        small = server.model("small").with_retry(
            stop_after_attempt=3, wait_exponential_jitter=False
        )
        asked = AutoMixRunnable.from_models(small, server.model("large"), router=ThresholdRouter())
        with pytest.raises(ModelAPIError, match="scripted"):
            asked.invoke("Where?")
        assert [body["model"] for body in server.requests] == ["small"] * 3 + ["large"]

    def test_retries_of_a_check(self, server: OpenAIServer) -> None:
        good, failures = answering("small says"), iter([500])
        server.script = lambda body: (
            (next(failures, None) if is_check(body) else None) or good(body)
        )
        small = server.model("small").with_retry(
            stop_after_attempt=3, wait_exponential_jitter=False
        )
        asked = AutoMixRunnable.from_models(small, server.model("large"), router=ThresholdRouter())
        assert asked.invoke("Where?").content == "small says"
        assert len(server.requests) == 3

    async def test_fallbacks_inside(self, server: OpenAIServer) -> None:
        good = answering("small says", "large says", "third says", verdicts="r")
        server.script = lambda body: 500 if body["model"] == "large" else good(body)
        large = server.model("large").with_fallbacks([server.model("third")])
        asked = AutoMixRunnable.from_models(server.model("small"), large, router=ThresholdRouter())
        assert (await asked.ainvoke("Where?")).content == "third says"
        chunks = [chunk async for chunk in asked.astream("Where?")]
        assert "".join(chunk.text for chunk in chunks) == "third says"

    def test_fallbacks_outside_in_a_stream(self, server: OpenAIServer) -> None:
        good = answering("s", "l", "third says")
        server.script = lambda body: good(body) if body["model"] == "third" else 500
        asked = mix(server).with_fallbacks([server.model("third")])
        assert "".join(chunk.text for chunk in asked.stream("Where?")) == "third says"


class TestCache:
    @pytest.fixture
    def cache(self) -> Iterator[InMemoryCache]:
        found = InMemoryCache()
        set_llm_cache(found)
        yield found
        set_llm_cache(None)

    def test_verdicts_stay_independent(self, server: OpenAIServer, cache: InMemoryCache) -> None:
        server.script = answering("small says", verdicts="ar")
        asked = mix(server, verifier=SelfVerifier(samples=4, sampling="parallel"))
        record = record_of(asked.invoke("Where?"))
        assert sorted(record["verdicts"]) == [False, False, True, True]

    def test_the_second_answer_is_free(self, server: OpenAIServer, cache: InMemoryCache) -> None:
        server.script = answering("small says")
        first, second = (mix(server).invoke("Where?") for _ in range(2))
        assert first.content == second.content
        assert [is_check(body) for body in server.requests] == [False, True, True]
        assert "automix" not in repr(cache._cache), "no record is kept in the cache"


class TestConfigurable:
    """Set at run time, by `ConfigurableField`."""

    def asked(self, server: OpenAIServer, **fields: Any) -> Any:
        server.script = answering("small says", "large says", verdicts="a")
        return PROMPT | mix(server, **fields).configurable_fields(
            cost_weight=ConfigurableField("cost_weight"),
            force_model=ConfigurableField("force_model"),
            verification=ConfigurableField("verification"),
        )

    @pytest.mark.parametrize("forced", [1, "large"])
    def test_force_model(self, server: OpenAIServer, forced: Any) -> None:
        asked = self.asked(server)
        config: Any = {"configurable": {"force_model": forced}}
        assert asked.invoke({"question": "Where?"}, config).content == "large says"
        assert asked.with_config(config).batch([{"question": "?"}])[0].content == "large says"
        streamed = asked.stream({"question": "Where?"}, config)
        assert "".join(chunk.text for chunk in streamed) == "large says"
        assert {body["model"] for body in server.requests} == {"large"}
        assert asked.invoke({"question": "Where?"}).content == "small says"

    def test_verification(self, server: OpenAIServer) -> None:
        asked = self.asked(server)
        asked.invoke({"question": "Where?"}, {"configurable": {"verification": False}})
        assert not server.checks
        asked.invoke({"question": "Where?"})
        assert len(server.checks) == 1

    def test_cost_weight(self, server: OpenAIServer) -> None:
        asked = self.asked(server, router=POMDPRouter.fit(world(300)))
        server.script = answering("small says", "large says", verdicts="r")
        found = [
            asked.invoke({"question": "?"}, {"configurable": {"cost_weight": weight}}).content
            for weight in (0.0, 100.0)
        ]
        assert found == ["large says", "small says"]

    def test_ids_of_the_parts(self, server: OpenAIServer) -> None:
        small = server.model("small").configurable_fields(temperature=ConfigurableField("warmth"))
        router = ThresholdRouter().configurable_fields(threshold=ConfigurableField("least"))
        asked = AutoMixRunnable.from_models(small, server.model("large"), router=router)
        assert {spec.id for spec in asked.config_specs} == {"warmth", "least"}
        properties = asked.config_schema().model_json_schema()["$defs"]["Configurable"]
        assert properties["properties"].keys() == {"warmth", "least"}
        server.script = answering("s", "l", verdicts="ar")
        config: Any = {"configurable": {"warmth": 0.75, "least": 0.9}}
        assert asked.invoke("Where?", config).content == "l"
        assert server.requests[0]["temperature"] == 0.75
        assert asked.invoke("Where?").content == "s"


class TestTraces:
    def test_with_config(self, server: OpenAIServer) -> None:
        witness = Witness()
        config: Any = {
            "tags": ["mine"],
            "metadata": {"who": "me"},
            "run_name": "answering",
            "callbacks": [witness],
        }
        mix(server).with_config(config).invoke("Where?")
        assert [*witness.names.values()] == [
            "answering",
            "draft",
            "SelfVerifier",
            "verify",
            "ThresholdRouter",
        ]
        assert all("mine" in tags for tags in witness.tags)
        assert all(metadata["who"] == "me" for metadata in witness.metadata)
        assert not witness.open

    @pytest.mark.parametrize("how", ["invoke", "astream", "batch"])
    async def test_usage_is_counted_once(self, server: OpenAIServer, how: str) -> None:
        server.script = answering("small says", "large says", verdicts="r")
        models = [server.model(name, stream_usage=True) for name in ("small", "large")]
        asked = AutoMixRunnable.from_models(
            *models, router=ThresholdRouter(), verifier=SelfVerifier(sampling="parallel")
        )
        counted = UsageMetadataCallbackHandler()
        if how == "invoke":
            asked.invoke("Where?", {"callbacks": [counted]})
        elif how == "batch":
            asked.batch(["Where?"], {"callbacks": [counted]})
        else:
            assert [chunk async for chunk in asked.astream("Where?", {"callbacks": [counted]})]
        found = {name: usage["total_tokens"] for name, usage in counted.usage_metadata.items()}
        billed = dict.fromkeys(("small", "large"), 0)
        for bill in server.billed:
            billed[bill["model"]] += bill["total_tokens"]
        assert found == billed
        assert len(server.billed) == 10

    @pytest.mark.parametrize(("verdicts", "kept"), [("a", 0), ("r", -1)])
    def test_usage_of_the_message_is_the_kept_models(
        self, server: OpenAIServer, verdicts: str, kept: int
    ) -> None:
        server.script = answering("one two", "three four five", verdicts=verdicts)
        message = mix(server).invoke("Where?")
        assert message.usage_metadata is not None
        assert message.usage_metadata["total_tokens"] == server.billed[kept]["total_tokens"]

    def test_listeners(self, server: OpenAIServer) -> None:
        heard: list[str] = []
        asked = mix(server).with_listeners(
            on_start=lambda run: heard.append(f"start {run.name}"),
            on_end=lambda run: heard.append(f"end {run.name}"),
        )
        asked.invoke("Where?")
        assert heard == ["start AutoMixRunnable", "end AutoMixRunnable"]
