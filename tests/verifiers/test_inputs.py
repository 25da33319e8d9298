"""What the self-check sees beside question and answer: tools, the conversation, attachments."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder

from langchain_automix import AutoMixRunnable, SelfVerifier, ThresholdRouter, Verification
from langchain_automix.models.attachments import attachment_kind, attachments_of
from langchain_automix.models.tools import tools_in_openai_format
from langchain_automix.verifiers.inputs import CheckContext
from langchain_automix.verifiers.prompting.messages import check_messages
from tests.support.servers.openai_server import OpenAIServer

ASKED: Any = {
    "context": "The ferry Halcyon was built in Turku in 1931.",
    "question": "Where was the Halcyon built?",
    "answer": "Turku",
}


def asked(**changes: Any) -> Any:
    return {**ASKED, **changes}


def look_up(ship: str) -> str:
    """Look up a ship.

    By its name.
    """
    return ship


TOOLS = tools_in_openai_format([look_up])
CALL: Any = {"name": "look_up", "args": {"ship": "Halcyon"}, "id": "1", "type": "tool_call"}


def last_text(server: OpenAIServer) -> str:
    content = server.requests[-1]["messages"][-1]["content"]
    return str(content if isinstance(content, str) else content[0]["text"])


class TestTools:
    def test_the_tools_are_shown_and_what_a_right_call_is(self, server: OpenAIServer) -> None:
        answer = AIMessage("", tool_calls=[CALL])
        request = asked(answer=answer, tools=TOOLS)
        verification = SelfVerifier(model=server.model("small")).invoke(request)
        assert verification.confidence == 1.0
        text = last_text(server)
        assert text.startswith("Context: The answering AI had the tools below.")
        assert "if calling this tool with these arguments is the right next step" in text
        assert '- look_up: Look up a ship. By its name. Arguments: {"' in text
        assert '"properties":{"ship":{"type":"string"}}' in text
        assert "The ferry Halcyon was built in Turku in 1931.\n\nQuestion:" in text
        assert '[calls look_up with {"ship": "Halcyon"}]' in text

    def test_without_tools_nothing_changes(self, server: OpenAIServer) -> None:
        for request in (ASKED, asked(tools=[]), asked(attachments=[])):
            SelfVerifier(model=server.model("small")).invoke(request)
        first, *others = [body["messages"] for body in server.requests]
        assert all(messages == first for messages in others)
        assert last_text(server).startswith("Context: The ferry Halcyon")
        assert check_messages(CheckContext("q"), "a")[-1].content == (
            "Context: (none was given: judge by what is generally known)\n\nQuestion: q\n\n"
            "AI Generated Answer: a\n\nIs the AI Generated Answer correct?"
        )

    def test_long_tool_lists_count(self, server: OpenAIServer) -> None:
        function = {"name": "long", "description": "Does a great many things at once. " * 100}
        tools = [{"type": "function", "function": function}]
        verifier = SelfVerifier(model=server.model("small"), max_input_tokens=1200)
        found = verifier.invoke(asked(tools=tools))
        assert found.problem == ("the question, the answer and the tools do not fit into a check")
        assert not server.requests
        filler = "A sentence about something else altogether that fills the page. " * 300
        function["description"] = function["description"][:1000]
        found = verifier.invoke(asked(tools=tools, context=f"{filler}Turku built the Halcyon."))
        assert found.confidence == 1.0
        assert "[...]" in last_text(server)
        words = sum(len(m["content"]) for m in server.requests[-1]["messages"]) / 4
        assert words < 1200


class TestConversation:
    def test_the_check_sees_what_the_answer_needed(self, server: OpenAIServer) -> None:
        messages = [
            SystemMessage("You know ships."),
            HumanMessage("I speak of the Halcyon."),
            AIMessage("Noted."),
            HumanMessage("Where was she built?"),
            AIMessage("Let me see.", tool_calls=[CALL, {**CALL, "id": "2", "name": "weigh"}]),
            ToolMessage("Built in Turku in 1931.", tool_call_id="1"),
            ToolMessage("Out of order.", tool_call_id="2", status="error"),
        ]
        request: Any = {"messages": messages, "answer": "In Turku.", "tools": TOOLS}
        SelfVerifier(model=server.model("small")).invoke(request)
        context, _, question = last_text(server).partition("Question: ")
        assert question.startswith("Where was she built?\n")
        assert context.endswith(
            "System: You know ships.\n"
            "Human: I speak of the Halcyon.\n"
            "AI: Noted.\n"
            "AI: Let me see.\n"
            '[calls look_up with {"ship": "Halcyon"}]\n'
            '[calls weigh with {"ship": "Halcyon"}]\n'
            "Tool look_up: Built in Turku in 1931.\n"
            "Tool weigh (failed): Out of order.\n\n"
        )
        assert context.startswith("Context: The answering AI had the tools below.")

    def test_a_tool_result_without_its_call_is_shown_too(self, server: OpenAIServer) -> None:
        messages = [HumanMessage("Where?"), ToolMessage("Turku.", tool_call_id="7")]
        SelfVerifier(model=server.model("small")).invoke({"messages": messages, "answer": "Turku"})
        assert "Tool result: Turku." in last_text(server)


PICTURE: Any = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
SOUND: Any = {"type": "audio", "base64": "AAAA", "mime_type": "audio/wav"}


def text(words: str) -> Any:
    return {"type": "text", "text": words}


class TestAttachments:
    @pytest.mark.parametrize(
        ("block", "kind"),
        [
            (PICTURE, "image"),
            (SOUND, "audio"),
            ({"type": "image", "url": "http://x/y.png"}, "image"),
            ({"type": "input_image", "image_url": "http://x/y.png"}, "image"),
            ({"type": "image", "source": {"type": "url", "url": "http://x/y.png"}}, "image"),
            ({"image": {"format": "png", "source": {"bytes": b"x"}}}, "image"),
            ({"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}, "audio"),
            ({"type": "media", "mime_type": "video/mp4", "data": "AAAA"}, "video"),
            ({"type": "media", "mime_type": "application/pdf", "data": "AAAA"}, "file"),
            ({"type": "file", "file": {"file_id": "f1"}}, "file"),
            ({"type": "input_file", "file_id": "f1"}, "file"),
            ({"type": "text-plain", "text": "t", "mime_type": "text/plain"}, None),
            ({"type": "search_result", "title": "t"}, None),
        ],
    )
    def test_every_form_is_found(self, block: Any, kind: str | None) -> None:
        assert attachments_of([HumanMessage([text("What?"), block])]) == [block]
        assert attachment_kind(block) == kind

    @pytest.mark.parametrize(
        "block",
        [text("t"), {"type": "tool_use", "id": "1"}, {"cachePoint": {"type": "default"}}],
    )
    def test_what_is_no_input_is_not(self, block: Any) -> None:
        assert attachments_of([HumanMessage(["Words.", block])]) == []

    def test_whose_are_found(self) -> None:
        messages = [
            SystemMessage([PICTURE]),
            HumanMessage([PICTURE, text("Look.")]),
            AIMessage([PICTURE]),
            HumanMessage("What is it?"),
            ToolMessage([text("Heard:"), SOUND], tool_call_id="1"),
        ]
        assert attachments_of(messages) == [PICTURE, SOUND]

    def test_they_go_to_the_check_beside_the_text(self, server: OpenAIServer) -> None:
        messages = [HumanMessage([text("What ship is this?"), PICTURE])]
        SelfVerifier(model=server.model("small"), max_input_tokens=4000).invoke(
            {"messages": messages, "answer": "The Halcyon"}
        )
        [body] = server.requests
        block, picture = body["messages"][-1]["content"]
        assert "Question: What ship is this?" in block["text"]
        assert picture == PICTURE
        assert all(isinstance(message["content"], str) for message in body["messages"][:-1])

    def test_given_ones_win_and_go_with_a_question(self, server: OpenAIServer) -> None:
        verifier = SelfVerifier(model=server.model("small"))
        verifier.invoke(asked(attachments=[PICTURE], messages=[HumanMessage([SOUND])]))
        assert server.requests[0]["messages"][-1]["content"][1:] == [PICTURE]

    def test_a_question_may_be_a_picture_alone(self, server: OpenAIServer) -> None:
        request: Any = {"messages": [HumanMessage([PICTURE])], "answer": "A ferry."}
        assert SelfVerifier(model=server.model("small")).invoke(request).confidence == 1.0
        assert "Question: (only what is attached)" in last_text(server)

    def test_what_the_checking_model_cannot_read_is_unknown(self, server: OpenAIServer) -> None:
        model = server.model("small").model_copy(update={"profile": {"image_inputs": False}})
        verifier = SelfVerifier(model=model.with_retry())
        with pytest.warns(UserWarning, match="small cannot read them") as caught:
            found = [verifier.invoke(asked(attachments=[PICTURE])) for _ in range(2)]
        assert len(caught) == 1
        problem = "the checking model small cannot read images"
        assert found == [Verification(problem=problem)] * 2
        assert not server.requests
        assert verifier.invoke(asked(attachments=[SOUND])).confidence == 1.0


def test_the_check_sees_what_was_said_before_beside_the_context(server: OpenAIServer) -> None:
    prompt = ChatPromptTemplate.from_messages(
        [MessagesPlaceholder("history"), ("human", "{context}\n{question}")]
    )
    asked = AutoMixRunnable.from_models(
        server.model("small"), server.model("large"), router=ThresholdRouter(), prompt=prompt
    )
    history = [HumanMessage("Who built the Halcyon?"), AIMessage("A yard in Turku.")]
    asked.invoke({"question": "And when?", "context": "In 1931.", "history": history})
    read = server.checks[0]["messages"][-1]["content"]
    assert read.startswith("Context: In 1931.\n\nWhat was said before the question:\nHuman: Who")
    assert "AI: A yard in Turku.\n" in read
    assert "Question: And when?\n" in read
