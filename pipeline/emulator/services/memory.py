"""All services in memory, wired to each other."""

from __future__ import annotations

import random

from pipeline.emulator.services.bucket import S3
from pipeline.emulator.services.bus import EventBridge
from pipeline.emulator.services.dynamodb.service import DynamoDB
from pipeline.emulator.services.queue import SQS
from pipeline.emulator.services.service import Service
from pipeline.emulator.services.stream import Kinesis


def in_memory(chance: random.Random) -> list[Service]:
    """Fresh services, empty. `chance`: of all ids, and of what a service leaves to chance."""
    queues = SQS(chance)
    tables = DynamoDB(chance)
    return [queues, Kinesis(), S3(), tables, tables.streams, EventBridge(chance)]
