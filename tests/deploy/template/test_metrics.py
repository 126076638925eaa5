"""What alarms and graphs watch is what the code emits, and what AWS documents."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

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

@shop.handler(sources.SQS("other.fifo"), key="id", retry=Backoff(attempts=9), rejects=sinks.Memory())
def price(order: dict) -> None:
    if order["id"] == "rejected":
        raise Reject("no")
    if order["id"] == "failing":
        raise RuntimeError("once more")
"""
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
    fifo = {"MessageGroupId": "g"}
    names = ["done", "done", "rejected", "failing", "behind"]
    records = [message(f"m{number}", {"id": name}, attributes=fifo) for number, name in enumerate(names)]
    sent = emitted(capsys, [(module.exhausted, [message("m", {"id": "a"})]), (module.price, records)])
    own = [
        (namespace, name, frozenset(dimensions.items()))
        for namespace, name, dimensions in watched(found)
        if not namespace.startswith("AWS/")
    ]

    assert {name for _, name, _ in own} == {
        "RecordsSucceeded", "RecordsDuplicate", "RecordsRejected", "RecordsExhausted", "RecordsFailed", "RecordsHandedBack", "BatchSize",
    }  # fmt: skip
    by_handler = {
        handler: {(space, name) for space, name, on in sent if ("handler", handler) in on}
        for handler in ("price", "exhausted")
    }
    everything = by_handler["price"] | by_handler["exhausted"]
    shapes = {(space, frozenset(name for name, _ in on)) for space, _, on in sent}
    assert shapes == {("shop", frozenset({"service", "handler", "function_name"}))}
    for namespace, name, dimensions in own:
        assert (namespace, name) in everything, f"{name} is never emitted"
        given = dict(dimensions)
        function = f"Shop{given['handler'].capitalize()}Function"
        assert function in given.pop("function_name"), "another stack's function has the same pipeline and handler"
        assert given in ({"service": "shop", "handler": "price"}, {"service": "shop", "handler": "exhausted"})
    handlers = {dict(dimensions)["handler"] for _, _, dimensions in own}
    assert handlers == {"price", "exhausted"}


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
