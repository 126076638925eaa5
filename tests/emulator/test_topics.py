"""Kafka topics in the emulator: a plain handler behind a topic's event source mapping, in virtual time."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from pipeline import ConfigurationError, PipelineError
from pipeline.testing import Emulator


@pytest.fixture
def aws() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


def members(event: Any) -> list[dict[str, Any]]:
    return [member for found in event["records"].values() for member in found]


def value(member: dict[str, Any]) -> Any:
    return json.loads(base64.b64decode(member["value"]))


class Seen:
    """A plain handler that notes each batch's partitions and values, and fails what it is told: so often, or always."""

    def __init__(self, failing: dict[Any, int] | None = None) -> None:
        self.failing = failing or {}
        self.batches: list[dict[str, list[Any]]] = []

    def __call__(self, event: Any, context: Any) -> Any:
        self.batches.append({name: [value(one) for one in found] for name, found in event["records"].items()})
        failures = []
        for name, found in event["records"].items():
            for member in found:
                if self.failing.get(value(member), 0) > 0:
                    self.failing[value(member)] -= 1
                    failures.append({"itemIdentifier": {"partition": name, "offset": member["offset"]}})
        return {"batchItemFailures": failures}

    @property
    def of_partitions(self) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for batch in self.batches:
            for name, values in batch.items():
                found.setdefault(name, []).extend(values)
        return found


def test_the_event_is_lambdas(aws: Emulator) -> None:
    """Lambda developer guide, "Using Lambda with Amazon MSK": the example event."""
    orders = aws.topic("orders", partitions=3)
    mapping = aws.map(orders, Seen(), name="handler", bootstrap_servers="b-1.cluster:9092")
    ((partition, offset),) = orders.send(71, key="customer-7", headers={"trace": "a"}, timestamp=aws.now)
    aws.run()
    (invocation,) = mapping.invocations
    assert invocation.event == {
        "eventSource": "aws:kafka",
        "eventSourceArn": invocation.event["eventSourceArn"],
        "bootstrapServers": "b-1.cluster:9092",
        "records": {
            f"orders-{partition}": [
                {
                    "topic": "orders",
                    "partition": partition,
                    "offset": offset,
                    "timestamp": round(1000 * orders.records[0].timestamp),
                    "timestampType": "CREATE_TIME",
                    "key": base64.b64encode(b"customer-7").decode(),
                    "value": base64.b64encode(b"71").decode(),
                    "headers": [{"trace": [97]}],
                }
            ]
        },
    }
    assert invocation.event["eventSourceArn"].startswith("arn:aws:kafka:us-east-1:123456789012:cluster/")
    assert invocation.at == 0.5  # the batching window of a mapping that declares none


def test_what_the_response_names_comes_again_before_anything_newer_of_its_partition(aws: Emulator) -> None:
    orders = aws.topic("orders", partitions=3)
    seen = Seen({4: 2})
    aws.map(orders, seen, name="handler", batch_size=6, consumer_group="shop", report_batch_item_failures=True)
    orders.send(*range(12))  # partition n % 3
    report = aws.run()
    assert [sum(map(len, batch.values())) for batch in seen.batches].count(1) == 2  # the retries, of one record each
    assert seen.of_partitions == {
        "orders-0": [0, 3, 6, 9],
        "orders-1": [1, 4, 4, 4, 7, 10],
        "orders-2": [2, 5, 8, 11],
    }
    assert report.succeeded == 12
    assert orders.committed("shop") == {0: 4, 1: 4, 2: 4}
    assert orders.lag("shop") == 0


def test_a_failing_batch_comes_again_as_a_whole_and_holds_its_partition_back(aws: Emulator) -> None:
    batches: list[list[Any]] = []

    def handler(event: Any, context: Any) -> None:
        batches.append([value(one) for one in members(event)])
        if len(batches) < 3:
            raise RuntimeError("not yet")

    orders = aws.topic("orders")
    mapping = aws.map(orders, handler, batch_size=2, batching_window=0, consumer_group="shop")
    orders.send(1, 2, 3)
    report = aws.run()
    assert batches == [[1, 2], [1, 2], [1, 2], [3]]
    assert [invocation.at for invocation in mapping.invocations] == [0, 0.5, 1.5, 1.5]
    assert report["handler"].failed_invocations == 2
    assert orders.committed("shop") == {0: 3}


def test_order_holds_in_a_partition_and_partitions_run_beside_each_other(aws: Emulator) -> None:
    orders = aws.topic("orders", partitions=3)
    seen = Seen({n: n % 3 for n in range(60)})
    aws.map(orders, seen, batch_size=1, batching_window=0, report_batch_item_failures=True, name="handler")
    orders.send(*range(60))
    aws.run()
    for number in range(3):
        first_seen = list(dict.fromkeys(seen.of_partitions[f"orders-{number}"]))
        assert first_seen == list(range(number, 60, 3))


def test_what_is_given_up_goes_to_a_queue(aws: Emulator) -> None:
    orders, dead = aws.topic("orders"), aws.queue("given-up")
    seen = Seen({2: 99})
    aws.map(
        orders, seen, name="handler", report_batch_item_failures=True, maximum_retry_attempts=2, on_failure=dead.arn
    )
    orders.send(1, 2, 3)
    report = aws.run()
    assert [batch["orders-0"] for batch in seen.batches] == [[1, 2, 3], [2], [2]]
    (letter,) = dead.bodies
    assert letter["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert letter["requestContext"]["approximateInvokeCount"] == 3
    assert letter["KafkaBatchInfo"]["recordsInfo"]["orders-0"]["firstRecordOffset"] == "1"
    assert (report.succeeded, report["handler"].dead_lettered) == (2, 1)


def test_what_is_given_up_goes_to_a_topic_under_its_key_where_another_function_finds_it(aws: Emulator) -> None:
    """Lambda developer guide, "Using a Kafka topic as an on-failure destination": the record itself is in it."""
    orders, dead = aws.topic("orders", partitions=2), aws.topic("orders-dead", partitions=2)
    seen, second = Seen({2: 99}), Seen()
    aws.map(orders, seen, name="handler", report_batch_item_failures=True, on_failure="kafka://orders-dead")

    def recovered(event: Any, context: Any) -> None:
        second.batches.append({"orders-dead": [value(one)["payload"]["records"] for one in members(event)]})

    aws.map(dead, recovered)
    orders.send(1, key="a")
    orders.send(2, key="b")
    report = aws.run()
    (record,) = dead.records
    assert record.key == b"b"
    ((sent,),) = [batch["orders-dead"] for batch in second.batches]
    ((member,),) = sent.values()
    assert value(member) == 2
    # Infinite retries, with a destination, are 10 retries.
    assert sum(2 in values for batch in seen.batches for values in batch.values()) == 11
    assert (report["handler"].succeeded, report["handler"].dead_lettered) == (1, 1)


def test_what_is_given_up_goes_to_a_bucket(aws: Emulator) -> None:
    """Lambda developer guide, "Capturing discarded batches for Amazon MSK and self-managed Apache Kafka event sources"."""
    orders, kept = aws.topic("orders"), aws.bucket("given-up")
    seen = Seen({2: 99})
    aws.map(
        orders, seen, name="handler", report_batch_item_failures=True, maximum_retry_attempts=0, on_failure=kept.arn,
    )  # fmt: skip
    orders.send(1, 2, 3)
    aws.run()
    s3 = boto3.client("s3", region_name="us-east-1")
    (found,) = s3.list_objects_v2(Bucket=kept.name)["Contents"]
    assert found["Key"].startswith("aws/lambda/")
    assert [batch["orders-0"] for batch in seen.batches] == [[1, 2, 3]]


def test_a_mapping_that_begins_at_the_latest_sees_what_is_sent_after_it_was_made(aws: Emulator) -> None:
    orders = aws.topic("orders", partitions=2)
    orders.send(1, 2)
    seen = Seen()
    aws.map(orders, seen, name="handler", starting_position="LATEST")
    orders.send(3, 4)
    aws.run()
    assert seen.of_partitions == {"orders-0": [3], "orders-1": [4]}


def test_a_run_ends_when_all_is_read_also_what_was_sent_since_the_last_one(aws: Emulator) -> None:
    orders = aws.topic("orders", partitions=4)
    seen = Seen()
    aws.map(orders, seen, name="handler")
    for n in range(5):
        orders.send(n)
        aws.run()
        assert sum(len(values) for values in seen.of_partitions.values()) == n + 1


def test_a_partition_that_is_added_is_read_from_its_beginning(aws: Emulator) -> None:
    orders = aws.topic("orders")
    seen = Seen()
    aws.map(orders, seen, name="handler", starting_position="LATEST")
    orders.send(1, partition=0)
    aws.run()
    orders.add_partitions(1)
    orders.send(2, partition=1)
    aws.run()
    assert seen.of_partitions == {"orders-0": [1], "orders-1": [2]}


def test_a_topic_that_is_not_there_an_option_that_is_none_and_a_second_one_of_the_name(aws: Emulator) -> None:
    orders = aws.topic("orders")
    with pytest.raises(ConfigurationError, match="no setting 'parallelization_factor'"):
        aws.map(orders, Seen(), name="handler", parallelization_factor=2)
    with pytest.raises(ConfigurationError, match="no topic 'nowhere': make it before"):
        aws.map(orders, Seen(), name="handler", on_failure="kafka://nowhere")
    with pytest.raises(ConfigurationError, match="is the source itself"):
        aws.map(orders, Seen(), name="handler", on_failure="kafka://orders")
    with pytest.raises(PipelineError, match="TOPIC_ALREADY_EXISTS"):
        aws.topic("orders")
    with pytest.raises(PipelineError, match="MESSAGE_TOO_LARGE"):
        orders.send(b"x" * 1_048_589)
