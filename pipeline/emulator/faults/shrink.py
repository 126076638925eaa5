"""Delta debugging: the fewest faults with which a run still fails (Zeller and Hildebrandt, "Simplifying and Isolating
Failure-Inducing Input", 2002).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

#: Runs, and real seconds, that shrinking takes at most.
RUNS, SECONDS = 100, 10.0


def shrunk(
    ids: Sequence[str],
    fails: Callable[[frozenset[str]], bool],
    *,
    runs: int = RUNS,
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> frozenset[str]:
    """A smallest set of faults with which `fails` is still true, as far as `runs` and `seconds` reach.

    `ids`: with all of them it fails. None can be taken away from what comes out; that none is left means that it fails
    without any fault.
    """
    end = clock() + seconds
    left = runs

    def still_fails(some: Sequence[str]) -> bool:
        nonlocal left
        if left <= 0 or clock() >= end:
            return False
        left -= 1
        return fails(frozenset(some))

    if still_fails([]):
        return frozenset()
    kept, pieces = list(ids), 2
    while len(kept) >= 2:
        size = -(-len(kept) // pieces)
        parts = [kept[start : start + size] for start in range(0, len(kept), size)]
        # One piece alone, or all without one.
        rests = [[one for one in kept if one not in part] for part in parts] if len(parts) > 2 else []
        found = next((some for some in [*parts, *rests] if still_fails(some)), None)
        if found is None:
            if pieces >= len(kept):
                break
            pieces = min(len(kept), pieces * 2)
        else:
            pieces = max(pieces - 1, 2) if found in rests else 2
            kept = found
    return frozenset(kept)
