"""The Kinesis source: sequence numbers, aggregates, the member that travels along, and its dead letters."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import Claim, Handler, Pipeline, by, sinks, sources, stores
from pipeline.aws.client import client
from pipeline.batch import BatchResult
from pipeline.decisions.deadline import Deadline
from pipeline.engine.environment import ProcessEnvironment
from pipeline.errors import ConfigurationError, EventError, PayloadError, SinkUnavailable
from pipeline.outcome import Failed, Outcome, Succeeded, is_settled
from pipeline.output import Output
from pipeline.ports import DeadLetter
from pipeline.record import Carried, RawRecord, TraceContext
from pipeline.sources.kinesis_event import Place
from tests.flow.events import SHARD, STREAM, event, stream_record
from tests.support.aggregates import aggregate, opened, sealed

FOREVER = Deadline()
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SPAN = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1)
MIB = 1_048_576
#: The place of a damaged record in an aggregate, its magic bytes and the digest of a message that is no protobuf.
BROKEN = sealed(b"\xff")

ORDERS = sources.Kinesis("orders")

#: aiohttp would rather be given a file for a body of a MiB.
large_bodies = pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")


def decode(*records: Any) -> list[RawRecord]:
    return ORDERS.decode(event(*records))


def decode_one(record: Any) -> RawRecord:
    (found,) = decode(record)
    return found


# A record


def test_a_record_is_its_data_with_its_place_as_attributes() -> None:
    found = decode_one(stream_record("49590338271490256608559692538361571095921575989136588898", {"n": 1}, key="c1"))
    assert found.body == b'{"n": 1}'
    assert (found.lane, found.source, found.receive_count, found.sent_at) == ("c1", "orders", 1, 1545084650.987)
    assert found.attributes == {
        "partition_key": "c1",
        "shard_id": SHARD,
        "sequence_number": "49590338271490256608559692538361571095921575989136588898",
    }
    assert found.id == f"orders/{SHARD}:49590338271490256608559692538361571095921575989136588898"
    assert (found.carried, found.error) == (None, None)


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\xff\xfe not UTF-8", "ä😀".encode(), b"\xf3\x89\x9a", b"not {json", bytes(range(256))]
)
def test_data_is_bytes_and_any_bytes_are_data(data: bytes) -> None:
    found = decode_one(stream_record(1, data))
    assert (found.body, found.error) == (data, None)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("no base64!", "the data is not base64"),
        ("YQ", "the data is not base64"),
        ("YQ==YQ==", "the data is not base64"),
        ("YQ==\n", "the data is not base64"),
        ("Y_-=", "the data is not base64"),
        ("ä", "the data is not base64"),
        ("\ud800", "the data is not base64"),
        (7, "the data is a number, not a text"),
        ({"a": 1}, "the data is an object, not a text"),
        (["YQ=="], "the data is an array, not a text"),
    ],
)
def test_damaged_data_damages_its_own_record_only_and_is_kept(data: Any, says: str) -> None:
    before, found, behind = decode(stream_record(1, 1), stream_record(2, key="c2", data=data), stream_record(3, 3))
    assert isinstance(found.error, PayloadError)
    assert says in str(found.error)
    assert found.body == (data if isinstance(data, str) else json.dumps(data))
    assert (found.id, found.lane) == (f"orders/{SHARD}:2", "c2")
    assert [(one.body, one.error) for one in (before, behind)] == [(b"1", None), (b"3", None)]


def test_data_that_is_missing_damages_its_own_record_only() -> None:
    found = decode_one(stream_record(1, data=None))
    assert str(found.error) == "the record has no data"
    assert found.body == ""


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (None, "has no sequenceNumber; it has approximateArrivalTimestamp, data"),
        ("", "has a sequenceNumber that is no decimal number"),
        ("abc", "no decimal number"),
        ("0x10", "no decimal number"),
        ("007", "no decimal number"),
        ("-1", "no decimal number"),
        ("1.5", "no decimal number"),
        (" 1", "no decimal number"),
        ("1\n", "no decimal number"),
        ("٣", "no decimal number"),
        ("1" * 130, "no decimal number"),
        (7, "no decimal number"),
        (["1"], "no decimal number"),
    ],
)
def test_a_record_that_cannot_be_named_to_the_stream_refuses_the_event(number: Any, says: str) -> None:
    bad = stream_record(2, {"secret": 1}, sequenceNumber=number)
    with pytest.raises(EventError, match=says) as raised:
        decode(stream_record(1), bad)
    assert str(raised.value).startswith("record 1 of the stream 'orders' ")
    assert "secret" not in str(raised.value)


def test_the_longest_sequence_number_is_taken() -> None:
    number = "9" * 129
    found = decode_one(stream_record(number))
    assert ORDERS.unsettled_ids(BatchResult([found], [Failed(ValueError())])) == [number]


def test_records_without_their_places_are_taken_for_test_events_leave_them_out() -> None:
    bare = {"kinesis": {"sequenceNumber": "5", "data": "e30="}}
    found = decode_one(bare)
    assert (found.id, found.lane, found.sent_at, found.body) == ("orders/:5", None, None, b"{}")
    assert found.attributes == {"sequence_number": "5"}


@pytest.mark.parametrize("odd", [None, 7, "", ["x"], {"x": 1}])
@pytest.mark.parametrize("name", ["eventID", "eventSourceARN"])
def test_an_odd_place_is_a_missing_one(name: str, odd: Any) -> None:
    found = decode_one({**stream_record(5), name: odd})
    assert found.id == {"eventID": "orders/:5", "eventSourceARN": f"orders/{SHARD}:5"}[name]


@pytest.mark.parametrize("odd", [None, 7, "", ["x"], {"x": 1}])
def test_an_odd_partition_key_is_none(odd: Any) -> None:
    found = decode_one(stream_record(5, partitionKey=odd))
    assert found.lane is None
    assert "partition_key" not in found.attributes


@pytest.mark.parametrize("odd", [None, "soon", True, -1, float("nan"), float("inf"), 10**400, {"x": 1}])
def test_an_odd_time_is_none(odd: Any) -> None:
    assert decode_one(stream_record(5, approximateArrivalTimestamp=odd)).sent_at is None


# Identity


def test_identities_differ_between_streams_shards_numbers_and_places_in_an_aggregate() -> None:
    two = aggregate([("a", None, b"1"), ("a", None, b"1")])
    records = [
        stream_record(5),
        stream_record(6),
        {**stream_record(5), "eventID": "shardId-000000000007:5"},
        {**stream_record(5), "eventSourceARN": STREAM.replace("orders", "others")},
        stream_record(7, two),
        stream_record(8, two),
    ]
    ids = [found.id for found in decode(*records)]
    assert len(ids) == len(set(ids)) == 8
    assert f"orders/{SHARD}:7:1" in ids


def test_the_identity_is_the_streams_own_whatever_the_source_is_called() -> None:
    theirs = sources.Kinesis("here", existing=STREAM)
    (found,) = theirs.decode(event(stream_record(5)))
    assert (found.id, found.source) == (f"orders/{SHARD}:5", "here")
    consumer = {**stream_record(5), "eventSourceARN": f"{STREAM}/consumer/fast:1545084650"}
    assert decode_one(consumer).id == found.id


@pytest.mark.parametrize("data", [b'{"n": 1}', aggregate([("a", None, b'{"n": 1}'), ("b", None, b'{"n": 2}')])])
def test_a_record_that_is_delivered_again_is_a_duplicate(data: bytes) -> None:
    ran: list[int] = []
    handler = counting(Pipeline("shop", idempotency=Claim(store=stores.Memory())), ran)
    try:
        for _ in range(2):
            assert handler(event(stream_record(1, data)), Seconds()) == {"batchItemFailures": []}
    finally:
        handler.close()
    assert sorted(ran) == ([1] if data.startswith(b"{") else [1, 2])


def test_an_id_that_travelled_along_is_the_identity_wherever_it_stands() -> None:
    ran: list[int] = []
    handler = counting(Pipeline("shop", idempotency=Claim(store=stores.Memory())), ran)
    member = {"_pipeline": {"id": "abc", "hops": 1}, "n": 1}
    try:
        for record in (stream_record(1, member), stream_record(2, {"n": 1, **member}, key="elsewhere")):
            assert handler(event(record), Seconds()) == {"batchItemFailures": []}
    finally:
        handler.close()
    assert ran == [1]


class Seconds:
    def get_remaining_time_in_millis(self) -> int:
        return 30_000


def counting(pipeline: Pipeline, ran: list[int]) -> Handler[..., Any]:
    @pipeline.handler(ORDERS)
    async def count(value: dict[str, int]) -> None:
        assert set(value) == {"n"}
        ran.append(value["n"])

    return count


# Order, and the one number that is reported


def test_records_of_an_event_in_any_order_come_by_their_numbers() -> None:
    pair = aggregate([("a", None, b"a"), ("a", None, b"b")])
    shuffled = [stream_record(10, b"ten"), stream_record(9, b"nine"), stream_record(100, pair), stream_record(11, b"x")]
    assert [found.body for found in decode(*shuffled)] == [b"nine", b"ten", b"x", b"a", b"b"]


def test_the_lowest_number_is_lowest_as_a_number() -> None:
    records = decode(stream_record(9), stream_record(10), stream_record(100))
    failed, done = Failed(ValueError()), Succeeded()
    assert ORDERS.unsettled_ids(BatchResult(records, [failed, failed, failed])) == ["9"]
    assert ORDERS.unsettled_ids(BatchResult(records, [done, failed, failed])) == ["10"]
    assert ORDERS.unsettled_ids(BatchResult(records, [done, done, failed])) == ["100"]
    assert ORDERS.unsettled_ids(BatchResult(records, [done, done, done])) == []
    assert ORDERS.unsettled_ids(BatchResult([], [])) == []


ENDS: list[Outcome] = [Succeeded(), Failed(ValueError())]
numbers = st.integers(0, 10**56) | st.integers(0, 200)
#: Sequence numbers, each with the ends of the records that it holds.
batches = st.dictionaries(numbers, st.lists(st.sampled_from(ENDS), min_size=1, max_size=4), max_size=12)


@given(batch=batches, chance=st.randoms(use_true_random=False))
def test_the_reported_number_is_the_lowest_that_is_unsettled(
    batch: Mapping[int, Sequence[Outcome]], chance: random.Random
) -> None:
    records = [stream_record(number, whole(len(ends))) for number, ends in batch.items()]
    chance.shuffle(records)
    decoded = decode(*records)
    ended = [end for number in sorted(batch) for end in batch[number]]
    unsettled = [number for number, ends in batch.items() if not all(map(is_settled, ends))]
    expected = [str(min(unsettled))] if unsettled else []
    assert ORDERS.unsettled_ids(BatchResult(decoded, ended)) == expected


def whole(count: int) -> bytes:
    return b"{}" if count == 1 else aggregate([(f"k{n}", None, b"{}") for n in range(count)])


# Aggregates


def test_the_records_of_an_aggregate_have_their_own_keys_and_its_number() -> None:
    data = aggregate([("a", None, b"1"), ("b", "17", b"\xff"), ("a", None, b"")])
    found = decode(stream_record(7, data, key="the aggregate's own"))
    assert [(one.body, one.lane) for one in found] == [(b"1", "a"), (b"\xff", "b"), (b"", "a")]
    assert [one.id for one in found] == [f"orders/{SHARD}:7:{n}" for n in range(3)]
    assert found[1].attributes == {
        "partition_key": "b",
        "shard_id": SHARD,
        "sequence_number": "7",
        "subsequence_number": "1",
    }
    assert {one.sent_at for one in found} == {1545084650.987}


def test_an_aggregate_of_one_is_not_the_record_itself() -> None:
    (found,) = decode(stream_record(7, aggregate([("a", None, b"1")])))
    assert (found.id, found.lane, found.body) == (f"orders/{SHARD}:7:0", "a", b"1")


def test_an_aggregate_of_five_thousand_comes_in_order() -> None:
    found = decode(stream_record(7, aggregate([(f"k{n % 7}", None, b"%d" % n) for n in range(5_000)])))
    assert [int(one.body) for one in found] == list(range(5_000))
    assert len({one.id for one in found}) == 5_000


def test_a_record_of_an_aggregate_without_a_key_has_no_lane() -> None:
    (found,) = decode(stream_record(7, aggregate([("", None, b"1")]), key="the aggregate's own"))
    assert found.lane is None
    assert "partition_key" not in found.attributes


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (BROKEN, "the aggregated record is damaged"),
        (aggregate([("a", None, b"1")])[:-1], "its MD5 digest does not match"),
        (opened(aggregate([("a", None, b"1")])), None),
        (b"\xf3\x89\x9a\xc2", "the aggregated record is cut off"),
        (sealed(b""), "it holds no records"),
    ],
    ids=["no protobuf", "cut", "no magic", "magic only", "empty"],
)
def test_a_damaged_aggregate_is_one_damaged_record_and_the_others_are_fine(data: bytes, says: str | None) -> None:
    good = aggregate([("a", None, b"1"), ("b", None, b"2")])
    found = decode(stream_record(6, good), stream_record(7, data, key="own"), stream_record(8, good))
    assert [one.error for one in (*found[:2], *found[3:])] == [None] * 4
    damaged = found[2]
    assert (damaged.id, damaged.lane, damaged.body) == (f"orders/{SHARD}:7", "own", data)
    assert says in str(damaged.error) if says else damaged.error is None


# What travels along

CARRIED = Carried(id="abc", hops=2, traceparent=TRACE)
MEMBER = '{"id":"abc","hops":2,"traceparent":"' + TRACE + '"}'


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ('{"_pipeline":%,"n":1}', '{"n":1}'),
        ('{"_pipeline":%}', "{}"),
        ('{"_pipeline":%}\n', "{}\n"),
        ('{"_pipeline":%,"n":1.50,"big":123456789012345678901234567890,"e":1E400}', '{"n":1.50,"big":123456789012345678901234567890,"e":1E400}'),
        ('{"_pipeline": %, "n": 1}', '{"n": 1}'),
        ('{ "_pipeline" : % }', "{  }"),
        ('{"n":0.10,"_pipeline":%}', '{"n":0.10}'),
        ('{"n":0.10, "_pipeline":%, "m":-0.0}', '{"n":0.10,"m":-0.0}'),
        ('\n{\t"n": 1.0000000000000000001 , "_pipeline" : % }\r\n', '\n{\t"n": 1.0000000000000000001 }\r\n'),
        ('{"n":"\\u00e4 ä \\"_pipeline\\"","_pipeline":%}', '{"n":"\\u00e4 ä \\"_pipeline\\""}'),
        ('{"_pipeline":%,"in":{"_pipeline":{"id":"theirs"}}}', '{"in":{"_pipeline":{"id":"theirs"}}}'),
        ('{"_pipeline":7,"n":1,"_pipeline":%}', '{"n":1}'),
        ('{"n":1,"n":2,"_pipeline":%}', '{"n":1,"n":2}'),
        ('\ufeff{"_pipeline":%,"n":1}', '{"n":1}'),
    ],
)  # fmt: skip
def test_the_member_is_cut_out_and_every_other_character_stays(body: str, left: str) -> None:
    found = decode_one(stream_record(1, body.replace("%", MEMBER).encode()))
    assert found.body == left.encode()
    assert found.carried == CARRIED
    assert found.traces == (SPAN,)


def test_what_vendors_add_to_a_context_comes_along() -> None:
    member = MEMBER[:-1] + ',"tracestate":"vendor=1"}'
    (trace,) = decode_one(stream_record(1, f'{{"_pipeline":{member}}}'.encode())).traces
    assert (trace.span_id, trace.state) == (SPAN.span_id, "vendor=1")


@pytest.mark.parametrize(
    ("document", "states"),
    [
        ({"specversion": "1.0", "traceparent": TRACE, "tracestate": "vendor=1"}, ["vendor=1"]),
        ({"traceparent": TRACE, "tracestate": 7}, [None]),
        ({"_pipeline": {"id": "abc"}, "traceparent": TRACE}, [None]),
        ({"_pipeline": {"id": "abc", "traceparent": "malformed"}, "traceparent": TRACE}, [None]),
        ({"_pipeline": {"id": "abc", "traceparent": TRACE}, "traceparent": TRACE.replace("b7", "00")}, [None]),
        ({"data": {"traceparent": TRACE}}, []),
        ({"traceparent": [TRACE]}, []),
        ({"traceparent": "malformed"}, []),
        ([{"traceparent": TRACE}], []),
        (["traceparent"], []),
    ],
)
def test_a_document_may_name_what_made_it_as_a_cloud_event_does(document: Any, states: list[str | None]) -> None:
    found = decode_one(stream_record(1, json.dumps(document).encode()))
    assert [(trace.trace_id, trace.span_id, trace.state) for trace in found.traces] == [
        (SPAN.trace_id, SPAN.span_id, state) for state in states
    ]
    assert found.error is None
    assert decode_one(stream_record(1, b'{"traceparent": ' + b"[" * 9_999)).traces == ()


@pytest.mark.parametrize("trace", ["malformed", TRACE.upper(), 7, None, [TRACE]])
def test_a_malformed_context_is_none(trace: Any) -> None:
    member = json.dumps({"id": "abc", "traceparent": trace})
    found = decode_one(stream_record(1, f'{{"_pipeline":{member}}}'.encode()))
    assert (found.traces, found.error) == ((), None)
    assert found.carried is not None


@pytest.mark.parametrize(
    "body",
    [
        '{"_pipeline":"theirs","n":1}',
        '{"_pipeline":{"id":7},"n":1}',
        '{"_pipeline":{"id":""},"n":1}',
        '{"_pipeline":{"id":"a","hops":-1},"n":1}',
        '{"n":1,"_pipeline":[1]}',
        '{"_pipeline":%,"n":1,"_pipeline":"theirs"}',
        '{"in":{"_pipeline":%}}',
        '["_pipeline",%]',
        '[{"_pipeline":%}]',
        '"_pipeline"',
        '{"n":"_pipeline"}',
        '"{\\"_pipeline\\":%}"',
    ],
)
def test_a_strangers_member_is_no_error_and_stays(body: str) -> None:
    data = body.replace("%", '{"id":"abc","hops":2}').encode()
    found = decode_one(stream_record(1, data))
    assert (found.body, found.carried, found.error) == (data, None, None)


@pytest.mark.parametrize(
    "body",
    [
        '{"_pipeline":%',
        '{"_pipeline":%,',
        '{"_pipeline":%,}',
        '{"_pipeline":%,7}',
        '{"_pipeline":%]',
        '{"_pipeline":%;"n":1}',
        '{"_pipeline":%,\u00a0"n":1}',
        '{"n":1,"_pipeline":%',
        '{"n":1,"_pipeline":%,}',
        '{"n" 1,"_pipeline":%}',
        '{7:1,"_pipeline":%}',
        '{"n":1,"_pipeline":%} and more',
        'x{"_pipeline":%}',
        '{"_pipeline":{"id":"abc"',
        '{}"_pipeline"',
        pytest.param('{"n":' + "[" * 200_000 + ',"_pipeline":%}', id="deep"),
    ],
)
def test_what_is_no_json_is_left_for_its_own_error(body: str) -> None:
    data = body.replace("%", '{"id":"abc","hops":2}').encode()
    found = decode_one(stream_record(1, data))
    assert (found.body, found.carried, found.error) == (data, None, None)


def test_bytes_that_are_not_utf_8_carry_nothing() -> None:
    data = b'{"_pipeline":{"id":"abc"},"n":"\xff"}'
    found = decode_one(stream_record(1, data))
    assert (found.body, found.carried) == (data, None)


def test_what_the_sink_writes_is_what_the_source_reads() -> None:
    body = '{"price":10.10,"n":123456789012345678901234567890}'
    made = Output(id="abc", sink="out", body=body, default_key="k", hops=2, traceparent=TRACE)
    entry = sinks.Kinesis("orders")._entry(made)
    found = decode_one(stream_record(1, entry.payload["Data"]))
    assert (found.body, found.carried) == (body.encode(), CARRIED)


# Options


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch_size": 10_001}, r"sources.Kinesis\(batch_size=10001\): give a whole number, 1 to 10,000"),
        ({"batch_size": 1.5}, "whole number, 1 to 10,000"),
        ({"batching_window": -1}, "0 to 300"),
        ({"parallelization_factor": 0}, "1 to 10$"),
        ({"parallelization_factor": 11}, "1 to 10$"),
        ({"retry_attempts": -2}, "0 to 10,000, or -1 for no limit"),
        ({"retry_attempts": 10_001}, "0 to 10,000, or -1 for no limit"),
        ({"max_record_age": 59}, "60 to 604,800, or -1 for no limit"),
        ({"max_record_age": 604_801}, "60 to 604,800, or -1 for no limit"),
        ({"shards": 0}, "shards=0"),
        ({"shards": True}, "shards=True"),
        ({"shards": 2, "existing": STREAM}, r"shards=\.\.\..*has its shards; leave it out"),
        ({"starting_position": "AT_TIMESTAMP"}, "give one of TRIM_HORIZON, LATEST"),
        ({"starting_position": None}, "give one of TRIM_HORIZON, LATEST"),
        ({"bisect": "yes"}, "bisect='yes'.*True or False"),
        ({"bisect": 1}, "True or False"),
        ({"existing": f"{STREAM}/consumer/c:1"}, "ARN of a stream"),
        ({"existing": "arn:aws:kinesis:eu-west-1:123456789012:orders"}, "ARN of a stream"),
    ],
)
def test_a_wrong_option_is_refused_when_declared_and_says_what_to_write(options: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        sources.Kinesis("orders", **options)


def test_options_at_their_limits_are_taken() -> None:
    low = sources.Kinesis("s", batch_size=1, retry_attempts=0, max_record_age=60, shards=1, bisect=False)
    high = sources.Kinesis(
        "s",
        batch_size=10_000,
        batching_window=300,
        parallelization_factor=10,
        retry_attempts=10_000,
        max_record_age=604_800,
        starting_position="LATEST",
    )
    assert (low.retry_attempts, low.max_record_age, low.shards) == (0, 60, 1)
    assert (high.batch_size, high.parallelization_factor, high.starting_position) == (10_000, 10, "LATEST")
    assert (sources.Kinesis("s").retry_attempts, sources.Kinesis("s", max_record_age=-1).max_record_age) == (-1, -1)


# Lanes


def lanes(pipeline: Pipeline, source: Any = ORDERS, **options: Any) -> list[str | None]:
    """The lanes of two records, when a handler is declared so."""

    @pipeline.handler(source, **options)
    async def price(order: dict[str, Any]) -> None: ...

    read = price.stage.source_lane
    records = decode(stream_record(1, key="a"), {**stream_record(2, key="b"), "eventID": "shardId-000000000007:2"})
    return [raw.lane if read is None else read(raw) for raw in records]


def shop(**options: Any) -> Pipeline:
    return Pipeline("shop", **options)


def test_records_run_in_order_by_partition_key_or_by_shard() -> None:
    assert lanes(shop()) == lanes(shop(), lane=by.partition_key) == ["a", "b"]
    assert lanes(shop(), lane=by.shard) == [SHARD, "shardId-000000000007"]


def test_without_idempotency_the_lane_is_the_shard() -> None:
    assert lanes(shop(idempotency=None)) == lanes(shop(idempotency=None), lane=by.shard)
    assert lanes(shop(idempotency=None)) == [SHARD, "shardId-000000000007"]


@pytest.mark.parametrize("lane", [by.partition_key, "order_id", ("a", "b"), lambda order: order["a"]])
def test_without_idempotency_another_lane_is_refused(lane: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"price: lane=.* needs idempotency.*Leave lane out"):
        lanes(shop(idempotency=None), lane=lane)


def test_records_whose_shard_is_not_known_are_in_order_too() -> None:
    bare = ORDERS.decode(event({"kinesis": {"sequenceNumber": "5", "data": "e30="}}))
    assert ORDERS.orders["shard"](bare[0]) == ""


def test_batches_side_by_side_leave_no_order_of_the_shard() -> None:
    source = sources.Kinesis("orders", parallelization_factor=2)
    assert lanes(shop(), source, lane=by.partition_key) == ["a", "b"]
    with pytest.raises(ConfigurationError, match=r"lane=by.shard: .*no such order; it has by.partition_key"):
        lanes(shop(), source, lane=by.shard)
    with pytest.raises(ConfigurationError, match="leave parallelization_factor out"):
        lanes(shop(idempotency=None), source)


# Its stream and its dead letters


@pytest.fixture
async def stream(aws: str, environment: ProcessEnvironment, unique: str) -> sources.Kinesis:
    made = sources.Kinesis(unique, shards=2)
    await made.create(environment, timeout=30)
    return made


async def dead_letters(environment: ProcessEnvironment, queue: str) -> list[dict[str, Any]]:
    service = await client(environment, "sqs")
    url = (await service.get_queue_url(QueueName=queue))["QueueUrl"]
    found: list[dict[str, Any]] = []
    while some := (
        await service.receive_message(QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"])
    ).get("Messages"):
        found += some
    return [{"Body": one["Body"], **texts_of(one)} for one in found]


def texts_of(found: dict[str, Any]) -> dict[str, str]:
    return {name: value["StringValue"] for name, value in found["MessageAttributes"].items()}


def letter(record: RawRecord, cause: str = "Reject: never") -> DeadLetter:
    return DeadLetter(record=record, handler="shop.price", cause=cause, attempts=5, exhausted=True)


async def put(
    source: sources.Kinesis, environment: ProcessEnvironment, record: RawRecord, cause: str = "Reject: never"
) -> list[dict[str, Any]]:
    assert await source.dead_letters.put([letter(record, cause)], environment, FOREVER) == [None]
    return await dead_letters(environment, f"{source.name}-stream-dlq")


async def test_its_stream_and_its_queue_are_made(stream: sources.Kinesis, environment: ProcessEnvironment) -> None:
    kinesis, sqs = await client(environment, "kinesis"), await client(environment, "sqs")
    assert len((await kinesis.list_shards(StreamName=stream.name))["Shards"]) == 2
    url = (await sqs.get_queue_url(QueueName=f"{stream.name}-stream-dlq"))["QueueUrl"]
    found = (await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"]))["Attributes"]
    assert found["MessageRetentionPeriod"] == "1209600"


async def test_of_a_stream_that_is_not_ours_only_the_queue_is_made(
    aws: str, environment: ProcessEnvironment, unique: str
) -> None:
    source = sources.Kinesis(unique, existing=f"{STREAM}-of-theirs")
    await source.create(environment, timeout=30)
    kinesis = await client(environment, "kinesis")
    assert f"{unique}" not in (await kinesis.list_streams(Limit=10_000))["StreamNames"]
    assert "orders-of-theirs" not in (await kinesis.list_streams(Limit=10_000))["StreamNames"]
    (found,) = await put(source, environment, decode_one(stream_record(1)))
    assert found["Body"] == "e30="


async def test_a_letter_is_the_data_as_the_stream_holds_it_and_says_where_it_stood(
    stream: sources.Kinesis, environment: ProcessEnvironment
) -> None:
    data = b'{"_pipeline":{"id":"abc","hops":2},"n":1}'
    (found,) = await put(stream, environment, decode_one(stream_record(7, data, key="c1")))
    assert base64.b64decode(found.pop("Body"), validate=True) == data
    assert json.loads(found.pop("pipeline_cause"))["cause"] == "Reject: never"
    assert found == {"partition_key": "c1", "shard_id": SHARD, "sequence_number": "7", "encoding": "base64"}


async def test_the_letter_of_an_aggregates_record_is_that_record_alone(
    stream: sources.Kinesis, environment: ProcessEnvironment
) -> None:
    _, second = decode(stream_record(7, aggregate([("a", None, b"1"), ("b", "17", b"2")])))
    (found,) = await put(stream, environment, second)
    assert base64.b64decode(found["Body"]) == b"2"
    assert (found["partition_key"], found["subsequence_number"], found["hash_key"]) == ("b", "1", "17")


async def test_the_letter_of_a_damaged_aggregate_is_all_of_it(
    stream: sources.Kinesis, environment: ProcessEnvironment
) -> None:
    (found,) = await put(stream, environment, decode_one(stream_record(7, BROKEN)))
    assert (base64.b64decode(found["Body"]), found["encoding"]) == (BROKEN, "base64")


@pytest.mark.parametrize(
    ("data", "stored"),
    [
        ("no base64!", "no base64!"),
        ("nul \x00 \ud800", "nul \\u0000 \\ud800"),
        ("YQ==\n", "YQ==\n"),
        ({"a": 1}, '{"a": 1}'),
        (None, "\n"),
    ],
)
async def test_the_letter_of_data_that_is_no_base64_is_what_was_received(
    stream: sources.Kinesis, environment: ProcessEnvironment, data: Any, stored: str
) -> None:
    (found,) = await put(stream, environment, decode_one(stream_record(7, data=data)))
    assert (found["Body"], found["encoding"]) == (stored, "as received")


async def test_the_letter_of_no_bytes_at_all_is_base64_of_them(
    stream: sources.Kinesis, environment: ProcessEnvironment
) -> None:
    (found,) = await put(stream, environment, decode_one(stream_record(7, b"")))
    assert (base64.b64decode(found["Body"]), found["encoding"]) == (b"", "base64")


async def test_a_letter_of_a_record_without_its_place_is_stored(
    stream: sources.Kinesis, environment: ProcessEnvironment
) -> None:
    bare = decode_one({"kinesis": {"sequenceNumber": "5", "data": "e30="}})
    (found,) = await put(stream, environment, bare)
    assert set(found) == {"Body", "sequence_number", "encoding", "pipeline_cause"}


@large_bodies
async def test_a_record_of_ten_mebibytes_is_read_and_its_letter_comes_in_parts_that_join(
    stream: sources.Kinesis, environment: ProcessEnvironment
) -> None:
    data = random.Random(7).randbytes(10 * MIB)
    record = decode_one(stream_record(7, data, key="k" * 256))
    assert record.body == data
    found = await put(stream, environment, record, "ü😀" * 2_000)
    assert len(found) == 14
    parts = {int(one["part"].split("/")[0]): one for one in found if "part" in one}
    (first,) = [one for one in found if "part" not in one] or [parts.pop(1)]
    assert all(one["part"].endswith("/14") for one in parts.values())
    ordered = [first, *(parts[number] for number in range(2, 15))]
    assert base64.b64decode("".join(one["Body"] for one in ordered), validate=True) == data
    assert all(base64.b64decode(one["Body"], validate=True) for one in ordered), "each part is base64 by itself"
    assert {one["sequence_number"] for one in ordered} == {"7"}


@large_bodies
async def test_a_part_that_is_not_taken_leaves_the_record_unsettled(
    stream: sources.Kinesis, environment: ProcessEnvironment, faults: Any
) -> None:
    fault = faults("sqs")
    refused = {"Id": "0", "Code": "InternalError", "SenderFault": False}
    await fault.answer("SendMessageBatch", {"Successful": [{"Id": "0"}]}, *[{"Failed": [refused]}] * 9)
    large = decode_one(stream_record(7, bytes(2 * MIB)))
    (error,) = await stream.dead_letters.put([letter(large)], environment, FOREVER)
    assert isinstance(error, SinkUnavailable)


@large_bodies
async def test_parts_of_damaged_data_fit_whatever_its_characters(
    stream: sources.Kinesis, environment: ProcessEnvironment
) -> None:
    data = "😀" * 300_000
    found = await put(stream, environment, decode_one(stream_record(7, data=data)))
    found.sort(key=lambda one: int(one["part"].split("/")[0]))
    assert len(found) == 2
    assert "".join(one["Body"] for one in found) == data


def test_a_place_says_nothing_of_itself() -> None:
    assert decode_one(stream_record(7, b"x")).origin == Place(7, b"x", stream=STREAM)
