"""The SVG is well formed, holds every text, and its boxes, labels and lines keep out of each other's way."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.deploy.graph import shapes, svg
from pipeline.deploy.graph.layout import Area, Box, Layout, Line, layout
from pipeline.deploy.graph.model import Cluster, Edge, Graph, Kind, Node
from pipeline.deploy.graph.names import visible
from tests.deploy.graph.strategies import graphs

SVG = "{http://www.w3.org/2000/svg}"


@st.composite
def drawings(draw: st.DrawFn) -> tuple[list[Box], list[Line]]:
    size = st.integers(1, 300).map(float)
    names = [f"b{at}" for at in range(draw(st.integers(1, 12)))]
    boxes = [Box(id=name, width=draw(size), height=draw(size), band=draw(st.integers(0, 3))) for name in names]
    ends = st.tuples(st.sampled_from(names), st.sampled_from(names)).filter(lambda pair: pair[0] != pair[1])
    pairs = draw(st.lists(ends, max_size=25)) if len(names) > 1 else []
    label = st.just((0.0, 0.0)) | st.tuples(size, size)
    lines = [
        Line(start=start, end=end, width=width, height=height, label_at_end=draw(st.booleans()))
        for start, end in pairs
        for width, height in [draw(label)]
    ]
    return boxes, lines


def overlap(one: Area, other: Area) -> bool:
    """By more than the rounding of a tenth."""
    wide = min(one.right, other.right) - max(one.x, other.x)
    high = min(one.bottom, other.bottom) - max(one.y, other.y)
    return wide > 0.2 and high > 0.2


def crosses(area: Area, x: float, y: float) -> bool:
    return area.x + 0.2 < x < area.right - 0.2 and area.y + 0.2 < y < area.bottom - 0.2


def check(placed: Layout, boxes: list[Box], lines: list[Line]) -> None:
    labels = [route.label for route in placed.routes if route.label is not None]
    assert len(labels) == sum(line.height > 0 for line in lines)
    for one, other in itertools.combinations([*placed.boxes.values(), *labels], 2):
        assert not overlap(one, other)
    for box in boxes:
        area = placed.boxes[box.id]
        assert area.width >= box.width
        assert area.height >= box.height - 0.2
        assert area.x >= -0.2
        assert area.right <= placed.width + 0.2
        assert area.y >= -0.2
        assert area.bottom <= placed.height + 0.2
    for route, line in zip(placed.routes, lines, strict=True):
        start, end = placed.boxes[line.start], placed.boxes[line.end]
        sides = (start.x, end.right) if route.is_turned else (start.right, end.x)
        assert (route.points[0][0], route.points[-1][0]) == pytest.approx(sides)
        assert start.y < route.points[0][1] < start.bottom
        assert end.y < route.points[-1][1] < end.bottom
        # Between columns a line curves; in one it is level, and meets no box.
        ways = [
            points if points[0] < points[1] else points[::-1]
            for points in itertools.pairwise(x for x, _ in route.points)
        ]
        assert all(left <= right for left, right in ways)
        for (x, y), (next_x, next_y) in list(itertools.pairwise(route.points))[1::2]:
            assert y == next_y
            assert not any(crosses(area, (x + next_x) / 2, y) for area in placed.boxes.values())


@settings(deadline=None, max_examples=200)
@given(drawing=drawings())
def test_no_two_boxes_or_labels_overlap_and_every_line_ends_at_its_boxes(drawing: tuple[list[Box], list[Line]]) -> None:
    boxes, lines = drawing
    check(layout(boxes, lines), boxes, lines)


@settings(deadline=None, max_examples=100)
@given(drawing=drawings())
def test_bands_lie_one_below_the_other_around_their_boxes(drawing: tuple[list[Box], list[Line]]) -> None:
    boxes, lines = drawing
    placed = layout(boxes, lines, padding={0: 10.0, 2: 10.0})

    check(placed, boxes, lines)
    for (_, upper), (_, lower) in itertools.pairwise(sorted(placed.bands.items())):
        assert upper.bottom < lower.y
    for box in boxes:
        area, band = placed.boxes[box.id], placed.bands[box.band]
        assert overlap(area, band) or area.width * area.height < 1
        assert band.x <= area.x
        assert area.right <= band.right
        assert band.y - 0.2 <= area.y
        assert area.bottom <= band.bottom + 0.2


def test_a_line_from_a_box_to_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="at one box"):
        layout([Box(id="a", width=1, height=1)], [Line(start="a", end="a")])


def test_sources_stand_left_and_what_is_written_right() -> None:
    boxes = [Box(id=name, width=50, height=20) for name in ("handler", "sink", "source")]
    placed = layout(boxes, [Line(start="handler", end="sink"), Line(start="source", end="handler")])

    assert placed.boxes["source"].right < placed.boxes["handler"].x
    assert placed.boxes["handler"].right < placed.boxes["sink"].x
    heights = {y for route in placed.routes for _, y in route.points}
    assert heights == {placed.boxes["handler"].y + placed.boxes["handler"].height / 2}, "one level line"


def test_lines_that_need_not_cross_do_not() -> None:
    names = ["a", "b", "c"]
    boxes = [Box(id=f"{side}{name}", width=50, height=20) for side in "lr" for name in names]
    lines = [Line(start=f"l{name}", end=f"r{other}") for name, other in zip(names, reversed(names), strict=True)]
    placed = layout(boxes, lines)

    starts = [route.points[0][1] for route in placed.routes]
    ends = [route.points[-1][1] for route in placed.routes]
    assert sorted(range(3), key=lambda at: starts[at]) == sorted(range(3), key=lambda at: ends[at])


def drawn(graph: Graph) -> ET.Element:
    return ET.fromstring(svg.write(graph))  # noqa: S314 - our own


def groups(root: ET.Element, kind: str) -> list[ET.Element]:
    return [group for group in root.iter(f"{SVG}g") if kind in (group.get("class") or "").split()]


def numbers(path: str | None) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", path or "")]


def ends_of(edge: ET.Element) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where the line begins, and where the arrow's tip is."""
    line, tip = edge.findall(f"{SVG}path")
    first, point = numbers(line.get("d")), numbers(tip.get("d"))
    return (first[0], first[1]), (point[0], point[1])


@settings(deadline=None, max_examples=100)
@given(graph=graphs())
def test_every_name_is_in_a_well_formed_document(graph: Graph) -> None:
    root = drawn(graph)

    assert root.tag == f"{SVG}svg"
    assert root[0].tag == f"{SVG}title"
    nodes = {group.get("id"): group for group in groups(root, "node") + groups(root, "dead")}
    for node in graph.nodes:
        title = nodes[node.id].findtext(f"{SVG}title") or ""
        assert title.startswith(visible(node.name))
        assert all(visible(line) in title for line in node.details)
        shown = [text.text or "" for text in nodes[node.id].findall(f"{SVG}text")]
        assert len(shown) == 2 + len(node.details)
        assert visible(node.name).startswith(shown[0].removesuffix("…"))
    edges = groups(root, "edge")
    assert [(edge.get("data-start"), edge.get("data-end")) for edge in edges] == [
        (one.start, one.end) for one in graph.edges
    ]
    assert ["rejects" in (edge.get("class") or "") for edge in edges] == [one.is_rejects for one in graph.edges]
    ids = [one.get("id") for one in root.iter() if one.get("id")]
    assert len(ids) == len(set(ids))


@settings(deadline=None, max_examples=100)
@given(graph=graphs())
def test_every_edge_begins_and_ends_on_its_nodes_outlines(graph: Graph) -> None:
    root = drawn(graph)
    kinds = {node.id: node.kind for node in graph.nodes}
    areas = {group.get("id"): area_of(group, kinds[group.get("id") or ""]) for group in groups(root, "node")}
    view = numbers(root.get("viewBox"))
    for edge in groups(root, "edge"):
        for (x, y), name in zip(ends_of(edge), (edge.get("data-start"), edge.get("data-end")), strict=True):
            area, kind = areas[name], kinds[name or ""]
            on_left = abs(x - area.x) < abs(x - area.right)
            side = area.x if on_left else area.right
            inside = shapes.inset(kind, area, y, on_left=on_left)
            assert x == pytest.approx(side + (inside if on_left else -inside), abs=0.2)
            assert area.y < y < area.bottom
    for area in areas.values():
        assert view[0] < area.x
        assert area.right < view[0] + view[2]
        assert view[1] < area.y
        assert area.bottom < view[1] + view[3]


def area_of(group: ET.Element, kind: Kind) -> Area:
    """The bounds of a drawn outline, read from its path: only its end points count, not an arc's radii."""
    xs: list[float] = []
    ys: list[float] = []
    x = y = 0.0
    path = group.find(f"{SVG}path")
    assert path is not None
    for command, text in re.findall(r"([MLHVA])([^MLHVAZ]*)", path.get("d") or ""):
        *_, before, last = 0.0, *numbers(text)
        x, y = (last, y) if command == "H" else (x, last) if command == "V" else (before, last)
        xs.append(x)
        ys.append(y)
    lid = shapes.room(Kind.TABLE)[1] / 2 if kind is Kind.TABLE else 0
    return Area(min(xs), min(ys) - lid, max(xs) - min(xs), max(ys) - min(ys) + 2 * lid)


@pytest.mark.parametrize("kind", Kind)
def test_the_inset_is_where_the_outline_is(kind: Kind) -> None:
    """At the height of each corner the outline's own points say it."""
    area = Area(10, 20, 200, 60)
    path = shapes.outline(kind, area)
    points = [tuple(numbers(text)[-2:]) for text in re.findall(r"[ML]([^MLHVAZ]*)", path.partition("Z")[0])]
    if kind in (Kind.STREAM, Kind.BUS, Kind.BUCKET, Kind.SOURCE, Kind.SINK):
        for x, y in points:
            on_left = x < 110
            side = (
                10 + shapes.inset(kind, area, y, on_left=on_left)
                if on_left
                else 210 - shapes.inset(kind, area, y, on_left=on_left)
            )
            assert x == pytest.approx(side)
    else:
        assert shapes.inset(kind, area, 50, on_left=True) == shapes.inset(kind, area, 50, on_left=False) == 0


def test_pipelines_are_boxes_and_what_they_share_stands_outside() -> None:
    def handler(name: str, cluster: str) -> Node:
        return Node(id=name, kind=Kind.HANDLER, caption="handler", name=name, cluster=cluster)

    graph = Graph(
        clusters=(Cluster(id="one", name="One"), Cluster(id="two", name="Two")),
        nodes=(
            handler("a", "one"),
            handler("b", "two"),
            Node(id="queue", kind=Kind.QUEUE, caption="SQS", name="queue"),
            Node(id="own", kind=Kind.TABLE, caption="DynamoDB", name="own", cluster="two"),
        ),
        edges=(Edge(start="a", end="queue"), Edge(start="queue", end="b"), Edge(start="b", end="own")),
    )
    root = drawn(graph)
    clusters = {}
    for group in groups(root, "cluster"):
        rect = group.find(f"{SVG}rect")
        assert rect is not None
        clusters[group.get("id")] = Area(*(float(rect.get(name) or "") for name in ("x", "y", "width", "height")))
    areas = {node.id: area_of(group, node.kind) for node, group in zip(graph.nodes, groups(root, "node"), strict=True)}

    assert not overlap(clusters["one"], clusters["two"])
    held = {name: {one for one, area in clusters.items() if overlap(area, areas[name])} for name in areas}
    assert held == {"a": {"one"}, "b": {"two"}, "own": {"two"}, "queue": set()}


def test_both_schemes_have_the_contrast_that_the_guidelines_ask_for() -> None:
    """WCAG 2.2: 4.5 to 1 for text, 3 to 1 for lines that carry meaning; each text on what it stands on."""
    for scheme in (0, 1):
        page, muted, text, _ = svg._PAGE[scheme]
        pairs = [(muted, page, 4.5), (text, page, 4.5)]
        for _, *both in svg._COLOURS:
            fill, line, inside = both[scheme]
            pairs += [(inside, fill, 4.5), (line, page, 3)]
        for colour, ground, wanted in pairs:
            assert contrast(colour, ground) >= wanted, (scheme, colour, ground)


def contrast(one: str, other: str) -> float:
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_long_name_is_cut_in_the_picture_and_whole_in_its_tooltip() -> None:
    node = Node(id="x", kind=Kind.QUEUE, caption="SQS", name="n" * 200)
    (group,) = groups(drawn(Graph(clusters=(), nodes=(node,), edges=())), "node")

    texts = [text.text for text in group.findall(f"{SVG}text")]
    assert texts[0] == "n" * 43 + "…"
    assert (group.findtext(f"{SVG}title") or "").startswith("n" * 200)
