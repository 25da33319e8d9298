"""Draw a mix as a graph."""

from __future__ import annotations

from typing import Any

from langchain_core.runnables.graph import Graph

from langchain_automix.mix.config import MixConfig
from langchain_automix.types import Decision


def build_graph(
    config: MixConfig, opening: Decision, input_schema: Any, output_schema: Any
) -> Graph:
    """Return the graph of a mix, from the schema of its input to that of its output.

    It contains every path of a query: an answer is checked, and from the router the query goes back
    to the check, on to a later model, or out.
    """
    graph = Graph()
    start = graph.add_node(input_schema)
    if config.prompt is not None:
        graph.add_edge(start, start := graph.add_node(config.prompt))
    first = opening.model_index
    last = first if config.forced is not None else len(config.names) - 1
    nodes = [  # LangChain refuses a chain's graph that has an unreachable node
        graph.add_node(config.answerers[i], id=config.names[i]) for i in range(first, last + 1)
    ]
    graph.add_edge(start, nodes[0])
    if len(nodes) == 1:  # its answer is always kept
        graph.add_edge(nodes[0], graph.add_node(output_schema))
        return graph
    checker = graph.add_node(config.verifier)
    router = graph.add_node(config.router)
    end = graph.add_node(output_schema)
    for node in nodes[:-1]:
        graph.add_edge(node, checker)
    graph.add_edge(nodes[-1], end)  # no model is left to escalate to
    graph.add_edge(checker, router)
    graph.add_edge(router, checker, data="verify", conditional=True)
    for node in nodes[1:]:
        graph.add_edge(router, node, data="escalate", conditional=True)
    graph.add_edge(router, end, data="answer", conditional=True)
    return graph
