"""One event source mapping: it polls a queue, collects batches, invokes the handler, and deletes what succeeded."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Mapping as Mapped
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.emulator.activity import Activity
from pipeline.emulator.event import event_record, size_of, to_event
from pipeline.emulator.execution import ExecutionEnvironment, InvocationTimeout, Pool
from pipeline.emulator.faults import Fault, Faults
from pipeline.emulator.mapping import Collecting, Verdict, all_failed, judge
from pipeline.emulator.report import Tally
from pipeline.ports import Clock

_log = logging.getLogger(__name__)
#: How long an empty queue is left alone: short after something happened, longer the longer nothing does.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.25
_BROKEN_PAUSE = 1.0
_DELETE_LIMIT = 10

EventRecord = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Queue:
    """A source's queue and what its declaration says about the mapping."""

    name: str  #: the source's logical name
    physical: str
    url: str
    arn: str
    region: str
    dead_letters: str | None  #: the dead-letter queue's name
    batch_size: int = 10
    batching_window: float = 0


class Mapping:
    """Runs until it is cancelled. `quiet_at` and `wakes_at` say whether it waits, and for what."""

    def __init__(
        self,
        handler: str,
        queue: Queue,
        *,
        client: Any,
        pool: Pool,
        tally: Tally,
        activity: Activity,
        clock: Clock,
        faults: Faults | None = None,
    ) -> None:
        self.handler = handler
        self.queue = queue
        self.quiet_at = -1  #: the activity count at which its queue last had nothing for it
        self.wakes_at: float | None = None  #: when the window of a batch that it holds ends
        self._client = client
        self._pool = pool
        self._tally = tally
        self._activity = activity
        self._clock = clock
        self._faults = faults
        self._numbers = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Poll, invoke, delete, for ever."""
        collecting: Collecting[EventRecord] = Collecting(self.queue.batch_size, self.queue.batching_window)
        try:
            while True:
                # No message is taken before there is somebody to run it: it would only age.
                await self._pool.reserve()
                try:
                    await self._collect(collecting)
                except BaseException:
                    self._pool.cancel()
                    raise
                self._start(self._pool.take(), collecting.items)
                collecting = collecting.following(self._clock.now())
        finally:
            await self._stop()

    async def _collect(self, collecting: Collecting[EventRecord]) -> None:
        pause = _FIRST_PAUSE
        while not collecting.is_due(self._clock.now()):
            asked_at = self._activity.count
            found = await self._receive(collecting.wanted())
            for record in found:
                collecting.add(record, size_of(record), self._clock.now())
            if found:
                self._activity.happened()
                continue
            await self._wait_for_more(collecting, asked_at, pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        self.quiet_at, self.wakes_at = -1, None

    async def _wait_for_more(self, collecting: Collecting[EventRecord], asked_at: int, pause: float) -> None:
        self.wakes_at = collecting.ends_at
        if self.wakes_at is not None:
            pause = max(0.0, min(pause, self.wakes_at - self._clock.now()))
        if self.quiet_at != asked_at:
            self.quiet_at = asked_at
            self._activity.became_quiet()
        await self._activity.wait_for_news(asked_at, pause)

    async def _receive(self, wanted: int) -> list[EventRecord]:
        try:
            answer = await self._client.receive_message(
                QueueUrl=self.queue.url,
                MaxNumberOfMessages=wanted,
                WaitTimeSeconds=0,
                MessageSystemAttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
        except Exception as error:
            # The server may come back; the mapping polls for ever, as AWS's does.
            _log.warning("%s: cannot receive from %s: %s", self.handler, self.queue.physical, error)
            await asyncio.sleep(_BROKEN_PAUSE)
            return []
        messages = answer.get("Messages", [])
        return [event_record(message, arn=self.queue.arn, region=self.queue.region) for message in messages]

    def _start(self, environment: ExecutionEnvironment, records: Sequence[EventRecord]) -> None:
        self._activity.began()
        task = asyncio.create_task(self._process(environment, records, next(self._numbers)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _process(self, environment: ExecutionEnvironment, records: Sequence[EventRecord], number: int) -> None:
        reusable = True
        try:
            verdict, reusable = await self._invoke(environment, records)
            fault = self._faults.of(self.handler, number) if self._faults else Fault.NONE
            if fault is Fault.LOST_RESPONSE:
                return
            if fault is Fault.DUPLICATE and reusable:
                again = [record for record in records if record["messageId"] in verdict.succeeded]
                if again:
                    _, reusable = await self._invoke(environment, again)
            await self._delete([record for record in records if record["messageId"] in verdict.succeeded])
        finally:
            self._pool.release(environment, reusable=reusable)
            self._activity.ended()

    async def _invoke(self, environment: ExecutionEnvironment, records: Sequence[EventRecord]) -> tuple[Verdict, bool]:
        """What the invocation means for the batch, and whether its environment can be used again."""
        ids = [record["messageId"] for record in records]
        self._tally.delivered(ids)
        reusable = True
        try:
            verdict = judge(await environment.invoke(to_event(records)), ids)
        except Exception as error:
            reusable = environment.is_ready and not isinstance(error, InvocationTimeout)
            # The traceback matters only when it is not our own word for a time-out.
            trace = None if isinstance(error, InvocationTimeout) else error
            _log.error("%s: the invocation failed: %s: %s", self.handler, type(error).__name__, error, exc_info=trace)
            verdict = all_failed(ids, str(error))
        else:
            if verdict.fault:
                _log.error("%s: the whole batch comes back: %s", self.handler, verdict.fault)
        if verdict.fault is not None:
            self._tally.invocation_failed()
        return verdict, reusable

    async def _delete(self, records: Sequence[EventRecord]) -> None:
        for batch in _chunks(records, _DELETE_LIMIT):
            entries = [{"Id": str(i), "ReceiptHandle": record["receiptHandle"]} for i, record in enumerate(batch)]
            try:
                answer = await self._client.delete_message_batch(QueueUrl=self.queue.url, Entries=entries)
            except Exception as error:
                # They come back, and the handler's idempotency makes them duplicates.
                _log.warning("%s: cannot delete from %s: %s", self.handler, self.queue.physical, error)
                continue
            self._tally.deleted(batch[int(entry["Id"])]["messageId"] for entry in answer.get("Successful", []))

    async def _stop(self) -> None:
        """Let what runs come to its end, so that its messages are deleted."""
        if self._tasks:
            await asyncio.wait(self._tasks)


def _chunks(items: Sequence[EventRecord], size: int) -> list[Sequence[EventRecord]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def attributes_of(message: Mapped[str, Any]) -> dict[str, str]:
    """A received message's attributes, as text."""
    found = message.get("MessageAttributes", {})
    return {name: value["StringValue"] for name, value in found.items() if value.get("StringValue") is not None}
