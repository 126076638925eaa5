"""A clock that idle waiting can be taken out of."""

from __future__ import annotations

import asyncio
import time


class SkippingClock:
    """The machine's time plus what was skipped. Shared by the mappings and every handler's runtime.

    Only the wall clock moves: deadlines are measured on the monotonic one, and nothing runs
    while time is skipped.
    """

    def __init__(self) -> None:
        self._skipped = 0.0

    def now(self) -> float:
        """Epoch seconds, with what was skipped."""
        return time.time() + self._skipped

    def monotonic(self) -> float:
        """The machine's monotonic clock."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait in real time."""
        await asyncio.sleep(seconds)

    def skip(self, seconds: float) -> None:
        """Let `seconds` have passed."""
        self._skipped += seconds
