"""LiteLLM asks a served mix, and is what the mix asks; `make litellm` installs it."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from langchain_automix import ChatAutoMix
from tests.support.builders.mixes import DRAFT, KEPT, REJECTS, ROUTER, rejecting
from tests.support.builders.scripted_replies import call, calls
from tests.support.servers.litellm_server import LiteLLMServer
from tests.support.servers.openai_server import OpenAIServer
from tests.support.servers.serving import MIX, PRICES, Served, served

# Else the client asks GitHub for prices while it is imported.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
litellm: Any = pytest.importorskip("litellm", reason="make litellm installs it")

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def ask(running: Served, **settings: Any) -> Any:
    given = {"messages": [{"role": "user", "content": "Who built it?"}], "max_retries": 0}
    return litellm.completion(
        model=f"openai/{MIX}", api_base=running.base_url, api_key="any", **{**given, **settings}
    )


def test_litellm_as_a_client(running: Served, provider: OpenAIServer) -> None:
    completion = ask(running)
    assert completion.choices[0].message.content == "a small answer"
    assert completion.usage.total_tokens == sum(each["total_tokens"] for each in provider.billed)
    parts = [chunk.choices[0].delta.content or "" for chunk in ask(running, stream=True)]
    assert "".join(parts) == "a small answer"
    with pytest.raises(litellm.BadRequestError, match="leave out n"):
        ask(running, n=2)


def test_tools_of_litellm(running: Served, provider: OpenAIServer) -> None:
    both = calls(call("weather", city="Turku"), call("weather", city="Oslo"))
    provider.script = lambda body: ["Sun."] if body["messages"][-1]["role"] == "tool" else [both]
    message = ask(running, tools=[TOOL]).choices[0].message
    cities = [json.loads(each.function.arguments)["city"] for each in message.tool_calls]
    assert cities == ["Turku", "Oslo"]
    results = [
        {"role": "tool", "tool_call_id": each.id, "content": "Sun."} for each in message.tool_calls
    ]
    asked = [{"role": "user", "content": "How is the weather?"}, message, *results]
    assert ask(running, tools=[TOOL], messages=asked).choices[0].message.content == "Sun."


@pytest.mark.parametrize("stream", [False, True])
def test_litellm_as_the_provider_behind(stream: bool) -> None:
    pytest.importorskip("langchain_litellm", reason="make litellm installs it")
    with LiteLLMServer() as provider:
        provider.script = rejecting()
        models = [provider.model("small"), provider.model("large")]
        mix = ChatAutoMix(models=models, verifier=REJECTS, router=ROUTER, prices=PRICES)
        with served({MIX: mix}) as running:
            response = running.chat(stream=stream, temperature=0.5, max_tokens=20)
    assert response.status_code == 200
    assert KEPT.split()[-1] in response.text
    assert DRAFT not in response.text
    assert provider.requests[-1]["max_tokens"] == 20
