"""The span of a Lambda invocation, where OpenTelemetry is set up and nobody wraps the function; and its sending.

A function under OpenTelemetry's instrumentation of Lambda, or a layer with it, has that span already, and is sent by it.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pipeline.telemetry import conventions as names
from pipeline.telemetry import spans

if TYPE_CHECKING:
    from opentelemetry import trace

#: Set by Lambda: only there is a process frozen after its answer, so that what was not sent waits for the next one.
_FUNCTION, _TRACE = "AWS_LAMBDA_FUNCTION_NAME", "_X_AMZN_TRACE_ID"
#: The header that the variable holds, as OpenTelemetry's propagator for X-Ray wants it.
_HEADER = "X-Amzn-Trace-Id"
#: Seconds that an answer waits at most until the spans are sent. OpenTelemetry's own limit is not kept by its SDK.
FLUSH = 1.0

_log = logging.getLogger("pipeline")


@contextmanager
def invocation(context: Any, *, is_cold: bool) -> Iterator[None]:
    """The SERVER span of an invocation while the block runs; then all that was measured is sent, `FLUSH` seconds at most.

    Nothing where nobody has set OpenTelemetry up, outside Lambda, and where a span is there already. `context`: Lambda's.
    """
    if _FUNCTION not in os.environ or not _providers() or _is_wrapped():
        yield
        return
    span = _begin(context, is_cold=is_cold)
    try:
        if span is None:
            yield
            return
        from opentelemetry import trace

        with spans.attached(trace.set_span_in_context(span)):
            yield
    finally:
        _send(span, context)


def _providers() -> list[Any]:
    """What there is to be sent, of spans and of metrics."""
    metrics = sys.modules.get("opentelemetry.metrics")
    of_metrics = None if metrics is None else metrics.get_meter_provider()
    return [one for one in (spans.provider(), of_metrics) if getattr(one, "force_flush", None) is not None]


def _is_wrapped() -> bool:
    """Somebody has begun a span around this invocation, and sends it."""
    api = sys.modules.get("opentelemetry.trace")
    return api is not None and api.get_current_span().get_span_context().is_valid


@spans.quietly
def _begin(context: Any, *, is_cold: bool) -> trace.Span | None:
    tracer = spans.tracer()
    if tracer is None:
        return None
    from opentelemetry import propagate, trace

    # Whether X-Ray's header counts is the user's to say (OTEL_PROPAGATORS): where only X-Ray itself keeps its spans, a
    # parent of another backend's would be missing.
    parent = propagate.extract({_HEADER: os.environ.get(_TRACE, "")})
    return tracer.start_span(
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


@spans.quietly
def _send(span: trace.Span | None, context: Any) -> None:
    if span is not None:
        span.end()
    left = context.get_remaining_time_in_millis() / 1000
    _FLUSHES.flush(min(FLUSH, left / 2))


class _Flushes:
    """Sends what is ended, in a thread of its own: an exporter that hangs must not keep the answer back."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._has_complained = False

    def flush(self, seconds: float) -> None:
        """Wait for the sending, `seconds` at most. While one hangs there is no second one, and no answer waits for it."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._thread = threading.Thread(target=_flush, args=(_providers(),), name="pipeline-flush", daemon=True)
        self._thread.start()
        self._thread.join(max(seconds, 0.0))
        if self._thread.is_alive() and not self._has_complained:
            self._has_complained = True
            _log.warning("spans and metrics could not be sent within %.1f s: answers go out without them", seconds)


@spans.quietly
def _flush(providers: list[Any]) -> None:
    for provider in providers:
        provider.force_flush()


_FLUSHES = _Flushes()
