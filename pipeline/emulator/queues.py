"""The queues of a run: opened, filled, measured and read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.aws import sqs
from pipeline.aws.delivery import Entry, deliver
from pipeline.aws.names import arn_name
from pipeline.decisions.deadline import Deadline
from pipeline.emulator import dead_letters
from pipeline.emulator.backend import Backend
from pipeline.emulator.dead_letters import DeadLetterQueue, Depth
from pipeline.emulator.driver import Handling, Look, QueueDriver
from pipeline.emulator.event import event_record, size_of
from pipeline.emulator.local_source import DeadLetterMessage
from pipeline.emulator.mappings.actions import Message, Receive
from pipeline.emulator.mappings.queue import QueueMapping
from pipeline.emulator.mappings.settings import QueueSettings
from pipeline.emulator.payloads import Key, body_of, default_key
from pipeline.emulator.services.service import REGION
from pipeline.engine.environment import ProcessEnvironment
from pipeline.engine.stage import Stage
from pipeline.errors import SinkError, SinkRefused

#: moto's calls cost as much as its queue is deep.
_FULL = 200
_DELETE_LIMIT = 10


@dataclass(frozen=True)
class Queue:
    """A queue, and how a mapping reads it."""

    name: str  #: its logical name
    url: str
    arn: str
    settings: QueueSettings

    @property
    def physical(self) -> str:
        """Its name at the service."""
        return arn_name(self.arn)


class Port:
    """See `QueuePort`."""

    def __init__(self, queue: Queue, client: Any, backend: Backend) -> None:
        self._queue = queue
        self._client = client
        self._backend = backend

    async def receive(self, wanted: Receive, look: Look) -> Sequence[Message]:
        """See `QueuePort`."""
        clock, looks = self._backend.clock, 0
        end = clock.now() + self._backend.patience if wanted.until is None else wanted.until
        while True:
            count = look.activity.count
            found = await self._receive(wanted)
            left = end - clock.now()
            if found or left <= 0:
                return found
            look.found_nothing(count)
            await self._backend.pause(look.activity, count, looks, left)
            looks += 1

    async def delete(self, messages: Sequence[Message]) -> None:
        """See `QueuePort`."""
        for start in range(0, len(messages), _DELETE_LIMIT):
            some = messages[start : start + _DELETE_LIMIT]
            entries = [{"Id": str(i), "ReceiptHandle": message.receipt} for i, message in enumerate(some)]
            await self._client.delete_message_batch(QueueUrl=self._queue.url, Entries=entries)

    async def _receive(self, wanted: Receive) -> list[Message]:
        visibility = {} if wanted.visibility is None else {"VisibilityTimeout": int(wanted.visibility)}
        answer = await self._client.receive_message(
            QueueUrl=self._queue.url,
            MaxNumberOfMessages=wanted.count,
            WaitTimeSeconds=0,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
            **visibility,
        )
        return [_message(message, self._queue.arn) for message in answer.get("Messages", [])]


class LocalQueue:
    """A queue that a handler reads; see `LocalSource`. `key`: a payload's message group when the sender names none."""

    is_stream = False
    chunk = 50

    def __init__(
        self,
        queue: Queue,
        dead: DeadLetterQueue,
        backend: Backend,
        environment: ProcessEnvironment,
        key: Key | None = None,
    ) -> None:
        self.name = queue.name
        self.arn = queue.arn
        self.delaying_queues = (queue.physical,)
        self._queue = queue
        self._dead = dead
        self._backend = backend
        self._environment = environment
        self._key = key or (lambda _: queue.name)

    def driver(self, handling: Handling, limit: int) -> QueueDriver:
        """See `LocalSource`."""
        port = Port(self._queue, self._backend.client("sqs"), self._backend)
        return QueueDriver(QueueMapping(self._queue.settings, limit=limit), port, handling)

    async def offer(
        self, payloads: Sequence[Any], key: Key | None, attributes: Mapping[str, str] | None
    ) -> list[SinkError | None]:
        """See `LocalSource`. `key` gives the message group on a FIFO queue; default: its own."""
        named = {name: sqs.text_attribute(value) for name, value in (attributes or {}).items()}
        entries = [_entry(self._queue, payload, key or self._key, named, self._environment) for payload in payloads]
        call = partial(sqs.send, url=partial(_constant, self._queue.url), environment=self._environment)
        return await deliver(entries, call, sqs.LIMITS, self._environment, Deadline())

    async def is_full(self) -> bool:
        """See `LocalSource`."""
        return (await self.depth()).visible >= _FULL

    async def depth(self) -> Depth:
        """How many messages the queue holds."""
        return await dead_letters.depth(self._environment, self._queue.url)

    async def lag(self) -> float | None:
        """Seconds since its oldest message was sent."""
        return await self._backend.oldest(self._queue.physical)

    async def dead_letters(self) -> list[DeadLetterMessage]:
        """See `LocalSource`."""
        return await self._dead.read()

    async def dead_count(self) -> int:
        """See `LocalSource`."""
        return await self._dead.count()


async def open_queue(stage: Stage, environment: ProcessEnvironment, backend: Backend) -> LocalQueue:
    """The queue of a handler that reads one."""
    source: Any = stage.source
    url = await sqs.queue_url(source.resource, environment)
    settings = partial(
        QueueSettings,
        is_fifo=source.is_fifo,
        batch_size=source.batch_size,
        batching_window=source.batching_window,
        filter=source.filter,
        report_batch_item_failures=True,
        maximum_concurrency=source.max_concurrency,
        function_timeout=stage.deploy.timeout,
    )
    return await opened(source.name, url, settings, environment, backend, default_key(stage, lambda: source.name))


async def opened(
    name: str,
    url: str,
    settings: Callable[..., QueueSettings],
    environment: ProcessEnvironment,
    backend: Backend,
    key: Key | None = None,
) -> LocalQueue:
    """A queue that is there. `settings` is given the queue's visibility timeout. Raises `ConfigurationError`."""
    found = await dead_letters.attributes(environment, url, "QueueArn", "VisibilityTimeout")
    queue = Queue(name, url, found["QueueArn"], settings(visibility_timeout=float(found["VisibilityTimeout"])))
    target = await sqs.dead_letter_target(url, environment)
    dead = DeadLetterQueue(None if target is None else arn_name(target), environment, backend)
    return LocalQueue(queue, dead, backend, environment, key)


async def _constant(value: str) -> str:
    return value


def _message(message: Mapping[str, Any], arn: str) -> Message:
    member = event_record(message, arn=arn, region=REGION)
    group = message.get("Attributes", {}).get("MessageGroupId") if sqs.is_fifo(arn) else None
    return Message(message["MessageId"], message["ReceiptHandle"], member, size_of(member), group)


def _entry(
    queue: Queue, payload: Any, group: Key, attributes: Mapping[str, Any], environment: ProcessEnvironment
) -> Entry:
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
        message |= {"MessageGroupId": key, "MessageDeduplicationId": environment.token()}
    return Entry(payload=message, size=sqs.message_size(body, attributes), key=key)


def _text(body: str | bytes) -> str:
    if isinstance(body, str):
        return body
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise SinkRefused("it is not UTF-8") from None
