"""Graphs of imports: their circles, the imports that run up, their floors and chains.

A graph maps each node to the nodes that it imports.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

Graph = Mapping[str, AbstractSet[str]]
Edge = tuple[str, str]


def edges(graph: Graph) -> list[Edge]:
    """Return each import as importer and imported, in alphabetical order."""
    return sorted((node, other) for node in graph for other in graph[node])


def reachable(graph: Graph, start: str) -> set[str]:
    """Return what a node imports, directly or not; the node itself only if it is in a circle."""
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(graph[node])
    return found


def circles(graph: Graph) -> list[frozenset[str]]:
    """Return the sets of nodes that import each other, directly or not."""
    reach = {node: reachable(graph, node) for node in graph}
    found = {
        frozenset(other for other in reach[node] if node in reach[other])
        for node in graph
        if node in reach[node]
    }
    return sorted(found, key=sorted)


def imports_up(graph: Graph) -> list[Edge]:
    """Return the fewest imports without which there is no circle.

    Where several sets are equally small, it is the one that leaves the longest chain.
    """
    choices = [_smallest_cuts(_within(graph, circle)) for circle in circles(graph)]
    cuts = [sorted(set().union(*each)) for each in itertools.product(*choices)]
    return max(sorted(cuts), key=lambda cut: max(floors(without(graph, cut)).values(), default=0))


def without(graph: Graph, cut: Iterable[Edge]) -> dict[str, set[str]]:
    """Return the graph without some of its imports."""
    left = {node: set(others) for node, others in graph.items()}
    for node, other in cut:
        left[node].discard(other)
    return left


def floors(graph: Graph) -> dict[str, int]:
    """Return the length of the longest chain that starts at each node of a graph without circles.

    What imports nothing is on floor 1.
    """
    found: dict[str, int] = {}

    def floor(node: str) -> int:
        if node not in found:
            found[node] = 1 + max(map(floor, graph[node]), default=0)
        return found[node]

    for node in graph:
        floor(node)
    return found


def longest_chain(graph: Graph) -> list[str]:
    """Return the longest chain of imports that passes no node twice.

    It tries all ways through a circle, which is quick as long as circles are small.
    """
    circle_of = {node: circle for circle in circles(graph) for node in circle}
    best: dict[str, list[str]] = {}

    def chain(node: str, passed: frozenset[str]) -> list[str]:
        inside = circle_of.get(node, frozenset())
        tails = [
            chain(other, passed | {other}) if other in inside else chain_from(other)
            for other in sorted(graph[node] - passed)
        ]
        return [node, *max(tails, key=len, default=[])]

    def chain_from(node: str) -> list[str]:
        if node not in best:
            best[node] = chain(node, frozenset([node]))
        return best[node]

    return max(map(chain_from, sorted(graph)), key=len, default=[])


def _within(graph: Graph, nodes: AbstractSet[str]) -> dict[str, set[str]]:
    return {node: set(graph[node] & nodes) for node in nodes}


def _smallest_cuts(graph: Graph) -> list[frozenset[Edge]]:
    """Return every smallest set of edges that opens all circles."""
    for size in itertools.count():
        if found := _cuts(graph, size):
            return sorted(found, key=sorted)
    raise AssertionError  # all edges together open every circle


def _cuts(graph: Graph, size: int) -> set[frozenset[Edge]]:
    """Return the sets of up to `size` edges that open all circles.

    Any such set has an edge of the shortest circle.
    """
    circle = _shortest_circle(graph)
    if not circle:
        return {frozenset()}
    if size == 0:
        return set()
    return {rest | {edge} for edge in circle for rest in _cuts(without(graph, [edge]), size - 1)}


def _shortest_circle(graph: Graph) -> list[Edge]:
    found: list[list[Edge]] = []
    for start in sorted(graph):
        ways: dict[str, list[Edge]] = {}
        waiting = deque([start])
        while waiting and start not in ways:
            node = waiting.popleft()
            for other in sorted(graph[node] - ways.keys()):
                ways[other] = [*ways.get(node, []), (node, other)]
                waiting.append(other)
        if start in ways:
            found.append(ways[start])
    return min(found, key=len, default=[])
