"""Two ways to do the same thing, timed in turns."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from statistics import median, quantiles
from typing import Any


def in_turns(one: Callable[[], Any], other: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """CPU seconds of the one, and the other's as a multiple of that.

    Shared cores change their speed from one moment to the next, so the two alternate, and the multiple
    is the median over neighbours. All threads count.
    """
    pairs = [(cpu(one), cpu(other)) for _ in range(repeats)]
    return median(first for first, _ in pairs), median(second / first for first, second in pairs)


def cpu(call: Callable[[], Any]) -> float:
    """CPU seconds of a call, of all threads of this process."""
    gc.collect()
    begun = time.process_time()
    call()
    return time.process_time() - begun


def spread(values: list[float]) -> float:
    """The distance of the quartiles, as a part of the median."""
    low, middle, high = quantiles(values, n=4)
    return (high - low) / middle
