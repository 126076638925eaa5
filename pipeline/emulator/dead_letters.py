"""A source's dead-letter queue in a local run: what stands in it, without taking it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.aws.client import client
from pipeline.aws.sqs import url_of
from pipeline.emulator.backend import Backend
from pipeline.emulator.local_source import DeadLetterMessage
from pipeline.ports import Environment

_PEEK_SECONDS = 60
_COUNTS = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed")


@dataclass(frozen=True)
class Depth:
    """How many messages a queue holds."""

    visible: int
    in_flight: int
    delayed: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.visible + self.in_flight + self.delayed

    @property
    def is_empty(self) -> bool:
        """There are none."""
        return not self.total

    @property
    def waiting(self) -> str:
        """All of them, for a table."""
        return str(self.total)

    def __str__(self) -> str:
        return f"{self.visible} visible, {self.in_flight} in flight, {self.delayed} delayed"


async def attributes(environment: Environment, url: str, *names: str) -> dict[str, str]:
    """A queue's attributes."""
    answer = await (await client(environment, "sqs")).get_queue_attributes(QueueUrl=url, AttributeNames=list(names))
    found: dict[str, str] = answer["Attributes"]
    return found


async def depth(environment: Environment, url: str) -> Depth:
    """How many messages a queue holds."""
    found = await attributes(environment, url, *_COUNTS)
    return Depth(*(int(found[name]) for name in _COUNTS))


@dataclass(frozen=True)
class DeadLetterQueue:
    """The queue of this name; None: there is none."""

    name: str | None
    environment: Environment
    backend: Backend

    async def count(self) -> int:
        """How many messages stand there."""
        if self.name is None:
            return 0
        return (await depth(self.environment, await url_of(self.name, None, self.environment))).total

    async def read(self) -> list[DeadLetterMessage]:
        """Every message; they stay there."""
        if self.name is None:
            return []
        peeked = await self.backend.peek(self.name)
        if peeked is not None:
            return [_from_peek(message) for message in peeked]
        return await _read_all(self.environment, await url_of(self.name, None, self.environment))


async def _read_all(environment: Environment, url: str) -> list[DeadLetterMessage]:
    """Every message, received and put back. FIFO: at most ten of each group."""
    queue = await client(environment, "sqs")
    received: list[dict[str, Any]] = []
    while True:
        answer = await queue.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=_PEEK_SECONDS, MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["MessageGroupId"],
        )  # fmt: skip
        if not answer.get("Messages"):
            break
        received += answer["Messages"]
    for message in received:
        await queue.change_message_visibility(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
    return [
        DeadLetterMessage(
            message["MessageId"],
            message["Body"],
            attributes_of(message),
            message.get("Attributes", {}).get("MessageGroupId"),
        )
        for message in received
    ]


def _from_peek(message: Mapping[str, Any]) -> DeadLetterMessage:
    """A message as the embedded server shows it."""
    return DeadLetterMessage(message["id"], message["body"], message["attributes"], message["group"])


def attributes_of(message: Mapping[str, Any]) -> dict[str, str]:
    """A received message's attributes, as text."""
    found = message.get("MessageAttributes", {})
    return {name: value["StringValue"] for name, value in found.items() if value.get("StringValue") is not None}
