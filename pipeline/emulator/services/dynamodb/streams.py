"""DynamoDB Streams: the calls that read tables' streams.

Sources: the API reference of DynamoDB Streams (the service model's documentation).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple, Protocol

from pipeline.emulator.services.dynamodb import stream
from pipeline.emulator.services.dynamodb.stream import Shard, Stream
from pipeline.emulator.services.dynamodb.values import invalid
from pipeline.emulator.services.service import Operation, ServiceError

#: Records, and bytes of them, of one GetRecords.
_MAX_RECORDS, _MAX_BYTES = 1_000, 1_048_576
#: Seconds for which an iterator may be used.
_ITERATOR_SECONDS: Final = 15 * 60

#: The operations' names.
STREAM_OPERATIONS: Final = ("describe_stream", "get_records", "get_shard_iterator", "list_streams")


class Streamed(Protocol):
    """Tables, by the streams that they have."""

    def all_streams(self, now: float) -> Mapping[str, Stream]:
        """By their ARNs, those of deleted tables too, while something of them is kept."""
        ...

    def next_change(self, now: float) -> float | None:
        """When time alone adds something, epoch seconds; None: never."""
        ...


class _Place(NamedTuple):
    """What an iterator stands for: the next record to read has at least this number."""

    stream: str
    shard: str
    number: str
    given: float  #: epoch seconds

    def text(self) -> str:
        """As a caller gets it."""
        return base64.b64encode(json.dumps(self).encode()).decode()

    @classmethod
    def of(cls, text: object) -> _Place:
        """What a caller gives. Raises `ServiceError`."""
        try:
            arn, shard, number, given = json.loads(base64.b64decode(str(text), validate=True))
            return cls(str(arn), str(shard), str(number), float(given))
        except ValueError:
            raise invalid("Invalid ShardIterator") from None


class DynamoDBStreams:
    """The streams of tables."""

    name = "dynamodbstreams"

    def __init__(self, tables: Streamed) -> None:
        self._tables = tables
        self.operations: Mapping[str, Operation] = {name: getattr(self, f"_{name}") for name in STREAM_OPERATIONS}

    def next_change(self, now: float) -> float | None:
        """When the next item expires; see `Service`."""
        return self._tables.next_change(now)

    def _list_streams(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        limit = _limit(parameters, 100)
        start, table = parameters.get("ExclusiveStartStreamArn") or "", parameters.get("TableName")
        found = [
            one
            for arn, one in sorted(self._tables.all_streams(now).items())
            if arn > start and table in (None, one.table)
        ]
        told = [{"StreamArn": one.arn, "TableName": one.table, "StreamLabel": one.label} for one in found[:limit]]
        more = {"LastEvaluatedStreamArn": told[-1]["StreamArn"]} if len(found) > limit else {}
        return {"Streams": told, **more}

    def _describe_stream(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        found = self._stream(parameters.get("StreamArn"), now)
        limit, start = _limit(parameters, 100), parameters.get("ExclusiveStartShardId") or ""
        if parameters.get("ShardFilter") is not None:
            raise invalid("streams in memory know no ShardFilter: their shards have no children")
        shards = [shard for shard in found.shards if shard.id > start]
        description: dict[str, Any] = {
            "StreamArn": found.arn,
            "StreamLabel": found.label,
            "StreamStatus": "ENABLED" if found.is_open else "DISABLED",
            "StreamViewType": found.view,
            "CreationRequestDateTime": stream.moment(found.made),
            "TableName": found.table,
            "KeySchema": [dict(one) for one in found.keys],
            "Shards": [_described(shard) for shard in shards[:limit]],
        }
        if len(shards) > limit:
            description["LastEvaluatedShardId"] = shards[limit - 1].id
        return {"StreamDescription": description}

    def _get_shard_iterator(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        found = self._stream(parameters.get("StreamArn"), now)
        shard = _shard(found, parameters.get("ShardId"))
        number = _start(shard, parameters, now)
        return {"ShardIterator": _Place(found.arn, shard.id, number, now).text()}

    def _get_records(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        place = _Place.of(parameters.get("ShardIterator"))
        if now - place.given > _ITERATOR_SECONDS:
            raise ServiceError(
                "ExpiredIteratorException", "Iterator expired. The iterator was created more than 15 minutes ago."
            )
        shard = _shard(self._stream(place.stream, now), place.shard)
        if place.number and place.number <= shard.trimmed:
            raise _trimmed()
        at = shard.place(place.number)
        found: list[dict[str, Any]] = []
        size = 0
        for record in shard.records[at : at + _limit(parameters, _MAX_RECORDS)]:
            size += record["dynamodb"]["SizeBytes"]
            if found and size > _MAX_BYTES:
                break
            found.append(stream.given(record))
        answer: dict[str, Any] = {"Records": found}
        end = at + len(found)
        if end < len(shard.records):
            answer["NextShardIterator"] = place._replace(number=stream.number(shard.records[end]), given=now).text()
        elif shard.end is None:
            # What comes next has a higher number than all that was read, and than what was asked for.
            number = str(int(stream.number(found[-1])) + 1) if found else place.number
            answer["NextShardIterator"] = place._replace(number=number, given=now).text()
        return answer

    def _stream(self, arn: object, now: float) -> Stream:
        found = self._tables.all_streams(now).get(str(arn))
        if found is None:
            raise ServiceError("ResourceNotFoundException", f"Requested resource not found: Stream: {arn} not found")
        return found


def _start(shard: Shard, parameters: Mapping[str, Any], now: float) -> str:
    """The least number that an iterator's first record may have. Raises `ServiceError`."""
    kind, asked = parameters.get("ShardIteratorType"), parameters.get("SequenceNumber")
    match kind:
        case "TRIM_HORIZON":
            return ""
        case "LATEST":
            newest = stream.number(shard.records[-1]) if shard.records else max(shard.trimmed, shard.start)
            return str(int(newest) + 1)
        case "AT_TIMESTAMP":
            at = _seconds(parameters.get("Timestamp"))
            if at > now:
                raise invalid("The timestamp of an AT_TIMESTAMP iterator is in the future")
            later = [record for record in shard.records if stream.created(record) >= at]
            return stream.number(later[0]) if later else _start(shard, {"ShardIteratorType": "LATEST"}, now)
        case "AT_SEQUENCE_NUMBER" | "AFTER_SEQUENCE_NUMBER":
            if not isinstance(asked, str) or not asked.isdigit() or not shard.start <= asked.zfill(21):
                raise invalid("Invalid SequenceNumber")
            if asked <= shard.trimmed:
                raise _trimmed()
            return str(int(asked) + (kind == "AFTER_SEQUENCE_NUMBER"))
        case _:
            raise invalid(
                "1 validation error detected: Value at 'shardIteratorType' failed to satisfy constraint: Member must satisfy "
                "enum value set: [AFTER_SEQUENCE_NUMBER, LATEST, AT_SEQUENCE_NUMBER, TRIM_HORIZON, AT_TIMESTAMP]"
            )


def _shard(found: Stream, id_: object) -> Shard:
    for shard in found.shards:
        if shard.id == id_:
            return shard
    raise ServiceError("ResourceNotFoundException", f"Requested resource not found: Shard does not exist: {id_}")


def _described(shard: Shard) -> dict[str, Any]:
    numbers = {"StartingSequenceNumber": shard.start}
    if shard.end is not None:
        numbers["EndingSequenceNumber"] = shard.end
    return {"ShardId": shard.id, "SequenceNumberRange": numbers}


def _limit(parameters: Mapping[str, Any], most: int) -> int:
    limit = parameters.get("Limit")
    if limit is not None and not 1 <= limit <= most:
        raise invalid(
            f"1 validation error detected: Value '{limit}' at 'limit' failed to satisfy constraint: "
            f"Member must be between 1 and {most}"
        )
    return limit or most


def _seconds(moment: object) -> float:
    if isinstance(moment, datetime):
        return moment.timestamp()
    if isinstance(moment, (int, float)):
        return float(moment)
    raise invalid("An AT_TIMESTAMP iterator needs a Timestamp")


def _trimmed() -> ServiceError:
    return ServiceError(
        "TrimmedDataAccessException", "The requested data is beyond the trim horizon: it is older than 24 hours"
    )
