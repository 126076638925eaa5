"""Virtual time: an event loop whose clock jumps to the next timer when nothing else is to be done."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

#: What the virtual clock shows at the start, epoch seconds.
EPOCH = 1_800_000_000.0


class _Selector(selectors.SelectSelector):
    """Never waits for a timer: it moves the clock instead."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            return super().select(None)  # only another thread can bring something
        if self.loop.threads:
            return super().select(min(timeout, 0.05)) or self._advance(timeout)
        return self._advance(timeout)

    def _advance(self, seconds: float) -> Any:
        self.loop.now += seconds
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """`threads`: True when threads take part; they get a moment of real time before the clock jumps."""

    def __init__(self, *, threads: bool = False) -> None:
        selector = _Selector()
        selector.loop = self
        self.now = 0.0
        self.threads = threads
        super().__init__(selector)

    def time(self) -> float:
        return self.now


class VirtualClock:
    """The engine's clock over a virtual loop."""

    def now(self) -> float:
        return EPOCH + self.monotonic()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def virtually(work: Coroutine[Any, Any, T], *, threads: bool = False) -> T:
    """Run a coroutine in virtual time."""
    loop = VirtualLoop(threads=threads)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(work)
