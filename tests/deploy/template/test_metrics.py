"""What alarms and graphs watch is what the code emits, and what AWS documents."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.batch import BatchResult
from pipeline.engine.stage import Stage
from pipeline.outcome import Duplicate, Failed, HandBack, Rejected, Succeeded, Unprocessed
from pipeline.record import RawRecord
from pipeline.telemetry.events import BatchFinished, RecordPostponed, SinkWritten, StoreCalled
from pipeline.telemetry.metrics import MetricsWriter, metrics_for
from tests.deploy.template.conftest import Declare
from tests.deploy.template.reading import filled
from tests.deploy.template.rules import Generated, generate
from tests.flow.events import Invocation, event, message, metric_lines

#: AWS's own metrics with their dimension (Lambda's and SQS's guides, "metrics", 2026; the mapping's need EventCount).
AWS = {
    "AWS/Lambda": {
        "FunctionName": {"Invocations", "Errors", "Throttles", "Duration", "IteratorAge", "RecursiveInvocationsDropped"},
        "EventSourceMappingUUID": {
            "FilteredOutEventCount", "InvokedEventCount", "OnFailureDestinationDeliveredEventCount", "DroppedEventCount",
            "PolledEventCount",
        },
    },
    "AWS/Kinesis": {"StreamName": {"IncomingRecords"}},
    "AWS/SQS": {"QueueName": {"ApproximateNumberOfMessagesVisible", "ApproximateAgeOfOldestMessage"}},
}  # fmt: skip
SHOP = """
shop = Pipeline("shop", idempotency=Claim(store=stores.Memory()))

@shop.handler(sources.SQS("orders"), key="id", retry=Backoff(attempts=1), rejects=sinks.Memory())
def exhausted(order: dict) -> None:
    raise RuntimeError("poison")

@shop.handler(
    sources.SQS("other.fifo"), key="id", retry=Backoff(attempts=9), rejects=sinks.Memory(), sinks=[sinks.Memory()]
)
def price(order: dict) -> dict:
    if order["id"] == "rejected":
        raise Reject("no")
    if order["id"] == "failing":
        raise RuntimeError("once more")
    return order
"""
#: What only trouble brings about: the writer emits it, but not in the run of these tests.
TROUBLE = {"SinkFailures_memory", "StoreFailures", "DeadlineHandBacks", "RecordsPostponed"}
#: What nobody has to look at every day. Lambda's own Duration is drawn, and is nearly the batch's.
NOT_DRAWN = {"BatchDuration", "BodyBytes"}
Metric = tuple[str, str, frozenset[tuple[str, str]]]


def watched(found: Generated) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Each metric of each alarm and graph: namespace, name, dimensions (references as names)."""
    for alarm in found.of_type("AWS::CloudWatch::Alarm").values():
        parts = [one["MetricStat"]["Metric"] for one in alarm.get("Metrics", []) if "MetricStat" in one] or [alarm]
        for part in parts:
            dimensions = {
                one["Name"]: json.dumps(one["Value"]) if isinstance(one["Value"], dict) else one["Value"]
                for one in part["Dimensions"]
            }
            yield part["Namespace"], part["MetricName"], dimensions
    (dashboard,) = found.of_type("AWS::CloudWatch::Dashboard").values()
    for widget in json.loads(filled(dashboard["DashboardBody"]["Fn::Sub"]))["widgets"]:
        for namespace, name, *rest in widget["properties"].get("metrics", []):
            assert isinstance(rest.pop(), dict)
            yield namespace, name, dict(zip(rest[::2], rest[1::2], strict=True))


def emitted(capsys: pytest.CaptureFixture[str], run: list[Any]) -> set[Metric]:
    """What CloudWatch makes of the lines that the invocations print."""
    for handler, records in run:
        handler(event(*records), Invocation())
        handler.close()
    found: set[Metric] = set()
    for line in metric_lines(capsys.readouterr().out):
        for directive in line["_aws"]["CloudWatchMetrics"]:
            for names in directive["Dimensions"]:
                dimensions = frozenset((name, line[name]) for name in names)
                found |= {(directive["Namespace"], metric["Name"], dimensions) for metric in directive["Metrics"]}
            assert all(metric["Name"] in line for metric in directive["Metrics"])
    return found


def test_every_metric_that_is_watched_is_one_that_the_code_emits(
    declare: Declare, capsys: pytest.CaptureFixture[str], aws: str
) -> None:
    found = generate(*declare(SHOP))
    module = sys.modules["shopfront"]
    sent_at = {"SentTimestamp": "1"}
    fifo = {"MessageGroupId": "g", **sent_at}
    names = ["done", "done", "rejected", "failing", "behind"]
    records = [message(f"m{number}", {"id": name}, attributes=fifo) for number, name in enumerate(names)]
    sent = emitted(
        capsys, [(module.exhausted, [message("m", {"id": "a"}, attributes=sent_at)]), (module.price, records)]
    )
    own = [
        (namespace, name, frozenset(dimensions.items()))
        for namespace, name, dimensions in watched(found)
        if not namespace.startswith("AWS/")
    ]

    by_handler = {
        handler: {(space, name) for space, name, on in sent if ("handler", handler) in on}
        for handler in ("price", "exhausted")
    }
    everything = by_handler["price"] | by_handler["exhausted"]
    shapes = {(space, frozenset(name for name, _ in on)) for space, _, on in sent}
    assert shapes == {("shop", frozenset({"service", "handler", "function_name"}))}
    for namespace, name, dimensions in own:
        assert (namespace, name) in everything or name in TROUBLE, f"{name} is never emitted"
        given = dict(dimensions)
        function = f"Shop{given['handler'].capitalize()}Function"
        assert function in given.pop("function_name"), "another stack's function has the same pipeline and handler"
        assert given in ({"service": "shop", "handler": "price"}, {"service": "shop", "handler": "exhausted"})
    handlers = {dict(dimensions)["handler"] for _, _, dimensions in own}
    assert handlers == {"price", "exhausted"}


def possible(stage: Stage, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """The names of all that the writer of a handler emits, when a batch has everything that there is."""
    names: dict[str, Any] = {"pipeline": stage.pipeline, "handler": stage.name}
    outcomes = [
        Succeeded(), Duplicate(), Rejected(ValueError()), Rejected(ValueError(), exhausted=True), Failed(ValueError()),
        Unprocessed(HandBack.DEADLINE),
    ]  # fmt: skip
    record = RawRecord(id="m", source="orders", body="{}", sent_at=0.0)
    writer = MetricsWriter(metrics_for(stage.pipeline, stage.name), [sink.name for sink in stage.sinks])
    capsys.readouterr()
    for sink in stage.sinks:
        writer(SinkWritten(**names, sink=sink.name, accepted=0, failed=1, seconds=1.0, error=None))
    if stage.store is not None:
        writer(StoreCalled(**names, operation="claim", requests=1, failed=1, seconds=1.0, error=None))
    if stage.source.is_stream:
        outcome = Failed(ValueError())
        writer(RecordPostponed(**names, record=record, key_hash=None, attempt=1, outcome=outcome, delay=1.0))
    result = BatchResult([record] * len(outcomes), outcomes)
    figures: dict[str, Any] = {"oldest": 1.0, "seconds": 1.0, "slowest": 1.0, "ages": (1.0,), "handled": (1.0,)}
    writer(BatchFinished(**names, source="orders", result=result, concurrency=1, batch_size=10, **figures))
    (line,) = metric_lines(capsys.readouterr().out)
    return {metric["Name"] for metric in line["_aws"]["CloudWatchMetrics"][0]["Metrics"]}


@pytest.mark.parametrize(
    ("pipeline", "handler"),
    [
        ("'shop'", "sources.Kinesis('clicks'), sinks=[sinks.SQS('out.fifo'), sinks.S3('archive')]"),
        ("'shop', idempotency=None", "sources.SQS('orders')"),
    ],
)
def test_what_is_watched_is_what_the_code_can_emit_and_the_other_way_round(
    declare: Declare, capsys: pytest.CaptureFixture[str], pipeline: str, handler: str
) -> None:
    source = f"shop = Pipeline({pipeline})\n@shop.handler({handler})\nasync def price(order: dict) -> dict: ...\n"
    found = generate(*declare(source))
    own = {name for namespace, name, _ in watched(found) if namespace == "shop"}

    assert own == possible(sys.modules["shopfront"].price.stage, capsys) - NOT_DRAWN


@pytest.mark.parametrize("source", ['sources.SQS("a", filter={"b": [1]})', 'sources.Kinesis("a", filter={"b": [1]})'])
def test_awss_own_metrics_exist_and_have_these_dimensions(declare: Declare, source: str) -> None:
    found = generate(
        *declare(f"shop = Pipeline('shop')\n@shop.handler({source})\nasync def price(order: dict) -> dict: ...\n")
    )
    theirs = [one for one in watched(found) if one[0].startswith("AWS/")]

    assert theirs
    for namespace, name, dimensions in theirs:
        (dimension,) = dimensions
        assert name in AWS[namespace][dimension], f"{namespace} has no {name} by {dimension}"


def test_every_handler_is_watched_for_what_is_no_error_of_its_function(declare: Declare) -> None:
    source = "".join(
        f"@shop.handler({source})\nasync def {name}(order: dict) -> dict: ...\n"
        for name, source in (("one", "sources.SQS('a')"), ("two", "sources.Kinesis('b')"))
    )
    found = generate(*declare(f"shop = Pipeline('shop')\n{source}"))
    alarms = set(found.of_type("AWS::CloudWatch::Alarm"))

    for name in ("ShopOneFunction", "ShopTwoFunction"):
        assert {
            f"{name}{what}"
            for what in ("Errors", "Throttles", "Duration", "Exhausted", "Failed", "Rejected", "HandedBack")
        } <= alarms
    assert {"ADlqQueueNotEmpty", "AQueueAge", "BStreamDlqQueueNotEmpty"} <= alarms
    assert {"ShopTwoFunctionIteratorAge", "ShopTwoFunctionGaveUp", "ShopOneFunctionRecursion"} <= alarms
    assert "ShopTwoFunctionRecursion" not in alarms
    assert sum("alarms on" in note for note in found.template.notes) == 1
