"""Back-off: how long a failed record waits, and when it has had its attempts."""

from __future__ import annotations

import math

from msgspec import Struct

from pipeline.errors import ConfigurationError


def is_number(value: object) -> bool:
    """True for an `int` or a `float`; `True` and `False` are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_count(value: object) -> bool:
    """True for a whole number from 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


class Backoff(Struct, frozen=True):
    """Full-jitter exponential back-off for failed records.

    `attempts`: runs that count before the record goes to the dead-letter queue (default 5, at
    least 1). `base`: seconds that the first delay is drawn from (default 5). `cap`: the longest
    delay in seconds (default 900; SQS allows 43,200 from receipt).

    The n-th delay is drawn evenly from 0 to min(cap, base x 2^(n-1)), so that records which
    failed together do not come back together.
    """

    attempts: int = 5
    base: float = 5.0
    cap: float = 900.0

    def __post_init__(self) -> None:
        if not is_count(self.attempts):
            raise ConfigurationError(f"Backoff(attempts={self.attempts!r}): give a whole number, at least 1")
        for option, value in (("base", self.base), ("cap", self.cap)):
            if not is_number(value) or not 0 <= value < math.inf:
                raise ConfigurationError(
                    f"Backoff({option}={value!r}): base and cap are seconds; give a number, 0 or more"
                )
        if self.cap > 43_200:
            raise ConfigurationError("Backoff: cap is at most 43,200 seconds, SQS's limit for a visibility timeout")

    def is_exhausted(self, attempt: int) -> bool:
        """True when a failure of this attempt (from 1) is the last one."""
        return attempt >= self.attempts

    def delay(self, attempt: int, chance: float) -> float:
        """Seconds to wait after this attempt (from 1); `chance` is drawn from [0, 1)."""
        doublings = min(max(attempt, 1) - 1, 32)
        return chance * min(self.cap, self.base * 2.0**doublings)


#: For hand-backs that cost no attempt: a store or sink that is down, a deadline.
HAND_BACK = Backoff(base=2.0, cap=300.0)
