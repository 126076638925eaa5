"""What becomes of a stream's batch that did not succeed.

Sources: Lambda developer guide, "Configuring partial batch response with Kinesis Data Streams" and "Retain discarded batch
records for a Kinesis Data Streams event source" (the pages on DynamoDB say the same). "Recorded": what AWS did when
LocalStack's tests ran against it (`test_lambda_integration_kinesis.snapshot.json`, 2024 and 2025).
"""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.emulator.mappings.actions import BatchFailed, GivenUp, Settled, Undelivered
from pipeline.emulator.mappings.answers import Returned, Throttled, Unheard
from pipeline.emulator.mappings.shard import FIRST_PAUSE, LONGEST_PAUSE, pause
from pipeline.emulator.mappings.stream import MAX_SENDS
from tests.emulator.mappings.streaming import NOW, RAISED, World, named, settings

QUEUE = "arn:aws:sqs:us-east-1:123456789012:failed"


def reporting(count: int = 4, **options: Any) -> World:
    """Records "8", "9", "10", ... in one batch that is at work."""
    world = World(settings(report_batch_item_failures=True, **options))
    world.put(*["k"] * count)
    return world.run()


# -- Partial responses.


@pytest.mark.parametrize(
    "payload", [None, {}, {"batchItemFailures": None}, {"batchItemFailures": []}, {"batchItemfailures": [{"x": 1}]}]
)
def test_an_empty_null_or_misspelt_response_is_complete_success(payload: Any) -> None:
    """ "Lambda treats a batch as a complete success if you return ...". A misspelt key leaves an empty response."""
    world = reporting().answer(Returned(payload))
    assert world.settled() == ["8", "9", "10", "11"]
    assert not world.of(BatchFailed)


def test_the_lowest_number_is_the_checkpoint_and_compared_as_a_number() -> None:
    """ "Lambda uses the record with the lowest sequence number as the checkpoint": as text, "10" would be lower than "9"."""
    world = reporting().answer(named("11", "10", "9"))
    assert world.settled() == ["8"]
    assert world.mapping.checkpoints == {"a": "8"}


def test_everything_from_the_checkpoint_on_is_retried() -> None:
    """ "Lambda then retries all records starting from that checkpoint", those that had succeeded as well."""
    world = reporting().answer(named("9"))
    assert world.at_work() == [["9", "10", "11"]]
    assert [fact.is_whole for fact in world.of(BatchFailed)] == [False]


def test_what_is_retried_is_not_filled_up_with_newer_records() -> None:
    """Not documented."""
    world = reporting(batch_size=4)
    world.put("k")
    world.answer(named("10"))
    assert world.at_work() == [["10", "11"]]
    assert world.answer().at_work() == [["12"]]


@pytest.mark.parametrize("item", [{"itemIdentifier": ""}, {"itemIdentifier": None}, {"number": "9"}])
def test_an_empty_or_null_id_or_a_bad_key_is_complete_failure(item: Any) -> None:
    """ "Lambda treats a batch as a complete failure if you return ..." """
    world = reporting().answer(Returned({"batchItemFailures": [{"itemIdentifier": "10"}, item]}))
    assert world.settled() == []
    assert [fact.is_whole for fact in world.of(BatchFailed)] == [True]
    assert world.wake().at_work() == [["8", "9", "10", "11"]]


@pytest.mark.parametrize("payload", ["ok", [], 3, {"batchItemFailures": "9"}, {"batchItemFailures": ["9"]}])
def test_what_has_another_shape_is_complete_failure(payload: Any) -> None:
    """Not documented for streams."""
    assert reporting().answer(Returned(payload)).settled() == []


@pytest.mark.parametrize("identifier", ["7", "12", "nine", "09", 123])
def test_an_id_that_is_not_in_the_batch_is_complete_failure(identifier: Any) -> None:
    """Not documented for streams; for queues it is. Recorded: for streams, of the number 123."""
    assert reporting().answer(named("10", identifier)).settled() == []


def test_without_the_setting_a_response_means_nothing() -> None:
    """ "To turn on ReportBatchItemFailures, include the enum value": else the batch succeeds with the function."""
    world = World(settings(report_batch_item_failures=False))
    put = world.put("k", "k")
    world.run().answer(named(put[0]))
    assert world.settled() == put


# -- Function errors and retries.


def test_a_function_error_brings_the_whole_batch_again() -> None:
    """ "If the function is invoked but returns an error, Lambda retries"."""
    world = reporting().answer(RAISED)
    assert world.of(BatchFailed) == [BatchFailed(0, "ValueError: no", is_whole=True)]
    assert world.at_work() == []
    assert world.wake().at_work() == [["8", "9", "10", "11"]]
    assert world.mapping.checkpoints == {}


def test_retries_wait_longer_each_time() -> None:
    """Not documented how long."""
    world = reporting()
    pauses: list[float] = []
    for _ in range(12):
        world.answer(RAISED)
        failed_at = world.now
        world.wake()
        pauses.append(round(world.now - failed_at, 2))
    assert pauses[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert pauses[-1] == LONGEST_PAUSE == pause(100_000)


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_a_batch_is_given_up_after_its_retry_attempts(limit: int) -> None:
    """ "Lambda retries until the records ... reach the configured retry quota", then "discards the records and continues"."""
    world = reporting(maximum_retry_attempts=limit)
    later = world.put("k")
    for _ in range(limit):
        world.answer(RAISED).wake()
    assert not world.of(GivenUp)
    world.answer(RAISED)
    assert len(world.invocations) == limit + 2
    assert world.of(GivenUp) == [GivenUp(("8", "9", "10", "11"), "a", "RetryAttemptsExhausted")]
    assert world.mapping.checkpoints == {"a": "11"}
    assert world.at_work() == [later]


def test_without_a_limit_a_batch_is_retried_for_ever() -> None:
    """ "-1 means infinite: failed records are retried until the record expires." """
    world = reporting()
    for _ in range(200):
        world.answer(RAISED).wake()
    assert world.at_work() == [["8", "9", "10", "11"]]


def test_what_is_left_of_a_batch_has_retries_of_its_own() -> None:
    """Recorded: three retries, a batch of which the last record fails: it is delivered with the batch, and 4 times alone."""
    world = reporting(3, maximum_retry_attempts=3, on_failure=QUEUE)
    deliveries = 0
    while not world.sends:
        deliveries += 1
        world.answer(named("10"))
        if not world.waiting and not world.sends:
            world.wake()
    assert deliveries == 5
    assert world.sends[0].record["requestContext"]["approximateInvokeCount"] == 4


def test_a_response_that_names_the_first_record_counts_as_a_retry() -> None:
    """Recorded: a batch of one that is named is given up after its retries."""
    world = reporting(2, maximum_retry_attempts=1)
    world.answer(named("8")).wake()
    world.answer(named("8", "9"))
    assert world.of(GivenUp) == [GivenUp(("8", "9"), "a", "RetryAttemptsExhausted")]


# -- Bisecting.


def test_a_failed_batch_is_bisected_and_the_first_half_goes_first() -> None:
    """ "BisectBatchOnFunctionError, which splits a failed batch into two smaller batches"."""
    world = reporting(5, bisect=True).answer(RAISED).wake()
    assert world.at_work() == [["8", "9"]]
    assert world.answer().at_work() == [["10", "11", "12"]]
    assert world.answer().settled() == ["8", "9", "10", "11", "12"]


def test_bisecting_isolates_the_bad_record_and_keeps_the_order() -> None:
    world = reporting(6, bisect=True, maximum_retry_attempts=0)
    delivered: list[list[str]] = []
    while world.mapping.held:
        if not world.waiting:
            world.wake()
        [batch] = world.at_work()
        delivered.append(batch)
        world.answer(RAISED if "11" in batch else None)
    assert delivered == [["8", "9", "10", "11", "12", "13"], ["8", "9", "10"], ["11", "12", "13"], ["11"], ["12", "13"]]
    assert world.of(GivenUp) == [GivenUp(("11",), "a", "RetryAttemptsExhausted")]
    assert world.settled() == ["8", "9", "10", "12", "13"]


def test_splitting_does_not_consume_the_retry_quota() -> None:
    """ "Splitting batches doesn't consume the retry quota." """
    world = reporting(4, bisect=True, maximum_retry_attempts=2)
    alone = 0
    while not world.of(GivenUp):
        if not world.waiting:
            world.wake()
        alone += world.at_work()[0] == ["8"]
        world.answer(RAISED)
    assert alone == 3


@pytest.mark.parametrize("reports", [False, True])
def test_a_function_error_bisects_whether_failures_are_reported_or_not(reports: bool) -> None:
    """ "If your invocation fails ..., the batch is bisected regardless of your ReportBatchItemFailures setting." """
    world = World(settings(bisect=True, report_batch_item_failures=reports))
    world.put("k", "k")
    assert world.run().answer(RAISED).wake().at_work() == [["8"]]


def test_a_partial_response_bisects_at_the_returned_number() -> None:
    """ "The batch is bisected at the returned sequence number and Lambda retries only the remaining records." """
    world = reporting(6, bisect=True, maximum_retry_attempts=0).answer(named("12"))
    assert world.at_work() == [["12", "13"]]
    assert not world.of(GivenUp)
    assert world.settled() == ["8", "9", "10", "11"]


def test_what_is_left_of_the_first_half_goes_before_the_second() -> None:
    """ "Lambda processes records in each shard in order." """
    world = reporting(6, bisect=True).answer(RAISED).wake().answer(named("9"))
    assert world.at_work() == [["9", "10"]]
    assert world.answer().at_work() == [["11", "12", "13"]]


def test_a_response_that_cannot_be_meant_bisects_as_an_error_does() -> None:
    """Follows from "complete failure". Not documented."""
    assert reporting(bisect=True).answer(named("")).wake().at_work() == [["8", "9"]]


def test_naming_the_first_record_splits_nothing() -> None:
    """Not documented: the split at the returned number leaves one part empty."""
    assert reporting(bisect=True).answer(named("8")).wake().at_work() == [["8", "9", "10", "11"]]


# -- The age of records.


def test_a_record_is_not_delivered_beyond_its_maximum_age() -> None:
    """ "The maximum age of a record that Lambda sends to your function." Recorded: the younger ones of a batch are."""
    world = World(settings(maximum_record_age=60))
    old, young = world.put("k", at=NOW - 60.1), world.put("k", at=NOW - 60)
    assert world.run().at_work() == [young]
    assert world.of(GivenUp) == [GivenUp(tuple(old), "a", "RecordAgeExceeded")]


def test_the_age_is_looked_at_before_each_try() -> None:
    world = World(settings(maximum_record_age=60))
    put = world.put("k")
    world.run()
    while not world.of(GivenUp):
        assert world.now - NOW <= 60 + LONGEST_PAUSE
        world.answer(RAISED).wake()
    assert world.of(GivenUp) == [GivenUp(tuple(put), "a", "RecordAgeExceeded")]
    assert world.now > NOW + 60
    assert world.mapping.held == 0
    assert world.mapping.checkpoints == {"a": put[0]}


def test_a_batch_at_work_is_not_cut_off_by_its_age() -> None:
    world = World(settings(maximum_record_age=60))
    put = world.put("k")
    world.run().pass_time(1000).answer()
    assert world.settled() == put


def test_what_the_stream_forgets_is_given_up_as_too_old() -> None:
    """ "Lambda retries until the records expire": with the stream's retention. What is told of them is not documented."""
    world = World(settings(retention=86_400))
    put = world.put("k", at=NOW - 86_401)
    assert world.run().of(GivenUp) == [GivenUp(tuple(put), "a", "RecordAgeExceeded")]
    assert settings(retention=100, maximum_record_age=60).age_limit == 60
    assert settings(retention=50, maximum_record_age=60).age_limit == 50


def test_a_shard_of_which_the_last_records_are_too_old_ends() -> None:
    world = World(settings(maximum_record_age=60))
    world.put("k", at=NOW - 61)
    world.split("a", "b")
    put = world.put("k", shard="b")
    assert world.run().at_work() == [put]


# -- Before and beyond the function.


def test_a_throttled_batch_is_retried_and_no_attempt_is_counted() -> None:
    """ "Retry attempts ... doesn't apply to service errors or throttles where the batch didn't reach the function." """
    world = reporting(1, maximum_retry_attempts=0, on_failure=QUEUE)
    for _ in range(20):
        world.answer(Throttled())
        assert not world.waiting
        world.wake()
    assert not world.facts
    world.answer(RAISED)
    assert world.sends[0].record["requestContext"]["approximateInvokeCount"] == 1


def test_a_throttled_batch_is_given_up_at_its_age() -> None:
    """ "If ... unable to invoke the function due to throttling ..., it retries until the records expire or exceed the
    maximum age"."""
    world = World(settings(maximum_record_age=60, bisect=True))
    put = world.put("k", "k")
    world.run()
    while world.waiting:
        world.answer(Throttled()).wake()
    assert world.of(GivenUp) == [GivenUp(tuple(put), "a", "RecordAgeExceeded")]


def test_a_batch_whose_end_nobody_heard_of_comes_again_and_no_attempt_is_counted() -> None:
    """ "Lambda processes each event at least once"."""
    world = reporting(maximum_retry_attempts=0, bisect=True)
    for _ in range(5):
        world.answer(Unheard()).wake()
    assert world.at_work() == [["8", "9", "10", "11"]]
    assert not world.facts


# -- The on-failure destination.


def test_what_is_given_up_goes_to_the_destination_with_its_payload() -> None:
    world = reporting(3, maximum_retry_attempts=0, on_failure=QUEUE)
    event = world.waiting[0].event
    world.answer(RAISED)
    [send] = world.sends
    assert send.destination == QUEUE
    assert send.payload == event
    info = send.record["KinesisBatchInfo"]
    assert (info["startSequenceNumber"], info["endSequenceNumber"], info["batchSize"]) == ("8", "10", 3)
    assert send.record["requestContext"]["functionArn"] == "arn:aws:lambda:us-east-1:123456789012:function:count"


def test_a_destination_does_not_hold_the_shard_up() -> None:
    """Not documented."""
    world = reporting(1, maximum_retry_attempts=0, on_failure=QUEUE)
    later = world.put("k")
    assert world.answer(RAISED).at_work() == [later]
    assert world.mapping.held == 2
    world.mapping.sent(world.sends[0].send, world.now)
    assert world.mapping.held == 1


def test_a_record_that_the_destination_did_not_take_is_sent_again_for_a_while() -> None:
    """Not documented."""
    world = reporting(1, maximum_retry_attempts=0, on_failure=QUEUE).answer(RAISED)
    for tries in range(1, MAX_SENDS + 1):
        assert len(world.sends) == tries
        assert world.sends[-1] == world.sends[0]
        assert not world.of(Undelivered)
        world.mapping.not_sent(world.sends[-1].send, world.now)
        if tries < MAX_SENDS:
            assert world.mapping.wakes_at == world.now + 2 ** (tries - 1)
            world.wake()
    assert world.run().of(Undelivered) == [Undelivered(("8",), QUEUE)]
    assert world.mapping.held == 0
    assert len(world.sends) == MAX_SENDS


def test_a_response_names_the_condition_of_a_function_that_returned() -> None:
    """Recorded: `functionError` is null where the function returned, and named its failures."""
    world = reporting(1, maximum_retry_attempts=0, on_failure=QUEUE).answer(named("8"))
    assert world.sends[0].record["responseContext"]["functionError"] is None
    assert world.of(Settled) == []


def test_a_dynamodb_stream_tells_its_own_kind_of_place() -> None:
    """ "Retain discarded records for a DynamoDB event source": `DDBStreamBatchInfo`."""
    world = World(settings(maximum_retry_attempts=0, on_failure=QUEUE), kind="dynamodb")
    world.put("k")
    world.run().answer(RAISED)
    assert world.sends[0].record["DDBStreamBatchInfo"]["startSequenceNumber"] == "8"


def test_each_invocation_record_has_a_request_id_of_its_own_and_the_same_one_in_each_run() -> None:
    found: list[str] = []
    for _ in range(2):
        world = World(settings(maximum_retry_attempts=0, on_failure=QUEUE, batch_size=1))
        world.put("k", "k")
        world.run().answer(RAISED).answer(RAISED)
        found += [send.record["requestContext"]["requestId"] for send in world.sends]
    assert len(set(found)) == 2
    assert found[:2] == found[2:]
