"""The outline of each kind of node, and how wide a text will be."""

from __future__ import annotations

import unicodedata

from pipeline.deploy.graph.layout import Area
from pipeline.deploy.graph.model import Kind

_SLANT = 12.0  #: how far a slanted side goes inwards
_LID = 6.0  #: half the height of a cylinder's lid

#: Widths in em of a sans-serif face; rather too wide than too narrow, because the reader's face is not known.
_NARROW = frozenset("ijlI.,:;'|!()[]{}/\\ ")
_WIDE = frozenset("mwMW@%&")
_WIDTHS = {"narrow": 0.38, "wide": 0.93, "capital": 0.72, "other": 0.58, "full": 1.05}


def text_width(text: str, size: float) -> float:
    """About how wide a text is, in the unit of its font's size."""
    return size * sum(_WIDTHS[_width_class(c)] for c in text)


def _width_class(c: str) -> str:
    if unicodedata.combining(c):
        return "narrow"
    if c in _NARROW:
        return "narrow"
    if c in _WIDE:
        return "wide"
    if not c.isascii():
        return "full" if unicodedata.east_asian_width(c) in "WF" else "capital"
    return "capital" if c.isupper() else "other"


def room(kind: Kind) -> tuple[float, float]:
    """What a shape takes of its width and of its height, so that its text does not touch it."""
    if kind is Kind.TABLE:
        return 0.0, 2 * _LID
    if kind in (Kind.HANDLER, Kind.MEMORY):
        return 0.0, 0.0
    return 2 * _SLANT, 0.0


def outline(kind: Kind, area: Area) -> str:
    """The path of a node's outline."""
    x, y, right, bottom, s = area.x, area.y, area.right, area.bottom, _SLANT
    middle = y + area.height / 2
    if kind is Kind.TABLE:
        lid = f"{_LID:g} 0 0"
        half = f"{area.width / 2:g} {lid}"
        return (
            f"M{x:g} {y + _LID:g}A{half} 1 {right:g} {y + _LID:g}V{bottom - _LID:g}A{half} 1 {x:g} {bottom - _LID:g}Z"
            f"M{x:g} {y + _LID:g}A{half} 0 {right:g} {y + _LID:g}"
        )
    if kind is Kind.FIFO:
        return f"{_rounded(area, 3)}M{x + s - 4:g} {y:g}V{bottom:g}M{right - s + 4:g} {y:g}V{bottom:g}"
    corners = {
        Kind.STREAM: [(x + s, y), (right, y), (right - s, bottom), (x, bottom)],
        Kind.BUS: [(x + s, y), (right - s, y), (right, middle), (right - s, bottom), (x + s, bottom), (x, middle)],
        Kind.BUCKET: [(x, y), (right, y), (right - s, bottom), (x + s, bottom)],
        Kind.FILE: [(x, y), (right - s, y), (right, y + s), (right, bottom), (x, bottom)],
        Kind.SOURCE: [(x + s, y), (right - s, y), (right, bottom), (x, bottom)],
        Kind.SINK: [(x + s, y), (right - s, y), (right, bottom), (x, bottom)],
    }.get(kind)
    if corners is not None:
        return "M" + "L".join(f"{at:g} {down:g}" for at, down in corners) + "Z"
    return _rounded(area, area.height / 2 if kind is Kind.QUEUE else 7 if kind is Kind.HANDLER else 2)


def inset(kind: Kind, area: Area, height: float, *, on_left: bool) -> float:
    """How far inside the area a shape's side stands at a height: a line that meets it there has to be that longer."""
    down = min(max((height - area.y) / area.height, 0.0), 1.0)
    if kind is Kind.QUEUE:
        radius = min(area.height, area.width) / 2
        return float(radius - max(radius**2 - (height - area.y - area.height / 2) ** 2, 0.0) ** 0.5)
    if kind is Kind.STREAM:
        return _SLANT * (1 - down if on_left else down)
    if kind is Kind.BUS:
        return _SLANT * abs(2 * down - 1)
    if kind is Kind.BUCKET:
        return _SLANT * down
    if kind in (Kind.SOURCE, Kind.SINK):
        return _SLANT * (1 - down)
    return 0.0


def _rounded(area: Area, radius: float) -> str:
    r = min(radius, area.height / 2, area.width / 2)
    arc = f"A{r:g} {r:g} 0 0 1"
    return (
        f"M{area.x + r:g} {area.y:g}H{area.right - r:g}{arc} {area.right:g} {area.y + r:g}V{area.bottom - r:g}"
        f"{arc} {area.right - r:g} {area.bottom:g}H{area.x + r:g}{arc} {area.x:g} {area.bottom - r:g}"
        f"V{area.y + r:g}{arc} {area.x + r:g} {area.y:g}Z"
    )
