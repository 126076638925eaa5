"""One trace through three handlers: a queue, a stream, a FIFO queue. In memory, and as a collector receives it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from pipeline import Pipeline, Reject, sinks, sources
from pipeline.testing import Emulator
from tests.support.otlp import receiving
from tests.support.tracing import Traced, attributes, installed, linked, traced

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PRODUCER = f"00-{TRACE_ID}-{SPAN_ID}-01"
HEADER = f"Root=1-{TRACE_ID[:8]}-{TRACE_ID[8:]};Parent={SPAN_ID};Sampled=1"
CONTEXTS: list[dict[str, Any]] = [
    {"MessageAttributes": {"traceparent": {"DataType": "String", "StringValue": PRODUCER}}},
    {"MessageSystemAttributes": {"AWSTraceHeader": {"DataType": "String", "StringValue": HEADER}}},
]


def shop() -> Pipeline:
    made = Pipeline("shop")
    tries: dict[str, int] = {}

    @made.handler(sources.SQS("orders"), sinks=[sinks.Kinesis("priced", partition_key="id")], key="id")
    async def price(order: dict[str, Any]) -> dict[str, Any]:
        if order["id"] == "never":
            raise Reject("never")
        tries[order["id"]] = tries.get(order["id"], 0) + 1
        if order["id"] == "flaky" and tries["flaky"] < 3:
            raise TimeoutError("the price list did not answer")
        with trace.get_tracer("shop").start_as_current_span("look up"):
            return order

    @made.handler(sources.Kinesis("priced"), sinks=[sinks.SQS("parcels.fifo")])
    async def pack(order: dict[str, Any]) -> dict[str, Any]:
        return order

    @made.handler(sources.SQS("parcels.fifo"), sinks=[sinks.Memory(name="sent")])
    async def send(order: dict[str, Any]) -> dict[str, Any]:
        return order

    return made


def flow(*orders: tuple[str, dict[str, Any]]) -> None:
    """Send orders with these contexts through the shop, in virtual time."""
    with Emulator() as aws:
        aws.add(shop())
        queues = aws.client("sqs")
        url = queues.get_queue_url(QueueName="orders")["QueueUrl"]
        for identity, context in orders:
            queues.send_message(QueueUrl=url, MessageBody=json.dumps({"id": identity}), **context)
        aws.run()


def story(tracing: Traced, trace_id: str) -> list[str]:
    """The spans of one trace, each behind its parent, and those of one parent by name: some have the time of the machine."""
    spans = [span for span in tracing.spans if span.context.trace_id == int(trace_id, 16)]
    known = {span.context.span_id for span in spans}

    def below(parent: int | None, depth: int) -> list[str]:
        found = [span for span in spans if (span.parent.span_id if span.parent else None) == parent]
        ordered = sorted(found, key=lambda span: span.name)
        return [line for span in ordered for line in (f"{depth} {span.name}", *below(span.context.span_id, depth + 1))]

    (outside,) = {span.parent.span_id for span in spans if span.parent} - known
    return below(outside, 0)


@pytest.mark.parametrize("context", CONTEXTS)
def test_three_handlers_make_one_trace(context: dict[str, Any]) -> None:
    with traced() as tracing:
        flow(("a", context))

    assert story(tracing, TRACE_ID) == [
        "0 process orders",
        "1 look up",
        "1 process priced",
        "2 process parcels.fifo",
        "3 write sent",
        "2 send parcels.fifo",
        "1 send priced",
    ]
    batches = [span for span in tracing.spans if "faas.trigger" in attributes(span)]
    assert [span.name for span in batches] == ["process orders", "process priced", "process parcels.fifo"]
    of_record = {span.name: span for span in tracing.runs()}
    assert linked(batches[0]) == {(int(TRACE_ID, 16), int(SPAN_ID, 16))}
    for batch, before in zip(batches[1:], ["process orders", "process priced"], strict=True):
        assert {span_id for _, span_id in linked(batch)} == {of_record[before].context.span_id}


def test_what_nobody_traced_before_becomes_a_trace_with_its_first_batch() -> None:
    with traced() as tracing:
        flow(("a", {}))
    (first, *_) = tracing.runs()
    traces = {span.context.trace_id for span in tracing.runs()}
    assert traces == {first.context.trace_id}


def test_a_failing_record_and_a_duplicate_leave_their_stories() -> None:
    with traced() as tracing:
        flow(("never", CONTEXTS[0]))
        flow(("a", CONTEXTS[0]), ("a", CONTEXTS[0]))

    outcomes = [attributes(run)["pipeline.outcome"] for run in tracing.runs() if run.name == "process orders"]
    assert sorted(outcomes) == ["duplicate", "rejected", "succeeded"]
    (rejected,) = [run for run in tracing.runs() if attributes(run)["pipeline.outcome"] == "rejected"]
    (letter,) = tracing.named("send orders-dlq")
    assert letter.parent is not None
    assert (rejected.context.span_id, rejected.context.trace_id) == (letter.parent.span_id, int(TRACE_ID, 16))


def test_a_record_that_is_tried_again_is_one_trace_with_a_span_for_each_run() -> None:
    with traced() as tracing:
        flow(("flaky", CONTEXTS[0]))
    runs = [span for span in tracing.runs() if span.name == "process orders"]
    assert [attributes(run)["pipeline.attempt"] for run in runs] == [1, 2, 3]
    assert [attributes(run)["pipeline.outcome"] for run in runs] == ["failed", "failed", "succeeded"]
    assert {run.context.trace_id for run in runs} == {int(TRACE_ID, 16)}


def test_a_collector_receives_the_same_trace() -> None:
    with receiving() as receiver:
        provider = TracerProvider(resource=Resource({"service.name": "shop"}), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{receiver.url}/v1/traces")))
        with installed(provider):
            flow(("a", CONTEXTS[0]))
        provider.shutdown()

    joined = [span for span in receiver.spans if span.trace_id.hex() == TRACE_ID]
    assert [span.name for span in joined if span.kind == 5] == [
        "process orders",
        "process priced",
        "process parcels.fifo",
    ]
    known = {span.span_id: span.name for span in joined}
    assert [known.get(span.parent_span_id) for span in joined if span.kind == 5] == [
        None,
        "process orders",
        "process priced",
    ]
    (first,) = [span for span in joined if span.name == "process orders"]
    assert first.parent_span_id.hex() == SPAN_ID
