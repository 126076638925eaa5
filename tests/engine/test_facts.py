"""The facts that observers are told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pipeline import Backoff, Checkpoint, Claim, Mark, Pipeline, sources
from pipeline.decisions.deadline import Deadline
from pipeline.emulator.virtual import EPOCH, VirtualClock, virtually
from pipeline.engine.environment import ProcessEnvironment
from pipeline.engine.processor import Processor
from pipeline.errors import StoreUnavailable
from pipeline.outcome import Duplicate, Failed, Succeeded, Unprocessed
from pipeline.stores import Memory
from pipeline.telemetry.events import (
    BatchFinished,
    BatchStarted,
    Fact,
    RecordFinished,
    RecordPostponed,
    StoreCalled,
    tell,
)
from pipeline.telemetry.log import logger_for
from pipeline.telemetry.metrics import metrics_for
from tests.engine.harness import process, records
from tests.engine.test_streams import event


class FailuresOnly:
    failures_only = True

    def __init__(self) -> None:
        self.facts: list[Fact] = []

    def __call__(self, fact: Fact) -> None:
        self.facts.append(fact)


def handler() -> Any:
    @Pipeline("facts", idempotency=None).handler(sources.SQS("orders"))
    async def price(order: dict[str, Any]) -> None:
        await asyncio.sleep(order.get("seconds", 0))
        if order.get("fails"):
            raise ValueError("no")

    return price


async def test_an_observer_of_failures_only_is_told_of_nothing_that_went_well() -> None:
    price, every, failures = handler(), list[Fact](), FailuresOnly()
    environment = ProcessEnvironment()
    processor = Processor(
        price.stage,
        environment,
        logger=logger_for("facts", "INFO"),
        metrics=metrics_for("facts", "price"),
        observers=[every.append, failures],
    )

    await processor.process(records("{}", '{"fails": true}', "{}"))

    told = [type(fact.outcome) for fact in every if isinstance(fact, RecordFinished)]
    assert sorted(kind.__name__ for kind in told) == ["Failed", "Succeeded", "Succeeded"]
    (failed,) = [fact for fact in failures.facts if isinstance(fact, RecordFinished)]
    assert isinstance(failed.outcome, Failed)
    assert [type(fact) for fact in failures.facts if not isinstance(fact, RecordFinished)] == [
        BatchStarted,
        BatchFinished,
    ]
    await environment.aclose()


def test_a_batch_tells_its_size_its_age_its_duration_and_its_slowest_record() -> None:
    facts: list[Fact] = []
    raw = records('{"seconds": 2}', '{"seconds": 7}', "{}", sent_at=EPOCH - 30)

    virtually(process(handler().stage, raw, facts=facts, clock=VirtualClock()))

    started, finished = facts[0], facts[-1]
    assert isinstance(started, BatchStarted)
    assert (started.size, started.oldest, started.source) == (3, 30.0, "orders")
    assert isinstance(finished, BatchFinished)
    assert (finished.slowest, finished.seconds, finished.oldest) == (7.0, 7.0, 30.0)
    assert [type(outcome) for outcome in finished.result.outcomes] == [Succeeded] * 3


def test_a_record_tells_its_age_at_its_end_and_what_it_spent_in_the_handler() -> None:
    facts: list[Fact] = []
    raw = records('{"seconds": 2}', '{"seconds": 1, "fails": true}', "not JSON", sent_at=EPOCH - 30)

    virtually(process(handler().stage, raw, facts=facts, clock=VirtualClock()))

    told = {fact.record.id: fact for fact in facts if isinstance(fact, RecordFinished)}
    assert {name: (round(fact.age or 0, 1), fact.handled) for name, fact in told.items()} == {
        "r0": (32.0, 2.0),
        "r1": (31.0, 1.0),
        "r2": (30.0, None),  # it has no payload to be called with
    }


def test_a_handler_that_the_deadline_finds_running_tells_how_long_it_has_run() -> None:
    facts: list[Fact] = []
    raw = records('{"seconds": 60}')

    virtually(process(handler().stage, raw, facts=facts, clock=VirtualClock(), deadline=Deadline(soft=5, hard=6)))

    (told,) = [fact for fact in facts if isinstance(fact, RecordFinished)]
    assert (told.age, told.handled) == (None, 5.0)


def test_a_duplicate_spent_no_time_in_the_handler() -> None:
    @Pipeline("facts", idempotency=Claim()).handler(sources.SQS("orders"))
    async def price(order: dict[str, Any]) -> None:
        await asyncio.sleep(2)

    facts: list[Fact] = []
    store = Memory()

    async def scenario() -> None:
        for _ in range(2):
            await process(price.stage, records("{}"), store=store, facts=facts, clock=VirtualClock())

    virtually(scenario())

    told = [fact for fact in facts if isinstance(fact, RecordFinished)]
    assert [(type(fact.outcome), fact.handled) for fact in told] == [(Succeeded, 2.0), (Duplicate, None)]


def test_a_batch_tells_how_its_records_fared_in_the_handler() -> None:
    facts: list[Fact] = []
    raw = records('{"seconds": 2}', '{"seconds": 7}', '{"fails": true}', "not JSON", sent_at=EPOCH - 30)

    virtually(process(handler().stage, raw, facts=facts, clock=VirtualClock()))

    finished = facts[-1]
    assert isinstance(finished, BatchFinished)
    assert sorted(finished.handled) == [0.0, 2.0, 7.0]  # what is no JSON was not handed over
    assert sorted(round(age, 1) for age in finished.ages) == [30.0, 32.0, 37.0]  # what failed is not settled
    assert (finished.concurrency, finished.batch_size) == (3, 10)


async def test_records_that_follow_each_other_are_one_at_a_time_in_the_handler() -> None:
    facts: list[Fact] = []

    await process(handler().stage, records("{}", "{}", group="a"), facts=facts)

    finished = facts[-1]
    assert isinstance(finished, BatchFinished)
    assert finished.concurrency == 1


def test_each_run_of_a_record_that_waits_in_process_is_measured_once() -> None:
    @Pipeline("facts", idempotency=None).handler(sources.Kinesis("orders"), retry=Backoff(attempts=9, base=1, cap=1))
    async def price(order: dict[str, Any]) -> None:
        await asyncio.sleep(2)
        raise ValueError("no")

    facts: list[Fact] = []
    until = Deadline(soft=7.4, hard=9)  # it waits half a second after each run, and there is no time for a fourth
    virtually(process(price.stage, records("{}"), facts=facts, clock=VirtualClock(), deadline=until))

    finished = facts[-1]
    assert isinstance(finished, BatchFinished)
    assert finished.handled == (2.0, 2.0, 2.0)
    assert len([fact for fact in facts if isinstance(fact, RecordPostponed)]) == 3


async def test_each_call_to_the_store_is_told() -> None:
    class Away(Memory):
        async def settle(self, settlements: Any, environment: Any) -> Any:
            raise ConnectionError("away")

    @Pipeline("facts", idempotency=Claim()).handler(sources.SQS("orders"), key="id")
    async def price(order: dict[str, Any]) -> None: ...

    facts: list[Fact] = []
    await process(price.stage, records('{"id": 1}', '{"id": 2}'), store=Away(), facts=facts)

    told = [fact for fact in facts if isinstance(fact, StoreCalled)]
    assert [(fact.operation, fact.requests, fact.failed) for fact in told] == [("claim", 2, 0), ("settle", 2, 2)]
    assert told[0].error is None
    assert isinstance(told[1].error, StoreUnavailable)
    assert "ConnectionError" in str(told[1].error)


@pytest.mark.parametrize(("mode", "operations"), [(Mark(), ["look", "mark"]), (Checkpoint(), ["look", "advance"])])
async def test_marks_and_checkpoints_tell_their_calls_too(mode: Any, operations: list[str]) -> None:
    @Pipeline("facts", idempotency=mode).handler(sources.Kinesis("orders"))
    async def price(order: dict[str, Any]) -> None: ...

    facts: list[Fact] = []
    raw = price.stage.source.decode(event({"id": 1}, keys=["a"]))
    await process(price.stage, raw, store=Memory(), facts=facts)

    assert [fact.operation for fact in facts if isinstance(fact, StoreCalled)] == operations


async def test_a_store_that_answers_for_too_few_is_taken_for_one_that_did_not_answer() -> None:
    class Short(Memory):
        async def claim(self, requests: Any, environment: Any) -> Any:
            return (await super().claim(requests, environment))[:-1]

    @Pipeline("facts", idempotency=Claim()).handler(sources.SQS("orders"), key="id")
    async def price(order: dict[str, Any]) -> None: ...

    result, _ = await process(price.stage, records('{"id": 1}', '{"id": 2}'), store=Short())

    assert [type(outcome) for outcome in result.outcomes] == [Unprocessed, Unprocessed]


def test_a_claim_is_renewed_while_the_store_is_slow_to_end_it() -> None:
    class SlowToSettle(Memory):
        async def settle(self, settlements: Any, environment: Any) -> Any:
            await asyncio.sleep(100)
            return await super().settle(settlements, environment)

    store = SlowToSettle()

    @Pipeline("facts", idempotency=Claim(lease=10)).handler(sources.SQS("orders"))
    async def price(order: dict[str, Any]) -> None: ...

    async def scenario() -> Any:
        clock = VirtualClock()
        first = asyncio.ensure_future(process(price.stage, records("{}"), store=store, clock=clock))
        await asyncio.sleep(60)
        meanwhile, _ = await process(price.stage, records("{}"), store=store, clock=clock)
        done, _ = await first
        again, _ = await process(price.stage, records("{}"), store=store, clock=clock)
        return done, meanwhile, again

    done, meanwhile, again = virtually(scenario())

    assert isinstance(done.outcomes[0], Succeeded)
    assert not isinstance(meanwhile.outcomes[0], Succeeded)
    assert isinstance(again.outcomes[0], Duplicate)


def test_an_observer_that_fails_is_complained_of_once_for_each_kind_of_fact(caplog: pytest.LogCaptureFixture) -> None:
    def broken(fact: Any) -> None:
        raise LookupError("broken")

    def other(fact: Any) -> None:
        raise LookupError("other")

    started = BatchStarted(pipeline="shop", handler="price", source="orders", size=1, oldest=None)
    lost = StoreCalled(
        pipeline="shop", handler="price", operation="claim", requests=1, failed=0, seconds=0.0, error=None
    )
    for fact in (started, started, lost, started, lost):
        tell([broken, other], fact)

    said = [record.getMessage().removeprefix("an observer failed at ").split(" ")[0] for record in caplog.records]
    assert said == ["BatchStarted", "BatchStarted", "StoreCalled", "StoreCalled"]
    assert all(record.exc_info for record in caplog.records)
