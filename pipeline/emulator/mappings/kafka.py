"""What a Kafka topic's event source mapping decides: batches over its partitions, retries, and the offsets to commit.

Pure. The rules are those of the Lambda developer guide's pages on Apache Kafka; beyond them, of its pages on streams.
Where neither says anything, `docs/emulator.md` says what was chosen.
"""

from __future__ import annotations

import json
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.emulator.mappings.actions import (
    Action,
    BatchFailed,
    Commit,
    Filtered,
    GivenUp,
    Invoke,
    ListShards,
    Read,
    SendToDestination,
    Settled,
    Shard,
    StreamRecord,
)
from pipeline.emulator.mappings.answers import Answer, FunctionFailed, Returned, Throttled
from pipeline.emulator.mappings.batching import MAX_EVENT_BYTES
from pipeline.emulator.mappings.destination import Reason
from pipeline.emulator.mappings.kafka_destination import TOO_LARGE, Failure, batch_record, is_topic, topic_record
from pipeline.emulator.mappings.machine import Page
from pipeline.emulator.mappings.partition import Partition
from pipeline.emulator.mappings.response import ResponseError, failure_items
from pipeline.emulator.mappings.settings import KafkaSettings

#: Invocations of one poller at once ("Apache Kafka event poller scaling modes in Lambda").
MAX_CONCURRENT = 5
#: With infinite retries and a destination Lambda retries so often ("Using a Kafka topic as an on-failure destination").
RETRIES_WITH_DESTINATION = 10
#: Records of one read: a Kafka consumer's `max.poll.records`.
MAX_READ = 500
#: A Kafka client looks for new partitions so often: `metadata.max.age.ms`, seconds.
LISTING_SECONDS = 300.0
_BROKEN_PAUSE = 1.0
#: Seconds before a batch is tried again, and how long they become. Lambda's are not documented.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0

_IDENTIFIER = '{"partition": "TOPIC-NUMBER", "offset": NUMBER}'

#: A record's place: its partition, and its offset.
Place = tuple[str, int]


class _Item(NamedTuple):
    partition: Partition
    record: StreamRecord

    @property
    def place(self) -> Place:
        return self.partition.id, int(self.record.number)


@dataclass
class _Part:
    """What one invocation takes: a batch, half of one that was split, or what is left of either."""

    items: list[_Item]
    retries: int = 0  #: that count
    invocations: int = 0
    pauses: int = 0  #: in a row
    batch: int = 0  #: of its last invocation
    answer: Answer | None = None  #: its last


@dataclass(eq=False)
class _Batch:
    """A batch from its first invocation until all of it is settled. Its parts go out one after the other."""

    parts: deque[_Part]
    is_out: bool = False
    tries_at: float = 0.0


@dataclass
class _Send:
    wanted: SendToDestination
    items: list[_Item]
    tries_at: float | None = 0.0  #: None: it is under way
    pauses: int = 0


class KafkaMapping:
    """A `machine.ShardMachine` over a topic's partitions. Order holds in a partition: while a batch has records of one,
    nothing else of that partition goes out.

    `limit`: invocations at once.
    """

    def __init__(self, settings: KafkaSettings, *, limit: int | None = None) -> None:
        self._settings = settings
        self._limit = MAX_CONCURRENT if limit is None else limit
        self._lists_at: float | None = 0.0  #: None: it is being listed
        self._was_listed = False
        self._partitions: dict[str, Partition] = {}
        #: The order in which partitions give to a batch: who gave last comes last.
        self._turns: list[Partition] = []
        self._batches: list[_Batch] = []
        self._out: dict[int, _Batch] = {}
        self._sends: dict[int, _Send] = {}
        self._facts: list[Action] = []
        self._invocations = 0
        self._sent = 0
        self._max_bytes = MAX_EVENT_BYTES - _size(self._event({}))
        infinite = settings.maximum_retry_attempts == -1
        self._retries = (
            RETRIES_WITH_DESTINATION if infinite and settings.on_failure else settings.maximum_retry_attempts
        )

    # -- What is to be done.

    def actions(self, now: float) -> list[Action]:
        """See `Machine`."""
        commands = [*self._listings(now), *self._tries(now), *self._new_batches(now), *self._reads(now)]
        facts, self._facts = self._facts, []
        # The records that were given up meanwhile have their sends after the facts about them.
        return [*facts, *commands, *self._sends_due(now), *self._commits()]

    @property
    def wakes_at(self) -> float | None:
        """See `Machine`."""
        times = [batch.tries_at for batch in self._batches if not batch.is_out]
        times += [send.tries_at for send in self._sends.values() if send.tries_at is not None]
        times += [one.reads_at for one in self._partitions.values() if self._wants(one)]
        if self._lists_at is not None:
            times.append(self._lists_at)
        if len(self._batches) < self._limit:
            times += [one.waits_since + self._settings.batching_window for one in self._turns if one.is_free]
        return min(times, default=None)

    @property
    def held(self) -> int:
        """See `Machine`."""
        return sum(partition.held for partition in self._partitions.values())

    @property
    def millis_behind(self) -> int:
        """See `ShardMachine`."""
        return max((partition.millis_behind for partition in self._partitions.values()), default=0)

    @property
    def committed(self) -> Mapping[str, int]:
        """For who looks on: the next offset of each partition from which whoever takes over would go on."""
        found = {name: partition.committed for name, partition in self._partitions.items()}
        return {name: offset for name, offset in found.items() if offset is not None}

    # -- What happened.

    def listed(self, shards: Sequence[Shard], now: float) -> None:
        """See `ShardMachine`. A partition that appears later has nothing but new records: it starts at its first."""
        settings = self._settings
        for shard in shards:
            if shard.id in self._partitions:
                continue
            made = Partition(shard.id, "TRIM_HORIZON")
            if not self._was_listed:
                made = Partition(shard.id, settings.starting_position, settings.starting_timestamp)
            self._partitions[shard.id] = made
            self._turns.append(made)
        self._was_listed = True
        self._lists_at = now + LISTING_SECONDS

    def not_listed(self, now: float) -> None:
        """See `ShardMachine`."""
        self._lists_at = now + _BROKEN_PAUSE

    def was_read(self, shard: str, page: Page, now: float) -> None:
        """See `ShardMachine`."""
        partition = self._partitions[shard]
        partition.is_reading = False
        partition.millis_behind = page.millis_behind
        filtered: list[StreamRecord] = []
        for record in page.records:
            if not self._is_accepted(record):
                partition.passed(record)
                partition.settle(record)
                filtered.append(record)
            elif record.size > self._max_bytes:
                partition.passed(record)
                partition.at_work += 1
                self._give_up([_Item(partition, record)], TOO_LARGE, _Part([]), now)
            else:
                partition.add(record, now)
        if filtered:
            self._facts.append(Filtered(tuple(name for one in filtered for name in _names(shard, one))))

    def not_read(self, shard: str, now: float) -> None:
        """See `ShardMachine`."""
        partition = self._partitions[shard]
        partition.is_reading = False
        partition.reads_at = now + _BROKEN_PAUSE

    def answered(self, batch: int, answer: Answer, now: float) -> None:
        """See `Machine`."""
        found = self._out.pop(batch)
        found.is_out = False
        part = found.parts[0]
        if isinstance(answer, Returned | FunctionFailed):
            part.invocations += 1
            part.answer = answer
            self._conclude(found, part, answer, now)
        else:
            # It never ran, or nobody knows: the records are not at fault, so no retry is counted.
            reason = answer.reason if isinstance(answer, Throttled) else "nothing was heard of the invocation"
            part.invocations += not isinstance(answer, Throttled)
            self._facts.append(BatchFailed(batch, reason, is_whole=True))
            self._pause(found, part, now)
        self._forget_ended(found)

    def sent(self, send: int, now: float) -> None:
        """See `ShardMachine`."""
        self._release(self._sends.pop(send).items)

    def not_sent(self, send: int, now: float) -> None:
        """See `ShardMachine`. It is tried until it succeeds: until then nothing of its partitions goes on, or is lost."""
        found = self._sends[send]
        found.pauses += 1
        found.tries_at = now + _pause(found.pauses)

    # -- Reading.

    def _listings(self, now: float) -> Iterator[Action]:
        if self._lists_at is not None and now >= self._lists_at:
            self._lists_at = None
            yield ListShards()

    def _reads(self, now: float) -> Iterator[Action]:
        for partition in self._partitions.values():
            if self._wants(partition) and now >= partition.reads_at:
                partition.is_reading = True
                yield Read(partition.id, partition.after, partition.position, partition.timestamp, MAX_READ)

    def _wants(self, partition: Partition) -> bool:
        # What waits is bounded, by number and by bytes: a partition that is at work may be so for long.
        has_room = partition.waiting < self._settings.batch_size and partition.bytes < MAX_EVENT_BYTES
        return has_room and not partition.is_reading

    def _is_accepted(self, record: StreamRecord) -> bool:
        wanted = self._settings.filter
        # A record without a value has nothing that a pattern could match.
        return wanted is None or (isinstance(record.data, bytes | str) and wanted.accepts(record.data))

    # -- Batches.

    def _new_batches(self, now: float) -> Iterator[Action]:
        while len(self._batches) < self._limit and self._is_due(now):
            batch = _Batch(deque([_Part(self._take())]))
            self._batches.append(batch)
            yield from self._try(batch, now)

    def _is_due(self, now: float) -> bool:
        free = [partition for partition in self._turns if partition.is_free]
        if not free:
            return False
        return (
            sum(partition.waiting for partition in free) >= self._settings.batch_size
            or sum(partition.bytes for partition in free) >= self._max_bytes
            or now >= min(partition.waits_since for partition in free) + self._settings.batching_window
        )

    def _take(self) -> list[_Item]:
        """A batch's records: all that a partition has, then the next one's, up to the size and to 6 MB."""
        found: list[_Item] = []
        left, room = self._settings.batch_size, self._max_bytes
        givers = [partition for partition in self._turns if partition.is_free]
        for partition in givers:
            while partition.waiting and left and partition.next.size <= room:
                record = partition.take()
                left, room = left - 1, room - record.size
                found.append(_Item(partition, record))
        gave = {item.partition.id for item in found}
        self._turns.sort(key=lambda partition: partition.id in gave)
        return found

    def _tries(self, now: float) -> Iterator[Action]:
        for batch in list(self._batches):
            yield from self._try(batch, now)

    def _try(self, batch: _Batch, now: float) -> Iterator[Action]:
        """Invoke the function with the batch's first part, when it is time."""
        while batch.parts and not batch.is_out and now >= batch.tries_at:
            part = batch.parts[0]
            self._drop_old(part, now)
            if part.items:
                self._invocations += 1
                part.batch, batch.is_out = self._invocations, True
                self._out[part.batch] = batch
                yield Invoke(part.batch, self._event(_grouped(part.items)), _ids(part.items))
            self._forget_ended(batch)

    def _drop_old(self, part: _Part, now: float) -> None:
        age = self._settings.maximum_record_age
        if age == -1:
            return
        old = [item for item in part.items if now - item.record.arrived_at > age]
        if old:
            part.items = [item for item in part.items if now - item.record.arrived_at <= age]
            self._give_up(old, Reason.AGE, part, now)

    # -- How an invocation ended.

    def _conclude(self, batch: _Batch, part: _Part, answer: Returned | FunctionFailed, now: float) -> None:
        if isinstance(answer, FunctionFailed):
            self._facts.append(BatchFailed(part.batch, str(answer), is_whole=True))
            if self._settings.bisect and len(part.items) > 1:
                self._split(batch, part)
            else:
                self._retry(batch, part, now)
            return
        if not self._settings.report_batch_item_failures:
            self._settle(part, part.items)
            return
        try:
            failed = named_places(answer.payload, {item.place for item in part.items})
        except ResponseError as error:
            self._facts.append(BatchFailed(part.batch, str(error), is_whole=True))
            self._retry(batch, part, now)
            return
        self._settle(part, [item for item in part.items if item.place not in failed])
        if part.items:
            reason = f"the response names {len(part.items)} of its records"
            self._facts.append(BatchFailed(part.batch, reason, is_whole=False))
            self._retry(batch, part, now)

    def _split(self, batch: _Batch, part: _Part) -> None:
        """The halves go out one after the other, at once. It consumes no retry."""
        middle = len(part.items) // 2
        halves = [
            _Part(items, part.retries, part.invocations, answer=part.answer, batch=part.batch)
            for items in (part.items[:middle], part.items[middle:])
        ]
        batch.parts.popleft()
        batch.parts.extendleft(reversed(halves))

    def _retry(self, batch: _Batch, part: _Part, now: float) -> None:
        """What is left of a part goes out again, unless it has no more retries."""
        if 0 <= self._retries <= part.retries:
            given_up, part.items = part.items, []
            self._give_up(given_up, Reason.RETRIES, part, now)
            return
        part.retries += 1
        self._pause(batch, part, now)

    def _pause(self, batch: _Batch, part: _Part, now: float) -> None:
        part.pauses += 1
        batch.tries_at = now + _pause(part.pauses)

    def _settle(self, part: _Part, items: list[_Item]) -> None:
        done = {item.place for item in items}
        part.items = [item for item in part.items if item.place not in done]
        self._release(items)
        if items:
            part.pauses = 0
            self._facts.append(Settled(_ids(items)))

    def _forget_ended(self, batch: _Batch) -> None:
        while batch.parts and not batch.parts[0].items:
            batch.parts.popleft()
            batch.tries_at = 0.0
        if not batch.parts and batch in self._batches:
            self._batches.remove(batch)

    def _release(self, items: Sequence[_Item]) -> None:
        for item in items:
            item.partition.at_work -= 1
            item.partition.settle(item.record)

    # -- Giving up.

    def _give_up(self, items: list[_Item], condition: str, part: _Part, now: float) -> None:
        for name, records in _grouped(items).items():
            ids = tuple(identity for record in records for identity in _names(name, record))
            self._facts.append(GivenUp(ids, name, condition))
        if self._settings.on_failure is None:
            self._release(items)
            return
        failure = Failure(condition, self._request_id(part.batch, items[0]), part.invocations, part.answer, now)
        # A topic gets each record by itself; everybody else one message for all of them.
        for group in [[item] for item in items] if is_topic(self._settings.on_failure) else [items]:
            self._sent += 1
            self._sends[self._sent] = _Send(self._message(group, failure, self._settings.on_failure), group)

    def _message(self, items: list[_Item], failure: Failure, destination: str) -> SendToDestination:
        records = _grouped(items)
        event = self._event(records)
        if is_topic(destination):
            record = topic_record(items[0].record, event, _size(event), failure, self._settings)
        else:
            record = batch_record(records, _size(event), failure, self._settings)
        return SendToDestination(self._sent, destination, record, event)

    def _sends_due(self, now: float) -> Iterator[Action]:
        for send in self._sends.values():
            if send.tries_at is not None and now >= send.tries_at:
                send.tries_at = None
                yield send.wanted

    def _commits(self) -> Iterator[Action]:
        for partition in self._partitions.values():
            offset = partition.committed
            if offset != partition.told:
                partition.told = offset
                yield Commit(partition.id, str(offset))

    # -- The event.

    def _event(self, records: Mapping[str, Sequence[StreamRecord]]) -> dict[str, Any]:
        settings = self._settings
        source = {"eventSource": "SelfManagedKafka"}
        if settings.is_msk:
            source = {"eventSource": "aws:kafka", "eventSourceArn": settings.source_arn}
        members = {name: [record.member for record in found] for name, found in records.items()}
        return {**source, "bootstrapServers": settings.bootstrap_servers, "records": members}

    def _request_id(self, batch: int, first: _Item) -> str:
        """Of the last invocation, made up, and the same in every run; of records that saw none, one of their own."""
        place = str(batch) if batch else f"{first.partition.id}:{first.record.number}"
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self._settings.source_arn}/{self._settings.topics[0]}/{place}"))


def named_places(response: Any, places: set[Place]) -> set[Place]:
    """The places of the batch that a return value names, with ReportBatchItemFailures on.

    Raises `ResponseError`, after which the whole batch is retried: "Any invalid topic-partition_number or offset returned
    that was not present in the invoked event will be treated as failure and entire batch will be retried" ("Configuring
    error handling controls for Kafka event sources").
    """
    return {_place(at, item, places) for at, item in enumerate(failure_items(response))}


def _place(at: int, item: Any, places: set[Place]) -> Place:
    where = f"batchItemFailures[{at}]"
    identifier = item.get("itemIdentifier") if isinstance(item, dict) else None
    if not isinstance(identifier, dict):
        raise ResponseError(f"{where} has no itemIdentifier that is an object: write {_IDENTIFIER}")
    partition, offset = identifier.get("partition"), identifier.get("offset")
    if not isinstance(partition, str) or not isinstance(offset, int) or isinstance(offset, bool):
        raise ResponseError(f"{where}: its itemIdentifier has not both partition and offset: write {_IDENTIFIER}")
    if (partition, offset) not in places:
        raise ResponseError(f"{where}: its itemIdentifier is no record of this batch: give the record's own")
    return partition, offset


def _grouped(items: Sequence[_Item]) -> dict[str, list[StreamRecord]]:
    found: dict[str, list[StreamRecord]] = {}
    for item in items:
        found.setdefault(item.partition.id, []).append(item.record)
    return found


def _ids(items: Sequence[_Item]) -> tuple[str, ...]:
    return tuple(name for item in items for name in _names(item.partition.id, item.record))


def _names(partition: str, record: StreamRecord) -> tuple[str, ...]:
    return record.ids or (f"{partition}:{record.number}",)


def _size(event: Mapping[str, Any]) -> int:
    return len(json.dumps(event, separators=(",", ":")).encode())


def _pause(count: int) -> float:
    """Seconds before the next try, after so many in a row that failed."""
    return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(count - 1, 10))
