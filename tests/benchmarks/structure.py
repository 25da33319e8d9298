"""How the package is built, in figures: rooms, floors, circles, sizes, and the way of one query.

A *room* is a file or folder directly under the package. Every import statement counts, wherever
it stands: at the top of a file, in a function, or for the type checker only. Nothing here names
a file of the package but `LOOPS` and `ENGINE`, so that two versions of it can be compared.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

from langchain_core.prompts import ChatPromptTemplate

import langchain_automix
from langchain_automix import AutoMixRunnable, SelfVerifier, ThresholdRouter
from tests.benchmarks.answering import HARD
from tests.benchmarks.by_hand import Instant
from tests.benchmarks.graphs import (
    Graph,
    circles,
    edges,
    floors,
    imports_up,
    longest_chain,
    without,
)

PACKAGE = Path(langchain_automix.__file__).parent
LOOPS = ("langchain_automix.mix.loop", "langchain_automix._mix")
"""Modules that may hold the loop of a query: the first that is there does."""

ENGINE = ("flow/", "_flow.py", "_drivers.py", "_deadline.py", "_flowing.py")
"""What carries out a flow: a folder, or files, as far as they are there."""

FILE_LIMIT, FUNCTION_LIMIT = 400, 40

WAY = (
    "rooms entered",
    "changes of room",
    "stays in files",
    "distinct files",
    "climbs to a room on a higher floor",
    "climbs to a file on a higher floor",
)
"""What is counted of the way of a query."""

Row = tuple[str, int]
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One file of Python."""

    path: str
    """From the package on, as `policy/log.py`."""

    text: str

    @property
    def lines(self) -> int:
        """The lines of the file, the empty ones too."""
        return self.text.count("\n")

    @property
    def room(self) -> str:
        """The file or folder directly under the package in which it stands."""
        return self.path.split("/")[0]

    @property
    def module(self) -> str:
        """Its dotted name."""
        dotted = self.path.removesuffix(".py").replace("/", ".")
        return f"{PACKAGE.name}.{dotted}".removesuffix(".__init__")

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.text)

    def functions(self) -> Iterator[tuple[int, str]]:
        """Yield the lines and the name of each function, decorators left out."""
        for node in ast.walk(self.tree):
            if isinstance(node, Function):
                assert node.end_lineno is not None
                yield node.end_lineno - node.lineno + 1, f"{self.path}:{node.name}"


def sources(package: Path = PACKAGE) -> list[Source]:
    """Read all Python files of a package."""
    paths = sorted(package.rglob("*.py"))
    return [Source(path.relative_to(package).as_posix(), path.read_text("utf-8")) for path in paths]


def imports_of_files(files: Sequence[Source]) -> dict[str, set[str]]:
    """Return the graph of imports, file by file."""
    paths = {file.module: file.path for file in files}
    return {file.path: set(_imported(file, paths)) - {file.path} for file in files}


def imports_of_rooms(files: Sequence[Source]) -> dict[str, set[str]]:
    """Return the graph of imports, room by room."""
    room_of = {file.path: file.room for file in files}
    graph: dict[str, set[str]] = {file.room: set() for file in files}
    for importer, imported in edges(imports_of_files(files)):
        graph[room_of[importer]].add(room_of[imported])
    return {room: others - {room} for room, others in graph.items()}


def _imported(file: Source, paths: Mapping[str, str]) -> Iterator[str]:
    """Yield the path of each file of the package that a file imports."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(file, node)
            modules = (f"{base}.{alias.name}" for alias in node.names)
            names = [module if module in paths else base for module in modules]
        else:
            continue
        yield from (paths[name] for name in names if name in paths)


def _absolute(file: Source, node: ast.ImportFrom) -> str:
    """Return the dotted name from which a statement imports."""
    if not node.level:
        return node.module or ""
    folder = file.module if file.path.endswith("__init__.py") else file.module.rpartition(".")[0]
    return importlib.util.resolve_name("." * node.level + (node.module or ""), folder)


def query() -> Callable[[], object]:
    """Return one query that uses most of the mix: a prompt, a deadline, a check, an escalation."""
    automix = AutoMixRunnable.from_models(
        Instant(name_of_model="small"),
        Instant(name_of_model="large"),
        verifier=SelfVerifier(samples=4),
        router=ThresholdRouter(threshold=0.5),
        prompt=ChatPromptTemplate.from_template("{context} {question}"),
        max_latency=60.0,
    )
    question = {"question": f"Where was the Halcyon built? {HARD}", "context": "It is a ship."}

    def ask() -> object:
        message = automix.invoke(question)
        assert message.response_metadata["automix"]["escalated"]
        return message

    return ask


def loop_of(name: str | None = None) -> CodeType:
    """Return the function that takes a query from its input to its answer.

    Args:
        name: As `package.module:Class.method`. None: the first public generator function of the
            module that holds the loop.

    Raises:
        LookupError: No such module is there, or no such function is in it.
    """
    if name is not None:
        home, _, path = name.partition(":")
        function: Any = importlib.import_module(home)
        for part in path.split("."):
            function = getattr(function, part)
        code: CodeType = function.__code__
        return code
    module = next(filter(_is_there, LOOPS), None)
    if module is None:
        raise LookupError(f"None of these modules is there: {', '.join(LOOPS)}")
    for each in _public_functions(module):
        if inspect.isgeneratorfunction(each):
            return each.__code__
    raise LookupError(f"{module} has no public generator function.")


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # nor is its parent
        return False


def _public_functions(module: str) -> Iterator[FunctionType]:
    """Yield the functions and methods that a module defines, from top to bottom."""
    for name, value in vars(importlib.import_module(module)).items():
        if getattr(value, "__module__", None) == module:
            members = vars(value) if isinstance(value, type) else {name: value}
            for member, function in members.items():
                if isinstance(function, FunctionType) and not member.startswith("_"):
                    yield function


class Tracer:
    """Notes the functions of the package in the order in which they are first entered."""

    def __init__(self, package: Path, loop: CodeType) -> None:
        self._folder = f"{package}/"
        self._loop = loop
        self._depth = 0
        self.whole_way: dict[tuple[str, str], None] = {}
        """Each function as its file and name, from the query's input to its answer."""

        self.loop: dict[tuple[str, str], None] = {}
        """Those of them that the loop calls, directly or not, and the loop itself."""

    def run(self, work: Callable[[], object]) -> None:
        """Do some work, in whatever threads, and note what it enters."""
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        try:
            work()
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def _note(self, frame: FrameType, event: str, _arg: object) -> None:
        code = frame.f_code
        if code is self._loop and event in {"call", "return"}:
            self._depth += 1 if event == "call" else -1
        if event != "call" or code.co_name.startswith("<"):  # comprehensions have no name
            return
        if code.co_filename.startswith(self._folder):
            entered = code.co_filename.removeprefix(self._folder), code.co_qualname
            self.whole_way.setdefault(entered)
            if self._depth:
                self.loop.setdefault(entered)


@dataclass(frozen=True)
class Way:
    """The way of a query from file to file.

    A reader who follows the query reads each named function once, where it is first entered;
    comprehensions and lambdas belong to the function around them, and what dataclasses generate
    to nobody. Functions of one file in a row are one stay. That a function returns to another file
    is no stay: the next function that is new is.
    """

    stays: tuple[str, ...]
    """The file of each stay."""

    @classmethod
    def of(cls, functions: Mapping[tuple[str, str], None]) -> Way:
        """Return the way through functions in the order in which they were entered."""
        return cls(tuple(path for path, _ in groupby(path for path, _ in functions)))

    @property
    def rooms(self) -> list[str]:
        """The room of each stay."""
        return [path.split("/")[0] for path in self.stays]

    def changes_of_room(self) -> int:
        """Count the stays that are in another room than the one before."""
        return sum(room != other for room, other in pairwise(self.rooms))

    def climbs(self, floor_of: Mapping[str, int]) -> int:
        """Count the stays that are in a room on a higher floor than the one before."""
        return sum(floor_of[other] > floor_of[room] for room, other in pairwise(self.rooms))

    def climbs_by_file(self, floor_of: Mapping[str, int]) -> int:
        """Count the stays that are in a file with a longer chain of imports below it."""
        return sum(floor_of[other] > floor_of[path] for path, other in pairwise(self.stays))


def floors_of(graph: Graph) -> dict[str, int]:
    """Return the floor of each node, imports that run up left out."""
    return floors(without(graph, imports_up(graph)))


def ways(loop: str | None = None) -> tuple[Way, Way]:
    """Return the way of one query through the loop, and from its input to its answer.

    The query has been asked before: what a mix prepares once is not in it.
    """
    ask = query()
    ask()
    tracer = Tracer(PACKAGE, loop_of(loop))
    tracer.run(ask)
    return Way.of(tracer.loop), Way.of(tracer.whole_way)


def of_imports(files: Sequence[Source]) -> Iterator[Row]:
    """Yield rooms, floors, circles and chains."""
    by_room, by_file = imports_of_rooms(files), imports_of_files(files)
    up = imports_up(by_room)
    yield "rooms directly under the package", len(by_room)
    yield "floors", max(floors(without(by_room, up)).values())
    yield "imports between rooms", len(edges(by_room))
    yield "imports from a lower floor up", len(up)
    yield "circles of files", len(circles(by_file))
    yield "longest chain of imports, file by file", len(longest_chain(by_file))


def of_sizes(files: Sequence[Source]) -> Iterator[Row]:
    """Yield lines, files and functions."""
    functions = [length for file in files for length, _ in file.functions()]
    yield "lines of Python", sum(file.lines for file in files)
    yield "files of Python", len(files)
    yield "longest file, in lines", max(file.lines for file in files)
    yield f"files of more than {FILE_LIMIT} lines", sum(file.lines > FILE_LIMIT for file in files)
    yield "functions", len(functions)
    yield "longest function, in lines", max(functions)
    over = sum(length > FUNCTION_LIMIT for length in functions)
    yield f"functions of more than {FUNCTION_LIMIT} lines", over
    engine = [file for file in files if file.path.startswith(ENGINE)]
    yield "lines of the flow engine", sum(file.lines for file in engine)


def of_way(way: Way, files: Sequence[Source]) -> Iterator[int]:
    """Yield the figures of one way, in the order of `WAY`."""
    yield len(set(way.rooms))
    yield way.changes_of_room()
    yield len(way.stays)
    yield len(set(way.stays))
    yield way.climbs(floors_of(imports_of_rooms(files)))
    yield way.climbs_by_file(floors_of(imports_of_files(files)))


def named(files: Sequence[Source], way: Way) -> Iterator[tuple[str, str]]:
    """Yield the names of what the figures count."""
    by_room, by_file = imports_of_rooms(files), imports_of_files(files)
    for edge in imports_up(by_room):
        yield "import from a lower floor up", " -> ".join(edge)
    for circle in circles(by_file):
        yield "circle of files", ", ".join(sorted(circle))
    yield "longest file", max((file.lines, file.path) for file in files)[1]
    yield "longest function", max(each for file in files for each in file.functions())[1]
    for room in sorted(set(way.rooms)):
        yield "room that the loop enters", room


def tables(loop: str | None = None) -> Iterator[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """Yield the heads and the rows of each table.

    Args:
        loop: The function to follow a query through, as `package.module:Class.method`; None: it
            is looked for.
    """
    files = sources()
    figures = [*of_imports(files), *of_sizes(files)]
    yield ("structure", "figure"), [(name, f"{count:,}") for name, count in figures]
    both = ways(loop)
    counts = zip(WAY, *(of_way(way, files) for way in both), strict=True)
    heads = ("the way of one query", "in the loop", "from input to answer")
    yield heads, [(name, *map(str, each)) for name, *each in counts]
    yield ("structure", "which"), list(named(files, both[0]))
