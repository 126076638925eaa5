"""What every sink promises: the same suite over each of them, and what is each one's own."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from pipeline import sinks, sources
from pipeline.aws.client import client
from pipeline.decisions.codec import encode
from pipeline.decisions.deadline import Deadline
from pipeline.engine.environment import ProcessEnvironment
from pipeline.errors import ConfigurationError, SinkRefused, SinkUnavailable
from pipeline.output import Output
from pipeline.ports import DeadLetter, Sink
from pipeline.record import Carried, RawRecord, TraceContext
from pipeline.sinks.rejects import SinkDeadLetters
from pipeline.sinks.s3 import object_name
from tests.flow.events import stream_record
from tests.support.aggregates import sealed

FOREVER = Deadline()
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SPAN = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1)
HEADER = "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=1"
EXISTING = "arn:aws:{}:eu-west-1:123456789012:{}"


def output(value: Any, number: int = 0, **fields: Any) -> Output:
    """An output as the engine makes it."""
    is_text = isinstance(value, str)
    body = value if is_text else encode(value)
    defaults: dict[str, Any] = {"id": f"{number:032x}", "sink": "out", "default_key": '"k"'}
    return Output(body=body, is_text=is_text, value=value, **{**defaults, **fields})


@dataclass
class Bench:
    """A sink with its resource made, and a way to read what it took."""

    sink: Sink
    environment: ProcessEnvironment
    read: Callable[[], Awaitable[list[Any]]]

    async def write(self, *outputs: Output, deadline: Deadline = FOREVER) -> list[Any]:
        return list(await self.sink.write(outputs, self.environment, deadline))


async def messages(environment: ProcessEnvironment, queue: str) -> list[dict[str, Any]]:
    """Everything that is on a queue; it is taken off."""
    service = await client(environment, "sqs")
    url = (await service.get_queue_url(QueueName=queue))["QueueUrl"]
    found: list[dict[str, Any]] = []
    while True:
        answer = await service.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, AttributeNames=["All"], MessageAttributeNames=["All"]
        )
        if not answer.get("Messages"):
            return found
        for message in answer["Messages"]:
            await service.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            found.append(message)


def queue_bench(environment: ProcessEnvironment, name: str, **options: Any) -> Bench:
    async def read() -> list[Any]:
        return [json.loads(message["Body"]) for message in await messages(environment, name)]

    return Bench(sinks.SQS(name, **options), environment, read)


@pytest.fixture
async def sqs(aws: str, environment: ProcessEnvironment, unique: str) -> Bench:
    bench = queue_bench(environment, unique)
    await bench.sink.create(environment)
    await bench.sink.create(environment)
    return bench


@pytest.fixture
async def fifo(aws: str, environment: ProcessEnvironment, unique: str) -> Bench:
    bench = queue_bench(environment, f"{unique}.fifo")
    await bench.sink.create(environment)
    await bench.sink.create(environment)
    return bench


@pytest.fixture
async def dynamodb(aws: str, environment: ProcessEnvironment, unique: str) -> Bench:
    sink = sinks.DynamoDB(unique, carry=False)
    await sink.create(environment)
    await sink.create(environment)

    async def read() -> list[Any]:
        service = await client(environment, "dynamodb")
        found = (await service.scan(TableName=unique))["Items"]
        return [{"id": item["id"]["S"], "n": int(item["n"]["N"])} for item in found]

    return Bench(sink, environment, read)


@pytest.fixture
async def eventbridge(aws: str, environment: ProcessEnvironment, unique: str) -> Bench:
    """A bus with a queue behind it, because a bus keeps nothing."""
    sink = sinks.EventBridge(unique, detail_type="thing.done", carry=False).bound_to("shop")
    await sink.create(environment)
    await sink.create(environment)
    await sinks.SQS(unique).create(environment)
    service = await client(environment, "events")
    await service.put_rule(Name="all", EventBusName=unique, EventPattern='{"source": ["shop"]}')
    target = {"Id": "queue", "Arn": EXISTING.format("sqs", unique)}
    await service.put_targets(Rule="all", EventBusName=unique, Targets=[target])

    async def read() -> list[Any]:
        return [json.loads(message["Body"])["detail"] for message in await messages(environment, unique)]

    return Bench(sink, environment, read)


def bucket_bench(environment: ProcessEnvironment, name: str, **options: Any) -> Bench:
    async def read() -> list[Any]:
        return [json.loads(line) for body in (await objects(environment, name)).values() for line in lines_of(body)]

    return Bench(sinks.S3(name, **options), environment, read)


async def objects(environment: ProcessEnvironment, bucket: str) -> dict[str, bytes]:
    """Everything in a bucket, by key."""
    service = await client(environment, "s3")
    found = (await service.list_objects_v2(Bucket=bucket)).get("Contents", [])
    answers = {one["Key"]: await service.get_object(Bucket=bucket, Key=one["Key"]) for one in found}
    return {key: await answer["Body"].read() for key, answer in answers.items()}


def lines_of(body: bytes) -> list[bytes]:
    plain = gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body
    assert plain.endswith(b"\n")
    return plain.split(b"\n")[:-1]


@pytest.fixture
async def s3(aws: str, environment: ProcessEnvironment, unique: str) -> Bench:
    bench = bucket_bench(environment, unique)
    await bench.sink.create(environment)
    await bench.sink.create(environment)
    return bench


@pytest.fixture
async def kinesis(aws: str, environment: ProcessEnvironment, unique: str) -> Bench:
    sink = sinks.Kinesis(unique, carry=False)
    await sink.create(environment)
    await sink.create(environment)

    async def read() -> list[Any]:
        service = await client(environment, "kinesis")
        found: list[Any] = []
        for shard in (await service.list_shards(StreamName=unique))["Shards"]:
            start = {"ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
            iterator = (await service.get_shard_iterator(StreamName=unique, **start))["ShardIterator"]
            records = (await service.get_records(ShardIterator=iterator))["Records"]
            found += [json.loads(record["Data"]) for record in records]
        return found

    return Bench(sink, environment, read)


@pytest.fixture
async def file(environment: ProcessEnvironment, tmp_path: Path) -> Bench:
    path = tmp_path / "out.ndjson"

    async def read() -> list[Any]:
        return [json.loads(line) for line in path.read_text().splitlines()]

    return Bench(sinks.File(path), environment, read)


@pytest.fixture
async def memory(environment: ProcessEnvironment) -> Bench:
    sink = sinks.Memory()

    async def read() -> list[Any]:
        return sink.values

    return Bench(sink, environment, read)


@pytest.fixture(params=["sqs", "fifo", "dynamodb", "eventbridge", "kinesis", "s3", "file", "memory"])
def bench(request: pytest.FixtureRequest) -> Bench:
    return request.getfixturevalue(request.param)


async def test_every_output_is_written_once_and_accepted(bench: Bench) -> None:
    values = [{"id": f"i{n:02}", "n": n} for n in range(27)]
    results = await bench.write(*[output(value, n, default_key=f"g{n}") for n, value in enumerate(values)])
    assert results == [None] * 27
    assert sorted(await bench.read(), key=lambda value: value["n"]) == values


async def test_nothing_to_write_is_no_call(bench: Bench) -> None:
    assert await bench.write() == []


async def test_a_sink_has_a_name_a_condition_and_says_whether_it_carries(bench: Bench) -> None:
    assert isinstance(bench.sink, Sink)
    assert bench.sink.name
    assert bench.sink.when is None
    assert isinstance(bench.sink.carries, bool)


#: Fields as no handler should give them, each with the sinks that look at it.
ODD: list[tuple[dict[str, Any], set[str]]] = [
    ({"key": 7}, {"sqs", "fifo", "kinesis", "s3"}),
    ({"key": ["a"]}, {"sqs", "fifo", "kinesis", "s3"}),
    ({"attributes": {"n": 1}}, {"sqs", "fifo"}),
    ({"attributes": {"n": None}}, {"sqs", "fifo"}),
    ({"attributes": {7: "n"}}, {"sqs", "fifo"}),
    ({"attributes": "text"}, {"sqs", "fifo"}),
    ({"delay": float("nan")}, {"sqs", "fifo"}),
    ({"delay": "soon"}, {"sqs", "fifo"}),
    ({"traceparent": 7}, {"sqs", "fifo"}),
    ({"default_key": 7}, {"fifo", "kinesis", "s3"}),
    ({"id": b"7"}, {"sqs", "fifo", "s3"}),
    ({"body": "{broken"}, {"dynamodb"}),
    ({"body": '{"id": "odd", "n": ' + "1" * 5_000 + "}"}, {"dynamodb"}),
    ({"body": b"{}"}, {"sqs", "fifo", "eventbridge", "kinesis", "s3"}),
]


async def test_an_output_whose_fields_are_odd_fails_alone(bench: Bench, request: pytest.FixtureRequest) -> None:
    for number, (fields, lookers) in enumerate(ODD):
        odd = output(
            {"id": "odd", "n": 5}, 5, **{"default_key": "g5", **{k: v for k, v in fields.items() if k != "body"}}
        )
        if "body" in fields:
            odd = msgspec.structs.replace(odd, body=fields["body"])
        good = [output({"id": f"i{number}-{n}", "n": n}, n, default_key=f"g{n}") for n in range(2)]
        first, second, third = await bench.write(good[0], odd, good[1])
        assert (first, third) == (None, None), fields
        if request.node.callspec.params["bench"] in lookers:
            assert isinstance(second, SinkRefused), fields
            assert str(second), fields


@pytest.mark.parametrize("error", [ValueError("boom"), RecursionError("deep"), KeyError("kind")])
async def test_a_detail_type_function_that_raises_fails_its_own_output_only(
    eventbridge: Bench, error: Exception
) -> None:
    def detail_type(value: Any) -> str:
        if value["n"] == 1:
            raise error
        return "thing.done"

    sink = sinks.EventBridge(eventbridge.sink.name, detail_type=detail_type).bound_to("shop")
    results = await sink.write([output({"n": n}, n) for n in range(3)], eventbridge.environment, FOREVER)
    assert [type(result) for result in results] == [type(None), SinkRefused, type(None)]
    assert type(error).__name__ in str(results[1])


async def test_an_error_that_cannot_say_what_it_is_fails_its_own_output_only(eventbridge: Bench) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise self

    def detail_type(value: Any) -> str:
        if value["n"] == 1:
            raise Mute
        return "thing.done"

    sink = sinks.EventBridge(eventbridge.sink.name, detail_type=detail_type).bound_to("shop")
    results = await sink.write([output({"n": n}, n) for n in range(3)], eventbridge.environment, FOREVER)
    assert [type(result) for result in results] == [type(None), SinkRefused, type(None)]
    assert "Mute" in str(results[1])


@pytest.fixture(params=["sqs", "fifo", "dynamodb", "eventbridge", "kinesis"])
def limited_bench(request: pytest.FixtureRequest) -> Bench:
    """Those that take no output beyond a size."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["sqs", "fifo", "dynamodb", "eventbridge", "kinesis", "s3"])
def service_bench(request: pytest.FixtureRequest) -> Bench:
    return request.getfixturevalue(request.param)


OPERATIONS = {
    "SQS": ("sqs", "SendMessageBatch"),
    "DynamoDB": ("dynamodb", "BatchWriteItem"),
    "EventBridge": ("events", "PutEvents"),
    "Kinesis": ("kinesis", "PutRecords"),
    "S3": ("s3", "PutObject"),
}


async def test_a_broken_connection_is_tried_again(service_bench: Bench, faults: Any) -> None:
    service, operation = OPERATIONS[type(service_bench.sink).__name__]
    await faults(service).lose_requests(operation, times=2)
    assert await service_bench.write(output({"id": "a", "n": 1})) == [None]
    assert await service_bench.read() == [{"id": "a", "n": 1}]


async def test_a_service_that_stays_away_is_unavailable_for_the_outputs_of_the_call(
    service_bench: Bench, faults: Any
) -> None:
    service, operation = OPERATIONS[type(service_bench.sink).__name__]
    await faults(service).lose_requests(operation, times=99)
    results = await service_bench.write(output({"id": "a", "n": 1}), output({"id": "b", "n": 2}, 1))
    assert [type(result) for result in results] == [SinkUnavailable, SinkUnavailable]


# aiohttp would rather be given a file for a body of a MiB; Kinesis is asked, because a stream may take more.
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_an_oversized_output_is_refused_and_the_others_are_taken(limited_bench: Bench) -> None:
    large = {"id": "large", "n": 0, "text": "x" * 1_100_000}
    outputs = [output({"id": f"i{n}", "n": n}, n, default_key=f"g{n}") for n in range(3)]
    results = await limited_bench.write(outputs[0], output(large, 9, default_key="g9"), *outputs[1:])
    assert [type(result) for result in results] == [type(None), SinkRefused, type(None), type(None)]
    assert len(await limited_bench.read()) == 3


async def test_a_missing_resource_is_unavailable_because_a_deployment_mends_it(
    aws: str, environment: ProcessEnvironment
) -> None:
    for sink in (sinks.SQS("nowhere"), sinks.DynamoDB("nowhere"), sinks.Kinesis("nowhere"), sinks.S3("nowhere")):
        (result,) = await sink.write([output({"id": "a"})], environment, FOREVER)
        assert isinstance(result, SinkUnavailable)
        assert "nowhere" in str(result) or "ResourceNotFound" in str(result)


# SQS


async def test_a_message_carries_id_hops_trace_and_the_users_attributes(sqs: Bench) -> None:
    await sqs.write(output({"n": 1}, 7, hops=3, traceparent=TRACE, attributes={"colour": "red"}))
    (message,) = await messages(sqs.environment, sqs.sink.name)
    texts = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    assert json.loads(texts.pop("pipeline")) == {"id": f"{7:032x}", "hops": 3}
    assert texts == {"traceparent": TRACE, "colour": "red"}


ROOM = 1_048_576 - len("pipelineStringtraceparentStringtracestateStringvendor=1") - len(TRACE) - 50


@pytest.mark.parametrize(
    ("others", "body", "trace", "state"),
    [
        (7, 1, TRACE, "vendor=1"),
        (8, 1, TRACE, None),
        (0, 1, None, None),
        (0, ROOM, TRACE, "vendor=1"),
        (0, ROOM + 1, TRACE, None),
    ],
)
async def test_what_vendors_add_to_a_context_goes_along_where_there_is_room(
    sqs: Bench, others: int, body: int, trace: str | None, state: str | None
) -> None:
    attributes = {f"a{n}": "v" for n in range(others)}
    made = output("x" * body, 7, traceparent=trace, tracestate="vendor=1", attributes=attributes)
    assert await sqs.write(made) == [None]
    (message,) = await messages(sqs.environment, sqs.sink.name)
    found = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    assert found.pop("tracestate", None) == state
    assert found.pop("traceparent", None) == trace
    assert len(found.pop("pipeline")) == 50
    assert found == attributes


async def test_a_state_that_the_handler_gave_does_not_stay_beside_a_context_that_it_does_not_belong_to(
    sqs: Bench,
) -> None:
    given = {"traceparent": TRACE.replace("b7", "00"), "tracestate": "theirs=1"}
    await sqs.write(output({"n": 1}, traceparent=TRACE, attributes=given), output({"n": 2}, 1, attributes=given))
    found = [texts(message) for message in await messages(sqs.environment, sqs.sink.name)]
    assert sorted((one["traceparent"], one.get("tracestate")) for one in found) == [
        (given["traceparent"], "theirs=1"),
        (TRACE, None),
    ]


@pytest.mark.parametrize(("trace", "header"), [(TRACE, HEADER), ("malformed", None), (None, None)])
async def test_a_message_carries_the_trace_as_x_ray_has_it_too(
    sqs: Bench, trace: str | None, header: str | None
) -> None:
    assert await sqs.write(output({"n": 1}, traceparent=trace)) == [None]
    (message,) = await messages(sqs.environment, sqs.sink.name)
    assert message["Attributes"].get("AWSTraceHeader") == header


async def test_a_message_takes_lambdas_count_of_hops_along(
    sqs: Bench, faults: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = faults("sqs")
    await fault.record("SendMessageBatch")
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "price")
    for invocation in ("Lineage=1:e7ff9e16:3", "Root=1-a;Lineage=1:e7ff9e16:4", "Root=1-a"):
        monkeypatch.setenv("_X_AMZN_TRACE_ID", invocation)
        await sqs.write(output({"n": 1}, traceparent=TRACE))
    entries = [call["Entries"][0]["MessageSystemAttributes"] for call in fault.calls]
    assert [entry["AWSTraceHeader"]["StringValue"] for entry in entries] == [
        f"{HEADER};Lineage=1:e7ff9e16:3",
        f"{HEADER};Lineage=1:e7ff9e16:4",
        HEADER,
    ]


async def test_an_output_without_a_trace_has_no_attribute_for_one(sqs: Bench, faults: Any) -> None:
    fault = faults("sqs")
    await fault.record("SendMessageBatch")
    await sqs.write(output({"n": 1}), output({"n": 2}, 1, traceparent="malformed"))
    assert all("MessageSystemAttributes" not in entry for entry in fault.calls[0]["Entries"])


@pytest.mark.parametrize(
    ("carry", "trace", "header"),
    [(True, TRACE, HEADER), (True, "bad", None), (True, None, None)] + [(False, TRACE, None)],
)
async def test_an_event_carries_the_trace_as_x_ray_has_it(
    eventbridge: Bench, faults: Any, carry: bool, trace: str | None, header: str | None
) -> None:
    fault = faults("events")
    await fault.record("PutEvents")
    sink = sinks.EventBridge(eventbridge.sink.name, detail_type="thing.done", carry=carry).bound_to("shop")
    assert await sink.write([output({"n": 1}, traceparent=trace)], eventbridge.environment, FOREVER) == [None]
    assert fault.calls[0]["Entries"][0].get("TraceHeader") == header


async def test_a_fair_queue_gets_the_ordering_key_as_its_group(sqs: Bench) -> None:
    await sqs.write(output({"n": 1}, key="tenant-1"), output({"n": 2}, 1))
    found = {m["Body"]: m["Attributes"].get("MessageGroupId") for m in await messages(sqs.environment, sqs.sink.name)}
    assert found == {'{"n":1}': "tenant-1", '{"n":2}': None}


@pytest.mark.parametrize(
    ("options", "fields", "group"),
    [
        ({}, {"key": "mine"}, "mine"),
        ({"group": "customer.id"}, {"key": "mine"}, "mine"),
        ({"group": "customer.id"}, {}, "c1"),
        ({}, {"default_key": "lane-1"}, "lane-1"),
    ],
)
async def test_a_fifo_group_is_the_key_then_the_option_then_the_lane(
    aws: str, environment: ProcessEnvironment, unique: str, options: Any, fields: Any, group: str
) -> None:
    bench = queue_bench(environment, f"{unique}.fifo", **options)
    await bench.sink.create(environment)
    assert await bench.write(output({"customer": {"id": "c1"}}, 5, **fields)) == [None]
    (message,) = await messages(environment, f"{unique}.fifo")
    assert message["Attributes"]["MessageGroupId"] == group
    assert message["Attributes"]["MessageDeduplicationId"] == f"{5:032x}"


async def test_a_group_that_sqs_does_not_allow_is_hashed_and_stays_the_same(fifo: Bench) -> None:
    await fifo.write(output({"n": 1}, 1, key="schöne Grüße"), output({"n": 2}, 2, key="schöne Grüße"))
    groups = {m["Attributes"]["MessageGroupId"] for m in await messages(fifo.environment, fifo.sink.name)}
    assert len(groups) == 1
    assert len(groups.pop()) == 64


async def test_a_missing_group_is_refused_by_its_path(aws: str, environment: ProcessEnvironment) -> None:
    sink = sinks.SQS("orders.fifo", group="customer.id")
    (result,) = await sink.write([output({"customer": {}})], environment, FOREVER)
    assert isinstance(result, SinkRefused)
    assert "customer.id" in str(result)


async def test_a_fifo_group_keeps_its_order_through_failures(fifo: Bench, faults: Any) -> None:
    await faults("sqs").lose_requests("SendMessageBatch", times=2)
    outputs = [output({"group": n % 2, "n": n}, n, key=f"g{n % 2}") for n in range(8)]
    assert await fifo.write(*outputs) == [None] * 8
    found = await fifo.read()
    for group in (0, 1):
        assert [value["n"] for value in found if value["group"] == group] == list(range(group, 8, 2))


async def test_a_repeat_within_five_minutes_is_dropped_by_a_fifo_queue(fifo: Bench) -> None:
    assert await fifo.write(output({"n": 1}, 1)) == [None]
    assert await fifo.write(output({"n": 1}, 1)) == [None]
    assert await fifo.read() == [{"n": 1}]


async def test_a_partial_failure_is_mapped_to_its_position_and_tried_again(sqs: Bench, faults: Any) -> None:
    fault = faults("sqs")
    await fault.record("SendMessageBatch")
    failed = {"Id": "1", "Code": "InternalError", "Message": "try again", "SenderFault": False}
    refused = {"Id": "2", "Code": "InvalidMessageContents", "Message": "no", "SenderFault": True}
    await fault.answer("SendMessageBatch", {"Successful": [{"Id": "0"}], "Failed": [failed, refused]})
    results = await sqs.write(*[output({"n": n}, n) for n in range(3)])
    assert [type(result) for result in results] == [type(None), type(None), SinkRefused]
    assert [[entry["MessageBody"] for entry in call["Entries"]] for call in fault.calls][-1] == ['{"n":1}']


async def test_a_message_that_the_answer_does_not_name_was_not_accepted(sqs: Bench, faults: Any) -> None:
    silent = [{"Successful": [{"Id": "0"}]}] + [{"Successful": []}] * 4
    await faults("sqs").answer("SendMessageBatch", *silent)
    results = await sqs.write(output({"n": 0}), output({"n": 1}, 1))
    assert [type(result) for result in results] == [type(None), SinkUnavailable]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (output("nul \x00 here"), "U+0000"),
        (output("half \ud800 here"), "U+D800"),
        (output(""), "empty"),
        (output({}, attributes={"a": ""}), "'a' is empty"),
        (output({}, attributes={"a": "\x01"}), "U+0001"),
        (output({}, attributes={"no spaces": "a"}), "no spaces"),
        (output({}, attributes={"AWS.name": "a"}), "AWS.name"),
        (output({}, attributes={f"a{n}": "x" for n in range(10)}), "11 message attributes"),
        (output({}, delay=901), "900"),
    ],
)
async def test_what_sqs_does_not_take_is_refused_alone_and_says_why(sqs: Bench, bad: Output, says: str) -> None:
    results = await sqs.write(output({"n": 1}, 1), bad, output({"n": 2}, 2))
    assert [type(result) for result in results] == [type(None), SinkRefused, type(None)]
    assert says in str(results[1])


async def test_a_delay_hides_the_message(sqs: Bench, faults: Any) -> None:
    fault = faults("sqs")
    await fault.record("SendMessageBatch")
    await sqs.write(output({"n": 1}, delay=1.2), output({"n": 2}, 1))
    assert [entry.get("DelaySeconds") for entry in fault.calls[0]["Entries"]] == [2, None]


async def test_a_json_body_may_hold_any_character_and_arrives_as_it_was(sqs: Bench) -> None:
    value = {"text": "\x00 \ufffe \uffff 😀 \n"}
    assert await sqs.write(output(value)) == [None]
    assert await sqs.read() == [value]


async def test_without_carry_nothing_travels_along(aws: str, environment: ProcessEnvironment, unique: str) -> None:
    bench = queue_bench(environment, unique, carry=False)
    await bench.sink.create(environment)
    await bench.write(output({"n": 1}, traceparent=TRACE))
    (message,) = await messages(environment, unique)
    assert "MessageAttributes" not in message
    assert "AWSTraceHeader" not in message["Attributes"]
    assert bench.sink.carries is False


async def test_a_delay_on_a_fifo_message_is_refused(fifo: Bench) -> None:
    (result,) = await fifo.write(output({"n": 1}, delay=5))
    assert isinstance(result, SinkRefused)


async def test_the_url_is_asked_for_once(sqs: Bench, faults: Any) -> None:
    fault = faults("sqs")
    await fault.record("GetQueueUrl")
    for number in range(3):
        await sqs.write(output({"n": number}, number))
    assert len(fault.calls) == 1


# DynamoDB


async def item(bench: Bench, key: dict[str, Any], table: str) -> Any:
    service = await client(bench.environment, "dynamodb")
    return (await service.get_item(TableName=table, Key=key)).get("Item")


async def test_json_values_become_items_with_their_exact_digits(dynamodb: Bench) -> None:
    value = {"id": "a", "f": 0.1, "big": 12345678901234567890, "t": True, "z": None, "l": [1, {"x": "y"}], "e": {}}
    assert await dynamodb.write(output(value)) == [None]
    found = await item(dynamodb, {"id": {"S": "a"}}, dynamodb.sink.name)
    assert found == {
        "id": {"S": "a"},
        "f": {"N": "0.1"},
        "big": {"N": "12345678901234567890"},
        "t": {"BOOL": True},
        "z": {"NULL": True},
        "l": {"L": [{"N": "1"}, {"M": {"x": {"S": "y"}}}]},
        "e": {"M": {}},
    }


async def test_of_several_items_with_one_key_the_last_one_stays(dynamodb: Bench, faults: Any) -> None:
    await faults("dynamodb").lose_requests("BatchWriteItem", times=1)
    outputs = [output({"id": "a", "n": n}, n) for n in range(4)] + [output({"id": "b", "n": 9}, 9)]
    assert await dynamodb.write(*outputs) == [None] * 5
    assert sorted(value["n"] for value in await dynamodb.read()) == [3, 9]


async def test_unprocessed_items_are_sent_again_and_only_those(dynamodb: Bench, faults: Any) -> None:
    fault = faults("dynamodb")
    await fault.record("BatchWriteItem")
    left = {"PutRequest": {"Item": {"id": {"S": "b"}, "n": {"N": "2"}}}}
    await fault.answer("BatchWriteItem", {"UnprocessedItems": {dynamodb.sink.name: [left]}})
    assert await dynamodb.write(output({"id": "a", "n": 1}), output({"id": "b", "n": 2}, 1)) == [None, None]
    assert await dynamodb.read() == [{"id": "b", "n": 2}]
    assert len(fault.calls) == 2


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (output("text"), "JSON object"),
        (output([1]), "JSON object"),
        (output({"n": 1}), "'id'"),
        (output({"id": "", "n": 1}), "'id'"),
        (output({"id": True, "n": 1}), "'id'"),
        (output({"id": "x" * 2_049}), "2,049 bytes"),
        (output({"id": "a", "n": 10**39 + 1}), "40 digits"),
        (output({"id": "a", "n": 10**126}), "range"),
        (output({"id": "a", "n": 5e-324}), "range"),
        (
            msgspec.structs.replace(output({}), body='{"id": "a", "n": ' + "[" * 99_999 + "]" * 99_999 + "}"),
            "Recursion",
        ),
    ],
)
async def test_what_dynamodb_cannot_hold_is_refused_alone_and_says_why(dynamodb: Bench, bad: Output, says: str) -> None:
    results = await dynamodb.write(output({"id": "good", "n": 1}, 1), bad)
    assert [type(result) for result in results] == [type(None), SinkRefused]
    assert says in str(results[1])


async def test_an_item_that_the_table_refuses_does_not_take_its_call_with_it(dynamodb: Bench) -> None:
    # A number as key of a table with text keys: DynamoDB refuses the whole call.
    results = await dynamodb.write(
        output({"id": "a", "n": 1}), output({"id": 5, "n": 2}, 1), output({"id": "c", "n": 3}, 2)
    )
    assert [type(result) for result in results] == [type(None), SinkRefused, type(None)]


async def test_an_item_carries_its_member_and_a_sort_key_makes_items_apart(
    aws: str, environment: ProcessEnvironment, unique: str
) -> None:
    bench = Bench(sinks.DynamoDB(unique, partition_key="p", sort_key="s"), environment, lambda: None)  # type: ignore[arg-type, return-value]
    await bench.sink.create(environment)
    fields = {"traceparent": TRACE, "tracestate": "vendor=1"}
    outputs = [output({"p": "a", "s": str(n), "_pipeline": "theirs"}, n, **fields) for n in range(2)]
    assert await bench.write(*outputs) == [None, None]
    found = await item(bench, {"p": {"S": "a"}, "s": {"S": "1"}}, unique)
    assert found["_pipeline"]["M"]["id"] == {"S": f"{1:032x}"}
    assert found["_pipeline"]["M"]["traceparent"] == {"S": TRACE}
    assert found["_pipeline"]["M"]["tracestate"] == {"S": "vendor=1"}


def test_an_items_size_counts_names_and_values() -> None:
    from pipeline.aws.dynamodb import attribute, item_size

    found = {name: attribute(value) for name, value in {"id": "ä", "n": Decimal("1.5"), "l": [True]}.items()}
    assert item_size(found) == (2 + 2) + (1 + 3) + (1 + 3 + 1 + 1)


# EventBridge


async def test_an_event_has_source_type_and_detail_with_its_member(eventbridge: Bench, faults: Any) -> None:
    fault = faults("events")
    await fault.record("PutEvents")
    sink = sinks.EventBridge(eventbridge.sink.name, detail_type=lambda value: f"thing.{value['kind']}").bound_to("shop")
    outputs = [output({"kind": "a", "f": 1e22}, 1), output({}, 2), output({"kind": "b", "_pipeline": 1}, 3)]
    results = await sink.write(outputs, eventbridge.environment, FOREVER)
    assert [type(result) for result in results] == [type(None), SinkRefused, type(None)]
    first, second = fault.calls[0]["Entries"]
    assert (first["Source"], first["DetailType"]) == ("shop", "thing.a")
    assert json.loads(first["Detail"]) == {"_pipeline": {"id": f"{1:032x}", "hops": 1}, "kind": "a", "f": 1e22}
    assert json.loads(second["Detail"])["_pipeline"]["id"] == f"{3:032x}"


async def test_an_event_that_is_refused_alone_fails_alone(eventbridge: Bench, faults: Any) -> None:
    answers = [
        {"EventId": "1"},
        {"ErrorCode": "MalformedDetail", "ErrorMessage": "no"},
        {"ErrorCode": "InternalFailure"},
    ]
    await faults("events").answer("PutEvents", {"FailedEntryCount": 2, "Entries": answers})
    results = await eventbridge.write(*[output({"n": n}, n) for n in range(3)])
    assert [type(result) for result in results] == [type(None), SinkRefused, type(None)]
    assert await eventbridge.read() == [{"n": 2}]


async def test_an_event_that_is_no_object_is_refused(eventbridge: Bench) -> None:
    results = await eventbridge.write(output("text"), output([1], 1))
    assert [type(result) for result in results] == [SinkRefused, SinkRefused]


# S3

#: 2026-11-20 07:05:00 UTC, and an hour later.
SEVEN, EIGHT = 1_795_158_300.0, 1_795_161_900.0


async def says(environment: ProcessEnvironment, operation: str, *answers: tuple[int, str]) -> None:
    """The next calls are answered with these statuses and error codes."""
    waiting = list(answers)

    def answer(**_: Any) -> Any:
        if not waiting:
            return None
        status, code = waiting.pop(0)
        error = {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}
        return SimpleNamespace(status_code=status), error

    service = await client(environment, "s3")
    service.meta.events.register(f"before-call.s3.{operation}", answer)


async def uploads(bench: Bench) -> list[Any]:
    """Multipart uploads that were begun and not ended."""
    service = await client(bench.environment, "s3")
    return list((await service.list_multipart_uploads(Bucket=bench.sink.name)).get("Uploads", []))


def large(count: int = 3) -> list[Output]:
    """`count` outputs of more than 7 MiB each."""
    return [output(str(n) * 7_500_000, n, sent_at=SEVEN) for n in range(count)]


@pytest.mark.parametrize(
    ("compress", "suffix", "kind"),
    [(False, ".ndjson", "application/x-ndjson"), (True, ".ndjson.gz", "application/gzip")],
)
async def test_an_object_is_lines_of_json_named_by_their_ids(s3: Bench, compress: bool, suffix: str, kind: str) -> None:
    sink = sinks.S3(s3.sink.name, prefix="{date}/{hour}/", compress=compress)
    outputs = [output({"n": 0.10}, 0), output("two\nlines", 1), output([1], 2, key="other")]
    outputs = [msgspec.structs.replace(one, sent_at=SEVEN) for one in outputs]
    assert await sink.write(outputs, s3.environment, FOREVER) == [None] * 3
    ((key, body),) = (await objects(s3.environment, s3.sink.name)).items()
    assert key == f"2026-11-20/07/{object_name([one.id for one in outputs])}{suffix}"
    assert lines_of(body) == [b'{"n":0.1}', b'"two\\nlines"', b"[1]"]
    assert body.startswith(b"\x1f\x8b") is compress
    found = await (await client(s3.environment, "s3")).head_object(Bucket=s3.sink.name, Key=key)
    assert found["ContentType"] == kind
    assert "ContentEncoding" not in found


async def test_a_repeat_overwrites_itself_and_another_grouping_overwrites_nothing(s3: Bench) -> None:
    outputs = [output({"n": n}, n, sent_at=SEVEN) for n in range(3)]
    await s3.write(*outputs)
    first = await objects(s3.environment, s3.sink.name)
    s3.environment.clock.advance(100_000)  # type: ignore[attr-defined]
    await s3.write(*outputs)
    assert await objects(s3.environment, s3.sink.name) == first
    await s3.write(*outputs[:2])
    found = await objects(s3.environment, s3.sink.name)
    assert len(found) == 2
    assert found.items() >= first.items()


async def test_a_record_whose_time_is_not_known_counts_as_sent_now(s3: Bench, clock: Any) -> None:
    clock.advance(SEVEN - clock.now())
    await s3.write(output({"n": 1}))
    (key,) = await objects(s3.environment, s3.sink.name)
    assert key.startswith("2026-11-20/")


@pytest.mark.parametrize("sent_at", [float("nan"), 1e20, "soon"])
async def test_an_output_sent_at_no_time_fails_alone(s3: Bench, sent_at: Any) -> None:
    results = await s3.write(output({"n": 1}, 1, sent_at=sent_at), output({"n": 2}, 2, default_key="other"))
    assert [type(result) for result in results] == [SinkRefused, type(None)]


@pytest.mark.parametrize(
    "answer",
    [(503, "SlowDown"), (500, "InternalError"), (409, "OperationAborted"), (409, "ConditionalRequestConflict")],
)
async def test_what_s3_asks_to_try_again_is_tried_again_after_a_while(
    s3: Bench, clock: Any, answer: tuple[int, str]
) -> None:
    await says(s3.environment, "PutObject", answer, answer)
    assert await s3.write(output({"n": 1})) == [None]
    assert await s3.read() == [{"n": 1}]
    assert len(clock.slept) == 2


async def test_what_s3_refuses_is_not_tried_again(s3: Bench, faults: Any, clock: Any) -> None:
    fault = faults("s3")
    await fault.record("PutObject")
    await says(s3.environment, "PutObject", (400, "InvalidArgument"))
    (result,) = await s3.write(output({"n": 1}))
    assert isinstance(result, SinkRefused)
    assert (len(fault.calls), clock.slept) == (1, [])


async def test_a_write_whose_reply_was_lost_is_repeated_onto_the_same_object(s3: Bench, faults: Any) -> None:
    fault = faults("s3")
    await fault.record("PutObject")
    await fault.lose_replies("PutObject", times=2)
    assert await s3.write(output({"n": 1}), output({"n": 2}, 2)) == [None, None]
    assert len({call["Key"] for call in fault.calls}) == 1
    assert (len(fault.calls), await s3.read()) == (3, [{"n": 1}, {"n": 2}])


async def test_no_try_begins_when_the_time_is_over(s3: Bench, faults: Any, clock: Any) -> None:
    fault = faults("s3")
    await fault.record("PutObject")
    await fault.lose_requests("PutObject", times=99)
    deadline = Deadline(soft=clock.monotonic(), hard=clock.monotonic() + 1)
    (result,) = await s3.write(output({"n": 1}), deadline=deadline)
    assert isinstance(result, SinkUnavailable)
    assert len(fault.calls) <= 2
    assert clock.monotonic() <= 0.001


async def test_outputs_of_a_key_in_several_objects_are_written_in_their_order(s3: Bench, faults: Any) -> None:
    fault = faults("s3")
    await fault.record("PutObject")
    sink = sinks.S3(s3.sink.name, prefix="{hour}/")
    sent = [("a", SEVEN), ("b", SEVEN), ("a", EIGHT), ("c", EIGHT), ("a", SEVEN)]
    outputs = [output({"n": n}, n, key=key, sent_at=at) for n, (key, at) in enumerate(sent)]
    assert await sink.write(outputs, s3.environment, FOREVER) == [None] * 5
    assert [call["Key"][:3] for call in fault.calls] == ["07/", "08/", "07/"]
    found = (await objects(s3.environment, s3.sink.name)).values()
    assert sorted(lines_of(body) for body in found) == [
        [b'{"n":0}', b'{"n":1}'],
        [b'{"n":2}', b'{"n":3}'],
        [b'{"n":4}'],
    ]


async def test_what_follows_a_failed_object_in_its_key_is_not_written(s3: Bench) -> None:
    await says(s3.environment, "PutObject", *[(503, "SlowDown")] * 5)
    sink = sinks.S3(s3.sink.name, prefix="{hour}/")
    sent = [("a", SEVEN), ("a", EIGHT), ("b", EIGHT)]
    outputs = [output({"n": n}, n, key=key, sent_at=at) for n, (key, at) in enumerate(sent)]
    first, second, third = await sink.write(outputs, s3.environment, FOREVER)
    assert isinstance(first, SinkUnavailable)
    assert isinstance(second, SinkUnavailable)
    assert "earlier output of the same ordering key" in str(second)
    assert "SlowDown" in str(second)
    assert third is None
    ((key, body),) = (await objects(s3.environment, s3.sink.name)).items()
    assert key == f"08/{object_name([outputs[2].id])}.ndjson"
    assert body == b'{"n":2}\n'


async def test_what_the_deadline_leaves_no_time_for_is_not_begun(s3: Bench, faults: Any, clock: Any) -> None:
    fault = faults("s3")
    await fault.record("PutObject")
    sink = sinks.S3(s3.sink.name, prefix="{hour}/")
    outputs = [output({"n": n}, n, sent_at=at) for n, at in enumerate([SEVEN, EIGHT])]
    results = await sink.write(outputs, s3.environment, Deadline(soft=clock.monotonic(), hard=clock.monotonic() + 1))
    assert [type(result) for result in results] == [type(None), SinkUnavailable]
    assert len(fault.calls) == 1


async def test_a_large_object_goes_in_parts(s3: Bench, faults: Any) -> None:
    fault = faults("s3")
    await fault.record("UploadPart")
    await fault.record("CompleteMultipartUpload")
    assert await s3.write(*large()) == [None] * 3
    *parts, complete = fault.calls
    assert [part["PartNumber"] for part in parts] == [1, 2, 3]
    # AWS wants the checksums again when the upload was begun with them; moto would do without.
    assert all(one["ETag"] and one["ChecksumCRC32"] for one in complete["MultipartUpload"]["Parts"])
    assert await s3.read() == [str(n) * 7_500_000 for n in range(3)]
    assert await uploads(s3) == []


async def test_a_large_object_that_gzip_makes_small_goes_in_one_call(s3: Bench, faults: Any) -> None:
    fault = faults("s3")
    await fault.record("PutObject")
    sink = sinks.S3(s3.sink.name, compress=True)
    assert await sink.write(large(), s3.environment, FOREVER) == [None] * 3
    assert len(fault.calls) == 1
    assert await s3.read() == [str(n) * 7_500_000 for n in range(3)]


@pytest.mark.parametrize("operation", ["CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"])
@pytest.mark.parametrize("fault", ["lose_requests", "lose_replies"])
async def test_an_upload_that_fails_is_aborted_and_begun_anew(
    s3: Bench, faults: Any, operation: str, fault: str
) -> None:
    calls = faults("s3")
    await calls.record("AbortMultipartUpload")
    await getattr(calls, fault)(operation)
    assert await s3.write(*large()) == [None] * 3
    assert await s3.read() == [str(n) * 7_500_000 for n in range(3)]
    # Nobody knows the id of an upload whose first reply was lost.
    assert len(await uploads(s3)) == (operation == "CreateMultipartUpload" and fault == "lose_replies")
    assert len(calls.calls) == (operation != "CreateMultipartUpload")


async def test_an_upload_that_cannot_even_be_aborted_says_why_it_failed(s3: Bench, faults: Any) -> None:
    await says(s3.environment, "UploadPart", *[(503, "SlowDown")] * 5)
    await faults("s3").lose_requests("AbortMultipartUpload", times=99)
    results = await s3.write(*large())
    assert [type(result) for result in results] == [SinkUnavailable] * 3
    assert "SlowDown" in str(results[0])
    assert await objects(s3.environment, s3.sink.name) == {}


async def test_an_upload_ends_with_its_time(s3: Bench, clock: Any) -> None:
    service = await client(s3.environment, "s3")
    service.meta.events.register("after-call.s3.UploadPart", lambda **_: clock.advance(10))
    deadline = Deadline(soft=clock.monotonic() + 15, hard=clock.monotonic() + 20)
    results = await s3.write(*large(), deadline=deadline)
    assert "no time was left" in str(results[0])
    assert (await uploads(s3), await objects(s3.environment, s3.sink.name)) == ([], {})


async def test_an_upload_that_is_cancelled_is_aborted(s3: Bench) -> None:
    service = await client(s3.environment, "s3")
    begun = asyncio.Event()
    service.meta.events.register("before-call.s3.UploadPart", lambda **_: begun.set())
    writing = asyncio.create_task(s3.write(*large()))
    await begun.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert (await uploads(s3), await objects(s3.environment, s3.sink.name)) == ([], {})


async def test_a_bucket_in_the_first_region_is_made_without_naming_it(
    aws: str, environment: ProcessEnvironment, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    bench = bucket_bench(environment, unique)
    await bench.sink.create(environment)
    await bench.sink.create(environment)
    assert await bench.write(output({"n": 1})) == [None]


async def test_a_bucket_that_cannot_be_made_says_which_and_why(s3: Bench) -> None:
    await says(s3.environment, "CreateBucket", (409, "BucketAlreadyExists"))
    with pytest.raises(SinkUnavailable, match=f"{s3.sink.name}.*BucketAlreadyExists"):
        await s3.sink.create(s3.environment)


# Options


@pytest.mark.parametrize(
    ("declare", "says"),
    [
        (lambda: sinks.SQS(""), "logical name"),
        (lambda: sinks.SQS("q", delay=901), "0 to 900"),
        (lambda: sinks.SQS("q", delay=-1), "0 to 900"),
        (lambda: sinks.SQS("q.fifo", delay=1), "FIFO"),
        (lambda: sinks.SQS("q", existing=EXISTING.format("sqs", "a.fifo"), delay=1), "FIFO"),
        (lambda: sinks.SQS("q", group="a..b"), "path"),
        (lambda: sinks.SQS("q", group=3), "path"),  # type: ignore[arg-type]
        (lambda: sinks.SQS("q", name=""), "name"),
        (lambda: sinks.SQS("q", when=True), "function"),  # type: ignore[arg-type]
        (lambda: sinks.DynamoDB("t", partition_key=""), "partition_key"),
        (lambda: sinks.DynamoDB("t", sort_key="id"), "sort_key"),
        (lambda: sinks.EventBridge("b", detail_type=""), "detail_type"),
        (lambda: sinks.EventBridge("b", detail_type="a", source="aws.s3"), "reserved"),
        (lambda: sinks.Kinesis(""), "logical name"),
        (lambda: sinks.Kinesis("s", existing="s"), "stream/orders"),
        (lambda: sinks.Kinesis("s", existing=EXISTING.format("kinesis", "stream/s/consumer/c:1")), "ARN of a stream"),
        (lambda: sinks.Kinesis("s", partition_key="a..b"), "path"),
        (lambda: sinks.Kinesis("s", partition_key=3), "path"),  # type: ignore[arg-type]
        (lambda: sinks.Kinesis("s", hash_key=""), "path"),
        (lambda: sinks.S3(""), "logical name"),
        (lambda: sinks.S3("b", prefix="{when}/"), "placeholder"),
        (lambda: sinks.File(""), "path"),
    ],
)
def test_a_wrong_option_is_refused_when_declared_and_says_what_to_write(
    declare: Callable[[], object], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        declare()


def test_a_declaration_does_not_change() -> None:
    with pytest.raises(AttributeError):
        sinks.SQS("q").delay = 3  # type: ignore[misc]
    assert sinks.EventBridge("b", detail_type="a", source="mine").bound_to("shop").source == "mine"


async def test_a_file_takes_text_as_a_json_string(file: Bench) -> None:
    await file.write(output("two\nlines"), output({"n": 1}, 1))
    assert await file.read() == ["two\nlines", {"n": 1}]


async def test_a_file_that_cannot_be_written_is_unavailable(environment: ProcessEnvironment, tmp_path: Path) -> None:
    sink = sinks.File(tmp_path / "missing" / "out.ndjson")
    (result,) = await sink.write([output({})], environment, FOREVER)
    assert isinstance(result, SinkUnavailable)


# As the place for rejected records


def letter(body: str | bytes = '{"n": 1}', **fields: Any) -> DeadLetter:
    given: dict[str, Any] = {"id": "m1", "source": "orders", "origin": {"messageId": "m1", "body": None}, **fields}
    record = RawRecord(body=body, **given)
    return DeadLetter(record=record, handler="shop.price", cause="Reject: never", attempts=5, exhausted=True)


SAID = {"handler": "shop.price", "cause": "Reject: never", "attempts": 5, "exhausted": True}
STREAMED = {"attributes": {"partition_key": "c1", "shard_id": "shardId-000000000006", "sequence_number": "7"}}
TEN = {f"a{n}": f"v{n}" for n in range(10)}


@pytest.fixture(params=["sqs", "fifo"])
def queue(request: pytest.FixtureRequest) -> Bench:
    return request.getfixturevalue(request.param)


async def rejected(bench: Bench, *letters: DeadLetter) -> list[dict[str, Any]]:
    assert await SinkDeadLetters(bench.sink).put(letters, bench.environment, FOREVER) == [None] * len(letters)
    return await messages(bench.environment, bench.sink.name)


def texts(message: dict[str, Any]) -> dict[str, str]:
    return {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}


async def test_a_rejected_message_keeps_body_and_attributes_beside_its_cause(queue: Bench) -> None:
    (found,) = await rejected(queue, letter(attributes={"colour": "red", "pipeline_cause": "of an earlier stay"}))
    assert found["Body"] == '{"n": 1}'
    assert texts(found)["colour"] == "red"
    assert json.loads(texts(found)["pipeline_cause"]) == {**SAID, "record_id": letter().record.id}


@pytest.mark.parametrize("fields", [{"attributes": {"traceparent": TRACE}}, {}])
async def test_a_rejected_message_keeps_what_made_its_record(queue: Bench, fields: dict[str, Any]) -> None:
    (found,) = await rejected(queue, letter(traces=(SPAN,), **fields))
    assert (texts(found)["traceparent"], found["Attributes"]["AWSTraceHeader"]) == (TRACE, HEADER)


@pytest.mark.parametrize("fields", [{"attributes": {"traceparent": TRACE, "tracestate": "vendor=1"}}, {}])
@pytest.mark.parametrize(("others", "state"), [(0, "vendor=1"), (7, None)])
async def test_a_rejected_message_keeps_what_vendors_added_where_there_is_room(
    queue: Bench, fields: dict[str, Any], others: int, state: str | None
) -> None:
    attributes = {**dict(list(TEN.items())[:others]), **fields.get("attributes", {})}
    stated = TraceContext(SPAN.trace_id, SPAN.span_id, 1, "vendor=1")
    (found,) = await rejected(queue, letter(traces=(stated,), attributes=attributes))
    assert (texts(found)["traceparent"], json.loads(texts(found)["pipeline_cause"])) == (
        TRACE,
        {**SAID, "record_id": "m1"},
    )
    # Folded with the others, the record's own state leaves room for it once more.
    assert texts(found).get("tracestate") == ("vendor=1" if "pipeline_attributes" in texts(found) else state)


@pytest.mark.parametrize("carried", [None, Carried(id="abc", hops=2, traceparent=TRACE)])
@pytest.mark.parametrize(("count", "is_folded"), [(7, False), (8, True), (10, True)])
async def test_attributes_that_find_no_room_beside_the_cause_are_folded_into_one(
    queue: Bench, carried: Carried | None, count: int, is_folded: bool
) -> None:
    attributes = dict(list(TEN.items())[:count])
    (found,) = await rejected(queue, letter(attributes=attributes, carried=carried, traces=(SPAN,) if carried else ()))
    assert json.loads(texts(found)["pipeline_cause"]) == {**SAID, "record_id": letter().record.id}
    if is_folded:
        folded = json.loads(texts(found)["pipeline_attributes"])
        assert folded == {name: {"type": "String", "value": value} for name, value in attributes.items()}
    else:
        assert attributes.items() <= texts(found).items()


@pytest.mark.parametrize(
    ("body", "stored"),
    [
        ("", '{"messageId": "m1", "body": null}'),
        ("half \ud800", "half \\ud800"),
        ("nul \x00 \uffff", "nul \\u0000 \\uffff"),
    ],
)
async def test_a_rejected_body_that_sqs_would_not_take_is_stored_all_the_same(
    queue: Bench, body: str, stored: str
) -> None:
    (found,) = await rejected(queue, letter(body))
    assert found["Body"] == stored
    assert "encoding" not in texts(found)


@pytest.mark.parametrize(
    ("body", "stored"), [(b'{"n": 1}', "eyJuIjogMX0="), (b"\xff\x00", "/wA="), (b"", "\n"), (b"\\x41", "XHg0MQ==")]
)
async def test_a_rejected_streams_bytes_are_base64_and_the_letter_says_so(
    queue: Bench, body: bytes, stored: str
) -> None:
    (found,) = await rejected(queue, letter(body, **STREAMED))
    assert found["Body"] == stored
    assert base64.b64decode(stored) == body
    said = {"encoding": "base64", "pipeline_cause": texts(found)["pipeline_cause"], **STREAMED["attributes"]}
    assert said.items() <= texts(found).items()
    assert json.loads(said["pipeline_cause"]) == {**SAID, "record_id": letter().record.id}


@pytest.mark.parametrize(("count", "is_folded"), [(6, False), (7, True), (10, True)])
async def test_how_a_streams_bytes_are_written_counts_among_the_attributes(
    queue: Bench, count: int, is_folded: bool
) -> None:
    (found,) = await rejected(queue, letter(b"\xff", attributes=dict(list(TEN.items())[:count])))
    assert texts(found)["encoding"] == "base64"
    assert json.loads(texts(found)["pipeline_cause"]) == {**SAID, "record_id": letter().record.id}
    assert ("pipeline_attributes" in texts(found)) is is_folded


async def test_a_damaged_streams_record_is_rejected_as_it_was_received(queue: Bench) -> None:
    given = {"Records": [stream_record(5, data="no base64!"), stream_record(6, sealed(b"\xff"))]}
    damaged, aggregate = sources.Kinesis("orders").decode(given)
    letters = [DeadLetter(record=one, **SAID) for one in (damaged, aggregate)]
    found = {one["Body"]: texts(one).get("encoding") for one in await rejected(queue, *letters)}
    assert found == {"no base64!": None, base64.b64encode(sealed(b"\xff")).decode(): "base64"}


async def test_a_record_without_its_place_can_be_rejected(queue: Bench) -> None:
    (bare,) = sources.Kinesis("orders").decode({"Records": [{"kinesis": {"sequenceNumber": "5", "data": "e30="}}]})
    (found,) = await rejected(queue, DeadLetter(record=bare, **SAID))
    assert texts(found)["sequence_number"] == "5"


# aiohttp would rather be given a file for a body of a MiB.
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
@pytest.mark.parametrize(("spare", "has_cause"), [(200, False), (500, True)])
async def test_a_rejected_body_goes_before_its_cause(queue: Bench, spare: int, has_cause: bool) -> None:
    (found,) = await rejected(queue, letter("x" * (1_048_576 - spare)))
    assert len(found["Body"]) == 1_048_576 - spare
    assert ("pipeline_cause" in found["MessageAttributes"]) is has_cause


async def test_a_sink_with_a_group_of_its_own_takes_rejected_records_too(
    aws: str, environment: ProcessEnvironment, unique: str
) -> None:
    bench = queue_bench(environment, f"{unique}.fifo", group="customer.id")
    await bench.sink.create(environment)
    found = await rejected(bench, letter(), letter(id="m2", lane="lane"))
    assert {message["Attributes"]["MessageGroupId"] for message in found} == {"m1", "lane"}


async def test_a_rejected_record_is_an_object_on_a_bus(eventbridge: Bench) -> None:
    letters = [letter(attributes=TEN), letter("not {json"), letter("half \ud800"), letter("")]
    results = await SinkDeadLetters(eventbridge.sink).put(letters, eventbridge.environment, FOREVER)
    assert results == [None] * 4
    found = {value["body"]: value for value in await eventbridge.read()}
    assert found['{"n": 1}'] == {"id": "m1", "body": '{"n": 1}', "cause": SAID, "attributes": TEN}
    assert set(found) == {'{"n": 1}', "not {json", "half \\ud800", '{"messageId": "m1", "body": null}'}


async def test_a_detail_type_function_is_given_the_rejected_object(eventbridge: Bench, faults: Any) -> None:
    fault = faults("events")
    await fault.record("PutEvents")
    sink = sinks.EventBridge(eventbridge.sink.name, detail_type=lambda value: value["cause"]["handler"])
    results = await SinkDeadLetters(sink.bound_to("shop")).put([letter()], eventbridge.environment, FOREVER)
    assert results == [None]
    assert fault.calls[0]["Entries"][0]["DetailType"] == "shop.price"


@pytest.mark.parametrize("sort_key", [None, "handler"])
async def test_a_rejected_record_is_an_item_under_the_tables_own_key(
    aws: str, environment: ProcessEnvironment, unique: str, sort_key: str | None
) -> None:
    sink = sinks.DynamoDB(unique, partition_key="record", sort_key=sort_key)
    await sink.create(environment)
    letters = [letter(attributes=TEN), letter("", id="m2")]
    assert await SinkDeadLetters(sink).put(letters, environment, FOREVER) == [None, None]
    key = {"record": {"S": "m1"}, **({sort_key: {"S": "shop.price"}} if sort_key else {})}
    found = await item(Bench(sink, environment, lambda: None), key, unique)  # type: ignore[arg-type, return-value]
    assert found["body"] == {"S": '{"n": 1}'}
    assert found["cause"]["M"]["cause"] == {"S": "Reject: never"}
    assert found["cause"]["M"]["attempts"] == {"N": "5"}
    assert found["attributes"]["M"]["a3"] == {"S": "v3"}
    assert found["_pipeline"]["M"]["hops"] == {"N": "0"}


@pytest.fixture(params=["kinesis", "s3", "file"])
def plain(request: pytest.FixtureRequest) -> Bench:
    """Those that have no place for message attributes."""
    return request.getfixturevalue(request.param)


async def test_without_message_attributes_a_rejected_record_is_an_object_so_that_its_cause_is_kept(
    plain: Bench,
) -> None:
    letters = [
        letter(attributes=TEN),
        letter("not {json", id="m2"),
        letter("", id="m3"),
        letter(b"\xff", id="m4", lane="c1", **STREAMED),
        letter(b"", id="m5"),
    ]
    assert await SinkDeadLetters(plain.sink).put(letters, plain.environment, FOREVER) == [None] * 5
    found = {value["id"]: value for value in await plain.read()}
    assert found["m1"] == {"id": "m1", "body": '{"n": 1}', "cause": SAID, "attributes": TEN}
    assert found["m2"] == {"id": "m2", "body": "not {json", "cause": SAID, "attributes": {}}
    assert found["m3"]["body"] == '{"messageId": "m1", "body": null}'
    attributes = STREAMED["attributes"]
    assert found["m4"] == {"id": "m4", "body": "/w==", "encoding": "base64", "cause": SAID, "attributes": attributes}
    assert found["m5"] == {"id": "m5", "body": "", "encoding": "base64", "cause": SAID, "attributes": {}}


async def test_a_cause_without_end_is_cut(limited_bench: Bench) -> None:
    endless = msgspec.structs.replace(letter(), cause="x" * 3_000_000)
    assert await SinkDeadLetters(limited_bench.sink).put([endless], limited_bench.environment, FOREVER) == [None]


@pytest.mark.parametrize(
    ("options", "fields", "key"),
    [
        ({}, {}, "m1"),
        ({}, {"lane": "c1"}, "c1"),
        ({"partition_key": "customer.id"}, {}, "m1"),
        ({"partition_key": "customer.id"}, {"lane": "c1"}, "c1"),
        ({"partition_key": "id"}, {"lane": "c1"}, "c1"),
    ],
)
async def test_a_rejected_record_goes_to_a_stream_under_its_lane_or_its_id(
    kinesis: Bench, faults: Any, options: Any, fields: Any, key: str
) -> None:
    fault = faults("kinesis")
    await fault.record("PutRecords")
    sink = sinks.Kinesis(kinesis.sink.name, **options)
    assert await SinkDeadLetters(sink).put([letter(**fields)], kinesis.environment, FOREVER) == [None]
    (record,) = fault.calls[0]["Records"]
    assert record["PartitionKey"] == key
    found = json.loads(record["Data"])
    assert found.pop("_pipeline")["hops"] == 0
    assert found == {"id": "m1", "body": '{"n": 1}', "cause": SAID, "attributes": {}}


async def test_rejected_records_are_lines_of_the_hour_when_they_were_sent(s3: Bench) -> None:
    sink = sinks.S3(s3.sink.name, prefix="{date}/{hour}/{key}/")
    letters = [letter(lane="c1", sent_at=SEVEN), letter(id="m2", sent_at=EIGHT)]
    for _ in range(2):
        assert await SinkDeadLetters(sink).put(letters, s3.environment, FOREVER) == [None, None]
    found = await objects(s3.environment, s3.sink.name)
    assert sorted(key.rpartition("/")[0] for key in found) == ["2026-11-20/07/c1", "2026-11-20/08/m2"]


@pytest.mark.parametrize("name", ["partition_key", "group", "hash_key"])
async def test_a_table_may_have_a_key_of_any_other_name(
    aws: str, environment: ProcessEnvironment, unique: str, name: str
) -> None:
    sink = sinks.DynamoDB(unique, partition_key=name)
    await sink.create(environment)
    assert await SinkDeadLetters(sink).put([letter(b"\xff")], environment, FOREVER) == [None]
    found = await item(Bench(sink, environment, lambda: None), {name: {"S": "m1"}}, unique)  # type: ignore[arg-type, return-value]
    assert (found["body"], found["encoding"]) == ({"S": "/w=="}, {"S": "base64"})


def test_a_stream_that_wants_a_hash_key_of_every_record_cannot_take_rejected_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"rejects='out': .*no hash key.*without hash_key="):
        SinkDeadLetters(sinks.Kinesis("out", hash_key="shard"))


@pytest.mark.parametrize(
    "keys",
    [{"partition_key": "body"}, {"partition_key": "id", "sort_key": "cause"}, {"partition_key": "encoding"}],
)
def test_a_key_that_a_rejected_record_needs_for_itself_is_refused_when_declared(keys: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=r"key attribute"):
        SinkDeadLetters(sinks.DynamoDB("rejects", **keys))
