"""The Kinesis sink: how outputs become records, and what becomes of those that were not taken."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import sinks
from pipeline.aws import kinesis
from pipeline.aws.calls import Call, GoOn
from pipeline.aws.client import client
from pipeline.aws.names import Resource
from pipeline.decisions.codec import encode
from pipeline.decisions.deadline import Deadline
from pipeline.engine.environment import ProcessEnvironment
from pipeline.errors import SinkError, SinkRefused, SinkUnavailable
from pipeline.output import Output

FOREVER = Deadline()
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
THEIRS = "arn:aws:kinesis:eu-west-1:123456789012:stream/{}"
MIB = 1_048_576
THROTTLED = {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "Rate exceeded for shard"}
FAILED = {"ErrorCode": "InternalFailure", "ErrorMessage": "Internal Service Failure"}

#: aiohttp would rather be given a file for a body of a MiB.
large_bodies = pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")


def output(value: Any, number: int = 0, **fields: Any) -> Output:
    """An output as the engine makes it."""
    is_text = isinstance(value, str)
    defaults: dict[str, Any] = {"id": f"{number:032x}", "sink": "out", "default_key": "k"}
    body = value if is_text else encode(value)
    return Output(body=body, is_text=is_text, value=value, **{**defaults, **fields})


#: Asked with the partition keys of a call: for each position an error's answer, or None to take the
#: record; perhaps fewer answers than were asked for, or the error code of the whole call.
Choose = Callable[[Sequence[str]], Any]


class Stream:
    """Kinesis in this process, at the place where a request would go out; it takes what `choose` lets it."""

    def __init__(self, choose: Choose) -> None:
        self.choose = choose
        self.calls: list[dict[str, Any]] = []
        self.taken: list[dict[str, Any]] = []

    @property
    def records(self) -> list[list[dict[str, Any]]]:
        """The records of each call."""
        return [call["Records"] for call in self.calls]

    @property
    def keys(self) -> list[list[str]]:
        """The partition keys of each call."""
        return [[record["PartitionKey"] for record in records] for records in self.records]

    @property
    def bodies(self) -> list[Any]:
        """What was taken, in order."""
        return [json.loads(record["Data"]) for record in self.taken]

    async def answer(self, call: Call, go_on: GoOn) -> dict[str, Any]:
        """Goes around the calls of a client."""
        if call.operation != "PutRecords":
            return await go_on()
        self.calls.append(call.parameters)
        records = call.parameters["Records"]
        chosen = self.choose([record["PartitionKey"] for record in records])
        if isinstance(chosen, str):
            failed = {"Error": {"Code": chosen, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": 400}}
            raise ClientError(failed, "PutRecords")
        self.taken += [record for record, error in zip(records, chosen, strict=False) if error is None]
        taken = {"SequenceNumber": "1", "ShardId": "shardId-000000000000"}
        return {"FailedRecordCount": sum(map(bool, chosen)), "Records": [error or taken for error in chosen]}


def takes_all(keys: Sequence[str]) -> list[None]:
    return [None] * len(keys)


async def attached(environment: ProcessEnvironment, choose: Choose = takes_all) -> Stream:
    stream = Stream(choose)
    made = await client(environment, "kinesis")
    made.around.append(stream.answer)
    return stream


async def detach(environment: ProcessEnvironment, stream: Stream) -> None:
    made = await client(environment, "kinesis")
    made.around.remove(stream.answer)


async def write(
    environment: ProcessEnvironment, *outputs: Output, deadline: Deadline = FOREVER, **options: Any
) -> list[SinkError | None]:
    return list(await sinks.Kinesis("orders", **options).write(outputs, environment, deadline))


# What a record is


async def test_an_object_carries_its_member_and_keeps_its_digits(aws: str, environment: ProcessEnvironment) -> None:
    stream = await attached(environment)
    assert await write(environment, output({"n": 10**20, "f": 0.10}, 7, hops=3, traceparent=TRACE)) == [None]
    ((record,),) = stream.records
    member = {"id": f"{7:032x}", "hops": 3, "traceparent": TRACE}
    assert record == {"PartitionKey": "k", "Data": record["Data"]}
    assert json.loads(record["Data"]) == {"_pipeline": member, "n": 10**20, "f": 0.1}


async def test_what_vendors_add_to_a_context_goes_along_but_not_with_what_may_fill_a_record(
    aws: str, environment: ProcessEnvironment
) -> None:
    stream = await attached(environment)
    filled = {"s": "x" * 65_600}
    for value in ({"n": 1}, filled):
        assert await write(environment, output(value, traceparent=TRACE, tracestate="vendor=1")) == [None]
    members = [json.loads(record["Data"])["_pipeline"] for (record,) in stream.records]
    assert [member.get("tracestate") for member in members] == ["vendor=1", None]
    assert [member["traceparent"] for member in members] == [TRACE, TRACE]


@pytest.mark.parametrize(
    ("value", "data"),
    [("two\nlines ü", "two\nlines ü".encode()), ('{"n": 1}', b'{"n": 1}'), ("", b""), ([1], b"[1]"), (7, b"7")],
)
async def test_what_is_no_object_goes_as_it_is(
    aws: str, environment: ProcessEnvironment, value: Any, data: bytes
) -> None:
    stream = await attached(environment)
    assert await write(environment, output(value)) == [None]
    assert stream.records[0][0]["Data"] == data


async def test_without_carry_an_object_goes_as_it_is(aws: str, environment: ProcessEnvironment) -> None:
    stream = await attached(environment)
    await write(environment, output({"n": 1}), carry=False)
    assert stream.records[0][0]["Data"] == b'{"n":1}'
    assert not sinks.Kinesis("orders", carry=False).carries
    assert sinks.Kinesis("orders").carries
    assert not sinks.Kinesis.has_attributes


@pytest.mark.parametrize(
    ("fields", "options", "key"),
    [
        ({"key": "mine"}, {"partition_key": "customer.id"}, "mine"),
        ({}, {"partition_key": "customer.id"}, "c1"),
        ({}, {"partition_key": "customer"}, '{"id": "c1"}'),
        ({}, {"partition_key": "n"}, "5"),
        ({"default_key": "lane"}, {}, "lane"),
    ],
)
async def test_a_partition_key_is_the_key_then_the_option_then_the_lane(
    aws: str, environment: ProcessEnvironment, fields: Any, options: Any, key: str
) -> None:
    stream = await attached(environment)
    assert await write(environment, output({"customer": {"id": "c1"}, "n": 5}, **fields), **options) == [None]
    assert stream.records[0][0]["PartitionKey"] == key


@pytest.mark.parametrize("value", [{}, {"customer": None}, {"customer": ""}, "customer", [1]])
async def test_an_output_without_its_partition_key_fails_alone(
    aws: str, environment: ProcessEnvironment, value: Any
) -> None:
    await attached(environment)
    results = await write(environment, output(value), output({"customer": "c"}, 1), partition_key="customer")
    assert [type(result) for result in results] == [SinkRefused, type(None)]
    assert "'customer'" in str(results[0])


@pytest.mark.parametrize("text", ["k", "k" * 256, "ü" * 256, "\U0001f600" * 128])
def test_a_key_that_kinesis_takes_stays_as_it_is(text: str) -> None:
    assert kinesis.partition_key(text) == text


@pytest.mark.parametrize("text", ["", "k" * 257, "\U0001f600" * 129, "half \ud800"])
def test_a_key_that_kinesis_does_not_take_becomes_its_hash(text: str) -> None:
    hashed = kinesis.partition_key(text)
    assert len(hashed) == 64
    assert set(hashed) <= set("0123456789abcdef")
    assert hashed == kinesis.partition_key(text) != kinesis.partition_key(text + "x" * 300)


async def test_long_keys_are_hashed_and_keep_their_order(aws: str, environment: ProcessEnvironment) -> None:
    stream = await attached(environment)
    assert await write(environment, *[output({"n": n}, n, key="k" * 300) for n in range(3)]) == [None] * 3
    assert {record["PartitionKey"] for record in stream.taken} == {kinesis.partition_key("k" * 300)}
    assert [body["n"] for body in stream.bodies] == [0, 1, 2]


@pytest.mark.parametrize("key", [0, "0", 2**128 - 1, str(2**128 - 1), 17, "17"])
async def test_a_hash_key_chooses_the_shard(aws: str, environment: ProcessEnvironment, key: Any) -> None:
    stream = await attached(environment)
    assert await write(environment, output({"at": {"hash": key}}), hash_key="at.hash") == [None]
    assert stream.records[0][0]["ExplicitHashKey"] == str(key)


@pytest.mark.parametrize(
    "key", [None, -1, 2**128, str(2**128), "9" * 5_000, "-1", "007", "٣", "7\n", "", 1.0, True, []]
)
async def test_what_is_no_hash_key_fails_alone(aws: str, environment: ProcessEnvironment, key: Any) -> None:
    stream = await attached(environment)
    results = await write(
        environment, output({"h": key}, default_key="a"), output({"h": 1}, 1, default_key="b"), hash_key="h"
    )
    assert [type(result) for result in results] == [SinkRefused, type(None)]
    assert "'h'" in str(results[0])
    assert len(stream.taken) == 1


@pytest.mark.parametrize(("shard", "key"), [(0, 0), (2, 2**127)])
async def test_the_service_puts_a_record_where_its_hash_key_says(
    aws: str, environment: ProcessEnvironment, unique: str, shard: int, key: int
) -> None:
    sink = sinks.Kinesis(unique, hash_key="h")
    await sink.create(environment)
    assert await sink.write([output({"h": key})], environment, FOREVER) == [None]
    service = await client(environment, "kinesis")
    start = {"ShardId": f"shardId-{shard:012}", "ShardIteratorType": "TRIM_HORIZON"}
    iterator = (await service.get_shard_iterator(StreamName=unique, **start))["ShardIterator"]
    assert len((await service.get_records(ShardIterator=iterator))["Records"]) == 1


# Calls


async def test_a_call_holds_500_records(aws: str, environment: ProcessEnvironment) -> None:
    stream = await attached(environment)
    outputs = [output({"n": n}, n, default_key=f"k{n}") for n in range(1_201)]
    assert await write(environment, *outputs) == [None] * 1_201
    assert [len(records) for records in stream.records] == [500, 500, 201]
    assert [body["n"] for body in stream.bodies] == list(range(1_201))


@large_bodies
async def test_a_call_holds_10_mib_keys_counted(aws: str, environment: ProcessEnvironment) -> None:
    stream = await attached(environment)
    # Ten of them are 10 MiB to the byte; one more byte of key, and the tenth goes in the next call.
    fitting = [output("x" * (MIB - 4), n, key=f"ü{n:02}") for n in range(11)]
    assert await write(environment, *fitting) == [None] * 11
    assert [len(records) for records in stream.records] == [10, 1]
    stream.calls.clear()
    assert await write(environment, output("x" * (MIB - 4), 99, key="ü999"), *fitting[:9]) == [None] * 10
    assert [len(records) for records in stream.records] == [9, 1]


@large_bodies
async def test_a_record_above_10_mib_is_refused_without_a_call(aws: str, environment: ProcessEnvironment) -> None:
    stream = await attached(environment)
    # With its key, the first one is 10 MiB to the byte, and the second a byte more.
    bodies = ["x" * (10 * MIB - 5), "x" * (10 * MIB - 4)]
    results = await write(environment, *[output(body, n, key=f"key-{n}") for n, body in enumerate(bodies)])
    assert [type(result) for result in results] == [type(None), SinkRefused]
    assert stream.keys == [["key-0"]]


@large_bodies
async def test_a_record_above_what_its_stream_takes_fails_alone(
    aws: str, environment: ProcessEnvironment, unique: str
) -> None:
    sink = sinks.Kinesis(unique)
    await sink.create(environment)
    outputs = [output("x" * size, n, key=f"k{n}") for n, size in enumerate([5, MIB + 1, 7])]
    results = await sink.write(outputs, environment, FOREVER)
    assert [type(result) for result in results] == [type(None), SinkRefused, type(None)]


@pytest.mark.parametrize("code", ["InvalidArgumentException", "ValidationException"])
async def test_a_refused_call_is_taken_apart_to_find_the_guilty_record(
    aws: str, environment: ProcessEnvironment, code: str
) -> None:
    stream = await attached(environment, lambda keys: code if "bad" in keys else takes_all(keys))
    results = await write(environment, *[output({}, n, key=key) for n, key in enumerate(["a", "bad", "c"])])
    assert [type(result) for result in results] == [type(None), SinkRefused, type(None)]
    assert stream.keys == [["a", "bad", "c"], ["a"], ["bad"], ["c"]]


async def test_a_stream_is_named_by_its_name_or_by_the_arn_of_somebody_elses(
    aws: str, environment: ProcessEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = await attached(environment)
    monkeypatch.setenv("PIPELINE_RESOURCES", '{"kinesis:orders": "shop-orders-1X2"}')
    await write(environment, output({}))
    await write(environment, output({}), existing=THEIRS.format("theirs"))
    names = [{name: call[name] for name in call if name != "Records"} for call in stream.calls]
    assert names == [{"StreamName": "shop-orders-1X2"}, {"StreamARN": THEIRS.format("theirs")}]


async def test_a_stream_that_exists_is_written_by_its_arn(
    aws: str, environment: ProcessEnvironment, unique: str
) -> None:
    sink = sinks.Kinesis("theirs", existing=THEIRS.format(unique))
    await sink.create(environment)
    assert await sink.write([output({})], environment, FOREVER) == [None]


# Failures


async def test_only_the_records_that_failed_are_put_again(
    aws: str, environment: ProcessEnvironment, clock: Any
) -> None:
    answers = [[None, THROTTLED, None, FAILED], [None, FAILED], [None]]
    stream = await attached(environment, lambda keys: answers.pop(0))
    results = await write(environment, *[output({"n": n}, n, key=f"k{n}") for n in range(4)])
    assert results == [None] * 4
    assert stream.keys == [["k0", "k1", "k2", "k3"], ["k1", "k3"], ["k3"]]
    assert len(clock.slept) == 2


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_an_answer_that_does_not_fit_its_call_accepts_nothing(
    aws: str, environment: ProcessEnvironment, count: int
) -> None:
    stream = await attached(environment, lambda keys: [None] * count)
    results = await write(environment, output({}, 0, key="a"), output({}, 1, key="b"))
    assert [type(result) for result in results] == [SinkUnavailable] * 2
    assert f"{count} of 2" in str(results[0])
    assert len(stream.calls) == 5


async def test_an_answer_without_a_sequence_number_is_no_acceptance(
    aws: str, environment: ProcessEnvironment, faults: Any
) -> None:
    await faults("kinesis").answer("PutRecords", *[{"FailedRecordCount": 0, "Records": [{}]}] * 5)
    (result,) = await write(environment, output({}))
    assert isinstance(result, SinkUnavailable)


@pytest.mark.parametrize(
    "code", ["ProvisionedThroughputExceededException", "KMSThrottlingException", "AccessDeniedException"]
)
async def test_a_call_that_failed_as_a_whole_is_made_again(
    aws: str, environment: ProcessEnvironment, code: str
) -> None:
    answers: list[Any] = [code, [None, None]]
    stream = await attached(environment, lambda keys: answers.pop(0))
    assert await write(environment, output({}, 0, key="a"), output({}, 1, key="b")) == [None, None]
    assert [len(records) for records in stream.records] == [2, 2]


async def test_a_lost_answer_repeats_a_record_before_the_next_of_its_key(
    aws: str, environment: ProcessEnvironment, unique: str, faults: Any
) -> None:
    sink = sinks.Kinesis(unique)
    await kinesis.create_stream(sink.resource, environment, 1)
    await faults("kinesis").lose_replies("PutRecords")
    assert await sink.write([output({"n": n}, n) for n in range(3)], environment, FOREVER) == [None] * 3
    assert [record["n"] for record in await read(environment, unique)] == [0, 0, 1, 2]


async def read(environment: ProcessEnvironment, stream: str) -> list[Any]:
    """Everything in a stream of one shard, in order."""
    service = await client(environment, "kinesis")
    start = {"ShardId": "shardId-000000000000", "ShardIteratorType": "TRIM_HORIZON"}
    iterator = (await service.get_shard_iterator(StreamName=stream, **start))["ShardIterator"]
    return [json.loads(record["Data"]) for record in (await service.get_records(ShardIterator=iterator))["Records"]]


async def test_a_record_that_cannot_be_put_stops_its_key_and_no_other(
    aws: str, environment: ProcessEnvironment
) -> None:
    stream = await attached(environment, lambda keys: [THROTTLED if key == "a" else None for key in keys])
    outputs = [output({"n": n}, n, key="ab"[n % 2]) for n in range(6)]
    results = await write(environment, *outputs)
    assert [type(result) for result in results] == [SinkUnavailable, type(None)] * 3
    assert [body["n"] for body in stream.bodies] == [1, 3, 5]
    assert "earlier output of the same ordering key" in str(results[2])


async def test_an_output_that_is_refused_stops_its_key_before_any_call(
    aws: str, environment: ProcessEnvironment
) -> None:
    stream = await attached(environment)
    results = await write(environment, output({"h": -1}), output({"h": 1}, 1), hash_key="h")
    assert [type(result) for result in results] == [SinkRefused, SinkUnavailable]
    assert stream.calls == []


#: What becomes of a call: the error code of the whole, or of each of its records.
FATE = st.one_of(
    st.sampled_from(["KMSThrottlingException", "InvalidArgumentException"]),
    st.lists(st.sampled_from([None, None, THROTTLED, FAILED]), min_size=2, max_size=2),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.sampled_from("aab"), min_size=1, max_size=12), st.lists(FATE, max_size=20))
async def test_whatever_a_call_takes_no_record_overtakes_one_of_its_key(
    aws: str, environment: ProcessEnvironment, keys: list[str], fates: list[Any]
) -> None:
    def choose(asked: Sequence[str]) -> Any:
        fate = fates.pop(0) if fates else takes_all(asked)
        return fate if isinstance(fate, str) else fate[: len(asked)]

    stream = await attached(environment, choose)
    try:
        results = await write(environment, *[output({"n": n}, n, key=key) for n, key in enumerate(keys)])
    finally:
        await detach(environment, stream)
    assert all(len(set(asked)) == len(asked) for asked in stream.keys), "two records of one key in one call"
    taken = [body["n"] for body in stream.bodies]
    assert sorted(taken) == [n for n, result in enumerate(results) if result is None]
    for key in "ab":
        of_key = [n for n, one in enumerate(keys) if one == key]
        accepted = [n for n in taken if keys[n] == key]
        assert accepted == of_key[: len(accepted)]


# Time


async def test_a_stream_throttled_for_good_gives_its_outputs_back_after_some_tries(
    aws: str, environment: ProcessEnvironment, clock: Any
) -> None:
    stream = await attached(environment, lambda keys: [THROTTLED] * len(keys))
    results = await write(environment, *[output({"n": n}, n, key=f"k{n % 2}") for n in range(4)])
    assert [type(result) for result in results] == [SinkUnavailable] * 4
    assert stream.taken == []
    assert len(stream.calls) == 5
    assert "ProvisionedThroughputExceededException" in str(results[0])


async def test_after_a_minute_of_throttling_what_came_back_is_put_in_its_order(
    aws: str, environment: ProcessEnvironment, clock: Any
) -> None:
    """The sink gives its outputs back, their source delivers them again, and nothing is put twice."""
    stream = await attached(environment, lambda keys: [THROTTLED if clock.monotonic() < 60 else None for _ in keys])
    open_ = [output({"n": n}, n, key="ab"[n % 2]) for n in range(6)]
    while open_:
        deadline = Deadline(soft=clock.monotonic() + 5, hard=clock.monotonic() + 6)
        results = await write(environment, *open_, deadline=deadline)
        assert {type(result) for result in results} <= {type(None), SinkUnavailable}
        open_ = [one for one, result in zip(open_, results, strict=True) if result is not None]
        clock.advance(7)
    assert 60 <= clock.monotonic() < 80
    taken = [body["n"] for body in stream.bodies]
    assert [n for n in taken if n % 2 == 0] == [0, 2, 4]
    assert [n for n in taken if n % 2] == [1, 3, 5]


async def test_nothing_is_put_again_past_the_deadline(aws: str, environment: ProcessEnvironment, clock: Any) -> None:
    def throttle(keys: Sequence[str]) -> Any:
        clock.advance(1)
        return [None, *[THROTTLED] * (len(keys) - 1)]

    stream = await attached(environment, throttle)
    outputs = [output({"n": n}, n, key=f"k{n % 2}") for n in range(4)]
    results = await write(environment, *outputs, deadline=Deadline(soft=0.5, hard=2.0))
    assert [type(result) for result in results] == [type(None), *[SinkUnavailable] * 3]
    assert len(stream.calls) == 1
    assert [body["n"] for body in stream.bodies] == [0]


# Streams


@pytest.mark.parametrize(("shards", "count", "mode"), [(None, 4, "ON_DEMAND"), (2, 2, "PROVISIONED")])
async def test_a_stream_is_made_once(
    aws: str, environment: ProcessEnvironment, unique: str, shards: int | None, count: int, mode: str
) -> None:
    stream = Resource("kinesis", unique)
    await kinesis.create_stream(stream, environment, shards)
    await kinesis.create_stream(stream, environment, 3)
    service = await client(environment, "kinesis")
    found = (await service.describe_stream_summary(StreamName=unique))["StreamDescriptionSummary"]
    assert (found["OpenShardCount"], found["StreamModeDetails"]["StreamMode"]) == (count, mode)


def said(status: str) -> dict[str, Any]:
    return {"StreamDescriptionSummary": {"StreamStatus": status}}


@pytest.mark.parametrize("usable", ["ACTIVE", "UPDATING"])
async def test_a_stream_is_waited_for_until_it_is_usable(
    aws: str, environment: ProcessEnvironment, unique: str, faults: Any, clock: Any, usable: str
) -> None:
    await faults("kinesis").answer("DescribeStreamSummary", said("CREATING"), said("CREATING"), said(usable))
    await kinesis.create_stream(Resource("kinesis", unique), environment, None)
    assert clock.slept == [1.0, 1.0]


async def test_a_stream_that_does_not_become_usable_is_waited_for_two_minutes(
    aws: str, environment: ProcessEnvironment, unique: str, faults: Any, clock: Any
) -> None:
    await faults("kinesis").answer("DescribeStreamSummary", *[said("CREATING")] * 500)
    with pytest.raises(SinkUnavailable, match="still CREATING"):
        await kinesis.create_stream(Resource("kinesis", unique), environment, 1)
    assert sum(clock.slept) == 120


async def test_a_stream_that_cannot_be_made_says_so(aws: str, environment: ProcessEnvironment, faults: Any) -> None:
    await faults("kinesis").lose_requests("CreateStream", times=99)
    with pytest.raises(SinkUnavailable, match="creating the stream 'orders'"):
        await kinesis.create_stream(Resource("kinesis", "orders"), environment, 1)
