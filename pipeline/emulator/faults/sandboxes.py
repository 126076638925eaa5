"""Execution environments that can be killed: of the toolkit's engine, of a pipeline on a server, of a plain handler."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from pipeline.emulator.boto import AROUND
from pipeline.emulator.faults.kinds import Kind
from pipeline.emulator.faults.place import PLACE, Place
from pipeline.emulator.functions.engine import EngineSandbox
from pipeline.emulator.functions.function import Invocation, InvocationFailed, Sandbox, exited
from pipeline.emulator.mappings.answers import Cause
from pipeline.emulator.services.client import Around
from pipeline.emulator.turns import Turns


class EngineFaults:
    """The toolkit's engine on the running loop, in an environment that can die; see `Sandbox`."""

    def __init__(self, place: Place, inner: EngineSandbox, around: Around) -> None:
        self._place = place
        self._inner = inner
        self._around = around
        place.kill = inner.kill

    async def start(self) -> None:
        """See `Sandbox`."""
        await self._inner.start()

    async def invoke(self, invocation: Invocation) -> Any:
        """See `Sandbox`."""
        self._place.begins()
        place, around = PLACE.set(self._place), AROUND.set(self._around)
        try:
            return await self._inner.invoke(invocation)
        finally:
            AROUND.reset(around)
            PLACE.reset(place)

    async def close(self) -> None:
        """See `Sandbox`."""
        await self._inner.close()


class PlainFaults:
    """A plain handler in a thread, in an environment that can die; see `Sandbox`. `turns`: of the run."""

    def __init__(self, place: Place, inner: Sandbox, turns: Turns) -> None:
        self._place = place
        self._inner = inner
        self._turns = turns

    async def start(self) -> None:
        """See `Sandbox`."""
        await self._inner.start()

    async def invoke(self, invocation: Invocation) -> Any:
        """See `Sandbox`."""
        place = self._place
        place.begins()
        self._dies("before handler", invocation)
        point, kind = place.decide("handler", (Kind.SLOW_HANDLER,))
        if kind is not None:
            seconds = place.faults.chance(point, "seconds").uniform(0.05, 1.2) * invocation.settings.timeout
            async with self._turns.paused():
                await asyncio.sleep(seconds)
        try:
            returned = await self._inner.invoke(invocation)
        except InvocationFailed:
            if place.is_dead:
                raise _killed(invocation) from None
            raise
        if place.is_dead:  # something in the handler caught what nothing catches
            raise _killed(invocation)
        self._dies("after handler", invocation)
        return returned

    async def close(self) -> None:
        """See `Sandbox`."""
        await self._inner.close()

    def _dies(self, step: str, invocation: Invocation) -> None:
        if self._place.decide(step, (Kind.CRASH,))[1] is not None:
            self._place.is_dead = True
            raise _killed(invocation)


class ServedFaults:
    """A pipeline's runtime in a thread, with a loop in another, in an environment that can die; see `Sandbox`.

    `runtime_loop`: the loop on which the environment's calls were seen, as soon as there is one.
    """

    def __init__(self, place: Place, inner: Sandbox) -> None:
        self._place = place
        self._inner = inner
        self._loop = asyncio.get_running_loop()
        self._runtime_loop: asyncio.AbstractEventLoop | None = None
        self._killed = self._loop.create_future()
        place.kill = self._kill

    async def start(self) -> None:
        """See `Sandbox`."""
        await self._inner.start()

    async def invoke(self, invocation: Invocation) -> Any:
        """See `Sandbox`."""
        self._place.begins()
        work = asyncio.ensure_future(self._inner.invoke(invocation))
        try:
            await asyncio.wait([work, self._killed], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            raise
        if self._killed.done():
            await self._inner.close()  # its answer comes at once
            await asyncio.gather(work, return_exceptions=True)
            raise _killed(invocation)
        return work.result()

    async def close(self) -> None:
        """See `Sandbox`."""
        await self._inner.close()
        if self._place.is_dead and self._runtime_loop is not None:
            self._place.is_buried = True
            with contextlib.suppress(RuntimeError):  # it is closed already
                self._runtime_loop.call_soon_threadsafe(_cancel_all, self._runtime_loop)

    def _kill(self) -> None:
        self._runtime_loop = asyncio.get_running_loop()
        self._loop.call_soon_threadsafe(_done, self._killed)


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _killed(invocation: Invocation) -> InvocationFailed:
    return exited(Cause.EXITED, invocation.request_id, "signal: killed")
