"""What a Kafka mapping tells its on-failure destination of the records that it gives up.

The members are those of the examples in the Lambda developer guide, "Capturing discarded batches for Amazon MSK and
self-managed Apache Kafka event sources" (SQS, SNS, S3) and "Using a Kafka topic as an on-failure destination".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.emulator.mappings.actions import StreamRecord
from pipeline.emulator.mappings.answers import Answer, FunctionFailed
from pipeline.emulator.mappings.destination import Reason, invocation_record, timestamp
from pipeline.emulator.mappings.settings import KAFKA_SCHEME, KafkaSettings

#: The third condition of a Kafka mapping: a record for which an event has no room. The function never saw it.
TOO_LARGE = "MaximumPayloadSizeExceeded"
#: The example of a Kafka destination has another word for the first.
_KAFKA_SPELLING: Mapping[str, str] = {Reason.RETRIES: "RetriesExhausted"}


@dataclass(frozen=True)
class Failure:
    """How records came to be given up."""

    condition: str  #: a `Reason`, or `TOO_LARGE`
    request_id: str
    invocations: int
    answer: Answer | None  #: the last; None: the function was never invoked with them
    now: float


def is_topic(destination: str) -> bool:
    """The destination is a topic: it gets each record by itself, with its event."""
    return destination.startswith(KAFKA_SCHEME)


def batch_record(
    records: Mapping[str, Sequence[StreamRecord]], payload_size: int, failure: Failure, settings: KafkaSettings
) -> dict[str, Any]:
    """What SQS, SNS and S3 get of the records of these partitions. `payload_size`: of their event, bytes."""
    places = {
        partition: {
            "firstRecordOffset": found[0].number,
            "lastRecordOffset": found[-1].number,
            "firstRecordTimestamp": timestamp(found[0].arrived_at),
            "lastRecordTimestamp": timestamp(found[-1].arrived_at),
        }
        for partition, found in records.items()
    }
    size = sum(len(found) for found in records.values())
    info = {**_batch_info(size, payload_size, settings), "recordsInfo": places}
    return {**_contexts(failure, failure.condition, settings.function_arn), "KafkaBatchInfo": info}


def topic_record(
    record: StreamRecord, payload: Mapping[str, Any], payload_size: int, failure: Failure, settings: KafkaSettings
) -> dict[str, Any]:
    """What a Kafka topic gets of one record: its event is a member, as an object."""
    place = {"offset": record.number, "timestamp": timestamp(record.arrived_at)}
    condition = _KAFKA_SPELLING.get(failure.condition, failure.condition)
    contexts = _contexts(failure, condition, f"{settings.function_arn}:$LATEST")
    info = {**_batch_info(1, payload_size, settings), "recordInfo": place}
    return {**contexts, "KafkaBatchInfo": info, "payload": payload}


def _contexts(failure: Failure, condition: str, function_arn: str) -> dict[str, Any]:
    record = invocation_record(
        function=function_arn,
        request_id=failure.request_id,
        reason=condition,
        invocations=failure.invocations,
        has_raised=isinstance(failure.answer, FunctionFailed),
        now=failure.now,
    )
    # The guide: it is null when the record was too large to be sent.
    return {**record, "responseContext": None} if condition == TOO_LARGE else record


def _batch_info(size: int, payload_size: int, settings: KafkaSettings) -> dict[str, Any]:
    source = {"eventSourceArn": settings.source_arn} if settings.is_msk else {}
    servers = settings.bootstrap_servers
    return {"batchSize": size, **source, "bootstrapServers": servers, "payloadSize": payload_size}
