"""On-failure destinations: where a stream's mapping sends what it gives up."""

from __future__ import annotations

import json
from typing import Any

from pipeline.aws.client import code_of
from pipeline.aws.names import arn_name
from pipeline.emulator.backend import Backend
from pipeline.emulator.mappings.actions import SendToDestination
from pipeline.emulator.mappings.destination import s3_body, s3_key
from pipeline.errors import ConfigurationError

_NO_QUEUE = ("NonExistentQueue", "QueueDoesNotExist")


async def send(wanted: SendToDestination, backend: Backend) -> None:
    """Send an invocation record: metadata to SQS and SNS, and with the event to S3. Raises what the client raises."""
    service, account, name = _parts(wanted.destination)
    body = json.dumps(wanted.record)
    if service == "sqs":
        queue = backend.client("sqs")
        url = (await queue.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account))["QueueUrl"]
        await queue.send_message(QueueUrl=url, MessageBody=body)
    elif service == "sns":
        await backend.client("sns").publish(TopicArn=wanted.destination, Message=body)
    else:
        whole = json.dumps(s3_body(wanted.record, wanted.payload))
        await _put(backend.client("s3"), name, _object_key(wanted, backend), whole.encode())


async def _put(s3: Any, bucket: str, key: str, body: bytes) -> None:
    try:
        await s3.put_object(Bucket=bucket, Key=key, Body=body)
    except Exception as error:
        # Made only now: most runs give nothing up, and S3 is the slowest part of a server to start.
        if code_of(error) != "NoSuchBucket":
            raise
        await s3.create_bucket(Bucket=bucket)
        await s3.put_object(Bucket=bucket, Key=key, Body=body)


async def check(destination: str, backend: Backend) -> None:
    """Raise `ConfigurationError` for what is no destination of a mapping, or is not there. A bucket is made when needed."""
    service, account, name = _parts(destination)
    try:
        client = backend.client(service)
        if service == "sqs":
            await client.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)
    except ConfigurationError as error:
        raise ConfigurationError(f"nothing can be sent to the on-failure destination {destination}: {error}") from None
    except Exception as error:
        if code_of(error) not in _NO_QUEUE:
            raise
        raise ConfigurationError(
            f"the on-failure destination {destination} is not there: make the queue first"
        ) from None


def queue_of(destination: str | None) -> str | None:
    """The name of a destination that is a queue: there dead letters are looked for."""
    return arn_name(destination) if destination is not None and destination.startswith("arn:aws:sqs:") else None


def _parts(arn: str) -> tuple[str, str, str]:
    parts = arn.split(":", 5)
    if len(parts) < 6 or parts[0] != "arn" or parts[2] not in ("sqs", "sns", "s3"):
        raise ConfigurationError(
            f"{arn!r} is no on-failure destination: give the ARN of an SQS queue, an SNS topic or an S3 bucket"
        )
    return parts[2], parts[4], parts[5]


def _object_key(wanted: SendToDestination, backend: Backend) -> str:
    """An object's key, as Lambda names them."""
    context: dict[str, Any] = wanted.record.get("requestContext", {})
    info: dict[str, Any] = wanted.record.get("KinesisBatchInfo") or wanted.record.get("DDBStreamBatchInfo") or {}
    unique = str(context.get("requestId", wanted.send))
    return s3_key(mapping="local", shard=info.get("shardId", "shard"), now=backend.clock.now(), unique=unique)
