"""Makes a project's resources on an endpoint: queues first, what points at them after."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.aws.client import code_of
from pipeline.deploy.local.names import Names
from pipeline.deploy.local.problems import Problem
from pipeline.deploy.local.project import Project
from pipeline.deploy.local.resources import Bucket, Queue, Rule, Stream, Subscription, Table, Topic
from pipeline.emulator.services.service import REGION
from pipeline.errors import ConfigurationError

#: A client of a service, by botocore's name of it, with botocore's methods as coroutines.
ClientFor = Callable[[str], Any]

_THERE = {
    *("QueueNameExists", "QueueAlreadyExists", "ResourceInUseException", "ResourceAlreadyExistsException"),
    *("BucketAlreadyOwnedByYou", "BucketAlreadyExists"),
}
_USABLE = ("ACTIVE", "UPDATING")
#: Seconds between looks at a stream or table that is being made, and how many there are.
_LOOK_SECONDS, _LOOKS = 0.1, 600


@dataclass(frozen=True)
class Made:
    """What was made. `names`: as the project's, with the URLs and stream ARNs that the endpoint gave.

    `problems`: what the endpoint refused, or cannot do. `failed`: the ids of what could not be made, or not all of it.
    """

    names: Mapping[str, Names]
    problems: tuple[Problem, ...]
    failed: frozenset[str]


async def make(project: Project, client_for: ClientFor) -> Made:
    """Make everything, where it is missing; what is there gets the template's settings where that is possible.

    A part that the endpoint refuses is a problem, and the others are made. A broken connection is raised.
    """
    making = _Making(project, client_for)
    await making.run()
    return Made(making.names, tuple(sorted(making.problems)), frozenset(making.failed))


class _Making:
    def __init__(self, project: Project, client_for: ClientFor) -> None:
        self._project = project
        self._client_for = client_for
        self.names = dict(project.names)
        self.problems: list[Problem] = []
        self.failed: set[str] = set()

    async def run(self) -> None:
        project = self._project
        for queue in project.queues.values():
            await self._try(queue.id, queue.line, f"the queue {queue.names.name}", self._queue(queue))
        for queue in project.queues.values():  # two queues may name each other
            await self._try(queue.id, queue.line, f"the redrive policy of {queue.names.name}", self._redrive(queue))
        for stream in project.streams.values():
            await self._try(stream.id, stream.line, f"the stream {stream.names.name}", self._stream(stream))
        for table in project.tables.values():
            await self._try(table.id, table.line, f"the table {table.names.name}", self._table(table))
        for topic in project.topics.values():
            await self._try(topic.id, topic.line, f"the topic {topic.names.name}", self._topic(topic))
        for one in project.subscriptions:
            await self._try(None, one.line, f"the subscription of {one.queue}", self._subscription(one))
        for bucket in project.buckets.values():
            await self._try(bucket.id, bucket.line, f"the bucket {bucket.names.name}", self._bucket(bucket))
        for bus in project.buses.values():
            await self._try(bus.id, bus.line, f"the bus {bus.names.name}", self._bus(bus.names.name))
        for rule in project.rules.values():
            await self._try(rule.id, rule.line, f"the rule {rule.names.name}", self._rule(rule))

    async def _try(self, resource: str | None, line: int, what: str, making: Awaitable[None]) -> None:
        """Make something. `resource`: its id; a subscription has none."""
        try:
            await making
        except Exception as error:
            if not _is_refusal(error):
                raise
            self._tell(line, f"{what} could not be made: {error}")
            if resource is not None:
                self.failed.add(resource)

    def _tell(self, line: int, message: str) -> None:
        self.problems.append(Problem(self._project.path, line, message))

    async def _queue(self, queue: Queue) -> None:
        sqs = self._client_for("sqs")
        try:
            made = await sqs.create_queue(QueueName=queue.names.name, Attributes=dict(queue.attributes))
            url = made["QueueUrl"]
        except Exception as error:
            if code_of(error) not in _THERE:
                raise
            url = (await sqs.get_queue_url(QueueName=queue.names.name))["QueueUrl"]
            changing = {name: value for name, value in queue.attributes.items() if name != "FifoQueue"}
            if changing:
                await sqs.set_queue_attributes(QueueUrl=url, Attributes=changing)
        self.names[queue.id] = replace(queue.names, url=url)

    async def _redrive(self, queue: Queue) -> None:
        attributes: dict[str, str] = {}
        if queue.redrive is not None:
            policy = {"deadLetterTargetArn": queue.redrive.target, "maxReceiveCount": queue.redrive.max_receives}
            attributes["RedrivePolicy"] = json.dumps(policy)
        if queue.redrive_allow is not None:
            attributes["RedriveAllowPolicy"] = queue.redrive_allow
        if attributes:
            sqs = self._client_for("sqs")
            await sqs.set_queue_attributes(QueueUrl=self.names[queue.id].url, Attributes=attributes)

    async def _stream(self, stream: Stream) -> None:
        kinesis = self._client_for("kinesis")
        name = stream.names.name
        capacity: dict[str, Any] = {"ShardCount": stream.shards}
        if stream.shards is None:
            capacity = {"StreamModeDetails": {"StreamMode": "ON_DEMAND"}}
        await _unless_there(kinesis.create_stream(StreamName=name, **capacity))
        found = await _usable(
            lambda: kinesis.describe_stream_summary(StreamName=name), "StreamDescriptionSummary", "StreamStatus"
        )
        if stream.retention_hours > int(found.get("RetentionPeriodHours", 24)):
            await kinesis.increase_stream_retention_period(StreamName=name, RetentionPeriodHours=stream.retention_hours)

    async def _table(self, table: Table) -> None:
        dynamodb = self._client_for("dynamodb")
        name = table.names.name
        parts: dict[str, Any] = {}
        if table.global_indexes:
            parts["GlobalSecondaryIndexes"] = list(table.global_indexes)
        if table.local_indexes:
            parts["LocalSecondaryIndexes"] = list(table.local_indexes)
        if table.stream_view is not None:
            parts["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": table.stream_view}
        await _unless_there(
            dynamodb.create_table(
                TableName=name,
                KeySchema=list(table.keys),
                AttributeDefinitions=list(table.attributes),
                BillingMode="PAY_PER_REQUEST",
                **parts,
            )
        )
        found = await _usable(lambda: dynamodb.describe_table(TableName=name), "Table", "TableStatus")
        self.names[table.id] = replace(table.names, stream_arn=found.get("LatestStreamArn", ""))
        if table.ttl_attribute is not None:
            ttl = (await dynamodb.describe_time_to_live(TableName=name))["TimeToLiveDescription"]
            if ttl.get("TimeToLiveStatus") not in ("ENABLED", "ENABLING"):
                await dynamodb.update_time_to_live(
                    TableName=name, TimeToLiveSpecification={"Enabled": True, "AttributeName": table.ttl_attribute}
                )

    async def _topic(self, topic: Topic) -> None:
        sns = self._client_for("sns")
        await sns.create_topic(Name=topic.names.name, Attributes=dict(topic.attributes))

    async def _subscription(self, one: Subscription) -> None:
        sns = self._client_for("sns")
        attributes = {"RawMessageDelivery": "true"} if one.is_raw else {}
        if one.filter_policy is not None:
            attributes["FilterPolicy"] = one.filter_policy
        if one.filter_scope is not None:
            attributes["FilterPolicyScope"] = one.filter_scope
        await sns.subscribe(TopicArn=one.topic, Protocol="sqs", Endpoint=one.queue, Attributes=attributes)

    async def _bucket(self, bucket: Bucket) -> None:
        s3 = self._client_for("s3")
        place = {} if REGION == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": REGION}}
        await _unless_there(s3.create_bucket(Bucket=bucket.names.name, **place))
        configuration: dict[str, Any] = {}
        if bucket.notifications:
            configuration["QueueConfigurations"] = [
                {
                    "QueueArn": one.queue,
                    "Events": list(one.events),
                    **({"Filter": {"Key": {"FilterRules": list(one.rules)}}} if one.rules else {}),
                }
                for one in bucket.notifications
            ]
        if bucket.to_event_bridge:
            configuration["EventBridgeConfiguration"] = {}
        if configuration:
            await s3.put_bucket_notification_configuration(
                Bucket=bucket.names.name, NotificationConfiguration=configuration
            )

    async def _bus(self, name: str) -> None:
        events = self._client_for("events")
        await _unless_there(events.create_event_bus(Name=name))

    async def _rule(self, rule: Rule) -> None:
        events = self._client_for("events")
        state = "ENABLED" if rule.is_enabled else "DISABLED"
        await events.put_rule(Name=rule.names.name, EventBusName=rule.bus, EventPattern=rule.pattern, State=state)
        targets: list[dict[str, Any]] = []
        for one in rule.targets:
            target: dict[str, Any] = {"Id": one.id, "Arn": one.queue}
            if one.input is not None:
                target["Input"] = one.input
            if one.input_path is not None:
                target["InputPath"] = one.input_path
            if one.transformer is not None:
                target["InputTransformer"] = dict(one.transformer)
            if one.group is not None:
                target["SqsParameters"] = {"MessageGroupId": one.group}
            targets.append(target)
        answer = await events.put_targets(Rule=rule.names.name, EventBusName=rule.bus, Targets=targets)
        for failed in answer.get("FailedEntries", ()):
            self._tell(rule.line, f"the rule {rule.names.name}: a target was refused: {failed.get('ErrorMessage')}")


def _is_refusal(error: Exception) -> bool:
    """Whether the endpoint refused something, or the client before it."""
    if isinstance(error, ConfigurationError) or code_of(error) is not None:
        return True
    return type(error).__name__ == "ParamValidationError"  # botocore's; it is not imported here


async def _usable(describe: Callable[[], Awaitable[Any]], member: str, status: str) -> Any:
    """What is told of a stream or table once it can be used; or at the last look. `member`: of the answer."""
    found: Any = {}
    for _ in range(_LOOKS):
        found = (await describe())[member]
        if found[status] in _USABLE:
            break
        await asyncio.sleep(_LOOK_SECONDS)
    return found


async def _unless_there(making: Awaitable[Any]) -> None:
    try:
        await making
    except Exception as error:
        if code_of(error) not in _THERE:
            raise
