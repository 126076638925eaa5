"""What travels with an output. Deployed queues hold these forms: they never change meaning."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

import orjson

from pipeline.decisions.codec import loads
from pipeline.output import MAX_ID, Output
from pipeline.record import Carried

#: The message attribute, on services that have attributes.
ATTRIBUTE = "pipeline"
#: The W3C trace context's attribute, as OpenTelemetry writes it.
TRACEPARENT = "traceparent"
#: What vendors add to it.
TRACESTATE = "tracestate"
#: Outputs of more characters go without it: they may be all that a service takes, and no trace is worth a record.
#: A character has up to four bytes, and the narrowest service takes 400 KB.
_STATE_BODY = 65_536
#: The reserved member of object payloads, on services without attributes.
MEMBER = "_pipeline"
_QUOTED_TEXT = f'"{MEMBER}"'
_QUOTED = _QUOTED_TEXT.encode()
_FIRST = f'{{"{MEMBER}":{{'

_JSON = json.JSONDecoder()
#: What stands between the values of an object's text, with JSON's own spaces.
_MARKS = {mark: re.compile(rf"[ \t\n\r]*{re.escape(mark)}[ \t\n\r]*") for mark in "{:,"}
_END = re.compile(r"[ \t\n\r]*\}[ \t\n\r]*")


def output_id(pipeline: str, handler: str, sink: str, identity: str, index: int) -> str:
    """An output's deterministic id: 32 hexadecimal digits, the same for every repeat."""
    text = json.dumps([pipeline, handler, sink, identity, index], ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def mark(entry_id: str) -> str:
    """By which an item shows that a record's effect is in it: 32 hexadecimal digits."""
    return hashlib.sha256(entry_id.encode()).hexdigest()[:32]


def carried_text(output: Output) -> str:
    """The `pipeline` attribute's text."""
    return orjson.dumps({"id": output.id, "hops": output.hops}).decode()


def carried_member(output: Output) -> dict[str, Any]:
    """The `_pipeline` member."""
    member: dict[str, Any] = {"id": output.id, "hops": output.hops}
    if output.traceparent:
        member[TRACEPARENT] = output.traceparent
        if output.tracestate and len(output.body) <= _STATE_BODY:
            member[TRACESTATE] = output.tracestate
    return member


def read_carried(text: str | None, traceparent: str | None = None, tracestate: str | None = None) -> Carried | None:
    """What an earlier stage sent along; None for anything else: a stranger's attribute is no error.

    `traceparent` and `tracestate`: what stands beside it; they count, and not what stands in it.
    """
    if text is None:
        return None
    try:
        member = orjson.loads(text)
    except ValueError:
        return None
    return read_member(member, traceparent, tracestate)


def read_member(member: Any, traceparent: str | None = None, tracestate: str | None = None) -> Carried | None:
    """The same, from a decoded member. An id of more than `MAX_ID` characters is a stranger's too: it stands in log lines."""
    if not isinstance(member, dict):
        return None
    identity, hops = member.get("id"), member.get("hops", 0)
    if not isinstance(identity, str) or not 0 < len(identity) <= MAX_ID or type(hops) is not int or hops < 0:
        return None
    if not traceparent:
        traceparent, tracestate = member.get(TRACEPARENT), member.get(TRACESTATE)
    if not isinstance(traceparent, str):
        return Carried(id=identity, hops=hops)
    state = tracestate if isinstance(tracestate, str) else None
    return Carried(id=identity, hops=hops, traceparent=traceparent, tracestate=state)


def split_member(body: bytes) -> tuple[bytes, Carried | None]:
    """An object's JSON text without the reserved member, and what that carried.

    The member is cut out of the text, so that everything else keeps its exact digits. A text without
    one, or with a stranger's, comes back as it is, and so does what is no JSON: whoever parses it says so.
    """
    if _QUOTED not in body:
        return body, None
    try:
        text = body.decode("utf-8", "surrogatepass").removeprefix("\ufeff")  # as `json.loads` reads bytes
        found = (_cut_first(text) if text.startswith(_FIRST) else None) or _cut_anywhere(text)
    except (ValueError, RecursionError):
        return body, None
    return (body, None) if found is None else (found[0].encode("utf-8", "surrogatepass"), found[1])


def _cut_first(text: str) -> tuple[str, Carried] | None:
    """The form that our sinks write: the member stands first, and there is no other. The rest is not parsed."""
    member, end = _JSON.raw_decode(text, len(_FIRST) - 1)
    carried = read_member(member)
    if carried is None or text.find(_QUOTED_TEXT, end) >= 0:
        return None
    if text.startswith("}", end):
        return "{" + text[end:], carried
    return ("{" + text[end + 1 :], carried) if text.startswith(',"', end) else None


def _cut_anywhere(text: str) -> tuple[str, Carried] | None:
    """Whatever wrote the text anew may have moved the member, or added spaces. Of several, the last one counts."""
    begin, members, end = _members(text)
    ours = [value for name, value, _ in members if name == MEMBER]
    carried = read_member(ours[-1]) if ours else None
    if carried is None:
        return None
    return begin + ",".join(piece for name, _, piece in members if name != MEMBER) + end, carried


def _members(text: str) -> tuple[str, list[tuple[str, Any, str]], str]:
    """An object's text in pieces: its begin, each member's name, value and text, and its end.

    Raises `ValueError` for what is no object.
    """
    members: list[tuple[str, Any, str]] = []
    begin = at = _beyond("{", text, 0)
    while True:
        start = at
        name, at = _JSON.raw_decode(text, at)
        value, at = _JSON.raw_decode(text, _beyond(":", text, at))
        if not isinstance(name, str):
            raise ValueError("a name is no text")
        members.append((name, value, text[start:at]))
        following = _MARKS[","].match(text, at)
        if following is None:
            break
        at = following.end()
    if not _END.fullmatch(text, at):
        raise ValueError("it does not end as an object does")
    return text[:begin], members, text[at:]


def _beyond(mark: str, text: str, at: int) -> int:
    """The place behind a mark and the spaces around it."""
    found = _MARKS[mark].match(text, at)
    if found is None:
        raise ValueError(f"there is no {mark}")
    return found.end()


def pack(outputs: Sequence[Output]) -> str:
    """Outputs as they are kept in an idempotency entry."""
    forms = [_kept_form(output) for output in outputs]
    try:
        return orjson.dumps(forms).decode()
    except TypeError:  # half a surrogate pair in a key or an attribute: the sink may refuse it, this must not
        return json.dumps(forms, separators=(",", ":"))


def unpack(text: str) -> list[Output]:
    """Kept outputs, as `pack` wrote them."""
    return [Output(**item, value=_value(item)) for item in loads(text)]


def replayable(text: str | None) -> list[Output]:
    """What a completed run returned, where an entry keeps it. Another writer's results have no addresses: none."""
    try:
        return [] if text is None else unpack(text)
    except (TypeError, ValueError, LookupError, RecursionError):
        return []


#: `tracestate` is not kept: it may be as large as all the others, and an entry has 400 KB for all its outputs.
_KEPT = ("id", "sink", "body", "is_text", "key", "default_key", "attributes", "delay", "hops", "traceparent")


def _kept_form(output: Output) -> dict[str, Any]:
    form = {name: getattr(output, name) for name in _KEPT}
    return form if output.sent_at is None else {**form, "sent_at": output.sent_at}


def _value(item: dict[str, Any]) -> Any:
    return item["body"] if item["is_text"] else json.loads(item["body"])
