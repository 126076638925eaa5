"""Streams: order by partition key or shard, waiting in process, and one number that says where to go on."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import Backoff, Emit, Handler, Pipeline, Record, Reject, Retry, by, sources
from pipeline.batch import BatchResult
from pipeline.decisions.deadline import Deadline, deadline
from pipeline.decisions.idempotency import ClaimRequest
from pipeline.decisions.keys import entry_id, key_text
from pipeline.emulator.virtual import VirtualClock, virtually
from pipeline.engine.environment import ProcessEnvironment
from pipeline.engine.processor import Processor
from pipeline.errors import ConfigurationError, PayloadError, SinkRefused, SinkUnavailable
from pipeline.outcome import Duplicate, Failed, HandBack, Outcome, Rejected, Succeeded, Unprocessed, is_settled
from pipeline.record import RawRecord
from pipeline.stores import Memory
from pipeline.telemetry.events import Fact, RecordPostponed
from pipeline.telemetry.log import logger_for
from pipeline.telemetry.metrics import metrics_for
from pipeline.testing import invoke
from tests.engine.harness import Letters, Sink, process

SHARD = "shardId-000000000000"


def event(*payloads: Any, keys: Sequence[str] | None = None, first: int = 1) -> dict[str, Any]:
    """A Lambda event of one shard; the keys default to one for each record."""
    return {
        "Records": [
            {
                "kinesis": {
                    "partitionKey": keys[position] if keys else f"k{position}",
                    "sequenceNumber": str(first + position),
                    "data": base64.b64encode(json.dumps(payload).encode()).decode(),
                },
                "eventSource": "aws:kinesis",
                "eventID": f"{SHARD}:{first + position}",
                "eventSourceARN": "arn:aws:kinesis:eu-west-1:111122223333:stream/readings",
            }
            for position, payload in enumerate(payloads)
        ]
    }


def decoded(*payloads: Any, **options: Any) -> list[RawRecord]:
    return sources.Kinesis("readings").decode(event(*payloads, **options))


Function = Callable[[dict[str, Any]], Any]


def handler_of(
    function: Any, *, idempotent: bool = True, sinks: Sequence[Any] = (), **options: Any
) -> Handler[Any, Any]:
    pipeline = Pipeline("plant") if idempotent else Pipeline("plant", idempotency=None)
    return pipeline.handler(sources.Kinesis("readings"), sinks=sinks, **options)(function)


def run(handler: Any, records: Sequence[RawRecord], *, remaining: float | None = 30.0, **options: Any) -> Any:
    """One batch in virtual time; the result, the letters, and how long it took."""

    async def scenario() -> Any:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        until = Deadline() if remaining is None else deadline(begun, remaining)
        result, letters = await process(handler.stage, records, deadline=until, clock=VirtualClock(), **options)
        return result, letters, loop.time() - begun

    return virtually(scenario())


def kinds(result: BatchResult) -> list[str]:
    return [type(outcome).__name__ for outcome in result.outcomes]


# Order


def test_one_partition_key_runs_in_order_and_keys_run_side_by_side() -> None:
    running: Counter[str] = Counter()
    seen: list[str] = []
    most = 0

    async def read(item: dict[str, Any]) -> None:
        nonlocal most
        assert not running[item["key"]]
        running[item["key"]] += 1
        most = max(most, sum(running.values()))
        await asyncio.sleep(1)
        running[item["key"]] -= 1
        seen.append(f"{item['key']}{item['n']}")

    keys = ["a", "b", "a", "c", "b", "a"]
    records = decoded(*[{"key": key, "n": n} for n, key in enumerate(keys)], keys=keys)
    result, _, seconds = run(handler_of(read), records)

    assert kinds(result) == ["Succeeded"] * 6
    assert most == 3
    assert seconds == pytest.approx(3)
    assert [name for name in seen if name[0] == "a"] == ["a0", "a2", "a5"]


def test_by_shard_runs_everything_in_order() -> None:
    seen: list[int] = []

    async def read(item: int) -> None:
        await asyncio.sleep(1 / (item + 1))
        seen.append(item)

    run(handler_of(read, lane=by.shard), decoded(*range(5)))

    assert seen == [0, 1, 2, 3, 4]


def test_without_idempotency_nothing_runs_beyond_a_failure() -> None:
    seen: list[int] = []

    async def read(item: int) -> None:
        seen.append(item)
        if item == 1:
            raise ValueError("no")

    handler = handler_of(read, idempotent=False, retry=None)
    result, _, _ = run(handler, decoded(*range(4)))

    assert seen == [0, 1]
    assert kinds(result) == ["Succeeded", "Failed", "Unprocessed", "Unprocessed"]
    assert handler.stage.source.unsettled_ids(result) == ["2"]


def test_without_idempotency_another_lane_is_refused() -> None:
    async def read(item: int) -> None: ...

    with pytest.raises(ConfigurationError, match=r"lane=by\.partition_key needs idempotency"):
        handler_of(read, idempotent=False, lane=by.partition_key)


def test_several_handlers_may_read_one_stream() -> None:
    pipeline = Pipeline("plant")
    source = sources.Kinesis("readings")

    @pipeline.handler(source)
    async def watch(item: int) -> None: ...

    @pipeline.handler(source)
    async def archive(item: int) -> None: ...

    assert [stage.name for stage in pipeline.stages()] == ["watch", "archive"]


# Waiting in process


def failing(times: int, error: Exception) -> tuple[Any, list[float]]:
    """A handler whose record 0 fails so often, and when each of its runs began."""
    begun: list[float] = []

    async def read(item: int) -> None:
        if item == 0:
            begun.append(asyncio.get_running_loop().time())
            if len(begun) <= times:
                raise error

    return read, begun


@pytest.mark.parametrize("idempotent", [True, False])
def test_a_retry_waits_in_process_and_its_lane_with_it(idempotent: bool) -> None:
    read, begun = failing(2, Retry(after=4))
    facts: list[Fact] = []
    handler = handler_of(read, idempotent=idempotent)

    result, _, seconds = run(handler, decoded(0, 1, keys=["a", "a"]), facts=facts)

    assert kinds(result) == ["Succeeded", "Succeeded"]
    assert [later - begun[0] for later in begun] == pytest.approx([0, 4, 8])
    assert seconds == pytest.approx(8)
    assert [fact.attempt for fact in facts if isinstance(fact, RecordPostponed)] == [1, 2]


def test_others_do_not_wait_and_take_no_longer() -> None:
    read, _ = failing(1, Retry(after=10))
    ended: list[float] = []

    async def read_all(item: int) -> None:
        await read(item)
        ended.append(asyncio.get_running_loop().time())

    handler = handler_of(read_all, concurrency=1)
    result, _, seconds = run(handler, decoded(*range(5)))

    assert kinds(result) == ["Succeeded"] * 5
    assert ended[3] - ended[0] == pytest.approx(0)
    assert seconds == pytest.approx(10)


def test_a_record_that_is_due_again_stands_before_those_that_have_not_begun() -> None:
    read, _ = failing(1, Retry(after=3))
    seen: list[int] = []

    async def read_all(item: int) -> None:
        await asyncio.sleep(1)
        await read(item)
        seen.append(item)

    run(handler_of(read_all, concurrency=1), decoded(*range(7)))

    assert seen == [1, 2, 3, 0, 4, 5, 6]


def test_a_delay_beyond_the_time_waits_to_its_end_and_then_fails() -> None:
    read, begun = failing(1, Retry(after=100))
    handler = handler_of(read)

    result, _, seconds = run(handler, decoded(0, 1))

    assert kinds(result) == ["Failed", "Succeeded"]
    assert len(begun) == 1
    assert seconds == pytest.approx(27)
    assert handler.stage.source.unsettled_ids(result) == ["1"]


def test_a_record_that_fails_for_ever_uses_up_its_attempts_with_its_back_off() -> None:
    read, begun = failing(99, ValueError("no"))

    result, letters, seconds = run(handler_of(read, retry=Backoff(attempts=3, base=2)), decoded(0, 1, keys=["a", "a"]))

    assert kinds(result) == ["Rejected", "Succeeded"]
    assert len(begun) == 3
    assert letters.letters[0].attempts == 3
    assert seconds == pytest.approx(1 + 2)


@pytest.mark.parametrize("remaining", [30.0, None])
def test_without_back_off_or_without_a_deadline_nothing_waits(remaining: float | None) -> None:
    read, begun = failing(1, Retry(after=4))
    options = {"retry": None} if remaining else {}

    result, _, seconds = run(handler_of(read, **options), decoded(0), remaining=remaining)

    assert kinds(result) == ["Failed"]
    assert (len(begun), seconds) == (1, 0)


def test_a_queue_never_waits_in_process() -> None:
    pipeline = Pipeline("plant")
    read, begun = failing(1, Retry(after=4))
    handler = pipeline.handler(sources.SQS("readings"))(read)

    result, _, seconds = run(handler, [RawRecord(id="m", source="readings", body="0")])

    assert result.outcomes == (Failed(result.outcomes[0].error, 4),)
    assert (len(begun), seconds) == (1, 0)


def test_attempts_are_counted_across_batches_without_idempotency() -> None:
    read, begun = failing(99, ValueError("no"))
    handler = handler_of(read, idempotent=False, retry=Backoff(attempts=3, base=1000, cap=1000))

    async def scenario() -> list[BatchResult]:
        environment = ProcessEnvironment(clock=VirtualClock(), chance=lambda: 0.9)
        stage = replace(handler.stage, dead_letters=Letters())
        processor = Processor(
            stage, environment, logger=logger_for("plant", "INFO"), metrics=metrics_for("plant", "read")
        )
        loop = asyncio.get_running_loop()
        return [await processor.process(decoded(0), deadline(loop.time(), 10)) for _ in range(4)]

    results = virtually(scenario())

    assert [kinds(result) for result in results] == [["Failed"], ["Failed"], ["Rejected"], ["Failed"]]
    assert len(begun) == 4  # the fourth batch is a redrive: it starts anew


def test_an_outage_of_a_sink_waits_and_costs_no_attempt_and_no_second_run() -> None:
    down = [True] * 3
    runs = 0
    sink = Sink(fails=lambda output: SinkUnavailable("throttled") if down and down.pop() else None)

    async def read(item: int) -> int:
        nonlocal runs
        runs += 1
        return item

    facts: list[Fact] = []
    result, _, seconds = run(handler_of(read, sinks=[sink]), decoded(7), facts=facts)

    assert kinds(result) == ["Succeeded"]
    assert (runs, sink.values) == (1, [7])
    assert [fact.attempt for fact in facts if isinstance(fact, RecordPostponed)] == [1, 1, 1]
    assert seconds == pytest.approx(1 + 2 + 4)


def test_a_busy_claim_is_waited_for() -> None:
    store = Memory()
    begun: list[float] = []

    async def read(item: int) -> None:
        begun.append(asyncio.get_running_loop().time())
        await asyncio.sleep(6)

    handler = handler_of(read, key=lambda item: "same")

    async def scenario() -> list[BatchResult]:
        async def batch(first: int) -> BatchResult:
            until = deadline(asyncio.get_running_loop().time(), 30)
            records = decoded(0, first=first)
            return (await process(handler.stage, records, store=store, deadline=until, clock=VirtualClock()))[0]

        return await asyncio.gather(batch(1), batch(2))

    one, other = virtually(scenario())

    assert kinds(one) == ["Succeeded"]
    assert kinds(other) == ["Duplicate"]
    assert len(begun) == 1


def test_a_busy_claim_that_outlives_the_time_hands_the_record_back() -> None:
    store = Memory()

    async def read(item: int) -> None:
        await asyncio.sleep(1_000)

    handler = handler_of(read, key=lambda item: "same")

    async def scenario() -> BatchResult:
        loop = asyncio.get_running_loop()

        async def batch(first: int, remaining: float) -> BatchResult:
            until = deadline(loop.time(), remaining)
            records = decoded(0, first=first)
            return (await process(handler.stage, records, store=store, deadline=until, clock=VirtualClock()))[0]

        long = asyncio.create_task(batch(1, 900))
        await asyncio.sleep(0.1)
        result = await batch(2, 30)
        long.cancel()
        await asyncio.gather(long, return_exceptions=True)
        return result

    result = virtually(scenario())

    assert [(type(outcome), outcome.reason) for outcome in result.outcomes] == [(Unprocessed, HandBack.CLAIMED)]


def test_what_is_rejected_beyond_an_unsettled_record_is_put_aside_once() -> None:
    records = sources.Kinesis("readings").decode(event({"n": 0}, {"n": 1}, {"n": 2}, {"n": 3}))
    error = PayloadError("the data is not base64")
    damaged = [*records[:2], *(msgspec.structs.replace(record, error=error) for record in records[2:])]
    store, letters = Memory(), Letters()

    async def read(item: dict[str, int]) -> None:
        if item["n"] == 0:
            raise Retry(after=500)
        raise Reject("never")

    handler = handler_of(read)
    first, _, _ = run(handler, damaged, store=store, letters=letters)
    again, _, _ = run(handler, damaged, store=store, letters=letters)

    assert kinds(first) == ["Failed", "Rejected", "Rejected", "Rejected"]
    assert kinds(again) == ["Failed", "Duplicate", "Duplicate", "Duplicate"]
    assert len(letters.letters) == 3


def test_two_records_of_one_key_that_never_succeed_are_put_aside_once_each() -> None:
    store, letters = Memory(), Letters()

    async def read(item: int) -> None:
        raise Retry(after=500) if item == 0 else ValueError("no")

    handler = handler_of(read, key=lambda item: "first" if item == 0 else "same", retry=Backoff(attempts=2, base=1))
    results = [run(handler, decoded(0, 1, 2, 3), store=store, letters=letters)[0] for _ in range(4)]

    assert kinds(results[-1])[1:] == ["Duplicate", "Duplicate", "Duplicate"]
    assert len([letter for letter in letters.letters if letter.record.body != b"0"]) == 3


def test_a_damaged_record_keeps_its_place_in_the_shard() -> None:
    letters = Letters()

    async def read(item: dict[str, int]) -> None:
        raise Retry(after=500)

    records = sources.Kinesis("readings").decode(event({"n": 0}, {"n": 1}, {"n": 2}))
    error = PayloadError("the data is not base64")
    damaged = [records[0], msgspec.structs.replace(records[1], error=error), records[2]]
    result, _, _ = run(handler_of(read, idempotent=False), damaged, letters=letters)

    assert kinds(result) == ["Failed", "Unprocessed", "Unprocessed"]
    assert letters.letters == []


def test_a_failure_of_the_engine_itself_counts_without_idempotency() -> None:
    class Odd(Sink):
        async def write(self, outputs: Any, environment: Any, deadline: Any) -> Any:
            return [SinkRefused("no") for _ in outputs]

    async def read(item: int) -> Emit[str]:
        return Emit("x", attributes={"a": "\ud800"})  # what is to be kept cannot be written

    handler = handler_of(read, idempotent=False, sinks=[Odd()], retry=Backoff(attempts=3, base=1))
    result, letters, _ = run(handler, decoded(0))

    assert kinds(result) == ["Rejected"]
    assert len(letters.letters) == 1


def test_a_lease_that_ends_this_very_moment_is_not_asked_for_without_end() -> None:
    class Counting(Memory):
        calls = 0

        async def claim(self, *args: Any) -> Any:
            self.calls += 1
            return await super().claim(*args)

    store = Counting()

    async def read(item: int) -> None: ...

    handler = handler_of(read, key=lambda item: "same")

    async def scenario() -> Any:
        environment = ProcessEnvironment(clock=VirtualClock())
        entry = f"plant.read#{entry_id('', key_text('same'))[1:]}"
        until = environment.clock.now() + 3.0
        await store.claim([ClaimRequest(id=entry, owner="other", lease_until=until, ttl=1000)], environment)
        now = asyncio.get_running_loop().time()
        return await process(
            handler.stage, decoded(0), store=store, deadline=deadline(now, 30), clock=VirtualClock(),
            chance=lambda: 0.999,
        )  # fmt: skip

    result, _ = virtually(scenario())

    assert kinds(result) == ["Succeeded"]
    assert store.calls < 12


def test_a_redrive_of_what_was_rejected_is_another_record_and_runs() -> None:
    store, letters = Memory(), Letters()
    is_mended: list[bool] = []

    async def read(item: int) -> None:
        if not is_mended:
            raise Reject("not yet")

    handler = handler_of(read, key=lambda item: "same")
    first, _, _ = run(handler, decoded(0), store=store, letters=letters)
    is_mended.append(True)
    second, _, _ = run(handler, decoded(0, first=2), store=store, letters=letters)

    assert kinds(first) + kinds(second) == ["Rejected", "Succeeded"]


# For any batch


class Effects:
    """A handler whose records end as a table says, and what it has done."""

    def __init__(self, ends: dict[int, list[str]]) -> None:
        self.ends = {item: list(words) for item, words in ends.items()}
        self.began: list[int] = []

    async def __call__(self, item: int) -> Any:
        self.began.append(item)
        words = self.ends[item]
        word = words.pop(0) if words else "succeed"
        await asyncio.sleep({"slow": 2.0, "hang": 1_000.0}.get(word, 0.01))
        if word == "fail":
            raise ValueError("no")
        if word == "retry":
            raise Retry(after=7)
        if word == "long":
            raise Retry(after=500)
        if word == "reject":
            raise Reject("never")
        return Emit(item)


words = st.lists(st.sampled_from(["succeed", "slow", "hang", "fail", "retry", "long", "reject"]), max_size=3)
batches = st.lists(st.tuples(st.sampled_from("abc"), words), min_size=1, max_size=12)


@given(batches, st.sampled_from([None, by.shard]), st.integers(1, 4), st.integers(0, 10**6))
def test_for_any_batch_the_number_is_the_lowest_unsettled_and_a_replay_settles_all_once(
    batch: list[tuple[str, list[str]]], lane: Any, concurrency: int, seed: int
) -> None:
    effects = Effects({item: ends for item, (_, ends) in enumerate(batch)})
    sink = Sink()

    async def read(item: int) -> Any:
        return await effects(item)

    handler = handler_of(read, sinks=[sink], lane=lane, concurrency=concurrency)
    source = handler.stage.source
    store, letters = Memory(), Letters()
    # Lengths differ, so that a comparison of texts would be found out.
    records = decoded(*range(len(batch)), keys=[key for key, _ in batch], first=95)
    lane_of = (lambda record: SHARD) if lane is by.shard else (lambda record: record.lane)
    left = records
    settled: dict[str, Outcome] = {}

    async def scenario() -> None:
        nonlocal left
        for _ in range(60):
            effects.began.clear()
            until = deadline(asyncio.get_running_loop().time(), 30)
            result, _ = await process(
                handler.stage, left, store=store, letters=letters, deadline=until, clock=VirtualClock(),
                chance=lambda: (seed % 97) / 97,
            )  # fmt: skip
            check(result)
            if not (ids := source.unsettled_ids(result)):
                return
            left = [record for record in left if record.origin.number >= int(ids[0])]
        raise AssertionError("it never came to an end")

    def check(result: BatchResult) -> None:
        ids = source.unsettled_ids(result)
        unsettled = [record.origin.number for record, outcome in result if not is_settled(outcome)]
        assert ids == ([str(min(unsettled))] if unsettled else [])
        failed_lanes: set[str | None] = set()
        for record, outcome in result:
            item = json.loads(record.body)
            if lane_of(record) in failed_lanes:  # nothing of a lane runs behind a failure of it
                assert item not in effects.began
                assert isinstance(outcome, (Unprocessed, Duplicate))
            if not is_settled(outcome):
                failed_lanes.add(lane_of(record))
            if isinstance(outcome, (Succeeded, Rejected)):
                assert record.id not in settled  # what succeeded beyond the number comes back as a duplicate
                settled[record.id] = outcome
            if isinstance(outcome, Duplicate):
                assert record.id in settled

    virtually(scenario())

    rejected = [letter.record.id for letter in letters.letters]
    succeeded = [name for name, outcome in settled.items() if isinstance(outcome, Succeeded)]
    assert sorted([*succeeded, *rejected]) == sorted(record.id for record in records)
    # Each effect once, and those of a lane in its order.
    assert sorted(sink.values) == sorted(json.loads(r.body) for r in records if r.id in succeeded)
    for key in {record.lane for record in records}:
        of_lane = [json.loads(record.body) for record in records if record.lane == key]
        assert [value for value in sink.values if value in of_lane] == [v for v in of_lane if v in sink.values]


def test_invoke_gives_a_stream_handler_its_records_places() -> None:
    async def read(record: Record[int]) -> str:
        return record.attributes["partition_key"]

    ordered = handler_of(read, sinks=[Sink()], lane=by.shard)

    assert invoke(ordered, [1, 2]).outputs["sink"] == ["key-0", "key-1"]
    assert invoke(ordered, [1, 2], groups=["a", "a"]).outputs["sink"] == ["a", "a"]
