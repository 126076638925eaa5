"""What an `Emulator` holds: queues, streams, tables, buckets and topics, with plain values in and out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Self

from pipeline.aws.dynamodb import attribute
from pipeline.emulator.backend import MemoryBackend
from pipeline.emulator.services.cluster import topic_arn
from pipeline.emulator.services.service import ServiceError
from pipeline.emulator.services.topic import Topic as KafkaTopic
from pipeline.emulator.services.topic import TopicRecord
from pipeline.errors import PipelineError, SinkRefused


@dataclass(frozen=True)
class _Resource:
    backend: MemoryBackend
    name: str
    arn: str

    def _call(self, service: str, operation: str, **parameters: Any) -> dict[str, Any]:
        return self.backend.call_now(service, operation, parameters)


@dataclass(frozen=True)
class Queue(_Resource):
    """An SQS queue."""

    url: str
    dead_letters: Queue | None = None  #: where messages go after `max_receive_count` receives

    @classmethod
    def create(
        cls,
        backend: MemoryBackend,
        name: str,
        *,
        visibility_timeout: int = 30,
        delay: int = 0,
        retention: int = 345_600,
        max_receive_count: int | None = None,
    ) -> Self:
        """Make it. With `max_receive_count` it gets a dead-letter queue, `<name>-dlq`. Times in seconds."""
        attributes = {
            "VisibilityTimeout": str(visibility_timeout),
            "DelaySeconds": str(delay),
            "MessageRetentionPeriod": str(retention),
        }
        dead: Queue | None = None
        is_fifo = name.endswith(".fifo")
        if is_fifo:
            attributes["FifoQueue"] = "true"
        if max_receive_count is not None:
            dead_name = f"{name.removesuffix('.fifo')}-dlq{'.fifo' if is_fifo else ''}"
            dead = Queue.create(backend, dead_name, retention=1_209_600)
            redrive = {"deadLetterTargetArn": dead.arn, "maxReceiveCount": max_receive_count}
            attributes["RedrivePolicy"] = json.dumps(redrive)
        backend.call_now("sqs", "create_queue", {"QueueName": name, "Attributes": attributes})
        return cls.find(backend, name)

    @classmethod
    def find(cls, backend: MemoryBackend, name: str) -> Self:
        """The queue of this name, with its dead-letter queue. Raises `ClientError` where there is none."""
        url = backend.call_now("sqs", "get_queue_url", {"QueueName": name})["QueueUrl"]
        asked = {"QueueUrl": url, "AttributeNames": ["QueueArn", "RedrivePolicy"]}
        found = backend.call_now("sqs", "get_queue_attributes", asked)["Attributes"]
        redrive = json.loads(found.get("RedrivePolicy", "{}"))
        target = redrive.get("deadLetterTargetArn")
        dead = None if target is None else Queue.find(backend, target.rpartition(":")[2])
        return cls(backend, name, found["QueueArn"], url, dead)

    def send(
        self,
        *payloads: Any,
        group: str | None = None,
        attributes: Mapping[str, str] | None = None,
        delay: int | None = None,
    ) -> list[str]:
        """Send payloads, text as it is and everything else as JSON; the messages' ids.

        `group`: the message group; a FIFO queue needs one. Sending a payload twice delivers it twice, also on FIFO queues.
        """
        given: dict[str, Any] = {} if delay is None else {"DelaySeconds": delay}
        if attributes:
            given["MessageAttributes"] = {
                name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
            }
        if group is not None:
            given["MessageGroupId"] = group
        ids: list[str] = []
        for payload in payloads:
            if self.name.endswith(".fifo"):
                given["MessageDeduplicationId"] = f"sent-{self.backend.news.count}"
            body = payload if isinstance(payload, str) else json.dumps(payload)
            answer = self._call("sqs", "send_message", QueueUrl=self.url, MessageBody=body, **given)
            ids.append(answer["MessageId"])
        return ids

    @property
    def messages(self) -> Sequence[Mapping[str, Any]]:
        """What stands in it, without receiving it: `id`, `body`, `group`, `receive_count`, `attributes`."""
        return self.backend.sqs.peek(self.name)

    @property
    def bodies(self) -> list[Any]:
        """The messages' bodies: as JSON where they are, else as text."""
        return [_decoded(message["body"]) for message in self.messages]

    @property
    def is_empty(self) -> bool:
        """No message is left: none visible, none in flight, none delayed."""
        return not self.messages


@dataclass(frozen=True)
class Stream(_Resource):
    """A Kinesis stream."""

    @classmethod
    def create(cls, backend: MemoryBackend, name: str, *, shards: int = 1, throttles: bool = False) -> Self:
        """Make it. `throttles`: its shards take and give no more a second than AWS's do; then also `put` may be refused."""
        backend.call_now("kinesis", "create_stream", {"StreamName": name, "ShardCount": shards})
        if throttles:
            backend.kinesis.throttle(name)
        return cls.find(backend, name)

    @classmethod
    def find(cls, backend: MemoryBackend, name: str) -> Self:
        """The stream of this name. Raises `ClientError` where there is none."""
        described = backend.call_now("kinesis", "describe_stream_summary", {"StreamName": name})
        return cls(backend, name, described["StreamDescriptionSummary"]["StreamARN"])

    def put(self, *payloads: Any, key: str | None = None) -> list[str]:
        """Put payloads: bytes and text as they are, everything else as JSON; their sequence numbers.

        `key`: the partition key for all; default: one of its own for each.
        """
        numbers: list[str] = []
        for payload in payloads:
            data = payload if isinstance(payload, bytes) else _text(payload).encode()
            partition = key or f"key-{self.backend.news.count}"
            answer = self._call("kinesis", "put_record", StreamName=self.name, Data=data, PartitionKey=partition)
            numbers.append(answer["SequenceNumber"])
        return numbers

    @property
    def shards(self) -> list[str]:
        """The ids of its shards, closed ones included."""
        return [shard["ShardId"] for shard in self._call("kinesis", "list_shards", StreamName=self.name)["Shards"]]

    def resize(self, shards: int) -> None:
        """Split or merge until it has so many open shards; what stands in the others stays readable."""
        self._call(
            "kinesis",
            "update_shard_count",
            StreamName=self.name,
            TargetShardCount=shards,
            ScalingType="UNIFORM_SCALING",
        )


@dataclass(frozen=True)
class Table(_Resource):
    """A DynamoDB table. As a source it is its stream."""

    partition_key: str
    sort_key: str | None

    @classmethod
    def create(
        cls,
        backend: MemoryBackend,
        name: str,
        *,
        partition_key: str = "id",
        sort_key: str | None = None,
        stream: str | None = None,
    ) -> Self:
        """Make it. Its `arn` is its stream's when it has one."""
        keys = [(partition_key, "HASH"), *([(sort_key, "RANGE")] if sort_key else [])]
        parameters: dict[str, Any] = {
            "TableName": name,
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{"AttributeName": key, "AttributeType": "S"} for key, _ in keys],
            "KeySchema": [{"AttributeName": key, "KeyType": kind} for key, kind in keys],
        }
        if stream is not None:
            parameters["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": stream}
        backend.call_now("dynamodb", "create_table", parameters)
        return cls.find(backend, name)

    @classmethod
    def find(cls, backend: MemoryBackend, name: str) -> Self:
        """The table of this name. Raises `ClientError` where there is none."""
        made = backend.call_now("dynamodb", "describe_table", {"TableName": name})["Table"]
        keys = {key["KeyType"]: key["AttributeName"] for key in made["KeySchema"]}
        return cls(backend, name, made.get("LatestStreamArn") or made["TableArn"], keys["HASH"], keys.get("RANGE"))

    def put(self, *items: Mapping[str, Any]) -> None:
        """Write items of plain values; floats are refused: give `Decimal`."""
        for item in items:
            self._call("dynamodb", "put_item", TableName=self.name, Item=_attributes(item))

    def delete(self, **key: str) -> None:
        """Delete the item of a key."""
        self._call("dynamodb", "delete_item", TableName=self.name, Key=_attributes(key))

    def get(self, **key: str) -> dict[str, Any] | None:
        """The item of a key, as plain values; None: there is none."""
        item = self._call("dynamodb", "get_item", TableName=self.name, Key=_attributes(key), ConsistentRead=True).get(
            "Item"
        )
        return None if item is None else _values(item)

    @property
    def items(self) -> list[dict[str, Any]]:
        """Every item, as plain values."""
        found: list[dict[str, Any]] = []
        start: dict[str, Any] = {}
        while True:
            answer = self._call("dynamodb", "scan", TableName=self.name, ConsistentRead=True, **start)
            found += [_values(item) for item in answer["Items"]]
            if "LastEvaluatedKey" not in answer:
                return found
            start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}


@dataclass(frozen=True)
class Bucket(_Resource):
    """An S3 bucket."""

    @classmethod
    def create(cls, backend: MemoryBackend, name: str) -> Self:
        """Make it."""
        backend.call_now("s3", "create_bucket", {"Bucket": name})
        return cls.find(backend, name)

    @classmethod
    def find(cls, backend: MemoryBackend, name: str) -> Self:
        """The bucket of this name. Raises `ClientError` where there is none."""
        backend.call_now("s3", "head_bucket", {"Bucket": name})
        return cls(backend, name, f"arn:aws:s3:::{name}")

    @property
    def objects(self) -> dict[str, bytes]:
        """Every object's bytes, by its key."""
        return self.backend.s3.objects(self.name)


@dataclass(frozen=True)
class Topic(_Resource):
    """A topic of a Kafka cluster."""

    @classmethod
    def create(cls, backend: MemoryBackend, name: str, *, partitions: int, retention: float) -> Self:
        """Make it. Raises `PipelineError` when there is one of that name."""
        try:
            backend.cluster.create(name, partitions=partitions, retention=retention)
        except ServiceError as error:
            raise PipelineError(f"the topic '{name}' cannot be made: {error}") from None
        return cls(backend, name, topic_arn(name))

    def send(
        self,
        *payloads: Any,
        key: str | None = None,
        partition: int | None = None,
        headers: Mapping[str, str] | None = None,
        timestamp: float | None = None,
    ) -> list[tuple[int, int]]:
        """Send payloads: bytes and text as they are, everything else as JSON; each one's partition and offset.

        `key`: for all; where there is none, and no `partition`, each partition gets one in turn. `timestamp`: the
        producer's, epoch seconds.
        """
        given = [(name, value.encode()) for name, value in (headers or {}).items()]
        found: list[tuple[int, int]] = []
        for payload in payloads:
            value = payload if isinstance(payload, bytes) else _text(payload).encode()
            named = None if key is None else key.encode()
            try:
                record = self.backend.cluster.append(
                    self.name, value, key=named, headers=given, partition=partition, timestamp=timestamp
                )
            except ServiceError as error:
                raise PipelineError(f"the topic '{self.name}' does not take the record: {error}") from None
            found.append((record.partition, record.offset))
        return found

    @property
    def records(self) -> list[TopicRecord]:
        """What it keeps, one partition after the other."""
        return self._topic.records(self.backend.clock.now())

    @property
    def values(self) -> list[Any]:
        """The records' values: as JSON where they are, else as text."""
        return [_decoded((record.value or b"").decode()) for record in self.records]

    def committed(self, group: str) -> Mapping[int, int]:
        """By partition, the offset from which a consumer group goes on."""
        return self._topic.committed(group)

    def lag(self, group: str) -> int:
        """Records that a consumer group has not committed."""
        return self._topic.lag(group, self.backend.clock.now())

    def add_partitions(self, count: int) -> None:
        """Add partitions; its mappings look for new ones every 5 minutes."""
        self._topic.add_partitions(count)

    @property
    def _topic(self) -> KafkaTopic:
        return self.backend.cluster.topic(self.name)


def _text(payload: Any) -> str:
    return payload if isinstance(payload, str) else json.dumps(payload)


def _decoded(body: str) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body


def _attributes(item: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return {name: attribute(value) for name, value in item.items()}
    except SinkRefused as error:
        raise PipelineError(f"the item cannot be written: {error}") from None


def _values(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _value(held) for name, held in item.items()}


def _value(held: Mapping[str, Any]) -> Any:
    """An attribute value as plain Python: numbers as `int` or `Decimal`, sets as sets."""
    ((kind, value),) = held.items()
    match kind:
        case "N":
            return _number(value)
        case "NULL":
            return None
        case "L":
            return [_value(member) for member in value]
        case "M":
            return _values(value)
        case "NS":
            return {_number(member) for member in value}
        case "SS" | "BS":
            return set(value)
        case _:
            return value


def _number(text: str) -> int | Decimal:
    number = Decimal(text)
    return int(number) if number == number.to_integral_value() else number
