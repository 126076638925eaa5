"""Delta debugging: the fewest faults with which a run still fails (after Zeller and Hildebrandt, "Simplifying and Isolating
Failure-Inducing Input", 2002): halves of them are left out, then smaller parts, and in the end one after the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

#: Runs, and real seconds, that shrinking takes at most.
RUNS, SECONDS = 100, 10.0


class Shrunk(NamedTuple):
    """What is left of a run's faults."""

    ids: frozenset[str]
    is_smallest: bool  #: none can be left out; else shrinking stopped early


class _Tries:
    """Runs with some of the faults, none of them twice, as far as there are runs and time."""

    def __init__(
        self, fails: Callable[[frozenset[str]], bool], runs: int, seconds: float, clock: Callable[[], float]
    ) -> None:
        self._fails = fails
        self._left = runs
        self._clock = clock
        self._end = clock() + seconds
        self._passed: set[frozenset[str]] = set()
        self.is_over = False  #: something was left to be tried

    def fails(self, some: Sequence[str]) -> bool:
        """It still fails with these; not when that could not be tried."""
        wanted = frozenset(some)
        if wanted in self._passed:
            return False
        if self._left <= 0 or self._clock() >= self._end:
            self.is_over = True
            return False
        self._left -= 1
        if self._fails(wanted):
            return True
        self._passed.add(wanted)
        return False


def shrunk(
    ids: Sequence[str],
    fails: Callable[[frozenset[str]], bool],
    *,
    runs: int = RUNS,
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> Shrunk:
    """A smallest set of faults with which `fails` is still true, as far as `runs` and `seconds` reach.

    `ids`: with all of them it fails. That none is left means that it fails without any fault.
    """
    tries = _Tries(fails, runs, seconds, clock)
    if tries.fails([]):
        return Shrunk(frozenset(), is_smallest=True)
    kept, size = list(ids), max(1, len(ids) // 2)
    while not tries.is_over:
        rest = _without_parts(kept, size, tries)
        if size == 1 and len(rest) == len(kept):
            break
        kept, size = rest, max(1, size // 2)
    return Shrunk(frozenset(kept), is_smallest=not tries.is_over)


def _without_parts(ids: list[str], size: int, tries: _Tries) -> list[str]:
    """What is left when each part of so many is left out that can be, one after the other."""
    kept, start = ids, 0
    while start < len(kept) and not tries.is_over:
        rest = [*kept[:start], *kept[start + size :]]
        if tries.fails(rest):
            kept = rest
        else:
            start += size
    return kept
