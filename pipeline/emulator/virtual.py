"""Virtual time: an event loop whose clock jumps to the next timer when nothing else is to be done."""

from __future__ import annotations

import asyncio
import math
import selectors
import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from typing import Any, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: What the virtual clock shows at the start, epoch seconds.
EPOCH = 1_800_000_000.0


#: When the running invocation is over, in its loop's time. What a thread does for it may take as long in reality.
DEADLINE: ContextVar[float | None] = ContextVar("DEADLINE", default=None)
#: The work that the running thread does for somebody on the loop.
WORK: ContextVar[Work | None] = ContextVar("WORK", default=None)

#: Real seconds after which a loop that is busy all the time, at one moment, is taken to go round in circles: the first
#: time, and when that was seen before; and between two steps of its clock then.
_BUSY_SECONDS, _BUSY_AGAIN_SECONDS, _STEP_SECONDS = 15.0, 0.5, 0.02
#: Rounds of a busy loop in which its pipe is not looked at, which is a call of the system each time.
_MOST_SKIPPED = 16


class Work:
    """What a thread or another process does, for somebody who waits for it on a virtual loop."""

    def __init__(self, deadline: float | None) -> None:
        self.deadline = deadline  #: the loop's time at which nobody waits any more; None: not known
        self.took = 0.0  #: real seconds, since the clock moved last
        self.calls = 0  #: of services, under way: while one is, this is not at work

    def left(self, loop: VirtualLoop, timeout: float | None) -> float:
        """Real seconds for which the clock stands for it. `timeout`: to the next timer."""
        to_timer = math.inf if timeout is None else timeout
        allowed = to_timer if self.deadline is None else self.deadline - loop.now
        return min(allowed, loop.patience) - self.took

    @contextmanager
    def waits(self) -> Generator[None, None, None]:
        """While the block lasts it waits for a service's answer: a slow one may take virtual time."""
        self.calls += 1
        try:
            yield
        finally:
            self.calls -= 1


class _Selector(selectors.SelectSelector):
    """Never waits for a timer: it moves the clock instead, unless a thread is at work."""

    loop: VirtualLoop
    _busy_since: float | None = None
    _patience = _BUSY_SECONDS
    _skipped = 0  #: rounds of the loop, one after the other, in which nobody looked at the pipe

    def select(self, timeout: float | None = None) -> Any:
        if timeout == 0:
            # What threads bring stands among what is ready already: the pipe by which they wake the loop can wait.
            self._skipped += 1
            if self._skipped < _MOST_SKIPPED and len(self.get_map()) == 1:
                return []
            self._skipped = 0
            self._look_at_busy()
            return super().select(0)
        self._skipped = 0
        ready = super().select(0)
        self._busy_since, self._patience = None, max(self._patience, _BUSY_AGAIN_SECONDS)
        if ready:
            return ready
        at_work = [one for one in self.loop.works if not one.calls]
        if at_work:
            return self._wait(timeout, at_work)
        # Without a timer only another thread can bring something.
        return super().select(None) if timeout is None else self._jump(timeout)

    def _wait(self, timeout: float | None, at_work: list[Work]) -> Any:
        # What a thread does takes no time, however slow this machine is: otherwise no run would be the same twice. But one
        # that works for as long as it may take is late: for it the clock goes on.
        left = max(one.left(self.loop, timeout) for one in at_work)
        if self.loop.strangers and timeout is not None:
            left = min(left, timeout - max(one.took for one in at_work))
        if left <= 0 and timeout is not None:
            return self._jump(timeout)
        began = time.monotonic()
        ready = super().select(left if 0 < left < math.inf else None)
        for one in at_work:
            one.took += time.monotonic() - began
        return ready

    def _jump(self, seconds: float) -> Any:
        self.loop.now += seconds
        for one in self.loop.works:
            if one.calls or one.deadline is None:  # else it is late, and stays so
                one.took = 0.0
        return []

    def _look_at_busy(self) -> None:
        """A coroutine that yields without end keeps the loop busy, and its own deadline away: let the clock step on."""
        now = time.monotonic()
        if self._busy_since is None:
            self._busy_since = now
        elif now - self._busy_since > self._patience:
            self._busy_since, self._patience = now, _STEP_SECONDS
            timers: Any = getattr(self.loop, "_scheduled", [])
            if timers:
                self._jump(max(0.0, timers[0].when() - self.loop.now))


class _Moment(float):
    """When a timer is due. Of two at one moment, the one that was set first is first: a heap alone does not keep that."""

    number: int

    def __lt__(self, other: float) -> bool:
        return self.number < other.number if self == other and isinstance(other, _Moment) else float(self) < other


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that never waits, except for threads that are at work.

    The clock stands while a thread works, until it has worked, in reality, for as long as its invocation may take; where no
    deadline is known, until the next timer. `patience`: real seconds after which it is taken to hang anyway.
    """

    def __init__(self, *, patience: float = math.inf) -> None:
        selector = _Selector()
        selector.loop = self
        self.now = 0.0
        self.patience = patience
        self.works: list[Work] = []  #: what somebody waits for
        self.strangers = 0  #: calls under way from threads that do nobody's work, such as those that a handler starts
        self._timers = 0
        super().__init__(selector)

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As every loop's."""
        moment = _Moment(when)
        moment.number = self._timers = self._timers + 1
        return super().call_at(moment, callback, *args, context=context)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self.now

    @contextmanager
    def thread_works(self) -> Generator[Work, None, None]:
        """While the block lasts a thread is at work. What copies the context in it does so for that work."""
        work = Work(DEADLINE.get())
        token = WORK.set(work)
        self.works.append(work)
        try:
            yield work
        finally:
            self.works.remove(work)
            WORK.reset(token)

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """As every loop's; the clock stands until it is done, given up or late."""
        work = Work(DEADLINE.get())
        future = super().run_in_executor(executor, func, *args)
        self.works.append(work)
        future.add_done_callback(lambda _: self.works.remove(work))
        return future

    @contextmanager
    def stranger_calls(self) -> Generator[None, None, None]:
        """While the block lasts a thread that does nobody's work waits for a service."""
        self.strangers += 1
        try:
            yield
        finally:
            self.strangers -= 1


@contextmanager
def within(seconds: float) -> Generator[None, None, None]:
    """While the block lasts, an invocation runs that is over after these seconds of the running loop's time."""
    token = DEADLINE.set(asyncio.get_running_loop().time() + seconds)
    try:
        yield
    finally:
        DEADLINE.reset(token)


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
