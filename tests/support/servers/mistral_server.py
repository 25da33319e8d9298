"""A loopback server that speaks Mistral's chat completions, which are nearly OpenAI's."""

from __future__ import annotations

import importlib
from typing import Any

from pydantic import SecretStr

from tests.support.servers.openai_server import OpenAIServer


class MistralServer(OpenAIServer):
    def model(self, name: str, **settings: Any) -> Any:
        client: Any = importlib.import_module("langchain_mistralai")
        given = {"max_retries": 0, "api_key": SecretStr("test"), **settings}
        return client.ChatMistralAI(model=name, base_url=self.base_url, **given)

    def _failure(self) -> Any:
        return {"object": "error", "message": "scripted", "type": "test", "code": "0"}
