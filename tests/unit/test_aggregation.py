"""Aggregated records: read as AWS's own library reads them, and damage is always said."""

from __future__ import annotations

import base64
import contextlib
import sys
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.decisions.aggregation import UserRecord, is_aggregate, split
from pipeline.errors import PayloadError
from tests.support.aggregates import (
    BYTES,
    FIXED32,
    FIXED64,
    GROUP_BEGIN,
    GROUP_END,
    MAGIC,
    VARINT,
    aggregate,
    field,
    message,
    opened,
    record,
    sealed,
    tag,
    varint,
)

# AWS's library puts its own folder and site-packages before everything else on the path.
_path = sys.path.copy()
from aws_kinesis_agg import aggregator as aws_aggregator  # noqa: E402
from aws_kinesis_agg import deaggregator as aws_deaggregator  # noqa: E402
from google.protobuf.message import DecodeError  # noqa: E402

sys.path[:] = _path

SECRET = "s3cr3t"

hash_keys = st.none() | st.integers(0, 2**128 - 1).map(str)
user_records = st.tuples(st.text(max_size=8) | st.sampled_from(["a", "b"]), hash_keys, st.binary(max_size=300))
batches = st.lists(user_records, min_size=1, max_size=20)
#: AWS's aggregator wants keys that are not empty, as Kinesis does.
written = st.lists(
    st.tuples(st.text(min_size=1, max_size=256), hash_keys, st.binary(max_size=300)), min_size=1, max_size=20
)


def ours(data: bytes) -> list[tuple[str, str | None, bytes]]:
    return [(one.partition_key, one.hash_key, one.data) for one in split(data)]


def event(data: bytes) -> dict[str, Any]:
    """A record as Lambda delivers it."""
    kinesis = {
        "kinesisSchemaVersion": "1.0",
        "sequenceNumber": "1",
        "approximateArrivalTimestamp": 1.0,
        "partitionKey": "a",
        "data": base64.b64encode(data).decode(),
    }
    return {"kinesis": kinesis, "eventID": "shardId-000000000000:1", "eventSource": "aws:kinesis"}


def theirs(data: bytes) -> list[tuple[str, str | None, bytes]] | None:
    """What AWS's deaggregator makes of it; None when it takes it for a plain record."""
    found = [one["kinesis"] for one in aws_deaggregator.deaggregate_records([event(data)])]
    if found and "aggregated" not in found[0]:
        return None
    return [(one["partitionKey"], one["explicitHashKey"], base64.b64decode(one["data"])) for one in found]


def by_protobuf(data: bytes) -> list[tuple[str, str | None, bytes]] | None:
    """What protobuf's own parser reads, with the keys resolved; None when it refuses, or a key is missing.

    AWS's Python deaggregator gives a record without an explicit hash key the first of the table; the
    format calls the index optional, and AWS's Java one asks whether it is there, as this does.
    """
    parsed = aws_aggregator.messages_pb2.AggregatedRecord()
    try:
        parsed.ParseFromString(opened(data))
        return [
            (
                parsed.partition_key_table[one.partition_key_index],
                parsed.explicit_hash_key_table[one.explicit_hash_key_index]
                if one.HasField("explicit_hash_key_index")
                else None,
                one.data,
            )
            for one in parsed.records
        ]
    except (DecodeError, IndexError):
        return None


def refused(data: bytes) -> str:
    """The message of the `PayloadError` that a damaged aggregate must raise."""
    with pytest.raises(PayloadError) as caught:
        split(data)
    assert SECRET not in str(caught.value)
    return str(caught.value)


# --- What is read ---------------------------------------------------------------------------------


@given(batches)
@example([("", None, b"")])
@example([("key", "0", b"\x00" * 127), ("key", None, b"\x00" * 128), ("key", "0", b"\x00" * 20_000)])
def test_what_is_written_is_read(records: list[tuple[str, str | None, bytes]]) -> None:
    data = aggregate(records)

    assert is_aggregate(data)
    assert ours(data) == records == by_protobuf(data)


@given(written)
def test_what_aws_writes_is_read(records: list[tuple[str, str | None, bytes]]) -> None:
    aggregator = aws_aggregator.RecordAggregator()
    for key, hash_key, data in records:
        assert aggregator.add_user_record(key, data, hash_key) is None
    _, _, whole = aggregator.clear_and_get().get_contents()

    found = ours(whole)

    assert [(key, data) for key, _, data in found] == [(key, data) for key, _, data in records]
    assert found == by_protobuf(whole)


@given(batches, st.booleans())
def test_aws_reads_the_same(records: list[tuple[str, str | None, bytes]], has_hash_keys: bool) -> None:
    """Of batches in which every record has an explicit hash key, or none: see `by_protobuf`."""
    records = [(key, (hash_key or "7") if has_hash_keys else None, data) for key, hash_key, data in records]
    data = aggregate(records)

    assert theirs(data) == ours(data) == records


@pytest.mark.parametrize("count", [1, 5000])
def test_of_one_and_of_many(count: int) -> None:
    records = [(f"key-{number}", str(number) if number % 3 else None, b"x" * (number % 200)) for number in range(count)]
    data = aggregate(records)

    assert ours(data) == records
    assert [one[::2] for one in theirs(data) or ()] == [one[::2] for one in records]


def test_a_golden_aggregate() -> None:
    """By hand from the format's description, so that reader and writer cannot be wrong together."""
    body = (
        b"\x0a\x01a" + b"\x0a\x01b" + b"\x12\x017" + b"\x1a\x05\x08\x01\x1a\x01x" + b"\x1a\x06\x08\x00\x10\x00\x1a\x00"
    )
    data = b"\xf3\x89\x9a\xc2" + body + bytes.fromhex("7251af929a6064897c3abbff02334809")

    assert split(data) == [UserRecord("b", None, b"x"), UserRecord("a", "7", b"")]
    assert aggregate(
        [("a", None, b"x")]
    ) == b"\xf3\x89\x9a\xc2" + b"\x0a\x01a\x1a\x05\x08\x00\x1a\x01x" + bytes.fromhex("274fa4a221609241966b02c7afbf4283")


def test_equal_keys_are_one_text() -> None:
    """Of thousands of records with few keys, the keys take no memory."""
    first, second = split(aggregate([("a long key", None, b"1"), ("a long key", None, b"2")]))

    assert first.partition_key is second.partition_key


@pytest.mark.parametrize("data", [b"", b"\xf3", MAGIC[:3], b'{"id": 1}', b" " + MAGIC, MAGIC[::-1]])
def test_what_is_no_aggregate(data: bytes) -> None:
    assert not is_aggregate(data)
    assert refused(data) == "not an aggregated record: it does not begin with the magic bytes"


@given(st.text())
def test_no_text_begins_as_an_aggregate(text: str) -> None:
    """The magic bytes decide alone: they are no UTF-8, so a damaged aggregate is nothing else."""
    with pytest.raises(UnicodeDecodeError):
        (MAGIC + text.encode()).decode()


# --- What protobuf allows, though no KPL writes it -------------------------------------------------

RECORD = field(3, record(0, None, b"x"))
KEY = field(1, b"k")


def unknown(number: int) -> list[bytes]:
    """Fields of every type that a message may have and this version does not know."""
    return [
        field(number, 2**64 - 1),
        field(number, b"anything"),
        tag(number, FIXED64) + b"\xff" * 8,
        tag(number, FIXED32) + b"\xff" * 4,
    ]


@pytest.mark.parametrize("number", [4, 15, 16, 2**29 - 1])
def test_unknown_fields_are_skipped(number: int) -> None:
    for extra in unknown(number):
        for body in (extra + KEY + RECORD, KEY + extra + RECORD, KEY + RECORD + extra):
            assert ours(sealed(body)) == [("k", None, b"x")] == (by_protobuf(sealed(body)) or [None])


@pytest.mark.parametrize("number", [5, 15, 16, 2**29 - 1])
def test_unknown_fields_of_a_record_are_skipped(number: int) -> None:
    inner = record(0, None, b"x")
    for extra in unknown(number):
        for one in (extra + inner, inner + extra, field(1, 0) + extra + field(3, b"x")):
            assert ours(sealed(KEY + field(3, one))) == [("k", None, b"x")]


def test_tables_may_stand_behind_the_records() -> None:
    body = field(3, record(1, 0, b"x")) + KEY + field(3, record(0, None, b"y")) + field(2, b"7") + field(1, b"l")

    assert ours(sealed(body)) == [("l", "7", b"x"), ("k", None, b"y")] == by_protobuf(sealed(body))


def test_fields_of_a_record_stand_in_any_order_and_the_last_one_counts() -> None:
    inner = field(3, b"first") + field(2, 5) + field(1, 9) + field(3, b"last") + field(1, 0) + field(2, 0)
    body = KEY + field(2, b"7") + field(3, inner)

    assert ours(sealed(body)) == [("k", "7", b"last")] == by_protobuf(sealed(body))


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6, 9, 10])
def test_numbers_may_be_longer_than_needed(size: int) -> None:
    """Ten bytes for a number, and five for a tag or a length, as protobuf's own parser has it."""
    short = min(size, 5)
    inner = varint(1 << 3, size=short) + varint(0, size=size) + varint(3 << 3 | BYTES) + varint(1, size=short)
    body = varint(1 << 3 | BYTES, size=short) + varint(1, size=short) + b"k" + field(3, inner + b"x")

    assert ours(sealed(body)) == [("k", None, b"x")] == by_protobuf(sealed(body))


@pytest.mark.parametrize(
    "inner", [field(1, b"name"), field(1, b"name") + field(2, b"value"), field(2, b"") + field(1, b"")]
)
def test_tags_are_read_over(inner: bytes) -> None:
    body = KEY + field(3, record(0, None, b"x") + field(4, inner) + field(4, inner + field(9, 1)))

    assert ours(sealed(body)) == [("k", None, b"x")] == by_protobuf(sealed(body))


# --- Damage ---------------------------------------------------------------------------------------

SOUND = message([(SECRET, "7", SECRET.encode()), ("other", None, b"x" * 200)])
LAST = 2**64 - 1


@pytest.mark.parametrize("size", range(20))
def test_too_short_for_magic_and_digest(size: int) -> None:
    data = (MAGIC + b"s3cr3t" * 4)[:size]

    assert ("cut off" if size >= 4 else "magic") in refused(data)


def test_another_digest() -> None:
    data = aggregate([(SECRET, None, SECRET.encode())])

    for place in range(len(MAGIC), len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1
        assert refused(bytes(flipped)) == "the aggregated record is damaged: its MD5 digest does not match"


def test_an_aggregate_of_none_is_damaged() -> None:
    """AWS's readers make nothing of it: an empty message is a plain record, one with only keys vanishes."""
    assert theirs(sealed(b"")) is None
    assert theirs(sealed(KEY)) == []
    for body in (b"", KEY, KEY + field(2, b"7"), *unknown(9)):
        assert "holds no records" in refused(sealed(body))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        # Missing
        (KEY + field(3, record(None, None, b"x")), "no data, or no partition key"),
        (KEY + field(3, record(0, None, None)), "no data, or no partition key"),
        (KEY + field(3, b""), "no data, or no partition key"),
        (KEY + field(3, record(0, None, b"x") + field(4, b"")), "a tag has no key"),
        (KEY + field(3, record(0, None, b"x") + field(4, field(2, b"value"))), "a tag has no key"),
        # An index outside its table
        (RECORD, "not in the table"),
        (KEY + field(3, record(1, None, b"x")), "not in the table"),
        (KEY + field(3, record(LAST, None, b"x")), "not in the table"),
        (KEY + field(3, record(0, 0, b"x")), "not in the table"),
        (KEY + field(2, b"7") + field(3, record(0, 1, b"x")), "not in the table"),
        (KEY + field(2, b"7") + field(3, record(0, LAST, b"x")), "not in the table"),
        # Keys that are no text
        (field(1, b"\xff") + RECORD, "not UTF-8"),
        (field(1, b"\xed\xa0\x80") + RECORD, "not UTF-8"),
        (KEY + field(2, b"\xc0\x80") + RECORD, "not UTF-8"),
        (KEY + field(3, record(0, None, b"x") + field(4, field(1, b"\xff"))), "not UTF-8"),
        (KEY + field(3, record(0, None, b"x") + field(4, field(1, b"") + field(2, b"\xff"))), "not UTF-8"),
        # Lengths beyond the end, of the message and of what stands in it
        (KEY + RECORD + tag(1, BYTES) + varint(1), "longer than what is left"),
        (KEY + RECORD + tag(9, BYTES) + varint(2**35 - 1), "longer than what is left"),
        (KEY + RECORD + tag(9, BYTES) + varint(2**31), "longer than what is left"),
        (KEY + tag(3, BYTES) + varint(100) + record(0, None, b"x"), "longer than what is left"),
        (KEY + field(3, field(1, 0) + tag(3, BYTES) + varint(5) + b"x") + RECORD, "longer than what is left"),
        (KEY + field(3, record(0, None, b"x") + field(4, tag(1, BYTES) + varint(1))) + RECORD, "longer than what"),
        (KEY + RECORD + tag(9, FIXED64) + b"1234567", "longer than what is left"),
        (KEY + RECORD + tag(9, FIXED32) + b"123", "longer than what is left"),
        (KEY + RECORD + tag(9, VARINT), "longer than what is left"),
        (KEY + field(3, record(0, None, b"x") + tag(1, VARINT)) + KEY, "longer than what is left"),
        (KEY + field(3, record(0, None, b"x") + tag(1, VARINT)), "longer than what is left"),
        # Numbers
        (KEY + field(3, record(2**64, None, b"x")), "too long"),
        (KEY + field(3, field(3, b"x") + tag(1, VARINT) + b"\xff" * 10 + b"\x00"), "too long"),
        (KEY + RECORD + tag(9, VARINT) + varint(0, size=11), "too long"),
        (KEY + RECORD + tag(9, BYTES) + varint(LAST), "too long"),
        (KEY + RECORD + tag(9, BYTES) + varint(0, size=6), "too long"),
        (KEY + RECORD + varint(9 << 3, size=6) + b"\x00", "too long"),
        (KEY + field(3, field(1, 0) + tag(3, BYTES) + varint(1, size=6) + b"x"), "too long"),
        (KEY + RECORD + tag(9, VARINT) + b"\x80" * 9, "cut off"),
        (KEY + RECORD + b"\x80" * 5, "cut off"),
        # Tags: number 0, more than 32 bits, types that there are not
        (KEY + RECORD + field(0, 0), "impossible number"),
        (KEY + RECORD + field(0, b""), "impossible number"),
        (KEY + RECORD + field(2**29, 0), "impossible number"),
        (KEY + field(3, record(0, None, b"x") + field(0, 0)), "impossible number"),
        (KEY + RECORD + tag(9, 6), "no known type"),
        (KEY + RECORD + tag(9, 7) + b"\x00", "no known type"),
        (KEY + field(3, record(0, None, b"x") + tag(1, 7)), "no known type"),
        # Groups
        (KEY + RECORD + tag(9, GROUP_BEGIN) + tag(9, GROUP_END), "a group"),
        (KEY + RECORD + tag(9, GROUP_END), "a group"),
        (KEY + field(3, record(0, None, b"x") + tag(9, GROUP_BEGIN) + tag(9, GROUP_END)), "a group"),
        # Known fields of other types
        *[(KEY + RECORD + field(number, 0), "wrong type") for number in (1, 2, 3)],
        *[(KEY + RECORD + tag(number, FIXED64) + b"\x00" * 8, "wrong type") for number in (1, 2, 3)],
        *[(KEY + field(3, record(0, None, b"x") + field(number, b"")), "wrong type") for number in (1, 2)],
        *[(KEY + field(3, record(0, None, b"x") + field(number, 0)), "wrong type") for number in (3, 4)],
        (KEY + field(3, record(0, None, b"x") + tag(1, FIXED32) + b"\x00" * 4), "wrong type"),
        *[(KEY + field(3, record(0, None, b"x") + field(4, field(number, 0))), "wrong type") for number in (1, 2)],
    ],
)
def test_damage_is_said(body: bytes, said: str) -> None:
    assert said in refused(sealed(body))


def test_every_truncation_is_damage() -> None:
    """Cut anywhere, with or without a digest that matches: an error, or the records before the cut."""
    whole = ours(sealed(SOUND))
    for size in range(len(SOUND)):
        refused(sealed(SOUND)[: len(MAGIC) + size])
        try:
            found = ours(sealed(SOUND[:size]))
        except PayloadError:
            continue
        assert found == whole[: len(found)]
        assert found == by_protobuf(sealed(SOUND[:size]))


def agree(data: bytes) -> None:
    """Ours reads what protobuf reads, or refuses; what protobuf refuses is refused."""
    try:
        found = ours(data)
    except PayloadError as error:
        said = str(error)
    else:
        assert found == by_protobuf(data)
        return
    assert SECRET not in said


@given(st.data())
def test_flipped_bytes(data: st.DataObject) -> None:
    damaged = bytearray(SOUND)
    places = st.integers(0, len(SOUND) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4)):
        damaged[place] = value

    agree(sealed(bytes(damaged)))


def test_every_value_in_every_place() -> None:
    short = message([("a", "7", b"x"), ("b", None, b"yz")])
    for place in range(len(short)):
        for value in range(256):
            agree(sealed(short[:place] + bytes([value]) + short[place + 1 :]))


@given(st.binary(max_size=60))
def test_random_bytes(body: bytes) -> None:
    agree(sealed(body))
    agree(sealed(SOUND + body))
    agree(sealed(KEY + field(3, body)))
    with contextlib.suppress(PayloadError):
        split(MAGIC + body)


#: The tokens of the format put together at random: nearly right, mostly.
tokens = st.lists(
    st.sampled_from([KEY, RECORD, field(2, b"7"), record(0, 0, b"x"), tag(3, BYTES), tag(1, VARINT), varint(LAST)])
    | st.integers(0, 2**64).map(varint)
    | st.builds(tag, st.integers(0, 20), st.integers(0, 7))
    | st.builds(field, st.integers(1, 6), st.integers(0, 3) | st.binary(max_size=6)),
    max_size=8,
).map(b"".join)


@given(tokens, tokens)
def test_tokens_at_random(outer: bytes, inner: bytes) -> None:
    agree(sealed(outer))
    agree(sealed(KEY + field(3, inner) + outer))
    agree(sealed(KEY + field(3, record(0, None, b"x") + inner)))


def test_lengths_that_lie_take_no_memory() -> None:
    """Of a message of 1 MB, whatever it says that it holds."""
    padding = field(9, b"\x00" * 1_000_000)
    lies = [
        sealed(padding + KEY + field(3, field(1, 0) + tag(3, BYTES) + varint(size)) + KEY * 100)
        for size in (2**20, 2**31 - 1, 2**40, LAST)
    ]
    tracemalloc.start()
    try:
        for lie in lies:
            refused(lie)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 500_000
