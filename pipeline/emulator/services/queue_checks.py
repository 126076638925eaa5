"""What SQS refuses of a call, and with which code: the codes are those that botocore's clients show.

Limits are those of the API model in botocore (SQS, 2012-11-05). Where a code or a text is in no documentation, it is the
one that LocalStack's tests recorded against AWS (`tests/aws/services/sqs/*.snapshot.json` there, 2022 to 2024).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.emulator.services.service import ServiceError

MAX_BYTES = 1_048_576
MAX_ENTRIES = 10
MAX_ATTRIBUTES = 10
MAX_DELAY = 900
MAX_VISIBILITY = 43_200
MAX_WAIT = 20
_MAX_MOVES_A_SECOND = 500

_OLD = "AWS.SimpleQueueService."
#: Codes that the JSON protocol has other names for; else it has the same, without a prefix.
_MODELED = {
    f"{_OLD}NonExistentQueue": "QueueDoesNotExist",
    "QueueAlreadyExists": "QueueNameExists",
    "InvalidParameterValue": "InvalidParameterValueException",
    "MissingParameter": "MissingRequiredParameterException",
}
_STATUS = {f"{_OLD}PurgeQueueInProgress": 403, "OverLimit": 403, "ResourceNotFoundException": 404}

_ENTRY_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")
_QUEUE_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")
_FIFO_NAME = re.compile(r"[A-Za-z0-9_-]{1,75}\.fifo")
_IDENTIFIER = re.compile("[!-~]{1,128}")
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ATTRIBUTE_NAME = re.compile(r"(?!\.)(?!.*\.\.)[A-Za-z0-9_.-]{1,256}(?<!\.)")
_ATTRIBUTE_TYPE = re.compile(r"(String|Number|Binary)(\..+)?")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def refusal(code: str, message: str) -> ServiceError:
    """The error with everything that botocore's `ClientError` shows of it."""
    error = {
        "Code": code,
        "Message": message,
        "QueryErrorCode": _MODELED.get(code, code.rpartition(".")[2]),
        "Type": "Sender",
    }
    return ServiceError(code, message, status=_STATUS.get(code, 400), members={"Error": error})


def old_refusal(code: str, message: str) -> ServiceError:
    """As `refusal`, of a code with the prefix that it had when SQS spoke XML."""
    return refusal(_OLD + code, message)


def invalid(message: str) -> ServiceError:
    """A parameter is wrong."""
    return refusal("InvalidParameterValue", message)


def not_for_this_type(name: str, value: object) -> ServiceError:
    """A parameter of FIFO queues for a standard one, or the other way round."""
    return invalid(
        f"Value {value} for parameter {name} is invalid. Reason: The request include parameter that is not valid for "
        "this queue type."
    )


def missing_queue() -> ServiceError:
    """There is no such queue."""
    return old_refusal("NonExistentQueue", "The specified queue does not exist.")


def required(parameters: Mapping[str, Any], name: str) -> Any:
    """A parameter that must be there."""
    value = parameters.get(name)
    if value is None:
        raise refusal("MissingParameter", f"The request must contain the parameter {name}.")
    return value


def whole_number(parameters: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    """A parameter that is a number in a range; None: it is not given."""
    value = parameters.get(name)
    if value is not None and (not isinstance(value, int) or not least <= value <= most):
        raise invalid(
            f"Value {value} for parameter {name} is invalid. Reason: Must be between {least} and {most}, if provided."
        )
    return value


def queue_name(name: str, *, fifo: bool) -> None:
    """Of 1 to 80 characters; a FIFO queue's ends in `.fifo`, which counts, and no other's does."""
    if not (_FIFO_NAME if fifo else _QUEUE_NAME).fullmatch(name):
        suffix = " must end with .fifo suffix," if fifo else ""
        raise invalid(f"Can only include alphanumeric characters, hyphens, or underscores.{suffix} 1 to 80 in length")


def entries(parameters: Mapping[str, Any], kind: str) -> Sequence[Mapping[str, Any]]:
    """The entries of a batch: 1 to 10, with ids that differ."""
    found: Sequence[Mapping[str, Any]] = parameters.get("Entries") or ()
    if not found:
        raise old_refusal("EmptyBatchRequest", f"There should be at least one {kind} in the request.")
    if len(found) > MAX_ENTRIES:
        raise old_refusal(
            "TooManyEntriesInBatchRequest",
            f"Maximum number of entries per request are {MAX_ENTRIES}. You have sent {len(found)}.",
        )
    seen: set[str] = set()
    for entry in found:
        name = required(entry, "Id")
        if not _ENTRY_ID.fullmatch(name):
            raise old_refusal(
                "InvalidBatchEntryId",
                "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at "
                "most 80 letters long.",
            )
        if name in seen:
            raise old_refusal("BatchEntryIdsNotDistinct", f"Id {name} repeated.")
        seen.add(name)
    return found


def total_size(sizes: Iterable[int]) -> None:
    """A batch may take 1 MiB."""
    size = sum(sizes)
    if size > MAX_BYTES:
        raise old_refusal(
            "BatchRequestTooLong",
            f"Batch requests cannot be longer than {MAX_BYTES} bytes. You have sent {size} bytes.",
        )


def body(entry: Mapping[str, Any]) -> str:
    """A message's body: at least one character, and none that XML 1.0 has not."""
    text: str = required(entry, "MessageBody")
    if not text:
        raise refusal("MissingParameter", "The request must contain the parameter MessageBody.")
    _characters(text, "")
    return text


def message_size(size: int, limit: int) -> None:
    """A message, with its attributes, may take what its queue says."""
    if size > limit:
        raise invalid(f"One or more parameters are invalid. Reason: Message must be shorter than {limit} bytes.")


def delay(entry: Mapping[str, Any], *, fifo: bool) -> int | None:
    """A message's own delay: 0 to 900 seconds. A FIFO queue has one for all its messages."""
    seconds = entry.get("DelaySeconds")
    if seconds is None:
        return None
    if fifo and seconds > 0:
        raise not_for_this_type("DelaySeconds", seconds)
    if not 0 <= seconds <= MAX_DELAY:
        raise invalid(
            f"Value {seconds} for parameter DelaySeconds is invalid. Reason: DelaySeconds must be >= 0 and <= "
            f"{MAX_DELAY}."
        )
    return None if fifo else int(seconds)


def attributes(given: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """A message's attributes, checked and copied."""
    if len(given) > MAX_ATTRIBUTES:
        raise invalid(f"Number of message attributes [{len(given)}] exceeds the allowed maximum [{MAX_ATTRIBUTES}].")
    return {name: _attribute(name, value) for name, value in given.items()}


def trace_header(given: Mapping[str, Mapping[str, Any]]) -> str | None:
    """`AWSTraceHeader`, the only system attribute that a sender may set."""
    for name, value in given.items():
        if name != "AWSTraceHeader" or value.get("DataType") != "String" or not value.get("StringValue"):
            raise invalid(
                f"Message system attribute name '{name}' is invalid. Only AWSTraceHeader, of type String, is supported."
            )
        text: str = value["StringValue"]
        return text
    return None


def identifier(entry: Mapping[str, Any], name: str) -> str | None:
    """A group or deduplication id: 1 to 128 letters, digits and signs of ASCII."""
    value = entry.get(name)
    if value is not None and not _IDENTIFIER.fullmatch(value):
        raise invalid(
            f"Value {value} for parameter {name} is invalid. Reason: {name} can only include alphanumeric and "
            "punctuation characters. 1 to 128 in length."
        )
    return value


def fifo_identifiers(found: Sequence[Mapping[str, Any]], *, content_based: bool, is_batch: bool) -> None:
    """What a FIFO queue must know of every message. One entry without it, and the whole batch is refused."""
    for entry in found:
        if entry.get("MessageGroupId") is None:
            text = "The request must contain the parameter MessageGroupId."
            raise invalid(text) if is_batch else refusal("MissingParameter", text)
        if entry.get("MessageDeduplicationId") is None and not content_based:
            raise invalid(
                "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided "
                "explicitly"
            )


def move_rate(parameters: Mapping[str, Any]) -> int | None:
    """How many messages a second a move task may move, at most 500."""
    return whole_number(parameters, "MaxNumberOfMessagesPerSecond", 1, _MAX_MOVES_A_SECOND)


def _characters(text: str, where: str) -> None:
    if _FORBIDDEN.search(text):
        raise refusal(
            "InvalidMessageContents",
            f"Invalid characters found{where}. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to "
            "#xFFFD | #x10000 to #x10FFFF",
        )


def _attribute(name: str, value: Mapping[str, Any]) -> dict[str, Any]:
    if not _ATTRIBUTE_NAME.fullmatch(name) or name.lower().startswith(("aws.", "amazon.")):
        raise invalid(f"The message (user) attribute name '{name}' is invalid.")
    kind = value.get("DataType") or ""
    if not _ATTRIBUTE_TYPE.fullmatch(kind) or len(kind) > 256:
        raise invalid(
            f"The message (user) attribute '{name}' has an invalid message attribute type, the set of supported type "
            "prefixes is Binary, Number, and String."
        )
    field = "BinaryValue" if kind.startswith("Binary") else "StringValue"
    content = value.get(field)
    if not content:
        raise invalid(f"Message (user) attribute '{name}' must contain a non-empty value of type '{kind}'.")
    if field == "BinaryValue":
        return {"DataType": kind, field: content.encode() if isinstance(content, str) else bytes(content)}
    _characters(content, f" in the message attribute '{name}'")
    if kind.startswith("Number") and not _NUMBER.fullmatch(content):
        raise invalid(f"Can't cast the value of message (user) attribute '{name}' to a number.")
    return {"DataType": kind, field: content}
