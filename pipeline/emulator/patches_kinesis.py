"""What we change in moto's Kinesis, in the embedded server's process only.

A shard that was split or merged is closed as AWS's is: its records stay, new ones go to its children, and its last page
says that it has ended. Limits are the service's, sequence numbers are unique in a stream, and lists can be filtered.
The rules come from the stream in memory. What is left as moto has it: records and iterators never expire.
"""

from __future__ import annotations

import base64
import binascii
import functools
import itertools
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from moto.core.exceptions import JsonRESTError
from moto.core.responses import ActionResult
from moto.kinesis import models, responses
from moto.kinesis.utils import compose_shard_iterator, decompose_shard_iterator

from pipeline.emulator.services import places, shards
from pipeline.emulator.services.places import Rest
from pipeline.emulator.services.service import ServiceError
from pipeline.emulator.services.shard_filter import behind, filtered
from pipeline.emulator.services.shards import Shard, even, hash_of
from pipeline.emulator.services.stream_answers import range_answer, shard_answer
from pipeline.emulator.services.stream_parameters import (
    RECORD_KIB,
    bad_argument,
    check_provisioned,
    check_scaling,
    hash_key,
    limit_of,
    record_kib,
)
from pipeline.emulator.services.stream_state import GET_BYTES, GET_RECORDS, Entry, check_put, checked

Change = Callable[[Any, str, Any], None]
Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]

#: Two puts at the same moment would give two records one sequence number, and the later one take the other's place.
_LOCKED = (
    "create_stream",
    "delete_stream",
    "get_records",
    "get_shard_iterator",
    "merge_shards",
    "put_record",
    "put_records",
    "split_shard",
    "update_shard_count",
)
_LISTED = 1_000
_serials = itertools.count(1)


def apply(replace: Change, locked: Wrap) -> None:
    """Change moto in this process. `replace` sets an attribute that has to be there; `locked` makes calls wait."""
    models.Stream.lambda_event_source_mappings = property(lambda _: {}, lambda _, __: None)  # type: ignore[assignment]
    for name, change in _SHARD.items():
        replace(models.Shard, name, change)
    for name, change in _STREAM.items():
        replace(models.Stream, name, change)
    replace(models.Stream, "to_json_summary", _summary(models.Stream.to_json_summary))
    for name, change in _BACKEND.items():
        replace(models.KinesisBackend, name, _as_moto_tells(change))
    iterator = _as_moto_tells(_get_iterator(models.KinesisBackend.get_shard_iterator))
    replace(models.KinesisBackend, "get_shard_iterator", iterator)
    for name in _LOCKED:
        replace(models.KinesisBackend, name, locked(getattr(models.KinesisBackend, name)))
    replace(responses.KinesisResponse, "create_stream", _created(responses.KinesisResponse.create_stream))
    for name, change in _RESPONSE.items():
        replace(responses.KinesisResponse, name, locked(_as_moto_tells(change)))


def _as_moto_tells(method: Callable[..., Any]) -> Callable[..., Any]:
    """The error of a service in memory as one of moto's."""

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except ServiceError as error:
            raise JsonRESTError(error.code, error.message) from None

    return call


# Streams and their shards: moto's objects, with what they lack as further attributes


def _init_shards(stream: Any, shard_count: int) -> None:
    stream.serial = next(_serials)
    stream.last_number = 0  #: the last sequence number; they are 1, 2, 3 and so on
    stream.max_record = RECORD_KIB[0] * 1_024
    stream.shard_count = shard_count
    stream.made_at = time.time()
    for first, last in even(shard_count):
        _open(stream, first, last, stream.made_at)


def _open(stream: Any, first: int, last: int, now: float, *parents: str) -> None:
    parent, adjacent = (*parents, None, None)[:2]
    shard: Any = models.Shard(len(stream.shards), first, last, parent, adjacent)
    shard.numbers = []  #: of its records, which a look by position needs
    shard.first_number, shard.last_number = stream.last_number, None
    shard.opened_at, shard.closed_at = now, None
    stream.shards[shard.shard_id] = shard


def _close(stream: Any, shard: Any, now: float) -> None:
    shard.is_open, shard.last_number, shard.closed_at = False, stream.last_number, now


def _viewed(shard: Any) -> Shard:
    """A shard of moto's as one of a stream in memory, without its records."""
    parents = tuple(parent for parent in (shard.parent, shard.adjacent_parent) if parent)
    return Shard(
        index=int(shard.shard_id.rpartition("-")[2]),
        first_hash=shard.starting_hash,
        last_hash=shard.ending_hash,
        first_number=shard.first_number,
        opened_at=shard.opened_at,
        parents=parents,
        last_number=shard.last_number,
        closed_at=shard.closed_at,
    )


def _covering(stream: Any, hashed: int) -> Any:
    return next(
        shard
        for shard in stream.shards.values()
        if shard.is_open and shard.starting_hash <= hashed <= shard.ending_hash
    )


def _put(stream: Any, partition_key: str, explicit_hash_key: str | None, data: str) -> tuple[str, str]:
    shard = _covering(stream, int(explicit_hash_key) if explicit_hash_key else hash_of(partition_key))
    stream.last_number += 1
    number: int = stream.last_number
    shard.records[number] = models.Record(partition_key, data, number, explicit_hash_key or "")
    shard.numbers.append(number)
    return str(number), shard.shard_id


def _split(stream: Any, shard_to_split: str, new_starting_hash_key: str) -> None:
    shard, key = _open_shard(stream, shard_to_split), int(new_starting_hash_key)
    if not shard.starting_hash < key <= shard.ending_hash:
        raise bad_argument(f"NewStartingHashKey is not within {shard.shard_id} of {stream.stream_name}")
    now = time.time()
    _close(stream, shard, now)
    _open(stream, shard.starting_hash, key - 1, now, shard.shard_id)
    _open(stream, key, shard.ending_hash, now, shard.shard_id)


def _merge(stream: Any, shard_to_merge: str, adjacent_shard_to_merge: str) -> None:
    one, other = _open_shard(stream, shard_to_merge), _open_shard(stream, adjacent_shard_to_merge)
    low, high = sorted((one, other), key=lambda shard: shard.starting_hash)
    if low.ending_hash + 1 != high.starting_hash:
        raise bad_argument(f"{one.shard_id} and {other.shard_id} of {stream.stream_name} are not adjacent")
    now = time.time()
    _close(stream, one, now)
    _close(stream, other, now)
    _open(stream, low.starting_hash, high.ending_hash, now, one.shard_id, other.shard_id)


def _scale(stream: Any, target_shard_count: int) -> None:
    shards.scale(
        target_shard_count,
        lambda hashed: _viewed(_covering(stream, hashed)),
        lambda shard, key: _split(stream, shard.id, str(key)),
        lambda one, other: _merge(stream, one.id, other.id),
    )
    stream.shard_count = target_shard_count


def _open_shard(stream: Any, name: str) -> Any:
    shard = stream.shards[name]
    if not shard.is_open:
        raise bad_argument(f"{name} of {stream.stream_name} is closed: it was split or merged already")
    return shard


def _summary(to_json: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
    def call(stream: Any) -> dict[str, Any]:
        answer = to_json(stream)
        answer["StreamDescriptionSummary"] |= {
            "OpenShardCount": sum(shard.is_open for shard in stream.shards.values()),
            "MaxRecordSizeInKiB": stream.max_record // 1_024,
        }
        return answer

    return call


def _records_after(shard: Any, last: str, limit: int | None) -> tuple[list[Any], int, int]:
    """A shard's records after a sequence number, the last one's number, and how far behind the newest it is."""
    start = bisect_right(shard.numbers, int(last))
    found: list[Any] = []
    size = 0
    for number in shard.numbers[start : start + (limit or GET_RECORDS)]:
        record = shard.records[number]
        size += len(record.data) // 4 * 3 + len(record.partition_key)
        if found and size > GET_BYTES:
            break
        found.append(record)
    if not found:
        return [], int(last), 0
    # moto says 0 for what was put in the same millisecond, although there is more.
    behind = (shard.records[shard.numbers[-1]].created_at - found[-1].created_at) * 1_000
    return found, found[-1].sequence_number, max(int(behind), start + len(found) < len(shard.numbers))


# Operations


def _put_record(
    backend: Any, stream_arn: str, stream_name: str, partition_key: str, explicit_hash_key: str, data: str
) -> tuple[str, str]:
    stream = backend.describe_stream(stream_arn=stream_arn, stream_name=stream_name)
    record = {"PartitionKey": partition_key, "ExplicitHashKey": explicit_hash_key, "Data": data}
    _checked(stream, record)
    number, shard = stream.put_record(partition_key, explicit_hash_key, data)
    return number, shard


def _put_records(backend: Any, stream_arn: str, stream_name: str, records: list[dict[str, Any]]) -> dict[str, Any]:
    stream = backend.describe_stream(stream_arn=stream_arn, stream_name=stream_name)
    check_put(records, functools.partial(_checked, stream))
    put = [stream.put_record(one["PartitionKey"], one.get("ExplicitHashKey"), one["Data"]) for one in records]
    return {
        "FailedRecordCount": 0,
        "Records": [{"SequenceNumber": number, "ShardId": shard} for number, shard in put],
    }


def _checked(stream: Any, record: Mapping[str, Any]) -> Entry:
    """A record to put, by the rules of the stream in memory."""
    view: Any = SimpleNamespace(name=stream.stream_name, max_record=stream.max_record, distributes=False)
    data = record.get("Data")
    return checked(view, {**record, "Data": None if data is None else base64.b64decode(data)})


def _get_iterator(get: Callable[..., str]) -> Callable[..., str]:
    """With the stream's name in it, also when it was asked for by the stream's ARN: it is read without."""

    def call(
        backend: Any, stream_arn: str | None, stream_name: str | None, shard: str, kind: str, number: Any, moment: Any
    ) -> str:
        stream = backend.describe_stream(stream_arn=stream_arn, stream_name=stream_name)
        return get(backend, stream_arn, stream.stream_name, shard, kind, number, moment)

    return call


def _get_records(
    backend: Any, stream_arn: str | None, shard_iterator: str, limit: int | None
) -> tuple[str | None, list[Any], int]:
    if limit is not None and not 1 <= limit <= GET_RECORDS:
        raise bad_argument(f"Limit has to be 1 to {GET_RECORDS}")
    stream, shard, last = _place(backend, shard_iterator)
    if stream_arn not in (None, stream.arn):
        raise bad_argument("StreamARN and ShardIterator are of different streams")
    records, number, behind = shard.get_records(last, limit)
    has_ended = not shard.is_open and number >= (shard.numbers[-1] if shard.numbers else 0)
    following = None if has_ended else compose_shard_iterator(stream.stream_name, shard, number)
    return following, records, behind


def _place(backend: Any, iterator: str) -> tuple[Any, Any, str]:
    try:
        name, shard, last = decompose_shard_iterator(iterator)
        int(last)
    except (AttributeError, ValueError, binascii.Error):
        raise bad_argument("ShardIterator is not valid") from None
    stream = backend.describe_stream(stream_arn=None, stream_name=name)
    return stream, stream.get_shard(shard), last


def _split_shard(
    backend: Any, stream_arn: str, stream_name: str, shard_to_split: str, new_starting_hash_key: str
) -> None:
    stream = _provisioned(backend, stream_arn, stream_name)
    _check_listed(stream, shard_to_split)
    stream.split_shard(shard_to_split, str(hash_key(new_starting_hash_key, "NewStartingHashKey")))


def _merge_shards(
    backend: Any, stream_arn: str, stream_name: str, shard_to_merge: str, adjacent_shard_to_merge: str
) -> None:
    stream = _provisioned(backend, stream_arn, stream_name)
    _check_listed(stream, shard_to_merge, adjacent_shard_to_merge)
    stream.merge_shards(shard_to_merge, adjacent_shard_to_merge)


def _update_shard_count(backend: Any, stream_arn: str, stream_name: str, target_shard_count: int) -> int:
    stream = _provisioned(backend, stream_arn, stream_name)
    current: int = sum(shard.is_open for shard in stream.shards.values())
    check_scaling(stream.stream_name, current, target_shard_count)
    stream.update_shard_count(target_shard_count)
    return current


def _provisioned(backend: Any, stream_arn: str, stream_name: str) -> Any:
    stream = backend.describe_stream(stream_arn=stream_arn, stream_name=stream_name)
    check_provisioned(stream.stream_name, stream.stream_mode.get("StreamMode"))
    return stream


def _check_listed(stream: Any, *names: str) -> None:
    for name in names:
        if name not in stream.shards:
            message = f"Shard {name} in stream {stream.stream_name} does not exist"
            raise ServiceError("ResourceNotFoundException", message)


# Answers: what moto's leave out


def _created(create: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def call(response: Any) -> Any:
        size = record_kib(response._get_param("MaxRecordSizeInKiB", RECORD_KIB[0])) * 1_024
        answer = create(response)
        stream = response.kinesis_backend.streams[response._get_param("StreamName")]
        stream.max_record = size
        stream.tags.update(response._get_param("Tags") or {})
        return answer

    return _as_moto_tells(call)


def _answer_records(response: Any) -> Any:
    backend, iterator = response.kinesis_backend, response._get_param("ShardIterator")
    following, records, behind = backend.get_records(
        response._get_param("StreamARN"), iterator, response._get_param("Limit")
    )
    answer: dict[str, Any] = {
        "NextShardIterator": following,
        "Records": [record.to_json() for record in records],
        "MillisBehindLatest": behind,
    }
    if following is None:
        stream, shard, _ = _place(backend, iterator)
        views = [_viewed(one) for one in stream.shards.values()]
        answer["ChildShards"] = [
            {"ShardId": child.id, "ParentShards": list(child.parents), "HashKeyRange": range_answer(child)}
            for child in views
            if shard.shard_id in child.parents
        ]
    return ActionResult(answer)


def _answer_shards(response: Any) -> Any:
    backend, now = response.kinesis_backend, time.time()
    given = {
        name: value
        for name in ("StreamName", "StreamARN", "NextToken", "MaxResults", "ShardFilter", "ExclusiveStartShardId")
        if (value := response._get_param(name)) is not None
    }
    limit = min(limit_of(given, "MaxResults", _LISTED, 10_000), _LISTED)
    stream, left = _rest(backend, given, now) if "NextToken" in given else _listed(backend, given)
    token = None
    if len(left) > limit:
        token = places.written(Rest(stream.serial, [shard.id for shard in left[limit:]], now))
    return ActionResult({"Shards": [shard_answer(shard) for shard in left[:limit]], "NextToken": token})


def _listed(backend: Any, given: Mapping[str, Any]) -> tuple[Any, Sequence[Shard]]:
    stream = backend.describe_stream(stream_arn=given.get("StreamARN"), stream_name=given.get("StreamName"))
    views = [_viewed(shard) for shard in stream.shards.values()]
    # Nothing expires here.
    found = filtered(views, given.get("ShardFilter"), horizon=stream.made_at)
    return stream, behind(found, given.get("ExclusiveStartShardId"))


def _rest(backend: Any, given: Mapping[str, Any], now: float) -> tuple[Any, Sequence[Shard]]:
    rest = places.read(given["NextToken"], Rest)
    serial = None if rest is None else rest.stream
    stream = next((one for one in backend.streams.values() if one.serial == serial), None)
    if rest is None or stream is None or given.keys() & {"StreamName", "ExclusiveStartShardId"}:
        raise bad_argument("NextToken is not valid, or stands beside what it stands for")
    if places.is_expired(rest, now):
        raise ServiceError("ExpiredNextTokenException", "NextToken is older than 300 seconds")
    return stream, [_viewed(stream.shards[name]) for name in rest.shards]


_SHARD: Mapping[str, Any] = {
    "get_max_sequence_number": lambda shard: shard.numbers[-1] if shard.numbers else shard.first_number,
    "get_records": _records_after,
    "to_json": lambda shard: shard_answer(_viewed(shard)),
}
_STREAM: Mapping[str, Any] = {
    "init_shards": _init_shards,
    "merge_shards": _merge,
    "put_record": _put,
    "split_shard": _split,
    "update_shard_count": _scale,
}
_BACKEND: Mapping[str, Any] = {
    # Metrics of every put, kept for ever, that nobody reads here.
    "_send_stream_metrics": lambda *_, **__: None,
    "get_records": _get_records,
    "merge_shards": _merge_shards,
    "put_record": _put_record,
    "put_records": _put_records,
    "split_shard": _split_shard,
    "update_shard_count": _update_shard_count,
}
_RESPONSE: Mapping[str, Any] = {"get_records": _answer_records, "list_shards": _answer_shards}
