"""Log lines as they were written, read back. Whatever stands in one, it is read or passed over; nothing raises."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from pipeline.decisions.codec import loads

#: The end of a record's run, by its event.
OUTCOMES = {
    "record.succeeded": "succeeded",
    "record.slow": "succeeded",
    "record.duplicate": "duplicate",
    "record.failed": "failed",
    "record.postponed": "postponed",
    "record.rejected": "rejected",
    "record.exhausted": "exhausted",
    "record.unprocessed": "unprocessed",
}
#: What else the toolkit says of one record.
TROUBLES = frozenset({"completion.lost", "rejection.lost", "on_duplicate.failed"})

#: What the lines of a handler have too, beside what it said.
_COMMON = frozenset(
    {
        *("message", "timestamp", "level", "service", "handler", "record_id", "key_hash", "attempt", "receive_count"),
        *("source", "traceId", "spanId", "caused_by", "cold_start", "location", "function_version", "xray_trace_id"),
        *("exception", "exception_name", "stack_trace", "sampling_rate", "hostname", "function_name", "function_arn"),
        *("function_memory_size", "function_request_id", "correlation_id"),
    }
)
#: Outputs of one record that are looked at; a handler may return any number.
_MAX_OUTPUTS = 1_000


class Line(Struct, frozen=True, kw_only=True):
    """One line that names a record. Of a value that is not of its field's type there is none."""

    text: str  #: as it was written
    is_handlers_own: bool  #: a handler wrote it, not the toolkit, whatever words it has
    at: float | None  #: epoch seconds
    message: str  #: the event's name, or what a handler said
    level: str | None
    pipeline: str
    handler: str
    record_id: str
    key_hash: str | None
    attempt: int | None
    receive_count: int | None
    source: str | None
    error: str | None
    reason: str | None
    delay: float | None  #: seconds
    age: float | None
    seconds: float | None
    trace_id: str | None
    span_id: str | None
    caused_by: str | None  #: the output of an earlier handler that became this record
    outputs: int | None
    output_ids: tuple[str, ...]
    extra: tuple[tuple[str, str], ...]  #: what a handler said beside its message

    @property
    def outcome(self) -> str | None:
        """What a run came to; None for a line that ends none."""
        return None if self.is_handlers_own else OUTCOMES.get(self.message)


def read(texts: Iterable[str]) -> Iterator[Line]:
    """The lines that name a record, each text once: CloudWatch may store and deliver a line twice."""
    seen: set[int] = set()
    for text in texts:
        line = parse(text)
        if line is None or hash(line.text) in seen:
            continue
        seen.add(hash(line.text))
        yield line


def parse(text: str, at: float | None = None) -> Line | None:
    """A line of JSON, also with a prefix, as `aws logs tail` writes one; None when it names no record.

    `at`: when it was written, epoch seconds, should it not say so itself.
    """
    start = text.find("{")
    if start < 0 or '"record_id"' not in text:
        return None
    text = text[start:].rstrip()
    try:
        found = loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    record_id = text_in(found, "record_id")
    return None if record_id is None else _line(text, record_id, found, at)


def is_readable(text: str) -> bool:
    """A line of some log: a JSON object, also with a prefix."""
    start = text.find("{")
    try:
        return start >= 0 and isinstance(loads(text[start:]), dict)
    except (ValueError, RecursionError):
        return False


def names_its_code(found: dict[str, Any]) -> bool:
    """The line says where in somebody's code it was written, as Powertools' Logger does; the toolkit's own never do."""
    return "location" in found


def _line(text: str, record_id: str, found: dict[str, Any], at: float | None) -> Line:
    ids = found.get("output_ids")
    said = instant_of(found.get("timestamp"))
    message = _shown(found.get("message"))
    is_ours = (message in OUTCOMES or message in TROUBLES) and not names_its_code(found)
    return Line(
        text=text,
        is_handlers_own=not is_ours,
        at=at if said is None else said,
        message=message,
        level=text_in(found, "level"),
        pipeline=text_in(found, "service") or "",
        handler=text_in(found, "handler") or "",
        record_id=record_id,
        key_hash=text_in(found, "key_hash"),
        attempt=_whole(found, "attempt"),
        receive_count=_whole(found, "receive_count"),
        source=text_in(found, "source"),
        error=text_in(found, "error"),
        reason=text_in(found, "reason"),
        delay=_number(found, "delay"),
        age=_number(found, "age"),
        seconds=_number(found, "seconds"),
        trace_id=text_in(found, "traceId"),
        span_id=text_in(found, "spanId"),
        caused_by=text_in(found, "caused_by"),
        outputs=_whole(found, "outputs"),
        output_ids=tuple(one for one in ids[:_MAX_OUTPUTS] if isinstance(one, str)) if isinstance(ids, list) else (),
        extra=() if is_ours else tuple((name, _shown(value)) for name, value in found.items() if name not in _COMMON),
    )


def text_in(found: dict[str, Any], name: str) -> str | None:
    """A member that is text, and not empty."""
    value = found.get(name)
    return value if isinstance(value, str) and value else None


def _whole(found: dict[str, Any], name: str) -> int | None:
    value = found.get(name)
    return value if type(value) is int else None


def _number(found: dict[str, Any], name: str) -> float | None:
    value = found.get(name)
    if type(value) is int and abs(value) < 2**53:
        return float(value)
    return value if type(value) is float and math.isfinite(value) else None


def _shown(value: Any) -> str:
    if value is None:
        return ""
    try:
        return value if isinstance(value, str) else str(value)
    except (ValueError, RecursionError):  # an integer of more digits than Python writes
        return f"({type(value).__name__})"


def instant_of(text: Any) -> float | None:
    """Epoch seconds of a time as lines have it; None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
