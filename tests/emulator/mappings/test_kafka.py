"""The rules of a Kafka mapping, each with its page of the Lambda developer guide; and no record lost, whatever happens.

Pages: [errors] "Configuring error handling controls for Kafka event sources", [process] "Configuring Amazon MSK event
sources for Lambda", [discarded] "Capturing discarded batches for Amazon MSK and self-managed Apache Kafka event sources",
[topic] "Using a Kafka topic as an on-failure destination", [scaling] "Apache Kafka event poller scaling modes in Lambda",
[batching] "How Lambda processes records from stream and queue-based event sources", [filtering] "Filtering events from
Amazon MSK and self-managed Apache Kafka event sources".
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pipeline.decisions.patterns import read_filter
from pipeline.emulator.mappings.actions import (
    Action,
    BatchFailed,
    Commit,
    Filtered,
    GivenUp,
    Invoke,
    ListShards,
    Read,
    SendToDestination,
    Settled,
    Shard,
    StreamRecord,
)
from pipeline.emulator.mappings.answers import Answer, Cause, FunctionFailed, Returned, Throttled, Unheard
from pipeline.emulator.mappings.batching import MAX_EVENT_BYTES
from pipeline.emulator.mappings.kafka import MAX_CONCURRENT, KafkaMapping
from pipeline.emulator.mappings.machine import Page, ShardMachine
from pipeline.emulator.mappings.settings import KafkaSettings
from pipeline.errors import ConfigurationError

NOW = 1_800_000_000.0
CLUSTER = "arn:aws:kafka:us-east-1:123456789012:cluster/shop/751d2973-2"
QUEUE = "arn:aws:sqs:us-east-1:123456789012:failed"
RAISED = FunctionFailed(Cause.RAISED, "ValueError", "no")
A = TypeVar("A")


def record(offset: int, partition: int = 0, value: Any = None, *, size: int = 100, at: float = NOW) -> StreamRecord:
    data = json.dumps(value).encode()
    member = {
        "topic": "orders",
        "partition": partition,
        "offset": offset,
        "timestamp": int(at * 1000),
        "timestampType": "CREATE_TIME",
        "value": base64.b64encode(data).decode(),
        "headers": [],
    }
    return StreamRecord(str(offset), member, size, at, data=data)


def settings_of(**options: Any) -> KafkaSettings:
    return KafkaSettings(**{"topics": ("orders",), "source_arn": CLUSTER, "bootstrap_servers": "b-1:9092", **options})


class Bench:
    """A mapping, told by hand, and what it said."""

    def __init__(self, *, partitions: int = 1, limit: int | None = None, **options: Any) -> None:
        self.now = NOW
        self.machine = KafkaMapping(settings_of(**{"batching_window": 0, **options}), limit=limit)
        self.said: list[Action] = []
        self.invoked: list[Invoke] = []
        assert self.step() == [ListShards()]
        self.machine.listed([Shard(f"orders-{n}") for n in range(partitions)], self.now)
        self.step()

    def step(self) -> list[Action]:
        """What it wants, and says, now."""
        found = self.machine.actions(self.now)
        self.said += found
        self.invoked += [one for one in found if isinstance(one, Invoke)]
        return found

    def after(self, seconds: float) -> list[Action]:
        self.now += seconds
        return self.step()

    def read(self, *records: StreamRecord, partition: int = 0) -> list[Action]:
        """A read of a partition came to its end."""
        self.machine.was_read(f"orders-{partition}", Page(records), self.now)
        return self.step()

    def answer(self, answer: Answer, batch: int | None = None) -> list[Action]:
        """An invocation came to its end: the last one, unless it is named."""
        self.machine.answered(self.invoked[-1].batch if batch is None else batch, answer, self.now)
        return self.step()

    def all(self, kind: type[A]) -> list[A]:
        return [one for one in self.said if isinstance(one, kind)]

    @property
    def offsets(self) -> list[list[int]]:
        """What each invocation had, partition by partition."""
        return [offsets_of(one) for one in self.invoked]


def offsets_of(invoke: Invoke) -> list[int]:
    return [member["offset"] for members in invoke.event["records"].values() for member in members]


def failed(*places: tuple[str, Any]) -> Returned:
    items = [{"itemIdentifier": {"partition": partition, "offset": offset}} for partition, offset in places]
    return Returned({"batchItemFailures": items})


def test_it_is_a_machine_over_shards() -> None:
    machine: ShardMachine = KafkaMapping(settings_of())
    assert machine.held == machine.millis_behind == 0


# The event


def test_the_event_of_amazon_msk_has_its_records_by_partition() -> None:
    """[process] "A single Lambda payload can contain messages from multiple partitions." """
    bench = Bench(partitions=2, batching_window=1)
    bench.read(record(0), record(1))
    bench.read(record(7, 1), partition=1)
    bench.after(1)
    (invoke,) = bench.invoked
    assert invoke.event == {
        "eventSource": "aws:kafka",
        "eventSourceArn": CLUSTER,
        "bootstrapServers": "b-1:9092",
        "records": {"orders-0": [record(0).member, record(1).member], "orders-1": [record(7, 1).member]},
    }
    assert invoke.ids == ("orders-0:0", "orders-0:1", "orders-1:7")


def test_the_event_of_a_cluster_of_ones_own_names_no_arn() -> None:
    """ "Using Lambda with self-managed Apache Kafka", its example event."""
    bench = Bench(is_msk=False)
    bench.read(record(0))
    event = bench.invoked[0].event
    assert (event["eventSource"], list(event)) == ("SelfManagedKafka", ["eventSource", "bootstrapServers", "records"])


# Where reading begins


@pytest.mark.parametrize(
    ("options", "position"),
    [
        ({}, ("TRIM_HORIZON", None)),
        ({"starting_position": "LATEST"}, ("LATEST", None)),
        ({"starting_position": "AT_TIMESTAMP", "starting_timestamp": 5.0}, ("AT_TIMESTAMP", 5.0)),
    ],
)
def test_reading_begins_at_the_starting_position_and_goes_on_after_the_last_offset(
    options: Mapping[str, Any], position: Any
) -> None:
    """ "Apache Kafka polling and stream starting positions in Lambda"."""
    bench = Bench(**options)
    (first,) = bench.all(Read)
    assert (first.shard, first.after, (first.position, first.timestamp)) == ("orders-0", None, position)
    found = bench.read(record(4), record(9))
    assert [one.after for one in found if isinstance(one, Read)] == ["9"]


def test_a_partition_that_is_added_later_is_read_from_its_first_record() -> None:
    """Not documented: nothing in it is older than the mapping."""
    bench = Bench(starting_position="LATEST")
    assert ListShards() in bench.after(300)
    bench.machine.listed([Shard("orders-0"), Shard("orders-1")], bench.now)
    (added,) = [one for one in bench.step() if isinstance(one, Read)]
    assert (added.shard, added.position) == ("orders-1", "TRIM_HORIZON")


def test_what_cannot_be_listed_or_read_is_asked_again_a_second_later() -> None:
    bench = Bench()
    bench.machine.not_read("orders-0", bench.now)
    assert bench.step() == []
    assert bench.machine.wakes_at == NOW + 1
    assert [type(one) for one in bench.after(1)] == [Read]
    machine = KafkaMapping(settings_of())
    assert machine.actions(NOW) == [ListShards()]
    machine.not_listed(NOW)
    assert machine.actions(NOW) == []
    assert machine.wakes_at == NOW + 1
    assert machine.actions(NOW + 1) == [ListShards()]


def test_what_waits_is_bounded_while_a_batch_is_at_work() -> None:
    bench = Bench(batch_size=2)
    bench.read(record(0))
    bench.read(record(1))
    assert bench.read(record(2)) == []  # two wait: nothing is read until the first is settled
    assert bench.offsets == [[0]]
    assert any(isinstance(one, Read) for one in bench.answer(Returned(None)))


# When a batch goes out


def test_a_batch_waits_half_a_second_unless_its_mapping_says_otherwise() -> None:
    """[batching] "For Amazon MSK, self-managed Apache Kafka (...) the default batching window is 500 ms." """
    assert settings_of().batching_window == 0.5
    bench = Bench(batching_window=0.5)
    bench.read(record(0))
    assert bench.invoked == []
    assert bench.machine.wakes_at == NOW + 0.5
    bench.after(0.25)
    bench.read(record(1))
    bench.after(0.25)
    assert bench.offsets == [[0, 1]]


def test_without_a_window_what_is_there_goes_out_at_once() -> None:
    """ "Low latency processing for Kafka event sources": it does not wait for the batch to fill."""
    bench = Bench(batching_window=0, batch_size=1000)
    bench.read(record(0))
    assert bench.offsets == [[0]]


def test_a_batch_goes_out_with_its_size_over_all_partitions() -> None:
    """[batching] "The batch size is met." """
    bench = Bench(partitions=2, batch_size=3, batching_window=60)
    bench.read(record(0), record(1))
    assert bench.invoked == []
    bench.read(record(0, 1), record(1, 1), partition=1)
    assert bench.offsets == [[0, 1, 0]]


def test_a_batch_goes_out_before_its_event_has_more_than_six_megabytes() -> None:
    """[batching] "The payload size reaches 6 MB." """
    bench = Bench(batching_window=60)
    half = MAX_EVENT_BYTES // 2
    bench.read(record(0, size=half - 1000))
    assert bench.invoked == []
    bench.read(record(1, size=half))
    assert bench.invoked == []
    bench.read(record(2, size=2000))
    assert bench.offsets == [[0, 1]]


def test_partitions_take_turns() -> None:
    """Not documented: a partition with many records must not starve the others."""
    bench = Bench(partitions=3, batch_size=2, limit=1)
    bench.read(*[record(n) for n in range(5)])
    bench.read(*[record(n, 1) for n in range(5)], partition=1)
    bench.read(record(0, 2), partition=2)
    for _ in range(6):
        bench.answer(Returned(None))
    given_by = [tuple(one.event["records"]) for one in bench.invoked]
    assert given_by[:4] == [("orders-0",), ("orders-1",), ("orders-2", "orders-0"), ("orders-1",)]


# Order


def test_nothing_of_a_partition_overtakes_its_batch_and_other_partitions_go_on() -> None:
    """[process] "Lambda reads messages sequentially for each Kafka topic partition." """
    bench = Bench(partitions=2)
    bench.read(record(0))
    bench.read(record(1))
    bench.read(record(0, 1), partition=1)
    assert [one.ids for one in bench.invoked] == [("orders-0:0",), ("orders-1:0",)]
    bench.answer(Returned(None), batch=1)
    assert bench.offsets == [[0], [0], [1]]


def test_a_poller_has_five_invocations_at_once() -> None:
    """[scaling] "each event poller can handle up to (...) 5 concurrent invocations." """
    bench = Bench(partitions=7)
    for partition in range(7):
        bench.read(record(0, partition), partition=partition)
    assert MAX_CONCURRENT == len(bench.invoked) == 5
    bench.answer(Returned(None), batch=3)
    assert [one.ids for one in bench.invoked[5:]] == [("orders-5:0", "orders-6:0")]


# How it ends


@pytest.mark.parametrize("payload", [None, {}, {"batchItemFailures": []}, {"batchItemFailures": None}, {"items": 1}])
def test_an_empty_response_is_success(payload: Any) -> None:
    """[errors] "If you return an empty valid JSON or null, (...) a batch as successfully processed." """
    bench = Bench(report_batch_item_failures=True)
    bench.read(record(0), record(1))
    found = bench.answer(Returned(payload))
    assert found == [Settled(("orders-0:0", "orders-0:1")), Commit("orders-0", "2")]
    assert bench.machine.held == 0


def test_without_the_setting_a_response_means_nothing() -> None:
    """ "Reporting batch item failures" of the pages on streams: the setting turns it on."""
    bench = Bench()
    bench.read(record(0))
    assert Settled(("orders-0:0",)) in bench.answer(failed(("orders-0", 0)))


def test_what_the_response_names_comes_again_and_nothing_else() -> None:
    """[errors] "the handler returns identifiers only for the failed messages, allowing Lambda to retry just those"."""
    bench = Bench(partitions=2, batching_window=1, report_batch_item_failures=True)
    bench.read(*[record(n) for n in range(4)])
    bench.read(record(5, 1), partition=1)
    bench.after(1)
    bench.answer(failed(("orders-0", 3), ("orders-0", 1)))
    assert bench.all(Settled) == [Settled(("orders-0:0", "orders-0:2", "orders-1:5"))]
    assert bench.all(BatchFailed) == [BatchFailed(1, "the response names 2 of its records", is_whole=False)]
    assert bench.machine.committed == {"orders-0": 1, "orders-1": 6}
    bench.after(60)
    assert bench.offsets[-1] == [1, 3]
    assert bench.answer(Returned({})) == [Settled(("orders-0:1", "orders-0:3")), Commit("orders-0", "4")]


def test_newer_records_of_a_partition_wait_for_what_comes_again_and_do_not_join_it() -> None:
    """[process] order in a partition; that a batch is not filled up is not documented."""
    bench = Bench(partitions=2, report_batch_item_failures=True)
    bench.read(record(0), record(1))
    bench.read(record(2))
    bench.answer(failed(("orders-0", 1)))
    bench.read(record(0, 1), partition=1)
    bench.answer(Returned(None))
    bench.after(60)
    assert bench.offsets == [[0, 1], [0], [1]]
    bench.answer(Returned(None))
    assert bench.offsets[-1] == [2]


@pytest.mark.parametrize(
    "payload",
    [
        "ok",
        [],
        {"batchItemFailures": "orders-0"},
        {"batchItemFailures": [{"itemIdentifier": {"partition": "orders-0", "offset": 7}}]},
        {"batchItemFailures": [{"itemIdentifier": {"partition": "orders-1", "offset": 0}}]},
        {"batchItemFailures": [{"itemIdentifier": {"partition": "orders", "offset": 0}}]},
        {"batchItemFailures": [{"itemIdentifier": {"partition": "orders-0", "offset": "0"}}]},
        {"batchItemFailures": [{"itemIdentifier": {"partition": "orders-0", "offset": True}}]},
        {"batchItemFailures": [{"itemIdentifier": {"partition": "orders-0", "offset": None}}]},
        {"batchItemFailures": [{"itemIdentifier": {"topic-partition": "orders-0", "offset": 0}}]},
        {"batchItemFailures": [{"itemIdentifier": {"partition": 0, "offset": 0}}]},
        {"batchItemFailures": [{"itemIdentifier": "0"}]},
        {"batchItemFailures": [{"itemIdentifier": None}]},
        {"batchItemFailures": [{"offset": 0}]},
        {"batchItemFailures": [{"itemIdentifier": {"partition": "orders-0", "offset": 0}}, None]},
    ],
)
@pytest.mark.parametrize("bisect", [False, True])
def test_a_response_that_cannot_be_meant_brings_the_whole_batch_again(payload: Any, bisect: bool) -> None:
    """[errors] "Any invalid topic-partition_number or offset (...) treated as failure and entire batch will be retried." """
    bench = Bench(report_batch_item_failures=True, bisect=bisect)
    bench.read(record(0), record(1))
    bench.answer(Returned(payload))
    assert bench.all(Settled) == []
    assert [one.is_whole for one in bench.all(BatchFailed)] == [True]
    bench.after(60)
    assert bench.offsets == [[0, 1], [0, 1]]


def test_an_error_of_the_function_brings_the_whole_batch_again() -> None:
    """[process] "If your function returns an error (...) Lambda retries the whole batch of messages"."""
    bench = Bench(report_batch_item_failures=True)
    bench.read(record(0), record(1))
    found = bench.answer(RAISED)
    assert found == [BatchFailed(1, "ValueError: no", is_whole=True)]
    assert bench.machine.held == 2
    assert bench.machine.wakes_at == NOW + 0.5
    bench.after(0.5)
    assert bench.offsets == [[0, 1], [0, 1]]


# Retries


def run_until_given_up(bench: Bench, answer: Answer = RAISED, limit: int = 100) -> None:
    while not bench.all(GivenUp):
        assert len(bench.invoked) < limit
        bench.answer(answer)
        bench.after(60)


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_records_are_given_up_when_their_retries_are_used_up(retries: int) -> None:
    """[errors] Maximum retry attempts: "This doesn't count the initial invocation attempt." """
    bench = Bench(maximum_retry_attempts=retries)
    bench.read(record(0), record(1))
    run_until_given_up(bench)
    assert len(bench.invoked) == 1 + retries
    assert bench.all(GivenUp) == [GivenUp(("orders-0:0", "orders-0:1"), "orders-0", "RetryAttemptsExhausted")]
    assert bench.machine.committed == {"orders-0": 2}
    assert bench.machine.held == 0


def test_by_default_retries_are_infinite() -> None:
    """[errors] "The default is -1 (infinite)." """
    bench = Bench()
    bench.read(record(0))
    for _ in range(50):
        bench.answer(RAISED)
        bench.after(60)
    assert len(bench.invoked) == 51
    assert bench.all(GivenUp) == []


def test_infinite_retries_and_a_destination_make_ten() -> None:
    """[topic], [errors] "When you configure both (...) Lambda automatically applies a maximum of 10 retry attempts." """
    bench = Bench(on_failure=QUEUE)
    bench.read(record(0))
    run_until_given_up(bench)
    assert len(bench.invoked) == 11


def test_a_response_that_names_records_uses_up_their_retries() -> None:
    """[errors] What is left of a batch was in every invocation of it, so each record has its own retries exactly."""
    bench = Bench(maximum_retry_attempts=2, report_batch_item_failures=True)
    bench.read(record(0), record(1), record(2))
    bench.answer(failed(("orders-0", 1), ("orders-0", 2)))
    bench.after(60)
    bench.answer(failed(("orders-0", 2)))
    bench.after(60)
    bench.answer(failed(("orders-0", 2)))
    assert bench.offsets == [[0, 1, 2], [1, 2], [2]]
    assert bench.all(GivenUp) == [GivenUp(("orders-0:2",), "orders-0", "RetryAttemptsExhausted")]
    assert bench.machine.committed == {"orders-0": 3}


@pytest.mark.parametrize("answer", [Throttled(), Unheard()])
def test_what_never_ran_and_what_nobody_heard_of_comes_again_without_using_up_retries(answer: Answer) -> None:
    """ "Retain discarded batch records for a Kinesis Data Streams event source", "Before invocation"; of Kafka not said."""
    bench = Bench(maximum_retry_attempts=0)
    bench.read(record(0))
    for _ in range(20):
        bench.answer(answer)
        bench.after(60)
    assert len(bench.invoked) == 21
    assert bench.all(GivenUp) == []
    assert Settled(("orders-0:0",)) in bench.answer(Returned(None))


def test_pauses_between_tries_grow_to_a_minute() -> None:
    """Not documented."""
    bench = Bench()
    bench.read(record(0))
    pauses: list[float] = []
    for _ in range(9):
        bench.answer(RAISED)
        assert bench.machine.wakes_at is not None
        pauses.append(bench.machine.wakes_at - bench.now)
        bench.after(pauses[-1])
    assert pauses == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]


# Bisecting


def test_after_an_error_the_halves_go_out_one_after_the_other() -> None:
    """[errors] "When your function returns an error, split the batch into two smaller batches and retry each"."""
    bench = Bench(bisect=True)
    bench.read(*[record(n) for n in range(5)])
    bench.answer(RAISED)
    bench.answer(RAISED)
    bench.answer(Returned(None))
    bench.answer(Returned(None))
    bench.answer(Returned(None))
    assert bench.offsets == [[0, 1, 2, 3, 4], [0, 1], [0], [1], [2, 3, 4]]
    assert bench.machine.committed == {"orders-0": 5}


def test_splitting_uses_up_no_retry() -> None:
    """ "Splitting batches doesn't consume the retry quota" (the Kinesis page); of Kafka not said."""
    bench = Bench(bisect=True, maximum_retry_attempts=1)
    bench.read(*[record(n) for n in range(4)])
    while not bench.all(GivenUp):
        bench.answer(RAISED if 2 in bench.offsets[-1] else Returned(None))
        bench.after(60)
    bench.answer(Returned(None))
    assert bench.offsets == [[0, 1, 2, 3], [0, 1], [2, 3], [2], [2], [3]]
    assert bench.all(GivenUp) == [GivenUp(("orders-0:2",), "orders-0", "RetryAttemptsExhausted")]
    assert bench.machine.committed == {"orders-0": 4}


def test_halves_hold_their_partitions_until_both_are_settled() -> None:
    bench = Bench(partitions=2, batching_window=1, bisect=True)
    bench.read(record(0), record(1))
    bench.read(record(0, 1), partition=1)
    bench.after(1)
    bench.read(record(2))
    bench.after(1)
    bench.answer(RAISED)
    bench.after(1)
    assert [one.ids for one in bench.invoked] == [("orders-0:0", "orders-0:1", "orders-1:0"), ("orders-0:0",)]
    bench.answer(Returned(None))
    bench.answer(Returned(None))
    assert [one.ids for one in bench.invoked[2:]] == [("orders-0:1", "orders-1:0"), ("orders-0:2",)]


# Record age


def test_records_that_are_too_old_are_not_sent_to_the_function() -> None:
    """[errors] "Maximum record age - The maximum age of a record that Lambda sends to your function." """
    bench = Bench(maximum_record_age=60)
    bench.read(record(0, at=NOW - 61), record(1, at=NOW - 60), record(2))
    assert bench.offsets == [[1, 2]]
    assert bench.all(GivenUp) == [GivenUp(("orders-0:0",), "orders-0", "RecordAgeExceeded")]
    bench.answer(Throttled())
    bench.after(59)
    bench.answer(Throttled())
    bench.after(60)
    assert bench.offsets == [[1, 2], [2]]
    assert bench.machine.committed == {"orders-0": 3}
    assert bench.machine.held == 0


# Filters


def test_what_the_filter_does_not_accept_is_passed_over() -> None:
    """[filtering] The pattern is over `value`; with `null` in it, or without JSON, nothing matches."""
    patterns = read_filter({"kind": ["order"]}, member="value", declared="test")
    bench = Bench(filter=patterns)
    tombstone = StreamRecord("3", {"offset": 3}, 10, NOW, data=None)
    found = bench.read(
        record(0, value={"kind": "other"}), record(1, value={"kind": "order"}), record(2, value="text"), tombstone
    )
    assert Filtered(("orders-0:0", "orders-0:2", "orders-0:3")) in found
    assert Commit("orders-0", "1") in found
    assert bench.offsets == [[1]]
    assert Commit("orders-0", "4") in bench.answer(Returned(None))


# Destinations


def test_sqs_and_sns_get_where_the_records_are() -> None:
    """[discarded] "SNS and SQS example invocation record"; S3 gets the event as well."""
    bench = Bench(partitions=2, batching_window=1, maximum_retry_attempts=1, on_failure=QUEUE, function_name="price")
    bench.read(record(4, at=NOW), record(6, at=NOW + 0.165))
    bench.read(record(9, 1, at=NOW + 0.5), partition=1)
    bench.after(1)
    run_until_given_up(bench)
    (send,) = bench.all(SendToDestination)
    assert (send.destination, send.payload) == (QUEUE, bench.invoked[0].event)
    request_id = send.record["requestContext"]["requestId"]
    assert len(request_id) == 36
    assert send.record == {
        "requestContext": {
            "requestId": request_id,
            "functionArn": "arn:aws:lambda:us-east-1:123456789012:function:price",
            "condition": "RetryAttemptsExhausted",
            "approximateInvokeCount": 2,
        },
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "version": "1.0",
        "timestamp": "2027-01-15T08:01:01.000Z",
        "KafkaBatchInfo": {
            "batchSize": 3,
            "eventSourceArn": CLUSTER,
            "bootstrapServers": "b-1:9092",
            "payloadSize": len(json.dumps(bench.invoked[0].event, separators=(",", ":"))),
            "recordsInfo": {
                "orders-0": {
                    "firstRecordOffset": "4",
                    "lastRecordOffset": "6",
                    "firstRecordTimestamp": "2027-01-15T08:00:00.000Z",
                    "lastRecordTimestamp": "2027-01-15T08:00:00.165Z",
                },
                "orders-1": {
                    "firstRecordOffset": "9",
                    "lastRecordOffset": "9",
                    "firstRecordTimestamp": "2027-01-15T08:00:00.500Z",
                    "lastRecordTimestamp": "2027-01-15T08:00:00.500Z",
                },
            },
        },
    }


def test_a_topic_gets_each_record_with_its_event() -> None:
    """[topic] "each message contains both metadata about the failure and the actual record content." """
    bench = Bench(maximum_retry_attempts=0, on_failure="kafka://failed", function_name="price")
    bench.read(record(4), record(6))
    bench.answer(RAISED)
    first, second = bench.all(SendToDestination)
    assert first.destination == "kafka://failed"
    assert first.payload["records"] == {"orders-0": [record(4).member]}
    assert first.record["payload"] == first.payload
    assert first.record["requestContext"]["condition"] == "RetriesExhausted"
    assert first.record["requestContext"]["functionArn"].endswith(":function:price:$LATEST")
    assert first.record["KafkaBatchInfo"]["recordInfo"] == {"offset": "4", "timestamp": "2027-01-15T08:00:00.000Z"}
    assert first.record["KafkaBatchInfo"]["batchSize"] == 1
    assert second.record["KafkaBatchInfo"]["recordInfo"]["offset"] == "6"
    assert first.record["requestContext"]["requestId"] == second.record["requestContext"]["requestId"]


def test_a_record_that_no_event_has_room_for_is_given_up_unseen() -> None:
    """[discarded] the condition "MaximumPayloadSizeExceeded", and: "null if record is MaximumPayloadSizeExceeded"."""
    bench = Bench(on_failure=QUEUE)
    bench.read(record(0), record(1, size=MAX_EVENT_BYTES), record(2))
    (send,) = bench.all(SendToDestination)
    assert send.record["requestContext"]["condition"] == "MaximumPayloadSizeExceeded"
    assert send.record["responseContext"] is None
    assert bench.invoked == []  # what stands in its partition waits for the destination
    bench.machine.sent(send.send, bench.now)
    bench.step()
    assert bench.offsets == [[0, 2]]
    assert Commit("orders-0", "3") in bench.answer(Returned(None))


def test_nothing_is_committed_and_nothing_overtakes_before_the_destination_has_accepted() -> None:
    """Not documented: what a destination refuses is sent until it is accepted, so that it is not lost."""
    bench = Bench(maximum_retry_attempts=0, on_failure=QUEUE)
    bench.read(record(0))
    bench.read(record(1))
    found = bench.answer(RAISED)
    (send,) = [one for one in found if isinstance(one, SendToDestination)]
    assert not [one for one in found if isinstance(one, Commit)]
    for pause in [0.5, 1, 2]:
        bench.machine.not_sent(send.send, bench.now)
        assert bench.step() == []
        assert bench.machine.wakes_at == bench.now + pause
        assert bench.after(pause) == [send]
    assert bench.machine.held == 2
    bench.machine.sent(send.send, bench.now)
    assert Commit("orders-0", "1") in bench.step()
    assert bench.offsets == [[0], [1]]


def test_a_response_that_names_records_is_no_error_of_the_function_in_the_destinations_record() -> None:
    bench = Bench(maximum_retry_attempts=0, on_failure=QUEUE, report_batch_item_failures=True)
    bench.read(record(0))
    bench.answer(failed(("orders-0", 0)))
    (send,) = bench.all(SendToDestination)
    assert send.record["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST", "functionError": None}


# Settings


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch_size": 0}, "BatchSize"),
        ({"batch_size": 10_001}, "BatchSize"),
        ({"batching_window": 301}, "MaximumBatchingWindowInSeconds"),
        ({"maximum_retry_attempts": -2}, "MaximumRetryAttempts"),
        ({"maximum_record_age": 59}, "MaximumRecordAgeInSeconds"),
        ({"starting_position": "EARLIEST"}, "StartingPosition"),
        ({"starting_position": "AT_TIMESTAMP"}, "StartingPositionTimestamp"),
        ({"topics": ()}, "Topics"),
        ({"topics": ("a1", "b1")}, "Topics"),
        ({"topics": ("no spaces",)}, "Topics"),
        ({"function_timeout": 841}, "840"),
        ({"on_failure": "failed"}, "OnFailure"),
        ({"on_failure": "kafka://orders"}, "is the source itself"),
    ],
)
def test_settings_beyond_lambdas_ranges_are_refused(options: Mapping[str, Any], says: str) -> None:
    """`CreateEventSourceMapping` in Lambda's API model; [topic] "No recursion"; [process] "14 minutes"."""
    with pytest.raises(ConfigurationError, match=says):
        settings_of(**options)


def test_a_kafka_batch_of_more_than_ten_needs_no_window() -> None:
    """The API model asks for one of Kinesis, DynamoDB and SQS alone."""
    assert settings_of(batch_size=10_000, batching_window=0).batch_size == 10_000


# Whatever happens


class World:
    """A topic, a function and a destination that do what the draws say, and what must hold whatever they do."""

    def __init__(self, draw: Callable[[Any], Any], mapping: KafkaSettings, partitions: int, records: int) -> None:
        self.now = NOW
        self.draw = draw
        self.machine = KafkaMapping(mapping)
        self.mapping = mapping
        self.topic: dict[str, list[StreamRecord]] = {f"orders-{n}": [] for n in range(partitions)}
        sizes = st.sampled_from([100, 100, MAX_EVENT_BYTES // 2, MAX_EVENT_BYTES])
        for number in range(records):
            partition = draw(st.integers(0, partitions - 1))
            found = self.topic[f"orders-{partition}"]
            offset = int(found[-1].number) + draw(st.integers(1, 3)) if found else draw(st.integers(0, 9))
            value = {"kind": draw(st.sampled_from(["order", "order", "other"])), "number": number}
            found.append(record(offset, partition, value, size=draw(sizes)))
        self.todo: list[Any] = []  #: what the machine waits for
        self.ends: dict[str, str] = {}
        self.fine: set[str] = set()  #: what the function has settled
        self.seen: set[str] = set()
        self.out: dict[str, int] = {}  #: the batch that is at work, of each partition that has one
        self.failures: dict[str, int] = {}
        self.committed: dict[str, int] = {}

    def take(self) -> None:
        """Do what the machine says at once; keep what takes a while."""
        for action in self.machine.actions(self.now):
            match action:
                case Settled(ids) | Filtered(ids) | GivenUp(ids):
                    for name in ids:
                        assert name not in self.ends
                        assert (name in self.fine) == isinstance(action, Settled)
                        if isinstance(action, GivenUp) and action.reason == "RetryAttemptsExhausted":
                            retries = self.mapping.maximum_retry_attempts
                            assert self.failures[name] == 1 + (10 if retries == -1 else retries)
                        self.ends[name] = type(action).__name__
                case Commit(shard, number):
                    assert self.committed.get(shard, -1) < int(number)
                    self.committed[shard] = int(number)
                    behind = [one for one in self.topic[shard] if int(one.number) < int(number)]
                    assert all(f"{shard}:{one.number}" in self.ends for one in behind)
                case Invoke():
                    self.begin(action)
                    self.todo.append(action)
                case BatchFailed():
                    pass
                case _:
                    self.todo.append(action)

    def begin(self, invoke: Invoke) -> None:
        for partition, members in invoke.event["records"].items():
            assert partition not in self.out  # one batch of a partition at a time
            self.out[partition] = invoke.batch
            offsets = [member["offset"] for member in members]
            assert offsets == sorted(offsets)
            # The first that has not ended is in it, unless the filter is still to pass over it.
            names = [f"{partition}:{one.number}" for one in self.topic[partition]]
            assert next(name for name in names if name not in self.ends) == f"{partition}:{offsets[0]}"
        assert len(set(self.out.values())) <= MAX_CONCURRENT
        assert sum(map(len, invoke.event["records"].values())) <= self.mapping.batch_size
        self.seen |= set(invoke.ids)

    def end(self, action: Any, *, is_calm: bool) -> None:
        """What the machine waited for comes to its end; in calm, well."""
        machine, now = self.machine, self.now
        match action:
            case ListShards():
                machine.listed([Shard(name) for name in self.topic], now)
            case Read(shard, after, _, _, limit):
                left = [one for one in self.topic[shard] if after is None or int(one.number) > int(after)]
                if not left and is_calm:
                    return
                if not is_calm and not self.draw(st.integers(0, 5)):
                    machine.not_read(shard, now)
                else:
                    machine.was_read(shard, Page(left[: min(limit, self.draw(st.integers(1, 5)))]), now)
            case SendToDestination(send):
                is_sent = is_calm or self.draw(st.booleans())
                (machine.sent if is_sent else machine.not_sent)(send, now)
            case Invoke():
                self.out = {name: batch for name, batch in self.out.items() if batch != action.batch}
                answer, failed_ones = (Returned(None), set[str]()) if is_calm else self.answer(action)
                if isinstance(answer, Returned | FunctionFailed):
                    self.fine |= set(action.ids) - failed_ones
                machine.answered(action.batch, answer, now)
            case _:
                raise AssertionError(action)

    def answer(self, invoke: Invoke) -> tuple[Answer, set[str]]:
        """An answer, and the ids that it fails."""
        mapping, ids = self.mapping, set(invoke.ids)
        kind = self.draw(st.sampled_from(["names", "raises", "fine", "nonsense", "throttled", "unheard"]))
        if kind == "throttled":
            return Throttled(), ids
        if kind == "unheard":
            return Unheard(), ids
        if kind == "raises":
            if not mapping.bisect or len(ids) == 1:
                self.count(ids)
            return RAISED, ids
        if kind == "fine" or not mapping.report_batch_item_failures:
            return Returned(None), set()
        if kind == "nonsense":
            self.count(ids)
            return Returned("nonsense"), ids
        named = self.draw(st.sets(st.sampled_from(sorted(ids))))
        self.count(named)
        return failed(*((name, int(offset)) for name, _, offset in (one.rpartition(":") for one in named))), named

    def count(self, ids: set[str]) -> None:
        retries = self.mapping.maximum_retry_attempts
        for name in ids:
            self.failures[name] = self.failures.get(name, 0) + 1
            assert retries == -1 or self.failures[name] <= retries + 1

    def run(self, steps: int) -> None:
        """Some steps of trouble, and then calm until everything has ended."""
        self.take()
        for _ in range(steps):
            if self.todo and self.draw(st.integers(0, 3)):
                self.end(self.todo.pop(self.draw(st.integers(0, len(self.todo) - 1))), is_calm=False)
            elif self.machine.wakes_at is not None:
                self.now = max(self.now, min(self.machine.wakes_at, self.now + 20))
            self.take()
        for _ in range(200):
            if len(self.ends) == sum(map(len, self.topic.values())) and not self.machine.held:
                break
            todo, self.todo = self.todo, []
            for action in todo:
                self.end(action, is_calm=True)
            self.take()
            if not self.todo and self.machine.wakes_at is not None:
                self.now = max(self.now, self.machine.wakes_at)
                self.take()


# Without the phase that explains: what fails is found in seconds, and explained in minutes.
@settings(max_examples=150, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink))
@given(data=st.data())
def test_no_record_is_lost_or_settled_twice_and_order_holds_in_each_partition(data: st.DataObject) -> None:
    mapping = settings_of(
        batch_size=data.draw(st.integers(1, 5)),
        batching_window=data.draw(st.sampled_from([0, 0.5])),
        bisect=data.draw(st.booleans()),
        maximum_retry_attempts=data.draw(st.sampled_from([-1, 0, 2])),
        maximum_record_age=data.draw(st.sampled_from([-1, 60])),
        report_batch_item_failures=data.draw(st.sampled_from([True, True, False])),
        on_failure=data.draw(st.sampled_from([None, QUEUE, "kafka://failed"])),
        filter=data.draw(st.sampled_from([None, read_filter({"kind": ["order"]}, member="value", declared="test")])),
    )
    world = World(data.draw, mapping, data.draw(st.integers(1, 3)), data.draw(st.integers(3, 12)))
    world.run(30)
    records = {f"{name}:{one.number}": one for name, found in world.topic.items() for one in found}
    assert world.ends.keys() == records.keys()
    assert world.machine.committed == {name: int(found[-1].number) + 1 for name, found in world.topic.items() if found}
    assert world.committed == world.machine.committed
    assert world.machine.held == 0
    given_up = {name for name, end in world.ends.items() if end == "GivenUp" and records[name].size < MAX_EVENT_BYTES}
    if mapping.maximum_retry_attempts == mapping.maximum_record_age == -1 and mapping.on_failure is None:
        assert not given_up
