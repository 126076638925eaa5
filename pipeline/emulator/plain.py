"""Sources for plain handlers: a queue, a stream, a table's stream or a topic by its ARN, and the mapping's own settings."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from pipeline.aws.names import arn_name
from pipeline.decisions.patterns import Filter, read_record_filter
from pipeline.emulator import destinations, queues, streams, topics
from pipeline.emulator.backend import Backend
from pipeline.emulator.dead_letters import DeadLetterQueue
from pipeline.emulator.functions.function import FunctionSettings
from pipeline.emulator.local_source import LocalSource
from pipeline.emulator.mappings.kafka_destination import is_topic
from pipeline.emulator.mappings.settings import (
    GIVEN,
    PAYLOADS,
    TABLE_RETENTION,
    KafkaSettings,
    QueueSettings,
    StreamSettings,
)
from pipeline.emulator.services.cluster import CLUSTER_ARN
from pipeline.emulator.streams import Stream
from pipeline.engine.environment import ProcessEnvironment
from pipeline.errors import ConfigurationError


async def open_source(
    arn: str,
    name: str,
    function: FunctionSettings,
    backend: Backend,
    environment: ProcessEnvironment,
    options: Mapping[str, Any],
) -> LocalSource:
    """A source that is there, ready to be mapped to a function. Raises `ConfigurationError`."""
    service = arn.split(":")[2]
    if service not in PAYLOADS:
        raise ConfigurationError(
            f"{arn} is no source of a mapping: give a queue, a stream, a table's stream or a topic"
        )
    kind: Any = {"sqs": QueueSettings, "kafka": KafkaSettings}.get(service, StreamSettings)
    _check(options, kind)
    options = {**options, "filter": _filter(options.get("filter"), PAYLOADS[service])}
    destination = options.get("on_failure")
    if destination is not None and not is_topic(destination):
        await destinations.check(destination, backend)
    if service == "kafka":
        kafka_settings = KafkaSettings(
            topics=(name,),
            function_name=function.name,
            function_timeout=function.timeout,
            source_arn=CLUSTER_ARN,
            **options,
        )
        return topics.opened(kafka_settings, environment, backend)
    if service == "sqs":
        url = (await backend.client("sqs").get_queue_url(QueueName=arn_name(arn)))["QueueUrl"]
        is_fifo = arn.endswith(".fifo")
        settings = partial(QueueSettings, is_fifo=is_fifo, function_timeout=function.timeout, **options)
        return await queues.opened(name, url, settings, environment, backend)
    is_kinesis = service == "kinesis"
    retention = await _retention(arn, backend) if is_kinesis else TABLE_RETENTION
    stream_settings = StreamSettings(function_name=function.name, source_arn=arn, retention=retention, **options)
    stream = Stream(name, arn, "kinesis" if is_kinesis else "dynamodb", stream_settings)
    dead = DeadLetterQueue(destinations.queue_of(stream_settings.on_failure), environment, backend)
    return await streams.opened(stream, function.name, dead, environment, backend)


def _filter(patterns: Any, member: str) -> Filter | None:
    """FilterCriteria's patterns, each over a whole record; a filter that is read already stays as it is."""
    if patterns is None or isinstance(patterns, Filter):
        return patterns
    given = [patterns] if isinstance(patterns, dict) else patterns
    if not isinstance(given, list | tuple) or not all(isinstance(one, dict) for one in given):
        raise ConfigurationError(
            f"filter={patterns!r}: give a pattern over the whole record, as {{{member!r}: {{'kind': ['order']}}}}, or a list"
        )
    return read_record_filter(given, member=member, declared="filter")


async def _retention(arn: str, backend: Backend) -> float:
    found = await backend.client("kinesis").describe_stream_summary(StreamARN=arn)
    return streams.retention_of(found["StreamDescriptionSummary"])


def _check(options: Mapping[str, Any], kind: type[QueueSettings | StreamSettings | KafkaSettings]) -> None:
    known = sorted(set(kind.__dataclass_fields__) - GIVEN)
    for name in options:
        if name not in known:
            raise ConfigurationError(f"a mapping of this source has no setting {name!r}: there is {', '.join(known)}")
