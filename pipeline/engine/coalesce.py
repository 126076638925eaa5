"""Shared calls: requests of records that run side by side travel together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import Context, copy_context
from typing import Any, Generic, TypeVar

A = TypeVar("A")
R = TypeVar("R")
T = TypeVar("T")

#: How long a request waits for company while other records are still busy, in seconds.
LINGER = 0.01


class Activity:
    """Counts the workers that may still ask for something.

    When the last one waits for an answer, nobody can join a shared call any more, and all that is
    gathered goes out at once. So records that keep pace pay no delay for sharing.
    """

    def __init__(self) -> None:
        self._around: Context | None = None
        self._busy = 0
        self._gathering: list[Coalescer[Any, Any]] = []

    def settle_here(self) -> None:
        """From now on shared work is done in the context variables of here."""
        self._around = copy_context()

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task for what belongs to none of the records, whichever of them it is that begins it."""
        # A copy: two calls at once must not see what the other sets.
        around = None if self._around is None else self._around.copy()
        return asyncio.get_running_loop().create_task(work, context=around)

    def join(self, workers: int = 1) -> None:
        """Workers have begun, or have their answers."""
        self._busy += workers

    def leave(self) -> None:
        """A worker has ended, or waits for an answer."""
        self._busy -= 1
        if self._busy <= 0:
            gathering, self._gathering = self._gathering, []
            for coalescer in gathering:
                coalescer.flush()

    def gathers(self, coalescer: Coalescer[Any, Any]) -> None:
        """Remember to flush it when nobody is busy."""
        self._gathering.append(coalescer)

    async def wait(self, answers: Sequence[asyncio.Future[Any]]) -> None:
        """Wait, as one worker, for answers that were asked for."""
        missing = len(answers)
        is_back = False

        def answered(_: object) -> None:
            # Counted here and not when the task wakes: those that were answered together must all
            # count as busy before the first of them asks again.
            nonlocal missing, is_back
            missing -= 1
            if missing == 0 and not is_back:
                is_back = True
                self.join()

        for answer in answers:
            answer.add_done_callback(answered)
        self.leave()
        try:
            await asyncio.wait(answers)
        except asyncio.CancelledError:
            for answer in answers:
                answer.cancel()
            raise
        finally:
            if not is_back:
                is_back = True
                self.join()


class Coalescer(Generic[A, R]):
    """Joins requests into one call of `send`, which answers for each position.

    A call goes out when requests of the weight `limit` are gathered (by default each weighs 1), when
    nobody is busy any more, or after `linger` seconds; with `in_turn` not before the call before it has
    ended. An exception out of `send` is raised to everybody whose request it carried.
    """

    def __init__(
        self,
        send: Callable[[list[A]], Awaitable[Sequence[R]]],
        activity: Activity,
        *,
        limit: int,
        linger: float = LINGER,
        weight: Callable[[Sequence[A]], int] = len,
        in_turn: bool = False,
    ) -> None:
        self._send = send
        self._activity = activity
        self._limit = limit
        self._linger = linger
        self._weight = weight
        self._turn = asyncio.Lock() if in_turn else contextlib.nullcontext()
        self._waiting: list[tuple[Sequence[A], asyncio.Future[Sequence[R]]]] = []
        self._gathered = 0
        self._asked: dict[asyncio.Future[Sequence[R]], int] = {}  #: how many answers each waits for
        self._timer: asyncio.TimerHandle | None = None
        self._calls: set[asyncio.Task[None]] = set()

    async def submit(self, items: Sequence[A]) -> Sequence[R]:
        """Ask for some items and wait for their answers, in order."""
        answer = self.ask(items)
        await self._activity.wait([answer])
        return answer.result()

    def ask(self, items: Sequence[A]) -> asyncio.Future[Sequence[R]]:
        """Ask for some items; await the answer through `Activity.wait`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Sequence[R]] = loop.create_future()
        if not self._waiting:
            self._activity.gathers(self)
            self._timer = loop.call_later(self._linger, self.flush)
        self._waiting.append((items, future))
        self._asked[future] = len(items)
        self._gathered += self._weight(items)
        if self._gathered >= self._limit:
            self.flush()
        return future

    def flush(self) -> None:
        """Send what is gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._waiting:
            return
        waiting, self._waiting, self._gathered = self._waiting, [], 0
        call = self._activity.begin(self._call(waiting))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

        def given_up(_: object) -> None:
            if all(future.cancelled() for _, future in waiting):
                call.cancel()  # nobody waits for it any more

        for _, future in waiting:
            future.add_done_callback(given_up)

    async def _call(self, waiting: list[tuple[Sequence[A], asyncio.Future[Sequence[R]]]]) -> None:
        items = [item for some, _ in waiting for item in some]
        try:
            async with self._turn:
                answers = await self._send(items) if items else []
            if len(answers) != len(items):
                raise RuntimeError(f"{len(items)} requests were answered with {len(answers)} results")
        except BaseException as error:  # whatever it is, nobody may be left waiting
            for _, future in waiting:
                if not future.done():
                    future.set_exception(_raisable(error))
                    if not isinstance(error, Exception):
                        # Ended from without, mostly together with whoever waits: that nobody asks then is no news.
                        future.exception()
            if isinstance(error, asyncio.CancelledError):
                raise
            return
        finally:
            for _, future in waiting:
                self._asked.pop(future, None)
        start = 0
        for some, future in waiting:
            if not future.done():
                future.set_result(answers[start : start + len(some)])
            start += len(some)

    def give_up(self, answer: R) -> None:
        """Answer everybody who waits with this. What is on its way is cancelled when this is closed."""
        for future, count in self._asked.items():
            if not future.done():
                future.set_result([answer] * count)

    async def aclose(self) -> None:
        """Cancel the calls that are still running."""
        calls = list(self._calls)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


def _raisable(error: BaseException) -> BaseException:
    """What means something else when an await raises it: a cancelled call is not the waiter's own cancellation."""
    if isinstance(error, (StopIteration, GeneratorExit, asyncio.CancelledError)):
        return RuntimeError(f"a shared call ended with {type(error).__name__}")
    return error
