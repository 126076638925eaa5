"""A template's event source mappings as the emulator's settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from pipeline.decisions.patterns import RecordFilter, read_record_filter
from pipeline.deploy.lint.model import BATCH_SIZES, EventSource
from pipeline.deploy.local.functions import LocalFunction
from pipeline.deploy.local.reader import Reader, whole
from pipeline.deploy.local.resources import Queue, Stream, Table
from pipeline.emulator.mappings.settings import (
    GIVEN,
    PAYLOADS,
    TABLE_RETENTION,
    ProvisionedPollers,
    QueueSettings,
    StreamSettings,
)
from pipeline.errors import ConfigurationError

Source: TypeAlias = Queue | Stream | Table


@dataclass(frozen=True)
class LocalMapping:
    """An event source mapping that can run here: its function and its source do.

    `function`, `source`: their ids. `is_enabled`: one that is not is made, and reads nothing.
    """

    id: str
    line: int
    function: str
    source: str
    settings: QueueSettings | StreamSettings
    is_enabled: bool = True

    @property
    def options(self) -> dict[str, Any]:
        """The mapping's own settings by name, without those that its source and its function give."""
        found = {one.name: getattr(self.settings, one.name) for one in fields(self.settings)}
        return {name: value for name, value in found.items() if name not in GIVEN}


class _RefusedPattern(ConfigurationError):
    """A pattern of a filter that Lambda would refuse. `place`: where it stands."""

    def __init__(self, message: str, place: Reader) -> None:
        super().__init__(message)
        self.place = place


def read(
    mapping: EventSource, reader: Reader, source: Source, function: LocalFunction
) -> tuple[LocalMapping, str | None] | None:
    """A mapping, and the ARN of its on-failure destination; None, with a problem, for one that Lambda would refuse."""
    try:
        found: QueueSettings | StreamSettings
        if isinstance(source, Queue):
            destination, found = None, _of_queue(mapping, reader, source, function)
        else:
            destination = _destination(reader)
            found = _of_stream(mapping, reader, source, function, destination)
    except ConfigurationError as error:
        where, name = (error.place, "Pattern") if isinstance(error, _RefusedPattern) else (reader, "")
        where.error(name, f"{mapping.name}: {error}; the mapping is left out", is_confined=True)
        return None
    is_enabled = reader.truth("Enabled", default=True)
    if not is_enabled:
        reader.note("Enabled", f"{mapping.name} is disabled: it reads nothing")
    made = LocalMapping(mapping.id, mapping.line, function.id, source.id, found, is_enabled)
    return made, destination


def _of_queue(mapping: EventSource, reader: Reader, source: Queue, function: LocalFunction) -> QueueSettings:
    scaling = reader.section("ScalingConfig")
    return QueueSettings(
        is_fifo=source.is_fifo,
        batch_size=_number(reader, "BatchSize", BATCH_SIZES["sqs"]),
        batching_window=_number(reader, "MaximumBatchingWindowInSeconds", 0),
        filter=_filter(mapping, reader, "sqs"),
        report_batch_item_failures=_reports(reader),
        maximum_concurrency=_number(scaling, "MaximumConcurrency", None),
        provisioned=_provisioned(reader),
        function_timeout=function.settings.timeout,
        visibility_timeout=source.visibility,
    )


def _provisioned(reader: Reader) -> ProvisionedPollers | None:
    if "ProvisionedPollerConfig" not in reader:
        return None
    section, usual = reader.section("ProvisionedPollerConfig"), ProvisionedPollers()
    return ProvisionedPollers(
        _number(section, "MinimumPollers", usual.minimum), _number(section, "MaximumPollers", usual.maximum)
    )


def _of_stream(
    mapping: EventSource, reader: Reader, source: Stream | Table, function: LocalFunction, destination: str | None
) -> StreamSettings:
    kind = "kinesis" if isinstance(source, Stream) else "dynamodb"
    position = reader.text("StartingPosition")
    if position is None:
        raise ConfigurationError("it has no StartingPosition: write TRIM_HORIZON, LATEST or AT_TIMESTAMP")
    return StreamSettings(
        batch_size=_number(reader, "BatchSize", BATCH_SIZES[kind]),
        batching_window=_number(reader, "MaximumBatchingWindowInSeconds", 0),
        filter=_filter(mapping, reader, kind),
        report_batch_item_failures=_reports(reader),
        starting_position=position,
        starting_timestamp=_timestamp(reader),
        parallelization_factor=_number(reader, "ParallelizationFactor", 1),
        bisect=reader.truth("BisectBatchOnFunctionError", default=False),
        maximum_retry_attempts=_number(reader, "MaximumRetryAttempts", -1),
        maximum_record_age=_number(reader, "MaximumRecordAgeInSeconds", -1),
        retention=3600 * source.retention_hours if isinstance(source, Stream) else TABLE_RETENTION,
        tumbling_window=_number(reader, "TumblingWindowInSeconds", 0),
        on_failure=destination,
        function_name=function.settings.name,
        source_arn=source.names.arn if isinstance(source, Stream) else source.names.stream_arn,
    )


def _timestamp(reader: Reader) -> float | None:
    found = reader.plain("StartingPositionTimestamp")
    if found is None:
        return None
    try:
        return float(found)
    except (TypeError, ValueError):
        raise ConfigurationError("StartingPositionTimestamp must be a number of epoch seconds") from None


def _destination(reader: Reader) -> str | None:
    section = reader.section("DestinationConfig").section("OnFailure")
    found = section.text("Destination")
    if found is not None and not found.startswith(("arn:aws:sqs:", "arn:aws:sns:", "arn:aws:s3:")):
        section.note("Destination", "the on-failure destination is no ARN of a queue, a topic or a bucket: left out")
        return None
    return found


def _reports(reader: Reader) -> bool:
    found = reader.plain("FunctionResponseTypes")
    return "ReportBatchItemFailures" in (found if isinstance(found, list) else [found])


def _filter(mapping: EventSource, reader: Reader, kind: str) -> RecordFilter | None:
    section = reader.section("FilterCriteria")
    patterns: list[dict[str, Any]] = []
    for one in section.sections("Filters"):
        try:
            found = _pattern(one)
            read_record_filter([found], member=PAYLOADS[kind], declared="FilterCriteria")
        except ConfigurationError as error:
            raise _RefusedPattern(str(error), one) from error
        patterns.append(found)
    if not patterns:
        return None
    for name in _beside(patterns, kind):
        section.note(
            "Filters", f"{mapping.name}: a filter on '{name}' is not in Lambda's guide; here it sees the record's"
        )
    return read_record_filter(patterns, member=PAYLOADS[kind], declared="FilterCriteria")


def _pattern(reader: Reader) -> dict[str, Any]:
    found = reader.plain("Pattern")
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except (ValueError, RecursionError):
            found = None
    if not isinstance(found, dict):
        raise ConfigurationError("FilterCriteria: a Pattern must be a JSON object as text, as '{\"body\": ...}'")
    return found


def _beside(patterns: Sequence[dict[str, Any]], kind: str) -> list[str]:
    """Members that patterns name although the guide lists them for no record; `eventName` is in everybody's use."""
    named = {name for one in patterns for name in one if name not in {PAYLOADS[kind], "$or"}}
    return sorted(named - ({"eventName"} if kind == "dynamodb" else set()))


def _number(reader: Reader, name: str, default: Any) -> Any:
    """A whole number; the settings refuse what is none, or out of its range."""
    found = reader.plain(name)
    if found is None:
        return default
    number = whole(found)
    return found if number is None else number
