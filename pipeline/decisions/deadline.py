"""Time: when to stop, and whether a record may still start."""

from __future__ import annotations

from msgspec import Struct


class Deadline(Struct, frozen=True):
    """The two instants at which an invocation changes its mind, in seconds of one monotonic clock.

    At `soft`, running handlers are cut off and no sink is tried again; between the two, claims
    are released and the result is made up; at `hard` the answer goes out whatever is still
    running. Both are None where nothing limits the time (a worker).
    """

    soft: float | None = None
    hard: float | None = None

    def left(self, now: float) -> float | None:
        """Seconds until `soft`; None for no limit."""
        return None if self.soft is None else self.soft - now


def deadline(now: float, remaining: float) -> Deadline:
    """The deadline of an invocation that has `remaining` seconds.

    A tenth of the time is kept back for releasing claims, delays and the answer: at least a
    quarter of a second, at most three.
    """
    margin = min(max(0.1 * remaining, 0.25), 3.0)
    return Deadline(soft=now + remaining - margin, hard=now + remaining - margin / 3)


def may_start(left: float | None, expected: float) -> bool:
    """True when a record that takes `expected` seconds is expected to finish."""
    return left is None or left > max(expected, 0.0)


def expect(expected: float, took: float) -> float:
    """What the next record is expected to take, after one that took `took` seconds.

    Slow records count at once and are forgotten slowly, so that a record started late is rather
    handed back than cut off.
    """
    return took if took >= expected else expected + (took - expected) * 0.1
