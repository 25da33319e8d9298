"""The errors: what each is a kind of, so that `except` and retries see what they know."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import httpx
import openai
import pytest
from langchain_core.exceptions import ModelError, ModelRateLimitError

from langchain_automix import AutoMixError, CutShortError, DeadlineError, ModelsFailedError
from langchain_automix.errors import (
    CircuitOpenError,
    InvalidInputError,
    OutOfReachError,
    QueryFailedError,
    SpendLimitReachedError,
)
from langchain_automix.models.failures import is_model_failure, may_be_billed


def _limited(text: str) -> openai.RateLimitError:
    request = httpx.Request("POST", "http://127.0.0.1")
    response: Any = httpx.Response(429, request=request)
    return openai.RateLimitError(text, response=response, body=None)


def failed(*errors: Exception) -> ModelsFailedError:
    return ModelsFailedError.of({f"model-{i}": error for i, error in enumerate(errors)})


class TestBadInput:
    def test_is_a_value_error(self) -> None:
        error: Any = AutoMixError("A price is none.")
        assert isinstance(error, ValueError)
        assert type(error) is InvalidInputError
        assert str(error) == "A price is none."
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), again.args) == (type(error), error.args)
        assert isinstance(OutOfReachError("m", nearest=0.5), ValueError)

    @pytest.mark.parametrize(
        "kind",
        [
            QueryFailedError,
            CutShortError,
            DeadlineError,
            CircuitOpenError,
            SpendLimitReachedError,
        ],
    )
    def test_a_query_that_failed_is_none(self, kind: type[Exception]) -> None:
        """LangGraph's `RetryPolicy` never retries a `ValueError`."""
        error = kind("m")
        assert isinstance(error, AutoMixError)
        assert not isinstance(error, ValueError)
        assert type(pickle.loads(pickle.dumps(error))) is kind


class TestModelsFailed:
    @pytest.mark.parametrize(
        ("causes", "kinds", "no_kinds"),
        [
            ([ConnectionError("a"), ConnectionError("b")], [ConnectionError], []),
            ([ConnectionResetError(1, "a"), ConnectionRefusedError(2, "b")], [ConnectionError], []),
            ([TimeoutError(), ConnectionError("b")], [OSError], [TimeoutError, ConnectionError]),
            (
                [ModelRateLimitError("a"), ModelRateLimitError("b")],
                [ModelRateLimitError],
                [OSError],
            ),
            ([KeyError("a"), IndexError("b")], [LookupError, ExceptionGroup], [KeyError]),
            ([ValueError("a"), json.JSONDecodeError("b", "", 0)], [ValueError], [OSError]),
            ([RuntimeError("a"), OSError("b")], [ExceptionGroup], [RuntimeError, OSError]),
            ([httpx.ConnectError("a"), httpx.ConnectTimeout("b")], [httpx.TransportError], []),
            ([_limited("a"), _limited("b")], [openai.RateLimitError], [ModelError]),
            ([CutShortError("a"), CutShortError("b")], [CutShortError], [OSError]),
            ([DeadlineError("a"), TimeoutError("b")], [TimeoutError], [DeadlineError]),
            ([failed(OSError("a"), OSError("b")), TimeoutError("c")], [OSError], [TimeoutError]),
            ([AutoMixError("a"), ValueError("b")], [ValueError], [InvalidInputError]),
        ],
        ids=str,
    )
    def test_is_of_what_all_causes_are(
        self, causes: list[Exception], kinds: list[Any], no_kinds: list[Any]
    ) -> None:
        error = failed(*causes)
        for kind in (ModelsFailedError, QueryFailedError, *kinds):
            with pytest.raises(kind):
                raise error
        assert not isinstance(error, tuple(no_kinds))
        assert isinstance(error, ValueError) is (ValueError in kinds)
        assert error.exceptions == tuple(causes)
        assert all(str(cause) in str(error) for cause in causes)
        assert type(error) is type(failed(*causes)), "a kind is one class"
        if not isinstance(causes[0], openai.APIError):  # which cannot be pickled itself
            for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
                assert type(again) is type(error)
                assert str(again) == str(error)
                assert list(map(repr, again.exceptions)) == list(map(repr, causes))

    def test_a_kind_that_allows_no_subclass(self) -> None:
        from pydantic import BaseModel, ValidationError  # noqa: PLC0415  (to make its error)

        class City(BaseModel):
            name: str

        with pytest.raises(ValidationError) as raised:
            City.model_validate({})
        error = failed(raised.value, raised.value)
        assert not isinstance(error, ValidationError)
        assert isinstance(error, ValueError)

    def test_has_what_a_kind_has(self) -> None:
        """As in the examples of `ModelRetryMiddleware`: `error.status_code >= 500`."""
        error: Any = failed(_limited("a"), _limited("b"))
        assert error.status_code == 429
        assert error.response is error.exceptions[1].response
        with pytest.raises(AttributeError):
            _ = error.no_such_thing
        with pytest.raises(AttributeError):
            _ = failed(RuntimeError("a"), _limited("b")).status_code  # type: ignore[attr-defined]

    @pytest.mark.parametrize("kind", [ConnectionError, RuntimeError])
    def test_in_a_traceback_and_an_except_star(self, kind: type[Exception]) -> None:
        causes = [kind("a"), kind("b")]
        error = failed(*causes)
        caught: list[BaseException] = []
        try:
            raise error
        except* kind as group:
            caught += group.exceptions
        assert set(caught) <= {error, *causes}
        assert isinstance(error, ExceptionGroup) or error.__cause__ is causes[-1]
        part: Any = error.subgroup(kind) if isinstance(error, ExceptionGroup) else error
        assert isinstance(part, ModelsFailedError)

    @pytest.mark.parametrize(
        ("cause", "others"),
        [
            (ConnectionError("a"), ValueError("b")),
            (TimeoutError("a"), KeyError("b")),
            (DeadlineError("a"), CircuitOpenError("b")),
            (ImportError("a"), OSError("b")),
        ],
        ids=str,
    )
    def test_a_part_whose_kind_is_no_group_can_be_split_off(
        self, cause: Exception, others: Exception
    ) -> None:
        kind, caught = type(cause), list[Any]()
        error: Any = failed(cause, others)
        try:
            raise error
        except* kind as group:
            caught.append(group)
        except* type(others) as group:
            caught.append(group)
        assert [each.exceptions for each in caught] == [(cause,), (others,)]
        for part in (*caught, error.subgroup(kind), *error.split(kind)):
            assert isinstance(part, ModelsFailedError)
            assert str(part) == str(error)

    def test_a_long_text_keeps_its_beginning_and_its_end(self) -> None:
        """What LangChain says of a tool that it does not know has the name on its third line."""
        long = ValueError("Unknown tools.\n\n" + "Known: " + "x" * 5_000 + "\nUnknown: ['look']")
        text = str(failed(long, ValueError("Unknown tools.\n\nUnknown: ['look']")))
        assert "\n" not in text
        assert text.count("Unknown: ['look']") == 2
        assert len(text) < 2_500

    def test_may_be_billed_where_one_of_them_may(self) -> None:
        refused, cut = _limited("a"), ConnectionError("b")
        assert not may_be_billed(failed(refused, refused))
        assert may_be_billed(failed(cut, refused))
        assert is_model_failure(failed(cut, refused))
