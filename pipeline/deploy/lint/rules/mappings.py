"""Event source mappings of every kind: partial failures, batches, concurrency, filters."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.deploy.lint.findings import Check, Finding, Rule, Severity
from pipeline.deploy.lint.model import Alarm, EventSource, Model

#: A FIFO mapping's largest batch, and the largest of a standard queue without a window (Lambda API reference).
_SMALL_BATCH = 10
#: Invocations of one provisioned poller at a time (Lambda developer guide, Amazon SQS: provisioned mode).
_INVOCATIONS = 10
_WITH_PARTIAL_RESPONSES = {"sqs", "kinesis", "dynamodb"}

PARTIAL_FAILURES_OFF = Rule(
    id="partial-failures-off",
    severity=Severity.WARNING,
    title="one failing record brings its whole batch back",
    why="Records that had succeeded run again, and use up their receives, or their stream's retries, with the one that fails",
    fix=(
        "Add `FunctionResponseTypes: [ReportBatchItemFailures]`, and let the function return which records failed "
        "(`batchItemFailures`)"
    ),
    source="AWS Lambda developer guide, Implementing partial batch responses",
)
REPORT_IGNORED = Rule(
    id="failure-report-ignored",
    severity=Severity.ERROR,
    title="the function says which records failed, and Lambda does not listen",
    why="Lambda ignores the answer without ReportBatchItemFailures: failed records count as done, and are lost",
    fix="Add `FunctionResponseTypes: [ReportBatchItemFailures]` to the event source mapping",
    source="AWS Lambda developer guide, Implementing partial batch responses: responses are not processed unless it is on",
)
REPORT_MISSING = Rule(
    id="failure-report-missing",
    severity=Severity.WARNING,
    title="Lambda listens for failed records, and the function never names one",
    why=(
        "An answer without batchItemFailures means that all records succeeded: an error that the code catches is lost, "
        "and one that it raises still fails the whole batch, now without Lambda polling more slowly"
    ),
    fix="Return `{'batchItemFailures': [{'itemIdentifier': ...}]}`, or take ReportBatchItemFailures out",
    source="AWS Lambda developer guide, Handling errors for an SQS event source: success and failure conditions",
)
FIFO_BATCH_TOO_LARGE = Rule(
    id="fifo-batch-too-large",
    severity=Severity.ERROR,
    title="a batch is larger than a FIFO queue gives",
    why="Lambda refuses the mapping: a FIFO queue's batches have at most 10 messages",
    fix="Set BatchSize to 10 or less",
    source="AWS Lambda API reference, CreateEventSourceMapping, BatchSize",
)
BATCH_WITHOUT_WINDOW = Rule(
    id="batch-without-window",
    severity=Severity.ERROR,
    title="a large batch without a batching window",
    why="Lambda refuses the mapping: a queue gives 10 messages at a time, and more are only gathered over a window",
    fix="Set MaximumBatchingWindowInSeconds to at least 1, or BatchSize to 10 or less",
    source="AWS Lambda API reference, CreateEventSourceMapping, BatchSize",
)
WINDOW_ON_FIFO = Rule(
    id="window-on-fifo",
    severity=Severity.ERROR,
    title="a batching window on a FIFO queue",
    why="Lambda refuses the mapping: FIFO queues have no batching window",
    fix="Take MaximumBatchingWindowInSeconds out",
    source="AWS Lambda developer guide, Amazon SQS event source mapping parameters",
)
RESERVED_BELOW_CONCURRENCY = Rule(
    id="reserved-below-concurrency",
    severity=Severity.ERROR,
    title="a function's reserved concurrency is below what its mappings may use",
    why="Lambda throttles the difference: each throttled batch costs its messages a receive, until healthy ones are dead letters",
    fix="Lower MaximumConcurrency, or raise ReservedConcurrentExecutions to at least the sum of all mappings",
    source="AWS Lambda developer guide, Configuring scaling behavior for SQS event source mappings",
)
RESERVED_WITHOUT_MAXIMUM = Rule(
    id="reserved-without-maximum",
    severity=Severity.WARNING,
    title="reserved concurrency limits a queue's function, and nothing limits its mapping",
    why=(
        "Lambda polls for more than may run: each throttled batch costs its messages a receive, so that healthy ones "
        "become dead letters without a line in any log"
    ),
    fix="Set ScalingConfig.MaximumConcurrency on the mapping, at most the reserved concurrency",
    source="AWS Lambda developer guide, Configuring scaling behavior for SQS event source mappings",
)
CONCURRENCY_WITH_POLLERS = Rule(
    id="concurrency-with-pollers",
    severity=Severity.ERROR,
    title="maximum concurrency and provisioned pollers in one mapping",
    why="Lambda refuses the mapping: it takes one or the other",
    fix="Take ScalingConfig or ProvisionedPollerConfig out",
    source="AWS Lambda developer guide, Configuring scaling behavior for SQS event source mappings",
)
FILTER_WITHOUT_ALARM = Rule(
    id="filter-without-alarm",
    severity=Severity.WARNING,
    title="a filter deletes messages, and nobody would notice",
    why=(
        "Messages that match no filter are deleted, not put aside: after a change of their format, that is all of them, "
        "without an error or a log line"
    ),
    fix=(
        "Set `MetricsConfig: {Metrics: [EventCount]}` and an alarm on FilteredOutEventCount (AWS/Lambda, dimension "
        "EventSourceMappingUUID)"
    ),
    source="AWS Lambda developer guide, Control which events Lambda sends to your function; event source mapping metrics",
)
MAPPING_DISABLED = Rule(
    id="mapping-disabled",
    severity=Severity.WARNING,
    title="an event source mapping is turned off",
    why="Nothing is read: records wait until their retention ends, and are then gone",
    fix="Take `Enabled: false` out, or make it a parameter that is true by default",
    source="AWS Lambda API reference, CreateEventSourceMapping, Enabled",
)


def partial_failures_off(model: Model) -> Iterator[Finding]:
    for mapping in _with_partial_responses(model):
        is_known = model.code_of(mapping.function).reports is True
        if mapping.partial.value is False and mapping.batch_size.value != 1 and not is_known:
            yield _at(PARTIAL_FAILURES_OFF, mapping, mapping.partial.line, "it has no `ReportBatchItemFailures`")


def failure_report_ignored(model: Model) -> Iterator[Finding]:
    for mapping in _with_partial_responses(model):
        code = model.code_of(mapping.function)
        if mapping.partial.value is False and code.reports is True:
            who = "a handler of this toolkit" if code.is_toolkit else f"the code of {mapping.function}"
            detail = f"{who} returns `batchItemFailures`, and the mapping has no `ReportBatchItemFailures`"
            yield _at(REPORT_IGNORED, mapping, mapping.partial.line, detail)


def failure_report_missing(model: Model) -> Iterator[Finding]:
    for mapping in _with_partial_responses(model):
        if mapping.partial.value is True and model.code_of(mapping.function).reports is False:
            detail = f"the code of {mapping.function} returns no `batchItemFailures`"
            yield _at(REPORT_MISSING, mapping, mapping.partial.line, detail)


def _with_partial_responses(model: Model) -> Iterator[EventSource]:
    return (mapping for mapping in model.mappings if mapping.kind in _WITH_PARTIAL_RESPONSES)


def fifo_batch_too_large(model: Model) -> Iterator[Finding]:
    for mapping in _of_queues(model):
        size = mapping.batch_size.value
        if size is not None and size > _SMALL_BATCH and model.is_fifo(mapping):
            yield _at(FIFO_BATCH_TOO_LARGE, mapping, mapping.batch_size.line, f"BatchSize is {size} on a FIFO queue")


def batch_without_window(model: Model) -> Iterator[Finding]:
    for mapping in _of_queues(model):
        size = mapping.batch_size.value
        if size is not None and size > _SMALL_BATCH and mapping.window.value == 0 and not model.is_fifo(mapping):
            yield _at(BATCH_WITHOUT_WINDOW, mapping, mapping.batch_size.line, f"BatchSize is {size} without a window")


def window_on_fifo(model: Model) -> Iterator[Finding]:
    for mapping in _of_queues(model):
        if mapping.window.value and model.is_fifo(mapping):
            detail = f"MaximumBatchingWindowInSeconds is {mapping.window.value} on a FIFO queue"
            yield _at(WINDOW_ON_FIFO, mapping, mapping.window.line, detail)


def reserved_below_concurrency(model: Model) -> Iterator[Finding]:
    for function in model.functions.values():
        used = [one.max_concurrency.value for one in _read_by(model, function.id)]
        most = sum(one for one in used if one is not None)
        reserved = function.reserved.value
        if reserved is not None and reserved < most:
            yield RESERVED_BELOW_CONCURRENCY.at(
                function.id,
                function.reserved.line,
                f"ReservedConcurrentExecutions is {reserved}, and its mappings may use {most} (MaximumConcurrency)",
            )


def reserved_without_maximum(model: Model) -> Iterator[Finding]:
    for function in model.functions.values():
        reserved = function.reserved.value
        unlimited = [
            one.name
            for one in _read_by(model, function.id)
            if one.max_concurrency.is_left_out and one.provisioned.value is False
        ]
        if reserved is not None and unlimited:
            yield RESERVED_WITHOUT_MAXIMUM.at(
                function.id,
                function.reserved.line,
                f"ReservedConcurrentExecutions is {reserved}, and {', '.join(unlimited)} has no MaximumConcurrency",
            )
        for one in _read_by(model, function.id):
            pollers = one.properties.section("ProvisionedPollerConfig").number("MaximumPollers")
            if reserved is not None and pollers.value is not None and pollers.value * _INVOCATIONS > reserved:
                used = f"{pollers.value} pollers of {one.name} may use {pollers.value * _INVOCATIONS}"
                yield RESERVED_WITHOUT_MAXIMUM.at(
                    function.id,
                    function.reserved.line,
                    f"ReservedConcurrentExecutions is {reserved}, and the {used}",
                    fix=f"Set MaximumPollers to at most a {_INVOCATIONS}th of the reserved concurrency",
                )


def concurrency_with_pollers(model: Model) -> Iterator[Finding]:
    for mapping in _of_queues(model):
        if mapping.max_concurrency.given and mapping.max_concurrency.value is not None and mapping.provisioned.value:
            detail = "it has both MaximumConcurrency and ProvisionedPollerConfig"
            yield _at(CONCURRENCY_WITH_POLLERS, mapping, mapping.provisioned.line, detail)


def filter_without_alarm(model: Model) -> Iterator[Finding]:
    alarms, mappings = _counting(model), {one.id for one in model.mappings}
    for mapping in _of_queues(model):
        if mapping.filtered.value is not True:
            continue
        if mapping.metrics.value is False:
            yield _at(FILTER_WITHOUT_ALARM, mapping, mapping.filtered.line, "it has filters, and counts no events")
        elif not model.is_open and all(_is_about_another(alarm, mapping, mappings) for alarm in alarms):
            detail = "it has filters, and no alarm looks at FilteredOutEventCount"
            yield _at(FILTER_WITHOUT_ALARM, mapping, mapping.filtered.line, detail)


def _counting(model: Model) -> list[Alarm]:
    dropped = {("AWS/Lambda", "FilteredOutEventCount"), ("AWS/Lambda", "DroppedEventCount")}
    return [alarm for alarm in model.alarms if dropped & set(alarm.metrics)]


def _is_about_another(alarm: Alarm, mapping: EventSource, mappings: set[str]) -> bool:
    """One of which it is not known what it is about may be about this one."""
    # What SAM makes of an event is no resource of the template yet: `!Ref` to it stays a place in a text.
    names = [one.resource or (one.text or "").removeprefix("${").removesuffix("}") for one in alarm.dimensions]
    return bool(names) and mapping.id not in names and all(name in mappings for name in names)


def mapping_disabled(model: Model) -> Iterator[Finding]:
    for mapping in model.mappings:
        if mapping.enabled.value is False:
            yield _at(MAPPING_DISABLED, mapping, mapping.enabled.line, "`Enabled` is false")


def _of_queues(model: Model) -> Iterator[EventSource]:
    return (mapping for mapping in model.mappings if mapping.kind == "sqs")


def _read_by(model: Model, function: str) -> list[EventSource]:
    """A function's mappings from queues, without those that are turned off."""
    found = model.mappings_of.get(function, [])
    return [one for one in found if one.kind == "sqs" and one.enabled.value is not False]


def _at(rule: Rule, mapping: EventSource, line: int, detail: str) -> Finding:
    return rule.at(mapping.name, line, detail, resource=mapping.owner)


CHECKS: tuple[tuple[Rule, Check], ...] = (
    (PARTIAL_FAILURES_OFF, partial_failures_off),
    (REPORT_IGNORED, failure_report_ignored),
    (REPORT_MISSING, failure_report_missing),
    (FIFO_BATCH_TOO_LARGE, fifo_batch_too_large),
    (BATCH_WITHOUT_WINDOW, batch_without_window),
    (WINDOW_ON_FIFO, window_on_fifo),
    (RESERVED_BELOW_CONCURRENCY, reserved_below_concurrency),
    (RESERVED_WITHOUT_MAXIMUM, reserved_without_maximum),
    (CONCURRENCY_WITH_POLLERS, concurrency_with_pollers),
    (FILTER_WITHOUT_ALARM, filter_without_alarm),
    (MAPPING_DISABLED, mapping_disabled),
)
