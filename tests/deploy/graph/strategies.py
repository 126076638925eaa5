"""Graphs that no pipeline would have, with names that no one would give."""

from __future__ import annotations

from hypothesis import strategies as st

from pipeline.deploy.graph.model import Cluster, Edge, Graph, Kind, Node
from pipeline.deploy.graph.names import Ids

#: Text that means something to Mermaid, Markdown, DOT, HTML, XML or a terminal, beside any other.
ODD = st.sampled_from(
    [
        *(
            '"',
            "]",
            '"]',
            "end",
            "`code`",
            "<b>bold</b>",
            "&lt;",
            "#quot;",
            "#35;",
            "\\n",
            "\\",
            "a\nb",
            "\x1b[31m",
            "%%x",
        ),
        *("subgraph", "1. one", "1.", "- list", "__init__", "_it_", "**", "-->", "|", "{}", "style:#x;", "style a:#1;"),
        *(
            " ",
            "",
            "üñ→",
            "漢字",
            "\ud800",
            "\u202e",
            "🙂",
            "]]>",
            "<!--",
            "$$x$$",
            "fa:fa-car",
            "\\N",
            "@{shape: x}",
            "x" * 300,
        ),
    ]
)
NAMES = ODD | st.text(max_size=20) | st.lists(ODD, max_size=3).map("".join)
DETAILS = st.lists(NAMES, max_size=3).map(tuple)
RESOURCES = [kind for kind in Kind if kind is not Kind.HANDLER]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Handlers and resources with any edges between them: loops, several of a pair, and nodes that none joins."""
    ids = Ids()
    clusters = tuple(
        Cluster(id=ids.new("pipeline", name), name=name) for name in draw(st.lists(NAMES, min_size=1, max_size=3))
    )
    nodes = []
    for at in range(draw(st.integers(1, 12))):
        kind = Kind.HANDLER if at % 2 == 0 else draw(st.sampled_from(RESOURCES))
        name = draw(NAMES)
        nodes.append(
            Node(
                id=ids.new(kind.value, name),
                kind=kind,
                caption="handler" if kind is Kind.HANDLER else draw(NAMES),
                name=name,
                details=draw(DETAILS),
                cluster=draw(
                    st.sampled_from([*(one.id for one in clusters), *([] if kind is Kind.HANDLER else [None])])
                ),
                is_dead_letters=kind is Kind.QUEUE and draw(st.booleans()),
            )
        )
    handlers = [node for node in nodes if node.kind is Kind.HANDLER]
    others = [node for node in nodes if node.kind is not Kind.HANDLER]
    edges = []
    for _ in range(draw(st.integers(0, 20)) if others else 0):
        ends = draw(st.sampled_from(handlers)).id, draw(st.sampled_from(others)).id
        start, end = ends if draw(st.booleans()) else reversed(ends)
        edges.append(Edge(start=start, end=end, details=draw(DETAILS), is_rejects=draw(st.booleans())))
    return Graph(clusters=clusters, nodes=tuple(nodes), edges=tuple(edges))
