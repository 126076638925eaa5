"""OpenTelemetry set up for one test, with what was traced kept in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util._once import Once


class Traced:
    """What was traced."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """All spans that have ended, the first one first."""
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def runs(self) -> list[ReadableSpan]:
        """The spans of records."""
        return [span for span in self.spans if "messaging.message.id" in (span.attributes or {})]

    def run(self, record: str) -> ReadableSpan:
        """The one span of this record."""
        (found,) = [span for span in self.runs() if attributes(span)["messaging.message.id"] == record]
        return found

    def batch(self) -> ReadableSpan:
        """The one span of a batch."""
        (found,) = [
            span for span in self.spans if "messaging.batch.message_count" in attributes(span) and is_consumer(span)
        ]
        return found

    def clear(self) -> None:
        self._exporter.clear()


def is_consumer(span: ReadableSpan) -> bool:
    return span.kind is trace.SpanKind.CONSUMER


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def linked(span: ReadableSpan) -> set[tuple[int, int]]:
    """The spans that it has links to."""
    return {(link.context.trace_id, link.context.span_id) for link in span.links}


def place(span: ReadableSpan) -> tuple[int, int]:
    """What a link to it names."""
    return span.context.trace_id, span.context.span_id


@contextmanager
def traced(sampler: Any = None, exporter: SpanExporter | None = None) -> Iterator[Traced]:
    """OpenTelemetry with a provider while the block runs. Its own API sets one once in a process only."""
    memory = InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    if exporter is not None:
        provider.add_span_processor(SimpleSpanProcessor(exporter))
    with installed(provider):
        yield Traced(memory)
    provider.shutdown()


@contextmanager
def installed(provider: Any) -> Iterator[None]:
    """This is everybody's tracer provider while the block runs."""
    before = trace._TRACER_PROVIDER, trace._TRACER_PROVIDER_SET_ONCE
    trace._TRACER_PROVIDER, trace._TRACER_PROVIDER_SET_ONCE = None, Once()
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        trace._TRACER_PROVIDER, trace._TRACER_PROVIDER_SET_ONCE = before
