"""The queues of a local run: opened, filled, measured and read."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from pipeline.aws import sqs
from pipeline.aws.client import client
from pipeline.aws.delivery import Entry, deliver
from pipeline.aws.names import arn_name
from pipeline.decisions.deadline import Deadline
from pipeline.emulator import dead_letters
from pipeline.emulator.dead_letters import DeadLetterQueue, Depth
from pipeline.emulator.embedded import EmbeddedServer
from pipeline.emulator.invocation import Handling
from pipeline.emulator.isolation import REGION
from pipeline.emulator.local_source import DeadLetterMessage
from pipeline.emulator.payloads import Key, body_of, default_key
from pipeline.emulator.queue_poller import Queue, QueueMapping
from pipeline.engine.stage import Stage
from pipeline.errors import SinkError, SinkRefused
from pipeline.ports import Environment

#: moto's calls cost as much as its queue is deep.
_FULL = 200


class LocalQueue:
    """A handler's queue; see `LocalSource`."""

    is_stream = False
    chunk = 50

    def __init__(
        self, stage: Stage, queue: Queue, dead: DeadLetterQueue, *, environment: Environment, client: Any
    ) -> None:
        self.name = queue.name
        self.arn = queue.arn
        self.delaying_queues = (queue.physical,)
        self._stage = stage
        self._queue = queue
        self._dead = dead
        self._environment = environment
        self._client = client

    def mapping(self, handling: Handling) -> QueueMapping:
        """See `LocalSource`."""
        return QueueMapping(self._queue, handling, client=self._client)

    async def offer(
        self, payloads: Sequence[Any], key: Key | None, attributes: Mapping[str, str] | None
    ) -> list[SinkError | None]:
        """See `LocalSource`. `key` gives the message group on a FIFO queue; default see `default_key`, or one for all."""
        group = key or default_key(self._stage, lambda: self.name)
        named = {name: sqs.text_attribute(value) for name, value in (attributes or {}).items()}
        entries = [_entry(self._queue, payload, group, named) for payload in payloads]
        call = partial(sqs.send, url=partial(_constant, self._queue.url), environment=self._environment)
        return await deliver(entries, call, sqs.LIMITS, self._environment, Deadline())

    async def is_full(self) -> bool:
        """See `LocalSource`."""
        return (await self.depth()).visible >= _FULL

    async def depth(self) -> Depth:
        """How many messages the queue holds."""
        return await dead_letters.depth(self._environment, self._queue.url)

    async def dead_letters(self) -> list[DeadLetterMessage]:
        """See `LocalSource`."""
        return await self._dead.read()

    async def dead_count(self) -> int:
        """See `LocalSource`."""
        return await self._dead.count()


async def open_queue(stage: Stage, environment: Environment, server: EmbeddedServer | None) -> LocalQueue:
    """The queue of a handler that reads one."""
    source: Any = stage.source
    url = await sqs.queue_url(source.resource, environment)
    arn = (await dead_letters.attributes(environment, url, "QueueArn"))["QueueArn"]
    target = await sqs.dead_letter_target(url, environment)
    queue = Queue(
        name=source.name,
        physical=arn_name(arn),
        url=url,
        arn=arn,
        region=REGION,
        batch_size=source.batch_size,
        batching_window=source.batching_window,
        filter=source.filter,
    )
    dead = DeadLetterQueue(None if target is None else arn_name(target), environment, server)
    return LocalQueue(stage, queue, dead, environment=environment, client=await client(environment, "sqs"))


async def _constant(value: str) -> str:
    return value


def _entry(queue: Queue, payload: Any, group: Key, attributes: Mapping[str, Any]) -> Entry:
    try:
        body = _text(body_of(payload))
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


def _text(body: str | bytes) -> str:
    if isinstance(body, str):
        return body
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise SinkRefused("it is not UTF-8") from None
