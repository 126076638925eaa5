"""Mermaid's own parser reads what is written, and finds each name whole."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings

from pipeline.deploy.graph import mermaid
from pipeline.deploy.graph.model import Cluster, Edge, Graph, Kind, Node
from pipeline.deploy.graph.names import visible
from tests.deploy.graph.packages import MERMAID, Asked, installed
from tests.deploy.graph.strategies import graphs

PROGRAM = """
import { JSDOM } from 'jsdom';
const { window } = new JSDOM('<body></body>');
globalThis.window = window; globalThis.document = window.document;
const mermaid = (await import('mermaid')).default;
mermaid.initialize({ startOnLoad: false });
async function answer(text) {
  try {
    const { db } = await mermaid.mermaidAPI.getDiagramFromText(text);
    return { nodes: [...db.getVertices().values()], edges: db.getEdges(), groups: db.getSubGraphs() };
  } catch (error) { return { error: String(error) }; }
}
"""


@pytest.fixture(scope="module")
def parse() -> Iterator[Asked]:
    asked = Asked(PROGRAM, installed(MERMAID))
    yield asked
    asked.close()


def shown(text: str) -> list[str]:
    """The lines of a label, without the spaces around them: Mermaid keeps its codes in a form of its own until it draws."""
    decoded = re.sub("ﬂ°°(\\d+)¶ß", lambda found: chr(int(found[1])), re.sub("<br */?>", "\0", text))
    assert "ﬂ°" not in decoded
    return [line.replace("\u200b", "").strip() for line in decoded.split("\0")]


def lines_of(node: Node) -> list[str]:
    caption = f"{node.caption}, dead letters" if node.is_dead_letters else node.caption
    lines = [node.name, *([] if node.kind is Kind.HANDLER else [caption]), *node.details]
    return [visible(line).strip() for line in lines]


@pytest.mark.timeout(400)  # the first run installs the parser
def test_the_parser_is_there_and_refuses_what_is_wrong(parse: Asked) -> None:
    assert "error" in parse("flowchart LR\n  a[")  # type: ignore[operator]


@pytest.mark.timeout(400)
@settings(deadline=None, max_examples=150)
@given(graph=graphs())
def test_every_node_edge_and_pipeline_is_read_back_with_its_text(parse: Asked, graph: Graph) -> None:
    read: Any = parse(mermaid.write(graph))

    assert "error" not in read, read
    assert {node["id"]: shown(node["text"]) for node in read["nodes"]} == {
        node.id: lines_of(node) for node in graph.nodes
    }
    assert [(edge["start"], edge["end"]) for edge in read["edges"]] == [(edge.start, edge.end) for edge in graph.edges]
    assert [edge["stroke"] == "dotted" for edge in read["edges"]] == [edge.is_rejects for edge in graph.edges]
    for found, edge in zip(read["edges"], graph.edges, strict=True):
        assert shown(found["text"]) == ([visible(line).strip() for line in edge.details] or [""])
        assert found["labelType"] != "markdown"
    held = {
        cluster.id: (visible(cluster.name).strip(), {node.id for node in graph.nodes if node.cluster == cluster.id})
        for cluster in (graph.clusters if graph.has_clusters else ())
    }
    found_groups = {group["id"]: (shown(group["title"])[0], set(group["nodes"])) for group in read["groups"]}
    assert found_groups == {name: one for name, one in held.items() if one[1] or name in found_groups}


@pytest.mark.timeout(400)
def test_each_kind_has_a_shape_and_each_shape_is_mermaids(parse: Asked) -> None:
    nodes = tuple(Node(id=f"{kind.value}_x", kind=kind, caption="c", name="n") for kind in Kind)
    read: Any = parse(mermaid.write(Graph(clusters=(), nodes=nodes, edges=())))

    shapes = {node["id"].removesuffix("_x"): node["type"] for node in read["nodes"]}
    assert shapes.pop("source") == shapes.pop("sink")  # both a user's own; their captions differ
    assert len(set(shapes.values())) == len(shapes)


def test_no_mark_is_left_that_markdown_reads() -> None:
    """Some versions of Mermaid read every label as Markdown, and then draw "Unsupported markdown" for a list."""
    node = Node(id="x", kind=Kind.MEMORY, caption="- list", name="1. __init__ of a_b", details=("by.shard 1.5", "f()"))
    text = mermaid.write(Graph(clusters=(Cluster(id="p", name="p"),), nodes=(node,), edges=()))

    assert '["1#46; #95;#95;init#95;#95; of a_b<br/>#45; list<br/>by.shard 1.5<br/>f()"]' in text


def test_a_name_with_style_in_it_keeps_its_last_semicolon() -> None:
    """Mermaid cuts the last `;` of a line that reads `style...:...#...;`, so no `:` may stand in a text."""
    nodes = tuple(Node(id=name, kind=Kind.MEMORY, caption="c", name="style: <") for name in "ab")
    text = mermaid.write(Graph(clusters=(), nodes=nodes, edges=(Edge(start="a", end="b", details=("style:#",)),)))

    assert '"style#58; #60;<br/>c"' in text
    assert "style#58;#35;" in text


def test_a_pipeline_runs_from_left_to_right_in_its_box_too() -> None:
    """Mermaid turns a subgraph that no edge leaves, unless it is told not to."""
    clusters = Cluster(id="p", name="p"), Cluster(id="q", name="q")
    assert mermaid.write(Graph(clusters=clusters, nodes=(), edges=())).count("direction LR") == 2


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("a\nb", "a#92;#8203;nb"),  # else a line's end
        ("$$x$$", "#36;#8203;#36;x#36;#8203;#36;"),  # else a formula
        ("fa:fa-car", "fa#58;#8203;fa-car"),  # else an icon
    ],
)
def test_what_mermaid_reads_when_it_draws_is_kept_apart(name: str, written: str) -> None:
    node = Node(id="x", kind=Kind.MEMORY, caption="c", name=name)
    assert f'["{written}<br/>c"]' in mermaid.write(Graph(clusters=(), nodes=(node,), edges=()))
