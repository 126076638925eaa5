"""Events as Lambda delivers them from a Kinesis stream: the same JSON bodies as those from a queue."""

from __future__ import annotations

import base64
from typing import Any

from benchmarks.events import body
from tests.support.aggregates import aggregate

ARN = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders"
#: Records that a producer has put into one record of the stream.
AGGREGATED = 100
_FIRST_NUMBER = 49_590_338_271_490_256_608_559_692_538_361_571_095_921_575_989_136_588_898


def stream_event(size: int, *, first: int = 0) -> dict[str, Any]:
    """An event of `size` records of one shard."""
    numbers = range(first, first + size)
    return {"Records": [_stream_record(number, customer(number), body(number).encode()) for number in numbers]}


def aggregated_event(size: int) -> dict[str, Any]:
    """The same `size` records, `AGGREGATED` of them in each record of the stream."""
    return {
        "Records": [
            # The aggregate's own partition key is one that nobody reads.
            _stream_record(
                first,
                "a",
                aggregate([(customer(one), None, body(one).encode()) for one in range(first, first + AGGREGATED)]),
            )
            for first in range(0, size, AGGREGATED)
        ]
    }


def customer(number: int) -> str:
    """An order's partition key."""
    return f"customer-{40_000_000 + number}"


def _stream_record(number: int, partition_key: str, data: bytes) -> dict[str, Any]:
    sequence_number = str(_FIRST_NUMBER + number)
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": partition_key,
            "sequenceNumber": sequence_number,
            "data": base64.b64encode(data).decode(),
            "approximateArrivalTimestamp": 1_762_161_262 + number / 1_000,
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"shardId-000000000006:{sequence_number}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::123456789012:role/orders",
        "awsRegion": "eu-west-1",
        "eventSourceARN": ARN,
    }
