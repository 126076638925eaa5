"""The queue source: decoding, settling, dead letters, and its queues."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from pipeline import sinks, sources
from pipeline.aws.client import client
from pipeline.batch import BatchResult
from pipeline.decisions.deadline import Deadline
from pipeline.engine.environment import ProcessEnvironment
from pipeline.errors import ConfigurationError, EventError, PayloadError, SinkRefused, SinkUnavailable
from pipeline.outcome import Failed, HandBack, Rejected, Succeeded, Unprocessed
from pipeline.output import Output
from pipeline.ports import DeadLetter, DeadLetters, Source
from pipeline.record import Carried, RawRecord, TraceContext

FOREVER = Deadline()
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SPAN = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1)
HEADER = "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=1"
STATED = TraceContext(SPAN.trace_id, SPAN.span_id, 1, "vendor=1")
OTHER = TraceContext("5759e988bd862e3fe1be46a994272793", "53995c3f42cd8ad8", 1)
OTHER_HEADER = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
ARN = "arn:aws:sqs:eu-west-1:123456789012:"


def message(identity: str = "m1", body: Any = "{}", **fields: Any) -> dict[str, Any]:
    """A record as Lambda delivers it."""
    return {
        "messageId": identity,
        "receiptHandle": f"handle-{identity}",
        "body": body,
        "attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "1545082649183"},
        "messageAttributes": {},
        "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3",
        "eventSource": "aws:sqs",
        "eventSourceARN": f"{ARN}orders",
        "awsRegion": "eu-west-1",
        **fields,
    }


def text(value: str, kind: str = "String") -> dict[str, Any]:
    return {"stringValue": value, "dataType": kind, "stringListValues": [], "binaryListValues": []}


def decode_one(record: dict[str, Any], queue: str = "orders") -> RawRecord:
    (found,) = sources.SQS(queue).decode({"Records": [record]})
    return found


def test_it_is_a_source() -> None:
    source = sources.SQS("orders")
    assert isinstance(source, Source)
    assert isinstance(source.dead_letters, DeadLetters)
    assert source.name == "orders"


def test_a_record_keeps_identity_times_counts_and_attributes() -> None:
    attributes = {"colour": text("red"), "blob": {"binaryValue": "AAH/", "dataType": "Binary"}}
    record = message(body='{"n": 1}', messageAttributes=attributes)
    record["attributes"]["ApproximateReceiveCount"] = "4"
    found = decode_one(record)
    assert (found.id, found.source, found.body, found.receive_count) == ("m1", "orders", '{"n": 1}', 4)
    assert found.sent_at == 1545082649.183
    assert found.attributes == {"colour": "red", "blob": "AAH/"}
    assert found.origin is record
    assert (found.lane, found.carried, found.error) == (None, None, None)


def test_what_an_earlier_stage_sent_along_is_taken_off_the_attributes() -> None:
    carried = {"pipeline": text('{"id":"abc","hops":2}'), "traceparent": text(TRACE), "colour": text("red")}
    found = decode_one(message(messageAttributes=carried))
    assert found.carried == Carried(id="abc", hops=2, traceparent=TRACE)
    assert found.attributes == {"colour": "red"}


def test_what_vendors_add_to_a_context_comes_along() -> None:
    carried = {"pipeline": text('{"id":"abc"}'), "traceparent": text(TRACE), "tracestate": text("vendor=1")}
    found = decode_one(message(messageAttributes=carried))
    assert found.carried == Carried(id="abc", traceparent=TRACE, tracestate="vendor=1")
    assert (found.attributes, [trace.state for trace in found.traces]) == ({}, ["vendor=1"])


def test_a_strangers_attribute_of_the_same_name_is_no_error_and_stays() -> None:
    found = decode_one(message(messageAttributes={"pipeline": text("theirs")}))
    assert found.carried is None
    assert found.attributes == {"pipeline": "theirs"}


@pytest.mark.parametrize(
    ("attributes", "header", "traces"),
    [
        ({}, None, ()),
        ({"traceparent": TRACE}, None, (SPAN,)),
        ({"traceparent": TRACE, "pipeline": '{"id":"abc","hops":2}'}, None, (SPAN,)),
        ({"pipeline": json.dumps({"id": "abc", "traceparent": TRACE})}, None, (SPAN,)),
        ({"traceparent": TRACE, "pipeline": "theirs"}, HEADER, (SPAN,)),
        ({"traceparent": TRACE}, HEADER.replace("b7", "00"), (SPAN,)),
        ({"traceparent": TRACE}, OTHER_HEADER, (SPAN, OTHER)),
        ({}, OTHER_HEADER, (OTHER,)),
        ({}, OTHER_HEADER.replace("Sampled=1", "Sampled=0"), ()),
        ({"traceparent": TRACE}, OTHER_HEADER.replace("Sampled=1", "Sampled=0"), (SPAN,)),
        ({"colour": "red"}, HEADER, (SPAN,)),
        ({"traceparent": "malformed"}, HEADER, (SPAN,)),
        ({"traceparent": "malformed", "pipeline": '{"id":"abc"}'}, "Root=dummy", ()),
        ({"traceparent": TRACE.upper(), "tracestate": "a=1"}, None, ()),
        ({"traceparent": ""}, "", ()),
        ({"tracestate": "a=1"}, HEADER, (SPAN,)),
    ],
)
def test_what_made_a_record_is_read_whoever_sent_it(
    attributes: dict[str, str], header: str | None, traces: tuple[TraceContext, ...]
) -> None:
    record = message(messageAttributes={name: text(value) for name, value in attributes.items()})
    if header is not None:
        record["attributes"]["AWSTraceHeader"] = header
    assert decode_one(record).traces == traces


def test_a_strangers_context_stays_among_the_attributes_and_its_state_is_kept() -> None:
    given = {"traceparent": text(TRACE), "tracestate": text("vendor=1,other=2")}
    found = decode_one(message(messageAttributes=given))
    assert found.attributes == {"traceparent": TRACE, "tracestate": "vendor=1,other=2"}
    (trace,) = found.traces
    assert (trace.trace_id, trace.state) == (SPAN.trace_id, "vendor=1,other=2")


@pytest.mark.parametrize("odd", [7, [TRACE], {"a": 1}, True])
def test_a_context_that_is_no_text_is_none(odd: Any) -> None:
    record = message(messageAttributes={"traceparent": {"stringValue": odd}, "tracestate": odd})
    record["attributes"]["AWSTraceHeader"] = odd
    binary = message(messageAttributes={"traceparent": {"binaryValue": "AAH/", "dataType": "Binary"}})
    assert (decode_one(record).traces, decode_one(binary).traces) == ((), ())


def notification(attributes: Any, **others: Any) -> str:
    """A message's body as SNS writes it where raw delivery is off."""
    envelope = {"Type": "Notification", "MessageId": "m", "TopicArn": "arn:aws:sns:eu-west-1:1:t", "Message": "{}"}
    return json.dumps({**envelope, "MessageAttributes": attributes, **others}, indent=2)


def given_by_sns(trace: Any = TRACE, state: Any = "vendor=1") -> dict[str, Any]:
    return {"traceparent": {"Type": "String", "Value": trace}, "tracestate": {"Type": "String", "Value": state}}


def test_a_topics_envelope_says_what_made_a_record_and_stays_its_body() -> None:
    body = notification(given_by_sns())
    found = decode_one(message(body=body))
    assert (found.traces, found.traces[0].state, found.body) == ((STATED,), "vendor=1", body)
    assert (found.attributes, found.carried) == ({}, None)


@pytest.mark.parametrize(
    ("body", "header", "traces"),
    [
        (notification(given_by_sns(state=7)), OTHER_HEADER, (SPAN, OTHER)),
        (notification(given_by_sns(state=None)), HEADER, (SPAN,)),
        (notification(given_by_sns()), OTHER_HEADER.replace("Sampled=1", "Sampled=0"), (STATED,)),
        (notification(given_by_sns("malformed")), OTHER_HEADER, (OTHER,)),
        (notification(given_by_sns()), None, (STATED,)),
        (notification(given_by_sns([TRACE])), None, ()),
        (notification({"traceparent": TRACE}), None, ()),
        (notification(["traceparent"]), None, ()),
        (notification(given_by_sns(), TopicArn=7), None, ()),
        (notification(given_by_sns(), Type="UnsubscribeConfirmation"), None, ()),
        (notification(given_by_sns())[:-1], None, ()),
        (notification(given_by_sns()).replace("\n  ", ""), None, (STATED,)),
        (notification(given_by_sns()).replace("\n  ", " "), None, (STATED,)),
        (json.dumps(given_by_sns()), None, ()),
        ('{"Type":"Notification"', None, ()),
        ('{"Type":"Notification","traceparent":' + "[" * 9_999, None, ()),
    ],
)
def test_what_stands_in_a_body_is_read_only_from_a_topics_envelope(
    body: str, header: str | None, traces: tuple[TraceContext, ...]
) -> None:
    record = message(body=body)
    if header is not None:
        record["attributes"]["AWSTraceHeader"] = header
    assert (decode_one(record).traces, decode_one(record).error) == (traces, None)


def test_a_messages_own_context_counts_before_its_envelopes() -> None:
    body = notification(given_by_sns(f"00-{OTHER.trace_id}-{OTHER.span_id}-01"))
    assert decode_one(message(body=body, messageAttributes={"traceparent": text(TRACE)})).traces == (SPAN,)


def test_only_a_fifo_queues_group_is_a_lane() -> None:
    record = message()
    record["attributes"]["MessageGroupId"] = "tenant"
    assert decode_one(record).lane is None
    assert decode_one({**record, "eventSourceARN": f"{ARN}orders.fifo"}).lane == "tenant"
    del record["eventSourceARN"]
    assert decode_one(record, "orders.fifo").lane == "tenant"


def test_fields_that_are_missing_are_tolerated() -> None:
    found = decode_one({"messageId": "m1", "body": "x"})
    assert (found.receive_count, found.sent_at, found.attributes, found.error) == (1, None, {}, None)


@pytest.mark.parametrize("body", [None, 7, {"a": 1}, "half \ud800"])
def test_a_damaged_body_damages_its_own_record_only(body: Any) -> None:
    found = sources.SQS("orders").decode({"Records": [message("a"), message("b", body), message("c")]})
    assert [type(record.error) for record in found] == [type(None), PayloadError, type(None)]


def test_a_test_event_of_another_service_is_just_a_body() -> None:
    body = json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent"})
    assert decode_one(message(body=body)).body == body


@pytest.mark.parametrize(
    ("event", "says"),
    [
        (None, "null"),
        ([], "an array"),
        ("x", "a text"),
        ({"detail": 1, "source": "x"}, "detail, source"),
        ({}, "nothing"),
        ({"Records": None}, "null"),
        ({"Records": ["x"]}, "record 0"),
        ({"Records": [message(), message(eventSource="aws:kinesis")]}, "aws:kinesis"),
        ({"Records": [{"EventSource": "aws:sns", "Sns": {}}]}, "aws:sns"),
        ({"Records": [message(identity="")]}, "messageId"),
        ({"Records": [{"body": "x"}]}, "body"),
    ],
)
def test_an_event_of_something_else_is_refused_by_what_was_found(event: Any, says: str) -> None:
    with pytest.raises(EventError, match=says):
        sources.SQS("orders").decode(event)


def test_an_empty_batch_is_no_error() -> None:
    assert sources.SQS("orders").decode({"Records": []}) == []


def test_the_unsettled_are_named_once_each_and_in_order() -> None:
    records = sources.SQS("orders").decode({"Records": [message(n) for n in ("a", "b", "c", "b", "d")]})
    failed = Failed(ValueError("x"))
    outcomes = [Succeeded(), failed, Unprocessed(HandBack.DEADLINE), failed, Rejected(ValueError("x"))]
    assert sources.SQS("orders").unsettled_ids(BatchResult(records, outcomes)) == ["b", "c"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch_size": 0}, "1 to 10,000"),
        ({"batch_size": 10_001, "batching_window": 1}, "1 to 10,000"),
        ({"batch_size": 11}, "batching_window=1"),
        ({"batching_window": 301}, "0 to 300"),
        ({"max_concurrency": 1}, "2 to 1,000"),
        ({"max_concurrency": 1_001}, "2 to 1,000"),
        ({"max_receive_count": 0}, "1 to 1,000"),
        ({"batch_size": True}, "whole number"),
        ({"queue": "q.fifo", "batch_size": 11}, "FIFO"),
        ({"queue": "q.fifo", "batching_window": 1}, "FIFO"),
        ({"existing": f"{ARN}q.fifo", "batching_window": 1}, "FIFO"),
        ({"queue": ""}, "logical name"),
        ({"existing": "q"}, "ARN"),
        ({"filter": {"body": {}}}, "names no field"),
        ({"filter": {"kind": "order"}}, "needs a list"),
    ],
)
def test_a_wrong_option_is_refused_when_declared_and_says_what_to_write(options: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        sources.SQS(**{"queue": "q", **options})


# With a server


async def received(environment: ProcessEnvironment, queue: str, **options: Any) -> list[dict[str, Any]]:
    """Up to ten messages as Lambda would deliver them."""
    service = await client(environment, "sqs")
    url = (await service.get_queue_url(QueueName=queue))["QueueUrl"]
    answer = await service.receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, AttributeNames=["All"], MessageAttributeNames=["All"], **options
    )
    return [as_delivered(found, queue) for found in answer.get("Messages", ())]


def as_delivered(found: dict[str, Any], queue: str) -> dict[str, Any]:
    attributes = {
        name: {"dataType": value["DataType"], **_value(value)}
        for name, value in found.get("MessageAttributes", {}).items()
    }
    return message(
        found["MessageId"],
        found["Body"],
        receiptHandle=found["ReceiptHandle"],
        attributes=found["Attributes"],
        messageAttributes=attributes,
        eventSourceARN=ARN + queue,
    )


def _value(value: dict[str, Any]) -> dict[str, Any]:
    if "BinaryValue" in value:
        return {"binaryValue": base64.b64encode(value["BinaryValue"]).decode()}
    return {"stringValue": value["StringValue"]}


@pytest.fixture(params=["", ".fifo"])
async def source(request: pytest.FixtureRequest, aws: str, environment: ProcessEnvironment, unique: str) -> sources.SQS:
    made = sources.SQS(f"{unique}{request.param}")
    await made.create(environment, timeout=30)
    return made


async def filled(source: sources.SQS, environment: ProcessEnvironment, count: int) -> list[RawRecord]:
    """Records that stand on the source's queue, received."""
    sink = sinks.SQS(source.queue)
    outputs = [
        Output(id=f"{n:032x}", sink="q", body=json.dumps({"n": n}), default_key=f"g{n}", attributes={"n": str(n)})
        for n in range(count)
    ]
    assert await sink.write(outputs, environment, FOREVER) == [None] * count
    found: list[dict[str, Any]] = []
    while len(found) < count:
        found += await received(environment, source.queue)
    return source.decode({"Records": found})


async def attributes_of(environment: ProcessEnvironment, queue: str) -> dict[str, str]:
    service = await client(environment, "sqs")
    url = (await service.get_queue_url(QueueName=queue))["QueueUrl"]
    found: dict[str, str] = (await service.get_queue_attributes(QueueUrl=url, AttributeNames=["All"]))["Attributes"]
    return found


async def test_its_queues_are_made_with_room_for_six_runs_and_a_net(
    source: sources.SQS, environment: ProcessEnvironment, faults: Any
) -> None:
    dead = source.queue.replace(".fifo", "") + "-dlq" + (".fifo" if source.is_fifo else "")
    found = await attributes_of(environment, source.queue)
    assert found["VisibilityTimeout"] == "180"
    assert json.loads(found["RedrivePolicy"]) == {"deadLetterTargetArn": ARN + dead, "maxReceiveCount": 20}
    assert (await attributes_of(environment, dead))["MessageRetentionPeriod"] == "1209600"
    fault = faults("sqs")
    await fault.record("SetQueueAttributes")
    await source.create(environment, timeout=60)
    # moto keeps no such policy, so what was asked for has to do.
    asked = [call["Attributes"].get("RedriveAllowPolicy") for call in fault.calls]
    assert json.loads(asked[-1]) == {"redrivePermission": "byQueue", "sourceQueueArns": [ARN + source.queue]}
    assert (await attributes_of(environment, source.queue))["VisibilityTimeout"] == "360"


async def test_settling_gives_each_unsettled_record_its_own_delay(
    source: sources.SQS, environment: ProcessEnvironment, faults: Any
) -> None:
    records = await filled(source, environment, 12)
    fault = faults("sqs")
    await fault.record("ChangeMessageVisibilityBatch")
    outcomes = [
        Succeeded(),
        Failed(ValueError(), delay=None),
        *[Failed(ValueError(), delay=0.0)] * 2,
        *[Unprocessed(HandBack.BEHIND, delay=1.2)] * 7,
        Unprocessed(HandBack.CLAIMED, delay=1e9),
    ]
    await source.settle(BatchResult(records, outcomes), environment, FOREVER)
    entries = [entry for call in fault.calls for entry in call["Entries"]]
    assert sorted(entry["VisibilityTimeout"] for entry in entries) == [0] * 2 + [2] * 7 + [42_300]
    assert all(len(call["Entries"]) <= 10 for call in fault.calls)
    again = await received(environment, source.queue)
    assert {record["messageId"] for record in again} == {records[2].id, records[3].id}


async def test_more_than_ten_delays_take_several_calls(
    source: sources.SQS, environment: ProcessEnvironment, faults: Any
) -> None:
    fault = faults("sqs")
    await fault.record("ChangeMessageVisibilityBatch")
    records = source.decode({"Records": [message(f"m{n}", eventSourceARN=ARN + source.queue) for n in range(23)]})
    result = BatchResult(records, [Failed(ValueError(), delay=1.0)] * 23)
    await source.settle(result, environment, FOREVER)
    assert sorted(len(call["Entries"]) for call in fault.calls) == [3, 10, 10]


async def test_with_nothing_to_delay_or_no_time_no_call_is_made(
    source: sources.SQS, environment: ProcessEnvironment, faults: Any
) -> None:
    fault = faults("sqs")
    await fault.record("ChangeMessageVisibilityBatch")
    records = source.decode({"Records": [message("a"), message("b")]})
    outcomes = [Succeeded(), Failed(ValueError())]
    await source.settle(BatchResult(records, outcomes), environment, FOREVER)
    late = Deadline(soft=-2.0, hard=-1.0)
    await source.settle(BatchResult(records, [Failed(ValueError(), delay=1.0)] * 2), environment, late)
    assert fault.calls == []


@pytest.mark.parametrize("delay", [float("nan"), float("inf"), 1e308, pytest.param(10**400, id="huge"), "soon", True])
async def test_a_delay_that_is_no_time_is_the_longest_one_and_spoils_no_other(
    source: sources.SQS, environment: ProcessEnvironment, faults: Any, delay: Any
) -> None:
    fault = faults("sqs")
    await fault.record("ChangeMessageVisibilityBatch")
    records = source.decode({"Records": [message(n, eventSourceARN=ARN + source.queue) for n in ("a", "b")]})
    await source.settle(
        BatchResult(records, [Failed(ValueError(), delay=delay), Failed(ValueError(), delay=3.0)]), environment, FOREVER
    )
    (call,) = fault.calls
    assert [entry["VisibilityTimeout"] for entry in call["Entries"]] == [1 if delay is True else 42_300, 3]


async def test_a_receipt_handle_that_is_no_text_spoils_no_other(
    source: sources.SQS, environment: ProcessEnvironment, faults: Any
) -> None:
    fault = faults("sqs")
    await fault.record("ChangeMessageVisibilityBatch")
    odd = [message(f"o{n}", receiptHandle=handle) for n, handle in enumerate([7, b"x", {"a": 1}, "", None])]
    records = source.decode({"Records": [*odd, message("a", eventSourceARN=ARN + source.queue)]})
    await source.settle(BatchResult(records, [Failed(ValueError(), delay=1.0)] * 6), environment, FOREVER)
    (call,) = fault.calls
    assert [entry["ReceiptHandle"] for entry in call["Entries"]] == ["handle-a"]


async def test_settling_raises_nothing_even_for_what_is_no_error_of_the_service(
    source: sources.SQS, environment: ProcessEnvironment, faults: Any
) -> None:
    await faults("sqs").answer("ChangeMessageVisibilityBatch", {"Failed": [{"Id": "0", "Code": "InternalError"}]})
    records = source.decode({"Records": [message("a", eventSourceARN=ARN + source.queue), message("b")]})
    result = BatchResult(records, [Failed(ValueError(), delay=1.0)] * 2)
    await source.settle(result, environment, FOREVER)

    class Broken(ProcessEnvironment):
        async def once(self, key: Any, make: Any) -> Any:
            raise LookupError("broken")

    await source.settle(result, Broken(), FOREVER)


async def test_settling_never_fails_the_batch(
    source: sources.SQS, environment: ProcessEnvironment, faults: Any
) -> None:
    records = source.decode({"Records": [message("a", eventSourceARN=f"{ARN}nowhere"), message("b")]})
    await faults("sqs").lose_requests("ChangeMessageVisibilityBatch", times=9)
    await source.settle(BatchResult(records, [Failed(ValueError(), delay=1.0)] * 2), environment, FOREVER)


async def test_records_of_another_queue_are_delayed_there(
    aws: str, environment: ProcessEnvironment, unique: str
) -> None:
    real = sources.SQS(unique)
    await real.create(environment, timeout=30)
    (record,) = await filled(real, environment, 1)
    declared = sources.SQS("orders")
    await declared.settle(BatchResult([record], [Failed(ValueError(), delay=0.0)]), environment, FOREVER)
    assert len(await received(environment, unique)) == 1


def letter(record: RawRecord, cause: str = "Reject: too late") -> DeadLetter:
    return DeadLetter(record=record, handler="shop.price", cause=cause, attempts=5, exhausted=True)


async def dead_letters(source: sources.SQS, environment: ProcessEnvironment) -> list[dict[str, Any]]:
    stem = source.queue.removesuffix(".fifo")
    return await received(environment, stem + "-dlq" + source.queue[len(stem) :])


async def test_a_dead_letter_is_the_message_with_its_cause(
    source: sources.SQS, environment: ProcessEnvironment
) -> None:
    (record,) = await filled(source, environment, 1)
    assert await source.dead_letters.put([letter(record)], environment, FOREVER) == [None]
    (found,) = await dead_letters(source, environment)
    assert found["body"] == record.body
    cause = json.loads(found["messageAttributes"]["pipeline_cause"]["stringValue"])
    said = {"handler": "shop.price", "cause": "Reject: too late", "attempts": 5, "exhausted": True}
    assert cause == {**said, "record_id": record.id}
    (redriven,) = source.decode({"Records": [found]})
    assert redriven.carried == record.carried
    assert redriven.lane == record.lane
    assert redriven.attributes["n"] == "0"


@pytest.mark.parametrize(
    ("header", "kept"), [(OTHER_HEADER, OTHER_HEADER), (f"{OTHER_HEADER};Self=1-a", OTHER_HEADER), ("dummy", None)]
)
async def test_a_dead_letter_keeps_what_made_its_record(
    queue: sources.SQS, environment: ProcessEnvironment, header: str, kept: str | None
) -> None:
    given = message(messageAttributes={"traceparent": text(TRACE)})
    given["attributes"]["AWSTraceHeader"] = header
    found = await put(queue, environment, decode_one(given))
    assert found["attributes"].get("AWSTraceHeader") == kept
    assert decode_one(found).traces == decode_one(given).traces == ((SPAN, OTHER) if kept else (SPAN,))


async def test_a_dead_letter_put_twice_on_a_fifo_queue_stands_there_once(
    aws: str, environment: ProcessEnvironment, unique: str
) -> None:
    source = sources.SQS(f"{unique}.fifo")
    await source.create(environment, timeout=30)
    (record,) = await filled(source, environment, 1)
    for _ in range(2):
        assert await source.dead_letters.put([letter(record)], environment, FOREVER) == [None]
    assert len(await dead_letters(source, environment)) == 1


@pytest.fixture
async def queue(aws: str, environment: ProcessEnvironment, unique: str) -> sources.SQS:
    made = sources.SQS(unique)
    await made.create(environment, timeout=30)
    return made


async def put(
    source: sources.SQS, environment: ProcessEnvironment, record: RawRecord, cause: str = "x"
) -> dict[str, Any]:
    assert await source.dead_letters.put([letter(record, cause)], environment, FOREVER) == [None]
    (found,) = await dead_letters(source, environment)
    return found


async def test_ten_attributes_are_folded_into_one_but_for_the_identity(
    queue: sources.SQS, environment: ProcessEnvironment
) -> None:
    attributes = {f"a{n}": text(f"v{n}") for n in range(7)} | {"b": {"binaryValue": "AAE=", "dataType": "Binary.png"}}
    attributes |= {"pipeline": text('{"id":"abc","hops":2}'), "traceparent": text(TRACE), "tracestate": text("a=1")}
    found = await put(queue, environment, decode_one(message(messageAttributes=attributes)))
    kept = found["messageAttributes"]
    assert set(kept) == {"pipeline", "traceparent", "tracestate", "pipeline_attributes", "pipeline_cause"}
    folded = json.loads(kept["pipeline_attributes"]["stringValue"])
    assert folded["a3"] == {"type": "String", "value": "v3"}
    assert folded["b"] == {"type": "Binary.png", "value": "AAE="}
    assert decode_one(found).carried == Carried(id="abc", hops=2, traceparent=TRACE, tracestate="a=1")


async def test_nine_attributes_and_their_types_are_kept_as_they_are(
    queue: sources.SQS, environment: ProcessEnvironment
) -> None:
    attributes = {f"a{n}": text(str(n), "Number") for n in range(8)}
    attributes |= {"b": {"binaryValue": "AAE=", "dataType": "Binary"}, "pipeline_cause": text("of an earlier stay")}
    found = await put(queue, environment, decode_one(message(messageAttributes=attributes)))
    kept = found["messageAttributes"]
    assert (kept["a7"]["dataType"], kept["a7"]["stringValue"]) == ("Number", "7")
    assert kept["b"]["binaryValue"] == "AAE="
    assert json.loads(kept["pipeline_cause"]["stringValue"])["attempts"] == 5


@pytest.mark.parametrize("cause", ["long " * 1_000, "ü😀" * 2_000])
async def test_a_long_cause_is_cut(queue: sources.SQS, environment: ProcessEnvironment, cause: str) -> None:
    found = await put(queue, environment, decode_one(message()), cause)
    kept = found["messageAttributes"]["pipeline_cause"]["stringValue"]
    assert 1_900 < len(kept) <= 2_048
    assert cause.startswith(json.loads(kept)["cause"])


# aiohttp would rather be given a file for a body of a MiB, which is as large as SQS's get.
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
@pytest.mark.parametrize(("spare", "has_cause"), [(0, False), (150, True)])
async def test_a_body_as_large_as_a_message_goes_before_its_cause(
    queue: sources.SQS, environment: ProcessEnvironment, spare: int, has_cause: bool
) -> None:
    body = "x" * (1_048_576 - spare)
    found = await put(queue, environment, decode_one(message(body=body)), "cause " * 100)
    assert found["body"] == body
    assert ("pipeline_cause" in found["messageAttributes"]) is has_cause


async def test_a_body_that_sqs_would_not_take_is_stored_all_the_same(
    queue: sources.SQS, environment: ProcessEnvironment
) -> None:
    assert (await put(queue, environment, decode_one(message(body="half \ud800"))))["body"] == "half \\ud800"


async def test_a_record_without_a_body_is_stored_as_it_came(
    queue: sources.SQS, environment: ProcessEnvironment
) -> None:
    record = message(body=None)
    assert json.loads((await put(queue, environment, decode_one(record)))["body"]) == record


async def test_a_letter_that_cannot_be_stored_says_so(aws: str, environment: ProcessEnvironment, unique: str) -> None:
    source = sources.SQS(unique)
    (missing,) = await source.dead_letters.put([letter(decode_one(message()))], environment, FOREVER)
    assert isinstance(missing, SinkUnavailable)
    (refused,) = await source.dead_letters.put(
        [letter(decode_one(message(messageAttributes={"a": text("\x01")})))], environment, FOREVER
    )
    assert isinstance(refused, SinkRefused)


async def test_a_foreign_queues_letters_go_where_its_policy_says(
    aws: str, environment: ProcessEnvironment, unique: str, faults: Any
) -> None:
    await sources.SQS(unique).create(environment, timeout=30)
    source = sources.SQS("theirs", existing=ARN + unique)
    fault = faults("sqs")
    await fault.record("GetQueueAttributes")
    for number in range(2):
        assert await source.dead_letters.put([letter(decode_one(message(f"m{number}")))], environment, FOREVER) == [
            None
        ]
    assert len(await received(environment, f"{unique}-dlq")) == 2
    assert len(fault.calls) == 1


async def test_a_foreign_queue_without_a_policy_has_nowhere_to_put_letters(
    aws: str, environment: ProcessEnvironment, unique: str
) -> None:
    await sinks.SQS(unique).create(environment)
    source = sources.SQS("theirs", existing=ARN + unique)
    (result,) = await source.dead_letters.put([letter(decode_one(message()))], environment, FOREVER)
    assert isinstance(result, SinkUnavailable)
    assert "redrive policy" in str(result)
