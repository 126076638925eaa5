"""What Kinesis' operations answer, as botocore parses it."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from pipeline.emulator.services.shards import Record, Shard
from pipeline.emulator.services.stream_state import Stream

Answer = dict[str, Any]

#: What a list says of a stream.
SUMMARY = ("StreamName", "StreamARN", "StreamStatus", "StreamModeDetails", "StreamCreationTimestamp")


def shard_answer(shard: Shard) -> Answer:
    """A shard of a list."""
    numbers = {"StartingSequenceNumber": str(shard.first_number)}
    if shard.last_number is not None:
        numbers["EndingSequenceNumber"] = str(shard.last_number)
    parents = dict(zip(("ParentShardId", "AdjacentParentShardId"), shard.parents, strict=False))
    return {"ShardId": shard.id, **parents, "HashKeyRange": range_answer(shard), "SequenceNumberRange": numbers}


def range_answer(shard: Shard) -> Answer:
    """What a shard covers."""
    return {"StartingHashKey": str(shard.first_hash), "EndingHashKey": str(shard.last_hash)}


def record_answer(record: Record) -> Answer:
    """A record that was read."""
    key = {} if record.key is None else {"PartitionKey": record.key}
    return {
        "SequenceNumber": str(record.number),
        "ApproximateArrivalTimestamp": time_of(record.arrived_at),
        "Data": record.data,
        **key,
        **encryption_answer(record.encryption),
    }


def encryption_answer(kind: str | None) -> Answer:
    """What a record was encrypted with, if it was."""
    return {} if kind is None else {"EncryptionType": kind}


def description(stream: Stream, now: float) -> Answer:
    """What descriptions and summaries have in common."""
    key = {} if stream.key_id is None else {"KeyId": stream.key_id}
    return {
        "StreamName": stream.name,
        "StreamARN": stream.arn,
        "StreamStatus": stream.status(now),
        "StreamModeDetails": {"StreamMode": stream.mode},
        "RetentionPeriodHours": stream.retention_hours,
        "StreamCreationTimestamp": time_of(stream.created_at),
        "EnhancedMonitoring": [{"ShardLevelMetrics": list[str]()}],
        "EncryptionType": stream.encryption or "NONE",
        **key,
    }


def time_of(seconds: float) -> datetime:
    """Epoch seconds with the precision of the API."""
    return datetime.fromtimestamp(math.floor(seconds * 1_000) / 1_000, UTC)
