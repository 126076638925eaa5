"""A sandbox that runs the toolkit's engine on the running loop: what virtual time needs, and a test's debugger likes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.batch import BatchResult
from pipeline.decisions.deadline import Deadline, deadline
from pipeline.emulator.functions.function import Invocation, exited
from pipeline.emulator.mappings.answers import Cause
from pipeline.engine.environment import ProcessEnvironment
from pipeline.engine.processor import Processing, Processor
from pipeline.engine.stage import Stage
from pipeline.runtimes.response import partial_response
from pipeline.telemetry.events import Observer
from pipeline.telemetry.log import LogWriter, logger_for
from pipeline.telemetry.metrics import metrics_for


class EngineSandbox:
    """An execution environment of a handler of the toolkit; see `Sandbox`.

    `environment`: makes what it reaches the services with. It does what `LambdaRuntime` does, on this loop instead of
    one in a thread of its own; a handler that blocks the loop blocks the run.
    """

    def __init__(
        self, stage: Stage, environment: Callable[[], ProcessEnvironment], observers: Sequence[Observer] = ()
    ) -> None:
        self._stage = stage
        self._make = environment
        self._observers = tuple(observers)
        self._processor: Processor | None = None
        self._environment: ProcessEnvironment | None = None
        self._is_dead: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """See `Sandbox`."""
        if self._processor is not None:
            return
        stage = self._stage
        self._is_dead = asyncio.get_running_loop().create_future()
        self._environment = self._make()
        logger = logger_for(stage.pipeline, stage.log_level)
        self._processor = Processor(
            stage,
            self._environment,
            logger=logger,
            metrics=metrics_for(stage.pipeline, stage.name),
            observers=[*self._observers, LogWriter(logger, stage.name, payloads=stage.log_payloads)],
        )

    async def invoke(self, invocation: Invocation) -> Any:
        """See `Sandbox`."""
        assert self._processor is not None and self._environment is not None and self._is_dead is not None
        until = deadline(invocation.clock.monotonic(), invocation.remaining)
        records = self._stage.source.decode(invocation.event)
        if not records:
            return partial_response([])
        processing = self._processor.begin(records, until)
        work = asyncio.ensure_future(self._serve(processing, until))
        futures: list[asyncio.Future[Any]] = [work, self._is_dead]
        await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        if self._is_dead.done():
            raise exited(Cause.EXITED, invocation.request_id, "signal: killed")
        result = work.result()
        if processing.is_abandoned:
            await self.close()
        return partial_response(self._stage.source.unsettled_ids(result))

    def kill(self) -> None:
        """As SIGKILL: the invocation that runs has failed, and what it was doing never goes on.

        Whoever calls this makes that true: the call that it is in, and each later one, must never return.
        """
        if self._is_dead is not None and not self._is_dead.done():
            self._is_dead.set_result(None)

    async def close(self) -> None:
        """See `Sandbox`."""
        processor, environment = self._processor, self._environment
        self._processor = self._environment = None
        if processor is not None and environment is not None and not (self._is_dead and self._is_dead.done()):
            processor.close()
            await environment.aclose()

    async def _serve(self, processing: Processing, until: Deadline) -> BatchResult:
        environment = self._environment  # it may be closed meanwhile
        assert environment is not None and until.hard is not None
        try:
            async with asyncio.timeout_at(until.hard):
                await processing.finish()
                result = processing.conclude()
                await self._stage.source.settle(result, environment, until)
                return result
        except TimeoutError:
            return processing.conclude()
