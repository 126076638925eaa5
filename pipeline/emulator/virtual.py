"""Virtual time: an event loop whose clock jumps to the next timer when nothing else is to be done."""

from __future__ import annotations

import asyncio
import math
import selectors
import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

#: What the virtual clock shows at the start, epoch seconds.
EPOCH = 1_800_000_000.0


class _Selector(selectors.SelectSelector):
    """Never waits for a timer: it moves the clock instead. While a thread is at work, a timer takes its real time."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:  # without a timer only another thread can bring something
            return super().select(None)
        if self.loop.threads > 0:  # less than none: an invocation was given up whose thread waits for a slow call
            return self._wait(timeout)
        return self._jump(timeout)

    def _wait(self, timeout: float) -> Any:
        # What a thread does before the timer takes no time: otherwise no run would be the same twice. But all that it
        # does counts towards the timer, or one that talks without end would never reach its deadline.
        left = min(timeout, self.loop.patience) - self.loop.worked
        if left <= 0:
            return self._jump(timeout)
        began = time.monotonic()
        ready = super().select(left)
        self.loop.worked += time.monotonic() - began
        return ready or self._jump(timeout)

    def _jump(self, seconds: float) -> Any:
        self.loop.now += seconds
        self.loop.worked = 0.0
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that never waits, except for threads that are at work.

    `patience`: real seconds after which a thread that is still at work is taken to hang, so that the clock jumps.
    """

    def __init__(self, *, patience: float = math.inf) -> None:
        selector = _Selector()
        selector.loop = self
        self.now = 0.0
        self.patience = patience
        self.threads = 0  #: calls in threads that somebody waits for
        self.worked = 0.0  #: real seconds that they were at work since the clock jumped last
        super().__init__(selector)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self.now

    @contextmanager
    def thread_works(self) -> Generator[None, None, None]:
        """While the block lasts a thread is at work: the clock does not jump."""
        self.threads += 1
        try:
            yield
        finally:
            self._thread_ended(None)

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """As every loop's; the clock does not jump before it is done or given up."""
        future = super().run_in_executor(executor, func, *args)
        self.threads += 1
        future.add_done_callback(self._thread_ended)
        return future

    def _thread_ended(self, _: object) -> None:
        self.threads -= 1
        if not self.threads:
            self.worked = 0.0


class VirtualClock:
    """The clock of a virtual loop. `loop`: default the running one. `skew`: seconds by which its wall clock is wrong."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None, *, skew: float = 0.0) -> None:
        self.skew = skew
        self._loop = loop

    def now(self) -> float:
        """Epoch seconds: they begin at `EPOCH`."""
        return EPOCH + self.monotonic() + self.skew

    def monotonic(self) -> float:
        """The loop's time."""
        return (self._loop or asyncio.get_running_loop()).time()

    async def sleep(self, seconds: float) -> None:
        """Wait in virtual time."""
        await asyncio.sleep(seconds)


def virtually(work: Coroutine[Any, Any, T], *, patience: float = math.inf) -> T:
    """Run a coroutine in virtual time."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(patience=patience)) as runner:
        return runner.run(work)
