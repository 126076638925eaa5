"""Facts as CloudWatch metrics, by Powertools' Metrics (EMF): one flush a batch."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import orjson

from pipeline.telemetry.events import BatchFinished, Fact, RecordPostponed, SinkWritten, StoreCalled
from pipeline.telemetry.measures import (
    MAX_METRICS,
    OTHER,
    TROUBLES,
    UNITS,
    Measures,
    error_types,
    finite,
    of_batch,
    sink_metrics,
    sink_names,
    spread,
    writable,
)

if TYPE_CHECKING:
    from aws_lambda_powertools.metrics import EphemeralMetrics

#: Set by Lambda; elsewhere the handler's name stands for it.
_FUNCTION_NAME = "AWS_LAMBDA_FUNCTION_NAME"
#: The member of a line that says which errors there were. It is no metric: it is found by a query, and costs nothing.
ERROR_TYPES = "error_types"
#: The member that makes a line one of metrics (CloudWatch's embedded metric format, specification).
_EMF = "_aws"
#: Durations that are kept of the calls of one batch; beyond, they are thinned out.
_MAX_KEPT = 1_000

_log = logging.getLogger("pipeline")


class MetricsWriter:
    """Writes the metrics of one handler; `measures` has their names.

    Namespace: the pipeline's name; dimensions: `service` (the pipeline), `handler`, and `function_name`, because
    two stacks in one account must not ring each other's alarms. `metrics`: the handler's own, written in the same
    line where that is safe. `sinks`: the names of the declared ones, in order.
    """

    failures_only = True

    def __init__(self, metrics: EphemeralMetrics, sinks: Iterable[str] = ()) -> None:
        self._given = metrics
        self._own = _like(metrics)
        self._dimensions = {**metrics.default_dimensions, "service": str(metrics.service)}
        self._sinks = sink_names(sinks)
        self._units = dict(UNITS)
        for name in {*self._sinks.values(), OTHER}:
            self._units.update(sink_metrics(name))
        self._seen: dict[str, list[float]] = {}  #: durations of calls since the last flush
        self._counted: dict[str, int] = {}  #: and what is only counted

    def __call__(self, fact: Fact) -> None:
        if isinstance(fact, BatchFinished):
            self._batch(fact)
        elif isinstance(fact, SinkWritten):
            sink = self._sinks.get(fact.sink, OTHER)
            self._called("SinkDuration_" + sink, fact.seconds, "SinkFailures_" + sink, fact.failed)
        elif isinstance(fact, StoreCalled):
            self._called("StoreDuration", fact.seconds, "StoreFailures", fact.failed)
        elif isinstance(fact, RecordPostponed):
            self._count("RecordsPostponed", 1)

    def _called(self, duration: str, seconds: float, failures: str, failed: int) -> None:
        durations = self._seen.setdefault(duration, [])
        durations.append(seconds * 1000)
        if len(durations) >= _MAX_KEPT:
            durations[:] = spread(finite(durations))
        if failed:
            self._count(failures, failed)

    def _count(self, name: str, more: int) -> None:
        self._counted[name] = self._counted.get(name, 0) + more

    def _batch(self, fact: BatchFinished) -> None:
        seen, self._seen = self._seen, {}
        counted, self._counted = self._counted, {}
        measures: Measures = {**of_batch(fact), **seen, **{name: [count] for name, count in counted.items()}}
        own = self._own
        try:
            for name, values in writable(measures).items():
                # Not by add_metric: it takes one value at a time, and prints a line of its own at the hundredth.
                own.metric_set[name] = {"Unit": self._units[name], "StorageResolution": 60, "Value": values}
            if not TROUBLES.isdisjoint(measures):
                own.metadata_set[ERROR_TYPES] = error_types(fact.result.outcomes)
            if self._is_touched():
                self._take_given()
            _flush(own)
        finally:
            if own.metric_set:  # POWERTOOLS_METRICS_DISABLED, or a stream that is closed, let nothing out
                own.clear_metrics()

    def _is_touched(self) -> bool:
        given = self._given
        return bool(
            given.metric_set
            or given.metadata_set
            or given.dimension_sets
            or given.timestamp is not None
            or given.dimension_set != self._own.dimension_set
        )

    def _take_given(self) -> None:
        """What the handler itself added: into the same line, or before it where it would change what ours says."""
        given = self._given
        for name, metric in list(given.metric_set.items()):
            metric["Value"] = finite(metric["Value"])
            if not metric["Value"]:
                del given.metric_set[name]
        if _EMF in given.metadata_set or _EMF in given.metric_set:
            _log.warning("the handler's own %s is left out: it would make the line none of metrics", _EMF)
            given.metadata_set.pop(_EMF, None)
            given.metric_set.pop(_EMF, None)
        if not _is_json(given.metadata_set):
            _log.warning("the handler's add_metadata is left out: JSON cannot hold its value")
            given.metadata_set.clear()
        if self._fits():
            self._own.metric_set.update(given.metric_set)
            self._own.metadata_set.update(given.metadata_set)
        elif given.metric_set:
            given.flush_metrics()
        given.clear_metrics()
        given.timestamp = None

    def _fits(self) -> bool:
        """True when the handler has added metrics and no more: its dimensions or its time are not for ours."""
        given = self._given
        added = {*given.metric_set, *given.metadata_set}
        return (
            added.isdisjoint(self._own.metric_set)
            and ERROR_TYPES not in added
            and added.isdisjoint(self._dimensions)
            and {**given.dimension_set, "service": given.service} == self._dimensions
            and not given.dimension_sets
            and given.timestamp is None
            and given.namespace == self._own.namespace
            and len(given.metric_set) + len(self._own.metric_set) <= MAX_METRICS
        )


def metrics_for(pipeline: str, handler: str) -> EphemeralMetrics:
    """The metrics of one handler in one environment; handlers add their own to the same flush."""
    from aws_lambda_powertools.metrics import EphemeralMetrics  # only for what really writes metrics

    metrics = EphemeralMetrics(namespace=pipeline, service=pipeline)
    metrics.set_default_dimensions(handler=handler, function_name=os.environ.get(_FUNCTION_NAME) or handler)
    return metrics


def _like(metrics: EphemeralMetrics) -> EphemeralMetrics:
    """Others with the same dimensions, which no handler reaches."""
    return type(metrics)(
        namespace=metrics.namespace, service=metrics.service, default_dimensions=dict(metrics.default_dimensions)
    )


def _flush(metrics: EphemeralMetrics) -> None:
    """`flush_metrics`, with a faster encoder: its own takes a third of what a batch's metrics cost."""
    from aws_lambda_powertools.metrics.functions import is_metrics_disabled

    if is_metrics_disabled() or not metrics.metric_set:
        return
    try:
        line = orjson.dumps(metrics.serialize_metric_set()).decode()
    except TypeError:  # metadata of the handler's that only `json` writes: a large integer, a key that is no text
        metrics.flush_metrics()
        return
    try:
        print(line)  # noqa: T201 - as Powertools does: to whatever stdout is now
    except UnicodeEncodeError:  # a stream of another encoding: JSON can do with ASCII
        print(json.dumps(json.loads(line), separators=(",", ":")))  # noqa: T201
    metrics.clear_metrics()


def _is_json(metadata: dict[str, Any]) -> bool:
    try:
        return not metadata or bool(json.dumps(metadata, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return False
