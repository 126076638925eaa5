"""Facts as spans, by OpenTelemetry's API, where somebody has set it up; else nothing is imported, and nothing is done.

One span of a batch, one of each run of a record, one of each call to a sink or a store. A record's span is a child of the
span that made the record, so that a record and all that it causes are one trace; it is linked with its batch's, which is in
the invocation's trace. Trouble of a tracer is nobody else's: whatever it raises is logged once.
"""

from __future__ import annotations

import contextvars
import functools
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

from pipeline.batch import BatchResult
from pipeline.decisions import tracing
from pipeline.outcome import Failed, Outcome, Rejected, Succeeded, Unprocessed, name_of, tally, text_of
from pipeline.record import RawRecord, TraceContext
from pipeline.telemetry import conventions as names
from pipeline.telemetry.current import CURRENT

if TYPE_CHECKING:
    from opentelemetry import trace
    from opentelemetry.context import Context as OtelContext

P = ParamSpec("P")
T = TypeVar("T")

Attributes = Mapping[str, str | bool | int | float]
#: A `traceparent`, and the `tracestate` beside it.
MadeBy = tuple[str | None, str | None]

#: Links of one span: what OpenTelemetry's SDK keeps of them, unless it is told otherwise (OTEL_SPAN_LINK_COUNT_LIMIT).
MAX_LINKS = 128
#: Records of one batch that are traced although nobody samples them, because they failed. In an outage the first ones say it.
MAX_FORCED = 20
#: A message of an error is cut to this many characters.
_MESSAGE = 500
_SAMPLED = 1

_log = logging.getLogger("pipeline")


class Span(Protocol):
    """What a handler may do with the span of its record; see OpenTelemetry's own `Span`."""

    def set_attribute(self, key: str, value: Any) -> None:
        """Add a value to the span. What is not text, a number, a truth value or a list of one of them is left out."""
        ...

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Add several."""
        ...

    def add_event(self, name: str, attributes: Any = None) -> None:
        """Add something that happened now."""
        ...

    def record_exception(self, exception: BaseException) -> None:
        """Add an error that was dealt with, with its traceback. What the handler raises is told anyway."""
        ...

    def get_span_context(self) -> Any:
        """Its ids: `trace_id`, `span_id`, `is_valid`."""
        ...

    def is_recording(self) -> bool:
        """False when nothing is kept of it: nobody traces, or this one was not sampled."""
        ...


class _NoContext:
    """No span's ids, as OpenTelemetry has them."""

    trace_id, span_id, trace_flags = 0, 0, 0
    trace_state: Mapping[str, str] = MappingProxyType({})
    is_valid = is_remote = False


class _NoSpan:
    """Where nobody traces. It takes whatever OpenTelemetry's own would: a test must not fail where production does not."""

    def get_span_context(self) -> Any:
        return _NoContext

    def is_recording(self) -> bool:
        return False

    def _nothing(self, *args: Any, **kwargs: Any) -> None:
        return

    set_attribute = set_attributes = add_event = record_exception = _nothing
    set_status = update_name = add_link = end = _nothing


_NO_SPAN = _NoSpan()
_NOTHING = nullcontext()


def quietly(function: Callable[P, T]) -> Callable[P, T | None]:
    """None where it raises: a tracer's trouble must not reach a record."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return function(*args, **kwargs)
        except Exception:
            _complain(function.__name__)
            return None

    return call


@functools.cache
def _api() -> Any:
    """OpenTelemetry's module: an import in a function that is called for each record costs a microsecond each time."""
    from opentelemetry import trace

    return trace


@functools.cache
def _contexts() -> Any:
    from opentelemetry import context

    return context


@functools.cache
def _complain(what: str) -> None:
    _log.warning("OpenTelemetry failed (%s); the work goes on, and spans are missing", what, exc_info=True)


@quietly
def _current() -> Span | None:
    api = sys.modules.get("opentelemetry.trace")
    span: Span | None = None if api is None else api.get_current_span()
    return span


def current() -> Span:
    """The span of the record that is worked on, or of whatever is at work here."""
    span = _current()
    return _NO_SPAN if span is None else span


@quietly
def provider() -> Any:
    """OpenTelemetry's tracer provider; None while nobody has set one up."""
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return None
    found = api.get_tracer_provider()
    return None if isinstance(found, (api.ProxyTracerProvider, api.NoOpTracerProvider)) else found


@functools.lru_cache(maxsize=2)
def _tracer(of: Any) -> trace.Tracer | None:
    from opentelemetry.trace import NoOpTracer

    version = getattr(sys.modules.get("pipeline"), "__version__", None)
    tracer: trace.Tracer = of.get_tracer("pipeline", version, schema_url=names.SCHEMA)
    return None if isinstance(tracer, NoOpTracer) else tracer  # OTEL_SDK_DISABLED


@quietly
def tracer() -> trace.Tracer | None:
    """Our tracer; None while nobody has set OpenTelemetry up."""
    found = provider()
    return None if found is None else _tracer(found)


class BatchSpan:
    """The span of one batch, and what its records' spans have in common."""

    def __init__(self, tracer: trace.Tracer, attributes: Attributes, now: float, *, is_stream: bool) -> None:
        self._tracer = tracer
        self._attributes = attributes
        self._is_stream = is_stream
        self._forced: dict[
            str, int
        ] = {}  #: records that are traced although nobody samples them, and how many runs of each
        self._late: list[tuple[trace.Span, float]] | None = None
        self.named: TraceContext | None = None  #: what others call it
        self._name = f"{names.PROCESS} {attributes.get(names.DESTINATION, '')}".rstrip()
        self._now = now
        self._span: trace.Span
        self._is_ours = True

    def open(self, records: Sequence[RawRecord]) -> None:
        """Begin it, or take over the one that OpenTelemetry's instrumentation of Lambda has begun for the same batch."""
        api = _api()
        links = _links(_sources(records))
        attributes = {**self._attributes, names.MESSAGE_COUNT: len(records), names.TRIGGER: "pubsub"}
        around = api.get_current_span()
        self._is_ours = not _is_of_batch(around)
        if self._is_ours:
            self._span = self._tracer.start_span(
                self._name,
                kind=api.SpanKind.CONSUMER,
                attributes=attributes,
                links=links,
                start_time=_nanoseconds(self._now),
                record_exception=False,
                set_status_on_exception=False,
            )
            self.named = _named(self._span.get_span_context())
            return
        self._span = around
        self.named = _named(around.get_span_context())
        there = getattr(around, "attributes", None) or {}
        around.set_attributes({name: value for name, value in attributes.items() if name not in there})
        known = {link.context.span_id for link in getattr(around, "links", None) or ()}
        for link in links:
            if link.context.span_id not in known:
                around.add_link(link.context, link.attributes)

    def around(self) -> OtelContext:
        """The context of what belongs to the batch, and to no record of it."""
        around: OtelContext = _api().set_span_in_context(self._span)
        return around

    def run(self, raw: RawRecord, now: float) -> RunSpan:
        """The span of a record's run that begins now: a child of what made the record, linked with its batch."""
        api = _api()
        others = list(raw.traces[1:])
        attributes = {
            **self._attributes,
            names.MESSAGE_ID: clean(raw.id),
        }
        shard = raw.attributes.get("shard_id") if self._is_stream else None
        if shard is not None:
            attributes[names.PARTITION] = clean(shard)
        own = self._span.get_span_context()
        parent = _remote(raw.traces[0]) if raw.traces else self.around()
        links = [api.Link(_span_context(other)) for other in others]
        if raw.traces and own.is_valid:
            links.append(api.Link(own))
        return RunSpan(self, raw.id, self._name, attributes, parent, links, now)

    def start(
        self, name: str, attributes: Attributes, parent: OtelContext, links: Sequence[trace.Link], now: float
    ) -> trace.Span:
        """Begin the span of a run."""
        api = _api()
        return self._tracer.start_span(
            name,
            context=parent,
            kind=api.SpanKind.CONSUMER,
            attributes=attributes,
            links=links,
            start_time=_nanoseconds(now),
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
            span.end(_nanoseconds(now))
        else:
            self._late.append((span, now))

    def is_late(self) -> None:
        """The time is up: from now on nothing here may keep the answer back."""
        if self._late is None:
            self._late = []

    def call(
        self, name: str, attributes: Attributes, made_by: Iterable[MadeBy], now: float
    ) -> tuple[trace.Span, OtelContext]:
        """The span of a shared call: of one record when it is for one only, else of the batch, with links."""
        api = _api()
        records = _distinct(tracing.parse_traceparent(*one) for one in made_by)
        is_shared = len(records) != 1
        span = self._tracer.start_span(
            name,
            context=self.around() if is_shared else _remote(records[0], is_remote=False),
            kind=api.SpanKind.CLIENT if attributes else api.SpanKind.INTERNAL,
            attributes=attributes,
            links=[api.Link(_span_context(one)) for one in records] if is_shared else (),
            start_time=_nanoseconds(now),
            record_exception=False,
            set_status_on_exception=False,
        )
        return span, api.set_span_in_context(span)

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
        api = _api()
        self._batch = batch
        self._record = record
        self._name = name
        self._attributes = attributes
        self._parent = parent
        self._links = links
        self._started = now
        self._span = batch.start(name, attributes, parent, links, now)
        self._context = api.set_span_in_context(self._span, parent)
        self.trace = _named(self._span.get_span_context())  #: what its lines and its outputs name

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
                span, named = forced, _named(forced.get_span_context())
        span.set_attribute(names.OUTCOME, name_of(outcome))
        span.set_attribute(names.ATTEMPT, attempt)
        if key_hash is not None:
            span.set_attribute(names.KEY_HASH, key_hash)
        if isinstance(outcome, Succeeded):
            span.set_attribute(names.OUTPUTS, outcome.outputs)
        if isinstance(outcome, Unprocessed):
            span.set_attribute(names.REASON, outcome.reason.value)
        if error is not None:
            _failed(span, error)
        self._batch.finish(span, now)
        return named

    def _forced(self) -> trace.Span | None:
        """The same run once more, as a child of something that was sampled: samplers go by the parent.

        None when it was not kept: the sampler does not go by the parent, or everything is switched off.
        """
        api = _api()
        parent = api.get_current_span(self._parent).get_span_context()
        own = self._span.get_span_context()
        if not parent.is_valid and not own.is_valid:
            return None
        sampled = api.SpanContext(
            own.trace_id if own.is_valid else parent.trace_id,
            parent.span_id if parent.is_valid else own.span_id,
            is_remote=True,
            trace_flags=api.TraceFlags(_SAMPLED),
            trace_state=parent.trace_state,
        )
        around = api.set_span_in_context(api.NonRecordingSpan(sampled))
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

    def __init__(self, batch: BatchSpan | None) -> None:
        self._batch = batch
        self._attached: AbstractContextManager[None] = _NOTHING if batch is None else attached(batch.around())

    def __enter__(self) -> None:
        self._before = CURRENT.get(), _BATCH.get()
        CURRENT.set(None)
        _BATCH.set(self._batch)
        self._attached.__enter__()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is GeneratorExit:
            return  # the coroutine is being closed, wherever that is: nothing follows it here
        self._attached.__exit__(None, None, None)
        current, batch = self._before
        CURRENT.set(current)
        _BATCH.set(batch)


def outside() -> contextvars.Context:
    """Where what outlives a batch is made: it belongs to no record and to no span."""
    around = contextvars.copy_context()
    around.run(_leave)
    return around


def _leave() -> None:
    CURRENT.set(None)
    _BATCH.set(None)
    api = sys.modules.get("opentelemetry.context")
    if api is not None:
        api.attach(api.Context())


def unseen() -> AbstractContextManager[None]:
    """While the block runs, instrumentation of HTTP clients makes no spans: what is called here has its own."""
    api = sys.modules.get("opentelemetry.context")
    key = getattr(api, "_SUPPRESS_HTTP_INSTRUMENTATION_KEY", None)
    return _NOTHING if api is None or key is None else attached(api.set_value(key, True))


class attached:  # noqa: N801 - used as a function is
    """An OpenTelemetry context that is the current one while a block runs, in one task."""

    def __init__(self, around: OtelContext) -> None:
        self._around = around

    def __enter__(self) -> None:
        self._token = _contexts().attach(self._around)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is GeneratorExit:
            return  # the coroutine is being closed, wherever that is: nothing follows it here
        _contexts().detach(self._token)


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
                _failed(self._span, error)


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
    span.end(_nanoseconds(now))


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


def clean(text: str) -> str:
    """Text that can be sent: one lone surrogate, and an exporter drops everything that it was to send with it."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _failed(span: trace.Span, error: BaseException) -> None:
    """The conventions want the type and a message, and no event: that would quote the whole traceback."""
    from opentelemetry.trace import Status, StatusCode

    kind = clean(type(error).__name__)
    span.set_attribute(names.ERROR_TYPE, kind)
    span.set_status(Status(StatusCode.ERROR, clean(f"{kind}: {text_of(error)}"[:_MESSAGE])))


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


def _links(sources: Iterable[tuple[TraceContext, str]]) -> list[trace.Link]:
    """A link for each span that made a record; those beyond the limit are on the records' own spans."""
    api = _api()
    found: dict[tuple[str, str], trace.Link] = {}
    for source, message in sources:
        place = (source.trace_id, source.span_id)
        if place not in found:
            found[place] = api.Link(_span_context(source), {names.MESSAGE_ID: clean(message)})
            if len(found) == MAX_LINKS:
                break
    return list(found.values())


def _distinct(found: Iterable[TraceContext | None]) -> list[TraceContext]:
    """Each span once, as many as may be linked."""
    distinct: dict[tuple[str, str], TraceContext] = {}
    for one in found:
        if one is not None:
            distinct.setdefault((one.trace_id, one.span_id), one)
            if len(distinct) == MAX_LINKS:
                break
    return list(distinct.values())


def _remote(context: TraceContext, *, is_remote: bool = True) -> OtelContext:
    api = _api()
    around: OtelContext = api.set_span_in_context(api.NonRecordingSpan(_span_context(context, is_remote=is_remote)))
    return around


def _span_context(context: TraceContext, *, is_remote: bool = True) -> trace.SpanContext:
    api = _api()
    state = None if context.state is None else api.TraceState.from_header([context.state])
    found: trace.SpanContext = api.SpanContext(
        int(context.trace_id, 16),
        int(context.span_id, 16),
        is_remote=is_remote,
        trace_flags=api.TraceFlags(context.flags),
        trace_state=state,
    )
    return found


def _named(context: trace.SpanContext) -> TraceContext | None:
    if not context.is_valid:
        return None
    state = tracing.parse_tracestate(context.trace_state.to_header()) if context.trace_state else None
    return TraceContext(f"{context.trace_id:032x}", f"{context.span_id:016x}", int(context.trace_flags), state)


def _nanoseconds(now: float) -> int:
    return int(now * 1_000_000_000)
