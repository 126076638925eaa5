"""Which shards of a stream are read, from where, and when.

Source, unless a test names another: Lambda developer guide, "Using AWS Lambda with Amazon Kinesis" (and "with Amazon
DynamoDB").
"""

from __future__ import annotations

import pytest

from pipeline.emulator.mappings.actions import ListShards, Read, Shard
from pipeline.emulator.mappings.machine import Page
from pipeline.emulator.mappings.stream import LISTING_SECONDS, StreamMapping
from pipeline.errors import ConfigurationError
from tests.emulator.mappings.streaming import NOW, World, settings


def test_every_shard_is_read_by_itself_and_a_batch_holds_records_of_one() -> None:
    """ "Each batch contains records from a single shard." """
    world = World(shards=["a", "b"])
    first, second = world.put("k", shard="a"), world.put("k", shard="b")
    assert world.run().at_work() == [first, second]


def test_from_trim_horizon_all_that_the_stream_holds_is_read() -> None:
    world = World(settings(starting_position="TRIM_HORIZON"))
    old = world.put("k")
    assert world.run().at_work() == [old]
    assert world.reads[0] == Read("a", None, "TRIM_HORIZON", None, 100)


def test_from_latest_only_what_comes_from_now_on_is_read() -> None:
    world = World(settings(starting_position="LATEST"))
    world.put("k")
    world.run()
    new = world.put("k")
    assert world.run().at_work() == [new]


def test_at_a_timestamp_what_arrived_since_is_read() -> None:
    world = World(settings(starting_position="AT_TIMESTAMP", starting_timestamp=NOW - 10))
    world.put("k", at=NOW - 11)
    later = world.put("k", at=NOW - 10)
    assert world.run().at_work() == [later]
    assert world.reads[0].timestamp == NOW - 10


def test_a_timestamp_holds_for_children_that_are_there_at_the_start_too() -> None:
    """They wait for their parents, and begin where the mapping does all the same."""
    world = World(settings(starting_position="AT_TIMESTAMP", starting_timestamp=NOW - 10))
    world.put("k", at=NOW - 30)
    world.split("a", "b")
    world.put("k", shard="b", at=NOW - 20)
    later = world.put("k", shard="b", at=NOW - 5)
    assert world.run().at_work() == [later]


def test_a_dynamodb_stream_has_no_starting_timestamp() -> None:
    """API model, `StartingPosition`: "AT_TIMESTAMP is supported only for Amazon Kinesis streams, ..." """
    options = settings(starting_position="AT_TIMESTAMP", starting_timestamp=NOW)
    with pytest.raises(ConfigurationError, match="not for DynamoDB"):
        StreamMapping(options, "dynamodb")


@pytest.mark.parametrize("position", ["TRIM_HORIZON", "LATEST"])
def test_a_shard_that_appears_later_is_read_from_its_beginning(position: str) -> None:
    """Not documented by Lambda; otherwise a reshard would lose what came to a child before it was found."""
    world = World(settings(starting_position=position))
    world.run()
    world.split("a", "b", "c")
    early = world.put("k", shard="b")
    assert world.run().at_work() == [early]
    assert {read.shard: read.position for read in world.reads} == {
        "a": position,
        "b": "TRIM_HORIZON",
        "c": "TRIM_HORIZON",
    }


def test_a_child_is_read_when_its_parent_is_settled_to_its_end() -> None:
    """ "Lambda processes records in each shard in order"; a key's records move to a child at a reshard."""
    world = World()
    parents, children = world.put("k"), []
    world.split("a", "b")
    children = world.put("k", shard="b")
    assert world.run().at_work() == [parents]
    assert world.answer().at_work() == [children]


def test_a_merged_shard_waits_for_both_its_parents() -> None:
    world = World(shards=["a", "b"])
    first, second = world.put("k", shard="a"), world.put("j", shard="b")
    world.split("a", "c")
    world.split("b", "c")
    child = world.put("k", shard="c")
    assert world.run().at_work() == [first, second]
    assert world.answer().at_work() == [second]
    assert world.answer().at_work() == [child]


def test_nobody_waits_for_a_parent_that_the_stream_no_longer_lists() -> None:
    """Its records have expired (Kinesis, `ListShards`: a closed shard is listed until its records expire)."""
    world = World(shards=[])
    world.parents, world.records = {"b": ("gone",)}, {"b": []}
    orphan = world.put("k", shard="b")
    assert world.run().at_work() == [orphan]


def test_from_latest_shards_that_are_there_at_the_start_do_not_wait_for_their_parents() -> None:
    """Nothing of a closed parent is read from LATEST on; a child that waited would miss what comes meanwhile."""
    mapping = StreamMapping(settings(starting_position="LATEST"), "kinesis")
    assert mapping.actions(NOW) == [ListShards()]
    mapping.listed([Shard("a"), Shard("b", ("a",))], NOW)
    assert [action.shard for action in mapping.actions(NOW) if isinstance(action, Read)] == ["a", "b"]


def test_shards_are_listed_at_the_start_when_one_has_ended_and_while_that_brought_none() -> None:
    """How often Lambda looks is not documented."""
    world = World(shards=["a", "other"])
    world.run()
    assert (world.listings, world.mapping.wakes_at) == (1, None)
    world.split("a")
    assert world.run().listings == 2
    assert world.mapping.wakes_at == NOW + LISTING_SECONDS
    world.split("a", "b")
    assert world.wake().listings == 3
    assert world.mapping.wakes_at is None


def test_a_shard_that_ends_during_a_listing_brings_another_one_at_once() -> None:
    """The one that is under way may have been asked before the reshard."""
    mapping = StreamMapping(settings(), "kinesis")
    mapping.actions(NOW)
    mapping.listed([Shard("a"), Shard("b")], NOW)
    mapping.actions(NOW)
    mapping.was_read("a", Page([], has_ended=True), NOW)
    assert mapping.actions(NOW) == [ListShards()]
    mapping.was_read("b", Page([], has_ended=True), NOW)
    assert mapping.actions(NOW) == []
    mapping.listed([Shard("a"), Shard("b")], NOW)
    assert mapping.actions(NOW) == [ListShards()]


def test_a_listing_that_failed_is_asked_for_again_a_second_later() -> None:
    mapping = StreamMapping(settings(), "kinesis")
    mapping.actions(NOW)
    mapping.not_listed(NOW)
    assert mapping.wakes_at == NOW + 1
    assert mapping.actions(NOW + 0.9) == []
    assert mapping.actions(NOW + 1) == [ListShards()]


def test_a_read_that_failed_is_asked_for_again_a_second_later_at_the_same_place() -> None:
    mapping = StreamMapping(settings(), "kinesis")
    mapping.actions(NOW)
    mapping.listed([Shard("a")], NOW)
    [read] = mapping.actions(NOW)
    mapping.not_read("a", NOW)
    assert mapping.wakes_at == NOW + 1
    assert mapping.actions(NOW + 0.9) == []
    assert mapping.actions(NOW + 1) == [read]


def test_one_read_of_a_shard_is_under_way_at_a_time() -> None:
    mapping = StreamMapping(settings(), "kinesis")
    mapping.actions(NOW)
    mapping.listed([Shard("a")], NOW)
    assert len(mapping.actions(NOW)) == 1
    assert mapping.actions(NOW) == []
    mapping.was_read("a", Page([], millis_behind=5), NOW)
    assert len(mapping.actions(NOW)) == 1
    assert mapping.millis_behind == 5


def test_a_shard_is_not_read_while_the_function_has_its_batch() -> None:
    """ "Lambda invokes your function and waits for the result. If processing succeeds, Lambda resumes polling." """
    world = World(settings(batch_size=2))
    batch = world.put("k", "k")
    world.run()
    reads, later = len(world.reads), world.put("k")
    assert world.run().at_work() == [batch]
    assert len(world.reads) == reads
    assert world.answer().at_work() == [later]


def test_a_limit_of_this_machine_is_shared_by_turns() -> None:
    world = World(settings(batch_size=1), shards=["a", "b", "c"], limit=1)
    rows = {shard: world.put("k", "k", "k", shard=shard) for shard in "abc"}
    world.run()
    order: list[str] = []
    while world.waiting:
        assert len(world.waiting) == 1
        order += world.at_work()[0]
        world.answer()
    assert order == [rows[shard][turn] for turn in (0, 1, 2) for shard in "abc"]
