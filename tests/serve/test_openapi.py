"""The served OpenAPI document is true: schemathesis finds no case that gets another answer.

By hand, with many more cases than CI has time for:

    AUTOMIX_FUZZ_CASES=2000 python -m pytest tests/serve/test_openapi.py
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from langchain_automix.serve.app import create_app
from tests.support.builders.waiting import LONG
from tests.support.servers.openai_server import OpenAIServer
from tests.support.servers.serving import MIX, Served, chat_mix

CASES = int(os.environ.get("AUTOMIX_FUZZ_CASES", "60"))
HOLDS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
_OFTEN = st.sampled_from([True, True, True, False])
ASKED = [{"role": "user", "content": "Who built it?"}]
MODES = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
OPERATIONS = [
    ("/v1/chat/completions", "POST"),
    ("/v1/feedback", "POST"),
    ("/v1/models", "GET"),
    ("/v1/models/{name}", "GET"),
]


def described() -> Any:
    """The document as schemathesis reads it."""
    with OpenAIServer() as provider:
        document = create_app({MIX: chat_mix(provider)}).openapi()
    return schemathesis.openapi.from_dict(document)


def of_the_mix(case: Any, *, is_known: bool, is_asked: bool) -> None:
    """Have a case ask a mix that there is, and perhaps something that can be answered."""
    if isinstance(case.body, dict) and is_known:
        case.body["model"] = MIX
        if is_asked:
            case.body["messages"] = ASKED


def test_every_operation_is_tried() -> None:
    found = {
        (each.ok().path, each.ok().method.upper()) for each in described().get_all_operations()
    }
    assert found == set(OPERATIONS)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_the_document_holds(
    running: Served, provider: OpenAIServer, path: str, method: str, mode: Any
) -> None:
    # Half of all cases are of what is most to be asked.
    share = 4 if path == OPERATIONS[0][0] else 12
    strategy = described()[path][method].as_strategy(generation_mode=mode)

    @settings(
        max_examples=max(1, CASES // share),
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy, is_known=_OFTEN, is_asked=st.booleans())
    def holds(case: Any, is_known: bool, is_asked: bool) -> None:
        if path == OPERATIONS[0][0]:
            of_the_mix(case, is_known=is_known, is_asked=is_asked)
        response = case.call(base_url=running.root_url, timeout=LONG)
        seen.append(response.status_code)
        case.validate_response(response, checks=HOLDS)

    seen: list[int] = []
    holds()
    assert seen
    print(path, mode.value, {status: seen.count(status) for status in sorted(set(seen))})  # noqa: T201
