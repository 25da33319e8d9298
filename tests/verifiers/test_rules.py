"""Checks that ask no model: a schema, a pattern, a function; and one written by a user."""

from __future__ import annotations

import datetime as dt
import functools
from typing import Any, TypedDict

import numpy as np
import pytest
from langchain_core.messages import AIMessage
from pydantic import BaseModel, ConfigDict

from langchain_automix import (
    AutoMixError,
    FunctionVerifier,
    PatternVerifier,
    SchemaVerifier,
    Verification,
)
from langchain_automix.types import ModelCall
from tests.support.builders.checks import asked
from tests.support.builders.mixes import Witness, mix, record_of
from tests.support.builders.no_warnings import no_warnings
from tests.support.servers.openai_server import OpenAIServer


class Berth(BaseModel):
    model_config = ConfigDict(strict=True)

    number: int
    since: dt.date


class BerthDict(TypedDict):
    number: int
    since: str


JSON_SCHEMA = {
    "type": "object",
    "required": ["number", "since"],
    "properties": {"number": {"$ref": "#/$defs/n"}, "since": {"type": "string"}},
    "$defs": {"n": {"type": "integer"}},
}
TOOL_CALL = AIMessage("", tool_calls=[{"name": "weather", "args": {}, "id": "1"}])


@pytest.mark.parametrize("schema", [Berth, BerthDict, JSON_SCHEMA])
class TestSchema:
    def found(self, schema: Any, answer: Any) -> Verification:
        return SchemaVerifier(schema=schema).invoke(asked(answer=answer))

    @pytest.mark.parametrize(
        "answer",
        [
            '{"number": 5, "since": "1931-05-02"}',
            'Here:\n```json\n{"since": "1931-05-02", "number": 5}\n```',
            AIMessage('{"number": 5, "since": "1931-05-02"}'),
        ],
    )
    def test_what_fits(self, schema: Any, answer: Any) -> None:
        found = self.found(schema, answer)
        assert (found.verdicts, found.problem) == ((True,), None)

    @pytest.mark.parametrize(
        ("answer", "why"),
        [
            ('{"number": "secret", "since": "1931-05-02"}', "number: "),
            ('{"number": 5}', "since"),
            ('{"number": 5, "since": NaN}', "no JSON"),
            ("Five.", "no JSON"),
            ("[" * 100_000, "no JSON"),
        ],
    )
    def test_what_does_not(self, schema: Any, answer: str, why: str) -> None:
        found = self.found(schema, answer)
        assert (found.verdicts, found.problem) == ((False,), None)
        assert why in found.replies[0]
        assert "secret" not in found.replies[0]

    @pytest.mark.parametrize("answer", ["", "  ", TOOL_CALL])
    def test_no_text_is_unknown(self, schema: Any, answer: Any) -> None:
        found = self.found(schema, answer)
        assert found.confidence is None
        assert found.problem

    def test_the_fingerprint(self, schema: Any) -> None:
        one = SchemaVerifier(schema=schema).fingerprint
        assert one == SchemaVerifier(schema=schema).fingerprint
        assert one != SchemaVerifier(schema={"type": "object"}).fingerprint


class TestSchemasThatCannotBeUsed:
    @pytest.mark.parametrize(
        ("schema", "said"),
        [
            ({}, "every JSON value fits it"),
            ({"type": "no such type"}, "cannot be used: 'no such type'"),
            ({"$ref": "http://127.0.0.1:9/schema.json"}, "cannot be used: Unresolvable"),
            (5, "schema"),
        ],
    )
    def test_are_refused(self, schema: Any, said: str) -> None:
        with pytest.raises(ValueError, match=said):
            SchemaVerifier(schema=schema)

    def test_one_found_out_late_makes_the_check_unknown(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fetched: list[Any] = []
        monkeypatch.setattr("urllib.request.urlopen", lambda *args, **_: fetched.append(args))
        schema = {"properties": {"a": {"$ref": "http://127.0.0.1:9/schema.json"}}}
        with no_warnings():
            found = SchemaVerifier(schema=schema).invoke(asked(answer='{"a": 1}'))
        assert found.confidence is None
        assert "the schema cannot be used" in str(found.problem)
        assert not fetched


class TestPattern:
    @pytest.mark.parametrize(
        ("answer", "whole", "verdict"),
        [
            (" 1931-05-02\n", True, True),
            ("On 1931-05-02", True, False),
            ("On 1931-05-02", False, True),
            ("In May", False, False),
            (AIMessage("1931-05-02"), True, True),
        ],
    )
    def test_whole_or_in_part(self, answer: Any, whole: bool, verdict: bool) -> None:
        check = PatternVerifier(pattern=r"\d{4}-\d\d-\d\d", whole=whole)
        assert check.invoke(asked(answer=answer)).verdicts == (verdict,)

    @pytest.mark.parametrize("answer", ["", TOOL_CALL, "1" * 2_001])
    def test_unknown(self, answer: Any) -> None:
        found = PatternVerifier(pattern=r"\d*").invoke(asked(answer=answer))
        assert found.confidence is None
        assert found.problem

    def test_no_pattern(self) -> None:
        with pytest.raises(ValueError, match="regular expression"):
            PatternVerifier(pattern="(")

    def test_the_fingerprint(self) -> None:
        prints = {
            PatternVerifier(pattern="a").fingerprint,
            PatternVerifier(pattern="b").fingerprint,
            PatternVerifier(pattern="a", whole=False).fingerprint,
            PatternVerifier(pattern="(?i)a").fingerprint,
        }
        assert len(prints) == 4


def returning(found: Any) -> FunctionVerifier:
    def check(answer: str) -> Any:
        return found

    return FunctionVerifier(function=check)


class TestFunction:
    @pytest.mark.parametrize(
        ("returned", "fields"),
        [
            (True, {"verdicts": (True,)}),
            (np.bool_(False), {"verdicts": (False,)}),
            (None, {"verdicts": (None,)}),
            (0.25, {"score": 0.25}),
            (np.float32(0.5), {"score": 0.5}),
            (1, {"score": 1.0}),
            (
                Verification(verdicts=(True, False), calls=(ModelCall(model="own"),)),
                {"verdicts": (True, False), "calls": (ModelCall(model="own"),)},
            ),
        ],
    )
    def test_what_it_returns(self, returned: Any, fields: Any) -> None:
        assert returning(returned).invoke(asked()) == Verification(**fields)

    @pytest.mark.parametrize(
        ("returned", "said"),
        [
            (float("nan"), "check returned nan, no score in [0, 1]"),
            (1.01, "check returned 1.01, no score in [0, 1]"),
            (-1, "check returned -1, no score in [0, 1]"),
            (float("inf"), "check returned inf, no score in [0, 1]"),
            ("yes", "check returned str, not a truth value"),
            ([True], "check returned list, not a truth value"),
        ],
    )
    def test_what_it_may_not(self, returned: Any, said: str) -> None:
        found = returning(returned).invoke(asked())
        assert found.confidence is None
        assert said in str(found.problem)

    async def test_what_it_raises_makes_it_unknown(self) -> None:
        def check(answer: str) -> bool:
            raise KeyError(answer)

        async def acheck(answer: str) -> bool:
            raise TypeError(answer)

        found = FunctionVerifier(function=check).invoke(asked())
        assert found == Verification(problem="check raised KeyError"), "the answer is not quoted"
        found = await FunctionVerifier(function=acheck).ainvoke(asked())
        assert found == Verification(problem="acheck raised TypeError")

    @pytest.mark.parametrize("how", ["sync", "async"])
    async def test_what_it_gets(self, how: str) -> None:
        seen: list[Any] = []

        def note(given: Any) -> bool:
            seen.append(given)
            return True

        async def anote(given: Any) -> bool:
            return note(given)

        function = note if how == "sync" else anote
        given_ = asked(answer=AIMessage("Turku"))
        await FunctionVerifier(function=function).ainvoke(given_)
        await FunctionVerifier(function=function, takes="input").ainvoke(given_)
        assert seen == ["Turku", given_]

    def test_one_that_must_be_awaited_says_so(self) -> None:
        async def check(answer: str) -> bool:
            return True

        with pytest.raises(AutoMixError, match="async function, check: call it.*asynchronously"):
            FunctionVerifier(function=check).invoke(asked())

    def test_other_callables(self) -> None:
        class Longer:
            def __init__(self, least: int) -> None:
                self.least = least

            def __call__(self, answer: str) -> bool:
                return len(answer) >= self.least

        def longer(least: int, answer: str) -> bool:
            return len(answer) >= least

        for function in (Longer(5), functools.partial(longer, 5)):
            check = FunctionVerifier(function=function)
            assert check.invoke(asked()).verdicts == (True,)
            assert check.invoke(asked(answer="no")).verdicts == (False,)

    def test_the_fingerprint_changes_with_the_code(self) -> None:
        ways = [
            FunctionVerifier(function=lambda answer: len(answer) > 1),
            FunctionVerifier(function=lambda answer: len(answer) > 2),
            FunctionVerifier(function=lambda answer: len(answer) > 1, takes="input"),
        ]
        assert len({way.fingerprint for way in ways}) == 3

    def test_in_a_mix(self, server: OpenAIServer) -> None:
        def short(answer: str) -> bool:
            return len(answer) < 6

        server.script = lambda body: ["a long tale" if body["model"] == "small" else "Turku"]
        witness = Witness()
        verifier = FunctionVerifier(function=short)
        kept = mix(server, verifier=verifier).invoke("Where?", {"callbacks": [witness]})
        assert kept.text == "Turku"
        assert record_of(kept)["verdicts"] == [False]
        assert "short" in witness.names.values(), "its own run shows what it raised"
        assert len(server.requests) == 2
