"""An execution environment that can die between any two steps, and then does nothing any more."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Callable, Collection, Coroutine, Generator, Sequence
from contextvars import ContextVar
from typing import Any, NoReturn

from pipeline.emulator.faults.kinds import Kind, Point
from pipeline.emulator.faults.plan import Faults, Now
from pipeline.telemetry.events import Fact, Observer

#: The invocation that runs: how its mapping calls the function, and its number there. A function may have several mappings.
INVOCATION: ContextVar[tuple[str, int] | None] = ContextVar("INVOCATION", default=None)
#: The execution environment whose task this is.
PLACE: ContextVar[Place | None] = ContextVar("PLACE", default=None)

_CLOSINGS = 100


class Killed(BaseException):
    """Raised in the thread of a plain handler whose environment is dead: `except Exception` does not see it."""


class Place:
    """One execution environment of a function.

    `kill`: tells the sandbox that the environment is dead. `raises`: what runs there is in a thread of its own that waits
    for each call, and ends by `Killed`; else it is made of tasks, and those are never stepped again.
    """

    def __init__(
        self,
        faults: Faults,
        function: str,
        now: Now,
        *,
        raises: bool = False,
        closes_at_once: bool = False,
    ) -> None:
        self.faults = faults
        self.function = function
        self._invocation = function, 0
        self.is_dead = False
        self.is_buried = False
        self.now = now
        self.kill: Callable[[], None] = lambda: None
        self._raises = raises
        self._closes_at_once = closes_at_once
        self._tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self._gates: set[_Gate] = set()

    def begins(self) -> None:
        """An invocation begins, which the context names."""
        self._invocation = INVOCATION.get() or (self.function, 0)

    def decide(self, step: str, kinds: Collection[Kind]) -> tuple[Point, Kind | None]:
        """What goes wrong at a step of the running invocation."""
        label, number = self._invocation
        point = Point(label, step, number, self.function)
        return point, self.faults.at(point, kinds, self.now())

    def note(self, text: str, records: Sequence[str] = (), rest: str = "") -> None:
        """Keep what the running invocation did, for the story."""
        if not self.is_dead:
            label, number = self._invocation
            self.faults.note(f"{label}[{number}]", text, self.now(), records, rest)

    async def passes(self, step: str) -> None:
        """Come past a step; the environment may die here."""
        if self.is_dead:
            await self.ends()
        if self.decide(step, (Kind.CRASH,))[1] is not None:
            self.is_dead = True
            self.kill()
            if self._closes_at_once:
                asyncio.get_running_loop().call_soon(self._close)
            await self.ends()

    async def ends(self) -> NoReturn:
        """Where a call of a dead environment ends: it never returns."""
        if self._raises:
            raise Killed(f"{self.function}: the execution environment was killed")
        if self.is_buried:
            raise asyncio.CancelledError
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    def watching(self, observer: Observer) -> Observer:
        """An observer that is told nothing after the end."""

        def tell(fact: Fact) -> None:
            if not self.is_dead:
                observer(fact)

        return tell

    async def bury(self) -> None:
        """End what is left of a dead environment, when the run is over."""
        if not self.is_dead or self.is_buried:
            return
        self.is_buried = True
        tasks = [task for task in self._tasks if not task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._close()

    def task(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        """A task of this environment: when that is dead it does not go on."""
        gate = _Gate(self, work)
        self._gates.add(gate)
        task = asyncio.Task(gate, loop=loop, **options)
        self._tasks.add(task)
        return task

    def ended(self, gate: _Gate) -> None:
        """A task came to its end."""
        self._gates.discard(gate)

    def _close(self) -> None:
        gates = list(self._gates)
        self._gates.clear()
        for gate in gates:
            gate.close_inner()


class _Gate(Coroutine[Any, Any, Any]):
    """A coroutine that goes on only while its environment lives."""

    def __init__(self, place: Place, work: Coroutine[Any, Any, Any]) -> None:
        self._place = place
        self._work = work

    def send(self, value: Any) -> Any:
        """See `Coroutine`."""
        if self._place.is_dead:
            return _never()
        try:
            return self._work.send(value)
        except BaseException:
            self._place.ended(self)
            raise

    def throw(self, *error: Any) -> Any:
        """See `Coroutine`. A task that is cancelled when it is dead ends, and its work sees nothing of it."""
        if self._place.is_buried:
            raise asyncio.CancelledError
        if self._place.is_dead:
            return _never()
        try:
            return self._work.throw(*error)
        except BaseException:
            self._place.ended(self)
            raise

    def close(self) -> None:
        """See `Coroutine`."""
        if not self._place.is_dead:
            self._work.close()

    def close_inner(self) -> None:
        """Let go of the work where it stands. What it does in `finally` changes nothing: its calls do not return."""
        for _ in range(_CLOSINGS):
            with contextlib.suppress(BaseException):
                self._work.close()
                return

    def __await__(self) -> Generator[Any, Any, Any]:
        raise NotImplementedError


def _never() -> Any:
    """What a coroutine yields that waits for what never comes."""
    future: Any = asyncio.get_running_loop().create_future()
    future._asyncio_future_blocking = True
    return future


def mortal_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """From now on the loop's tasks belong to the environment in whose context they are made."""

    def make(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
        place = PLACE.get()
        return asyncio.Task(work, loop=loop, **options) if place is None else place.task(loop, work, **options)

    loop.set_task_factory(make)  # type: ignore[arg-type]
