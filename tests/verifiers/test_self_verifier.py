"""The self-check over real HTTP: how samples are drawn, billed, parsed and shortened."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.caches import InMemoryCache
from langchain_core.documents import Document
from langchain_core.globals import set_llm_cache
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.load import dumps, loads
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.runnables import ConfigurableField, RunnableLambda

from langchain_automix import AutoMixError, SelfVerifier, TokenProbabilityVerifier, Verification
from langchain_automix.verifiers.inputs import CheckContext
from langchain_automix.verifiers.prompting.messages import check_messages
from langchain_automix.verifiers.prompting.truncation import truncate_context
from langchain_automix.verifiers.prompting.verdicts import parse_verdict
from langchain_automix.verifiers.prompting.wording import ENGLISH
from tests.support.builders.mixes import mix, record_of
from tests.support.builders.waiting import until_together
from tests.support.servers.openai_server import ACCEPT, REJECT, OpenAIServer, answering

ASKED: Any = {
    "context": "The ferry Halcyon was built in Turku in 1931.",
    "question": "Where was the Halcyon built?",
    "answer": "Turku",
}


def asked(**changes: Any) -> Any:
    return {**ASKED, **changes}


class TestSampling:
    def test_eight_verdicts_with_n_cost_one_prompt(self, server: OpenAIServer) -> None:
        server.script = answering(verdicts="aaarrria")
        verification = SelfVerifier(model=server.model("small")).invoke(ASKED)
        [body] = server.requests
        assert body["n"] == 8
        assert body["temperature"] == 1.0
        assert verification.verdicts == (True, True, True, False, False, False, None, True)
        [call] = verification.calls
        [billed] = server.billed
        assert call.usage is not None
        assert call.usage["input_tokens"] == billed["prompt_tokens"]
        assert call.usage["output_tokens"] == billed["completion_tokens"]
        assert (call.model, call.provider) == ("small", "openai")

    async def test_the_same_asynchronously(self, server: OpenAIServer) -> None:
        server.script = answering(verdicts="ar")
        verification = await SelfVerifier(model=server.model("small")).ainvoke(ASKED)
        assert [body["n"] for body in server.requests] == [8]
        assert verification.confidence == 0.5

    def test_a_server_that_ignores_n_is_topped_up_in_parallel(self, server: OpenAIServer) -> None:
        server.knows_n = False
        server.delay = until_together(server, 2, lambda body: not body.get("n"))
        verification = SelfVerifier(model=server.model("small", seed=5)).invoke(ASKED)
        assert len(verification.verdicts) == 8
        assert [body.get("n") for body in server.requests] == [8] + [None] * 7
        assert server.most_at_once > 1
        seeds = sorted(body["seed"] for body in server.requests)
        assert seeds == list(range(5, 13)), "with one seed all samples would be the same"
        assert sum(call.usage["input_tokens"] for call in verification.calls if call.usage) == sum(
            billed["prompt_tokens"] for billed in server.billed
        )

    @pytest.mark.parametrize("how", ["sync", "async"])
    async def test_in_parallel_by_choice_under_a_cap(self, server: OpenAIServer, how: str) -> None:
        server.delay = until_together(server, 2)
        verifier = SelfVerifier(model=server.model("small"), samples=6, sampling="parallel")
        config: Any = {"max_concurrency": 2}
        if how == "async":
            verification = await verifier.ainvoke(ASKED, config)
        else:
            verification = verifier.invoke(ASKED, config)
        assert len(verification.verdicts) == len(server.requests) == 6
        assert server.most_at_once == 2

    @pytest.mark.parametrize("sampling", ["n", "parallel"])
    def test_the_global_cache_does_not_make_samples_alike(
        self, server: OpenAIServer, sampling: Any
    ) -> None:
        set_llm_cache(InMemoryCache())
        try:
            server.script = answering(verdicts="ar")
            verifier = SelfVerifier(model=server.model("small"), sampling=sampling)
            assert [verifier.invoke(ASKED).confidence for _ in range(2)] == [0.5, 0.5]
        finally:
            set_llm_cache(None)

    def test_a_bound_model_keeps_its_own_settings_out_of_the_check(
        self, server: OpenAIServer
    ) -> None:
        def add(a: int, b: int) -> int:
            """Add."""
            return a + b

        bound = (
            server.model("small", temperature=0).bind_tools([add]).bind(temperature=0.2, user="u")
        )
        SelfVerifier(model=bound).invoke(ASKED)
        [body] = server.requests
        assert body["temperature"] == 1.0
        assert body["n"] == 8
        assert body["user"] == "u"
        assert "tools" not in body

    def test_retries_and_fallbacks_of_the_model_are_kept(self, server: OpenAIServer) -> None:
        good, fails = answering(verdicts="a"), iter([500, 500])
        server.script = lambda body: next(fails, None) or good(body)
        retrying = server.model("small").with_retry(
            stop_after_attempt=2, wait_exponential_jitter=False
        )
        model = retrying.with_fallbacks([server.model("large")])
        verification = SelfVerifier(model=model, samples=1).invoke(ASKED)
        assert [body["model"] for body in server.requests] == ["small", "small", "large"]
        SelfVerifier(model=model).invoke(ASKED)
        assert server.requests[-1]["n"] == 8, "one request, with fallbacks or not"
        assert verification.confidence == 1.0
        assert [call.model for call in verification.calls] == ["large"]

    def test_a_server_that_refuses_n_is_asked_in_parallel(self, server: OpenAIServer) -> None:
        good = answering()
        server.script = lambda body: 400 if (body.get("n") or 1) > 1 else good(body)
        verification = SelfVerifier(model=server.model("small"), samples=3).invoke(ASKED)
        assert verification.verdicts == (True, True, True)
        assert [body.get("n") for body in server.requests] == [3, None, None, None]
        with pytest.raises(Exception, match="scripted"):
            SelfVerifier(model=server.model("small"), sampling="n").invoke(ASKED)

    def test_an_endpoint_without_n_is_never_asked_for_it(self, server: OpenAIServer) -> None:
        verifier = SelfVerifier(model=server.model("small", use_responses_api=True), samples=2)
        with contextlib.suppress(Exception):  # this server does not speak it: the request will do
            verifier.invoke(ASKED)
        assert server.requests
        assert all("n" not in body for body in server.requests)

    def test_settings_for_the_answer_do_not_reach_the_check(self, server: OpenAIServer) -> None:
        settings: Any = {"stop": ["\n"], "top_p": 0.01, "streaming": True}
        extra = {"response_format": {"type": "json_object"}, "user": "u"}
        model = server.model("small", **settings, model_kwargs=extra)
        SelfVerifier(model=model).invoke(ASKED)
        [body] = server.requests
        assert not {"stop", "top_p", "response_format"} & body.keys()
        assert not body.get("stream")
        assert body["user"] == "u"

    def test_a_configurable_check_in_a_mix(self, server: OpenAIServer) -> None:
        server.script = answering("small", verdicts="a")
        field = ConfigurableField(id="k")
        check = SelfVerifier(samples=2).configurable_fields(samples=field)
        automix = mix(server, verifier=check)
        cases: Any = ((None, 2), ({"configurable": {"k": 3}}, 3))
        for config, number in cases:
            kept = automix.invoke("Where?", config)
            assert record_of(kept)["verdicts"] == [True] * number

    def test_a_model_with_configurable_fields(self, server: OpenAIServer) -> None:
        model = server.model("small", temperature=0, seed=3).configurable_fields(
            temperature=ConfigurableField(id="temperature")
        )
        SelfVerifier(model=model).invoke(ASKED)
        [body] = server.requests
        assert (body["n"], body["temperature"]) == (8, 1.0)

    def test_what_cannot_be_prepared_is_said(self) -> None:
        verifier = SelfVerifier(model=RunnableLambda(lambda _: AIMessage(ACCEPT)), samples=2)
        with pytest.warns(UserWarning, match="RunnableLambda, whose temperature"):
            assert verifier.invoke(ASKED).verdicts == (True, True)

    def test_a_second_round_has_other_seeds(self, server: OpenAIServer) -> None:
        verifier = SelfVerifier(model=server.model("small", seed=7), samples=4)
        verifier.invoke(ASKED)
        verifier.invoke(asked(drawn=4))
        assert [body["seed"] for body in server.requests] == [7, 11]

    def test_a_model_without_n_is_asked_in_parallel(self) -> None:
        replies = iter([AIMessage(ACCEPT), AIMessage(REJECT), AIMessage(ACCEPT)])
        verifier = SelfVerifier(model=GenericFakeChatModel(messages=replies), samples=3)
        assert verifier.invoke(ASKED).accepts == 2

    def test_batch_keeps_the_order(self, server: OpenAIServer) -> None:
        server.script = lambda body: (
            [REJECT if "Helsinki" in body["messages"][-1]["content"] else ACCEPT] * body["n"]
        )
        verifier = SelfVerifier(model=server.model("small"))
        answers = ["Turku", "Helsinki", "Turku", "Helsinki"]
        found = verifier.batch([asked(answer=answer) for answer in answers])
        assert [verification.confidence for verification in found] == [1, 0, 1, 0]


class TestInput:
    def test_what_the_model_reads(self, server: OpenAIServer) -> None:
        documents = [Document("Built in Turku."), Document("Sailed to Mariehamn.")]
        SelfVerifier(model=server.model("small")).invoke(asked(context=documents))
        last = server.requests[0]["messages"][-1]["content"]
        assert "Context: Built in Turku.\n\nSailed to Mariehamn." in last
        assert "Question: Where was the Halcyon built?" in last
        assert "AI Generated Answer: Turku" in last
        assert [message["role"] for message in server.requests[0]["messages"]] == (
            ["system"] + ["user", "assistant"] * len(ENGLISH.examples) + ["user"]
        )

    def test_without_a_question_the_conversation_is_read(self, server: OpenAIServer) -> None:
        messages = [
            SystemMessage("You know ships."),
            HumanMessage("The Halcyon was built in Turku."),
            AIMessage("Noted."),
            HumanMessage("Where was she built?"),
        ]
        SelfVerifier(model=server.model("small")).invoke({"messages": messages, "answer": "Turku"})
        last = server.requests[0]["messages"][-1]["content"]
        assert "Question: Where was she built?" in last
        context = last.partition("Question:")[0]
        assert context.startswith("Context: (none was given: judge by this conversation")
        assert "The Halcyon was built in Turku." in context
        assert "Noted." in context
        assert "Where was she built?" not in context

    def test_tool_calls_are_shown(self, server: OpenAIServer) -> None:
        call: Any = {"name": "look_up", "args": {"ship": "Halcyon"}, "id": "1", "type": "tool_call"}
        SelfVerifier(model=server.model("small")).invoke(
            asked(answer=AIMessage("", tool_calls=[call]))
        )
        assert (
            '[calls look_up with {"ship": "Halcyon"}]'
            in server.requests[0]["messages"][-1]["content"]
        )

    def test_an_empty_answer_is_unknown_and_costs_nothing(self, server: OpenAIServer) -> None:
        verification = SelfVerifier(model=server.model("small")).invoke(asked(answer=" \n"))
        assert verification == Verification(problem="the answer is empty")
        assert verification.confidence is None
        assert not server.requests

    def test_an_empty_question_is_an_error(self, server: OpenAIServer) -> None:
        with pytest.raises(AutoMixError, match="question is empty"):
            SelfVerifier(model=server.model("small")).invoke(asked(question=" "))

    def test_no_model_is_an_error(self) -> None:
        with pytest.raises(AutoMixError, match="no model to check with"):
            SelfVerifier().invoke(ASKED)

    @pytest.mark.parametrize("samples", [0, -1])
    def test_less_than_one_sample_is_an_error(self, samples: int) -> None:
        with pytest.raises(ValueError, match="greater than or equal to 1"):
            SelfVerifier(samples=samples)

    def test_other_numbers_of_samples_a_call(self, server: OpenAIServer) -> None:
        SelfVerifier(model=server.model("small")).invoke(asked(samples=3))
        assert server.requests[0]["n"] == 3

    def test_the_context_is_shortened_and_nothing_else(self, server: OpenAIServer) -> None:
        filler = "A sentence about something else altogether that fills the page. " * 300
        long = asked(context=f"{filler}The Halcyon was built in Turku. {filler}")
        SelfVerifier(model=server.model("small"), max_input_tokens=1200).invoke(long)
        last = server.requests[0]["messages"][-1]["content"]
        assert "The Halcyon was built in Turku." in last
        assert "[...]" in last
        assert "Question: Where was the Halcyon built?" in last
        assert "AI Generated Answer: Turku" in last
        words = sum(len(m["content"]) for m in server.requests[0]["messages"]) / 4
        assert words < 1200

    def test_what_cannot_fit_is_unknown(self, server: OpenAIServer) -> None:
        verification = SelfVerifier(model=server.model("small"), max_input_tokens=50).invoke(ASKED)
        assert verification.confidence is None
        assert verification.problem == "the question and the answer do not fit into a check"
        assert not server.requests


class TestVerdicts:
    @pytest.mark.parametrize(
        ("reply", "verdict"),
        [
            (ACCEPT, True),
            (REJECT, False),
            ("So.\n**Verification Decision: Correct**", True),
            ("So.\nverification decision: The AI generated answer is Incorrect.\n\n", False),
            ("Verification Decision: Correct", True),
            ("So.\nVerification Decision: Not correct", None),
            ("So.\nVerification Decision: Correct or Incorrect", None),
            ("So.\nVerification Decision: Partially correct", None),
            ("Verification Decision: Correct\nBut I am not sure.", None),
            ("Verification Decision: Incorrect\nNo, wait.\nVerification Decision: Correct", None),
            ("The answer says 'Verification Decision: Correct'.", None),
            ("Correct", None),
            ("", None),
            ("The context says that the", None),
        ],
    )
    def test_only_a_verdict_line_at_the_end_counts(self, reply: str, verdict: bool | None) -> None:
        assert parse_verdict(reply) is verdict

    @given(st.text())
    def test_text_without_the_words_is_invalid(self, text: str) -> None:
        if "verification decision" not in text.lower():
            assert parse_verdict(text) is None

    @given(st.text(alphabet=st.characters(codec="utf-8")), st.booleans())
    def test_a_quoted_verdict_before_the_end_does_not_flip_one(
        self, quoted: str, correct: bool
    ) -> None:
        word, other = ("Correct", "Incorrect") if correct else ("Incorrect", "Correct")
        said = f"Verification Decision: {other} {quoted}\nVerification Decision: {word}"
        assert parse_verdict(said) in (correct, None)

    def test_the_examples_are_balanced_and_parse(self) -> None:
        assert (
            sum(example.correct for example in ENGLISH.examples) * 2 == len(ENGLISH.examples) >= 4
        )
        shown = [
            m.text for m in check_messages(CheckContext("q", "c"), "a") if isinstance(m, AIMessage)
        ]
        assert [parse_verdict(text) for text in shown] == [e.correct for e in ENGLISH.examples]

    def test_verifications_add_up(self) -> None:
        both = Verification(verdicts=(True, None)).and_then(Verification(verdicts=(False,)))
        assert (both.accepts, both.rejects, both.invalid, both.confidence) == (1, 1, 1, 0.5)

    def test_the_fingerprint_tells_checks_apart(self) -> None:
        assert SelfVerifier().fingerprint == SelfVerifier(samples=3).fingerprint
        assert SelfVerifier().fingerprint != SelfVerifier(temperature=0.5).fingerprint

    @pytest.mark.parametrize("kind", [SelfVerifier, TokenProbabilityVerifier])
    def test_the_fingerprint_tells_who_checks(self, server: OpenAIServer, kind: Any) -> None:
        by = [kind(model=server.model(name)).fingerprint for name in ("small", "large")]
        assert len({kind().fingerprint, *by}) == 3
        assert by[1] == kind(model=server.model("large").with_retry()).fingerprint


class TestShorten:
    @given(st.text(max_size=300), st.text(max_size=30), st.integers(0, 300))
    def test_it_fits_and_comes_from_the_context(self, context: str, about: str, room: int) -> None:
        short = truncate_context(context, relevant_to=about, fits=lambda text: len(text) <= room)
        assert len(short) <= room or short == ""
        assert all(piece.strip() in context for piece in short.split("[...]"))

    def test_what_fits_is_left_alone(self) -> None:
        assert truncate_context("One. Two.", relevant_to="x", fits=lambda _: True) == "One. Two."

    def test_the_order_stays(self) -> None:
        text = "Red one. Nothing here. Blue two. Nothing there. Red blue three."
        short = truncate_context(text, relevant_to="red blue", fits=lambda part: len(part) <= 50)
        assert short == "Red one. [...] Blue two. [...] Red blue three."


class TestSerialisation:
    @pytest.mark.parametrize("language", ["en", "de"])
    def test_the_words_of_a_check_come_back(self, language: str) -> None:
        verifier = SelfVerifier(wording=language)
        how: Any = {"allowed_objects": [SelfVerifier], "valid_namespaces": ["langchain_automix"]}
        again = loads(dumps(verifier), **how)
        assert again.wording == verifier.wording
        assert again.fingerprint == verifier.fingerprint
