"""How idle time passes: as it does, faster, or not at all. Time never stands still on AWS; waiting can be skipped."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Protocol

from pipeline.emulator.activity import Activity
from pipeline.emulator.clock import SkippingClock
from pipeline.emulator.embedded import EmbeddedServer

_TICK = 0.05
#: Beyond the instant itself: moto compares with "later than".
_BEYOND = 0.005


class Wakes(Protocol):
    """What is asked of a mapping's driver."""

    @property
    def wakes_at(self) -> float | None: ...


class Pace:
    """Called only while nothing runs. `scale`: how much faster than the machine's time it passes."""

    def __init__(self, scale: float = 1.0) -> None:
        self._scale = scale

    async def pass_time(
        self,
        clock: SkippingClock,
        server: EmbeddedServer | None,
        queues: Sequence[str],
        mappings: Iterable[Wakes],
        activity: Activity,
    ) -> None:
        """Let some time pass, not beyond the next thing that time brings about."""
        count = activity.count
        await self._wait(activity)
        if server is None or self._scale == 1.0 or activity.count != count:
            return
        windows = [mapping.wakes_at - clock.now() for mapping in mappings if mapping.wakes_at is not None]
        visible = await asyncio.to_thread(server.next_visible, queues)
        waits = windows if visible is None else [*windows, visible]
        if not waits or activity.count != count:
            await activity.wait(_TICK)
            return
        ahead = self._ahead(max(0.0, min(waits)) + _BEYOND)
        await asyncio.to_thread(server.advance, ahead)
        clock.skip(ahead)
        activity.happened()

    async def _wait(self, activity: Activity) -> None:
        await activity.wait(_TICK)

    def _ahead(self, until_next: float) -> float:
        return min(until_next, _TICK * (self._scale - 1.0))


class Skip(Pace):
    """Idle time does not pass at all: the next thing happens now."""

    def __init__(self) -> None:
        super().__init__(float("inf"))

    async def _wait(self, activity: Activity) -> None:
        return

    def _ahead(self, until_next: float) -> float:
        return until_next
