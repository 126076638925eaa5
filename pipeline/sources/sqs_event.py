"""What Lambda delivers from an SQS queue, as records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.decisions import tracing, wire
from pipeline.errors import EventError, PayloadError
from pipeline.record import NO_ATTRIBUTES, Carried, RawRecord, TraceContext
from pipeline.sources.lambda_event import check_sender, kind, mapping, members, records_of

#: No count and no time in milliseconds is this large.
_BEYOND = 2**53


def decode(event: Any, source: str, *, is_fifo: bool) -> list[RawRecord]:
    """The records of an event, in order. Raises `EventError`; see the `Source` port.

    Everything but a record's id may be missing: test events and other senders leave fields out.
    """
    found = records_of(event, f"the queue '{source}'")
    return [_record(record, position, source, is_fifo=is_fifo) for position, record in enumerate(found)]


def _record(record: Any, position: int, source: str, *, is_fifo: bool) -> RawRecord:
    where = f"record {position} of the queue '{source}'"
    check_sender(record, "aws:sqs", where)
    identity = record.get("messageId")
    if not isinstance(identity, str) or not identity:
        raise EventError(f"{where} has no messageId, but {members(record)}")
    body, error = _body(record)
    system = mapping(record.get("attributes"))
    attributes, carried, parent = _attributes(mapping(record.get("messageAttributes")))
    if parent is None:
        parent = tracing.of_notification(body)
    header = system.get(tracing.MESSAGE_HEADER)
    return RawRecord(
        id=identity,
        source=source,
        body=body,
        lane=_lane(system) if _is_fifo(record, is_fifo) else None,
        receive_count=_whole(system.get("ApproximateReceiveCount")) or 1,
        attributes=attributes,
        sent_at=_seconds(system.get("SentTimestamp")),
        carried=carried,
        traces=() if parent is None and header is None else tracing.contexts(parent, header),
        error=error,
        origin=record,
    )


def _body(record: Mapping[str, Any]) -> tuple[str, PayloadError | None]:
    body = record.get("body")
    if not isinstance(body, str):
        return "", PayloadError("the record has no body" if body is None else f"the body is {kind(body)}, not a text")
    if not body.isascii():
        try:
            body.encode()
        except UnicodeEncodeError as error:
            return body, PayloadError(f"the body is not valid UTF-8: {error.reason} at character {error.start}")
    return body, None


def _is_fifo(record: Mapping[str, Any], declared: bool) -> bool:
    # Fair queues have group ids too, and no order: only the queue's name tells.
    arn = record.get("eventSourceARN")
    return arn.endswith(".fifo") if isinstance(arn, str) and arn else declared


def _lane(system: Mapping[str, Any]) -> str | None:
    group = system.get("MessageGroupId")
    return group if isinstance(group, str) and group else None


def _attributes(found: Mapping[str, Any]) -> tuple[Mapping[str, str], Carried | None, TraceContext | None]:
    """The producer's attributes as text (binary ones as base64), what an earlier stage sent along, and its trace."""
    if not found:
        return NO_ATTRIBUTES, None, None
    texts: dict[str, str] = {}
    for name, attribute in found.items():
        value = mapping(attribute)
        text = value.get("stringValue", value.get("binaryValue"))
        if isinstance(text, str):
            texts[name] = text
    trace, state = texts.get(wire.TRACEPARENT), texts.get(wire.TRACESTATE)
    carried = wire.read_carried(texts.get(wire.ATTRIBUTE), trace, state)
    if carried is not None:
        # What is not ours stays: a stranger may call an attribute `pipeline` too.
        texts.pop(wire.ATTRIBUTE)
        texts.pop(wire.TRACEPARENT, None)
        texts.pop(wire.TRACESTATE, None)
        trace, state = carried.traceparent, carried.tracestate
    parent = None if trace is None else tracing.parse_traceparent(trace, state)
    return texts, carried, parent


def _seconds(milliseconds: Any) -> float | None:
    whole = _whole(milliseconds)
    return None if whole is None else whole / 1000


def _whole(value: Any) -> int | None:
    try:
        whole = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return whole if 0 <= whole < _BEYOND else None
