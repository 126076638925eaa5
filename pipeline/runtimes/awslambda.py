"""AWS Lambda behind an event source mapping."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import threading
import time
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol, TextIO, TypeVar

from pipeline.batch import BatchResult
from pipeline.decisions.deadline import Deadline, deadline
from pipeline.engine.environment import ProcessEnvironment
from pipeline.engine.processor import Processing, Processor
from pipeline.engine.stage import Stage
from pipeline.ports import Clock
from pipeline.record import RawRecord
from pipeline.runtimes import collection
from pipeline.runtimes.response import PartialResponse, partial_response
from pipeline.telemetry.conventions import described_source
from pipeline.telemetry.events import Observer
from pipeline.telemetry.invocation import invocation
from pipeline.telemetry.log import LogWriter, logger_for
from pipeline.telemetry.metrics import MetricsWriter, metrics_for

T = TypeVar("T")

_log = logging.getLogger("pipeline")

#: What is left to an abandoned loop's tasks to end, in seconds; nobody waits for it.
_WIND_UP = 1.0
#: Set by Lambda; an environment that it has made in advance is not cold when the first batch comes.
_INITIALIZATION_TYPE = "AWS_LAMBDA_INITIALIZATION_TYPE"
#: What closing resources and connections may take, in seconds.
_CLOSE = 10.0


class LambdaContext(Protocol):
    """What is used of Lambda's context object."""

    def get_remaining_time_in_millis(self) -> int: ...


class LambdaRuntime:
    """One execution environment: an event loop, its connections and resources, kept between invocations.

    The loop runs in a thread of its own. So the answer goes out in time even when a handler blocks
    the loop: the invoking thread waits no longer than the deadline, and then answers with what is
    known. An environment in which something could not be stopped is given up; the next invocation
    gets a new one.
    """

    def __init__(
        self,
        stage: Stage,
        *,
        clock: Clock | None = None,
        observers: Sequence[Observer] = (),
        log_stream: TextIO | None = None,
        emit_metrics: bool = True,
    ) -> None:
        self._stage = stage
        self._clock = clock
        self._observers = tuple(observers)
        self._log_stream = log_stream
        self._emit_metrics = emit_metrics
        self._loop: _Loop | None = None
        self._is_cold = os.environ.get(_INITIALIZATION_TYPE) != "provisioned-concurrency"

    def invoke(self, event: Any, context: LambdaContext) -> PartialResponse:
        """Handle one event. Raises `EventError` for an event that is not the source's, and for nothing else.

        A record's failure is in the response, never raised.
        """
        until = deadline(time.monotonic(), context.get_remaining_time_in_millis() / 1000)
        records = self._stage.source.decode(event)
        if not records:
            return partial_response([])
        with invocation(context, is_cold=self._is_cold):
            return self._answer(records, until)

    def _answer(self, records: Sequence[RawRecord], until: Deadline) -> PartialResponse:
        loop = self._loop = self._loop or self._open()
        processing = loop.processor.begin(records, until)
        result = self._wait(loop, processing, until)
        if processing.is_abandoned:
            self._give_up(loop)
        collection.resume()
        return partial_response(self._stage.source.unsettled_ids(result))

    def close(self) -> None:
        """Close resources and connections; the next invocation opens new ones."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.close()

    def _wait(self, loop: _Loop, processing: Processing, until: Deadline) -> BatchResult:
        assert until.hard is not None
        future = loop.submit(self._serve(loop, processing, until))
        try:
            return future.result(timeout=max(until.hard - time.monotonic(), 0.0))
        except concurrent.futures.TimeoutError:
            future.cancel()  # the loop is blocked, or the settling is late
        except Exception:
            _log.exception("%s: the batch is answered as it stands", self._stage.full_name)
        return processing.conclude()

    async def _serve(self, loop: _Loop, processing: Processing, until: Deadline) -> BatchResult:
        await processing.finish()
        result = processing.conclude()
        try:
            await self._stage.source.settle(result, loop.environment, until)
        except Exception:  # delays are a courtesy: the records come back in the source's own time
            _log.warning("%s: delays could not be set", self._stage.full_name, exc_info=True)
        return result

    def _open(self) -> _Loop:
        from pipeline.telemetry.meters import Meters, sinks_described  # not before there is something to count

        stage = self._stage
        environment = ProcessEnvironment(clock=self._clock)
        logger = logger_for(stage.pipeline, stage.log_level, self._log_stream)
        metrics = metrics_for(stage.pipeline, stage.name)
        # A loop that replaces one that was given up is in the same environment.
        is_cold, self._is_cold = self._is_cold, False
        writers: list[Observer] = [LogWriter(logger, stage.name, is_cold=is_cold, payloads=stage.log_payloads)]
        if self._emit_metrics:
            writers.append(MetricsWriter(metrics, [sink.name for sink in stage.sinks]))
        writers.append(Meters(stage.pipeline, stage.name, described_source(stage.source), sinks_described(stage.sinks)))
        processor = Processor(
            stage,
            environment,
            logger=logger,
            metrics=metrics,
            observers=[*self._observers, *writers],
            is_cold=is_cold,
        )
        return _Loop(processor, environment)

    def _give_up(self, loop: _Loop) -> None:
        self._loop = None
        loop.abandon()


class _Loop:
    """An event loop in a daemon thread, with what lives on it."""

    def __init__(self, processor: Processor, environment: ProcessEnvironment) -> None:
        self.processor = processor
        self.environment = environment
        self._loop = asyncio.new_event_loop()
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name="pipeline-loop", daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        """Close everything, in order."""
        self.processor.close()
        try:
            self.submit(self.environment.aclose()).result(timeout=_CLOSE)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=_CLOSE)

    def abandon(self) -> None:
        """Stop what can be stopped, when the loop gets to it; wait for nothing."""
        self.processor.close()
        asyncio.run_coroutine_threadsafe(self._wind_up(), self._loop)

    def _run(self) -> None:
        try:
            while not self._is_stopped:
                # A task that a handler left behind may raise one of these: the others go on.
                with contextlib.suppress(SystemExit, KeyboardInterrupt):
                    self._loop.run_forever()
                    self._is_stopped = True
        finally:
            self._loop.close()

    async def _wind_up(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=_WIND_UP)
        try:
            await self.environment.aclose()
        finally:
            self._loop.stop()
