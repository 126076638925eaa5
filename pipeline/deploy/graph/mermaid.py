"""The graph as a Mermaid flowchart, which GitHub and many editors draw."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pipeline.deploy.graph.model import Edge, Graph, Kind, Node
from pipeline.deploy.graph.names import visible

#: What stands around a node's text, which makes its shape.
_SHAPES = {
    Kind.HANDLER: ("(", ")"),
    Kind.QUEUE: ("([", "])"),
    Kind.FIFO: ("[[", "]]"),
    Kind.STREAM: ("[/", "/]"),
    Kind.TABLE: ("[(", ")]"),
    Kind.BUS: ("{{", "}}"),
    Kind.BUCKET: ("[\\", "/]"),
    Kind.FILE: (">", "]"),
    Kind.MEMORY: ("[", "]"),
    Kind.SOURCE: ("[/", "\\]"),
    Kind.SINK: ("[/", "\\]"),
}
#: Characters that mean nothing to Mermaid, Markdown or HTML. Not `:`, beside which a `;` gets lost.
_PLAIN = frozenset(" ,.-_/()+=")
#: What Mermaid reads in a text that it draws, its codes resolved: a line's end, a formula, an icon's name. A space without
#: width in it keeps it text.
_READ_WHEN_DRAWN = re.compile(r"(\\(?=n)|\$(?=\$)|\bfa[bklrs]?:(?=fa-))")
#: Strong enough to be read on both GitHub's light page and its dark one.
_STYLES = (
    "  classDef handler fill:#0a5bc4,stroke:#0a5bc4,color:#ffffff",
    "  classDef rejects stroke:#d1383d,stroke-width:2px,stroke-dasharray:5 4",
)


def write(graph: Graph) -> str:
    """The text of a `flowchart LR`. Whatever a name holds is shown, and never read as Mermaid or HTML."""
    lines = ["flowchart LR"]
    for cluster in graph.clusters if graph.has_clusters else ():
        lines.append(f"  subgraph {cluster.id}[{_text([cluster.name])}]")
        lines.append("    direction LR")  # without it, a pipeline that shares nothing would run downwards
        lines += [f"    {_node(node)}" for node in graph.nodes if node.cluster == cluster.id]
        lines.append("  end")
    lines += [f"  {_node(node)}" for node in graph.nodes if node.cluster is None or not graph.has_clusters]
    lines += [f"  {_edge(edge)}" for edge in graph.edges]
    return "\n".join([*lines, *_STYLES]) + "\n"


def _node(node: Node) -> str:
    before, after = _SHAPES[node.kind]
    shown = () if node.kind is Kind.HANDLER else (node.label,)
    text = _text((node.name, *shown, *node.details))
    style = ":::handler" if node.kind is Kind.HANDLER else ":::rejects" if node.is_dead_letters else ""
    return f"{node.id}{before}{text}{after}{style}"


def _edge(edge: Edge) -> str:
    arrow = "-.->" if edge.is_rejects else "-->"
    text = f"|{_text(edge.details)}|" if edge.details else ""
    return f"{edge.start} {arrow}{text} {edge.end}"


def _text(lines: Iterable[str]) -> str:
    """A quoted text; the parser takes no empty one."""
    return '"' + ("<br/>".join(map(_escaped, lines)) or "#160;") + '"'


def _escaped(text: str) -> str:
    """A text with Mermaid's character codes, `#34;`, for all that Mermaid, HTML or Markdown could read as its own.

    Some versions read every label as Markdown: so a mark is plain only where it can begin no list and no emphasis.
    """
    shown = _READ_WHEN_DRAWN.sub("\\1\u200b", visible(text))
    padded = f" {shown} "
    return "".join(
        c if c.isalnum() or (c in _PLAIN and _is_plain(*padded[at : at + 3], at_start=at == 0)) else f"#{ord(c)};"
        for at, c in enumerate(shown)
    )


def _is_plain(before: str, mark: str, after: str, *, at_start: bool) -> bool:
    if at_start:
        return False
    if mark == "_":
        return before.isalnum() and after.isalnum()
    return mark not in ".)" or after.isalnum() or not before.isdigit()
