"""Metrics by OpenTelemetry of functions that are called as Lambda calls them: read from memory, scraped, and received."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)

from pipeline import Claim, Handler, Pipeline, Reject, sinks, sources, stores
from pipeline.telemetry.meters import KINDS
from tests.flow.events import Invocation, event, failed, message, metric_lines
from tests.support.metering import metered
from tests.support.otlp import receiving

Keep = Callable[[Handler[..., Any]], Handler[..., Any]]
ROOT = Path(__file__).parent.parent.parent


class Teapot(Exception):
    """What the handler raises."""


def shop(keep: Keep) -> Handler[..., Any]:
    made = Pipeline("shop", idempotency=Claim(store=stores.Memory()), log_level="CRITICAL")

    @made.handler(
        sources.SQS("orders", batch_size=20, batching_window=1), sinks=[sinks.Memory(name="ledger")], rejects=sinks.Memory(name="never"),
        key="id",
    )  # fmt: skip
    async def price(order: dict[str, Any]) -> dict[str, Any]:
        if order["does"] == "fails":
            raise Teapot(order["id"])
        if order["does"] == "is rejected":
            raise Reject("never")
        return order

    return keep(price)


def deliver(handler: Handler[..., Any], works: list[str], first: int = 0) -> list[str]:
    """The message ids that come back of a batch."""
    messages = [
        message(f"m{first + at}", {"id": str(first + at) if does != "repeats" else "0", "does": does})
        for at, does in enumerate(works)
    ]
    return failed(handler(event(*messages), Invocation()))


@pytest.mark.parametrize("seed", range(5))
def test_numbers_are_the_batches_outcomes(
    seed: int, closing: Keep, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if seed % 2:
        monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "true")
    chance = random.Random(seed)
    handler, expected, sizes = shop(closing), Counter[str](), list[int]()
    with metered() as found:
        deliver(handler, ["works"])
        for number in range(4):
            works = chance.choices(["works", "fails", "is rejected", "repeats"], k=chance.randint(1, 20))
            back = deliver(handler, works, 100 * (number + 1))
            expected.update(works)
            sizes.append(len(works))
            assert len(back) == works.count("fails")
        assert found.of("pipeline.records", pipeline__name="shop", pipeline__handler="price") == {
            name: count
            for name, count in {
                "succeeded": expected["works"] + 1,
                "duplicate": expected["repeats"],
                "Teapot failed": expected["fails"],
                "Reject rejected": expected["is rejected"],
            }.items()
            if count
        }
        assert found.total("messaging.client.consumed.messages") == sum(sizes) + 1
        assert found.total("messaging.process.duration") == sum(sizes) + 1 - expected["repeats"]
        assert found.total("pipeline.batch.size") == len(sizes) + 1
        shares = [point for (name, _), point in found.points.items() if name == "pipeline.batch.fill"]
        assert sum(point.sum for point in shares) == pytest.approx((sum(sizes) + 1) / 20)
        assert found.total("pipeline.store.duration") > 0
        assert found.of("pipeline.sink.duration", pipeline__name="shop", pipeline__handler="price").keys() == {"ledger"}
    # Both are written, unless somebody switches Powertools' off.
    assert len(metric_lines(capfd.readouterr().out)) == (0 if seed % 2 else len(sizes) + 1)


def test_a_real_receiver_of_otlp_gets_them(closing: Keep) -> None:
    with receiving() as receiver:
        reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{receiver.url}/v1/metrics", timeout=5))
        with metered(reader):
            handler = shop(closing)
            deliver(handler, ["works", "works", "fails"])
            reader.force_flush()
        requests = receiver.metrics
    scopes = [
        scope for request in requests for resource in request.resource_metrics for scope in resource.scope_metrics
    ]
    assert {scope.scope.name for scope in scopes} == {"pipeline"}
    received = {metric.name: metric for scope in scopes for metric in scope.metrics}
    known = {kind.name: kind for kind in KINDS}
    assert received.keys() <= known.keys()
    assert {name: (metric.unit, metric.description) for name, metric in received.items()} == {
        name: (known[name].unit, known[name].says) for name in received
    }
    counts = {
        tuple(sorted((one.key, one.value.string_value) for one in point.attributes)): point.as_int
        for point in received["pipeline.records"].sum.data_points
    }
    common = ("pipeline.handler", "price"), ("pipeline.name", "shop")
    assert counts == {
        (*common, ("pipeline.outcome", "succeeded")): 2,
        (("error.type", "Teapot"), *common, ("pipeline.outcome", "failed")): 1,
    }
    process = received["messaging.process.duration"].histogram.data_points
    assert sum(point.count for point in process) == 3


class Hanging(MetricExporter):
    """An exporter of which no call returns until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked, self.may_go = threading.Event(), threading.Event()

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        self.is_asked.set()
        self.may_go.wait(30)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        self.may_go.set()


def test_an_exporter_that_hangs_holds_no_batch_up_and_nothing_gathers(closing: Keep) -> None:
    exporter = Hanging()
    handler = shop(closing)
    with metered(PeriodicExportingMetricReader(exporter, export_interval_millis=1)) as found:
        try:
            deliver(handler, ["works"])
            assert exporter.is_asked.wait(10)
            for number in range(1, 30):
                assert deliver(handler, ["works", "fails"], 10 * number) == [f"m{10 * number + 1}"]
            assert not exporter.may_go.is_set()
            assert found.total("pipeline.records") == 59
            # What waits to be sent are sums: one of each series, however many batches there were.
            assert len(found.points) < 40
        finally:
            exporter.may_go.set()


SCRAPED = """
    import json, urllib.request
    from opentelemetry import metrics
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from opentelemetry.sdk.metrics import MeterProvider
    from prometheus_client import start_http_server
    from prometheus_client.parser import text_string_to_metric_families
    from tests.flow.test_meters import deliver, shop

    server, thread = start_http_server(0, addr="127.0.0.1")
    metrics.set_meter_provider(MeterProvider(metric_readers=[PrometheusMetricReader()]))
    handler = shop(lambda made: made)
    deliver(handler, ["works", "works", "fails", "is rejected"])
    url = f"http://127.0.0.1:{server.server_address[1]}/metrics"
    text = urllib.request.urlopen(url, timeout=10).read().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    found = {
        name: [family.type, [[sample.name, sample.labels, sample.value] for sample in family.samples]]
        for name, family in families.items()
        if name.startswith(("pipeline", "messaging"))
    }
    handler.close()
    server.shutdown()
    print("\\n" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def scraped() -> dict[str, Any]:
    """What a scrape over HTTP finds: type and samples of each family."""

    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRAPED)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def test_prometheus_scrapes_the_same_from_a_process(scraped: dict[str, Any]) -> None:
    kind, samples = scraped["pipeline_records"]
    assert kind == "counter"
    counts = {
        (labels["pipeline_outcome"], labels.get("error_type", "")): value
        for name, labels, value in samples
        if name == "pipeline_records_total"
    }
    assert counts == {("succeeded", ""): 2, ("failed", "Teapot"): 1, ("rejected", "Reject"): 1}
    kind, samples = scraped["messaging_process_duration_seconds"]
    assert kind == "histogram"
    assert sum(value for name, _, value in samples if name.endswith("_count")) == 4
    assert all(
        labels["pipeline_name"] == "shop" and labels["messaging_system"] == "aws_sqs" for _, labels, _ in samples
    )


def test_nothing_is_imported_where_nobody_measures() -> None:
    script = """
        import sys
        from tests.flow.events import Invocation, event, message
        from pipeline import Pipeline, sources
        made = Pipeline("shop", idempotency=None, log_level="CRITICAL")
        @made.handler(sources.SQS("orders"))
        async def price(order: dict[str, str]) -> None: ...
        assert price(event(message("m", {})), Invocation()) == {"batchItemFailures": []}
        price.close()
        assert not [name for name in sys.modules if name.startswith(("opentelemetry", "prometheus_client"))]
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
