"""The graph in Graphviz's language, DOT."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.deploy.graph.model import Edge, Graph, Kind, Node
from pipeline.deploy.graph.names import visible

_SHAPES = {
    Kind.HANDLER: 'shape=box style=filled fillcolor="#0a5bc4" color="#0a5bc4" fontcolor="#ffffff"',
    Kind.QUEUE: "shape=cds",
    Kind.FIFO: "shape=cds peripheries=2",
    Kind.STREAM: "shape=parallelogram",
    Kind.TABLE: "shape=cylinder",
    Kind.BUS: "shape=hexagon",
    Kind.BUCKET: "shape=invtrapezium",
    Kind.FILE: "shape=note",
    Kind.MEMORY: "shape=box",
    Kind.SOURCE: "shape=component",
    Kind.SINK: "shape=component",
}  # fmt: skip
_REJECTS = 'style=dashed color="#d1383d"'


def write(graph: Graph) -> str:
    """The text of a `digraph`. Whatever a name holds is shown, and never read as DOT or HTML."""
    lines = [
        "digraph pipelines {",
        "  rankdir=LR",
        '  node [fontname="Helvetica,Arial,sans-serif" fontsize=11]',
        '  edge [fontname="Helvetica,Arial,sans-serif" fontsize=9]',
    ]
    for cluster in graph.clusters if graph.has_clusters else ():
        # Only a subgraph whose name begins so is drawn as a box.
        lines += [f"  subgraph cluster_{cluster.id} {{", f"    label={_text([cluster.name])}"]
        lines += [f"    {_node(node)}" for node in graph.nodes if node.cluster == cluster.id]
        lines.append("  }")
    lines += [f"  {_node(node)}" for node in graph.nodes if node.cluster is None or not graph.has_clusters]
    lines += [f"  {_edge(edge)}" for edge in graph.edges]
    return "\n".join([*lines, "}"]) + "\n"


def _node(node: Node) -> str:
    shown = () if node.kind is Kind.HANDLER else (node.label,)
    look = f"{_SHAPES[node.kind]} {_REJECTS}" if node.is_dead_letters else _SHAPES[node.kind]
    return f"{node.id} [label={_text((node.name, *shown, *node.details))} {look}]"


def _edge(edge: Edge) -> str:
    options = [f"label={_text(edge.details)}"] if edge.details else []
    options += [_REJECTS] if edge.is_rejects else []
    return f"{edge.start} -> {edge.end}" + (f" [{' '.join(options)}]" if options else "")


def _text(lines: Iterable[str]) -> str:
    """A quoted string. Labels read backslashes, and entities such as `&lt;`, as other characters.

    An empty line is a space: Graphviz 16.1, as WebAssembly, breaks on labels that begin with an empty one.
    """
    escaped = [visible(line).replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"') for line in lines]
    return '"' + "\\n".join(line or " " for line in escaped) + '"'
