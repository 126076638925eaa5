"""A template as something to run on this machine: functions, event source mappings, and what they stand on.

Whatever is wrong with a template is a `Problem`, and the rest still runs. What is not in it, such as a queue of another
stack, is stood in for by one of the same name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.deploy import lint
from pipeline.deploy.lint.model import EventSource, Model, Resource
from pipeline.deploy.lint.nodes import Call, Members, Scalar, Sequence
from pipeline.deploy.lint.values import Properties, Reference
from pipeline.deploy.lint.worlds import text_of
from pipeline.deploy.local import functions, mappings, names, resources
from pipeline.deploy.local.functions import LocalFunction
from pipeline.deploy.local.intrinsics import Values
from pipeline.deploy.local.mappings import LocalMapping, Source
from pipeline.deploy.local.names import DEFAULT_ENDPOINT, TABLES, Names, Registry
from pipeline.deploy.local.problems import Problem, Problems
from pipeline.deploy.local.reader import Reader
from pipeline.deploy.local.resources import Bucket, Bus, Queue, Rule, Stream, Subscription, Table, Topic
from pipeline.emulator.mappings.settings import QueueSettings

_NOT_RUN = {
    "msk": "a cluster of Amazon MSK",
    "kafka": "a Kafka cluster",
    "mq": "a broker of Amazon MQ",
    "documentdb": "a DocumentDB cluster",
}
#: Types beside functions that run something by themselves, or hold resources that are not seen.
_LEFT_OUT = {
    "AWS::Pipes::Pipe": "pipes are not run",
    "AWS::Scheduler::Schedule": "schedules are not run",
    "AWS::CloudFormation::Stack": "nested stacks are not read",
    "AWS::Serverless::Application": "nested applications are not read",
}
_MAPPED = {"SQS", "Kinesis", "DynamoDB", "MSK", "SelfManagedKafka", "MQ", "DocumentDB"}
_PLACE = re.compile(r"\$\{([A-Za-z0-9]+)\}")
_ARN = re.compile(
    r"arn:[a-z-]*:(sqs|kinesis|dynamodb|sns|s3):[^:]*:[^:]*:(?:stream/|table/)?([A-Za-z0-9._-]{1,255})(?:/.*)?"
)
#: What no name of a local resource has; the longest that a queue has, with ".fifo" behind it.
_NOT_IN_NAMES, _LONGEST_NAME = re.compile(r"[^A-Za-z0-9_-]+"), 75
#: The properties that name a mapping's source: a resource's, and those of SAM's events.
_SOURCES = ("EventSourceArn", "Queue", "Stream", "QueueArn")
#: Functions' timeouts that a stand-in's visibility timeout is set to, as Lambda's guide recommends.
_VISIBILITY_TIMEOUTS = 6


@dataclass(frozen=True)
class Project:
    """What a template came to. Resources stand by their logical ids, stand-ins by their ARNs.

    `names`: of every resource in the template that has one, and of stand-ins. `problems`: by line.
    """

    path: str
    functions: Mapping[str, LocalFunction] = field(default_factory=dict)
    mappings: tuple[LocalMapping, ...] = ()
    queues: Mapping[str, Queue] = field(default_factory=dict)
    streams: Mapping[str, Stream] = field(default_factory=dict)
    tables: Mapping[str, Table] = field(default_factory=dict)
    buckets: Mapping[str, Bucket] = field(default_factory=dict)
    topics: Mapping[str, Topic] = field(default_factory=dict)
    subscriptions: tuple[Subscription, ...] = ()
    buses: Mapping[str, Bus] = field(default_factory=dict)
    rules: Mapping[str, Rule] = field(default_factory=dict)
    names: Mapping[str, Names] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    @property
    def is_runnable(self) -> bool:
        """Whether any mapping would bring anything to a function."""
        return any(one.is_enabled for one in self.mappings)

    @property
    def source_names(self) -> dict[str, str]:
        """What each source is fed and reported by: its id; a stand-in's name, unless another is called that too."""
        kinds: tuple[Mapping[str, Source], ...] = (self.queues, self.streams, self.tables)
        short = {one.id: _short_name(one) for kind in kinds for one in kind.values()}
        times = Counter(short.values())
        return {id_: name if times[name] == 1 else id_ for id_, name in short.items()}

    def function_of(self, mapping: LocalMapping) -> LocalFunction:
        return self.functions[mapping.function]

    def source_of(self, mapping: LocalMapping) -> Source:
        kinds: tuple[Mapping[str, Source], ...] = (self.queues, self.streams, self.tables)
        return next(kind[mapping.source] for kind in kinds if mapping.source in kind)


def read(path: Path, parameters: Mapping[str, str] | None = None, *, endpoint: str = DEFAULT_ENDPOINT) -> Project:
    """What the template in a file comes to. Never raises for what stands in it, or for a file that cannot be read.

    `parameters`: values of its parameters. `endpoint`: what queues' URLs begin with.
    """
    try:
        with path.open("rb") as file:
            root = lint.read(file.read(lint.MAX_BYTES + 1))  # it may be a device that never ends
    except OSError as error:
        return _refused(path, 1, f"it cannot be read: {error.strerror or error}")
    except lint.UnreadableTemplate as error:
        return _refused(path, error.line, str(error))
    return _Reading(root, path, dict(parameters or {}), endpoint.rstrip("/")).project()


def _refused(path: Path, line: int, message: str) -> Project:
    return Project(str(path), problems=(Problem(str(path), line, message),))


class _Reading:
    """One template, read once."""

    def __init__(self, root: Members, path: Path, given: Mapping[str, str], endpoint: str) -> None:
        self._root = root
        self._path = path
        self._endpoint = endpoint
        self._problems = Problems(str(path))
        self._resources: Mapping[str, Resource] = {}  # while conditions are read: they know of none
        self._values = Values(root, given, attribute=self._attribute, problems=self._problems)
        self._names = Registry(endpoint, self._values.plain, self._find)
        self._model = Model(self._values.world())
        made = {name: self._model.queues[name].resource for name in self._model.made_by}
        self._resources = {**made, **self._model.resources}
        self._told: set[str] = set()  #: ARNs whose stand-in a problem tells of
        self._queues: dict[str, Queue] = {}
        self._streams: dict[str, Stream] = {}
        self._tables: dict[str, Table] = {}
        self._buckets: dict[str, Bucket] = {}
        self._topics: dict[str, Topic] = {}
        self._buses: dict[str, Bus] = {}

    def project(self) -> Project:
        self._tell_what_is_left_out()
        self._stand_in_for_names()
        rules = self._read_resources()
        subscriptions = [
            replace(one, topic=self._local(one.topic, one.line), queue=self._local(one.queue, one.line))
            for one in self._subscriptions()
        ]
        found = self._read_functions()
        mapped = tuple(self._read_mappings(found))
        self._point_at_local_resources()
        self._tell_of_names()
        if not mapped:
            self._tell_of_nothing()
        kinds: tuple[Mapping[str, Any], ...] = (
            self._queues, self._streams, self._tables, self._buckets, self._topics, self._buses,
        )  # fmt: skip
        called = {one.id: one.names for kind in kinds for one in kind.values()}
        every = {one.id: self._names.of(one) for one in self._model.resources.values()}
        return Project(
            str(self._path),
            functions=found,
            mappings=mapped,
            queues=self._queues,
            streams=self._streams,
            tables=self._tables,
            buckets=self._buckets,
            topics=self._topics,
            subscriptions=tuple(subscriptions),
            buses=self._buses,
            rules={one.id: one for one in rules},
            names={**every, **called},
            problems=self._problems.sorted(),
        )

    # -- Names and readers

    def _find(self, logical_id: str) -> Resource | None:
        return self._resources.get(logical_id)

    def _attribute(self, logical_id: str, attribute: str) -> Any:
        return self._names.attribute(logical_id, attribute)

    def _reader(self, properties: Properties) -> Reader:
        return Reader(properties, self._values, self._problems)

    # -- What is not in the template

    def _stand_in_for_names(self) -> None:
        """Parameters without a value, and imports, that name sources, destinations and dead letters."""
        for mapping in self._model.mappings:
            if mapping.kind in _NOT_RUN:
                continue
            service = self._guessed(mapping)
            self._stand_in(mapping.source, service, f"{mapping.name} reads")
            self._stand_in_for_import(mapping.properties, _source_property(mapping), service, f"{mapping.name} reads")
            section = mapping.properties.section("DestinationConfig").section("OnFailure")
            who = f"{mapping.name} sends what it gives up to"
            self._stand_in(section.reference("Destination"), "sqs", who)
            self._stand_in_for_import(section, "Destination", "sqs", who)
        for queue in self._model.queues.values():
            who = f"{queue.id} has for dead letters"
            self._stand_in(queue.redrive.target if queue.redrive else None, "sqs", who)
            section = queue.resource.properties.section("RedrivePolicy")
            self._stand_in_for_import(section, "deadLetterTargetArn", "sqs", who)

    def _stand_in_for_import(self, properties: Properties, member: str, service: str, who: str) -> None:
        name = self._values.imported(properties.get(member))
        if name is None:
            return
        local = _NOT_IN_NAMES.sub("-", name)[:_LONGEST_NAME]
        called, arn = _stand_in_names(service, local)
        self._problems.note(
            properties.line_of(member),
            f"{who} what is imported from another stack as '{name}': a local one called {called} here",
        )
        self._values.stand_in_for_import(name, arn)
        self._told.add(arn)

    def _stand_in(self, reference: Reference | None, service: str, who: str) -> None:
        match = _PLACE.fullmatch(reference.text or "") if reference is not None else None
        if reference is None or match is None or not self._values.is_missing(match[1]):
            return
        name = match[1]
        called, arn = _stand_in_names(service, name)
        self._problems.note(
            reference.line,
            f"{who} what the parameter {name} names, which has no value: a local one called {called} here",
        )
        self._values.stand_in(name, arn)
        self._told.add(arn)

    def _guessed(self, mapping: EventSource) -> str:
        """The service of a source that only a parameter names: queues alone have no StartingPosition."""
        if mapping.kind in {"sqs", "kinesis", "dynamodb"}:
            return mapping.kind
        if "StartingPosition" not in mapping.properties:
            return "sqs"
        text = (mapping.source.text if mapping.source is not None else None) or ""
        return "dynamodb" if re.search("table|dynamo|ddb", text, re.IGNORECASE) else "kinesis"

    def _local(self, arn: str, line: int, timeout: float = 0) -> str:
        """The ARN of the local resource that an ARN means: the template's own, or a stand-in, which is made.

        `timeout`: of a function that reads it, seconds. A stand-in suits the slowest of its readers.
        """
        match = _ARN.fullmatch(arn)
        if match is None:
            return arn
        own = self._by_arn(arn)
        if own is None:
            own = self._made(match[1], match[2], line)
            if arn not in self._told:
                self._problems.note(line, f"{arn} is not in this template: a local one of that name stands in for it")
        if isinstance(own, Queue) and own.id == own.names.arn:
            self._queues[own.id] = _suited(own, timeout)
        is_stream = isinstance(own, Table) and "/stream/" in arn
        return own.names.stream_arn if is_stream else own.names.arn

    def _by_arn(self, arn: str) -> Source | Bucket | Topic | None:
        match = _ARN.fullmatch(arn)
        if match is None:
            return None
        kinds: dict[str, Mapping[str, Source | Bucket | Topic]] = {
            "sqs": self._queues, "kinesis": self._streams, "dynamodb": self._tables, "sns": self._topics,
            "s3": self._buckets,
        }  # fmt: skip
        return next((one for one in kinds[match[1]].values() if one.names.name == match[2]), None)

    def _made(self, service: str, name: str, line: int) -> Source | Bucket | Topic:
        if service == "sqs":
            called = names.of_queue(name, self._endpoint)
            attributes = {"FifoQueue": "true"} if name.endswith(".fifo") else {}
            queue = Queue(called.arn, line, called, attributes)
            return self._queues.setdefault(queue.id, queue)
        if service == "kinesis":
            called = Names(name, names.arn("kinesis", f"stream/{name}"))
            return self._streams.setdefault(called.arn, Stream(called.arn, line, called))
        if service == "dynamodb":
            arn = names.arn("dynamodb", f"table/{name}")
            called = Names(name, arn, stream_arn=f"{arn}/stream/local")
            self._problems.note(line, f"the keys of the table {name} are not known here: it has one, 'id', of type S")
            table = Table(
                arn, line, called, [{"AttributeName": "id", "KeyType": "HASH"}],
                [{"AttributeName": "id", "AttributeType": "S"}], stream_view="NEW_AND_OLD_IMAGES",
            )  # fmt: skip
            return self._tables.setdefault(arn, table)
        called = Names(name, names.arn(service, name))
        if service == "sns":
            fifo = {"FifoTopic": "true"} if name.endswith(".fifo") else {}
            return self._topics.setdefault(called.arn, Topic(called.arn, line, called, fifo))
        return self._buckets.setdefault(called.arn, Bucket(called.arn, line, called))

    # -- Resources

    def _read_resources(self) -> list[Rule]:
        made = [self._model.queues[name].resource for name in self._model.made_by]
        rules: list[Resource] = []
        for one in (*self._model.resources.values(), *made):
            reader, called = self._reader(one.properties), self._names.of(one)
            if one.type == "AWS::SQS::Queue":
                self._queues[one.id] = resources.queue(one, called, reader)
            elif one.type == "AWS::Kinesis::Stream":
                self._streams[one.id] = resources.stream(one, called, reader)
            elif one.type in TABLES:
                table = resources.table(one, called, reader)
                if table is not None:
                    self._tables[one.id] = table
            elif one.type == "AWS::S3::Bucket":
                self._buckets[one.id] = resources.bucket(one, called, reader)
            elif one.type == "AWS::SNS::Topic":
                self._topics[one.id] = resources.topic(one, called, reader)
            elif one.type == "AWS::Events::EventBus":
                self._buses[one.id] = Bus(one.id, one.line, called)
            elif one.type == "AWS::Events::Rule":
                rules.append(one)
        read = [resources.rule(one, self._names.of(one), self._reader(one.properties)) for one in rules]
        return [self._with_local_parts(one) for one in read if one is not None]

    def _with_local_parts(self, rule: Rule) -> Rule:
        if rule.bus != "default" and rule.bus not in {one.names.name for one in self._buses.values()}:
            called = Names(rule.bus, names.arn("events", f"event-bus/{rule.bus}"))
            self._buses[called.arn] = Bus(called.arn, rule.line, called)
            self._problems.note(rule.line, f"the bus {rule.bus} is not in this template: a local one stands in for it")
        targets = (replace(one, queue=self._local(one.queue, rule.line)) for one in rule.targets)
        return replace(rule, targets=tuple(targets))

    def _point_at_local_resources(self) -> None:
        """Redrive policies and notifications name queues of other stacks too."""
        for one in list(self._queues.values()):
            if one.redrive is not None:
                target = self._local(one.redrive.target, one.line)
                if one.is_fifo != target.endswith(".fifo"):
                    self._problems.error(
                        one.line, f"{one.id}: the dead-letter queue of a FIFO queue is FIFO, of others not"
                    )
                    self._queues[one.id] = replace(one, redrive=None)
                else:
                    self._queues[one.id] = replace(one, redrive=replace(one.redrive, target=target))
        for bucket in list(self._buckets.values()):
            told = tuple(replace(one, queue=self._local(one.queue, bucket.line)) for one in bucket.notifications)
            self._buckets[bucket.id] = replace(bucket, notifications=told)

    def _subscriptions(self) -> Iterator[Subscription]:
        for one in self._model.of_type("AWS::SNS::Topic"):
            yield from resources.subscriptions(self._names.of(one).arn, self._reader(one.properties), one.id)
        for one in self._model.of_type("AWS::SNS::Subscription"):
            yield from resources.subscription(self._reader(one.properties), one.id)
        for function in self._model.functions.values():
            events = self._reader(function.resource.properties).section("Events")
            for name in events.names() if function.is_sam else ():
                event = events.section(name).section("Properties")
                topic = event.text("Topic")
                if events.section(name).text("Type") != "SNS" or topic is None:
                    continue
                made = f"{function.id}{name}Queue"
                given = event.section("SqsSubscription").text("QueueArn")
                queue = self._queues[made].names.arn if made in self._model.made_by else given
                if queue is not None:
                    yield Subscription(
                        topic, queue, event.line, filter_policy=event.document("FilterPolicy"),
                        filter_scope=event.text("FilterPolicyScope"),
                    )  # fmt: skip

    # -- Functions and mappings

    def _read_functions(self) -> dict[str, LocalFunction]:
        found: dict[str, LocalFunction] = {}
        for one in self._model.functions.values():
            reader = self._reader(one.resource.properties)
            made = functions.read(one, self._names.of(one.resource), reader, self._path.parent)
            if made is not None:
                found[one.id] = made
        return found

    def _read_mappings(self, found: Mapping[str, LocalFunction]) -> Iterator[LocalMapping]:
        mapped: list[tuple[EventSource, LocalFunction, Source]] = []
        for one in self._model.mappings:
            function = self._function_of(one, found)
            source = None if function is None else self._source_of(one, function)
            if function is not None and source is not None:
                mapped.append((one, function, source))
        for one, function, source in mapped:
            suited = self._queues.get(source.id, source)  # a stand-in suits all its readers by now
            read = mappings.read(one, self._reader(one.properties), suited, function)
            if read is not None:
                mapping, destination = read
                yield self._with_destination(mapping, destination)

    def _with_destination(self, mapping: LocalMapping, destination: str | None) -> LocalMapping:
        if destination is None or isinstance(mapping.settings, QueueSettings):
            return mapping
        local = self._local(destination, mapping.line)
        return replace(mapping, settings=replace(mapping.settings, on_failure=local))

    def _function_of(self, mapping: EventSource, found: Mapping[str, LocalFunction]) -> LocalFunction | None:
        if mapping.kind in _NOT_RUN:
            self._problems.note(mapping.line, f"{mapping.name} reads {_NOT_RUN[mapping.kind]}: it is not run")
            return None
        function = found.get(mapping.function or "")
        if function is not None:
            return function
        if mapping.function in self._model.functions:
            self._problems.note(
                mapping.line, f"{mapping.name} is not run, because its function {mapping.function} is not"
            )
        else:
            line = mapping.properties.line_of("FunctionName")
            named = self._reader(mapping.properties).text("FunctionName") or "none"
            self._refuse(line, f"{mapping.name} names a function that is not in this template: {named}")
        return None

    def _source_of(self, mapping: EventSource, function: LocalFunction) -> Source | None:
        text = self._source_text(mapping)
        consumer = next(
            (one for one in self._model.of_type("AWS::Kinesis::StreamConsumer") if self._names.of(one).arn == text),
            None,
        )
        if consumer is not None:
            self._problems.note(
                mapping.line, f"{mapping.name} reads through a consumer: here it reads the stream itself"
            )
            text = self._reader(consumer.properties).text("StreamARN") or ""
        line = mapping.source.line if mapping.source is not None else mapping.line
        if text.startswith(("http://", "https://")):
            self._refuse(line, f"{mapping.name} names its queue by a URL: AWS wants its ARN, as !GetAtt Orders.Arn")
            return None
        match = _ARN.fullmatch(text)
        if match is None or match[1] not in {"sqs", "kinesis", "dynamodb"}:
            said = f"'{text}', which is no ARN of a queue or stream" if text else "nothing"
            self._refuse(line, f"{mapping.name} reads {said}: it is not run")
            return None
        source = self._by_arn(self._local(text, line, function.settings.timeout))
        if not isinstance(source, Queue | Stream | Table):
            return None
        if mapping.kind not in {"", _kind(source)}:
            self._refuse(line, f"{mapping.name} {_misnamed(mapping, source)}")
            return None
        if isinstance(source, Table) and source.stream_view is None:
            self._refuse(line, f"{mapping.name}: the table {source.id} has no stream: add a StreamSpecification")
            return None
        return source

    def _refuse(self, line: int, message: str) -> None:
        """A mapping does not run; the others do."""
        self._problems.error(line, message, is_confined=True)

    def _source_text(self, mapping: EventSource) -> str:
        source = mapping.source
        found: Any = None
        if source is not None and source.resource is not None:
            found = self._attribute(source.resource, source.attribute)
        elif source is not None and source.text is not None:
            found = self._values.plain(Call("Fn::Sub", Scalar(source.text, source.line), source.line))
        elif source is not None:
            found = self._reader(mapping.properties).text(_source_property(mapping))
        return found if isinstance(found, str) else ""

    # -- What is told

    def _tell_what_is_no_resource(self) -> None:
        section = self._root.get("Resources")
        for name, item in section.items.items() if isinstance(section, Members) else ():
            body = item.node
            if name.startswith("Fn::"):
                continue
            if not isinstance(body, Members):
                self._problems.note(item.line, f"{name} is no mapping with a Type: it is left out")
            elif text_of(body.get("Type")) is None:
                self._problems.note(item.line, f"{name} has no Type: it is left out")
            elif isinstance(body.get("Properties"), Scalar | Sequence):
                self._problems.note(
                    body.line_of("Properties"), f"the Properties of {name} are no mapping: it has none here"
                )

    def _tell_what_is_left_out(self) -> None:
        self._tell_what_is_no_resource()
        for one in self._model.resources.values():
            if one.type in _LEFT_OUT:
                self._problems.note(one.line, f"{one.id}: {_LEFT_OUT[one.type]}")
        if self._model.is_open:
            self._problems.note(
                1, "a macro or a loop makes resources of this template, which are not seen: transform it first"
            )
        for function in self._model.functions.values():
            properties = function.resource.properties
            if function.is_sam and isinstance(properties.get("Events"), Scalar | Sequence):
                self._problems.note(
                    properties.line_of("Events"), f"the Events of {function.id} are no mapping: it has none here"
                )
            events = self._reader(properties).section("Events")
            for name in events.names() if function.is_sam else ():
                kind = events.section(name).text("Type") or "no type"
                queued = kind == "SNS" and any(one.name == f"{function.id}.{name}" for one in self._model.mappings)
                if kind not in _MAPPED and not queued:
                    self._problems.note(
                        events.line_of(name),
                        f"{function.id}.{name} is an event of {kind}, and no event source mapping: not run",
                    )

    def _tell_of_names(self) -> None:
        kinds: tuple[Mapping[str, Any], ...] = (self._queues, self._streams, self._tables, self._buckets, self._topics)
        for kind in kinds:
            seen: dict[str, str] = {}
            for one in kind.values():
                first = seen.setdefault(one.names.name, one.id)
                if first != one.id:
                    self._problems.error(
                        one.line, f"{one.id} and {first} are both called {one.names.name}: they are one here"
                    )

    def _tell_of_nothing(self) -> None:
        line = self._root.line_of("Resources")
        if not self._model.mappings:
            self._problems.error(line, f"nothing to run: {self._path.name} has no event source mapping")
        else:
            self._problems.error(line, f"nothing to run: no event source mapping of {self._path.name} can run here")


def _kind(source: Source) -> str:
    return "sqs" if isinstance(source, Queue) else "kinesis" if isinstance(source, Stream) else "dynamodb"


def _misnamed(mapping: EventSource, source: Source) -> str:
    """What is wrong with an event of SAM's on a source of another type."""
    events = {"sqs": "SQS", "kinesis": "Kinesis", "dynamodb": "DynamoDB"}
    is_ = {"sqs": "queue", "kinesis": "stream", "dynamodb": "table"}
    kind = _kind(source)
    return f"is an event of {events[mapping.kind]}, and {source.id} is a {is_[kind]}: write Type: {events[kind]}"


def _short_name(source: Source) -> str:
    """The id, or the name of a stand-in."""
    return source.names.name if source.id == source.names.arn else source.id


def _suited(queue: Queue, timeout: float) -> Queue:
    """A stand-in with a visibility timeout for a function's timeout; never a shorter one than it has."""
    wanted = min(43_200, int(timeout * _VISIBILITY_TIMEOUTS))
    if wanted <= queue.visibility:
        return queue
    return replace(queue, attributes={**queue.attributes, "VisibilityTimeout": str(wanted)})


def _source_property(mapping: EventSource) -> str:
    return next((name for name in _SOURCES if name in mapping.properties), _SOURCES[0])


def _stand_in_names(service: str, name: str) -> tuple[str, str]:
    """The name and the ARN of what is made for a name behind which nobody knows what stands."""
    name += ".fifo" if service == "sqs" and "fifo" in name.lower() else ""
    prefix = {"kinesis": "stream/", "dynamodb": "table/"}.get(service, "")
    end = "/stream/local" if service == "dynamodb" else ""
    return name, names.arn(service, f"{prefix}{name}{end}")
