"""Calls of a mode's `on_duplicate`: beside the records, which are done whatever becomes of them."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any

from pipeline.decisions.deadline import Deadline
from pipeline.engine.modes import OnDuplicate
from pipeline.engine.run import Run
from pipeline.engine.stage import Stage
from pipeline.engine.threads import Threads
from pipeline.ports import Clock
from pipeline.telemetry.events import HookFailed, Observer, tell

#: Seconds that a batch waits at its end for hooks that are still at it.
PATIENCE = 5.0
_AT_ONCE = 10


class Hooks:
    """The hook's calls of one batch. Nothing that happens in one reaches a record, the batch, or another call."""

    def __init__(self, stage: Stage, hook: OnDuplicate, clock: Clock, observers: Sequence[Observer]) -> None:
        self._stage = stage
        self._hook = hook
        self._clock = clock
        self._observers = observers
        self._threads = Threads(_AT_ONCE)
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._calls: set[asyncio.Task[None]] = set()

    def call(self, run: Run, values: list[Any]) -> None:
        """Call it for a repeat; `values`: what is kept of the first run."""
        try:
            given = partial(self._hook, run.record(self._stage), values)
        except Exception as error:  # its payload cannot be parsed
            self._failed(run, error)
            return
        call = asyncio.get_running_loop().create_task(self._call(run, given))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def aclose(self, deadline: Deadline) -> None:
        """Wait for the calls, for a while, and end those that do not."""
        left = deadline.left(self._clock.monotonic())
        calls = list(self._calls)
        if calls:
            await asyncio.wait(calls, timeout=PATIENCE if left is None else min(PATIENCE, max(left, 0.0)))
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        self._threads.close()

    async def _call(self, run: Run, given: partial[Any]) -> None:
        try:
            async with self._turns:
                # A plain function would hold the loop up.
                told = given() if inspect.iscoroutinefunction(self._hook) else await self._threads.run(given)
                if inspect.isawaitable(told):
                    await told
        except GeneratorExit:
            raise
        except asyncio.CancelledError:
            self._failed(run, TimeoutError(f"it did not end within {PATIENCE:g} seconds of its batch"))
        except BaseException as error:  # also `sys.exit()`: it must not end the loop
            self._failed(run, error)

    def _failed(self, run: Run, error: BaseException) -> None:
        tell(self._observers, HookFailed(**run.told(self._stage, self._clock.now()), error=error))
