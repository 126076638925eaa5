"""Parameters of Kinesis' operations, checked. What is wrong raises `ServiceError`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pipeline.emulator.services.service import ServiceError
from pipeline.emulator.services.shards import HASHES

Parameters = Mapping[str, Any]

ON_DEMAND, PROVISIONED = "ON_DEMAND", "PROVISIONED"
RECORD_KIB = (1_024, 10_240)  #: the least and the most that a stream can be told to take of one record
_RETENTION_HOURS = (24, 8_760)
_MAX_TAGS = 50
_HASH_KEY = re.compile(r"0|[1-9]\d{0,38}", re.ASCII)


def moment_of(value: object, name: str) -> float:
    """A time, in epoch seconds."""
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, (int, float)):
        return float(value)
    try:
        return datetime.fromisoformat(str(value)).timestamp()
    except ValueError:
        raise bad_argument(f"{name} is missing, or is no time") from None


def mode_of(details: Parameters) -> str:
    """The capacity mode."""
    mode = details.get("StreamMode")
    if mode not in (ON_DEMAND, PROVISIONED):
        raise violation("streamModeDetails.streamMode", "Member must satisfy enum value set: [PROVISIONED, ON_DEMAND]")
    return str(mode)


def distributes(strategy: object, mode: str) -> bool:
    """Whether a stream is to ignore partition keys."""
    if strategy not in (None, "AUTO", "USER_PARTITION_KEY"):
        raise violation("recordDistributionStrategy", "Member must satisfy enum value set: [AUTO, USER_PARTITION_KEY]")
    if strategy is not None and mode != ON_DEMAND:
        raise bad_argument("RecordDistributionStrategy is for streams on demand")
    return strategy == "AUTO"


def record_kib(size: Any) -> int:
    """The largest record, KiB."""
    low, high = RECORD_KIB
    if not isinstance(size, int) or not low <= size <= high:
        raise violation("maxRecordSizeInKiB", f"Member must have value of {low} to {high}")
    return size


def retention_hours(given: Parameters) -> int:
    """How long records are to be kept."""
    hours = given.get("RetentionPeriodHours")
    low, high = _RETENTION_HOURS
    if not isinstance(hours, int) or not low <= hours <= high:
        raise bad_argument(f"RetentionPeriodHours has to be {low} to {high:,}")
    return hours


def hash_key(text: object, name: str) -> int:
    """A hash key, as a number."""
    if not isinstance(text, str) or not _HASH_KEY.fullmatch(text):
        raise violation(
            name[0].lower() + name[1:], r"Member must satisfy regular expression pattern: 0|([1-9]\d{0,38})"
        )
    if int(text) >= HASHES:
        raise bad_argument(f"{name} has to be 0 to 2**128 - 1")
    return int(text)


def check_provisioned(stream: str, mode: object) -> None:
    """Refuse to change the shards of a stream on demand."""
    if mode == ON_DEMAND:
        raise ServiceError("ValidationException", f"{stream} is on demand: its shards are Kinesis' own affair")


def check_scaling(stream: str, current: int, target: int) -> None:
    """Refuse a number of shards that is too far from the one that there is."""
    if target > 2 * current or 2 * target < current:
        raise bad_argument(
            f"{stream} has {current} open shards: it scales up to the double and down to the half at once, "
            f"not to {target}"
        )


def check_tags(tags: Parameters) -> None:
    """Refuse too many."""
    if len(tags) > _MAX_TAGS:
        raise bad_argument(f"a stream has at most {_MAX_TAGS} tags")


def limit_of(given: Parameters, name: str, default: int, highest: int) -> int:
    """How many a list has at most."""
    limit = given.get(name, default)
    if not isinstance(limit, int) or not 1 <= limit <= highest:
        raise violation(name[0].lower() + name[1:], f"Member must have value of 1 to {highest}")
    return limit


def length(key: Any) -> int:
    """Of a partition key, in characters."""
    # A character beyond U+FFFF counts twice: which way Kinesis counts is not said, and this is the stricter one.
    try:
        return len(key.encode("utf-16-le")) // 2
    except (AttributeError, UnicodeEncodeError):
        raise ServiceError("SerializationException", "a partition key is no Unicode text") from None


def data_of(data: object) -> bytes:
    """The data of a record, as bytes of our own."""
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise ServiceError("SerializationException", "Data has to be bytes")


def bad_argument(message: str) -> ServiceError:
    """The error for what the API reference forbids in words."""
    return ServiceError("InvalidArgumentException", message)


def violation(where: str, what: str) -> ServiceError:
    """What the API model's constraints refuse. The value is not quoted."""
    return ServiceError("ValidationException", f"1 validation error detected: Value at '{where}': {what}")
