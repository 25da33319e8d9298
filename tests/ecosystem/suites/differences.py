"""Sort what fails with a mix and not without: measured where it can be, else by a table."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from tests.ecosystem.suites.running import Outcome, Suite, run

KINDS = {
    "record": "compares whole messages; all that differs is the mix's record in them (tried)",
    "not each time": "passes when it is run again, by itself (tried)",
    "counts": "counts chunks or events: a draft is told in one piece once it is accepted",
    "names": "compares the model itself, or the name of its class or of an error's",
    "fakes": "uses what its fake alone has: a field, a method it overrides, fewer arguments",
    "answers": "expects no answer, or one that cannot be used, where the mix has another model's",
    "middleware": "has another middleware choose the model: the mix asks its own instead",
}


class Known(NamedTuple):
    """Tests whose difference was looked into."""

    suite: str
    test: str  # a regular expression, found in the test's id
    kind: str
    why: str


KNOWN = (
    Known(
        "langchain",
        r"test_internal_whole_message_excluded_from_raw_event_log",
        "counts",
        "an accepted draft is told as protocol events, not as one whole message",
    ),
    Known(
        "langchain",
        r"test_model_retry_custom_failure_formatter",
        "names",
        "type(error).__name__ of a ModelsFailedError, which is a ValueError, too",
    ),
    Known(
        "langchain",
        r"test_summarization_middleware_initialization",
        "names",
        "middleware.model == model",
    ),
    Known(
        "langchain",
        r"test_create_summary_preserves_image_urls",
        "fakes",
        "its fake overrides invoke() and keeps what that was given: a text; a mix asks in messages",
    ),
    Known(
        "langchain",
        r"test_summarization_middleware_summary_creation",
        "fakes",
        "its fakes override invoke(), so that our model beside them cannot raise what they raise",
    ),
    Known(
        "langchain",
        r"test_create_agent_answers_invalid_tool_calls_(async|on_next_turn)",
        "answers",
        "a larger model's call that is no JSON comes after a rejected draft that fits (Failures)",
    ),
    Known(
        "langchain",
        r"test_model_(fallback|refusal|router)\.py|test_middleware_model_swap_provider",
        "middleware",
        "it goes before the mix, whose models answer instead (AutoMixMiddleware says so)",
    ),
    Known(
        "langgraph-prebuilt",
        r"with_structured_(output|response)",
        "fakes",
        "with_structured_output() of its fake has no include_raw",
    ),
    Known(
        "langgraph",
        r"test_state_graph_packets",
        "fakes",
        "it sets its fake's field `i` on the model",
    ),
    Known(
        "langgraph",
        r"test_subgraph_streaming_a?sync|test_stream_namespaces\.py",
        "counts",
        "its fake streams word by word; a draft is told in one piece",
    ),
    Known("langgraph", r"test_trace_policy\.py", "names", "the name of the model's run"),
)


class Difference(NamedTuple):
    """A test that does not do with a mix what it does without."""

    test: str
    kind: str  # one of `KINDS`; empty: nobody looked into it yet
    why: str


def differences(
    suite: Suite,
    way: str,
    bare: Outcome,
    mixed: Outcome,
    rerun: Callable[..., Outcome] = run,
) -> list[Difference]:
    """Return what fails with a mix and not without, and what was not run with it, with its kind.

    Args:
        suite: The suite.
        way: The way in which the mix was put in.
        bare: The run without a mix.
        mixed: The run with it.
        rerun: Runs chosen tests of the suite once more.
    """
    found: dict[str, Difference] = {}
    left = {test: why for test, why in mixed.failed.items() if test not in bare.failed}
    for kind, ignoring in (("not each time", False), ("record", True)):
        if left:
            again = rerun(suite, way, chosen=sorted(left), ignoring=ignoring)
            found |= {test: Difference(test, kind, "") for test in again.passed & left.keys()}
            left = {test: why for test, why in left.items() if test not in again.passed}
    found |= {test: _looked_up(suite.name, test, why) for test, why in left.items()}
    unseen = bare.passed - mixed.passed - mixed.failed.keys()
    if not mixed.problem:  # else that it stopped is said once
        found |= {test: Difference(test, "", "it was not run") for test in unseen}
    return [found[test] for test in sorted(found)]


def _looked_up(suite: str, test: str, error: str) -> Difference:
    for known in KNOWN:
        if known.suite == suite and re.search(known.test, test):
            return Difference(test, known.kind, known.why)
    return Difference(test, "", error)


def by_kind(found: list[Difference]) -> Mapping[str, list[Difference]]:
    """Return differences by their kind, the unexplained ones (an empty kind) last."""
    kinds = [*KINDS, ""]
    sorted_ = {kind: [each for each in found if each.kind == kind] for kind in kinds}
    return {kind: those for kind, those in sorted_.items() if those}
