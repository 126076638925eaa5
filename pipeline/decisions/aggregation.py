"""Records that the Kinesis Producer Library (KPL) put together into one, taken apart again.

The format is AWS's: "KPL Aggregated Record Format", `aggregation-format.md` in the repository
`awslabs/amazon-kinesis-producer`. Four magic bytes, a protobuf message (proto2), and the MD5 digest
of that message:

    message AggregatedRecord {
      repeated string partition_key_table     = 1;
      repeated string explicit_hash_key_table = 2;
      repeated Record records                 = 3;
    }
    message Record {
      required uint64 partition_key_index     = 1;   // into partition_key_table, from 0
      optional uint64 explicit_hash_key_index = 2;   // into explicit_hash_key_table, from 0
      required bytes  data                    = 3;
      repeated Tag    tags                    = 4;
    }
    message Tag {
      required string key   = 1;
      optional string value = 2;
    }

AWS's own readers hand on a damaged aggregate as if it were one plain record, or print an error and
drop what is left of it. Here damage is an error that the record carries: what is dropped silently is
lost, and the magic bytes are not valid UTF-8, so that no JSON is taken for an aggregate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from msgspec import Struct

from pipeline.errors import PayloadError

MAGIC = b"\xf3\x89\x9a\xc2"
#: Of an MD5 digest, in bytes.
DIGEST_SIZE = 16

# A field's tag is its number and its wire type: `number << 3 | wire type`.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GROUP = (3, 4)  # its begin, its end
_PARTITION_KEY, _HASH_KEY, _RECORD, _AFTER_AGGREGATE = 1 << 3 | _BYTES, 2 << 3 | _BYTES, 3 << 3 | _BYTES, 4 << 3
_PARTITION_KEY_INDEX, _HASH_KEY_INDEX, _DATA, _TAG, _AFTER_RECORD = (
    1 << 3,
    2 << 3,
    3 << 3 | _BYTES,
    4 << 3 | _BYTES,
    5 << 3,
)
_USUAL = frozenset((_PARTITION_KEY_INDEX, _HASH_KEY_INDEX, _DATA))
_TAG_KEY, _TAG_VALUE, _AFTER_TAG = 1 << 3 | _BYTES, 2 << 3 | _BYTES, 3 << 3
_TAG_LIMIT = 1 << 32
#: A varint has at most 64 bits, 7 in each byte; protobuf's own parser gives tags and lengths no more than 5 bytes.
_VARINT_LIMIT, _VARINT_SIZE, _SHORT_SIZE = 1 << 64, 10, 5


class UserRecord(Struct, frozen=True, gc=False):
    """One record as its producer gave it to the KPL. (`gc=False`: it holds nothing that could hold it.)"""

    partition_key: str
    hash_key: str | None  #: the explicit hash key, a decimal number; None when the partition key is hashed
    data: bytes


def is_aggregate(data: bytes) -> bool:
    """Whether a Kinesis record's data begins as an aggregate does. It can still be damaged."""
    return data.startswith(MAGIC)


def split(data: bytes) -> list[UserRecord]:
    """The records of an aggregate, in the order in which their producer gave them.

    Raises `PayloadError` for everything that AWS's format, or protobuf's, does not allow, and for
    three things that protobuf would let pass and no KPL writes: a known field of a wrong type, a
    group (deprecated by protobuf), and an aggregate of no records, which would vanish without a
    trace. Unknown fields are skipped; of a field that may stand once, the last one counts.
    """
    begin, end = len(MAGIC), len(data) - DIGEST_SIZE
    if not is_aggregate(data):
        raise PayloadError("not an aggregated record: it does not begin with the magic bytes")
    if end < begin:
        raise PayloadError(f"the aggregated record is cut off: {len(data)} bytes cannot hold magic bytes and digest")
    if hashlib.md5(memoryview(data)[begin:end], usedforsecurity=False).digest() != data[end:]:
        raise PayloadError("the aggregated record is damaged: its MD5 digest does not match")

    partition_keys: list[str] = []
    hash_keys: list[str] = []
    found: list[tuple[int, int | None, bytes]] = []
    for tag, value, stop in _fields(data, begin, end):
        if tag == _RECORD:
            found.append(_record(data, value, stop))
        elif tag == _PARTITION_KEY:
            partition_keys.append(_text(data, value, stop))
        elif tag == _HASH_KEY:
            hash_keys.append(_text(data, value, stop))
        elif tag < _AFTER_AGGREGATE:
            raise _damaged("a field has a wrong type", stop)
    if not found:
        raise PayloadError("the aggregated record is damaged: it holds no records")
    try:
        # Only now, because the tables may stand behind the records.
        return [
            UserRecord(partition_keys[index], None if hash_index is None else hash_keys[hash_index], part)
            for index, hash_index, part in found
        ]
    except IndexError:
        raise PayloadError("the aggregated record is damaged: a record's key is not in the table of keys") from None


def _record(data: bytes, at: int, end: int) -> tuple[int, int | None, bytes]:
    """A `Record`: the index of its partition key, that of its explicit hash key if it has one, and its data.

    This loop reads only what a KPL writes, and is here because an aggregate holds thousands of
    records: it takes a third less time. What it does not know is left to `_unusual_record`, errors too.
    """
    begin = at
    index = hash_index = part = None
    while at < end:
        # One byte each, nearly always. There is a second byte to look at: the digest stands behind.
        tag, value = data[at], data[at + 1]
        at += 2
        if tag not in _USUAL:
            return _unusual_record(data, begin, end)
        if value >= 0x80:
            value, at = _varint(data, at - 1, end, _SHORT_SIZE if tag == _DATA else _VARINT_SIZE)
        if tag == _DATA:
            part = data[at : at + value]
            at += value
        elif tag == _PARTITION_KEY_INDEX:
            index = value
        else:
            hash_index = value
    if at > end or index is None or part is None:
        return _unusual_record(data, begin, end)
    return index, hash_index, part


def _unusual_record(data: bytes, at: int, end: int) -> tuple[int, int | None, bytes]:
    """The same for any field that protobuf allows."""
    index = hash_index = part = None
    for tag, value, stop in _fields(data, at, end):
        if tag == _PARTITION_KEY_INDEX:
            index = value
        elif tag == _DATA:
            part = data[value:stop]
        elif tag == _HASH_KEY_INDEX:
            hash_index = value
        elif tag == _TAG:
            _check_tag(data, value, stop)
        elif tag < _AFTER_RECORD:
            raise _damaged("a record's field has a wrong type", stop)
    if index is None or part is None:
        raise _damaged("a record has no data, or no partition key", end)
    return index, hash_index, part


def _check_tag(data: bytes, at: int, end: int) -> None:
    """A `Tag`: nobody writes one yet, and it is not handed on."""
    has_key = False
    for tag, value, stop in _fields(data, at, end):
        if tag in (_TAG_KEY, _TAG_VALUE):
            _text(data, value, stop)
            has_key = has_key or tag == _TAG_KEY
        elif tag < _AFTER_TAG:
            raise _damaged("a tag's field has a wrong type", stop)
    if not has_key:
        raise _damaged("a tag has no key", end)


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The fields of the message from `at` to before `end`: (tag, the value or where it begins, where it ends)."""
    while at < end:
        tag = data[at]
        at += 1
        if tag >= 0x80:
            tag, at = _varint(data, at - 1, end, _SHORT_SIZE)
        kind = tag & 7
        if kind in (_BYTES, _VARINT):
            # One byte, nearly always. Behind the message stands the digest, so there is a byte to look at.
            value = data[at]
            at += 1
            if value >= 0x80:
                value, at = _varint(data, at - 1, end, _SHORT_SIZE if kind == _BYTES else _VARINT_SIZE)
            if kind == _BYTES:
                value, at = at, at + value
        elif kind == _FIXED64:
            value, at = at, at + 8
        elif kind == _FIXED32:
            value, at = at, at + 4
        elif kind in _GROUP:
            raise _damaged("it has a group, which protobuf has given up", at)
        else:
            raise _damaged("a field has no known type", at)
        if at > end:
            raise _damaged("a field is longer than what is left", end)
        if not 8 <= tag < _TAG_LIMIT:
            raise _damaged("a field has an impossible number", at)
        yield tag, value, at


def _varint(data: bytes, at: int, end: int, size: int) -> tuple[int, int]:
    """The number of at most `size` bytes that begins at `at`, and where it ends.

    The caller compares that with its own end. Seven bits a byte, the lowest first; every byte but the last has its highest bit set.
    """
    second = data[at + 1]
    if second < 0x80:  # nearly always: it is called only when the first byte is not the last
        return data[at] & 0x7F | second << 7, at + 2
    value = 0
    for place in range(min(size, end - at)):
        byte = data[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            if value >= _VARINT_LIMIT:
                break
            return value, at + place + 1
    raise _damaged("a number is cut off or too long", at)


def _text(data: bytes, at: int, end: int) -> str:
    try:
        return data[at:end].decode()
    except UnicodeDecodeError:
        raise _damaged("a key is not UTF-8", at) from None


def _damaged(why: str, at: int) -> PayloadError:
    return PayloadError(f"the aggregated record is damaged: {why} (at byte {at})")
