"""A Kafka topic in memory: partitions that keep records by offset, keys that choose them, and what groups committed.

Kafka has a protocol of its own, so this is no `Service` with botocore's operations: `Topic` is what producers and tests
call, `Consumer` what a Kafka mapping's port calls. Errors carry the names of Kafka's protocol. The defaults are those of
Kafka's broker and client configuration.
"""

from __future__ import annotations

import base64
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.emulator.mappings.actions import Commit, Read, Shard, StreamRecord
from pipeline.emulator.mappings.machine import Page
from pipeline.emulator.services.service import ServiceError

#: `log.retention.hours`, in seconds.
RETENTION = 168 * 3600.0
#: `message.max.bytes`: key, value and headers; what Kafka writes beside them is not counted here.
MAX_RECORD_BYTES = 1_048_588
#: `max.poll.records` and `max.partition.fetch.bytes`: of one read.
MAX_RECORDS, MAX_FETCH_BYTES = 500, 1_048_576

TimestampType = Literal["CREATE_TIME", "LOG_APPEND_TIME"]
#: In a record as in Kafka: names may repeat.
Headers = Sequence[tuple[str, bytes]]


@dataclass(frozen=True)
class TopicRecord:
    """A record as a partition keeps it."""

    partition: int
    offset: int
    timestamp: float  #: epoch seconds
    key: bytes | None
    value: bytes | None  #: None: a tombstone
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def size(self) -> int:
        """Bytes of its key, value and headers."""
        texts = [self.key or b"", self.value or b"", *(value for _, value in self.headers)]
        return sum(map(len, texts)) + sum(len(name.encode()) for name, _ in self.headers)


@dataclass
class _Log:
    start: int = 0  #: the first offset that is kept
    records: deque[TopicRecord] = field(default_factory=deque)

    @property
    def end(self) -> int:
        """The offset of the next record."""
        return self.start + len(self.records)


class Topic:
    """One topic. `retention`: seconds, after which a record is gone; time is passed in, as epoch seconds."""

    def __init__(
        self,
        name: str,
        *,
        partitions: int = 1,
        retention: float = RETENTION,
        timestamp_type: TimestampType = "CREATE_TIME",
    ) -> None:
        self.name = name
        self.timestamp_type: TimestampType = timestamp_type
        self._retention = retention
        self._logs = [_Log() for _ in range(partitions)]
        self._next = 0  #: whose turn it is among records without a key
        self._committed: dict[str, dict[int, int]] = {}

    @property
    def partitions(self) -> int:
        """How many there are: they are numbered from 0."""
        return len(self._logs)

    def add_partitions(self, count: int) -> None:
        """Add partitions, empty ones. From now on a key may go to another one than its older records, as in Kafka."""
        self._logs += [_Log() for _ in range(count)]

    def append(
        self,
        value: bytes | None,
        now: float,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        partition: int | None = None,
        timestamp: float | None = None,
    ) -> TopicRecord:
        """Write a record: to `partition`, else where its key belongs, else to each partition in turn.

        `timestamp`: the producer's, epoch seconds; a topic with LOG_APPEND_TIME takes its own. Raises `ServiceError`:
        MESSAGE_TOO_LARGE, UNKNOWN_TOPIC_OR_PARTITION.
        """
        number = self._choose(key) if partition is None else partition
        log = self._log(number, now)
        is_producers = timestamp is not None and self.timestamp_type == "CREATE_TIME"
        written = timestamp if is_producers and timestamp is not None else now
        record = TopicRecord(number, log.end, written, key, value, tuple((name, bytes(one)) for name, one in headers))
        if record.size > MAX_RECORD_BYTES:
            raise ServiceError("MESSAGE_TOO_LARGE", f"the record has {record.size:,} bytes: {MAX_RECORD_BYTES:,} fit")
        log.records.append(record)
        return record

    def fetch(
        self, partition: int, offset: int, now: float, *, limit: int = MAX_RECORDS, max_bytes: int = MAX_FETCH_BYTES
    ) -> list[TopicRecord]:
        """A partition's records from an offset on; at least one if there is one, however large.

        Raises `ServiceError`: OFFSET_OUT_OF_RANGE for an offset whose record is gone, or that is beyond the next one.
        """
        log = self._log(partition, now)
        if not log.start <= offset <= log.end:
            raise ServiceError("OFFSET_OUT_OF_RANGE", f"offset {offset} is not within {log.start} to {log.end}")
        found: list[TopicRecord] = []
        size = 0
        for position in range(offset - log.start, min(len(log.records), offset - log.start + limit)):
            record = log.records[position]
            size += record.size
            if found and size > max_bytes:
                break
            found.append(record)
        return found

    def beginning(self, partition: int, now: float) -> int:
        """The first offset that is kept."""
        return self._log(partition, now).start

    def end(self, partition: int, now: float) -> int:
        """The offset that the next record gets."""
        return self._log(partition, now).end

    def at(self, partition: int, timestamp: float, now: float) -> int:
        """The first offset whose record is not older than this; that of the next record if there is none."""
        log = self._log(partition, now)
        return next((one.offset for one in log.records if one.timestamp >= timestamp), log.end)

    def commit(self, group: str, partition: int, offset: int) -> None:
        """Keep the offset from which a consumer group goes on."""
        self._committed.setdefault(group, {})[partition] = offset

    def committed(self, group: str) -> Mapping[int, int]:
        """What a group committed, by partition; empty: there is no such group."""
        return dict(self._committed.get(group, {}))

    def lag(self, group: str, now: float) -> int:
        """Records that a group has not committed."""
        places = self._committed.get(group, {})
        logs = [(self._log(number, now), places.get(number, 0)) for number in range(self.partitions)]
        return sum(log.end - max(place, log.start) for log, place in logs)

    def records(self, now: float) -> list[TopicRecord]:
        """All that it keeps, one partition after the other."""
        return [record for number in range(self.partitions) for record in self._log(number, now).records]

    def next_change(self, now: float) -> float | None:
        """When the retention takes the next record, epoch seconds; None: there is none."""
        firsts = [self._log(number, now).records for number in range(self.partitions)]
        return min((found[0].timestamp + self._retention for found in firsts if found), default=None)

    def _choose(self, key: bytes | None) -> int:
        if key is not None:
            return (murmur2(key) & 0x7FFFFFFF) % self.partitions
        self._next += 1
        return (self._next - 1) % self.partitions

    def _log(self, partition: int, now: float) -> _Log:
        if not 0 <= partition < self.partitions:
            raise ServiceError(
                "UNKNOWN_TOPIC_OR_PARTITION", f"{self.name} has {self.partitions} partitions, and no {partition}"
            )
        log = self._logs[partition]
        # From the front only, as Kafka does by segments: one that is younger keeps those behind it.
        while log.records and log.records[0].timestamp + self._retention <= now:
            log.records.popleft()
            log.start += 1
        return log


class Consumer:
    """A mapping's consumer of a topic. It keeps where each partition is read, from the first read on."""

    def __init__(self, topic: Topic, group: str = "") -> None:
        self._topic = topic
        self._group = group
        self._places: dict[int, int] = {}
        self._read_to: dict[int, int] = {}

    def start(self, position: str, timestamp: float | None, now: float) -> None:
        """Begin at once where a first read would begin: what is written from now on is behind "LATEST"."""
        for number, shard in enumerate(self.shards()):
            self._places[number] = self._start(number, Read(shard.id, None, position, timestamp, 1), now)

    def unread(self, now: float) -> int:
        """Records of which no read has told yet."""
        count = 0
        for number in range(self._topic.partitions):
            place = self._read_to.get(number, self._places.get(number, 0))
            count += self._topic.end(number, now) - max(place, self._topic.beginning(number, now))
        return count

    def shards(self) -> list[Shard]:
        """The topic's partitions, as a mapping knows them: "orders-0"."""
        return [Shard(f"{self._topic.name}-{number}") for number in range(self._topic.partitions)]

    def read(self, wanted: Read, now: float) -> Page:
        """What a mapping asks for. Records that the retention took are skipped."""
        number = self._number(wanted.shard)
        if wanted.after is not None:
            self._places[number] = int(wanted.after) + 1
        elif number not in self._places:
            # Kept: "LATEST" is the moment of the first read, not of each until there is something.
            self._places[number] = self._start(number, wanted, now)
        place = max(self._places[number], self._topic.beginning(number, now))
        found = self._topic.fetch(number, place, now, limit=wanted.limit)
        self._read_to[number] = place + len(found)
        return Page([self._record(one) for one in found], millis_behind=self._behind(number, found, now))

    def commit(self, wanted: Commit) -> None:
        """Commit for the group; without one nothing is kept."""
        if self._group:
            self._topic.commit(self._group, self._number(wanted.shard), int(wanted.number))

    def _number(self, shard: str) -> int:
        return int(shard.rpartition("-")[2])

    def _start(self, number: int, wanted: Read, now: float) -> int:
        """Lambda developer guide, "Customizable consumer group ID in Lambda": what a group has committed comes first."""
        committed = self._topic.committed(self._group).get(number)
        if committed is not None:
            return min(committed, self._topic.end(number, now))
        if wanted.position == "LATEST":
            return self._topic.end(number, now)
        if wanted.position == "AT_TIMESTAMP" and wanted.timestamp is not None:
            return self._topic.at(number, wanted.timestamp, now)
        return self._topic.beginning(number, now)

    def _behind(self, number: int, found: Sequence[TopicRecord], now: float) -> int:
        if not found or found[-1].offset + 1 == self._topic.end(number, now):
            return 0
        newest = self._topic.fetch(number, self._topic.end(number, now) - 1, now)[0]
        return max(1, int((newest.timestamp - found[-1].timestamp) * 1000))

    def _record(self, record: TopicRecord) -> StreamRecord:
        member = event_member(self._topic, record)
        size = len(json.dumps(member, separators=(",", ":"))) + 1
        key = "" if record.key is None else record.key.hex()
        return StreamRecord(str(record.offset), member, size, record.timestamp, key=key, data=record.value)


def event_member(topic: Topic, record: TopicRecord) -> dict[str, Any]:
    """A record in Lambda's event ("Using Lambda with self-managed Apache Kafka", the example event)."""
    member: dict[str, Any] = {
        "topic": topic.name,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": round(record.timestamp * 1000),
        "timestampType": topic.timestamp_type,
        "headers": [{name: _signed(value)} for name, value in record.headers],
    }
    for name, value in (("key", record.key), ("value", record.value)):
        if value is not None:
            member[name] = base64.b64encode(value).decode()
    return member


def murmur2(key: bytes) -> int:
    """Kafka's hash of a key, by which its Java client chooses the partition: MurmurHash2 with Kafka's seed, unsigned."""
    factor, mask = 0x5BD1E995, 0xFFFFFFFF
    found = 0x9747B28C ^ len(key)
    whole = len(key) & ~3
    for start in range(0, whole, 4):
        word = int.from_bytes(key[start : start + 4], "little") * factor & mask
        word = (word ^ (word >> 24)) * factor & mask
        found = found * factor & mask ^ word
    if rest := key[whole:]:
        found = (found ^ int.from_bytes(rest, "little")) * factor & mask
    found = (found ^ (found >> 13)) * factor & mask
    return found ^ (found >> 15)


def _signed(value: bytes) -> list[int]:
    # Java's bytes: Powertools (`decode_header_bytes`) expects those above 127 as negative numbers.
    return [one - 256 if one > 127 else one for one in value]
