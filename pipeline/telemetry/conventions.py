"""Names of spans' attributes, by OpenTelemetry's semantic conventions 1.44, and the few of our own.

https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/, .../faas/aws-lambda/, .../db/. A test compares them
with the constants that are published with the conventions: these change in any release, so no code imports them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SCHEMA = "https://opentelemetry.io/schemas/1.44.0"

SYSTEM = "messaging.system"
OPERATION_NAME = "messaging.operation.name"
OPERATION_TYPE = "messaging.operation.type"
DESTINATION = "messaging.destination.name"
PARTITION = "messaging.destination.partition.id"
MESSAGE_ID = "messaging.message.id"
MESSAGE_COUNT = "messaging.batch.message_count"
ERROR_TYPE = "error.type"

STORE_SYSTEM = "db.system.name"
STORE_TABLE = "db.collection.name"
STORE_REQUESTS = "db.operation.batch.size"

BUCKET = "aws.s3.bucket"

TRIGGER = "faas.trigger"
INVOCATION = "faas.invocation_id"
COLD_START = "faas.coldstart"
RESOURCE = "cloud.resource_id"
ACCOUNT = "cloud.account.id"
INVOKED_ARN = "aws.lambda.invoked_arn"

#: Ours; the conventions have nothing for these.
PIPELINE = "pipeline.name"
HANDLER = "pipeline.handler"
ATTEMPT = "pipeline.attempt"
KEY_HASH = "pipeline.key_hash"
OUTCOME = "pipeline.outcome"
SINK = "pipeline.sink"
OUTPUTS = "pipeline.outputs"
FAILED = "pipeline.failed"
REASON = "pipeline.reason"
STORE_CALL = "pipeline.store.operation"
#: How many records of a batch ended so: with the outcome's word behind it.
RECORDS = "pipeline.records."

#: Values of `messaging.system`. The conventions know SQS; the other two are ours, as they allow for what they do not know.
SQS, KINESIS, EVENTBRIDGE = "aws_sqs", "aws.kinesis", "aws.eventbridge"
DYNAMODB, REDIS = "aws.dynamodb", "redis"
PROCESS, SEND = "process", "send"


def described_by(integration: object) -> Mapping[str, str]:
    """What a source, a sink or a store says of itself for its spans: its optional attribute `described`."""
    try:
        found = getattr(integration, "described", None)
    except Exception:  # of somebody's own, that means something else by the name
        return {}
    return found if isinstance(found, Mapping) else {}


def described_source(source: Any) -> Mapping[str, str]:
    """What a source says of itself, or what there is to say of any."""
    return described_by(source) or received(type(source).__name__.lower(), source.name)


def table(system: str, name: str) -> dict[str, str]:
    """What is the same for all calls of a table."""
    return {STORE_SYSTEM: system, STORE_TABLE: name}


def received(system: str, destination: str) -> dict[str, str]:
    """What is the same for all records of a source."""
    return {SYSTEM: system, OPERATION_NAME: PROCESS, OPERATION_TYPE: PROCESS, DESTINATION: destination}


def sent(system: str, destination: str) -> dict[str, str]:
    """What is the same for all messages to a sink."""
    return {SYSTEM: system, OPERATION_NAME: SEND, OPERATION_TYPE: SEND, DESTINATION: destination}
