"""The S3 sink's decisions: names, prefixes, which outputs share an object, and the bytes of one."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections import defaultdict
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import sinks
from pipeline.aws.s3 import MAX_KEY, PART, Body, split
from pipeline.errors import ConfigurationError, SinkRefused, SinkUnavailable
from pipeline.output import Output
from pipeline.sinks.s3 import Grouping, Line, chunks, filled, key_segment, object_name

#: 2026-11-20 07:05:00 UTC.
SENT = 1_795_158_300.0


def text(body: str) -> Output:
    return Output(id="1", sink="s", body=body, is_text=True, default_key="k")


def document(body: str) -> Output:
    return Output(id="1", sink="s", body=body, default_key="k")


def body_of(*made: bytes, compress: bool = False) -> Body:
    return Body(chunks=lambda: made, size=0, compress=compress, content_type="x")


# Names

IDS = st.lists(st.text(max_size=5), max_size=5)


@given(IDS, IDS)
def test_a_name_is_of_exactly_these_ids_in_this_order(first: list[str], second: list[str]) -> None:
    assert (object_name(first) == object_name(second)) == (first == second)


def test_ids_are_not_run_together_and_a_name_stays_what_it_is() -> None:
    assert len({object_name(ids) for ids in (["ab", "c"], ["a", "bc"], ["abc"], ["1:a"], ["a", "1:"])}) == 5
    # It stands in somebody's bucket: a repeat has to find it.
    assert object_name(["a", "b"]) == "facdde7abf1eac5b301273ab2e282f79bab0100f"


# Prefixes


@pytest.mark.parametrize(
    ("prefix", "says"),
    [
        ("", ""),
        ("orders/", "orders/"),
        ("{date}/", "2026-11-20/"),
        ("year={year}/month={month}/day={day}/hour={hour}/", "year=2026/month=11/day=20/hour=07/"),
        ("{key}/{date}-", "k1/2026-11-20-"),
        ("{{{key}}}/", "{k1}/"),
    ],
)
def test_a_prefix_is_filled_with_utc_time_and_key(prefix: str, says: str) -> None:
    assert filled(prefix, SENT, "k1") == says


@pytest.mark.parametrize("sent_at", [float("nan"), 1e20, "soon", None])
def test_a_literal_prefix_does_not_look_at_the_time(sent_at: Any) -> None:
    assert filled("orders/{key}/", sent_at, "k") == "orders/k/"
    with pytest.raises((ValueError, OverflowError, TypeError)):
        filled("{date}/", sent_at, "k")


@given(st.text(min_size=1, max_size=300), st.text(min_size=1, max_size=300))
def test_a_keys_segment_is_short_plain_and_its_own(first: str, second: str) -> None:
    found = key_segment(first)
    assert len(found) <= 100
    assert set(found) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert found not in {".", ".."}
    assert (found == key_segment(second)) == (first == second)


def test_a_plain_key_stands_as_it_is_and_another_stays_readable() -> None:
    assert key_segment("order-1.a_b") == "order-1.a_b"
    assert key_segment('"customer/7"').startswith("customer_7-")
    assert key_segment("é").isalnum()


@pytest.mark.parametrize(
    "prefix",
    [
        "{when}/",
        "{}/",
        "{0}/",
        "{date.__class__}/",
        "{date[0]}/",
        "{date!r}/",
        "{date:>20}/",
        "{date:{key}}/",
        "{ date }/",
        "{date",
        "date}",
        7,
        None,
    ],
)
def test_a_prefix_takes_only_the_placeholders_that_it_names(prefix: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"\{date\}, \{year\}, \{month\}, \{day\}, \{hour\}, \{key\}"):
        sinks.S3("orders", prefix=prefix)


@pytest.mark.parametrize("prefix", ["a\n/", "a\ud800/", "a\x00", "./a/", "a/../{key}/"])
def test_a_prefix_that_other_programs_read_as_something_else_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="printable"):
        sinks.S3("orders", prefix=prefix)


def test_no_object_key_becomes_longer_than_s3_takes() -> None:
    room = MAX_KEY - len("0" * 40 + ".ndjson.gz")
    for prefix, long_key in (("x" * room, "k"), ("é" * (room // 2 - 50) + "{key}", "k" * 99 + "/")):
        sinks.S3("orders", prefix=prefix)
        assert len(filled(prefix, SENT, long_key).encode()) <= room
        with pytest.raises(ConfigurationError, match="1,024"):
            sinks.S3("orders", prefix=prefix + "xx")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"compress": "gzip"}, "compress"),
        ({"existing": "arn:aws:sqs:eu-west-1:1:orders"}, "arn:aws:s3:::orders"),
        ({"existing": "orders"}, "arn:aws:s3:::orders"),
        ({"existing": "arn:aws:s3:::orders/*"}, "arn:aws:s3:::orders"),
        ({"existing": "arn:aws:s3:eu-west-1:111122223333:accesspoint/mine"}, "arn:aws:s3:::orders"),
        ({"name": ""}, "name"),
        ({"when": True}, "function"),
    ],
)
def test_a_wrong_option_is_refused_when_declared(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        sinks.S3("orders", **options)


def test_the_bucket_of_somebody_else_is_named_by_its_arn() -> None:
    sink = sinks.S3("orders", existing="arn:aws:s3:::theirs-7")
    assert (sink.name, sink.resource.physical, sink.carries, sink.has_attributes) == (
        "orders",
        "theirs-7",
        False,
        False,
    )


# Which outputs share an object

LINES = st.lists(
    st.one_of(
        st.builds(lambda key, prefix: Line(key=key, prefix=prefix), st.sampled_from("abc"), st.sampled_from("xyz")),
        st.builds(lambda key: Line(key=key, error=SinkRefused("odd")), st.sampled_from(["a", None])),
    ),
    max_size=20,
)


@given(LINES, st.data())
def test_keys_stay_in_order_whatever_fails(lines: list[Line], data: st.DataObject) -> None:
    grouping = Grouping(lines)
    written: dict[str, list[int]] = defaultdict(list)  # the positions that were accepted, by key
    failed: dict[str, int] = {}  # the first position that was not, by key
    tried: list[int] = []
    while objects := grouping.round():
        keys = [{lines[at].key for at in found.positions} for found in objects]
        assert sum(map(len, keys)) == len(set().union(*keys)), "two objects of a round share a key"
        assert len({found.prefix for found in objects}) == len(objects)
        for found in objects:
            assert found.positions == sorted(found.positions)
            assert {lines[at].prefix for at in found.positions} == {found.prefix}
            assert not {lines[at].key for at in found.positions} & failed.keys(), "a blocked key was written"
            tried += found.positions
            error = data.draw(st.sampled_from([None, None, SinkUnavailable("slow"), SinkRefused("no")]))
            grouping.note(found, error)
            for at in found.positions:
                if error is None:
                    written[str(lines[at].key)].append(at)
                else:
                    failed.setdefault(str(lines[at].key), at)
                assert grouping.results[at] is error
    assert len(tried) == len(set(tried)), "an output was written twice"
    for positions in written.values():
        assert positions == sorted(positions)
    for at, line in enumerate(lines):
        result = grouping.results[at]
        if line.error is not None:
            assert isinstance(result, SinkRefused)
        elif at not in tried:
            assert isinstance(result, SinkUnavailable)
            assert "earlier output of the same ordering key" in str(result)
    for key in "abc":
        # What was accepted of a key is what stands before its first failure.
        results = [grouping.results[at] for at, line in enumerate(lines) if line.key == key]
        accepted = [result is None for result in results]
        assert accepted == sorted(accepted, reverse=True)


@given(LINES)
def test_when_nothing_fails_each_output_is_in_one_object_of_its_prefix(lines: list[Line]) -> None:
    good = [line for line in lines if line.error is None]
    grouping = Grouping(good)
    rounds = 0
    while objects := grouping.round():
        rounds += 1
        for found in objects:
            grouping.note(found, None)
    assert grouping.results == [None] * len(good)
    # A round is begun only because a key changes its prefix.
    by_key = [[line.prefix for line in good if line.key == key] for key in "abc"]
    changes = [sum(before != after for before, after in pairwise(prefixes)) for prefixes in by_key]
    assert not good or max(changes) < rounds <= sum(changes) + 1


def test_an_output_that_cannot_be_written_lets_those_before_it_go_and_none_behind_it() -> None:
    odd = SinkRefused("odd")
    grouping = Grouping([Line(key="a"), Line(key="a", error=odd), Line(key="a"), Line(key="b")])
    (found,) = grouping.round()
    assert found.positions == [0, 3]
    grouping.note(found, None)
    assert grouping.results[:2] == [None, odd]
    assert "odd" in str(grouping.results[2])
    assert grouping.results[3] is None


def test_what_was_not_reached_says_that_no_time_was_left() -> None:
    grouping = Grouping([Line(key="a", prefix="x"), Line(key="a", prefix="y")])
    (first,) = grouping.round()
    grouping.note(first, None)
    assert grouping.results[0] is None
    assert "no time" in str(grouping.results[1])


# The bytes of an object


BODIES = st.one_of(st.text(max_size=20), st.just("x" * 262_145 + "é\n\ud83d"), st.just('"😀\n' * 100_000))


@given(st.lists(BODIES, max_size=4))  # short before long, long before short, and one of each kind between
def test_each_text_is_one_line_that_reads_back(bodies: list[str]) -> None:
    found = b"".join(chunks([text(body) for body in bodies])).split(b"\n")
    assert found.pop() == b""
    assert [json.loads(line) for line in found] == [json.loads(json.dumps(body)) for body in bodies]


def test_a_json_body_stands_as_it_is_on_one_line() -> None:
    long = '{"a": "' + "é" * 300_000 + '",\n"b": 0.10}'
    found = b"".join(chunks([document('{"n":1.50}'), document('{\n"n": 2}'), document(long)])).decode().splitlines()
    assert found == ['{"n":1.50}', '{ "n": 2}', long.replace("\n", " ")]


def test_a_lone_surrogate_in_a_json_body_becomes_its_escape() -> None:
    for fill in ("", "x" * 300_000):
        (line,) = b"".join(chunks([document(f'"{fill}\ud800"')])).decode().splitlines()
        assert json.loads(line) == f"{fill}\ud800"


@given(st.lists(st.integers(0, 3 * PART // 2), max_size=4), st.booleans())
def test_parts_are_all_of_it_and_of_one_size_but_the_last(sizes: list[int], compress: bool) -> None:
    made = [bytes([number + 65]) * size for number, size in enumerate(sizes)]
    parts = list(split(body_of(*made, compress=compress)))
    assert [is_last for _, is_last in parts] == [False] * (len(parts) - 1) + [True]
    assert {len(part) for part, is_last in parts if not is_last} <= {PART}
    whole = b"".join(part for part, _ in parts)
    assert (gzip.decompress(whole) if compress else whole) == b"".join(made)
    assert len(parts) == max(1, -(-len(whole) // PART))


def test_what_gzip_held_back_may_need_a_part_of_its_own() -> None:
    noise = random.Random(7).randbytes(PART - 1_000)
    parts = [part for part, _ in split(body_of(noise, compress=True))]
    assert [len(part) > PART // 2 for part in parts] == [True, False]
    assert gzip.decompress(b"".join(parts)) == noise


@given(st.lists(st.binary(max_size=50)))
def test_gzip_of_the_same_lines_has_the_same_bytes_and_no_time(made: list[bytes]) -> None:
    (first, _), (second, _) = (next(split(body_of(*made, compress=True))) for _ in range(2))
    assert first == second
    assert first[4:8] == bytes(4)
    assert zlib.decompress(first, wbits=31) == b"".join(made)
