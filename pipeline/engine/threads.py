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


class Threads:
    """Runs plain functions beside the event loop, each call in the caller's context variables.

    The threads are daemons, unlike those of `concurrent.futures`: a function that hangs cannot be
    stopped, and must not keep the process from ending either. At most `limit` run at once; more
    calls wait.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads = 0
        self._busy = 0

    async def run(self, function: Callable[[], T]) -> T:
        """Call `function` in a thread and return what it returns, or raise what it raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        context = contextvars.copy_context()

        def work() -> None:
            outcome, error = None, None
            try:
                outcome = context.run(function)
            except BaseException as raised:
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._deliver, future, outcome, error)

        self._busy += 1
        if self._busy > self._threads and self._threads < self._limit:
            self._threads += 1
            threading.Thread(target=_serve, args=(self._calls,), name="pipeline-handler", daemon=True).start()
        self._calls.put(work)
        return await future

    def close(self) -> None:
        """Let idle threads end; a busy one ends after its call."""
        for _ in range(self._threads):
            self._calls.put(None)
        self._threads = 0

    def _deliver(self, future: asyncio.Future[Any], outcome: Any, error: BaseException | None) -> None:
        self._busy -= 1
        if future.done():
            return
        if error is None:
            future.set_result(outcome)
        elif isinstance(error, (StopIteration, GeneratorExit)):  # out of an await they would mean something else
            future.set_exception(RuntimeError(f"the handler raised {type(error).__name__}"))
        else:
            future.set_exception(error)


def _serve(calls: SimpleQueue[Callable[[], None] | None]) -> None:
    while (work := calls.get()) is not None:
        work()
