"""Kinesis Data Streams in memory.

Sources: the API model of Kinesis in botocore, which has the text of the API reference, and the Developer Guide. What
neither of them says is chosen; `docs/emulator.md` lists the choices.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pipeline.emulator.services import places
from pipeline.emulator.services.places import Iterator, Rest
from pipeline.emulator.services.service import ACCOUNT, REGION, Operation, ServiceError
from pipeline.emulator.services.shards import HASHES, Record, Shard, Shards, hash_of, index_in, shard_id
from pipeline.emulator.services.throughput import Throughput

Parameters = Mapping[str, Any]
Answer = dict[str, Any]

_KIB, _MIB = 1_024, 1_048_576
_PUT_RECORDS, _PUT_BYTES = 500, 10 * _MIB
_GET_RECORDS, _GET_BYTES = 10_000, 10 * _MIB
_MAX_KEY = 256
_ON_DEMAND_SHARDS = 4
_LISTED_SHARDS, _DESCRIBED_SHARDS, _LISTED_STREAMS, _LISTED_TAGS = 1_000, 100, 100, 50
_MAX_TAGS = 50
_RETENTION_HOURS = (24, 8_760)
_RECORD_KIB = (1_024, 10_240)
_SCALINGS, _SCALING_SECONDS = 10, 86_400.0
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,128}")
_HASH_KEY = re.compile(r"0|[1-9]\d{0,38}", re.ASCII)
_NUMBER = re.compile(r"0|[1-9]\d{0,128}", re.ASCII)
_ARN = f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/"
_ON_DEMAND, _PROVISIONED = "ON_DEMAND", "PROVISIONED"


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
    turn: int = 0  #: of the shards, when it ignores partition keys

    @property
    def arn(self) -> str:
        """Its ARN."""
        return f"{_ARN}{self.name}"

    @property
    def retention(self) -> float:
        """Seconds that a record is kept."""
        return self.retention_hours * 3_600.0

    @property
    def encryption(self) -> str | None:
        """What records are encrypted with; None: nothing."""
        return None if self.key_id is None else "KMS"

    def status(self, now: float) -> str:
        """As the API has it."""
        return self.settling if now < self.settled_at else "ACTIVE"


class Kinesis:
    """The streams of one account and region.

    `throttles`: shards take and give no more than AWS's do; else there is no limit. `settling`: seconds for which a
    stream is CREATING, and UPDATING after a reshard, which itself is done at once.
    """

    name = "kinesis"

    def __init__(self, *, throttles: bool = False, settling: float = 0.0) -> None:
        self._throttles = throttles
        self._settling = settling
        self._streams: dict[str, Stream] = {}
        self._serial = 0
        self._iterators = 0
        self.operations: Mapping[str, Operation] = {
            "add_tags_to_stream": self._add_tags,
            "create_stream": self._create,
            "decrease_stream_retention_period": self._decrease_retention,
            "delete_stream": self._delete,
            "describe_stream": self._describe,
            "describe_stream_summary": self._summarize,
            "get_records": self._get_records,
            "get_shard_iterator": self._get_iterator,
            "increase_stream_retention_period": self._increase_retention,
            "list_shards": self._list_shards,
            "list_streams": self._list_streams,
            "list_tags_for_stream": self._list_tags,
            "merge_shards": self._merge,
            "put_record": self._put_record,
            "put_records": self._put_records,
            "remove_tags_from_stream": self._remove_tags,
            "split_shard": self._split,
            "start_stream_encryption": self._start_encryption,
            "stop_stream_encryption": self._stop_encryption,
            "update_max_record_size": self._update_max_record_size,
            "update_shard_count": self._update_shard_count,
            "update_stream_mode": self._update_mode,
        }

    def next_change(self, now: float) -> float | None:
        """When the next record expires, or the next stream is ready."""
        moments: list[float] = []
        for stream in self._streams.values():
            moments.append(stream.settled_at)
            for shard in stream.shards.all.values():
                if shard.records:
                    moments.append(shard.records[0].arrived_at + stream.retention)
                elif shard.closed_at is not None:
                    moments.append(shard.closed_at + stream.retention)
        return min((moment for moment in moments if moment > now), default=None)

    # Streams

    def _create(self, given: Parameters, now: float) -> Answer:
        name = given.get("StreamName")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise _constraint("streamName", "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]{1,128}")
        if name in self._streams:
            raise ServiceError("ResourceInUseException", f"Stream {name} under account {ACCOUNT} already exists.")
        mode = _mode(given.get("StreamModeDetails") or {"StreamMode": _PROVISIONED})
        count = _ON_DEMAND_SHARDS if mode == _ON_DEMAND else given.get("ShardCount")
        if not isinstance(count, int) or count < 1:
            raise _constraint("shardCount", "Member must have value greater than or equal to 1")
        tags = dict(given.get("Tags") or {})
        _check_tags(tags)
        self._serial += 1
        self._streams[name] = Stream(
            name=name,
            serial=self._serial,
            created_at=now,
            mode=mode,
            shards=Shards(count, now),
            max_record=_record_kib(given.get("MaxRecordSizeInKiB", _RECORD_KIB[0])) * _KIB,
            distributes=_distributes(given.get("RecordDistributionStrategy"), mode),
            settled_at=now + self._settling,
            tags=tags,
        )
        return {}

    def _delete(self, given: Parameters, now: float) -> Answer:
        del self._streams[self._stream(given, now).name]
        return {}

    def _describe(self, given: Parameters, now: float) -> Answer:
        stream = self._stream(given, now)
        limit = min(_limit(given, "Limit", _DESCRIBED_SHARDS, 10_000), _DESCRIBED_SHARDS)
        left = _behind(stream.shards.all.values(), given.get("ExclusiveStartShardId"))
        description = {
            **_description(stream, now),
            "Shards": [_shard(shard) for shard in left[:limit]],
            "HasMoreShards": len(left) > limit,
        }
        return {"StreamDescription": description}

    def _summarize(self, given: Parameters, now: float) -> Answer:
        stream = self._stream(given, now)
        summary = {
            **_description(stream, now),
            "OpenShardCount": len(stream.shards.open),
            "ConsumerCount": 0,
            "MaxRecordSizeInKiB": stream.max_record // _KIB,
        }
        if stream.mode == _ON_DEMAND:
            summary["RecordDistributionStrategy"] = "AUTO" if stream.distributes else "USER_PARTITION_KEY"
        return {"StreamDescriptionSummary": summary}

    def _list_streams(self, given: Parameters, now: float) -> Answer:
        limit = min(_limit(given, "Limit", _LISTED_STREAMS, 10_000), _LISTED_STREAMS)
        start = given.get("NextToken") or given.get("ExclusiveStartStreamName") or ""
        left = [self._streams[name] for name in sorted(self._streams) if name > start]
        found = left[:limit]
        more = {"NextToken": found[-1].name} if len(left) > limit else {}
        return {
            "StreamNames": [stream.name for stream in found],
            "HasMoreStreams": len(left) > limit,
            "StreamSummaries": [
                {name: value for name, value in _description(stream, now).items() if name in _SUMMARY}
                for stream in found
            ],
            **more,
        }

    def _update_mode(self, given: Parameters, now: float) -> Answer:
        stream = self._stream(given, now)
        stream.mode = _mode(given.get("StreamModeDetails") or {})
        stream.distributes = stream.distributes and stream.mode == _ON_DEMAND
        return {}

    def _update_max_record_size(self, given: Parameters, now: float) -> Answer:
        stream = self._stream(given, now)
        stream.max_record = _record_kib(given.get("MaxRecordSizeInKiB")) * _KIB
        return {}

    def _increase_retention(self, given: Parameters, now: float) -> Answer:
        stream, hours = self._stream(given, now), _retention_hours(given)
        if hours <= stream.retention_hours:
            raise _argument(f"the retention period of {stream.name} is {stream.retention_hours} hours: give more")
        stream.retention_hours = hours
        return {}

    def _decrease_retention(self, given: Parameters, now: float) -> Answer:
        stream, hours = self._stream(given, now), _retention_hours(given)
        if hours >= stream.retention_hours:
            raise _argument(f"the retention period of {stream.name} is {stream.retention_hours} hours: give less")
        stream.retention_hours = hours
        return {}

    def _start_encryption(self, given: Parameters, now: float) -> Answer:
        stream, key_id = self._stream(given, now), given.get("KeyId")
        if given.get("EncryptionType") != "KMS" or not key_id:
            raise _argument("EncryptionType has to be KMS, and KeyId has to be given")
        stream.key_id = str(key_id)
        return {}

    def _stop_encryption(self, given: Parameters, now: float) -> Answer:
        self._stream(given, now).key_id = None
        return {}

    # Tags

    def _add_tags(self, given: Parameters, now: float) -> Answer:
        stream = self._stream(given, now)
        tags = {**stream.tags, **(given.get("Tags") or {})}
        _check_tags(tags)
        stream.tags = tags
        return {}

    def _remove_tags(self, given: Parameters, now: float) -> Answer:
        stream = self._stream(given, now)
        gone: set[str] = set(given.get("TagKeys") or ())
        stream.tags = {name: value for name, value in stream.tags.items() if name not in gone}
        return {}

    def _list_tags(self, given: Parameters, now: float) -> Answer:
        stream = self._stream(given, now)
        limit = _limit(given, "Limit", _LISTED_TAGS, _LISTED_TAGS)
        left = [name for name in sorted(stream.tags) if name > given.get("ExclusiveStartTagKey", "")]
        tags = [{"Key": name, "Value": stream.tags[name]} for name in left[:limit]]
        return {"Tags": tags, "HasMoreTags": len(left) > limit}

    # Shards

    def _list_shards(self, given: Parameters, now: float) -> Answer:
        limit = min(_limit(given, "MaxResults", _LISTED_SHARDS, 10_000), _LISTED_SHARDS)
        token = given.get("NextToken")
        if token is None:
            stream = self._stream(given, now)
            left = _behind(_filtered(stream, given.get("ShardFilter"), now), given.get("ExclusiveStartShardId"))
        else:
            stream, left = self._rest(given, token, now)
        more = (
            {"NextToken": places.written(Rest(stream.serial, [shard.id for shard in left[limit:]], now))}
            if len(left) > limit
            else {}
        )
        return {"Shards": [_shard(shard) for shard in left[:limit]], **more}

    def _rest(self, given: Parameters, token: object, now: float) -> tuple[Stream, list[Shard]]:
        for name in ("StreamName", "ExclusiveStartShardId", "StreamCreationTimestamp"):
            if given.get(name) is not None:
                raise _argument(f"NextToken and {name} cannot be given together")
        rest = places.read(token, Rest)
        stream = None if rest is None else self._by_serial(rest.stream, now)
        if rest is None or stream is None:
            raise _argument("NextToken is not valid")
        if places.is_expired(rest, now):
            raise ServiceError("ExpiredNextTokenException", "NextToken is older than 300 seconds")
        return stream, [stream.shards.all[name] for name in rest.shards if name in stream.shards.all]

    def _split(self, given: Parameters, now: float) -> Answer:
        stream = self._resharded(given, now)
        shard = _open_shard(stream, given.get("ShardToSplit"))
        key = _hash_key(given.get("NewStartingHashKey"), "NewStartingHashKey")
        # Each child covers something: the second one begins behind the first hash key.
        if not shard.first_hash < key <= shard.last_hash:
            raise _argument(
                f"NewStartingHashKey {key} is not within {shard.id} of {stream.name}, "
                f"which covers {shard.first_hash} to {shard.last_hash}"
            )
        stream.shards.split(shard, key, now)
        self._settle(stream, now)
        return {}

    def _merge(self, given: Parameters, now: float) -> Answer:
        stream = self._resharded(given, now)
        shard = _open_shard(stream, given.get("ShardToMerge"))
        adjacent = _open_shard(stream, given.get("AdjacentShardToMerge"))
        if shard.last_hash + 1 != adjacent.first_hash and adjacent.last_hash + 1 != shard.first_hash:
            raise _argument(f"{shard.id} and {adjacent.id} of {stream.name} are not adjacent")
        stream.shards.merge(shard, adjacent, now)
        self._settle(stream, now)
        return {}

    def _update_shard_count(self, given: Parameters, now: float) -> Answer:
        stream = self._resharded(given, now)
        current, target = len(stream.shards.open), given.get("TargetShardCount")
        if not isinstance(target, int) or target < 1:
            raise _constraint("targetShardCount", "Member must have value greater than or equal to 1")
        if given.get("ScalingType") != "UNIFORM_SCALING":
            raise _constraint("scalingType", "Member must satisfy enum value set: [UNIFORM_SCALING]")
        if target > 2 * current or 2 * target < current:
            raise _argument(
                f"{stream.name} has {current} open shards: it scales up to the double and down to the half at once, "
                f"not to {target}"
            )
        stream.scaled_at = [moment for moment in stream.scaled_at if moment > now - _SCALING_SECONDS]
        if len(stream.scaled_at) >= _SCALINGS:
            raise ServiceError("LimitExceededException", f"{stream.name} was scaled {_SCALINGS} times in 24 hours")
        stream.scaled_at.append(now)
        stream.shards.scale(target, now)
        self._settle(stream, now)
        return {
            "StreamName": stream.name,
            "CurrentShardCount": current,
            "TargetShardCount": target,
            "StreamARN": stream.arn,
        }

    def _resharded(self, given: Parameters, now: float) -> Stream:
        stream = self._stream(given, now)
        if stream.mode == _ON_DEMAND:
            raise ServiceError("ValidationException", f"{stream.name} is on demand: its shards are Kinesis' own affair")
        if stream.status(now) != "ACTIVE":
            raise ServiceError("ResourceInUseException", f"{stream.name} is {stream.status(now)}, not ACTIVE")
        return stream

    def _settle(self, stream: Stream, now: float) -> None:
        stream.settling, stream.settled_at = "UPDATING", now + self._settling

    # Records

    def _put_record(self, given: Parameters, now: float) -> Answer:
        stream = self._usable(given, now)
        entry = _checked(stream, given)
        result = self._put(stream, entry, now)
        if "ErrorCode" in result:
            raise ServiceError(result["ErrorCode"], result["ErrorMessage"])
        return {**result, **_encryption(stream.encryption)}

    def _put_records(self, given: Parameters, now: float) -> Answer:
        stream = self._usable(given, now)
        records = given.get("Records") or ()
        if not 1 <= len(records) <= _PUT_RECORDS:
            raise _constraint("records", f"Member must have length of 1 to {_PUT_RECORDS}")
        entries = [_checked(stream, record) for record in records]
        if sum(entry.size for entry in entries) > _PUT_BYTES:
            raise _argument(f"the records have more than {_PUT_BYTES // _MIB} MiB with their partition keys")
        results = [self._put(stream, entry, now) for entry in entries]
        failed = sum("ErrorCode" in result for result in results)
        return {"FailedRecordCount": failed, "Records": results, **_encryption(stream.encryption)}

    def _put(self, stream: Stream, entry: _Entry, now: float) -> Answer:
        shard = _chosen(stream, entry)
        if self._throttles and not self._throughput(stream, shard, now).takes(entry.size, now):
            return {
                "ErrorCode": "ProvisionedThroughputExceededException",
                "ErrorMessage": f"Rate exceeded for shard {shard.id} in stream {stream.name} under account {ACCOUNT}.",
            }
        number = stream.shards.next_number(shard)
        arrived_at = math.floor(now * 1_000) / 1_000
        shard.append(Record(number, entry.key, entry.data, arrived_at, stream.encryption))
        return {"ShardId": shard.id, "SequenceNumber": str(number)}

    def _get_iterator(self, given: Parameters, now: float) -> Answer:
        stream = self._usable(given, now)
        shard = _known_shard(stream, given.get("ShardId"))
        return {"ShardIterator": self._iterator(stream, shard, _start(stream, shard, given, now), now)}

    def _get_records(self, given: Parameters, now: float) -> Answer:
        limit = given.get("Limit", _GET_RECORDS)
        if not isinstance(limit, int) or not 1 <= limit <= _GET_RECORDS:
            raise _argument(f"Limit has to be 1 to {_GET_RECORDS}")
        found = places.read(given.get("ShardIterator"), Iterator)
        if found is None:
            raise _argument("ShardIterator is not valid")
        if places.is_expired(found, now):
            raise ServiceError("ExpiredIteratorException", "the shard iterator is older than five minutes")
        stream = self._by_serial(found.stream, now)
        if stream is None:
            raise ServiceError("ResourceNotFoundException", "the stream of the shard iterator does not exist any more")
        if given.get("StreamARN") not in (None, stream.arn):
            raise _argument("StreamARN and ShardIterator are of different streams")
        shard = _known_shard(stream, found.shard)
        return self._page(stream, shard, found.after, limit, now)

    def _page(self, stream: Stream, shard: Shard, after: int, limit: int, now: float) -> Answer:
        throughput = self._throughput(stream, shard, now) if self._throttles else None
        if throughput is not None and not throughput.gives(now):
            raise ServiceError(
                "ProvisionedThroughputExceededException",
                f"Rate exceeded for shard {shard.id} in stream {stream.name} under account {ACCOUNT}.",
            )
        start = shard.after(after)
        records = _fitting(shard.records[start : start + limit])
        if throughput is not None:
            throughput.gave(sum(record.size for record in records), now)
        has_more = start + len(records) < len(shard.records)
        answer: Answer = {
            "Records": [_received(record) for record in records],
            # At least 1 while there is more: 0 says that the reader has caught up.
            "MillisBehindLatest": max(1, int((now - records[-1].arrived_at) * 1_000)) if has_more else 0,
        }
        if shard.is_open or has_more:
            answer["NextShardIterator"] = self._iterator(stream, shard, records[-1].number if records else after, now)
        else:
            answer["ChildShards"] = [
                {"ShardId": child.id, "ParentShards": list(child.parents), "HashKeyRange": _range(child)}
                for child in stream.shards.children(shard)
            ]
        return answer

    def _iterator(self, stream: Stream, shard: Shard, after: int, now: float) -> str:
        self._iterators += 1
        return places.written(Iterator(stream.serial, shard.id, after, now, self._iterators))

    def _throughput(self, stream: Stream, shard: Shard, now: float) -> Throughput:
        found = stream.throughput.get(shard.id)
        if found is None:
            found = stream.throughput[shard.id] = Throughput(stream.max_record, now)
        return found

    # Which stream a call means

    def _stream(self, given: Parameters, now: float) -> Stream:
        name, arn = given.get("StreamName"), given.get("StreamARN")
        if name is None and arn is None:
            raise _argument("give StreamName or StreamARN")
        if arn is not None:
            of_arn = str(arn).removeprefix(_ARN)
            if name is not None and name != of_arn:
                raise _argument("StreamName and StreamARN are of different streams")
            name = of_arn
        stream = self._streams.get(str(name))
        if stream is None:
            raise ServiceError("ResourceNotFoundException", f"Stream {name} under account {ACCOUNT} not found.")
        stream.shards.trim(now, stream.retention)
        return stream

    def _usable(self, given: Parameters, now: float) -> Stream:
        """A stream that can be written and read: not one that is being made."""
        stream = self._stream(given, now)
        if stream.status(now) == "CREATING":
            raise ServiceError("ResourceNotFoundException", f"Stream {stream.name} under account {ACCOUNT} not found.")
        return stream

    def _by_serial(self, serial: int, now: float) -> Stream | None:
        found = next((stream for stream in self._streams.values() if stream.serial == serial), None)
        return None if found is None else self._stream({"StreamName": found.name}, now)


@dataclass(frozen=True)
class _Entry:
    """A record to put, checked."""

    data: bytes
    key: str | None
    hash_key: int | None

    @property
    def size(self) -> int:
        """Bytes, as limits count them."""
        return len(self.data) + len((self.key or "").encode())


def _checked(stream: Stream, given: Parameters) -> _Entry:
    key, data, explicit = given.get("PartitionKey"), given.get("Data"), given.get("ExplicitHashKey")
    if data is None:
        raise _constraint("data", "Member must not be null")
    if key is None and not stream.distributes:
        raise _constraint("partitionKey", "Member must not be null")
    if key is not None and not 1 <= _length(key) <= _MAX_KEY:
        raise _constraint("partitionKey", f"Member must have length of 1 to {_MAX_KEY}")
    entry = _Entry(_bytes(data), key, None if explicit is None else _hash_key(explicit, "ExplicitHashKey"))
    if entry.size > stream.max_record:
        raise _argument(f"a record of {stream.name} has at most {stream.max_record // _KIB} KiB with its partition key")
    return entry


def _bytes(data: object) -> bytes:
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise ServiceError("SerializationException", "Data has to be bytes")


def _length(key: Any) -> int:
    # A character beyond U+FFFF counts twice: which way Kinesis counts is not said, and this is the stricter one.
    try:
        return len(key.encode("utf-16-le")) // 2
    except (AttributeError, UnicodeEncodeError):
        raise ServiceError("SerializationException", "a partition key is no Unicode text") from None


def _chosen(stream: Stream, entry: _Entry) -> Shard:
    if stream.distributes:
        stream.turn += 1
        found = stream.shards.open
        return found[stream.turn % len(found)]
    return stream.shards.covering(hash_of(entry.key or "") if entry.hash_key is None else entry.hash_key)


def _fitting(records: Sequence[Record]) -> Sequence[Record]:
    """As many as one answer holds: one record always."""
    size = 0
    for count, record in enumerate(records):
        size += record.size
        if size > _GET_BYTES and count:
            return records[:count]
    return records


def _start(stream: Stream, shard: Shard, given: Parameters, now: float) -> int:
    """The sequence number behind which a new iterator reads."""
    match given.get("ShardIteratorType"):
        case "TRIM_HORIZON":
            return shard.first_number
        case "LATEST":
            return shard.last_number or stream.shards.latest_number
        case "AT_TIMESTAMP":
            moment = _moment(given.get("Timestamp"), "Timestamp")
            if moment > now:
                raise _argument("Timestamp is in the future")
            at = shard.at(moment)
            return shard.numbers[at] - 1 if at < len(shard.numbers) else stream.shards.latest_number
        case "AT_SEQUENCE_NUMBER":
            return _given_number(shard, given) - 1
        case "AFTER_SEQUENCE_NUMBER":
            return _given_number(shard, given)
        case _:
            kinds = "AFTER_SEQUENCE_NUMBER, LATEST, AT_TIMESTAMP, AT_SEQUENCE_NUMBER, TRIM_HORIZON"
            raise _constraint("shardIteratorType", f"Member must satisfy enum value set: [{kinds}]")


def _given_number(shard: Shard, given: Parameters) -> int:
    text = given.get("StartingSequenceNumber")
    if not isinstance(text, str) or not _NUMBER.fullmatch(text):
        raise _argument("StartingSequenceNumber is missing, or is no sequence number")
    index = index_in(int(text))
    if index != shard.index:
        of = "of no shard" if index is None else f"of {shard_id(index)}"
        raise _argument(f"StartingSequenceNumber is {of}, not of {shard.id}")
    return int(text)


def _filtered(stream: Stream, chosen: Parameters | None, now: float) -> list[Shard]:
    """The shards that a `ShardFilter` asks for, by the API model's text on it."""
    shards = list(stream.shards.all.values())
    horizon = max(stream.created_at, now - stream.retention)
    match (chosen or {}).get("Type", "FROM_TRIM_HORIZON"):
        case "FROM_TRIM_HORIZON":
            return shards
        case "AT_LATEST":
            return [shard for shard in shards if shard.is_open]
        case "AT_TRIM_HORIZON":
            found = [shard for shard in shards if _was_open(shard, horizon)]
            # Of shards that followed each other within an instant, the first ones.
            names = {shard.id for shard in found}
            return [shard for shard in found if names.isdisjoint(shard.parents)]
        case "AT_TIMESTAMP":
            moment = _moment((chosen or {}).get("Timestamp"), "ShardFilter.Timestamp")
            return [shard for shard in shards if _was_open(shard, moment)]
        case "FROM_TIMESTAMP":
            moment = max(horizon, _moment((chosen or {}).get("Timestamp"), "ShardFilter.Timestamp"))
            return [shard for shard in shards if shard.closed_at is None or shard.closed_at >= moment]
        case "AFTER_SHARD_ID":
            after = (chosen or {}).get("ShardId")
            if after is None:
                raise _argument("ShardFilter of type AFTER_SHARD_ID needs ShardId")
            return _behind(shards, after)
        case _:
            raise _constraint("shardFilter.type", "Member must satisfy enum value set")


def _was_open(shard: Shard, moment: float) -> bool:
    return shard.opened_at <= moment and (shard.closed_at is None or shard.closed_at >= moment)


def _behind(shards: Any, after: str | None) -> list[Shard]:
    return [shard for shard in shards if after is None or shard.id > after]


def _known_shard(stream: Stream, name: object) -> Shard:
    shard = stream.shards.all.get(str(name))
    if shard is None:
        raise ServiceError(
            "ResourceNotFoundException",
            f"Shard {name} in stream {stream.name} under account {ACCOUNT} does not exist",
        )
    return shard


def _open_shard(stream: Stream, name: object) -> Shard:
    shard = _known_shard(stream, name)
    if not shard.is_open:
        raise _argument(f"{shard.id} of {stream.name} is closed: it was split or merged already")
    return shard


def _shard(shard: Shard) -> Answer:
    numbers = {"StartingSequenceNumber": str(shard.first_number)}
    if shard.last_number is not None:
        numbers["EndingSequenceNumber"] = str(shard.last_number)
    parents = dict(zip(("ParentShardId", "AdjacentParentShardId"), shard.parents, strict=False))
    return {"ShardId": shard.id, **parents, "HashKeyRange": _range(shard), "SequenceNumberRange": numbers}


def _range(shard: Shard) -> Answer:
    return {"StartingHashKey": str(shard.first_hash), "EndingHashKey": str(shard.last_hash)}


def _received(record: Record) -> Answer:
    key = {} if record.key is None else {"PartitionKey": record.key}
    return {
        "SequenceNumber": str(record.number),
        "ApproximateArrivalTimestamp": _time(record.arrived_at),
        "Data": record.data,
        **key,
        **_encryption(record.encryption),
    }


def _encryption(kind: str | None) -> Answer:
    return {} if kind is None else {"EncryptionType": kind}


#: What a list says of a stream.
_SUMMARY = ("StreamName", "StreamARN", "StreamStatus", "StreamModeDetails", "StreamCreationTimestamp")


def _description(stream: Stream, now: float) -> Answer:
    key = {} if stream.key_id is None else {"KeyId": stream.key_id}
    return {
        "StreamName": stream.name,
        "StreamARN": stream.arn,
        "StreamStatus": stream.status(now),
        "StreamModeDetails": {"StreamMode": stream.mode},
        "RetentionPeriodHours": stream.retention_hours,
        "StreamCreationTimestamp": _time(stream.created_at),
        "EnhancedMonitoring": [{"ShardLevelMetrics": list[str]()}],
        "EncryptionType": stream.encryption or "NONE",
        **key,
    }


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(math.floor(seconds * 1_000) / 1_000, UTC)


def _moment(value: object, name: str) -> float:
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, (int, float)):
        return float(value)
    try:
        return datetime.fromisoformat(str(value)).timestamp()
    except ValueError:
        raise _argument(f"{name} is missing, or is no time") from None


def _mode(details: Parameters) -> str:
    mode = details.get("StreamMode")
    if mode not in (_ON_DEMAND, _PROVISIONED):
        raise _constraint(
            "streamModeDetails.streamMode", "Member must satisfy enum value set: [PROVISIONED, ON_DEMAND]"
        )
    return str(mode)


def _distributes(strategy: object, mode: str) -> bool:
    if strategy not in (None, "AUTO", "USER_PARTITION_KEY"):
        raise _constraint(
            "recordDistributionStrategy", "Member must satisfy enum value set: [AUTO, USER_PARTITION_KEY]"
        )
    if strategy is not None and mode != _ON_DEMAND:
        raise _argument("RecordDistributionStrategy is for streams on demand")
    return strategy == "AUTO"


def _record_kib(size: Any) -> int:
    low, high = _RECORD_KIB
    if not isinstance(size, int) or not low <= size <= high:
        raise _constraint("maxRecordSizeInKiB", f"Member must have value of {low} to {high}")
    return size


def _retention_hours(given: Parameters) -> int:
    hours = given.get("RetentionPeriodHours")
    low, high = _RETENTION_HOURS
    if not isinstance(hours, int) or not low <= hours <= high:
        raise _argument(f"RetentionPeriodHours has to be {low} to {high:,}")
    return hours


def _hash_key(text: object, name: str) -> int:
    if not isinstance(text, str) or not _HASH_KEY.fullmatch(text):
        raise _constraint(
            name[0].lower() + name[1:], r"Member must satisfy regular expression pattern: 0|([1-9]\d{0,38})"
        )
    if int(text) >= HASHES:
        raise _argument(f"{name} has to be 0 to 2**128 - 1")
    return int(text)


def _check_tags(tags: Parameters) -> None:
    if len(tags) > _MAX_TAGS:
        raise _argument(f"a stream has at most {_MAX_TAGS} tags")


def _limit(given: Parameters, name: str, default: int, highest: int) -> int:
    limit = given.get(name, default)
    if not isinstance(limit, int) or not 1 <= limit <= highest:
        raise _constraint(name[0].lower() + name[1:], f"Member must have value of 1 to {highest}")
    return limit


def _argument(message: str) -> ServiceError:
    return ServiceError("InvalidArgumentException", message)


def _constraint(where: str, what: str) -> ServiceError:
    """What the API model's constraints refuse. The value is not quoted."""
    return ServiceError("ValidationException", f"1 validation error detected: Value at '{where}': {what}")
