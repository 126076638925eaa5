"""Streams, where a record that fails holds up all that stands behind it in its shard."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.deploy.lint.findings import Check, Finding, Rule, Severity
from pipeline.deploy.lint.model import EventSource, Model

#: DynamoDB keeps stream records for 24 hours, always (DynamoDB developer guide, Change data capture).
_DYNAMODB_SECONDS = 86_400
_WITH_POSITION = {"kinesis", "dynamodb", "msk", "kafka"}
_KAFKA = ("AmazonManagedKafkaEventSourceConfig", "SelfManagedKafkaEventSourceConfig")

RETRIES_WITHOUT_LIMIT = Rule(
    id="retries-without-limit",
    severity=Severity.ERROR,
    title="one bad record stops its shard for as long as the stream keeps it",
    why=(
        "By default Lambda tries a failing batch until its records expire, a day or more, and reads nothing behind it; "
        "by then, what stands behind it may have expired too"
    ),
    fix=(
        "Set MaximumRecordAgeInSeconds below the stream's retention, or MaximumRetryAttempts, and an on-failure "
        "destination for what is given up"
    ),
    source="AWS Lambda developer guide, Using Lambda to process records from Amazon Kinesis Data Streams: retries",
)
NO_FAILURE_DESTINATION = Rule(
    id="no-failure-destination",
    severity=Severity.ERROR,
    title="records that are given up are lost",
    why="What Lambda gives up, by its limits or because it expires, is skipped without a trace",
    fix=(
        "Set `DestinationConfig: {OnFailure: {Destination: ...}}`: an S3 bucket gets the whole batch, a queue or topic "
        "only where it stood in the stream"
    ),
    source="AWS Lambda developer guide, Retain discarded batch records in Lambda",
)
BISECT_OFF = Rule(
    id="bisect-off",
    severity=Severity.WARNING,
    title="a record that crashes the function takes its batch with it",
    why="The whole batch is tried again, and given up, together; halved each time, only the bad record is",
    fix="Set `BisectBatchOnFunctionError: true`; halving costs none of the retries",
    source="AWS Lambda API reference, CreateEventSourceMapping, BisectBatchOnFunctionError",
)
RECORD_AGE_ABOVE_RETENTION = Rule(
    id="record-age-above-retention",
    severity=Severity.WARNING,
    title="records expire before they are given up",
    why="The stream forgets them first: they never reach the on-failure destination, or only as a pointer to nothing",
    fix="Set MaximumRecordAgeInSeconds some hours below the stream's retention, or lengthen that",
    source="AWS Lambda developer guide, Retain discarded batch records in Lambda",
)
PARALLEL_AGGREGATES = Rule(
    id="parallel-aggregates",
    severity=Severity.WARNING,
    title="parallel batches of a shard with aggregated records",
    why=(
        "Lambda deals records out by the key of the aggregate, not by those of the records in it: records of one key "
        "run side by side, and their order is lost"
    ),
    fix="Set ParallelizationFactor to 1 and add shards, or turn aggregation off in the producers",
    source="AWS Lambda developer guide, Kinesis: ParallelizationFactor does not work with KPL aggregation",
)
TUMBLING_WINDOW_PARTIAL = Rule(
    id="tumbling-window-partial",
    severity=Severity.WARNING,
    title="a tumbling window together with partial failures",
    why="The state that is returned is kept, and the records from the failed one on come again: some are counted in it twice",
    fix="Leave the failed records and all behind them out of the state, or take ReportBatchItemFailures out",
    source="AWS Lambda developer guide, Implementing stateful Kinesis Data Streams processing in Lambda",
)
TUMBLING_WINDOW_UNSUPPORTED = Rule(
    id="tumbling-window-unsupported",
    severity=Severity.ERROR,
    title="a tumbling window on a handler of this toolkit",
    why="The response of an invocation in a window must have a `state`, and the toolkit's has none: every invocation fails",
    fix="Take TumblingWindowInSeconds out",
    source="AWS Lambda developer guide, Implementing stateful Kinesis Data Streams processing in Lambda",
)
NO_STARTING_POSITION = Rule(
    id="no-starting-position",
    severity=Severity.ERROR,
    title="a stream without a starting position",
    why="Lambda refuses the mapping: it does not know from where to read",
    fix="Set `StartingPosition: TRIM_HORIZON` (the oldest record), or LATEST, which skips what was sent before",
    source="AWS Lambda API reference, CreateEventSourceMapping, StartingPosition",
)
STREAM_NOT_ENCRYPTED = Rule(
    id="stream-not-encrypted",
    severity=Severity.WARNING,
    title="a stream is not encrypted",
    why="Records are stored in clear text: Kinesis encrypts only what it is told to",
    fix="Set `StreamEncryption: {EncryptionType: KMS, KeyId: alias/aws/kinesis}`, which needs no further permissions",
    source="Amazon Kinesis Data Streams developer guide, Data protection: server-side encryption",
)


def retries_without_limit(model: Model) -> Iterator[Finding]:
    for mapping in _of_streams(model):
        if mapping.retries.value == -1 and mapping.record_age.value == -1:
            line = mapping.retries.line if mapping.retries.given else mapping.record_age.line
            detail = "neither MaximumRetryAttempts nor MaximumRecordAgeInSeconds has a limit"
            yield _at(RETRIES_WITHOUT_LIMIT, mapping, line, detail)


def no_failure_destination(model: Model) -> Iterator[Finding]:
    for mapping in _of_streams(model):
        if mapping.on_failure.is_left_out:
            yield _at(NO_FAILURE_DESTINATION, mapping, mapping.on_failure.line, "it has no on-failure destination")


def bisect_off(model: Model) -> Iterator[Finding]:
    for mapping in _of_streams(model):
        if mapping.bisect.value is False and mapping.batch_size.value != 1:
            yield _at(BISECT_OFF, mapping, mapping.bisect.line, "`BisectBatchOnFunctionError` is not on")


def record_age_above_retention(model: Model) -> Iterator[Finding]:
    for mapping in _of_streams(model):
        age, kept = mapping.record_age.value, _retention(model, mapping)
        if age is not None and kept is not None and age >= kept:
            detail = f"MaximumRecordAgeInSeconds is {age}, and the stream keeps records for {kept} s"
            yield _at(RECORD_AGE_ABOVE_RETENTION, mapping, mapping.record_age.line, detail)


def _retention(model: Model, mapping: EventSource) -> int | None:
    """Seconds that the stream keeps a record; None where that is not known."""
    if mapping.kind == "dynamodb":
        return _DYNAMODB_SECONDS
    stream = model.stream_of(mapping)
    hours = stream.retention_hours.value if stream is not None else None
    return None if hours is None else hours * 3600


def parallel_aggregates(model: Model) -> Iterator[Finding]:
    for mapping in _of_streams(model):
        factor = mapping.parallelization.value
        if mapping.kind != "kinesis" or factor is None or factor < 2:
            continue
        stream = model.stream_of(mapping)
        marked = stream is not None and stream.resource.metadata.section("Pipeline").truth("Aggregated").value
        if marked or model.code_of(mapping.function).reads_aggregates:
            because = "the stream is marked as aggregated" if marked else f"{mapping.function} takes aggregates apart"
            detail = f"ParallelizationFactor is {factor}, and {because}"
            yield _at(PARALLEL_AGGREGATES, mapping, mapping.parallelization.line, detail)


def tumbling_window_partial(model: Model) -> Iterator[Finding]:
    for mapping in _of_streams(model):
        if mapping.tumbling.value and mapping.partial.value and not model.code_of(mapping.function).is_toolkit:
            detail = "it has a tumbling window, and ReportBatchItemFailures"
            yield _at(TUMBLING_WINDOW_PARTIAL, mapping, mapping.tumbling.line, detail)


def tumbling_window_unsupported(model: Model) -> Iterator[Finding]:
    for mapping in _of_streams(model):
        if mapping.tumbling.value and model.code_of(mapping.function).is_toolkit:
            detail = f"TumblingWindowInSeconds is {mapping.tumbling.value}, and {mapping.function} is of this toolkit"
            yield _at(TUMBLING_WINDOW_UNSUPPORTED, mapping, mapping.tumbling.line, detail)


def no_starting_position(model: Model) -> Iterator[Finding]:
    for mapping in model.mappings:
        if mapping.kind in _WITH_POSITION and mapping.starting_position.is_left_out and not _is_shared(mapping):
            yield _at(NO_STARTING_POSITION, mapping, mapping.starting_position.line, "it has no `StartingPosition`")


def _is_shared(mapping: EventSource) -> bool:
    """Whether it reads Kafka topics as queues, or may: a share group has no position."""
    modes = [mapping.properties.section(name).text("ConsumptionMode") for name in _KAFKA]
    return any(one.given and (one.value or "queue").lower() == "queue" for one in modes)


def stream_not_encrypted(model: Model) -> Iterator[Finding]:
    for stream in model.streams.values():
        if stream.encrypted.value is False:
            yield STREAM_NOT_ENCRYPTED.at(stream.id, stream.encrypted.line, "it has no `StreamEncryption`")


def _of_streams(model: Model) -> Iterator[EventSource]:
    return (mapping for mapping in model.mappings if mapping.is_stream)


def _at(rule: Rule, mapping: EventSource, line: int, detail: str) -> Finding:
    return rule.at(mapping.name, line, detail, resource=mapping.owner)


CHECKS: tuple[tuple[Rule, Check], ...] = (
    (RETRIES_WITHOUT_LIMIT, retries_without_limit),
    (NO_FAILURE_DESTINATION, no_failure_destination),
    (BISECT_OFF, bisect_off),
    (RECORD_AGE_ABOVE_RETENTION, record_age_above_retention),
    (PARALLEL_AGGREGATES, parallel_aggregates),
    (TUMBLING_WINDOW_PARTIAL, tumbling_window_partial),
    (TUMBLING_WINDOW_UNSUPPORTED, tumbling_window_unsupported),
    (NO_STARTING_POSITION, no_starting_position),
    (STREAM_NOT_ENCRYPTED, stream_not_encrypted),
)
