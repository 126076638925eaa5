"""The documented rules of a stream's event source mapping, on values alone."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.emulator.mapping import MAX_EVENT_BYTES
from pipeline.emulator.stream_mapping import Shard, ShardBatches, Verdict, judge, startable

NUMBERS = ["8", "9", "10", "11"]


def named(*numbers: Any) -> dict[str, Any]:
    return {"batchItemFailures": [{"itemIdentifier": number} for number in numbers]}


def batches(batch_size: int = 10, window: float = 0, retry_attempts: int = -1, **options: Any) -> ShardBatches[int]:
    return ShardBatches(batch_size, window, retry_attempts, **options)


def filled(count: int, **options: Any) -> ShardBatches[int]:
    made = batches(**options)
    for position in range(count):
        made.add(position, 1, now=0)
    return made


@pytest.mark.parametrize("response", [None, {}, {"batchItemFailures": None}, {"batchItemFailures": []}, {"x": 1}])
def test_an_empty_response_moves_the_checkpoint_behind_the_batch(response: Any) -> None:
    assert judge(response, NUMBERS) == Verdict(4)


def test_the_lowest_number_is_the_checkpoint_and_compared_as_a_number() -> None:
    assert judge(named("11", "9", "10"), NUMBERS) == Verdict(1)
    assert judge(named("10"), NUMBERS) == Verdict(2)
    assert judge(named("8"), NUMBERS) == Verdict(0)


@pytest.mark.parametrize(
    "response",
    [
        "ok",
        [],
        named(""),
        named(None),
        named(9),
        named("10", ""),
        named("10", "12"),
        {"batchItemFailures": [{"sequenceNumber": "9"}]},
        {"batchItemFailures": ["9"]},
        {"batchItemFailures": "9"},
        {"batchItemFailures": {1}},
        float("nan"),
    ],
)
def test_a_response_that_cannot_be_meant_brings_the_whole_batch_again(response: Any) -> None:
    verdict = judge(response, NUMBERS)
    assert verdict.settled == 0
    assert verdict.fault


@given(st.sets(st.integers(0, 10**130), min_size=1, max_size=30), st.data())
def test_nothing_unsettled_is_ever_behind_the_checkpoint(numbers: set[int], data: st.DataObject) -> None:
    batch = sorted(numbers)
    failed = data.draw(st.lists(st.sampled_from(batch), max_size=5))
    settled = judge(named(*map(str, failed)), list(map(str, batch))).settled
    assert all(number not in failed for number in batch[:settled])
    assert settled == len(batch) or batch[settled] in failed


def test_a_batch_goes_out_at_its_size_or_at_its_windows_end() -> None:
    made = filled(2, batch_size=3, window=5)
    assert not made.is_due(4.9)
    assert made.wanted() == 1
    assert made.is_due(5)
    made.add(2, 1, now=1)
    assert made.is_due(1)
    assert made.wanted() == 0


def test_a_batch_goes_out_early_when_the_next_record_does_not_fit_into_the_event() -> None:
    made = batches(window=60)
    made.add(0, MAX_EVENT_BYTES - 10, now=0)
    assert not made.is_due(0)
    made.add(1, 11, now=0)
    assert made.is_due(0)
    assert made.take(0) == [0]
    made.settle(Verdict(1))
    assert made.held == 1
    assert made.take(60) == [1]


def test_a_record_that_is_too_large_by_itself_goes_out_alone() -> None:
    made = batches()
    for position, size in enumerate([10, MAX_EVENT_BYTES + 1, 10]):
        made.add(position, size, now=0)
    sent: list[list[int]] = []
    while made.is_due(0):
        sent.append(made.take(0))
        made.settle(Verdict(len(sent[-1])))
    assert sent == [[0], [1], [2]]


def test_a_shard_that_has_ended_waits_for_no_window() -> None:
    made = filled(1, window=60)
    assert not made.is_due(0)
    assert made.is_due(0, is_last=True)
    assert not batches().is_due(0, is_last=True)


def test_what_is_left_of_a_batch_comes_again_at_once_and_without_newer_records() -> None:
    made = filled(4, batch_size=4, window=60)
    assert made.take(0) == [0, 1, 2, 3]
    made.add(4, 1, now=0)
    assert made.settle(Verdict(2)) == []
    assert made.is_due(0)
    assert made.take(0) == [2, 3]
    assert made.held == 3
    made.settle(Verdict(2))
    assert not made.is_due(0)
    assert made.take(60) == [4]


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_a_batch_that_gets_nowhere_is_given_up_after_its_retries(limit: int) -> None:
    made = filled(2, retry_attempts=limit)
    deliveries = 0
    given_up: list[int] = []
    while made.is_due(0):
        made.take(0)
        deliveries += 1
        given_up += made.settle(Verdict(0))
    assert (deliveries, given_up, made.held) == (limit + 1, [0, 1], 0)


def test_the_retries_start_anew_when_the_checkpoint_moves() -> None:
    made = filled(3, retry_attempts=1)
    for settled in (0, 1, 0):
        made.take(0)
        assert made.settle(Verdict(settled)) == []
    made.take(0)
    assert made.settle(Verdict(0)) == [1, 2]


def test_without_a_limit_nothing_is_given_up() -> None:
    made = filled(1)
    for _ in range(50):
        assert made.take(0) == [0]
        assert made.settle(Verdict(0)) == []


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=40),
    st.integers(1, 25),
    st.integers(10, 100),
    st.integers(0, 3),
    st.data(),
)
def test_every_record_is_settled_or_given_up_once_and_in_order(
    sizes: list[int], batch_size: int, limit: int, retries: int, data: st.DataObject
) -> None:
    made = batches(batch_size, 1, retries, max_bytes=limit)
    waiting = list(enumerate(sizes))
    done: list[int] = []
    while waiting or made.held:
        while not made.is_due(0) and waiting:
            wanted = made.wanted()
            assert wanted >= 1
            for position, size in waiting[:wanted]:
                made.add(position, size, now=0)
            del waiting[:wanted]
        batch = made.take(0)
        assert 1 <= len(batch) <= batch_size
        assert len(batch) == 1 or sum(sizes[position] for position in batch) <= limit
        settled = data.draw(st.integers(0, len(batch)))
        done += batch[:settled]
        done += made.settle(Verdict(settled))
    assert done == list(range(len(sizes)))


PARENTS = [Shard("a"), Shard("b")]
CHILDREN = [Shard("a1", ("a",)), Shard("a2", ("a",)), Shard("ab", ("a", "b"))]


@pytest.mark.parametrize(
    ("finished", "expected"),
    [
        (set[str](), ["a", "b"]),
        ({"a"}, ["b", "a1", "a2"]),
        ({"a", "b"}, ["a1", "a2", "ab"]),
    ],
)
def test_children_are_read_after_all_their_parents(finished: set[str], expected: list[str]) -> None:
    found = startable([*PARENTS, *CHILDREN], finished, finished)
    assert [shard.id for shard in found] == expected


def test_a_parent_that_is_read_holds_its_children_back_and_is_not_started_twice() -> None:
    assert startable([*PARENTS, *CHILDREN], {"a", "b"}, set()) == []


def test_nobody_waits_for_a_parent_that_the_stream_no_longer_lists() -> None:
    assert startable(CHILDREN, set(), set()) == CHILDREN
