"""What a template makes, as plain values: queues, streams, tables, buckets, topics, buses and rules.

What a service would refuse is told here, with its line, and left out or replaced by AWS's default.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.deploy.lint.model import VISIBILITY, Resource
from pipeline.deploy.local.names import Names
from pipeline.deploy.local.reader import Reader, whole

#: Ranges of SQS's queue attributes (SQS API reference, CreateQueue), and of what DynamoDB and Kinesis take.
_QUEUE_NUMBERS = {
    "DelaySeconds": (0, 900),
    "MaximumMessageSize": (1_024, 1_048_576),
    "MessageRetentionPeriod": (60, 1_209_600),
    "ReceiveMessageWaitTimeSeconds": (0, 20),
    "VisibilityTimeout": (0, 43_200),
}
_FIFO_TEXTS = ("DeduplicationScope", "FifoThroughputLimit")
_MAX_RECEIVES = 1_000
_MAX_STREAM_HOURS = 8_760
_VIEWS = ("KEYS_ONLY", "NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES")


@dataclass(frozen=True)
class Redrive:
    """A queue's dead letters."""

    target: str  #: the ARN of a queue
    max_receives: int


@dataclass(frozen=True)
class Queue:
    """An SQS queue. `attributes`: as CreateQueue takes them, without the redrive policy."""

    id: str  #: the logical id; of a stand-in its ARN
    line: int
    names: Names
    attributes: Mapping[str, str] = field(default_factory=dict)
    redrive: Redrive | None = None
    redrive_allow: str | None = None  #: JSON

    @property
    def is_fifo(self) -> bool:
        return self.names.name.endswith(".fifo")

    @property
    def visibility(self) -> int:
        """Seconds."""
        return int(self.attributes.get("VisibilityTimeout", VISIBILITY))


@dataclass(frozen=True)
class Stream:
    """A Kinesis stream. `shards`: None for one on demand."""

    id: str
    line: int
    names: Names
    shards: int | None = 1
    retention_hours: int = 24


@dataclass(frozen=True)
class Table:
    """A DynamoDB table; keys, attributes and indexes as CreateTable takes them. `stream_view`: None without a stream."""

    id: str
    line: int
    names: Names
    keys: Sequence[Mapping[str, str]]
    attributes: Sequence[Mapping[str, str]]
    global_indexes: Sequence[Mapping[str, Any]] = ()
    local_indexes: Sequence[Mapping[str, Any]] = ()
    stream_view: str | None = None
    ttl_attribute: str | None = None


@dataclass(frozen=True)
class Notification:
    """A bucket tells a queue of its objects. `events`: such as "s3:ObjectCreated:*"."""

    queue: str  #: its ARN
    events: tuple[str, ...]
    rules: Sequence[Mapping[str, str]] = ()  #: Name "prefix" or "suffix", and Value


@dataclass(frozen=True)
class Bucket:
    """An S3 bucket."""

    id: str
    line: int
    names: Names
    notifications: tuple[Notification, ...] = ()
    to_event_bridge: bool = False


@dataclass(frozen=True)
class Subscription:
    """A queue that a topic sends to. `filter_policy`: JSON."""

    topic: str  #: its ARN
    queue: str  #: its ARN
    line: int
    is_raw: bool = False
    filter_policy: str | None = None
    filter_scope: str | None = None


@dataclass(frozen=True)
class Topic:
    """An SNS topic."""

    id: str
    line: int
    names: Names
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Bus:
    """An EventBridge bus; the one called "default" is there already."""

    id: str
    line: int
    names: Names


@dataclass(frozen=True)
class Target:
    """A queue that a rule sends to. `input`, `input_path` and `transformer` as PutTargets takes them."""

    id: str
    queue: str  #: its ARN
    input: str | None = None
    input_path: str | None = None
    transformer: Mapping[str, Any] | None = None
    group: str | None = None  #: the message group, for a FIFO queue


@dataclass(frozen=True)
class Rule:
    """An EventBridge rule with queues for targets. `pattern`: JSON."""

    id: str
    line: int
    names: Names
    bus: str  #: its name
    pattern: str
    targets: tuple[Target, ...]
    is_enabled: bool = True


def queue(resource: Resource, names: Names, reader: Reader) -> Queue:
    """An `AWS::SQS::Queue`."""
    attributes: dict[str, str] = {}
    for name, (lowest, highest) in _QUEUE_NUMBERS.items():
        number = reader.number(name, None, lowest, highest)
        if number is not None:
            attributes[name] = str(number)
    is_fifo = reader.truth("FifoQueue", default=False)
    if is_fifo != names.name.endswith(".fifo"):
        fix = "its QueueName must end with .fifo" if is_fifo else "`FifoQueue: true` is missing"
        reader.error("QueueName", f"AWS refuses this queue, which is called {names.name}: {fix}")
    if names.name.endswith(".fifo"):
        attributes["FifoQueue"] = "true"
        if reader.truth("ContentBasedDeduplication", default=False):
            attributes["ContentBasedDeduplication"] = "true"
        attributes |= {name: text for name in _FIFO_TEXTS if (text := reader.text(name)) is not None}
    return Queue(resource.id, resource.line, names, attributes, _redrive(reader), reader.document("RedriveAllowPolicy"))


def _redrive(reader: Reader) -> Redrive | None:
    policy = reader.plain("RedrivePolicy")
    if isinstance(policy, str):
        try:
            policy = json.loads(policy)
        except ValueError:
            policy = None
    if policy is None and "RedrivePolicy" not in reader:
        return None
    target = policy.get("deadLetterTargetArn") if isinstance(policy, dict) else None
    count = whole(policy.get("maxReceiveCount")) if isinstance(policy, dict) else None
    if not isinstance(target, str) or count is None or not 1 <= count <= _MAX_RECEIVES:
        reader.error(
            "RedrivePolicy",
            f"RedrivePolicy needs deadLetterTargetArn and a maxReceiveCount of 1 to {_MAX_RECEIVES:,}: it is left out",
        )
        return None
    return Redrive(target, count)


def stream(resource: Resource, names: Names, reader: Reader) -> Stream:
    """An `AWS::Kinesis::Stream`."""
    mode = reader.section("StreamModeDetails").text("StreamMode")
    shards = reader.number("ShardCount", None, 1, 10_000)
    hours = reader.number("RetentionPeriodHours", 24, 24, _MAX_STREAM_HOURS) or 24
    return Stream(resource.id, resource.line, names, None if mode == "ON_DEMAND" else shards or 1, hours)


def table(resource: Resource, names: Names, reader: Reader) -> Table | None:
    """A table of any of the three types; None where AWS would refuse its keys."""
    if resource.type == "AWS::Serverless::SimpleTable":
        key = reader.section("PrimaryKey")
        name, kind = key.text("Name") or "id", (key.text("Type") or "String")[:1]
        key_schema = [{"AttributeName": name, "KeyType": "HASH"}]
        return Table(resource.id, resource.line, names, key_schema, [{"AttributeName": name, "AttributeType": kind}])
    keys, attributes = texts(reader.plain("KeySchema")), texts(reader.plain("AttributeDefinitions"))
    if [one.get("KeyType") for one in keys] not in (["HASH"], ["HASH", "RANGE"]):
        reader.error(
            "KeySchema", f"the table {resource.id} needs a KeySchema of a HASH and perhaps a RANGE key: left out"
        )
        return None
    declared = {one.get("AttributeName") for one in attributes}
    missing = [one.get("AttributeName") for one in keys if one.get("AttributeName") not in declared]
    if missing:
        reader.error(
            "AttributeDefinitions", f"AttributeDefinitions lacks the key '{missing[0]}': the table is left out"
        )
        return None
    section = reader.section("StreamSpecification")
    view = section.text("StreamViewType")
    if resource.type == "AWS::DynamoDB::GlobalTable" and "StreamSpecification" not in reader:
        # With a replica in another region its stream is on, with both images, whatever the template says.
        view = "NEW_AND_OLD_IMAGES" if len(reader.sections("Replicas")) > 1 else None
    if view is not None and view not in _VIEWS:
        section.error(
            "StreamViewType", f"StreamViewType '{view}' is none of {', '.join(_VIEWS)}: NEW_AND_OLD_IMAGES here"
        )
        view = "NEW_AND_OLD_IMAGES"
    ttl = reader.section("TimeToLiveSpecification")
    return Table(
        resource.id,
        resource.line,
        names,
        keys,
        attributes,
        _indexes(reader, "GlobalSecondaryIndexes"),
        _indexes(reader, "LocalSecondaryIndexes"),
        view,
        ttl.text("AttributeName") if ttl.truth("Enabled", default=False) else None,
    )


def _indexes(reader: Reader, name: str) -> list[Mapping[str, Any]]:
    wanted = ("IndexName", "KeySchema", "Projection")
    found = reader.plain(name)
    listed = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    return [{member: one[member] for member in wanted if member in one} for one in listed]


def bucket(resource: Resource, names: Names, reader: Reader) -> Bucket:
    """An `AWS::S3::Bucket`."""
    section = reader.section("NotificationConfiguration")
    notifications: list[Notification] = []
    for one in section.sections("QueueConfigurations"):
        target, event = one.text("Queue"), one.text("Event")
        if target is None or event is None:
            one.error("Queue", "a notification needs Queue and Event: it is left out")
            continue
        rules = texts(one.section("Filter").section("S3Key").plain("Rules"))
        notifications.append(Notification(target, (event,), rules))
    bridge = section.section("EventBridgeConfiguration")
    to_bridge = "EventBridgeConfiguration" in section and bridge.truth("EventBridgeEnabled", default=True)
    return Bucket(resource.id, resource.line, names, tuple(notifications), bool(to_bridge))


def topic(resource: Resource, names: Names, reader: Reader) -> Topic:
    """An `AWS::SNS::Topic`."""
    attributes: dict[str, str] = {}
    if reader.truth("FifoTopic", default=False):
        attributes["FifoTopic"] = "true"
        if reader.truth("ContentBasedDeduplication", default=False):
            attributes["ContentBasedDeduplication"] = "true"
    return Topic(resource.id, resource.line, names, attributes)


def subscriptions(topic_arn: str, reader: Reader, owner: str) -> Iterator[Subscription]:
    """Those in a topic's own `Subscription`."""
    for one in reader.sections("Subscription"):
        yield from _subscription(topic_arn, one, owner)


def subscription(reader: Reader, owner: str) -> Iterator[Subscription]:
    """An `AWS::SNS::Subscription`."""
    topic_arn = reader.text("TopicArn")
    if topic_arn is None:
        reader.error("TopicArn", f"{owner} names no topic: it is left out")
        return
    yield from _subscription(topic_arn, reader, owner)


def _subscription(topic_arn: str, reader: Reader, owner: str) -> Iterator[Subscription]:
    protocol, endpoint = reader.text("Protocol"), reader.text("Endpoint")
    if protocol != "sqs" or endpoint is None:
        reader.note(
            "Protocol", f"{owner}: a subscription of {protocol or 'no protocol'} is not run; only queues get it"
        )
        return
    yield Subscription(
        topic_arn,
        endpoint,
        reader.line,
        bool(reader.truth("RawMessageDelivery", default=False)),
        reader.document("FilterPolicy"),
        reader.text("FilterPolicyScope"),
    )


def rule(resource: Resource, names: Names, reader: Reader) -> Rule | None:
    """An `AWS::Events::Rule` that has queues for targets; None for one that has none."""
    pattern = reader.document("EventPattern")
    if pattern is None:
        reader.note("ScheduleExpression", f"{resource.id} has no EventPattern: schedules are not run")
        return None
    targets: list[Target] = []
    for one in reader.sections("Targets"):
        target = one.text("Arn") or ""
        if not target.startswith("arn:aws:sqs:"):
            one.note("Arn", f"{resource.id} has a target that is no queue: it is not run")
            continue
        transformer = one.plain("InputTransformer")
        targets.append(
            Target(
                one.text("Id") or f"target{len(targets)}",
                target,
                one.text("Input"),
                one.text("InputPath"),
                transformer if isinstance(transformer, dict) else None,
                one.section("SqsParameters").text("MessageGroupId"),
            )
        )
    bus = (reader.text("EventBusName") or "default").rpartition("/")[2]
    is_enabled = (reader.text("State") or "ENABLED") != "DISABLED"
    return Rule(resource.id, resource.line, names, bus, pattern, tuple(targets), is_enabled) if targets else None


def texts(value: Any) -> list[Mapping[str, str]]:
    """A list of mappings of texts; what is none is left out."""
    found = [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
    return [{str(name): str(text) for name, text in one.items()} for one in found]
