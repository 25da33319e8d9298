"""A loopback server that LiteLLM's client asks, in OpenAI's words."""

from __future__ import annotations

import importlib
import os
from typing import Any

from tests.support.servers.openai_server import OpenAIServer

# Else the client asks GitHub for prices while it is imported.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")


class LiteLLMServer(OpenAIServer):
    """Asked by `ChatLiteLLM`."""

    def model(self, name: str, **settings: Any) -> Any:
        client: Any = importlib.import_module("langchain_litellm")
        given = {"api_base": self.base_url, "api_key": "test", "max_retries": 0, **settings}
        return client.ChatLiteLLM(model=f"openai/{name}", **given)
