"""What every event of an event source mapping has in common, and how a wrong one is described."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import EventError


def records_of(event: Any, what: str) -> list[Any]:
    """The members of `Records`. `what` names the source in the `EventError` for anything else."""
    records = event.get("Records") if isinstance(event, dict) else None
    if not isinstance(records, list):
        raise EventError(f"not an event of {what}: {_found(event)}")
    return records


def check_sender(record: Any, sender: str, where: str) -> None:
    """Raise `EventError` for what is no record, or another service's; one without a sender is taken as ours."""
    if not isinstance(record, dict):
        raise EventError(f"{where} is {kind(record)}, not an object")
    found = record.get("eventSource", record.get("EventSource", sender))
    if found != sender:
        raise EventError(f"{where} comes from {found!r}, not from {sender!r}")


def mapping(value: Any) -> Mapping[str, Any]:
    """The value, or an empty mapping for what is none: every member may be missing."""
    return value if isinstance(value, dict) else {}


def members(value: Mapping[str, Any]) -> str:
    """The names only: values have no place in an error's text."""
    return ", ".join(sorted(map(str, value))[:10]) or "nothing"


def kind(value: Any) -> str:
    """What a decoded JSON value is, in words."""
    kinds = {dict: "an object", list: "an array", str: "a text", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number" if isinstance(value, (int, float)) else f"a {type(value).__name__}")


def _found(event: Any) -> str:
    if not isinstance(event, dict):
        return f"the event is {kind(event)}"
    if "Records" in event:
        return f"its Records are {kind(event['Records'])}"
    return f"it has no Records, but {members(event)}"
