"""An event of EventBridge: what PutEvents accepts, and the document that rules and targets see."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from pipeline.decisions.tracing import parse_xray
from pipeline.emulator.services.service import ACCOUNT, REGION, ServiceError

#: PutEvents: entries of a call, and bytes, less than which they must have ("less than 1MB"; which one is not said).
MAX_ENTRIES, MAX_BYTES = 10, 1_048_576
#: Of `DetailType`, by the API model.
MAX_DETAIL_TYPE = 128
#: Nesting of a detail, and whole numbers in it, by PutEvents' page.
MAX_DEPTH, MAX_INTEGER = 1_000, 2**63
#: What a time counts for in an entry's size.
_TIME_BYTES = 14
_REQUIRED = ("Source", "DetailType", "Detail")


@dataclass(frozen=True)
class Event:
    """An event as it was accepted."""

    id: str
    source: str
    detail_type: str
    detail: str  #: JSON
    time: float
    resources: tuple[str, ...] = ()
    trace_header: str | None = None  #: X-Ray's; no part of the document

    def document(self) -> dict[str, Any]:
        """As targets get it; a new one each time."""
        return {
            "version": "0",
            "id": self.id,
            "detail-type": self.detail_type,
            "source": self.source,
            "account": ACCOUNT,
            "time": datetime.fromtimestamp(int(self.time), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "region": REGION,
            "resources": list(self.resources),
            "detail": json.loads(self.detail),
        }

    @cached_property
    def text(self) -> str:
        """The document as JSON. The detail stands in it as it was written: a pattern compares numbers by their text."""
        return json_text({**self.document(), "detail": None})[: -len("null}")] + self.detail + "}"


@dataclass(frozen=True)
class Refused:
    """An entry that fails by itself."""

    code: str
    message: str


def checked_sizes(entries: Sequence[Mapping[str, Any]]) -> None:
    """Raise `ServiceError` for what fails a whole call."""
    if not 1 <= len(entries) <= MAX_ENTRIES:
        raise ServiceError(
            "ValidationException",
            "1 validation error detected: Value at 'entries' failed to satisfy constraint: "
            f"Member must have length of 1 to {MAX_ENTRIES}",
        )
    if sum(map(_size, entries)) >= MAX_BYTES:
        raise ServiceError("ValidationException", "Total size of the entries in the request is over the limit.")


def accepted(entry: Mapping[str, Any], event_id: str, now: float) -> Event | Refused:
    """The event that an entry is, or why it is none."""
    for name in _REQUIRED:
        if not entry.get(name):
            return Refused("InvalidArgument", f"Parameter {name} is not valid. Reason: {name} is a required argument.")
    if len(entry["DetailType"]) > MAX_DETAIL_TYPE:
        return Refused(
            "InvalidArgument", f"Parameter DetailType is not valid. Reason: over {MAX_DETAIL_TYPE} characters."
        )
    if entry["Source"].startswith("aws."):
        return Refused("NotAuthorizedForSourceException", "Not authorized for the source.")
    if not _is_detail(entry["Detail"]):
        return Refused("MalformedDetail", "Detail is malformed.")
    time = _seconds(entry.get("Time"), now)
    resources = tuple(map(str, entry.get("Resources") or ()))
    header = entry.get("TraceHeader")
    trace_header = header if parse_xray(header) is not None else None  # one that is none is dropped, and not counted
    return Event(event_id, entry["Source"], entry["DetailType"], entry["Detail"], time, resources, trace_header)


def json_text(value: Any) -> str:
    """JSON as EventBridge sends it: without spaces."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _size(entry: Mapping[str, Any]) -> int:
    texts = [entry.get(name) or "" for name in _REQUIRED] + list(entry.get("Resources") or ())
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) + _TIME_BYTES * ("Time" in entry)


def _is_detail(text: str) -> bool:
    """A JSON object, within EventBridge's limits."""
    try:
        found = json.loads(text, parse_int=_integer, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and _depth(found) <= MAX_DEPTH


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        below = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level = [item for one in below for item in one]
    return depth


def _integer(text: str) -> int:
    found = int(text)
    if not -MAX_INTEGER <= found < MAX_INTEGER:
        raise ValueError
    return found


def _no_constant(_: str) -> Any:
    raise ValueError


def _seconds(time: Any, now: float) -> float:
    if time is None:
        return now
    if isinstance(time, datetime):
        return time.timestamp()
    return float(time) if isinstance(time, int | float) else datetime.fromisoformat(str(time)).timestamp()
