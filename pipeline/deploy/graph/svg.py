"""The graph as an SVG image: sources on the left, sinks on the right, readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape, quoteattr

from pipeline.deploy.graph.layout import Area, Box, Layout, Line, Route, layout
from pipeline.deploy.graph.model import Edge, Graph, Kind, Node
from pipeline.deploy.graph.names import visible
from pipeline.deploy.graph.shapes import inset, outline, room, text_width

_MARGIN = 16.0
_CLUSTER_PADDING = 14.0
_NAME_SIZE, _SIZE = 13.0, 11.0
_NAME_LINE, _LINE = 18.0, 15.0
_SIDE, _ABOVE = 12.0, 9.0  #: around a node's text
_TIP = 8.0  #: an arrow's length
_LONGEST = 44  #: characters of one line; the rest stands in the tooltip

#: Class, then colours on a light page (fill, line, text) and on a dark one. Text has a contrast of at least 4.5 to 1.
_COLOURS = (
    ("handler", ("#0a5bc4", "#0a5bc4", "#ffffff"), ("#1a5fb8", "#388bfd", "#ffffff")),
    ("sqs", ("#fff8e1", "#9a6700", "#1f2328"), ("#2d2612", "#d29922", "#e6edf3")),
    ("fifo", ("#fff8e1", "#9a6700", "#1f2328"), ("#2d2612", "#d29922", "#e6edf3")),
    ("kinesis", ("#f5effe", "#8250df", "#1f2328"), ("#261d3b", "#ab7df8", "#e6edf3")),
    ("dynamodb", ("#e6f4f5", "#1b7c83", "#1f2328"), ("#10292c", "#39a3ab", "#e6edf3")),
    ("eventbridge", ("#ffeff7", "#bf3989", "#1f2328"), ("#341b2b", "#e275ad", "#e6edf3")),
    ("s3", ("#eaf7ec", "#1a7f37", "#1f2328"), ("#12271a", "#3fb950", "#e6edf3")),
    ("own", ("#f3f4f6", "#59636e", "#1f2328"), ("#21262d", "#9198a1", "#e6edf3")),
    ("dead", ("#fff3f2", "#cf222e", "#1f2328"), ("#2f1517", "#f85149", "#e6edf3")),
)
_PAGE = (("#ffffff", "#59636e", "#1f2328", "#c4cbd3"), ("#0d1117", "#9198a1", "#e6edf3", "#3d444d"))
_FONT = "-apple-system,'Segoe UI',Helvetica,Arial,sans-serif"


def write(graph: Graph) -> str:
    """The text of an SVG document. Each node and edge has its whole text as a tooltip, and for screen readers."""
    bands = _bands(graph)
    kinds = {node.id: node.kind for node in graph.nodes}
    boxes = [_box(node, bands[node.id]) for node in graph.nodes]
    lines = [_line(edge, label_at_end=kinds[edge.end] is Kind.HANDLER) for edge in graph.edges]
    padding = {2 * at: _CLUSTER_PADDING for at in range(len(graph.clusters))} if graph.has_clusters else {}
    placed = layout(boxes, lines, padding=padding)
    width, height = placed.width + 2 * _MARGIN, placed.height + 2 * _MARGIN
    title = ", ".join(visible(cluster.name) for cluster in graph.clusters)
    size = f'width="{width:.1f}" height="{height:.1f}"'
    view = f'viewBox="{-_MARGIN:g} {-_MARGIN:g} {width:.1f} {height:.1f}"'
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {view} {size} role="img" aria-labelledby="title desc">',
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="desc">{escape(_summary(graph))}</desc>',
        f"<style>\n{_style()}\n</style>",
        f'<rect class="page" x="{-_MARGIN:g}" y="{-_MARGIN:g}" {size}/>',
        *_clusters(graph, placed),
        *(_edge(graph, edge, route, placed, kinds) for edge, route in zip(graph.edges, placed.routes, strict=True)),
        *(_node(node, placed.boxes[node.id]) for node in graph.nodes),
        "</svg>",
    ]
    return "\n".join(body) + "\n"


def _bands(graph: Graph) -> dict[str, int]:
    """Each pipeline has a band of its own; what several use stands below the first that uses it, between two bands."""
    if not graph.has_clusters:
        return {node.id: 0 for node in graph.nodes}
    order = {cluster.id: 2 * at for at, cluster in enumerate(graph.clusters)}
    bands = {node.id: order[node.cluster] for node in graph.nodes if node.cluster is not None}
    for node in graph.nodes:
        if node.cluster is None:
            near = [
                edge.end if edge.start == node.id else edge.start
                for edge in graph.edges
                if node.id in (edge.start, edge.end)
            ]
            bands[node.id] = min((bands[one] for one in near), default=-2) + 1
    return bands


def _texts(node: Node) -> list[str]:
    """The lines inside a node; the first is its name."""
    return [_cut(line) for line in (node.name, node.label, *node.details)]


def _cut(text: str) -> str:
    shown = visible(text)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"


def _box(node: Node, band: int) -> Box:
    name, *others = _texts(node)
    # Bold is about a tenth wider.
    text = max(1.1 * text_width(name, _NAME_SIZE), *(text_width(line, _SIZE) for line in others))
    wider, higher = room(node.kind)
    height = _NAME_LINE + _LINE * len(others) + 2 * _ABOVE + higher
    return Box(id=node.id, width=round(text + 2 * _SIDE + wider), height=height, band=band)


def _line(edge: Edge, *, label_at_end: bool) -> Line:
    texts = [_cut(line) for line in edge.details]
    width = max((text_width(line, _SIZE) + 10 for line in texts), default=0.0)
    return Line(
        start=edge.start, end=edge.end, width=round(width), height=_LINE * len(texts), label_at_end=label_at_end
    )


def _clusters(graph: Graph, placed: Layout) -> list[str]:
    drawn = []
    for at, cluster in enumerate(graph.clusters if graph.has_clusters else ()):
        area = placed.bands.get(2 * at)
        if area is not None:
            drawn.append(
                f'<g class="cluster" id="{cluster.id}"><title>{escape(visible(cluster.name))}</title>'
                f'<rect {_rectangle(area)} rx="10"/>'
                f'<text class="name" x="{area.x + 14:.1f}" y="{area.y + 20:.1f}">{escape(_cut(cluster.name))}</text></g>'
            )
    return drawn


def _node(node: Node, area: Area) -> str:
    middle = area.x + area.width / 2
    texts = _texts(node)
    _, higher = room(node.kind)
    y = area.y + area.height / 2 - (_NAME_LINE + _LINE * (len(texts) - 1)) / 2 + higher / 4 + 13
    shown = [f'<text class="name" x="{middle:.1f}" y="{y:.1f}">{escape(texts[0])}</text>']
    for at, line in enumerate(texts[1:]):
        shown.append(f'<text x="{middle:.1f}" y="{y + _NAME_LINE - 1 + _LINE * at:.1f}">{escape(line)}</text>')
    whole = ", ".join(map(visible, (node.name, node.label, *node.details)))
    return (
        f'<g class="node {_class(node)}" id="{node.id}"><title>{escape(whole)}</title>'
        f'<path d="{outline(node.kind, area)}"/>{"".join(shown)}</g>'
    )


def _class(node: Node) -> str:
    if node.is_dead_letters:
        return "dead"
    known = {name for name, *_ in _COLOURS}
    return node.kind.value if node.kind.value in known else "own"


def _edge(graph: Graph, edge: Edge, route: Route, placed: Layout, kinds: Mapping[str, Kind]) -> str:
    names = {node.id: node.name for node in graph.nodes}
    whole = f"{visible(names[edge.start])} → {visible(names[edge.end])}"
    whole += "".join(f", {visible(line)}" for line in edge.details)
    # Backwards, it leaves on the left and arrives on the right.
    way = -1 if route.is_turned else 1
    (x, y), (end_x, end_y) = route.points[0], route.points[-1]
    x -= way * inset(kinds[edge.start], placed.boxes[edge.start], y, on_left=route.is_turned)
    end_x += way * inset(kinds[edge.end], placed.boxes[edge.end], end_y, on_left=not route.is_turned)
    tip = f"M{end_x:.1f} {end_y:.1f}l{-way * _TIP:g} -4v8z"
    kind = "edge rejects" if edge.is_rejects else "edge"
    return (
        f'<g class="{kind}" data-start={quoteattr(edge.start)} data-end={quoteattr(edge.end)}>'
        f"<title>{escape(whole)}</title>"
        f'<path class="line" d="{_way((x, y), route.points, end_x - way * _TIP)}"/><path class="tip" d="{tip}"/>'
        f"{_label(edge, route.label)}</g>"
    )


def _way(start: tuple[float, float], points: Sequence[tuple[float, float]], end_x: float) -> str:
    """Curves between the columns, level lines in them, and the last bit level, so that the arrow is."""
    x, y = points[0]
    parts = [f"M{start[0]:.1f} {start[1]:.1f}H{x:.1f}"]
    for at, (next_x, next_y) in enumerate(points[1:]):
        is_last = at == len(points) - 2
        if at % 2 == 1 or next_y == y:
            parts.append(f"H{end_x if is_last else next_x:.1f}")
        else:
            reached = end_x if is_last and abs(end_x - x) < abs(next_x - x) else next_x
            half = (x + reached) / 2
            parts.append(f"C{half:.1f} {y:.1f} {half:.1f} {next_y:.1f} {reached:.1f} {next_y:.1f}")
            if is_last and reached != end_x:
                parts.append(f"H{end_x:.1f}")
        x, y = next_x, next_y
    return "".join(parts)


def _label(edge: Edge, area: Area | None) -> str:
    if area is None:
        return ""
    texts = []
    for at, line in enumerate(edge.details):
        y = area.y + 11 + _LINE * at
        texts.append(f'<text x="{area.x + area.width / 2:.1f}" y="{y:.1f}">{escape(_cut(line))}</text>')
    return f'<rect class="label" {_rectangle(area)}/>{"".join(texts)}'


def _rectangle(area: Area) -> str:
    return f'x="{area.x:.1f}" y="{area.y:.1f}" width="{area.width:.1f}" height="{area.height:.1f}"'


def _summary(graph: Graph) -> str:
    """What a screen reader says of the whole: who reads what and writes where."""
    names = {node.id: visible(f"{node.name} ({node.label})") for node in graph.nodes}
    said = []
    for node in graph.nodes:
        if node.kind is Kind.HANDLER:
            read = ", ".join(names[edge.start] for edge in graph.edges if edge.end == node.id)
            written = [edge for edge in graph.edges if edge.start == node.id]
            sinks = ", ".join(names[edge.end] for edge in written if not edge.is_rejects) or "nothing"
            rejects = ", ".join(names[edge.end] for edge in written if edge.is_rejects)
            said.append(f"{visible(node.name)} reads {read} and writes {sinks}; rejected records go to {rejects}.")
    return " ".join(said)


def _style() -> str:
    dark = "\n".join(_colours(1))
    return (
        f"text{{font:{_SIZE:g}px {_FONT};text-anchor:middle}}\n.name{{font-size:{_NAME_SIZE:g}px;font-weight:600}}\n"
        ".cluster .name{text-anchor:start}\n.node path{stroke-width:1.5}\n.dead path{stroke-dasharray:5 3}\n"
        ".line{fill:none;stroke-width:1.4}\n.rejects .line{stroke-dasharray:5 4}\n.cluster rect{fill:none}\n"
        + "\n".join(_colours(0))
        + f"\n@media (prefers-color-scheme:dark){{\n{dark}\n}}"
    )


def _colours(scheme: int) -> list[str]:
    """The rules of one scheme: 0 is light, 1 dark."""
    page, muted, text, border = _PAGE[scheme]
    rejects = next(both[scheme][1] for name, *both in _COLOURS if name == "dead")
    rules = [
        f".page,.label{{fill:{page}}}",
        f".edge text{{fill:{muted}}}",
        f".line{{stroke:{muted}}}.tip{{fill:{muted}}}",
        f".rejects .line{{stroke:{rejects}}}.rejects .tip,.rejects text{{fill:{rejects}}}",
        f".cluster rect{{stroke:{border}}}.cluster text{{fill:{text}}}",
    ]
    for name, *both in _COLOURS:
        fill, line, inside = both[scheme]
        rules.append(f".{name} path{{fill:{fill};stroke:{line}}}.{name} text{{fill:{inside}}}")
    return rules
