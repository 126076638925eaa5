"""What a user of the emulator may get wrong, or rely on without a second thought."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import boto3
import pytest
from aiobotocore.session import get_session
from botocore.exceptions import ParamValidationError

from pipeline import ConfigurationError, Pipeline, PipelineError, sources
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


async def breaks() -> None:
    raise ValueError("as a mapping that breaks")


def broken(aws: Emulator) -> None:
    aws._do(begun(aws))


async def begun(aws: Emulator) -> None:
    aws._running.beside(breaks())


@pytest.mark.parametrize("asked", [Emulator.run, lambda aws: aws.advance(1)], ids=["run", "advance"])
def test_a_mapping_that_broke_is_said_once(asked: Any) -> None:
    with Emulator() as aws:
        broken(aws)
        with pytest.raises(PipelineError, match="an event source mapping broke"):
            asked(aws)


def test_a_mapping_that_broke_unseen_is_said_at_the_end_unless_the_test_failed() -> None:
    with pytest.raises(PipelineError, match="an event source mapping broke"), Emulator() as aws:
        broken(aws)
        aws._do(asyncio.sleep(0))  # it has come to its turn by then
    with pytest.raises(KeyError), Emulator() as aws:
        broken(aws)
        raise KeyError


def test_closing_it_twice_is_harmless() -> None:
    with Emulator() as aws:
        aws.queue("orders")
    aws.__exit__(None, None, None)
    with Emulator() as other:
        aws.__exit__(None, None, None)
        other.queue("orders").send("x")


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


QUEUES, STREAMS, TABLES, TOPICS = "queue", "stream", "table", "topic"


def source_of(aws: Emulator, kind: str) -> Any:
    return aws.table("orders", stream="NEW_IMAGE") if kind == TABLES else getattr(aws, kind)("orders")


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        (QUEUES, {"body": {"id": ["1"]}}),
        (STREAMS, {"data": {"id": ["1"]}}),
        (TABLES, {"dynamodb": {"NewImage": {"id": {"S": ["1"]}}}, "eventName": ["INSERT"]}),
        (TOPICS, [{"value": {"id": ["1"]}}, {"value": {"id": ["3"]}}]),
    ],
)
def test_a_filters_patterns_are_over_the_whole_record_as_those_of_filter_criteria(kind: str, pattern: Any) -> None:
    with Emulator() as aws:
        source = source_of(aws, kind)
        mapping = aws.map(source, passes, filter=pattern)
        send = source.put if kind in (STREAMS, TABLES) else source.send
        send({"id": "1"}, {"id": "2"})
        report = aws.run()
    assert len(mapping.invocations) == 1
    assert (report.succeeded, report["passes"].filtered) == (1, 1)


@pytest.mark.parametrize(
    "wrong", ["order", 5, True, [], ["order"], {"body": "order"}, {"body": {"n": [{"like": "x"}]}}]
)
def test_a_filter_that_lambda_would_refuse_is_refused_when_it_is_mapped(wrong: Any) -> None:
    with Emulator() as aws, pytest.raises(ConfigurationError, match="filter"):
        aws.map(aws.queue("orders"), passes, filter=wrong)


@pytest.mark.parametrize(
    ("destination", "message"),
    [
        (
            "arn:aws:sns:us-east-1:123456789012:given-up",
            "arn:aws:sns:us-east-1:123456789012:given-up: there is no sns in",
        ),
        ("arn:aws:sqs:us-east-1:123456789012:nowhere", "arn:aws:sqs:us-east-1:123456789012:nowhere is not there"),
        ("given-up", "'given-up' is no on-failure destination"),
    ],
)
@pytest.mark.parametrize("kind", [STREAMS, TOPICS])
def test_a_destination_that_is_not_there_is_refused_when_it_is_mapped(
    kind: str, destination: str, message: str
) -> None:
    if kind == TOPICS and destination == "given-up":
        message = "OnFailure 'given-up'|'given-up' is no on-failure"
    with Emulator() as aws, pytest.raises(ConfigurationError, match=message):
        aws.map(source_of(aws, kind), passes, on_failure=destination)


WRONG = [
    *((QUEUES, {"batch_size": value}) for value in (2.5, "10", None, True, 0)),
    *((QUEUES, {"batching_window": value}) for value in (0.5, "1", None, float("nan"), float("inf"))),
    *((QUEUES, {"maximum_concurrency": value}) for value in (2.5, "10", True, 1)),
    *((QUEUES, {"report_batch_item_failures": value}) for value in ("yes", 1, None)),
    *((STREAMS, {"batch_size": value}) for value in (2.5, "10", None, True)),
    *((STREAMS, {name: 1.5}) for name in ("parallelization_factor", "maximum_retry_attempts", "tumbling_window")),
    (STREAMS, {"maximum_record_age": 60.5}),
    (STREAMS, {"bisect": "yes"}),
    (TOPICS, {"batching_window": 0.7}),
    (TOPICS, {"batch_size": "10"}),
    *((QUEUES, {"timeout": value}) for value in (0, -1, 1000, "3", None, True, float("nan"))),
    *((QUEUES, {"memory": value}) for value in (64, 20_000, "128", None, 128.5)),
    *((QUEUES, {"reserved_concurrency": value}) for value in (-1, 1.5, "1", True)),
    (QUEUES, {"environment": {"N": 1}}),
]


@pytest.mark.parametrize(("kind", "settings"), WRONG, ids=[f"{kind} {settings}" for kind, settings in WRONG])
def test_a_setting_that_aws_would_not_take_is_refused(kind: str, settings: dict[str, Any]) -> None:
    with Emulator() as aws, pytest.raises(ConfigurationError):
        aws.map(source_of(aws, kind), passes, **settings)


def test_what_lambda_cannot_read_is_refused_with_what_to_write() -> None:
    with Emulator() as aws:
        with pytest.raises(ConfigurationError, match=r"the table 'plain' has no stream: make it with aws.table"):
            aws.map(aws.table("plain"), passes)
        bucket: Any = aws.bucket("files")
        with pytest.raises(ConfigurationError, match=r"the bucket 'files' is no source .*: let it notify a queue"):
            aws.map(bucket, passes)
        name: Any = "orders"
        with pytest.raises(ConfigurationError, match=r"'orders' is no source: give aws.queue"):
            aws.map(name, passes)


def test_a_client_is_a_real_one() -> None:
    with Emulator() as aws:
        aws.queue("orders")
        sqs = aws.client("sqs")
        pages = sqs.get_paginator("list_queues").paginate()
        assert [url.rpartition("/")[2] for page in pages for url in page["QueueUrls"]] == ["orders"]
        with pytest.raises(sqs.exceptions.QueueDoesNotExist):
            sqs.get_queue_url(QueueName="nowhere")
        with pytest.raises(ParamValidationError, match="Bogus"):
            sqs.list_queues(Bogus=1)
        with pytest.raises(ConfigurationError, match="there is no sts in memory, only"):
            aws.client("sts")


def test_an_emulator_is_used_once_and_alone() -> None:
    aws = Emulator()
    with pytest.raises(PipelineError, match="use it in 'with'"):
        aws.run()
    with aws:
        orders = aws.queue("orders")
        with pytest.raises(PipelineError, match="one at a time"), Emulator():
            pass
    with pytest.raises(PipelineError, match="used once: make another one"), aws:
        pass
    with pytest.raises(PipelineError, match="this emulator is closed"):
        aws.run()
    with pytest.raises(PipelineError, match="this emulator is closed"):
        aws.map(orders, passes)
    with pytest.raises(PipelineError, match="this emulator is closed"):
        aws.client("sqs")
    assert orders.is_empty  # what it held can still be looked at
    with Emulator():
        pass


def test_a_handler_that_runs_the_emulator_gets_a_sentence() -> None:
    with Emulator() as aws:
        orders = aws.queue("orders", max_receive_count=1)
        mapping = aws.map(orders, lambda event, context: aws.run(), name="handler")
        orders.send(1)
        aws.run()
    (invocation,) = mapping.invocations
    assert "the emulator is running, and this was called by a handler" in str(invocation.answer)


def test_handlers_with_loops_of_their_own_make_many_calls_at_once() -> None:
    async def add() -> None:
        async with get_session().create_client("dynamodb", region_name="us-east-1") as dynamodb:
            given = {"TableName": "counts", "Key": {"id": {"S": "n"}}, "UpdateExpression": "ADD n :one"}
            one = {":one": {"N": "1"}}
            await asyncio.gather(*(dynamodb.update_item(**given, ExpressionAttributeValues=one) for _ in range(10)))

    with Emulator() as aws:
        orders, counts = aws.queue("orders"), aws.table("counts")
        aws.map(orders, lambda event, context: asyncio.run(add()), name="handler", batch_size=1, timeout=30)
        orders.send(*range(8))
        assert aws.run().succeeded == 8
        assert counts.items == [{"id": "n", "n": 80}]
