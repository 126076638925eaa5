"""What rules look at: the same for SAM and for plain CloudFormation, with AWS's defaults where a property is left out.

A model shows a template in one world (`worlds.py`). Settings know their line; references are logical ids where the
template makes what they name, by its name too.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pipeline.deploy.lint import values
from pipeline.deploy.lint.code import UNKNOWN_CODE, Code
from pipeline.deploy.lint.nodes import Call, Item, Members, Node, Scalar
from pipeline.deploy.lint.values import Properties, Reference, Setting
from pipeline.deploy.lint.worlds import World, text_of
from pipeline.engine.stage import Stage

#: Defaults of AWS (SQS, Kinesis and Lambda API references, 2026). Seconds where nothing else is said.
VISIBILITY = 30
RETENTION = 345_600
TIMEOUT = 3
MEMORY = 128  # MB
STREAM_HOURS = 24
BATCH_SIZES = {"sqs": 10, "kinesis": 100, "dynamodb": 100, "msk": 100, "kafka": 100}

_FUNCTIONS = ("AWS::Serverless::Function", "AWS::Lambda::Function")
_EVENT_KINDS = {
    "SQS": "sqs", "Kinesis": "kinesis", "DynamoDB": "dynamodb", "MSK": "msk", "SelfManagedKafka": "kafka",
    "MQ": "mq", "DocumentDB": "documentdb",
}  # fmt: skip
_SOURCE_KINDS = {
    "AWS::SQS::Queue": "sqs", "AWS::Kinesis::Stream": "kinesis", "AWS::Kinesis::StreamConsumer": "kinesis",
    "AWS::DynamoDB::Table": "dynamodb", "AWS::DynamoDB::GlobalTable": "dynamodb",
    "AWS::Serverless::SimpleTable": "dynamodb", "AWS::MSK::Cluster": "msk",
}  # fmt: skip
_SERVICES = {"sqs": "sqs", "kinesis": "kinesis", "dynamodb": "dynamodb", "kafka": "msk"}
#: Macros of AWS that add no resources but those that are known here.
_TRANSFORMS = {"AWS::Serverless-2016-10-31", "AWS::LanguageExtensions", "AWS::CodeDeployBlueGreen"}
#: The colons of an ARN, and not those of "${AWS::Region}".
_ARN_PARTS = re.compile(r"(?<!:):(?!:)")
#: What may name one resource in a text: "${Orders.Arn}:live", "arn:...:function:orders".
_FIRST_PLACE = re.compile(r"\$\{([A-Za-z0-9]+)(?:\.[A-Za-z]+)?\}")


@dataclass(frozen=True)
class Resource:
    """One resource of the template that exists in this world. `line`: of its logical id."""

    id: str
    type: str
    line: int
    properties: Properties
    metadata: Properties
    connectors: Properties  #: SAM's, that begin at it

    def name(self, property_name: str) -> str | None:
        """Its physical name, as far as it is known: "${AWS::StackName}-orders"."""
        found = self.properties.reference(property_name)
        return None if found is None else found.text


@dataclass(frozen=True)
class Function:
    """A Lambda function, with SAM's Globals applied."""

    resource: Resource
    timeout: Setting[int]  #: seconds
    memory: Setting[int]  #: MB
    runtime: Setting[str]
    handler: Setting[str]
    role: Reference | None  #: None: SAM makes one
    reserved: Setting[int]  #: reserved concurrency; without a default
    variables: Properties  #: of the environment
    is_sam: bool

    @property
    def id(self) -> str:
        return self.resource.id

    @property
    def line(self) -> int:
        return self.resource.line


@dataclass(frozen=True)
class EventSource:
    """An event source mapping: an event of a SAM function, or a resource of its own.

    `name`: what it is called in findings; `owner`: the logical id of the resource that it stands in; `id`: its own
    logical id, once SAM has transformed the template.
    """

    name: str
    owner: str
    id: str
    line: int
    kind: str  #: "sqs", "kinesis", "dynamodb", "msk", "kafka", "mq", "documentdb", or "" where it cannot be told
    function: str | None  #: its logical id
    source: Reference | None
    enabled: Setting[bool]
    batch_size: Setting[int]
    window: Setting[int]  #: seconds; only those of queues and streams have the default 0
    partial: Setting[bool]  #: ReportBatchItemFailures
    max_concurrency: Setting[int]
    provisioned: Setting[bool]
    filtered: Setting[bool]
    metrics: Setting[bool]  #: counts its events (EventCount)
    bisect: Setting[bool]
    retries: Setting[int]  #: -1: without limit
    record_age: Setting[int]  #: seconds; -1: without limit
    on_failure: Setting[str]  #: the value says no more than that there is one
    parallelization: Setting[int]
    tumbling: Setting[int]  #: seconds
    starting_position: Setting[str]
    properties: Properties

    @property
    def is_stream(self) -> bool:
        """Kinesis or DynamoDB: what fails holds its shard up."""
        return self.kind in {"kinesis", "dynamodb"}


@dataclass(frozen=True)
class Redrive:
    """A queue's RedrivePolicy."""

    line: int
    target: Reference | None
    max_receives: Setting[int]


@dataclass(frozen=True)
class Queue:
    """An SQS queue. `redrive`: None if there is none; without a target if it cannot be read."""

    resource: Resource
    fifo: Setting[bool]
    visibility: Setting[int]  #: seconds
    retention: Setting[int]  #: seconds
    redrive: Redrive | None
    encrypted: Setting[bool]

    @property
    def id(self) -> str:
        return self.resource.id

    @property
    def line(self) -> int:
        return self.resource.line


@dataclass(frozen=True)
class Stream:
    """A Kinesis data stream."""

    resource: Resource
    retention_hours: Setting[int]
    encrypted: Setting[bool]

    @property
    def id(self) -> str:
        return self.resource.id

    @property
    def line(self) -> int:
        return self.resource.line


@dataclass(frozen=True)
class Alarm:
    """A CloudWatch alarm. `metrics`: all that it looks at, each with its namespace."""

    resource: Resource
    metrics: tuple[tuple[str, str], ...]
    dimensions: tuple[Reference, ...]


@dataclass(frozen=True)
class _Subscription:
    """A mapping that SAM makes for a topic's event, and its queue, unless that is a given one."""

    mapping: EventSource
    queue: Resource | None


@dataclass(frozen=True)
class Model:
    """A template in one world.

    `code`: what is known of functions' code, by their logical ids. `today`: what deprecations are held against.
    `stages`: the declared handlers of a target, if one was given.
    """

    world: World
    code: Mapping[str, Code] = field(default_factory=dict)
    today: datetime.date = datetime.date.min
    stages: tuple[Stage, ...] = ()
    #: What several rules work out of it, by a name of theirs, so that it is done once.
    worked_out: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def resources(self) -> dict[str, Resource]:
        return {one.id: one for one in _resources(self.world)}

    @cached_property
    def is_open(self) -> bool:
        """Whether there may be resources that are not seen: a macro or a loop makes them."""
        found, transforms = (
            self.world.root.get("Resources"),
            Properties(self.world.root, self.world, 1).items("Transform"),
        )
        if not isinstance(found, Members) or any(text_of(one) not in _TRANSFORMS for one in transforms):
            return True
        return any(name.startswith("Fn::") for name in (*self.world.root.items, *found.items))

    @cached_property
    def functions(self) -> dict[str, Function]:
        return {one.id: _function(one) for one in self.of_type(*_FUNCTIONS)}

    @cached_property
    def mappings(self) -> tuple[EventSource, ...]:
        return tuple(self._mappings())

    @cached_property
    def queues(self) -> dict[str, Queue]:
        """Those of the template, and those that SAM makes for a function's subscriptions to topics."""
        made = [one.queue for one in self._subscriptions if one.queue is not None]
        return {one.id: _queue(one, self.world) for one in (*self.of_type("AWS::SQS::Queue"), *made)}

    @cached_property
    def made_by(self) -> dict[str, str]:
        """The queues that SAM makes: the logical ids of the functions that they come from."""
        return {one.queue.id: one.mapping.owner for one in self._subscriptions if one.queue is not None}

    @cached_property
    def streams(self) -> dict[str, Stream]:
        return {one.id: _stream(one) for one in self.of_type("AWS::Kinesis::Stream")}

    @cached_property
    def alarms(self) -> tuple[Alarm, ...]:
        return tuple(_alarm(one) for one in self.of_type("AWS::CloudWatch::Alarm"))

    @cached_property
    def mappings_of(self) -> dict[str, list[EventSource]]:
        """The mappings by the logical ids of their functions."""
        found: dict[str, list[EventSource]] = {}
        for one in self.mappings:
            found.setdefault(one.function or "", []).append(one)
        return found

    def of_type(self, *types: str) -> list[Resource]:
        return [one for one in self.resources.values() if one.type in types]

    def code_of(self, function: str | None) -> Code:
        return self.code.get(function or "", UNKNOWN_CODE)

    def function_of(self, mapping: EventSource) -> Function | None:
        return self.functions.get(mapping.function or "")

    def queue_of(self, mapping: EventSource) -> Queue | None:
        """The queue of this template that a mapping reads."""
        return self.queues.get(self.named(mapping.source, "AWS::SQS::Queue", "QueueName") or "")

    def stream_of(self, mapping: EventSource) -> Stream | None:
        """The stream of this template that a mapping reads, also through a consumer of it."""
        source = mapping.source
        consumer = self.resources.get(source.resource or "") if source is not None else None
        if consumer is not None and consumer.type == "AWS::Kinesis::StreamConsumer":
            source = consumer.properties.reference("StreamARN")
        return self.streams.get(self.named(source, "AWS::Kinesis::Stream", "Name") or "")

    def is_fifo(self, mapping: EventSource) -> bool | None:
        """Whether a mapping reads a FIFO queue; None if that is not known."""
        queue = self.queue_of(mapping)
        if queue is not None:
            return queue.fifo.value
        text = mapping.source.text if mapping.source is not None else None
        if mapping.kind != "sqs" or text is None or text.endswith("}"):
            return None if mapping.kind == "sqs" else False
        return text.endswith(".fifo")

    def dead_letters_of(self, queue: Queue) -> Queue | None:
        """The dead-letter queue, if this template makes it."""
        target = queue.redrive.target if queue.redrive is not None else None
        return self.queues.get(self.named(target, "AWS::SQS::Queue", "QueueName") or "")

    def named(self, reference: Reference | None, kind: str, property_name: str) -> str | None:
        """The logical id of the resource that a reference means: itself, or one whose name its ARN ends with."""
        if reference is None or reference.resource is not None or reference.text is None:
            return None if reference is None else reference.resource
        last = reference.text
        if ":" in last:
            parts = _ARN_PARTS.split(last)
            if len(parts) < 6 or _SERVICES.get(parts[2]) != _SOURCE_KINDS.get(kind):
                return None
            last = parts[-1].rpartition("/")[2]
        return self._called(last, property_name, kind)

    @cached_property
    def _names(self) -> dict[tuple[str, str], dict[str, list[str]]]:
        """Logical ids by physical names, for each type and its property that holds the name."""
        return {}

    def _called(self, name: str, property_name: str, *types: str) -> str | None:
        """The one resource of these types that has a physical name."""
        key = (" ".join(types), property_name)
        if key not in self._names:
            names: dict[str, list[str]] = {}
            for one in self.of_type(*types):
                names.setdefault(one.name(property_name) or "", []).append(one.id)
            self._names[key] = names
        found = self._names[key].get(name, []) if name else []
        return found[0] if len(found) == 1 else None

    def _mappings(self) -> Iterator[EventSource]:
        for function in self.functions.values():
            if function.is_sam:
                yield from self._events(function)
        yield from (one.mapping for one in self._subscriptions)
        for one in self.of_type("AWS::Lambda::EventSourceMapping"):
            source = one.properties.reference("EventSourceArn")
            kind = "kafka" if "SelfManagedEventSource" in one.properties else self._kind(source)
            target = one.properties.reference("FunctionName")
            yield _mapping(one.id, one.id, one.id, one.line, kind, self._function_named(target), source, one.properties)

    @cached_property
    def _subscriptions(self) -> tuple[_Subscription, ...]:
        """SAM's events of topics with `SqsSubscription`, each a queue of its own or a given one, and a mapping."""
        functions = [one for one in self.functions.values() if one.is_sam]
        return tuple(found for function in functions for found in self._subscribed(function))

    def _subscribed(self, function: Function) -> Iterator[_Subscription]:
        events = function.resource.properties.section("Events")
        for name in events.names():
            event, line = events.section(name), events.line_of(name)
            topic = Properties(event.get("Properties"), self.world, line)
            given = topic.section("SqsSubscription")
            if event.text("Type").value != "SNS" or not (topic.truth("SqsSubscription").value or "QueueArn" in given):
                continue
            own = f"{function.id}{name}"
            source, queue = given.reference("QueueArn"), None
            properties = Properties(topic.get("SqsSubscription"), self.world, line)
            if source is None:
                nothing = Properties(None, self.world, line)
                source = Reference(f"{own}Queue", "Arn", None, line)
                queue = Resource(f"{own}Queue", "AWS::SQS::Queue", line, nothing, nothing, nothing)
                properties = nothing
            mapping = _mapping(
                f"{function.id}.{name}",
                function.id,
                f"{own}EventSourceMapping",
                line,
                "sqs",
                function.id,
                source,
                properties,
            )
            yield _Subscription(mapping, queue)

    def _events(self, function: Function) -> Iterator[EventSource]:
        events = function.resource.properties.section("Events")
        for name in events.names():
            event = events.section(name)
            kind = _EVENT_KINDS.get(event.text("Type").value or "")
            if kind is None:
                continue
            line = events.line_of(name)
            properties = Properties(event.get("Properties"), self.world, line)
            source = properties.reference("Queue" if kind in {"sqs", "mq"} else "Stream")
            yield _mapping(
                f"{function.id}.{name}",
                function.id,
                f"{function.id}{name}",
                line,
                kind,
                function.id,
                source,
                properties,
            )

    def _kind(self, source: Reference | None) -> str:
        if source is None:
            return ""
        found = self.resources.get(source.resource or "")
        if found is not None:
            return _SOURCE_KINDS.get(found.type, "")
        parts = _ARN_PARTS.split(source.text or "")
        return _SERVICES.get(parts[2], "") if len(parts) > 3 else ""

    def _function_named(self, target: Reference | None) -> str | None:
        """From the name, the ARN, an alias or a version to the function."""
        for _ in range(4):  # an alias of a version of a function
            found = self.resources.get(target.resource or "") if target is not None else None
            if found is None or found.type not in {"AWS::Lambda::Alias", "AWS::Lambda::Version"}:
                break
            target = found.properties.reference("FunctionName")
        if target is None or target.resource is not None:
            return None if target is None else target.resource
        for name in _FIRST_PLACE.findall(target.text or ""):
            if name in self.functions:
                return str(name)
        parts = _ARN_PARTS.split(target.text or "")
        bare = parts[6] if len(parts) > 6 else parts[0]
        return self._called(bare, "FunctionName", *_FUNCTIONS)


def _resources(world: World) -> Iterator[Resource]:
    for name, item in values.resources(world).items.items():
        body = item.node
        if not isinstance(body, Members):
            continue  # a macro, or a loop of the language extensions
        condition = text_of(body.get("Condition"))
        if condition is not None and world.conditions.get(condition) is False:
            continue
        kind = text_of(body.get("Type")) or ""
        node: Node | None = body.get("Properties")
        if kind == "AWS::Serverless::Function":
            node = _with_globals(node, world, item.line)
        metadata = Properties(body.get("Metadata"), world, item.line)
        connectors = Properties(body.get("Connectors"), world, item.line)
        yield Resource(name, kind, item.line, Properties(node, world, item.line), metadata, connectors)


def _with_globals(own: Node | None, world: World, line: int) -> Node | None:
    section = world.root.get("Globals")
    shared = section.get("Function") if isinstance(section, Members) else None
    if not isinstance(shared, Members):
        return own
    if own is None:
        return Members(shared.items, line)
    return values.merged(shared, own) if isinstance(own, Members) else own


def _function(resource: Resource) -> Function:
    properties = resource.properties
    return Function(
        resource=resource,
        timeout=properties.number("Timeout", TIMEOUT),
        memory=properties.number("MemorySize", MEMORY),
        runtime=properties.text("Runtime"),
        handler=_handler(properties),
        role=properties.reference("Role"),
        reserved=properties.number("ReservedConcurrentExecutions"),
        variables=properties.section("Environment").section("Variables"),
        is_sam=resource.type == "AWS::Serverless::Function",
    )


def _handler(properties: Properties) -> Setting[str]:
    """An image's is the first word of its command; without one, only the image knows it."""
    found = properties.text("Handler")
    if found.given or properties.text("PackageType").value != "Image":
        return found
    image = properties.section("ImageConfig")
    words = image.items("Command")
    return Setting(text_of(words[0]) if words else None, image.line_of("Command"), given=True)


def _mapping(
    name: str,
    owner: str,
    own_id: str,
    line: int,
    kind: str,
    function: str | None,
    source: Reference | None,
    properties: Properties,
) -> EventSource:
    scaling = properties.section("ScalingConfig")
    window = 0 if kind in {"sqs", "kinesis", "dynamodb"} else None
    return EventSource(
        name=name,
        owner=owner,
        id=own_id,
        line=line,
        kind=kind,
        function=function,
        source=source,
        enabled=properties.truth("Enabled", default=True),
        batch_size=properties.number("BatchSize", BATCH_SIZES.get(kind)),
        window=properties.number("MaximumBatchingWindowInSeconds", window),
        partial=_holds(properties, "FunctionResponseTypes", "ReportBatchItemFailures"),
        max_concurrency=_inner(properties, "ScalingConfig", scaling.number("MaximumConcurrency")),
        provisioned=_present(properties, "ProvisionedPollerConfig"),
        filtered=_filtered(properties),
        metrics=_metrics(properties),
        bisect=properties.truth("BisectBatchOnFunctionError", default=False),
        retries=properties.number("MaximumRetryAttempts", -1),
        record_age=properties.number("MaximumRecordAgeInSeconds", -1),
        on_failure=_on_failure(properties),
        parallelization=properties.number("ParallelizationFactor", 1),
        tumbling=properties.number("TumblingWindowInSeconds", 0),
        starting_position=properties.text("StartingPosition"),
        properties=properties,
    )


def _inner(properties: Properties, name: str, setting: Setting[int]) -> Setting[int]:
    """A setting in a section; where the section is left out, it would stand at the mapping."""
    return setting if name in properties else Setting(setting.value, properties.line, setting.given)


def _holds(properties: Properties, name: str, word: str) -> Setting[bool]:
    """Whether a list holds a word; not known if one of its items is not."""
    if name not in properties:
        return (
            Setting(None, properties.line, given=True) if properties.is_open else Setting(False, properties.line, False)
        )
    items = [text_of(one) for one in properties.items(name)]
    unknown = isinstance(properties.get(name), Call) or (None in items and word not in items)
    return Setting(None if unknown else word in items, properties.line_of(name), given=True)


def _present(properties: Properties, name: str) -> Setting[bool]:
    is_there = name in properties
    is_unknown = isinstance(properties.get(name), Call) or (properties.is_open and not is_there)
    value = None if is_unknown else is_there
    return Setting(value, properties.line_of(name), given=is_there or value is None)


def _filtered(properties: Properties) -> Setting[bool]:
    section = properties.section("FilterCriteria")
    if "FilterCriteria" in properties and not section.is_open:
        return Setting(bool(section.items("Filters")), properties.line_of("FilterCriteria"), given=True)
    return _present(properties, "FilterCriteria")


def _metrics(properties: Properties) -> Setting[bool]:
    section = properties.section("MetricsConfig")
    found = _holds(section, "Metrics", "EventCount")
    return found if "MetricsConfig" in properties else Setting(found.value, properties.line, found.given)


def _on_failure(properties: Properties) -> Setting[str]:
    outer = properties.section("DestinationConfig")
    inner = outer.section("OnFailure")
    if "Destination" in inner:
        return Setting("there", inner.line_of("Destination"), given=True)
    if outer.is_open or inner.is_open:
        return Setting(None, properties.line_of("DestinationConfig"), given=True)
    return Setting(None, properties.line_of("DestinationConfig"), given=False)


def _queue(resource: Resource, world: World) -> Queue:
    properties = resource.properties
    return Queue(
        resource=resource,
        fifo=_fifo(resource),
        visibility=properties.number("VisibilityTimeout", VISIBILITY),
        retention=properties.number("MessageRetentionPeriod", RETENTION),
        redrive=_redrive(properties),
        encrypted=_queue_encrypted(properties),
    )


def _fifo(resource: Resource) -> Setting[bool]:
    found = resource.properties.truth("FifoQueue", default=False)
    name = resource.name("QueueName")
    if not found.given and name is not None and name.endswith(".fifo"):
        return Setting(True, resource.properties.line_of("QueueName"), given=True)
    return found


def _redrive(properties: Properties) -> Redrive | None:
    section = properties.section("RedrivePolicy")
    written = properties.get("RedrivePolicy")
    if isinstance(written, Scalar):
        section = properties.beside(_from_text(written))
    if "RedrivePolicy" not in properties and not properties.is_open:
        return None
    line = properties.line_of("RedrivePolicy")
    return Redrive(line, section.reference("deadLetterTargetArn"), section.number("maxReceiveCount"))


def _from_text(written: Scalar) -> Node:
    """A JSON object in a text, which SQS takes too; the text itself if it is none."""
    try:
        found = json.loads(written.value) if isinstance(written.value, str) else None
    except (ValueError, RecursionError):
        return written
    if not isinstance(found, dict):
        return written
    plain = {name: value for name, value in found.items() if isinstance(value, str | int)}
    return Members(
        {name: Item(written.line, Scalar(value, written.line)) for name, value in plain.items()}, written.line
    )


def _queue_encrypted(properties: Properties) -> Setting[bool]:
    """SQS encrypts new queues by itself since October 2022, unless it is turned off."""
    if "KmsMasterKeyId" in properties:
        return Setting(True, properties.line_of("KmsMasterKeyId"), given=True)
    return properties.truth("SqsManagedSseEnabled", default=True)


def _stream(resource: Resource) -> Stream:
    properties = resource.properties
    kind = properties.section("StreamEncryption")
    encrypted = _present(properties, "StreamEncryption")
    if kind.text("EncryptionType").value == "NONE":
        encrypted = Setting(False, kind.line_of("EncryptionType"), given=True)
    return Stream(resource, properties.number("RetentionPeriodHours", STREAM_HOURS), encrypted)


def _alarm(resource: Resource) -> Alarm:
    several = resource.properties.sections("Metrics")
    parts = [resource.properties, *(one.section("MetricStat").section("Metric") for one in several)]
    metrics = [(one.text("Namespace").value or "", one.text("MetricName").value or "") for one in parts]
    dimensions = [one.reference("Value") for part in parts for one in part.sections("Dimensions")]
    return Alarm(resource, tuple(metrics), tuple(one for one in dimensions if one is not None))
