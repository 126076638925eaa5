"""One stream in memory: its settings and shards, where a record goes, and where a reader starts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.emulator.services.service import ACCOUNT, REGION, ServiceError
from pipeline.emulator.services.shards import Record, Shard, Shards, hash_of, index_in, shard_id
from pipeline.emulator.services.stream_parameters import bad_argument, data_of, hash_key, length, moment_of, violation
from pipeline.emulator.services.throughput import Throughput

Parameters = Mapping[str, Any]

ARN = f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/"
KIB, MIB = 1_024, 1_048_576
#: Of one call.
_PUT_RECORDS, _PUT_BYTES = 500, 10 * MIB
GET_RECORDS, GET_BYTES = 10_000, 10 * MIB
_MAX_KEY = 256
_NUMBER = re.compile(r"0|[1-9]\d{0,128}", re.ASCII)


@dataclass(kw_only=True)
class Stream:
    """One stream."""

    name: str
    serial: int
    created_at: float
    mode: str
    shards: Shards
    max_record: int  #: bytes of a record with its key
    distributes: bool  #: whether it ignores partition keys ("AUTO")
    settled_at: float  #: until then it is `settling`
    settling: str = "CREATING"
    retention_hours: int = 24
    key_id: str | None = None  #: of its encryption
    tags: dict[str, str] = field(default_factory=dict[str, str])
    scaled_at: list[float] = field(default_factory=list[float])
    throughput: dict[str, Throughput] = field(default_factory=dict[str, Throughput])  #: by shard
    throttles: bool = False  #: whether its shards take and give no more than AWS's do
    turn: int = 0  #: of the shards, when it ignores partition keys

    @property
    def arn(self) -> str:
        """Its ARN."""
        return f"{ARN}{self.name}"

    @property
    def retention(self) -> float:
        """Seconds that a record is kept."""
        return self.retention_hours * 3_600.0

    @property
    def encryption(self) -> str | None:
        """What records are encrypted with; None: nothing."""
        return None if self.key_id is None else "KMS"

    def horizon(self, now: float) -> float:
        """Since when records are kept, epoch seconds; not before the stream was made."""
        return max(self.created_at, now - self.retention)

    def status(self, now: float) -> str:
        """As the API has it."""
        return self.settling if now < self.settled_at else "ACTIVE"


@dataclass(frozen=True)
class Entry:
    """A record to put, checked."""

    data: bytes
    key: str | None
    hash_key: int | None

    @property
    def size(self) -> int:
        """Bytes, as limits count them."""
        return len(self.data) + len((self.key or "").encode())


def checked(stream: Stream, given: Parameters) -> Entry:
    """A record to put. Raises `ServiceError`."""
    key, data, explicit = given.get("PartitionKey"), given.get("Data"), given.get("ExplicitHashKey")
    if data is None:
        raise violation("data", "Member must not be null")
    if key is None and not stream.distributes:
        raise violation("partitionKey", "Member must not be null")
    if key is not None and not 1 <= length(key) <= _MAX_KEY:
        raise violation("partitionKey", f"Member must have length of 1 to {_MAX_KEY}")
    entry = Entry(data_of(data), key, None if explicit is None else hash_key(explicit, "ExplicitHashKey"))
    if entry.size > stream.max_record:
        raise bad_argument(
            f"a record of {stream.name} has at most {stream.max_record // KIB} KiB with its partition key"
        )
    return entry


def check_put(records: Sequence[Parameters], checked: Callable[[Parameters], Entry]) -> list[Entry]:
    """The records of one call to put them, each of them checked. Raises `ServiceError`."""
    if not 1 <= len(records) <= _PUT_RECORDS:
        raise violation("records", f"Member must have length of 1 to {_PUT_RECORDS}")
    entries = [checked(record) for record in records]
    if sum(entry.size for entry in entries) > _PUT_BYTES:
        raise bad_argument(f"the records have more than {_PUT_BYTES // MIB} MiB with their partition keys")
    return entries


def chosen(stream: Stream, entry: Entry) -> Shard:
    """The shard of a record."""
    if stream.distributes:
        stream.turn += 1
        found = stream.shards.open
        return found[stream.turn % len(found)]
    return stream.shards.covering(hash_of(entry.key or "") if entry.hash_key is None else entry.hash_key)


def fitting(records: Sequence[Record]) -> Sequence[Record]:
    """As many as one answer holds: one record always."""
    size = 0
    for count, record in enumerate(records):
        size += record.size
        if size > GET_BYTES and count:
            return records[:count]
    return records


def start_of(stream: Stream, shard: Shard, given: Parameters, now: float) -> int:
    """The sequence number behind which a new iterator reads."""
    match given.get("ShardIteratorType"):
        case "TRIM_HORIZON":
            return shard.first_number
        case "LATEST":
            return shard.last_number or stream.shards.latest_number
        case "AT_TIMESTAMP":
            moment = moment_of(given.get("Timestamp"), "Timestamp")
            if moment > now:
                raise bad_argument("Timestamp is in the future")
            at = shard.at(moment)
            return shard.numbers[at] - 1 if at < len(shard.numbers) else stream.shards.latest_number
        case "AT_SEQUENCE_NUMBER":
            return _given_number(shard, given) - 1
        case "AFTER_SEQUENCE_NUMBER":
            return _given_number(shard, given)
        case _:
            kinds = "AFTER_SEQUENCE_NUMBER, LATEST, AT_TIMESTAMP, AT_SEQUENCE_NUMBER, TRIM_HORIZON"
            raise violation("shardIteratorType", f"Member must satisfy enum value set: [{kinds}]")


def _given_number(shard: Shard, given: Parameters) -> int:
    text = given.get("StartingSequenceNumber")
    if not isinstance(text, str) or not _NUMBER.fullmatch(text):
        raise bad_argument("StartingSequenceNumber is missing, or is no sequence number")
    index = index_in(int(text))
    if index != shard.index:
        of = "of no shard" if index is None else f"of {shard_id(index)}"
        raise bad_argument(f"StartingSequenceNumber is {of}, not of {shard.id}")
    return int(text)


def known_shard(stream: Stream, name: object) -> Shard:
    """A shard that the stream lists. Raises `ServiceError`."""
    shard = stream.shards.all.get(str(name))
    if shard is None:
        raise ServiceError(
            "ResourceNotFoundException",
            f"Shard {name} in stream {stream.name} under account {ACCOUNT} does not exist",
        )
    return shard


def open_shard(stream: Stream, name: object) -> Shard:
    """A shard that can be resharded. Raises `ServiceError`."""
    shard = known_shard(stream, name)
    if not shard.is_open:
        raise bad_argument(f"{shard.id} of {stream.name} is closed: it was split or merged already")
    return shard
