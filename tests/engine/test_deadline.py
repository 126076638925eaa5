"""The deadline: no late start, nothing finished is lost, and what cannot be stopped keeps its claim."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from typing import Any

import pytest

from pipeline import Context, Pipeline, sources
from pipeline.decisions.deadline import deadline
from pipeline.emulator.virtual import VirtualClock, virtually
from pipeline.engine.environment import ProcessEnvironment
from pipeline.engine.processor import Processor
from pipeline.errors import RecordTimeout
from pipeline.outcome import Failed, HandBack, Rejected, Succeeded, Unprocessed
from pipeline.record import RawRecord
from pipeline.stores import Memory
from pipeline.telemetry.events import CompletionLost, Fact
from pipeline.telemetry.log import logger_for
from pipeline.telemetry.metrics import metrics_for
from tests.engine.harness import Letters, process, records


def test_records_that_would_not_finish_are_handed_back_and_the_finished_keep_their_results() -> None:
    pipeline = Pipeline("shop")

    @pipeline.handler(sources.SQS("orders"), concurrency=1)
    async def price(order: dict[str, Any]) -> None:
        await asyncio.sleep(4)

    result, _ = virtually(
        process(price.stage, records(*["{}"] * 5), deadline=deadline(0.0, 15.0), clock=VirtualClock())
    )

    assert [type(outcome) for outcome in result.outcomes] == [Succeeded, Succeeded, Succeeded, Unprocessed, Unprocessed]
    assert all(outcome.reason is HandBack.DEADLINE for _, outcome in result.of(Unprocessed))


def test_one_slow_record_does_not_keep_later_batches_from_starting() -> None:
    pipeline = Pipeline("shop")

    @pipeline.handler(sources.SQS("orders"), concurrency=1)
    async def price(order: dict[str, Any]) -> None:
        await asyncio.sleep(order["seconds"])

    async def scenario() -> list[list[str]]:
        environment = ProcessEnvironment(clock=VirtualClock())
        stage = replace(price.stage, dead_letters=Letters(), store=Memory())
        logger, metrics = logger_for("shop", "INFO"), metrics_for("shop", "price")
        processor = Processor(stage, environment, logger=logger, metrics=metrics)
        names = []
        for number, (seconds, remaining) in enumerate([(26.5, 30.0), (1, 29.0), (1, 29.0)]):
            until = deadline(asyncio.get_running_loop().time(), remaining)
            body = json.dumps({"seconds": seconds})
            result = await processor.process(
                [RawRecord(id=f"{number}.{n}", source="orders", body=body) for n in range(2)], until
            )
            names.append([type(outcome).__name__ for outcome in result.outcomes])
        return names

    slow, *later = virtually(scenario())

    assert slow == ["Succeeded", "Unprocessed"]
    # A batch that begins has all the time there is: waiting for a better one would be for ever.
    assert [names[0] for names in later] == ["Succeeded", "Succeeded"]


def test_a_handler_that_hangs_in_an_await_fails_alone_before_the_time_is_up() -> None:
    pipeline = Pipeline("shop")

    @pipeline.handler(sources.SQS("orders"))
    async def price(order: dict[str, Any]) -> None:
        if order["n"] == 1:
            await asyncio.Event().wait()

    async def scenario() -> tuple[Any, float]:
        result, _ = await process(
            price.stage, records('{"n": 0}', '{"n": 1}', '{"n": 2}'), deadline=deadline(0.0, 30.0), clock=VirtualClock()
        )
        return result, asyncio.get_running_loop().time()

    result, took = virtually(scenario())

    assert [type(outcome) for outcome in result.outcomes] == [Succeeded, Failed, Succeeded]
    assert isinstance(result.outcomes[1].error, RecordTimeout)
    assert took < 30


def test_a_handler_that_hangs_releases_its_claim_and_the_run_counts() -> None:
    pipeline = Pipeline("shop")
    store = Memory()

    @pipeline.handler(sources.SQS("orders"))
    async def price(order: dict[str, Any], context: Context) -> None:
        await asyncio.Event().wait()

    async def scenario() -> list[Any]:
        outcomes = []
        for _ in range(6):
            start = asyncio.get_running_loop().time()
            result, letters = await process(
                price.stage, records("{}"), store=store, deadline=deadline(start, 5.0), clock=VirtualClock()
            )
            outcomes.append((type(result.outcomes[0]).__name__, len(letters.letters)))
        return outcomes

    assert virtually(scenario()) == [("Failed", 0)] * 4 + [("Rejected", 1), ("Failed", 0)]


def test_record_timeout_cuts_one_record() -> None:
    pipeline = Pipeline("shop")

    @pipeline.handler(sources.SQS("orders"), record_timeout=2.5)
    async def price(order: dict[str, Any]) -> None:
        await asyncio.sleep(order["seconds"])

    result, _ = virtually(process(price.stage, records('{"seconds": 2}', '{"seconds": 3}'), clock=VirtualClock()))

    assert isinstance(result.outcomes[0], Succeeded)
    assert isinstance(result.outcomes[1], Failed)
    assert "record_timeout=2.5" in str(result.outcomes[1].error)


def test_a_timeout_error_of_the_handlers_own_stays_its_own() -> None:
    pipeline = Pipeline("shop")

    @pipeline.handler(sources.SQS("orders"), record_timeout=60)
    async def price(order: dict[str, Any]) -> None:
        async with asyncio.timeout(1):
            await asyncio.sleep(2)

    result, _ = virtually(process(price.stage, records("{}"), clock=VirtualClock()))

    assert isinstance(result.outcomes[0], Failed)
    assert type(result.outcomes[0].error) is TimeoutError


def test_a_thread_that_hangs_keeps_its_claim_until_it_lapses_and_the_others_finish() -> None:
    pipeline = Pipeline("shop")
    store = Memory()
    go_on = threading.Event()

    @pipeline.handler(sources.SQS("orders"))
    def price(order: dict[str, Any]) -> None:
        if order["n"] == 1:
            go_on.wait(30)

    async def scenario() -> tuple[Any, Any]:
        raw = records('{"n": 0}', '{"n": 1}')
        first, _ = await process(
            price.stage,
            raw,
            store=store,
            deadline=deadline(asyncio.get_running_loop().time(), 5.0),
            clock=VirtualClock(),
        )
        again, _ = await process(price.stage, raw[1:], store=store, clock=VirtualClock())
        return first, again

    first, again = virtually(scenario(), patience=0.05)
    go_on.set()

    assert isinstance(first.outcomes[0], Succeeded)
    hung = first.outcomes[1]
    assert isinstance(hung, Failed)
    assert hung.delay is not None
    assert hung.delay > 0, "it comes back when the claim lapses"
    (busy,) = again.outcomes
    assert isinstance(busy, Unprocessed)
    assert busy.reason is HandBack.CLAIMED


def test_remaining_counts_down_for_the_handler() -> None:
    pipeline = Pipeline("shop")
    seen: list[float | None] = []

    @pipeline.handler(sources.SQS("orders"), concurrency=1)
    async def price(order: dict[str, Any], context: Context) -> None:
        await asyncio.sleep(1)
        seen.append(context.remaining())

    virtually(process(price.stage, records("{}", "{}"), deadline=deadline(0.0, 10.0), clock=VirtualClock()))

    assert seen == [8.0, 7.0]


def test_a_thread_that_hangs_takes_no_place_from_the_others() -> None:
    pipeline = Pipeline("shop")
    go_on = threading.Event()
    ran: list[int] = []

    @pipeline.handler(sources.SQS("orders"), concurrency=1, record_timeout=0.3)
    def price(order: dict[str, Any]) -> None:
        ran.append(order["n"])
        if order["n"] == 0:
            go_on.wait(30)

    result, _ = asyncio.run(process(price.stage, records(*(f'{{"n": {n}}}' for n in range(4)))))
    go_on.set()

    assert [type(outcome) for outcome in result.outcomes] == [Failed, Succeeded, Succeeded, Succeeded]
    assert ran == [0, 1, 2, 3]


@pytest.mark.parametrize(("receive_count", "end"), [(1, Failed), (5, Rejected)])
def test_without_idempotency_a_run_that_is_cut_off_waits_and_ends_like_any_failure(
    receive_count: int, end: type[object]
) -> None:
    pipeline = Pipeline("shop", idempotency=None)
    go_on = threading.Event()

    @pipeline.handler(sources.SQS("orders"))
    def price(order: dict[str, Any]) -> None:
        go_on.wait(30)

    async def scenario() -> Any:
        until = deadline(asyncio.get_running_loop().time(), 0.6)
        return await process(price.stage, records("{}", receive_count=receive_count), deadline=until)

    result, letters = asyncio.run(scenario())
    go_on.set()

    (outcome,) = result.outcomes
    assert type(outcome) is end
    if isinstance(outcome, Failed):
        assert outcome.delay == 2.5, "half of the first back-off, by this test's chance"
    else:
        assert letters.letters[0].exhausted


def test_a_completion_that_hangs_until_the_deadline_succeeds_and_a_fact_says_so() -> None:
    class Silent(Memory):
        async def settle(self, settlements: Any, environment: Any) -> Any:
            await asyncio.Event().wait()

    @Pipeline("shop").handler(sources.SQS("orders"))
    async def price(order: dict[str, Any]) -> None: ...

    facts: list[Fact] = []
    result, _ = virtually(
        process(
            price.stage,
            records("{}"),
            store=Silent(),
            deadline=deadline(0.0, 10.0),
            clock=VirtualClock(),
            facts=facts,
        )
    )

    assert isinstance(result.outcomes[0], Succeeded)
    (lost,) = [fact for fact in facts if isinstance(fact, CompletionLost)]
    assert "before the time was up" in str(lost.error)
