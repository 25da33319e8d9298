"""The figures of the package's structure, on graphs and files small enough to count by hand."""

from __future__ import annotations

import pytest

from tests.benchmarks.graphs import circles, floors, imports_up, longest_chain, without
from tests.benchmarks.structure import (
    Source,
    Way,
    imports_of_files,
    imports_of_rooms,
    loop_of,
    ways,
)

GRAPH = {"a": {"b"}, "b": {"c", "d"}, "c": {"b", "e"}, "d": set(), "e": {"d"}}
"""One circle, of b and c."""


def test_a_circle_is_found_and_opened() -> None:
    assert circles(GRAPH) == [frozenset("bc")]
    assert imports_up(GRAPH) == [("c", "b")]  # else there would be a floor less
    assert floors(without(GRAPH, [("c", "b")])) == {"a": 5, "b": 4, "c": 3, "e": 2, "d": 1}


def test_two_circles_with_an_import_in_common_need_one_cut() -> None:
    graph = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": {"a"}}
    assert circles(graph) == [frozenset("abcd")]
    assert imports_up(graph) == [("a", "b")]


def test_a_chain_passes_no_file_twice() -> None:
    assert longest_chain(GRAPH) == ["a", "b", "c", "e", "d"]
    assert longest_chain({"a": {"a"}}) == ["a"]
    assert longest_chain({}) == []


def test_without_circles_nothing_runs_up() -> None:
    assert imports_up({"a": {"b"}, "b": set()}) == []


def test_imports_are_found_wherever_they_stand() -> None:
    in_a_function = "from langchain_automix.low import g\n    import langchain_automix.room.deep"
    files = [
        Source("__init__.py", ""),
        Source("high.py", f"def f():\n    {in_a_function}\n"),
        Source("low.py", "if TYPE_CHECKING:\n    from langchain_automix.room import deep\n"),
        Source("room/__init__.py", "import numpy\n"),
        Source("room/deep.py", "from . import NAME\nfrom .other import x\n"),
        Source("room/other.py", "from langchain_automix import low\n"),
    ]
    assert imports_of_files(files) == {
        "__init__.py": set(),
        "high.py": {"low.py", "room/deep.py"},
        "low.py": {"room/deep.py"},
        "room/__init__.py": set(),
        "room/deep.py": {"room/__init__.py", "room/other.py"},
        "room/other.py": {"low.py"},
    }
    rooms = {"__init__.py": set(), "high.py": {"low.py", "room"}, "low.py": {"room"}}
    assert imports_of_rooms(files) == {**rooms, "room": {"low.py"}}


def test_a_function_is_counted_without_its_decorators() -> None:
    [found] = Source("a.py", "@x\n@y\ndef f():\n    return 1\n").functions()
    assert found == (2, "a.py:f")


def test_a_way_counts_stays_and_climbs() -> None:
    entered = ("mix/a.py", "f"), ("mix/a.py", "g"), ("low.py", "f"), ("mix/b.py", "f")
    way = Way.of(dict.fromkeys(entered))
    assert way.stays == ("mix/a.py", "low.py", "mix/b.py")
    assert way.changes_of_room() == 2
    assert way.climbs({"mix": 2, "low.py": 1}) == 1
    assert way.climbs_by_file({"mix/a.py": 3, "low.py": 1, "mix/b.py": 2}) == 1


def test_the_way_of_a_query_is_the_same_each_time() -> None:
    loop, whole = ways()
    assert (loop, whole) == ways()
    assert set(loop.stays) < set(whole.stays)


def test_a_loop_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loop_of().co_flags & 0x20  # a generator
    monkeypatch.setattr("tests.benchmarks.structure.LOOPS", ("langchain_automix.nowhere.loop",))
    with pytest.raises(LookupError, match="nowhere"):
        loop_of()
