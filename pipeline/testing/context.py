"""`context`: what a handler's `Context` parameter gets, for a test that calls the plain function."""

from __future__ import annotations

from pipeline.decisions.deadline import deadline
from pipeline.engine.context import Context
from pipeline.engine.environment import SystemClock
from pipeline.engine.processor import NO_DEADLINE
from pipeline.ports import Clock
from pipeline.telemetry.log import logger_for
from pipeline.telemetry.metrics import metrics_for


def context(
    *, pipeline: str = "test", handler: str = "test", remaining: float | None = None, clock: Clock | None = None
) -> Context:
    """A `Context` as the engine makes it, without a record: `price.function(order, context())`.

    Its logger writes JSON lines to stdout, at INFO. What is added to its metrics stands in `metrics.metric_set`, and is
    not written. Its span is the current one, which keeps nothing unless the test has begun one. `remaining`: seconds until
    `context.remaining()` is at its end, from now on; default: nothing limits the time.
    """
    used = clock or SystemClock()
    until = NO_DEADLINE if remaining is None else deadline(used.monotonic(), remaining)
    return Context(
        pipeline=pipeline,
        handler=handler,
        logger=logger_for(pipeline, "INFO"),
        metrics=metrics_for(pipeline, handler),
        deadline=until,
        clock=used,
    )
