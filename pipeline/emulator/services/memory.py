"""All services in memory, wired to each other."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from pipeline.emulator.services.bucket import S3
from pipeline.emulator.services.bus import EventBridge
from pipeline.emulator.services.dynamodb.service import DynamoDB
from pipeline.emulator.services.queue import SQS
from pipeline.emulator.services.service import Service
from pipeline.emulator.services.stream import Kinesis
from pipeline.emulator.services.trace_header import system_attributes


def in_memory(chance: random.Random, now: Callable[[], float]) -> list[Service]:
    """Fresh services, empty. `chance`: of all ids, and of what a service leaves to chance. `now`: epoch seconds."""
    queues, tables = SQS(chance), DynamoDB(chance)

    def deliver(arn: str, body: str, group: str | None, header: str | None) -> None:
        url = queues.operations["get_queue_url"]({"QueueName": arn.rpartition(":")[2]}, now())["QueueUrl"]
        message: dict[str, Any] = {"QueueUrl": url, "MessageBody": body}
        if group is not None:
            message |= {"MessageGroupId": group, "MessageDeduplicationId": f"event-{chance.getrandbits(64):016x}"}
        if header is not None:
            message["MessageSystemAttributes"] = system_attributes(header)
        queues.operations["send_message"](message, now())

    return [queues, Kinesis(), S3(), tables, tables.streams, EventBridge(chance, deliver)]
