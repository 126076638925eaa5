"""The lines of a run's story, as they are kept: of a long run those around its faults, its beginning and its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: Lines that are kept at least, and records that one names.
_KEPT, _NAMED = 2_000, 6


@dataclass(frozen=True)
class Line:
    """One thing that happened in a run. Records are named by their ids, between `text` and `rest`."""

    at: float  #: seconds since the run began
    number: int  #: of all lines of the run, from 0
    where: str  #: a function's invocation, or a source
    text: str
    records: tuple[str, ...] = ()
    more: int = 0  #: records that are not named
    rest: str = ""
    is_fault: bool = False


class Lines:
    """The lines of a run, of which there may be any number."""

    def __init__(self) -> None:
        self.kept: list[Line] = []
        self._count = 0

    def add(
        self,
        at: float,
        where: str,
        text: str,
        records: Sequence[str] = (),
        rest: str = "",
        *,
        is_fault: bool = False,
    ) -> None:
        """One more. Only the first few records are kept."""
        named = tuple(records[:_NAMED])
        more = len(records) - len(named)
        self.kept.append(Line(at, self._count, where, text, named, more, rest, is_fault))
        self._count += 1
        if len(self.kept) >= 2 * _KEPT:
            self.kept = around_faults(self.kept, _KEPT)


def around_faults(lines: Sequence[Line], most: int) -> list[Line]:
    """So many lines: those nearest to a fault, to the beginning or to the end; the later ones, where it is alike."""
    if len(lines) <= most:
        return list(lines)
    distances = [min(before, after) for before, after in zip(_since(lines), _until(lines), strict=True)]
    chosen = sorted(range(len(lines)), key=lambda at: (distances[at], -at))[:most]
    return [lines[at] for at in sorted(chosen)]


def _since(lines: Sequence[Line]) -> list[int]:
    """For each line how many lie between it and the last fault before it, or the beginning."""
    found, last = [], lines[0].number
    for line in lines:
        last = line.number if line.is_fault else last
        found.append(line.number - last)
    return found


def _until(lines: Sequence[Line]) -> list[int]:
    found, following = [], lines[-1].number
    for line in reversed(lines):
        following = line.number if line.is_fault else following
        found.append(following - line.number)
    return found[::-1]
