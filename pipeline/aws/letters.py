"""Dead letters: what they say, in forms that every place for them can store.

The narrowest place is an SQS message, so its limits are here: 1 MiB with its attributes, ten
attributes, and only the characters that XML 1.0 allows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pipeline.ports import DeadLetter

MAX_BYTES = 1_048_576
MAX_ATTRIBUTES = 10

#: Why the record is here: JSON with handler, cause, attempts, exhausted, and the id under which log lines name it.
CAUSE = "pipeline_cause"
#: The record's own attributes, when there is no room for all of them beside the cause.
FOLDED = "pipeline_attributes"
MAX_CAUSE = 2_048
#: Characters of a record's id that are kept: those of SQS and Kinesis are shorter.
_LONGEST_ID = 512
#: How a stream's bytes became text: "base64", or "as received" for what was no base64.
ENCODING = "encoding"

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def forbidden(text: str) -> str | None:
    """The first character that SQS does not take, for a message; None when there is none."""
    found = _FORBIDDEN.search(text)
    return None if found is None else f"U+{ord(found[0]):04X}"


def storable(body: str, origin: Any) -> str:
    """The body unchanged; the record as it came when there is none; a forbidden character as JSON spells it."""
    if not body:
        return json.dumps(origin, default=str)
    return without_forbidden(body)


def without_forbidden(text: str) -> str:
    """The text with each character that SQS does not take spelled as JSON does."""
    return _FORBIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def folded(attributes: Mapping[str, tuple[str, str]]) -> str:
    """Attributes (type and value) as one attribute's text."""
    return compact({name: {"type": kind, "value": value} for name, (kind, value) in attributes.items()})


def cause_text(said: Mapping[str, Any], room: int) -> str | None:
    """Why a record is dead, its `cause` cut to fit; None when there is no room at all: the body goes first."""
    room = min(room, MAX_CAUSE)
    cause: str = said["cause"][:MAX_CAUSE]
    while True:
        text = compact({**said, "cause": cause})
        excess = len(text) - room
        if excess <= 0:
            return text
        if not cause:
            return None
        # A character takes up to twelve bytes as JSON, so this cuts too little rather than too much.
        cause = cause[: -max(1, excess // 12)]


def compact(value: Any) -> str:
    """JSON text in ASCII, so that its length is its size and every place takes its characters."""
    return json.dumps(value, separators=(",", ":"))


def named(letter: DeadLetter) -> dict[str, Any]:
    """What `said` tells, and of which record: the message of a letter has an id of its own."""
    return {**said(letter), "record_id": letter.record.id[:_LONGEST_ID]}


def said(letter: DeadLetter) -> dict[str, Any]:
    """Why a record is dead, as every dead letter tells it."""
    return {
        "handler": letter.handler,
        "cause": letter.cause,
        "attempts": letter.attempts,
        "exhausted": letter.exhausted,
    }
