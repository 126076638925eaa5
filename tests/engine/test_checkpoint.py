"""`Checkpoint`: nothing unsettled is ever passed over, and what stands at or before a written place is not run again."""

from __future__ import annotations

import asyncio
import base64
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import Backoff, Checkpoint, Pipeline, Record, Reject, by, sources
from pipeline.decisions.deadline import Deadline, deadline
from pipeline.emulator.virtual import VirtualClock, virtually
from pipeline.errors import SinkUnavailable, StoreUnavailable
from pipeline.outcome import Duplicate, is_settled
from pipeline.record import RawRecord
from pipeline.stores import Memory
from pipeline.telemetry.events import CompletionLost
from tests.engine.harness import Letters, Sink
from tests.engine.hosts import FOREVER, Host, Raised, WatchedStore, kinds
from tests.engine.test_gathering import Archive
from tests.engine.test_streams import event
from tests.support.aggregates import aggregate

READINGS = sources.Kinesis("readings")
SIDE_BY_SIDE = sources.Kinesis("readings", parallelization_factor=4)
QUEUE = sources.SQS("orders.fifo")
DOWN = StoreUnavailable("down")


STREAM_ARN = "arn:aws:kinesis:eu-west-1:111122223333:stream/readings"
QUEUE_ARN = "arn:aws:sqs:eu-west-1:111122223333:orders.fifo"


def read(
    *names: str,
    keys: Sequence[str] | None = None,
    first: int = 1,
    shard: str | None = None,
    arn: str | None = STREAM_ARN,
) -> list[RawRecord]:
    """Records of one shard with these payloads, in order; the partition key is the name's first letter."""
    made = event(*({"name": name, "lane": name[0]} for name in names), keys=keys or [n[0] for n in names], first=first)
    if shard is not None:
        for record in made["Records"]:
            record["eventID"] = f"{shard}:{record['kinesis']['sequenceNumber']}"
    for record in made["Records"]:
        record["eventSourceARN"] = arn
    return READINGS.decode(made)


def queued(*names: str, numbers: Sequence[int | None] | None = None, arn: str | None = QUEUE_ARN) -> list[RawRecord]:
    """Messages of a FIFO queue; the group is the name's first letter, the number says the place."""
    return QUEUE.decode({
        "Records": [
            {
                "messageId": name,
                "receiptHandle": name,
                "body": f'{{"name": "{name}", "lane": "{name[0]}"}}',
                "attributes": {
                    "MessageGroupId": name[0],
                    **({} if number is None else {"SequenceNumber": f"{18_849_496_460_467_696_128 + number}"}),
                },
                "eventSource": "aws:sqs",
                "eventSourceARN": arn,
            }
            for name, number in zip(names, numbers or range(1, len(names) + 1), strict=True)
        ]
    })  # fmt: skip


@dataclass
class Plant:
    """A handler under `Checkpoint`, what it ran, and what becomes of each record by its name."""

    source: Any = READINGS
    options: dict[str, Any] = field(default_factory=dict)
    sinks: Sequence[Any] = ()
    ends: dict[str, str] = field(default_factory=dict)  #: by name: "fail", "reject" or "hang"; else it succeeds
    store: WatchedStore = field(default_factory=lambda: WatchedStore(Memory()))
    letters: Letters = field(default_factory=Letters)
    runs: list[str] = field(default_factory=list)
    facts: list[Any] = field(default_factory=list)
    mode: Checkpoint = field(default_factory=Checkpoint)

    @property
    def stage(self) -> Any:
        pipeline = Pipeline("plant", idempotency=self.mode)

        async def read(record: Record[dict[str, Any]]) -> Any:
            name = record.payload["name"]
            self.runs.append(name)
            match self.ends.get(name):
                case "fail":
                    raise ValueError("no")
                case "slow fail":
                    await asyncio.sleep(1)
                    raise ValueError("no")
                case "reject":
                    raise Reject("never")
                case "hang":
                    await asyncio.sleep(1_000)
                case "slow":
                    await asyncio.sleep(1)
            return record.payload

        options = {"retry": None, "sinks": self.sinks, **self.options}
        return pipeline.handler(self.source, **options)(read).stage

    def host(self) -> Host:
        return Host(self.stage, self.store, clock=VirtualClock(), letters=self.letters, facts=self.facts)

    def deliver(self, *records: RawRecord, remaining: float | None = None) -> list[str]:
        """One batch in an environment of its own: the names of its outcomes. `runs` is what it ran."""
        self.runs.clear()

        async def scenario() -> Any:
            until = FOREVER if remaining is None else deadline(asyncio.get_running_loop().time(), remaining)
            async with self.host() as host:
                return await host.deliver(*records, deadline=until)

        return kinds(virtually(scenario()))

    @property
    def lost(self) -> list[Any]:
        return [fact for fact in self.facts if isinstance(fact, CompletionLost)]


# What is settled is not run again


@pytest.mark.parametrize("source", [READINGS, SIDE_BY_SIDE])
@pytest.mark.parametrize("lane", [None, by.partition_key, "lane", ("lane",), lambda payload: payload["lane"]])
def test_a_stream_that_delivers_again_runs_nothing_again(source: Any, lane: Any) -> None:
    plant = Plant(source=source, options={"lane": lane})
    records = read("a1", "b1", "a2", "b2")

    assert plant.deliver(*records) == ["Succeeded"] * 4
    assert plant.deliver(*records) == ["Duplicate"] * 4
    assert plant.deliver(*records[1:]) == ["Duplicate"] * 3
    assert plant.runs == []


def test_a_queue_that_delivers_again_runs_nothing_again_in_any_group() -> None:
    plant = Plant(source=QUEUE)
    records = queued("a1", "b1", "a2", "c1")

    assert plant.deliver(*records) == ["Succeeded"] * 4
    assert plant.deliver(*records, *queued("c2", numbers=[5])) == ["Duplicate"] * 4 + ["Succeeded"]


def test_a_batch_costs_one_read_and_one_write_and_a_repeat_of_it_a_read() -> None:
    plant = Plant()
    records = read(*(f"a{n}" for n in range(100)))

    plant.deliver(*records)
    assert plant.store.calls == [("look", 1), ("advance", 1)]
    plant.store.calls.clear()
    plant.deliver(*records)
    assert plant.store.calls == [("look", 1)]


def test_each_lane_of_a_shard_costs_a_place_and_they_share_the_calls() -> None:
    plant = Plant(options={"lane": "lane"})

    plant.deliver(*read("a1", "b1", "a2", "c1"))

    assert plant.store.calls == [("look", 3), ("advance", 3)]


def test_after_a_reshard_children_run_and_a_repeat_of_the_parent_does_not() -> None:
    plant = Plant()
    parent = read("a1", "a2", first=10)
    child = read("a3", "a4", first=1, shard="shardId-000000000001")  # numbers of another shard say nothing here

    assert plant.deliver(*parent) == ["Succeeded"] * 2
    assert plant.deliver(*child) == ["Succeeded"] * 2
    assert plant.deliver(*parent) == ["Duplicate"] * 2
    assert plant.deliver(*child) == ["Duplicate"] * 2


@pytest.mark.parametrize("source", [READINGS, SIDE_BY_SIDE])
@pytest.mark.parametrize(
    "other",
    [
        STREAM_ARN.replace("readings", "measures"),
        STREAM_ARN.replace("eu-west-1", "us-east-1"),
        STREAM_ARN.replace("111122223333", "444455556666"),
    ],
    ids=["name", "region", "account"],
)
def test_another_stream_under_the_same_handler_has_places_of_its_own(source: Any, other: str) -> None:
    """The function's mapping says what it reads, and somebody may point it elsewhere: numbers there begin anew."""
    plant = Plant(source=source)

    assert plant.deliver(*read("a1", "a2", first=500)) == ["Succeeded"] * 2
    assert plant.deliver(*read("a1", "a2", first=400, arn=other)) == ["Succeeded"] * 2
    assert plant.deliver(*read("a1", "a2", first=500)) == ["Duplicate"] * 2
    assert plant.deliver(*read("a1", "a2", first=400, arn=f"{other}/consumer/fast:1")) == ["Duplicate"] * 2


@pytest.mark.parametrize(
    "other",
    [
        QUEUE_ARN.replace("orders", "bookings"),
        QUEUE_ARN.replace("eu-west-1", "us-east-1"),
        QUEUE_ARN.replace("111122223333", "444455556666"),
    ],
    ids=["name", "region", "account"],
)
def test_another_queue_under_the_same_handler_has_places_of_its_own(other: str) -> None:
    plant = Plant(source=QUEUE)

    assert plant.deliver(*queued("a1", numbers=[9])) == ["Succeeded"]
    assert plant.deliver(*queued("a2", numbers=[3], arn=other)) == ["Succeeded"]
    assert plant.deliver(*queued("a1", numbers=[9])) == ["Duplicate"]
    assert plant.deliver(*queued("a2", numbers=[3], arn=other)) == ["Duplicate"]


@pytest.mark.parametrize("arn", [None, "", "readings"])
def test_an_event_that_names_no_stream_or_queue_is_taken_for_the_declared_ones(arn: str | None) -> None:
    plant = Plant()
    plant.deliver(*read("a1", "a2", first=100, arn=arn))
    assert plant.deliver(*read("a1", "a2", first=100, arn=arn)) == ["Duplicate"] * 2
    moved = Plant(source=sources.Kinesis("measures"), store=plant.store)
    assert moved.deliver(*read("a1", arn=arn)) == ["Succeeded"]
    theirs = Plant(source=sources.Kinesis("theirs", existing=STREAM_ARN), store=plant.store)
    assert theirs.deliver(*read("a1", arn=arn)) == ["Succeeded"]
    assert theirs.deliver(*read("a1")) == ["Duplicate"], "its name is the ARN"

    arn = arn and f"{arn}.fifo"
    queue = Plant(source=QUEUE, store=plant.store)
    queue.deliver(*queued("a1", numbers=[9], arn=arn))
    assert queue.deliver(*queued("a1", numbers=[9], arn=arn)) == ["Duplicate"]
    other = Plant(source=sources.SQS("bookings.fifo"), store=plant.store)
    assert other.deliver(*queued("a2", numbers=[3], arn=arn)) == ["Succeeded"]


def test_numbers_of_different_length_stand_in_their_order() -> None:
    plant = Plant()

    assert plant.deliver(*read("a1", first=9)) == ["Succeeded"]
    assert plant.deliver(*read("a2", first=10)) == ["Succeeded"]
    assert plant.deliver(*read("a1", "a2", first=9)) == ["Duplicate"] * 2


def test_an_expired_place_still_counts_for_the_reader_and_the_writer() -> None:
    plant = Plant(mode=Checkpoint(ttl=60))

    async def scenario() -> Any:
        async with plant.host() as host:
            await host.deliver(*read("a1", "a2"))
            await asyncio.sleep(1_000)
            return await host.deliver(*read("a1", "a2", "a3"))

    assert kinds(virtually(scenario())) == ["Duplicate", "Duplicate", "Succeeded"]


# Failures


@pytest.mark.parametrize("lane", [None, by.shard, by.partition_key, "lane"])
def test_a_failure_in_the_middle_comes_again_with_what_stands_behind_it_and_nothing_else_runs(lane: Any) -> None:
    plant = Plant(options={"lane": lane}, ends={"a2": "fail"})
    records = read("a1", "a2", "a3", "a4")

    assert plant.deliver(*records) == ["Succeeded", "Failed", "Unprocessed", "Unprocessed"]
    plant.ends.clear()
    assert plant.deliver(*records[:2]) == ["Duplicate", "Succeeded"], "the first half of it"
    assert plant.deliver(*records[2:]) == ["Succeeded"] * 2
    assert plant.deliver(*records) == ["Duplicate"] * 4


def test_another_lane_goes_on_beyond_a_failure_and_does_not_run_again() -> None:
    plant = Plant(options={"lane": "lane"}, ends={"a1": "fail"})
    records = read("a1", "b1", "a2", "b2")

    assert plant.deliver(*records) == ["Failed", "Succeeded", "Unprocessed", "Succeeded"]
    plant.ends.clear()
    assert plant.deliver(*records) == ["Succeeded", "Duplicate", "Succeeded", "Duplicate"]
    assert plant.runs == ["a1", "a2"]


def test_a_group_of_a_queue_that_failed_comes_again_and_the_others_do_not() -> None:
    plant = Plant(source=QUEUE, ends={"b1": "fail"})
    records = queued("a1", "b1", "a2", "b2")

    assert plant.deliver(*records) == ["Succeeded", "Failed", "Succeeded", "Unprocessed"]
    plant.ends.clear()
    assert plant.deliver(*records) == ["Duplicate", "Succeeded", "Duplicate", "Succeeded"]


def test_what_is_rejected_is_settled_and_not_put_aside_again() -> None:
    plant = Plant(ends={"a2": "reject"})
    records = read("a1", "a2", "a3")

    assert plant.deliver(*records) == ["Succeeded", "Rejected", "Succeeded"]
    assert plant.deliver(*records) == ["Duplicate"] * 3
    assert len(plant.letters.letters) == 1


def test_a_damaged_record_stands_in_its_shards_order() -> None:
    plant = Plant()
    records = read("a1", "a2", "a3")
    damaged = READINGS.decode({"Records": [_damaged(2)]})[0]

    plant.letters.error = SinkUnavailable("the queue is gone")
    assert plant.deliver(records[0], damaged, records[2]) == ["Succeeded", "Failed", "Unprocessed"]
    plant.letters.error = None
    assert plant.deliver(records[0], damaged, records[2]) == ["Duplicate", "Rejected", "Succeeded"]
    assert plant.deliver(records[0], damaged, records[2]) == ["Duplicate"] * 3


def _damaged(number: int, key: str = "a") -> dict[str, Any]:
    (record,) = event({}, keys=[key], first=number)["Records"]
    record["kinesis"]["data"] = "{no base64"
    return dict(record)


def test_a_waiting_record_holds_its_lane_back_in_process_and_the_place_with_it() -> None:
    plant = Plant(options={"retry": Backoff(attempts=5)}, ends={"a2": "fail"})
    records = read("a1", "a2", "a3")

    assert plant.deliver(*records, remaining=1.0) == ["Succeeded", "Failed", "Unprocessed"]
    plant.ends.clear()
    assert plant.deliver(*records, remaining=30.0) == ["Duplicate", "Succeeded", "Succeeded"]


# Aggregates


def _aggregated(*names: str, number: int = 7, key: str = "a") -> list[RawRecord]:
    (made,) = event({}, keys=[key], first=number)["Records"]
    data = aggregate([(name[0], None, f'{{"name": "{name}", "lane": "{name[0]}"}}'.encode()) for name in names])
    made["kinesis"]["data"] = base64.b64encode(data).decode()
    return READINGS.decode({"Records": [made]})


@pytest.mark.parametrize("lane", [None, by.partition_key, "lane"])
def test_the_records_of_an_aggregate_have_places_of_their_own(lane: Any) -> None:
    plant = Plant(options={"lane": lane}, ends={"a2": "fail"})
    records = _aggregated("a1", "a2", "a3")

    assert plant.deliver(*records) == ["Succeeded", "Failed", "Unprocessed"]
    plant.ends.clear()
    assert plant.deliver(*records) == ["Duplicate", "Succeeded", "Succeeded"]
    assert plant.deliver(*records) == ["Duplicate"] * 3


def test_with_a_parallelization_factor_an_aggregates_records_have_no_place_and_run_again() -> None:
    """Those of one key may be at work in two batches: a place would pass over one of them."""
    plant = Plant(source=SIDE_BY_SIDE)

    assert plant.deliver(*_aggregated("a1", "b1")) == ["Succeeded"] * 2
    assert plant.deliver(*_aggregated("a1", "b1")) == ["Succeeded"] * 2
    assert plant.store.calls == []


def test_with_a_parallelization_factor_batches_of_one_shard_do_not_pass_over_each_others_records() -> None:
    plant = Plant(source=SIDE_BY_SIDE)
    a1, b1, a2, b2 = read("a1", "b1", "a2", "b2")

    assert plant.deliver(b1, b2) == ["Succeeded"] * 2  # the batch of another key was quicker
    assert plant.deliver(a1, a2) == ["Succeeded"] * 2


def test_a_lane_by_path_over_several_keys_and_shards_passes_over_none_of_them() -> None:
    plant = Plant(source=SIDE_BY_SIDE, options={"lane": "lane"})
    one, two = read("a1", "a2", keys=["x", "y"])
    (other,) = read("a3", first=1, keys=["x"], shard="shardId-000000000001")

    assert plant.deliver(two) == ["Succeeded"]
    assert plant.deliver(one) == ["Succeeded"]
    assert plant.deliver(other) == ["Succeeded"]


# Records without a place, and out of order


def test_messages_without_a_number_run_again_and_those_with_one_do_not() -> None:
    plant = Plant(source=QUEUE)
    records = queued("a1", "a2", "b1", numbers=[None, 2, None])

    assert plant.deliver(*records) == ["Succeeded"] * 3
    assert plant.deliver(*records) == ["Succeeded", "Duplicate", "Succeeded"]


@pytest.mark.parametrize("number", ["", "x", "-1", "1.5", "²"])
def test_a_number_that_is_none_is_no_place(number: str) -> None:
    plant = Plant(source=QUEUE)
    (record,) = queued("a1")
    record.origin["attributes"]["SequenceNumber"] = number

    assert plant.deliver(record) == ["Succeeded"]
    assert plant.deliver(record) == ["Succeeded"]


def test_an_event_in_the_wrong_order_passes_over_nothing() -> None:
    plant = Plant(source=QUEUE)
    late, early = queued("a2", "a1", numbers=[2, 1])

    assert plant.deliver(late, early) == ["Succeeded"] * 2
    assert plant.runs == ["a2", "a1"]

    plant = Plant(source=QUEUE, ends={"a1": "fail"})
    assert plant.deliver(late, early) == ["Succeeded", "Failed"]
    plant.ends.clear()
    assert plant.deliver(early) == ["Succeeded"]


def test_records_without_a_partition_key_run_side_by_side_and_a_failed_one_comes_again() -> None:
    plant = Plant(options={"lane": by.partition_key}, ends={"a1": "slow fail"})
    made = event({"name": "a1"}, {"name": "a2"})
    for record in made["Records"]:
        del record["kinesis"]["partitionKey"]
    records = READINGS.decode(made)

    assert plant.deliver(*records) == ["Failed", "Succeeded"]
    plant.ends.clear()
    assert plant.deliver(*records)[0] == "Succeeded"


# Lanes that change


def test_a_record_whose_lane_could_not_be_read_is_not_passed_over_when_it_can_be() -> None:
    broken = [True]

    def lane(payload: dict[str, Any]) -> str:
        if broken and payload["name"] == "a1":
            raise TypeError("a fault in the function")
        return str(payload["lane"])

    plant = Plant(options={"lane": lane})
    plant.letters.error = SinkUnavailable("the queue is gone")
    records = read("a1", "a2", keys=["x", "x"])

    assert plant.deliver(*records)[0] == "Failed"
    broken.clear()  # the next deployment
    assert plant.deliver(*records)[0] == "Succeeded"


def test_a_failed_record_whose_lane_cannot_be_read_any_more_is_not_passed_over() -> None:
    broken = {"a2"}

    def lane(payload: dict[str, Any]) -> str:
        if payload["name"] in broken:
            raise TypeError("a fault in the function")
        return str(payload["lane"])

    plant = Plant(options={"lane": lane}, ends={"b1": "fail"})
    records = read("b1", "a2", keys=["x", "x"])

    assert plant.deliver(*records) == ["Failed", "Rejected"]
    broken.add("b1")
    assert plant.deliver(*records)[0] == "Rejected"
    assert [letter.record.id for letter in plant.letters.letters].count(records[0].id) == 1


def test_a_damaged_aggregate_that_a_later_reader_understands_is_not_passed_over() -> None:
    plant = Plant(options={"lane": by.partition_key})
    plant.letters.error = SinkUnavailable("the queue is gone")
    (damaged,) = READINGS.decode({"Records": [_damaged(1, key="outer")]})
    (later,) = read("b2", first=2)

    assert plant.deliver(damaged, later)[0] == "Failed"
    assert plant.deliver(*_aggregated("b1", number=1), later)[0] == "Succeeded"


def test_lanes_by_another_path_have_places_of_their_own() -> None:
    """Else the lane "y" of before would say that the first record, which is of the new lane "y", is settled."""
    before = Plant(options={"lane": "one"}, ends={"a1": "fail"})
    payloads = [{"name": "a1", "one": "x", "two": "y"}, {"name": "a2", "one": "y", "two": "x"}]
    records = READINGS.decode(event(*payloads))

    assert before.deliver(*records) == ["Failed", "Succeeded"]
    after = Plant(options={"lane": "two"}, store=before.store)
    assert after.deliver(*records)[0] == "Succeeded"


class Reader:
    """A lane function that is an object."""

    def __call__(self, payload: dict[str, Any]) -> Any:
        return payload["lane"]


def partition_key(payload: dict[str, Any]) -> Any:
    return payload["lane"]


def test_ways_to_tell_lanes_apart_do_not_share_places() -> None:
    ways: list[Any] = [by.partition_key, "partition_key", partition_key, ("partition_key",), by.shard, "shard"]
    names = {Plant(options={"lane": lane}).stage.lane_kind for lane in ways}

    assert len(names) == len(ways)


def test_a_function_has_the_same_places_in_every_process() -> None:
    def lane(extra: int, payload: dict[str, Any]) -> Any:
        return payload["lane"]

    for make in (lambda: functools.partial(lane, 1), Reader, lambda: lambda payload: payload["lane"]):
        plant = Plant(options={"lane": make()})
        again = Plant(options={"lane": make()}, store=plant.store)

        assert plant.deliver(*read("a1")) == ["Succeeded"]
        assert again.deliver(*read("a1")) == ["Duplicate"]


# Sinks that gather: the lane goes on before a record has ended


@pytest.mark.parametrize("lane", [None, by.partition_key, "lane"])
@pytest.mark.parametrize("end", ["reject", "garbage"])
def test_a_rejection_behind_gathered_outputs_that_fail_does_not_pass_over_their_record(lane: Any, end: str) -> None:
    down = [True]
    archive = Archive(lambda output: SinkUnavailable("slow down") if down else None)
    plant = Plant(options={"lane": lane}, sinks=[archive], ends={"a2": "reject"})
    records = read("a1", "a2", "a3")
    if end == "garbage":
        records[1] = READINGS.decode({"Records": [_damaged(2)]})[0]

    first = plant.deliver(*records)
    assert first[0] == "Failed"
    down.clear()
    assert plant.deliver(*records)[0] == "Succeeded"
    assert [value["name"] for value in archive.values] == ["a1", "a3"]


def test_the_soft_deadline_does_not_write_a_place_behind_outputs_that_still_wait() -> None:
    archive = Archive(seconds=500.0)  # it never answers in time
    plant = Plant(sinks=[archive], ends={"a2": "reject"})
    records = read("a1", "a2")

    assert plant.deliver(*records, remaining=10.0) == ["Failed", "Rejected"]
    archive.seconds = 0.1
    assert plant.deliver(*records)[0] == "Succeeded"


def test_what_was_gathered_and_written_after_the_soft_deadline_counts_although_others_were_handed_back() -> None:
    archive = Archive(seconds=9.2)  # between the two deadlines
    plant = Plant(sinks=[archive], ends={"a2": "hang"})
    records = read("a1", "a2", "a3")

    first = plant.deliver(*records, remaining=10.0)
    plant.ends.clear()
    archive.seconds = 0.1
    second = plant.deliver(*records)

    assert first[1:] == ["Failed", "Unprocessed"]
    assert second == ["Duplicate" if first[0] == "Succeeded" else "Succeeded", "Succeeded", "Succeeded"]


@pytest.mark.parametrize("fails", [0, 1, 3])
def test_a_failed_write_of_gathered_outputs_comes_again_from_there(fails: int) -> None:
    down = [True]
    archive = Archive(lambda output: SinkUnavailable("no") if down and output.value["name"] == f"a{fails}" else None)
    plant = Plant(sinks=[archive])
    records = read("a0", "a1", "a2", "a3", "a4")

    plant.deliver(*records)
    down.clear()
    again = plant.deliver(*records)
    assert again == ["Duplicate"] * fails + ["Succeeded"] * (5 - fails)


# Deadlines, crashes, and trouble of the store


def test_what_is_settled_when_the_time_is_nearly_up_is_written_at_once() -> None:
    plant = Plant(ends={"a3": "hang"})
    written: list[tuple[str, float]] = []

    async def scenario() -> Any:
        async with plant.host() as host:
            return await host.deliver(*read("a1", "a2", "a3"), deadline=Deadline(soft=5.0, hard=8.0))

    plant.store.call = _timed(plant.store, written)  # type: ignore[method-assign]
    assert kinds(virtually(scenario())) == ["Succeeded", "Succeeded", "Failed"]
    assert [name for name, _ in written] == ["look", "advance"]
    assert written[1][1] == pytest.approx(5.0, abs=0.1)


def _timed(store: WatchedStore, written: list[tuple[str, float]]) -> Callable[..., Any]:
    passed_on = store.call

    async def call(name: str, items: Sequence[Any], environment: Any) -> Any:
        written.append((name, asyncio.get_running_loop().time()))
        return await passed_on(name, items, environment)

    return call


def test_an_environment_that_is_dropped_repeats_its_batch_and_passes_over_nothing() -> None:
    plant = Plant(ends={"a3": "hang"})
    records = read("a1", "a2", "a3")

    async def dropped() -> None:
        async with plant.host() as host:
            work = asyncio.ensure_future(host.deliver(*records))
            await asyncio.wait([work], timeout=10)
            plant.store.before["advance"] = DOWN  # nothing of it reaches the store any more
            work.cancel()
            await asyncio.wait([work])

    virtually(dropped())
    plant.store.before.clear()
    plant.ends.clear()
    assert plant.deliver(*records) == ["Succeeded"] * 3
    assert plant.runs == ["a1", "a2", "a3"]


def test_a_batch_that_is_answered_at_the_hard_deadline_passes_over_nothing_when_its_work_goes_on() -> None:
    """The answer may be made up by another thread, while a record's coroutine goes on."""
    archive = Archive(seconds=50.0)
    plant = Plant(sinks=[archive])
    records = read("a1", "a2")

    async def scenario() -> list[str]:
        async with plant.host() as host:
            processing = host.processor.begin(records, FOREVER)
            work = asyncio.ensure_future(processing.finish())
            await asyncio.wait([work], timeout=10)
            told = kinds(processing.conclude())
            await work  # as a zombie: it writes the place that it has come to
            return told

    assert virtually(scenario()) == ["Failed", "Failed"]
    assert plant.deliver(*records) == ["Duplicate"] * 2, "their outputs were accepted"
    assert [value["name"] for value in archive.values] == ["a1", "a2"]


def test_a_late_batch_does_not_move_a_place_back() -> None:
    plant = Plant(ends={"a2": "slow"})
    records = read("a1", "a2", "a3", "a4")

    async def scenario() -> None:
        async with plant.host() as zombie, plant.host() as host:
            late = asyncio.ensure_future(zombie.deliver(*records[:2]))
            await asyncio.wait([late], timeout=0.5)
            plant.ends.clear()
            assert kinds(await host.deliver(*records)) == ["Succeeded"] * 4
            assert kinds(await late) == ["Succeeded"] * 2  # both ran: deliveries at the same moment

    virtually(scenario())
    assert plant.deliver(*records) == ["Duplicate"] * 4
    assert plant.lost == []


@pytest.mark.parametrize("trouble", [DOWN, Raised(ConnectionError("refused"))])
def test_a_place_that_cannot_be_read_hands_its_lane_back(trouble: Any) -> None:
    plant = Plant()
    plant.store.before["look"] = trouble

    assert plant.deliver(*read("a1", "a2")) == ["Unprocessed"] * 2
    assert plant.runs == []


@pytest.mark.parametrize("trouble", [DOWN, Raised(ConnectionError("refused")), Raised(TimeoutError())])
@pytest.mark.parametrize("is_done", [False, True])
def test_a_place_that_cannot_be_written_is_told_once_for_each_lane(trouble: Any, is_done: bool) -> None:
    plant = Plant(options={"lane": "lane"})
    (plant.store.after if is_done else plant.store.before)["advance"] = trouble
    records = read("a1", "b1", "a2")

    assert plant.deliver(*records) == ["Succeeded"] * 3
    assert sorted(fact.record.id[-1] for fact in plant.lost) == ["2", "3"]
    plant.store.recover()
    assert plant.deliver(*records) == (["Duplicate"] if is_done else ["Succeeded"]) * 3


def test_a_store_that_answers_too_few_places_fails_no_batch() -> None:
    plant = Plant()

    async def short(advances: Any, environment: Any) -> Any:
        return []

    plant.store.advance = short  # type: ignore[method-assign]
    assert plant.deliver(*read("a1")) == ["Succeeded"]
    assert len(plant.lost) == 1


def test_a_place_that_is_written_at_the_second_try_is_not_told_as_lost() -> None:
    plant = Plant(ends={"a2": "hang"})
    tries: list[int] = []
    passed_on = plant.store.call

    async def call(name: str, items: Sequence[Any], environment: Any) -> Any:
        if name == "advance":
            tries.append(len(items))
            if len(tries) == 1:
                return [DOWN]
        return await passed_on(name, items, environment)

    plant.store.call = call  # type: ignore[method-assign]
    assert plant.deliver(*read("a1", "a2"), remaining=10.0) == ["Succeeded", "Failed"]
    assert tries == [1, 1]
    assert plant.lost == []


# Any schedule


@dataclass
class Delivery:
    """One batch: from where, how many, what its records come to, and what becomes of its end."""

    back: int
    size: int
    ends: list[str]
    fate: str


deliveries = st.lists(
    st.builds(
        Delivery,
        back=st.integers(0, 4),
        size=st.integers(1, 6),
        ends=st.lists(st.sampled_from(["ok", "ok", "fail", "reject", "unread", "sink", "slow", "slow fail"]), min_size=6,
                      max_size=6),
        fate=st.sampled_from(["answered", "answered", "no answer", "not written", "lost answer", "dropped"]),
    ),
    max_size=7,
)  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from([READINGS, SIDE_BY_SIDE, QUEUE]),
    st.lists(st.sampled_from("aabc"), min_size=1, max_size=10),
    st.sampled_from([None, "own", "path", "function"]),
    st.booleans(),
    deliveries,
)
def test_any_schedule_passes_over_nothing_and_repeats_nothing_before_a_written_place(
    source: Any, lanes: list[str], lane: str | None, gathers: bool, schedule: list[Delivery]
) -> None:
    names = [f"{letter}{position}" for position, letter in enumerate(lanes)]
    records = queued(*names) if source is QUEUE else read(*names, keys=names if lane in ("path", "function") else None)
    named = dict(zip([record.id for record in records], names, strict=True))
    ends: dict[str, str] = {}
    done: set[str] = set()  #: by the sinks' and the dead letters' books

    class Kept(Letters):
        async def put(self, letters: Any, environment: Any, deadline: Any) -> Any:
            done.update(named[letter.record.id] for letter in letters)
            return await super().put(letters, environment, deadline)

    def fails(output: Any) -> BaseException | None:
        name = output.value["name"]
        if ends.get(name) == "sink":
            return SinkUnavailable("no")
        done.add(name)
        return None

    def lane_of(payload: dict[str, Any]) -> str:
        if ends.get(payload["name"]) == "unread":
            raise TypeError("a fault")
        return str(payload["lane"])

    own = by.message_group if source is QUEUE else by.partition_key
    chosen: dict[str | None, Any] = {None: None, "own": own, "path": "lane", "function": lane_of}
    options = {"lane": chosen[lane]}
    sink = Archive(fails) if gathers else Sink("archive", fails)
    plant = Plant(source=source, options=options, sinks=[sink], ends=ends, letters=Kept())
    cursor = 0  #: what the source takes for settled
    promised: set[str] = set()  #: what stands at or before a written place

    def deliver(delivery: Delivery) -> None:
        nonlocal cursor
        start = max(cursor - delivery.back, 0)
        batch = records[start : start + delivery.size]
        ends.clear()
        ends.update({names[start + n]: delivery.ends[n] for n in range(len(batch))})
        plant.store.recover()
        plant.runs.clear()
        if delivery.fate in ("not written", "dropped"):
            plant.store.before["advance"] = DOWN
        if delivery.fate == "lost answer":
            plant.store.after["advance"] = Raised(ConnectionError())
        before = set(done)

        async def scenario() -> Any:
            async with plant.host() as host:
                work = asyncio.ensure_future(host.deliver(*batch))
                await asyncio.wait([work], timeout=0.5 if delivery.fate == "dropped" else None)
                if work.done():
                    return work.result()
                work.cancel()
                await asyncio.wait([work])
                return None

        result = virtually(scenario())
        assert not promised & set(plant.runs), "it stands at or before a written place"
        if result is None:
            return
        outcomes = dict(zip(names[start:], result.outcomes, strict=False))
        for name, outcome in outcomes.items():
            assert not isinstance(outcome, Duplicate) or name in before | done, "it was passed over"
        if delivery.fate in ("answered", "no answer", "lost answer") and "unread" not in ends.values():
            _promise(outcomes, lane is None and source is READINGS)
        if delivery.fate == "answered":
            unsettled = [start + n for n, outcome in enumerate(result.outcomes) if not is_settled(outcome)]
            cursor = max(cursor, min(unsettled) if unsettled else start + len(batch))
            assert done >= set(names[:cursor]), "the source was told that it is settled"

    def _promise(outcomes: dict[str, Any], is_one_lane: bool) -> None:
        stopped: set[str] = set()
        for name, outcome in outcomes.items():
            letter = "" if is_one_lane else name[0]
            if not is_settled(outcome):
                stopped.add(letter)
            elif letter not in stopped:
                promised.add(name)

    for delivery in schedule:
        deliver(delivery)
    while cursor < len(records):
        deliver(Delivery(back=0, size=6, ends=["ok"] * 6, fate="answered"))
    assert done == set(names)
