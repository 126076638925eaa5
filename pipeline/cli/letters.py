"""Dead letters as they are read back: why each is here, and of which record it is. Pure."""

from __future__ import annotations

import binascii
import json
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from pipeline.aws.letters import CAUSE, ENCODING
from pipeline.aws.operators.peek import Message
from pipeline.cli.shown import instant
from pipeline.decisions import tracing, wire
from pipeline.decisions.codec import loads

#: Of the invocation record that Lambda sends to a mapping's on-failure destination.
_INVOCATION = ("requestContext", "DDBStreamBatchInfo", "KinesisBatchInfo")


class Letter(Struct, frozen=True, kw_only=True):
    """A message among dead letters. What it does not say is None: SQS itself moves messages without a cause."""

    message: Message
    cause: str | None = None
    handler: str | None = None
    attempts: int | None = None
    is_exhausted: bool | None = None  #: its attempts were used up; False: it could never succeed
    record_id: str | None = None  #: under which log lines name the record
    caused_by: str | None = None  #: the output of an earlier handler that became the record
    trace_id: str | None = None
    part: str | None = None  #: "2/3": the second of three messages that make up one record
    encoding: str | None = None  #: how a stream's bytes became text

    @property
    def data(self) -> str:
        """The body as text, base64 undone where it makes one."""
        if self.encoding != "base64":
            return self.message.body
        try:
            return binascii.a2b_base64(self.message.body.strip(), strict_mode=True).decode("utf-8", "replace")
        except ValueError:
            return self.message.body

    @property
    def look_for(self) -> str:
        """The id by which log lines of it are found best. What SQS moved itself keeps its id."""
        return self.record_id or self.caused_by or self.message.id


def read(message: Message) -> Letter:
    """A letter of a message, whoever sent it."""
    attributes = message.attributes
    said = _object(attributes.get(CAUSE))
    body = {} if said else _object(message.body)
    if not said and isinstance(body.get("cause"), dict) and "body" in body:  # of a sink that takes objects only
        said = {"record_id": body.get("id"), **body["cause"]}
    carried = wire.read_carried(attributes.get(wire.ATTRIBUTE), attributes.get(wire.TRACEPARENT))
    trace = tracing.parse_traceparent(attributes.get(wire.TRACEPARENT))
    return Letter(
        message=message,
        cause=_text(said.get("cause")) or _given_up(body),
        handler=_text(said.get("handler")),
        attempts=said["attempts"] if type(said.get("attempts")) is int else None,
        is_exhausted=said["exhausted"] if isinstance(said.get("exhausted"), bool) else None,
        record_id=_text(said.get("record_id")),
        caused_by=None if carried is None else carried.id,
        trace_id=None if trace is None else trace.trace_id,
        part=attributes.get("part") if said else None,
        encoding=attributes.get(ENCODING) if said else None,
    )


def _given_up(body: Mapping[str, Any]) -> str | None:
    """The condition under which a mapping gave a batch up, when Lambda sent the message."""
    if not any(isinstance(body.get(name), dict) for name in _INVOCATION[1:]):
        return None
    context = body.get(_INVOCATION[0])
    condition = context.get("condition") if isinstance(context, dict) else None
    return f"the mapping gave a batch up: {condition}" if isinstance(condition, str) else None


def _object(text: str | None) -> dict[str, Any]:
    if not text or not text.lstrip().startswith("{"):
        return {}
    try:
        found = loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def document(letter: Letter, queue: str, *, bodies: bool = False) -> dict[str, Any]:
    """A letter as JSON; everything whole. `bodies`: what its sender wrote too, which may hold secrets."""
    message = letter.message
    attributes = {name: text for name, text in message.attributes.items() if name != CAUSE}
    return {
        "queue": queue,
        "message_id": message.id,
        "record_id": letter.record_id,
        "handler": letter.handler,
        "cause": letter.cause,
        "attempts": letter.attempts,
        "exhausted": letter.is_exhausted,
        "sent_at": instant(message.sent_at),
        "receive_count": message.receive_count,
        "size": message.size,
        "group": message.group,
        "caused_by": letter.caused_by,
        "trace_id": letter.trace_id,
        "part": letter.part,
        "encoding": letter.encoding,
        "attributes": list(attributes),
        "look_for": letter.look_for,
        **({"attribute_values": attributes, "body": message.body} if bodies else {}),
    }


def as_json(value: Any) -> str:
    """JSON text in ASCII: a terminal shows it as it is."""
    return json.dumps(value, indent=2)
