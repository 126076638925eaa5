"""The events that Lambda sends for SQS messages and for Kinesis records, member for member."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from pipeline.emulator.services.service import ACCOUNT


def event_record(message: Mapping[str, Any], *, arn: str, region: str) -> dict[str, Any]:
    """One member of `Records`, from a message as ReceiveMessage returns it."""
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": dict(message.get("Attributes", {})),
        "messageAttributes": {name: _attribute(value) for name, value in message.get("MessageAttributes", {}).items()},
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": arn,
        "awsRegion": region,
    }


def stream_record(record: Mapping[str, Any], *, shard: str, arn: str, region: str, function: str) -> dict[str, Any]:
    """One member of `Records`, from a record as GetRecords returns it."""
    number = record["SequenceNumber"]
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": record["PartitionKey"],
            "sequenceNumber": number,
            "data": base64.b64encode(record["Data"]).decode(),
            "approximateArrivalTimestamp": record["ApproximateArrivalTimestamp"].timestamp(),
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"{shard}:{number}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": f"arn:aws:iam::{ACCOUNT}:role/{function}",
        "awsRegion": region,
        "eventSourceARN": arn,
    }


def size_of(record: Mapping[str, Any]) -> int:
    """The bytes that a record takes in the event: its metadata counts."""
    return len(json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogatepass")) + 1


def _attribute(value: Mapping[str, Any]) -> dict[str, Any]:
    """A message attribute in Lambda's spelling; SQS itself writes `StringValue`."""
    written: dict[str, Any] = {}
    if value.get("StringValue") is not None:
        written["stringValue"] = value["StringValue"]
    if value.get("BinaryValue") is not None:
        written["binaryValue"] = base64.b64encode(value["BinaryValue"]).decode()
    return {**written, "stringListValues": [], "binaryListValues": [], "dataType": value["DataType"]}
