"""What a user of the emulator may get wrong, or rely on without a second thought."""

from __future__ import annotations

import os
import time
from typing import Any

import boto3
import pytest

from pipeline import ConfigurationError, Pipeline, sources
from pipeline.testing import Emulator

DAY = 86_400.0


def passes(event: Any, context: Any) -> None: ...


def fails(event: Any, context: Any) -> Any:
    """Fails its first record."""
    record = event["Records"][0]
    member = record.get("kinesis") or record.get("dynamodb")
    return {
        "batchItemFailures": [{"itemIdentifier": member["sequenceNumber" if "data" in member else "SequenceNumber"]}]
    }


@pytest.mark.parametrize(("kind", "hours"), [("stream", 24), ("stream", 48), ("table", 24)])
def test_a_record_that_always_fails_is_given_up_when_its_stream_forgets_it(kind: str, hours: int) -> None:
    with Emulator() as aws:
        source: Any = aws.stream("orders") if kind == "stream" else aws.table("orders", stream="NEW_IMAGE")
        if hours > 24:
            aws.client("kinesis").increase_stream_retention_period(StreamName="orders", RetentionPeriodHours=hours)
        source.put(b"1") if kind == "stream" else source.put({"id": "1"})
        aws.advance((hours - 0.25) * 3600)
        mapping = aws.map(source, fails, report_batch_item_failures=True)
        report = aws.run(timeout=DAY)
    assert report.exhausted == 1
    assert hours * 3600 - 61 < mapping.invocations[-1].at <= hours * 3600


@pytest.mark.parametrize("kind", ["stream", "table"])
def test_a_stream_that_was_idle_for_hours_is_still_read_from_where_it_was(kind: str) -> None:
    """An iterator expires after five minutes; Lambda asks once a second, and never lets one expire."""
    with Emulator() as aws:
        source: Any = aws.stream("orders") if kind == "stream" else aws.table("orders", stream="NEW_IMAGE")
        mapping = aws.map(source, lambda event, context: None, name="handler", starting_position="LATEST")
        aws.advance(7200)
        source.put(b"1") if kind == "stream" else source.put({"id": "1"})
        aws.run()
    assert [invocation.at for invocation in mapping.invocations] == [7200]


def test_two_mappings_of_one_handler_have_a_line_each_and_are_one_function() -> None:
    at_work: list[int] = []

    def slow(event: Any, context: Any) -> None:
        at_work.append(len(event["Records"]))

    with Emulator() as aws:
        first, second = aws.queue("first"), aws.queue("second")
        one = aws.map(first, slow, reserved_concurrency=1)
        two = aws.map(second, slow, reserved_concurrency=1)
        first.send(1, 2, 3)
        second.send(4)
        report = aws.run()
    assert (one.name, two.name) == ("slow", "slow:second")
    assert {label: counts.succeeded for label, counts in report.handlers.items()} == {"slow": 3, "slow:second": 1}
    # Both came at the same time: one was throttled, and its message came again.
    answers = [type(invocation.answer).__name__ for mapping in (one, two) for invocation in mapping.invocations]
    assert sorted(answers) == ["Returned", "Returned", "Throttled"]


def test_what_would_be_two_functions_of_one_name_is_refused() -> None:
    with Emulator() as aws:
        first, second = aws.queue("first"), aws.queue("second")
        aws.map(first, passes)
        with pytest.raises(
            ConfigurationError, match="another function is called 'handler' already: give this one name="
        ):
            aws.map(first, lambda event, context: None, name="handler")
            aws.map(second, passes, name="handler")
        with pytest.raises(ConfigurationError, match=r"'passes' is one function, and was mapped with .*timeout=3"):
            aws.map(second, passes, timeout=5)
        with pytest.raises(ConfigurationError, match="'passes' is mapped to 'first' already"):
            aws.map(first, passes)
        aws.map(second, passes, name="other")


def test_handlers_of_one_name_in_pipelines_that_are_added_one_after_the_other_have_a_line_each() -> None:
    def made(name: str) -> Pipeline:
        pipeline = Pipeline(name)

        @pipeline.handler(sources.SQS(f"{name}-orders"))
        def price(order: Any) -> None: ...

        return pipeline

    shop = made("shop")
    with Emulator() as aws:
        aws.add(shop)
        aws.add(made("store"))
        aws.send("shop-orders", [{}, {}])
        aws.send("store-orders", [{}])
        report = aws.run()
        assert {label: counts.succeeded for label, counts in report.handlers.items()} == {"price": 2, "store.price": 1}


def test_the_same_seed_is_the_same_run_of_handlers_in_threads() -> None:
    sqs = boto3.client("sqs", region_name="us-east-1")

    def run() -> Any:
        known: list[Any] = []

        def forward(event: Any, context: Any) -> Any:
            known.append((context.aws_request_id, context.log_stream_name, [r["body"] for r in event["Records"]]))
            for record in event["Records"]:
                sqs.send_message(QueueUrl=out.url, MessageBody=record["body"])
            failed = [r["messageId"] for r in event["Records"] if int(r["body"]) % 7 == 0]
            return {"batchItemFailures": [{"itemIdentifier": name} for name in failed]}

        with Emulator(seed=5) as aws:
            numbers, out = aws.queue("numbers", max_receive_count=3), aws.queue("out")
            aws.map(numbers, forward, report_batch_item_failures=True)
            numbers.send(*range(100))
            aws.run()
            return known, out.bodies

    first, second = run(), run()
    assert first == second
    requests, streams = {request for request, _, _ in first[0]}, {stream for _, stream, _ in first[0]}
    assert len(requests) == len(first[0])
    assert streams == {f"2027/01/15/[$LATEST]{number:032x}" for number in range(1, 5)}


def test_what_one_handler_works_for_does_not_count_towards_the_deadline_of_another() -> None:
    """Four invocations at once, each of 0.6 real seconds: all of them together work for longer than one may."""

    def busy(event: Any, context: Any) -> None:
        for _ in range(3):
            spin(0.2)
            sqs.list_queues()

    sqs = boto3.client("sqs", region_name="us-east-1")
    with Emulator() as aws:
        orders = aws.queue("orders")
        mapping = aws.map(orders, busy, batch_size=1, timeout=1.0)
        orders.send(*range(4))
        report = aws.run()
    assert [invocation.at for invocation in mapping.invocations] == [0] * 4
    assert report.succeeded == 4


def spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_a_handler_that_talks_for_ever_reaches_its_deadline_beside_others() -> None:
    def endless(event: Any, context: Any) -> None:
        while event["Records"][0]["body"] == "0":
            sqs.list_queues()

    sqs = boto3.client("sqs", region_name="us-east-1")
    with Emulator() as aws:
        orders = aws.queue("orders", max_receive_count=1)
        aws.map(orders, endless, batch_size=1, timeout=1)
        orders.send(*range(4))
        report = aws.run()
        assert orders.dead_letters is not None
        assert orders.dead_letters.bodies == [0]
    assert (report.succeeded, report.exhausted) == (3, 1)


def test_a_handler_finds_its_own_variables_and_lambdas_while_it_works() -> None:
    found: dict[str, Any] = {}

    def reading(event: Any, context: Any) -> None:
        queue = event["Records"][0]["eventSourceARN"].rpartition(":")[2]
        found[queue] = [os.environ.get(name) for name in ("TABLE", "AWS_LAMBDA_FUNCTION_NAME", "AWS_REGION")]

    with Emulator() as aws:
        first, second = aws.queue("first"), aws.queue("second")
        aws.map(first, reading, environment={"TABLE": "one", "AWS_ENDPOINT_URL": "https://elsewhere.example"})
        aws.map(second, reading, name="other", environment={"TABLE": "two"})
        first.send(1)
        second.send(1)
        aws.run()
        assert "TABLE" not in os.environ
    assert found == {"first": ["one", "reading", "us-east-1"], "second": ["two", "other", "us-east-1"]}
