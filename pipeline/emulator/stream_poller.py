"""A stream's event source mapping: it reads shards, invokes the handler batch by batch, and moves checkpoints.

The checkpoints live in memory. A run against a server that outlives it starts at `starting_position`
again when it is started again: with "TRIM_HORIZON" every record is delivered once more, and the
handler's idempotency makes what was done a duplicate.

Not emulated yet: `bisect`, `max_record_age`, on-failure destinations (what is given up is logged and
counted as exhausted), and `parallelization_factor`: whatever it says, one batch of a shard runs at a
time, which keeps every order that more would keep.
"""

from __future__ import annotations

import asyncio
import binascii
import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from pipeline.decisions.aggregation import is_aggregate
from pipeline.decisions.patterns import Filter
from pipeline.emulator.event import to_event
from pipeline.emulator.execution import ExecutionEnvironment
from pipeline.emulator.faults import Fault
from pipeline.emulator.invocation import Handling, invoke
from pipeline.emulator.stream_mapping import Shard, ShardBatches, Verdict, all_failed, judge, startable

_log = logging.getLogger(__name__)
#: How long an empty shard is left alone: short after something happened, longer the longer nothing does.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.25
#: Lambda delivers a batch that got nowhere again at once; no back-off is documented. A short one
#: keeps a handler that always fails from taking a whole processor.
_FIRST_RETRY_PAUSE, _LONGEST_RETRY_PAUSE = 0.02, 1.0
_BROKEN_PAUSE = 1.0


class IteratorExpired(Exception):
    """A shard iterator was not used for five minutes."""


@dataclass(frozen=True)
class Received:
    """A record of a stream as it was read."""

    number: str  #: its sequence number
    member: dict[str, Any]  #: of the event's `Records`
    size: int  #: bytes that it takes there
    ids: tuple[str, ...]  #: of the records that the handler sees: several for an aggregate


@dataclass(frozen=True)
class Page:
    """What one read of a shard gave."""

    records: Sequence[Received]
    next_iterator: str | None  #: None: the shard has ended, and this was its last page
    millis_behind: int  #: how far the last record is behind the stream's end


class StreamReader(Protocol):
    """How a stream is read."""

    async def shards(self) -> list[Shard]:
        """The shards that the stream lists, ended ones included."""
        ...

    async def iterator(self, shard: str, *, after: str | None, position: str) -> str:
        """Where to read: after a sequence number, or without one at a position such as "LATEST"."""
        ...

    async def read(self, shard: str, iterator: str, limit: int) -> Page:
        """Up to `limit` records. Raises `IteratorExpired`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A source's stream and what its declaration says about the mapping."""

    name: str  #: the source's logical name
    arn: str
    reader: StreamReader
    #: Where to start in the shards that there are; in those that come later, at their first record.
    iterators: Mapping[str, str]
    starting_position: str = "TRIM_HORIZON"
    batch_size: int = 100
    batching_window: float = 0
    retry_attempts: int = -1
    filter: Filter | None = None  #: what it does not accept is passed over


@dataclass(frozen=True)
class StreamDepth:
    """What waits for a handler in a stream, as far as its mapping knows."""

    held: int  #: records that were read and are not behind the checkpoint
    millis_behind: int  #: how far its slowest shard was behind when it was last read

    @property
    def is_empty(self) -> bool:
        """Nothing is held, and nothing more was there at the last read."""
        return not self.held and not self.millis_behind

    @property
    def waiting(self) -> str:
        """For a table: a plus says that there is more."""
        return f"{self.held}{'+' if self.millis_behind else ''}"

    def __str__(self) -> str:
        return f"{self.held} records that are not settled, {self.millis_behind} ms behind"


class StreamMapping:
    """Reads every shard of a stream, each by a poller of its own; a reshard's children after their parents."""

    def __init__(self, stream: Stream, handling: Handling) -> None:
        self._stream = stream
        self._handling = handling
        self._pollers: dict[str, ShardPoller] = {}
        self._finished: set[str] = set()
        self._is_listing = True
        self._ended = asyncio.Event()

    @property
    def quiet_at(self) -> int:
        """The activity count at which its last shard had nothing; -1 while it looks for shards."""
        if self._is_listing:
            return -1
        return min((poller.quiet_at for poller in self._pollers.values()), default=self._handling.activity.count)

    @property
    def wakes_at(self) -> float | None:
        """When the first window of a batch that it holds ends."""
        times = [poller.wakes_at for poller in self._pollers.values() if poller.wakes_at is not None]
        return min(times, default=None)

    @property
    def depth(self) -> StreamDepth:
        """What waits, over all shards."""
        pollers = self._pollers.values()
        held = sum(poller.held for poller in pollers)
        return StreamDepth(held, max((poller.millis_behind for poller in pollers), default=0))

    async def run(self) -> None:
        """Read, invoke, move checkpoints, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._ended.clear()
                started = self._finished | self._pollers.keys()
                for shard in startable(await self._shards(), started, self._finished):
                    self._pollers[shard.id] = poller = ShardPoller(shard.id, self._stream, self._handling)
                    group.create_task(self._follow(poller))
                self._is_listing = False
                self._handling.activity.became_quiet()
                await self._ended.wait()

    async def _follow(self, poller: ShardPoller) -> None:
        await poller.run()
        self._is_listing = True
        self._finished.add(poller.shard)
        del self._pollers[poller.shard]
        self._ended.set()

    async def _shards(self) -> list[Shard]:
        while True:
            try:
                return await self._stream.reader.shards()
            except Exception as error:
                _log.warning("%s: cannot list the shards of %s: %s", self._handling.handler, self._stream.name, error)
                await asyncio.sleep(_BROKEN_PAUSE)


class ShardPoller:
    """Reads one shard to its end, if it has one. `quiet_at` and `wakes_at` say whether it waits, and for what."""

    def __init__(self, shard: str, stream: Stream, handling: Handling) -> None:
        self.shard = shard
        self.quiet_at = -1  #: the activity count at which the shard last had nothing more
        self.wakes_at: float | None = None  #: when the window of a batch that it holds ends
        self.millis_behind = 0
        self._stream = stream
        self._handling = handling
        self._activity = handling.activity
        self._clock = handling.clock
        self._batches: ShardBatches[Received] = ShardBatches(
            stream.batch_size, stream.batching_window, stream.retry_attempts
        )
        self._iterator = stream.iterators.get(shard)
        self._position = stream.starting_position if shard in stream.iterators else "TRIM_HORIZON"
        self._last: str | None = None  #: the sequence number of the last record that was read
        self._has_ended = False
        self._fruitless = 0  #: deliveries since the checkpoint moved last
        self._numbers = itertools.count()
        self._has_warned = False

    @property
    def held(self) -> int:
        """Records that were read and are not behind the checkpoint."""
        return self._batches.held

    async def run(self) -> None:
        """Read, invoke, move the checkpoint; returns when the shard has ended and all of it is settled."""
        while await self._collect():
            await self._handling.pool.reserve()
            self._activity.began()
            environment = self._handling.pool.take()
            work = asyncio.create_task(self._process(environment, self._batches.take(self._clock.now())))
            try:
                await asyncio.shield(work)
            except asyncio.CancelledError:
                await asyncio.wait([work])  # what runs comes to its end, as everywhere
                raise
            if self._fruitless:
                pause = _FIRST_RETRY_PAUSE * 2 ** min(self._fruitless - 1, 10)
                await asyncio.sleep(min(pause, _LONGEST_RETRY_PAUSE))

    async def _collect(self) -> bool:
        """Read until a batch is due; False: there will be none."""
        pause = _FIRST_PAUSE
        while not self._batches.is_due(self._clock.now(), is_last=self._has_ended):
            if self._has_ended:
                return False
            asked_at = self._activity.count
            page = await self._read()
            if page is None:
                continue
            self._note(page)
            if not page.records and not self._has_ended:
                await self._wait_for_more(asked_at, pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
        self.quiet_at, self.wakes_at = -1, None
        return True

    def _note(self, page: Page) -> None:
        for record in page.records:
            if self._is_accepted(record):
                self._batches.add(record, record.size, self._clock.now())
            self._last = record.number
        if page.records:
            self.quiet_at = -1
        self.millis_behind = page.millis_behind
        self._iterator = page.next_iterator
        self._has_ended = page.next_iterator is None

    def _is_accepted(self, record: Received) -> bool:
        """Whether the filter lets a record through. It sees an aggregate as it stands in the stream, which is no JSON."""
        if self._stream.filter is None:
            return True
        data = binascii.a2b_base64(record.member["kinesis"]["data"])
        if self._stream.filter.accepts(data):
            return True
        self._handling.tally.filtered(record.ids)
        if is_aggregate(data) and not self._has_warned:
            self._has_warned = True
            _log.warning(
                "%s: %s of %s holds aggregated records: with filter= all that they hold is passed over, as Lambda does",
                self._handling.handler, self.shard, self._stream.name,
            )  # fmt: skip
        return False

    async def _wait_for_more(self, asked_at: int, pause: float) -> None:
        self.wakes_at = self._batches.ends_at
        if self.wakes_at is not None:
            pause = max(0.0, min(pause, self.wakes_at - self._clock.now()))
        # Kinesis also gives empty pages on the way to a shard's end.
        if not self.millis_behind and self.quiet_at != asked_at:
            self.quiet_at = asked_at
            self._activity.became_quiet()
        await self._activity.wait_for_news(asked_at, pause)

    async def _read(self) -> Page | None:
        """The next page; None: it could not be had, and some time has passed."""
        reader = self._stream.reader
        try:
            if self._iterator is None:
                self._iterator = await reader.iterator(self.shard, after=self._last, position=self._position)
            return await reader.read(self.shard, self._iterator, self._batches.wanted())
        except IteratorExpired:
            self._iterator = None
        except Exception as error:
            # The server may come back; the mapping reads for ever, as AWS's does.
            _log.warning("%s: cannot read %s of %s: %s", self._handling.handler, self.shard, self._stream.name, error)
            await asyncio.sleep(_BROKEN_PAUSE)
        return None

    async def _process(self, environment: ExecutionEnvironment, records: list[Received]) -> None:
        reusable = True
        try:
            faults = self._handling.faults
            fault = Fault.NONE
            if faults is not None:
                fault = faults.of(f"{self._handling.handler}/{self.shard}", next(self._numbers))
            verdict, reusable = await self._invoke(environment, records)
            if fault is Fault.LOST_RESPONSE:
                # The old checkpoint stands. No retry is counted: the records are not at fault.
                self._fruitless += 1
                return
            if fault is Fault.DUPLICATE and reusable and verdict.settled:
                _, reusable = await self._invoke(environment, records[: verdict.settled])
            self._settle(records, verdict)
        finally:
            self._handling.pool.release(environment, reusable=reusable)
            self._activity.ended()

    async def _invoke(self, environment: ExecutionEnvironment, records: list[Received]) -> tuple[Verdict, bool]:
        self._handling.tally.delivered(_ids(records))
        event = to_event([record.member for record in records])
        numbers = [record.number for record in records]
        return await invoke(self._handling, environment, event, partial(judge, numbers=numbers), all_failed)

    def _settle(self, records: list[Received], verdict: Verdict) -> None:
        given_up = self._batches.settle(verdict)
        self._fruitless = 0 if verdict.settled or given_up else self._fruitless + 1
        self._handling.tally.deleted(_ids(records[: verdict.settled]))
        if given_up:
            self._handling.tally.given_up(_ids(given_up))
            _log.error(
                "%s: %s of %s: %d records, %s to %s, are given up after %d retries",
                self._handling.handler, self.shard, self._stream.name, len(given_up),
                given_up[0].number, given_up[-1].number, self._stream.retry_attempts,
            )  # fmt: skip


def _ids(records: Sequence[Received]) -> list[str]:
    return [name for record in records for name in record.ids]
