"""LangChain's own tests of chat models, for `ChatAutoMix` over real models on the wire."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import httpx
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from langchain_automix import ChatAutoMix, SelfVerifier
from tests.support.builders.mixes import ACCEPTS, REJECTS, ROUTER
from tests.support.builders.obedient_replies import obliging
from tests.support.servers.anthropic_server import AnthropicServer
from tests.support.servers.openai_server import OpenAIServer

# A check without a chat call, where a test counts the calls.

MORE_CALLS = "the test asserts one run of a chat model; this answer takes two or more"

pytestmark = [
    # LangChain gives every model a timeout and retries, which a mix leaves to its models.
    pytest.mark.filterwarnings("ignore:ChatAutoMix has no:UserWarning"),
]


@pytest.fixture(autouse=True)
def _no_web(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pictures and sounds that the tests fetch are never looked at here."""

    def get(url: str, **_: Any) -> httpx.Response:
        return httpx.Response(200, content=b"a file", request=httpx.Request("GET", url))

    monkeypatch.setattr(httpx, "get", get)


class _Params:
    """What both suites want to know of the chat model."""

    server: OpenAIServer
    verifier: ClassVar[Runnable[Any, Any]] = ACCEPTS

    @pytest.fixture(autouse=True)
    def _serve(self, server: OpenAIServer) -> None:
        server.script = obliging()
        self.server = server

    @property
    def chat_model_class(self) -> type[ChatAutoMix]:
        return ChatAutoMix

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"models": self.models(), "verifier": self.verifier, "router": ROUTER}

    def models(self) -> list[BaseChatModel]:
        # ChatOpenAI asks for the usage of a stream at OpenAI's own address only.
        return [self.server.model(name, stream_usage=True) for name in ("small", "large")]


class TestUnit(_Params, ChatModelUnitTests):
    pass


class _Everything(_Params, ChatModelIntegrationTests):
    """With all that the models can do switched on."""

    @property
    def model_override_value(self) -> str:
        return "large"

    supports_json_mode = True
    supports_image_inputs = True
    supports_image_urls = True
    supports_pdf_inputs = True
    supports_audio_inputs = True
    supports_image_tool_message = True


class TestKept(_Everything):
    """The small model's answer is checked and kept."""


class TestKeptWithFunctionCalling(_Everything):
    structured_output_kwargs = {"method": "function_calling"}  # noqa: RUF012


class _MoreCalls(_Everything):
    """Every answer takes two runs of a chat model or more."""

    @pytest.mark.xfail(strict=True, reason=MORE_CALLS)
    @pytest.mark.parametrize("schema_type", ["pydantic", "typeddict", "json_schema"])
    def test_structured_output(self, model: BaseChatModel, schema_type: Any) -> None:
        super().test_structured_output(model, schema_type)

    @pytest.mark.xfail(strict=True, reason=MORE_CALLS)
    @pytest.mark.parametrize("schema_type", ["pydantic", "typeddict", "json_schema"])
    async def test_structured_output_async(self, model: BaseChatModel, schema_type: Any) -> None:
        await super().test_structured_output_async(model, schema_type)


class TestEscalated(_MoreCalls):
    """The small model's answer is rejected, and the large model's streams."""

    verifier = REJECTS


class TestSelfVerified(_MoreCalls):
    """The small model checks its answer."""

    verifier = SelfVerifier(samples=3)


class TestEscalatedToAnotherProvider(_MoreCalls):
    """The small model is OpenAI's, the large one Anthropic's."""

    verifier = REJECTS
    supports_json_mode = False
    supports_audio_inputs = False

    @pytest.fixture(autouse=True)
    def _serve_another(self) -> Iterator[None]:
        with AnthropicServer() as other:
            other.script = obliging()
            self.other = other
            yield

    def models(self) -> list[BaseChatModel]:
        return [self.server.model("small"), self.other.model("large")]
