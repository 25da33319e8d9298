"""The kept answer as it is told to those who read streams."""

from __future__ import annotations

import pytest

from langchain_automix import AutoMixRunnable, ThresholdRouter
from tests.support.servers.openai_server import OpenAIServer, answering


@pytest.mark.parametrize(
    ("verdict", "tags"), [("a", {"mine", "bound"}), ("r", {"theirs"})], ids=["draft", "larger"]
)
async def test_the_tags_of_its_model_are_on_its_stream(
    server: OpenAIServer, verdict: str, tags: set[str]
) -> None:
    server.script = answering("a small answer", "a large answer", verdicts=verdict)
    asked = AutoMixRunnable.from_models(
        server.model("small", tags=["mine"]).with_config(tags=["bound"]),
        server.model("large", tags=["theirs"]),
        router=ThresholdRouter(),
    )
    found = [
        set(event["tags"])
        async for event in asked.astream_events("Where?", version="v2")
        if event["event"] == "on_chat_model_stream"
    ]
    assert found
    assert all(tags <= each for each in found)
    assert not any(({"mine", "theirs"} - tags) & each for each in found)


async def test_an_accepted_draft_is_told_in_one_piece(server: OpenAIServer) -> None:
    """As the answer of a chat model that does not stream; no empty chunk brings the record."""
    server.script = answering("a small answer", "a large answer", verdicts="a")
    asked = AutoMixRunnable.from_models(
        server.model("small"), server.model("large"), router=ThresholdRouter()
    )
    (chunk,) = asked.stream("Where?")
    assert (chunk.content, chunk.chunk_position) == ("a small answer", "last")
    assert chunk.response_metadata["automix"]["model"] == "small"
    told = [
        event["data"]["chunk"].content
        async for event in asked.astream_events("Where?", version="v2")
        if event["event"] == "on_chat_model_stream"
    ]
    assert told == ["a small answer"]
