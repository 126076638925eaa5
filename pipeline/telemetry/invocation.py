"""The span of a Lambda invocation, where OpenTelemetry is set up and nobody wraps the function; and its sending.

A function under OpenTelemetry's instrumentation of Lambda, or a layer with it, has that span already, and is sent by it.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from pipeline.telemetry import conventions as names
from pipeline.telemetry.otel import attached, provider, quietly, tracer

if TYPE_CHECKING:
    from opentelemetry import trace
    from opentelemetry.context import Context as OtelContext

#: Set by Lambda: only there is a process frozen after its answer, so that what was not sent waits for the next one.
_FUNCTION, _TRACE = "AWS_LAMBDA_FUNCTION_NAME", "_X_AMZN_TRACE_ID"
#: The header that the variable holds, as OpenTelemetry's propagator for X-Ray wants it.
_HEADER = "X-Amzn-Trace-Id"
#: Who has a span of the invocation already, and sends what is traced: OpenTelemetry's instrumentation, a layer with it.
_INSTRUMENTATION, _WRAPPER = "opentelemetry.instrumentation.aws_lambda", "AWS_LAMBDA_EXEC_WRAPPER"
#: Seconds that an answer waits at most until the spans are sent. OpenTelemetry's own limit is not kept by its SDK.
FLUSH = 1.0

_log = logging.getLogger("pipeline")


@contextmanager
def invocation(context: Any, *, is_cold: bool) -> Iterator[None]:
    """The SERVER span of an invocation while the block runs; then all that was measured is sent, `FLUSH` seconds at most.

    Nothing where nobody has set OpenTelemetry up, outside Lambda, and under a wrapper that has the span and sends it.
    `context`: Lambda's.
    """
    if _FUNCTION not in os.environ or not _providers() or _is_sent_by_others():
        yield
        return
    span = _begin(context, is_cold=is_cold)
    try:
        with nullcontext() if span is None else attached(_around(span)):
            yield
    finally:
        _send(span, context)


@quietly
def _providers() -> list[Any]:
    """What there is to be sent, of spans and of metrics."""
    metrics = sys.modules.get("opentelemetry.metrics")
    of_metrics = None if metrics is None else metrics.get_meter_provider()
    return [one for one in (provider(), of_metrics) if getattr(one, "force_flush", None) is not None]


def _is_sent_by_others() -> bool:
    """OpenTelemetry's instrumentation of Lambda is around: alone, or brought by a layer's wrapper script."""
    is_there = _INSTRUMENTATION in sys.modules or _WRAPPER in os.environ
    return is_there and bool(_is_inside_a_span())


@quietly
def _is_inside_a_span() -> bool:
    api = sys.modules.get("opentelemetry.trace")
    return api is not None and api.get_current_span().get_span_context().is_valid


def _around(span: trace.Span) -> OtelContext:
    from opentelemetry import trace

    return trace.set_span_in_context(span)


@quietly
def _begin(context: Any, *, is_cold: bool) -> trace.Span | None:
    ours = tracer()
    if ours is None or _is_inside_a_span():
        return None
    from opentelemetry import propagate, trace

    # Whether X-Ray's header counts is the user's to say (OTEL_PROPAGATORS): where only X-Ray itself keeps its spans, a
    # parent of another backend's would be missing.
    parent = propagate.extract({_HEADER: os.environ.get(_TRACE, "")})
    return ours.start_span(
        str(getattr(context, "function_name", None) or os.environ[_FUNCTION]),
        context=parent,
        kind=trace.SpanKind.SERVER,
        attributes=_attributes(context, is_cold=is_cold),
    )


def _attributes(context: Any, *, is_cold: bool) -> dict[str, str | bool]:
    found: dict[str, str | bool] = {names.TRIGGER: "pubsub", names.COLD_START: is_cold}
    arn = getattr(context, "invoked_function_arn", None)
    if isinstance(arn, str):
        parts = arn.split(":")
        found[names.INVOKED_ARN] = arn
        if len(parts) >= 7:
            found[names.ACCOUNT] = parts[4]
            found[names.RESOURCE] = ":".join(parts[:7])  # without the version or alias
    request = getattr(context, "aws_request_id", None)
    if isinstance(request, str):
        found[names.INVOCATION] = request
    return found


@quietly
def _send(span: trace.Span | None, context: Any) -> None:
    left = context.get_remaining_time_in_millis() / 1000
    _FLUSHES.flush(span, time.time_ns(), min(FLUSH, left / 2))


class _Flushes:
    """Sends what is ended, in a thread of its own: an exporter that hangs must not keep the answer back."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._has_complained = False

    def flush(self, span: trace.Span | None, ended: int, seconds: float) -> None:
        """Wait for the sending, `seconds` at most. While one hangs there is no second one, and no answer waits for it.

        `span`: the invocation's, which ends first; `ended`: when it did, in nanoseconds.
        """
        if self._thread is not None and self._thread.is_alive():
            return
        self._thread = threading.Thread(target=_flush, args=(span, ended), name="pipeline-flush", daemon=True)
        self._thread.start()
        self._thread.join(max(seconds, 0.0))
        if self._thread.is_alive() and not self._has_complained:
            self._has_complained = True
            _log.warning("spans and metrics could not be sent within %.2f s: answers go out without them", seconds)


@quietly
def _flush(span: trace.Span | None, ended: int) -> None:
    if span is not None:
        span.end(ended)
    for one in _providers() or ():
        one.force_flush()


_FLUSHES = _Flushes()
