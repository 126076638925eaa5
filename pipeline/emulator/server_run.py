"""A run on a server of this machine, and what one asks of it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from types import EllipsisType
from typing import Any, Self

from pipeline.aws.client import sink_error
from pipeline.emulator.activity import Activity
from pipeline.emulator.backend import ServerBackend
from pipeline.emulator.clock import SkippingClock
from pipeline.emulator.functions.function import Function
from pipeline.emulator.local_source import DeadLetterMessage, Depth
from pipeline.emulator.report import Report
from pipeline.emulator.run import Run
from pipeline.errors import ConfigurationError, PipelineError, SinkError

_running: list[object] = []


class ServerRun(ABC):
    """What runs on a server of this machine: moto's, or with `endpoint_url` another. Use it as an async context manager.

    `skip_idle`: draining moves the embedded server's clock on instead of waiting. `time_scale`: idle time passes that
    much faster (embedded only).
    """

    #: Seconds that `drain` takes at most, unless it is told otherwise.
    drain_seconds: float = 30

    def __init__(self, *, endpoint_url: str | None = None, skip_idle: bool = False, time_scale: float = 1.0) -> None:
        self._backend = ServerBackend(endpoint_url, skip_idle=skip_idle, time_scale=time_scale)
        self._is_scaled = time_scale != 1.0
        self._stack = AsyncExitStack()
        self._run = Run(self._backend, self._stack)
        self._functions: dict[str, Function] = {}

    @abstractmethod
    async def _open(self) -> None:
        """Make what there is to be, and map it."""

    @property
    def clock(self) -> SkippingClock:
        """The run's time."""
        return self._backend.clock

    @property
    def activity(self) -> Activity:
        """Whether anything goes on."""
        return self._run.activity

    @property
    def endpoint_url(self) -> str:
        """Where the services listen."""
        if self._backend.endpoint_url is None:
            raise PipelineError("the local run has not started: use it in 'async with'")
        return self._backend.endpoint_url

    @property
    @abstractmethod
    def sources(self) -> dict[str, str]:
        """Each handler's source, by the names that the report uses."""

    async def __aenter__(self) -> Self:
        if _running:
            # The environment variables point at one endpoint, and they are the process's.
            raise ConfigurationError("another local run is active in this process: one at a time")
        _running.append(self)
        self._stack.callback(_running.clear)
        try:
            await self._backend.open(self._stack)
            await self._opened()
            self._run.beside(self._run.watch())
            if self._is_scaled:
                self._run.beside(self._pass_time())
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._run.is_broken:
            # What runs need not come to its end: whatever it does with the server, it does in vain.
            await asyncio.gather(*(function.close() for function in self._functions.values()))
        await self._stack.aclose()

    async def _opened(self) -> None:
        try:
            await self._open()
        except PipelineError:
            self._backend.check()
            raise
        except Exception as error:
            self._backend.check()
            raise sink_error(error, f"the AWS server at {self.endpoint_url}") from error

    async def send(
        self,
        source_name: str,
        payloads: Iterable[Any],
        *,
        key: str | Callable[[Any], str] | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        """Send payloads to a source: text and bytes as they are, everything else as JSON.

        `key`: the message group on a FIFO queue, the partition key on a stream; for all, or as a
        function of the payload. Default: the handler's lane, else its key, else one group for all
        on a queue, and a partition key of its own for each record on a stream. `attributes`:
        message attributes; a stream has none.
        """
        await self._run.send(source_name, payloads, key=key, attributes=attributes)

    async def offer(
        self,
        source_name: str,
        payloads: Sequence[Any],
        *,
        key: str | Callable[[Any], str] | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> list[SinkError | None]:
        """Like `send`, but says for each position None or why it was not taken."""
        return await self._run.offer(source_name, payloads, key=key, attributes=attributes)

    async def drain(self, timeout: float | EllipsisType | None = ...) -> Report:  # noqa: ASYNC109 - the public name
        """Wait until every queue is empty, every stream is read to its end, and nothing runs; the report.

        Raises `DrainTimeout` after `timeout` seconds (None: never; default: 30, with faults 300), and says what is left.
        """
        return await self._run.drain(self.drain_seconds if isinstance(timeout, EllipsisType) else timeout)

    async def broken(self) -> None:
        """Raise `PipelineError` when the run has broken; returns never."""
        await self._run.broken()

    async def stop(self) -> None:
        """End the mappings: what is at work comes to its end, and nothing new begins."""
        await self._run.stop()

    async def depths(self) -> dict[str, Depth]:
        """What waits for each handler in its source, by the names that the report uses."""
        return await self._run.depths()

    async def lags(self) -> dict[str, float | None]:
        """How many seconds each handler's source is behind, by the names that the report uses."""
        return await self._run.lags()

    def chunk(self, source_name: str) -> int:
        """How many payloads are best offered to a source at once."""
        return self._run.source(source_name).chunk

    async def is_full(self, source_name: str) -> bool:
        """A source holds so much that more should wait."""
        return await self._run.is_full(source_name)

    async def report(self, *, drained: bool = False) -> Report:
        """The counts by now."""
        return await self._run.report(drained=drained)

    async def dead_letters(self, source_name: str) -> list[DeadLetterMessage]:
        """What stands in a source's dead-letter queue; it stays there."""
        return await self._run.dead_letters(source_name)

    def client(self, service: str) -> Any:
        """An aiobotocore client of a service, ready, and closed with the run."""
        return self._backend.client(service)

    async def _pass_time(self) -> None:
        while True:
            await self._run.pass_time()
