"""The span that a handler may add to: `context.span`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

from pipeline.telemetry.otel import quietly


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


@quietly
def _current() -> Span | None:
    api = sys.modules.get("opentelemetry.trace")
    span: Span | None = None if api is None else api.get_current_span()
    return span


def current() -> Span:
    """The span of the record that is worked on, or of whatever is at work here."""
    span = _current()
    return _NO_SPAN if span is None else span
