"""OpenTelemetry's API, where somebody has set it up; else nothing of it is imported.

Trouble of a tracer is nobody else's: whatever it raises is logged once.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from pipeline.decisions import tracing
from pipeline.outcome import text_of
from pipeline.record import TraceContext
from pipeline.telemetry import conventions as names

if TYPE_CHECKING:
    from opentelemetry import trace
    from opentelemetry.context import Context as OtelContext

P = ParamSpec("P")
T = TypeVar("T")

#: Links of one span: what OpenTelemetry's SDK keeps of them, unless it is told otherwise (OTEL_SPAN_LINK_COUNT_LIMIT).
MAX_LINKS = 128
#: A message of an error is cut to this many characters.
_MESSAGE = 500

_log = logging.getLogger("pipeline")

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
def trace_api() -> Any:
    """OpenTelemetry's module: an import in a function that is called for each record costs a microsecond each time."""
    from opentelemetry import trace

    return trace


@functools.cache
def context_api() -> Any:
    """And the module of its contexts."""
    from opentelemetry import context

    return context


@functools.cache
def _complain(what: str) -> None:
    _log.warning("OpenTelemetry failed (%s); the work goes on, and spans are missing", what, exc_info=True)


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
        self._token = context_api().attach(self._around)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is GeneratorExit:
            return  # the coroutine is being closed, wherever that is: nothing follows it here
        context_api().detach(self._token)


def clean(text: str) -> str:
    """Text that can be sent: one lone surrogate, and an exporter drops everything that it was to send with it."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def mark_failed(span: trace.Span, error: BaseException) -> None:
    """The conventions want the type and a message, and no event: that would quote the whole traceback."""
    from opentelemetry.trace import Status, StatusCode

    kind = clean(type(error).__name__)
    span.set_attribute(names.ERROR_TYPE, kind)
    span.set_status(Status(StatusCode.ERROR, clean(f"{kind}: {text_of(error)}"[:_MESSAGE])))


def links_to(sources: Iterable[tuple[TraceContext, str]]) -> list[trace.Link]:
    """A link for each span that made a record; those beyond the limit are on the records' own spans."""
    otel = trace_api()
    found: dict[tuple[str, str], trace.Link] = {}
    for source, message in sources:
        place = (source.trace_id, source.span_id)
        if place not in found:
            found[place] = otel.Link(span_context(source), {names.MESSAGE_ID: clean(message)})
            if len(found) == MAX_LINKS:
                break
    return list(found.values())


def distinct(found: Iterable[TraceContext | None]) -> list[TraceContext]:
    """Each span once, as many as may be linked."""
    distinct: dict[tuple[str, str], TraceContext] = {}
    for one in found:
        if one is not None:
            distinct.setdefault((one.trace_id, one.span_id), one)
            if len(distinct) == MAX_LINKS:
                break
    return list(distinct.values())


def around_of(context: TraceContext, *, is_remote: bool = True) -> OtelContext:
    """The context of what a span elsewhere is the parent of."""
    otel = trace_api()
    around: OtelContext = otel.set_span_in_context(otel.NonRecordingSpan(span_context(context, is_remote=is_remote)))
    return around


def span_context(context: TraceContext, *, is_remote: bool = True) -> trace.SpanContext:
    """Ids as OpenTelemetry has them."""
    otel = trace_api()
    state = None if context.state is None else otel.TraceState.from_header([context.state])
    found: trace.SpanContext = otel.SpanContext(
        int(context.trace_id, 16),
        int(context.span_id, 16),
        is_remote=is_remote,
        trace_flags=otel.TraceFlags(context.flags),
        trace_state=state,
    )
    return found


def named_by(context: trace.SpanContext) -> TraceContext | None:
    """Ids as the toolkit has them; None where there are none."""
    if not context.is_valid:
        return None
    state = tracing.parse_tracestate(context.trace_state.to_header()) if context.trace_state else None
    return TraceContext(f"{context.trace_id:032x}", f"{context.span_id:016x}", int(context.trace_flags), state)


def nanoseconds(now: float) -> int:
    """Epoch seconds as OpenTelemetry wants them."""
    return int(now * 1_000_000_000)
