"""SQS messages and queues: what the queue sink, the queue source and its dead letters share.

Limits (the service model of SQS, 2026-11): 10 entries and 1 MiB a call, 1 MiB a message with its
attributes, 10 attributes, and only the characters that XML 1.0 allows.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pipeline.aws.client import client, code_of, entry_error, sink_error
from pipeline.aws.delivery import Entry, Limits
from pipeline.aws.letters import MAX_ATTRIBUTES, MAX_BYTES, forbidden
from pipeline.aws.names import Resource
from pipeline.errors import SinkError, SinkRefused, SinkUnavailable
from pipeline.ports import Environment

MAX_DELAY = 900
MAX_VISIBILITY = 43_200
LIMITS = Limits(count=10, size=MAX_BYTES, entry_size=MAX_BYTES)

#: A message attribute as the API wants it: DataType with StringValue or BinaryValue.
Attributes = Mapping[str, Mapping[str, Any]]

_ATTRIBUTE_NAME = re.compile(r"(?!\.)(?!.*\.\.)[A-Za-z0-9_.-]{1,256}(?<!\.)")
#: What group and deduplication ids may hold: ASCII letters, digits and punctuation.
_IDENTIFIER = re.compile("[!-~]{1,128}")


def is_fifo(name: str) -> bool:
    """True for a FIFO queue's name, URL or ARN. A group id does not tell: fair queues have one too."""
    return name.endswith(".fifo")


def identifier(text: str) -> str:
    """A text as a group or deduplication id: itself, or its hash when SQS does not allow it."""
    if _IDENTIFIER.fullmatch(text):
        return text
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def text_attribute(value: str) -> dict[str, Any]:
    """A message attribute that holds text."""
    return {"DataType": "String", "StringValue": value}


def check_message(body: str, attributes: Attributes) -> None:
    """Raise `SinkRefused` for a message that SQS will not take, and say why."""
    if not body:
        raise SinkRefused("the body is empty: SQS takes no message without one")
    bad = forbidden(body)
    if bad is not None:
        raise SinkRefused(f"the body holds the character {bad}, which SQS does not take: send it as base64")
    if len(attributes) > MAX_ATTRIBUTES:
        raise SinkRefused(
            f"{len(attributes)} message attributes, those of the pipeline included: SQS takes {MAX_ATTRIBUTES}"
        )
    for name, attribute in attributes.items():
        _check_attribute(name, attribute)


def _check_attribute(name: str, attribute: Mapping[str, Any]) -> None:
    if not _ATTRIBUTE_NAME.fullmatch(name) or name.lower().startswith(("aws.", "amazon.")):
        raise SinkRefused(f"message attribute '{name}': SQS takes names of letters, digits, '_', '-' and single dots")
    value = attribute.get("StringValue")
    if value is None:
        return
    if not value:
        raise SinkRefused(f"message attribute '{name}' is empty: SQS takes no empty value")
    bad = forbidden(value)
    if bad is not None:
        raise SinkRefused(f"message attribute '{name}' holds the character {bad}, which SQS does not take")


def message_size(body: str, attributes: Attributes) -> int:
    """A message's size by SQS's rule: body, and name, type and value of each attribute, in bytes."""
    size = len(body.encode("utf-8", "surrogatepass"))
    for name, attribute in attributes.items():
        size += len(name) + len(attribute["DataType"])
        size += len(attribute.get("StringValue", "").encode("utf-8", "surrogatepass"))
        size += len(attribute.get("BinaryValue", b""))
    return size


async def send(
    entries: Sequence[Entry], url: Callable[[], Awaitable[str]], environment: Environment
) -> list[SinkError | None]:
    """Send up to ten messages in one call. Raises `SinkError` when the call failed as a whole."""
    messages = [{"Id": str(position), **entry.payload} for position, entry in enumerate(entries)]
    try:
        sqs = await client(environment, "sqs")
        answer = await sqs.send_message_batch(QueueUrl=await url(), Entries=messages)
    except Exception as error:
        raise sink_error(error, "SQS SendMessageBatch") from None
    # What the answer does not name was not accepted.
    results: list[SinkError | None] = [SinkUnavailable("SQS did not answer for this message")] * len(entries)
    for sent in answer.get("Successful", ()):
        results[int(sent["Id"])] = None
    for failed in answer.get("Failed", ()):
        results[int(failed["Id"])] = entry_error(failed.get("Code"), failed.get("Message"), "SQS")
    return results


async def queue_url(queue: Resource, environment: Environment) -> str:
    """A queue's URL: what the deployment says, or what SQS says, asked once per environment."""
    physical = queue.physical
    if physical.startswith(("http://", "https://")):
        return physical
    return await url_of(physical, queue.account, environment)


async def url_of(name: str, account: str | None, environment: Environment) -> str:
    """The URL of a queue by its real name, asked once. Raises `SinkError` when it cannot be had."""

    @asynccontextmanager
    async def ask() -> AsyncIterator[str]:
        owner = {"QueueOwnerAWSAccountId": account} if account else {}
        sqs = await client(environment, "sqs")
        answer = await sqs.get_queue_url(QueueName=name, **owner)
        yield answer["QueueUrl"]

    try:
        return await environment.once(("sqs-url", name, account), ask)
    except Exception as error:
        raise sink_error(error, f"queue '{name}'") from None


async def create_queue(queue: Resource, environment: Environment, attributes: Mapping[str, str]) -> tuple[str, str]:
    """Make a queue, or give an existing one these attributes; return its URL and ARN."""
    sqs = await client(environment, "sqs")
    name = queue.physical.rpartition("/")[2]
    fixed = {"FifoQueue": "true"} if is_fifo(name) else {}
    wanted = {"SqsManagedSseEnabled": "true", **attributes}
    try:
        made = await sqs.create_queue(QueueName=name, Attributes={**fixed, **wanted})
        url = made["QueueUrl"]
    except Exception as error:
        if code_of(error) not in ("QueueNameExists", "QueueAlreadyExists"):
            raise sink_error(error, f"creating the queue '{name}'") from None
        url = (await sqs.get_queue_url(QueueName=name))["QueueUrl"]
        await put_attributes(url, environment, wanted)
    found = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    return url, found["Attributes"]["QueueArn"]


async def put_attributes(url: str, environment: Environment, attributes: Mapping[str, str]) -> None:
    """Give a queue these attributes."""
    try:
        sqs = await client(environment, "sqs")
        await sqs.set_queue_attributes(QueueUrl=url, Attributes=dict(attributes))
    except Exception as error:
        raise sink_error(error, "SQS SetQueueAttributes") from None


async def dead_letter_target(url: str, environment: Environment) -> str | None:
    """The ARN of the queue that a queue's redrive policy names, asked once."""

    @asynccontextmanager
    async def ask() -> AsyncIterator[str | None]:
        sqs = await client(environment, "sqs")
        answer = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["RedrivePolicy"])
        policy = json.loads(answer.get("Attributes", {}).get("RedrivePolicy", "{}"))
        yield policy.get("deadLetterTargetArn")

    try:
        return await environment.once(("sqs-dead-letters", url), ask)
    except Exception as error:
        raise sink_error(error, "SQS GetQueueAttributes") from None
