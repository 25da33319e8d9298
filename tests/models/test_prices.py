"""Tokens to money: by a table, by a function, by the list, or unknown, which is never 0."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages.ai import UsageMetadata

from langchain_automix import AutoMixError
from langchain_automix.models.prices import (
    PRICE_KEYS,
    PriceWarning,
    cost_of,
    dollars_of,
    format_dollars,
    price_calls,
    token_prices,
)
from langchain_automix.types import ModelCall
from tests.support.builders.mixes import mix
from tests.support.servers.openai_server import OpenAIServer

TABLE: dict[str, Any] = {"small": {"input": 1, "output": 10}}


def call(
    model: str | None = "small",
    read: int = 0,
    written: int = 0,
    *,
    details: dict[str, int] | None = None,
    out: dict[str, int] | None = None,
    provider: str | None = "openai",
) -> ModelCall:
    usage: dict[str, Any] = {
        "input_tokens": read,
        "output_tokens": written,
        "total_tokens": read + written,
    }
    if details is not None:
        usage["input_token_details"] = details
    if out is not None:
        usage["output_token_details"] = out
    return ModelCall(model=model, provider=provider, usage=cast("UsageMetadata", usage))


class TestByATable:
    @pytest.mark.parametrize(
        ("more", "details", "out", "dollars"),
        [
            ({}, {}, {}, "2"),
            ({}, {"cache_read": 400_000, "audio": 5}, {"reasoning": 50_000}, "2"),
            ({"cache_read": 0.1}, {"cache_read": 400_000}, {}, "1.64"),
            ({"cache_write": 1.25}, {"cache_creation": 400_000}, {}, "2.1"),
            ({"cache_write": 1.25}, {"ephemeral_5m_input_tokens": 400_000}, {}, "2.1"),
            ({"cache_write": 1.25}, {"ephemeral_1h_input_tokens": 400_000}, {}, "2.1"),
            (
                {"cache_write": 1.25, "cache_write_1h": 2},
                {
                    "cache_creation": 0,
                    "ephemeral_5m_input_tokens": 200_000,
                    "ephemeral_1h_input_tokens": 200_000,
                },
                {},
                "2.25",
            ),
            ({"input_audio": 30}, {"audio": 100_000}, {}, "4.9"),
            ({"output_audio": 20}, {}, {"audio": 50_000}, "2.5"),
            ({"reasoning": 4}, {}, {"reasoning": 50_000}, "1.7"),
            ({"cache_read": 0}, {"cache_read": 1_000_000}, {}, "1"),
            ({"cache_read": 0.1}, {"flex": 600_000, "flex_cache_read": 400_000}, {}, "1.64"),
        ],
    )
    def test_each_kind_of_token(
        self, more: dict[str, float], details: dict[str, int], out: dict[str, int], dollars: str
    ) -> None:
        asked = call("small", 1_000_000, 100_000, details=details, out=out)
        assert cost_of([asked], {"small": {**TABLE["small"], **more}}) == Decimal(dollars)

    def test_cached_audio_is_billed_once_and_never_below_zero(self) -> None:
        table = {"small": {"input": 1, "output": 10, "cache_read": 0.1, "input_audio": 30}}
        asked = call("small", 100, details={"cache_read": 80, "audio": 80})
        assert cost_of([asked], table) == Decimal(80 * 30 + 20 * Decimal("0.1")) / 10**6

    @pytest.mark.parametrize(
        "name",
        ["small-2026-03-17", "small-20260317", "small@20260317", "small"],
    )
    def test_a_version_costs_what_its_model_does(self, name: str) -> None:
        assert cost_of([call(name, 1_000_000)], TABLE) == 1
        dearer = {**TABLE, "small-2026-03-17": {"input": 3, "output": 3}}
        assert cost_of([call("small-2026-03-17", 1_000_000)], dearer) == 3

    @pytest.mark.parametrize("name", ["small-2", "small-mini", "smal", "", None])
    def test_another_name_is_another_model(self, name: str | None) -> None:
        found = price_calls([call(name, 5, provider=None)], TABLE)
        assert found == (None, (name or "a model without a name",))

    @pytest.mark.parametrize(
        ("table", "said"),
        [
            ({"small": {"input": 1}}, "small are given for ['input']"),
            ({"small": {"input": 1, "output": 1, "cached": 1}}, "where they differ"),
            ({"small": {"input": -1, "output": 1}}, "The price -1 of small"),
            ({"small": {"input": float("nan"), "output": 1}}, "The price nan of small"),
            ({"small": {"input": float("inf"), "output": 1}}, "The price inf of small"),
            ({"small": {"input": "cheap", "output": 1}}, "The price 'cheap' of small"),
            ({"small": {"input": None, "output": 1}}, "The price None of small"),
            ({"small": {"input": True, "output": 1}}, "The price True of small"),
            ({"small": 3}, "small are given for 3"),
            ({"small": {}}, "small are given for []"),
            ([("small", 3)], "prices is a list"),
            ("small", "prices is a str"),
        ],
    )
    def test_a_bad_table_is_refused_with_one_error(
        self, server: OpenAIServer, table: Any, said: str
    ) -> None:
        with pytest.raises(AutoMixError) as refused:
            mix(server, prices=table)
        assert said in str(refused.value)


class TestByAFunction:
    def test_what_it_knows_it_decides(self) -> None:
        pytest.importorskip("genai_prices")
        asked = call("gpt-5.4-mini", 1000)
        assert cost_of([asked], lambda _: 0.1) == Decimal("0.1")
        assert cost_of([asked], lambda _: 0) == 0

    def test_none_leaves_it_to_the_list(self) -> None:
        pytest.importorskip("genai_prices")
        asked = call("gpt-5.4-mini", 1000)
        assert cost_of([asked], lambda _: None) == cost_of([asked]) == Decimal("0.00075")
        assert price_calls([call("mine", 5)], lambda _: None) == (None, ("mine",))

    def test_it_is_not_asked_where_no_tokens_are_known(self) -> None:
        def never(asked: ModelCall) -> None:
            raise AssertionError(asked)

        assert price_calls([ModelCall(model="m")], never) == (None, ("m",))

    def test_one_that_fails_does_not_know(self) -> None:
        def prices(asked: ModelCall) -> float:
            return {"small": 0.1}[str(asked.model)]

        with pytest.warns(
            PriceWarning, match="prices= failed for 'mine' .KeyError: 'mine'"
        ) as told:
            for _ in range(2):
                assert price_calls([call("small", 5), call("mine", 5)], prices) == (None, ("mine",))
        assert len(told) == 1

    @pytest.mark.filterwarnings("error")
    def test_its_warning_as_an_error_takes_the_place_of_no_answer(self) -> None:
        def prices(asked: ModelCall) -> float:
            raise KeyError(asked.model)

        assert price_calls([call("mine", 5)], prices) == (None, ("mine",))

    @pytest.mark.parametrize("price", [-1, float("nan"), "much", object()])
    def test_a_price_that_is_none(self, price: Any) -> None:
        with pytest.raises(ValueError, match="is no amount of dollars"):
            cost_of([call("m", 5)], lambda _: price)


class TestByTheList:
    @pytest.fixture(autouse=True)
    def listed(self) -> None:
        pytest.importorskip("genai_prices")

    @pytest.mark.parametrize(
        ("model", "provider", "tokens", "details", "out"),
        [
            ("gpt-5.4-mini-2026-03-17", "openai", {}, {}, {}),
            ("gpt-5.4-mini", "openai", {"cache_read_tokens": 600}, {"cache_read": 600}, {}),
            ("gpt-5.5", "openai", {}, {}, {"reasoning": 90}),
            ("gpt-4o-audio-preview", "openai", {"input_audio_tokens": 80}, {"audio": 80}, {}),
            (
                "claude-sonnet-4-5",
                "anthropic",
                {"cache_read_tokens": 300, "cache_write_tokens": 500, "cache_write_1h_tokens": 400},
                {
                    "cache_read": 300,
                    "cache_creation": 0,
                    "ephemeral_5m_input_tokens": 100,
                    "ephemeral_1h_input_tokens": 400,
                },
                {},
            ),
            ("gemini-2.5-pro", "google_genai", {}, {}, {"reasoning": 90}),
        ],
    )
    @pytest.mark.parametrize("read", [1000, 300_000])  # the second lies above every tier's edge
    def test_as_the_list_says(
        self,
        model: str,
        provider: str,
        tokens: dict[str, int],
        details: dict[str, int],
        out: dict[str, int],
        read: int,
    ) -> None:
        from genai_prices import Usage, calc_price  # noqa: PLC0415

        listed = calc_price(
            Usage(input_tokens=read, output_tokens=100, **tokens),
            model_ref=model,
            provider_id={"google_genai": "google"}.get(provider, provider),
        )
        asked = call(model, read, 100, details=details, out=out, provider=provider)
        assert cost_of([asked]) == listed.total_price

    @pytest.mark.parametrize(
        ("model", "provider"),
        [
            ("gpt-5.5", "openai"),
            ("gemini-2.5-pro", "google_genai"),
            ("claude-sonnet-4-5", "anthropic"),
        ],
    )
    def test_a_models_price_is_that_of_a_request_of_ordinary_length(
        self, model: str, provider: str
    ) -> None:
        asked = [call(model, 1_000, provider=provider), call(model, 0, 1_000, provider=provider)]
        assert token_prices(model, provider) == tuple(1_000 * cost_of([each]) for each in asked)  # type: ignore[operator]
        very_long = cost_of([call(model, 1_000_000, provider=provider)])
        assert very_long != token_prices(model, provider)[0]  # type: ignore[index]

    def test_writing_a_cache_is_dearer_than_reading_the_prompt(self) -> None:
        """LangChain's `cache_creation` is 0 where Anthropic tells how long the cache lives."""
        kinds = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")
        five, hour = (
            cost_of(
                [
                    call(
                        "claude-sonnet-4-5",
                        1000,
                        details={"cache_creation": 0, kind: 1000},
                        provider="anthropic",
                    )
                ]
            )
            for kind in kinds
        )
        plain = cost_of([call("claude-sonnet-4-5", 1000, provider="anthropic")])
        assert plain is not None
        assert (five, hour) == (plain * Decimal("1.25"), plain * 2)

    @pytest.mark.parametrize("tier", ["flex", "priority"])
    def test_another_tier_of_service_is_unknown(self, tier: str) -> None:
        asked = call("gpt-5.4-mini", 1000, 10, details={tier: 1000, f"{tier}_cache_read": 0})
        assert price_calls([asked]) == (None, ("gpt-5.4-mini",))
        own = {"gpt-5.4-mini": {"input": 1, "output": 0}}
        assert cost_of([asked], own) == Decimal("0.001")

    def test_what_contradicts_itself_is_unknown(self) -> None:
        assert cost_of([call("gpt-5.4-mini", 10, details={"cache_read": 99})]) is None

    def test_no_provider_no_guess(self) -> None:
        assert cost_of([call("gpt-5.4-mini", 10, provider=None)]) is None


class TestUnknown:
    def test_one_unknown_makes_the_sum_unknown_and_is_named_once(self) -> None:
        calls = [call(read=5), call("x", 5), call("x", 5), ModelCall(model="small"), ModelCall()]
        assert price_calls(calls, TABLE) == (None, ("x", "small", "a model without a name"))

    def test_nothing_asked_costs_nothing(self) -> None:
        assert price_calls([]) == (Decimal(0), ())

    def test_a_cached_answer_is_free_whatever_its_usage(self) -> None:
        """LangChain marks it so, even where the model told no tokens at all."""
        for usage in ({"total_cost": 0}, {**(call(read=5).usage or {}), "total_cost": 0}):
            asked = ModelCall(model="x", usage=cast("UsageMetadata", usage))
            assert price_calls([asked], TABLE) == (Decimal(0), ())


PRICES = st.decimals(0, 1000, places=6) | st.floats(0, 1000) | st.integers(0, 1000)
NUMBERS = st.integers(0, 10**7)
INPUT = {"cache_read": "cache_read", "cache_creation": "cache_write", "audio": "input_audio"}
OUTPUT = {"reasoning": "reasoning", "audio": "output_audio"}
ENTRIES = st.fixed_dictionaries(
    {"input": PRICES, "output": PRICES},
    optional=dict.fromkeys(sorted(PRICE_KEYS - {"input", "output"}), PRICES),
)


@st.composite
def requests(draw: st.DrawFn, *, overlapping: bool = False) -> ModelCall:
    details, out = (draw(st.fixed_dictionaries(dict.fromkeys(k, NUMBERS))) for k in (INPUT, OUTPUT))
    read, written = (
        draw(NUMBERS) + (max(d.values()) if overlapping else sum(d.values()))
        for d in (details, out)
    )
    return call("small", read, written, details=details, out=out)


def by_hand(asked: ModelCall, entry: dict[str, Any]) -> Fraction:
    usage: Any = asked.usage
    total = Fraction(0)
    for way, kinds in (("input", INPUT), ("output", OUTPUT)):
        details = usage[f"{way}_token_details"]
        rest = usage[f"{way}_tokens"] - sum(details.values())
        total += rest * Fraction(str(entry[way]))
        for kind, key in kinds.items():
            total += details[kind] * Fraction(str(entry.get(key, entry[way])))
    return total / 10**6


class TestAlways:
    @given(requests(), ENTRIES)
    def test_as_computed_by_hand(self, asked: ModelCall, entry: dict[str, Any]) -> None:
        found = cost_of([asked], {"small": entry})
        assert found is not None
        assert float(found) == pytest.approx(float(by_hand(asked, entry)), rel=1e-20)

    @given(st.lists(requests(overlapping=True), max_size=5), ENTRIES)
    def test_never_negative_and_adds_up(
        self, calls: list[ModelCall], entry: dict[str, Any]
    ) -> None:
        table = {"small": entry}
        each = [cost_of([asked], table) or Decimal(0) for asked in calls]
        together = cost_of(calls, table)
        assert together is not None
        assert min(each, default=Decimal(0)) >= 0
        assert float(together) == pytest.approx(float(sum(map(Fraction, each))), rel=1e-20)

    @given(requests(overlapping=True), ENTRIES)
    def test_within_the_cheapest_and_the_dearest_price(
        self, asked: ModelCall, entry: dict[str, Any]
    ) -> None:
        found = cost_of([asked], {"small": entry})
        prices = [Fraction(str(price)) for price in entry.values()]
        tokens = Fraction(cast("UsageMetadata", asked.usage)["total_tokens"], 10**6)
        assert found is not None
        slack = Fraction(1, 10**15)
        assert min(prices) * tokens - slack <= Fraction(found) <= max(prices) * tokens + slack

    @given(st.decimals(0, 10**6, allow_nan=False) | st.just(Decimal("1E-12")))
    def test_money_is_plain_text_and_comes_back(self, cost: Decimal) -> None:
        text = format_dollars(cost)
        assert text is not None
        assert "E" not in text.removesuffix(" USD")
        assert dollars_of(text) == cost
        assert json.loads(json.dumps(text)) == text

    def test_no_noise_of_floats(self) -> None:
        asked = [call("small", 1_000_000), call("small", 0, 1_000_000)]
        assert format_dollars(cost_of(asked, {"small": {"input": 0.1, "output": 0.2}})) == "0.3 USD"
        tiny = {"small": {"input": 1e-7, "output": 0}}
        assert format_dollars(cost_of([call(read=1)], tiny)) == "0.0000000000001 USD"
