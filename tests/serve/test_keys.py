"""Keys of clients, and what each may spend."""

from __future__ import annotations

import hmac
from typing import Any

import httpx
import pytest

from langchain_automix import AutoMixError, SpendLimit
from langchain_automix.serve.app import create_app
from langchain_automix.serve.errors import ApiError
from langchain_automix.serve.keys import ApiKey, Keyring, keys_of_environment
from langchain_automix.serve.limits import LoopbackHosts
from langchain_automix.serve.settings import ServeSettings, check_host, is_loopback
from tests.support.builders.mixes import ACCEPTS
from tests.support.servers.openai_server import OpenAIServer
from tests.support.servers.serving import MIX, address, chat_mix, served_mix, serving

A, B = ApiKey.of("a", "key-of-team-a"), ApiKey.of("b", "key-of-team-b")
ASKED = {"model": MIX, "messages": [{"role": "user", "content": "Who?"}]}


def test_a_key_is_needed_for_all_that_tells_or_costs(server: OpenAIServer) -> None:
    with served_mix(server, ServeSettings(keys=(A, B)), verifier=ACCEPTS) as running:
        for key, status in ((None, 401), ("key-of-team-c", 401), ("key-of-team-a", 200)):
            with running.client(key) as client:
                asked = client.post("/v1/chat/completions", json=ASKED)
                assert [
                    asked.status_code,
                    client.get("/v1/models").status_code,
                    client.get(f"/v1/models/{MIX}").status_code,
                ] == [status] * 3
                assert client.get("/healthz").status_code == 200
                if status == 401:
                    assert asked.json()["error"]["code"] == "invalid_api_key"
                    assert asked.headers["www-authenticate"] == "Bearer"
        [query] = running.told()
    assert query.key == "a"


def test_a_key_may_not_come_in_another_way(server: OpenAIServer) -> None:
    with served_mix(server, ServeSettings(keys=(A,)), verifier=ACCEPTS) as running:
        for headers in (
            {"Authorization": "key-of-team-a"},
            {"Authorization": "Basic key-of-team-a"},
            {"Authorization": "Bearer"},
            {"X-API-Key": "key-of-team-a"},
        ):
            with running.client(headers=headers) as client:
                assert client.get("/v1/models").status_code == 401
        with running.client(headers={"Authorization": "bearer  key-of-team-a"}) as client:
            assert client.get("/v1/models").status_code == 200


def test_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: Any, other: Any) -> bool:
        compared.append((one, other))
        return bool(one == other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    ring = Keyring([A, B])
    assert ring.find("Bearer key-of-team-a") is A
    assert len(compared) == 2
    assert {len(one) for pair in compared for one in pair} == {32}  # hashes, never keys
    with pytest.raises(ApiError):
        ring.find(None)
    assert len(compared) == 4


def test_no_key_is_shown() -> None:
    assert "team-a" not in repr(A)
    assert "key-of" not in repr(ServeSettings(keys=(A, B)))


@pytest.mark.parametrize("key", ["", "short", "with a space", "ключключключ", "line\nline\nline"])
def test_what_is_no_key(key: str) -> None:
    with pytest.raises(AutoMixError, match="is no key"):
        ApiKey.of("a", key)


def test_keys_that_are_one() -> None:
    with pytest.raises(AutoMixError, match="have the name 'a'"):
        Keyring([A, ApiKey.of("a", "another-key")])
    with pytest.raises(AutoMixError, match="given twice"):
        ServeSettings(keys=(A, ApiKey.of("c", "key-of-team-a")))


def test_keys_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOMIX_API_KEYS", raising=False)
    assert keys_of_environment() == []
    monkeypatch.setenv("AUTOMIX_API_KEYS", " first-key ,, second-key,first-key")
    keys = keys_of_environment()
    assert len(keys) == 2
    assert Keyring(keys).find("Bearer second-key") is keys[1]
    assert "second" not in repr(keys)


def test_each_key_spends_its_own(server: OpenAIServer) -> None:
    limit = SpendLimit("0.000001 USD", when_spent="raise")
    keys = (A.limited(limit), B.limited(limit))
    with served_mix(server, ServeSettings(keys=keys), verifier=ACCEPTS) as running:
        with running.client("key-of-team-a") as client:
            assert client.post("/v1/chat/completions", json=ASKED).status_code == 200
            refused = client.post("/v1/chat/completions", json=ASKED)
            streamed = client.post("/v1/chat/completions", json={**ASKED, "stream": True})
        with running.client("key-of-team-b") as client:
            assert client.post("/v1/chat/completions", json=ASKED).status_code == 200
    for response in (refused, streamed):
        assert response.status_code == 429
        assert response.json()["error"]["code"] == "insufficient_quota"
    assert len(server.requests) == 2  # nothing was paid for what was refused
    assert {key.spend_limit.name for key in keys if key.spend_limit} == {
        "default of key a",
        "default of key b",
    }


def test_a_key_with_a_limit_needs_prices(server: OpenAIServer) -> None:
    keys = (A.limited(SpendLimit("1 USD", when_spent="raise")),)
    with pytest.raises(AutoMixError, match="needs the price of every model"):
        create_app({MIX: chat_mix(server, prices=None)}, ServeSettings(keys=keys))


def test_without_keys_no_other_name_leads_here(server: OpenAIServer) -> None:
    app = create_app({MIX: chat_mix(server, verifier=ACCEPTS)})
    app.add_middleware(LoopbackHosts)
    with serving(app) as running, httpx.Client(trust_env=False) as client:
        url = f"{address(running)}/models"
        for host in ("127.0.0.1", "localhost:80", "[::1]:8000", "LOCALHOST"):
            assert client.get(url, headers={"Host": host}).status_code == 200, host
        for host in ("evil.example.com", "127.0.0.1.evil.example.com", "[", "", "localhost@evil"):
            response = client.get(url, headers={"Host": host})
            assert response.status_code == 403, host
            assert response.json()["error"]["code"] == "host_not_allowed"


def test_any_web_page_needs_a_key() -> None:
    with pytest.raises(AutoMixError, match="any web page"):
        ServeSettings(cors_origins=("*",))
    assert ServeSettings(cors_origins=("*",), keys=(A,)).cors_origins == ("*",)
    assert ServeSettings(cors_origins=("https://a.example:8443", "http://[::1]:5173"))


@pytest.mark.parametrize(
    "origin",
    ["https://a.example/", "a.example", "https://a.example/app", "https://*.a.example", ""],
)
def test_what_is_no_origin(origin: str) -> None:
    with pytest.raises(AutoMixError, match="is no origin of a web page"):
        ServeSettings(cors_origins=(origin,))


def test_other_machines_need_a_key() -> None:
    check_host("127.0.0.1", ServeSettings())
    check_host("0.0.0.0", ServeSettings(keys=(A,)))
    for host in ("0.0.0.0", "::", "192.168.0.1", "example.com", ""):
        with pytest.raises(AutoMixError, match="AUTOMIX_API_KEYS"):
            check_host(host, ServeSettings())
    assert [is_loopback(host) for host in ("localhost", "::1", "[::1]", "127.9.9.9")] == [True] * 4
