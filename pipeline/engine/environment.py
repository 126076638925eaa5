"""What lives from batch to batch: the clock, chance, and whatever was made once."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Callable, Hashable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, TypeVar

from pipeline.ports import Clock
from pipeline.telemetry.spans import outside

T = TypeVar("T")


class SystemClock:
    """The machine's time."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ProcessEnvironment:
    """The environment of a process. It belongs to one event loop; close it there."""

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        chance: Callable[[], float] = random.random,
        token: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._clock = clock or SystemClock()
        self._chance = chance
        self._token = token
        self._made: dict[Hashable, asyncio.Future[Any]] = {}
        self._waiting: dict[Hashable, int] = {}
        self._stack = AsyncExitStack()

    @property
    def clock(self) -> Clock:
        return self._clock

    def chance(self) -> float:
        return self._chance()

    def token(self) -> str:
        return self._token()

    def provide(self, key: Hashable, made: object) -> None:
        """From now on `once` gives this for the key. It is not closed with the environment."""
        ready: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        ready.set_result(made)
        self._made[key] = ready

    async def once(self, key: Hashable, make: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        task = self._made.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            # It outlives the record that asks first: what it logs or begins later is not that record's.
            task = asyncio.get_running_loop().create_task(self._make(make()), context=outside())
            self._made[key] = task
        elif task.done():
            made: T = task.result()
            return made
        self._waiting[key] = self._waiting.get(key, 0) + 1
        try:
            # Shielded: a record that gives up waiting must not take it away from the others.
            return await asyncio.shield(task)
        finally:
            self._leave(key, task)

    async def _make(self, context: AbstractAsyncContextManager[T]) -> T:
        try:
            return await self._stack.enter_async_context(context)
        except (SystemExit, KeyboardInterrupt) as error:
            # Out of a task they would end the event loop, and everything on it.
            raise RuntimeError(f"ended with {type(error).__name__} while it was opened") from error

    def _leave(self, key: Hashable, task: asyncio.Future[Any]) -> None:
        """When the last one gives up waiting, whoever comes next tries anew: it may hang for ever."""
        self._waiting[key] -= 1
        if self._waiting[key]:
            return
        del self._waiting[key]
        if not task.done():
            task.cancel()
            self._made.pop(key, None)

    async def aclose(self) -> None:
        """Close what was made, last made first."""
        pending = [task for task in self._made.values() if not task.done()]
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        self._made.clear()
        await self._stack.aclose()
