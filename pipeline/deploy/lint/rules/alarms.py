"""Alarms without which nobody hears of records that wait or are given up."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from pipeline.deploy.lint.findings import Check, Finding, Rule, Severity
from pipeline.deploy.lint.model import Alarm, EventSource, Model, Queue
from pipeline.deploy.lint.values import Reference

NO_ALARMS = Rule(
    id="no-alarms",
    severity=Severity.NOTE,
    title="a template without any alarm",
    why="Failing records are no errors of the function: they wait or reach the dead-letter queue, and nobody hears of it",
    fix=(
        "Add alarms on ApproximateNumberOfMessagesVisible of dead-letter queues, ApproximateAgeOfOldestMessage of "
        "queues and IteratorAge of functions that read streams"
    ),
    source="AWS Lambda developer guide, Monitoring; Amazon SQS developer guide, Available CloudWatch metrics",
)
DEAD_LETTERS_WITHOUT_ALARM = Rule(
    id="dead-letters-without-alarm",
    severity=Severity.WARNING,
    title="dead letters that nobody hears of",
    why="Messages that arrive there are deleted when its retention ends, at the latest after 14 days",
    fix="Add an alarm on ApproximateNumberOfMessagesVisible of the dead-letter queue, threshold 1",
    source="Amazon SQS developer guide, Creating alarms for dead-letter queues using Amazon CloudWatch",
)
STREAM_WITHOUT_AGE_ALARM = Rule(
    id="stream-without-age-alarm",
    severity=Severity.NOTE,
    title="a stream whose delay nobody sees",
    why="A shard that stands still shows only in IteratorAge, until its records expire",
    fix="Add an alarm on IteratorAge of the function, well below the stream's retention",
    source="AWS Lambda developer guide, Monitoring Lambda functions: IteratorAge",
)
QUEUE_WITHOUT_AGE_ALARM = Rule(
    id="queue-without-age-alarm",
    severity=Severity.NOTE,
    title="a queue whose delay nobody sees",
    why="Messages that are not worked off show only in ApproximateAgeOfOldestMessage, until they expire",
    fix="Add an alarm on ApproximateAgeOfOldestMessage of the queue",
    source="Amazon SQS developer guide, Available CloudWatch metrics",
)

_WAITING = {
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible"),
    ("AWS/SQS", "ApproximateAgeOfOldestMessage"),
    ("AWS/SQS", "ApproximateNumberOfMessagesDelayed"),
}
_QUEUE_AGE = {("AWS/SQS", "ApproximateAgeOfOldestMessage"), ("AWS/SQS", "ApproximateNumberOfMessagesVisible")}
_STREAM_AGE = {
    ("AWS/Lambda", "IteratorAge"),
    ("AWS/Kinesis", "GetRecords.IteratorAgeMilliseconds"),
    ("AWS/Kinesis", "SubscribeToShardEvent.MillisBehindLatest"),
}


def no_alarms(model: Model) -> Iterator[Finding]:
    first = next((one for one in model.mappings if one.kind == "sqs" or one.is_stream), None)
    if first is not None and not _has_alarms(model) and not model.is_open:
        yield NO_ALARMS.at(
            first.name, first.line, "records are read, and no alarm watches anything", resource=first.owner
        )


def dead_letters_without_alarm(model: Model) -> Iterator[Finding]:
    if not _has_alarms(model):
        return
    for letters in _dead_letter_queues(model).values():
        if not _is_watched(model, _WAITING, {letters.id}, _names(letters)):
            sent = _is_watched(model, {("AWS/SQS", "NumberOfMessagesSent")}, {letters.id}, _names(letters))
            detail = "no alarm looks at it" + (
                ": NumberOfMessagesSent does not count what SQS moves there" if sent else ""
            )
            yield DEAD_LETTERS_WITHOUT_ALARM.at(letters.id, letters.line, detail)


def _dead_letter_queues(model: Model) -> dict[str, Queue]:
    """Those of the template in which the mappings' records end."""
    found: dict[str, Queue] = {}
    for mapping in model.mappings:
        queue = model.queue_of(mapping)
        letters = model.dead_letters_of(queue) if queue is not None else None
        target = mapping.properties.section("DestinationConfig").section("OnFailure").reference("Destination")
        for one in (letters, model.queues.get((target.resource or "") if target is not None else "")):
            if one is not None:
                found[one.id] = one
    return found


def stream_without_age_alarm(model: Model) -> Iterator[Finding]:
    for mapping in model.mappings:
        if not mapping.is_stream or not _has_alarms(model) or mapping.enabled.value is False:
            continue
        stream, function = model.stream_of(mapping), model.function_of(mapping)
        ids = {stream.id if stream is not None else None, mapping.function} - {None}
        names = {function.resource.name("FunctionName")} if function is not None else set()
        if ids and not _is_watched(model, _STREAM_AGE, ids, names):
            yield _at(STREAM_WITHOUT_AGE_ALARM, mapping, f"no alarm looks at IteratorAge of {mapping.function}")


def queue_without_age_alarm(model: Model) -> Iterator[Finding]:
    for mapping in model.mappings:
        queue = model.queue_of(mapping)
        if queue is None or not _has_alarms(model) or mapping.enabled.value is False:
            continue
        if not _is_watched(model, _QUEUE_AGE, {queue.id}, _names(queue)):
            yield QUEUE_WITHOUT_AGE_ALARM.at(queue.id, queue.line, "no alarm looks at its oldest message")


def _has_alarms(model: Model) -> bool:
    return bool(model.alarms)


def _is_watched(
    model: Model, metrics: Collection[tuple[str, str]], ids: Collection[str | None], names: Collection[str | None]
) -> bool:
    """Whether an alarm looks at one of these metrics of these resources, or may."""
    return model.is_open or any(_watches(alarm, metrics, ids, names) for alarm in model.alarms)


def _watches(
    alarm: Alarm, metrics: Collection[tuple[str, str]], ids: Collection[str | None], names: Collection[str | None]
) -> bool:
    if alarm.resource.properties.is_open or _asks(alarm):
        return True
    if not set(metrics) & set(alarm.metrics):
        return False
    return not alarm.dimensions or any(_means(one, ids, names) for one in alarm.dimensions)


def _asks(alarm: Alarm) -> bool:
    """Whether it looks for its metrics itself (Metrics Insights, SEARCH): it may find any."""
    expressions = [one.text("Expression").value or "" for one in alarm.resource.properties.sections("Metrics")]
    return any("select" in text.lower() or "search(" in text.lower() for text in expressions)


def _means(reference: Reference, ids: Collection[str | None], names: Collection[str | None]) -> bool:
    if reference.resource is not None:
        return reference.resource in ids
    if reference.text is None or reference.text in names:
        return True
    return "${" in reference.text and any(f"${{{one}" in reference.text for one in ids)


def _names(queue: Queue) -> set[str | None]:
    return {queue.resource.name("QueueName")} - {None}


def _at(rule: Rule, mapping: EventSource, detail: str) -> Finding:
    return rule.at(mapping.name, mapping.line, detail, resource=mapping.owner)


CHECKS: tuple[tuple[Rule, Check], ...] = (
    (NO_ALARMS, no_alarms),
    (DEAD_LETTERS_WITHOUT_ALARM, dead_letters_without_alarm),
    (STREAM_WITHOUT_AGE_ALARM, stream_without_age_alarm),
    (QUEUE_WITHOUT_AGE_ALARM, queue_without_age_alarm),
)
