"""The emulator: plain Lambda handlers and pipelines behind event source mappings, in memory and in virtual time."""

from __future__ import annotations

import base64
import json
import re
import time
from typing import Any

import boto3
import pytest
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer,
    IdempotencyConfig,
    idempotent_function,
)

from pipeline import ConfigurationError, Pipeline, PipelineError, Reject, sinks, sources
from pipeline.testing import DrainTimeout, Emulator, crash

RETENTION = 14 * 24 * 3600


def bodies(event: Any) -> list[Any]:
    return [json.loads(record["body"]) for record in event["Records"]]


class Seen:
    """A plain handler that notes its batches and fails what it is told."""

    def __init__(self, *failing: Any) -> None:
        self.failing = failing
        self.batches: list[list[Any]] = []

    def __call__(self, event: Any, context: Any) -> Any:
        self.batches.append(bodies(event))
        failed = [r["messageId"] for r in event["Records"] if json.loads(r["body"]) in self.failing]
        return {"batchItemFailures": [{"itemIdentifier": name} for name in failed]}


def test_a_plain_powertools_handler_on_a_queue_with_partial_failures() -> None:
    processor = BatchProcessor(event_type=EventType.SQS)
    layer = DynamoDBPersistenceLayer(table_name="done", boto3_session=boto3.Session(region_name="us-east-1"))
    runs: list[str] = []

    config = IdempotencyConfig(event_key_jmespath="id")

    @idempotent_function(data_keyword_argument="order", persistence_store=layer, config=config)
    def keep(order: dict[str, Any]) -> None:
        runs.append(order["id"])
        if order["id"] == "poison":
            raise ValueError("poison")
        boto3.resource("dynamodb", region_name="us-east-1").Table("ledger").put_item(Item=order)

    def handle(record: Any) -> None:
        keep(order=record.json_body)

    def handler(event: Any, context: Any) -> Any:
        config.register_lambda_context(context)
        return process_partial_response(event=event, record_handler=handle, processor=processor, context=context)

    with Emulator() as aws:
        orders = aws.queue("orders", visibility_timeout=60, max_receive_count=3)
        ledger = aws.table("ledger")
        aws.table("done")
        mapping = aws.map(orders, handler, timeout=10, report_batch_item_failures=True)
        orders.send({"id": "a"}, {"id": "poison"}, {"id": "a"}, {"id": "b"})
        report = aws.run()
    assert sorted(item["id"] for item in ledger.items) == ["a", "b"]
    assert runs == ["a", "poison", "b", "poison", "poison"]
    assert orders.is_empty
    assert orders.dead_letters is not None
    assert orders.dead_letters.bodies == [{"id": "poison"}]
    assert [invocation.at for invocation in mapping.invocations] == [0, 60, 120]
    first, *later = [invocation.returned for invocation in mapping.invocations]
    assert len(first["batchItemFailures"]) == 1
    assert later == [None, None]  # Powertools raises when nothing of a batch succeeded
    assert (report.succeeded, report.exhausted, report.deliveries) == (3, 1, 6)


def test_what_is_said_of_an_invocation_that_was_killed_names_it(caplog: pytest.LogCaptureFixture) -> None:
    shop = Pipeline("shop")

    @shop.handler(sources.SQS("orders"), key="id")
    async def price(order: dict[str, Any]) -> None: ...

    with Emulator(faults=crash(after="handler")) as aws:
        aws.add(shop)
        aws.send("orders", [{"id": "a"}])
        aws.run()
    assert re.search(r"RequestId: [0-9a-f-]{36} Error: Runtime exited with error: signal: killed", caplog.text)


def test_days_pass_in_no_time_and_a_message_that_nobody_can_handle_is_gone_after_its_retention() -> None:
    began = time.process_time()
    seen = Seen({"n": 1})
    with Emulator() as aws:
        orders = aws.queue("orders", visibility_timeout=3600, retention=RETENTION)
        aws.map(orders, seen, report_batch_item_failures=True)
        orders.send({"n": 1})
        start = aws.now
        aws.run()
        assert start + RETENTION - 1 <= aws.now <= start + RETENTION + 3600
    assert len(seen.batches) == RETENTION / 3600
    assert orders.is_empty
    assert time.process_time() - began < 5


def test_a_response_without_the_setting_is_ignored_so_that_everything_counts_as_done() -> None:
    seen = Seen({"n": 1})
    with Emulator() as aws:
        orders = aws.queue("orders")
        aws.map(orders, seen)
        orders.send({"n": 1}, {"n": 2})
        aws.run()
    assert seen.batches == [[{"n": 1}, {"n": 2}]]


def test_an_unknown_id_in_the_response_brings_the_whole_batch_back() -> None:
    answers = [{"batchItemFailures": [{"itemIdentifier": "stranger"}]}, None]
    with Emulator() as aws:
        orders = aws.queue("orders")
        mapping = aws.map(
            orders, lambda event, context: answers.pop(0), name="handler", report_batch_item_failures=True
        )
        orders.send({"n": 1}, {"n": 2})
        report = aws.run()
    assert [len(invocation.event["Records"]) for invocation in mapping.invocations] == [2, 2]
    assert (report.succeeded, report["handler"].failed_invocations) == (2, 1)


def test_the_receive_count_and_the_context_are_lambdas() -> None:
    counts: list[str] = []
    contexts: list[Any] = []

    def handler(event: Any, context: Any) -> None:
        contexts.append(
            (context.function_name, context.memory_limit_in_mb, context.get_remaining_time_in_millis() > 4000)
        )
        counts.append(event["Records"][0]["attributes"]["ApproximateReceiveCount"])
        if len(counts) < 3:
            raise RuntimeError("not yet")

    with Emulator() as aws:
        orders = aws.queue("orders")
        aws.map(orders, handler, timeout=5, memory=256)
        orders.send("x")
        aws.run()
    assert counts == ["1", "2", "3"]
    assert contexts == [("handler", "256", True)] * 3


def test_a_handler_that_never_ends_is_ended_at_its_timeout_and_its_message_comes_again() -> None:
    calls: list[int] = []

    def handler(event: Any, context: Any) -> None:
        calls.append(1)
        while len(calls) == 1:
            pass

    with Emulator() as aws:
        orders = aws.queue("orders")
        mapping = aws.map(orders, handler, timeout=0.3)
        orders.send("x")
        report = aws.run()
    assert len(calls) == 2
    assert "timed out after 0.30 seconds" in str(mapping.invocations[0].answer)
    assert report["handler"].failed_invocations == 1


def test_a_fifo_group_waits_for_its_failed_head_and_no_other_group_does() -> None:
    order: list[str] = []

    def handler(event: Any, context: Any) -> Any:
        bad = []
        stopped: set[str] = set()
        for record in event["Records"]:
            group, body = record["attributes"]["MessageGroupId"], record["body"]
            order.append(body)
            if group in stopped or (body == "a1" and order.count("a1") == 1):
                stopped.add(group)
                bad.append({"itemIdentifier": record["messageId"]})
        return {"batchItemFailures": bad}

    with Emulator() as aws:
        tasks = aws.queue("tasks.fifo")
        aws.map(tasks, handler, batch_size=1, report_batch_item_failures=True)
        tasks.send("a1", "a2", group="a")
        tasks.send("b1", group="b")
        aws.run()
    assert [name for name in order if name.startswith("a")] == ["a1", "a1", "a2"]
    assert order.index("b1") < order.index("a2")


def test_a_stream_bisects_retries_and_gives_up_to_a_queue_with_the_records_place() -> None:
    batches: list[list[str]] = []

    def handler(event: Any, context: Any) -> None:
        found = [base64.b64decode(record["kinesis"]["data"]).decode() for record in event["Records"]]
        batches.append(found)
        if "bad" in found:
            raise RuntimeError("bad")

    with Emulator() as aws:
        clicks = aws.stream("clicks")
        lost = aws.queue("lost")
        aws.map(clicks, handler, bisect=True, maximum_retry_attempts=2, on_failure=lost.arn)
        numbers = clicks.put("a", "b", "bad", "c", key="k")
        report = aws.run()
        (letter,) = lost.bodies
    assert [name for batch in batches for name in batch if "bad" not in batch] == ["a", "b", "c"]
    assert letter["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert (
        letter["KinesisBatchInfo"]["startSequenceNumber"]
        == letter["KinesisBatchInfo"]["endSequenceNumber"]
        == numbers[2]
    )
    assert (report.succeeded, report.exhausted) == (3, 1)


def test_a_reshard_keeps_the_order_of_a_key() -> None:
    seen: list[int] = []

    def handler(event: Any, context: Any) -> None:
        seen.extend(int(base64.b64decode(record["kinesis"]["data"])) for record in event["Records"])

    with Emulator() as aws:
        clicks = aws.stream("clicks", shards=2)
        aws.map(clicks, handler)
        clicks.put(*map(str, range(10)), key="k")
        clicks.resize(3)
        clicks.put(*map(str, range(10, 20)), key="k")
        aws.run()
    assert seen == list(range(20))
    assert len(clicks.shards) > 2


def test_a_tables_stream_tells_each_change() -> None:
    changes: list[tuple[str, Any]] = []

    def handler(event: Any, context: Any) -> None:
        changes.extend((r["eventName"], r["dynamodb"].get("NewImage", {}).get("n")) for r in event["Records"])

    with Emulator() as aws:
        ledger = aws.table("ledger", stream="NEW_AND_OLD_IMAGES")
        aws.map(ledger, handler)
        ledger.put({"id": "a", "n": 1})
        ledger.put({"id": "a", "n": 2})
        ledger.delete(id="a")
        aws.run()
    assert changes == [("INSERT", {"N": "1"}), ("MODIFY", {"N": "2"}), ("REMOVE", None)]


def test_throttled_batches_burn_receives_until_healthy_messages_are_dead_letters() -> None:
    # Lambda developer guide, "Using Lambda with Amazon SQS": a throttled batch is retried until its visibility ends.
    with Emulator() as aws:
        orders = aws.queue("orders", visibility_timeout=30, max_receive_count=2)
        mapping = aws.map(orders, Seen(), reserved_concurrency=0, report_batch_item_failures=True)
        orders.send({"n": 1})
        aws.run()
    assert orders.dead_letters is not None
    assert orders.dead_letters.bodies == [{"n": 1}]
    assert mapping.invocations


def test_a_pipeline_with_its_sinks_and_the_handlers_behind_them() -> None:
    shop = Pipeline("shop")
    shipped: list[str] = []

    @shop.handler(
        sources.SQS("orders"),
        sinks=[
            sinks.DynamoDB("ledger"),
            sinks.SQS("parcels.fifo"),
            sinks.S3("lake"),
            sinks.EventBridge("bus", detail_type="priced"),
        ],
        key="id",
    )
    async def price(order: dict[str, Any]) -> dict[str, Any]:
        if order["id"] == "no":
            raise Reject("no")
        return order

    @shop.handler(sources.SQS("parcels.fifo"), sinks=[sinks.Kinesis("shipped", partition_key="id")])
    def pack(parcel: dict[str, Any]) -> dict[str, Any]:
        return parcel

    @shop.handler(sources.Kinesis("shipped", shards=2))
    async def ship(parcel: dict[str, Any]) -> None:
        shipped.append(parcel["id"])

    with Emulator() as aws:
        aws.add(shop)
        aws.send("orders", [{"id": "a"}, {"id": "b"}, {"id": "a"}, {"id": "no"}])
        report = aws.run()
        items = aws.client("dynamodb").scan(TableName="ledger")["Items"]
        objects = aws.client("s3").list_objects_v2(Bucket="lake")
    assert sorted(shipped) == ["a", "b"]
    assert sorted(item["id"]["S"] for item in items) == ["a", "b"]
    assert objects["KeyCount"] >= 1
    assert (report["price"].succeeded, report["price"].duplicates, report["price"].rejected) == (2, 1, 1)
    assert report["price"].outputs == {"bus": 2, "lake": 2, "ledger": 2, "parcels.fifo": 2}
    assert (report["pack"].succeeded, report["ship"].succeeded) == (2, 2)


def test_the_same_seed_is_the_same_run() -> None:
    def run(seed: int) -> list[str]:
        with Emulator(seed=seed) as aws:
            return aws.queue("orders").send("a", "b")

    assert run(1) == run(1) != run(2)


def test_what_never_comes_to_its_end_is_said() -> None:
    with Emulator() as aws:
        orders = aws.queue("orders")
        aws.map(orders, Seen("x"), report_batch_item_failures=True)
        orders.send('"x"')
        with pytest.raises(DrainTimeout, match="'orders' holds"):
            aws.run(timeout=600)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "BatchSize 0 is out of range"),
        ({"batch_size": 100}, "needs MaximumBatchingWindowInSeconds"),
        ({"bisect": True}, "has no setting 'bisect'"),
        ({"timeout": 60}, "shorter than the function's timeout"),
    ],
)
def test_what_lambda_would_refuse_is_refused(options: dict[str, Any], message: str) -> None:
    with Emulator() as aws:
        orders = aws.queue("orders")
        with pytest.raises(ConfigurationError, match=message):
            aws.map(orders, Seen(), **options)


def test_a_pipelines_handler_is_not_mapped_by_hand() -> None:
    shop = Pipeline("shop")

    @shop.handler(sources.SQS("orders"))
    def price(order: dict[str, Any]) -> None: ...

    with Emulator() as aws, pytest.raises(ConfigurationError, match="add the pipeline instead"):
        aws.map(aws.queue("orders"), price)


def test_a_service_that_is_not_there_is_refused_and_aws_never_reached() -> None:
    with Emulator(), pytest.raises(ConfigurationError, match="there is no sts in memory"):
        boto3.client("sts", region_name="us-east-1").get_caller_identity()


async def test_inside_a_running_loop_it_says_what_to_write_instead() -> None:
    with pytest.raises(PipelineError, match="write the test as a plain function"), Emulator():
        raise AssertionError


def test_outside_of_with_it_says_so() -> None:
    with pytest.raises(PipelineError, match="use it in 'with'"):
        Emulator().queue("orders")
