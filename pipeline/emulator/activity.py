"""Whether anything goes on: what the mappings share, and what draining looks at."""

from __future__ import annotations

import asyncio


class Activity:
    """Counts what happens, so that "nothing happens any more" can be known and waited for.

    A mapping is quiet at a count when it asked its queue at that count and got nothing. When all
    are quiet at the present count, nothing that happened before is still on its way.
    """

    def __init__(self) -> None:
        self.count = 0
        self.running = 0
        self._changed = asyncio.Event()

    def happened(self) -> None:
        """Something happened: messages were sent or delivered, an invocation ended, time was skipped."""
        self.count += 1
        self._wake()

    def began(self) -> None:
        """An invocation began."""
        self.running += 1
        self.happened()

    def ended(self) -> None:
        """An invocation ended, and its messages are dealt with."""
        self.running -= 1
        self.happened()

    def became_quiet(self) -> None:
        """A mapping found nothing: wake who waits for that."""
        self._wake()

    async def wait(self, seconds: float | None) -> None:
        """Return at the next change, or after `seconds`; None: only then."""
        changed = self._changed
        try:
            # Not `wait_for`: before Python 3.12 it loses a cancellation that arrives with the change,
            # and the mapping that was to end goes on for ever.
            async with asyncio.timeout(seconds):
                await changed.wait()
        except TimeoutError:
            return

    async def wait_for_news(self, count: int, seconds: float) -> None:
        """Return when something happened after `count`, or after `seconds`."""
        end = asyncio.get_running_loop().time() + seconds
        while self.count == count and (left := end - asyncio.get_running_loop().time()) > 0:
            await self.wait(left)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
