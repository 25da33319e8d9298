"""The mix drawn as a graph."""

from __future__ import annotations

from typing import Any

from langchain_core.runnables.graph import Graph

from langchain_automix.mix.loop import QueryLoop


def build_graph(mix: QueryLoop, given: Any, made: Any) -> Graph:
    """Return the graph of a mix, from the schema of its input to that of its output.

    The ways that a query can take are in it: an answer is checked, and from the router it goes
    back to the check, on to a later model, or out.
    """
    graph = Graph()
    start = graph.add_node(given)
    if mix.prompt is not None:
        graph.add_edge(start, start := graph.add_node(mix.prompt))
    opening = mix.opening().model_index
    last = opening if mix.forced is not None else len(mix.names) - 1
    nodes = [  # a node without a way to it would make LangChain refuse a chain's graph
        graph.add_node(mix.answerers[i], id=mix.names[i]) for i in range(opening, last + 1)
    ]
    graph.add_edge(start, nodes[0])
    if len(nodes) == 1:  # its answer is kept, whatever it is
        graph.add_edge(nodes[0], graph.add_node(made))
        return graph
    checker = graph.add_node(mix.verifier)
    router = graph.add_node(mix.router)
    end = graph.add_node(made)
    for node in nodes[:-1]:
        graph.add_edge(node, checker)
    graph.add_edge(nodes[-1], end)  # there is nowhere to go from the last model
    graph.add_edge(checker, router)
    graph.add_edge(router, checker, data="verify", conditional=True)
    for node in nodes[1:]:
        graph.add_edge(router, node, data="escalate", conditional=True)
    graph.add_edge(router, end, data="answer", conditional=True)
    return graph
