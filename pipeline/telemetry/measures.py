"""What the metrics of a batch are: names, units and values, as a function of its facts. Nothing is written here.

Every name is one that is paid for (0.30 USD a month for each name and function), so none comes from data: they are
the names in this file, and two for each sink that is declared.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from pipeline.outcome import Failed, HandBack, Outcome, Rejected, Unprocessed, tally
from pipeline.record import RawRecord
from pipeline.telemetry.events import BatchFinished

#: Metric names for outcomes. A batch writes those that occurred: what is missing counts as nothing.
OUTCOMES = {
    "succeeded": "RecordsSucceeded",
    "duplicate": "RecordsDuplicate",
    "rejected": "RecordsRejected",
    "exhausted": "RecordsExhausted",
    "failed": "RecordsFailed",
    "unprocessed": "RecordsHandedBack",
}

#: Those whose records have an error.
TROUBLES = frozenset({"RecordsRejected", "RecordsExhausted", "RecordsFailed"})

#: All names with their units, but for the sinks'.
UNITS: Mapping[str, str] = {
    **dict.fromkeys(OUTCOMES.values(), "Count"),
    "RecordsPostponed": "Count",
    "DeadlineHandBacks": "Count",
    "BatchSize": "Count",
    "BatchFill": "Percent",
    "BatchDuration": "Milliseconds",
    "BodyBytes": "Bytes",
    "OldestRecordAge": "Seconds",
    "RecordAge": "Seconds",
    "SlowestRecord": "Milliseconds",
    "HandlerDuration": "Milliseconds",
    "ConcurrencyUsed": "Count",
    "StoreDuration": "Milliseconds",
    "StoreFailures": "Count",
}
#: What there is for each sink; see `sink_metrics`.
SINK_UNITS: Mapping[str, str] = {"SinkDuration": "Milliseconds", "SinkFailures": "Count"}

#: Sinks of a handler that have metrics of their own; further ones share theirs. More than any handler should need.
MAX_SINKS = 8
#: Types of errors that a batch tells apart; further ones are counted together.
MAX_TYPES = 8
#: What is beyond a limit is counted under this name.
OTHER = "other"

#: Values that a metric may have in one line (CloudWatch's embedded metric format, specification).
MAX_VALUES = 100
#: Metrics that a line may have (the same).
MAX_METRICS = 100
#: CloudWatch takes values up to this one, either side of 0 (PutMetricData, MetricDatum).
_LARGEST = 2.0**360
#: Characters of a type's name that are kept.
_TYPE = 64
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")

#: Values by metric name.
Measures = dict[str, Sequence[float]]


def sink_names(sinks: Iterable[str]) -> dict[str, str]:
    """The end of the metric names of each declared sink, by the sink's name."""
    return {
        sink: (_UNSAFE.sub("_", sink) or OTHER) if position < MAX_SINKS else OTHER
        for position, sink in enumerate(sinks)
    }


def sink_metrics(name: str) -> dict[str, str]:
    """The metric names of one sink, and their units; `name`: as `sink_names` has it."""
    return {f"{metric}_{name}": unit for metric, unit in SINK_UNITS.items()}


def of_batch(fact: BatchFinished) -> Measures:
    """What one batch comes to. What it did not have is left out."""
    counts = tally(fact.result.outcomes)
    back = [outcome for _, outcome in fact.result.of(Unprocessed)] if counts["unprocessed"] else []
    late = sum(outcome.reason is HandBack.DEADLINE for outcome in back)
    size = len(fact.result)
    measures: Measures = {name: [counts[outcome]] for outcome, name in OUTCOMES.items() if counts[outcome]}
    if late:
        measures["DeadlineHandBacks"] = [late]
    measures["BatchSize"] = [size]
    if fact.batch_size:
        measures["BatchFill"] = [100 * size / fact.batch_size]
    measures["BatchDuration"] = [fact.seconds * 1000]
    measures["SlowestRecord"] = [fact.slowest * 1000]
    measures["BodyBytes"] = [body_bytes(fact.result.records)]
    if fact.oldest is not None:
        measures["OldestRecordAge"] = [fact.oldest]
    measures["RecordAge"] = fact.ages
    measures["HandlerDuration"] = [seconds * 1000 for seconds in fact.handled]
    if fact.concurrency:
        measures["ConcurrencyUsed"] = [fact.concurrency]
    return measures


def body_bytes(records: Iterable[RawRecord]) -> int:
    """The size of records' bodies, as received."""
    return sum(_bytes(record.body) for record in records)


def error_types(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """How many records failed or were rejected by which type of error: the most frequent ones, and `OTHER`."""
    types = Counter(type(one.error).__name__ for one in outcomes if isinstance(one, (Failed, Rejected)))
    found: Counter[str] = Counter()
    for name, count in types.most_common(MAX_TYPES):
        found[_UNSAFE.sub("_", name)[:_TYPE] or OTHER] += count
    rest = types.total() - found.total()
    if rest:
        found[OTHER] += rest
    return dict(found)


def writable(measures: Measures) -> dict[str, list[float]]:
    """As CloudWatch takes it: finite numbers, to the thousandth, at most `MAX_VALUES` of each metric."""
    found = {name: [round(value, 3) for value in spread(finite(values))] for name, values in measures.items()}
    return {name: values for name, values in found.items() if values}


def finite(values: Iterable[float]) -> list[float]:
    """Without those that would make the whole line none: NaN and infinities are no JSON."""
    return [value for value in values if -_LARGEST <= value <= _LARGEST]


def spread(values: Sequence[float], limit: int = MAX_VALUES) -> Sequence[float]:
    """At most `limit` of the values, with the smallest and the largest, that lie as all of them do.

    Percentiles of these are those of all, to one in `limit`; their number is not, and their mean nearly.
    """
    if len(values) <= limit:
        return values
    ordered = sorted(values)
    last = len(ordered) - 1
    return [ordered[position * last // (limit - 1)] for position in range(limit)]


def _bytes(body: str | bytes) -> int:
    if isinstance(body, bytes) or body.isascii():
        return len(body)
    return len(body.encode("utf-8", "replace"))
