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

T = TypeVar("T")


class SystemClock:
    """The machine's time."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

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
        self._made: dict[Hashable, asyncio.Task[Any]] = {}
        self._stack = AsyncExitStack()

    @property
    def clock(self) -> Clock:
        return self._clock

    def chance(self) -> float:
        return self._chance()

    def token(self) -> str:
        return self._token()

    async def once(self, key: Hashable, make: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        task = self._made.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = asyncio.ensure_future(self._stack.enter_async_context(make()))
            self._made[key] = task
        # Shielded: a record that gives up waiting must not take it away from the others.
        made: T = await asyncio.shield(task)
        return made

    async def aclose(self) -> None:
        """Close what was made, last made first."""
        pending = [task for task in self._made.values() if not task.done()]
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        self._made.clear()
        await self._stack.aclose()
