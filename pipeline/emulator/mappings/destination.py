"""The invocation record: what an on-failure destination gets of records that a stream's mapping gives up. Pure.

Its members are those of the Lambda developer guide's pages "Retain discarded batch records for a Kinesis Data Streams
event source" and "... for a DynamoDB event source". What the guide does not say was taken from what AWS sent, as
LocalStack's tests recorded it (`test_lambda_integration_kinesis.snapshot.json`, October 2024 and April 2025): the
condition "RecordAgeExceeded", which goes without a `responseContext`, and a `functionError` of null where the function
returned and named its failures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal

from pipeline.emulator.mappings.actions import StreamRecord

#: Which of the two streams.
Kind = Literal["kinesis", "dynamodb"]


class Reason(StrEnum):
    """Why records are given up, as `requestContext.condition` spells it."""

    RETRIES = "RetryAttemptsExhausted"
    AGE = "RecordAgeExceeded"


def invocation_record(
    *, function: str, request_id: str, reason: str, invocations: int, has_raised: bool, now: float
) -> dict[str, Any]:
    """The members that do not depend on the kind of stream.

    `function`: its ARN. `has_raised`: the function's last invocation failed; False: it returned and named failures.
    """
    record: dict[str, Any] = {
        "requestContext": {
            "requestId": request_id,
            "functionArn": function,
            "condition": str(reason),
            "approximateInvokeCount": max(1, invocations),
        }
    }
    if reason != Reason.AGE:
        record["responseContext"] = {
            "statusCode": 200,
            "executedVersion": "$LATEST",
            "functionError": "Unhandled" if has_raised else None,
        }
    return {**record, "version": "1.0", "timestamp": timestamp(now)}


def batch_info(kind: Kind, *, shard: str, records: Sequence[StreamRecord], stream: str) -> dict[str, Any]:
    """The member that says where the records stand, so that they can be read again. `stream`: its ARN."""
    # The guide's examples: Kinesis tells milliseconds, DynamoDB does not.
    written = timestamp if kind == "kinesis" else seconds
    return {
        "KinesisBatchInfo" if kind == "kinesis" else "DDBStreamBatchInfo": {
            "shardId": shard,
            "startSequenceNumber": records[0].number,
            "endSequenceNumber": records[-1].number,
            "approximateArrivalOfFirstRecord": written(records[0].arrived_at),
            "approximateArrivalOfLastRecord": written(records[-1].arrived_at),
            "batchSize": len(records),
            "streamArn": stream,
        }
    }


def s3_body(record: Mapping[str, Any], payload: Mapping[str, Any]) -> dict[str, Any]:
    """What a bucket gets: the record, and the event as JSON text inside it."""
    return {**record, "payload": json.dumps(payload)}


def s3_key(*, mapping: str, shard: str, now: float, unique: str) -> str:
    """The name of a bucket's object. `mapping` and `unique` are UUIDs: the mapping's, and a random one."""
    at = datetime.fromtimestamp(now, UTC)
    return f"aws/lambda/{mapping}/{shard}/{at:%Y/%m/%d}/{at:%Y-%m-%dT%H.%M.%S}-{unique}"


def timestamp(at: float) -> str:
    """Epoch seconds as AWS writes them with milliseconds: 2019-11-14T00:38:06.021Z."""
    return datetime.fromtimestamp(round(at, 3), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds(at: float) -> str:
    """Epoch seconds as AWS writes them without: 2019-11-14T00:13:19Z."""
    return datetime.fromtimestamp(int(at), UTC).isoformat().replace("+00:00", "Z")
