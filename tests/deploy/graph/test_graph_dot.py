"""Graphviz itself reads and draws what is written, and shows each name whole."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings

from pipeline.deploy.graph import dot
from pipeline.deploy.graph.model import Graph
from pipeline.deploy.graph.names import visible
from tests.deploy.graph.packages import GRAPHVIZ, Asked, installed
from tests.deploy.graph.strategies import graphs
from tests.deploy.graph.test_graph_mermaid import lines_of

PROGRAM = """
import { instance } from '@viz-js/viz';
let viz = await instance();
async function answer([text, engine]) {
  try {
    const { status, output, errors } = viz.render(text, { format: 'svg', engine });
    return { status, output, errors: errors.filter(one => one.level !== 'warning') };
  } catch (error) {
    viz = await instance();  // what crashed answers nothing more
    return { status: 'crash', errors: [String(error)] }; }
}
"""
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def draw() -> Iterator[Asked]:
    asked = Asked(PROGRAM, installed(GRAPHVIZ))
    yield asked
    asked.close()


def drawn(svg: str, kind: str) -> list[tuple[str, list[str]]]:
    """Title and texts of each node, edge or cluster. Graphviz writes no empty text, spaces that do not break, and trims a line."""
    groups = [
        group
        for group in ET.fromstring(svg).iter(f"{SVG}g")  # noqa: S314 - our own
        if group.get("class") == kind
    ]
    return [
        (group.findtext(f"{SVG}title") or "", spaced([text.text or "" for text in group.findall(f".//{SVG}text")]))
        for group in groups
    ]


def spaced(lines: list[str]) -> list[str]:
    return [line.replace("\xa0", " ").strip() for line in lines if line.strip()]


@pytest.mark.timeout(400)  # the first run installs Graphviz
def test_graphviz_is_there_and_refuses_what_is_wrong(draw: Asked) -> None:
    read: Any = draw(["digraph { a [", "dot"])
    assert read["status"] == "failure"


@pytest.mark.timeout(400)
@settings(deadline=None, max_examples=100)
@given(graph=graphs())
def test_every_node_edge_and_pipeline_is_drawn_with_its_text(draw: Asked, graph: Graph) -> None:
    read: Any = draw([dot.write(graph), "dot"])

    assert (read["status"], read["errors"]) == ("success", [])
    assert dict(drawn(read["output"], "node")) == {node.id: spaced(lines_of(node)) for node in graph.nodes}
    assert sorted(drawn(read["output"], "edge")) == sorted(
        (f"{edge.start}->{edge.end}", spaced([visible(line) for line in edge.details])) for edge in graph.edges
    )
    for name, texts in drawn(read["output"], "cluster"):
        (cluster,) = [one for one in graph.clusters if name == f"cluster_{one.id}"]
        assert texts == spaced([visible(cluster.name)])
