"""What travels with an output. Deployed queues hold these forms: they never change meaning."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import orjson

from pipeline.decisions.codec import encode, loads
from pipeline.output import Output
from pipeline.record import Carried

#: The message attribute, on services that have attributes.
ATTRIBUTE = "pipeline"
#: The W3C trace context's attribute, as OpenTelemetry writes it.
TRACEPARENT = "traceparent"
#: The reserved member of object payloads, on services without attributes.
MEMBER = "_pipeline"
_QUOTED = f'"{MEMBER}"'.encode()
_FIRST = f'{{"{MEMBER}":'.encode()


def output_id(pipeline: str, handler: str, sink: str, identity: str, index: int) -> str:
    """An output's deterministic id: 32 hexadecimal digits, the same for every repeat."""
    text = json.dumps([pipeline, handler, sink, identity, index], ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def carried_text(output: Output) -> str:
    """The `pipeline` attribute's text."""
    return orjson.dumps({"id": output.id, "hops": output.hops}).decode()


def carried_member(output: Output) -> dict[str, Any]:
    """The `_pipeline` member."""
    member: dict[str, Any] = {"id": output.id, "hops": output.hops}
    if output.traceparent:
        member[TRACEPARENT] = output.traceparent
    return member


def read_carried(text: str | None, traceparent: str | None = None) -> Carried | None:
    """What an earlier stage sent along; None for anything else: a stranger's attribute is no error."""
    if text is None:
        return None
    try:
        member = orjson.loads(text)
    except ValueError:
        return None
    return read_member(member, traceparent)


def read_member(member: Any, traceparent: str | None = None) -> Carried | None:
    """The same, from a decoded member."""
    if not isinstance(member, dict):
        return None
    identity, hops = member.get("id"), member.get("hops", 0)
    if not isinstance(identity, str) or not identity or type(hops) is not int or hops < 0:
        return None
    trace = traceparent or member.get(TRACEPARENT)
    return Carried(id=identity, hops=hops, traceparent=trace if isinstance(trace, str) else None)


def split_member(body: bytes) -> tuple[bytes, Carried | None]:
    """An object's JSON text without the reserved member, and what that carried.

    The member is cut out of the text, so that everything else keeps its exact digits. A text without
    one, or with a stranger's, comes back as it is.
    """
    if _QUOTED not in body:
        return body, None
    if body.startswith(_FIRST):
        return _cut_first(body)
    return _cut_anywhere(body)


def _cut_first(body: bytes) -> tuple[bytes, Carried | None]:
    """The form that our sinks write: the member stands first."""
    try:
        text = body.decode()
        member, end = json.JSONDecoder().raw_decode(text, len(_FIRST))
    except (ValueError, RecursionError):
        return body, None  # no JSON, or not all of it: whoever parses it says so
    carried = read_member(member)
    rest = text[end:].lstrip()
    if carried is None or not rest.startswith((",", "}")):
        return body, None
    return ("{" + rest.removeprefix(",")).encode(), carried


def _cut_anywhere(body: bytes) -> tuple[bytes, Carried | None]:
    """Whatever wrote the text anew may have moved the member."""
    try:
        document = loads(body)
    except (ValueError, RecursionError):
        return body, None
    carried = read_member(document.pop(MEMBER, None)) if isinstance(document, dict) else None
    return (body, None) if carried is None else (encode(document).encode(), carried)


def pack(outputs: Sequence[Output]) -> str:
    """Outputs as they are kept in an idempotency entry."""
    return orjson.dumps([_kept_form(output) for output in outputs]).decode()


def unpack(text: str) -> list[Output]:
    """Kept outputs, as `pack` wrote them."""
    return [Output(**item, value=_value(item)) for item in orjson.loads(text)]


_KEPT = ("id", "sink", "body", "is_text", "key", "default_key", "attributes", "delay", "hops", "traceparent")


def _kept_form(output: Output) -> dict[str, Any]:
    form = {name: getattr(output, name) for name in _KEPT}
    return form if output.sent_at is None else {**form, "sent_at": output.sent_at}


def _value(item: dict[str, Any]) -> Any:
    return item["body"] if item["is_text"] else json.loads(item["body"])
