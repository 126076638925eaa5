"""Facts as CloudWatch metrics, by Powertools' Metrics (EMF): one flush a batch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pipeline.outcome import tally
from pipeline.telemetry.events import BatchFinished, Fact

if TYPE_CHECKING:
    from aws_lambda_powertools.metrics import EphemeralMetrics

#: Metric names for outcomes. A batch writes those that occurred: what is missing counts as nothing.
OUTCOMES = {
    "succeeded": "RecordsSucceeded",
    "duplicate": "RecordsDuplicate",
    "rejected": "RecordsRejected",
    "exhausted": "RecordsExhausted",
    "failed": "RecordsFailed",
    "unprocessed": "RecordsHandedBack",
}


#: Set by Lambda; elsewhere the handler's name stands for it.
_FUNCTION_NAME = "AWS_LAMBDA_FUNCTION_NAME"


class MetricsWriter:
    """Writes the metrics of one handler: records by outcome, age, durations and batch size.

    Namespace: the pipeline's name; dimensions: `service` (the pipeline), `handler`, and `function_name`, because
    two stacks in one account must not ring each other's alarms.
    """

    failures_only = True

    def __init__(self, metrics: EphemeralMetrics) -> None:
        self._metrics = metrics

    def __call__(self, fact: Fact) -> None:
        if isinstance(fact, BatchFinished):
            self._batch(fact)

    def _batch(self, fact: BatchFinished) -> None:
        metrics = self._metrics
        counts = tally(fact.result.outcomes)
        for outcome, name in OUTCOMES.items():
            if counts[outcome]:
                metrics.add_metric(name=name, unit="Count", value=counts[outcome])
        metrics.add_metric(name="BatchSize", unit="Count", value=len(fact.result))
        metrics.add_metric(name="BatchDuration", unit="Milliseconds", value=fact.seconds * 1000)
        metrics.add_metric(name="SlowestRecord", unit="Milliseconds", value=fact.slowest * 1000)
        if fact.oldest is not None:
            metrics.add_metric(name="OldestRecordAge", unit="Seconds", value=fact.oldest)
        metrics.flush_metrics()


def metrics_for(pipeline: str, handler: str) -> EphemeralMetrics:
    """The metrics of one handler in one environment; handlers add their own to the same flush."""
    from aws_lambda_powertools.metrics import EphemeralMetrics  # only for what really writes metrics

    metrics = EphemeralMetrics(namespace=pipeline, service=pipeline)
    metrics.set_default_dimensions(handler=handler, function_name=os.environ.get(_FUNCTION_NAME, handler))
    return metrics
