"""Named mixes in a TOML file."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from langchain_automix import AutoMixError
from langchain_automix.serve.config_file import read_serve_file

WHOLE = """
port = 9000
show_texts = true
timeout = 5
cors_origins = ["https://app.example.com"]

[keys.team-a]
env = "TEAM_A_KEY"
spend_limit = { limit = "5 USD", per = "P1D" }

[mixes.support]
models = ["openai:small", "openai:large"]
policy = "policy.json"
prices = "prices.json"
learning = { store = "sqlite:///automix.db", max_loss = 0.02 }
spend_limit = { limit = 7, when_spent = "cheapest" }

[mixes.plain]
models = ["openai:small", "openai:middle", "openai:large"]
prices = { small = { input = 1, output = 2 } }
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "mixes.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_with_all_that_it_may_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM_A_KEY", "key-of-team-a")
    monkeypatch.delenv("AUTOMIX_API_KEYS", raising=False)
    read = read_serve_file(written(tmp_path, WHOLE))
    assert (read.host, read.port) == ("127.0.0.1", 9000)
    assert list(read.mixes) == ["support", "plain"]
    mix = read.mixes["support"]
    assert mix.policy == tmp_path / "policy.json"  # files are found from the file's own folder
    assert mix.prices == tmp_path / "prices.json"
    assert mix.spend_limit is not None
    limit = mix.spend_limit.to_limit("mix support")
    assert (limit.limit, limit.when_spent) == (Decimal(7), "cheapest")
    settings = read.to_settings()
    assert settings.show_texts
    assert (settings.timeout, settings.cors_origins) == (5, ("https://app.example.com",))
    [key] = settings.keys
    assert key.name == "team-a"
    assert key.spend_limit is not None
    assert key.spend_limit.per == timedelta(days=1)
    assert (key.spend_limit.when_spent, key.spend_limit.tag) == ("raise", key.tag)


MIX = '[mixes.a]\nmodels = ["openai:small", "openai:large"]\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "field mixes: it is missing"),
        ("[mixes]", "field mixes"),
        ("mixes = ", "is not TOML"),
        (f"prot = 1\n{MIX}", "field prot: there is no such field. Did you mean 'port'?"),
        (f"{MIX}polcy = 'p'", "mixes.a.polcy: there is no such field. Did you mean 'policy'?"),
        ('[mixes.a]\nmodels = ["openai:small"]', "mixes.a.models"),
        (f"{MIX}spend_limit = {{ limt = 1, limit = 1 }}", "Did you mean 'limit'?"),
        (f"{MIX}learning = {{ store = 's', max_los = 1 }}", "Did you mean 'max_loss'"),
        (f"{MIX}learning = {{ max_loss = 1 }}", "the store is missing"),
        (f"{MIX}[keys.a]\nkey = 'sk-1'", "keys.a"),
        (f"{MIX}[keys.a]\nenvv = 'A'", "Did you mean 'env'?"),
        (f"port = 70000\n{MIX}", "field port"),
        (f"{MIX}spend_limit = {{ limit = -1 }}", "field mixes.a.spend_limit: field limit: "),
        (f"{MIX}spend_limit = {{ limit = '5 EUR' }}", "'5 EUR' is not an amount of US dollars"),
        (f"{MIX}[keys.a]\nenv = 'A'\nspend_limit = {{ limit = 1, per = 0 }}", "field per: "),
    ],
)
def test_a_file_that_says_what_is_not_known(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(AutoMixError) as caught:
        read_serve_file(written(tmp_path, text))
    assert said in str(caught.value)
    assert "mixes.toml" in str(caught.value)
    assert "sk-1" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AutoMixError, match="cannot be read: No such file"):
        read_serve_file(tmp_path / "mixes.toml")


def test_a_key_that_is_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEAM_A_KEY", raising=False)
    with pytest.raises(AutoMixError, match="TEAM_A_KEY holds no key"):
        read_serve_file(written(tmp_path, WHOLE)).to_settings()


@pytest.mark.parametrize("setting", ["timeout = 0", "max_concurrent = 0", "grace = -1"])
def test_settings_that_are_not_possible(tmp_path: Path, setting: str) -> None:
    with pytest.raises(AutoMixError, match=setting.split(maxsplit=1)[0]):
        read_serve_file(written(tmp_path, f"{setting}\n{MIX}")).to_settings()
