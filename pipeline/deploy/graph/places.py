"""What a source or a sink stands for: the resource, and what a picture says of it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from pipeline import sinks
from pipeline.aws.names import Resource, arn_name
from pipeline.aws.sqs import is_fifo
from pipeline.deploy.graph.model import Kind
from pipeline.deploy.graph.names import function_name
from pipeline.engine.stage import Stage
from pipeline.ports import Sink, Source
from pipeline.sinks.rejects import SinkDeadLetters
from pipeline.sources.sqs_dead_letters import SQSDeadLetters, dead_letter_queue

_KINDS = {
    "sqs": Kind.QUEUE,
    "kinesis": Kind.STREAM,
    "dynamodb": Kind.TABLE,
    "events": Kind.BUS,
    "s3": Kind.BUCKET,
}
_CAPTIONS = {
    Kind.QUEUE: "SQS",
    Kind.FIFO: "SQS FIFO",
    Kind.STREAM: "Kinesis",
    Kind.TABLE: "DynamoDB",
    Kind.BUS: "EventBridge",
    Kind.BUCKET: "S3",
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """One resource, however many handlers name it. Two places are one when their `key` is the same."""

    key: Hashable
    kind: Kind
    caption: str
    name: str
    address: str | None = None  #: what AWS calls it as far as the declaration says: a name, never a deployed one
    details: tuple[str, ...] = ()
    is_dead_letters: bool = False


def of_source(source: Source) -> Place:
    """Where a handler's records come from."""
    return _of(source, Kind.SOURCE)


def of_sink(sink: Sink) -> Place:
    """Where outputs go."""
    return _of(sink, Kind.SINK)


def of_dead_letters(stage: Stage) -> Place:
    """Where a handler's records go that will never succeed."""
    letters = stage.dead_letters
    if isinstance(letters, SinkDeadLetters):
        return of_sink(letters.sink)
    queue = getattr(letters, "queue", None)
    if isinstance(letters, SQSDeadLetters):
        if letters.queue.existing is not None:
            return _unnamed_dead_letters(letters.queue)
        queue = dead_letter_queue(letters.queue)
    if isinstance(queue, Resource):
        return _of_resource(queue, is_dead_letters=True)
    name = f"dead letters of {stage.source.name}"
    caption = type(letters).__name__
    return Place(key=("letters", id(stage.source)), kind=Kind.SINK, caption=caption, name=name, is_dead_letters=True)


def read_details(source: Source) -> tuple[str, ...]:
    """How a source is read, for the edge to the handler; nothing for a source that says nothing."""
    lines: list[str] = []
    if size := getattr(source, "batch_size", None):
        lines.append(f"batch {size:,}")
    if window := getattr(source, "batching_window", None):
        lines.append(f"window {window} s")
    if most := getattr(source, "max_concurrency", None):
        lines.append(f"at most {most:,} at once")
    if (factor := getattr(source, "parallelization_factor", 1)) != 1:
        lines.append(f"{factor} at once a shard")
    if getattr(source, "filter_patterns", None):
        lines.append("filtered")
    return tuple(lines)


def write_details(sink: Sink) -> tuple[str, ...]:
    """How a sink is written to, for the edge from the handler."""
    lines: list[str] = []
    if sink.name != of_sink(sink).name and not isinstance(sink, sinks.File):
        lines.append(f"as {sink.name}")
    if isinstance(sink, sinks.SQS) and sink.group is not None:
        lines.append(f"group {sink.group}")
    if isinstance(sink, sinks.Kinesis) and sink.partition_key is not None:
        lines.append(f"partition key {sink.partition_key}")
    if isinstance(sink, sinks.EventBridge) and isinstance(sink.detail_type, str):
        lines.append(f"type {sink.detail_type}")
    if isinstance(sink, sinks.S3):
        lines.append(f"below {sink.prefix}" if sink.prefix else "at the top")
    if (when := getattr(sink, "when", None)) is not None:
        lines.append(f"when {function_name(when)}")
    return tuple(lines)


def _of(thing: Any, own: Kind) -> Place:
    resource = getattr(thing, "resource", None)
    if isinstance(resource, Resource):
        return _of_resource(resource, thing)
    if isinstance(thing, sinks.File):
        path = thing.path.as_posix()
        return Place(key=("file", path), kind=Kind.FILE, caption="File", name=path, address=path)
    kind = Kind.MEMORY if isinstance(thing, sinks.Memory) else own
    return Place(key=("object", id(thing)), kind=kind, caption=type(thing).__name__, name=str(thing.name))


def _of_resource(resource: Resource, thing: Any = None, *, is_dead_letters: bool = False) -> Place:
    address = resource.name if resource.existing is None else arn_name(resource.existing)
    kind = _KINDS.get(resource.service)
    if kind is None:  # a user's own integration of a service that this package has none for
        kind = Kind.SOURCE if isinstance(thing, Source) else Kind.SINK
    if kind is Kind.QUEUE and is_fifo(address):
        kind = Kind.FIFO
    caption = _CAPTIONS.get(kind, resource.service)
    details = _keys(thing) + (("not ours",) if resource.existing is not None else ())
    return Place(
        key=(resource.service, resource.existing or resource.name),
        kind=kind,
        caption=caption,
        name=resource.name,
        address=address,
        details=details,
        is_dead_letters=is_dead_letters,
    )


def _keys(thing: Any) -> tuple[str, ...]:
    """A table's primary key."""
    if not isinstance(thing, sinks.DynamoDB):
        return ()
    sort_key = () if thing.sort_key is None else (f"sort key {thing.sort_key}",)
    return (f"partition key {thing.partition_key}", *sort_key)


def _unnamed_dead_letters(queue: Resource) -> Place:
    """The dead-letter queue of a queue that is not ours: only its own policy knows the name."""
    kind = Kind.FIFO if is_fifo(arn_name(queue.existing or queue.name)) else Kind.QUEUE
    return Place(
        key=("letters", queue.existing),
        kind=kind,
        caption=_CAPTIONS[kind],
        name=f"dead letters of {queue.name}",
        details=("not ours",),
        is_dead_letters=True,
    )
