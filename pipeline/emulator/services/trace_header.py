"""X-Ray's header of a call, as the services hand it on.

Sources: the X-Ray developer guide ("Amazon SQS and AWS X-Ray", "Amazon EventBridge and AWS X-Ray"), the models of SQS and
EventBridge. What they do with a header that is none is nowhere said of SQS: it is dropped, as EventBridge does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from pipeline.decisions import tracing
from pipeline.record import TraceContext

#: The header of the call.
HEADER = "X-Amzn-Trace-Id"


def in_call(service: str, operation: str, parameters: Mapping[str, Any], header: Any) -> Mapping[str, Any]:
    """The parameters of a call with this header: what it sends has it, where it has none of its own."""
    if isinstance(header, bytes):
        header = header.decode("latin-1")
    if not tracing.is_xray(header):
        return parameters
    if service == "sqs" and operation == "send_message":
        return _with_attribute(parameters, header)
    entries = parameters.get("Entries")
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        return parameters
    if service == "sqs" and operation == "send_message_batch":
        return {**parameters, "Entries": [_with_attribute(entry, header) for entry in entries]}
    if service == "events" and operation == "put_events":
        return {**parameters, "Entries": [{"TraceHeader": header, **entry} for entry in entries]}
    return parameters


def system_attributes(header: str) -> dict[str, Any]:
    """A message's system attributes that hold the header."""
    return {tracing.MESSAGE_HEADER: {"DataType": "String", "StringValue": header}}


def passed_on(header: Any, event_id: str) -> str | None:
    """What EventBridge gives to a target of an event that came with this header: its own span, in the same trace."""
    context = tracing.parse_xray(header)
    if context is None:
        return None
    span = hashlib.sha256(f"{context.span_id} {event_id}".encode()).hexdigest()[:16]
    own = TraceContext(context.trace_id, span, context.flags)
    return tracing.format_xray(own, tracing.lineage_of(header))


def _with_attribute(message: Mapping[str, Any], header: str) -> Mapping[str, Any]:
    given = message.get("MessageSystemAttributes") or {}
    if not isinstance(given, Mapping) or tracing.MESSAGE_HEADER in given:
        return message
    return {**message, "MessageSystemAttributes": {**given, **system_attributes(header)}}
