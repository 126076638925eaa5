"""Tumbling windows.

Sources: Lambda developer guide, "Implementing stateful Kinesis Data Streams processing in Lambda" (the page on DynamoDB says
the same), quoted; "library": the comments of `KinesisTimeWindowEvent` in aws-lambda-java-libs.
"""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.emulator.mappings.actions import BatchFailed, GivenUp, Invoke
from pipeline.emulator.mappings.answers import Returned, Throttled, Unheard
from pipeline.emulator.mappings.response import ResponseError
from pipeline.emulator.mappings.shard import WINDOW_GRACE
from pipeline.emulator.mappings.windows import MAX_STATE, Window, returned_state, start_of
from tests.emulator.mappings.streaming import ARN, NOW, RAISED, World, numbers, settings

LENGTH = 60  # `NOW` begins a window


def windowed(**options: Any) -> World:
    return World(settings(tumbling_window=LENGTH, **options))


def state(**counts: Any) -> Returned:
    return Returned({"state": counts})


def is_final(invocation: Invoke) -> bool:
    flag: bool = invocation.event["isFinalInvokeForWindow"]
    return flag


def is_early(invocation: Invoke) -> bool:
    flag: bool = invocation.event["isWindowTerminatedEarly"]
    return flag


def test_an_event_has_its_window_the_state_and_the_shard() -> None:
    """The members of "Example KinesisTimeWindowEvent", with their spelling and their times."""
    world = windowed()
    put = world.put("k")
    event = world.run().waiting[0].event
    assert event == {
        "Records": [{"key": "k", "number": put[0]}],
        "window": {"start": "2023-11-14T22:14:00Z", "end": "2023-11-14T22:15:00Z"},
        "state": {},
        "shardId": "a",
        "eventSourceARN": ARN,
        "isFinalInvokeForWindow": False,
        "isWindowTerminatedEarly": False,
    }


def test_without_a_tumbling_window_an_event_has_none_of_them() -> None:
    world = World()
    world.put("k")
    assert list(world.run().waiting[0].event) == ["Records"]


def test_each_invocation_receives_the_state_that_the_last_one_returned() -> None:
    """ "Each invocation receives a state." """
    world = windowed(batch_size=1)
    world.put("k", "k", "k")
    world.run().answer(state(n=1))
    assert world.waiting[0].event["state"] == {"n": 1}
    world.answer(state(n=2))
    assert world.waiting[0].event["state"] == {"n": 2}


@pytest.mark.parametrize("payload", [None, {}, "ok", {"State": {}}, {"batchItemFailures": []}, {"state": 3}])
def test_a_response_without_a_state_is_a_failed_invocation(payload: Any) -> None:
    """ "If the response does not contain a state property, Lambda considers this a failed invocation." """
    world = windowed(batch_size=1, maximum_retry_attempts=1)
    put = world.put("k")
    world.run().answer(Returned(payload))
    assert [fact.is_whole for fact in world.of(BatchFailed)] == [True]
    world.wake().answer(Returned(payload))
    assert world.of(GivenUp) == [GivenUp(tuple(put), "a", "RetryAttemptsExhausted")]


def test_a_null_state_is_an_empty_one() -> None:
    """Not documented."""
    assert returned_state({"state": None}) == {}
    with pytest.raises(ResponseError, match="return an object"):
        returned_state({"state": "n"})


def test_records_belong_to_the_window_in_which_they_arrived() -> None:
    """ "Lambda determines tumbling window boundaries based on the time when records were inserted into the stream." """
    world = windowed()
    first = world.put("k", at=NOW + 59.9)
    second = world.put("k", at=NOW + 60)
    world.run()
    assert world.at_work() == [first]
    world.answer(state(n=1))
    assert is_final(world.waiting[0])
    world.answer(state())
    assert world.at_work() == [second]
    assert world.waiting[0].event["window"]["start"] == "2023-11-14T22:15:00Z"
    assert world.waiting[0].event["state"] == {}


def test_windows_follow_each_other_from_the_epoch_on() -> None:
    """Not documented; the guide's examples are multiples of their length."""
    assert start_of(1_607_497_475.0, 120) == 1_607_497_440  # 07:04:35 is in the window from 07:04:00 of the example
    assert start_of(NOW, LENGTH) == NOW


def test_at_the_end_of_a_window_a_last_invocation_has_the_state_and_no_records() -> None:
    """ "At the end of the window, the flag isFinalInvokeForWindow is set to true ..., and then the state is dropped." """
    world = windowed()
    world.put("k")
    world.run().answer(state(n=1))
    world.pass_time(LENGTH - 0.1)
    assert not world.waiting
    world.pass_time(0.1)
    [final] = world.pass_time(0.1).waiting
    assert (final.event["Records"], final.ids, final.event["state"]) == ([], (), {"n": 1})
    assert is_final(final)
    assert not is_early(final)
    world.answer(state())
    assert world.pass_time(10 * LENGTH).waiting == []
    assert len(world.invocations) == 2


def test_a_windows_end_is_waited_for_also_by_who_only_asks_when_to_wake() -> None:
    """Not documented. A grace of two seconds, unless a read that was begun since its end has found nothing: what arrived
    just before may not have been read."""
    world = windowed()
    world.put("k")
    world.run().answer(state(n=1))
    assert world.mapping.wakes_at == NOW + LENGTH + WINDOW_GRACE
    assert is_final(world.wake().waiting[0])


def test_a_window_does_not_end_while_the_shard_has_records_that_are_not_read() -> None:
    world = windowed(batch_size=1)
    world.put("k", "k", "k")
    world.run()
    world.now += 10 * LENGTH
    for count in range(3):
        assert not is_final(world.waiting[0])
        world.answer(state(n=count))
    world.pass_time(0.1)
    assert is_final(world.waiting[0])


def test_no_window_ends_that_had_no_records() -> None:
    """Not documented: without records nothing is aggregated."""
    assert windowed().run().pass_time(5 * LENGTH).invocations == []


def test_a_batching_window_does_not_outlast_the_tumbling_window() -> None:
    """Not documented."""
    world = windowed(batching_window=300)
    put = world.put("k")
    assert world.run().mapping.wakes_at == NOW + LENGTH
    assert world.wake().at_work() == [put]


def test_the_last_invocation_is_repeated_until_it_succeeds() -> None:
    """ "If invocation is unsuccessful, your Lambda function suspends further processing until a successful invocation." """
    world = windowed(maximum_retry_attempts=1, maximum_record_age=60)
    world.put("k")
    later = world.put("k", at=NOW + LENGTH)
    world.run().answer(state(n=1))
    for answer in (RAISED, Returned(None), Throttled(), Unheard(), RAISED):
        assert is_final(world.waiting[0])
        world.answer(answer)
        world.wake()
    assert world.waiting[0].event["state"] == {"n": 1}
    world.answer(state())
    assert world.at_work() == [later]
    assert not world.of(GivenUp)


def test_retries_and_ages_hold_within_a_window() -> None:
    """ "Tumbling windows fully support the existing retry policies maxRetryAttempts and maxRecordAge." """
    world = windowed(maximum_retry_attempts=0, batch_size=2, bisect=True)
    put = world.put("k", "k", "k")
    world.run().answer(RAISED).wake().answer(RAISED)
    assert world.of(GivenUp) == [GivenUp((put[0],), "a", "RetryAttemptsExhausted")]
    world.answer(state(n=1))
    assert world.at_work() == [put[2:]]
    assert world.waiting[0].event["state"] == {"n": 1}


def test_a_partial_response_keeps_its_state() -> None:
    """The example of a response has both, `state` and `batchItemFailures`."""
    world = windowed(report_batch_item_failures=True)
    put = world.put("k", "k")
    response = {"state": {"n": 1}, "batchItemFailures": [{"itemIdentifier": put[1]}]}
    world.run().answer(Returned(response))
    assert world.at_work() == [put[1:]]
    assert world.waiting[0].event["state"] == {"n": 1}


def test_what_nobody_heard_of_leaves_the_state_as_it_was() -> None:
    world = windowed(batch_size=1)
    world.put("k", "k")
    world.run().answer(state(n=1)).answer(Unheard()).wake()
    assert world.waiting[0].event["state"] == {"n": 1}


def test_a_state_of_more_than_1_mb_ends_the_window_early() -> None:
    """ "If it exceeds that size, Lambda terminates the window early." Library: isWindowTerminatedEarly is "true if window is
    terminated prematurely. Subsequent invoke will continue the same window with a fresh state"."""
    world = windowed(batch_size=1)
    put = world.put("k", "k")
    large = {"text": "x" * MAX_STATE}
    world.run().answer(Returned({"state": large}))
    [early] = world.waiting
    assert (numbers(early), early.event["state"]) == ([], large)
    assert (is_early(early), is_final(early)) == (True, False)
    world.answer(state())
    [next_one] = world.waiting
    assert (numbers(next_one), next_one.event["state"]) == (put[1:], {})
    assert next_one.event["window"] == early.event["window"]
    world.answer(state(n=1))
    assert is_final(world.wake().waiting[0])


def test_a_state_of_1_mb_is_not_too_large() -> None:
    """1 MB is taken for 1 MiB of JSON, in UTF-8. Not documented."""
    window = Window(NOW, LENGTH)
    window.keep("x" * (MAX_STATE - 2))
    assert not window.is_too_large
    window.keep("é" * (MAX_STATE // 2))
    assert window.is_too_large


def test_a_reshard_closes_the_window_and_children_start_with_a_fresh_state() -> None:
    """ "When the shard ends, Lambda considers the window closed, and the child shards start their own window in a fresh
    state." """
    world = windowed()
    world.put("k")
    world.split("a", "b")
    child = world.put("k", shard="b")
    world.run().answer(state(n=1))
    [final] = world.waiting
    assert (is_final(final), is_early(final), final.event["state"]) == (True, False, {"n": 1})
    world.answer(state())
    assert world.at_work() == [child]
    assert world.waiting[0].event["state"] == {}
    assert world.waiting[0].event["shardId"] == "b"


def test_a_record_that_is_older_than_its_shards_open_window_is_aggregated_in_that() -> None:
    """Not documented: times of arrival are approximate, windows of a shard follow its order."""
    world = windowed()
    world.put("k", at=NOW)
    late = world.put("k", at=NOW - 0.01)
    world.run()
    assert world.at_work() == [["8", *late]]


def test_each_shard_has_a_window_of_its_own() -> None:
    world = World(settings(tumbling_window=LENGTH, batch_size=1), shards=["a", "b"])
    world.put("k", "k", shard="a")
    world.put("k", "k", shard="b")
    world.run().answer(state(shard="a")).answer(state(shard="b"))
    assert [one.event["state"] for one in world.waiting] == [{"shard": "a"}, {"shard": "b"}]
