"""Spans in Lambda: alone, beside OpenTelemetry's own instrumentation, with exporters that hang or are gone."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import metrics, propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.aws_lambda import AwsLambdaInstrumentor
from opentelemetry.instrumentation.urllib3 import URLLib3Instrumentor
from opentelemetry.propagators.aws import AwsXRayPropagator
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult

from pipeline import Handler, Pipeline, sources
from pipeline.telemetry import invocation, otel, spans
from tests.flow import shop as module
from tests.flow.events import Invocation, event, failed, log_lines, make, message, orders, stream_record
from tests.support.otlp import receiving
from tests.support.tracing import Traced, attributes, installed, linked, place, traced

ROOT = Path(__file__).parent.parent.parent
TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PRODUCER = {"traceparent": {"stringValue": f"00-{TRACE_ID}-{SPAN_ID}-01", "dataType": "String"}}
Keep = Callable[[Handler[..., Any]], Handler[..., Any]]


class Called(Invocation):
    """The context of an invocation, with what wrappers ask of it."""

    function_name = "shop-price"
    aws_request_id = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"
    invoked_function_arn = "arn:aws:lambda:eu-west-1:123456789012:function:shop-price:live"


@pytest.fixture(autouse=True)
def in_lambda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "shop-price")
    monkeypatch.setenv("_X_AMZN_TRACE_ID", f"Root=1-{TRACE_ID[:8]}-{TRACE_ID[8:]};Parent=53995c3f42cd8ad8;Sampled=1")
    monkeypatch.setattr(invocation, "_FLUSHES", invocation._Flushes())
    otel._complain.cache_clear()
    monkeypatch.setattr(spans, "_LATE", spans._Late())


@pytest.fixture
def tracing() -> Iterator[Traced]:
    with traced() as found:
        yield found


def shop(source: Any = None) -> Handler[..., Any]:
    made = Pipeline("shop", idempotency=None)

    @made.handler(source or sources.SQS("orders"))
    async def price(order: dict[str, Any]) -> None:
        if order.get("order_id") == "fail":
            raise ValueError("no such sku")

    return price


def test_an_invocation_that_nobody_wraps_has_its_server_span(tracing: Traced, closing: Keep) -> None:
    handler = closing(shop())
    handler(orders("a"), Called())
    handler(orders("b"), Called())

    first, second = tracing.named("shop-price")
    assert first.kind is trace.SpanKind.SERVER
    assert attributes(first) == {
        "faas.trigger": "pubsub",
        "faas.coldstart": True,
        "faas.invocation_id": Called.aws_request_id,
        "cloud.account.id": "123456789012",
        "cloud.resource_id": "arn:aws:lambda:eu-west-1:123456789012:function:shop-price",
        "aws.lambda.invoked_arn": Called.invoked_function_arn,
    }
    assert attributes(second)["faas.coldstart"] is False
    batches = [span for span in tracing.spans if "messaging.batch.message_count" in attributes(span)]
    assert [batch.parent.span_id for batch in batches if batch.parent] == [
        first.context.span_id,
        second.context.span_id,
    ]


def test_where_x_rays_header_counts_it_is_the_parent(tracing: Traced, closing: Keep) -> None:
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(AwsXRayPropagator())
    try:
        closing(shop())(orders("a"), Called())
    finally:
        propagate.set_global_textmap(before)
    (server,) = tracing.named("shop-price")
    assert server.parent is not None
    assert f"{server.parent.trace_id:032x}" == TRACE_ID


def test_outside_lambda_there_is_no_server_span(
    tracing: Traced, closing: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_LAMBDA_FUNCTION_NAME")
    closing(shop())(orders("a"), Invocation())
    assert [span.kind.name for span in tracing.spans] == ["CONSUMER", "CONSUMER"]


@pytest.fixture
def wrapped(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The handler of `tests.flow.shop`, wrapped by OpenTelemetry's instrumentation of Lambda, as a layer does it."""
    monkeypatch.setenv("_HANDLER", "tests.flow.shop.traced_price")
    monkeypatch.setattr(module, "traced_price", shop(), raising=False)
    instrumentor = AwsLambdaInstrumentor()
    instrumentor.instrument(skip_dep_check=True)
    yield
    instrumentor.uninstrument()
    module.traced_price.close()  # type: ignore[attr-defined]


@pytest.mark.usefixtures("wrapped")
def test_beside_the_instrumentation_of_lambda_no_span_is_there_twice(
    tracing: Traced, caplog: pytest.LogCaptureFixture
) -> None:
    handler: Any = module.traced_price  # type: ignore[attr-defined]
    queue = "arn:aws:sqs:eu-west-1:123456789012:orders"
    sent = message("m0", {"order_id": "a"}, messageAttributes=PRODUCER, eventSourceARN=queue)
    plain = message("m1", {"order_id": "fail"}, messageAttributes={}, eventSourceARN=queue)
    assert failed(handler(event(sent, plain), Called())) == ["m1"]

    (server,) = [span for span in tracing.spans if span.kind is trace.SpanKind.SERVER]
    (batch,) = [span for span in tracing.spans if "messaging.batch.message_count" in attributes(span)]
    assert (server.name, batch.name) == ("shop-price", "process orders")
    assert batch.parent is not None
    assert batch.parent.span_id == server.context.span_id
    assert batch.instrumentation_scope is not None
    assert batch.instrumentation_scope.name == "opentelemetry.instrumentation.aws_lambda"
    assert (
        attributes(batch).items()
        >= {
            "messaging.operation.name": "process",
            "pipeline.handler": "price",
            "pipeline.records.failed": 1,
        }.items()
    )
    assert linked(batch) == {(int(TRACE_ID, 16), int(SPAN_ID, 16))}
    assert [link.context.span_id for link in batch.links] == [int(SPAN_ID, 16)], "each link once"
    assert place(batch) in linked(tracing.run("m0"))
    assert len(tracing.spans) == 4
    assert not [line for line in caplog.records if "ended span" in line.getMessage()], "it is ended by whoever began it"


@pytest.mark.usefixtures("wrapped")
def test_under_the_instrumentation_a_stream_gets_the_span_that_it_does_not_make(
    tracing: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler: Any = module.traced_price  # type: ignore[attr-defined]
    handler.__wrapped__._runtime = None
    monkeypatch.setattr(handler.__wrapped__, "stage", shop(sources.Kinesis("orders")).stage)
    handler(event(stream_record("49545115243490985018280067714973144582180062593244200961", {})), Called())
    batch = tracing.batch()
    (server,) = [span for span in tracing.spans if span.kind is trace.SpanKind.SERVER]
    assert batch.parent is not None
    assert batch.parent.span_id == server.context.span_id
    assert attributes(batch)["messaging.system"] == "aws.kinesis"


def test_our_own_calls_have_no_second_span_of_an_http_client(
    tracing: Traced, aws: str, closing: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("_X_AMZN_TRACE_ID")  # the server has no X-Ray
    handler = closing(module.price)
    make(handler)
    URLLib3Instrumentor().instrument(skip_dep_check=True)
    try:
        assert failed(handler(orders("spans-1"), Called())) == []
    finally:
        URLLib3Instrumentor().uninstrument()
    names = {span.name for span in tracing.spans}
    assert names == {
        *("process orders", "write ledger", "send priced"),
        *("claim shop-idempotency", "settle shop-idempotency"),
    }
    (claim,) = tracing.named("claim shop-idempotency")
    assert attributes(claim) == {
        "db.system.name": "aws.dynamodb",
        "db.collection.name": "shop-idempotency",
        "pipeline.store.operation": "claim",
    }


class Hangs(SpanExporter):
    """An exporter that does not come back until it may."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.exported = 0

    def export(self, spans: Any) -> SpanExportResult:
        self.exported += len(spans)
        self.may_end.wait(30)
        return SpanExportResult.SUCCESS


def test_an_exporter_that_hangs_keeps_no_answer_back_and_no_memory(
    closing: Keep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(invocation, "FLUSH", 0.2)
    exporter = Hangs()
    provider = TracerProvider(shutdown_on_exit=False)
    processor = BatchSpanProcessor(exporter, max_queue_size=100, max_export_batch_size=10)
    provider.add_span_processor(processor)
    handler = closing(shop())
    with installed(provider):
        answers = [failed(handler(orders(*map(str, range(50))), Called())) for _ in range(10)]
        waiting = [thread for thread in threading.enumerate() if thread.name == "pipeline-flush"]
        assert len(waiting) <= 1
        assert len(processor._batch_processor._queue) <= 100
        exporter.may_end.set()
        provider.shutdown()
    assert answers == [[]] * 10
    assert len(log_lines(capsys.readouterr().out, "batch.finished")) == 10


def test_an_exporter_without_a_receiver_changes_nothing(
    closing: Keep, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(invocation, "FLUSH", 0.2)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter("http://127.0.0.1:9/v1/traces", timeout=0.1)))
    with installed(provider):
        answer = closing(shop())(orders("a", "fail"), Called())
    provider.shutdown()
    assert failed(answer) == ["m1"]


def test_what_an_invocation_traced_is_sent_before_its_answer(closing: Keep) -> None:
    with receiving() as receiver:
        provider = TracerProvider(shutdown_on_exit=False)
        processor = BatchSpanProcessor(OTLPSpanExporter(f"{receiver.url}/v1/traces"), schedule_delay_millis=60_000)
        provider.add_span_processor(processor)
        with installed(provider):
            closing(shop())(orders("a"), Called())
            received = sorted(span.name for span in receiver.spans)
        provider.shutdown()
    assert received == ["process orders", "process orders", "shop-price"]


def test_a_receiver_that_hangs_keeps_no_answer_back(closing: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invocation, "FLUSH", 0.2)
    with receiving() as receiver:
        receiver.may_answer.clear()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{receiver.url}/v1/traces", timeout=5)))
        with installed(provider):
            assert failed(closing(shop())(orders("a"), Called())) == []
        assert receiver.is_asked.wait(10), "nothing was sent"
        assert receiver.spans == []
        receiver.may_answer.set()
        provider.shutdown()


def test_a_processor_that_sends_at_once_and_hangs_keeps_no_answer_back(closing: Keep) -> None:
    exporter = Hangs()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    called = Called(1.5)
    with installed(provider):
        answer = closing(shop())(orders("a", "b"), called)
        remaining = called.get_remaining_time_in_millis()
        exporter.may_end.set()
    assert set(failed(answer)) <= {"m0", "m1"}
    assert remaining > 0, "the answer came after the invocation's time"


def test_metrics_are_sent_with_the_spans_and_without_any(closing: Keep) -> None:
    flushed: list[str] = []

    class Meters:
        def force_flush(self) -> None:
            flushed.append("metrics")

        def get_meter(self, *args: Any, **kwargs: Any) -> Any:
            return metrics.NoOpMeter("none")

    before = metrics._internal._METER_PROVIDER
    metrics._internal._METER_PROVIDER = Meters()  # type: ignore[assignment]
    try:
        closing(shop())(orders("a"), Called())
    finally:
        metrics._internal._METER_PROVIDER = before
    assert "metrics" in flushed


def test_a_wrapper_of_ones_own_leaves_the_sending_to_the_toolkit(
    closing: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.instrumentation.aws_lambda")
    with receiving() as receiver:
        provider = TracerProvider(shutdown_on_exit=False)
        processor = BatchSpanProcessor(OTLPSpanExporter(f"{receiver.url}/v1/traces"), schedule_delay_millis=60_000)
        provider.add_span_processor(processor)
        handler = closing(shop())
        with installed(provider), trace.get_tracer("own").start_as_current_span("mine"):
            handler(orders("a"), Called())
            received = sorted(span.name for span in receiver.spans)
        provider.shutdown()
    assert received == ["process orders", "process orders"]


@pytest.mark.parametrize("variable", ["OTEL_PYTHON_TRACER_PROVIDER", "OTEL_PYTHON_METER_PROVIDER"])
def test_a_provider_that_is_not_installed_changes_nothing(variable: str) -> None:
    out = script(
        f"""
    import os
    os.environ["AWS_LAMBDA_FUNCTION_NAME"] = "f"
    os.environ["{variable}"] = "nosuch"
    import opentelemetry.trace, opentelemetry.metrics
    """
        + SHOP
        + """
    print(price(orders("a"), Invocation()))
    """
    )
    assert out.splitlines()[-1] == "{'batchItemFailures': []}"


def test_an_exporter_that_raises_changes_nothing(closing: Keep, caplog: pytest.LogCaptureFixture) -> None:
    class Raises(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            raise RuntimeError("no")

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(Raises()))
    with installed(provider):
        assert failed(closing(shop())(orders("a"), Called())) == []
    provider.shutdown()


def script(text: str) -> str:
    """What a process of its own prints that runs this."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return done.stdout


SHOP = """
    import sys
    from pipeline import Pipeline, Context, sources
    from tests.flow.events import Invocation, orders
    shop = Pipeline("shop", idempotency=None)

    @shop.handler(sources.SQS("orders"))
    async def price(order: dict, context: Context) -> None:
        context.span.set_attribute("sku", 1)
        context.span.add_event("priced", {"cents": 100})
        print(context.span.is_recording())
"""


def test_without_opentelemetry_nothing_of_it_is_imported_and_handlers_work_the_same() -> None:
    out = script(
        SHOP
        + """
    price(orders("a"), Invocation())
    print([name for name in sys.modules if name.startswith("opentelemetry")])
    """
    )
    assert out.splitlines()[0] == "False"
    assert out.splitlines()[-1] == "[]"


def test_the_api_alone_makes_no_spans() -> None:
    out = script(
        "import opentelemetry.trace"
        + textwrap.dedent(SHOP)
        + textwrap.dedent("""
    price(orders("a"), Invocation())
    print([name for name in sys.modules if name.startswith("opentelemetry.sdk")])
    """)
    )
    assert out.splitlines()[0] == "False"
    assert out.splitlines()[-1] == "[]"
