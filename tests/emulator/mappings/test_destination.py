"""The JSON that an on-failure destination gets, against the examples of the Lambda developer guide.

"Retain discarded batch records for a Kinesis Data Streams event source", and "... for a DynamoDB event source".
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from pipeline.emulator.mappings.actions import StreamRecord
from pipeline.emulator.mappings.destination import (
    Kind,
    Reason,
    batch_info,
    invocation_record,
    s3_body,
    s3_key,
    timestamp,
)


def epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def record(number: str, arrived: str) -> StreamRecord:
    return StreamRecord(number, {}, 1, epoch(arrived))


def made(kind: Kind, now: str, request: str, **info: Any) -> dict[str, Any]:
    function = "arn:aws:lambda:us-east-2:123456789012:function:myfunction"
    return invocation_record(
        function=function, request_id=request, reason=Reason.RETRIES, invocations=1, has_raised=True, now=epoch(now)
    ) | batch_info(kind, **info)


CONTEXT = {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"}


def request(identifier: str) -> dict[str, Any]:
    return {
        "requestId": identifier,
        "functionArn": "arn:aws:lambda:us-east-2:123456789012:function:myfunction",
        "condition": "RetryAttemptsExhausted",
        "approximateInvokeCount": 1,
    }


def test_the_record_of_a_kinesis_stream_is_the_guides() -> None:
    numbers = [f"4960118965842235937883629852182763847532018901230970472{digit}" for digit in range(2, 8)]
    times = ["2019-11-14T00:38:04.835Z", "2019-11-14T00:38:05.580Z"]
    arn = "arn:aws:kinesis:us-east-2:123456789012:stream/mystream"
    found = made(
        "kinesis",
        "2019-11-14T00:38:06.021Z",
        "c9b8fa9f-5a7f-xmpl-af9c-0c604cde93a5",
        shard="shardId-000000000001",
        records=[record(numbers[0], times[0]), record(numbers[1], times[0]), record(numbers[5], times[1])],
        stream=arn,
    )
    assert found == {
        "requestContext": request("c9b8fa9f-5a7f-xmpl-af9c-0c604cde93a5"),
        "responseContext": CONTEXT,
        "version": "1.0",
        "timestamp": "2019-11-14T00:38:06.021Z",
        "KinesisBatchInfo": {
            "shardId": "shardId-000000000001",
            "startSequenceNumber": numbers[0],
            "endSequenceNumber": numbers[5],
            "approximateArrivalOfFirstRecord": times[0],
            "approximateArrivalOfLastRecord": times[1],
            "batchSize": 3,
            "streamArn": arn,
        },
    }
    # In the order of the example, which people read.
    assert list(found) == ["requestContext", "responseContext", "version", "timestamp", "KinesisBatchInfo"]


def test_the_record_of_a_dynamodb_stream_is_the_guides() -> None:
    """Its times of arrival have no milliseconds."""
    arn = "arn:aws:dynamodb:us-east-2:123456789012:table/mytable/stream/2019-11-14T00:04:06.388"
    found = made(
        "dynamodb",
        "2019-11-14T00:13:49.717Z",
        "316aa6d0-8154-xmpl-9af7-85d5f4a6bc81",
        shard="shardId-00000001573689847184-864758bb",
        records=[record("800000000003126276362", "2019-11-14T00:13:19Z")],
        stream=arn,
    )
    assert found["requestContext"] == request("316aa6d0-8154-xmpl-9af7-85d5f4a6bc81")
    assert found["DDBStreamBatchInfo"] == {
        "shardId": "shardId-00000001573689847184-864758bb",
        "startSequenceNumber": "800000000003126276362",
        "endSequenceNumber": "800000000003126276362",
        "approximateArrivalOfFirstRecord": "2019-11-14T00:13:19Z",
        "approximateArrivalOfLastRecord": "2019-11-14T00:13:19Z",
        "batchSize": 1,
        "streamArn": arn,
    }


def test_records_that_are_too_old_have_no_response() -> None:
    """Recorded: AWS's record of the condition "RecordAgeExceeded" has no responseContext, and a count of 1 at least."""
    found = invocation_record(
        function="f", request_id="r", reason=Reason.AGE, invocations=0, has_raised=False, now=1_700_000_000
    )
    assert "responseContext" not in found
    assert found["requestContext"]["condition"] == "RecordAgeExceeded"
    assert found["requestContext"]["approximateInvokeCount"] == 1


def test_a_bucket_gets_the_event_as_escaped_json() -> None:
    """ "The payload field contains the original invocation record as an escaped JSON string." """
    event = {"Records": [{"kinesis": {"data": "aGVsbG8="}}]}
    body = s3_body({"version": "1.0"}, event)
    assert list(body) == ["version", "payload"]
    assert json.loads(body["payload"]) == event


def test_a_buckets_object_is_named_as_the_guide_says() -> None:
    """aws/lambda/<ESM-UUID>/<shardID>/YYYY/MM/DD/YYYY-MM-DDTHH.MM.SS-<Random UUID>"""
    found = s3_key(mapping="m", shard="shardId-000000000001", now=epoch("2019-11-14T00:38:06.021Z"), unique="u")
    assert found == "aws/lambda/m/shardId-000000000001/2019/11/14/2019-11-14T00.38.06-u"


@pytest.mark.parametrize("text", ["2019-11-14T00:38:06.021Z", "2026-01-01T00:00:00.000Z", "2026-01-01T00:00:00.999Z"])
def test_milliseconds_survive_being_a_binary_fraction(text: str) -> None:
    assert timestamp(epoch(text)) == text
