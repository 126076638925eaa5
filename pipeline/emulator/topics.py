"""The Kafka topics of a run: opened, filled, measured and read. They are in memory only."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.emulator import destinations
from pipeline.emulator.backend import Backend
from pipeline.emulator.dead_letters import DeadLetterQueue
from pipeline.emulator.driver import Handling, Look, ShardDriver
from pipeline.emulator.local_source import DeadLetterMessage
from pipeline.emulator.mappings.actions import Commit, Read, SendToDestination, Shard
from pipeline.emulator.mappings.kafka import MAX_CONCURRENT, KafkaMapping
from pipeline.emulator.mappings.kafka_destination import is_topic
from pipeline.emulator.mappings.machine import Page
from pipeline.emulator.mappings.settings import KAFKA_SCHEME, KafkaSettings
from pipeline.emulator.payloads import Key, body_of
from pipeline.emulator.services.cluster import Cluster, topic_arn
from pipeline.emulator.services.service import ServiceError
from pipeline.emulator.services.topic import Consumer, Topic, TopicRecord
from pipeline.emulator.stream_ports import patiently
from pipeline.engine.environment import ProcessEnvironment
from pipeline.errors import ConfigurationError, SinkError, SinkRefused


class TopicPort:
    """Reads a topic; see `ShardPort`."""

    def __init__(self, consumer: Consumer, cluster: Cluster, backend: Backend) -> None:
        self._consumer = consumer
        self._cluster = cluster
        self._backend = backend

    async def shards(self) -> Sequence[Shard]:
        """See `ShardPort`: the topic's partitions."""
        return self._consumer.shards()

    async def read(self, wanted: Read, look: Look) -> Page:
        """See `ShardPort`."""
        return await patiently(self._read, wanted, look, self._backend)

    async def send(self, record: SendToDestination) -> None:
        """See `ShardPort`. A topic gets the record under the key of the one that was given up, so that keys keep their order."""
        if not is_topic(record.destination):
            await destinations.send(record, self._backend)
            return
        topic = record.destination.removeprefix(KAFKA_SCHEME)
        self._cluster.append(topic, json.dumps(record.record).encode(), key=_key_of(record))

    async def commit(self, wanted: Commit) -> None:
        """See `ShardPort`."""
        self._consumer.commit(wanted)

    async def _read(self, wanted: Read) -> Page:
        await asyncio.sleep(0)  # everybody else gets a turn, as during a call over a network
        return self._consumer.read(wanted, self._backend.clock.now())


@dataclass(frozen=True)
class TopicDepth:
    """What waits for a handler in a topic."""

    held: int  #: records that its mapping has read and not settled
    unread: int

    @property
    def is_empty(self) -> bool:
        """Everything is read, and settled."""
        return not self.held and not self.unread

    @property
    def waiting(self) -> str:
        """For a table."""
        return str(self.held + self.unread)

    def __str__(self) -> str:
        return f"{self.held} records that are not settled, {self.unread} that are not read"


class LocalTopic:
    """A topic that a handler reads; see `LocalSource`."""

    is_stream = True
    chunk = 500
    delaying_queues = ()

    def __init__(
        self,
        settings: KafkaSettings,
        consumer: Consumer,
        cluster: Cluster,
        environment: ProcessEnvironment,
        backend: Backend,
    ) -> None:
        (self.name,) = settings.topics
        self.arn = topic_arn(self.name)
        self._settings = settings
        self._consumer = consumer
        self._cluster = cluster
        self._backend = backend
        self._driver: ShardDriver | None = None
        self._dead = DeadLetterQueue(destinations.queue_of(settings.on_failure), environment, backend)
        self._dead_topic: Topic | None = None
        if settings.on_failure is not None and is_topic(settings.on_failure):
            self._dead_topic = _topic(settings.on_failure, cluster, "on_failure")

    def driver(self, handling: Handling, limit: int) -> ShardDriver:
        """See `LocalSource`."""
        machine = KafkaMapping(self._settings, limit=min(limit, MAX_CONCURRENT))
        self._driver = ShardDriver(machine, TopicPort(self._consumer, self._cluster, self._backend), handling)
        return self._driver

    async def offer(
        self, payloads: Sequence[object], key: Key | None, attributes: Mapping[str, str] | None
    ) -> list[SinkError | None]:
        """See `LocalSource`. `attributes` become headers; without a `key` each partition gets a record in turn."""
        headers = [(name, value.encode()) for name, value in (attributes or {}).items()]
        errors: list[SinkError | None] = []
        for payload in payloads:
            body = body_of(payload)
            value = body.encode() if isinstance(body, str) else body
            try:
                self._cluster.append(
                    self.name, value, key=None if key is None else key(payload).encode(), headers=headers
                )
                errors.append(None)
            except ServiceError as error:
                errors.append(SinkRefused(str(error)))
        return errors

    async def is_full(self) -> bool:
        """Never: a topic keeps what was read."""
        return False

    async def depth(self) -> TopicDepth:
        """See `LocalSource`."""
        held = 0 if self._driver is None else self._driver.machine.held
        return TopicDepth(held, self._consumer.unread(self._backend.clock.now()))

    async def lag(self) -> float | None:
        """How far its slowest partition was behind when it was last read."""
        return None if self._driver is None else self._driver.machine.millis_behind / 1000.0

    async def dead_letters(self) -> list[DeadLetterMessage]:
        """See `LocalSource`: what the on-failure destination holds, if it is a queue or a topic."""
        if self._dead_topic is not None:
            return [_letter(record) for record in self._dead_topic.records(self._backend.clock.now())]
        return await self._dead.read()

    async def dead_count(self) -> int:
        """See `LocalSource`."""
        if self._dead_topic is not None:
            return len(self._dead_topic.records(self._backend.clock.now()))
        return await self._dead.count()


def opened(settings: KafkaSettings, environment: ProcessEnvironment, backend: Backend) -> LocalTopic:
    """A topic, ready to be mapped. What is sent from now on is seen from "LATEST" too. Raises `ConfigurationError`.

    A mapping that names no consumer group gets one of its own, as Lambda's gets a UUID.
    """
    cluster = backend.cluster
    if cluster is None:
        raise ConfigurationError("there is no Kafka on a local AWS server: test the function with testing.Emulator")
    (name,) = settings.topics
    topic = _topic(name, cluster, "the source")
    consumer = Consumer(topic, settings.consumer_group or f"{settings.function_name}-{name}")
    consumer.start(settings.starting_position, settings.starting_timestamp, backend.clock.now())
    return LocalTopic(settings, consumer, cluster, environment, backend)


def _topic(name: str, cluster: Cluster, what: str) -> Topic:
    name = name.removeprefix(KAFKA_SCHEME)
    try:
        return cluster.topic(name)
    except ServiceError:
        raise ConfigurationError(f"{what}: there is no topic '{name}': make it before the mapping") from None


def _key_of(record: SendToDestination) -> bytes | None:
    ((member,),) = record.payload["records"].values()
    return base64.b64decode(member["key"]) if "key" in member else None


def _letter(record: TopicRecord) -> DeadLetterMessage:
    headers = {name: value.decode("utf-8", "replace") for name, value in record.headers}
    return DeadLetterMessage(f"{record.partition}:{record.offset}", (record.value or b"").decode(), headers)
