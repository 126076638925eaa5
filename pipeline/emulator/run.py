"""A run: sources, the functions that read them, and what one asks of both. What it stands on is its backend's matter."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

from pipeline.aws.client import sink_error
from pipeline.emulator.activity import Activity
from pipeline.emulator.backend import Backend
from pipeline.emulator.driver import Handling, Invocable, QueueDriver, ShardDriver
from pipeline.emulator.local_source import DeadLetterMessage, Depth, LocalSource
from pipeline.emulator.payloads import Key
from pipeline.emulator.report import Report, Tally
from pipeline.errors import ConfigurationError, PipelineError, SinkError, SinkUnavailable

T = TypeVar("T")
#: Seconds between two looks whether the backend is still there.
_CHECK_SECONDS = 1.0


class DrainTimeout(PipelineError):
    """The sources did not become empty in time; the message says what is left."""


@dataclass(frozen=True)
class Mapped:
    """One event source mapping of a run."""

    label: str  #: the handler's name in the report
    source: LocalSource
    tally: Tally
    driver: QueueDriver | ShardDriver
    #: The engine writes this handler's letters to the source's dead-letter queue, and says so.
    tells_letters: bool
    dead_before: int  #: dead letters that stood there before


class Run:
    """What runs on this machine. `stack` ends it."""

    def __init__(self, backend: Backend, stack: AsyncExitStack) -> None:
        self.backend = backend
        self.activity = Activity()
        backend.wakes(self.activity)
        self.mapped: list[Mapped] = []
        self._stack = stack
        self._tasks: dict[str, asyncio.Task[None]] = {}  #: what runs each mapping
        self._failure: BaseException | None = None
        self._is_told = False  #: somebody was told of it

    async def map(
        self,
        label: str,
        source: LocalSource,
        function: Invocable,
        *,
        tally: Tally | None = None,
        limit: int,
        tells_letters: bool = False,
    ) -> Mapped:
        """Bring a source's records to a function from now on. `limit`: invocations at once on this machine.

        Raises `ConfigurationError` for a label that is taken.
        """
        if self.is_mapped(label):
            raise ConfigurationError(f"'{label}' has a mapping already: give this one another name")
        tally = tally or Tally()
        handling = Handling(
            label=label, function=function, tally=tally, activity=self.activity, clock=self.backend.clock
        )
        driver = source.driver(handling, limit)
        mapped = Mapped(label, source, tally, driver, tells_letters, await source.dead_count())
        self.mapped.append(mapped)
        self._tasks[label] = self.beside(driver.run())
        return mapped

    def is_mapped(self, label: str) -> bool:
        """A mapping is called so."""
        return label in self._tasks

    async def unmap(self, label: str) -> None:
        """End a mapping; what is at work comes to its end. A stream's checkpoints are forgotten."""
        self.mapped = [mapped for mapped in self.mapped if mapped.label != label]
        await _end(self._tasks.pop(label))

    async def stop(self) -> None:
        """End every mapping; what is at work comes to its end."""
        await asyncio.gather(*map(_end, self._tasks.values()))

    def beside(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something beside the rest until the run ends; a failure of it fails whoever drains."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._note_end)
        self._stack.push_async_callback(_end, task)
        return task

    async def watch(self) -> None:
        """Fail the run when its backend has ended."""
        while True:
            self.backend.check()
            await asyncio.sleep(_CHECK_SECONDS)

    async def offer(
        self,
        source_name: str,
        payloads: Sequence[Any],
        *,
        key: str | Callable[[Any], str] | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> list[SinkError | None]:
        """Send payloads to a source; for each position None or why it was not taken."""
        self.backend.check()
        errors = await self._asked(self.source(source_name).offer(payloads, _key(key), attributes))
        if any(isinstance(error, SinkUnavailable) for error in errors):
            self.backend.check()
        self.activity.happened()
        return errors

    async def send(
        self,
        source_name: str,
        payloads: Iterable[Any],
        *,
        key: str | Callable[[Any], str] | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        """Like `offer`, but raises `PipelineError` for the first one that was not taken."""
        errors = await self.offer(source_name, list(payloads), key=key, attributes=attributes)
        for position, error in enumerate(errors):
            if error is not None:
                raise PipelineError(f"payload {position} was not sent to '{source_name}': {error}") from error

    async def drain(self, timeout: float | None) -> Report:  # noqa: ASYNC109 - the public name
        """Wait until every queue is empty, every stream is read to its end, and nothing runs; the report.

        Raises `DrainTimeout` after `timeout` seconds (None: never), and says what is left.
        """
        try:
            async with asyncio.timeout(timeout):
                while not await self.is_drained():
                    await self.pass_time()
        except TimeoutError:
            raise DrainTimeout(await self._what_is_left(timeout)) from None
        return await self.report(drained=True)

    async def broken(self) -> None:
        """Raise what broke the run; returns never."""
        while True:
            self.check()
            await self.activity.wait(None)

    async def pass_time(self) -> None:
        """Wait a moment: until something happens, or while nothing runs by letting time pass."""
        if self.is_idle:
            queues = [name for mapped in self.mapped for name in mapped.source.delaying_queues]
            await self.backend.pass_time(queues, [mapped.driver for mapped in self.mapped], self.activity)
        else:
            await self.backend.wait(self.activity)

    @property
    def is_idle(self) -> bool:
        """No invocation runs, and every mapping has asked its source since and got nothing."""
        self.check()
        if self.activity.running:
            return False
        return all(mapped.driver.quiet_at == self.activity.count for mapped in self.mapped)

    async def is_drained(self) -> bool:
        """Every queue is empty, every stream is read to its end, and nothing runs."""
        if not self.is_idle:
            return False
        count = self.activity.count
        depths = await self.depths()
        is_empty = all(found.is_empty for found in depths.values())
        # Measuring took time: what it says holds only if nothing happened meanwhile.
        return is_empty and count == self.activity.count

    async def depths(self) -> dict[str, Depth]:
        """What waits for each handler in its source, by the names that the report uses."""
        found = await self._asked(asyncio.gather(*(mapped.source.depth() for mapped in self.mapped)))
        return {mapped.label: depth for mapped, depth in zip(self.mapped, found, strict=True)}

    async def lags(self) -> dict[str, float | None]:
        """How many seconds each handler's source is behind, by the names that the report uses."""
        found = await self._asked(asyncio.gather(*(mapped.source.lag() for mapped in self.mapped)))
        return {mapped.label: lag for mapped, lag in zip(self.mapped, found, strict=True)}

    async def report(self, *, drained: bool = False) -> Report:
        """The counts by now."""
        dead = await self._asked(asyncio.gather(*map(self._dead_count, self.mapped)))
        return Report(
            {
                mapped.label: mapped.tally.counts(dead_lettered=count - mapped.dead_before, drained=drained)
                for mapped, count in zip(self.mapped, dead, strict=True)
            }
        )

    async def dead_letters(self, source_name: str) -> list[DeadLetterMessage]:
        """What stands in a source's dead-letter queue; it stays there."""
        return await self._asked(self.source(source_name).dead_letters())

    def source(self, name: str) -> LocalSource:
        """The source of this name; of several handlers that read one stream, the first one's."""
        found = [mapped.source for mapped in self.mapped if mapped.source.name == name]
        if not found:
            names = sorted({mapped.source.name for mapped in self.mapped})
            raise ConfigurationError(f"there is no source '{name}': {', '.join(names)}")
        if len({source.arn for source in found}) > 1:
            raise ConfigurationError(f"several sources are called '{name}', in {' and '.join(s.arn for s in found)}")
        return found[0]

    async def is_full(self, source_name: str) -> bool:
        """A source holds so much that more should wait."""
        return await self._asked(self.source(source_name).is_full())

    @property
    def is_broken(self) -> bool:
        """Something of it has ended that should not."""
        return self._failure is not None

    async def _asked(self, asking: Awaitable[T]) -> T:
        """What the services answer; a `PipelineError` where they refuse, or do not answer, or have ended."""
        try:
            return await asking
        except PipelineError:
            raise
        except Exception as error:
            self.backend.check()
            raise sink_error(error, "the AWS server") from error

    @property
    def has_broken_unseen(self) -> bool:
        """It has broken, and nobody was told."""
        return self._failure is not None and not self._is_told

    def check(self) -> None:
        """Raise `PipelineError` when it has broken."""
        self._is_told = self._failure is not None
        if isinstance(self._failure, PipelineError):
            raise self._failure
        if self._failure is not None:
            raise PipelineError("an event source mapping broke") from self._failure

    def _note_end(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._failure = self._failure or task.exception()
            self.activity.happened()

    async def _dead_count(self, mapped: Mapped) -> int:
        """How many dead letters stand there because of a handler, or what was there before."""
        if sum(other.source.arn == mapped.source.arn for other in self.mapped) == 1:
            return await mapped.source.dead_count()
        # The handlers of one stream share its dead-letter queue, so each one's letters are counted as they are written.
        return mapped.tally.letters if mapped.tells_letters else 0

    async def _what_is_left(self, seconds: float | None) -> str:
        depths = await self.depths()
        names = {mapped.label: mapped.source.name for mapped in self.mapped}
        left = [f"'{names[label]}' holds {depth}" for label, depth in depths.items() if not depth.is_empty]
        if self.activity.running:
            left.append(f"{self.activity.running} invocations running")
        return f"not drained after {seconds} s: {'; '.join(left) or 'a mapping has not come to rest'}"


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _key(key: str | Callable[[Any], str] | None) -> Key | None:
    return (lambda _: key) if isinstance(key, str) else key
