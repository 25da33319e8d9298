"""Models, checks, routers, policies and logs sent to another process."""

from __future__ import annotations

import copyreg
import pickle
import threading
from typing import Any

import cloudpickle
import httpx
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_aws import ChatBedrockConverse
from langchain_core.language_models import FakeListChatModel
from langchain_google_genai import ChatGoogleGenerativeAI
from langchain_mistralai import ChatMistralAI
from langchain_ollama import ChatOllama
from langchain_openai import AzureChatOpenAI, ChatOpenAI, OpenAIEmbeddings
from pydantic import PrivateAttr

from langchain_automix import (
    AgreementVerifier,
    CombinedVerifier,
    FunctionVerifier,
    POMDPRouter,
    RoutingLog,
    RoutingState,
    SelfVerifier,
    ThresholdRouter,
    Verification,
    Visit,
)
from langchain_automix.calibration.graders.judges import EmbeddingSimilarity, LLMJudge
from langchain_automix.models.pickling import make_models_picklable
from tests.support.builders.synthetic_logs import world
from tests.support.servers.openai_server import OpenAIServer, answering

PICKLERS = pytest.mark.parametrize("pickler", [pickle, cloudpickle], ids=["pickle", "cloudpickle"])
QUESTION = {"question": "Where was it built?", "context": "It was built in Turku."}

KEY = "a-key-of-a-test"
AWS = {"region_name": "us-east-1", "aws_access_key_id": "a", "aws_secret_access_key": "b"}
MODELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "openai": (ChatOpenAI, {"api_key": KEY, "temperature": 0.5, "extra_body": {"a": 1}}),
    "azure": (AzureChatOpenAI, {"api_key": KEY, "api_version": "1", "azure_endpoint": "http://x"}),
    "openai embeddings": (OpenAIEmbeddings, {"api_key": KEY}),
    "anthropic": (ChatAnthropic, {"api_key": KEY}),
    "gemini": (ChatGoogleGenerativeAI, {"api_key": KEY}),
    "mistral": (ChatMistralAI, {"api_key": KEY}),
    "ollama": (ChatOllama, {}),
    "bedrock": (ChatBedrockConverse, {"provider": "amazon", **AWS}),
}


def made(name: str) -> Any:
    kind, settings = MODELS[name]
    return kind(model="m", **settings)


def sent(each: Any, pickler: Any = pickle) -> Any:
    return pickle.loads(pickler.dumps(each))


def dumped(model: Any) -> Any:
    return {n: v for n, v in model.model_dump().items() if "client" not in n}


@pytest.mark.parametrize("name", MODELS)
def test_models_of_every_provider(name: str) -> None:
    model = made(name)
    if name == "anthropic":
        _ = model._client  # a cache, which the first call fills
    make_models_picklable()
    again = sent(sent(model, cloudpickle))
    assert type(again) is type(model)
    assert dumped(again) == dumped(model)
    assert again.model_fields_set == model.model_fields_set


def test_a_model_that_was_changed_after_it_was_made() -> None:
    make_models_picklable()
    changed = made("openai").model_copy(update={"max_tokens": 7, "disable_streaming": True})
    again = sent(changed)
    assert (again.max_tokens, again.disable_streaming, again.temperature) == (7, True, 0.5)


def test_a_key_of_the_environment_goes_with_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    make_models_picklable()
    pickled = pickle.dumps(ChatOpenAI(model="m"))
    monkeypatch.delenv("OPENAI_API_KEY")
    again = pickle.loads(pickled)
    assert again.openai_api_key.get_secret_value() == KEY
    assert again.root_client.api_key == KEY
    assert KEY not in repr(again)


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("openai", "OPENAI_BASE_URL"),
        ("openai embeddings", "OPENAI_BASE_URL"),
        ("ollama", "OLLAMA_HOST"),
    ],
)
def test_the_server_of_the_environment_goes_with_the_model(
    monkeypatch: pytest.MonkeyPatch, name: str, variable: str
) -> None:
    def url(model: Any) -> str:
        client = getattr(model, "root_client", None)
        inner = model._client if name == "ollama" else model.client
        return str((client or inner._client).base_url)

    monkeypatch.setenv(variable, "http://127.0.0.1:7/v1")
    model = made(name)
    make_models_picklable()
    pickled = pickle.dumps(model)
    monkeypatch.delenv(variable)
    assert url(pickle.loads(pickled)) == url(model)
    assert ":7" in url(model)


def test_a_client_of_the_user_is_not_lost_in_silence() -> None:
    make_models_picklable()
    with httpx.Client() as client:
        model = ChatOpenAI(model="m", api_key=KEY, http_client=client)
        with pytest.raises(pickle.PicklingError, match=r"its http_client, a httpx\.Client"):
            pickle.dumps(model)


class CountingModel(FakeListChatModel):
    """A model whose state no constructor knows."""

    _asked: list[str] = PrivateAttr(default_factory=list)


class OwnModel(FakeListChatModel):
    """A model with a way of its own to be pickled."""

    def __getstate__(self) -> dict[Any, Any]:
        return {**super().__getstate__(), "own": True}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        assert state.pop("own")
        super().__setstate__(state)


def test_what_can_be_pickled_as_it_is_stays_as_it_is() -> None:
    model = CountingModel(responses=["a", "b"])
    model.invoke("?")
    model._asked.append("?")
    make_models_picklable()
    again = sent(model)
    assert (again._asked, again.i) == (["?"], model.i)
    assert OwnModel not in copyreg.dispatch_table
    assert sent(OwnModel(responses=["a"])).responses == ["a"]


class LinkedModel(FakeListChatModel):
    """A model that may refer to itself, and have a client that it makes."""

    other: Any = None
    _own: Any = PrivateAttr(default=None)
    _client: Any = PrivateAttr(default_factory=threading.Lock)


class PlainLinkedModel(FakeListChatModel):
    """A model that may refer to itself."""

    _own: Any = PrivateAttr(default=None)


@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
@pytest.mark.parametrize("kind", [PlainLinkedModel, LinkedModel])
def test_a_model_that_refers_to_itself(kind: Any, pickler: Any) -> None:
    make_models_picklable()
    model, inner = kind(responses=["a"]), kind(responses=["b"])
    model._own, inner._own = [model, inner], {"outer": model}
    again = sent(model, pickler)
    assert again._own[0] is again
    assert again._own[1]._own["outer"] is again
    assert again._own[1].responses == ["b"]


def test_models_within_models_are_looked_at_once_each() -> None:
    make_models_picklable()
    model = PlainLinkedModel(responses=["0"])
    for number in range(1, 24):
        outer = PlainLinkedModel(responses=[str(number)])
        outer._own = model
        model = outer
    again = sent(model)
    for number in reversed(range(24)):
        assert again.responses == [str(number)]
        again = again._own


def politely(answer: str) -> Verification:
    return Verification(score=float("please" in answer))


def checks(server: OpenAIServer) -> list[Any]:
    model, ours = server.model("small"), FunctionVerifier(function=politely)
    return [
        SelfVerifier(model=model, samples=2),
        CombinedVerifier(checks={"a": SelfVerifier(model=model), "b": ours}),
        AgreementVerifier(compare=made("openai embeddings")),
        LLMJudge(model=model),
        EmbeddingSimilarity(embeddings=made("openai embeddings")),
    ]


@PICKLERS
def test_checks_and_judges(server: OpenAIServer, pickler: Any) -> None:
    for check in checks(server):
        again = sent(check, pickler)
        assert type(again) is type(check)
        assert again.fingerprint == check.fingerprint
    server.script = answering(verdicts="ar")
    check = checks(server)[0]
    found = [each.invoke({**QUESTION, "answer": "Turku"}).verdicts for each in (check, sent(check))]
    assert found[0] == found[1] == (True, False)


def log() -> RoutingLog:
    return world(60, k=3)


@PICKLERS
def test_routers_policies_and_logs(pickler: Any) -> None:
    fitted = POMDPRouter.fit(log(), cost_weight=0.1)
    state = RoutingState(
        models=log().models,
        visits=[Visit(model_index=0, verification=Verification(verdicts=(True, False)))],
    )
    for router in (fitted, POMDPRouter(), ThresholdRouter(threshold=0.3)):
        again = sent(router, pickler)
        assert again.invoke(state) == router.invoke(state)
    assert sent(fitted.policy, pickler) == fitted.policy
    assert list(sent(log(), pickler).records()) == list(log().records())
