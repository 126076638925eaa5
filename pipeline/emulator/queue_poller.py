"""A queue's event source mapping: it polls, collects batches, invokes the handler, and deletes what succeeded."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Mapping as Mapped
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.decisions.patterns import Filter
from pipeline.emulator.event import event_record, size_of, to_event
from pipeline.emulator.execution import ExecutionEnvironment
from pipeline.emulator.faults import Fault
from pipeline.emulator.invocation import Handling, invoke
from pipeline.emulator.mapping import Collecting, Verdict, all_failed, judge

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
    batch_size: int = 10
    batching_window: float = 0
    filter: Filter | None = None  #: what it does not accept is deleted


class QueueMapping:
    """Runs until it is cancelled. `quiet_at` and `wakes_at` say whether it waits, and for what."""

    def __init__(self, queue: Queue, handling: Handling, *, client: Any) -> None:
        self.queue = queue
        self.quiet_at = -1  #: the activity count at which its queue last had nothing for it
        self.wakes_at: float | None = None  #: when the window of a batch that it holds ends
        self._handling = handling
        self._client = client
        self._pool = handling.pool
        self._tally = handling.tally
        self._activity = handling.activity
        self._clock = handling.clock
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
            for record in await self._let_through(found):
                collecting.add(record, size_of(record), self._clock.now())
            if found:
                self._activity.happened()
                continue
            await self._wait_for_more(collecting, asked_at, pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        self.quiet_at, self.wakes_at = -1, None

    async def _let_through(self, records: Sequence[EventRecord]) -> Sequence[EventRecord]:
        """What the filter accepts. The rest is deleted before it could be part of a batch, as Lambda does."""
        if self.queue.filter is None:
            return records
        accepted: list[EventRecord] = []
        dropped: list[EventRecord] = []
        for record in records:
            (accepted if self.queue.filter.accepts(record["body"]) else dropped).append(record)
        await self._delete(dropped, self._tally.filtered)
        return accepted

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
            _log.warning("%s: cannot receive from %s: %s", self._handling.handler, self.queue.physical, error)
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
            faults = self._handling.faults
            fault = faults.of(self._handling.handler, number) if faults else Fault.NONE
            if fault is Fault.LOST_RESPONSE:
                return
            if fault is Fault.DUPLICATE and reusable:
                again = [record for record in records if record["messageId"] in verdict.succeeded]
                if again:
                    _, reusable = await self._invoke(environment, again)
            await self._delete(
                [record for record in records if record["messageId"] in verdict.succeeded], self._tally.deleted
            )
        finally:
            self._pool.release(environment, reusable=reusable)
            self._activity.ended()

    async def _invoke(self, environment: ExecutionEnvironment, records: Sequence[EventRecord]) -> tuple[Verdict, bool]:
        ids = [record["messageId"] for record in records]
        self._tally.delivered(ids)
        return await invoke(
            self._handling, environment, to_event(records), partial(judge, ids=ids), partial(all_failed, ids)
        )

    async def _delete(self, records: Sequence[EventRecord], count: Callable[[Iterable[str]], None]) -> None:
        for batch in _chunks(records, _DELETE_LIMIT):
            entries = [{"Id": str(i), "ReceiptHandle": record["receiptHandle"]} for i, record in enumerate(batch)]
            try:
                answer = await self._client.delete_message_batch(QueueUrl=self.queue.url, Entries=entries)
            except Exception as error:
                # They come back: to be filtered again, or made duplicates by the handler's idempotency.
                _log.warning("%s: cannot delete from %s: %s", self._handling.handler, self.queue.physical, error)
                continue
            count(batch[int(entry["Id"])]["messageId"] for entry in answer.get("Successful", []))

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
