"""When a batch of a stream's records goes out, and what is in it.

Source, unless a test names another: Lambda developer guide, "How Lambda processes records from stream and queue-based
event sources" ("Batching behavior").
"""

from __future__ import annotations

import base64
from typing import Any

import pytest

from pipeline.decisions.patterns import read_filter
from pipeline.emulator.mappings.actions import Filtered, Settled
from pipeline.emulator.mappings.batching import MAX_EVENT_BYTES
from tests.emulator.mappings.streaming import NOW, World, settings


def test_without_a_window_records_go_out_as_soon_as_they_are_read() -> None:
    """ "By default, Lambda invokes your function as soon as records are available." """
    world = World()
    only = world.put("k")
    assert world.run().at_work() == [only]
    assert world.waiting[0].event == {"Records": [{"key": "k", "number": only[0]}]}
    assert world.waiting[0].ids == tuple(only)


def test_a_batch_has_no_more_than_its_size() -> None:
    world = World(settings(batch_size=3))
    put = world.put(*"kkkkk")
    assert world.run().at_work() == [put[:3]]
    assert world.answer().at_work() == [put[3:]]


def test_no_more_is_read_than_goes_into_the_batch() -> None:
    world = World(settings(batch_size=3, batching_window=60))
    world.put("k", "k")
    world.run()
    assert [read.limit for read in world.reads] == [3, 1]
    assert world.mapping.held == 2


def test_a_call_asks_for_10000_records_at_most() -> None:
    """Kinesis API, `GetRecords`: a limit of 10,000."""
    world = World(settings(batch_size=10_000, parallelization_factor=10))
    assert world.run().reads[0].limit == 10_000


def test_with_a_window_a_batch_goes_out_at_its_end() -> None:
    world = World(settings(batching_window=5))
    first = world.put("k")
    world.run()
    world.pass_time(4.9)
    second = world.put("k")
    assert world.run().at_work() == []
    assert world.mapping.wakes_at == NOW + 5
    assert world.wake().at_work() == [first + second]


def test_with_a_window_a_batch_goes_out_when_it_has_its_size() -> None:
    world = World(settings(batching_window=5, batch_size=2))
    put = world.put("k", "k", "k")
    assert world.run().at_work() == [put[:2]]
    world.answer()
    assert world.at_work() == []
    assert world.mapping.wakes_at == NOW + 5


def test_a_batch_goes_out_early_when_the_next_record_would_pass_6_mb() -> None:
    """ "The payload size reaches 6 MB"; each record's metadata counts."""
    world = World(settings(batching_window=60))
    first = world.put("k", size=MAX_EVENT_BYTES - 10)
    assert world.run().at_work() == []
    second = world.put("k", size=11)
    assert world.run().at_work() == [first]
    assert world.answer().at_work() == []
    assert world.mapping.wakes_at == NOW + 60
    assert world.wake().at_work() == [second]


def test_a_record_that_is_too_large_by_itself_goes_out_alone() -> None:
    """Not documented: AWS cannot have one, 1 MiB of data makes 1.4 MB. Here nobody else could take it."""
    world = World()
    put = [world.put("k", size=size) for size in (10, MAX_EVENT_BYTES + 1, 10)]
    world.run()
    assert [world.at_work()[0], world.answer().at_work()[0], world.answer().at_work()[0]] == put


def test_a_shard_that_has_ended_waits_for_no_window() -> None:
    """Not documented: nothing more can come."""
    world = World(settings(batching_window=60))
    put = world.put("k")
    world.split("a", "b")
    assert world.run().at_work() == [put]


def test_success_moves_the_checkpoint_behind_the_batch() -> None:
    """ "Lambda checkpoints to the highest sequence number of a batch only when the batch is a complete success." """
    world = World()
    put = world.put("k", "k")
    world.run()
    assert world.mapping.checkpoints == {}
    world.answer()
    assert world.mapping.checkpoints == {"a": put[-1]}
    assert world.of(Settled) == [Settled(tuple(put))]
    assert world.mapping.held == 0


ORDERS = {"kind": ["order"]}


def filtered(**options: Any) -> World:
    return World(settings(filter=read_filter(ORDERS, member="data", declared="Kinesis"), **options))


def test_a_filter_passes_records_over_before_batches_are_made() -> None:
    """ "Control which events Lambda sends": "If none of your filters are satisfied, Lambda discards the record." """
    world = filtered(batch_size=3)
    first = world.put("k", data=b'{"kind": "order"}')
    other = world.put("k", data=b'{"kind": "refund"}')
    second = world.put("k", data=b'{"kind": "order"}')
    assert world.run().at_work() == [first + second]
    assert world.of(Filtered) == [Filtered(tuple(other))]


def test_a_page_of_which_nothing_matches_moves_the_checkpoint() -> None:
    """Follows from "discards the record": there is nothing to come back to."""
    world = filtered()
    others = world.put("k", "k", data=b'{"kind": "refund"}')
    assert world.run().waiting == []
    assert world.mapping.checkpoints == {"a": others[-1]}
    assert world.reads[-1].after == others[-1]
    assert world.mapping.held == 0


def test_what_is_filtered_behind_a_batch_at_work_does_not_move_the_checkpoint_past_it() -> None:
    world = filtered()
    order = world.put("k", data=b'{"kind": "order"}')
    world.put("k", data=b"{}")
    assert world.run().at_work() == [order]
    assert world.mapping.checkpoints == {}
    world.answer()
    assert world.mapping.checkpoints == {"a": "9"}


def test_data_that_is_no_json_never_matches() -> None:
    """ "Lambda event filtering", table of Kinesis and DynamoDB: a pattern for data that is no JSON drops the record."""
    world = filtered()
    put = world.put("k", data=base64.b64encode(b"order"))
    assert world.run().waiting == []
    assert world.of(Filtered) == [Filtered(tuple(put))]


@pytest.mark.parametrize(("name", "passes"), [("INSERT", True), ("REMOVE", False)])
def test_a_filter_of_a_dynamodb_stream_sees_the_records_own_object(name: str, passes: bool) -> None:
    only = read_filter({"Keys": {"id": {"S": ["INSERT"]}}}, member="dynamodb", declared="DynamoDBStream")
    world = World(settings(filter=only), kind="dynamodb")
    put = world.put("k", data={"Keys": {"id": {"S": name}}})
    assert world.run().at_work() == ([put] if passes else [])
