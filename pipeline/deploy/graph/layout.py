"""A layered layout: where boxes, labels and lines go, in columns from left to right.

The usual method (Sugiyama, Tagawa, Toda: "Methods for visual understanding of hierarchical system structures", 1981): turn
lines that run in a circle, give each box a column, sort each column so that few lines cross, then find heights. Each
step is deterministic. A line that passes a column has an item of its own there, so that nothing lies under it, and a
label is such an item, so that no two overlap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

_COLUMN_GAP = 34.0  #: between columns: room for the curves
_GAP = 18.0  #: between a box and what stands above it
_LINE_GAP = 8.0  #: between two lines, or labels
_BAND_GAP = 26.0
_PORT = 14.0  #: between two lines that meet a box on one side
_SWEEPS = 12
_SETTLINGS = 60


@dataclass(frozen=True, kw_only=True)
class Box:
    """Something to be placed. Boxes of one band lie between two horizontals, bands one below the other."""

    id: str
    width: float
    height: float
    band: int = 0


@dataclass(frozen=True, kw_only=True)
class Line:
    """From a box to another one; width and height are its label's, 0 without one."""

    start: str
    end: str
    width: float = 0
    height: float = 0
    label_at_end: bool = False  #: the label stands near the end, where the line is long


@dataclass(frozen=True)
class Area:
    """A rectangle."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height


Point = tuple[float, float]


@dataclass(frozen=True)
class Route:
    """A line as placed: level from each odd point to the next, a curve from each even one."""

    points: tuple[Point, ...]
    label: Area | None
    is_turned: bool  #: it runs from right to left


@dataclass(frozen=True)
class Layout:
    """Everything placed, from (0, 0) on. Boxes of a column have one width."""

    boxes: Mapping[str, Area]
    routes: tuple[Route, ...]
    bands: Mapping[int, Area]
    width: float
    height: float


@dataclass(eq=False)
class _Item:
    """A box, or a line's place in a column that it passes."""

    column: int
    band: int
    width: float
    height: float
    box: str | None = None
    before: list[_Item] = field(default_factory=list)
    after: list[_Item] = field(default_factory=list)
    at: int = 0  #: in its column, from the top
    y: float = 0.0  #: of its middle

    @property
    def near(self) -> list[_Item]:
        return self.before + self.after


def layout(boxes: Sequence[Box], lines: Sequence[Line], *, padding: Mapping[int, float] | None = None) -> Layout:
    """Place boxes and lines. `padding`: what a band keeps free around its boxes, and above them once more.

    A line may not begin and end at one box: `ValueError`.
    """
    if any(line.start == line.end for line in lines):
        raise ValueError("a line begins and ends at one box: there is no way to draw it")
    free = padding or {}
    turned = _turned(boxes, lines)
    columns, chains = _items(boxes, lines, turned, _ranks(boxes, lines, turned))
    _sort(columns)
    _settle(columns)
    spans = _stack(columns, free)
    return _placed(columns, chains, turned, spans, free)


def _turned(boxes: Sequence[Box], lines: Sequence[Line]) -> list[bool]:
    """Which lines have to run backwards, so that the others run in no circle: those that a walk finds closing one."""
    outgoing: dict[str, list[int]] = {box.id: [] for box in boxes}
    entered = set()
    for at, line in enumerate(lines):
        outgoing[line.start].append(at)
        entered.add(line.end)
    turned = [False] * len(lines)
    done: set[str] = set()
    open_: set[str] = set()
    for first in sorted(boxes, key=lambda box: box.id in entered):  # where something begins, first
        if first.id in done:
            continue
        open_.add(first.id)
        walk = [(first.id, iter(outgoing[first.id]))]
        while walk:
            here, left = walk[-1]
            at = next(left, -1)
            if at < 0:
                walk.pop()
                open_.discard(here)
                done.add(here)
            elif lines[at].end in open_:
                turned[at] = True
            elif lines[at].end not in done:
                open_.add(lines[at].end)
                walk.append((lines[at].end, iter(outgoing[lines[at].end])))
    return turned


def _ranks(boxes: Sequence[Box], lines: Sequence[Line], turned: Sequence[bool]) -> dict[str, int]:
    """How many boxes stand to the left of each: the longest way to it."""
    following: dict[str, list[str]] = {box.id: [] for box in boxes}
    waiting_for = dict.fromkeys(following, 0)
    for line, is_turned in zip(lines, turned, strict=True):
        left, right = (line.end, line.start) if is_turned else (line.start, line.end)
        following[left].append(right)
        waiting_for[right] += 1
    ranks = dict.fromkeys(following, 0)
    ready = [name for name, count in waiting_for.items() if count == 0]
    while ready:
        here = ready.pop()
        for name in following[here]:
            ranks[name] = max(ranks[name], ranks[here] + 1)
            waiting_for[name] -= 1
            if waiting_for[name] == 0:
                ready.append(name)
    return ranks


def _items(
    boxes: Sequence[Box], lines: Sequence[Line], turned: Sequence[bool], ranks: Mapping[str, int]
) -> tuple[list[list[_Item]], list[list[_Item]]]:
    """The columns, boxes in every second one; and each line's items from left to right."""
    columns: list[list[_Item]] = [[] for _ in range(2 * max(ranks.values(), default=0) + 1)]
    placed: dict[str, _Item] = {}
    ports = _ports(lines, turned)
    for box in boxes:
        height = max(box.height, _PORT * (ports.get(box.id, 0) + 1))
        placed[box.id] = _Item(2 * ranks[box.id], box.band, box.width, height, box.id)
        columns[2 * ranks[box.id]].append(placed[box.id])
    chains: list[list[_Item]] = []
    for line, is_turned in zip(lines, turned, strict=True):
        left, right = placed[line.start], placed[line.end]
        if is_turned:
            left, right = right, left
        # A line between bands keeps to the later one, which is not the left box's own.
        band = max(left.band, right.band)
        chain = [_Item(column, band, 0, 0) for column in range(left.column + 1, right.column)]
        label = chain[-1 if line.label_at_end != is_turned else 0]
        label.width, label.height = line.width, line.height
        for item in chain:
            columns[item.column].append(item)
        whole = [left, *chain, right]
        for one, following in pairwise(whole):
            one.after.append(following)
            following.before.append(one)
        chains.append(whole)
    return columns, chains


def _ports(lines: Sequence[Line], turned: Sequence[bool]) -> dict[str, int]:
    """How many lines meet a box on the side where most do."""
    sides = Counter(
        (name, (name == line.start) != is_turned)
        for line, is_turned in zip(lines, turned, strict=True)
        for name in (line.start, line.end)
    )
    return {name: max(sides[name, True], sides[name, False]) for name, _ in sides}


def _sort(columns: list[list[_Item]]) -> None:
    """Order each column by where its neighbours stand, to and fro, and keep the order with the fewest crossings."""
    for column in columns:
        column.sort(key=lambda item: item.band)
        _number(column)
    best, fewest = [list(column) for column in columns], _crossings(columns)
    for sweep in range(_SWEEPS):
        forward = sweep % 2 == 0
        for column in columns if forward else reversed(columns):
            column.sort(key=partial(_wanted_place, forward=forward))
            _number(column)
        crossings = _crossings(columns)
        if crossings < fewest:
            best, fewest = [list(column) for column in columns], crossings
    for column, chosen in zip(columns, best, strict=True):
        column[:] = chosen
        _number(column)


def _number(column: list[_Item]) -> None:
    for at, item in enumerate(column):
        item.at = at


def _wanted_place(item: _Item, *, forward: bool) -> tuple[int, float]:
    near = item.before if forward else item.after
    return item.band, sum(one.at for one in near) / len(near) if near else item.at


def _crossings(columns: Sequence[Sequence[_Item]]) -> int:
    """How many pairs of lines cross between neighbouring columns."""
    count = 0
    for column in columns:
        ends = [following.at for item in column for following in sorted(item.after, key=lambda one: one.at)]
        count += sum(later < end for at, end in enumerate(ends) for later in ends[at + 1 :])
    return count


def _settle(columns: Sequence[Sequence[_Item]]) -> None:
    """Find heights: each item near the middle of its neighbours, in its column's order, not too close to the next."""
    groups = [[item for item in column if item.band == band] for column in columns for band in _bands(column)]
    for group in groups:
        _keep_apart(group, [0.0] * len(group))
    for sweep in range(_SETTLINGS):
        for group in groups if sweep % 2 == 0 else reversed(groups):
            _keep_apart(group, [_wanted_height(item) for item in group])


def _bands(column: Sequence[_Item]) -> list[int]:
    return sorted({item.band for item in column})


def _wanted_height(item: _Item) -> float:
    near = [one.y for one in item.near if one.band == item.band]
    return sum(near) / len(near) if near else item.y


def _keep_apart(group: Sequence[_Item], wanted: Sequence[float]) -> None:
    """Set heights as close to the wanted ones as the distances allow: least squares, by pooling adjacent violators."""
    offset, offsets = 0.0, []
    for at, item in enumerate(group):
        if at:
            offset += _distance(group[at - 1], item)
        offsets.append(offset)
    pools: list[tuple[float, int]] = []  # (mean of wanted - offset, how many)
    for want, off in zip(wanted, offsets, strict=True):
        mean, count = want - off, 1
        while pools and pools[-1][0] > mean:
            other, size = pools.pop()
            mean = (mean * count + other * size) / (count + size)
            count += size
        pools.append((mean, count))
    means = [mean for mean, count in pools for _ in range(count)]
    for item, mean, off in zip(group, means, offsets, strict=True):
        item.y = mean + off


def _distance(upper: _Item, lower: _Item) -> float:
    gap = _LINE_GAP if upper.box is None and lower.box is None else _GAP
    return (upper.height + lower.height) / 2 + gap


def _stack(columns: Sequence[Sequence[_Item]], free: Mapping[int, float]) -> dict[int, tuple[float, float]]:
    """Put the bands one below the other; top and bottom of each, with what it keeps free."""
    spans: dict[int, tuple[float, float]] = {}
    top = 0.0
    items = [item for column in columns for item in column]
    for band in _bands(items):
        held = [item for item in items if item.band == band]
        above = 2 * free.get(band, 0.0)
        shift = top + above - min(item.y - item.height / 2 for item in held)
        for item in held:
            item.y = round(item.y + shift, 1)
        bottom = max(item.y + item.height / 2 for item in held) + free.get(band, 0.0)
        spans[band] = (top, bottom)
        top = bottom + _BAND_GAP
    return spans


def _placed(
    columns: Sequence[Sequence[_Item]],
    chains: Sequence[Sequence[_Item]],
    turned: Sequence[bool],
    spans: Mapping[int, tuple[float, float]],
    free: Mapping[int, float],
) -> Layout:
    lefts: list[float] = []
    widths = [max((item.width for item in column), default=0.0) for column in columns]
    x = max(free.values(), default=0.0)
    for width in widths:
        lefts.append(x)
        x += width + _COLUMN_GAP
    boxes = {
        item.box: Area(lefts[item.column], item.y - item.height / 2, widths[item.column], item.height)
        for column in columns
        for item in column
        if item.box is not None
    }
    ports = _port_heights(chains)
    routes = []
    for at, (chain, is_turned) in enumerate(zip(chains, turned, strict=True)):
        first, last = chain[0], chain[-1]
        points = [(lefts[first.column] + widths[first.column], ports[at, True])]
        for item in chain[1:-1]:
            points += [(lefts[item.column], item.y), (lefts[item.column] + widths[item.column], item.y)]
        points.append((lefts[last.column], ports[at, False]))
        label = next((_label(item, lefts, widths) for item in chain[1:-1] if item.height), None)
        routes.append(Route(tuple(reversed(points) if is_turned else points), label, is_turned))
    bands = _band_areas(boxes, {item.box: item.band for column in columns for item in column}, routes, spans, free)
    right = max((area.right for area in (*boxes.values(), *bands.values())), default=0.0)
    return Layout(boxes, tuple(routes), bands, right, max((bottom for _, bottom in spans.values()), default=0.0))


def _port_heights(chains: Sequence[Sequence[_Item]]) -> dict[tuple[int, bool], float]:
    """Where each line meets its left box (True) and its right one, spread over the side in the order of what follows."""
    sides: dict[tuple[int, bool], list[int]] = {}
    for at, chain in enumerate(chains):
        sides.setdefault((id(chain[0]), True), []).append(at)
        sides.setdefault((id(chain[-1]), False), []).append(at)
    heights: dict[tuple[int, bool], float] = {}
    for (_, is_left), members in sides.items():
        members.sort(key=lambda at: (chains[at][1 if is_left else -2].y, at))
        box = chains[members[0]][0 if is_left else -1]
        if len(members) == 1:  # level where the box allows it, else in the middle
            next_y = chains[members[0]][1 if is_left else -2].y
            heights[members[0], is_left] = next_y if abs(next_y - box.y) <= box.height / 4 else box.y
            continue
        for place, at in enumerate(members):
            heights[at, is_left] = round(box.y + (place - (len(members) - 1) / 2) * _PORT, 1)
    return heights


def _label(item: _Item, lefts: Sequence[float], widths: Sequence[float]) -> Area:
    left = lefts[item.column] + (widths[item.column] - item.width) / 2
    return Area(left, item.y - item.height / 2, item.width, item.height)


def _band_areas(
    boxes: Mapping[str, Area],
    bands: Mapping[str | None, int],
    routes: Sequence[Route],
    spans: Mapping[int, tuple[float, float]],
    free: Mapping[int, float],
) -> dict[int, Area]:
    """What a band's boxes take, with what it keeps free around them."""
    areas: dict[int, Area] = {}
    for band, (top, bottom) in spans.items():
        held = [area for name, area in boxes.items() if bands[name] == band]
        if held:
            left = min(area.x for area in held) - free.get(band, 0.0)
            right = max(area.right for area in held) + free.get(band, 0.0)
            areas[band] = Area(left, top, right - left, bottom - top)
    return areas
