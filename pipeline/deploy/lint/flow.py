"""Where records go from one resource to the next, as far as a template tells: mappings, subscriptions, rules, grants."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.deploy.lint import declared, permissions
from pipeline.deploy.lint.model import Function, Model
from pipeline.deploy.lint.nodes import Members, Scalar
from pipeline.deploy.lint.values import Properties, Reference

_WRITES = (
    "sqs:SendMessage", "sns:Publish", "kinesis:PutRecord", "kinesis:PutRecords", "dynamodb:PutItem",
    "dynamodb:UpdateItem", "dynamodb:BatchWriteItem", "dynamodb:PartiQLInsert", "dynamodb:PartiQLUpdate",
    "events:PutEvents", "s3:PutObject",
)  # fmt: skip
_PLACES = re.compile(r"\$\{([A-Za-z0-9]+)(?:\.[A-Za-z]+)?\}")
_RESOURCE_TYPES = set(permissions.NAMED)


@dataclass(frozen=True)
class Step:
    """Records go from one logical id to another. `line` and `owner`: where that is said."""

    start: str
    end: str
    line: int
    owner: str


def steps(model: Model) -> list[Step]:
    """All of them. Filtered ones are left out: a filter, a pattern or a prefix is how loops are ended."""
    known: list[Step] | None = model.worked_out.get("steps")
    if known is not None:
        return known
    found = [*_read(model), *_written(model), *_subscribed(model), *_ruled(model), *_notified(model), *_piped(model)]
    model.worked_out["steps"] = list(dict.fromkeys(found))
    return steps(model)


def loops(found: Sequence[Step]) -> list[list[Step]]:
    """The shortest way from each place back to itself; of those that share a place only the first."""
    after: dict[str, list[Step]] = {}
    for step in found:
        after.setdefault(step.start, []).append(step)
    seen, circles = set[str](), list[list[Step]]()
    for start in after:
        way = _way_back(start, after) if start not in seen else []
        places = {step.start for step in way}
        if way and not places & seen:
            circles.append(way)
        seen |= places
    return circles


def _way_back(start: str, after: dict[str, list[Step]]) -> list[Step]:
    came: dict[str, Step] = {}
    waiting = deque([start])
    while waiting:
        for step in after.get(waiting.popleft(), ()):
            if step.end == start:
                way = [step]
                while way[0].start != start:
                    way.insert(0, came[way[0].start])
                return way
            if step.end not in came:
                came[step.end] = step
                waiting.append(step.end)
    return []


def _read(model: Model) -> Iterator[Step]:
    for mapping in model.mappings:
        queue, stream = model.queue_of(mapping), model.stream_of(mapping)
        source = queue.id if queue is not None else stream.id if stream is not None else None
        if source is None and mapping.source is not None:
            source = mapping.source.resource
        is_off = mapping.enabled.value is False or mapping.filtered.value is not False
        if source is not None and mapping.function in model.functions and not is_off:
            yield Step(source, mapping.function or "", mapping.line, mapping.owner)


def _written(model: Model) -> Iterator[Step]:
    """What functions may write to, by name: a wildcard says nothing about what they do."""
    for function in model.functions.values():
        for statement in permissions.of(model, function).statements:
            if not statement.allows or statement.template.endswith("CrudPolicy"):  # often taken for reading only
                continue
            for word in statement.actions:
                if word.text == "*" or word.text.endswith(":*"):
                    continue
                services = {one.partition(":")[0] for one in _WRITES if permissions.is_action(one, word.text)}
                for resource in statement.resources if services else ():
                    for name in _named(model, resource):
                        if permissions.NAMED[model.resources[name].type][1] in services:
                            yield Step(function.id, name, statement.line, function.id)


def _named(model: Model, reference: Reference) -> list[str]:
    """The template's resources that a reference names; a stream of a table is not the table."""
    if reference.resource is not None:
        names = [reference.resource] if reference.attribute != "StreamArn" else []
    else:
        names = _PLACES.findall(reference.text or "")
        if not names:
            kinds = [
                (kind, name) for kind, (name, service) in permissions.NAMED.items() if _is_arn_of(reference, service)
            ]
            names = [one for kind, name in kinds if (one := model.named(reference, kind, name)) is not None]
    return [one for one in names if one in model.resources and model.resources[one].type in _RESOURCE_TYPES]


def _is_arn_of(reference: Reference, service: str) -> bool:
    parts = re.split(r"(?<!AWS:):(?!:)", reference.text or "")
    return len(parts) > 5 and parts[2] == service


def _subscribed(model: Model) -> Iterator[Step]:
    for one in model.of_type("AWS::SNS::Subscription"):
        topic = one.properties.reference("TopicArn")
        if topic is not None and topic.resource is not None and "FilterPolicy" not in one.properties:
            yield from _to(model, topic.resource, one.properties.reference("Endpoint"), one.line, one.id)
    for one in model.of_type("AWS::SNS::Topic"):
        for subscription in one.properties.sections("Subscription"):
            yield from _to(model, one.id, subscription.reference("Endpoint"), subscription.line, one.id)
    for function, line, kind, properties in _events(model):
        topic = properties.reference("Topic")
        if kind == "SNS" and topic is not None and topic.resource is not None and "FilterPolicy" not in properties:
            end = function.id
            if "SqsSubscription" in properties:
                continue
            yield Step(topic.resource, end, line, function.id)


def _ruled(model: Model) -> Iterator[Step]:
    """Rules that match whatever comes over a bus, or what a declared sink puts on it."""
    for one in model.of_type("AWS::Events::Rule"):
        bus = one.properties.reference("EventBusName")
        if bus is None or bus.resource is None:
            continue
        for target in one.properties.sections("Targets"):
            end = target.reference("Arn")
            for start in _matched(model, bus.resource, one.properties.section("EventPattern")):
                yield from _to(model, start, end, one.line, one.id)
    for function, line, kind, properties in _events(model):
        bus = properties.reference("EventBusName")
        if kind in {"EventBridgeRule", "CloudWatchEvent"} and bus is not None and bus.resource is not None:
            for start in _matched(model, bus.resource, properties.section("Pattern")):
                yield Step(start, function.id, line, function.id)


def _matched(model: Model, bus: str, pattern: Properties) -> Iterator[str]:
    """From where events come that match: the bus itself, or functions whose declared sink puts such events on it."""
    asked = set(pattern.names())
    if pattern.is_open:
        return
    if asked <= {"account", "region", "version"} or (asked == {"source"} and _is_any(pattern)):
        yield bus
        return
    if not asked <= {"source", "detail-type"}:
        return
    for function in model.functions.values():
        stage = declared.stage_of(model, function)
        for sink in stage.sinks if stage is not None else ():
            resource: Any = getattr(sink, "resource", None)
            found = declared.found(model, function, resource) if resource is not None else None
            said = {"source": getattr(sink, "source", None), "detail-type": getattr(sink, "detail_type", None)}
            if found is not None and found.id == bus and all(said[name] in _texts(pattern, name) for name in asked):
                yield function.id


def _texts(pattern: Properties, name: str) -> list[Any]:
    return [node.value for node in pattern.items(name) if isinstance(node, Scalar)]


def _is_any(pattern: Properties) -> bool:
    """`source: [{prefix: ""}]`, as rules for everything are written."""
    nodes = pattern.items("source")
    return any(
        isinstance(node, Members) and isinstance(prefix := node.get("prefix"), Scalar) and prefix.value == ""
        for node in nodes
    )


def _notified(model: Model) -> Iterator[Step]:
    for bucket in model.of_type("AWS::S3::Bucket"):
        section = bucket.properties.section("NotificationConfiguration")
        for listed, name in (
            ("LambdaConfigurations", "Function"),
            ("QueueConfigurations", "Queue"),
            ("TopicConfigurations", "Topic"),
        ):
            for one in section.sections(listed):
                if "Filter" not in one and _is_about_writing(one.text("Event").value):
                    yield from _to(model, bucket.id, one.reference(name), one.line, bucket.id)
    for function, line, kind, properties in _events(model):
        source = properties.reference("Bucket")
        is_all = kind == "S3" and "Filter" not in properties
        is_written = is_all and any(_is_about_writing(node.value) for node in _scalars(properties, "Events"))
        if is_written and source is not None and source.resource is not None:
            yield Step(source.resource, function.id, line, function.id)


def _scalars(properties: Properties, name: str) -> list[Scalar]:
    return [node for node in properties.items(name) if isinstance(node, Scalar)]


def _is_about_writing(event: object) -> bool:
    return isinstance(event, str) and event.startswith("s3:ObjectCreated")


def _piped(model: Model) -> Iterator[Step]:
    for pipe in model.of_type("AWS::Pipes::Pipe"):
        source = pipe.properties.reference("Source")
        filtered = pipe.properties.section("SourceParameters").get("FilterCriteria")
        if source is not None and source.resource is not None and filtered is None:
            yield from _to(model, source.resource, pipe.properties.reference("Target"), pipe.line, pipe.id)


def _to(model: Model, start: str, end: Reference | None, line: int, owner: str) -> Iterator[Step]:
    if end is not None and end.resource in model.resources:
        yield Step(start, end.resource or "", line, owner)


def _events(model: Model) -> Iterator[tuple[Function, int, str, Properties]]:
    """The events of SAM functions: function, line, type, properties."""
    for function in model.functions.values():
        events = function.resource.properties.section("Events") if function.is_sam else None
        for name in events.names() if events is not None else ():
            assert events is not None, "there is no name without them"
            event = events.section(name)
            yield function, events.line_of(name), event.text("Type").value or "", event.section("Properties")
