"""A queue's attributes: defaults, ranges, and what one queue may ask of another (API model: `CreateQueue`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pipeline.emulator.services.queue_checks import MAX_BYTES, MAX_VISIBILITY, MAX_WAIT, invalid, refusal

_NUMBERS = {
    "DelaySeconds": (0, 900),
    "KmsDataKeyReusePeriodSeconds": (60, 86_400),
    "MaximumMessageSize": (1_024, MAX_BYTES),
    "MessageRetentionPeriod": (60, 1_209_600),
    "ReceiveMessageWaitTimeSeconds": (0, MAX_WAIT),
    "VisibilityTimeout": (0, MAX_VISIBILITY),
}
_CHOICES = {
    "ContentBasedDeduplication": ("true", "false"),
    "DeduplicationScope": ("queue", "messageGroup"),
    "FifoQueue": ("true", "false"),
    "FifoThroughputLimit": ("perQueue", "perMessageGroupId"),
    "SqsManagedSseEnabled": ("true", "false"),
}
_TEXTS = ("KmsMasterKeyId", "Policy", "RedrivePolicy", "RedriveAllowPolicy")
_FIFO_ONLY = ("ContentBasedDeduplication", "DeduplicationScope", "FifoThroughputLimit")
_DEFAULTS = {
    "DelaySeconds": "0",
    "MaximumMessageSize": str(MAX_BYTES),
    "MessageRetentionPeriod": "345600",
    "ReceiveMessageWaitTimeSeconds": "0",
    "SqsManagedSseEnabled": "true",
    "VisibilityTimeout": "30",
}
_FIFO_DEFAULTS = {
    "ContentBasedDeduplication": "false",
    "DeduplicationScope": "queue",
    "FifoQueue": "true",
    "FifoThroughputLimit": "perQueue",
}
#: What `GetQueueAttributes` can be asked for and nobody sets.
COMPUTED = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesDelayed",
    "ApproximateNumberOfMessagesNotVisible",
    "CreatedTimestamp",
    "LastModifiedTimestamp",
    "QueueArn",
)
KNOWN = frozenset((*_NUMBERS, *_CHOICES, *_TEXTS, *COMPUTED, "All"))
_MAX_SOURCES = 10
_MAX_RECEIVES = 1_000


def of_new(given: Mapping[str, str], *, fifo: bool) -> dict[str, str]:
    """A new queue's attributes. Raises `ServiceError` for what a queue cannot have."""
    checked = {name: _checked(name, str(value), fifo=fifo) for name, value in given.items()}
    checked.pop("FifoQueue", None)
    return _merged(_DEFAULTS | (_FIFO_DEFAULTS if fifo else {}), checked)


def changed(old: Mapping[str, str], given: Mapping[str, str], *, fifo: bool) -> dict[str, str]:
    """A queue's attributes after a change; the empty text removes one. Raises `ServiceError`."""
    if "FifoQueue" in given and not fifo:
        raise refusal("InvalidAttributeName", "Unknown Attribute FifoQueue.")
    if given.get("FifoQueue", "true") != "true":
        raise refusal(
            "InvalidAttributeValue",
            "Invalid value for the parameter FifoQueue. Reason: Modifying queue type is not supported.",
        )
    return _merged(old, {name: _checked(name, str(value), fifo=fifo) for name, value in given.items()})


def differing(old: Mapping[str, str], given: Mapping[str, str]) -> str | None:
    """The first of these attributes that a queue has another value of; None: it has them all."""
    for name, value in given.items():
        wanted, has = str(value), old.get(name, "false" if name == "FifoQueue" else "")
        if wanted != has and not (name.startswith("Redrive") and _read(wanted) == _read(has)):
            return name
    return None


def redrive_policy(value: str) -> tuple[str, int]:
    """The dead-letter queue's ARN, and how often a message is received before it goes there."""
    read = _read(value) or {}
    if "deadLetterTargetArn" not in read or "maxReceiveCount" not in read:
        absent = "maxReceiveCount" if "deadLetterTargetArn" in read else "deadLetterTargetArn"
        raise _bad_policy(value, f"Redrive policy does not contain mandatory attribute: {absent}.")
    target = str(read["deadLetterTargetArn"])
    if target.count(":") != 5 or not target.startswith("arn:"):
        raise _bad_policy(value, "Invalid value for deadLetterTargetArn.")
    try:
        most = int(read["maxReceiveCount"])
    except (TypeError, ValueError):
        most = 0
    if not 1 <= most <= _MAX_RECEIVES:
        raise _bad_policy(value, f"Invalid value for maxReceiveCount: it must be between 1 and {_MAX_RECEIVES}.")
    return target, most


def check_redrive(value: str, *, source: str, fifo: bool, target: tuple[bool, Mapping[str, str]] | None) -> None:
    """`source`, its ARN, may send its dead letters to `target`: whether that is FIFO, and its attributes.

    None: it is not there.
    """
    if target is None:
        raise _bad_policy(value, "Dead letter target does not exist.")
    if target[0] != fifo:
        raise _bad_policy(value, "Dead-letter queue must be same type of queue as the source.")
    allowed = _read(target[1].get("RedriveAllowPolicy", "")) or {}
    permission = allowed.get("redrivePermission", "allowAll")
    if permission == "denyAll" or (permission == "byQueue" and source not in allowed.get("sourceQueueArns", ())):
        raise _bad_policy(value, "The dead-letter queue's RedriveAllowPolicy does not allow this queue.")


def _bad_policy(value: str, reason: str) -> Exception:
    return invalid(f"Value {value} for parameter RedrivePolicy is invalid. Reason: {reason}")


def _checked(name: str, value: str, *, fifo: bool) -> str:
    if name in COMPUTED or name not in KNOWN or name == "All" or (name in _FIFO_ONLY and not fifo):
        raise refusal("InvalidAttributeName", f"Unknown Attribute {name}.")
    if name in _NUMBERS:
        least, most = _NUMBERS[name]
        if not value.isdecimal() or not least <= int(value) <= most:
            raise _bad(name)
        return str(int(value))
    if name in _CHOICES:
        spelled = value.lower() if "true" in _CHOICES[name] else value
        if spelled not in _CHOICES[name]:
            raise _bad(name)
        return spelled
    if name == "RedrivePolicy" and value:
        redrive_policy(value)
    if name == "RedriveAllowPolicy" and value:
        _check_allowed(value)
    return value


def _check_allowed(value: str) -> None:
    read = _read(value) or {}
    permission = read.get("redrivePermission")
    if permission == "byQueue":
        is_right = 1 <= len(read.get("sourceQueueArns", ())) <= _MAX_SOURCES
    else:
        is_right = permission in ("allowAll", "denyAll") and "sourceQueueArns" not in read
    if not is_right:
        raise _bad("RedriveAllowPolicy")


def _merged(old: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    merged = {name: value for name, value in {**old, **given}.items() if value}
    if given.get("KmsMasterKeyId") and "SqsManagedSseEnabled" not in given:
        merged["SqsManagedSseEnabled"] = "false"
    if merged.get("FifoThroughputLimit") == "perMessageGroupId" and merged.get("DeduplicationScope") != "messageGroup":
        raise _bad("FifoThroughputLimit")
    return merged


def _bad(name: str) -> Exception:
    return refusal("InvalidAttributeValue", f"Invalid value for the parameter {name}.")


def _read(value: str) -> dict[str, Any] | None:
    try:
        read = json.loads(value)
    except ValueError:
        return None
    return read if isinstance(read, dict) else None
