"""Pipelines whose environments die between any two steps, and whose services fail: nothing is lost, nothing done twice."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline import Context, Pipeline, sinks, sources
from pipeline.emulator.faults.kinds import Kind
from pipeline.emulator.faults.plan import Faults
from pipeline.emulator.faults.profiles import PROFILES
from pipeline.emulator.faults.rules import crash, fail_partly, repeat, skew, slow_down, throttle, time_out
from pipeline.emulator.faults.story import tell
from pipeline.testing import Emulator
from tests.emulator.faults.shops import Sold, sell

NAMES = ("a", "b", "no")
STEPS = ("claim", "handler", "sink ledger", "sink parcels.fifo", "completion", "dead letter", "acknowledgement")


@pytest.fixture(autouse=True)
def no_log() -> Iterator[None]:
    """Each failed invocation is logged, and there are many."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def check(run: Sold) -> None:
    """Each order is in the table and shipped, once; what is rejected is among the dead letters, and no other is."""
    assert sorted(run.ledger) == ["a", "b"]
    assert set(run.dead) == {"no"}
    assert set(run.shipped) == {"a", "b"}
    assert set(run.runs) == set(NAMES)


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_crash_at_any_step_loses_nothing(step: str, side: str, is_async: bool) -> None:
    run = sell(crash(function="price", **{side: step}), *NAMES, is_async=is_async)
    check(run)
    assert [(one.kind, one.point.step) for one in run.faults.fired] == [(Kind.CRASH, f"{side} {step}")]
    assert run.report["price"].failed_invocations == 1
    assert sorted(run.shipped) == ["a", "b"]  # the second handler's key is known


def test_the_handler_runs_once_when_the_environment_dies_after_the_completion_or_before_the_claim() -> None:
    for fault in (crash(before="claim", function="price"), crash(after="completion", function="price")):
        assert sorted(name for name in sell(fault, *NAMES).runs if name != "no") == ["a", "b"]
    run = sell(crash(before="completion", function="price"), *NAMES)
    assert sorted(name for name in run.runs if name != "no") == ["a", "a", "b", "b"]


def test_nothing_goes_on_in_a_dead_environment() -> None:
    shop = Pipeline("shop", log_level="CRITICAL")
    done: list[str] = []

    @shop.handler(sources.SQS("orders"), key="id")
    async def price(order: dict[str, Any], context: Context) -> None:
        try:
            if order["id"] == "slow":
                await context.clock.sleep(5)
                done.append("after the end")
        finally:
            done.append(order["id"])

    with Emulator(faults=crash(after="handler")) as aws:
        aws.add(shop)
        aws.send("orders", [{"id": "slow"}, {"id": "quick"}])
        aws.advance(60)
        assert done == ["quick"]
        aws.run()
        assert sorted(done) == ["after the end", "quick", "quick", "slow"]


def test_nothing_of_a_dead_environment_is_left_when_the_run_is_over() -> None:
    class Kept:
        pass

    held: list[weakref.ref[Kept]] = []
    shop = Pipeline("shop", log_level="CRITICAL")

    @shop.handler(sources.SQS("orders"), key="id")
    async def price(order: dict[str, Any], context: Context) -> None:
        kept = Kept()
        held.append(weakref.ref(kept))
        await context.clock.sleep(1)

    def run() -> None:
        with Emulator(faults=crash(after="handler")) as aws:
            aws.add(shop)
            aws.send("orders", [{"id": "a"}, {"id": "b"}])
            aws.run()

    run()
    gc.collect()
    assert len(held) > 2
    assert [one() for one in held if one() is not None] == []


@pytest.mark.parametrize(
    "fault",
    [
        throttle("dynamodb.batch_execute_statement"),
        throttle("dynamodb.batch_write_item"),
        throttle("sqs.send_message_batch"),
        fail_partly("dynamodb.batch_execute_statement"),
        fail_partly("dynamodb.batch_write_item"),
        fail_partly("sqs.send_message_batch"),
        time_out("dynamodb.batch_execute_statement"),
        time_out("dynamodb.batch_write_item"),
        time_out("sqs.send_message_batch"),
        slow_down("dynamodb.batch_write_item"),
        slow_down(),
        throttle(),
        crash(after="dynamodb.batch_write_item"),
        skew(times=9),
    ],
    ids=str,
)
def test_what_fails_once_is_done_in_the_end(fault: Any) -> None:
    run = sell(fault, *NAMES)
    check(run)
    assert run.faults.fired
    assert sorted(run.shipped) == ["a", "b"]


def test_the_clock_of_an_environment_is_wrong() -> None:
    times: list[float] = []
    shop = Pipeline("shop", log_level="CRITICAL")

    @shop.handler(sources.SQS("orders"))
    async def price(order: dict[str, Any], context: Context) -> None:
        times.append(context.clock.now())

    with Emulator(faults=skew()) as aws:
        aws.add(shop)
        aws.send("orders", [{}])
        start = aws.now
        aws.run()
    assert 0.001 < abs(times[0] - start) <= 2.0


def test_a_streams_batch_is_done_once_when_it_comes_again() -> None:
    seen: list[str] = []
    shop = Pipeline("shop", log_level="CRITICAL")

    @shop.handler(sources.Kinesis("clicks"), sinks=[sinks.DynamoDB("ledger")], key="id")
    async def click(one: dict[str, Any]) -> dict[str, Any]:
        seen.append(one["id"])
        return one

    for fault in (repeat(), crash(after="completion"), crash(after="claim")):
        seen.clear()
        with Emulator(faults=fault) as aws:
            aws.add(shop)
            aws.send("clicks", [{"id": "a"}, {"id": "b"}], key="k")
            report = aws.run()
            assert aws.client("dynamodb").scan(TableName="ledger")["Count"] == 2
            assert aws.faults is not None
            assert len(aws.faults.fired) == 1
        assert seen == ["a", "b"]
        assert report["click"].records == 2


@pytest.mark.parametrize("profile", PROFILES)
def test_a_pipeline_keeps_its_word_under_every_profile(profile: str) -> None:
    for seed in range(3):
        check(sell(profile, *NAMES, seed=seed))


def test_the_same_seed_is_the_same_story() -> None:
    for seed in range(3):
        assert tell(sell("everything", *NAMES, seed=seed).faults) == tell(sell("everything", *NAMES, seed=seed).faults)


def test_without_faults_and_with_none_the_run_is_the_same() -> None:
    plain = sell(None, *NAMES)
    assert (plain.runs, plain.shipped) == (sell(Faults.of(), *NAMES).runs, ["a", "b"])
