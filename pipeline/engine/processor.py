"""The processor: one stage in one environment, batch after batch."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.batch import BatchResult
from pipeline.decisions.deadline import Deadline
from pipeline.engine.attempt import Pace
from pipeline.engine.calling import Calling, failure_of
from pipeline.engine.coalesce import Activity, Coalescer
from pipeline.engine.context import Context
from pipeline.engine.modes import Keyed, Mode, Watching
from pipeline.engine.recent import Recent
from pipeline.engine.spent import Spent
from pipeline.engine.stage import Call, Stage
from pipeline.engine.threads import Threads
from pipeline.engine.work import Work
from pipeline.ports import Environment
from pipeline.record import RawRecord, Record
from pipeline.telemetry import spans
from pipeline.telemetry.conventions import described_source
from pipeline.telemetry.current import CurrentBatch
from pipeline.telemetry.events import BatchFinished, BatchStarted, Fact, Observer, tell

if TYPE_CHECKING:
    from aws_lambda_powertools import Logger
    from aws_lambda_powertools.metrics import EphemeralMetrics

NO_DEADLINE = Deadline()


class Processor:
    """Processes the batches of one stage. It keeps nothing of a batch after its result."""

    def __init__(
        self,
        stage: Stage,
        environment: Environment,
        *,
        logger: Logger,
        metrics: EphemeralMetrics,
        observers: Sequence[Observer] = (),
        is_cold: bool = True,
    ) -> None:
        self.stage = stage
        self.is_cold = is_cold  #: the next batch is the first of its environment
        self._logger = logger
        self._metrics = metrics
        self.environment = environment
        self._observers = tuple(observers)
        self._threads = Threads(stage.concurrency)
        self._calling = Calling(stage.function, stage.signature, environment, self._threads)
        self._pace = Pace()
        self._spent = Spent()
        self._recent = _recent(stage.mode)

    def begin(self, records: Sequence[RawRecord], deadline: Deadline = NO_DEADLINE) -> Processing:
        """Start on a batch; nothing runs before its `finish`."""
        return Processing(self, records, deadline)

    async def process(self, records: Sequence[RawRecord], deadline: Deadline = NO_DEADLINE) -> BatchResult:
        """Bring every record of a batch to its outcome."""
        processing = self.begin(records, deadline)
        await processing.finish()
        return processing.conclude()

    def close(self) -> None:
        """Let the threads go. The environment is closed by whoever made it."""
        self._threads.close()

    def work(self, records: Sequence[RawRecord], deadline: Deadline, span: spans.BatchSpan | None) -> Work:
        """The work on a batch, with the handler's call folded into its middleware."""
        stage = self.stage
        activity = Activity()
        context = Context(
            pipeline=stage.pipeline,
            handler=stage.name,
            logger=self._logger,
            metrics=self._metrics,
            deadline=deadline,
            clock=self.environment.clock,
        )
        call: Call = self._calling.one if stage.signature.batch is None else self._batch_call(activity, context)
        for middleware in reversed(stage.middleware):  # the first in the list is outermost
            call = middleware(call)
        return Work(
            stage,
            self.environment,
            records,
            deadline,
            call=call,
            context=context,
            activity=activity,
            pace=self._pace,
            spent=self._spent,
            recent=self._recent,
            left_running=self._left_running,
            observers=self._observers,
            span=span,
        )

    def _left_running(self, task: asyncio.Task[Any] | None) -> bool:
        if self.stage.signature.batch is not None:  # a call of many tasks, in a task of its own
            return self._threads.is_running
        return self._threads.left_running(task)

    def _batch_call(self, activity: Activity, context: Context) -> Call:
        """A batch handler, called for the records that are ready at the same moment and have not failed yet."""

        async def send(records: list[Record[Any]]) -> Sequence[Any]:
            return await self._calling.many(records, context)

        calls: Coalescer[Record[Any], Any] = Coalescer(send, activity, limit=self.stage.concurrency)

        async def call(record: Record[Any], context: Context) -> Any:
            # One that failed before goes alone: if it fails the call again, it fails nobody else's.
            alone = record.attempt > 1
            result = (await send([record]) if alone else await calls.submit([record]))[0]
            error = failure_of(result)
            if error is not None:
                raise error
            return result

        return call

    def emit(self, fact: Fact) -> None:
        """Tell the observers."""
        tell(self._observers, fact)


class Processing:
    """One batch between its start and its result."""

    def __init__(self, processor: Processor, records: Sequence[RawRecord], deadline: Deadline) -> None:
        self._processor = processor
        self._is_cold, processor.is_cold = processor.is_cold, False
        self._stage = processor.stage
        self._clock = processor.environment.clock
        self._started = self._clock.monotonic()
        self._hard = deadline.hard
        self._oldest = _oldest(records, self._clock.now())
        processor.emit(
            BatchStarted(
                pipeline=self._stage.pipeline,
                handler=self._stage.name,
                source=self._stage.source.name,
                size=len(records),
                oldest=self._oldest,
            )
        )
        stage = self._stage
        described = described_source(stage.source)
        self._span = spans.begin_batch(
            stage.pipeline, stage.name, described, records, self._clock.now(), is_stream=stage.source.is_stream
        )
        self._work = processor.work(records, deadline, self._span)
        # The loop and the thread that waits for it may both come to the end at the deadline.
        self._concluding = threading.Lock()
        self._result: BatchResult | None = None

    async def finish(self) -> None:
        """Bring every record to its outcome, or as far as the deadline lets it."""
        span = None if self._span is None else self._span.named
        named = CurrentBatch(self._stage.name, self._stage.source.name, self._is_cold, span)
        with spans.inside(self._span, named):
            await self._work.finish()

    def conclude(self) -> BatchResult:
        """The result as it stands now, told to the observers. Any thread may call it."""
        with self._concluding:
            if self._result is not None:
                return self._result
            if self._span is not None and self._is_late():
                self._span.end_elsewhere()
            result = self._result = self._work.result()
        span = self._span
        if span is not None:
            span.end(result, self._clock.now())
        self._processor.emit(
            BatchFinished(
                pipeline=self._stage.pipeline,
                handler=self._stage.name,
                source=self._stage.source.name,
                result=result,
                oldest=self._oldest,
                seconds=self._clock.monotonic() - self._started,
                slowest=self._work.slowest,
                ages=tuple(self._work.ages),
                handled=tuple(self._work.handled),
                concurrency=self._work.most_at_once,
                batch_size=getattr(self._stage.source, "batch_size", None),
                span=None if span is None else span.named,
            )
        )
        return result

    def _is_late(self) -> bool:
        return self._hard is not None and self._clock.monotonic() >= self._hard

    @property
    def is_abandoned(self) -> bool:
        """True when something could not be stopped: give up this environment."""
        return self._work.is_abandoned


def _recent(mode: Mode | None) -> Recent:
    # What is replayed stands in the store, so there a repeat has to ask.
    is_useful = isinstance(mode, Keyed) and not (isinstance(mode, Watching) and mode.replay)
    return Recent(mode.cache, mode.ttl) if is_useful and isinstance(mode, Keyed) else Recent(0, 0)


def _oldest(records: Sequence[RawRecord], now: float) -> float | None:
    sent = [record.sent_at for record in records if record.sent_at is not None]
    return max(now - min(sent), 0.0) if sent else None
