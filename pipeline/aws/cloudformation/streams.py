"""Kinesis data streams in a template."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pipeline.aws.cloudformation import mappings
from pipeline.aws.cloudformation.buckets import add_bucket
from pipeline.aws.cloudformation.stack import TRACE, Event, Grant, Reader, Series, Stack, metric, part
from pipeline.aws.cloudformation.values import Noted, Ref, Sub, inside, plain
from pipeline.aws.names import Resource, arn_name
from pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from pipeline.sources.kinesis import Kinesis

#: Hours. Kinesis keeps records for a day by default, and for a year at most.
_RETENTION, _LONGEST_RETENTION = 24, 8_760
#: Hours between the moment at which a mapping gives a record up and the one at which the stream forgets it.
_MARGIN = 4


def add_stream(stack: Stack, stream: Resource, *, shards: int | None, max_record_age: int = -1) -> None:
    """Add an encrypted stream, on demand or with so many shards, that outlasts the mapping's `max_record_age`."""
    name = stack.keep(stream, "AWS::Kinesis::Stream", _stream(stream, shards, _retention(max_record_age)))
    described = f"Where records for {stream.name} are put, each with its partition key"
    stack.outputs[f"{name}Name"] = {"Description": described, "Value": Ref(name)}


def _stream(stream: Resource, shards: int | None, retention: Any) -> dict[str, Any]:
    capacity: dict[str, Any] = {
        "StreamModeDetails": Noted(
            {"StreamMode": "ON_DEMAND"},
            "As declared: without shards=. AWS splits and merges them as the load asks for.",
        )
    }
    if shards is not None:
        capacity = {"StreamModeDetails": {"StreamMode": "PROVISIONED"}, "ShardCount": shards}
    return {
        "Name": Sub("${AWS::StackName}-" + stream.name),
        **capacity,
        "RetentionPeriodHours": retention,
        "StreamEncryption": Noted(
            {"EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"},
            "With the key that AWS manages, neither producers nor the function need a permission for it.",
        ),
    }


def add_source(stack: Stack, source: Kinesis) -> None:
    """Add the stream of a source. Where several handlers read it, it has the shards of the one that says how many.

    It outlasts the longest `max_record_age` of all of them. Raises `ConfigurationError` when they want different shards.
    """
    stream = source.resource
    if not stack.has(stream):
        add_stream(stack, stream, shards=source.shards, max_record_age=source.max_record_age)
    elif stream.existing is None:
        name = stack.arn(stream).name
        there = stack.resources[name].properties
        shards: int | None = there.get("ShardCount")
        if None not in (shards, source.shards) and shards != source.shards:
            raise ConfigurationError(
                f"the stream '{stream.name}' is declared with shards={shards} and with shards={source.shards}: "
                "give one number, or give it once"
            )
        retention = max(there["RetentionPeriodHours"], _retention(source.max_record_age), key=plain)
        stack.change(name, _stream(stream, source.shards or shards, retention))


def given_up(stream: Resource) -> Resource:
    """The bucket for what the mappings of a stream give up."""
    return Resource("s3", f"{stream.name}-given-up")


def add_given_up(stack: Stack, stream: Resource) -> None:
    """Add the mappings' on-failure destination; several handlers of one stream share it."""
    if stack.has(given_up(stream)):
        return
    why = (
        "Whole batches that a mapping gave up: a queue would get their sequence numbers only, and the stream forgets\n"
        "the records. They do not expire: these are the last copies, until somebody has put their records back."
    )
    name = add_bucket(stack, given_up(stream), versions=False, why=why)
    stack.outputs[f"{name}Name"] = {"Description": f"Batches of {stream.name} that were given up", "Value": Ref(name)}


def watch_source(stack: Stack, stream: Resource, reader: Reader) -> None:
    """Add the alarms of a stream that is read too late or given up, and its graph."""
    dimensions = {"FunctionName": Ref(reader.function)}
    age = metric("AWS/Lambda", "IteratorAge", dimensions, "Maximum", 60)
    threshold = Noted(600_000, "Milliseconds: ten minutes. A retry or a crash is over by then; a stuck shard is not.")
    stack.alarm(
        f"{reader.function}IteratorAge",
        f"{stream.name}: a shard is read too late",
        {**age, "EvaluationPeriods": 5, "Threshold": threshold},
        command=TRACE,
    )
    stack.alarm(
        f"{reader.function}GaveUp",
        f"{stream.name}: the mapping gave records up",
        {
            "Metrics": Noted(
                [
                    {"Id": "gaveup", "Expression": "FILL(delivered, 0) + FILL(dropped, 0)"},
                    part("delivered", mappings.counted(reader, "OnFailureDestinationDeliveredEventCount")),
                    part("dropped", mappings.counted(reader, "DroppedEventCount")),
                ],
                "They are in the bucket (delivered), or lost because even that was not possible (dropped).",
            ),
            "EvaluationPeriods": 1,
            "Threshold": 1,
        },
        command=f"aws s3 ls --recursive s3://{inside(stack.reference(given_up(stream)))} --region ${{AWS::Region}}",
    )
    name = arn_name(stream.existing) if stream.existing is not None else stack.reference(stream)
    incoming = metric("AWS/Kinesis", "IncomingRecords", {"StreamName": name}, "Sum", 300)
    stack.alarm(
        f"{reader.function}NotReading",
        f"{stream.name}: records come, and the mapping reads none",
        {
            "Metrics": Noted(
                [
                    {"Id": "unread", "Expression": "IF(FILL(incoming, 0) > 0 AND FILL(polled, 0) == 0, 1, 0)"},
                    part("incoming", incoming),
                    part("polled", mappings.counted(reader, "PolledEventCount")),
                ],
                "A mapping that is disabled, or not allowed to read, has no iterator age that could ring.",
            ),
            "EvaluationPeriods": 3,
            "Threshold": 1,
        },
    )
    late = Series(namespace="AWS/Lambda", metric="IteratorAge", dimensions=dimensions, statistic="Maximum")
    stack.graph(reader.function, f"{stream.name}: milliseconds of the oldest", [late])


def event(stack: Stack, source: Kinesis) -> Event:
    """The event source mapping of a stream."""
    properties: dict[str, Any] = {
        "Stream": stack.arn(source.resource),
        "BatchSize": Noted(source.batch_size, "An invocation takes 6 MB as base64, whatever the batch size says."),
    }
    if source.batching_window:
        properties["MaximumBatchingWindowInSeconds"] = source.batching_window
    properties |= {
        "StartingPosition": source.starting_position,
        "ParallelizationFactor": source.parallelization_factor,
        "BisectBatchOnFunctionError": Noted(
            source.bisect, "Finds the record that kills its process in a few deliveries, and costs no retry."
        ),
        "MaximumRetryAttempts": _retries(source.retry_attempts),
        "MaximumRecordAgeInSeconds": _age(source.max_record_age),
        "DestinationConfig": {"OnFailure": {"Type": "S3", "Destination": stack.arn(given_up(source.resource))}},
    }
    properties |= mappings.filtered(source.filter_patterns, "A record that matches none of these is skipped.")
    properties |= mappings.reporting(
        "Without it Lambda ignores where the unsettled records begin, and moves on behind all of them."
    )
    return Event(kind="Kinesis", properties=properties)


def grants(stream: Resource) -> list[Grant]:
    """What a mapping calls with the function's role."""
    # Without enhanced fan-out, which adds SubscribeToShard, on a consumer.
    read = ("DescribeStream", "DescribeStreamSummary", "GetRecords", "GetShardIterator", "ListShards")
    actions = tuple(f"kinesis:{name}" for name in read)
    bucket = given_up(stream)
    return [
        Grant(to="Read", resource=stream, actions=actions, is_for_lambda=True),
        Grant(
            to="KeepIn",
            resource=bucket,
            within="/*",
            actions=("s3:PutObject",),
            is_for_lambda=True,
            is_global_name=True,
        ),
        Grant(to="Find", resource=bucket, actions=("s3:ListBucket",), is_for_lambda=True, is_global_name=True),
    ]


def _retention(max_record_age: int) -> Any:
    if max_record_age == -1:
        return _RETENTION
    hours = min(max(_RETENTION, math.ceil(max_record_age / 3_600) + _MARGIN), _LONGEST_RETENTION)
    return Noted(
        hours,
        "Longer than the mapping tries (MaximumRecordAgeInSeconds): what cannot be settled reaches the\n"
        "on-failure destination before the stream forgets it.",
    )


def _retries(attempts: int) -> Any:
    if attempts != -1:
        return attempts
    return Noted(attempts, "No limit, because an outage is no fault of the records: their age decides.")


def _age(seconds: int) -> Any:
    if seconds == -1:
        return Noted(seconds, "No limit: a record that cannot be settled stops its shard until the stream forgets it.")
    return Noted(
        seconds,
        f"{seconds / 3_600:g} hours, less than the stream keeps. Without a limit, a shard would stop until its records\n"
        "expire, and lose them then.",
    )
