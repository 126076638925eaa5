"""A parallelization factor: batches of a shard side by side, and the order of each partition key.

Source, unless a test names another: Lambda developer guide, "Using AWS Lambda with Amazon Kinesis" ("You can specify the
number of concurrent batches that Lambda polls from a shard via a parallelization factor from 1 (default) to 10"), and AWS
Compute Blog, "New AWS Lambda scaling controls for Kinesis and DynamoDB event sources".
"""

from __future__ import annotations

import pytest

from pipeline.emulator.mappings.actions import Filtered, GivenUp
from pipeline.emulator.mappings.shard import MAX_READ
from pipeline.errors import ConfigurationError
from tests.emulator.mappings.streaming import RAISED, World, named, settings

KEYS = [f"key {number}" for number in range(40)]


def test_at_most_so_many_batches_of_a_shard_are_at_work() -> None:
    """ "When you set ParallelizationFactor to 2, you can have 200 concurrent Lambda invocations ... to process 100 shards." """
    for factor in (1, 2, 5, 10):
        world = World(settings(parallelization_factor=factor, batch_size=1))
        world.put(*KEYS)
        world.run()
        assert len(world.waiting) == factor
        while world.waiting:
            assert len(world.waiting) <= factor
            world.answer()
        assert sorted(world.settled(), key=int) == [record.number for record in world.records["a"]]


def test_records_of_one_partition_key_follow_each_other() -> None:
    world = World(settings(parallelization_factor=10, batch_size=1))
    put = world.put("same", "same", "same")
    world.run()
    for number in put:
        assert world.at_work() == [[number]]
        world.answer()


def test_a_failing_key_holds_up_its_lane_and_no_other() -> None:
    world = World(settings(parallelization_factor=2, batch_size=1))
    world.put(*KEYS[:10])
    world.run()
    bad = world.at_work()[0]
    settled = 0
    for _ in range(60):
        if not world.waiting:
            if world.mapping.wakes_at is None:
                break
            world.wake()
        failing = world.at_work()[0] == bad
        settled += not failing
        world.answer(RAISED if failing else None)
    assert settled > 0
    assert bad[0] not in world.settled()
    assert world.mapping.checkpoints.get("a", "7") < bad[0]


def test_the_checkpoint_of_the_shard_is_the_lowest_of_its_lanes() -> None:
    """Follows from what a checkpoint is: a restart reads on from there."""
    world = World(settings(parallelization_factor=10, batch_size=1))
    put = world.put(*KEYS[:10])
    world.run()
    lane = _lane(KEYS[0])
    while len(world.waiting) > 1:
        world.waiting.sort(key=lambda one: one.ids == (put[0],))
        world.answer()
    assert world.at_work() == [put[:1]]
    assert world.mapping.checkpoints == {}
    beside = [number for key, number in zip(KEYS, put, strict=False) if _lane(key) == lane]
    world.answer()
    assert world.mapping.checkpoints == {"a": str(int(beside[1]) - 1) if len(beside) > 1 else put[-1]}


def test_what_a_busy_lane_has_waiting_bounds_what_is_read() -> None:
    """Not documented: so many records wait at most as fill a batch of each lane, and 100 for each lane."""
    world = World(settings(parallelization_factor=2, batch_size=10))
    world.put(*["hot"] * 1000)
    world.run()
    assert len(world.waiting) == 1
    assert world.mapping.held <= 10 + 200
    assert all(read.limit <= 200 for read in world.reads)


def test_each_lane_has_its_own_batching_window() -> None:
    """Not documented."""
    world = World(settings(parallelization_factor=10, batching_window=10))
    world.put(KEYS[0])
    world.run().pass_time(4)
    other = next(key for key in KEYS if _lane(key) != _lane(KEYS[0]))
    world.put(other)
    world.run().pass_time(6)
    assert world.at_work() == [["8"]]
    assert world.pass_time(4).at_work() == [["8"], ["9"]]


def _lane(key: str) -> int:
    world = World(settings(parallelization_factor=10))
    world.put(key)
    world.run()
    reader = world.mapping._readers["a"]
    return next(number for number, lane in enumerate(reader.lanes) if lane.is_at_work)


def test_a_lane_is_a_matter_of_the_key_alone() -> None:
    assert [_lane(key) for key in KEYS[:5]] == [_lane(key) for key in KEYS[:5]]
    assert len({_lane(key) for key in KEYS}) > 5


def test_partial_failures_bisecting_and_giving_up_are_each_lanes_own() -> None:
    world = World(
        settings(parallelization_factor=2, report_batch_item_failures=True, bisect=True, maximum_retry_attempts=0)
    )
    world.put(*KEYS[:20])
    world.run()
    first, second = world.at_work()
    world.answer(named(first[-1]))
    assert world.at_work() == [second, first[-1:]]
    world.answer(RAISED)
    world.answer(RAISED)
    assert world.of(GivenUp) == [GivenUp((first[-1],), "a", "RetryAttemptsExhausted")]
    assert world.wake().at_work() == [second[: len(second) // 2]]


def test_children_wait_for_every_lane_of_their_parent() -> None:
    world = World(settings(parallelization_factor=10, batch_size=1))
    world.put(*KEYS[:5])
    world.split("a", "b")
    child = world.put(KEYS[0], shard="b")
    world.run()
    while world.waiting != [] and child not in world.at_work():
        assert "b" not in {read.shard for read in world.reads}
        world.answer()
    assert len(world.settled()) == 5


def test_a_limit_holds_over_lanes() -> None:
    world = World(settings(parallelization_factor=10, batch_size=1), limit=3)
    world.put(*KEYS)
    world.run()
    while world.waiting:
        assert len(world.waiting) <= 3
        world.answer()
    assert len(world.settled()) == len(KEYS)
    assert not world.of(Filtered)


def test_a_tumbling_window_has_no_lanes() -> None:
    """Not documented by AWS: its API refuses any factor but 1 beside a window, as users of Terraform's Lambda module report."""
    with pytest.raises(ConfigurationError, match="exclude each other"):
        settings(parallelization_factor=2, tumbling_window=60)


def test_a_read_is_never_larger_than_kinesis_allows() -> None:
    assert MAX_READ == 10_000
