"""The queues of a local run: made, filled, measured and read."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from pipeline.aws import sqs
from pipeline.aws.client import client
from pipeline.aws.delivery import Entry, deliver
from pipeline.aws.names import Resource, arn_name
from pipeline.decisions.codec import Document, encode, loads
from pipeline.decisions.deadline import Deadline
from pipeline.emulator.isolation import REGION
from pipeline.emulator.poller import Queue, attributes_of
from pipeline.engine.stage import Stage
from pipeline.errors import ConfigurationError, PipelineError, SinkError, SinkRefused
from pipeline.ports import Environment

#: Gives the message group of a payload on a FIFO queue.
Group = Callable[[Any], str]
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

    def __str__(self) -> str:
        return f"{self.visible} visible, {self.in_flight} in flight, {self.delayed} delayed"


@dataclass(frozen=True)
class DeadLetterMessage:
    """A message in a dead-letter queue."""

    id: str
    body: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    group: str | None = None  #: FIFO: the message group

    @property
    def payload(self) -> Any:
        """The body as JSON."""
        return loads(self.body)


async def create(stages: Sequence[Stage], environment: Environment) -> list[Queue]:
    """Make what the stages declare, where it is missing; the queues of their sources.

    Sources come first: a queue that is a sink here and a source there gets the source's settings.
    """
    for stage in stages:
        await _create(stage.source, environment, timeout=stage.deploy.timeout)
    for stage in stages:
        for part in (*stage.sinks, stage.dead_letters, stage.store):
            await _create(part, environment)
    return [await _queue(stage, environment) for stage in stages]


async def _create(part: Any, environment: Environment, **options: Any) -> None:
    make = getattr(part, "create", None)  # not everything has a resource: Memory, File, a user's own
    if make is None:
        return
    try:
        await make(environment, **options)
    except PipelineError as error:
        raise ConfigurationError(f"{getattr(part, 'name', part)} could not be made: {error}") from error


async def _queue(stage: Stage, environment: Environment) -> Queue:
    source: Any = stage.source
    resource = getattr(source, "resource", None)
    if not isinstance(resource, Resource) or resource.service != "sqs":
        raise ConfigurationError(
            f"{stage.full_name}: the local run has no mapping for {type(source).__name__} yet, only for SQS"
        )
    url = await sqs.queue_url(resource, environment)
    attributes = await _attributes(environment, url, "QueueArn")
    target = await sqs.dead_letter_target(url, environment)
    return Queue(
        name=source.name,
        physical=arn_name(attributes["QueueArn"]),
        url=url,
        arn=attributes["QueueArn"],
        region=REGION,
        dead_letters=None if target is None else arn_name(target),
        batch_size=source.batch_size,
        batching_window=source.batching_window,
    )


async def _attributes(environment: Environment, url: str, *names: str) -> dict[str, str]:
    answer = await (await client(environment, "sqs")).get_queue_attributes(QueueUrl=url, AttributeNames=list(names))
    found: dict[str, str] = answer["Attributes"]
    return found


async def depth(environment: Environment, url: str) -> Depth:
    """How many messages the queue holds."""
    found = await _attributes(environment, url, *_COUNTS)
    return Depth(*(int(found[name]) for name in _COUNTS))


async def send(
    environment: Environment, queue: Queue, payloads: Sequence[Any], group: Group, attributes: Mapping[str, str] | None
) -> list[SinkError | None]:
    """Send payloads, in order on a FIFO queue; for each position None, or why it was not taken."""
    named = {name: sqs.text_attribute(value) for name, value in (attributes or {}).items()}
    entries = [_entry(queue, payload, group, named) for payload in payloads]
    call = partial(sqs.send, url=partial(_constant, queue.url), environment=environment)
    return await deliver(entries, call, sqs.LIMITS, environment, Deadline())


async def _constant(value: str) -> str:
    return value


def _entry(queue: Queue, payload: Any, group: Group, attributes: Mapping[str, Any]) -> Entry:
    try:
        body = body_of(payload)
        sqs.check_message(body, attributes)
    except SinkRefused as error:
        return Entry(error=error)
    message: dict[str, Any] = {"MessageBody": body, "MessageAttributes": attributes}
    key = None
    if sqs.is_fifo(queue.physical):
        key = sqs.identifier(group(payload))
        # Each is meant: sending the same payload twice delivers it twice.
        message |= {"MessageGroupId": key, "MessageDeduplicationId": uuid.uuid4().hex}
    return Entry(payload=message, size=sqs.message_size(body, attributes), key=key)


def body_of(payload: Any) -> str:
    """A payload as a message body: text as it is, everything else as JSON."""
    if isinstance(payload, bytes):
        return payload.decode()
    return payload if isinstance(payload, str) else encode(payload)


def default_group(stage: Stage) -> Group:
    """A payload's message group when the sender names none: the handler's lane, else its key, else one for all."""
    read = stage.lane or stage.key

    def group(payload: Any) -> str:
        if read is None:
            return stage.source.name
        try:
            document = Document(body_of(payload))
            found = read(document, lambda: stage.parse(document))
        except Exception:  # a damaged payload, or a key function that fails on it: the handler is to see it
            return stage.source.name
        return found if isinstance(found, str) else encode(msgspec.to_builtins(found))

    return group


async def read_all(environment: Environment, url: str) -> list[DeadLetterMessage]:
    """Every message of a dead-letter queue, which stay there. FIFO: at most ten of each group."""
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


def from_peek(message: Mapping[str, Any]) -> DeadLetterMessage:
    """A message as the embedded server shows it."""
    return DeadLetterMessage(message["id"], message["body"], message["attributes"], message["group"])


def check_names(queues: Sequence[Queue]) -> None:
    """Refuse two handlers on one queue: each message goes to one of them only, by chance."""
    seen: dict[str, str] = {}
    for queue in queues:
        if queue.arn in seen:
            raise ConfigurationError(f"two handlers read the queue '{queue.name}': give each its own")
        seen[queue.arn] = json.dumps(queue.name)
