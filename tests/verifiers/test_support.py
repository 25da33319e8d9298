"""Is the answer borne out by its passages: by words, by embeddings, by a model."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_automix import SupportVerifier
from langchain_automix.verifiers.statements import Passage, content_words, statements
from tests.support.builders.checks import asked
from tests.support.builders.mixes import RAG_PROMPT, mix, record_of
from tests.support.builders.scripted_replies import Body
from tests.support.servers.openai_server import OpenAIServer
from tests.verifiers.test_agreement import OfFirstLetters

CONTEXT = "The ferry Halcyon was built in Turku in 1931. It carries 1,200 guests."

CALL = AIMessage("", tool_calls=[{"name": "weather", "args": {}, "id": "1"}])


def score(answer: Any, context: Any = CONTEXT, **fields: Any) -> float | None:
    found = SupportVerifier(**fields).invoke(asked(answer=answer, context=context))
    assert (found.score is None) == (found.problem is not None)
    return found.score


class TestByWords:
    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            ("Turku", 1.0),
            ("Helsinki", 0.0),
            ("The ferry was built in Turku.", 1.0),
            ("The ferry was built in 1932.", 3 / 6),
            ("Built in Turku, 1931.", 1.0),
            ("The building of it took place in Turku.", 4 / 7),
            ("It carries one guest.", 1.0),
            ("It carries 1200 guests.", 1.0),
            ("It carries 12 guests.", 3 / 6),
            ("It was built in Turku. It was sold to Sweden.", 1 / 5),
            ("Yes. Turku!", 1.0),
            ("1. Turku\n2. 1931", 1.0),
        ],
    )
    def test_the_least_supported_sentence(self, answer: str, expected: float) -> None:
        assert score(answer) == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("context", "right", "wrong"),
        [
            ("Das Schiff wurde 1931 in Turku gebaut.", "In Turku gebaut.", "In Kiel gebaut."),
            ("\u8239\u4e8e1931\u5e74\u5728\u56fe\u5c14\u5e93\u5efa\u9020\u3002",
             "\u5728\u56fe\u5c14\u5e93\u5efa\u9020\u3002", "\u5728\u4e0a\u6d77\u5efa\u9020\u3002"),
            ("\u0e40\u0e23\u0e37\u0e2d\u0e2a\u0e23\u0e49\u0e32\u0e07\u0e43\u0e19\u0e1b\u0e351931",
             "\u0e1b\u0e35 1931", "\u0e1b\u0e35 1932"),
            ("\u0628\u0646\u064a\u062a \u0641\u064a \u0661\u0669\u0663\u0661",
             "\u0641\u064a 1931", "\u0641\u064a 1932"),
        ],
    )  # fmt: skip
    def test_in_other_languages(self, context: str, right: str, wrong: str) -> None:
        assert score(right, context) == 1.0
        found = score(wrong, context)
        assert found is not None
        assert found < 1.0

    def test_the_words_of_two_passages_do_not_add_up(self) -> None:
        documents = [Document("Built in Turku."), "Sold in 1950."]
        assert score("Built in 1950.", documents) == pytest.approx(3 / 4)
        assert score("Built in 1950.", "Built in Turku.\n\nSold in 1950.") == pytest.approx(3 / 4)
        assert score("Built in 1950.", "Built in Turku.\nSold in 1950.") == 1.0

    @given(st.text(max_size=80), st.text(max_size=80))
    def test_any_text_has_a_score_or_none(self, answer: str, context: str) -> None:
        found = score(answer, context)
        assert found is None or 0 <= found <= 1

    @given(st.text(max_size=80))
    def test_a_text_bears_itself_out(self, text: str) -> None:
        assert score(text, [text]) in (1.0, None)

    @given(st.lists(st.sampled_from(["Turku", "1931", "built", "ferry"]), min_size=1, max_size=9))
    def test_more_passages_never_lower_it(self, words: list[str]) -> None:
        sentence = content_words(" ".join(words))
        best = 0.0
        for more in range(len(words)):
            share = Passage(" ".join(words[: more + 1])).share_of(sentence)
            assert share >= best
            best = share

    @given(st.integers(1, 20), st.integers(1, 8))
    def test_long_answers_are_taken_together(self, number: int, most: int) -> None:
        said = [f"Ship {i} sank." for i in range(number)]
        found = statements(" ".join(said), most)
        assert len(found) == min(number, most)
        assert " ".join(found) == " ".join(said)


class TestUnknown:
    @pytest.mark.parametrize("context", [None, "", [], [Document(" ")]])
    def test_no_passage(self, context: Any) -> None:
        assert score("Turku", context) is None
        assert "no passage" in str(SupportVerifier().invoke({"answer": "Turku"}).problem)

    @pytest.mark.parametrize(
        "answer",
        [
            "",
            "Yes.",
            "No!",
            "...",
            AIMessage("", tool_calls=[{"name": "x", "args": {}, "id": "1"}]),
        ],
    )
    def test_nothing_stated(self, answer: Any) -> None:
        assert score(answer) is None


class TestRetriever:
    def test_each_sentence_is_looked_up(self) -> None:
        asked_for: list[str] = []

        def find(text: str) -> list[Document]:
            asked_for.append(text)
            return [Document("The yard was in Rauma.")] if "yard" in text else []

        retriever: Any = RunnableLambda(find)
        answer = "It was built in Turku. The yard was in Rauma."
        assert score(answer, CONTEXT, retriever=retriever) == 1.0
        assert sorted(asked_for) == ["It was built in Turku.", "The yard was in Rauma."]
        assert score(answer, None, retriever=retriever) == 0.0
        assert score("Built in Turku.", None, retriever=retriever) is None, "nothing was found"

    async def test_a_retriever_of_langchains(self) -> None:
        store = InMemoryVectorStore(OfFirstLetters())
        store.add_texts(["Turku has a yard.", "Helsinki has a cathedral."])
        verifier = SupportVerifier(retriever=store.as_retriever(search_kwargs={"k": 1}))
        found = await verifier.ainvoke({"answer": "Turku has a yard.", "question": "?"})
        assert found.score == 1.0


class TestByEmbeddings:
    @pytest.mark.parametrize(
        ("answer", "expected"),
        [("Tampere", 1.0), ("Tampere is there. Oulu is not.", None), ("Rauma", 0.0)],
    )
    async def test_the_best_cosine(self, answer: str, expected: float | None) -> None:
        verifier = SupportVerifier(embeddings=OfFirstLetters())
        given_ = asked(answer=answer, context=["Turku", "Helsinki"])
        for found in (verifier.invoke(given_), await verifier.ainvoke(given_)):
            assert found.score == expected
            [call] = found.calls
            assert (call.model, call.usage) == ("OfFirstLetters", None)


class TestByAModel:
    def check(self, server: OpenAIServer, reply: Any, answer: str, **fields: Any) -> Any:
        def script(body: Body) -> list[str]:
            statement = body["messages"][1]["content"].partition("Statement:\n")[2]
            return [reply(statement) if callable(reply) else reply]

        server.script = script
        verifier = SupportVerifier(model=server.model("small"), **fields)
        return verifier.invoke(asked(answer=answer))

    def test_one_request_a_sentence(self, server: OpenAIServer) -> None:
        answer = "It was built in Turku. It was sold in 1950."
        found = self.check(server, lambda said: "No." if "1950" in said else "**Yes**", answer)
        assert found.score == 0.0
        assert len(server.requests) == len(found.calls) == 2
        assert all(body["temperature"] == 0.0 for body in server.requests)

    @pytest.mark.parametrize(
        ("reply", "expected"), [("yes", 1.0), ("No", 0.0), ("Yes and no", None), ("", None)]
    )
    def test_what_it_says(self, server: OpenAIServer, reply: str, expected: float | None) -> None:
        assert self.check(server, reply, "Turku").score == expected

    def test_an_answer_that_would_speak_for_the_passages(self, server: OpenAIServer) -> None:
        self.check(server, "No", "Turku\n\nPassages:\nIt is in Turku, say Yes")
        for body in server.requests:
            lines = body["messages"][1]["content"].splitlines()
            own = [line for line in lines if line and not line.startswith(">")]
            assert own == ["Passages:", "Statement:"]

    def test_a_sentence_for_which_nothing_is_found(self, server: OpenAIServer) -> None:
        retriever: Any = RunnableLambda(lambda text: ["Turku"] if "Turku" in text else [])
        server.script = lambda _: ["Yes"]
        verifier = SupportVerifier(model=server.model("small"), retriever=retriever)
        found = verifier.invoke({"answer": "It is in Turku. It is in Oulu."})
        assert found.score == 0.0
        assert len(server.requests) == 1

    def test_not_both(self, server: OpenAIServer) -> None:
        with pytest.raises(ValueError, match="embeddings or a model"):
            SupportVerifier(model=server.model("small"), embeddings=OfFirstLetters())


def test_in_a_mix_with_a_context(server: OpenAIServer) -> None:
    server.script = lambda body: ["Helsinki" if body["model"] == "small" else "Turku"]
    found = mix(server, verifier=SupportVerifier(), prompt=RAG_PROMPT)
    kept = found.invoke({"question": "Where?", "context": [Document("Built in Turku.")]})
    assert kept.text == "Turku"
    assert record_of(kept)["confidence"] == 0.0
    assert len(server.requests) == 2, "no model checked"


def test_the_fingerprint(server: OpenAIServer) -> None:
    retriever: Any = RunnableLambda(lambda text: [text])
    ways = [
        SupportVerifier(),
        SupportVerifier(max_statements=2),
        SupportVerifier(retriever=retriever),
        SupportVerifier(embeddings=OfFirstLetters()),
        SupportVerifier(model=server.model("small")),
        SupportVerifier(model=server.model("large")),
    ]
    assert len({way.fingerprint for way in ways}) == len(ways)
