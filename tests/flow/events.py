"""Lambda's side of an invocation: the event, the context, and what was printed."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Any

from pipeline import Handler
from pipeline.emulator import resources
from pipeline.emulator.event import event_record
from pipeline.engine.environment import ProcessEnvironment

SHARD = "shardId-000000000006"
STREAM = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders"


class Invocation:
    """The context of an invocation that has so many seconds."""

    def __init__(self, seconds: float = 30.0) -> None:
        self.seconds = seconds
        self.started = time.monotonic()

    def get_remaining_time_in_millis(self) -> int:
        return max(int((self.started + self.seconds - time.monotonic()) * 1000), 0)

    @property
    def took(self) -> float:
        """Seconds since it started."""
        return time.monotonic() - self.started


def message(identity: str, body: Any, **fields: Any) -> dict[str, Any]:
    """One member of `Records`. It has no receipt handle, so nothing is asked of SQS for it."""
    body = body if isinstance(body, str) else json.dumps(body)
    return {"messageId": identity, "eventSource": "aws:sqs", "body": body, **fields}


def stream_record(number: int | str, value: Any = b"{}", *, key: str = "k", **members: Any) -> dict[str, Any]:
    """One member of `Records` from the stream `orders`: its sequence number, and bytes or a value to be JSON.

    `members` replaces those of its `kinesis`, such as `data`; None leaves one out.
    """
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    kinesis = {
        "kinesisSchemaVersion": "1.0",
        "partitionKey": key,
        "sequenceNumber": str(number),
        "data": base64.b64encode(data).decode(),
        "approximateArrivalTimestamp": 1545084650.987,
        **members,
    }
    return {
        "kinesis": {name: member for name, member in kinesis.items() if member is not None},
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"{SHARD}:{number}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::123456789012:role/lambda-role",
        "awsRegion": "eu-west-1",
        "eventSourceARN": STREAM,
    }


def event(*records: Any) -> dict[str, Any]:
    return {"Records": list(records)}


def orders(*names: str) -> dict[str, Any]:
    """Messages `m0`, `m1`, ... with these orders."""
    return event(*(message(f"m{position}", {"order_id": name}) for position, name in enumerate(names)))


def failed(response: Any) -> list[str]:
    """The message ids that come back."""
    assert set(response) == {"batchItemFailures"}
    return [item["itemIdentifier"] for item in response["batchItemFailures"]]


def json_lines(text: str) -> list[dict[str, Any]]:
    """The JSON lines of an output; everything in it must be one."""
    return [json.loads(line) for line in text.splitlines() if line]


def log_lines(text: str, message: str | None = None) -> list[dict[str, Any]]:
    """The log lines among them."""
    return [line for line in json_lines(text) if "level" in line and message in (None, line["message"])]


def metric_lines(text: str) -> list[dict[str, Any]]:
    """The metrics lines among them."""
    return [line for line in json_lines(text) if "_aws" in line]


def make(handler: Handler[..., Any]) -> None:
    """Make everything that a handler declares."""

    async def create() -> None:
        environment = ProcessEnvironment()
        try:
            await resources.make([handler.stage], environment)
        finally:
            await environment.aclose()

    asyncio.run(create())


class Queues:
    """The queues of the tests' server, by name."""

    def __init__(self, sqs: Any) -> None:
        self._sqs = sqs

    def send(self, queue: str, *bodies: Any, **attributes: str) -> None:
        url = self._url(queue)
        named = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}
        for body in bodies:
            text = body if isinstance(body, str) else json.dumps(body)
            self._sqs.send_message(QueueUrl=url, MessageBody=text, MessageAttributes=named)

    def receive(self, queue: str) -> dict[str, Any]:
        """Up to ten messages, as the event that Lambda delivers."""
        return event(
            *(
                event_record(found, arn=f"arn:aws:sqs:eu-west-1:123456789012:{queue}", region="eu-west-1")
                for found in self._receive(queue)
            )
        )

    def delete(self, queue: str, delivered: dict[str, Any], response: Any) -> None:
        """What the mapping does with a response: delete what it does not name."""
        for record in delivered["Records"]:
            if record["messageId"] not in failed(response):
                self._sqs.delete_message(QueueUrl=self._url(queue), ReceiptHandle=record["receiptHandle"])

    def bodies(self, queue: str) -> list[str]:
        """The bodies that stand in a queue."""
        return [found["Body"] for found in self.messages(queue)]

    def messages(self, queue: str) -> list[dict[str, Any]]:
        """All messages of a queue; they are taken out of sight."""
        found: list[dict[str, Any]] = []
        while some := self._receive(queue):
            found += some
        return found

    def causes(self, queue: str) -> list[str]:
        """The causes of the dead letters in a queue."""
        return [
            json.loads(found["MessageAttributes"]["pipeline_cause"]["StringValue"])["cause"]
            for found in self.messages(queue)
        ]

    def _receive(self, queue: str) -> list[dict[str, Any]]:
        answer = self._sqs.receive_message(
            QueueUrl=self._url(queue), MaxNumberOfMessages=10, MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["All"],
        )  # fmt: skip
        found: list[dict[str, Any]] = answer.get("Messages", [])
        return found

    def _url(self, queue: str) -> str:
        url: str = self._sqs.get_queue_url(QueueName=queue)["QueueUrl"]
        return url
