"""Plain handlers take turns: one thread works at a time, and only when the loop has nothing else to do.

Threads that run side by side would reach their calls in another order each time, and a seed would be no replay. A handler
gives its turn away while it waits for a call, so that two still interleave there.
"""

from __future__ import annotations

import asyncio
from typing import Any


class Turns:
    """Who may work now, in the order of asking. All is done on the run's loop."""

    def __init__(self) -> None:
        self._holder: object | None = None
        self._waiting: list[tuple[object, asyncio.Future[None]]] = []

    async def take(self, who: object) -> None:
        """Wait for a turn. Several threads of one handler share theirs."""
        if self._holder is who:
            return
        if self._holder is None:
            self._holder = who
        else:
            granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((who, granted))
            try:
                await granted
            except BaseException:  # also when its coroutine is closed
                self._forget(who, granted)
                raise
        try:
            await _rest()
        except BaseException:
            self.give_up(who)
            raise

    def give_up(self, who: object) -> None:
        """Let the next one work."""
        if self._holder is not who:
            return
        self._holder = self._waiting[0][0] if self._waiting else None
        for other, granted in self._waiting:
            if other is self._holder and not granted.done():
                granted.set_result(None)
        self._waiting = [one for one in self._waiting if one[0] is not self._holder]

    def _forget(self, who: object, granted: asyncio.Future[None]) -> None:
        if granted.done() and not granted.cancelled():
            self.give_up(who)
        self._waiting = [one for one in self._waiting if one[1] is not granted]


async def _rest() -> None:
    """Until nothing else is ready on the loop: what a thread does then comes after it, however fast it is."""
    ready: Any = getattr(asyncio.get_running_loop(), "_ready", ())
    while True:
        await asyncio.sleep(0)
        if not ready:
            return
