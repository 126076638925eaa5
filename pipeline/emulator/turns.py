"""Plain handlers take turns: one thread works at a time, and only when the loop has nothing else to do.

Threads that run side by side would reach their calls in another order each time, and a seed would be no replay. A handler
gives its turn away while it waits for a call, so that two still interleave there. What it works for counts towards its own
deadline, and not towards those of the others that wait.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

from pipeline.emulator.boto import AROUND
from pipeline.emulator.functions.function import Invocation, Sandbox
from pipeline.emulator.services.client import Around, Go

#: Lambda sets it for each invocation; botocore sends it with each call.
_TRACE = "_X_AMZN_TRACE_ID"
#: What holds the turn of the running invocation.
_HOLDER: ContextVar[object | None] = ContextVar("HOLDER", default=None)


class Turns:
    """Who may work now, in the order of asking. All is done on the run's loop."""

    def __init__(self) -> None:
        self._holder: object | None = None
        self._waiting: list[tuple[object, asyncio.Future[None]]] = []
        self._variables: dict[object, Mapping[str, str]] = {}
        self._hidden: dict[str, str | None] | None = None  #: what stood in the place of the holder's variables

    @asynccontextmanager
    async def turn(self, variables: Mapping[str, str]) -> AsyncGenerator[None, None]:
        """A turn of an invocation. `variables`: of its environment; they are the process's while it works."""
        who = object()
        self._variables[who] = variables
        token = _HOLDER.set(who)
        try:
            await self.take(who)
            yield
        finally:
            self.give_up(who)
            del self._variables[who]
            _HOLDER.reset(token)

    @asynccontextmanager
    async def paused(self, who: object | None = None) -> AsyncGenerator[None, None]:
        """Let others work meanwhile. `who`: default the running invocation."""
        who = _HOLDER.get() if who is None else who
        self.give_up(who)
        try:
            yield
        finally:
            if who in self._variables:  # else nobody waits for it any more
                await self.take(who)

    def sets(self, who: object, variables: Mapping[str, str]) -> None:
        """Add variables to those of an invocation."""
        if who not in self._variables:
            return
        self._variables[who] = {**self._variables[who], **variables}
        if self._holder is who and self._hidden is not None:
            self._hidden = {**{name: os.environ.get(name) for name in variables}, **self._hidden}
            os.environ.update(variables)

    async def take(self, who: object) -> None:
        """Wait for a turn. Several threads of one handler share theirs."""
        if self._holder is who:
            return
        if self._holder is None:
            self._holder = who
        else:
            granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((who, granted))
            try:
                await granted
            except BaseException:  # also when its coroutine is closed
                self._forget(who, granted)
                raise
        if self._hidden is None:
            self._begin(who)
            try:
                await self._rest(who)
            except BaseException:
                self.give_up(who)
                raise

    def give_up(self, who: object) -> None:
        """Let the next one work."""
        if self._holder is not who:
            return
        self._end(who)
        # Who was cancelled while it waited may not know it yet: it would never give back what it is given now.
        self._waiting = [one for one in self._waiting if not one[1].done()]
        self._holder = self._waiting[0][0] if self._waiting else None
        for other, granted in self._waiting:
            if other is self._holder:
                granted.set_result(None)
        self._waiting = [one for one in self._waiting if one[0] is not self._holder]

    async def _rest(self, who: object) -> None:
        """Until nothing else is ready on the loop: what a thread does then comes after it, however fast it is."""
        ready: Any = getattr(asyncio.get_running_loop(), "_ready", ())
        while self._holder is who:  # another call of the same handler may give the turn away again
            await asyncio.sleep(0)
            if not ready:
                return

    def _begin(self, who: object) -> None:
        variables = self._variables.get(who, {})
        self._hidden = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)

    def _end(self, who: object) -> None:
        if self._hidden is None:
            return
        for name, value in self._hidden.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._hidden = None

    def _forget(self, who: object, granted: asyncio.Future[None]) -> None:
        if granted.done() and not granted.cancelled():
            self.give_up(who)
        self._waiting = [one for one in self._waiting if one[1] is not granted]


class TurnSandbox:
    """An environment of a plain handler in a thread, which gives its turn away at its calls; see `Sandbox`.

    Its function holds a turn for each invocation. `around`: stands between its calls and the services.
    """

    def __init__(self, inner: Sandbox, turns: Turns, around: Around | None = None) -> None:
        self._inner = inner
        self._turns = turns
        self._around = around or _straight
        self._home = asyncio.get_running_loop()
        self._holder: object | None = None

    async def start(self) -> None:
        """See `Sandbox`. The thread works in the context variables of who started it."""
        self._holder = _HOLDER.get()
        token = AROUND.set(self._call)
        try:
            await self._inner.start()
        finally:
            AROUND.reset(token)
            self._holder = None

    async def invoke(self, invocation: Invocation) -> Any:
        """See `Sandbox`."""
        self._holder = _HOLDER.get()
        self._turns.sets(self._holder, {_TRACE: invocation.trace_header})
        try:
            return await self._inner.invoke(invocation)
        finally:
            self._holder = None

    async def close(self) -> None:
        """See `Sandbox`."""
        await self._inner.close()

    async def _call(self, service: str, operation: str, parameters: Mapping[str, Any], go: Go) -> dict[str, Any]:
        holder = self._holder
        # A handler with a loop of its own, or one that nobody waits for any more.
        if holder is None or asyncio.get_running_loop() is not self._home:
            return await self._around(service, operation, parameters, go)
        async with self._turns.paused(holder):
            return await self._around(service, operation, parameters, go)


async def _straight(service: str, operation: str, parameters: Mapping[str, Any], go: Go) -> dict[str, Any]:
    return await go()
