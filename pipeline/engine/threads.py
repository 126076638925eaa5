"""Threads for plain functions: a fixed number, reused, and never in the way of an exit."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class _Call:
    """One function to be called in a thread, and who waits for it."""

    def __init__(
        self, function: Callable[[], Any], loop: asyncio.AbstractEventLoop, around: contextvars.Context | None
    ) -> None:
        self.future: asyncio.Future[Any] = loop.create_future()
        self.task = asyncio.current_task()
        self.has_begun = False
        self.is_given_up = False  #: nobody waits for it any more
        self._function = function
        self._loop = loop
        self._context = contextvars.copy_context() if around is None else around

    def work(self, deliver: Callable[[_Call, Any, BaseException | None], None]) -> None:
        """Call the function, in this thread, unless it was given up before its turn."""
        if self.is_given_up:
            return
        self.has_begun = True
        outcome, error = None, None
        try:
            outcome = self._context.run(self._function)
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(deliver, self, outcome, error)


class Threads:
    """Runs plain functions beside the event loop, each call in the caller's context variables.

    The threads are daemons, unlike those of `concurrent.futures`: a function that hangs cannot be
    stopped, and must not keep the process from ending either. At most `limit` calls that somebody
    waits for run at once; a thread whose call was given up is replaced, so that a function that
    hangs takes no place from the others.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._running: dict[asyncio.Task[Any] | None, _Call] = {}
        self._threads = 0
        self._busy = 0

    async def run(self, function: Callable[[], T], around: contextvars.Context | None = None) -> T:
        """Call `function` in a thread and return what it returns, or raise what it raises.

        `around`: the context variables of a call that goes on with another one's; one call at a time.
        """
        # A loop that plays time must not let it jump while a thread is at work.
        thread_works = getattr(asyncio.get_running_loop(), "thread_works", contextlib.nullcontext)
        with thread_works():
            result: T = await self._run(_Call(function, asyncio.get_running_loop(), around))
            return result

    async def _run(self, call: _Call) -> Any:
        self._running[call.task] = call
        self._busy += 1
        if self._busy > self._threads and self._threads < self._limit:
            self._threads += 1
            threading.Thread(target=self._serve, args=(self._calls,), name="pipeline-handler", daemon=True).start()
        self._calls.put(call)
        try:
            result = await call.future
        except asyncio.CancelledError:
            self._give_up(call)
            raise
        finally:
            if not call.is_given_up:
                del self._running[call.task]
        return result

    def left_running(self, task: asyncio.Task[Any] | None) -> bool:
        """True when a function that this task called was given up while it ran; it may still be at it."""
        call = self._running.get(task)
        return call is not None and call.has_begun

    @property
    def is_running(self) -> bool:
        """True when any function is at it, waited for or not."""
        return any(call.has_begun for call in self._running.values())

    def close(self) -> None:
        """Let idle threads end; a busy one ends after its call."""
        for _ in range(self._threads):
            self._calls.put(None)
        self._threads = 0

    def _give_up(self, call: _Call) -> None:
        if call.future.done() and not call.future.cancelled():
            return  # its answer came together with the cancellation
        call.is_given_up = True
        self._busy -= 1
        if not call.has_begun:
            del self._running[call.task]
        else:
            self._threads -= 1  # another may be started in its place; this one ends with its call

    def _deliver(self, call: _Call, outcome: Any, error: BaseException | None) -> None:
        if call.is_given_up:
            if self._running.get(call.task) is call:
                del self._running[call.task]
            return
        self._busy -= 1
        if call.future.done():
            return
        if error is None:
            call.future.set_result(outcome)
        elif isinstance(error, (StopIteration, GeneratorExit)):  # out of an await they would mean something else
            call.future.set_exception(RuntimeError(f"the handler raised {type(error).__name__}"))
        else:
            call.future.set_exception(error)

    def _serve(self, calls: SimpleQueue[_Call | None]) -> None:
        while (call := calls.get()) is not None:
            call.work(self._deliver)
            if call.is_given_up and call.has_begun:
                return  # it was replaced meanwhile
