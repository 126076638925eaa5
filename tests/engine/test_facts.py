"""The facts that observers are told."""

from __future__ import annotations

import asyncio
from typing import Any

from pipeline import Claim, Pipeline, sources
from pipeline.decisions.deadline import Deadline
from pipeline.emulator.virtual import EPOCH, VirtualClock, virtually
from pipeline.engine.environment import ProcessEnvironment
from pipeline.engine.processor import Processor
from pipeline.outcome import Duplicate, Failed, Succeeded
from pipeline.stores import Memory
from pipeline.telemetry.events import BatchFinished, BatchStarted, Fact, RecordFinished
from pipeline.telemetry.log import logger_for
from pipeline.telemetry.metrics import metrics_for
from tests.engine.harness import process, records


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
