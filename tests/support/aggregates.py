"""Aggregated records as the Kinesis Producer Library writes them, whole or damaged."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

MAGIC = b"\xf3\x89\x9a\xc2"

VARINT, FIXED64, BYTES, GROUP_BEGIN, GROUP_END, FIXED32 = range(6)

#: Partition key, explicit hash key, data.
UserRecord = tuple[str, str | None, bytes]


def aggregate(records: Sequence[UserRecord]) -> bytes:
    """One Kinesis record's data that holds these; each key stands once in its table."""
    return sealed(message(records))


def sealed(body: bytes) -> bytes:
    """A message, damaged or not, with its magic bytes and a digest that matches."""
    return MAGIC + body + hashlib.md5(body, usedforsecurity=False).digest()


def opened(data: bytes) -> bytes:
    """The message of an aggregate: damage it, and seal it again."""
    return data[len(MAGIC) : -16]


def message(records: Sequence[UserRecord]) -> bytes:
    """The protobuf message `AggregatedRecord`."""
    partition_keys = list(dict.fromkeys(key for key, _, _ in records))
    hash_keys = list(dict.fromkeys(key for _, key, _ in records if key is not None))
    places = {key: index for index, key in enumerate(partition_keys)}
    hash_places = {key: index for index, key in enumerate(hash_keys)}
    return b"".join(
        [
            *(field(1, key.encode()) for key in partition_keys),
            *(field(2, key.encode()) for key in hash_keys),
            *(
                field(3, record(places[key], None if hash_key is None else hash_places[hash_key], data))
                for key, hash_key, data in records
            ),
        ]
    )


def record(index: int | None, hash_index: int | None, data: bytes | None) -> bytes:
    """The message `Record`; what is None is left out, required or not."""
    parts = [(1, index), (2, hash_index), (3, data)]
    return b"".join(field(number, value) for number, value in parts if value is not None)


def field(number: int, value: int | bytes) -> bytes:
    """A field: a number as a varint, bytes with their length."""
    if isinstance(value, int):
        return tag(number, VARINT) + varint(value)
    return tag(number, BYTES) + varint(len(value)) + value


def tag(number: int, wire_type: int) -> bytes:
    return varint(number << 3 | wire_type)


def varint(value: int, *, size: int = 1) -> bytes:
    """A number, in at least `size` bytes: protobuf allows more than are needed."""
    digits = bytearray()
    while value >= 0x80 or len(digits) + 1 < size:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)
