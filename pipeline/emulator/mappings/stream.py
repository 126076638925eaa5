"""The event source mapping of a Kinesis stream, and of a DynamoDB table's stream.

It reads shards, parents before children, collects batches, invokes, and moves each shard's checkpoint. The rules are
those of the Lambda developer guide's pages on the two kinds of stream; each has a test that names its page.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.emulator.mappings.actions import (
    Action,
    BatchFailed,
    Filtered,
    GivenUp,
    Invoke,
    ListShards,
    SendToDestination,
    Settled,
    Shard,
    StreamRecord,
    Undelivered,
)
from pipeline.emulator.mappings.answers import Answer, FunctionFailed, Returned, Throttled
from pipeline.emulator.mappings.destination import Kind, Reason, batch_info, invocation_record
from pipeline.emulator.mappings.machine import Page
from pipeline.emulator.mappings.response import ResponseError, named_failures
from pipeline.emulator.mappings.settings import StreamSettings
from pipeline.emulator.mappings.shard import Batch, Lane, Reader
from pipeline.emulator.mappings.windows import Window, returned_state
from pipeline.errors import ConfigurationError

#: How often the shards are listed while one that has ended has no child yet, or there is none, seconds.
LISTING_SECONDS = 10.0
_RETRY_LISTING = 1.0
#: How often an invocation record is offered to its destination, after 1, 2, 4, ... seconds, before it is let go.
MAX_SENDS = 5


@dataclass(frozen=True)
class _Work:
    """A batch that the function has."""

    reader: Reader
    lane: Lane
    batch: Batch


@dataclass
class _Send:
    """An invocation record on its way to the destination."""

    ids: tuple[str, ...]
    size: int  #: records
    action: SendToDestination
    tries: int = 1
    retry_at: float | None = None  #: None: it is under way


@dataclass
class _Listing:
    """When the shards are listed: at the start, when one has ended, and again while that brought nothing."""

    is_under_way: bool = False
    due_at: float | None = float("-inf")
    latest: list[Shard] = field(default_factory=list)
    initial: frozenset[str] = frozenset()  #: the shards of the first listing that has any


class StreamMapping:
    """See `machine.ShardMachine`.

    `limit`: batches at work on this machine at once; None: as many as the shards and the parallelization factor allow.
    """

    def __init__(self, settings: StreamSettings, kind: Kind, *, limit: int | None = None) -> None:
        if kind == "dynamodb" and settings.starting_position == "AT_TIMESTAMP":
            raise ConfigurationError(
                "StartingPosition AT_TIMESTAMP is not for DynamoDB streams: use TRIM_HORIZON or LATEST"
            )
        self._settings = settings
        self._kind: Kind = kind
        self._limit = limit
        self._listing = _Listing()
        self._readers: dict[str, Reader] = {}
        self._finished: set[str] = set()
        self._checkpoints: dict[str, str] = {}
        self._running: dict[int, _Work] = {}
        self._sends: dict[int, _Send] = {}
        self._numbers = itertools.count()
        self._facts: list[Action] = []

    # -- What is to be done.

    def actions(self, now: float) -> list[Action]:
        """See `Machine`."""
        invocations = [self._invoke(reader, lane, now) for reader, lane in self._lanes()]
        self._end_shards(now)
        commands = [
            *invocations,
            *self._send_again(now),
            *self._list(now),
            *(reader.read(now) for reader in self._readers.values()),
        ]
        facts, self._facts = self._facts, []
        return [*facts, *(command for command in commands if command is not None)]

    @property
    def wakes_at(self) -> float | None:
        """See `Machine`."""
        times = [send.retry_at for send in self._sends.values()]
        if not self._listing.is_under_way:
            times.append(self._listing.due_at)
        times += [reader.reads_at for reader in self._readers.values()]
        if not self._is_busy:
            times += [_next_try(reader, lane) for reader, lane in self._lanes()]
        return min((time for time in times if time is not None), default=None)

    @property
    def held(self) -> int:
        """See `Machine`. What is given up counts until its destination has it, an open tumbling window until its end."""
        readers = self._readers.values()
        held = sum(reader.held + (reader.window is not None) for reader in readers)
        return held + sum(send.size for send in self._sends.values())

    @property
    def millis_behind(self) -> int:
        """See `ShardMachine`."""
        return max((reader.millis_behind for reader in self._readers.values()), default=0)

    @property
    def checkpoints(self) -> dict[str, str]:
        """For who looks on: the sequence number of each shard up to which everything is settled, filtered or given up."""
        found = {shard: reader.checkpoint for shard, reader in self._readers.items()}
        return self._checkpoints | {shard: number for shard, number in found.items() if number is not None}

    # -- What happened.

    def listed(self, shards: Sequence[Shard], now: float) -> None:
        """See `ShardMachine`."""
        self._listing.is_under_way = False
        self._listing.latest = list(shards)
        is_first = not self._listing.initial
        self._listing.initial = self._listing.initial or frozenset(shard.id for shard in shards)
        for shard in _startable(shards, self._readers.keys() | self._finished, self._waited_for(is_first=is_first)):
            self._readers[shard.id] = self._start(shard)
        self._finished &= {shard.id for shard in shards}
        if self._listing.due_at is None and (self._misses_children() or not self._readers):
            self._listing.due_at = now + LISTING_SECONDS

    def not_listed(self, now: float) -> None:
        """See `ShardMachine`."""
        self._listing.is_under_way, self._listing.due_at = False, now + _RETRY_LISTING

    def was_read(self, shard: str, page: Page, now: float) -> None:
        """See `ShardMachine`."""
        passed_over = self._readers[shard].was_read(page, now)
        if passed_over:
            self._facts.append(Filtered(_ids(passed_over)))

    def not_read(self, shard: str, now: float) -> None:
        """See `ShardMachine`."""
        self._readers[shard].not_read(now)

    def answered(self, batch: int, answer: Answer, now: float) -> None:
        """See `Machine`."""
        work = self._running.pop(batch)
        work.lane.is_at_work = False
        if isinstance(answer, Returned):
            self._returned(batch, work, answer.payload, now)
        elif isinstance(answer, FunctionFailed):
            self._facts.append(BatchFailed(batch, str(answer), is_whole=True))
            self._failed(work, now, has_raised=True)
        else:
            # Throttled, or nobody knows how it ended: it comes again, and no retry is counted.
            if isinstance(answer, Throttled):
                work.batch.invocations -= 1
            work.batch.come_again(now)

    def sent(self, send: int, now: float) -> None:
        """See `ShardMachine`."""
        del self._sends[send]

    def not_sent(self, send: int, now: float) -> None:
        """See `ShardMachine`."""
        waiting = self._sends[send]
        if waiting.tries < MAX_SENDS:
            waiting.retry_at = now + 2.0 ** (waiting.tries - 1)
            return
        del self._sends[send]
        self._facts.append(Undelivered(waiting.ids, waiting.action.destination))

    # -- Shards.

    def _list(self, now: float) -> Iterator[Action]:
        listing = self._listing
        if listing.is_under_way or listing.due_at is None or now < listing.due_at:
            return
        listing.is_under_way, listing.due_at = True, None
        yield ListShards()

    def _start(self, shard: Shard) -> Reader:
        is_initial = shard.id in self._listing.initial
        return Reader(
            shard.id,
            self._settings,
            # What appears later holds nothing but what came since: all of it is new.
            position=self._settings.starting_position if is_initial else "TRIM_HORIZON",
            timestamp=self._settings.starting_timestamp if is_initial else None,
        )

    def _waited_for(self, *, is_first: bool) -> set[str] | None:
        """Ended shards, whose children may start. None: nobody waits for anybody.

        From "LATEST" on, a shard that has a child when the mapping begins has nothing to read: a child that waited for it
        would begin to read later, and miss what came meanwhile.
        """
        is_from_now_on = is_first and self._settings.starting_position == "LATEST"
        return None if is_from_now_on else self._finished

    def _end_shards(self, now: float) -> None:
        """Let go of shards that are settled to their end."""
        for shard in [shard for shard, reader in self._readers.items() if reader.is_finished]:
            checkpoint = self._readers.pop(shard).checkpoint
            if checkpoint is not None:
                self._checkpoints[shard] = checkpoint
            self._finished.add(shard)
            self._listing.due_at = now

    def _misses_children(self) -> bool:
        parents = {parent for shard in self._listing.latest for parent in shard.parents}
        return not self._finished <= parents

    # -- Batches.

    @property
    def _is_busy(self) -> bool:
        return self._limit is not None and len(self._running) >= self._limit

    def _lanes(self) -> list[tuple[Reader, Lane]]:
        """All lanes, those that have waited longest first."""
        lanes = [(reader, lane) for reader in self._readers.values() for lane in reader.lanes]
        return sorted(lanes, key=lambda found: found[1].last_invoked)

    def _invoke(self, reader: Reader, lane: Lane, now: float) -> Invoke | None:
        while not lane.is_at_work:
            reader.form(now)
            if not lane.batches or now < lane.batches[0].not_before:
                return None
            batch = lane.batches[0]
            self._discard_expired(reader, batch, now)
            if not batch.records and not batch.ends_window:
                lane.batches.popleft()
                continue
            if self._is_busy:
                return None
            number = next(self._numbers)
            lane.is_at_work, lane.last_invoked = True, number
            batch.invocations += 1
            self._running[number] = _Work(reader, lane, batch)
            return Invoke(number, self._event(reader, batch), batch.ids)
        return None

    def _event(self, reader: Reader, batch: Batch) -> dict[str, Any]:
        event: dict[str, Any] = {"Records": [record.member for record in batch.records]}
        window = reader.window
        if window is None:
            return event
        is_early = batch.ends_window and window.is_too_large
        is_final = batch.ends_window and not window.is_too_large
        members = window.members(reader.shard, self._settings.source_arn, is_final=is_final, is_early=is_early)
        return {**event, **members}

    def _returned(self, number: int, work: _Work, response: Any, now: float) -> None:
        reader, lane, batch = work.reader, work.lane, work.batch
        try:
            state = None if reader.window is None else returned_state(response)
            settled = self._settled_by(response, batch.records)
        except ResponseError as error:
            self._facts.append(BatchFailed(number, str(error), is_whole=True))
            self._failed(work, now, has_raised=False)
            return
        if reader.window is not None and not batch.ends_window:
            reader.window.keep(state)
        self._settle(reader, batch.records[:settled])
        rest = batch.records[settled:]
        if rest:
            count = f"{len(rest)} of {len(batch.records)} records come again"
            self._facts.append(BatchFailed(number, count, is_whole=False))
        if rest and not settled:
            self._count_retry(work, now, has_raised=False)
            return
        lane.batches.popleft()
        if batch.ends_window:
            reader.window = _following(reader.window)
        if rest:
            # A batch of its own, with retries of its own.
            lane.batches.appendleft(Batch(rest))

    def _settled_by(self, response: Any, records: Sequence[StreamRecord]) -> int:
        """How many of a batch's records, from its first, are settled. Raises `ResponseError`."""
        if not self._settings.report_batch_item_failures:
            return len(records)
        numbers = [record.number for record in records]
        failed = named_failures(response, frozenset(numbers))
        return numbers.index(min(failed, key=int)) if failed else len(records)

    def _failed(self, work: _Work, now: float, *, has_raised: bool) -> None:
        """The whole batch failed: by halves again, or whole, or given up."""
        batch = work.batch
        if not self._settings.bisect or len(batch.records) < 2:
            self._count_retry(work, now, has_raised=has_raised)
            return
        work.lane.batches.popleft()
        first, second = batch.halves()
        first.come_again(now)
        work.lane.batches.extendleft((second, first))

    def _count_retry(self, work: _Work, now: float, *, has_raised: bool) -> None:
        batch = work.batch
        limit = self._settings.maximum_retry_attempts
        # The end of a window has no records that could be given up: the shard stands until it succeeds.
        if batch.ends_window or limit < 0 or batch.retries < limit:
            batch.retries += 1
            batch.come_again(now)
            return
        work.lane.batches.popleft()
        self._give_up(work.reader, batch, batch.records, Reason.RETRIES, now, has_raised=has_raised)

    # -- Ends of records.

    def _settle(self, reader: Reader, records: Sequence[StreamRecord]) -> None:
        if records:
            reader.settle(records)
            self._facts.append(Settled(_ids(records)))

    def _discard_expired(self, reader: Reader, batch: Batch, now: float) -> None:
        oldest = now - self._settings.age_limit
        expired = [record for record in batch.records if record.arrived_at < oldest]
        if expired:
            batch.records = [record for record in batch.records if record.arrived_at >= oldest]
            self._give_up(reader, batch, expired, Reason.AGE, now, has_raised=False)

    def _give_up(
        self,
        reader: Reader,
        batch: Batch,
        records: Sequence[StreamRecord],
        reason: Reason,
        now: float,
        *,
        has_raised: bool,
    ) -> None:
        reader.settle(records)
        self._facts.append(GivenUp(_ids(records), reader.shard, str(reason)))
        destination = self._settings.on_failure
        if destination is None:
            return
        number = next(self._numbers)
        name = f"{self._settings.function_arn}/{self._settings.source_arn}/{reader.shard}/{records[0].number}/{number}"
        record = invocation_record(
            function=self._settings.function_arn,
            request_id=str(uuid.uuid5(uuid.NAMESPACE_URL, name)),
            reason=reason,
            invocations=batch.invocations,
            has_raised=has_raised,
            now=now,
        ) | batch_info(self._kind, shard=reader.shard, records=records, stream=self._settings.source_arn)
        payload = self._event(reader, Batch(list(records)))
        action = SendToDestination(number, destination, record, payload)
        self._sends[number] = _Send(_ids(records), len(records), action)
        self._facts.append(action)

    def _send_again(self, now: float) -> Iterator[Action]:
        for send in self._sends.values():
            if send.retry_at is not None and now >= send.retry_at:
                send.tries, send.retry_at = send.tries + 1, None
                yield send.action


def _startable(shards: Sequence[Shard], started: Collection[str], finished: Collection[str] | None) -> list[Shard]:
    """The shards whose reading may begin: parents before children, so that a key's order holds over a reshard.

    A parent that the stream no longer lists has lost its records: nobody waits for it. `finished`: None: for no parent.
    """
    waiting: set[str] = set() if finished is None else {shard.id for shard in shards} - set(finished)
    return [shard for shard in shards if shard.id not in started and not waiting.intersection(shard.parents)]


def _next_try(reader: Reader, lane: Lane) -> float | None:
    """When time alone lets a lane go on. None: it does not."""
    if lane.is_at_work:
        return None
    if lane.batches:
        return lane.batches[0].not_before
    return reader.window_ends_at if lane.due_at is None else lane.due_at


def _following(window: Window | None) -> Window | None:
    """What is open after a window's end: the same window with a fresh state, when it ended early."""
    if window is None or not window.is_too_large:
        return None
    return Window(window.start, window.length)


def _ids(records: Sequence[StreamRecord]) -> tuple[str, ...]:
    return tuple(name for record in records for name in record.ids)
