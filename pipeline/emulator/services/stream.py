"""Kinesis Data Streams in memory.

Sources: the API model of Kinesis in botocore, which has the text of the API reference, and the Developer Guide. What
neither of them says is chosen; `docs/emulator.md` lists the choices.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from pipeline.emulator.services import places
from pipeline.emulator.services.places import Iterator, Rest
from pipeline.emulator.services.service import ACCOUNT, Operation, ServiceError
from pipeline.emulator.services.shard_filter import behind, filtered
from pipeline.emulator.services.shards import Record, Shard, Shards
from pipeline.emulator.services.stream_answers import (
    SUMMARY,
    description,
    encryption_answer,
    range_answer,
    record_answer,
    shard_answer,
)
from pipeline.emulator.services.stream_parameters import (
    ON_DEMAND,
    PROVISIONED,
    RECORD_KIB,
    bad_argument,
    check_provisioned,
    check_scaling,
    check_tags,
    distributes,
    hash_key,
    limit_of,
    mode_of,
    record_kib,
    retention_hours,
    violation,
)
from pipeline.emulator.services.stream_state import (
    ARN,
    GET_RECORDS,
    KIB,
    Entry,
    Stream,
    check_put,
    checked,
    chosen,
    fitting,
    known_shard,
    open_shard,
    start_of,
)
from pipeline.emulator.services.throughput import Throughput

Parameters = Mapping[str, Any]
Answer = dict[str, Any]

_ON_DEMAND_SHARDS = 4
_LISTED_SHARDS, _DESCRIBED_SHARDS, _LISTED_STREAMS, _LISTED_TAGS = 1_000, 100, 100, 50
_SCALINGS, _SCALING_SECONDS = 10, 86_400.0
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,128}")


class Kinesis:
    """The streams of one account and region.

    `throttles`: shards take and give no more than AWS's do; else those of streams that `throttle` names alone. `settling`: seconds for which a
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

    def throttle(self, stream: str) -> None:
        """From now on a stream's shards take and give no more than AWS's do. Raises `KeyError` where there is none."""
        self._streams[stream].throttles = True

    # Streams

    def _create(self, given: Parameters, now: float) -> Answer:
        name = given.get("StreamName")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise violation("streamName", "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]{1,128}")
        if name in self._streams:
            raise ServiceError("ResourceInUseException", f"Stream {name} under account {ACCOUNT} already exists.")
        mode = mode_of(given.get("StreamModeDetails") or {"StreamMode": PROVISIONED})
        count = _ON_DEMAND_SHARDS if mode == ON_DEMAND else given.get("ShardCount")
        if not isinstance(count, int) or count < 1:
            raise violation("shardCount", "Member must have value greater than or equal to 1")
        tags = dict(given.get("Tags") or {})
        check_tags(tags)
        self._serial += 1
        self._streams[name] = Stream(
            name=name,
            serial=self._serial,
            created_at=now,
            mode=mode,
            shards=Shards(count, now),
            max_record=record_kib(given.get("MaxRecordSizeInKiB", RECORD_KIB[0])) * KIB,
            distributes=distributes(given.get("RecordDistributionStrategy"), mode),
            settled_at=now + self._settling,
            tags=tags,
            throttles=self._throttles,
        )
        return {}

    def _delete(self, given: Parameters, now: float) -> Answer:
        del self._streams[self._stream(given, now).name]
        return {}

    def _describe(self, given: Parameters, now: float) -> Answer:
        stream = self._stream(given, now)
        limit = min(limit_of(given, "Limit", _DESCRIBED_SHARDS, 10_000), _DESCRIBED_SHARDS)
        left = behind(stream.shards.all.values(), given.get("ExclusiveStartShardId"))
        described = {
            **description(stream, now),
            "Shards": [shard_answer(shard) for shard in left[:limit]],
            "HasMoreShards": len(left) > limit,
        }
        return {"StreamDescription": described}

    def _summarize(self, given: Parameters, now: float) -> Answer:
        stream = self._stream(given, now)
        summary = {
            **description(stream, now),
            "OpenShardCount": len(stream.shards.open),
            "ConsumerCount": 0,
            "MaxRecordSizeInKiB": stream.max_record // KIB,
        }
        if stream.mode == ON_DEMAND:
            summary["RecordDistributionStrategy"] = "AUTO" if stream.distributes else "USER_PARTITION_KEY"
        return {"StreamDescriptionSummary": summary}

    def _list_streams(self, given: Parameters, now: float) -> Answer:
        limit = min(limit_of(given, "Limit", _LISTED_STREAMS, 10_000), _LISTED_STREAMS)
        start = given.get("NextToken") or given.get("ExclusiveStartStreamName") or ""
        left = [self._streams[name] for name in sorted(self._streams) if name > start]
        found = left[:limit]
        more = {"NextToken": found[-1].name} if len(left) > limit else {}
        return {
            "StreamNames": [stream.name for stream in found],
            "HasMoreStreams": len(left) > limit,
            "StreamSummaries": [
                {name: value for name, value in description(stream, now).items() if name in SUMMARY} for stream in found
            ],
            **more,
        }

    def _update_mode(self, given: Parameters, now: float) -> Answer:
        stream = self._stream(given, now)
        stream.mode = mode_of(given.get("StreamModeDetails") or {})
        stream.distributes = stream.distributes and stream.mode == ON_DEMAND
        return {}

    def _update_max_record_size(self, given: Parameters, now: float) -> Answer:
        stream = self._stream(given, now)
        stream.max_record = record_kib(given.get("MaxRecordSizeInKiB")) * KIB
        return {}

    def _increase_retention(self, given: Parameters, now: float) -> Answer:
        stream, hours = self._stream(given, now), retention_hours(given)
        if hours <= stream.retention_hours:
            raise bad_argument(f"the retention period of {stream.name} is {stream.retention_hours} hours: give more")
        stream.retention_hours = hours
        return {}

    def _decrease_retention(self, given: Parameters, now: float) -> Answer:
        stream, hours = self._stream(given, now), retention_hours(given)
        if hours >= stream.retention_hours:
            raise bad_argument(f"the retention period of {stream.name} is {stream.retention_hours} hours: give less")
        stream.retention_hours = hours
        return {}

    def _start_encryption(self, given: Parameters, now: float) -> Answer:
        stream, key_id = self._stream(given, now), given.get("KeyId")
        if given.get("EncryptionType") != "KMS" or not key_id:
            raise bad_argument("EncryptionType has to be KMS, and KeyId has to be given")
        stream.key_id = str(key_id)
        return {}

    def _stop_encryption(self, given: Parameters, now: float) -> Answer:
        self._stream(given, now).key_id = None
        return {}

    # Tags

    def _add_tags(self, given: Parameters, now: float) -> Answer:
        stream = self._stream(given, now)
        tags = {**stream.tags, **(given.get("Tags") or {})}
        check_tags(tags)
        stream.tags = tags
        return {}

    def _remove_tags(self, given: Parameters, now: float) -> Answer:
        stream = self._stream(given, now)
        gone: set[str] = set(given.get("TagKeys") or ())
        stream.tags = {name: value for name, value in stream.tags.items() if name not in gone}
        return {}

    def _list_tags(self, given: Parameters, now: float) -> Answer:
        stream = self._stream(given, now)
        limit = limit_of(given, "Limit", _LISTED_TAGS, _LISTED_TAGS)
        left = [name for name in sorted(stream.tags) if name > given.get("ExclusiveStartTagKey", "")]
        tags = [{"Key": name, "Value": stream.tags[name]} for name in left[:limit]]
        return {"Tags": tags, "HasMoreTags": len(left) > limit}

    # Shards

    def _list_shards(self, given: Parameters, now: float) -> Answer:
        limit = min(limit_of(given, "MaxResults", _LISTED_SHARDS, 10_000), _LISTED_SHARDS)
        token = given.get("NextToken")
        if token is None:
            stream = self._stream(given, now)
            left = behind(
                filtered(list(stream.shards.all.values()), given.get("ShardFilter"), horizon=stream.horizon(now)),
                given.get("ExclusiveStartShardId"),
            )
        else:
            stream, left = self._rest(given, token, now)
        more = (
            {"NextToken": places.written(Rest(stream.serial, [shard.id for shard in left[limit:]], now))}
            if len(left) > limit
            else {}
        )
        return {"Shards": [shard_answer(shard) for shard in left[:limit]], **more}

    def _rest(self, given: Parameters, token: object, now: float) -> tuple[Stream, list[Shard]]:
        for name in ("StreamName", "ExclusiveStartShardId", "StreamCreationTimestamp"):
            if given.get(name) is not None:
                raise bad_argument(f"NextToken and {name} cannot be given together")
        rest = places.read(token, Rest)
        stream = None if rest is None else self._by_serial(rest.stream, now)
        if rest is None or stream is None:
            raise bad_argument("NextToken is not valid")
        if places.is_expired(rest, now):
            raise ServiceError("ExpiredNextTokenException", "NextToken is older than 300 seconds")
        return stream, [stream.shards.all[name] for name in rest.shards if name in stream.shards.all]

    def _split(self, given: Parameters, now: float) -> Answer:
        stream = self._resharded(given, now)
        shard = open_shard(stream, given.get("ShardToSplit"))
        key = hash_key(given.get("NewStartingHashKey"), "NewStartingHashKey")
        # Each child covers something: the second one begins behind the first hash key.
        if not shard.first_hash < key <= shard.last_hash:
            raise bad_argument(
                f"NewStartingHashKey {key} is not within {shard.id} of {stream.name}, "
                f"which covers {shard.first_hash} to {shard.last_hash}"
            )
        stream.shards.split(shard, key, now)
        self._settle(stream, now)
        return {}

    def _merge(self, given: Parameters, now: float) -> Answer:
        stream = self._resharded(given, now)
        shard = open_shard(stream, given.get("ShardToMerge"))
        adjacent = open_shard(stream, given.get("AdjacentShardToMerge"))
        if shard.last_hash + 1 != adjacent.first_hash and adjacent.last_hash + 1 != shard.first_hash:
            raise bad_argument(f"{shard.id} and {adjacent.id} of {stream.name} are not adjacent")
        stream.shards.merge(shard, adjacent, now)
        self._settle(stream, now)
        return {}

    def _update_shard_count(self, given: Parameters, now: float) -> Answer:
        stream = self._resharded(given, now)
        current, target = len(stream.shards.open), given.get("TargetShardCount")
        if not isinstance(target, int) or target < 1:
            raise violation("targetShardCount", "Member must have value greater than or equal to 1")
        if given.get("ScalingType") != "UNIFORM_SCALING":
            raise violation("scalingType", "Member must satisfy enum value set: [UNIFORM_SCALING]")
        check_scaling(stream.name, current, target)
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
        check_provisioned(stream.name, stream.mode)
        if stream.status(now) != "ACTIVE":
            raise ServiceError("ResourceInUseException", f"{stream.name} is {stream.status(now)}, not ACTIVE")
        return stream

    def _settle(self, stream: Stream, now: float) -> None:
        stream.settling, stream.settled_at = "UPDATING", now + self._settling

    # Records

    def _put_record(self, given: Parameters, now: float) -> Answer:
        stream = self._usable(given, now)
        result = self._put(stream, checked(stream, given), now)
        if "ErrorCode" in result:
            raise ServiceError(result["ErrorCode"], result["ErrorMessage"])
        return {**result, **encryption_answer(stream.encryption)}

    def _put_records(self, given: Parameters, now: float) -> Answer:
        stream = self._usable(given, now)
        records = given.get("Records") or ()
        entries = check_put(records, partial(checked, stream))
        results = [self._put(stream, entry, now) for entry in entries]
        failed = sum("ErrorCode" in result for result in results)
        return {"FailedRecordCount": failed, "Records": results, **encryption_answer(stream.encryption)}

    def _put(self, stream: Stream, entry: Entry, now: float) -> Answer:
        shard = chosen(stream, entry)
        if stream.throttles and not self._throughput(stream, shard, now).takes(entry.size, now):
            return {
                "ErrorCode": "ProvisionedThroughputExceededException",
                "ErrorMessage": f"Rate exceeded for shard {shard.id} in stream {stream.name} under account {ACCOUNT}.",
            }
        number = stream.shards.next_number(shard)
        shard.append(Record(number, entry.key, entry.data, now, stream.encryption))
        return {"ShardId": shard.id, "SequenceNumber": str(number)}

    def _get_iterator(self, given: Parameters, now: float) -> Answer:
        stream = self._usable(given, now)
        shard = known_shard(stream, given.get("ShardId"))
        return {"ShardIterator": self._iterator(stream, shard, start_of(stream, shard, given, now), now)}

    def _get_records(self, given: Parameters, now: float) -> Answer:
        limit = given.get("Limit", GET_RECORDS)
        if not isinstance(limit, int) or not 1 <= limit <= GET_RECORDS:
            raise bad_argument(f"Limit has to be 1 to {GET_RECORDS}")
        found = places.read(given.get("ShardIterator"), Iterator)
        if found is None:
            raise bad_argument("ShardIterator is not valid")
        if places.is_expired(found, now):
            raise ServiceError("ExpiredIteratorException", "the shard iterator is older than five minutes")
        stream = self._by_serial(found.stream, now)
        if stream is None:
            raise ServiceError("ResourceNotFoundException", "the stream of the shard iterator does not exist any more")
        if given.get("StreamARN") not in (None, stream.arn):
            raise bad_argument("StreamARN and ShardIterator are of different streams")
        shard = known_shard(stream, found.shard)
        return self._page(stream, shard, found.after, limit, now)

    def _page(self, stream: Stream, shard: Shard, after: int, limit: int, now: float) -> Answer:
        throughput = self._throughput(stream, shard, now) if stream.throttles else None
        if throughput is not None and not throughput.gives(now):
            raise ServiceError(
                "ProvisionedThroughputExceededException",
                f"Rate exceeded for shard {shard.id} in stream {stream.name} under account {ACCOUNT}.",
            )
        start = shard.after(after)
        records = fitting(shard.records[start : start + limit])
        if throughput is not None:
            throughput.gave(sum(record.size for record in records), now)
        has_more = start + len(records) < len(shard.records)
        answer: Answer = {
            "Records": [record_answer(record) for record in records],
            # At least 1 while there is more: 0 says that the reader has caught up.
            "MillisBehindLatest": max(1, int((now - records[-1].arrived_at) * 1_000)) if has_more else 0,
        }
        if shard.is_open or has_more:
            answer["NextShardIterator"] = self._iterator(stream, shard, records[-1].number if records else after, now)
        else:
            answer["ChildShards"] = [
                {"ShardId": child.id, "ParentShards": list(child.parents), "HashKeyRange": range_answer(child)}
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
            raise bad_argument("give StreamName or StreamARN")
        if arn is not None:
            of_arn = str(arn).removeprefix(ARN)
            if name is not None and name != of_arn:
                raise bad_argument("StreamName and StreamARN are of different streams")
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
