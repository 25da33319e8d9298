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
