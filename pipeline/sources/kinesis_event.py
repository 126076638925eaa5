"""What Lambda delivers from a Kinesis stream, as records.

An aggregate of the Kinesis Producer Library becomes the records that it holds: each has its own id and
partition key, and all share the sequence number, which is what the stream is told.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from msgspec import Struct

from pipeline.decisions import aggregation, tracing, wire
from pipeline.errors import EventError, PayloadError
from pipeline.record import Carried, RawRecord, TraceContext
from pipeline.sources.lambda_event import check_sender, kind, mapping, members, records_of

#: As the service's model spells it: decimal, up to 129 digits, so that texts of different length differ in size.
_SEQUENCE_NUMBER = re.compile(r"0|[1-9]\d{0,128}", re.ASCII)

#: A record's attributes: Kinesis has none of the producer's, but these say where it came from.
KEY, SHARD, NUMBER, SUBSEQUENCE = "partition_key", "shard_id", "sequence_number", "subsequence_number"


class Place(Struct, frozen=True):
    """Where a record stands in its stream, and how it was received."""

    number: int  #: the sequence number; the records of one aggregate share it
    data: bytes | str  #: as received: a text when it is not what Kinesis calls base64
    hash_key: str | None = None  #: the explicit hash key, inside an aggregate
    stream: str = ""  #: the ARN of the stream, which need not be the declared one; empty when the event names none


class _Received(Struct, frozen=True):
    """What the records of one stream record have in common."""

    source: str
    name: str  #: stream, shard and sequence number
    stream: str  #: its ARN
    shard: str
    number: str
    sent_at: float | None


def decode(event: Any, source: str) -> list[RawRecord]:
    """The records of an event, by their sequence numbers. Raises `EventError`; see the `Source` port.

    Everything but a record's sequence number may be missing: test events leave fields out.
    """
    found = records_of(event, f"the stream '{source}'")
    records = [each for position, record in enumerate(found) for each in _records(record, position, source)]
    # They come from Lambda in order, which makes this cheap; a test's event may have them in any.
    records.sort(key=lambda record: record.origin.number)
    return records


def _records(record: Any, position: int, source: str) -> list[RawRecord]:
    where = f"record {position} of the stream '{source}'"
    check_sender(record, "aws:kinesis", where)
    body = mapping(record.get("kinesis"))
    received = _received(record, body, source, where)
    key = body.get("partitionKey")
    key = key if isinstance(key, str) and key else None
    try:
        data = _data(body)
    except PayloadError as error:
        return [_damaged(received, key, _as_received(body), error)]
    if not aggregation.is_aggregate(data):
        return [_plain(received, key, data)]
    try:
        return [_user(received, index, user) for index, user in enumerate(aggregation.split(data))]
    except PayloadError as error:
        return [_damaged(received, key, data, error)]


def _received(record: Mapping[str, Any], body: Mapping[str, Any], source: str, where: str) -> _Received:
    number = body.get("sequenceNumber")
    if not isinstance(number, str) or not _SEQUENCE_NUMBER.fullmatch(number):
        wrong = "has no sequenceNumber" if number is None else "has a sequenceNumber that is no decimal number"
        raise EventError(f"{where} {wrong}; it has {members(body)}")
    shard = _shard(record)
    arn = record.get("eventSourceARN")
    stream, arn = _stream_of(arn) if isinstance(arn, str) else ("", "")
    name = f"{stream or source}/{shard}:{number}"
    return _Received(source, name, arn, shard, number, _seconds(body.get("approximateArrivalTimestamp")))


def _plain(received: _Received, key: str | None, data: bytes) -> RawRecord:
    body, carried = wire.split_member(data)
    return RawRecord(
        id=received.name,
        source=received.source,
        body=body,
        lane=key,
        attributes=_attributes(received, key),
        sent_at=received.sent_at,
        carried=carried,
        traces=_traces(carried, body),
        origin=Place(int(received.number), data, stream=received.stream),
    )


def _user(received: _Received, index: int, user: aggregation.UserRecord) -> RawRecord:
    body, carried = wire.split_member(user.data)
    return RawRecord(
        id=f"{received.name}:{index}",
        source=received.source,
        body=body,
        lane=user.partition_key or None,
        attributes={**_attributes(received, user.partition_key or None), SUBSEQUENCE: str(index)},
        sent_at=received.sent_at,
        carried=carried,
        traces=_traces(carried, body),
        origin=Place(int(received.number), user.data, user.hash_key, received.stream),
    )


def _damaged(received: _Received, key: str | None, data: bytes | str, error: PayloadError) -> RawRecord:
    return RawRecord(
        id=received.name,
        source=received.source,
        body=data,
        lane=key,
        attributes=_attributes(received, key),
        sent_at=received.sent_at,
        error=error,
        origin=Place(int(received.number), data, stream=received.stream),
    )


def _traces(carried: Carried | None, body: bytes) -> tuple[TraceContext, ...]:
    """A stream has no place for a trace's context but the record itself: what an earlier stage sent, or what it says."""
    sent = None
    if carried is not None and carried.traceparent is not None:
        sent = tracing.parse_traceparent(carried.traceparent, carried.tracestate)
    found = sent or tracing.of_object(body)
    return () if found is None else (found,)


def _attributes(received: _Received, key: str | None) -> dict[str, str]:
    if key and received.shard:
        return {KEY: key, SHARD: received.shard, NUMBER: received.number}
    named = {KEY: key, SHARD: received.shard, NUMBER: received.number}
    return {name: text for name, text in named.items() if text}  # an empty one could not be a dead letter's


def _data(body: Mapping[str, Any]) -> bytes:
    data = body.get("data")
    if not isinstance(data, str):
        raise PayloadError("the record has no data" if data is None else f"the data is {kind(data)}, not a text")
    try:
        return binascii.a2b_base64(data, strict_mode=True) if data else b""
    except ValueError as error:
        raise PayloadError(f"the data is not base64: {error}") from None


def _as_received(body: Mapping[str, Any]) -> str:
    """Data that is not base64, for the record's dead letter; as JSON when it is no text either."""
    data = body.get("data", "")
    return data if isinstance(data, str) else json.dumps(data, default=str)


def _shard(record: Mapping[str, Any]) -> str:
    event_id = record.get("eventID")
    return event_id.partition(":")[0] if isinstance(event_id, str) else ""


@lru_cache(maxsize=16)
def _stream_of(arn: str) -> tuple[str, str]:
    """The stream's own name and ARN, also of a consumer's: a sequence number says nothing across streams."""
    owner, resource, path = arn.partition(":stream/")
    name = path.partition("/")[0]
    return name, f"{owner}{resource}{name}" if name else ""


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 <= value < 2**53 else None
