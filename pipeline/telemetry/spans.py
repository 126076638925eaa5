"""Facts as spans, by OpenTelemetry's API, where somebody has set it up (`telemetry.otel`); else nothing is done.

One span of a batch, one of each run of a record, one of each call to a sink or a store. A record's span is a child of the
span that made the record, so that a record and all that it causes are one trace; it is linked with its batch's, which is in
the invocation's trace.
"""

from __future__ import annotations

import contextvars
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from pipeline.batch import BatchResult
from pipeline.decisions import tracing
from pipeline.outcome import Failed, Outcome, Rejected, Succeeded, Unprocessed, name_of, tally
from pipeline.record import RawRecord, TraceContext
from pipeline.telemetry import conventions as names
from pipeline.telemetry.current import BATCH, CURRENT, CurrentBatch
from pipeline.telemetry.otel import (
    around_of,
    attached,
    clean,
    distinct,
    links_to,
    mark_failed,
    named_by,
    nanoseconds,
    quietly,
    span_context,
    trace_api,
    tracer,
)

if TYPE_CHECKING:
    from opentelemetry import trace
    from opentelemetry.context import Context as OtelContext

Attributes = Mapping[str, str | bool | int | float]
#: A `traceparent`, and the `tracestate` beside it.
MadeBy = tuple[str | None, str | None]

#: Records of one batch that are traced although nobody samples them, because they failed. In an outage the first ones say it.
MAX_FORCED = 20
_SAMPLED = 1
_NOTHING = nullcontext()


class BatchSpan:
    """The span of one batch, and what its records' spans have in common."""

    def __init__(self, tracer: trace.Tracer, attributes: Attributes, now: float, *, is_stream: bool) -> None:
        self._tracer = tracer
        self._attributes = attributes
        self._is_stream = is_stream
        #: Records that are traced although nobody samples them, and how many runs of each.
        self._forced: dict[str, int] = {}
        self._late: list[tuple[trace.Span, float]] | None = None
        self.named: TraceContext | None = None  #: what others call it
        self._name = f"{names.PROCESS} {attributes.get(names.DESTINATION, '')}".rstrip()
        self._now = now
        self._span: trace.Span
        self._is_ours = True

    def open(self, records: Sequence[RawRecord]) -> None:
        """Begin it, or take over the one that OpenTelemetry's instrumentation of Lambda has begun for the same batch."""
        otel = trace_api()
        links = links_to(_sources(records))
        attributes = {**self._attributes, names.MESSAGE_COUNT: len(records), names.TRIGGER: "pubsub"}
        around = otel.get_current_span()
        self._is_ours = not _is_of_batch(around)
        if self._is_ours:
            self._span = self._tracer.start_span(
                self._name,
                kind=otel.SpanKind.CONSUMER,
                attributes=attributes,
                links=links,
                start_time=nanoseconds(self._now),
                record_exception=False,
                set_status_on_exception=False,
            )
            self.named = named_by(self._span.get_span_context())
            return
        self._span = around
        self.named = named_by(around.get_span_context())
        there = getattr(around, "attributes", None) or {}
        around.set_attributes({name: value for name, value in attributes.items() if name not in there})
        known = {link.context.span_id for link in getattr(around, "links", None) or ()}
        for link in links:
            if link.context.span_id not in known:
                around.add_link(link.context, link.attributes)

    def around(self) -> OtelContext:
        """The context of what belongs to the batch, and to no record of it."""
        around: OtelContext = trace_api().set_span_in_context(self._span)
        return around

    def run(self, raw: RawRecord, now: float) -> RunSpan:
        """The span of a record's run that begins now: a child of what made the record, linked with its batch."""
        otel = trace_api()
        others = list(raw.traces[1:])
        attributes = {
            **self._attributes,
            names.MESSAGE_ID: clean(raw.id),
        }
        shard = raw.attributes.get("shard_id") if self._is_stream else None
        if shard is not None:
            attributes[names.PARTITION] = clean(shard)
        own = self._span.get_span_context()
        parent = around_of(raw.traces[0]) if raw.traces else self.around()
        links = [otel.Link(span_context(other)) for other in others]
        if raw.traces and own.is_valid:
            links.append(otel.Link(own))
        return RunSpan(self, raw.id, self._name, attributes, parent, links, now)

    def start(
        self, name: str, attributes: Attributes, parent: OtelContext, links: Sequence[trace.Link], now: float
    ) -> trace.Span:
        """Begin the span of a run."""
        otel = trace_api()
        return self._tracer.start_span(
            name,
            context=parent,
            kind=otel.SpanKind.CONSUMER,
            attributes=attributes,
            links=links,
            start_time=nanoseconds(now),
            record_exception=False,
            set_status_on_exception=False,
        )

    def may_force(self, record: str, outcome: Outcome) -> bool:
        """This run may be traced although nobody samples it: a record's first failed one, and the one that it ends with."""
        runs = self._forced.get(record, 0)
        if runs == 0 and len(self._forced) >= MAX_FORCED:
            return False
        if runs and not (runs == 1 and isinstance(outcome, Rejected)):
            return False
        self._forced[record] = runs + 1
        return True

    def finish(self, span: trace.Span, now: float) -> None:
        """End a span. One that ends when the time is up is ended elsewhere: a processor that sends it at once may hang."""
        if self._late is None:
            span.end(nanoseconds(now))
        else:
            self._late.append((span, now))

    def end_elsewhere(self) -> None:
        """The time is up: from now on nothing here may keep the answer back."""
        if self._late is None:
            self._late = []

    def call(
        self, name: str, attributes: Attributes, made_by: Iterable[MadeBy], now: float
    ) -> tuple[trace.Span, OtelContext]:
        """The span of a shared call: of one record when it is for one only, else of the batch, with links."""
        otel = trace_api()
        records = distinct(tracing.parse_traceparent(*one) for one in made_by)
        is_shared = len(records) != 1
        span = self._tracer.start_span(
            name,
            context=self.around() if is_shared else around_of(records[0], is_remote=False),
            kind=otel.SpanKind.CLIENT if attributes else otel.SpanKind.INTERNAL,
            attributes=attributes,
            links=[otel.Link(span_context(one)) for one in records] if is_shared else (),
            start_time=nanoseconds(now),
            record_exception=False,
            set_status_on_exception=False,
        )
        return span, otel.set_span_in_context(span)

    @quietly
    def end(self, result: BatchResult, now: float) -> None:
        """End it. What became of its records is told by numbers: it has not failed because one of them has."""
        for word, count in tally(result.outcomes).items():
            self._span.set_attribute(f"{names.RECORDS}{word}", count)
        if self._is_ours:
            self.finish(self._span, now)
        if self._late:
            _LATE.end(self._late)


class RunSpan:
    """The span of one run of a record."""

    def __init__(
        self,
        batch: BatchSpan,
        record: str,
        name: str,
        attributes: Attributes,
        parent: OtelContext,
        links: Sequence[trace.Link],
        now: float,
    ) -> None:
        otel = trace_api()
        self._batch = batch
        self._record = record
        self._name = name
        self._attributes = attributes
        self._parent = parent
        self._links = links
        self._started = now
        self._span = batch.start(name, attributes, parent, links, now)
        self._context = otel.set_span_in_context(self._span, parent)
        self.trace = named_by(self._span.get_span_context())  #: what its lines and its outputs name

    def entered(self) -> AbstractContextManager[None]:
        """While the block runs, in one task, the span is the current one, also for the handler's own spans."""
        return attached(self._context)

    @quietly
    def end(self, outcome: Outcome, attempt: int, key_hash: str | None, now: float) -> TraceContext | None:
        """End it; returns what the record's line names. One that failed is traced, whoever samples."""
        span, named = self._span, self.trace
        error = getattr(outcome, "error", None)
        is_sampled = named is not None and named.is_sampled
        if not is_sampled and isinstance(outcome, (Failed, Rejected)) and self._batch.may_force(self._record, outcome):
            forced = self._forced()
            if forced is not None:
                self._batch.finish(span, now)
                span, named = forced, named_by(forced.get_span_context())
        span.set_attribute(names.OUTCOME, name_of(outcome))
        span.set_attribute(names.ATTEMPT, attempt)
        if key_hash is not None:
            span.set_attribute(names.KEY_HASH, key_hash)
        if isinstance(outcome, Succeeded):
            span.set_attribute(names.OUTPUTS, outcome.outputs)
        if isinstance(outcome, Unprocessed):
            span.set_attribute(names.REASON, outcome.reason.value)
        if error is not None:
            mark_failed(span, error)
        self._batch.finish(span, now)
        return named

    def _forced(self) -> trace.Span | None:
        """The same run once more, as a child of something that was sampled: samplers go by the parent.

        None when it was not kept: the sampler does not go by the parent, or everything is switched off.
        """
        otel = trace_api()
        parent = otel.get_current_span(self._parent).get_span_context()
        own = self._span.get_span_context()
        if not parent.is_valid and not own.is_valid:
            return None
        sampled = otel.SpanContext(
            own.trace_id if own.is_valid else parent.trace_id,
            parent.span_id if parent.is_valid else own.span_id,
            is_remote=True,
            trace_flags=otel.TraceFlags(_SAMPLED),
            trace_state=parent.trace_state,
        )
        around = otel.set_span_in_context(otel.NonRecordingSpan(sampled))
        span = self._batch.start(self._name, self._attributes, around, self._links, self._started)
        made = span.get_span_context()
        return span if made.trace_flags & _SAMPLED and made.span_id != sampled.span_id else None


#: The batch whose work this is. Shared calls find their span's parent by it.
_BATCH: ContextVar[BatchSpan | None] = ContextVar("pipeline_batch_span", default=None)


@quietly
def begin_batch(
    pipeline: str,
    handler: str,
    described: Mapping[str, str],
    records: Sequence[RawRecord],
    now: float,
    *,
    is_stream: bool,
) -> BatchSpan | None:
    """The span of a batch that begins now; None while nobody has set OpenTelemetry up."""
    ours = tracer()
    if ours is None:
        return None
    attributes = {**described, names.PIPELINE: pipeline, names.HANDLER: handler}
    batch = BatchSpan(ours, attributes, now, is_stream=is_stream)
    batch.open(records)
    return batch


@quietly
def begin_run(batch: BatchSpan, raw: RawRecord, now: float) -> RunSpan | None:
    """The span of a run that begins now."""
    return batch.run(raw, now)


class inside:  # noqa: N801 - used as a function is
    """While the block runs, in one task, what begins belongs to the batch, and to no record."""

    def __init__(self, batch: BatchSpan | None, named: CurrentBatch | None = None) -> None:
        self._batch = batch
        self._named = named  #: what its lines say
        self._attached: AbstractContextManager[None] = _NOTHING if batch is None else attached(batch.around())

    def __enter__(self) -> None:
        self._before = CURRENT.get(), BATCH.get(), _BATCH.get()
        CURRENT.set(None)
        BATCH.set(self._named)
        _BATCH.set(self._batch)
        self._attached.__enter__()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is GeneratorExit:
            return  # the coroutine is being closed, wherever that is: nothing follows it here
        self._attached.__exit__(None, None, None)
        current, named, batch = self._before
        CURRENT.set(current)
        BATCH.set(named)
        _BATCH.set(batch)


def outside() -> contextvars.Context:
    """Where what outlives a batch is made: it belongs to no record and to no span."""
    around = contextvars.copy_context()
    around.run(_leave)
    return around


def _leave() -> None:
    CURRENT.set(None)
    BATCH.set(None)
    _BATCH.set(None)
    api = sys.modules.get("opentelemetry.context")
    if api is not None:
        api.attach(api.Context())


class CallSpan:
    """The span of a shared call, while it lasts; nothing where nobody traces."""

    def __init__(self, span: trace.Span | None = None) -> None:
        self._span = span

    @quietly
    def failed(self, error: BaseException, count: int, *, is_whole: bool) -> None:
        """Some of what the call carried was not accepted; `is_whole`: none of it was, so the call has failed."""
        if self._span is not None:
            self._span.set_attribute(names.FAILED, count)
            if is_whole:
                mark_failed(self._span, error)


_NO_CALL = CallSpan()


@contextmanager
def call(
    name: str, described: Mapping[str, Any], now: Callable[[], float], made_by: Iterable[MadeBy] = ()
) -> Iterator[CallSpan]:
    """The span of a shared call while the block runs, in one task. `made_by`: which spans made what it carries."""
    batch = _BATCH.get()
    opened = None if batch is None else _open_call(batch, name, described, made_by, now())
    if opened is None:
        yield _NO_CALL
        return
    span, around = opened
    try:
        with attached(around):
            yield CallSpan(span)
    finally:
        _end(span, now())


@quietly
def _open_call(
    batch: BatchSpan, name: str, described: Mapping[str, Any], made_by: Iterable[MadeBy], now: float
) -> tuple[trace.Span, OtelContext]:
    return batch.call(name, described, made_by, now)


@quietly
def _end(span: trace.Span, now: float) -> None:
    span.end(nanoseconds(now))


class _Late:
    """Ends spans in a thread of its own. While one of them hangs, later ones are given up: they are not sent."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    def end(self, late: list[tuple[trace.Span, float]]) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._end, args=(late,), name="pipeline-late-spans", daemon=True)
            self._thread.start()

    def _end(self, late: list[tuple[trace.Span, float]]) -> None:
        for span, now in late:
            _end(span, now)


_LATE = _Late()


def _is_of_batch(span: trace.Span) -> bool:
    """It is the span of a batch already: OpenTelemetry's instrumentation of Lambda makes one for SQS.

    Asked of what it says of itself: Lambda layers bring spans of other classes than the SDK's.
    """
    from opentelemetry.trace import SpanKind

    attributes = getattr(span, "attributes", None) or {}
    is_process = attributes.get(names.OPERATION_TYPE) == names.PROCESS and names.HANDLER not in attributes
    return is_process and span.is_recording() and getattr(span, "kind", None) is SpanKind.CONSUMER


def _sources(records: Iterable[RawRecord]) -> Iterator[tuple[TraceContext, str]]:
    return ((one, record.id) for record in records for one in record.traces)
