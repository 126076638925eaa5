"""Sinks that gather: few large writes, while lanes and places go on, and nothing is settled behind a failure."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import Emit, Fused, Pipeline, Retry, by, sinks, sources
from pipeline.decisions.deadline import Deadline, deadline
from pipeline.emulator.virtual import VirtualClock, virtually
from pipeline.errors import SinkRefused, SinkUnavailable
from pipeline.outcome import Duplicate, Failed, Succeeded, Unprocessed, is_settled
from pipeline.output import Output
from pipeline.record import RawRecord, Record
from pipeline.stores import Memory
from tests.engine.harness import Letters, Sink, process
from tests.engine.test_streams import decoded, kinds


class Archive(Sink):
    """A sink in memory that gathers; a write takes `seconds`."""

    gathers = True

    def __init__(
        self, fails: Callable[[Output], BaseException | None] = lambda output: None, seconds: float = 0.1
    ) -> None:
        super().__init__("archive", fails)
        self.seconds = seconds
        self.written_at: list[float] = []

    async def write(self, outputs: Sequence[Output], environment: Any, deadline: Any) -> Any:
        await asyncio.sleep(self.seconds)
        self.written_at.append(asyncio.get_running_loop().time())
        return await super().write(outputs, environment, deadline)


def queue_records(count: int) -> list[RawRecord]:
    return [RawRecord(id=f"r{n}", source="lines", body=str(n)) for n in range(count)]


def run(function: Any, records: Sequence[RawRecord], *sinks: Any, remaining: float | None = 30.0, source: Any = None,
        store: Any = None, letters: Letters | None = None, idempotent: bool = True, **options: Any) -> Any:  # fmt: skip
    pipeline = Pipeline("logs") if idempotent else Pipeline("logs", idempotency=None)
    handler = pipeline.handler(source or sources.SQS("lines"), sinks=sinks, **options)(function)

    async def scenario() -> Any:
        begun = asyncio.get_running_loop().time()
        until = Deadline() if remaining is None else deadline(begun, remaining)
        result, _ = await process(
            handler.stage, records, deadline=until, clock=VirtualClock(), store=store, letters=letters
        )
        return result, asyncio.get_running_loop().time() - begun

    return virtually(scenario())


async def keep(item: int) -> int:
    await asyncio.sleep(0.001)
    return item


@pytest.mark.parametrize("idempotent", [True, False])
def test_a_batch_larger_than_the_concurrency_is_one_write(idempotent: bool) -> None:
    archive = Archive()

    result, _ = run(keep, queue_records(500), archive, concurrency=10, idempotent=idempotent)

    assert kinds(result) == ["Succeeded"] * 500
    assert archive.calls == [500]


@pytest.mark.parametrize("lane", [None, by.shard])
def test_a_lane_goes_on_while_its_outputs_wait(lane: Any) -> None:
    archive = Archive()
    records = decoded(*range(200), keys=["a"] * 200)

    result, _ = run(keep, records, archive, source=sources.Kinesis("readings"), lane=lane)

    assert kinds(result) == ["Succeeded"] * 200
    assert archive.calls == [200]
    assert archive.values == list(range(200))


def test_other_sinks_come_first_and_do_not_wait() -> None:
    archive, alerts = Archive(), Sink("alerts")

    async def both(item: int) -> list[Emit[int]]:
        await asyncio.sleep(0.001 * item)
        assert item not in alerts.values
        return [Emit(item, to="archive"), Emit(-item, to="alerts")]

    result, _ = run(both, decoded(*range(10), keys=["a"] * 10), archive, alerts, source=sources.Kinesis("readings"))

    assert kinds(result) == ["Succeeded"] * 10
    assert [outcome.outputs for outcome in result.outcomes] == [2] * 10
    assert archive.calls == [10]
    assert alerts.values == [-item for item in range(10)]


def test_what_another_sink_refused_is_kept_for_both() -> None:
    archive = Archive()
    down = [True]
    alerts = Sink("alerts", lambda output: SinkUnavailable("down") if down else None)
    store = Memory()
    runs: list[int] = []

    async def both(item: int) -> int:
        runs.append(item)
        return item

    first, _ = run(both, queue_records(1), archive, alerts, store=store)
    down.clear()
    second, _ = run(both, queue_records(1), archive, alerts, store=store)

    assert kinds(first) + kinds(second) == ["Failed", "Succeeded"]
    assert (archive.values, alerts.values, runs) == ([0], [0], [0])


def test_a_failed_write_fails_its_records_and_keeps_their_outputs() -> None:
    down = [True]
    archive = Archive(lambda output: SinkUnavailable("slow down") if down else None)
    store = Memory()
    runs: list[int] = []

    async def note(item: int) -> int:
        runs.append(item)
        return item

    records = decoded(*range(6), keys=list("aababb"))
    first, _ = run(note, records, archive, source=sources.Kinesis("readings"), store=store)
    down.clear()
    second, _ = run(note, records, archive, source=sources.Kinesis("readings"), store=store)

    assert {type(outcome) for outcome in first.outcomes} <= {Failed, Unprocessed}
    assert kinds(second) == ["Succeeded"] * 6
    assert sorted(runs) == list(range(6))
    assert sorted(archive.values) == list(range(6))


def test_a_later_failure_in_the_lane_does_not_touch_what_waits() -> None:
    archive = Archive()

    async def fail_second(item: int) -> int:
        if item == 1:
            raise ValueError("no")
        return item

    result, _ = run(fail_second, decoded(0, 1, 2, keys=["a"] * 3), archive, source=sources.Kinesis("readings"),
                    remaining=None)  # fmt: skip

    assert kinds(result) == ["Succeeded", "Failed", "Unprocessed"]
    assert archive.values == [0]


def test_nothing_of_a_lane_succeeds_behind_what_the_sink_did_not_take() -> None:
    archive = Archive(lambda output: SinkUnavailable("slow down") if output.value == 0 else None)

    result, _ = run(keep, decoded(0, 1, 2, keys=["a", "a", "b"]), archive, source=sources.Kinesis("readings"))

    assert kinds(result) == ["Failed", "Failed", "Succeeded"]


def test_writes_follow_each_other_so_that_a_slow_one_is_not_overtaken() -> None:
    class SlowFirst(Archive):
        async def write(self, outputs: Sequence[Output], environment: Any, deadline: Any) -> Any:
            self.seconds = 8.0 if outputs[0].value == 0 else 0.1
            return await super().write(outputs, environment, deadline)

    async def slow(item: int) -> int:
        await asyncio.sleep(3)
        return item

    archive = SlowFirst()
    run(slow, decoded(0, 1, 2, keys=["a"] * 3), archive, source=sources.Kinesis("readings"))

    assert archive.values == [0, 1, 2]


def test_a_write_that_waits_its_turn_is_not_sent_behind_a_failed_one() -> None:
    class SlowFirst(Archive):
        async def write(self, outputs: Sequence[Output], environment: Any, deadline: Any) -> Any:
            self.seconds = 6.0 if not self.calls else 0.1
            return await super().write(outputs, environment, deadline)

    archive = SlowFirst(lambda output: SinkUnavailable("slow down") if len(archive.calls) == 1 else None)

    async def second_later(item: int) -> int | None:
        await asyncio.sleep(3 * item)
        return item if item < 2 else None

    source, store = sources.Kinesis("readings"), Memory()
    records = decoded(0, 1, 2, keys=["a", "a", "b"])
    first, _ = run(second_later, records, archive, source=source, store=store)
    run(second_later, records, archive, source=source, store=store)

    assert not isinstance(first.outcomes[1], Succeeded) or isinstance(first.outcomes[0], Succeeded)
    assert archive.values == [0, 1]


def test_a_record_ends_behind_those_of_its_lane_that_still_wait_also_without_outputs() -> None:
    archive, other = Archive(lambda output: SinkUnavailable("down")), Sink("other")

    async def apart(item: int) -> Emit[int] | None:
        return {0: Emit(item, to="archive"), 1: Emit(item, to="other")}.get(item)

    records = decoded(0, 1, 2, keys=["a"] * 3)
    result, _ = run(apart, records, archive, other, source=sources.Kinesis("readings"))

    assert not any(is_settled(outcome) for outcome in result.outcomes)


def test_an_outage_of_a_sink_that_gathers_waits_in_process() -> None:
    down = [True] * 2
    archive = Archive(lambda output: SinkUnavailable("slow down") if down and down.pop() else None)
    runs: list[int] = []

    async def note(item: int) -> int:
        runs.append(item)
        return item

    result, seconds = run(note, decoded(7), archive, source=sources.Kinesis("readings"))

    assert kinds(result) == ["Succeeded"]
    assert (runs, archive.values) == ([7], [7])
    assert seconds > 2


def test_without_idempotency_a_handler_does_not_run_again_beside_its_own_lane() -> None:
    archive = Archive(lambda output: SinkUnavailable("slow down"))
    running: set[int] = set()
    runs: list[int] = []

    async def slow(item: int) -> int:
        assert not running
        running.add(item)
        runs.append(item)
        await asyncio.sleep(0 if item == 0 else 8)
        running.discard(item)
        return item

    result, seconds = run(slow, decoded(0, 1, 2), archive, source=sources.Kinesis("readings"), idempotent=False)

    assert not any(is_settled(outcome) for outcome in result.outcomes)
    assert runs.count(0) == 1
    assert seconds == pytest.approx(27)  # no hot loop: it waits to the end


def test_what_is_gathered_and_under_way_is_bounded() -> None:
    runs: list[int] = []
    most = 0

    async def large(item: int) -> str:
        nonlocal most
        runs.append(item)
        most = max(most, len(runs) - len(archive.outputs))
        return "x" * 1_000_000

    archive = Archive(seconds=5.0)
    run(large, queue_records(120), archive, concurrency=1, remaining=None)

    assert len(archive.outputs) == 120
    assert most <= 2 * 17 + 17


def test_repeats_begin_when_the_first_is_written_while_others_still_wait() -> None:
    archive = Archive()

    async def first_waits(item: int) -> int:
        if item == 0:
            raise Retry(after=500)
        return item

    records = decoded(0, 1, 2, 3, keys=["b", "a", "a", "a"])
    result, _ = run(
        first_waits, records, archive, source=sources.Kinesis("readings"), key=lambda item: max(item, 2) if item else 0
    )

    assert kinds(result) == ["Failed", "Succeeded", "Duplicate", "Succeeded"]


def test_a_postponed_record_does_not_run_behind_what_has_failed_meanwhile() -> None:
    archive, alerts = Archive(lambda output: SinkUnavailable("down")), Sink("alerts")
    runs: list[int] = []

    async def second_retries(item: int) -> Emit[int]:
        runs.append(item)
        if item == 0:
            return Emit(item, to="archive")
        if runs.count(1) == 1:
            raise Retry(after=5)
        return Emit(item, to="alerts")

    records = decoded(0, 1, keys=["a", "a"])
    result, _ = run(second_retries, records, archive, alerts, source=sources.Kinesis("readings"))

    assert not any(is_settled(outcome) for outcome in result.outcomes)
    assert alerts.values == []


def test_streamed_outputs_do_not_pass_what_has_failed_in_the_lane() -> None:
    archive = Archive(lambda output: SinkUnavailable("down") if output.value == "first" else None)

    async def stream(item: int) -> Any:
        if item == 0:
            yield "first"
            return
        await asyncio.sleep(3)
        for number in range(1_500):
            yield number

    result, _ = run(stream, decoded(0, 1, keys=["a", "a"]), archive, source=sources.Kinesis("readings"), retry=None)

    assert not any(is_settled(outcome) for outcome in result.outcomes)
    assert archive.values == []


def test_outputs_of_a_write_that_hangs_are_kept_and_go_out_together_later() -> None:
    archive, store = Archive(seconds=1_000), Memory()
    runs: list[int] = []

    async def note(item: int) -> int:
        runs.append(item)
        return item

    first, seconds = run(note, queue_records(300), archive, store=store, remaining=10)
    archive.seconds = 0.1
    second, _ = run(note, queue_records(300), archive, store=store)

    assert kinds(first) + kinds(second) == ["Failed"] * 300 + ["Succeeded"] * 300
    assert seconds < 10
    assert (len(runs), archive.calls) == (300, [300])


def test_a_repeat_of_what_waits_is_a_duplicate() -> None:
    archive = Archive()
    runs: list[int] = []

    async def note(item: int) -> int:
        runs.append(item)
        return item

    result, _ = run(note, queue_records(4), archive, key=lambda item: "same")

    assert kinds(result) == ["Succeeded", "Duplicate", "Duplicate", "Duplicate"]
    assert (runs, archive.calls) == ([0], [1])


def test_nothing_waits_long_while_others_run() -> None:
    archive = Archive(seconds=0.0)

    async def slow(item: int) -> int:
        await asyncio.sleep(10 if item == 0 else 0.1)
        return item

    result, _ = run(slow, queue_records(3), archive)

    assert kinds(result) == ["Succeeded"] * 3
    assert archive.calls == [2, 1]
    assert archive.written_at[0] == pytest.approx(2.1)


def test_what_is_gathered_is_bounded() -> None:
    archive = Archive()

    async def large(item: int) -> str:
        return "x" * 1_000_000

    run(large, queue_records(40), archive, concurrency=40)

    assert all(count <= 17 for count in archive.calls)
    assert sum(archive.calls) == 40


def test_the_deadline_writes_what_waits() -> None:
    archive = Archive(seconds=0.5)

    async def slow(item: int) -> int:
        await asyncio.sleep(0 if item < 5 else 100)
        return item

    result, seconds = run(slow, queue_records(6), archive, remaining=10)

    assert kinds(result) == ["Succeeded"] * 5 + ["Failed"]
    assert seconds < 10


def test_a_write_that_hangs_fails_its_records_when_the_time_is_over() -> None:
    archive = Archive(seconds=1_000)

    result, seconds = run(keep, queue_records(3), archive, remaining=10)

    assert kinds(result) == ["Failed"] * 3
    assert seconds < 10


batches = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from(["keep", "keep", "keep", "drop", "fail", "retry", "slow"])),
    min_size=1, max_size=12,
)  # fmt: skip


@given(batches, st.lists(st.integers(0, 3), max_size=3), st.integers(1, 4))
def test_any_batch_comes_to_an_end_with_each_line_once_and_in_order(
    batch: list[tuple[str, str]], outages: list[int], concurrency: int
) -> None:
    """`outages`: the writes that fail, in whole."""
    writes = iter(range(10_000))
    state = {"number": 0}

    class Failing(Archive):
        async def write(self, outputs: Sequence[Output], environment: Any, deadline: Any) -> Any:
            state["number"] = next(writes)
            return await super().write(outputs, environment, deadline)

    archive = Failing(lambda output: SinkUnavailable("slow down") if state["number"] in outages else None)
    ends = {n: word for n, (_, word) in enumerate(batch)}

    async def handle(item: int) -> int | None:
        word, ends[item] = ends[item], "keep" if ends[item] != "drop" else "drop"
        if word == "slow":
            await asyncio.sleep(3)
        if word == "fail":
            raise ValueError("no")
        if word == "retry":
            raise Retry(after=40)
        return None if word == "drop" else item

    store = Memory()
    source = sources.Kinesis("readings")
    records = decoded(*range(len(batch)), keys=[key for key, _ in batch])
    left = records
    for _ in range(30):
        result, _ = run(handle, left, archive, source=source, store=store, concurrency=concurrency)
        behind: set[str | None] = set()
        for record, outcome in result:
            assert not (record.lane in behind and isinstance(outcome, Succeeded) and outcome.outputs)
            if not is_settled(outcome):
                behind.add(record.lane)
            assert isinstance(outcome, (Succeeded, Duplicate, Failed, Unprocessed))
        if not (ids := source.unsettled_ids(result)):
            break
        left = [record for record in left if record.origin.number >= int(ids[0])]
    else:
        raise AssertionError("it never came to an end")

    kept = [json.loads(record.body) for record, (_, word) in zip(records, batch, strict=True) if word != "drop"]
    assert sorted(archive.values) == kept
    for lane in "ab":
        of_lane = [n for n in archive.values if batch[n][0] == lane]
        assert of_lane == sorted(of_lane)


def test_a_fused_record_that_one_sink_refuses_is_not_gathered() -> None:
    async def lines(record: Record[Any]) -> Any:
        return {"n": record.payload}

    archive, table = Archive(), sinks.Memory(name="table")
    events = Sink("events", lambda output: SinkRefused("not this one"))
    pipeline = Pipeline("logs", idempotency=Fused())
    handler = pipeline.handler(sources.SQS("lines"), sinks=[table, events, archive])(lines)

    result, _ = virtually(process(handler.stage, queue_records(2), clock=VirtualClock()))

    assert kinds(result) == ["Failed", "Failed"]
    assert (archive.outputs, table.outputs) == ([], [])
