"""Trace context as it travels: W3C's `traceparent` and `tracestate`, and X-Ray's header.

Whatever is malformed is absent: no trace is worth a record. Both notations name the same thing, a trace of 128 bits and
a span of 64, so that either can be written from the other.

Sources: W3C Trace Context (https://www.w3.org/TR/trace-context-2/), the X-Ray developer guide ("Tracing header"), the
SNS developer guide ("Amazon SNS message and JSON formats"), CloudEvents' extension "Distributed Tracing".
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from pipeline.record import TraceContext

#: The attribute of an SQS message, of SQS's own, in which X-Ray's header arrives.
MESSAGE_HEADER = "AWSTraceHeader"
#: W3C's flags: sampled, and (Level 2) a random trace id, which is to be passed on as it came. All others are written zero.
_SAMPLED, _KNOWN_FLAGS = 1, 3
#: `version-trace-parent-flags`; lower case only. Later versions may have more behind a dash.
_TRACEPARENT = re.compile(r"[ \t]*([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?[ \t]*")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
#: Longer texts are not looked at. Nothing that is known to write one of these headers comes near it.
_LONGEST = 1_024

_PARENT_NAME, _STATE_NAME = "traceparent", "tracestate"
_QUOTED = f'"{_PARENT_NAME}"'
_QUOTED_BYTES = _QUOTED.encode()
#: How SNS begins what it sends to a queue, and how its imitations do. Most bodies are not looked at any further.
_ENVELOPES = ('{\n  "Type"', '{"Type"', '{ "Type"')

#: A member of `tracestate`: up to 256 characters each, the value without a comma, an equals sign or a last space.
_MEMBER = re.compile(r"([a-z0-9][a-z0-9_\-*/@]{0,255})=([ -+\--<>-~]{0,255}[!-+\--<>-~])")
_MAX_MEMBERS = 32
#: Of `tracestate`, as W3C asks for at least; of what is longer, whole members go, those beyond the second figure first.
MAX_STATE, _LARGE_MEMBER = 512, 128

#: X-Ray's header as SQS and Lambda write it; the rest are looked at part by part, which takes three times as long.
_USUAL = re.compile(
    r"Root=1-([0-9a-f]{8})-([0-9a-f]{24});Parent=([0-9a-f]{16})(?:;Sampled=([01?]))?(?:;Lineage=[0-9a-z:|]*)?"
)
_ROOT = re.compile(r"1-([0-9a-fA-F]{8})-([0-9a-fA-F]{24})")
_PARENT = re.compile(r"[0-9a-fA-F]{16}")
#: Lambda's count of hops, such as `1:e7ff9e16:3`. What else it might hold is not sent on: SQS refuses a bad header.
_LINEAGE = re.compile(r"[0-9A-Za-z:%._~-]{1,128}")


def parse_traceparent(text: Any, state: Any = None) -> TraceContext | None:
    """The context of a `traceparent`, and the `tracestate` beside it; None for anything else."""
    if not isinstance(text, str) or len(text) > _LONGEST:
        return None
    found = _TRACEPARENT.fullmatch(text)
    if found is None:
        return None
    version, trace, span, flags, more = found.groups()
    if trace == _NO_TRACE or span == _NO_SPAN or version == "ff" or (version == "00" and more is not None):
        return None
    return TraceContext(trace, span, int(flags, 16) & _KNOWN_FLAGS, None if state is None else parse_tracestate(state))


def format_traceparent(context: TraceContext) -> str:
    """A context as `traceparent`, in version 00."""
    return f"00-{context.trace_id}-{context.span_id}-{context.flags & _KNOWN_FLAGS:02x}"


def parse_tracestate(text: Any) -> str | None:
    """A `tracestate` that may be sent on; None for one that breaks the rules, all of it, or has nothing in it.

    One of up to 512 characters stays as it is; of a longer one there is what W3C says to keep.
    """
    if not isinstance(text, str) or len(text) > 8 * _LONGEST:
        return None
    members = [member for member in (one.strip(" \t") for one in text.split(",")) if member]
    names: set[str] = set()
    for member in members:
        found = _MEMBER.fullmatch(member)
        if found is None or found[1] in names:
            return None
        names.add(found[1])
    if not 0 < len(members) <= _MAX_MEMBERS:
        return None
    return text if len(text) <= MAX_STATE else _shortened(members) or None


def _shortened(members: list[str]) -> str:
    kept = list(members)
    while len(",".join(kept)) > MAX_STATE:
        large = [place for place, member in enumerate(kept) if len(member) > _LARGE_MEMBER]
        del kept[large[-1] if large else -1]
    return ",".join(kept)


def parse_xray(text: Any) -> TraceContext | None:
    """The context of an X-Ray header: `Root=1-<8 digits>-<24 digits>;Parent=<16 digits>;Sampled=1`, in any order.

    None for one without a `Parent`, which is legal and names no span. Not sampled unless it says so.
    """
    if not isinstance(text, str) or len(text) > _LONGEST:
        return None
    usual = _USUAL.fullmatch(text)
    if usual is not None:
        begin, end, span, sampled = usual.groups()
    else:
        parts = _parts(text)
        root, parent = _ROOT.fullmatch(parts.get("Root", "")), _PARENT.fullmatch(parts.get("Parent", ""))
        if root is None or parent is None:
            return None
        begin, end, span, sampled = root[1].lower(), root[2].lower(), parent[0].lower(), parts.get("Sampled")
    trace = begin + end
    if trace == _NO_TRACE or span == _NO_SPAN:
        return None
    return TraceContext(trace, span, _SAMPLED if sampled == "1" else 0)


def is_xray(text: Any) -> bool:
    """True for an X-Ray header, also for one that names no span, only a trace."""
    return isinstance(text, str) and len(text) <= _LONGEST and _ROOT.fullmatch(_parts(text).get("Root", "")) is not None


def trace_id_of(text: str) -> str | None:
    """The trace that a text names, however a person came by it: a `traceparent`, an X-Ray header, or X-Ray's id alone."""
    context = parse_traceparent(text)
    if context is not None:
        return context.trace_id
    found = _ROOT.fullmatch(_parts(text).get("Root", text))
    return None if found is None else f"{found[1]}{found[2]}".lower()


def format_xray(context: TraceContext, lineage: str | None = None) -> str:
    """A context as X-Ray's header, with Lambda's count of hops when there is one."""
    trace = context.trace_id
    text = f"Root=1-{trace[:8]}-{trace[8:]};Parent={context.span_id};Sampled={context.flags & _SAMPLED}"
    return text if lineage is None else f"{text};Lineage={lineage}"


def lineage_of(text: str) -> str | None:
    """Lambda's count of hops in an X-Ray header."""
    found = _parts(text).get("Lineage", "")
    return found if _LINEAGE.fullmatch(found) else None


def contexts(parent: TraceContext | None, header: Any) -> tuple[TraceContext, ...]:
    """Where a record comes from: its `traceparent`, and its X-Ray header when that is of another trace.

    Of one trace `traceparent` counts: Lambda and SQS put segments of their own into the header. A header that is not sampled
    says nothing: Lambda makes one where nobody traces, and what nobody kept must not keep others from sampling.
    """
    other = None if header is None else parse_xray(header)
    if other is None or not other.is_sampled:
        return () if parent is None else (parent,)
    if parent is None:
        return (other,)
    return (parent,) if other.trace_id == parent.trace_id else (parent, other)


def of_notification(body: str) -> TraceContext | None:
    """The context of a message's body that is SNS's envelope: its own `MessageAttributes`, which SNS puts there."""
    if not body.startswith(_ENVELOPES) or _QUOTED not in body:
        return None
    envelope = _object(body)
    if envelope.get("Type") != "Notification" or not isinstance(envelope.get("TopicArn"), str):
        return None
    attributes = envelope.get("MessageAttributes")
    if not isinstance(attributes, dict):
        return None
    parent, state = (_value(attributes.get(name)) for name in (_PARENT_NAME, _STATE_NAME))
    return parse_traceparent(parent, state)


def of_object(body: bytes) -> TraceContext | None:
    """The context that a document's text names at its top, as CloudEvents do."""
    if _QUOTED_BYTES not in body:
        return None
    found = _object(body)
    return parse_traceparent(found.get(_PARENT_NAME), found.get(_STATE_NAME))


def _object(text: str | bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _value(attribute: Any) -> Any:
    return attribute.get("Value") if isinstance(attribute, dict) else None


def carried_on(traces: tuple[TraceContext, ...]) -> str | None:
    """The `traceparent` that goes with what a record causes."""
    return format_traceparent(traces[0]) if traces else None


def state_of(traces: tuple[TraceContext, ...]) -> str | None:
    """The `tracestate` that goes with it."""
    return traces[0].state if traces else None


def _parts(text: str) -> dict[str, str]:
    parts = (part.partition("=") for part in text.split(";"))
    return {name.strip(): value.strip() for name, _, value in parts}
