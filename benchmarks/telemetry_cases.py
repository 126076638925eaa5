"""What telemetry costs: each case is the same function twice in one process, without its telemetry and with it.

The handler does nothing and there is no idempotency and no sink, so that the difference is telemetry's alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from benchmarks.invocations import Invoke, ours

#: Without telemetry, and with it.
Pair = tuple[Invoke, Invoke]


def _stage() -> Any:
    from pipeline import sources

    return ours(dict, sources.SQS("orders", batch_size=1_000, batching_window=1)).stage


def ours_default() -> Pair:
    """Lambda's entry point with log lines and metrics as they are by default, and without anybody who is told of facts."""
    from pipeline.runtimes.awslambda import LambdaRuntime

    stage = _stage()
    silent = LambdaRuntime(replace(stage, log_level="CRITICAL"), emit_metrics=False)

    def without(event: Any, context: Any) -> Any:
        answer = silent.invoke(event, context)
        assert silent._loop is not None
        silent._loop.processor._observers = ()  # also not the writer of lines, which would have nothing to write
        return answer

    return without, LambdaRuntime(stage).invoke


def ours_traced(ratio: float) -> Pair:
    """With OpenTelemetry's SDK, a part of the traces sampled, and an exporter that encodes spans as OTLP's does."""
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    from pipeline.telemetry import otel

    class Encoder(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            encode_spans(spans).SerializeToString()
            return SpanExportResult.SUCCESS

    found = TracerProvider(sampler=ParentBased(TraceIdRatioBased(ratio)))
    found.add_span_processor(BatchSpanProcessor(Encoder(), max_queue_size=100_000))
    trace.set_tracer_provider(found)
    without, telling = ours_default()
    theirs = otel.provider

    def silent(event: Any, context: Any) -> Any:
        otel.provider = lambda: None
        try:
            return without(event, context)
        finally:
            otel.provider = theirs

    return silent, telling


def powertools(*, tracer: bool = False) -> Pair:
    """As Powertools' pages on batches show it: a line in each record's handler, its context injected, its methods captured."""
    from aws_lambda_powertools import Logger
    from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response

    logger = Logger(service="shop")
    processor = BatchProcessor(event_type=EventType.SQS)

    def price(record: Any) -> None:
        record.json_body  # noqa: B018 - decodes

    def without(event: Any, context: Any) -> Any:
        return process_partial_response(event=event, record_handler=price, processor=processor, context=context)

    def told(record: Any) -> None:
        record.json_body  # noqa: B018 - decodes
        logger.info("processed", extra={"record_id": record.message_id})

    def telling(event: Any, context: Any) -> Any:
        return process_partial_response(event=event, record_handler=told, processor=processor, context=context)

    if tracer:
        from aws_lambda_powertools import Tracer

        tracing = Tracer(service="shop")
        told = tracing.capture_method(told)
        telling = tracing.capture_lambda_handler(telling)
    return without, logger.inject_lambda_context(telling)


#: What Lambda sets for a traced function; the daemon's address is nobody's.
_TRACED = {
    "POWERTOOLS_TRACE_DISABLED": "false",
    "AWS_XRAY_DAEMON_ADDRESS": "127.0.0.1:2000",
    "_X_AMZN_TRACE_ID": "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=",
}
OURS = "ours, by default"
LOGGER = "Powertools' Logger, a line for each record"
UNSAMPLED = "Powertools' Logger and Tracer, not sampled"
SAMPLED = "Powertools' Logger and Tracer, sampled"
OURS_UNSAMPLED = "ours with OpenTelemetry, not sampled"
OURS_SAMPLED = "ours with OpenTelemetry, sampled"

CASES: dict[str, Callable[[], Pair]] = {
    OURS: ours_default,
    OURS_UNSAMPLED: lambda: ours_traced(0.0),
    OURS_SAMPLED: lambda: ours_traced(1.0),
    LOGGER: powertools,
    UNSAMPLED: lambda: powertools(tracer=True),
    SAMPLED: lambda: powertools(tracer=True),
}
#: Those that need X-Ray's SDK, with the variables of their processes.
TRACED = {
    UNSAMPLED: {**_TRACED, "_X_AMZN_TRACE_ID": _TRACED["_X_AMZN_TRACE_ID"] + "0"},
    SAMPLED: {**_TRACED, "_X_AMZN_TRACE_ID": _TRACED["_X_AMZN_TRACE_ID"] + "1"},
}
