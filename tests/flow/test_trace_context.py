"""The context of a trace through three handlers, nobody tracing: a queue, a stream, a FIFO queue."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.sdk.trace import sampling

from pipeline import Pipeline, Reject, sinks, sources
from pipeline.testing import Emulator
from tests.support.tracing import traced

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
HEADER = "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=1"
#: As Lambda's and SQS's own have it.
RECEIVED = "Self=1-5759e988-bd862e3fe1be46a994272793;" + HEADER + ";Lineage=1:e7ff9e16:3"
FROM_STRANGERS: list[dict[str, Any]] = [
    {"MessageSystemAttributes": {"AWSTraceHeader": {"DataType": "String", "StringValue": HEADER}}},
    {"MessageSystemAttributes": {"AWSTraceHeader": {"DataType": "String", "StringValue": RECEIVED}}},
    {"MessageAttributes": {"traceparent": {"DataType": "String", "StringValue": TRACE}}},
]
NO_TRACE: list[dict[str, Any]] = [
    {},
    {"MessageSystemAttributes": {"AWSTraceHeader": {"DataType": "String", "StringValue": "Root=dummy"}}},
    {"MessageAttributes": {"traceparent": {"DataType": "String", "StringValue": TRACE.upper()}}},
]


def shop() -> Pipeline:
    made = Pipeline("shop")

    @made.handler(sources.SQS("orders"), sinks=[sinks.Kinesis("priced", partition_key="id")])
    async def price(order: dict[str, Any]) -> dict[str, Any]:
        if order["id"] == "never":
            raise Reject("never")
        return order

    @made.handler(sources.Kinesis("priced"), sinks=[sinks.SQS("parcels.fifo")])
    async def pack(order: dict[str, Any]) -> dict[str, Any]:
        return order

    return made


def through(given: dict[str, Any], *, identity: str = "a", last: str = "parcels.fifo") -> dict[str, Any]:
    """The message that stands on the last queue, of one sent to the first."""
    with Emulator() as aws:
        aws.add(shop())
        queues = aws.client("sqs")
        body = json.dumps({"id": identity})
        queues.send_message(QueueUrl=queues.get_queue_url(QueueName="orders")["QueueUrl"], MessageBody=body, **given)
        aws.run()
        url = queues.get_queue_url(QueueName=last)["QueueUrl"]
        (found,) = queues.receive_message(
            QueueUrl=url, MessageSystemAttributeNames=["All"], MessageAttributeNames=["All"]
        )["Messages"]
    message: dict[str, Any] = found
    return message


@pytest.mark.parametrize("given", FROM_STRANGERS)
def test_what_a_stranger_sent_arrives_at_the_end_in_both_notations(given: dict[str, Any]) -> None:
    found = through(given)
    assert found["MessageAttributes"]["traceparent"]["StringValue"] == TRACE
    assert found["Attributes"]["AWSTraceHeader"] == HEADER
    assert json.loads(found["Body"]) == {"id": "a"}


STATE = "vendor=1,other=2"


def test_what_vendors_add_arrives_at_the_end_and_on_dead_letters() -> None:
    given = {
        name: {"DataType": "String", "StringValue": text}
        for name, text in (("traceparent", TRACE), ("tracestate", STATE))
    }
    for found in (
        through({"MessageAttributes": given}),
        through({"MessageAttributes": given}, identity="never", last="orders-dlq"),
    ):
        assert found["MessageAttributes"]["traceparent"]["StringValue"] == TRACE
        assert found["MessageAttributes"]["tracestate"]["StringValue"] == STATE


@pytest.mark.parametrize("sampler", [None, sampling.ALWAYS_OFF])
def test_what_vendors_add_passes_through_a_tracer(sampler: sampling.Sampler | None) -> None:
    given = {
        name: {"DataType": "String", "StringValue": text}
        for name, text in (("traceparent", TRACE), ("tracestate", STATE))
    }
    with traced(sampler):
        found = through({"MessageAttributes": given})["MessageAttributes"]
    assert found["traceparent"]["StringValue"][:36] == TRACE[:36]
    assert found["traceparent"]["StringValue"] != TRACE
    assert found["tracestate"]["StringValue"] == STATE


@pytest.mark.parametrize("given", NO_TRACE)
def test_no_context_and_a_malformed_one_are_none_and_no_error(given: dict[str, Any]) -> None:
    found = through(given)
    assert "traceparent" not in found["MessageAttributes"]
    assert "AWSTraceHeader" not in found["Attributes"]


@pytest.mark.parametrize("given", FROM_STRANGERS)
def test_a_dead_letter_keeps_what_its_record_had(given: dict[str, Any]) -> None:
    found = through(given, identity="never", last="orders-dlq")
    traceparent = found.get("MessageAttributes", {}).get("traceparent", {}).get("StringValue")
    assert (traceparent == TRACE) is ("MessageAttributes" in given)
    assert (found["Attributes"].get("AWSTraceHeader") == HEADER) is ("MessageSystemAttributes" in given)
